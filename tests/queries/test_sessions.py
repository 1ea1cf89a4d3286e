"""Sessions, episodes, concurrency, media and the lists of attempts, over attempts made by hand."""

from typing import Any

import pytest

from telemetry import reports
from telemetry.semconv import State
from tests.queries.asking import HOUR, S, T, ask, source_of
from tests.support.spans import Row, attempt

BUSY: dict[str, Any] = {"outcome": "failed", "error": "noScene", "detail": "busy"}
FIRST_FRAME_MS = 1200
"""From connect() to the first frame of an attempt made by hand."""


def connected(number: int, at_s: float, live_s: float = 60, **kind: Any) -> list[Row]:
    """An attempt whose session is connected from `at_s` seconds after `T`."""
    start_ns = T + int(at_s * S) - FIRST_FRAME_MS * 1_000_000
    return attempt(number, start_ns=start_ns, live_ms=live_s * 1000, **kind)


def test_disconnects() -> None:
    """Ends are counted by reason and side, with how long the sessions had lasted; live ones have not ended."""
    rows = ask(
        "disconnects",
        "bucket disconnect_reason ended_by disconnect_detail sessions sessions_ratio length_p50_s detection_p50_ms",
        connected(1, 10, 100),
        connected(2, 10, 300),
        connected(3, 10, 60, disconnect="sessionTimeout", ended_by="server"),
        connected(
            4, 10, 95, disconnect="connectionLost", ended_by="network", disconnect_detail="media_silent",
            media_last_seen_ago_ms=5000,
        ),
        connected(5, 10, disconnect=None),
        attempt(6, start_ns=T, outcome="failed"),
        connected(7, 10, synthetic=True),
    )  # fmt: skip

    assert rows == [
        (0, "normal", "client", None, 2, 0.5, 200, None),
        (0, "connectionLost", "network", "media_silent", 1, 0.25, 90, 5000),
        (0, "sessionTimeout", "server", None, 1, 0.25, 60, None),
    ]
    assert ask("disconnects", "sessions") == []


def test_a_lost_connection_is_dated_back() -> None:
    """A loss counts when the media stopped, not when it was noticed: in that bucket, and in that range."""
    lost = {"disconnect": "connectionLost", "ended_by": "network", "media_last_seen_ago_ms": 30_000}
    rows = [
        connected(1, 10, 600, **lost),  # ended at 580 s, noticed at 610 s
        connected(2, 3000, 620, **lost),  # ended at 3590 s, noticed after the range
        connected(3, -100, 120, **lost),  # ended before the range, noticed in it
        connected(4, 3590, 1, disconnect="connectionLost", media_last_seen_ago_ms=99_000),  # never longer than it lived
    ]

    answer = ask("disconnects", "bucket sessions length_p50_s", *rows, bucket="10m")

    assert sorted(answer) == [(0, 1, 570), (3000, 1, 0), (3000, 1, 590)]


def test_sessions() -> None:
    """A sessionId is one session, however often it was connected again; its time connected adds up."""
    rows = ask(
        "sessions",
        "bucket accepted connected connections reconnected resumed live_p50_s"
        " ended_normal ended_connection_lost not_ended",
        connected(1, 10, 100, session="s", disconnect="connectionLost"),
        connected(2, 200, 50, session="s", resumed=True),
        connected(3, 20, 60),
        connected(4, 30, disconnect=None),
        attempt(5, start_ns=T + 40 * S, outcome="failed", stops_in="assets"),
        attempt(6, start_ns=T + 50 * S, outcome="failed", stops_in="queue"),
    )

    assert rows == [(0, 4, 3, 5, 1, 1, 105, 2, 0, 1)]
    assert ask("sessions", "accepted") == []


EPISODES = (
    attempt(1, start_ns=T),
    attempt(2, start_ns=T + 10 * S, episode=2, **BUSY),
    attempt(3, start_ns=T + 20 * S, episode=2, attempt_number=2),
    attempt(4, start_ns=T + 30 * S, episode=4, **BUSY),
    attempt(5, start_ns=T + 40 * S, episode=4, **BUSY),
    attempt(6, start_ns=T + 50 * S, outcome="cancelled"),
    attempt(7, start_ns=T + 60 * S, outcome="unfinished"),
    attempt(8, start_ns=T + 70 * S, episode=8, **BUSY),
    attempt(9, start_ns=T + 80 * S, episode=8, outcome="cancelled"),
)


def test_episodes() -> None:
    """First try, in the end, or never: of those who got through or failed; who only gave up or vanished is apart."""
    rows = ask(
        "episodes",
        "episodes decided first_try_ratio eventual_ratio gave_up_ratio tries_mean first_success_p50_ms"
        " cancelled unfinished",
        *EPISODES,
    )

    assert rows == [(6, 4, 1 / 4, 2 / 4, 2 / 4, 1.5, (1_200 + 11_200) / 2, 1, 1)]
    assert ask("episodes", "episodes") == []
    assert ask("episodes", "decided eventual_ratio", EPISODES[5]) == [(0, None)]


