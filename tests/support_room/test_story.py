"""Whole stories: verdict, times, others; as data and as text."""

import json

import pytest

from telemetry.support import text
from telemetry.support.story import tell
from tests.support.source import MemorySource
from tests.support.spans import MS, T0, attempt, table

_FAILED = {
    "outcome": "failed",
    "error": "serverConnectionFailed",
    "stops_in": "websocket.open",
    "detail": "tcp_refused",
}
_MINUTE = 60_000 * MS


@pytest.fixture(scope="module")
def source():
    """Thirty attempts that connect, one that fails and is tried again, one session with two connections."""
    usual = [
        [
            {**row, "service_instance_id": f"other-{n}"}
            for row in attempt(n, start_ns=T0 + n * MS, downloading_ms=400 + n)
        ]
        for n in range(100, 130)
    ]
    return MemorySource(
        table(
            *usual,
            attempt(1, **_FAILED, episode=1, start_ns=T0 + _MINUTE),
            attempt(2, episode=1, attempt_number=2, start_ns=T0 + 2 * _MINUTE, session="s-2", downloading_ms=5_000),
            attempt(3, session="s-2", resumed=True, start_ns=T0 + 4 * _MINUTE, samples=8),
            attempt(4, outcome="unfinished", stops_in="assets", start_ns=T0 - 5 * _MINUTE),
        )
    )


def test_story_is_json(source):
    """A story survives JSON unchanged."""
    told = tell("attempt-0001", source).to_dict()

    assert json.loads(json.dumps(told)) == told


def test_history(source):
    """The other attempts of the episode and of the session are there, each with its distance in time."""
    told = tell("attempt-0002", source)

    assert [(other.attempt_id, other.after_ns) for other in told.history.episode] == [("attempt-0001", -_MINUTE)]
    assert [other.attempt_id for other in told.history.session] == ["attempt-0003"]
    assert [other.attempt_id for other in told.history.client_before] == ["attempt-0004", "attempt-0001"]


def test_latest_of_a_session(source):
    """A sessionId tells about its latest connection and names the earlier ones."""
    told = tell("s-2", source)

    assert told.attempt["attempt_id"] == "attempt-0003"
    assert [other.attempt_id for other in told.also] == ["attempt-0002"]


def test_cohort(source):
    """A slow step stands high among its like, with the number of the others."""
    cohort = tell("attempt-0002", source).cohort

    slow = next(standing for standing in cohort.standings if standing.name == "DownloadingAssets")
    assert cohort.enough
    assert cohort.alike == "the same hours, region, version and network"
    assert (slow.percentile, slow.n) == (100.0, 31)


def test_cohort_falls_back():
    """With too few alike the circle is widened, and when there are too few at all no percentile is given."""
    far = [attempt(n, region="us-east-1", start_ns=T0 - 30 * 60 * _MINUTE) for n in range(100, 125)]
    near = MemorySource(table(attempt(1), *far))
    few = MemorySource(table(attempt(1), attempt(2)))

    assert tell("attempt-0001", near).cohort.alike == "the same week"
    cohort = tell("attempt-0001", few).cohort
    assert not cohort.enough
    assert cohort.standings[0].percentile is None


def test_twin(source):
    """The twin is the nearest attempt that connected, and only differences are told."""
    twin = tell("attempt-0001", source).twin

    assert twin.attempt_id == "attempt-0129"
    assert twin.apart_ns == 129 * MS - _MINUTE
    assert "server_address" not in {difference.name for difference in twin.facts}
    assert ("DownloadingAssets", None, 529 * MS) in [(one.name, one.mine, one.twin) for one in twin.times]


def test_twin_prefers_its_like():
    """An attempt of the same region is a better twin than a nearer one of another."""
    source = MemorySource(
        table(attempt(1, **_FAILED), attempt(2, region="us-east-1"), attempt(3, start_ns=T0 + 60 * _MINUTE))
    )

    assert tell("attempt-0001", source).twin.attempt_id == "attempt-0003"


def test_surroundings_speak(source):
    """Others that reached the same server speak against the server."""
    told = tell("attempt-0001", source)

    assert (told.surroundings.attempts, told.surroundings.connected) == (30, 30)
    reading = told.surroundings.readings[0]
    assert "30 of 30" in reading.text
    assert "server" in reading.speaks_against


def test_surroundings_of_an_outage():
    """Others that failed alike speak for the server."""
    others = [
        [{**row, "service_instance_id": f"other-{n}"} for row in attempt(n, **_FAILED, start_ns=T0 + n * MS)]
        for n in range(100, 110)
    ]
    told = tell("attempt-0001", MemorySource(table(attempt(1, **_FAILED), *others)))

    assert "server" in told.surroundings.readings[0].speaks_for


def test_unfinished_and_heard_of_again(source):
    """A client that was heard of again did not die, which the reading says and the verdict leaves open."""
    told = tell("attempt-0004", source)

    assert told.verdict.owner == "undetermined"
    assert "client" in told.surroundings.readings[0].speaks_against


def test_text_leads_with_the_verdict(source):
    """The first line is the verdict; the page's link, the waterfall and the twin follow."""
    told = text.render(tell("attempt-0001", source).to_dict(), link="http://127.0.0.1:4380/sessions/attempt-0001")

    lines = told.splitlines()
    assert lines[0].startswith("FAILED: dp.example:443 refused the TCP connection after ")
    assert "  owner  server (likely)" in lines
    assert "http://127.0.0.1:4380/sessions/attempt-0001" in told
    for title in ("EVIDENCE", "OTHER EXPLANATIONS", "WATERFALL", "TIMELINE", "AGAINST OTHERS", "TWIN", "HISTORY"):
        assert title in lines
    assert "  DownloadingAssets            not begun / 529 ms" in lines


@pytest.mark.parametrize("id", ["attempt-0001", "attempt-0002", "attempt-0003", "attempt-0004", "attempt-0100"])
def test_any_story_is_text(source, id):
    """Every kind of attempt can be written for a terminal and for a ticket."""
    told = tell(id, source).to_dict()

    assert text.render(told)
    assert 5 <= len(text.ticket(told).splitlines()) <= 12


def test_hostile_text_cannot_steer_a_terminal():
    """Control characters in what was recorded do not reach the terminal."""
    message = "\x1b[2J\x1b]0;owned\x07 ok\r\nFAKE: all is well \u202e"
    told = tell("attempt-0001", MemorySource(table(attempt(1, **{**_FAILED, "detail": "tls"}, message=message))))

    written = text.render(told.to_dict()) + text.ticket(told.to_dict())

    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(written)
    assert not [line for line in written.splitlines() if line.startswith("FAKE")]


@pytest.mark.parametrize("trail", [[">hello", "<queue"], '[">hello","<queue"]', ">hello <queue"])
def test_trail(trail):
    """The last messages are there, whether the list came as a list, as JSON, or as words."""
    told = tell("attempt-0001", MemorySource(table(attempt(1, attributes={"dp.signalling.trail": trail}))))

    assert told.trail == (">hello", "<queue")
