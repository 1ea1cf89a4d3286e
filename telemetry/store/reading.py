"""Answer queries on a connection of their own, within a time, until cancelled; they cannot write."""

import contextlib
import threading
from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa

from telemetry.errors import StoreError


class Reader:
    """One connection, one query at a time; `cancel` may come from any thread. Made by `Store.reader`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._cancelled = False
        self._busy = threading.Lock()

    def query(
        self, sql: str, params: Mapping[str, object] | None = None, *, timeout_s: float | None = None
    ) -> pa.Table:
        """Answer one statement.

        Args:
            timeout_s: None means no limit.

        Raises:
            StoreError: the statement cannot be run, was cancelled, took too long, or needs too much memory.
        """
        with self._answered(sql, params, timeout_s) as answer:
            return answer.to_arrow_table()

    @contextlib.contextmanager
    def batches(
        self, sql: str, params: Mapping[str, object] | None = None, *, rows: int = 50_000
    ) -> Iterator[pa.RecordBatchReader]:
        """Answer one statement piece by piece, all pieces from one snapshot.

        Raises:
            StoreError: as `query`.
        """
        with self._answered(sql, params, None) as answer:
            yield answer.to_arrow_reader(rows)

    def cancel(self) -> None:
        """End the query that runs, and refuse the next ones."""
        self._cancelled = True
        self._connection.interrupt()

    def close(self) -> None:
        """Wait for the query that runs, and close the connection."""
        with self._busy:
            self._connection.close()

    @contextlib.contextmanager
    def _answered(
        self, sql: str, params: Mapping[str, object] | None, timeout_s: float | None
    ) -> Iterator[duckdb.DuckDBPyRelation]:
        timer = threading.Timer(timeout_s, self._connection.interrupt) if timeout_s else None
        with self._busy:
            if self._cancelled:
                raise StoreError("the query was cancelled")
            try:
                if timer:
                    timer.start()
                self._connection.execute("begin transaction read only")
                answer = self._connection.sql(sql, params=dict(params or {}))
                if answer is None:
                    raise StoreError("only a statement that answers with rows can be asked")
                yield answer
            except duckdb.InterruptException as error:
                if self._cancelled:
                    raise StoreError("the query was cancelled") from error
                raise StoreError(f"the query took longer than {timeout_s:g} s; narrow its time range") from error
            except duckdb.OutOfMemoryException as error:
                raise StoreError("the query needs more memory than it may have; narrow its time range") from error
            except duckdb.Error as error:
                raise StoreError(f"the query failed: {error}") from error
            finally:
                if timer:
                    timer.cancel()
                with contextlib.suppress(duckdb.Error):  # a failure may have ended it already
                    self._connection.execute("rollback")
