"""What else was going on: other attempts of the same episode, session and client, and other clients of the same server.

The verdict never rests on this, so that it is the same in every store.
Each reading says for whom and against whom it speaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from telemetry.support.asking import Row, Source, ask, hashed, of_these
from telemetry.support.rule import Owner
from telemetry.support.verdict import Verdict

NEAR_NS: Final = 1_800_000_000_000
"""Half an hour either way: long enough to have neighbours, short enough to share an outage."""
CLIENT_NEAR_NS: Final = 86_400_000_000_000
"""A day either way for what the same client met."""
_FEW: Final = 5
"""Fewer neighbours than this speak for nobody."""


@dataclass(frozen=True, slots=True)
class Other:
    """Another attempt that belongs to the same story."""

    attempt_id: str
    trace_id: str
    session_id: str | None
    attempt_number: int | None
    start_ns: int
    after_ns: int
    """From this attempt's start; negative means before."""
    outcome: str
    error_type: str | None
    detail: str | None
    disconnect_reason: str | None
    resumed: bool | None


@dataclass(frozen=True, slots=True)
class History:
    """Other attempts, in the order of time."""

    episode: tuple[Other, ...]
    session: tuple[Other, ...]
    client_before: tuple[Other, ...]
    client_after: tuple[Other, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the surroundings say of the suspects."""

    text: str
    speaks_for: tuple[Owner, ...] = ()
    speaks_against: tuple[Owner, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How other clients of the same server fared, half an hour either way."""

    attempts: int
    connected: int
    accepted: int
    failed: int
    failed_alike: int
    lost: int
    clients: int
    readings: tuple[Reading, ...]


def history(attempt: Row, source: Source) -> History:
    """The other attempts of the episode, of the session and of the client."""
    at = attempt["start_ns"]
    traces = ask(
        source,
        "related_traces",
        {
            "hashes": hashed([attempt[name] for name in ("trace_id", "episode_id", "session_id") if attempt[name]]),
            "service_instance_id": attempt["service_instance_id"],
            "since": at - CLIENT_NEAR_NS,
            "until": at + CLIENT_NEAR_NS,
        },
    )
    ids = {name: attempt[name] for name in ("episode_id", "session_id", "service_instance_id")}
    rows = ask(source, "related", {**ids, **of_these(traces)}) if traces else []
    rows = [row for row in rows if row["trace_id"] != attempt["trace_id"]]
    return History(
        tuple(_other(row, at) for row in rows if row["same_episode"]),
        tuple(_other(row, at) for row in rows if row["same_session"]),
        tuple(_other(row, at) for row in rows if row["same_client"] and row["start_ns"] <= at)[-10:],
        tuple(_other(row, at) for row in rows if row["same_client"] and row["start_ns"] > at)[:10],
    )


def surroundings(attempt: Row, verdict: Verdict, told: History, source: Source) -> Surroundings:
    """How others fared, and what that says of the verdict's suspects."""
    row = ask(
        source,
        "surroundings",
        {
            **{name: attempt[name] for name in ("trace_id", "server_address", "server_port", "service_instance_id")},
            "detail": attempt["detail"],
            "region": None,
            "since": attempt["start_ns"] - NEAR_NS,
            "until": attempt["start_ns"] + NEAR_NS,
        },
    )[0]
    return Surroundings(**row, readings=tuple(_readings(attempt, verdict, told, row)))


def _readings(attempt: Row, verdict: Verdict, told: History, row: Row) -> Sequence[Reading]:
    readings: list[Reading] = []
    suspects = set(verdict.suspects)
    server, near = attempt["server_address"] or "the server", "within half an hour"
    if attempt["outcome"] == "failed" and row["attempts"] >= _FEW and suspects & {Owner.SERVER, Owner.NETWORK}:
        readings.append(_of_neighbours(server, near, row))
    if verdict.rule == "unfinished":
        if told.client_after:
            text = "The same client was heard of again, so its program lived on."
            readings.append(Reading(text, (Owner.TELEMETRY, Owner.NETWORK), (Owner.CLIENT,)))
        else:
            text = "Nothing more was heard of the same client."
            readings.append(Reading(text, (Owner.CLIENT, Owner.NETWORK)))
    failed_before = [
        other for other in told.client_before if other.outcome == "failed" and other.detail == attempt["detail"]
    ]
    if attempt["detail"] and failed_before:
        text = f"The same client failed alike {len(failed_before)} times before."
        readings.append(Reading(text, (Owner.CLIENT, Owner.NETWORK, Owner.USER, Owner.CONFIGURATION)))
    return readings


def _of_neighbours(server: str, near: str, row: Row) -> Reading:
    """What the other clients of the same server say of a failure."""
    attempts, connected, alike = row["attempts"], row["connected"], row["failed_alike"]
    fared = f"{near} {connected} of {attempts} other attempts to {server} connected, and {alike} failed alike"
    if connected >= 0.9 * attempts:
        return Reading(f"It worked for others: {fared}.", (Owner.NETWORK, Owner.CLIENT), (Owner.SERVER,))
    if alike >= 0.5 * attempts:
        return Reading(f"Others failed alike: {fared}.", (Owner.SERVER, Owner.CONFIGURATION), (Owner.CLIENT,))
    return Reading(f"Others fared mixed: {fared}.")


def _other(row: Row, at_ns: int) -> Other:
    return Other(
        attempt_id=row["attempt_id"],
        trace_id=row["trace_id"],
        session_id=row["session_id"],
        attempt_number=row["attempt_number"],
        start_ns=row["start_ns"],
        after_ns=row["start_ns"] - at_ns,
        outcome=row["outcome"],
        error_type=row["error_type"],
        detail=row["detail"],
        disconnect_reason=row["disconnect_reason"],
        resumed=row["resumed"],
    )
