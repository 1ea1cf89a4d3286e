"""Failure rate, funnel, errors, cohorts, changes and verdicts over attempts made by hand."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.queries.asking import HOUR, S, T, ask
from tests.support.spans import Row, attempt

BUSY: dict[str, Any] = {"outcome": "failed", "error": "noScene", "detail": "busy"}
DENIED: dict[str, Any] = {
    "outcome": "failed",
    "error": "noUserMedia",
    "detail": "permission_denied",
    "media": "microphone",
}
NO_PAIR: dict[str, Any] = {"outcome": "failed", "error": "mediaStreamFailed", "detail": "ice_no_pair"}


def made(*kinds: dict[str, Any], first: int = 1, start_ns: int = T) -> Iterator[list[Row]]:
    """One attempt of each kind, a second apart."""
    for number, kind in enumerate(kinds, first):
        yield attempt(number, **{"start_ns": start_ns + number * S, **kind})


def wilson(failed: int, attempts: int) -> tuple[float, float]:
    """The 95 % interval as the textbook has it."""
    z, share = 1.959964, failed / attempts
    middle = (share + z * z / 2 / attempts) / (1 + z * z / attempts)
    half = z / (1 + z * z / attempts) * math.sqrt(share * (1 - share) / attempts + z * z / 4 / attempts**2)
    return middle - half, middle + half


MIXED = (
    *({},) * 6,
    *(BUSY,) * 2,
    DENIED,
    {"outcome": "cancelled"},
    {"outcome": "unfinished"},
    {"synthetic": True},
    {**BUSY, "synthetic": True},
)


def test_failure_rate() -> None:
    """Failures are counted over what ended; cancelled, unfinished and synthetic attempts stand beside the rate."""
    rows = ask(
        "failure_rate",
        "bucket value attempts ended failed failure_ratio failure_low_ratio failure_high_ratio"
        " service_failure_ratio cancelled unfinished lost_ratio probes",
        *made(*MIXED),
    )

    low, high = wilson(3, 9)
    assert rows == [
        (0, "all", 11, 9, 3, 3 / 9, pytest.approx(low), pytest.approx(high), 2 / 8, 1, 1, pytest.approx(1 / 11), 2)
    ]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("reason", [("noScene", 2), ("noUserMedia", 1)]),
        ("detail", [("busy", 2), ("permission_denied", 1)]),
        ("step", [("SearchingForDigitalPerson", 3)]),
        ("part", [("queue", 2), ("user_media", 1)]),
        ("owner", [("capacity", 2), ("user", 1)]),
    ],
)
def test_failure_rate_told_apart(by: str, expected: list[tuple[str, int]]) -> None:
    """Each reason's rate is over all attempts of its bucket, so the rates of a bucket add up to the whole."""
    rows = ask("failure_rate", "value failed failure_ratio ended", *made(*MIXED), by=by)

    assert rows == [(value, failed, failed / 9, 9) for value, failed in expected]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), []),
        (({},), [(1, 0, 0.0, 0.0)]),
        ((BUSY,), [(1, 1, 1.0, pytest.approx(wilson(1, 1)[0]))]),
        ((BUSY, BUSY), [(2, 2, 1.0, pytest.approx(wilson(2, 2)[0]))]),
        (({"outcome": "cancelled"},), [(0, 0, None, None)]),
        (({"outcome": "unfinished"},), [(0, 0, None, None)]),
        (({"synthetic": True},), [(0, 0, None, None)]),
    ],
)
def test_failure_rate_at_its_ends(kinds: tuple[dict[str, Any], ...], expected: list[tuple[Any, ...]]) -> None:
    """Nothing found is no row; nothing that ended has no rate; none and all failing have rates of exactly 0 and 1."""
    assert ask("failure_rate", "ended failed failure_ratio failure_low_ratio", *made(*kinds)) == expected


