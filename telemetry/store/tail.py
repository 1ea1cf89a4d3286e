"""Keep, in memory, the complete rows of every attempt that spans in the inboxes touch.

Grouping what waits takes some 100 ms, most of it planning; reading rows that are made already takes few.
So the first query after a commit makes them, for itself and for all queries until the next commit.
"""

import contextlib
import threading

import duckdb

from telemetry.store import relations


class Tail:
    """The tables of `tail`. Any thread may call it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """
        Args:
            connection: of its own; closed with the store.
        """
        self._connection = connection
        for statement in relations.empty_tail():
            connection.execute(statement)
        self.changes = 1
        self._shown = 0
        self._making = threading.Lock()
        self._switching = threading.Lock()

    def changed(self) -> None:
        """Say that a commit, a fold or a prune is done. Its spans are in the answer of any query that begins later."""
        with self._switching:
            self.changes += 1

    def begin(self, reader: duckdb.DuckDBPyConnection) -> None:
        """Begin a reading transaction that sees all changes until here."""
        wanted = self.changes
        with self._making:
            if self._shown < wanted:
                self._make()
        # What a reader sees of the file must not be older than its tail: after a fold, the tail has lost what the
        # file has gained. So no tail is switched between the moments when a reader first looks at the two.
        with self._switching:
            reader.execute("begin transaction read only")
            reader.execute("select 1 from tail.main.steps, stored.held limit 0")

    def _make(self) -> None:
        shown = self.changes
        self._connection.execute("begin")
        try:
            for statement in relations.tail():
                self._connection.execute(statement)
            with self._switching:
                self._connection.execute("commit")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._connection.execute("rollback")
            raise
        self._shown = shown
