"""The spans of a synthetic fleet: from arrays of facts to an Arrow table with the receiver's columns.

Every column is filled as a whole; there is no loop over spans. No I/O, no clock.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from telemetry import semconv
from telemetry.receiver.otlp import SPANS_SCHEMA
from telemetry.semconv import Part, Span, State
from telemetry.simulator import fleet
from telemetry.simulator.fleet import ENDINGS, FAILURES, ROW, SEGMENTS, STEP_LIMITS_NS, STEP_ROWS, Facts

_STEPS: Final = tuple(STEP_LIMITS_NS)
_OUTCOMES: Final = ("connected", "failed", "cancelled", "unfinished")
_MESSAGES: Final = tuple(dict.fromkeys(failure.message for failure in FAILURES))
_DETAILS: Final = tuple(dict.fromkeys(failure.detail for failure in FAILURES))
_ERRORS: Final = tuple(semconv.ConnectionError)
_PARTS: Final = tuple(dict.fromkeys(part for _, part in SEGMENTS if part))
_NAMES: Final = (Span.CONNECT, Span.TRANSITION, Span.SAMPLE, *_STEPS, State.CONNECTED, *_PARTS)
_STATES: Final = tuple(State)
_SECONDS_PER_FRAME: Final = 1 / 25
_VIDEO_PACKETS_PER_S: Final = 90
_AUDIO_PACKETS_PER_S: Final = 50
_BYTES_PER_S: Final = 160_000

_STEP_ATTRIBUTES: Final = tuple(
    json.dumps(
        {semconv.STEP_PERCENTAGE: state.percentage, semconv.STEP_LIMIT_MS: STEP_LIMITS_NS[state] // 1_000_000},
        separators=(",", ":"),
    )
    for state in _STEPS
)
_ASSETS_ATTRIBUTES: Final = tuple(
    json.dumps({semconv.ASSETS_BYTES_LOADED: size, semconv.ASSETS_BYTES_TOTAL: size}, separators=(",", ":"))
    for size in (3_800_000, 5_200_000, 9_400_000, 14_000_000)
)
_ATTRIBUTES: Final = (*_STEP_ATTRIBUTES, *_ASSETS_ATTRIBUTES)
_RESOURCE: Final = json.dumps(
    {"telemetry.sdk.language": "python", "telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": "1.45.2"},
    separators=(",", ":"),
)

_VOCABULARY: Final[dict[str, Sequence[str]]] = {
    "name": _NAMES,
    "kind": ("INTERNAL", "CLIENT"),
    "status_code": ("UNSET", "ERROR"),
    "status_message": _MESSAGES,
    "outcome": _OUTCOMES,
    "error_type": _ERRORS,
    "failing_step": _STATES,
    "failing_part": _PARTS,
    "detail": _DETAILS,
    "media_requested": fleet.MEDIA,
    "media_required": fleet.MEDIA,
    "media_granted": fleet.MEDIA,
    "state": _STATES,
    "step_outcome": ("completed", "failed", "cancelled"),
    "transition_from": _STATES,
    "transition_to": _STATES,
    "local_candidate_type": ("host", "relay"),
    "remote_candidate_type": ("host",),
    "close_reason": ("",),
    "disconnect_reason": tuple(semconv.DisconnectReason),
    "disconnect_detail": tuple(dict.fromkeys(ending.detail for ending in ENDINGS if ending.detail)),
    "ended_by": tuple(semconv.EndedBy),
    "server_address": tuple(f"dp.{region}.example" for region in fleet.REGIONS),
    "network_type": fleet.NETWORKS,
    "synthetic": ("test",),
    "region": fleet.REGIONS,
    "runtime": fleet.RUNTIMES,
    "service_name": ("kiosk",),
    "client_version": fleet.VERSIONS,
    "environment": fleet.ENVIRONMENTS,
    "attributes": _ATTRIBUTES,
    "resource_attributes": (_RESOURCE,),
    "scope_name": (semconv.SCOPE_NAME,),
    "scope_version": fleet.VERSIONS,
}
"""The words of a text column; the column itself is made as numbers of them, -1 for null."""


def _codes(words: Sequence[str | None], column: str) -> NDArray[Any]:
    """The number of each word in a column's vocabulary, with -1 for None; a -1 at the end makes index -1 null too."""
    known = {word: number for number, word in enumerate(_VOCABULARY[column])}
    return np.array([-1 if word is None else known[word] for word in words] + [-1])


