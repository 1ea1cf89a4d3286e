"""Hold one attempt against others: how slow each step is among its like, and how a successful twin differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telemetry.semconv import Part
from telemetry.support.asking import Row, Source, ask

ENOUGH: Final = 20
"""Others that a percentile needs: below, one of them moves it by more than five points."""
HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = 24 * HOUR_NS

_LEVELS: Final = (
    ("the same hours, region, version and network", 2 * HOUR_NS, ("region", "client_version", "network_type")),
    ("the same hours and region", 2 * HOUR_NS, ("region",)),
    ("the same day and region", DAY_NS, ("region",)),
    ("the same day", DAY_NS, ()),
    ("the same week", 7 * DAY_NS, ()),
)
"""Who counts as alike: the first level with enough of them is used. All are of the same server's clients."""
_COLUMN: Final = {
    Part.USER_MEDIA: "user_media_ns",
    Part.WEBSOCKET_OPEN: "websocket_open_ns",
    Part.QUEUE: "queue_ns",
    Part.ASSETS: "assets_ns",
    Part.NEGOTIATE: "negotiate_ns",
    Part.ICE: "ice_ns",
    Part.DTLS: "dtls_ns",
    Part.FIRST_FRAME: "first_frame_ns",
}
"""The part's column in `steps`."""
_TWIN_FACTS: Final = (
    "server_address",
    "region",
    "client_version",
    "network_type",
    "runtime",
    "environment",
    "media_requested",
    "media_granted",
    "resume_requested",
    "relay",
    "local_candidate_type",
    "remote_candidate_type",
    "ice_servers",
    "ice_gathered_host",
    "ice_gathered_srflx",
    "ice_gathered_relay",
    "ice_remote_host",
    "ice_remote_srflx",
    "ice_remote_relay",
    "queue_position_first",
)


@dataclass(frozen=True, slots=True)
class Standing:
    """One step or part among those of others."""

    name: str
    duration_ns: int
    n: int
    """How many others completed it."""
    percentile: float | None
    """Per cent of the others that were not slower; None means too few to say."""
    p50_ns: int
    p95_ns: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """An attempt among its like."""

    alike: str
    """What the others have in common with it."""
    since_ns: int
    until_ns: int
    standings: tuple[Standing, ...]
    enough: bool
    """False means that even the widest circle had fewer than `ENOUGH`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which two attempts differ: a fact, or the time (in ns) of a step or part."""

    name: str
    mine: Any
    twin: Any


@dataclass(frozen=True, slots=True)
class Twin:
    """The attempt that connected and is most like this one."""

    trace_id: str
    attempt_id: str
    apart_ns: int
    """From this attempt's start to the twin's; negative means that the twin came before."""
    facts: tuple[Difference, ...]
    times: tuple[Difference, ...]
    """Steps and parts that took clearly longer or shorter, or that only one of them has, in their order."""


def durations(steps: Sequence[Row]) -> dict[str, int]:
    """The time of each step and part that ended, by its name, in order."""
    found: dict[str, int] = {}
    for step in steps:
        if step["duration_ns"] is not None:
            found[step["step"]] = step["duration_ns"]
        for part, column in _COLUMN.items():
            if step[column] is not None:
                found[str(part)] = step[column]
    return found


def stand(attempt: Row, steps: Sequence[Row], source: Source) -> Cohort | None:
    """Find where each step and part stands; None when nothing ended."""
    mine = durations(steps)
    if not mine:
        return None
    cohort = None
    for alike, width_ns, same in _LEVELS:
        since_ns, until_ns = attempt["start_ns"] - width_ns, attempt["start_ns"] + width_ns
        rows = ask(
            source,
            "cohort",
            {
                "trace_id": attempt["trace_id"],
                "names": list(mine),
                "durations": list(mine.values()),
                "since": since_ns,
                "until": until_ns,
                "server_address": attempt["server_address"],
                "synthetic": attempt["synthetic"],
                **{
                    name: attempt[name] if name in same else None
                    for name in ("region", "client_version", "network_type")
                },
            },
        )
        by_name = {row["name"]: row for row in rows}
        standings = tuple(_standing(name, ns, by_name[name]) for name, ns in mine.items() if name in by_name)
        enough = bool(standings) and max(standing.n for standing in standings) >= ENOUGH
        cohort = Cohort(alike, since_ns, until_ns, standings, enough)
        if enough:
            break
    return cohort


def _standing(name: str, duration_ns: int, row: Row) -> Standing:
    n = row["n"]
    percentile = 100 * row["not_slower"] / n if n >= ENOUGH else None
    return Standing(name, duration_ns, n, percentile, round(row["p50_ns"]), round(row["p95_ns"]))


def find_twin(attempt: Row, source: Source) -> Row | None:
    """The row of the attempt that connected and is most like this one, of the same day or else of the same week."""
    for width_ns in (DAY_NS, 7 * DAY_NS):
        rows = ask(
            source,
            "twin",
            {
                "trace_id": attempt["trace_id"],
                "start": attempt["start_ns"],
                "since": attempt["start_ns"] - width_ns,
                "until": attempt["start_ns"] + width_ns,
                **{
                    name: attempt[name]
                    for name in ("server_address", "region", "client_version", "network_type", "runtime", "synthetic")
                },
            },
        )
        if rows:
            return rows[0]
    return None


def compare(attempt: Row, twin: Row, steps: Sequence[Row], twins: Sequence[Row]) -> Twin:
    """Say only in what two attempts and their steps differ."""
    return Twin(
        twin["trace_id"],
        twin["attempt_id"],
        twin["start_ns"] - attempt["start_ns"],
        tuple(
            Difference(name, attempt[name], twin[name])
            for name in _TWIN_FACTS
            if attempt[name] is not None and twin[name] is not None and attempt[name] != twin[name]
        ),
        tuple(_different_times(durations(steps), durations(twins))),
    )


def _different_times(mine: Mapping[str, int], theirs: Mapping[str, int]) -> list[Difference]:
    order = list(dict.fromkeys([*theirs, *mine]))
    return [
        Difference(name, mine.get(name), theirs.get(name))
        for name in order
        if name not in mine or name not in theirs or _clearly_apart(mine[name], theirs[name])
    ]


def _clearly_apart(a_ns: int, b_ns: int) -> bool:
    """Half as long again, and by at least 50 ms: what two runs of the same differ by is less."""
    return abs(a_ns - b_ns) >= 50_000_000 and max(a_ns, b_ns) >= 1.5 * min(a_ns, b_ns)
