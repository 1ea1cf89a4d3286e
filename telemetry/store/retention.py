"""Forget what is older than it may be kept, or more than there is room for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from telemetry.store import relations
from telemetry.store.duck import Store

DAY_NS: Final = 86_400 * 1_000_000_000
_SLICE_NS: Final = DAY_NS
"""Pruned in one transaction, so that the write-ahead log and the memory it takes stay small."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long spans are kept, and how many bytes they may take."""

    days: float | None = None
    """By the attempt's last span. None keeps them for ever."""
    max_bytes: int | None = None
    """Of the file, without what is free in it; the oldest go first. None means as many as the disk has."""
    environment_days: Mapping[str, float] = field(default_factory=dict)
    """Other limits for some environments (`deployment.environment.name`)."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was forgotten."""

    spans: int
    attempts: int


def prune(store: Store, retention: Retention, *, now_ns: int) -> Pruned:
    """Forget what the retention no longer covers, and give its room back to the file.

    An attempt goes as a whole, with all its spans, so that what is left still equals its definition.
    Commits go on meanwhile; the last step, giving back the room, makes them wait for one checkpoint.

    Raises:
        StoreError: the disk is full, say; what is pruned already stays pruned.
    """
    done = Pruned(0, 0)
    named = tuple(retention.environment_days)
    for environment, days in retention.environment_days.items():
        done = _add(
            done,
            _forget(store, now_ns - int(days * DAY_NS), "environment = $environment", {"environment": environment}),
        )
    if retention.days is not None:
        rest = "(environment is null or environment not in (select unnest($named::varchar[])))"
        done = _add(done, _forget(store, now_ns - int(retention.days * DAY_NS), rest, {"named": list(named)}))
    while retention.max_bytes is not None and (size := used_bytes(store)) > retention.max_bytes:
        facts = store.query(
            "select min(last_ns) as first, max(last_ns) as last "
            "from (select max(end_ns) as last_ns from spans group by trace_id)"
        )
        first, last = (facts[name][0].as_py() for name in ("first", "last"))
        if first is None or last <= first:
            break
        # The share of the time span that is the share of the bytes to go; a second round corrects what was uneven.
        share = min(0.5, 1.1 * (size - retention.max_bytes) / size)
        done = _add(done, _forget(store, first + int(share * (last - first)) + 1, "true", {}))
        store.compact()
    if done.spans:
        store.compact()
    return done


def used_bytes(store: Store) -> int:
    """Bytes of the file that hold something."""
    row = store.query("select used_blocks * block_size as used from pragma_database_size()")
    return int(row["used"][0].as_py())


def _forget(store: Store, before_ns: int, which: str, params: dict[str, object]) -> Pruned:
    """Forget the traces of which nothing was heard since `before_ns`."""
    store.tend(now=True)  # so that no span of theirs waits in an inbox
    spans = attempts = 0
    with store.maintained() as connection, store.transaction(connection):
        connection.execute(
            "create or replace temp table forgotten as select trace_id from stored.spans group by trace_id "
            f"having max(end_ns) < $before and bool_and({which})",
            {**params, "before": before_ns},
        )
        for relation in relations.MERGED:
            if relation.source == "spans":
                gone = connection.execute(
                    f"delete from stored.{relation.name} where trace_id in (select trace_id from forgotten)"
                ).fetchall()[0][0]
                attempts = attempts or gone
        spans = connection.execute(
            "delete from stored.spans where trace_id in (select trace_id from forgotten)"
        ).fetchall()[0][0]
        connection.execute(
            "delete from stored.ingest where minute_ns < $before and $all",
            {"before": before_ns, "all": which != "environment = $environment"},
        )
        connection.execute("drop table forgotten")
    return Pruned(spans, attempts)


def _add(one: Pruned, other: Pruned) -> Pruned:
    return Pruned(one.spans + other.spans, one.attempts + other.attempts)
