"""A statement is parsed once and executed anywhere, with its own parameters; several in a text are executed, too."""

import threading

import duckdb
import pytest

from telemetry.store import statements
from telemetry.store.statements import execute

_SUM = "select sum(i) as s from range($until) as t(i)"


def test_another_connection() -> None:
    """What one connection parsed, another one executes after the first is closed, with other parameters."""
    with duckdb.connect() as first:
        assert execute(first, _SUM, {"until": 3}).fetchall() == [(3,)]
    with duckdb.connect() as second:
        assert execute(second, _SUM, {"until": 5}).fetchall() == [(10,)]
    assert statements._parsed[_SUM].query == _SUM


def test_at_once() -> None:
    """Threads that execute one statement at once have each their own answer."""
    wrong: list[int] = []

    def ask(connection: duckdb.DuckDBPyConnection, until: int) -> None:
        for _ in range(50):
            if execute(connection, _SUM, {"until": until}).fetchall() != [(sum(range(until)),)]:
                wrong.append(until)

    with duckdb.connect() as root:
        threads = [threading.Thread(target=ask, args=(root.cursor(), 1000 * n)) for n in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert not wrong


def test_text() -> None:
    """Several statements in a text, and what cannot be parsed, are as DuckDB takes them."""
    with duckdb.connect() as connection:
        assert execute(connection, "create table t as select 1 as a; from t").fetchall() == [(1,)]
        with pytest.raises(duckdb.ParserException):
            execute(connection, "selec 1")


def test_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts without end, such as an analyst's own, take no memory without end."""
    monkeypatch.setattr(statements, "_MOST", 10)
    with duckdb.connect() as connection:
        for number in range(100):
            assert execute(connection, f"select {number}").fetchall() == [(number,)]
            assert len(statements._parsed) <= 10
