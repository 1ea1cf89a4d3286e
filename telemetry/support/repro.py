"""Turn a recorded attempt into a simulator scenario that leads a client to the same verdict. Pure: no I/O, no clock.

The scenario does what the server did, as far as the client recorded it: how long it took in each part, the places in
the queue, the close code, the moment at which it fell silent or vanished.
What the client did itself (its devices, its giving up) becomes the scenario's client.
What happened before any server was reached cannot be played by one; that is said instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telemetry.connector.messages import SUBPROTOCOL
from telemetry.errors import UsageError
from telemetry.semconv import ConnectionError, Detail, DisconnectReason, EndedBy, Outcome, Part, State
from telemetry.simulator import scenarios as do
from telemetry.support.verdict import judge

_OUT_OF_REACH: Final = frozenset(
    {Detail.DNS, Detail.TCP_REFUSED, Detail.TCP_UNREACHABLE, Detail.TCP_TIMEOUT, Detail.TLS, Detail.INVALID_URL}
)
_DEVICES: Final = {
    Detail.PERMISSION_DENIED: "denied",
    Detail.DEVICE_NOT_FOUND: "missing",
    Detail.DEVICE_IN_USE: "in_use",
    Detail.DEVICE_FAILED: "broken",
    Detail.CAPTURE_MISSING: "unsupported",
}
_DEADLINES: Final = frozenset({Detail.STEP_DEADLINE, Detail.CONNECT_DEADLINE})
_ORDER: Final = (
    Part.USER_MEDIA,
    Part.WEBSOCKET_OPEN,
    Part.QUEUE,
    Part.ASSETS,
    Part.NEGOTIATE,
    Part.ICE,
    Part.DTLS,
    Part.FIRST_FRAME,
)
_LAST_PART: Final = {State.SEARCHING: Part.QUEUE, State.DOWNLOADING: Part.ASSETS, State.CONNECTING: Part.FIRST_FRAME}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Repro:
    """A scenario made from a recorded attempt, and the verdict that it must lead to."""

    scenario: do.Scenario
    rule: str
    owner: str


def reproduce(attempt: Row, spans: Sequence[Row]) -> Repro:
    """Make the scenario of a recorded attempt.

    Args:
        attempt: its row of `connections`.
        spans: its rows of `spans`.

    Raises:
        UsageError: no server can play it, because none was reached, or it is not known how it ended.
    """
    detail = attempt["detail"]
    if detail in _OUT_OF_REACH:
        raise UsageError(f"attempt {attempt['attempt_id']} reached no server ({detail}), so a simulator cannot play it")
    if attempt["outcome"] == Outcome.UNFINISHED:
        raise UsageError(f"it is not recorded how attempt {attempt['attempt_id']} ended, so it cannot be played")
    verdict = judge(attempt, spans)
    scenario = do.Scenario(
        name=f"repro_{attempt['attempt_id']}",
        description=f"What attempt {attempt['attempt_id']} met: {verdict.sentence}",
        script=tuple(_script(attempt, _seconds(spans))),
        expected=_expected(attempt),
        refuses_with=_status(detail),
        subprotocol=None if detail == Detail.NOT_SIGNALLING else SUBPROTOCOL,
        client=_client(attempt),
    )
    return Repro(scenario, verdict.rule, str(verdict.owner))


def to_source(repro: Repro) -> str:
    """The scenario as Python text for `telemetry/simulator/scenarios.py`, or for a test."""
    actions = "".join(f"        {action!r},\n" for action in repro.scenario.script)
    client = "" if repro.scenario.client == do.Client() else f"    client={repro.scenario.client!r},\n"
    refuses = f"    refuses_with={repro.scenario.refuses_with!r},\n" if repro.scenario.refuses_with else ""
    subprotocol = "" if repro.scenario.subprotocol else "    subprotocol=None,\n"
    expected = _plain_repr(repro.scenario.expected)
    return (
        f"# Leads to {repro.rule}, owner {repro.owner}.\nScenario(\n    {repro.scenario.name!r},\n"
        f"    {repro.scenario.description!r},\n    script=(\n{actions}    ),\n    expected={expected},\n"
        f"{refuses}{subprotocol}{client})\n"
    )


def _script(attempt: Row, took_s: Mapping[str, float]) -> list[do.Action]:
    """What the server did, part by part, until the attempt ended."""
    if _status(attempt["detail"]) or attempt["detail"] == Detail.NOT_SIGNALLING:
        return [do.Stay()]
    outcome, last = attempt["outcome"], _last_part(attempt, took_s)
    if outcome != Outcome.CONNECTED and last in (Part.USER_MEDIA, Part.WEBSOCKET_OPEN):
        return [do.Stay()]
    script: list[do.Action] = []
    for part in (Part.QUEUE, Part.ASSETS, Part.NEGOTIATE):
        if outcome != Outcome.CONNECTED and part == last:
            return [*script, *_until(part, attempt, took_s), *_end(attempt)]
        if part is not Part.NEGOTIATE:
            script += _through(part, attempt, took_s)
    if outcome != Outcome.CONNECTED:
        return [*script, *_end_in_media(attempt, last)]
    return [*script, do.Answer(), do.Start(), *_session(attempt)]


def _through(part: Part, attempt: Row, took_s: Mapping[str, float]) -> list[do.Action]:
    """What the server did in a part that went well."""
    if part is Part.QUEUE:
        return [*_waiting(attempt, took_s), do.Accept()]
    return [do.Load(took_s.get(Part.ASSETS, 0.0))]


def _until(part: Part, attempt: Row, took_s: Mapping[str, float]) -> list[do.Action]:
    """What the server did in the part that went wrong, until it did."""
    match part:
        case Part.QUEUE:
            return _waiting(attempt, took_s)
        case Part.ASSETS:
            return [do.Load(took_s.get(Part.ASSETS, 0.0), share=0.5)]
        case Part.NEGOTIATE:
            return [do.AwaitOffer(), do.Pause(took_s.get(Part.NEGOTIATE, 0.0))] if attempt["close_code"] else []
    return []


def _end(attempt: Row) -> list[do.Action]:
    """What ended an attempt before its media formed."""
    code = attempt["close_code"]
    if code is not None and code != 1006:
        return [do.Close(code, attempt["close_reason"] or "")]
    match attempt["detail"]:
        case Detail.SOCKET_LOST:
            return [do.Vanish()]
        case Detail.PROTOCOL_VIOLATION:
            return [do.Say("{not a message"), do.Stay()]
        case Detail.MESSAGE_TOO_BIG:
            return [do.SayTooMuch(300_000), do.Stay()]
        case Detail.SDP_REFUSED:
            return [do.Answer("not_sdp"), do.Stay()]
    return [do.Stay()]


def _end_in_media(attempt: Row, part: Part | None) -> list[do.Action]:
    """What ended an attempt while its media formed."""
    detail, code = attempt["detail"], attempt["close_code"]
    if code is not None and code != 1006:
        return [do.Answer("no_media"), do.Close(code, attempt["close_reason"] or "")]
    match detail:
        case Detail.SOCKET_LOST:
            return [do.Answer("no_media"), do.Vanish()]
        case Detail.PEER_CLOSED:
            return [do.Answer("no_media"), do.HangUp(), do.Stay()]
        case Detail.ICE_NO_CANDIDATES:
            return [do.Answer("no_candidates"), do.Start(), do.Stay()]
    match part:
        case Part.ICE:
            return [do.Answer("unreachable"), do.Start(), do.Stay()]
        case Part.DTLS:
            return [do.Answer("wrong_fingerprint"), do.Start(), do.Stay()]
    return [do.Answer("no_media"), do.Start(), do.Stay()]


def _session(attempt: Row) -> list[do.Action]:
    """What the server did while the session lived, and how it ended it."""
    lived_s = max(0.0, ((attempt["disconnected_ns"] or attempt["last_seen_ns"]) - attempt["connected_ns"]) / 1e9)
    detail, code = attempt["disconnect_detail"], attempt["close_code"]
    if code is not None and code != 1006:
        return [do.Stay(lived_s), do.Close(code, attempt["close_reason"] or "")]
    match detail:
        case Detail.SOCKET_LOST:
            return [do.Stay(lived_s), do.Vanish()]
        case Detail.MEDIA_SILENT:
            silent_s = (attempt["media_last_seen_ago_ms"] or 0) / 1000
            return [do.Stay(max(0.0, lived_s - silent_s)), do.StopMedia(), do.Stay()]
        case Detail.PEER_CLOSED:
            return [do.Stay(lived_s), do.HangUp(), do.Stay()]
    return [do.Stay()]


def _waiting(attempt: Row, took_s: Mapping[str, float]) -> list[do.Action]:
    """The places in the queue, from the first to the last, in the time that they took."""
    first, last = attempt["queue_position_first"], attempt["queue_position_last"]
    wait_s = took_s.get(Part.QUEUE, 0.0)
    if first is None or last is None:
        return [do.Pause(wait_s)]
    step = -1 if first >= last else 1
    positions = tuple(range(first, last + step, step))[:1000]
    return [do.Queue(positions, each_s=wait_s / len(positions))]


def _client(attempt: Row) -> do.Client:
    """How the client behaved."""
    detail, granted = attempt["detail"], attempt["media_granted"]
    requested: str = attempt["media_requested"] or "none"
    declined = attempt["outcome"] == Outcome.CONNECTED and granted is not None and granted != requested
    lived = attempt["outcome"] == Outcome.CONNECTED
    return do.Client(
        requested_media=requested,  # type: ignore[arg-type]
        required_media=attempt["media_required"] or "none",
        devices="denied" if declined else _DEVICES.get(detail, "granted"),  # type: ignore[arg-type]
        leaves=not lived or attempt["ended_by"] in (None, EndedBy.CLIENT),
        gives_up_s=_lasted_s(attempt) if attempt["outcome"] == Outcome.CANCELLED else None,
        meets_deadline=detail in _DEADLINES
        or detail in (Detail.ICE_NO_PAIR, Detail.ICE_NO_CANDIDATES, Detail.NO_FIRST_FRAME)
        or attempt["disconnect_detail"] == Detail.MEDIA_SILENT,
    )


def _expected(attempt: Row) -> do.Expected:
    connected = attempt["outcome"] == Outcome.CONNECTED
    return do.Expected(
        outcome=Outcome(attempt["outcome"]),
        error=_member(ConnectionError, attempt["error_type"]),
        step=_member(State, attempt["failing_step"]),
        part=_member(Part, attempt["failing_part"]),
        detail=attempt["detail"],
        retryable=attempt["retryable"],
        reason=_member(DisconnectReason, attempt["disconnect_reason"]) if connected else None,
        ended_by=_member(EndedBy, attempt["ended_by"]) if connected else None,
        disconnect_detail=attempt["disconnect_detail"],
        accepted=attempt["session_id"] is not None,
    )


def _last_part(attempt: Row, took_s: Mapping[str, float]) -> Part | None:
    """The part in which an attempt that did not connect ended."""
    if attempt["failing_part"] is not None:
        return Part(attempt["failing_part"])
    if attempt["failing_step"] is not None:
        return _LAST_PART.get(State(attempt["failing_step"]))
    done = [part for part in _ORDER if part in took_s]
    return done[-1] if done else Part.QUEUE


def _seconds(spans: Sequence[Row]) -> dict[str, float]:
    """How long each part took."""
    return {span["name"]: (span["end_ns"] - span["start_ns"]) / 1e9 for span in spans if span["name"] in set(Part)}


def _lasted_s(attempt: Row) -> float:
    lasted_ns: int = (attempt["end_ns"] or attempt["last_seen_ns"]) - attempt["start_ns"]
    return max(0.001, lasted_ns / 1e9)


def _status(detail: str | None) -> int | None:
    number = (detail or "").removeprefix("http_")
    return int(number) if detail and detail.startswith("http_") and number.isdecimal() else None


def _member(words: Any, value: str | None) -> Any:
    return words(value) if value is not None and value in set(words) else None


def _plain_repr(expected: do.Expected) -> str:
    """The expectation without its empty fields, and with enumeration words by name."""
    given = {
        name: getattr(expected, name)
        for name in do.Expected.__slots__
        if getattr(expected, name) != getattr(_EMPTY, name) or name == "outcome"
    }
    words = (
        f"{name}={type(v).__name__}.{v.name}" if hasattr(v, "name") else f"{name}={v!r}" for name, v in given.items()
    )
    return f"Expected({', '.join(words)})"


_EMPTY: Final = do.Expected(Outcome.CONNECTED)
