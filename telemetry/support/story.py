"""Tell everything about one attempt, in the order in which support reads: the verdict, the times, the others."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from telemetry.support import find, timeline
from telemetry.support.asking import Row, Source, ask
from telemetry.support.cohort import Cohort, Twin, compare, find_twin, stand
from telemetry.support.context import History, Surroundings, history, surroundings
from telemetry.support.timeline import Bar, Moment, Rung
from telemetry.support.verdict import Verdict, judge, plain

_CANDIDATE_KINDS: Final = ("host", "srflx", "relay")
_ASTRAY_NS: Final = 3_600_000_000_000
"""How far the clocks of others that add spans to the trace may be astray: the attempt's own set the bounds."""


@dataclass(frozen=True, slots=True)
class Named:
    """One of the attempts that the id stands for."""

    attempt_id: str
    trace_id: str
    start_ns: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """The addresses that ICE had, and the pair that it chose. None means not recorded."""

    local: dict[str, int | None]
    remote: dict[str, int | None]
    servers: int | None
    """STUN and TURN servers that the digital-person server named."""
    relay: bool | None
    local_type: str | None
    remote_type: str | None


@dataclass(frozen=True, slots=True)
class Story:
    """Everything about one attempt."""

    asked: str
    kind: str
    """What the id turned out to be: attempt, session, episode or trace."""
    id: str
    verdict: Verdict
    attempt: Row
    """Its row of `connections`."""
    also: tuple[Named, ...]
    """The other attempts that the same id stands for, the latest first."""
    ladder: tuple[Rung, ...]
    waterfall: tuple[Bar, ...]
    timeline: tuple[Moment, ...]
    moments_left_out: int
    samples: tuple[Row, ...]
    candidates: Candidates
    trail: tuple[str, ...]
    """The types of the last signalling messages, oldest first: `>` sent, `<` received."""
    missing: tuple[str, ...]
    """What should have been recorded and was not."""
    history: History
    surroundings: Surroundings
    cohort: Cohort | None
    twin: Twin | None
    link: str
    """The path of its page on a server."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, words and numbers, for JSON; times are nanoseconds UTC, offsets milliseconds."""
        return {name: plain(value) for name, value in asdict(self).items()}


def tell(id: str, source: Source, *, about_ns: int | None = None) -> Story:
    """Find what an id means and tell everything about it: of several attempts, the latest.

    Args:
        id: a sessionId, an attempt, episode or trace id, the unique beginning of one, or text with one in it.
        about_ns: when it is said to have happened; it sharpens the answer if there is nothing.

    Raises:
        SessionNotFound: nothing, or several things, are meant.
    """
    found = find.resolve(id, source, about_ns=about_ns)
    rest = found.attempts[1:]
    attempt, start_ns = found.row, found.row["start_ns"]
    spans = ask(source, "spans_of", _time_of(attempt))
    twin = find_twin(attempt, source)
    steps = ask(source, "steps_of", _time_of(attempt))
    twins = ask(source, "steps_of", _time_of(twin)) if twin else []
    verdict = judge(attempt, spans)
    told = history(attempt, source)
    moments, left_out = timeline.moments(spans, start_ns)
    return Story(
        asked=found.asked,
        kind=found.kind,
        id=found.id,
        verdict=verdict,
        attempt=attempt,
        also=tuple(Named(other.attempt_id, other.trace_id, other.start_ns, other.outcome) for other in rest),
        ladder=timeline.ladder(spans, start_ns),
        waterfall=timeline.waterfall(spans, start_ns),
        timeline=moments,
        moments_left_out=left_out,
        samples=timeline.samples(spans),
        candidates=_candidates(attempt),
        trail=_trail(spans),
        missing=timeline.missing(spans, attempt),
        history=told,
        surroundings=surroundings(attempt, verdict, told, source),
        cohort=stand(attempt, steps, source),
        twin=compare(attempt, twin, steps, twins) if twin else None,
        link=f"/sessions/{attempt['attempt_id']}",
    )


def _time_of(attempt: Row) -> dict[str, object]:
    """What names an attempt to a question, and when it was: its spans and steps are found by time."""
    return {
        "trace_id": attempt["trace_id"],
        "since": attempt["start_ns"] - _ASTRAY_NS,
        "until": attempt["last_seen_ns"] + _ASTRAY_NS,
    }


def _candidates(attempt: Row) -> Candidates:
    return Candidates(
        {kind: attempt[f"ice_gathered_{kind}"] for kind in _CANDIDATE_KINDS},
        {kind: attempt[f"ice_remote_{kind}"] for kind in _CANDIDATE_KINDS},
        attempt["ice_servers"],
        attempt["relay"],
        attempt["local_candidate_type"],
        attempt["remote_candidate_type"],
    )


def _trail(spans: list[Row]) -> tuple[str, ...]:
    for span in spans:
        trail = timeline.parsed(span["attributes"], {}).get("dp.signalling.trail")
        if isinstance(trail, str) and trail.startswith("["):  # a Collector's exporter to ClickHouse makes lists texts
            trail = timeline.parsed(trail, [])
        if isinstance(trail, list):
            return tuple(str(message) for message in trail)
        if isinstance(trail, str):
            return tuple(trail.split())
    return ()
