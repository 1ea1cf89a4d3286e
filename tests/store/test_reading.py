"""Queries end when they are cancelled, and hold nothing up."""

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from telemetry.errors import StoreError
from telemetry.store import opening, reading, relations, turnstile
from telemetry.store.duck import Store
from telemetry.store.reading import IN_THE_WAY, Reader
from tests.support.spans import attempt, table

ENDLESS = "select count(*) from range(100000000) a, range(100000000) b"


def test_cancel(tmp_path: Path) -> None:
    """A query that another thread cancels ends with an error that says so, and its reader takes no more."""
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:
        timer = threading.Timer(0.1, reader.cancel)
        timer.start()
        with pytest.raises(StoreError, match="cancelled"):
            reader.query(ENDLESS)
        with pytest.raises(StoreError, match="cancelled"):
            reader.query("select 1")
        timer.join()
        assert store.query("select 1 as one").to_pylist() == [{"one": 1}]


def test_cancel_while_it_closes(tmp_path: Path) -> None:
    """A query that has ended, and whose connection is closed meanwhile, needs no interruption."""
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:
        reader._busy.acquire()
        reader.connection.close()
        timer = threading.Timer(0.1, reader._busy.release)
        timer.start()
        reader.cancel()
        timer.join()


def test_close_cancels(tmp_path: Path) -> None:
    """Closing the store ends the queries that run."""
    store = Store.open(tmp_path / "s.duckdb")
    started, errors = threading.Event(), []

    def ask() -> None:
        try:
            with store.reader() as reader:
                started.set()
                reader.query(ENDLESS)
        except StoreError as error:
            errors.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    started.wait()
    store.close()
    asking.join()

    assert errors == ["the query was cancelled"]


def test_commits_go_on(tmp_path: Path) -> None:
    """Spans are committed, folded and checkpointed while a query runs."""
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:

        def ask() -> None:
            with contextlib.suppress(StoreError):
                reader.query(ENDLESS)

        asking = threading.Thread(target=ask)
        asking.start()
        assert store.commit([table(attempt(1))]).stored > 0
        store.tend(now=True)
        assert store.commit([table(attempt(2))]).stored > 0
        assert asking.is_alive()
        reader.cancel()
        asking.join()


def test_parameters(tmp_path: Path) -> None:
    """Values reach a statement by name, never as text."""
    with Store.open(tmp_path / "s.duckdb") as store:
        found = store.query("select $a as a, $b as b", {"a": "'; drop table x", "b": None}).to_pylist()

        assert found == [{"a": "'; drop table x", "b": None}]
        with pytest.raises(StoreError, match="failed"):
            store.query("select $a", {})
        with pytest.raises(StoreError, match="failed"):
            store.query("selec 1")


def test_one_connection_sees_what_waits_and_what_is_folded(tmp_path: Path) -> None:
    """A connection made while nothing waits sees what is committed and folded later, each time whole and once."""
    ask = (
        "select (select count(*) from spans) as spans, (select count(*) from connections) as attempts, "
        "(select count(*) from ids where kind = 'attempt') as ids, (select sum(stored)::bigint from ingest) as stored"
    )
    spans = len(table(attempt(1)))
    with Store.open(tmp_path / "s.duckdb") as store:
        seen = [store.query(ask).to_pylist()[0]]
        store.commit([table(attempt(1))])
        seen.append(store.query(ask).to_pylist()[0])
        store.tend(now=True)
        seen.append(store.query(ask).to_pylist()[0])
        store.commit([table(attempt(2))])
        seen.append(store.query(ask).to_pylist()[0])

    assert [(one["spans"], one["attempts"], one["ids"], one["stored"]) for one in seen] == [
        (0, 0, 0, None),
        (spans, 1, 1, spans),
        (spans, 1, 1, spans),
        (2 * spans, 2, 2, 2 * spans),
    ]


def test_one_reader_sees_one_state(tmp_path: Path) -> None:
    """Whatever is asked of it: what is committed, folded and checkpointed meanwhile it sees once it has let go, or
    after a query that failed."""
    ask = "select (select count(*) from spans) as spans, (select count(*) from connections) as attempts"
    spans = len(table(attempt(1)))
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:

        def seen() -> tuple[int, int]:
            [row] = reader.query(ask).to_pylist()
            return row["spans"], row["attempts"]

        store.commit([table(attempt(1))])
        first = seen()
        store.commit([table(attempt(2))])
        store.tend(now=True)
        store.commit([table(attempt(3))])
        still = seen()
        reader.end()
        ended = seen()
        store.commit([table(attempt(4))])
        with pytest.raises(StoreError, match="failed"):
            reader.query("from nowhere")
        failed = seen()

    assert (first, still, ended, failed) == ((spans, 1), (spans, 1), (3 * spans, 3), (4 * spans, 4))


