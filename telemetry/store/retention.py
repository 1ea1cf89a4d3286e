"""Forget what is older than it may be kept, or more than there is room for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import duckdb
import pyarrow.compute as pc

from telemetry.store import relations
from telemetry.store.duck import Store

DAY_NS: Final = 86_400 * 1_000_000_000
_ENDED: Final = "least(end_ns, received_ns)"
"""When a span counts as ended: not after it arrived, whatever its sender's clock says."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long spans are kept, and how many bytes they may take."""

    days: float | None = None
    """By the end of the attempt's last span, or by its arrival if that was earlier. None keeps them for ever."""
    max_bytes: int | None = None
    """Of the file, without what is free in it; the oldest go first. None means as many as the disk has.
    Whole row groups of some 5 MB are given back, so a limit below 100 MB is not kept exactly."""
    environment_days: Mapping[str, float] = field(default_factory=dict)
    """Other limits for some environments (`deployment.environment.name`). Their room is given back when what came
    between has gone, too, or by a store with `merges`: `telemetry store prune` while nothing serves."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was forgotten."""

    spans: int
    attempts: int


def prune(store: Store, retention: Retention, *, now_ns: int) -> Pruned:
    """Forget what the retention no longer covers, and give its room back to the file.

    An attempt goes as a whole, so that what is left still equals its definition.
    Commits go on meanwhile; only giving back the room makes them wait, for one checkpoint. Where queries prevent that,
    `Store.tend` does it later.

    Raises:
        StoreError: the disk is full, say; what is pruned already stays pruned.
    """
    done = [
        _forget(store, now_ns - int(days * DAY_NS), "environment = $name", {"name": name})
        for name, days in retention.environment_days.items()
    ]
    if retention.days is not None:
        others = "(environment is null or environment not in (select unnest($names::varchar[])))"
        names = list(retention.environment_days)
        done.append(_forget(store, now_ns - int(retention.days * DAY_NS), others, {"names": names}))
    # What is forgotten takes room until it is given back; nothing more is forgotten for its sake.
    given_back = store.compact() if store.room_owed or any(one.spans for one in done) else True
    size = used_bytes(store)
    while given_back and retention.max_bytes is not None and size > retention.max_bytes:
        share = min(0.5, 1.05 * (size - retention.max_bytes) / size)
        done.append(_forget(store, _oldest_ns(store, share), "true", {}))
        given_back = store.compact()
        before, size = size, used_bytes(store)
        if size >= before:
            break  # DuckDB keeps the row groups until more of them is gone
    return Pruned(sum(one.spans for one in done), sum(one.attempts for one in done))


def used_bytes(store: Store) -> int:
    """Bytes of the file that hold something."""
    return _stored(
        store, "select used_blocks * block_size from pragma_database_size() where database_name <> 'tail'", {}
    )


def _oldest_ns(store: Store, share: float) -> int:
    """When so many of the stored spans had ended."""
    quantile = f"select coalesce(approx_quantile({_ENDED}, $share::float), 0) from stored.spans"
    return _stored(store, quantile, {"share": share})


def _stored(store: Store, sql: str, params: dict[str, object]) -> int:
    """Ask what is stored for a number. What waits is not put together for it, which takes seconds on a busy machine."""
    with store.maintained("pruning") as connection:
        return int(connection.execute(sql, params).fetchall()[0][0])


def _forget(store: Store, before_ns: int, which: str, params: dict[str, object]) -> Pruned:
    """Forget the attempts of which nothing was heard since `before_ns`, and the other spans that ended before.

    Args:
        which: a condition on `environment`, with its parameters.
    """
    waiting = store.waiting()
    oldest_ns = pc.min(pc.min_element_wise(waiting["end_ns"], waiting["received_ns"])).as_py()
    store.tend(now=oldest_ns is not None and oldest_ns < before_ns)  # so that no span of theirs waits to be folded
    values = {**params, "before": before_ns}
    old = f"attempt_id is null and {_ENDED} < $before"
    with store.maintained("pruning") as connection, store.transaction(connection):
        connection.register("waiting", store.waiting())
        attempts = _count(
            connection,
            "create or replace temp table forgotten as "
            f"select trace_id from stored.connections where least(last_seen_ns, received_ns) < $before and {which} "
            "and trace_id not in (select trace_id from waiting)",
            values,
        )
        for statement in relations.forget():
            connection.execute(statement)
        # All spans of a forgotten attempt ended before, or all of them arrived before; saying so lets DuckDB pass over
        # the rest of the file.
        spans = 0
        for time_ns in ("end_ns", "received_ns"):
            spans += _count(
                connection,
                "delete from stored.spans "
                f"where {time_ns} < $before and attempt_id is not null and trace_id in (from forgotten)",
                {"before": before_ns},
            )
        spans += _count(connection, f"delete from stored.spans where {old} and {which}", values)
        if not params.get("name"):
            connection.execute("delete from stored.ingest where minute_ns < $before", {"before": before_ns})
        connection.execute("drop table forgotten")
        if spans:
            store.forget_requests(connection)
    return Pruned(spans, attempts)


def _count(connection: duckdb.DuckDBPyConnection, sql: str, params: dict[str, object]) -> int:
    """Run a statement that says how many rows it changed."""
    return int(connection.execute(sql, params).fetchall()[0][0])