_FAILURE_ERROR: Final = _codes([failure.error for failure in FAILURES], "error_type")
_FAILURE_DETAIL: Final = _codes([failure.detail for failure in FAILURES], "detail")
_FAILURE_MESSAGE: Final = _codes([failure.message for failure in FAILURES], "status_message")
_FAILURE_RETRYABLE: Final = np.array([*(int(failure.retryable) for failure in FAILURES), -1])
_FAILURE_CLOSE: Final = np.array([*(failure.close_code or -1 for failure in FAILURES), -1])
_ENDING_REASON: Final = _codes([ending.reason for ending in ENDINGS], "disconnect_reason")
_ENDING_DETAIL: Final = _codes([ending.detail for ending in ENDINGS], "disconnect_detail")
_ENDING_BY: Final = _codes([ending.ended_by for ending in ENDINGS], "ended_by")
_ENDING_CLOSE: Final = np.array([*(ending.close_code or -1 for ending in ENDINGS), -1])
_ENDING_LOST: Final = np.array([*(ending.detail == "media_silent" for ending in ENDINGS), False])
_SEGMENT_PART: Final = _codes([part for _, part in SEGMENTS], "failing_part")
_SEGMENT_STATE: Final = np.array([state.step for state, _ in SEGMENTS])

Values = NDArray[Any] | int | float


class _Rows:
    """Collects spans kind by kind; missing values are -1, in floats NaN."""

    def __init__(self) -> None:
        self.count = 0
        self.kinds: list[tuple[int, int, dict[str, Values]]] = []

    def add(self, of: NDArray[Any], start_ns: NDArray[Any], end_ns: NDArray[Any], /, **columns: Values) -> None:
        """Add one span for each attempt of `of`; the other values are one per span, or one for all."""
        first, self.count = self.count, self.count + len(of)
        self.kinds.append((first, self.count, {"of": of, "start_ns": start_ns, "end_ns": end_ns, **columns}))

    def column(self, name: str, fill: Values = -1, dtype: Any = np.int64) -> NDArray[Any]:
        """All spans' values of a column."""
        values = np.full(self.count, fill, dtype)
        for first, last, columns in self.kinds:
            if name in columns:
                values[first:last] = columns[name]
        return values

    def has(self, name: str) -> bool:
        """Whether any span has the column."""
        return any(name in columns for _, _, columns in self.kinds)


def spans_of(facts: Facts, chance: np.random.Generator, sample_every_ns: int, most_samples: int) -> pa.Table:
    """All spans of the attempts, in the order in which they ended."""
    rows = _Rows()
    outcome, stop_row = _outcome_and_row(facts)
    _add_transitions(rows, facts)
    _add_parts(rows, facts, stop_row, chance)
    _add_steps(rows, facts, stop_row)
    _add_connect(rows, facts, outcome, stop_row)
    _add_sessions(rows, facts, chance)
    if sample_every_ns:
        _add_samples(rows, facts, sample_every_ns, most_samples, chance)
    return _table(rows, facts, chance)


def truth_of(facts: Facts) -> pa.Table:
    """One row per attempt: how it really ended and why."""
    outcome, stop_row = _outcome_and_row(facts)
    failure = np.where(outcome == 1, facts["failure"], -1)
    codes = {
        "outcome": outcome,
        "error_type": _FAILURE_ERROR[failure],
        "detail": _FAILURE_DETAIL[failure],
        "failing_step": np.where(failure >= 0, _SEGMENT_STATE[stop_row], -1),
        "failing_part": np.where(failure >= 0, _SEGMENT_PART[stop_row], -1),
        "region": facts["region"],
        "client_version": facts["version"],
        "network_type": facts["network"],
        "runtime": facts["runtime"],
        "environment": facts["environment"],
    }
    return pa.table(
        {
            "attempt_id": _hex(facts["attempt"], 16),
            "episode_id": _hex(facts["episode"], 16),
            "attempt_number": facts["number"],
            "start_ns": facts["start_ns"],
            "duration_ns": facts["stop_ns"],
            "client": facts["client"],
            "queued": facts["queued"],
            "synthetic": facts["synthetic"],
            "resumed": facts["resumed"],
            **{name: _words(name, values) for name, values in codes.items()},
        }
    )


def _outcome_and_row(facts: Facts) -> tuple[NDArray[Any], NDArray[Any]]:
    """The number of each attempt's outcome, and the segment that it stopped in."""
    outcome = np.where(facts["connected"], 0, np.where(facts["cancelled"], 2, 1))
    outcome = np.where(facts["cut_ns"] < facts["stop_ns"], 3, outcome)
    stop_row = np.sum(facts["starts"] < facts["stop_ns"], axis=0) - 1
    return outcome, np.maximum(stop_row, 0)


