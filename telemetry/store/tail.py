"""Keep, in memory, the complete rows of every attempt that spans in the inboxes touch.

The first query after a commit merges what arrived since the last one, for itself and for all queries until the next
commit; after a fold or a prune it makes all rows anew.
(Measured with 100,000 spans waiting, of 5,000 attempts: merging the 500 that came last takes half as long as all anew,
most of it planning.)
"""

import contextlib
import threading
from collections.abc import Iterator

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
        """How many commits, folds and prunes there were."""
        self._shown = 0
        """The changes that the tables show."""
        self._ends: tuple[int, ...] = ()
        """Row numbers at which the inboxes ended then."""
        self._anew = True
        """Whether a fold or a prune changed what the tables were made from."""
        self._making = threading.Lock()
        self._switching = threading.Lock()

    def changed(self) -> None:
        """Say that a commit is done. Its spans are in the answer of any query that begins later."""
        with self._switching:
            self.changes += 1

    @contextlib.contextmanager
    def replacing(self) -> Iterator[None]:
        """End a fold or a prune in the block: nobody begins to read meanwhile."""
        with self._switching:
            try:
                yield
            finally:
                self.changes += 1
                self._anew = True

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
            reader.execute(_LOOK)

    def _make(self) -> None:
        try:
            with self._switching:
                shown, anew, self._anew = self.changes, self._anew, False
                self._connection.execute("begin")
                self._connection.execute(_LOOK)
            ends = self._connection.execute(relations.shown()).fetchall()[0]
            before = dict(zip(relations.ARRIVING, self._ends, strict=True)) if not anew else {}
            for statement in relations.tail() if anew else relations.advance(before):
                self._connection.execute(statement)
            with self._switching:
                self._connection.execute("commit")
        except BaseException:
            self._anew = True
            with contextlib.suppress(duckdb.Error):
                self._connection.execute("rollback")
            raise
        self._shown, self._ends = shown, ends


_LOOK = "select 1 from tail.main.steps, stored.held limit 0"
"""Makes a transaction see both databases as they are now."""
