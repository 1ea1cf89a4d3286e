"""A source of rows for tests: DuckDB in memory with the relations as `queries/schema/` defines them."""

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from telemetry import settings

_RELATIONS = (
    *("spans", "connections", "ids", "steps", "durations", "sessions", "episodes", "samples", "verdicts"),
    *("ledger", "ingest"),
)


class MemorySource:
    """Answers SQL as a store does, from the tables that it was given."""

    def __init__(self, *tables: pa.Table) -> None:
        self._connection = duckdb.connect()
        folder = settings.data_folder("queries") / "schema"
        for name in _RELATIONS:
            self._connection.execute((folder / f"{name}.sql").read_text(encoding="utf-8"))
        for table in tables:
            self.add(table)

    def add(self, table: pa.Table) -> None:
        """Keep the spans of an Arrow table with the receiver's columns; those that are there already once only."""
        self._connection.register("batch", table)
        columns = self._connection.execute(
            "select column_name, data_type from duckdb_columns() where table_name = 'spans' order by column_index"
        ).fetchall()
        chosen = ", ".join(f"{name}::json::variant" if kind == "VARIANT" else name for name, kind in columns)
        self._connection.execute(
            f"insert into spans select {chosen} from batch anti join spans using (trace_id, span_id)"
        )
        self._connection.unregister("batch")

    def clear(self) -> None:
        """Forget all spans; making the relations anew takes longer than most tests."""
        self._connection.execute("delete from spans")
        self._connection.execute("delete from ledger")

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """The rows that answer a statement."""
        with self._connection.cursor() as cursor:
            return cursor.sql(sql, params=dict(params or {})).to_arrow_table()

    def keep(self) -> "MemorySource":
        """Turn the largest views into tables of the same rows, so that many reports over many spans are quick."""
        for name in ("connections", "steps", "samples"):
            self._connection.execute(f"create table kept as from {name}")
            self._connection.execute(f"drop view {name} cascade")
            self._connection.execute(f"alter table kept rename to {name}")
        return self
