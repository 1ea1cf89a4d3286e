"""Durations, survival, deadlines and the queue over attempts made by hand."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.queries.asking import S, T, ask, source_of
from tests.support.spans import Row, attempt

SEARCHING, DOWNLOADING, CONNECTING = "SearchingForDigitalPerson", "DownloadingAssets", "ConnectingToDigitalPerson"
TIMED_OUT: dict[str, Any] = {"outcome": "failed", "error": "sessionTimeout", "detail": "step_deadline"}


def made(*kinds: dict[str, Any]) -> Iterator[list[Row]]:
    """One attempt of each kind, a second apart."""
    for number, kind in enumerate(kinds, 1):
        yield attempt(number, **{"start_ns": T + number * S, **kind})


def durations(*kinds: dict[str, Any]) -> dict[tuple[str, str | None], tuple[float | None, str]]:
    """The relation `durations` of some attempts: step and part to milliseconds and how it ended."""
    rows = source_of(*made(*kinds)).query("select * from durations where duration_ns is not null")
    return {(row["step"], row["part"]): (row["duration_ns"] / 1e6, row["ended"]) for row in rows.to_pylist()}


def test_durations_of_a_connection() -> None:
    """The relation has the whole way, each step, and parts that with `other` add up to their step."""
    found = durations({"searching_ms": 300, "downloading_ms": 500, "connecting_ms": 400})

    assert found["connect", None] == (1200, "completed")
    for step, whole in ((SEARCHING, 300), (DOWNLOADING, 500), (CONNECTING, 400)):
        assert found[step, None] == (whole, "completed")
        parts = [ms for (of, part), (ms, _) in found.items() if of == step and part]
        assert sum(parts) == pytest.approx(whole)
    assert {ended for _, ended in found.values()} == {"completed"}


@pytest.mark.parametrize(
    ("kind", "step", "part", "ended"),
    [
        ({"outcome": "failed", "stops_in": "webrtc.ice", "detail": "ice_no_pair"}, CONNECTING, "webrtc.ice", "failed"),
        ({**TIMED_OUT, "stops_in": "media.first_frame"}, CONNECTING, "media.first_frame", "timed_out"),
        ({"outcome": "failed", "error": "noScene", "detail": "queue_timeout"}, SEARCHING, "queue", "timed_out"),
        ({"outcome": "cancelled", "stops_in": "queue"}, SEARCHING, "queue", "cancelled"),
        ({"outcome": "cancelled", "stops_in": "websocket.open"}, SEARCHING, "websocket.open", "cancelled"),
        ({"outcome": "cancelled", "stops_in": "user_media"}, SEARCHING, "user_media", "cancelled"),
        ({"outcome": "cancelled", "stops_in": "assets"}, DOWNLOADING, "assets", "cancelled"),
        ({"outcome": "cancelled", "stops_in": "webrtc.negotiate"}, CONNECTING, "webrtc.negotiate", "cancelled"),
        ({"outcome": "cancelled", "stops_in": "webrtc.ice"}, CONNECTING, "webrtc.ice", "cancelled"),
        ({"outcome": "cancelled", "stops_in": "webrtc.dtls"}, CONNECTING, "webrtc.dtls", "cancelled"),
        ({"outcome": "unfinished", "stops_in": "assets"}, DOWNLOADING, None, "unfinished"),
    ],
)
def test_how_a_time_ended(kind: dict[str, Any], step: str, part: str | None, ended: str) -> None:
    """What stopped the attempt is how its step, its open part and the whole way ended; all before was completed."""
    found = durations(kind)

    assert found["connect", None][1] == ended
    assert found[step, None][1] == ended
    assert found[step, part][1] == ended
    stopped = {("connect", None), (step, None), (step, part)}
    assert {ended for key, (_, ended) in found.items() if key not in stopped} <= {"completed"}


def test_step_durations_count_timeouts_as_slow() -> None:
    """Ten at 100 ms to 1 s and ten that timed out at 2 s: the naive p95 is 1 s, the honest one was never reached."""
    fast = [{"connecting_ms": 100 * n} for n in range(1, 11)]
    slow = [{**TIMED_OUT, "connecting_ms": 2000}] * 10

    rows = ask(
        "step_durations",
        "attempts completed p50_ms p95_ms naive_p50_ms naive_p95_ms timed_out_ratio completed_ratio longest_ms",
        *made(*fast, *slow),
        step=CONNECTING,
    )

    assert rows == [(20, 10, 1000, None, 500, 1000, 0.5, 0.5, 2000)]


def test_step_durations_without_censoring_are_plain_percentiles() -> None:
    """Where everyone completes, the honest and the naive percentiles are the same."""
    rows = ask(
        "step_durations",
        "p50_ms p95_ms p99_ms naive_p50_ms naive_p95_ms naive_p99_ms",
        *made(*[{"downloading_ms": n} for n in range(1, 101)]),
        step=DOWNLOADING,
    )

    assert rows == [(50, 95, 99, 50, 95, 99)]


def test_step_durations_with_everything_at_once() -> None:
    """Who gives up, fails or vanishes leaves the count at that moment: Kaplan-Meier by hand.

    Of 6 at risk one is done at 100 ms, of 4 one at 200 ms, of 2 one at 300 ms; the others leave in between.
    So 5/6 wait longer than 100 ms, 5/6 x 3/4 longer than 200 ms, 5/6 x 3/4 x 1/2 longer than 300 ms.
    """
    kinds = (
        {"downloading_ms": 100},
        {"downloading_ms": 150, "outcome": "cancelled", "stops_in": "assets"},
        {"downloading_ms": 200},
        {"downloading_ms": 250, "outcome": "failed", "stops_in": "assets", "detail": "asset_failed"},
        {"downloading_ms": 300},
        {**TIMED_OUT, "downloading_ms": 400, "stops_in": "assets"},
    )

    rows = ask(
        "step_durations",
        "attempts p50_ms p95_ms naive_p50_ms cancelled_ratio failed_ratio timed_out_ratio",
        *made(*kinds),
        step=DOWNLOADING,
    )
    curve = ask(
        "survival",
        "after_ms waiting waiting_ratio completed_ratio failed_ratio cancelled_ratio",
        *made(*kinds),
        step=DOWNLOADING,
        resolution="1ms",
    )

    assert rows == [(6, 300, None, 200, 1 / 6, 1 / 6, 1 / 6)]
    near = pytest.approx
    assert curve == [
        (100, 6, near(5 / 6), near(1 / 6), 0, 0),
        (150, 5, near(5 / 6), near(1 / 6), 0, near(1 / 6)),
        (200, 4, near(5 / 8), near(2 / 6), 0, near(1 / 6)),
        (250, 3, near(5 / 8), near(2 / 6), near(1 / 6), near(1 / 6)),
        (300, 2, near(5 / 16), near(3 / 6), near(1 / 6), near(1 / 6)),
        (400, 1, near(5 / 16), near(3 / 6), near(1 / 6), near(1 / 6)),
    ]


def test_step_durations_of_parts_and_of_nothing() -> None:
    """With `parts`, the parts have rows of their own; an empty range has none; one attempt is its own percentiles."""
    one = attempt(1, start_ns=T, downloading_ms=500)

    rows = ask("step_durations", "part p50_ms p99_ms", one, parts=True, step=DOWNLOADING)

    assert rows == [(None, 500, 500), ("assets", 475, 475), ("other", 25, 25)]
    assert ask("step_durations", "step") == []
    assert ask("survival", "after_ms") == []
    lost = attempt(1, start_ns=T, outcome="unfinished", stops_in="assets")
    assert ask("step_durations", "completed p50_ms naive_p50_ms", lost, step=DOWNLOADING) == [(0, None, None)]


def test_survival_interval() -> None:
    """The interval is Greenwood's on the log-log scale: 10 of 20 done gives 0.5 (0.271, 0.692)."""
    kinds = [{"downloading_ms": 100}] * 10 + [{**TIMED_OUT, "downloading_ms": 900, "stops_in": "assets"}] * 10

    rows = ask(
        "survival", "after_ms waiting_ratio waiting_low_ratio waiting_high_ratio", *made(*kinds), step=DOWNLOADING
    )

    assert rows[0] == (100, pytest.approx(0.5), pytest.approx(0.271, abs=1e-3), pytest.approx(0.692, abs=1e-3))