def test_tries() -> None:
    """How many got through with their first, second, third try."""
    rows = ask("tries", "tries connected gave_up connected_by_ratio", *EPISODES)

    assert rows == [(1, 1, 0, 1 / 4), (2, 1, 2, 2 / 4)]
    assert ask("tries", "tries") == []


def test_concurrency() -> None:
    """Open sessions per bucket: at its start, on average, at most; empty buckets carry on; edges are cut."""
    sessions = (
        connected(1, -100, 700),  # before the range until 600 s
        connected(2, 300, 600),  # 300 s to 900 s
        connected(3, 500, 200),  # 500 s to 700 s
        connected(4, 3500, 1000),  # beyond the range
        connected(5, 5000),  # after it
        attempt(6, start_ns=T + 700 * S, **BUSY),
        connected(7, 10, synthetic=True),
    )

    rows = ask("concurrency", "bucket open_at_start open_at_end mean peak no_scene", *sessions, bucket="20m")

    assert rows == [
        (0, 1, 0, pytest.approx((600 + 600 + 200) / 1200), 3, 1),
        (1200, 0, 0, 0, 0, 0),
        (2400, 0, 1, pytest.approx(100 / 1200), 1, 0),
    ]
    assert ask("concurrency", "bucket peak", bucket="30m") == [(0, 0), (1800, 0)]


def test_concurrency_of_sessions_without_an_end() -> None:
    """A session that fell silent is open until it was last heard of; one heard of just now is open still."""
    silent = connected(1, 100, disconnect=None, samples=10, sample_every_ms=10_000)  # last heard of at 200 s

    def mean(now: int) -> Any:
        return ask("concurrency", "mean", silent, bucket="1h", now=now)[0][0]

    assert mean(T + HOUR) == pytest.approx(100 / 3600)
    assert mean(T + 300 * S) == pytest.approx(3500 / 3600)


def test_saturation() -> None:
    """Each attempt counts at the number of sessions that were open when it began."""
    rows = ask(
        "saturation",
        "open_from open_to attempts no_scene no_scene_ratio",
        connected(1, 10, 1000),
        connected(2, 20, 1000),
        attempt(3, start_ns=T + 30 * S, **BUSY),
        attempt(4, start_ns=T + 40 * S, outcome="cancelled"),
        attempt(5, start_ns=T + 2000 * S, outcome="failed"),
        band=2,
    )

    assert rows == [(0, 1, 3, 0, 0), (2, 3, 2, 1, 0.5)]
    assert ask("saturation", "attempts") == []


def test_saturation_of_many() -> None:
    """Hundreds of sessions are counted like a few."""
    crowd = [connected(number, 10 + number / 100, 1000) for number in range(1, 301)]

    rows = ask("saturation", "open_from attempts no_scene", *crowd, attempt(400, start_ns=T + 60 * S, **BUSY), band=150)

    assert rows[-1] == (300, 1, 1)


def samples(number: int, at_s: float, *values: dict[str, Any], **kind: Any) -> list[Row]:
    """A session with one sample a minute, each with its own values."""
    rows = connected(number, at_s, 600, samples=len(values), sample_every_ms=60_000, **kind)
    for row, value in zip([row for row in rows if row["name"] == "sample"], values, strict=True):
        row |= value
    return rows


def test_media_quality() -> None:
    """Loss is between samples of a session; poor and frozen are shares of what was measured."""
    first = samples(
        1,
        0,
        {"video_packets_lost": 0, "video_packets_received": 100, "rtt_s": 0.1, "video_frames_decoded": 10},
        {"video_packets_lost": 10, "video_packets_received": 190, "rtt_s": 0.5, "video_frames_decoded": 20},
        {"video_packets_lost": 10, "video_packets_received": 290, "video_frames_decoded": 20, "video_frozen_ms": 900},
        {"video_packets_lost": 5, "video_packets_received": 10},
    )

    rows = ask(
        "media_quality",
        "connections samples video_loss_ratio video_loss_poor_ratio rtt_p50_ms rtt_poor_ratio frozen_ratio"
        " audio_loss_ratio video_jitter_p50_ms video_jitter_poor_ratio",
        first,
    )

    assert rows == [
        (1, 4, 10 / 300, 1 / 3, pytest.approx(300), 0.5, pytest.approx(1 / 3), None, None, None),
    ]
    assert ask("media_quality", "samples", connected(1, 0)) == []


def test_media_quality_at_the_edge_of_the_range() -> None:
    """A counter that began before the range has no difference at its first sample there; cohorts are apart."""
    counted = [{"audio_packets_lost": 10 * n, "audio_packets_received": 90 * n} for n in range(1, 5)]

    rows = ask(
        "media_quality",
        "bucket value samples audio_loss_ratio",
        samples(1, -90, *counted, region="eu-west-1"),
        samples(2, 0, *counted[:1], region=None),
        by="region",
        bucket="2m",
    )

    assert rows == [
        (0, "eu-west-1", 2, pytest.approx(0.1)),
        (0, "unknown", 1, pytest.approx(0.1)),
        (120, "eu-west-1", 1, pytest.approx(0.1)),
    ]