def test_one_limit_for_all_that_sees_one_state(tmp_path: Path) -> None:
    """A limit counts from the first query, so that a dozen together keep the store no longer than one may."""
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:
        reader.query("select 1")
        reader._began_s -= 3600
        with pytest.raises(StoreError, match="longer than 3600 s"):
            reader.query(ENDLESS, timeout_s=3600)
        assert reader.query("select 1 as one", timeout_s=3600).to_pylist() == [{"one": 1}]


def test_stopped_between_two_queries(tmp_path: Path) -> None:
    """A reader that only keeps what it saw is in nobody's way any more; its next query says why it is refused."""
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:
        reader.query("select 1")
        reader.stop(IN_THE_WAY)
        with store._readers.turnstile.emptied(hurry=lambda: True) as empty:
            assert empty
        with pytest.raises(StoreError, match="was stopped, because it kept the store"):
            reader.query("select 1")
        reader.end()
        assert reader.query("select 1 as one").to_pylist() == [{"one": 1}]


def test_stopped_while_it_keeps_nothing(tmp_path: Path) -> None:
    """A reader that has asked nothing yet, or let go, is in nobody's way."""
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:
        reader.stop(IN_THE_WAY)
        assert reader.query("select 1 as one").to_pylist() == [{"one": 1}]
        reader.end()
        reader.stop(IN_THE_WAY)
        assert reader.query("select 1 as one").to_pylist() == [{"one": 1}]


def test_interrupted_without_a_limit(tmp_path: Path) -> None:
    """An interruption that comes from nowhere ends the query with an error like any other."""
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:
        ended = threading.Event()

        def interrupt() -> None:
            while not ended.wait(0.1):
                reader.connection.interrupt()

        with ThreadPoolExecutor(1) as threads:
            threads.submit(interrupt)
            with pytest.raises(StoreError, match="cancelled"):
                reader.query(ENDLESS)
            ended.set()


def test_beginning_fails_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose first beginning was interrupted begins as if it were new, also when nothing waits by then."""
    ask = "select count(*) as n from connections"
    views = relations.reading()
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader, store.reader() as other:
        store.commit([table(attempt(1))])
        with monkeypatch.context() as interrupted:
            interrupted.setattr(relations, "reading", lambda: [*views[:-1], "select error('interrupted')"])
            for one in (reader, other):
                with pytest.raises(StoreError, match="interrupted"):
                    one.query(ask)
        waiting = reader.query(ask).to_pylist()
        store.tend(now=True)
        folded = other.query(ask).to_pylist()

    assert waiting == folded == [{"n": 1}]


def test_idle_tending_costs_queries_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is put together once, however often the store is tended with nothing to do; a commit adds to it."""
    made = 0
    statements = relations.tail

    def counted() -> list[str]:
        nonlocal made
        made += 1
        return statements()

    monkeypatch.setattr(relations, "tail", counted)
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([table(attempt(1))])
        for _ in range(3):
            store.tend()
            assert store.query("select count(*) as n from connections").to_pylist() == [{"n": 1}]
        store.commit([table(attempt(2))])
        assert store.query("select count(*) as n from connections").to_pylist() == [{"n": 2}]
        assert made == 1
        store.tend(now=True)
        assert store.query("select count(*) as n from connections").to_pylist() == [{"n": 2}]


MEMORY_BYTES = 60_000_000
ROWS = "select i, hash(i) as h, repeat(i::varchar, 20) as s from range(300000) r(i)"
HEAVY = {
    "sort": f"select count(*) from (select *, row_number() over (order by s) as n from ({ROWS})) where n % 7 = 0",
    "join": f"select count(*), max(a.s || b.s) from ({ROWS}) a join ({ROWS}) b using (h)",
    "group": f"select max(n) from (select h, s, count(*) as n from ({ROWS}) group by h, s)",
    "window": f"select max(f) from (select first_value(s) over (partition by h % 9 order by s) as f from ({ROWS}))",
}
"""What takes more memory than the store has, and can be written to disk."""