def test_deadline_what_if() -> None:
    """Four timed out at 200 ms; of the four watched longer, half were done by 400 ms: two would have made it."""
    kinds = (
        *[{"downloading_ms": 100}] * 2,
        *[{**TIMED_OUT, "downloading_ms": 200, "stops_in": "assets"}] * 4,
        *[{"downloading_ms": 300}] * 2,
        *[{**TIMED_OUT, "downloading_ms": 600, "stops_in": "assets"}] * 2,
    )
    columns = (
        "limit_ms attempts completed timed_out timed_out_before_limit would_complete"
        " would_complete_low would_complete_high follow_up_ms would_be_cut"
    )

    def with_limit(limit: str) -> tuple[Any, ...]:
        (row,) = ask("deadline_what_if", columns, *made(*kinds), step=DOWNLOADING, limit=limit)
        return row

    longer = with_limit("400ms")
    assert longer[:6] == (400, 10, 4, 6, 4, pytest.approx(2.0))
    assert 0 < longer[6] < 2.0 < longer[7] < 4
    assert longer[8:] == (600, 0)
    shorter = with_limit("150ms")
    assert shorter[4:8] == (0, 0, 0, 0)
    assert shorter[9] == 2
    beyond = with_limit("1s")
    assert beyond[4:6] == (6, None)
    assert beyond[7] == 6