def test_failure_rate_counts_probes_on_request() -> None:
    """With `synthetic`, probes are attempts like any other."""
    rows = ask("failure_rate", "ended failed probes", *made(*MIXED), synthetic=True)

    assert rows == [(11, 4, 0)]


def test_failure_rate_in_buckets_and_at_the_edges() -> None:
    """An attempt belongs to the bucket and the range in which it began, however long it takes."""
    attempts = [
        attempt(1, start_ns=T - 1),
        attempt(2, start_ns=T, **BUSY),
        attempt(3, start_ns=T + 600 * S - 1),
        attempt(4, start_ns=T + 600 * S),
        attempt(5, start_ns=T + HOUR - 1, **BUSY),
        attempt(6, start_ns=T + HOUR),
    ]

    rows = ask("failure_rate", "bucket ended failed", *attempts, bucket="10m")

    assert rows == [(0, 2, 1), (600, 1, 0), (3000, 1, 1)]
    late = ask("failure_rate", "bucket ended", *attempts, bucket="10m", since=T + 300 * S)
    assert late[0] == (300, 1)


def test_unfinished_attempts_are_lost_after_three_minutes() -> None:
    """An attempt that may still be on its way is unfinished, but no loss of telemetry."""
    unfinished = attempt(1, start_ns=T, outcome="unfinished", stops_in="assets")

    for now, lost in ((T + 2 * S, 0.0), (T + 181 * S, 1.0)):
        assert ask("failure_rate", "unfinished lost_ratio", unfinished, now=now) == [(1, lost)]


def test_filters() -> None:
    """Every cohort filter leaves only its own attempts."""
    attempts = [
        attempt(1, start_ns=T),
        attempt(2, start_ns=T, region="us-east-1"),
        attempt(3, start_ns=T, client_version="2.0.0"),
        attempt(4, start_ns=T, runtime="pypy"),
        attempt(5, start_ns=T, network_type="cell"),
        attempt(6, start_ns=T, server_address="other.example"),
        attempt(7, start_ns=T, environment="staging"),
    ]

    for column, value in (
        ("region", "us-east-1"),
        ("client_version", "2.0.0"),
        ("runtime", "pypy"),
        ("network_type", "cell"),
        ("server_address", "other.example"),
        ("environment", "staging"),
    ):
        assert ask("failure_rate", "ended", *attempts, **{column: value}) == [(1,)], column
        assert len(ask("step_durations", "attempts", *attempts, step="connect", **{column: value})) == 1
    assert ask("failure_rate", "ended", *attempts) == [(7,)]


def test_funnel() -> None:
    """The funnel counts who entered each step and what became of those who did not pass; it ends at the first frame."""
    rows = ask(
        "funnel",
        "step attempts reached_ratio passed_ratio lost failed cancelled unfinished main_detail",
        *made(
            {},
            {},
            BUSY,
            BUSY,
            DENIED,
            {"outcome": "cancelled", "stops_in": "assets"},
            {"outcome": "unfinished", "stops_in": "webrtc.ice"},
            NO_PAIR,
            {"synthetic": True},
        ),
    )

    assert rows == [
        ("SearchingForDigitalPerson", 8, 1.0, 5 / 8, 3, 3, 0, 0, "busy"),
        ("DownloadingAssets", 5, 5 / 8, 4 / 5, 1, 0, 1, 0, None),
        ("ConnectingToDigitalPerson", 4, 4 / 8, 2 / 4, 2, 1, 0, 1, "ice_no_pair"),
        ("Connected", 2, 2 / 8, None, None, 0, 0, 0, None),
    ]
    assert ask("funnel", "step") == []


