"""Find the attempt that an id means: an id of any kind, the beginning of one, or text with one in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from telemetry.errors import SessionNotFound
from telemetry.support.asking import Row, Source, ask, hashed, of_these

SHORTEST_BEGINNING: Final = 4
"""Four characters of a random id name one of 65,000; fewer are ambiguous in any store that is worth asking."""
LONGEST_TEXT: Final = 64 * 1024
"""Characters of pasted text that are looked at; a log line is shorter, and a whole log is not an id."""
_MOST_WORDS: Final = 500
_CANDIDATES_SHOWN: Final = 8

_WHOLE: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{3,127}")
_FINER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{3,127}")
_TRACE_ID: Final = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{32}(?![0-9A-Fa-f])")
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")
_UUID7: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that an id names."""

    trace_id: str
    attempt_id: str
    session_id: str | None
    episode_id: str | None
    start_ns: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Found:
    """What an id turned out to be."""

    asked: str
    kind: str
    """attempt, session, episode or trace."""
    id: str
    """The whole id."""
    attempts: tuple[Attempt, ...]
    """All that it names, the latest first; never empty. The first is the one to tell about."""
    row: Row
    """The row of `connections` of the first."""


def resolve(id: str, source: Source, *, about_ns: int | None = None) -> Found:
    """Find what an id, the unique beginning of one, or text that contains one means.

    Args:
        about_ns: when it is said to have happened; it sharpens the answer if there is nothing.

    Raises:
        SessionNotFound: nothing, or several things, are meant; carries the nearest ids and the time covered.
    """
    text = id[:LONGEST_TEXT].strip()
    words = _words(text)
    if words:
        exact = _named(words, source)
        if exact:
            return _found(text, words, exact)
    if len(words) == 1 and len(text) >= SHORTEST_BEGINNING:
        found = _by_beginning(text, source)
        if found:
            return found
    raise _not_found(text, words, source, about_ns if about_ns is not None else _moment_of(text))


def _words(text: str) -> list[str]:
    """Everything in a text that could be a whole id, the text itself first."""
    words = [text] if _WHOLE.fullmatch(text) else []
    if not words:
        for match in _WORD.finditer(text):
            words.append(match[0])
            words += _FINER.findall(match[0])
            words.append(match[0].rstrip("._:-"))
    words += [match[0].lower() for match in _TRACE_ID.finditer(text)]
    return list(dict.fromkeys(words))[:_MOST_WORDS]


def _named(ids: Sequence[str], source: Source) -> list[Row]:
    """The attempts that whole ids name."""
    traces = ask(source, "named", {"hashes": hashed(ids)})
    return ask(source, "known_ids", {"ids": list(ids), **of_these(traces)}) if traces else []


def _found(asked: str, words: Sequence[str], rows: list[Row]) -> Found:
    """Take the most specific thing that is named: an attempt or trace before a session before an episode."""
    rank = {"attempt": 0, "trace": 1, "session": 2, "episode": 3}
    first = min(rows, key=lambda row: (rank[row["kind"]], words.index(row["id"])))
    same = [row for row in rows if row["kind"] == first["kind"] and row["id"] == first["id"]]
    told = {name: value for name, value in same[0].items() if name not in ("kind", "id")}
    return Found(asked, first["kind"], first["id"], tuple(_attempt(row) for row in same), told)


def _by_beginning(beginning: str, source: Source) -> Found | None:
    candidates = ask(source, "ids_beginning", {"beginning": beginning})
    if not candidates and beginning.lower() != beginning:
        candidates = ask(source, "ids_beginning", {"beginning": beginning.lower()})
    if not candidates:
        return None
    ids = list(dict.fromkeys(candidate["id"] for candidate in candidates))
    if len(ids) > 1:
        shown = ", ".join(f"{row['id']} ({row['kind']})" for row in candidates[:_CANDIDATES_SHOWN])
        more = f" and {len(ids) - _CANDIDATES_SHOWN} more" if len(ids) > _CANDIDATES_SHOWN else ""
        covered = _coverage(source)
        raise SessionNotFound(
            f"{beginning} begins {len(ids)} ids; give more of it: {shown}{more}",
            id=beginning,
            nearest=tuple(ids),
            since_ns=covered["since_ns"],
            until_ns=covered["until_ns"],
        )
    rows = _named(ids, source)
    return _found(beginning, ids, rows)


