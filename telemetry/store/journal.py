"""Hold what is committed and not folded yet: as tables in memory, and packed, as the file's journal keeps it.

Pure: no I/O, no clock.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import pyarrow as pa

from telemetry.errors import DecodeError
from telemetry.store import relations

_TYPES: Final = {
    "varchar": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "variant": pa.string(),
}
"""A VARIANT column travels as JSON text."""
_RUN_ROWS: Final = 2_048
"""A table of fewer rows is small: DuckDB reads so many at once, and each has 85 columns, however few its rows are."""
_LOOSE: Final = 32
"""Small tables that may wait to be joined: each takes up to 30 KB more than its rows do."""
_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
"""100 bytes a span of the connector; other spans 120 and more."""


class Source:
    """What the definition of one of `relations.SOURCES` says of its columns."""

    def __init__(self, name: str) -> None:
        self.schema = pa.schema([(column, _TYPES[kind]) for column, kind in relations.columns(name)])
        self._required = re.findall(r"^  (\w+) \w+ not null", relations.definition(name), re.MULTILINE)

    def checked(self, table: pa.Table) -> pa.Table:
        """The table with exactly these columns.

        Raises:
            DecodeError: it has others, or nothing where something must be.
        """
        if table.schema.names != self.schema.names:
            raise DecodeError("a table has other columns than spans have")
        if missing := [column for column in self._required if table[column].null_count]:
            raise DecodeError(f"spans lack their {', '.join(missing)}")
        return table if table.schema.equals(self.schema) else table.cast(self.schema)

    def unpacked(self, batch: bytes) -> pa.Table:
        """The table again, also when it had fewer columns, being of an earlier version."""
        table = pa.ipc.open_stream(batch).read_all()
        columns = [
            table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
            for field in self.schema
        ]
        return pa.table(columns, schema=self.schema)


def packed(table: pa.Table) -> bytes:
    """What the journal keeps of a table: the columns that hold anything."""
    table = table.select(_filled(table))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as stream:
        stream.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """One table, each column in one piece. Those that hold nothing are not copied: they are parts of the same ones.

    A span fills some 15 to 45 of its 85 columns.
    """
    table = pa.concat_tables(tables)
    if all(column.num_chunks == 1 for column in table.columns):
        return table
    names = _filled(table)
    # Arrow's own pool takes huge pages, and gives them back soon: for a row group they cost 1.3 microseconds a span.
    pieces = table.select(names).combine_chunks(memory_pool=pa.system_memory_pool()).columns
    filled = dict(zip(names, pieces, strict=True))
    columns = [filled.get(field.name) or _nulls(table.num_rows, field.type) for field in table.schema]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _filled(table: pa.Table) -> list[str]:
    """The columns that hold anything."""
    columns = zip(table.column_names, table.columns, strict=True)
    return [name for name, column in columns if column.null_count < table.num_rows]


def _nulls(rows: int, kind: pa.DataType) -> pa.Array:
    return _many_nulls(1 << rows.bit_length(), kind).slice(0, rows)


@lru_cache(maxsize=128)
def _many_nulls(rows: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(rows, kind)


class Waiting:
    """Tables of one source. One thread at a time."""

    def __init__(self, source: Source) -> None:
        self._empty = source.schema.empty_table()
        self.clear()

    def add(self, table: pa.Table) -> None:
        """Take a table after those that are here."""
        self.rows += table.num_rows
        self.size_bytes += table.nbytes
        if table.num_rows < _RUN_ROWS:
            self._loose.append(table)
        else:
            self._join()
            self._runs.append(table)
        if len(self._loose) >= _LOOSE:
            self._join()

    @property
    def tables(self) -> list[pa.Table]:
        """All of them, in their order: few, because small ones are joined."""
        self._join()
        return self._runs

    def clear(self) -> None:
        """Hold nothing any more."""
        self._runs = [self._empty]
        self._loose: list[pa.Table] = []
        self.rows = self.size_bytes = 0

    def _join(self) -> None:
        """Once for many: joining each small table with those before it takes a third of a commit."""
        if self._loose:
            small = self._runs[-1:] if self._runs[-1].num_rows < _RUN_ROWS else []
            run = joined([*small, *self._loose])  # for want of memory it may fail, and then all is as it was
            self._runs[len(self._runs) - len(small) :] = [run]
            self._loose = []