def test_errors() -> None:
    """Errors are grouped with their first and last time, whom they met, and attempts to open."""
    rows = ask(
        "errors",
        "error_type failing_step detail attempts failed_ratio episodes first_seen last_seen"
        " message first_attempt_id last_attempt_id",
        *made(
            {**BUSY, "message": "busy at 1"},
            {**BUSY, "episode": 1, "message": "busy at 2"},
            NO_PAIR,
            {},
            {"outcome": "cancelled"},
            {"outcome": "unfinished"},
        ),
    )

    search, connecting = "SearchingForDigitalPerson", "ConnectingToDigitalPerson"
    assert rows == [
        ("noScene", search, "busy", 2, 2 / 3, 1, 1, 2, "busy at 2", "attempt-0001", "attempt-0002"),
        (
            *("mediaStreamFailed", connecting, "ice_no_pair", 1, 1 / 3, 1, 3, 3),
            *("mediaStreamFailed while ConnectingToDigitalPerson", "attempt-0003", "attempt-0003"),
        ),
    ]
    assert ask("errors", "message", *made({}, {})) == []


def test_errors_by_message() -> None:
    """With `by` message, each text has a row of its own."""
    attempts = made({**BUSY, "message": "a"}, {**BUSY, "message": "b"}, {**BUSY, "message": "b"})

    assert ask("errors", "message attempts", *attempts, by="message") == [("b", 2), ("a", 1)]


def test_verdicts() -> None:
    """The fleet's verdicts are counted by rule; what is nobody's fault is left out unless asked for."""
    attempts = list(made({}, {}, BUSY, BUSY, DENIED))

    rows = ask("verdicts", "owner rule attempts attempts_ratio last_attempt_id", *attempts)

    assert [(owner, attempts, ratio, last) for owner, _, attempts, ratio, last in rows] == [
        ("capacity", 2, 0.4, "attempt-0004"),
        ("user", 1, 0.2, "attempt-0005"),
    ]
    assert ask("verdicts", "owner attempts", *attempts, all=True, owner="nobody") == [("nobody", 2)]


def test_cohorts() -> None:
    """A cohort that fails more than the rest stands out, with the rate of the rest and its lift."""
    good = [{"region": "us-east-1"}] * 40 + [{"region": "eu-west-1"}] * 20
    attempts = made(*good, *[{**BUSY, "region": "eu-west-1", "episode": 61}] * 20)

    rows = ask(
        "cohorts",
        "dimension value attempts failed expected failure_ratio rest_ratio lift stands_out"
        " failed_episodes failed_clients",
        *attempts,
        least=10,
    )

    assert rows[0] == ("region", "eu-west-1", 40, 20, 10, 0.5, 0.0, None, True, 1, 1)
    assert ("region", "us-east-1", 40, 0, 10, 0.0, 0.5, 0.0, False, 0, 0) in rows
    assert [row[:2] for row in rows if row[8]] == [("region", "eu-west-1")]


def test_cohorts_are_not_ranked_on_a_few() -> None:
    """Below the least number of attempts nothing is compared, whatever its rate."""
    attempts = list(made({}, {}, {}, {**BUSY, "region": "us-east-1"}))

    assert [row for row in ask("cohorts", "value", *attempts, least=2) if row[0] == "us-east-1"] == []
    assert ask("cohorts", "value", *attempts) == []
    assert ask("cohorts", "value") == []


def test_cohorts_count_small_clients_in_the_rest() -> None:
    """A client with too few attempts is not shown, and still is among those that a large one is compared with."""
    attempts = list(made(*[BUSY] * 15, *[{}] * 15, *[{}] * 20, BUSY))
    for number, rows in enumerate(attempts):
        for row in rows:
            row["service_instance_id"] = "kiosk-7" if number < 30 else f"kiosk-{number + 100}"

    rows = ask(
        "cohorts", "dimension value attempts failed rest_attempts rest_ratio failed_clients", *attempts, least=10
    )

    assert [row for row in rows if row[0] == "client"] == [("client", "kiosk-7", 30, 15, 21, 1 / 21, 1)]
    assert ("region", "eu-west-1", 51, 16, 0, None, 2) in rows


