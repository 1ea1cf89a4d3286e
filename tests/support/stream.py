"""Requests of a fleet without end: the same sessions again and again, each time with other ids and at another time.

Made once and then patched as bytes, so that a sender costs next to nothing beside its receiver.
"""

import base64
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from telemetry import traces
from telemetry.simulator import fleet
from tests.support.otlp import Request

_TIME = re.compile(rb"[\x39\x41\x09](?=(.{6}[\xd6-\xd9]\x18))", re.DOTALL)
"""Tags of fixed64 fields, and a time of late 2026 in little-endian."""
_IDS = ("trace_id", "attempt_id", "episode_id", "session_id")


@dataclass(frozen=True)
class _Template:
    body: NDArray[np.uint8]
    times: NDArray[np.int64]
    """Where eight bytes of a time are, for each time."""
    ids: NDArray[np.int64]
    """Where the first four bytes of a binary id are."""
    texts: NDArray[np.int64]
    """Where the first eight digits of an id in hexadecimal are."""
    spans: int


class Stream:
    """Rounds of the same requests; each round has its number."""

    def __init__(self, attempts: int = 200, spans_a_request: int = 512, seed: int = 1, faster: int = 1) -> None:
        """
        Args:
            faster: than time goes. A round is of more than an hour, the longest of its sessions, and sent in a second:
                unless that is all the time it tells of, spans arrive that ended long ago.
        """
        rows = [row for table in fleet.generate(attempts, 0.002, seed) for row in table.to_pylist()]
        rows.sort(key=lambda row: row["end_ns"])
        self.last_ns: int = rows[-1]["end_ns"]
        for row in rows:
            for moment in ("start_ns", "end_ns"):
                row[moment] = self.last_ns - (self.last_ns - row[moment]) // faster
        self.spans = len(rows)
        ids = {row[name] for row in rows for name in _IDS if row[name]}
        parts = [rows[at : at + spans_a_request] for at in range(0, len(rows), spans_a_request)]
        self._templates = [_template(part, ids) for part in parts]

    @property
    def requests(self) -> int:
        """In a round."""
        return len(self._templates)

    def body(self, number: int, request: int, now_ns: int) -> tuple[bytes, int]:
        """One request of a round, and how many spans it has.

        Args:
            number: of the round, below 16**8; the first eight digits of the trace ids.
            now_ns: when the last span of the round ends.
        """
        made = self._templates[request]
        body = made.body.copy()
        times = body[made.times].view(np.uint64) + np.uint64(now_ns - self.last_ns)
        body[made.times] = times.view(np.uint8)
        body[made.ids] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
        body[made.texts] = np.frombuffer(b"%08x" % number, np.uint8)
        return body.tobytes(), made.spans


def _template(rows: list[dict[str, Any]], ids: set[str]) -> _Template:
    tree = traces.to_otlp(rows)
    _as_protobuf_json(tree)
    body = json_format.ParseDict(tree, Request()).SerializeToString()
    times = [found.end() for found in _TIME.finditer(body)]
    binary = [at for text in ids for at in _all(body, bytes.fromhex(text))]
    texts = [at for text in ids for at in _all(body, text.encode())]
    return _Template(np.frombuffer(body, np.uint8), _spread(times, 8), _spread(binary, 4), _spread(texts, 8), len(rows))


def _as_protobuf_json(node: Any) -> None:
    """OTLP's JSON has ids in hexadecimal, protobuf's own has them in base64."""
    if isinstance(node, list):
        for item in node:
            _as_protobuf_json(item)
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("traceId", "spanId", "parentSpanId"):
                node[key] = base64.b64encode(bytes.fromhex(value)).decode()
            else:
                _as_protobuf_json(value)


def _all(body: bytes, wanted: bytes) -> list[int]:
    found, at = [], body.find(wanted)
    while at >= 0:
        found.append(at)
        at = body.find(wanted, at + 1)
    return found


def _spread(starts: list[int], length: int) -> NDArray[np.int64]:
    """The places of so many bytes from each start on."""
    return np.array(starts, np.int64).reshape(-1, 1) + np.arange(length)
