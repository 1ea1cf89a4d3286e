"""Verification finds what is wrong, and says where."""

from pathlib import Path

import pytest

from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.spans import T0, attempt, table


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "s.duckdb")
    store.commit([table(attempt(1), attempt(2))])
    store.tend(now=True)
    return store


def test_sound(store: Store) -> None:
    """A sound store passes every check, with how much was compared."""
    assert [(check.passed, check.rows) for check in verify(store)] == [
        (True, 2),
        (True, 2),
        (True, 8),
        (True, 6),
        (True, 2),
        (True, 2),
        (True, 2 * len(attempt(1))),
    ]
    store.close()


@pytest.mark.parametrize(
    ("damage", "failing"),
    [
        ("update stored.connections set region = 'elsewhere' where trace_id like '%2'", 0),
        ("delete from stored.connections where trace_id like '%2'", 0),
        ("update stored.connections set owner = 'nobody', rule = 'x' where trace_id like '%2'", 1),
        ("update stored.steps set queue_ns = 1 where trace_id like '%2'", 3),
        ("update stored.connections set session_hash = 0 where trace_id like '%2'", 2),
        (
            "delete from stored.ids_recent "
            "where id_hash in (select session_hash from stored.connections where trace_id like '%2')",
            2,
        ),
        ("update stored.sessions set connections = 2 where session_id like '%2'", 4),
        ("delete from stored.episodes where episode_id like '%2'", 5),
        ("insert into stored.spans from stored.spans where trace_id like '%2' and name = 'connect'", 6),
    ],
)
def test_unsound(store: Store, damage: str, failing: int) -> None:
    """A wrong row, a missing row and a span that is there twice are found, each with an example."""
    with store.maintained() as connection:
        connection.execute(damage)
    check = verify(store)[failing]

    assert not check.passed
    assert check.example is not None
    assert "0002" in check.example
    store.close()


def test_info(store: Store) -> None:
    """The facts about a store are those of its contents and its file."""
    store.commit([table(attempt(3))])
    info = store.info()

    assert (info["spans"], info["waiting_spans"], info["connections"]) == (3 * len(attempt(1)), len(attempt(1)), 3)
    assert info["first_ns"] == T0
    assert info["file_bytes"] == store.path.stat().st_size
    assert info["wal_bytes"] > 0
    assert info["trouble"] is None
    store.close()