def _add_transitions(rows: _Rows, facts: Facts) -> None:
    stop_ns, cut_ns = facts["stop_ns"], facts["cut_ns"]
    for state in _STEPS:
        begins = facts["starts"][STEP_ROWS[state][0]]
        of = np.flatnonzero((begins <= cut_ns) & ((begins < stop_ns) | (begins == 0)))
        first = _asked(facts, of) if state is State.SEARCHING else {}
        rows.add(
            *(of, begins[of], begins[of]),
            name=_NAMES.index(Span.TRANSITION),
            state=state.step,
            step_number=state.step,
            transition_from=state.step - 1,
            transition_to=state.step,
            **first,
        )
    of = np.flatnonzero(facts["connected"] & (stop_ns <= cut_ns))
    connected = State.CONNECTED.step
    rows.add(
        *(of, stop_ns[of], stop_ns[of]),
        name=_NAMES.index(Span.TRANSITION),
        state=connected,
        step_number=connected,
        transition_from=State.CONNECTING.step,
        transition_to=connected,
    )
    of = np.flatnonzero(facts["over_ns"] <= cut_ns)
    came_from = np.where(facts["connected"], connected, _SEGMENT_STATE[_outcome_and_row(facts)[1]])
    rows.add(
        *(of, facts["over_ns"][of], facts["over_ns"][of]),
        name=_NAMES.index(Span.TRANSITION),
        transition_from=came_from[of],
        transition_to=0,
    )


