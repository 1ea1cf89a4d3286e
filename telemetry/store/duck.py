"""Own the DuckDB file: commit batches of spans, fold and checkpoint them, answer queries.

One process owns the file, and one `Store` in it; `writer.py` gives the writing half to threads of its own.
How the tables hang together is told in `relations.py`.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.errors import DecodeError, StoreError, StoreLocked
from telemetry.store import blocks, opening, relations
from telemetry.store.duplicates import Duplicates
from telemetry.store.frozen import Frozen
from telemetry.store.journal import joined, packed
from telemetry.store.ledger import Ledger
from telemetry.store.readers import Answer, Readers
from telemetry.store.reading import Reader, in_doubt, short_of_memory, unusable
from telemetry.store.recent import GENERATION, REQUESTS, hashed
from telemetry.store.statements import execute, registered, roll_back
from telemetry.store.tail import Tail
from telemetry.store.texts import Texts

FOLD_ROWS: Final = 122_880
"""Waiting spans that make a fold worthwhile: one row group of DuckDB.
A report groups what waits, 10 to 60 ms for these.
A fold stores whole row groups, and lets the rest wait: a compaction writes smaller ones together, and commits wait
(5 s for a million spans, 0.01 s without)."""
FOLD_COMMITS: Final = 10_000
"""Waiting commits that do: each is some rows of the journal, of 2 KB even where all its spans were refused."""
FOLDS_IN_MEMORY: Final = 32
"""So many times what waits fits into the store's memory, or a fold is worthwhile with fewer spans."""
MOST_WAITING: Final = 4
"""Folds. When folding lags this far behind, commits wait for it: a few seconds, of the ten that senders have."""
CHECKPOINT_WAL_BYTES: Final = 256 * 1024 * 1024
"""With DuckDB's default of 16 MB, checkpoints could not keep up with 40,000 spans/s; this is some 300,000 spans."""
LONG_WAL_BYTES: Final = 2 * CHECKPOINT_WAL_BYTES
"""From here on queries wait for a checkpoint, which those that began before a fold prevent."""
MOST_WAL_BYTES: Final = 4 * CHECKPOINT_WAL_BYTES
"""From here on queries that do not end by themselves are stopped for it."""
MOST_FROZEN_WAL_BYTES: Final = 16 * CHECKPOINT_WAL_BYTES
"""From here on a copy of the file is given up for it: 4 GB, minutes at full speed."""
COMMIT_PATIENCE_S: Final = 4.0
"""How long a commit waits for folding to catch up: then its senders, who have ten seconds, are told to come again."""
LOOK_S: Final = 0.05
"""How often it looks whether folding has: who folds goes on with what else is due."""
TRIES: Final = 3
"""In vain, before that is called trouble."""
MOST_TRIES: Final = 6
"""In vain, before a copy of the file is given up: the last one is as patient as any ..."""
COPY_PATIENCE_S: Final = 300.0
"""... where there was time for patience."""
UNSORTED_IDS: Final = 4 * FOLD_ROWS
"""Entries of ids that may be without order: looking through so many takes a millisecond ..."""
UNSORTED_SHARE: Final = 8
"""... or one in so many of all: sorting 22 million, of 100 million spans, takes 3.5 s."""

MOST_REQUESTS: Final = 4 * REQUESTS
"""Some 6 MB. Writing the last ones anew takes a hundredth of a second."""

_open_paths: set[Path] = set()
"""DuckDB lets one process open a file twice; two stores on it would each know only their own spans."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of the spans of a commit."""

    stored: int
    duplicates: int
    """Spans that were there already, or twice in the commit; dropped."""


class Request(NamedTuple):
    """What arrived together."""

    spans: pa.Table
    transport: str
    """For the ledger."""
    digest: str | None = None
    """By which it is known when it comes again; None where it is not to be."""


class _Busy(StoreError):
    """Somebody else tends the store."""


class _Failed(StoreError):
    """What tends the store failed: its trouble, until it succeeds."""


