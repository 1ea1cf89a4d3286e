"""Keep, in memory, what waits to be folded, and the complete rows of every attempt that it touches.

The first query after a commit merges what arrived since the last one, for itself and for all queries until the next
commit; after a fold or a prune it makes all rows anew.
(Measured with 100,000 spans waiting, of 5,000 attempts: merging the 500 that came last takes half as long as all anew,
most of it planning.)
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa

from telemetry.store import relations
from telemetry.store.journal import Source, Waiting
from telemetry.store.reading import Reader, in_doubt, unusable
from telemetry.store.statements import execute, roll_back


class Tail:
    """What waits, and the tables of `tail`. Any thread may call it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """
        Args:
            connection: of its own; closed with the store.
        """
        self._connection = connection
        for statement in relations.empty_tail():
            connection.execute(statement)
        self.sources = {name: Source(name) for name in relations.SOURCES}
        self._waiting = {
            side: {name: Waiting(source) for name, source in self.sources.items()} for side in relations.SIDES
        }
        self._commits = dict.fromkeys(relations.SIDES, 0)
        self._fresh: list[Mapping[str, pa.Table]] = []
        """What arrived since the tables were made."""
        self.changes = 1
        """How many commits, folds and prunes there were."""
        self._shown = 0
        """The changes that the tables show."""
        self._anew = True
        """Whether a fold or a prune changed what the tables were made from."""
        self.broken: BaseException | None = None
        """Why its tables cannot be made any more, and the file must be opened again."""
        self._making = threading.Lock()
        self._switching = threading.Lock()

    def read(self, side: str, rows: duckdb.DuckDBPyConnection) -> None:
        """Take what a journal keeps, which was written before a crash."""
        while row := rows.fetchone():
            name, batch = row
            self.add(side, {name: self.sources[name].unpacked(batch)})

    def add(self, side: str, arrived: Mapping[str, pa.Table]) -> None:
        """Say that a commit wrote these to a journal. They are in the answer of any query that begins later."""
        with self._switching:
            for source, table in arrived.items():
                self._waiting[side][source].add(table)
            self._commits[side] += 1
            self.changes += 1
            if not self._anew:
                self._fresh.append(arrived)
            if len(self._fresh) > _MOST_FRESH:  # each takes up to 30 KB more than its rows do
                self._fresh, self._anew = [], True

    def waiting(self, source: str, sides: tuple[str, ...] = relations.SIDES) -> pa.Table:
        """What waits, of some journals."""
        with self._switching:
            return self._joined(source, sides)

    def _joined(self, source: str, sides: tuple[str, ...] = relations.SIDES) -> pa.Table:
        return pa.concat_tables([table for side in sides for table in self._waiting[side][source].tables])

    @property
    def _waits(self) -> bool:
        """Whether anything does."""
        return any(waiting.rows for sources in self._waiting.values() for waiting in sources.values())

    @property
    def rows(self) -> int:
        """How many spans wait."""
        return sum(waiting["spans"].rows for waiting in self._waiting.values())

    @property
    def commits(self) -> int:
        """Of how many commits anything waits; of those before a crash, how many rows of the journals."""
        return sum(self._commits.values())

    @property
    def size_bytes(self) -> int:
        """What these take."""
        return sum(waiting["spans"].size_bytes for waiting in self._waiting.values())

    @contextlib.contextmanager
    def replacing(self, folded: str | None = None, rest: pa.Table | None = None) -> Iterator[None]:
        """End a fold or a prune in the block: nobody begins to read meanwhile.

        Args:
            folded: the journal that is empty then.
            rest: spans of it that the other one has then.
        """
        with self._switching:
            try:
                yield
                self._fresh = []
                for waiting in self._waiting[folded].values() if folded else ():
                    waiting.clear()
                if folded:
                    self._commits[folded] = 0
                if folded and rest is not None:
                    self._waiting[relations.other(folded)]["spans"].add(rest)
            finally:
                self.changes += 1
                self._anew = True

    def begin(self, reader: Reader) -> None:
        """Begin a reading transaction that sees all changes until here.

        While nothing waits, a connection reads the views of the file, which are planned in half the time.
        """
        with self._switching:  # or what moves from one journal to the other is in neither
            wanted = self.changes
            through_tail = reader.sees_tail or self._waits
        if through_tail:
            with self._making:
                if self._shown < wanted:
                    self._make()
        # What a reader sees of the file must not be older than its tail: after a fold, the tail has lost what the
        # file has gained. So no tail is switched between the moments when a reader first looks at the two.
        with self._switching:
            if through_tail:
                reader.connection.register(_SPANS, self._joined("spans"))
                if not reader.sees_tail:
                    execute(reader.connection, "begin")  # all of its views or none
                    for statement in relations.reading():
                        execute(reader.connection, statement)
                    execute(reader.connection, "commit")
                    reader.sees_tail = True
            execute(reader.connection, "begin transaction read only")
            execute(reader.connection, _LOOK)

    def end(self, reader: Reader) -> None:
        """Let go of what waits: an idle connection keeps nothing in memory."""
        with contextlib.suppress(duckdb.Error):
            reader.connection.unregister(_SPANS)

    def _make(self) -> None:
        try:
            with self._switching:
                shown, anew, self._anew = self.changes, self._anew, False
                fresh, self._fresh = self._fresh, []
                for name, source in self.sources.items():
                    some = [source.schema.empty_table(), *(arrived[name] for arrived in fresh if name in arrived)]
                    self._connection.register(f"waiting_{name}", self._joined(name) if anew else pa.concat_tables(some))
                execute(self._connection, "begin")
                execute(self._connection, _LOOK)
            for statement in relations.tail() if anew else relations.advance():
                execute(self._connection, statement)
            with self._switching:
                execute(self._connection, "commit")
        except BaseException as error:
            self._anew = True
            stuck = roll_back(self._connection)
            if stuck or unusable(error) or (isinstance(error, duckdb.Error) and in_doubt(error)):
                self.broken = error
            raise
        finally:
            for name in relations.SOURCES:
                self._connection.unregister(f"waiting_{name}")
        self._shown = shown


_MOST_FRESH = 256
"""Commits since the tables were made; after more, all is made anew."""
_SPANS = "waiting_spans"
_LOOK = "select 1 from tail.main.steps, stored.held limit 0"
"""Makes a transaction see both databases as they are now."""
