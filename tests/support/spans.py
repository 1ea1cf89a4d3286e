"""Spans of an attempt as the connector emits them, made from a few readable words, with ids and times that never vary.

    table(attempt(1), attempt(2, outcome="failed", error="noScene", detail="busy"))

is an Arrow table with the receiver's columns: what `Store.commit` takes.
`attempt` returns plain rows (one dictionary a span, in the order in which an exporter would send them),
so a test may drop, repeat, reorder or change some before it makes the table.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from telemetry import settings
from telemetry.semconv import Part, Span, State

Row = dict[str, Any]

MS = 1_000_000
"""Nanoseconds."""
T0 = 1_790_000_000_000_000_000
"""2026-09-21 14:13:20 UTC: when attempts begin unless told otherwise."""

_ARROW = {
    "varchar": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "variant": pa.string(),
}
SPANS_SCHEMA = pa.schema(
    [
        (name, _ARROW[kind])
        for name, kind in re.findall(
            r"^  (\w+) (\w+)", (settings.data_folder("queries") / "schema" / "spans.sql").read_text(), re.MULTILINE
        )
    ]
)

_STEPS = (State.SEARCHING, State.DOWNLOADING, State.CONNECTING)
_DEFAULT_STEP_MS = {State.SEARCHING: 300, State.DOWNLOADING: 500, State.CONNECTING: 400}
_SHARES = {
    State.SEARCHING: {Part.WEBSOCKET_OPEN: 0.4, Part.QUEUE: 0.5},
    State.DOWNLOADING: {Part.ASSETS: 0.95},
    State.CONNECTING: {Part.NEGOTIATE: 0.2, Part.ICE: 0.3, Part.DTLS: 0.2, Part.FIRST_FRAME: 0.25},
}
"""How a step's time falls to its parts unless told otherwise; the rest is `other`."""
_FAILS_IN = {
    "noUserMedia": Part.USER_MEDIA,
    "notSupported": Part.USER_MEDIA,
    "serverConnectionFailed": Part.WEBSOCKET_OPEN,
    "noScene": Part.QUEUE,
    "mediaStreamFailed": Part.ICE,
    "sessionTimeout": Part.FIRST_FRAME,
}
_DETAIL = {
    "noUserMedia": "permission_denied",
    "notSupported": "codec_missing",
    "serverConnectionFailed": "tcp_refused",
    "noScene": "busy",
    "mediaStreamFailed": "ice_no_pair",
    "sessionTimeout": "step_deadline",
}