def test_recent() -> None:
    """The newest attempts come first, each with its outcome, verdict and times; filters narrow the list."""
    attempts = (
        connected(1, 10, 60),
        attempt(2, start_ns=T + 20 * S, message="busy", **BUSY),
        attempt(3, start_ns=T + 30 * S, outcome="unfinished", stops_in="assets"),
        attempt(4, start_ns=T + 40 * S, synthetic=True),
    )

    rows = ask("recent", "start attempt_id outcome detail connecting_ms connected_s message", *attempts)

    assert rows == [
        (30, "attempt-0003", "unfinished", None, 300, None, None),
        (20, "attempt-0002", "failed", "busy", 300, None, "busy"),
        (8.8, "attempt-0001", "connected", None, 1200, 60, None),
    ]
    assert ask("recent", "attempt_id", *attempts, limit=1) == [("attempt-0003",)]
    assert ask("recent", "attempt_id", *attempts, outcome="failed", owner="capacity") == [("attempt-0002",)]
    assert ask("recent", "attempt_id", *attempts, order="slowest", limit=1) == [("attempt-0001",)]
    assert ask("recent", "attempt_id", *attempts, at_least="1200ms") == [("attempt-0001",)]
    assert ask("recent", "attempt_id", *attempts, below="1200ms", outcome="failed") == [("attempt-0002",)]
    assert ask("recent", "attempt_id", *attempts, disconnect_reason="normal", ended_by="client") == [("attempt-0001",)]
    assert ask("recent", "attempt_id", *attempts, disconnect_detail="socket_lost") == []
    assert ask("recent", "attempt_id") == []


def test_unfinished() -> None:
    """What began, never ended and fell silent is listed with the last step that it entered."""
    attempts = (
        attempt(1, start_ns=T, outcome="unfinished", stops_in="queue"),
        attempt(2, start_ns=T + 10 * S, outcome="unfinished", stops_in="webrtc.ice"),
        connected(3, 100, disconnect=None, samples=2),
        connected(4, 100),
        attempt(5, start_ns=T + 20 * S, **BUSY),
    )

    rows = ask("unfinished", "attempt_id last_step silent_s", *attempts, now=T + 1110 * S)

    assert rows == [
        ("attempt-0003", State.CONNECTED, 1000),
        ("attempt-0002", State.CONNECTING, pytest.approx(1099.12)),
        ("attempt-0001", State.SEARCHING, pytest.approx(1109.88)),
    ]
    assert ask("unfinished", "attempt_id", *attempts, now=T + 60 * S) == []


def test_timeline() -> None:
    """All spans of all attempts that share the id, in order of time, the longer first where they begin together."""
    first = attempt(1, start_ns=T, session="s", live_ms=1000)
    second = attempt(2, start_ns=T + 10 * S, session="s", outcome="unfinished", stops_in="assets")
    other = attempt(3, start_ns=T + 5 * S)

    rows = ask("timeline", "start name attempt_id", first, second, other, id="s")

    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert rows[0] == (0, "connect", "attempt-0001")
    assert len(rows) == len(first) + len(second)
    for id, number in (("attempt-0003", 3), ("episode-0003", 3), (f"{3:032x}", 3)):
        assert {row[0] for row in ask("timeline", "attempt_id", first, second, other, id=id)} == {
            f"attempt-{number:04d}"
        }
    assert ask("timeline", "name", first, id="nothing") == []
    assert len(ask("timeline", "name", first, second, id="s", since=T + 9 * S)) == len(second)


def test_ingest_health() -> None:
    """Arrivals are added up per bucket, transport and reason, with shares of late, early and repeated spans."""
    source = source_of()
    ledger = """insert into ledger values
      ({t}, 'grpc', 'accepted', 2, 90, 10, 0, null, 90000, 5000, 9, 0, null),
      ({t} + 61000000000, 'grpc', 'accepted', 1, 10, 0, 0, null, 10000, 70000, 1, 5, 1500),
      ({t}, 'http/json', 'bad id', 1, 0, 0, 3, 'span x', 0, null, 0, 0, null),
      ({t} - 60000000000, 'grpc', 'accepted', 1, 1, 0, 0, null, 0, 0, 0, 0, null)"""
    source._connection.execute(ledger.format(t=T))

    rows = reports.execute("ingest_health", {"since": T, "until": T + HOUR}, source).to_pylist()

    columns = (
        "transport reason requests stored duplicates rejected duplicates_ratio late_ratio ahead_ratio lateness_mean_ms"
    )
    assert [tuple(row[column] for column in columns.split()) for row in rows] == [
        ("grpc", "accepted", 3, 100, 10, 0, 10 / 110, 0.1, 0.05, 1000),
        ("http/json", "bad id", 1, 0, 0, 3, None, None, None, None),
    ]
    assert rows[1]["example"] == "span x"
