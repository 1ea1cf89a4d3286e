"""Stores of any size for benchmarks: a fleet of up to ten million spans, and copies of it beyond."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from telemetry.simulator import fleet
from telemetry.store import relations
from telemetry.store.duck import Store

SPANS_PER_ATTEMPT: Final = 17.8
"""Of the generator, with a heartbeat every five minutes; only to choose how many attempts make a size."""
LARGEST_FLEET: Final = 10_000_000
"""Spans. A larger store is copies of one of this size: storing 100 million one by one takes most of an hour."""
_SHIFT_NS: Final = 37 * 10**9
"""From one copy to the next."""
_MOMENTS: Final = ("start_ns", "end_ns", "connected_ns", "disconnected_ns", "last_seen_ns", "received_ns", "at_ns")


@dataclass(frozen=True, slots=True)
class Size:
    """How many spans over how many days."""

    spans: int
    days: float

    @classmethod
    def read(cls, text: str) -> "Size":
        """`10000000` over 90 days, or `10000000/9` over nine."""
        spans, _, days = text.partition("/")
        return cls(int(spans), float(days or 90))

    def __str__(self) -> str:
        return f"{self.spans / 1e6:g} M, {self.days:g} d"

    @property
    def now_ns(self) -> int:
        """When the fleet's days are over."""
        return fleet.START_NS + int(self.days * fleet.DAY_NS)

    @property
    def copies(self) -> int:
        """How many times over a store of that size holds its fleet."""
        return max(1, round(self.spans / LARGEST_FLEET))


def stored(folder: Path, size: Size) -> tuple[Path, Path]:
    """The store of that size, made unless it is there already, and the store that it is copies of, or itself."""
    once = folder / f"{size.spans // size.copies}-{size.days:g}.duckdb"
    if not once.exists():
        fill(once, size)
    renew(once)
    if size.copies == 1:
        return once, once
    many = folder / f"{size.spans}-{size.days:g}.duckdb"
    if not many.exists():
        begun = time.perf_counter()
        multiply(once, many, size.copies)
        print(f"  copied {size.copies} times in {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    renew(many)
    return many, once


def renew(path: Path) -> None:
    """Bring a store that another version made up to date."""
    begun = time.perf_counter()
    Store.open(path).close()
    print(f"  opened {path.name} for writing in {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


def fill(path: Path, size: Size) -> None:
    """Make a store of a fleet, once, tended as a serving process tends it."""
    begun = time.perf_counter()
    attempts = round(size.spans / size.copies / SPANS_PER_ATTEMPT)
    with Store.open(path) as store:
        for table in fleet.generate(attempts, size.days, seed=1, sample_every_s=300):
            store.commit([table])
            store.tend()
        store.tend(now=True)
    print(f"  stored {attempts:,} attempts in {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


def multiply(base: Path, target: Path, copies: int) -> None:
    """Make a store of several copies of another, woven together in time, each with ids of its own."""
    with Store.open(target):
        pass
    with duckdb.connect(str(target)) as connection:
        connection.execute("set enable_progress_bar = false")
        connection.execute(f"attach '{base}' as base (read_only)")
        tables = connection.execute(
            "select table_name, list(column_name order by column_index) from duckdb_columns() "
            "where database_name = 'base' and schema_name = 'stored' and table_name in "
            "(select table_name from duckdb_tables() where database_name = 'base' and estimated_size > 0) group by 1"
        ).fetchall()
        made_on_opening = {"ids", "ids_recent", *(relation.name for relation in relations.GROUPED)}
        first, last = connection.execute("select min(start_ns), max(start_ns) from base.stored.spans").fetchall()[0]
        for name, columns in tables:
            if "start_ns" not in columns or name in made_on_opening:
                continue
            columns = [column for column in columns if not column.endswith("_hash")]  # of ids, which will be others
            selected = ", ".join(f"{copied(column, 'lower(to_hex(copy))')} as {column}" for column in columns)
            for since in range(first, last + 1, fleet.DAY_NS):
                connection.execute(
                    f"insert into stored.{name} by name select {selected} "
                    f"from base.stored.{name}, range({copies}) as copies(copy) "
                    f"where start_ns >= {since} and start_ns < {since + fleet.DAY_NS} order by start_ns"
                )
        connection.execute("update stored.store set definitions = 'copied'")  # so that hashes are computed on opening
        connection.execute("checkpoint")


def copied(column: str, digit: str) -> str:
    """What a column of a copy has, in SQL that both engines know: times a little later, ids that begin with a digit."""
    if column in _MOMENTS:
        return f"{column} + copy * {_SHIFT_NS}"
    if column.endswith("_id") and column not in ("span_id", "parent_span_id"):
        return f"{digit} || substr({column}, 2)"
    return column