def _attempt(row: Row) -> Attempt:
    return Attempt(**{name: row[name] for name in Attempt.__slots__})


def _coverage(source: Source) -> Row:
    return ask(source, "coverage")[0]


def _not_found(text: str, words: Sequence[str], source: Source, about_ns: int | None) -> SessionNotFound:
    """Say whether there is no such thing, or whether it cannot be known."""
    covered = _coverage(source)
    shown = text if len(text) <= 80 else text[:77] + "…"
    nearest: tuple[str, ...] = ()
    if covered["since_ns"] is None:
        reason = "the store is empty: no telemetry has arrived yet"
    else:
        likely = [word for word in words if not _MOMENT.match(word)]
        if likely:
            nearest = tuple(row["id"] for row in ask(source, "ids_alike", {"id": max(likely, key=len)}))
        reason = _reason(words, source, covered, about_ns)
    return SessionNotFound(
        f"nothing is recorded under “{shown}”: {reason}" + (f"; near it: {', '.join(nearest)}" if nearest else ""),
        id=text,
        nearest=nearest,
        since_ns=covered["since_ns"],
        until_ns=covered["until_ns"],
        about_ns=about_ns,
    )


def _reason(words: Sequence[str], source: Source, covered: Row, about_ns: int | None) -> str:
    since, until = _iso(covered["since_ns"]), _iso(covered["until_ns"])
    traces = [word for word in words if _TRACE_ID.fullmatch(word)]
    if not words or len(words[0]) < SHORTEST_BEGINNING:
        return (
            f"the beginning of an id has at least {SHORTEST_BEGINNING} characters: "
            "letters, digits, dots, colons, dashes or underscores"
        )
    if traces and (foreign := ask(source, "foreign_trace", {"trace_id": traces[-1].lower()})[0])["spans"]:
        return (
            f"a trace of that id has {foreign['spans']} spans of {foreign['service_name'] or 'another service'}, "
            "but no attempt to connect"
        )
    if about_ns is None:
        return (
            f"the store covers {since} to {until}; if it happened then, the id is wrong or its telemetry was lost "
            "(sampled, not exported, or not yet arrived); if it happened before, the store was not there yet, "
            "or retention removed it. Ids of sessions, attempts, episodes and traces are known, of spans not"
        )
    when = _iso(about_ns)
    if about_ns < covered["since_ns"]:
        return (
            f"not recorded: it happened at {when}, and the store begins at {since}: it was not there yet, "
            "or retention removed it"
        )
    if about_ns > max(covered["until_ns"], covered["received_ns"]):
        return f"not recorded: it happened at {when}, and the last telemetry to arrive is of {until}"
    return (
        f"not found, though the store covers {when}: the id is wrong, or its telemetry was lost "
        "(sampled, not exported, or refused: see the report ingest_health)"
    )


def _moment_of(text: str) -> int | None:
    """When a text says that it happened: the time in a log line, or in an id that holds one (UUID version 7)."""
    if match := _UUID7.search(text.lower()):
        return int(match[1] + match[2], 16) * 1_000_000
    if match := _MOMENT.search(text):
        zone = "+00:00" if match[3] in (None, "Z") else match[3]
        try:
            return int(datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}").timestamp()) * 1_000_000_000
        except (ValueError, OverflowError):
            return None
    return None


def _iso(nanoseconds: int) -> str:
    """A point in time to the second, UTC."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds} ns after 1970"
