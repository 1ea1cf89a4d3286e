"""A log that a crash of the machine cut off or damaged: what was acknowledged before that is there, or it is told."""

import shutil
from pathlib import Path

import pytest

from telemetry.errors import StoreError
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.copies import copied
from tests.support.spans import attempt, table

pytestmark = pytest.mark.real
ONE = table(attempt(1))
Live = tuple[Path, list[tuple[int, int]]]


@pytest.fixture
def live(tmp_path: Path) -> Live:
    """A store as it lies on disk while it is served; after each commit, the size of its log and the spans it had."""
    path = tmp_path / "s.duckdb"
    acknowledged: list[tuple[int, int]] = []
    with Store.open(path) as store:
        stored = store.commit([ONE]).stored
        store.tend(now=True)
        for number in range(2, 8):
            stored += store.commit([table(attempt(number))]).stored
            acknowledged.append((_log(path).stat().st_size, stored))
        return copied(path, tmp_path / "live.duckdb"), acknowledged


def test_cut_off(live: Live, tmp_path: Path) -> None:
    """Wherever a log ends, the store opens with every commit that is whole in it, and goes on."""
    path, acknowledged = live
    size = acknowledged[-1][0]
    ends = {0, 1, size, *(end + more for end, _ in acknowledged[::2] for more in (-1, 1)), *range(0, size, size // 5)}
    for end in sorted(ends):
        torn = tmp_path / "torn.duckdb"
        torn.unlink(missing_ok=True)
        shutil.copy(path, torn)
        _log(torn).write_bytes(_log(path).read_bytes()[:end])
        least = max((spans for whole, spans in acknowledged if whole <= end), default=0)
        with Store.open(torn) as store:
            spans = store.info()["spans"]
            added = store.commit([table(attempt(99))]).stored
            store.tend(now=True)
            after = store.info()["spans"]
            checks = verify(store)

        assert spans >= least, end
        assert after == spans + added
        assert all(check.passed for check in checks)


def test_damaged(live: Live, tmp_path: Path) -> None:
    """A wrong byte is told as damage; in a length it may look like the log's end, and the commits before are there."""
    path, acknowledged = live
    size, whole = acknowledged[-1][0], {ONE.num_rows, *(spans for _, spans in acknowledged)}
    places = range(40, size, size // 30)
    told = []
    for at in places:
        torn = tmp_path / "torn.duckdb"
        torn.unlink(missing_ok=True)
        shutil.copy(path, torn)
        log = bytearray(_log(path).read_bytes())
        log[at] ^= 0x10
        _log(torn).write_bytes(log)
        try:
            with Store.open(torn) as store:
                spans = store.info()["spans"]
        except StoreError as error:
            told.append(str(error))
        else:
            assert spans in whole, at

    assert len(told) > 0.8 * len(places)
    assert all(str(torn) in error for error in told)


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