def test_deadline_what_if_nobody_was_watched_longer() -> None:
    """Where one limit stopped everyone at the same moment, nothing is known beyond: none to all of them."""
    kinds = ({"downloading_ms": 100}, *[{**TIMED_OUT, "downloading_ms": 200, "stops_in": "assets"}] * 3)

    rows = ask(
        "deadline_what_if", "would_complete would_complete_low would_complete_high", *made(*kinds), step=DOWNLOADING
    )

    assert rows == [(None, 0, 3)]
    assert ask("deadline_what_if", "step") == []


def test_time_to_connect() -> None:
    """A histogram per cohort; the share within a time is of all that ended, so failures keep it below 1."""
    kinds = (
        {"downloading_ms": 100},
        {"downloading_ms": 100},
        {"downloading_ms": 600},
        {"outcome": "failed"},
        {"outcome": "cancelled"},
        {"outcome": "unfinished"},
        {"synthetic": True},
        {"downloading_ms": 100, "region": "us-east-1"},
    )

    rows = ask(
        "time_to_connect",
        "value from_ms to_ms connected ended within_ratio p50_ms",
        *made(*kinds),
        by="region",
        bin="500ms",
    )

    assert rows == [
        ("eu-west-1", 500, 1000, 2, 4, 2 / 4, 800),
        ("eu-west-1", 1000, 1500, 1, 4, 3 / 4, 800),
        ("us-east-1", 500, 1000, 1, 1, 1.0, 800),
    ]
    assert ask("time_to_connect", "value", *made({"outcome": "failed"})) == []
    assert ask("time_to_connect", "value connected", *made({"relay": True}), by="relay", bin="1h") == [("relay", 1)]


def queued(wait_ms: float, **kind: Any) -> dict[str, Any]:
    """An attempt that was given a position and waited so long."""
    return {"searching_ms": wait_ms + 20, "parts": {"websocket.open": 20, "queue": wait_ms}, **kind}


QUEUE = (
    {},
    {"outcome": "failed", "error": "noScene", "detail": "busy"},
    queued(2_000, queue_positions=(2, 1)),
    queued(4_000, queue_positions=(4, 1)),
    queued(7_000, outcome="cancelled", stops_in="queue", queue_positions=(6, 3)),
    queued(9_000, outcome="failed", error="noScene", detail="queue_timeout", queue_positions=(8, 2)),
)


def with_positions(*kinds: dict[str, Any]) -> Iterator[list[Row]]:
    """Attempts whose queue span carries its positions however it ended."""
    for rows, kind in zip(made(*kinds), kinds, strict=True):
        for row in rows:
            if row["name"] == "queue" and "queue_positions" in kind:
                row["queue_position_first"], row["queue_position_last"] = kind["queue_positions"]
        yield rows


def test_queue() -> None:
    """Waits are of those who queued, and who gave up or was sent away counts as waiting until then."""
    rows = ask(
        "queue",
        "asked queued queued_ratio wait_p50_ms wait_p95_ms wait_max_ms gave_up gave_up_ratio"
        " no_scene no_scene_ratio position_mean position_max",
        *with_positions(*QUEUE),
    )

    assert rows == [(6, 4, 4 / 6, 4000, None, 9000, 1, 0.25, 2, 2 / 6, 5.0, 8)]
    assert ask("queue", "asked") == []
    assert ask("queue", "asked queued wait_p50_ms gave_up_ratio", *made({})) == [(1, 0, None, None)]


def test_queue_patience() -> None:
    """Of those still waiting when a slot begins, the share that gives up within it."""
    rows = ask(
        "queue_patience", "from_s to_s waiting admitted turned_away gave_up gave_up_ratio", *with_positions(*QUEUE)
    )

    assert rows == [(0, 5, 4, 2, 0, 0, 0), (5, 10, 2, 0, 1, 1, 0.5)]
    assert ask("queue_patience", "waiting", *made({})) == []


def test_slowest() -> None:
    """The slowest come first, whatever became of them, as a whole or in one step or part."""
    kinds = (
        {"downloading_ms": 100},
        {**TIMED_OUT, "downloading_ms": 900, "stops_in": "assets"},
        {"downloading_ms": 500},
        {"outcome": "unfinished", "stops_in": "queue"},
    )

    rows = ask("slowest", "attempt_id duration_ms ended detail", *made(*kinds), step=DOWNLOADING)
    assert rows == [
        ("attempt-0002", 900, "timed_out", "step_deadline"),
        ("attempt-0003", 500, "completed", None),
        ("attempt-0001", 100, "completed", None),
    ]
    assert ask("slowest", "attempt_id duration_ms", *made(*kinds), limit=1) == [("attempt-0003", 1200)]
    assert ask("slowest", "attempt_id duration_ms", *made(*kinds), step=DOWNLOADING, part="assets", limit=1) == [
        ("attempt-0002", 900)
    ]
    assert ask("slowest", "attempt_id", *made(*kinds), step=DOWNLOADING, ended="completed", limit=1) == [
        ("attempt-0003",)
    ]
    assert ask("slowest", "attempt_id") == []
