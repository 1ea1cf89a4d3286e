"""Lay an attempt's spans out in time: the ladder of states, the waterfall of steps and parts, and every moment. Pure.

Whatever is missing is named: a step that never ended is open, time that no part covers is a gap, and lost heartbeats
are counted.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telemetry.semconv import Part, Span, State
from telemetry.support.verdict import duration

MOST_MOMENTS: Final = 2_000
"""A session of three hours with a heartbeat every five seconds has about as many."""

Row = Mapping[str, Any]
_STEPS: Final = frozenset({State.SEARCHING, State.DOWNLOADING, State.CONNECTING})
_PARTS: Final = frozenset(part for part in Part if part is not Part.OTHER)
_ABOUT: Final = frozenset(
    {
        "trace_id",
        "span_id",
        "parent_span_id",
        "trace_state",
        "flags",
        "name",
        "kind",
        "start_ns",
        "end_ns",
        "received_ns",
        "session_id",
        "attempt_id",
        "episode_id",
        "server_address",
        "server_port",
        "network_type",
        "synthetic",
        "region",
        "runtime",
        "service_name",
        "client_version",
        "service_instance_id",
        "environment",
        "state",
        "step_number",
        "status_code",
        "attributes",
        "events",
        "links",
    }
)
"""Columns that are the same on every span or that are shown elsewhere; the rest of a span's columns are its facts."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One state, from when it was entered to when it was left."""

    state: str
    step: int
    percentage: int
    at_ns: int
    offset_ms: float
    lasted_ms: float | None
    """None means that it was never seen to end."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the waterfall."""

    kind: str
    """step, part, gap (time of a step that no part covers) or session (connected)."""
    name: str
    step: str
    start_ns: int
    end_ns: int | None
    """None means open: it was never seen to end."""
    offset_ms: float
    duration_ms: float | None
    outcome: str | None
    """completed, failed, cancelled or unfinished; None for a gap."""
    span_id: str | None
    facts: Mapping[str, Any]
    """What the span measured."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened at one point in time."""

    at_ns: int
    offset_ms: float
    kind: str
    """transition, sample, event, begin, end, imported."""
    text: str
    span_id: str | None


def facts_of(span: Row) -> dict[str, Any]:
    """What a span says beyond the common attributes: its own columns and its other attributes."""
    columns = {
        name: value
        for name, value in span.items()
        if value is not None and name not in _ABOUT and not name.startswith(("resource_", "scope_", "dropped_"))
    }
    return {**columns, **parsed(span.get("attributes"), {})}