class Store:
    """The one owner of the file.

    Any thread may call it.
    Commits wait for one another, and a few seconds for folding when it lags far behind.
    Folding, checkpoints and pruning run beside them, one at a time.
    Queries wait for a compaction only, and see whole commits.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        memory_limit_bytes: int,
        clock: Callable[[], int],
        remembered: int,
        merges: int,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.memory_limit_bytes = memory_limit_bytes
        self._failures: dict[str, str] = {}
        """What failed last, by the task of upkeep."""
        self._broken: BaseException | None = None
        """Why the file must be opened again before it is written."""
        self.room_owed = True
        """Whether the file may hold the room of deleted rows, for `compact` to give back."""
        self._copies = blocks.Copies(path)
        self._file: BinaryIO | None = None
        """For copies. Open for as long as the store is: closing any handle of a file lets go of DuckDB's lock on it."""
        self._frozen: Frozen | None = None
        """While the file is copied: then no checkpoint may change it."""
        self._copying = threading.Lock()
        """Taken before `_tending`."""
        self._commit_waits = False
        """Whether one does until folding has caught up."""
        self._ended = threading.Event()
        """Set when it is closed, or about to be: then nobody waits for a moment without queries."""
        self._readers = Readers(path)
        self._openings = 0
        self._clock = clock
        self._remembered = remembered
        self._merges = merges
        self._tending = threading.Lock()
        self._writing = threading.RLock()
        """Taken after `_tending` where both are needed."""
        self._connect()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        make: bool = True,
        memory_limit_bytes: int | None = None,
        clock: Callable[[], int] = time.time_ns,
        remembered: int = GENERATION,
        merges: int = 0,
    ) -> "Store":
        """Open the file, or make it.

        Args:
            make: make it where it is not there; what is only read is never made.
            memory_limit_bytes: for ingest and queries together. None means half of the machine's memory.
            clock: nanoseconds UTC; dates the ledger.
            remembered: half of the spans among which duplicates are found, at least. On opening, the last ones in the
                file are: senders repeat what a crash left unacknowledged.
            merges: how often a compaction may write two or three row groups together that lack rows, of each table.
                Commits wait for it, a second or two each time.

        Raises:
            StoreLocked: another process, or another Store of this one, has it open.
            SchemaMismatch: it was written by a newer version, or by an older one and is only read.
            StoreError: it is damaged, is no store, cannot be written, or is not there and not to be made.
        """
        path = Path(path).expanduser().resolve()
        if (read_only or not make) and not path.exists():
            raise StoreError(f"there is no store at {path}; `telemetry serve` makes one")
        if path in _open_paths:
            raise StoreLocked(f"{path} is open in this process already", path=str(path), pid=os.getpid())
        limit = memory_limit_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        store = cls(
            path, read_only=read_only, memory_limit_bytes=limit, clock=clock, remembered=remembered, merges=merges
        )
        _open_paths.add(path)
        return store

    # Writing

    def commit(self, tables: Sequence[pa.Table], *, transport: str = "import", exact: bool = False) -> Committed:
        """Store the spans of all tables in one transaction; durable and queryable on return.

        Args:
            transport: for the ledger.
            exact: look for duplicates in the whole file, not among the last few million spans only.

        Raises:
            DecodeError: a table holds what no span can.
            StoreError: nothing of them was stored: the disk is full, say.
        """
        each = self.commit_each([Request(table, transport) for table in tables], exact=exact)
        return Committed(sum(one.stored for one in each), sum(one.duplicates for one in each))

    def commit_each(
        self, requests: Sequence[Request], noted: Ledger | None = None, *, exact: bool = False
    ) -> list[Committed]:
        """Store several requests, and what else is to be written down, in one transaction.

        Args:
            noted: empty once it is written down, even where the commit fails afterwards.

        Raises: as `commit`.
        """
        if self.read_only:
            raise StoreError(f"{self.path} is open for reading only")
        ledger = Ledger() if noted is None else noted
        return self._again(lambda: self._commit_once(requests, ledger, exact))

    def _commit_once(self, requests: Sequence[Request], ledger: Ledger, exact: bool) -> list[Committed]:
        self._catch_up()
        with self._writing:
            self._check_usable()
            try:
                return self._readers.fed(self._writer, lambda: self._commit(requests, ledger, exact))
            except MemoryError as error:  # pyarrow's is an ArrowException, too
                roll_back(self._writer)
                raise _refusal(error, self.path) from error
            except (duckdb.DataError, duckdb.InvalidInputException, pa.ArrowException) as error:
                roll_back(self._writer)
                raise DecodeError(f"the spans cannot be stored: {error}") from error
            except duckdb.Error as error:
                roll_back(self._writer)
                if unusable(error):
                    self._broken = error
                raise _refusal(error, self.path) from error

    def _again(self, act: Callable[[], Answer]) -> Answer:
        """Do it; once more where too little memory leaves in doubt whether it was done, or the file unusable.

        The file is opened again before, and no query runs then that could take as much.
        """
        for _ in range(TRIES - 1):
            try:
                return act()
            except StoreError:
                if not (self._broken and self._readers.short_of_memory):
                    raise
        return act()

    def _catch_up(self) -> None:
        """Before a commit: have what lags folded, or the file opened again, and wait for whoever does it already.

        Raises:
            StoreError: it could not be done in time.
        """
        until_s = time.monotonic() + COMMIT_PATIENCE_S
        while self._broken or self._waiting_share() >= MOST_WAITING:
            self._commit_waits = True
            try:
                with self._tended(LOOK_S):
                    with self._writing:
                        self._revive()
                    if self._waiting_share() >= MOST_WAITING:  # nobody else has folded meanwhile
                        self._fold(all=False)
                return
            except _Busy:
                if time.monotonic() >= until_s:
                    raise
            finally:
                self._commit_waits = False

    def record_rejection(self, transport: str, reason: str, count: int, example: str | None = None) -> None:
        """Write down that spans, or a whole request, were refused.

        Raises:
            StoreError: it could not be written.
        """
        ledger = Ledger()
        ledger.refuse(transport, reason, count, example)
        self.commit_each([], ledger)

    def _commit(self, requests: Sequence[Request], ledger: Ledger, exact: bool) -> list[Committed]:
        source = self._tail.sources["spans"]
        spans = joined([source.checked(request.spans) for request in requests] or [source.schema.empty_table()])
        self._texts.check(spans)
        hashes = hashed(spans["trace_id"], spans["span_id"])
        keep = self._duplicates.unseen(spans, hashes, exact=exact)
        entries, each, taken, start = Ledger(), [], dict[str, int](), 0
        for request in requests:
            rows = request.spans.num_rows
            kept = pa.array(keep[start : start + rows])
            rest = spans.select(["end_ns", "received_ns"]).slice(start, rows).filter(kept)
            each.append(Committed(rest.num_rows, rows - rest.num_rows))
            entries.accept(request.transport, rest, each[-1].duplicates)
            if request.digest and not each[-1].duplicates:  # or some of its spans may be forgotten before it is
                taken[request.digest] = rows
            start += rows
        entries.add(ledger)
        arrived = {"ledger": entries.table(self._clock())} if len(entries) else {}
        if taken:
            columns = [pa.array(taken.keys(), pa.string()), pa.array(taken.values(), pa.int64())]
            arrived["requests"] = pa.table(columns, schema=self._tail.sources["requests"].schema)
        if keep.any():
            arrived["spans"] = spans = spans if keep.all() else spans.filter(pa.array(keep))
        if not arrived:
            return each
        # One row of the journal for each source, in one transaction; then the same for those who read.
        batches = [part for source, table in arrived.items() for part in (source, packed(table))]
        places = ", ".join("(?, ?)" for _ in arrived)
        with self._mirrored():
            execute(self._writer, f"insert into stored.journal_{self._side} values {places}", batches)
            ledger.clear()
            self._tail.add(self._side, arrived)
            if keep.any():
                self._duplicates.add(hashes[keep], pc.min(spans["received_ns"]).as_py())
            self._duplicates.requests.add(taken)
        return each

    def taken(self, digest: str) -> int | None:
        """How many spans a request has that lately brought all of them; None of any other."""
        return self._duplicates.requests.spans(digest)

    def forget_requests(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Know no request any more, in a transaction that forgets spans: these are stored if they come again.

        Those that come meanwhile may be known: their spans wait in the journal, of which nothing is forgotten.
        """
        with self._writing:
            self._duplicates.requests.clear()
        execute(connection, "delete from stored.requests")

    @contextlib.contextmanager
    def _mirrored(self) -> Iterator[None]:
        """Commit to the file in the block, and change memory alike: where one may have changed alone, open it again."""
        try:
            yield
        except BaseException as error:
            if in_doubt(error):
                self._broken = error  # the file may have what memory lacks
            raise

    # Tending

    def tend(self, *, now: bool = False) -> None:
        """Fold and checkpoint what is due; commits and queries go on meanwhile.

        DuckDB lets others insert during a checkpoint only when it may not vacuum, that is while another transaction has
        uncommitted rows: `stored.held` is there for that. And it locks each table while it writes it: so spans are
        written to a journal, which is all but empty after a fold. (Measured: without either, every commit waits for the
        whole checkpoint, 1 to 2 s for 300,000 spans; with both, the worst of a thousand commits waited 36 ms.)

        Args:
            now: whether or not it is due.

        Raises:
            StoreError: it failed, the disk is full, say. Nothing is lost; the next call tries again.
        """
        with self._maintaining():
            fold = now or self.lags
            if fold:
                self._fold(all=now)
            with self._connected() as connection:
                if fold:
                    self._sort_ids(connection)
                    self._keep_requests(connection)
                self._empty_log(connection, now)

    def _empty_log(self, connection: duckdb.DuckDBPyConnection, now: bool) -> None:
        """Checkpoint, where that is due."""
        if self._frozen:
            if self.wal_bytes < MOST_FROZEN_WAL_BYTES:
                return
            self._thaw("the log of the store grew too long meanwhile")
        wanted = now or self.wal_bytes >= CHECKPOINT_WAL_BYTES
        # One that finds too little memory is what DuckDB calls fatal, and the file must be opened again.
        short = self._readers.short_of_memory
        if wanted and not short:
            self._checkpoint(connection)
        due = (wanted and short) or self._readers.turnstile.obstructed or self.wal_bytes >= LONG_WAL_BYTES
        if due and not self._readers.turnstile.rest_s:
            self._compact(connection)

    def compact(self) -> bool:
        """Checkpoint, and give the room of deleted rows back to the file; commits and queries wait meanwhile.

        DuckDB gives it back only when nothing else is under way at all. So new queries are held back until those that
        run have ended. Row groups of which all rows are deleted cost next to nothing. Writing together those that have
        some left took up to 18 s at 27,000 spans/s: a store does that only if it was opened so.

        Returns:
            False when they did not end in time: then `tend` tries again, each time more patiently.

        Raises:
            StoreError: it failed.
        """
        with self.maintained() as connection:
            return self._compact(connection)

    def _compact(self, connection: duckdb.DuckDBPyConnection) -> bool:
        if self._frozen:
            self.room_owed = True
            return False
        urge = self._readers.stop if self.wal_bytes >= MOST_WAL_BYTES else None
        with self._readers.turnstile.emptied(hurry=self._commits_wait, urge=urge) as empty:
            if empty:
                self._checkpoint(connection)  # what it writes, nobody waits for
                self._keep_blocks(connection)
                with self._writing, self._readers.unchanged():
                    # A checkpoint that has nothing to write gives nothing back; nor does one right after an update.
                    connection.execute("insert into stored.held values (1)")
                    connection.execute("delete from stored.held")
                    connection.execute("checkpoint")
        self.room_owed = not empty
        return empty

    def _commits_wait(self) -> bool:
        """Or soon will; or the store is closing."""
        if self._commit_waits or self._ended.is_set() or self._broken is not None:
            return True
        return self._waiting_share() >= MOST_WAITING / 2

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Frozen]:
        """Leave the file as it is in the block, with all that was committed before; commits, folds and queries go on.

        DuckDB writes what is new into free blocks and the log, and makes it part of the file by a checkpoint: without
        one, the file stays what it was. The log grows meanwhile.

        Raises:
            StoreError: queries that run on and on prevent the checkpoint before it, for minutes.
        """
        with self._copying:
            try:
                yield self._freeze()
            finally:
                self._frozen = None

    def _freeze(self) -> Frozen:
        until_s = time.monotonic() + COPY_PATIENCE_S
        self.fold()  # what comes later may wait in the copy, too
        while True:
            with self.maintained() as connection:
                if self._compact(connection):
                    spans = execute(connection, "select count(*) from stored.spans").fetchall()[0][0]
                    assert self._file
                    self._frozen = Frozen(self._file.fileno(), self.path.stat().st_size, spans)
                    return self._frozen
                if self._readers.turnstile.obstructed >= MOST_TRIES:
                    raise StoreError(f"{self.path} cannot be copied: {self.trouble}")
                if time.monotonic() > until_s:
                    raise StoreError(f"{self.path} cannot be copied now: too much is asked and sent; try again later")
            self._ended.wait(self._readers.turnstile.rest_s or 0.1)

    def _thaw(self, why: str) -> None:
        """Let checkpoints change the file again; who copies it gives up."""
        if frozen := self._frozen:
            frozen.give_up(why)
        self._frozen = None

    @property
    def trouble(self) -> str | None:
        """What failed last, or cannot be done: folding, a checkpoint, pruning. None means that all is well."""
        if failures := [*self._failures.values()]:
            return failures[0]
        tried = self._readers.turnstile.obstructed
        if tried < TRIES:
            return None
        return (
            f"queries run on and on, so that the file cannot be compacted, tried {tried} times, "
            f"and its log has {self.wal_bytes / 1e6:.0f} MB; end long exports and reports"
        )

    def _checkpoint(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Checkpoint beside commits; not at all while a query still reads what was folded since it began."""
        other = self._root.cursor()
        try:
            other.execute("begin")
            other.execute("insert into stored.held values (1)")
            self._keep_blocks(connection)
            with contextlib.suppress(duckdb.TransactionException):
                connection.execute("checkpoint")
        finally:
            roll_back(other)
            other.close()

    def _keep_blocks(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Before a checkpoint: copy the blocks that it may write over, see `blocks`."""
        assert self._file
        numbers = connection.execute("select block_id from pragma_metadata_info()").fetchall()
        try:
            self._copies.keep(self._file, (number for (number,) in numbers))
        except OSError as error:
            raise duckdb.IOException(f"cannot write {blocks.beside(self.path)}: {error}") from error

    def _waiting_share(self) -> float:
        """Of what makes a fold worthwhile."""
        tail = self._tail
        in_memory = tail.size_bytes * FOLDS_IN_MEMORY / self.memory_limit_bytes
        return max(tail.rows / FOLD_ROWS, tail.commits / FOLD_COMMITS, in_memory)

    @property
    def lags(self) -> bool:
        """Whether a fold is worthwhile."""
        return self._waiting_share() >= 1

    def fold(self, *, all: bool = True) -> None:
        """Store what waits; what arrives meanwhile goes to the other journal.

        Args:
            all: or whole row groups only.

        Raises:
            StoreError: as `tend`.
        """
        with self._maintaining():
            self._fold(all)

    def _fold(self, all: bool) -> None:
        """The same, for who tends."""
        self._again(lambda: self._fold_sides(all))

    def _fold_sides(self, all: bool) -> None:
        with self._connected() as connection:
            # Nothing, but after a fold that failed.
            self._readers.fed(connection, lambda: self._fold_side(connection, self._other_side(), all=True))
            with self._writing:
                self._side = self._other_side()
                self._check_usable()  # a fold empties the journal, so memory must have all of it
            self._readers.fed(connection, lambda: self._fold_side(connection, self._other_side(), all))

    def _fold_side(self, connection: duckdb.DuckDBPyConnection, side: str, all: bool) -> None:
        """Store what waits of a journal that receives nothing, merge what it says, and empty it."""
        spans, ledger, requests = (self._tail.waiting(source, (side,)) for source in relations.SOURCES)
        if not spans.num_rows and not ledger.num_rows:
            return
        whole = spans.num_rows // FOLD_ROWS * FOLD_ROWS
        rest = spans.slice(spans.num_rows if all or not whole else whole)
        spans = spans.slice(0, spans.num_rows - rest.num_rows)
        with (
            registered(connection, waiting_spans=spans, waiting_ledger=ledger, waiting_requests=requests),
            self.transaction(connection, folded=side, rest=rest),
        ):
            for relation in relations.MERGED:
                for statement in relation.fold:
                    execute(connection, statement)
            execute(connection, "insert into stored.requests from waiting_requests")
            for start in range(0, spans.num_rows, FOLD_ROWS):
                # One chunk a row group: DuckDB gathers smaller ones in memory first, 2.5 of 9 microseconds a span.
                with registered(connection, waiting_spans=joined([spans.slice(start, FOLD_ROWS)])):
                    execute(connection, f"insert into stored.spans by name {relations.values()}")
            if rest.num_rows:
                connection.execute(
                    f"insert into stored.journal_{relations.other(side)} values ('spans', ?)", [packed(rest)]
                )
            connection.execute(f"drop table stored.journal_{side}")
            connection.execute(relations.journal(side))

    def _sort_ids(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Sort the entries of ids when enough have come that are not in order."""
        counts = "select (select count(*) from stored.ids), (select count(*) from stored.ids_recent)"
        ordered, recent = execute(connection, counts).fetchall()[0]
        if recent > max(UNSORTED_IDS, ordered // UNSORTED_SHARE):
            with self.transaction(connection):
                for statement in relations.sort_ids():
                    execute(connection, statement)

    def _keep_requests(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Forget all but the last requests when enough others have come."""
        if execute(connection, "select count(*) from stored.requests").fetchall()[0][0] > MOST_REQUESTS:
            with self.transaction(connection):
                for statement in relations.keep_requests(REQUESTS):
                    execute(connection, statement)

    @contextlib.contextmanager
    def maintained(self, task: str = "upkeep") -> Iterator[duckdb.DuckDBPyConnection]:
        """The one connection for what changes stored rows, for one at a time.

        Args:
            task: whose failure is told as trouble until it succeeds.
        """
        with self._maintaining(task), self._connected() as connection:
            yield connection

    @contextlib.contextmanager
    def _maintaining(self, task: str = "upkeep") -> Iterator[None]:
        with self._tended():
            try:
                yield
            except _Failed as error:
                self._failures[task] = error.message
                raise
            self._failures.pop(task, None)

    @contextlib.contextmanager
    def _tended(self, patience_s: float = -1) -> Iterator[None]:
        """Change stored rows in the block, nobody else does.

        Args:
            patience_s: how long to wait for that; -1 means as long as it takes.
        """
        if self.read_only:
            raise StoreError(f"{self.path} is open for reading only")
        if not self._tending.acquire(timeout=patience_s):
            raise _Busy(f"{self.path} is kept busy by its own upkeep; send again later")
        try:
            yield
        finally:
            self._tending.release()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection of who tends; the file is opened again before, where it must be."""
        try:
            with self._writing:
                self._revive()
            connection = self._root.cursor()
            try:
                # Fails where a query met what leaves the connection unusable.
                self._readers.fed(connection, lambda: connection.execute("select 1").fetchall())
                yield connection
            finally:
                connection.close()
        except (duckdb.Error, MemoryError) as error:
            if unusable(error):
                self._broken = error
            raise _Failed(_refusal(error, self.path).message) from error

    @contextlib.contextmanager
    def transaction(
        self, connection: duckdb.DuckDBPyConnection, *, folded: str | None = None, rest: pa.Table | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Commit at the end of the block, roll back on an exception.

        Args:
            folded: the journal that the block emptied.
            rest: spans that the block moved from it to the other one.
        """
        connection.execute("begin")
        try:
            yield connection
            with self._mirrored(), self._tail.replacing(folded, rest):
                connection.execute("commit")
        except BaseException as error:
            if stuck := roll_back(connection):
                raise duckdb.FatalException(f"cannot roll back, because of: {stuck}") from error
            raise

    def waiting(self) -> pa.Table:
        """The trace ids of the spans that are not folded yet, and when these ended and arrived."""
        return self._tail.waiting("spans").select(["trace_id", "end_ns", "received_ns"])

    def _other_side(self) -> str:
        return relations.other(self._side)

    @property
    def wal_bytes(self) -> int:
        """Of the write-ahead log beside the file."""
        size = 0
        for log in opening.logs(self.path):
            with contextlib.suppress(FileNotFoundError):
                size += log.stat().st_size
        return size

    # Reading

    def query(
        self, sql: str, params: Mapping[str, object] | None = None, *, timeout_s: float | None = None
    ) -> pa.Table:
        """Answer one statement from the state of the last commit.

        Args:
            timeout_s: None means no limit.

        Raises:
            StoreError: the statement cannot be run, took longer than `timeout_s`, or needs too much memory.
        """
        with self.reader() as reader:
            return reader.query(sql, params, timeout_s=timeout_s)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """A connection for queries, which another thread may cancel; all see what was committed before the first."""
        try:
            with self._readers.reader() as reader:
                yield reader
        finally:
            self._broken = self._broken or self._tail.broken

    @property
    def readable_columns(self) -> str:
        """A select list of `spans` whose VARIANT columns are JSON text."""
        return ", ".join(f"{n}::json::varchar as {n}" if k == "variant" else n for n, k in relations.columns("spans"))

    @property
    def version(self) -> Hashable:
        """Another one after each commit, fold or prune, and when the file was opened again; asking costs nothing."""
        return self._openings, self._tail.changes

    def info(self) -> dict[str, Any]:
        """What is in the file, for `telemetry store info` and the pages."""
        from telemetry.store.checks import info

        return info(self)

    # The file

    def close(self) -> None:
        """Cancel queries, fold, checkpoint, and close the file; a second call does nothing."""
        self._ended.set()
        try:
            if not (self._readers.closed or self._broken or self.read_only):
                with contextlib.suppress(StoreError):  # or the journal has it
                    self.fold()
        finally:
            with self._tending, self._writing:
                if not self._readers.closed or self._broken:
                    if not self._readers.closed:
                        self._disconnect()
                    self._broken = None
                    _open_paths.discard(self.path)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        self._root = opening.connect(
            self.path, read_only=self.read_only, memory_limit_bytes=self.memory_limit_bytes, merges=self._merges
        )
        try:
            opening.prepare(self._root, self.path, read_only=self.read_only)
            self._file = self.path.open("rb")
            self._ended.clear()
            self._writer = self._root.cursor()
            self._tail = Tail(self._root.cursor())
            self._openings += 1
            self._side = "a"
            for side in relations.SIDES:
                self._tail.read(side, self._root.execute(f"from stored.journal_{side}"))
            self._texts = Texts(self._writer)
            self._duplicates = Duplicates(self._writer, self._tail, self._remembered)
            if not self.read_only:
                self._duplicates.remember()
                pa.array([0])  # loads pandas, a second or two that the first request should not wait
        except BaseException as error:
            self._let_go()
            if isinstance(error, duckdb.OutOfMemoryException | MemoryError):
                raise StoreError(f"too little memory to open {self.path}; stop what else takes it") from error
            if isinstance(error, duckdb.Error):
                raise opening.translated(error, self.path) from error
            raise
        self._broken = None
        self._readers.open(self._root, self._tail)

    def _disconnect(self) -> None:
        self._readers.close()
        self._thaw("the store is closing")
        self._ended.set()
        self._writer.close()
        if not (self._broken or self.read_only):  # or memory may have rows that no transaction wrote
            with contextlib.suppress(duckdb.Error):  # or the log has it
                self._keep_blocks(self._root)
                self._root.execute("checkpoint")
        self._let_go()

    def _let_go(self) -> None:
        self._root.close()
        if self._file:
            self._file.close()
        self._file = None
        if not self.read_only:
            self._copies.discard()

    def _revive(self) -> None:
        """Open the file again after an error that left the connection unusable: its write-ahead log has what was
        acknowledged, and perhaps more, which is then found to be there.

        Only who tends may do it: a fold that goes on would empty a journal that is written again, and who waits for
        queries to end holds back those that this would wait for.
        """
        if self._broken:
            _log.warning("opening %s again after: %r", self.path, self._broken)
            with self._readers.awaiting():
                if not self._readers.closed:
                    self._disconnect()
                try:
                    self._connect()
                except StoreError as error:
                    raise _Failed(error.message) from error
        self._check_usable()

    def _check_usable(self) -> None:
        if self._broken:
            raise StoreError(f"{self.path} must be opened again, which is tried at once; send again")
        if self._readers.closed:
            raise StoreError(f"{self.path} is closed")


def _refusal(error: duckdb.Error | MemoryError, path: Path) -> StoreError:
    if opening.disk_is_full(error):
        return StoreError(f"the disk of {path} is full; make room, and send again")
    if short_of_memory(error):
        return StoreError(f"too little memory to write to {path}; send again later")
    return StoreError(f"could not write to {path}: {str(error).splitlines()[0]}")