def attempt(
    number: int = 1,
    *,
    outcome: str = "connected",
    start_ns: int = T0,
    searching_ms: float = 300,
    downloading_ms: float = 500,
    connecting_ms: float = 400,
    parts: Mapping[str, float] | None = None,
    error: str = "serverConnectionFailed",
    stops_in: str | None = None,
    detail: str | None = None,
    message: str | None = None,
    retryable: bool = True,
    session: str | None = None,
    episode: int | None = None,
    attempt_number: int = 1,
    resumed: bool | None = None,
    media: str = "none",
    media_granted: str | None = None,
    relay: bool = False,
    queue_positions: tuple[int, int] | None = None,
    live_ms: float = 60_000,
    disconnect: str | None = "normal",
    ended_by: str = "client",
    disconnect_detail: str | None = None,
    close_code: int | None = None,
    media_last_seen_ago_ms: int | None = None,
    samples: int = 0,
    sample_every_ms: float = 5_000,
    sample: Mapping[str, Any] | None = None,
    region: str | None = "eu-west-1",
    environment: str | None = "production",
    client_version: str | None = "1.0.0",
    runtime: str | None = "cpython",
    network_type: str | None = "wifi",
    server_address: str | None = "dp.example",
    server_port: int | None = 443,
    synthetic: bool = False,
    service_name: str = "kiosk",
    received_after_ms: float = 200,
    attributes: Mapping[str, Any] | None = None,
) -> list[Row]:
    """The spans of one attempt.

    Args:
        number: Makes every id: `trace_id`, `attempt-0001`, `episode-0001`, `session-0001`.
        outcome: connected, failed, cancelled, or unfinished (the client vanished in the part `stops_in`).
        parts: Milliseconds of a part, by its name, where the default share of its step will not do.
        error: `error.type` of a failed attempt.
        stops_in: The part, or the step (between parts), in which an attempt that does not connect stops.
            None means the usual part for `error`. The step lasts its `_ms` until then.
        session: The sessionId, once accepted. None means one made from `number`.
        episode: None means an episode of its own.
        disconnect: The reason why a connected session ended after `live_ms`. None means that it still lives.
        samples: How many heartbeats a connected session sent.
        sample: Columns of each heartbeat, such as `rtt_s`.
        received_after_ms: How long after its end each span reached the receiver.
        attributes: Further attributes of every span, which have no column.
    """
    made = _Attempt(
        trace_id=f"{number:032x}",
        first_span=number << 16,
        received_after_ns=int(received_after_ms * MS),
        common={
            "attempt_id": f"attempt-{number:04d}",
            "episode_id": f"episode-{episode or number:04d}",
            "server_address": server_address,
            "server_port": server_port,
            "network_type": network_type,
            "synthetic": "test" if synthetic else None,
            "region": region,
            "runtime": runtime,
            "service_name": service_name,
            "client_version": client_version,
            "service_instance_id": "instance-1",
            "environment": environment,
            "attributes": json.dumps(dict(attributes)) if attributes else None,
        },
    )
    session = session or f"session-{number:04d}"
    stop = None if outcome == "connected" else stops_in or _FAILS_IN[error]
    failure: Row = {}
    if outcome == "failed":
        failure = {"error_type": error, "detail": detail or _DETAIL[error]}
    asked = {
        "attempt_number": attempt_number,
        "media_requested": media,
        "media_required": media,
        "resume_requested": resumed is not None,
    }
    step_ms = {State.SEARCHING: searching_ms, State.DOWNLOADING: downloading_ms, State.CONNECTING: connecting_ms}

    now = start_ns
    before = State.DISCONNECTED
    accepted: Row = {}
    for state in _STEPS:
        in_step = {"state": state, "step_number": state.step}
        first = asked if state is State.SEARCHING else {}
        made.add("transition", now, now, transition_from=before, transition_to=state, **in_step, **first, **accepted)
        step_end = now + int(step_ms[state] * MS)
        stopped, stopped_part = False, None
        at = now
        for part, length_ms in _parts(state, step_ms[state], parts or {}, media, stop):
            stopped = part == stop
            part_end = step_end if stopped else at + int(length_ms * MS)
            if stopped:
                stopped_part = part
                break
            extra: Row = {}
            if part is Part.QUEUE:
                accepted = {"session_id": session}
                if queue_positions:
                    extra = {"queue_position_first": queue_positions[0], "queue_position_last": queue_positions[1]}
            if part is Part.ICE:
                extra = {"relay": relay, "local_candidate_type": "host", "remote_candidate_type": "host"}
            made.add(part, at, part_end, **in_step, **extra, **accepted)
            at = part_end
        stopped = stopped or stop == state
        now = step_end
        if stopped and outcome == "unfinished":
            return made.rows
        if stopped:
            status = {"status_code": "ERROR"} if failure else {}
            if stopped_part:
                made.add(stopped_part, at, now, **in_step, **failure, **status, **accepted)
            made.add(
                state,
                *(step_end - int(step_ms[state] * MS), now),
                step_outcome=outcome,
                failing_part=stopped_part if failure else None,
                **in_step,
                **failure,
                **status,
                **accepted,
            )
            made.add("transition", now, now, transition_from=state, transition_to=State.DISCONNECTED, **accepted)
            if failure:
                failure |= {
                    "failing_step": state,
                    "failing_part": stopped_part,
                    "retryable": retryable,
                    "status_message": message or f"{error} while {state}",
                }
            made.add(
                Span.CONNECT, start_ns, now, kind="CLIENT", outcome=outcome, **asked, **failure, **status, **accepted
            )
            return made.rows
        made.add(state, step_end - int(step_ms[state] * MS), now, step_outcome="completed", **in_step, **accepted)
        before = state

    connected_ns = now
    made.add(
        "transition",
        now,
        now,
        transition_from=before,
        transition_to=State.CONNECTED,
        state=State.CONNECTED,
        step_number=4,
        **accepted,
    )
    made.add(
        Span.CONNECT,
        start_ns,
        now,
        kind="CLIENT",
        outcome="connected",
        resumed=bool(resumed),
        media_granted=media_granted or media,
        **asked,
        **accepted,
    )
    for index in range(samples):
        at = connected_ns + int((index + 1) * sample_every_ms * MS)
        made.add(Span.SAMPLE, at, at, sample_number=index + 1, **(sample or {}), **accepted)
    if disconnect:
        now = connected_ns + int(live_ms * MS)
        made.add(
            State.CONNECTED,
            connected_ns,
            now,
            state=State.CONNECTED,
            step_number=4,
            disconnect_reason=disconnect,
            ended_by=ended_by,
            disconnect_detail=disconnect_detail,
            close_code=close_code,
            media_last_seen_ago_ms=media_last_seen_ago_ms,
            **accepted,
        )
        made.add("transition", now, now, transition_from=State.CONNECTED, transition_to=State.DISCONNECTED, **accepted)
    return made.rows


