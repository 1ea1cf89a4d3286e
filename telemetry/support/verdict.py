"""Judge one attempt: from its facts to a verdict that cites its evidence. No I/O, no clock.

The facts are one row of the relation `connections`; what decides is the table in `rules.py` and nothing else.
The attempt's spans, where they are given, only say which row and which moment each cited fact comes from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from telemetry.semconv import Outcome, State
from telemetry.support.conditions import Value
from telemetry.support.rule import Certainty, Missing, Owner, Rival, Rule
from telemetry.support.rules import decide

FACTS: Final = (
    "trace_id",
    "attempt_id",
    "session_id",
    "outcome",
    "error_type",
    "detail",
    "message",
    "failing_step",
    "failing_part",
    "failing_part_ns",
    "reached_step",
    "retryable",
    "attempt_number",
    "start_ns",
    "connected_ns",
    "end_ns",
    "disconnected_ns",
    "last_seen_ns",
    "span_count",
    "media_requested",
    "media_required",
    "media_granted",
    "queue_position_first",
    "queue_position_last",
    "ice_gathered_host",
    "ice_gathered_srflx",
    "ice_gathered_relay",
    "ice_remote_host",
    "ice_remote_srflx",
    "ice_remote_relay",
    "ice_servers",
    "relay",
    "local_candidate_type",
    "remote_candidate_type",
    "disconnect_reason",
    "disconnect_detail",
    "ended_by",
    "media_last_seen_ago_ms",
    "last_sample_number",
    "rtt_min_s",
    "rtt_max_s",
    "video_packets_received",
    "video_packets_lost",
    "video_frozen_max_ms",
    "close_code",
    "close_reason",
    "region",
    "client_version",
    "runtime",
    "network_type",
    "server_address",
    "server_port",
    "service_instance_id",
)
"""The columns of `connections` that a verdict may read."""

_SPAN_COLUMN: Final = {
    "message": "status_message",
    "reached_step": "step_number",
    "last_sample_number": "sample_number",
    "rtt_min_s": "rtt_s",
    "rtt_max_s": "rtt_s",
    "video_frozen_max_ms": "video_frozen_ms",
}
"""Facts that stand under another name on the span that they come from."""
_UNRECORDED: Final = "not recorded"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fact that the verdict rests on."""

    fact: str
    value: Value
    """None means that its absence is the evidence."""
    span_id: str | None = None
    """The span that says so; None means that it follows from several, or that spans were not given."""
    span_name: str | None = None
    at_ns: int | None = None
    """When that span began."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happened, whose it was, how that is known, and what to do next."""

    outcome: str
    step: str | None
    """The step that blocked, or the last one that is known of; None means none."""
    part: str | None
    owner: Owner
    suspects: tuple[Owner, ...]
    """Everyone whose it may be, the likeliest first."""
    certainty: Certainty
    rule: str
    sentence: str
    next: str
    because: str
    source: str
    evidence: tuple[Evidence, ...]
    rivals: tuple[Rival, ...]
    missing: tuple[Missing, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and words, for JSON."""
        return {name: plain(value) for name, value in asdict(self).items()}


def judge(facts: Mapping[str, Any], spans: Sequence[Mapping[str, Any]] = ()) -> Verdict:
    """Judge one attempt.

    Args:
        facts: a row of `connections`; a column that is missing counts as not recorded, one that is unknown is ignored.
        spans: the attempt's rows of `spans`, for the evidence.
    """
    known: dict[str, Value] = {name: facts.get(name) for name in FACTS}
    rule = decide(known)
    words = wording(known)
    return Verdict(
        outcome=str(known["outcome"]),
        step=_step(known),
        part=_text(known["failing_part"]),
        owner=rule.owner,
        suspects=rule.suspects,
        certainty=rule.certainty,
        rule=rule.id,
        sentence=_sentence(rule.sentence, words),
        next=_sentence(rule.next, words),
        because=rule.because,
        source=rule.source,
        evidence=tuple(_evidence(rule, known, spans)),
        rivals=rule.rivals,
        missing=rule.missing,
    )


def wording(facts: Mapping[str, Value]) -> dict[str, str]:
    """What the sentences of the rules may name, in words."""
    step, part = _step(facts), _text(facts["failing_part"])
    began = facts["start_ns"]
    ended = next((facts[name] for name in ("end_ns", "connected_ns", "last_seen_ns") if facts[name] is not None), None)
    address, port = _text(facts["server_address"]), facts["server_port"]
    code, reason = facts["close_code"], _text(facts["close_reason"])
    detail = _text(facts["detail"])
    return {
        "where": ", ".join(filter(None, (step, part))) or "an unknown step",
        "duration": _between(began, ended),
        "heard": _between(began, facts["last_seen_ns"]),
        "lived": _between(facts["connected_ns"], facts["disconnected_ns"] or facts["last_seen_ns"]),
        "part_time": _span_of_time(facts["failing_part_ns"]),
        "server": (f"{address}:{port}" if port is not None else address) if address else "the server",
        "position": _number(facts["queue_position_last"]),
        "close": " ".join(filter(None, (_number(code), f"“{reason}”" if reason else None))),
        "http": detail.removeprefix("http_") if detail else _UNRECORDED,
        "error": _text(facts["error_type"]) or _UNRECORDED,
        "message": _text(facts["message"]) or "no message was recorded",
        "local": _candidates(facts, "ice_gathered"),
        "remote": _candidates(facts, "ice_remote"),
        "silent": _span_of_time(_times(facts["media_last_seen_ago_ms"], 1_000_000)),
        "rtt": _span_of_time(_times(facts["rtt_min_s"], 1_000_000_000)),
        "frozen": _span_of_time(_times(facts["video_frozen_max_ms"], 1_000_000)),
        "loss": _share(facts["video_packets_lost"], facts["video_packets_received"]),
        "video_packets": _number(facts["video_packets_received"]),
        "relayed": {True: " through a relay", False: " without a relay"}.get(facts["relay"], ""),  # type: ignore[arg-type]
        **{
            name: _number(facts[name])
            for name in (
                "detail",
                "outcome",
                "runtime",
                "client_version",
                "ice_servers",
                "media_required",
                "media_requested",
                "media_granted",
                "disconnect_reason",
                "disconnect_detail",
                "ended_by",
            )
        },
    }


def duration(nanoseconds: float) -> str:
    """A length of time with about three digits: `85 ms`, `3.20 s`, `4 min 10 s`, `2 h 5 min`."""
    milliseconds = nanoseconds / 1_000_000
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 99.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def _step(facts: Mapping[str, Value]) -> str | None:
    """The step that failed, or how far the attempt is known to have come."""
    if facts["failing_step"] is not None:
        return _text(facts["failing_step"])
    if facts["outcome"] == Outcome.CONNECTED:
        return State.CONNECTED
    reached = facts["reached_step"]
    states = list(State)
    return states[reached] if isinstance(reached, int) and 0 <= reached < len(states) else None


def _sentence(template: str, words: Mapping[str, str]) -> str:
    return template.format_map(words)


def _evidence(rule: Rule, facts: Mapping[str, Value], spans: Sequence[Mapping[str, Any]]) -> list[Evidence]:
    """The facts of the rule: those it tested, known or not, and those it cites that are known."""
    tested = {fact for condition in rule.when for fact in condition.facts}
    return [
        _found(name, facts[name], facts, spans) for name in rule.evidence if name in tested or facts[name] is not None
    ]


def _found(name: str, value: Value, facts: Mapping[str, Value], spans: Sequence[Mapping[str, Any]]) -> Evidence:
    """Find the span that states the fact; `connect` is preferred, for it sums the attempt up."""
    if value is None:
        return Evidence(name, None)
    if name == "failing_part_ns":
        matches = [span for span in spans if span["name"] == facts["failing_part"]]
    elif name in ("connected_ns", "disconnected_ns"):
        matches = [span for span in spans if span["name"] == State.CONNECTED]
    else:
        column = _SPAN_COLUMN.get(name, name)
        matches = [span for span in spans if span.get(column) == value]
    if not matches:
        return Evidence(name, value)
    best = min(matches, key=lambda span: (span["name"] != "connect", span["start_ns"], span["span_id"]))
    return Evidence(name, value, best["span_id"], best["name"], best["start_ns"])


def _text(value: Value) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Value) -> str:
    return _UNRECORDED if value is None else str(value)


def _times(value: Value, factor: int) -> Value:
    return value * factor if isinstance(value, int | float) else None


def _span_of_time(nanoseconds: Value) -> str:
    known = isinstance(nanoseconds, int | float)
    return duration(nanoseconds) if known else "a time that was not recorded"  # type: ignore[arg-type]


def _between(start_ns: Value, end_ns: Value) -> str:
    if isinstance(start_ns, int) and isinstance(end_ns, int):
        return duration(end_ns - start_ns)
    return _span_of_time(None)


def _share(part: Value, rest: Value) -> str:
    if isinstance(part, int) and isinstance(rest, int) and part + rest > 0:
        return f"{100 * part / (part + rest):.1f} %"
    return "an unknown share"


def _candidates(facts: Mapping[str, Value], prefix: str) -> str:
    kinds = [(kind, facts[f"{prefix}_{kind}"]) for kind in ("host", "srflx", "relay")]
    if all(count is None for _, count in kinds):
        return "candidates not recorded"
    return ", ".join(f"{'?' if count is None else count} {kind}" for kind, count in kinds)


def plain(value: Any) -> Any:
    """Turn enumeration words into plain text, and tuples into lists."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value
