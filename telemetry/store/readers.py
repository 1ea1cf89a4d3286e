"""Hand out the connections that read, and have them end where they keep the log from being emptied, or take the memory
that commits and folds need."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import duckdb

from telemetry.errors import StoreError
from telemetry.store.reading import IN_THE_WAY, Reader, end_longest, short_of_memory
from telemetry.store.statements import roll_back
from telemetry.store.tail import Tail
from telemetry.store.turnstile import Turnstile

MOST_IDLE: Final = 4
"""Connections kept for the next query: making one that sees what waits takes some 20 ms."""
SHORT_S: Final = 60.0
"""For so long after memory was too short, it counts as short."""
MOST_TRIES: Final = 12
"""Of a commit or a fold that finds too little memory, each with a query less: pages ask two at once ..."""
AGAIN_S: Final = 0.05
"""... and one that is about to begin cannot be stopped yet."""
OPENING_PATIENCE_S: Final = 10.0
"""How long a query waits while the file is opened again; that follows each commit while the disk is full."""
ENDING_PATIENCE_S: Final = 1.0
"""How long those that run may take to end before that; then they are cancelled."""

Answer = TypeVar("Answer")


class Readers:
    """The connections of one store that read, while its file is open. Any thread may call it."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: of the file, for what is said of it.
        """
        self.turnstile = Turnstile()
        """Which each of them passes."""
        self.closed = True
        self._path = path
        self._reading: set[Reader] = set()
        self._idle: list[Reader] = []
        self._changing = threading.Condition(threading.Lock())
        self._reopening = False
        self._short_until_s = 0.0
        """By the monotonic clock."""

    def open(self, root: duckdb.DuckDBPyConnection, tail: Tail) -> None:
        """Hand out connections from now on.

        Args:
            root: of the file, for making others.
            tail: what waits.
        """
        with self._changing:
            self._root, self._tail = root, tail
            self.closed = False

    def close(self) -> None:
        """Hand out none any more, and end those that read; returns when they have."""
        with self._changing:
            self.closed = True
            readers = [*self._reading, *self._idle]
            self._idle.clear()
        for reader in readers:
            reader.cancel()
        for reader in readers:
            reader.close()

    @contextlib.contextmanager
    def awaiting(self) -> Iterator[None]:
        """Have new queries wait in the block, which opens the file again, and those that run end before it."""
        try:
            with self._changing:
                self._reopening = True
                self._changing.wait_for(lambda: not self._reading, ENDING_PATIENCE_S)
            yield
        finally:
            with self._changing:
                self._reopening = False
                self._changing.notify_all()

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """One of them, which another thread may cancel; all its queries see what was committed before the first.

        Raises:
            StoreError: the file is closed.
        """
        with self._changing:
            self._changing.wait_for(lambda: not self._reopening, OPENING_PATIENCE_S)
            if self.closed:
                raise StoreError(f"{self._path} is closed")
            reader = self._idle.pop() if self._idle else Reader(self._root.cursor(), self._snapshot)
            self._reading.add(reader)
        try:
            yield reader
        finally:
            reader.end()
            with self._changing:
                self._reading.discard(reader)
                self._changing.notify_all()
                keep = reader.reusable and not self.closed and len(self._idle) < MOST_IDLE
                if keep:
                    self._idle.append(reader)
            if not keep:
                reader.close()

    @contextlib.contextmanager
    def _snapshot(self, reader: Reader) -> Iterator[None]:
        """Read in the block what was committed before it."""
        tail = self._tail
        with self.turnstile.passed():
            try:
                tail.begin(reader)
                yield
            finally:
                if roll_back(reader.connection):
                    reader.spoil()
                tail.end(reader)
                if reader.ran_short:
                    self._note_shortage()

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Let no connection be made in the block."""
        with self._changing:
            yield

    def stop(self) -> None:
        """Ask all that read to end, for the sake of the log."""
        with self._changing:
            for reader in self._reading:
                reader.stop(IN_THE_WAY)

    @property
    def short_of_memory(self) -> bool:
        """Whether memory was too short lately."""
        return time.monotonic() < self._short_until_s

    def _note_shortage(self) -> None:
        self._short_until_s = time.monotonic() + SHORT_S

    def fed(self, connection: duckdb.DuckDBPyConnection, act: Callable[[], Answer]) -> Answer:
        """Do it on the connection; as long as memory is too short for it, once more without the longest query.

        DuckDB has one limit for all, and what reports gather into one value (`list`, `string_agg`) cannot be written to
        disk: then who writes finds nothing left. Its `operator_memory_limit` has no effect on these.
        (Measured, with 240 to 384 MB, a million spans and two to four such reports at once: one in twenty commits and
        up to all but two, and a third of the folds, failed.)
        """
        alone = not self.turnstile.occupied
        try:
            return act()
        except duckdb.Error as error:
            if not short_of_memory(error) or (alone and not self.turnstile.occupied):
                raise
            self._note_shortage()
            if not isinstance(error, duckdb.OutOfMemoryException):
                raise  # what it began may be done, or the file must be opened again
        left = MOST_TRIES
        with self.turnstile.held():  # or the next one takes what the last one left
            while True:
                left -= 1
                if not self._end_longest():
                    time.sleep(AGAIN_S)
                roll_back(connection)
                alone = not self.turnstile.occupied  # or the last one may have ended just too late
                try:
                    return act()
                except duckdb.OutOfMemoryException:
                    if alone or left <= 1:
                        raise

    def _end_longest(self) -> bool:
        with self._changing:
            readers = [*self._reading]
        return end_longest(readers)
