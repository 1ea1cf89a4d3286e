"""Answer queries on a connection of their own, within a time, until cancelled; they cannot write."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import duckdb
import pyarrow as pa

from telemetry.errors import StoreError

_AGAIN_S: Final = 0.02
"""DuckDB forgets an interruption that comes between a query's planning and its running, so it is repeated."""


class Reader:
    """One connection, one query at a time; `cancel` may come from any thread. Made by `Store.reader`."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, begin: Callable[[duckdb.DuckDBPyConnection], None]
    ) -> None:
        """
        Args:
            begin: begins a reading transaction on it.
        """
        self._connection = connection
        self._begin = begin
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

    @property
    def reusable(self) -> bool:
        """Whether further queries may be asked."""
        return not self._cancelled

    def cancel(self) -> None:
        """End the query that runs, wait until it has ended, and refuse the next ones."""
        self._cancelled = True
        while not self._busy.acquire(timeout=_AGAIN_S):
            self._connection.interrupt()
        self._busy.release()

    def close(self) -> None:
        """Wait for the query that runs, and close the connection."""
        with self._busy:
            self._connection.close()

    def _end_after(self, timeout_s: float, done: threading.Event) -> None:
        wait_s = timeout_s
        while not done.wait(wait_s):
            self._connection.interrupt()
            wait_s = _AGAIN_S

    @contextlib.contextmanager
    def _answered(
        self, sql: str, params: Mapping[str, object] | None, timeout_s: float | None
    ) -> Iterator[duckdb.DuckDBPyRelation]:
        done = threading.Event()
        timer = threading.Thread(target=self._end_after, args=(timeout_s, done), daemon=True) if timeout_s else None
        with self._busy:
            if self._cancelled:
                raise StoreError("the query was cancelled")
            try:
                if timer:
                    timer.start()
                self._begin(self._connection)
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
                done.set()
                if timer and timer.ident:
                    timer.join()  # so that it interrupts no later query
                with contextlib.suppress(duckdb.Error):  # a failure may have ended it already
                    self._connection.execute("rollback")
