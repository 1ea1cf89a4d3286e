"""Open the DuckDB file and bring it to the schema of this version, or say clearly why that cannot be."""

import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import duckdb

from telemetry import semconv
from telemetry.errors import SchemaMismatch, StoreError, StoreLocked
from telemetry.store import blocks, promotion, relations
from telemetry.store.journal import Source, packed

_log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 3
"""Raised when the tables of `stored` change in a way that older versions of telemetry would misread: 2 has journals
where 1 has tables of what waits, 3 remembers requests."""
SPILLED: Final = 4.0
"""Times the memory: so much may be in the temporary folder, of queries that need more ..."""
SPILLED_SHARE: Final = 0.5
"""... and no more than this of the room on its disk on opening, which spans need, too. DuckDB itself would take 0.9."""


def connect(path: Path, *, read_only: bool, memory_limit_bytes: int, merges: int) -> duckdb.DuckDBPyConnection:
    """Open the file, or make it, locked down: no statement may reach another file, the network or the settings.

    Raises:
        StoreLocked: another process has it open.
        StoreError: it is damaged, is no DuckDB file, or cannot be written.
    """
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        room_bytes = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise StoreError(f"cannot make the folder of {path}: {error.strerror}") from error
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_limit_bytes * 3 // 4}B",  # spans that wait may have the rest: see Store.commit_each
        "max_temp_directory_size": f"{int(min(SPILLED * memory_limit_bytes, SPILLED_SHARE * room_bytes))}B",
        "wal_autocheckpoint": "1TB",  # checkpoints are this store's own business: see Store.tend
        "max_vacuum_tasks": merges,
        "python_enable_replacements": False,
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
    }
    blocks.put_back(path)
    if not read_only:
        _flush_logs(path)
    try:
        connection = duckdb.connect(str(path), read_only=read_only, config=config)
        connection.execute("attach ':memory:' as tail (read_only false)")
        connection.execute("pragma disable_checkpoint_on_shutdown")  # Store._disconnect does it, where it may
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        return connection
    except duckdb.Error as error:
        raise translated(error, path) from error


def logs(path: Path) -> list[Path]:
    """Where DuckDB writes what is committed: beside the file, and during a checkpoint to a second one."""
    return [path.with_name(path.name + suffix) for suffix in (".wal", ".wal.checkpoint")]


def _flush_logs(path: Path) -> None:
    """Make durable what a killed process wrote to its log, and had not flushed: whoever sends it again is told at once
    that it is stored."""
    for log in logs(path):
        try:
            blocks.flush(log)
        except (FileNotFoundError, PermissionError):  # of which DuckDB says more
            pass
        except OSError as error:
            raise StoreError(f"cannot write the log of {path}: {error.strerror}") from error


def prepare(connection: duckdb.DuckDBPyConnection, path: Path, *, read_only: bool) -> None:
    """Make the schema in a fresh file; in any other check its version, and renew what is derived.

    Raises:
        SchemaMismatch: the file was written by a newer version, or by an older one and may not be changed.
        StoreError: it is a DuckDB file, but no store.
    """
    tables = {
        name
        for (name,) in connection.execute(
            "select table_name from duckdb_tables() where database_name <> 'tail'"
        ).fetchall()
    }
    if not tables and not read_only:
        _make(connection)
        return
    if "store" not in tables:
        raise StoreError(f"{path} is a DuckDB file, but not a telemetry store; choose another path")
    found, fingerprint = connection.execute("select schema_version, definitions from stored.store").fetchall()[0]
    if found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path} has schema version {found}, and this version of telemetry knows up to {SCHEMA_VERSION}; "
            "install a newer one, or choose another path",
            path=str(path),
            found=found,
            expected=SCHEMA_VERSION,
        )
    known = {name for name, _ in relations.columns("spans")}
    if unknown := [name for name in _columns(connection, "spans") if name not in known]:
        raise SchemaMismatch(
            f"the spans in {path} have columns of a newer version of telemetry ({', '.join(unknown)}), which this one "
            "would lose; install that, or choose another path",
            path=str(path),
            found=found,
            expected=SCHEMA_VERSION,
        )
    if fingerprint == relations.fingerprint() and found == SCHEMA_VERSION:
        return
    if read_only:
        raise SchemaMismatch(
            f"the relations in {path} are defined otherwise than in this version of telemetry; "
            "open it once for writing (`telemetry serve`) to bring it up to date",
            path=str(path),
            found=found,
            expected=SCHEMA_VERSION,
        )
    rows_differ = fingerprint.partition(" ")[0] != relations.fingerprint().partition(" ")[0]
    if rows_differ:
        _log.warning("bringing %s up to date with this version of telemetry: minutes for 100 million spans", path)
        _add_columns(connection, found)
    _renew(connection, rows_differ=rows_differ)
    if found == 1:
        _empty_inboxes(connection)
    if found < 3:
        _add_requests(connection)


