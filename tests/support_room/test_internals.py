"""Dumps of Chrome's page webrtc-internals on an attempt's timeline."""

import json
from pathlib import Path

import pytest

from telemetry.errors import DecodeError
from telemetry.receiver.otlp_json import decode_json
from telemetry.support import internals
from telemetry.support.story import tell
from tests.support.source import MemorySource
from tests.support.spans import MS, T0, attempt, table

_DUMP = (Path(__file__).parent.parent / "data" / "webrtc_internals.json").read_bytes()


def _with(**entry):
    return json.dumps({"PeerConnections": {"p": {"updateLog": [{"type": "x", "value": "y", **entry}]}}}).encode()


def test_entries():
    """Every entry of the update log, and the values of the statistics that matter, are read in the order of time."""
    entries = internals.read(_DUMP)

    assert [entry.type for entry in entries if not entry.type.startswith("stats.")] == [
        "getUserMedia",
        "createOffer",
        "setLocalDescription",
        "icecandidate",
        "icecandidate",
        "iceconnectionstatechange",
        "iceconnectionstatechange",
    ]
    frames = [(entry.at_ns - T0, entry.value) for entry in entries if entry.type == "stats.IT01V-framesDecoded"]
    assert frames == [(1000 * MS, 0.0), (2000 * MS, 12.0), (3000 * MS, 37.0)]
    assert [entry.at_ns for entry in entries] == sorted(entry.at_ns for entry in entries)


def test_contents_are_dropped():
    """Session descriptions, addresses, tokens and credentials of the dump go nowhere; a candidate's type stays."""
    text = repr(internals.read(_DUMP))

    assert "typ relay" in text
    assert not [secret for secret in ("192.168", "203.0.113", "secret-of-the-user", "hunter2", "v=0") if secret in text]


@pytest.mark.parametrize(
    "time",
    [
        {"timestamp": T0 / MS},
        {"time": str(T0 // MS)},
        {"time": "2026-09-21T14:13:20.000Z"},
        {"time": "9/21/2026, 2:13:20 PM"},
        {"time": "9/21/2026, 2:13:20\u202fPM"},
    ],
)
def test_times(time):
    """The times of all versions of Chrome are understood."""
    assert [entry.at_ns for entry in internals.read(_with(**time))] == [T0]


def test_same_timeline_and_same_verdict():
    """The browser's entries stand on the attempt's timeline, shifted by its clock, and change no verdict."""
    source = MemorySource(table(attempt(1, outcome="failed", error="mediaStreamFailed")))
    before = tell("attempt-0001", source)
    request = internals.to_otlp(internals.read(_DUMP), before.attempt["trace_id"], ahead_ns=50 * MS)

    source.add(decode_json(json.dumps(request).encode(), received_ns=1).table)

    after = tell("attempt-0001", source)
    imported = [moment for moment in after.timeline if moment.kind == "imported"]
    assert (imported[0].offset_ms, imported[0].text) == (
        0,
        "webrtc-internals.getUserMedia: peer getUserMedia, value getUserMedia",
    )
    assert len(imported) == 10
    assert (after.verdict, after.attempt) == (before.verdict, before.attempt)


def test_same_dump_twice():
    """The same dump gives the same spans, so importing it twice stores it once."""
    entries = internals.read(_DUMP)

    assert internals.to_otlp(entries, "0" * 31 + "1") == internals.to_otlp(entries, "0" * 31 + "1")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"PeerConnections": []}', b"[" * 100_000])
def test_no_dump(body):
    """What is no dump is refused."""
    with pytest.raises(DecodeError):
        internals.read(body)


@pytest.mark.parametrize(
    "hostile",
    [
        {"p": None},
        {"p": {"updateLog": "x", "stats": []}},
        {"p": {"updateLog": [None, {"type": 1}, {"type": "x", "timestamp": 1e300}, {"type": "x", "timestamp": True}]}},
        {"p": {"stats": {"a-jitter": {"startTime": "x", "endTime": 0, "values": "{"}, "b-jitter": 7}}},
    ],
)
def test_hostile_dump(hostile):
    """Parts of the wrong form are passed over."""
    assert internals.read(json.dumps({"PeerConnections": hostile}).encode()) == ()
