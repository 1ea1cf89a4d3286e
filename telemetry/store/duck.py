"""Own the DuckDB file: open it, commit batches of spans, answer queries.

One process owns the file, and one `Store` in it; `writer.py` gives the writing half to one thread.
Commits are serialised by a lock; queries run beside them on connections of their own and see whole commits only.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from telemetry import settings
from telemetry.errors import SchemaMismatch, StoreError, StoreLocked

SCHEMA_VERSION: Final = 1
RELATIONS: Final = ("spans", "connections", "steps", "sessions", "episodes", "samples")
"""What reports may read, in the order in which their definitions build on one another."""

_open_paths: set[Path] = set()
"""DuckDB lets one process open a file twice; two stores on it would each drop only the duplicates that they saw."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of the spans of a commit."""

    stored: int
    duplicates: int
    """Spans that were there already, or twice in the commit; dropped."""


class Store:
    """The one owner of the file. Any thread may call it; commits wait for one another, queries wait for nothing."""

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._connection = connection
        self._writing = threading.Lock()
        self._columns = _columns(connection)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, read_only: bool = False) -> "Store":
        """Open the file, or make it.

        Raises:
            StoreLocked: another process, or another Store of this one, has it open.
            SchemaMismatch: it was written by a newer version.
            StoreError: it is damaged, is no store, or its folder cannot be written.
        """
        path = Path(path).expanduser().resolve()
        if read_only and not path.exists():
            raise StoreError(f"there is no store at {path}; `telemetry serve` makes one")
        if path in _open_paths:
            raise StoreLocked(f"{path} is open in this process already", path=str(path), pid=os.getpid())
        connection = _connect(path, read_only=read_only)
        try:
            _prepare(connection, path, read_only=read_only)
            store = cls(path, connection, read_only=read_only)
        except BaseException:
            connection.close()
            raise
        _open_paths.add(path)
        return store

    def commit(self, tables: Sequence[pa.Table]) -> Committed:
        """Store the spans of all tables in one transaction; durable and queryable on return.

        Raises:
            StoreError: nothing of them was stored: the disk is full, say.
        """
        batch = pa.concat_tables(tables)
        columns = ", ".join(f"{name}::json::variant" if kind == "VARIANT" else name for name, kind in self._columns)
        with self._writing:
            self._connection.register("batch", batch)
            try:
                self._connection.execute("begin")
                stored = self._connection.execute(f"insert into spans select {columns} from batch").fetchall()[0][0]
                self._connection.execute("commit")
            except duckdb.Error as error:
                self._roll_back()
                raise StoreError(f"could not write to {self.path}: {error}") from error
            finally:
                self._connection.unregister("batch")
        return Committed(stored, batch.num_rows - stored)

    def query(
        self, sql: str, params: Mapping[str, object] | None = None, *, timeout_s: float | None = None
    ) -> pa.Table:
        """Answer one statement from the state of the last commit.

        Args:
            timeout_s: None means no limit.

        Raises:
            StoreError: the statement cannot be run, or took longer than `timeout_s`.
        """
        cursor = self._connection.cursor()
        timer = threading.Timer(timeout_s, cursor.interrupt) if timeout_s else None
        try:
            if timer:
                timer.start()
            answer = cursor.sql(sql, params=dict(params or {}))
            if answer is None:
                raise StoreError("only a statement that answers with rows can be asked")
            return answer.to_arrow_table()
        except duckdb.InterruptException as error:
            raise StoreError(f"the query took longer than {timeout_s:g} s; narrow its time range") from error
        except duckdb.Error as error:
            raise StoreError(f"the query failed: {error}") from error
        finally:
            if timer:
                timer.cancel()
            cursor.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._writing:
            self._connection.close()
            _open_paths.discard(self.path)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _roll_back(self) -> None:
        with contextlib.suppress(duckdb.TransactionException):  # some failures end the transaction by themselves
            self._connection.execute("rollback")


def _connect(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Open the file with DuckDB, and say clearly why when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return duckdb.connect(str(path), read_only=read_only)
    except OSError as error:
        raise StoreError(f"cannot make the folder of {path}: {error.strerror}") from error
    except duckdb.IOException as error:
        if "Could not set lock" in str(error):
            found = re.search(r"PID (\d+)", str(error))
            pid = int(found[1]) if found else None
            holder = f"process {pid}" if pid else "another process"
            raise StoreLocked(f"{path} is in use by {holder}", path=str(path), pid=pid) from error
        raise StoreError(f"cannot open {path}: {error}") from error
    except duckdb.Error as error:
        raise StoreError(f"cannot open {path}: {error}") from error


def _prepare(connection: duckdb.DuckDBPyConnection, path: Path, *, read_only: bool) -> None:
    """Make the schema in a fresh file, check its version in any other."""
    tables = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
    if not tables and not read_only:
        connection.execute("begin")
        connection.execute("create table store (schema_version bigint, created_ns bigint)")
        connection.execute("insert into store values (?, ?)", [SCHEMA_VERSION, time.time_ns()])
        folder = settings.data_folder("queries") / "schema"
        for name in RELATIONS:
            connection.execute((folder / f"{name}.sql").read_text())
        connection.execute("commit")
        return
    if "store" not in tables:
        raise StoreError(f"{path} is a DuckDB file, but not a telemetry store; choose another path")
    found = connection.execute("select schema_version from store").fetchall()[0][0]
    if found != SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path} has schema version {found}; this version of telemetry knows {SCHEMA_VERSION}",
            path=str(path),
            found=found,
            expected=SCHEMA_VERSION,
        )


def _columns(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    return connection.execute(
        "select column_name, data_type from duckdb_columns() where table_name = 'spans' order by column_index"
    ).fetchall()
