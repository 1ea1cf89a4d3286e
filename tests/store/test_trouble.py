"""A full or failing disk, or a clock that jumps, loses nothing acknowledged, and is forgotten when it is over."""

import asyncio
import contextlib
import functools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from telemetry.errors import Overloaded, StoreError
from telemetry.store import duck, journal
from telemetry.store import writer as writer_module
from telemetry.store.backup import backup
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from telemetry.store.journal import Waiting
from telemetry.store.ledger import Ledger
from telemetry.store.recent import Recent
from telemetry.store.retention import Retention
from telemetry.store.tail import Tail
from telemetry.store.writer import Writer
from tests.support.spans import attempt, moved, table

pytestmark = pytest.mark.real
SOME = table(*(attempt(n) for n in range(1, 101)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return ballast


async def test_full_disk(small_disk: Path) -> None:
    """While the disk is full requests are told to come again; when there is room it is taken. Nothing is lost."""
    store = Store.open(small_disk / "s.duckdb")
    writer = Writer(store)
    acknowledged, number = 0, 0
    ballast = fill(small_disk)
    ballast.write_bytes(b"x" * (ballast.stat().st_size - 3_000_000))
    with contextlib.suppress(Overloaded):
        while True:
            acknowledged += (await writer.submit(moved(SOME, number))).stored
            number += 1
    for _ in range(3):
        with pytest.raises(Overloaded, match="full"):
            await writer.submit(moved(SOME, number))
    ballast.unlink()
    again = await writer.submit(moved(SOME, number))
    acknowledged += again.stored
    await writer.close()
    checks = verify(store)
    stored = store.info()["spans"]
    store.close()
    with Store.open(small_disk / "s.duckdb") as store:
        reopened = store.info()["spans"]

    assert number > 0
    assert again.stored + again.duplicates == SOME.num_rows
    assert reopened == stored
    assert stored == acknowledged + again.duplicates
    assert all(check.passed for check in checks), checks


async def test_full_disk_while_folding(small_disk: Path) -> None:
    """A fold that finds no room changes nothing, says so, and succeeds later."""
    with Store.open(small_disk / "s.duckdb") as store:
        for number in range(5):
            store.commit([moved(SOME, number)])
        ballast = fill(small_disk)
        with pytest.raises(StoreError, match="full"):
            store.tend(now=True)
        trouble = store.trouble
        during = store.query("select count(*) as n from connections").to_pylist()
        ballast.unlink()
        store.tend(now=True)

        assert trouble is not None
        assert during == [{"n": 500}]
        assert store.trouble is None
        assert store.info()["waiting_spans"] == 0
        assert all(check.passed for check in verify(store))


def test_full_disk_while_opening(small_disk: Path) -> None:
    """A file of an earlier version that finds no room to be brought up to date is said to be whole, and is."""
    path = small_disk / "s.duckdb"
    with Store.open(path) as store:
        store.commit([SOME])
    with duckdb.connect(str(path)) as connection:
        connection.execute("update stored.store set definitions = 'older'")
    ballast = fill(small_disk)
    with pytest.raises(StoreError, match="is full; make room, and open it again"):
        Store.open(path)
    ballast.unlink()
    with Store.open(path) as store:
        assert all(check.passed for check in verify(store))


def test_full_disk_of_a_backup(small_disk: Path, tmp_path: Path) -> None:
    """A backup that finds no room leaves neither itself nor a part of it."""
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([moved(SOME, number) for number in range(5)])
        fill(small_disk)
        with pytest.raises(StoreError, match="cannot write the backup"):
            backup(store, small_disk / "copy.duckdb")

    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_read_only_disk(small_disk: Path) -> None:
    """A store on a read-only disk can be read, and says why it cannot be written."""
    with Store.open(small_disk / "s.duckdb") as store:
        store.commit([SOME])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open(small_disk / "s.duckdb")
    with Store.open(small_disk / "s.duckdb", read_only=True) as store:
        assert store.info()["connections"] == 100


def test_clock_jumps(tmp_path: Path) -> None:
    """Spans that arrive while the clock is years ahead, or years behind, do not keep others from being recognised."""
    year_ns = 365 * 86_400 * 10**9
    with Store.open(tmp_path / "s.duckdb") as store:
        for number, jump_ns in enumerate((0, year_ns, -30 * year_ns, 0)):
            arrived = pc.add(SOME["received_ns"], jump_ns)
            some = SOME.set_column(SOME.schema.get_field_index("received_ns"), "received_ns", arrived)
            store.commit([moved(some, number)])
        store.tend(now=True)
        while_open = [store.commit([moved(SOME, number)]).duplicates for number in range(4)]
    with Store.open(tmp_path / "s.duckdb") as store:
        reopened = [store.commit([moved(SOME, number)]).duplicates for number in range(4)]
        checks = verify(store)

    assert while_open == reopened == [SOME.num_rows] * 4
    assert all(check.passed for check in checks), checks


async def test_clock_jumps_ahead_before_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps ahead makes nothing look older than it is."""
    pruned_at: list[int] = []
    done = threading.Event()

    def prune(_store: Store, _retention: Retention, *, now_ns: int) -> None:
        pruned_at.append(now_ns)
        done.set()

    begun_ns = time.time_ns()
    monkeypatch.setattr(writer_module, "TEND_EVERY_S", 0.01)
    monkeypatch.setattr(writer_module, "PRUNE_EVERY_S", 0.0)
    monkeypatch.setattr(writer_module, "prune", prune)
    with Store.open(tmp_path / "s.duckdb") as store:
        writer = Writer(store, retention=Retention(days=1))
        await asyncio.to_thread(done.wait)
        done.clear()
        jumped_ns = time.time_ns() + 10**18
        monkeypatch.setattr(writer_module.time, "time_ns", lambda: jumped_ns)
        await asyncio.to_thread(done.wait)
        done.clear()
        await asyncio.to_thread(done.wait)
        await writer.close()

    assert all(begun_ns - 10**9 < now_ns < jumped_ns - 10**17 for now_ns in pruned_at)


def test_opened_again_while_queries_are_held_back(tmp_path: Path) -> None:
    """A commit that must open the file again waits for the compaction that holds queries back; then all go on."""

    class Held(Store):
        emptied, go_on = threading.Event(), threading.Event()

        def _checkpoint(self, connection: duckdb.DuckDBPyConnection) -> None:
            self.emptied.set()
            self.go_on.wait()
            super()._checkpoint(connection)

    with Held.open(tmp_path / "s.duckdb") as store:
        store.commit([SOME])
        with ThreadPoolExecutor(3) as threads:
            compacting = threads.submit(store.compact)
            store.emptied.wait()
            asking = threads.submit(store.query, "select count(*) as n from connections")
            while not store._readers._reading:
                time.sleep(0.01)
            store._broken = MemoryError()
            committing = threads.submit(store.commit, [moved(SOME, 1)])
            wait([committing], 0.2)  # in which it takes what it takes
            store.go_on.set()
            compacted, committed = compacting.result(), committing.result()
            refusal = asking.exception()

        assert compacted
        assert committed.stored == SOME.num_rows
        assert refusal is None or "cancelled" in str(refusal)
        assert store.info()["connections"] == 200


class Fault:
    """Fails in the place of a function, once so many calls have passed."""

    def __init__(
        self, function: Callable[..., Any], error: Exception, *, passing: int = 0, after: bool = False
    ) -> None:
        """
        Args:
            after: do first what the function does.
        """
        self.hit = False
        self._function = function
        self._error = error
        self._left = passing
        self._after = after

    def __get__(self, owner: object, _: type | None = None) -> Callable[..., Any]:
        """As a method."""
        return functools.partial(self, owner)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        self._left -= 1
        if self._left < 0 and not self.hit:
            self.hit = True
            if self._after:
                self._function(*arguments, **keywords)
            raise self._error
        return self._function(*arguments, **keywords)


MEMORY = pa.ArrowMemoryError("malloc failed")
INTERRUPTED = RuntimeError("Query interrupted")
"""What DuckDB makes of Ctrl-C, also where the statement was done by then."""
UNCERTAIN = duckdb.TransactionException("TransactionContext Error: Failed to commit: could not allocate block")
"""What DuckDB makes of too little memory at the end of a transaction, also where its log has it."""


def inject(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fault: Fault) -> Fault:
    monkeypatch.setattr(owner, name, fault)
    return fault


@pytest.mark.parametrize(
    ("owner", "name", "error", "passing", "after"),
    [
        (duck, "joined", MEMORY, 0, False),
        (duck, "packed", MEMORY, 0, False),
        (duck, "packed", MEMORY, 1, False),
        (duck, "execute", INTERRUPTED, 0, True),
        (duck, "execute", UNCERTAIN, 0, True),
        (Tail, "add", MEMORY, 0, False),
        (Waiting, "add", MEMORY, 0, False),
        (Waiting, "add", MEMORY, 1, False),
        (Recent, "add", MEMORY, 0, False),
    ],
)
def test_commit_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    error: Exception,
    passing: int,
    *,
    after: bool,
) -> None:
    """Wherever a commit fails, before its spans are on disk or after, they are there once when they are sent again."""
    refused = Ledger()
    refused.refuse("grpc", "bad trace id", 5, None)
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([moved(SOME, 1)])
        with monkeypatch.context() as failing:
            fault = inject(failing, owner, name, Fault(getattr(owner, name), error, passing=passing, after=after))
            with pytest.raises(RuntimeError if error is INTERRUPTED else StoreError):
                store.commit_each([(SOME, "grpc")], refused)
        [again] = store.commit_each([(SOME, "grpc")], refused)
        store.tend(now=True)
        found, checks = store.info()["spans"], verify(store)
        told = store.query("select sum(rejected)::bigint as n from ingest where reason = 'bad trace id'").to_pylist()
    with Store.open(tmp_path / "s.duckdb") as store:
        reopened = store.info()["spans"]

    assert fault.hit
    assert again.stored + again.duplicates == SOME.num_rows
    assert found == reopened == 2 * SOME.num_rows
    assert told == [{"n": 10 if name == "execute" else 5}]  # rather twice than not at all
    assert all(check.passed for check in checks), checks


@pytest.mark.parametrize(
    ("owner", "name", "passing"),
    [
        (journal, "joined", 0),
        (duck, "joined", 0),
        (duck, "packed", 0),
        (Waiting, "clear", 0),
        (Waiting, "clear", 1),
        (Waiting, "add", 0),
    ],
)
def test_fold_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, passing: int) -> None:
    """Wherever a fold fails, before it is on disk or after, every span is there once, and the next ones are folded."""
    monkeypatch.setattr(duck, "FOLD_ROWS", 1500)
    with Store.open(tmp_path / "s.duckdb") as store:
        for number in range(2):
            store.commit([moved(SOME, number)])
        with monkeypatch.context() as failing:
            fault = inject(failing, owner, name, Fault(getattr(owner, name), MEMORY, passing=passing))
            with pytest.raises(StoreError, match="too little memory"):
                store.tend()
        check_that_nothing_is_lost(store)

    assert fault.hit


@pytest.mark.parametrize("error", [INTERRUPTED, UNCERTAIN], ids=["Ctrl-C", "memory"])
def test_fold_ends_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """An error in the moment in which a fold is on disk doubles nothing."""

    @contextlib.contextmanager
    def interrupted(*_: object) -> Iterator[None]:
        yield
        raise error

    with Store.open(tmp_path / "s.duckdb") as store:
        for number in range(2):
            store.commit([moved(SOME, number)])
        with monkeypatch.context() as failing:
            failing.setattr(Tail, "replacing", interrupted)
            with pytest.raises(RuntimeError if error is INTERRUPTED else StoreError):
                store.tend(now=True)
        check_that_nothing_is_lost(store)


def check_that_nothing_is_lost(store: Store) -> None:
    """Of two commits, before and after a third one, folding, and opening the file again."""
    one_more = store.commit([moved(SOME, 2)]).stored
    before = store.info()["spans"]
    store.tend(now=True)
    after, checks = store.info()["spans"], verify(store)
    store.close()
    with Store.open(store.path) as opened:
        reopened = opened.info()["spans"]

    assert one_more == SOME.num_rows
    assert before == after == reopened == 3 * SOME.num_rows
    assert all(check.passed for check in checks), checks
