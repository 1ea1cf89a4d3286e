"""Read the dump of Chrome's page `webrtc-internals` and lay it on an attempt's timeline. Pure: no I/O, no clock.

The dump is JSON: an object with `getUserMedia` (a list) and `PeerConnections`, which holds for each connection its
`updateLog`, a list of `{timestamp (older: time), type, value}`, and `stats`, `{startTime, endTime, values}` by name.
Each entry of an update log, and each value of a few statistics, becomes one span of zero length in the attempt's trace.
These spans carry no attempt id, so they stand on its timeline and change neither its row nor its verdict.
Session descriptions, addresses and credentials are dropped at once.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from telemetry import __version__
from telemetry.errors import DecodeError
from telemetry.support.scrub import Scrubber

SCOPE_NAME: Final = "dp-telemetry.webrtc-internals"
PREFIX: Final = "webrtc-internals"
MOST_BYTES: Final = 64 * 1024 * 1024
MOST_ENTRIES: Final = 20_000
_LONGEST_VALUE: Final = 500
_SILENT: Final = re.compile(
    "createOffer|createAnswer|setLocalDescription|setRemoteDescription|addIceCandidate|icecandidate$|iceServers",
    re.IGNORECASE,
)
"""Entries whose value is a session description, a candidate or a configuration: the moment counts, the content is not
kept."""
_CANDIDATE: Final = re.compile(r"\btyp (host|srflx|prflx|relay)\b")
_PROPERTIES: Final = frozenset(
    {
        "currentRoundTripTime",
        "framesDecoded",
        "freezeCount",
        "jitter",
        "packetsLost",
        "packetsReceived",
        "totalFreezesDuration",
    }
)
"""Statistics worth a place on the timeline; a dump has hundreds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that the browser noted."""

    at_ns: int
    peer: str
    """The peer connection, as the dump names it."""
    type: str
    value: str | float
    """Empty where the content must not leave."""


def read(body: bytes) -> tuple[Entry, ...]:
    """The entries of a dump in the order of time.

    Raises:
        DecodeError: it is no such dump, or too large.
    """
    if len(body) > MOST_BYTES:
        raise DecodeError(f"the dump has {len(body)} bytes; at most {MOST_BYTES} are read")
    try:
        dump = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DecodeError("the dump is not JSON") from error
    peers = dump.get("PeerConnections") if isinstance(dump, dict) else None
    if not isinstance(peers, dict):
        raise DecodeError("the dump has no PeerConnections: save it from chrome://webrtc-internals")
    entries: list[Entry] = []
    for peer, connection in peers.items():
        if isinstance(connection, dict):
            entries += _updates(peer, connection.get("updateLog"))
            entries += _statistics(peer, connection.get("stats"))
    media = dump.get("getUserMedia")
    entries += [entry for item in media if (entry := _user_media(item))] if isinstance(media, list) else []
    entries.sort(key=lambda entry: entry.at_ns)
    return tuple(entries[:MOST_ENTRIES])


def to_otlp(entries: Iterable[Entry], trace_id: str, *, ahead_ns: int = 0) -> dict[str, Any]:
    """The entries as an OTLP/JSON trace request in an attempt's trace; the same dump gives the same spans.

    Args:
        ahead_ns: how far the browser's clock was ahead of the attempt's; it is taken off.
    """
    spans = []
    for index, entry in enumerate(entries):
        seed = f"{trace_id} {index} {entry.peer} {entry.type} {entry.at_ns}"
        at = str(max(0, entry.at_ns - ahead_ns))
        value = {"doubleValue": entry.value} if isinstance(entry.value, float) else {"stringValue": entry.value}
        spans.append(
            {
                "traceId": trace_id,
                "spanId": hashlib.sha256(seed.encode()).hexdigest()[:16],
                "name": f"{PREFIX}.{entry.type}",
                "kind": 1,
                "startTimeUnixNano": at,
                "endTimeUnixNano": at,
                "attributes": [
                    {"key": "peer", "value": {"stringValue": entry.peer}},
                    {"key": "value", "value": value},
                ],
            }
        )
    scope = {"scope": {"name": SCOPE_NAME, "version": __version__}, "spans": spans}
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [scope]}]}


def _updates(peer: str, log: Any) -> Iterable[Entry]:
    for item in log if isinstance(log, list) else []:
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            continue
        at_ns = _time(item.get("timestamp", item.get("time")))
        if at_ns is not None:
            yield Entry(at_ns, peer, item["type"][:100], _value(item["type"], item.get("value")))


def _value(kind: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if _SILENT.search(kind):
        found = _CANDIDATE.search(text)
        return f"typ {found[1]}" if found else ""
    return Scrubber().text(text[:_LONGEST_VALUE], "value")


def _statistics(peer: str, statistics: Any) -> Iterable[Entry]:
    for name, series in (statistics if isinstance(statistics, dict) else {}).items():
        property = name.rpartition("-")[2]
        if property not in _PROPERTIES or not isinstance(series, dict):
            continue
        begin, end = _time(series.get("startTime")), _time(series.get("endTime"))
        values = series.get("values")
        try:
            numbers = json.loads(values) if isinstance(values, str) else values
        except ValueError:
            continue
        if begin is None or end is None or not isinstance(numbers, list) or not numbers:
            continue
        step = (end - begin) // max(1, len(numbers) - 1)
        for index, number in enumerate(numbers):
            if isinstance(number, int | float) and not isinstance(number, bool):
                yield Entry(begin + index * step, peer, f"stats.{name[:100]}", float(number))


def _user_media(item: Any) -> Entry | None:
    if not isinstance(item, Mapping):
        return None
    at_ns = _time(item.get("timestamp", item.get("time")))
    what = item.get("error") or item.get("request_type") or "getUserMedia"
    return None if at_ns is None else Entry(at_ns, "getUserMedia", "getUserMedia", str(what)[:_LONGEST_VALUE])


def _time(value: Any) -> int | None:
    """A moment in nanoseconds UTC: milliseconds since 1970, ISO 8601, or the American local time of older versions.

    Local time names no zone and is taken as UTC; `to_otlp` can shift it.
    """
    try:
        milliseconds = _milliseconds(value)
        # Microseconds are what a float of today's milliseconds holds.
        nanoseconds = int(milliseconds * 1000) * 1000 if milliseconds is not None else -1
    except (ValueError, OverflowError):
        return None
    return nanoseconds if 0 <= nanoseconds < 2**63 else None


def _milliseconds(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    if re.match(r"\d{4}-", value):
        moment = datetime.fromisoformat(value)
    else:
        moment = datetime.strptime(value.replace("\u202f", " "), "%m/%d/%Y, %I:%M:%S %p")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