@pytest.mark.parametrize("heavy", HEAVY.values(), ids=HEAVY)
def test_spans_are_stored_beside_heavy_reports(tmp_path: Path, heavy: str) -> None:
    """Reports that take all memory are answered, or fail with an error that says what to do; spans are stored
    meanwhile as ever, and what was written to disk is gone afterwards."""
    said: set[str] = set()
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            try:
                store.query(heavy)
            except StoreError as error:
                said.add(error.message)

    with Store.open(tmp_path / "s.duckdb", memory_limit_bytes=MEMORY_BYTES) as store, ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        try:
            for number in range(1, 41, 20):
                store.commit([table(*(attempt(n) for n in range(number, number + 20)))])
                store.fold()
                assert store.trouble is None
                assert sum(file.stat().st_size for file in tmp_path.glob("*.tmp/*")) <= opening.SPILLED * MEMORY_BYTES
            assert store.commit([table(attempt(41))]).stored > 0
        finally:
            ended.set()
            store.close()
        for one in asking:
            one.result()

    clear = "more memory than is free; |too little memory for storing spans; |was cancelled|is closed"
    assert [message for message in said if not re.search(clear, message)] == []
    assert not [*tmp_path.glob("*.tmp")]
    with Store.open(tmp_path / "s.duckdb") as store:
        stored = store.query("select count(*) as spans, (select count(*) from connections) as attempts from spans")
        assert stored.to_pylist() == [{"spans": 41 * len(table(attempt(1))), "attempts": 41}]


def test_who_gives_way_to_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a commit finds too little memory, the query that has run longest is stopped, and an export last of all."""
    monkeypatch.setattr(reading, "_AGAIN_TIMES", 10)
    commit, tries = Store._commit, 0

    def short(store: Store, *args: object) -> object:
        nonlocal tries
        tries += 1
        if tries in (1, 3, 4):
            raise duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate")
        return commit(store, *args)  # type: ignore[arg-type]

    def ask(reader: Reader) -> str:
        try:
            reader.query(ENDLESS)
        except StoreError as error:
            return error.message
        return "answered"

    monkeypatch.setattr(Store, "_commit", short)
    with Store.open(tmp_path / "s.duckdb") as store, ThreadPoolExecutor(2) as threads:
        with store.reader() as export, export.batches("from range(100000000)") as pieces:
            pieces.read_next_batch()
            with store.reader() as first, store.reader() as second:
                answers = []
                try:
                    for reader in (first, second):
                        answers.append(threads.submit(ask, reader))
                        while not reader.hungry:
                            pass
                    store.commit([table(attempt(1))])
                    assert "left too little memory for storing spans" in answers[0].result()
                    assert second.hungry
                    assert export.hungry
                    store.commit([table(attempt(2))])
                    assert "left too little memory for storing spans" in answers[1].result()
                    assert not export.hungry
                    assert tries == 5
                finally:
                    first.cancel()
                    second.cancel()
        assert store.query("select count(*) as n from connections").to_pylist() == [{"n": 2}]


def test_no_checkpoint_beside_a_query_while_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that finds too little memory would cost the store its connection: so after a report ran short, it
    waits for a moment without queries."""
    monkeypatch.setattr(turnstile, "PATIENCE_S", 0.05)
    monkeypatch.setattr(turnstile, "REST", 0)
    with Store.open(tmp_path / "s.duckdb", memory_limit_bytes=MEMORY_BYTES) as store:
        store.commit([table(attempt(1))])
        with store.reader() as reader:
            reader.query("select 1")
            with pytest.raises(StoreError, match="more memory than is free"):
                store.query(f"select len(list(s)) from ({ROWS})")
            store.tend(now=True)
            assert store.wal_bytes > 0
        store.tend(now=True)
        assert store.wal_bytes == 0


def test_what_is_written_to_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that would write more to the temporary folder than it may fails, and leaves nothing there."""
    monkeypatch.setattr(opening, "SPILLED", 0.1)
    with Store.open(tmp_path / "s.duckdb", memory_limit_bytes=MEMORY_BYTES) as store:
        with pytest.raises(StoreError, match="more memory than is free"):
            store.query(HEAVY["sort"].replace("300000", "1500000"))  # far more than fits with what may be written
        assert sum(file.stat().st_size for file in tmp_path.glob("*.tmp/*")) <= MEMORY_BYTES / 10
        assert store.commit([table(attempt(1))]).stored > 0
    assert not [*tmp_path.glob("*.tmp")]
