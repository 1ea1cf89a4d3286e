"""Queries end when they are cancelled, and hold nothing up."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from telemetry.errors import StoreError
from telemetry.store import relations
from telemetry.store.duck import Store
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
        reader.stop()
        with store._turnstile.emptied(hurry=lambda: True) as empty:
            assert empty
        with pytest.raises(StoreError, match="was stopped, because it kept the store"):
            reader.query("select 1")
        reader.end()
        assert reader.query("select 1 as one").to_pylist() == [{"one": 1}]


def test_stopped_while_it_keeps_nothing(tmp_path: Path) -> None:
    """A reader that has asked nothing yet, or let go, is in nobody's way."""
    with Store.open(tmp_path / "s.duckdb") as store, store.reader() as reader:
        reader.stop()
        assert reader.query("select 1 as one").to_pylist() == [{"one": 1}]
        reader.end()
        reader.stop()
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