def _make(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("begin")
    for statement in (*relations.tables(), relations.requests()):
        connection.execute(statement)
    connection.execute("create table stored.store (schema_version bigint, created_ns bigint, definitions varchar)")
    connection.execute(
        "insert into stored.store values (?, ?, ?)", [SCHEMA_VERSION, time.time_ns(), relations.fingerprint()]
    )
    for statement in (*relations.definitions(), *relations.views()):
        connection.execute(statement)
    connection.execute("commit")


def _add_columns(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    """Give `spans` the columns that it lacks, with what the attributes of spans say for them: see `promotion`.

    Where some do, all spans are written anew: two minutes for 10 million, and as much room again, which the file keeps
    for what comes.
    """
    have = _columns(connection, "spans")
    added = [(name, kind) for name, kind in relations.columns("spans") if name not in have]
    promoted = _promoted(have)
    if not added:
        return
    connection.execute("begin")
    if promoted and connection.execute(
        f"select exists (from stored.spans where {promotion.concerned(promoted)})"
    ).fetchone() == (True,):
        changed = promotion.values(promoted, "variant")
        kept = ", ".join(name for name in have if name not in changed)
        made = ", ".join(f"{value} as {name}" for name, value in changed.items())
        connection.execute("alter table stored.spans rename to outdated")
        connection.execute(relations.spans())
        connection.execute(f"insert into stored.spans by name select {kept}, {made} from stored.outdated")
        connection.execute("drop table stored.outdated")
    else:
        for name, kind in added:
            connection.execute(f"alter table stored.spans add column {name} {kind}")
    if promoted and version > 1:
        _promote_waiting(connection, promotion.values(promoted, "varchar"))
    connection.execute("commit")


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    columns = "select column_name from duckdb_columns() where schema_name = 'stored' and table_name = ?"
    return [name for (name,) in connection.execute(columns, [table]).fetchall()]


def _promoted(have: list[str]) -> list[semconv.Column]:
    """Those that attributes fill, of the columns that spans lack."""
    return [column for column in semconv.COLUMNS if column.name not in have]


def _promote_waiting(connection: duckdb.DuckDBPyConnection, changed: Mapping[str, str]) -> None:
    """The same for spans that a crash left in a journal."""
    source, replaced = Source("spans"), ", ".join(f"{value} as {name}" for name, value in changed.items())
    for side in relations.SIDES:
        batches = f"select rowid, batch from stored.journal_{side} where source = 'spans'"
        for place, batch in connection.execute(batches).fetchall():
            connection.register("waiting", source.unpacked(batch))
            table = connection.sql(f"select * replace ({replaced}) from waiting").to_arrow_table()
            connection.execute(
                f"update stored.journal_{side} set batch = ? where rowid = ?", [packed(source.checked(table)), place]
            )
    connection.unregister("waiting")


def _renew(connection: duckdb.DuckDBPyConnection, *, rows_differ: bool) -> None:
    """Follow changed definitions.

    Args:
        rows_differ: whether the rows that are kept are defined otherwise, or only the views.
    """
    connection.execute("begin")
    meant = _meaning(connection)
    connection.execute("drop schema definition cascade")
    views = connection.execute("select schema_name, view_name from duckdb_views() where not internal").fetchall()
    for schema, name in views:
        connection.execute(f'drop view if exists {schema}."{name}"')
    for statement in relations.definitions():
        connection.execute(statement)
    if rows_differ:
        _compute(connection, meant)
    for statement in relations.views():
        connection.execute(statement)
    connection.execute("update stored.store set definitions = ?", [relations.fingerprint()])
    connection.execute("commit")


def _compute(connection: duckdb.DuckDBPyConnection, meant: Mapping[str, str]) -> None:
    """Compute the rows that are kept: from themselves where their merged columns mean what they meant."""
    means = _meaning(connection)
    for relation in relations.MERGED:
        name = relation.name
        connection.execute(f"alter table stored.{name} rename to outdated")
        # Made with its rows: DuckDB 2.0 does not read rows that join a table in the transaction that makes it.
        same = relation.source != "spans" or meant.get(name) == means[name]  # what the ledger held is gone
        connection.execute(relation.derived("stored.outdated") if same else relation.computed("stored.spans"))
        connection.execute("drop table stored.outdated")
    for statement in relations.compute():
        connection.execute(statement)


def _empty_inboxes(connection: duckdb.DuckDBPyConnection) -> None:
    """Fold what waits in a file of version 1, in its `spans_a`, `spans_b`, `ledger_a` and `ledger_b`."""
    connection.execute("begin")
    # With the columns that an older file lacks.
    both = "(from stored.spans limit 0) union all by name from stored.spans_a union all by name from stored.spans_b"
    changed = promotion.values(_promoted(_columns(connection, "spans_a")), "variant")
    replaced = ", ".join(f"{value} as {name}" for name, value in changed.items())
    connection.execute(f"create temp table waiting_spans as select * replace ({replaced}) from ({both})")
    connection.execute("create temp table waiting_ledger as from stored.ledger_a union all from stored.ledger_b")
    for relation in relations.MERGED:
        for statement in relation.fold:
            connection.execute(statement)
    connection.execute("insert into stored.spans by name from waiting_spans")
    for source in ("spans", "ledger"):
        connection.execute(f"drop table waiting_{source}")
        for side in relations.SIDES:
            connection.execute(f"drop table stored.{source}_{side}")
    for side in relations.SIDES:
        connection.execute(relations.journal(side))
    connection.execute("update stored.store set schema_version = 2")
    connection.execute("commit")


def _add_requests(connection: duckdb.DuckDBPyConnection) -> None:
    """Let a file of version 2 remember requests."""
    connection.execute("begin")
    connection.execute(relations.requests())
    connection.execute("update stored.store set schema_version = 3")
    connection.execute("commit")


def _meaning(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """How the file says that each relation's merged columns are computed, in DuckDB's own words."""
    defined = connection.execute(
        "select view_name, sql from duckdb_views() where schema_name = 'definition'"
    ).fetchall()
    return {name: sql.rpartition(") SELECT ")[0] for name, sql in defined if "WITH merged AS (" in sql}


def disk_is_full(error: BaseException) -> bool:
    """Whether it failed for want of room, also of that which a process may take."""
    return re.search("No space left|write all bytes|File too large", str(error)) is not None


def translated(error: duckdb.Error, path: Path) -> StoreError:
    """What to say of a file that cannot be opened."""
    text = str(error)
    if "Could not set lock" in text:
        found = re.search(r"PID (\d+)", text)
        pid = int(found[1]) if found else None
        holder = f"process {pid}" if pid else "another process"
        return StoreLocked(
            f"{path} is in use by {holder}; ask it, stop it, or choose another path", path=str(path), pid=pid
        )
    if "not a valid DuckDB database" in text:
        return StoreError(f"{path} is not a telemetry store; choose another path")
    if "Permission denied" in text or "Read-only file system" in text:
        return StoreError(f"{path} cannot be {'read' if not os.access(path, os.R_OK) else 'written'} by this user")
    if disk_is_full(error):
        return StoreError(f"the disk of {path} is full; make room, and open it again")
    return StoreError(f"{path} cannot be opened, it may be damaged; restore a backup ({text.splitlines()[0]})")