def _add_parts(rows: _Rows, facts: Facts, stop_row: NDArray[Any], chance: np.random.Generator) -> None:
    for part in _PARTS:
        row = ROW[part]
        starts, ends = facts["starts"][row], facts["ends"][row]
        end_ns = np.minimum(ends, facts["stop_ns"])
        of = np.flatnonzero((starts < end_ns) & (end_ns <= facts["cut_ns"]))
        state = SEGMENTS[row][0]
        failed = (facts["failure"] >= 0) & (stop_row == row)
        extra: dict[str, Values] = {}
        if part is Part.QUEUE:
            admitted = ends[of] <= facts["stop_ns"][of]
            position = np.where(facts["queued"], facts["position"], -1)[of]
            left = np.where(admitted, 1, np.maximum(1, position // 2))
            extra = {
                "queue_position_first": position,
                "queue_position_last": np.where(position > 0, left, -1),
            }
        elif part is Part.ASSETS:
            extra = {"attributes": len(_STEP_ATTRIBUTES) + facts["client"][of] % len(_ASSETS_ATTRIBUTES)}
        elif part is Part.NEGOTIATE:
            extra = _candidates(facts, of)
        elif part is Part.ICE:
            paired = ends[of] <= facts["stop_ns"][of]
            extra = {
                **_candidates(facts, of),
                "relay": np.where(paired, facts["relay"][of], -1),
                "local_candidate_type": np.where(paired, facts["relay"][of], -1),
                "remote_candidate_type": np.where(paired, 0, -1),
            }
        rows.add(
            *(of, starts[of], end_ns[of]),
            name=_NAMES.index(part),
            parent=1 + _STEPS.index(state),
            state=state.step,
            step_number=state.step,
            **_why(facts, of, failed),
            **extra,
        )


def _add_steps(rows: _Rows, facts: Facts, stop_row: NDArray[Any]) -> None:
    for number, state in enumerate(_STEPS):
        first, last = STEP_ROWS[state]
        starts, ends = facts["starts"][first], facts["ends"][last]
        end_ns = np.minimum(ends, facts["stop_ns"])
        of = np.flatnonzero(((starts < end_ns) | (starts == 0)) & (end_ns <= facts["cut_ns"]))
        stopped = (stop_row >= first) & (stop_row <= last) & ~facts["connected"]
        failed = stopped & (facts["failure"] >= 0)
        rows.add(
            *(of, starts[of], end_ns[of]),
            name=_NAMES.index(state),
            own=1 + number,
            state=state.step,
            step_number=state.step,
            step_outcome=np.where(failed, 1, np.where(stopped, 2, 0))[of],
            failing_part=np.where(failed, _SEGMENT_PART[stop_row], -1)[of],
            attributes=number,
            **_why(facts, of, failed),
        )


def _add_connect(rows: _Rows, facts: Facts, outcome: NDArray[Any], stop_row: NDArray[Any]) -> None:
    of = np.flatnonzero(facts["stop_ns"] <= facts["cut_ns"])
    failed = facts["failure"] >= 0
    accepted = facts["ends"][ROW[Part.QUEUE]] <= facts["stop_ns"]
    granted = stop_row > ROW[Part.USER_MEDIA]
    rows.add(
        *(of, np.zeros(len(of), np.int64), facts["stop_ns"][of]),
        name=_NAMES.index(Span.CONNECT),
        kind=1,
        parent=-1,
        own=0,
        outcome=outcome[of],
        failing_step=np.where(failed, _SEGMENT_STATE[stop_row], -1)[of],
        failing_part=np.where(failed, _SEGMENT_PART[stop_row], -1)[of],
        retryable=_FAILURE_RETRYABLE[facts["failure"]][of],
        close_code=_FAILURE_CLOSE[facts["failure"]][of],
        resumed=np.where(accepted, facts["resumed"], -1)[of],
        media_granted=np.where(granted, facts["media"], 0)[of],
        **_asked(facts, of),
        **_why(facts, of, failed),
    )


def _add_sessions(rows: _Rows, facts: Facts, chance: np.random.Generator) -> None:
    of = np.flatnonzero(facts["connected"] & (facts["over_ns"] <= facts["cut_ns"]))
    ending = facts["ending"][of]
    silent_ms = np.where(_ENDING_LOST[ending], 5000, chance.integers(1, 60, len(of)))
    rows.add(
        *(of, facts["stop_ns"][of], facts["over_ns"][of]),
        name=_NAMES.index(State.CONNECTED),
        state=State.CONNECTED.step,
        step_number=State.CONNECTED.step,
        disconnect_reason=_ENDING_REASON[ending],
        disconnect_detail=_ENDING_DETAIL[ending],
        ended_by=_ENDING_BY[ending],
        close_code=_ENDING_CLOSE[ending],
        media_last_seen_ago_ms=silent_ms,
    )


def _add_samples(rows: _Rows, facts: Facts, every_ns: int, most: int, chance: np.random.Generator) -> None:
    until = np.minimum(facts["over_ns"], facts["cut_ns"])
    counts = np.where(facts["connected"], np.clip((until - facts["stop_ns"]) // every_ns, 0, most), 0)
    of = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    at_ns = facts["stop_ns"][of] + number * every_ns
    seconds = number * (every_ns / fleet.S)
    loss = chance.lognormal(-6.5, 1.2, len(counts))[of]
    rtt_s = chance.lognormal(-3.1, 0.6, len(counts))[of] * chance.lognormal(0, 0.1, len(of))
    jitter_s = rtt_s * 0.08
    video = (_VIDEO_PACKETS_PER_S * seconds).astype(np.int64)
    audio = (_AUDIO_PACKETS_PER_S * seconds).astype(np.int64)
    received = (_BYTES_PER_S * seconds).astype(np.int64)
    rows.add(
        *(of, at_ns, at_ns),
        name=_NAMES.index(Span.SAMPLE),
        sample_number=number,
        rtt_s=rtt_s,
        video_packets_received=video,
        video_packets_lost=(video * loss).astype(np.int64),
        video_jitter_s=jitter_s,
        video_frames_decoded=(seconds / _SECONDS_PER_FRAME).astype(np.int64),
        audio_packets_received=audio,
        audio_packets_lost=(audio * loss).astype(np.int64),
        audio_jitter_s=jitter_s,
        bytes_received=received,
        bytes_sent=received // 40,
        media_last_seen_ago_ms=chance.integers(1, 60, len(of)),
    )


def _asked(facts: Facts, of: NDArray[Any]) -> dict[str, Values]:
    return {
        "attempt_number": facts["number"][of],
        "media_requested": facts["media"][of],
        "media_required": np.where(facts["required"], facts["media"], 0)[of],
        "resume_requested": facts["resume"][of].astype(np.int64),
    }


def _candidates(facts: Facts, of: NDArray[Any]) -> dict[str, Values]:
    return {
        "ice_gathered_host": 1 + facts["client"][of] % 2,
        "ice_gathered_srflx": 1,
        "ice_gathered_relay": facts["relay"][of].astype(np.int64),
        "ice_remote_host": 1,
        "ice_remote_srflx": 0,
        "ice_remote_relay": 0,
        "ice_servers": 2,
    }


def _why(facts: Facts, of: NDArray[Any], failed: NDArray[Any]) -> dict[str, Values]:
    failure = np.where(failed, facts["failure"], -1)[of]
    return {
        "status_code": failed[of].astype(np.int64),
        "status_message": _FAILURE_MESSAGE[failure],
        "error_type": _FAILURE_ERROR[failure],
        "detail": _FAILURE_DETAIL[failure],
    }


def _table(rows: _Rows, facts: Facts, chance: np.random.Generator) -> pa.Table:
    of = rows.column("of")
    ended_ns = rows.column("end_ns")
    order = np.argsort(facts["start_ns"][of] + ended_ns, kind="stable")
    of, ended_ns = of[order], ended_ns[order]
    began_ns = rows.column("start_ns")[order]
    base_ns = facts["start_ns"][of]
    received_ns = base_ns + ended_ns + (chance.lognormal(-0.9, 0.5, rows.count) * fleet.S).astype(np.int64)

    attempts = len(facts["start_ns"])
    roots = chance.integers(1, 2**63, (4, attempts), dtype=np.int64)
    own, parent = rows.column("own", -1)[order], rows.column("parent", 0)[order]
    span_ids = np.where(own < 0, chance.integers(1, 2**63, rows.count, dtype=np.int64), roots[own, of])
    accepted = ended_ns >= facts["ends"][ROW[Part.QUEUE]][of]

    of_attempt = {
        "server_address": facts["region"],
        "network_type": facts["network"],
        "synthetic": np.where(facts["synthetic"], 0, -1),
        "region": facts["region"],
        "runtime": facts["runtime"],
        "service_name": np.zeros(attempts, np.int64),
        "client_version": facts["version"],
        "scope_version": facts["version"],
        "environment": facts["environment"],
    }
    constant = {"scope_name": 0, "resource_attributes": 0}
    made: dict[str, pa.Array] = {
        "trace_id": _hex(facts["trace"], 16).take(pa.array(of)),
        "span_id": _hex(span_ids, 8),
        "parent_span_id": _hex(roots[parent, of], 8, missing=parent < 0),
        "flags": pa.array(np.ones(rows.count, np.int64)),
        "start_ns": pa.array(base_ns + began_ns),
        "end_ns": pa.array(base_ns + ended_ns),
        "received_ns": pa.array(received_ns),
        "session_id": _hex(facts["session"], 16).take(pa.array(of, mask=~accepted)),
        "attempt_id": _hex(facts["attempt"], 16).take(pa.array(of)),
        "episode_id": _hex(facts["episode"], 16).take(pa.array(of)),
        "server_port": pa.array(np.full(rows.count, 443)),
        "service_instance_id": _instances(facts["client"]).take(pa.array(of)),
    }
    for name, values in of_attempt.items():
        made[name] = _words(name, values[of])
    for name, number in constant.items():
        made[name] = _words(name, np.full(rows.count, number))
    for column in SPANS_SCHEMA:
        if column.name in made:
            continue
        fill = 0 if column.name in ("kind", "status_code") else -1
        if not rows.has(column.name) and fill < 0:
            made[column.name] = pa.nulls(rows.count, column.type)
        elif column.name in _VOCABULARY:
            made[column.name] = _words(column.name, rows.column(column.name, fill)[order])
        elif pa.types.is_floating(column.type):
            values = rows.column(column.name, np.nan, np.float64)[order]
            made[column.name] = pa.array(values, mask=np.isnan(values))
        else:
            values = rows.column(column.name)[order]
            made[column.name] = pa.array(values, mask=values < 0).cast(column.type)
    return pa.table([made[column.name] for column in SPANS_SCHEMA], schema=SPANS_SCHEMA)


def _words(column: str, codes: NDArray[Any]) -> pa.Array:
    """The words of a column's vocabulary by their numbers; null for -1."""
    words = pa.array([str(word) for word in _VOCABULARY[column]])
    return words.take(pa.array(codes.astype(np.int32), mask=codes < 0))


_HEX: Final = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint16)


def _hex(ids: NDArray[Any], size: int, missing: NDArray[Any] | None = None) -> pa.Array:
    """Ids of `size` bytes as lower-case hex text."""
    digits = _HEX[np.ascontiguousarray(ids).view(np.uint8)]
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * (2 * size)
    text = pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(digits.tobytes()))
    return text if missing is None else text.take(pa.array(np.arange(len(ids)), mask=missing))


def _instances(clients: NDArray[Any]) -> pa.Array:
    """`client-7`: the installation that made each attempt."""
    known, where = np.unique(clients, return_inverse=True)
    return pa.array([f"client-{client}" for client in known]).take(pa.array(where))