def test_cohorts_see_through_one_heavy_client() -> None:
    """A cohort that stands out because of one client says so, with its rate without that client."""
    heavy = [{**BUSY, "network_type": "cell"}] * 30
    attempts = [
        *made(*heavy),
        *made(*[{"network_type": "cell"}] * 30, first=100),
        *made(*[{"network_type": "wifi"}] * 60, first=200),
    ]
    for number, rows in enumerate(attempts):
        for row in rows:
            row["service_instance_id"] = "kiosk-7" if number < 30 else f"kiosk-{number % 20 + 10}"

    rows = ask(
        "cohorts", "dimension value stands_out top_client top_client_ratio without_top_ratio is_one_client", *attempts,
        least=30,
    )  # fmt: skip

    assert ("client", "kiosk-7", True, "kiosk-7", 1.0, None, False) in rows
    assert ("network_type", "cell", True, "kiosk-7", 1.0, 0.0, True) in rows


def test_a_bad_hour_is_not_a_bad_cohort() -> None:
    """A version that was tried mostly while everyone failed has more failures, and no more than its hours explain."""
    bad = [{**BUSY, "client_version": "2"}] * 45 + [{**BUSY, "client_version": "1"}] * 5
    good = [{"client_version": "1"}] * 45 + [{"client_version": "2"}] * 5

    rows = ask(
        "cohorts",
        "value expected lift stands_out",
        *made(*bad),
        *made(*good, first=100, start_ns=T + HOUR),
        until=T + 2 * HOUR,
    )

    assert ("2", 45, 9.0, False) in rows


def test_cohorts_in_pairs() -> None:
    """With `pairs`, a fault that needs two things at once is found as the pair of them."""
    kinds = [
        {"region": region, "client_version": version, **(NO_PAIR if region == "eu" and version == "2" else {})}
        for region in ("eu", "us")
        for version in ("1", "2")
        for _ in range(30)
    ]

    rows = ask("cohorts", "dimension value failure_ratio stands_out", *made(*kinds), least=10, pairs=True)

    assert ("region, client_version", "eu, 2", 1.0, True) in rows
    assert ("region", "eu", 0.5, True) in rows


def test_changes() -> None:
    """Two windows are compared per step, reason and detail, with an interval for the difference."""
    before = made(*[{}] * 100, *[BUSY] * 1, first=1, start_ns=T - HOUR)
    after = made(*[{}] * 60, *[BUSY] * 40, *[DENIED] * 1, first=200)

    rows = ask(
        "changes",
        "detail before_failed before_attempts after_failed after_attempts difference_ratio is_significant",
        *before,
        *after,
    )

    assert rows == [
        ("all", 1, 101, 41, 101, pytest.approx(40 / 101), True),
        ("busy", 1, 101, 40, 101, pytest.approx(39 / 101), True),
        ("permission_denied", 0, 101, 1, 101, pytest.approx(1 / 101), False),
    ]


def test_the_interval_of_a_change() -> None:
    """The interval of a difference is Newcombe's: his example of 56/70 against 48/80 is 0.2 (0.0524, 0.3339)."""
    before = made(*[BUSY] * 48, *[{}] * 32, start_ns=T - HOUR)
    after = made(*[BUSY] * 56, *[{}] * 14, first=200)

    rows = ask("changes", "detail difference_ratio difference_low_ratio difference_high_ratio", *before, *after)

    assert rows[0] == ("all", pytest.approx(0.2), pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_changes_between_chosen_windows() -> None:
    """The window before can be chosen; with nothing in it there is no rate to compare."""
    attempts = [*made(*[{}] * 3, start_ns=T - 5 * HOUR), *made(BUSY, first=100)]

    chosen = ask(
        "changes", "detail before_attempts before_ratio after_ratio is_significant", *attempts,
        before_since=T - 6 * HOUR, before_until=T - 4 * HOUR,
    )  # fmt: skip
    usual = ask("changes", "detail before_attempts before_ratio difference_ratio", *attempts)

    assert chosen == [("all", 3, 0.0, 1.0, False), ("busy", 3, 0.0, 1.0, False)]
    assert usual == [("all", 0, None, None), ("busy", 0, None, None)]
    assert ask("changes", "detail") == []
