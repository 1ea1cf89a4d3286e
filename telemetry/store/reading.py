"""Answer queries on a connection of their own, within a time, until cancelled; they cannot write."""

import contextlib
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import duckdb
import pyarrow as pa

from telemetry.errors import StoreError
from telemetry.store.statements import execute, roll_back

_AGAIN_S: Final = 0.02
"""DuckDB forgets an interruption that comes between a query's planning and its running, so it is repeated."""
_AGAIN_TIMES: Final = 100
"""A query that does not end by then, an export that nobody reads from, say, is left alone."""
IN_THE_WAY: Final = "the query was stopped, because it kept the store from emptying its log"
HUNGRY: Final = (
    "the query was stopped, because it left too little memory for storing spans; narrow its time range, or ask for less"
)
_NO_ROWS: Final = "only a statement that answers with rows can be asked"

_SHORT: Final = re.compile(
    r"Out of Memory|(failed to|could not) (allocate|pin|offload)|transaction is aborted|write-write conflict"
)
"""A commit that finds too little memory fails with a TransactionException; a rollback that does leaves a transaction
that is aborted, or conflicts with the next one."""

# DuckDB proposes a relation, which saves a copy of the rows and binds the statement twice. A report has few rows, and
# binding it takes a quarter of its time in a small store; `Reader.batches`, for many rows, makes a relation.
warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning, module=re.escape(__name__))


