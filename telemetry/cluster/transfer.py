"""Copy spans between a store's file and ClickHouse, either way; what is derived from them is derived there again.

Days are compared by how many spans they have and by a sum over their ids, and only those that differ are copied.
So a copy that was interrupted is taken up where it was, and one that is repeated does nothing.

Nothing is lost on the way: typed columns stay typed, all else is JSON text with its types.
What came through the Collector's exporter has lost before what its table has no room for: the types of attributes
without a column (all are texts), flags, counts of what was dropped, schema addresses, and the attributes of scopes.
The ledger of what arrived stays where it is: it is of that receiver.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa

from telemetry.cluster import schema
from telemetry.cluster.source import connected, errors_of
from telemetry.errors import StoreError
from telemetry.receiver.otlp import SPANS_SCHEMA
from telemetry.store.duck import Store
from telemetry.store.retention import DAY_NS

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from telemetry.cluster.source import Address

ROWS: Final = 100_000
"""Inserted or committed at once. ClickHouse makes a part of each insertion, so few large ones are best."""
_COLUMNS: Final = ", ".join(SPANS_SCHEMA.names)

Days = Mapping[int, tuple[int, int]]
"""Day since 1970 (UTC) to how many spans begin on it, and the sum of their ids' last 32 bits."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did."""

    days: int
    spans: int
    days_there: int
    """Days that were the same already."""


class End(Protocol):
    """Where spans come from, or go to."""

    def days(self) -> Days:
        """What it holds."""

    def spans(self, day: int) -> Iterator[pa.Table]:
        """The spans of a day, in tables of `SPANS_SCHEMA`."""

    def take(self, spans: pa.Table) -> None:
        """Store spans; one that is there already is not stored twice."""


def copy(source: End, target: End, tell: Callable[[int, int], None] = lambda done, all: None) -> Copied:
    """Copy what the target lacks; the oldest day first.

    Args:
        tell: is called before the first day and after each, with how many spans are copied and how many will be.

    Raises:
        StoreError: one of the two cannot be read or written. What was copied until then stays.
    """
    wanted, there = source.days(), target.days()
    days = sorted(day for day in wanted if there.get(day) != wanted[day])
    all_spans = sum(wanted[day][0] for day in days)
    done = 0
    tell(done, all_spans)
    for day in days:
        for spans in source.spans(day):
            target.take(spans)
            done += spans.num_rows
        tell(done, all_spans)
    return Copied(len(days), done, len(wanted) - len(days))


class File:
    """A store's file."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def days(self) -> Days:
        rows = self._store.query(
            f"select start_ns // {DAY_NS} as day, count(*) as spans, "
            "sum(('0x' || substr(span_id, 9))::bigint)::bigint as ids from spans group by 1"
        ).to_pylist()
        return {row["day"]: (row["spans"], row["ids"]) for row in rows}

    def spans(self, day: int) -> Iterator[pa.Table]:
        statement = (
            f"select {self._store.readable_columns} from spans "
            f"where start_ns >= {day * DAY_NS} and start_ns < {(day + 1) * DAY_NS}"
        )
        with self._store.reader() as reader, reader.batches(statement, {}, rows=ROWS) as found:
            for batch in found:
                yield pa.table(batch).select(SPANS_SCHEMA.names).cast(SPANS_SCHEMA)

    def take(self, spans: pa.Table) -> None:
        self._store.commit([spans], exact=True)
        self._store.tend()


class ClickHouse:
    """A server or a cluster that has the schema."""

    def __init__(self, client: "Client", address: "Address", *, clustered: bool) -> None:
        self._client = client
        self._address = address
        self._target = "incoming_spans" if clustered else "stored_spans"

    def days(self) -> Days:
        with errors_of(self._address):
            rows = self._client.query(
                f"select intDiv(start_ns, {DAY_NS}) as day, count(), "
                "sum(reinterpretAsUInt32(reverse(unhex(substring(span_id, 9))))) from spans group by day"
            ).result_rows
        return {day: (spans, ids) for day, spans, ids in rows}

    def spans(self, day: int) -> Iterator[pa.Table]:
        statement = f"select {_COLUMNS} from spans where start_ns >= {day * DAY_NS} and start_ns < {(day + 1) * DAY_NS}"
        with errors_of(self._address), self._client.query_arrow_stream(statement, use_strings=True) as found:
            for batch in found:
                yield pa.table(batch).cast(SPANS_SCHEMA)

    def take(self, spans: pa.Table) -> None:
        with errors_of(self._address):
            self._client.insert_arrow(self._target, spans)


@contextmanager
def clickhouse(url: str) -> Iterator[ClickHouse]:
    """Open ClickHouse as an end of a copy.

    Raises:
        UsageError: the address cannot be read.
        SchemaMismatch: its schema is of a later version.
        StoreError: it does not answer, or has no schema.
    """
    with ExitStack() as stack:
        settings = {"distributed_foreground_insert": 1, "max_partitions_per_insert_block": 0}
        client, address = stack.enter_context(connected(url, settings=settings))
        found = schema.found(client, address)
        if found is None:
            raise StoreError(f"{address} has no schema; make one with `telemetry store init --store {address}`")
        if not found.is_current:
            raise StoreError(f"{address} has the schema of another release; bring it up with `telemetry store init`")
        yield ClickHouse(client, address, clustered=found.clustered)