def parsed(text: Any, default: Any) -> Any:
    """JSON text as a value; anything else as the default."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return default
    return value if isinstance(value, type(default)) else default


def ladder(spans: Sequence[Row], start_ns: int) -> tuple[Rung, ...]:
    """The states in the order in which they were entered."""
    entered = sorted(
        ((span["start_ns"], span["transition_to"]) for span in spans if _is_transition(span)), key=lambda pair: pair[0]
    )
    rungs = []
    for index, (at_ns, name) in enumerate(entered):
        until = entered[index + 1][0] if index + 1 < len(entered) else None
        state = State(name)
        lasted = None if until is None else _ms(until - at_ns)
        rungs.append(Rung(name, state.step, state.percentage, at_ns, _ms(at_ns - start_ns), lasted))
    return tuple(rungs)


def waterfall(spans: Sequence[Row], start_ns: int) -> tuple[Bar, ...]:
    """Steps in order, each followed by its parts and gaps, then the session itself."""
    bars: list[Bar] = []
    for state in State:
        ended = next((span for span in spans if span["name"] == state), None)
        entered = next((span for span in spans if _is_transition(span) and span["transition_to"] == state), None)
        if state is State.DISCONNECTED or (ended is None and entered is None):
            continue
        begin_ns = (ended or entered or {})["start_ns"]
        end_ns = ended["end_ns"] if ended else None
        outcome = ended["step_outcome"] if ended else "unfinished"
        kind = "step" if state in _STEPS else "session"
        bars.append(_bar(kind, state, state, begin_ns, end_ns, start_ns, outcome if kind == "step" else None, ended))
        if kind == "step":
            parts = sorted((s for s in spans if s["name"] in _PARTS and s["state"] == state), key=_by_time)
            bars += _within(state, begin_ns, end_ns, parts, start_ns)
    return tuple(bars)


def _within(state: State, begin_ns: int, end_ns: int | None, parts: Sequence[Row], start_ns: int) -> Iterable[Bar]:
    """The parts of a step, with the gaps between them."""
    at, before = begin_ns, "its beginning"
    for part in parts:
        if part["start_ns"] > at:
            yield _bar("gap", f"other, after {before}", state, at, part["start_ns"], start_ns, None, None)
        outcome = "failed" if part["status_code"] == "ERROR" else "completed"
        yield _bar("part", part["name"], state, part["start_ns"], part["end_ns"], start_ns, outcome, part)
        at, before = max(at, part["end_ns"]), part["name"]
    if end_ns is not None and end_ns > at:
        yield _bar("gap", f"other, after {before}", state, at, end_ns, start_ns, None, None)


def _bar(
    kind: str, name: str, step: str, begin: int, end: int | None, origin: int, outcome: str | None, span: Row | None
) -> Bar:
    return Bar(
        kind,
        str(name),
        str(step),
        begin,
        end,
        _ms(begin - origin),
        None if end is None else _ms(end - begin),
        outcome,
        span["span_id"] if span else None,
        facts_of(span) if span else {},
    )


def moments(spans: Sequence[Row], start_ns: int) -> tuple[tuple[Moment, ...], int]:
    """Everything in the order of time, and how many moments were left out at the end."""
    found: list[Moment] = []
    for span in spans:
        found += _moments_of(span, start_ns)
    found.sort(key=lambda moment: moment.at_ns)
    return tuple(found[:MOST_MOMENTS]), max(0, len(found) - MOST_MOMENTS)


def _moments_of(span: Row, start_ns: int) -> Iterable[Moment]:
    name, span_id, begin, end = span["name"], span["span_id"], span["start_ns"], span["end_ns"]
    if name == Span.TRANSITION:
        yield _moment(begin, start_ns, "transition", f"{span['transition_from']} → {span['transition_to']}", span_id)
    elif span.get("attempt_id") is None and begin == end:
        yield _moment(begin, start_ns, "imported", f"{name}: {_words(facts_of(span))}", span_id)
    elif name == Span.SAMPLE:
        yield _moment(begin, start_ns, "sample", _words(facts_of(span)), span_id)
    else:
        failed = " failed" if span["status_code"] == "ERROR" else ""
        message = f": {span['status_message']}" if span.get("status_message") else ""
        yield _moment(begin, start_ns, "begin", f"{name} begins", span_id)
        yield _moment(end, start_ns, "end", f"{name} ends{failed} after {duration(end - begin)}{message}", span_id)
    for event in parsed(span.get("events"), []):
        if isinstance(event, dict) and isinstance(event.get("time_ns"), int):
            attributes = event.get("attributes")
            about = f" {_words(attributes)}" if isinstance(attributes, dict) and attributes else ""
            yield _moment(event["time_ns"], start_ns, "event", f"{event.get('name')}{about}", span_id)


def _moment(at_ns: int, start_ns: int, kind: str, text: str, span_id: str) -> Moment:
    return Moment(at_ns, _ms(at_ns - start_ns), kind, text, span_id)


def samples(spans: Sequence[Row]) -> tuple[dict[str, Any], ...]:
    """The heartbeats, each with what it measured."""
    found = [
        {"at_ns": span["start_ns"], "span_id": span["span_id"], **facts_of(span)}
        for span in spans
        if span["name"] == Span.SAMPLE
    ]
    return tuple(found[:MOST_MOMENTS])


def missing(spans: Sequence[Row], attempt: Row) -> tuple[str, ...]:
    """What should have been recorded and was not, one sentence each."""
    found: list[str] = []
    names = {span["name"] for span in spans}
    if "connect" not in names:
        found.append("The connect span is missing: how connect() ended was not recorded.")
    reached = attempt["reached_step"] or 0
    for state in (State.SEARCHING, State.DOWNLOADING, State.CONNECTING):
        if state.step < reached and state not in names:
            found.append(f"The span of {state} is missing, though the attempt went beyond it.")
    numbers = sorted({span["sample_number"] for span in spans if span.get("sample_number") is not None})
    if numbers and (lost := numbers[-1] - len([number for number in numbers if number >= 1])) > 0:
        found.append(f"{lost} of {numbers[-1]} heartbeats are missing.")
    dropped = sum(span.get("dropped_attributes_count") or 0 for span in spans)
    if dropped:
        found.append(f"The client dropped {dropped} attributes before sending.")
    ahead = max((span["end_ns"] - span["received_ns"] for span in spans), default=0)
    if ahead > 0:
        found.append(f"The client's clock is at least {duration(ahead)} ahead of the receiver's.")
    return tuple(found)


def _is_transition(span: Row) -> bool:
    return span["name"] == Span.TRANSITION and span["transition_to"] in set(State)


def _by_time(span: Row) -> tuple[int, int]:
    return span["start_ns"], span["end_ns"]


def _words(facts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items()
    )


def _ms(nanoseconds: int) -> float:
    return nanoseconds / 1_000_000