class Reader:
    """One connection, one query at a time; `cancel` may come from any thread. Made by `Store.reader`.

    All its queries see what was committed before the first of them, until one fails, or `end`.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        snapshot: Callable[["Reader"], contextlib.AbstractContextManager[None]],
    ) -> None:
        """
        Args:
            snapshot: a reading transaction on it, for the length of a block.
        """
        self._state: contextlib.ExitStack | None = None
        """Ends the snapshot that the first query began."""
        self._began_s = 0.0
        """When that was, by the monotonic clock."""
        self.connection = connection
        self.sees_tail = False
        """Whether the connection has views of its own, in which what waits is added to what is stored."""
        self._snapshot = snapshot
        self._cancelled = False
        self._spoiled = False
        """Whether it failed to begin, and may have half of what it needs; or to end, and may have a transaction."""
        self._stopped: str | None = None
        """Why it was, until `end`."""
        self._busy = threading.Lock()
        self._running = False
        self._ran_short = False
        self.place = (False, 0.0)
        """Among those that are stopped for their memory: exports, which need little, last; who began first, first."""
        self._urging = threading.Lock()
        """Held while it is looked whether a query runs, and while one begins or ends to."""

    def query(
        self, sql: str, params: Mapping[str, object] | None = None, *, timeout_s: float | None = None
    ) -> pa.Table:
        """Answer one statement.

        Args:
            timeout_s: since the first query of those that see the same. None means no limit.

        Raises:
            StoreError: the statement cannot be run, was cancelled, took too long, or needs too much memory.
        """
        with self._answering(timeout_s):
            answer = execute(self.connection, sql, dict(params or {}))
            if answer.description is None:
                raise StoreError(_NO_ROWS)
            return answer.to_arrow_table()

    def end(self) -> None:
        """Let go of what the queries saw: the next one sees what is there by then."""
        with self._busy:
            self._end()
            with self._urging:
                self._stopped = None

    @contextlib.contextmanager
    def batches(
        self, sql: str, params: Mapping[str, object] | None = None, *, rows: int = 50_000
    ) -> Iterator[pa.RecordBatchReader]:
        """Answer one statement piece by piece.

        Raises:
            StoreError: as `query`.
        """
        with self._answering(None, exports=True):
            answer = self.connection.sql(sql, params=dict(params or {}))
            if answer is None:
                raise StoreError(_NO_ROWS)
            found = answer.to_arrow_reader(rows)
            try:
                yield found
            finally:
                found.close()  # what nobody reads to its end would keep the transaction open

    @property
    def reusable(self) -> bool:
        """Whether further queries may be asked."""
        return not (self._cancelled or self._spoiled)

    def spoil(self) -> None:
        """Say that its transaction could not be ended."""
        self._spoiled = True

    def cancel(self) -> None:
        """End the query that runs, wait until it has ended, and refuse the next ones."""
        self._cancelled = True
        while not self._busy.acquire(timeout=_AGAIN_S):
            with contextlib.suppress(duckdb.Error):  # it is closed
                self.connection.interrupt()
        self._busy.release()

    def stop(self, why: str) -> None:
        """Ask the query that runs to end, or refuse the next one that is to see the same; does not wait.

        Unlike after `cancel` it can be asked again after `end`.

        Args:
            why: for whom it is stopped.
        """
        with self._urging, contextlib.suppress(duckdb.Error):  # it is closed
            if self._state is None:
                return  # it keeps nothing
            if self._running:
                self.connection.interrupt()
            self._stopped = why
        if self._busy.acquire(blocking=False):  # nobody asks at the moment
            try:
                self._end()
            finally:
                self._busy.release()

    @property
    def hungry(self) -> bool:
        """Whether a query runs that was not asked yet to end."""
        return self._running and self._stopped is None

    @property
    def ran_short(self) -> bool:
        """Whether memory was too short for it since it was asked so last."""
        ran_short, self._ran_short = self._ran_short, False
        return ran_short

    def give_way(self) -> None:
        """As `stop`, for the memory that it takes; waits until the query has ended."""
        place = self.place
        for _ in range(_AGAIN_TIMES):
            if not self._running or self.place is not place:
                break
            self.stop(HUNGRY)
            if self._busy.acquire(timeout=_AGAIN_S):
                self._busy.release()

    def close(self) -> None:
        """Wait for the query that runs, and close the connection."""
        with self._busy:
            self.connection.close()

    @contextlib.contextmanager
    def _answering(self, timeout_s: float | None, *, exports: bool = False) -> Iterator[None]:
        """Ask in the block; what DuckDB raises comes out as StoreError."""
        with self._busy:
            if self._cancelled:
                raise StoreError("the query was cancelled")
            if self._stopped:
                raise StoreError(self._stopped)
            try:
                self._begin()
                self.place = (exports, time.monotonic())
                with self._interruptible(), self._limited(timeout_s):
                    yield
            except (duckdb.Error, MemoryError) as error:
                self._ran_short = short_of_memory(error)
                self._end()  # some errors end the transaction by themselves
                raise self._explained(error, timeout_s) from error

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        with self._urging:
            self._running = True
        try:
            yield
        finally:
            with self._urging:
                self._running = False

    @contextlib.contextmanager
    def _limited(self, timeout_s: float | None) -> Iterator[None]:
        """Interrupt what runs in the block when it is time."""
        if timeout_s is None:
            yield
            return
        done = threading.Event()

        def end() -> None:
            left_s = max(0.0, self._began_s + timeout_s - time.monotonic())
            while not done.wait(left_s):
                self.connection.interrupt()
                left_s = _AGAIN_S

        timer = threading.Thread(target=end, daemon=True)
        timer.start()
        try:
            yield
        finally:
            done.set()
            timer.join()  # so that it interrupts no later query

    def _begin(self) -> None:
        if self._state is None:
            if self._spoiled:
                roll_back(self.connection)
            self._spoiled = True
            with contextlib.ExitStack() as beginning:
                beginning.enter_context(self._snapshot(self))
                self._state = beginning.pop_all()
            self._spoiled = False
            self._began_s = time.monotonic()

    def _end(self) -> None:
        if self._state is not None:
            self._state.close()
            self._state = None

    def _explained(self, error: duckdb.Error | MemoryError, timeout_s: float | None) -> StoreError:
        if isinstance(error, duckdb.InterruptException):
            if self._stopped:
                return StoreError(self._stopped)
            if self._cancelled or timeout_s is None:
                return StoreError("the query was cancelled")
            return StoreError(f"the query took longer than {timeout_s:g} s; narrow its time range")
        if short_of_memory(error):
            return StoreError(
                "the query needs more memory than is free; narrow its time range, or ask again when others have ended"
            )
        return StoreError(f"the query failed: {error}")


def end_longest(readers: Iterable[Reader]) -> bool:
    """End the query that has run longest, for the memory it takes; whether there was one."""
    running = [reader for reader in readers if reader.hungry]
    if running:
        min(running, key=lambda reader: reader.place).give_way()
    return bool(running)


def in_doubt(error: BaseException) -> bool:
    """Whether a transaction that ended with it may have been committed all the same."""
    if isinstance(error, duckdb.Error) and not isinstance(error, duckdb.InterruptException):
        return "Failed to commit" in str(error)
    return True


def unusable(error: BaseException) -> bool:
    """Whether the file must be opened again after it.

    Where memory ends while a table or a view is made or dropped, a rollback forgets to undo that, and it conflicts with
    all that comes later; nothing else does, as one at a time changes them.
    """
    left_over = isinstance(error, duckdb.TransactionException) and "conflict" in str(error)
    return left_over or isinstance(error, duckdb.FatalException)


def short_of_memory(error: BaseException) -> bool:
    """Whether it failed for want of memory."""
    return isinstance(error, MemoryError) or (isinstance(error, duckdb.Error) and bool(_SHORT.search(str(error))))
