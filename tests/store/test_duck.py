"""The store: what is committed is there once, and errors leave it usable."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from telemetry.errors import DecodeError, StoreError
from telemetry.store import duck, duplicates, tail, turnstile
from telemetry.store.checks import verify
from telemetry.store.duck import Request, Store
from telemetry.store.reading import Reader
from telemetry.store.retention import DAY_NS, Retention, prune, used_bytes
from telemetry.support.asking import ask_table
from tests.support.copies import copied
from tests.support.spans import SPANS_SCHEMA, T0, attempt, foreign, moved, table

ENDLESS = "select count(*) from spans a, spans b, range(100000000) c, range(100000000) d"


def watched(store: Store) -> threading.Event:
    """An event that is set when a query has begun to read."""
    began, snapshot = threading.Event(), store._readers._snapshot

    @contextlib.contextmanager
    def noted(reader: Reader) -> Iterator[None]:
        with snapshot(reader):
            began.set()
            yield

    store._readers._snapshot = noted  # type: ignore[method-assign]
    return began


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.duckdb"


def count(store: Store) -> int:
    return int(store.query("select count(*) as n from spans")["n"][0].as_py())


class TestCommit:
    def test_durable(self, path: Path) -> None:
        """Committed spans are there after the file is opened again, with every column as it was given."""
        attributes = {"app.n": 1, "app.x": 1.5, "app.s": ["a", "b"], "app.big": 2**60}
        given = table(attempt(1, attributes=attributes))
        with Store.open(path) as store:
            committed = store.commit([given])
        with Store.open(path, read_only=True) as store:
            found = ask_table(store, "spans_of", {"trace_id": given["trace_id"][0].as_py()})

        order = [("start_ns", "ascending"), ("span_id", "ascending")]
        assert committed.stored == given.num_rows
        for name in SPANS_SCHEMA.names:
            if name not in ("attributes", "resource_attributes"):
                assert found.sort_by(order)[name].to_pylist() == given.sort_by(order)[name].to_pylist(), name
        assert json.loads(found["attributes"][0].as_py()) == attributes
        assert '"app.n":1,' in found["attributes"][0].as_py()

    def test_nothing(self, path: Path) -> None:
        """A commit without spans is fine."""
        with Store.open(path) as store:
            assert store.commit([]).stored == 0
            assert store.commit([table([])]).stored == 0

    def test_twice(self, path: Path) -> None:
        """A span that is sent again, in the same commit or a later one, is stored once and counted."""
        rows = attempt(1)
        with Store.open(path) as store:
            first = store.commit([table(rows), table(rows[:3])])
            second = store.commit([table(rows[2:])])
            stored = count(store)

        assert (first.stored, first.duplicates) == (len(rows), 3)
        assert (second.stored, second.duplicates) == (0, len(rows) - 2)
        assert stored == len(rows)

    def test_again_after_reopening(self, path: Path) -> None:
        """A span that is sent again to a new process is stored once."""
        rows = attempt(1)
        with Store.open(path) as store:
            store.commit([table(rows)])
        with Store.open(path) as store:
            again = store.commit([table(rows)])

        assert (again.stored, again.duplicates) == (0, len(rows))

    @pytest.mark.parametrize("left", ["waiting", "folded", "killed"])
    def test_a_request_again(self, path: Path, left: str) -> None:
        """A request is known when it comes again: from memory, and from the file, however the process ended."""
        killed = path.with_name("killed.duckdb")
        with Store.open(path) as store:
            store.commit_each([Request(table(attempt(1)), "grpc", "1" * 32)])
            store.tend(now=left == "folded")
            store.commit_each([Request(table(attempt(number)), "grpc", str(number) * 32) for number in (2, 3)])
            copied(path, killed)
            known = [store.taken(digit * 32) for digit in "1234"]
        with Store.open(killed if left == "killed" else path) as store:
            known_again = [store.taken(digit * 32) for digit in "1234"]

        assert known == known_again == [len(attempt(1))] * 3 + [None]

    def test_only_the_last_requests_are_kept(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file forgets requests beyond those that are read on opening, however it is compacted, and never these."""
        for module in (duck, duplicates):
            monkeypatch.setattr(module, "REQUESTS", 3)
        monkeypatch.setattr(duck, "MOST_REQUESTS", 5)
        kept = []
        with Store.open(path, merges=8) as store:
            for number in range(10):
                store.commit_each([Request(table(attempt(number)), "grpc", str(number) * 32)])
                store.tend(now=True)
                store.compact()
                rows = store.query("select digest[1] as d from stored.requests order by rowid").to_pylist()
                kept.append("".join(row["d"] for row in rows))
        with Store.open(path) as store:
            known = [number for number in range(10) if store.taken(str(number) * 32)]

        assert kept == ["0", "01", "012", "0123", "01234", "345", "3456", "34567", "678", "6789"]
        assert known == [7, 8, 9]

    def test_what_is_kept_of_requests_stays_small(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where nothing is ever compacted: their table is made anew, and takes the room of the one before."""
        for module in (duck, duplicates):
            monkeypatch.setattr(module, "REQUESTS", 2_000)
        monkeypatch.setattr(duck, "MOST_REQUESTS", 8_000)
        schema = pa.schema([("digest", pa.string()), ("spans", pa.int64())])
        sizes = []
        with Store.open(path) as store:
            for number in range(40):
                digests = [f"{number * 4_000 + n:032x}" for n in range(4_000)]
                store._tail.add(store._side, {"requests": pa.table([digests, [1] * 4_000], schema=schema)})
                store.record_rejection("grpc", "no span", 1)  # by which there is something to fold
                store.tend(now=True)
                sizes.append(path.stat().st_size)
            rows = store.query("select count(*) as n from stored.requests").to_pylist()
            columns = "select is_nullable from duckdb_columns() where table_name = 'requests'"
            nullable = store.query(columns).to_pylist()

        assert rows[0]["n"] <= 8_000
        assert nullable == [{"is_nullable": False}] * 2
        assert sizes[-1] <= 1.5 * sizes[9]

    def test_same_span_id_in_two_traces(self, path: Path) -> None:
        """A span id is unique within its trace only."""
        rows = attempt(1)
        other = [row | {"trace_id": "f" * 32} for row in rows]
        with Store.open(path) as store:
            assert store.commit([table(rows, other)]).stored == 2 * len(rows)

    def test_answers_each_request(self, path: Path) -> None:
        """Requests that are committed together each learn about their own spans."""
        rows = attempt(1)
        with Store.open(path) as store:
            requests = [Request(table(rows), "grpc"), Request(table(rows[:4], foreign(1)), "http/json")]
            each = store.commit_each(requests)

        assert [(one.stored, one.duplicates) for one in each] == [(len(rows), 0), (10, 4)]

    def test_unstorable(self, path: Path) -> None:
        """What is no span is refused for good, however often it comes, and the next commit succeeds."""
        bad = table([row | {"attributes": "{not json"} for row in attempt(1)])
        with Store.open(path) as store:
            for number in (2, 3):
                with pytest.raises(DecodeError):
                    store.commit([bad])
                assert store.commit([table(attempt(number, attributes={"key": 1}))]).stored > 0
            with pytest.raises(DecodeError):
                store.commit([pa.table({"trace_id": ["x"]})])
            assert store.commit([table(attempt(1))]).stored > 0
            assert all(check.passed for check in verify(store))

    def test_impatient(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A commit that would have to wait long for folding to catch up is refused, and succeeds later."""
        monkeypatch.setattr(duck, "COMMIT_PATIENCE_S", 0.0)
        with Store.open(path) as store:
            store.commit([table(attempt(1))])
            monkeypatch.setattr(duck, "MOST_WAITING", 0)
            with store.maintained(), pytest.raises(StoreError, match="busy by its own upkeep; send again later"):
                store.commit([table(attempt(2))])
            assert store.commit([table(attempt(2))]).stored > 0

    def test_waits_for_the_fold_of_another(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A commit waits while folding lags, and does not fold what came during the fold that it waited for."""
        monkeypatch.setattr(duck, "FOLD_ROWS", 1)
        folds: list[int] = []

        class Counted(Store):
            def _fold(self, all: bool) -> None:
                folds.append(threading.get_ident())
                super()._fold(all)

        with Counted.open(path) as store, ThreadPoolExecutor(1) as threads:
            store.commit([table(attempt(1))])
            with store._maintaining():
                committing = threads.submit(store.commit, [table(attempt(2))])
                assert not wait([committing], 0.1).done
                store._fold(all=True)
            assert committing.result().stored > 0
            assert folds == [threading.get_ident()]

    def test_read_only(self, path: Path) -> None:
        """A store that is open for reading refuses spans."""
        Store.open(path).close()
        with Store.open(path, read_only=True) as store, pytest.raises(StoreError, match="reading only"):
            store.commit([table(attempt(1))])


class TestLedger:
    def test_by_minute(self, path: Path) -> None:
        """What was stored, dropped and refused adds up by minute, transport and reason, before and after folding."""
        rows = attempt(1, received_after_ms=1500)
        with Store.open(path, clock=lambda: T0) as store:
            store.commit([table(rows)], transport="grpc")
            store.tend(now=True)
            store.commit([table(rows)], transport="grpc")
            store.record_rejection("grpc", "bad trace id", 2, "trace id 00")
            store.record_rejection("grpc", "bad trace id", 3)
            found = store.query("from ingest order by reason").to_pylist()

        accepted, refused = found
        assert accepted["minute_ns"] == T0 // 60_000_000_000 * 60_000_000_000
        assert (accepted["requests"], accepted["stored"], accepted["duplicates"]) == (2, len(rows), len(rows))
        assert (accepted["lateness_max_ms"], accepted["lateness_mean_ms"]) == (1500, 1500)
        assert (refused["reason"], refused["requests"], refused["rejected"]) == ("bad trace id", 2, 5)
        assert refused["example"] == "trace id 00"


def test_whole_row_groups(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold stores as many spans as fill row groups; the others wait on, also through a crash and the next fold."""
    monkeypatch.setattr(duck, "FOLD_ROWS", 50)
    stored = "select count(*) as n from stored.spans"
    some = [table(attempt(number)) for number in range(1, 31)]
    each = some[0].num_rows
    crashed = path.with_name("crashed.duckdb")
    with Store.open(path) as store:
        for part in (some[:10], some[10:20]):
            store.commit(part)
            store.tend()
        folded = [store.query(stored)["n"][0].as_py(), store.info()["waiting_spans"], count(store)]
        copied(path, crashed)
    with Store.open(crashed) as store:
        again = store.commit(some[:20])
        store.commit(some[20:])
        store.tend()
        after = [store.query(stored)["n"][0].as_py(), count(store)]
        checks = verify(store)

    rest = 20 * each % 50
    assert rest
    assert folded == [20 * each - rest, rest, 20 * each]
    assert again.duplicates == 20 * each
    assert after == [30 * each - 30 * each % 50, 30 * each]
    assert all(check.passed for check in checks), checks


def test_ids_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of ids come in the order of their hashes, each once, though an attempt is folded in pieces."""
    monkeypatch.setattr(duck, "UNSORTED_IDS", 0)
    with Store.open(path) as store:
        for number in (1, 2):
            for piece in (attempt(number)[:9], attempt(number)[9:]):
                store.commit([table(piece)])
                store.tend(now=True)
        hashes = store.query("select id_hash from stored.ids")["id_hash"].to_pylist()
        unsorted = store.query("select count(*) as n from stored.ids_recent").to_pylist()
        checks = verify(store)

    assert hashes == sorted(hashes)
    assert (len(hashes), unsorted) == (8, [{"n": 0}])
    assert all(check.passed for check in checks), checks


class TestCompaction:
    """A query that goes on and on; nobody waits for it here, since nobody has patience."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(turnstile, "PATIENCE_S", 0.0)

    def test_room_is_given_back_later(self, path: Path) -> None:
        """While a query prevents it nothing more is forgotten and the trouble is told; afterwards tending does it."""
        some = table(*(attempt(n) for n in range(1, 101)))
        with Store.open(path) as store:
            store.commit([moved(some, day, by_ns=day * DAY_NS) for day in range(80)])
            store.tend(now=True)
            before = used_bytes(store)
            keep = Retention(days=5, max_bytes=before // 2)
            with store.reader() as reader, reader.batches("select name from spans", rows=100) as batches:
                batches.read_next_batch()
                forgotten = [prune(store, keep, now_ns=T0 + 80 * DAY_NS).attempts for _ in range(3)]
                during, owed = store.trouble, store.room_owed
            store.tend()
            after = used_bytes(store)
            trouble = store.info()["trouble"]
        assert forgotten == [75 * 100, 0, 0]
        assert owed
        assert during is not None
        assert "queries run on and on" in during
        assert after < 0.7 * before
        assert trouble is None

    def test_log_is_bounded(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A query that keeps the log from being emptied is told as trouble, and stopped before the log is too long."""
        monkeypatch.setattr(duck, "LONG_WAL_BYTES", 1)
        stopped: list[str] = []
        with Store.open(path) as store:
            began = watched(store)
            store.commit([table(attempt(1))])

            def ask() -> None:
                try:
                    store.query(ENDLESS)
                except StoreError as error:
                    stopped.append(error.message)

            asking = threading.Thread(target=ask)
            asking.start()
            began.wait()
            for _ in range(3):
                store.tend(now=True)
            during, log_bytes = store.trouble, store.wal_bytes
            monkeypatch.setattr(duck, "MOST_WAL_BYTES", 1)
            store.tend()
            asking.join()

            assert during is not None
            assert log_bytes > 0
            assert stopped == ["the query was stopped, because it kept the store from emptying its log"]
            assert store.wal_bytes == 0
            assert store.trouble is None
            assert count(store) == len(attempt(1))


class TestQuery:
    def test_version(self, path: Path) -> None:
        """Whatever may change an answer changes the version: a commit, a refusal, and opening the file again."""
        with Store.open(path) as store:
            versions = [store.version, store.version]
            store.commit([table(attempt(1))])
            versions.append(store.version)
            store.record_rejection("grpc", "bad trace id", 1)
            versions.append(store.version)
            store._broken = MemoryError()
            store.commit([table(attempt(2))])
            versions.append(store.version)

        assert len(set(versions)) == len(versions) - 1

    def test_snapshot(self, path: Path) -> None:
        """A query that is being read sees one state, whatever is committed, folded and checkpointed meanwhile."""
        with Store.open(path) as store:
            store.commit([table(*(attempt(number) for number in range(1, 50)))])
            before = count(store)
            with (
                store.reader() as reader,
                reader.batches("select * exclude (attributes) from spans", rows=100) as batches,
            ):
                read = len(batches.read_next_batch())
                store.commit([table(attempt(99))])
                store.tend(now=True)
                read += sum(len(batch) for batch in batches)
            assert read == before
            assert count(store) > before
            assert store.trouble is None

    @pytest.mark.parametrize(
        "sql",
        [
            "select * from read_csv('/etc/passwd')",
            "attach '/tmp/other.duckdb' as other",
            "copy (select 1) to '/tmp/out.csv'",
            "set threads = 1",
            "set enable_external_access = true",
            "install httpfs",
            "delete from stored.spans",
            "drop table stored.spans",
        ],
    )
    def test_cannot_reach_out(self, path: Path, sql: str) -> None:
        """A query can neither write nor reach files, the network or settings."""
        with Store.open(path) as store:
            with pytest.raises(StoreError):
                store.query(sql)
            assert store.commit([table(attempt(1))]).stored > 0

    def test_times_out(self, path: Path) -> None:
        """A query that takes longer than its limit ends with an error that says so, and the store goes on."""
        with Store.open(path) as store:
            with pytest.raises(StoreError, match=r"longer than 0\.05 s"):
                store.query("select count(*) from range(10000000) a, range(10000000) b", timeout_s=0.05)
            assert count(store) == 0

    def test_too_much_memory(self, path: Path) -> None:
        """A query that needs more memory than the store has fails alone."""
        with Store.open(path, memory_limit_bytes=100_000_000) as store:
            with pytest.raises(StoreError, match="more memory"):
                store.query("select list(i) from range(100000000) t(i)")
            assert store.commit([table(attempt(1))]).stored > 0


def test_refusals_alone_are_folded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of refused requests, of which no span is stored, does not fill the journal."""
    monkeypatch.setattr(duck, "FOLD_COMMITS", 100)
    journals = "select count(*) as n from (from stored.journal_a union all from stored.journal_b)"
    with Store.open(path) as store:
        for _ in range(100):
            store.record_rejection("grpc", "no token", 0)
        before = store.query(journals).to_pylist()
        store.tend()
        after = store.query(journals).to_pylist()
        requests = store.query("select requests from ingest").to_pylist()

    assert before == [{"n": 100}]
    assert after == [{"n": 0}]
    assert requests == [{"requests": 100}]


def test_commits_that_nobody_asks_after(path: Path) -> None:
    """Many small commits without a query between them are held once, and all of them are in the next answer."""
    commits = tail._MOST_FRESH + 10
    with Store.open(path) as store:
        first = count(store)
        for number in range(commits):
            store.commit([table(attempt(number)[:1])])
        held = len(store._tail._fresh)

        assert first == 0
        assert held <= tail._MOST_FRESH
        assert store.query("select count(*) as n from connections").to_pylist() == [{"n": commits}]


def test_a_commit_goes_on_when_folding_has_caught_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the rest of what upkeep does, a checkpoint, say."""
    waits, go_on = threading.Event(), threading.Event()

    class Slow(Store):
        def _fold(self, *given: Any, **named: Any) -> None:
            while not self._commit_waits:
                time.sleep(0.01)
            super()._fold(*given, **named)

        def _checkpoint(self, connection: duckdb.DuckDBPyConnection) -> None:
            waits.set()
            go_on.wait()
            super()._checkpoint(connection)

    with Slow.open(path) as store, ThreadPoolExecutor(2) as threads:
        store.commit([table(attempt(1))])
        monkeypatch.setattr(duck, "FOLD_ROWS", 1)
        tending = threads.submit(store.tend, now=True)
        committing = threads.submit(store.commit, [table(attempt(2))])
        waits.wait()
        committed = committing.result(duck.COMMIT_PATIENCE_S / 2)
        still = tending.running()
        go_on.set()
        tending.result()
        monkeypatch.setattr(Slow, "_fold", Store._fold)

    assert committed.stored == len(attempt(2))
    assert still


def test_commits_go_on_while_blocks_are_copied(path: Path) -> None:
    """The copies that a compaction makes of the file's blocks hold no commit back."""
    copied, go_on = threading.Semaphore(0), threading.Semaphore(0)

    class Held(Store):
        def _keep_blocks(self, connection: duckdb.DuckDBPyConnection) -> None:
            super()._keep_blocks(connection)
            copied.release()
            go_on.acquire()

    with Held.open(path) as store, ThreadPoolExecutor(1) as threads:
        compacting = threads.submit(store.compact)
        for number in range(2):
            copied.acquire()
            stored = store.commit([table(attempt(number))]).stored
            go_on.release()
            assert stored == len(attempt(number))
        compacted = compacting.result()
        go_on.release(2)  # on closing

    assert compacted


def test_checkpoint_that_sufficed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries are not held back for a long log that a checkpoint beside them has emptied."""
    compactions: list[object] = []
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([table(attempt(1))])
        monkeypatch.setattr(duck, "LONG_WAL_BYTES", store.wal_bytes)
        monkeypatch.setattr(Store, "_compact", lambda *given: compactions.append(given))
        store.tend(now=True)
        assert store.wal_bytes < duck.LONG_WAL_BYTES

    assert compactions == []
