"""Finding the attempt that an id means."""

import pytest

from telemetry.errors import SessionNotFound
from telemetry.support.find import resolve
from tests.support.source import MemorySource
from tests.support.spans import T0, attempt, foreign, table

_HOUR = 3_600_000_000_000
_FAILED = {"outcome": "failed", "error": "serverConnectionFailed"}


@pytest.fixture(scope="module")
def source():
    return MemorySource(
        table(
            attempt(1, **_FAILED, episode=7),
            attempt(2, episode=7, start_ns=T0 + _HOUR, attempt_number=2),
            attempt(3, session="sess-b0b", start_ns=T0 + 2 * _HOUR),
            attempt(4, session="sess-b0b", start_ns=T0 + 3 * _HOUR, resumed=True),
            foreign(9),
        )
    )


@pytest.mark.parametrize(
    ("asked", "kind", "attempts"),
    [
        ("attempt-0001", "attempt", ["attempt-0001"]),
        ("session-0002", "session", ["attempt-0002"]),
        ("sess-b0b", "session", ["attempt-0004", "attempt-0003"]),
        ("episode-0007", "episode", ["attempt-0002", "attempt-0001"]),
        (f"{1:032x}", "trace", ["attempt-0001"]),
        (f"{1:032X}", "trace", ["attempt-0001"]),
        ("sess-b", "session", ["attempt-0004", "attempt-0003"]),
        ("  attempt-0001\n", "attempt", ["attempt-0001"]),
        ("https://pages.example/sessions/sess-b0b?x=1#top", "session", ["attempt-0004", "attempt-0003"]),
        ("noScene in Searching (busy): all busy [attempt attempt-0001]", "attempt", ["attempt-0001"]),
        ("2026-09-21T14:13:20Z ERROR session.id=sess-b0b closed.", "session", ["attempt-0004", "attempt-0003"]),
        (f"traceparent: 00-{1:032x}-00f067aa0ba902b7-01", "trace", ["attempt-0001"]),
        ('{"sessionId":"sess-b0b"}', "session", ["attempt-0004", "attempt-0003"]),
    ],
)
def test_resolves(source, asked, kind, attempts):
    """Any id, a unique beginning of one, and text with one in it are found; the latest attempt comes first."""
    found = resolve(asked, source)

    assert found.kind == kind
    assert [one.attempt_id for one in found.attempts] == attempts


def test_ambiguous_beginning(source):
    """A beginning that several ids share lists them."""
    with pytest.raises(SessionNotFound, match="begins 4 ids") as raised:
        resolve("attempt-000", source)

    assert "attempt-0003" in raised.value.nearest


def test_short_beginning(source):
    """Three characters are too few to look up."""
    with pytest.raises(SessionNotFound, match="at least 4"):
        resolve("att", source)


def test_nearest(source):
    """A slip of the pen is answered with the nearest id and the time that the store covers."""
    with pytest.raises(SessionNotFound) as raised:
        resolve("attemtp-0001", source)

    assert raised.value.nearest[0] == "attempt-0001"
    assert raised.value.since_ns == T0


@pytest.mark.parametrize(
    ("about_ns", "says"),
    [
        (T0 - _HOUR, "not recorded.*retention"),
        (T0 + 9 * _HOUR, "not recorded.*last telemetry"),
        (T0 + _HOUR, "not found, though the store covers"),
        (None, "the store covers 2026-09-21"),
    ],
)
def test_not_found_or_not_recorded(source, about_ns, says):
    """What the store does not cover is told apart from what it covers and does not have."""
    with pytest.raises(SessionNotFound, match=says):
        resolve("nothing-like-it", source, about_ns=about_ns)


def test_moment_in_text(source):
    """The time in a pasted log line says whether it could have been recorded."""
    with pytest.raises(SessionNotFound, match="retention"):
        resolve("2020-01-01 10:00:00 session zzzz-unheard-of failed", source)


def test_empty_store():
    """An empty store says so."""
    with pytest.raises(SessionNotFound, match="no telemetry has arrived"):
        resolve("attempt-0001", MemorySource())


def test_foreign_trace(source):
    """A trace that holds no attempt is told apart from one that is not there."""
    with pytest.raises(SessionNotFound, match="10 spans of shop"):
        resolve(f"f{9:031x}", source)


@pytest.mark.parametrize("text", ["", "'", "%%%%", "\x00\x00\x00\x00", "a" * 100_000, "‮4b7c"])
def test_hostile_text(source, text):
    """Whatever is pasted, the answer is that it is not found."""
    with pytest.raises(SessionNotFound):
        resolve(text, source)