def foreign(number: int, spans: int = 10, *, start_ns: int = T0, attributes: int = 10) -> list[Row]:
    """The spans of a trace that is not ours: no attempt, `attributes` attributes each, none with a column."""
    made = _Attempt(
        trace_id=f"f{number:031x}", first_span=(0xF << 56) | number << 16, received_after_ns=200 * MS, common={}
    )
    for index in range(spans):
        values = {f"app.key_{n}": f"value {(number + index) % 50}" if n % 2 else index * n for n in range(attributes)}
        at = start_ns + index * MS
        made.add("GET /thing", at, at + 5 * MS, kind="SERVER", service_name="shop", attributes=json.dumps(values))
    return made.rows


def table(*rows: Iterable[Row]) -> pa.Table:
    """The rows of several attempts as one Arrow table with the receiver's columns."""
    return pa.Table.from_pylist([row for part in rows for row in part], schema=SPANS_SCHEMA)


def moved(spans: pa.Table, number: int, *, by_ns: int = 0) -> pa.Table:
    """The same attempts again with ids of their own, and later: the cheap way to many spans.

    Args:
        number: below 16**8, becomes the first eight digits of the trace ids and the end of the other ids.
    """
    trace_id = pc.binary_join_element_wise(f"{number:08x}", pc.utf8_slice_codeunits(spans["trace_id"], 8), "")
    made = spans.set_column(0, "trace_id", trace_id)
    for name in ("session_id", "attempt_id", "episode_id"):
        place = made.schema.get_field_index(name)
        made = made.set_column(place, name, pc.binary_join_element_wise(made[name], str(number), "-"))
    for name in ("start_ns", "end_ns", "received_ns"):
        place = made.schema.get_field_index(name)
        made = made.set_column(place, name, pc.add(made[name], by_ns))
    return made.cast(SPANS_SCHEMA)


def _parts(
    state: State, step_ms: float, given: Mapping[str, float], media: str, stop: str | None
) -> list[tuple[Part, float]]:
    """The parts of a step in their order, each with its milliseconds."""
    shares = dict(_SHARES[state])
    if state is State.SEARCHING and (media != "none" or stop == Part.USER_MEDIA or Part.USER_MEDIA in given):
        shares = {Part.USER_MEDIA: 0.05, **shares}
    return [(part, given.get(part, share * step_ms)) for part, share in shares.items()]


class _Attempt:
    """Collects the rows of one trace; every other span is a child of the first id, that of `connect`."""

    def __init__(self, *, trace_id: str, first_span: int, received_after_ns: int, common: Row) -> None:
        self.rows: list[Row] = []
        self._trace_id = trace_id
        self._root = first_span
        self._received_after_ns = received_after_ns
        self._common = common

    def add(self, name: str, start_ns: int, end_ns: int, **columns: Any) -> None:
        root = name == Span.CONNECT
        number = self._root if root else self._root + len(self.rows) + 1
        self.rows.append(
            {
                "trace_id": self._trace_id,
                "span_id": f"{number:016x}",
                "parent_span_id": None if root else f"{self._root:016x}",
                "flags": 1,
                "name": str(name),
                "kind": "INTERNAL",
                "start_ns": start_ns,
                "end_ns": end_ns,
                "status_code": "UNSET",
                "received_ns": end_ns + self._received_after_ns,
                "scope_name": "dp-telemetry.connector",
                "resource_attributes": '{"telemetry.sdk.language": "python"}',
                **self._common,
                **columns,
            }
        )
