"""Files of stores as earlier versions of telemetry left them after a crash: some spans are stored, others wait."""

from pathlib import Path

import duckdb
import pyarrow as pa

from telemetry import semconv
from telemetry.store import relations
from telemetry.store.duck import Store
from telemetry.store.journal import Source, packed
from tests.support.copies import copied

PROMOTED = next(column for column in semconv.COLUMNS if column.name == "network_type")
"""The column that these files lack: what it would say is among the attributes of their spans."""


def beside(path: Path) -> Path:
    """Where a store has such a file that can take its place."""
    return path.with_name("outdated.duckdb")


def without_column(path: Path, stored: pa.Table, waiting: pa.Table) -> None:
    """Make a file of version 2, without the column: it remembers no requests."""
    made = path.with_name("made.duckdb")
    with Store.open(made) as store:
        store.commit([stored])
        store.tend(now=True)
        store.commit([waiting])
        copied(made, path)
    made.unlink()
    with duckdb.connect(str(path)) as older:
        _take_column(older, "stored.spans", "variant")
        for side in relations.SIDES:
            batches = f"select rowid, batch from stored.journal_{side} where source = 'spans'"
            for place, batch in older.execute(batches).fetchall():
                older.register("batch", Source("spans").unpacked(batch))
                older.execute("create temp table waiting as from batch")
                _take_column(older, "waiting", "varchar")
                left = packed(older.sql("from waiting").to_arrow_table())
                older.execute(f"update stored.journal_{side} set batch = ? where rowid = ?", [left, place])
                older.execute("drop table waiting")
        older.execute("drop table stored.requests")
        for side in relations.SIDES:
            older.execute(f"delete from stored.journal_{side} where source = 'requests'")
        older.execute("update stored.store set schema_version = 2, definitions = 'older'")


def of_version_1(path: Path, stored: pa.Table, waiting: pa.Table) -> None:
    """Make a file of version 1, without the column, too: spans wait in tables of their own, in two halves."""
    other = path.with_name("other.duckdb")
    for each, given in ((path, stored), (other, waiting)):
        with Store.open(each) as store:
            store.commit([given], transport="grpc")
    half = waiting.num_rows // 2
    with duckdb.connect(str(path)) as older:
        older.execute(f"attach '{other}' as other")
        for side, part in zip(relations.SIDES, (f"limit {half}", f"offset {half}"), strict=True):
            older.execute(f"drop table stored.journal_{side}")
            older.execute(f"create table stored.spans_{side} as from other.stored.spans {part}")
            _take_column(older, f"stored.spans_{side}", "variant")
            ledger = relations.definition("ledger")
            older.execute(ledger.replace("create table ledger", f"create table stored.ledger_{side}"))
        older.execute(
            "insert into stored.ledger_a select minute_ns as at_ns, * exclude (minute_ns, lateness_mean_ms) "
            "from other.stored.ingest"
        )
        _take_column(older, "stored.spans", "variant")
        older.execute("drop table stored.requests")
        older.execute("update stored.store set schema_version = 1, definitions = 'older'")
    other.unlink()


def misplaced(store: Store) -> int:
    """How many spans of `attempt`, in such a file that is up to date, do not say it in the column and there only."""
    row = store.query(
        f"select count(*) as n from spans where {PROMOTED.name} is distinct from if(attempt_id is null, null, 'wifi') "
        "or json_exists(attributes::json, $path)",
        {"path": f'$."{PROMOTED.span}"'},
    ).to_pylist()[0]
    return int(row["n"])


def _take_column(older: duckdb.DuckDBPyConnection, table: str, kind: str) -> None:
    """Move what the column says to the attributes, which are of that type."""
    said = f"json_object('{PROMOTED.span}', {PROMOTED.name})"
    older.execute(
        f"update {table} set attributes = json_merge_patch(coalesce(attributes::json, '{{}}'), {said})::{kind} "
        f"where {PROMOTED.name} is not null"
    )
    older.execute(f"alter table {table} drop column {PROMOTED.name}")
