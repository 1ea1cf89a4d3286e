"""A backup is a whole store, as it was at one moment, or is not there."""

from pathlib import Path

import pytest

from telemetry.errors import StoreError
from telemetry.store import opening
from telemetry.store.backup import backup
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.spans import attempt, foreign, table

RELATIONS = ("spans", "connections", "steps", "sessions", "episodes", "samples", "ingest")


def rows(store: Store, name: str) -> list[dict[str, object]]:
    columns = "* exclude (attributes, resource_attributes, scope_attributes, events, links, resource_entity_refs), "
    columns += "attributes::json::varchar as attributes" if name == "spans" else ""
    chosen = columns if name == "spans" else "*"
    found: list[dict[str, object]] = store.query(f"select {chosen} from {name} order by all").to_pylist()
    return found


def test_equal(tmp_path: Path) -> None:
    """Every relation of a backup has the rows of the store, folded or waiting, and takes more."""
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([table(*(attempt(n, samples=2, attributes={"n": n, "x": 0.5}) for n in range(1, 30)), foreign(1))])
        store.tend(now=True)
        store.commit([table(*(attempt(n) for n in range(20, 40)))])
        made = backup(store, tmp_path / "other place" / "it's.duckdb")
        expected = {name: rows(store, name) for name in RELATIONS}
        after = store.commit([table(attempt(50))])
    with Store.open(made) as copy:
        found = {name: rows(copy, name) for name in RELATIONS}
        checks = verify(copy)
        again = copy.commit([table(attempt(1))])

    assert found == expected
    assert all(check.passed for check in checks), checks
    assert after.stored > 0
    assert again.stored == 0
    assert not opening.scratch(tmp_path / "s.duckdb").exists()


def test_existing_target(tmp_path: Path) -> None:
    """A file that exists is never overwritten."""
    target = tmp_path / "there"
    target.write_text("precious")
    with Store.open(tmp_path / "s.duckdb") as store, pytest.raises(StoreError, match="exists"):
        backup(store, target)

    assert target.read_text() == "precious"


def test_unwritable_target(tmp_path: Path) -> None:
    """A target that cannot be written is a clear error, and leaves nothing behind."""
    (tmp_path / "file").write_text("")
    with Store.open(tmp_path / "s.duckdb") as store, pytest.raises(StoreError, match="cannot write the backup"):
        backup(store, tmp_path / "file" / "s.duckdb")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "s.duckdb"]
