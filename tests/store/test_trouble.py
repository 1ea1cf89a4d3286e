"""A full or failing disk, or a clock that jumps, loses nothing acknowledged, and is forgotten when it is over."""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import duckdb
import grpc
import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2

from telemetry.errors import Overloaded, StoreError
from telemetry.store import duck, journal, readers
from telemetry.store import writer as writer_module
from telemetry.store.backup import backup
from telemetry.store.checks import verify
from telemetry.store.duck import Committed, Store
from telemetry.store.journal import Waiting
from telemetry.store.ledger import Ledger
from telemetry.store.recent import Recent
from telemetry.store.retention import Retention
from telemetry.store.tail import Tail
from telemetry.store.writer import Writer
from tests.receiver.test_grpc import EXPORT
from tests.support import traffic
from tests.support.otlp import Request, to_json
from tests.support.spans import attempt, moved, table
from tests.test_serve import serve_process

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


def test_full_disk_through_the_doors(small_disk: Path) -> None:
    """A server whose disk is full asks senders to come again, and answers its pages; with room all is taken, once."""
    path, bodies = small_disk / "s.duckdb", [traffic.foreign(20, first) for first in range(0, 120, 20)]

    with serve_process(path) as (process, notice):
        ways = [
            functools.partial(over_http, notice, "x-protobuf"),
            functools.partial(over_http, notice, "json"),
            functools.partial(over_grpc, notice),
        ]
        before = [send(body) for send, body in zip(ways, bodies[:3], strict=True)]
        ballast = fill(small_disk)
        refused = [send(body) for send, body in zip(ways * 2, bodies[3:] * 2, strict=True)]
        pages = [
            httpx.get(f"{notice['url']}{page}", trust_env=False, timeout=30).status_code
            for page in ("/", "/api/reports/ingest_health?since=2026-01-01", "/api/store", "/metrics")
        ]
        ballast.unlink()
        again = [send(body) for send, body in zip(ways, bodies[3:], strict=True)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    with Store.open(path) as store:
        [found] = store.query("select count(*) as n, count(distinct span_id) as ids from spans").to_pylist()
        checks = verify(store)

    assert before == again == [None] * 3
    for how, status, retry_s in filter(None, refused):
        assert (how, status.code, 0 < retry_s < 10) == (how, code_pb2.UNAVAILABLE, True)
        assert "full" in status.message
    assert [how for how, _, _ in filter(None, refused)] == ["503 x-protobuf", "503 json", "UNAVAILABLE"] * 2
    assert pages == [200] * 4
    assert found == {"n": 120, "ids": 120}
    assert all(check.passed for check in checks), checks


Refused = tuple[str, status_pb2.Status, int]
"""The transport's own code, the status, and after how many seconds to come again."""


def over_http(notice: dict[str, str], encoding: str, body: Request) -> Refused | None:
    """Send once."""
    is_json = encoding == "json"
    answer = httpx.post(
        f"{notice['otlp_http']}/v1/traces",
        content=to_json(body) if is_json else body.SerializeToString(),
        headers={"content-type": f"application/{encoding}"},
        trust_env=False,
        timeout=30,
    )
    if answer.status_code == 200:
        return None
    parse = json_format.Parse if is_json else lambda text, status: status.FromString(text)
    said = f"{answer.status_code} {answer.headers['content-type'].removeprefix('application/')}"
    return said, parse(answer.content, status_pb2.Status()), int(answer.headers["retry-after"])


def over_grpc(notice: dict[str, str], body: Request) -> Refused | None:
    """Send once."""
    with grpc.insecure_channel(notice["otlp_grpc"].removeprefix("http://")) as channel:
        try:
            channel.unary_unary(EXPORT)(body.SerializeToString(), timeout=30)
        except grpc.RpcError as error:
            told = dict(error.trailing_metadata())
            retry = error_details_pb2.RetryInfo.FromString(told["google.rpc.retryinfo-bin"])
            status = status_pb2.Status.FromString(told["grpc-status-details-bin"])
            assert status.details[0].Unpack(error_details_pb2.RetryInfo())
            return error.code().name, status, retry.retry_delay.seconds
    return None


def test_full_disk_of_a_backup(small_disk: Path, tmp_path: Path) -> None:
    """A backup that finds no room leaves neither itself nor a part of it."""
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([moved(SOME, number) for number in range(5)])
        fill(small_disk)
        with pytest.raises(StoreError, match="cannot write the backup"):
            backup(store, small_disk / "copy.duckdb")

    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_read_only_disk(small_disk: Path) -> None:
    """A store on a read-only disk can be read, says why it cannot be written, and can be when the disk can."""
    with Store.open(small_disk / "s.duckdb") as store:
        store.commit([SOME])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open(small_disk / "s.duckdb")
    with Store.open(small_disk / "s.duckdb", read_only=True) as store:
        assert store.info()["connections"] == 100
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with Store.open(small_disk / "s.duckdb") as store:
        committed = store.commit([SOME, moved(SOME, 1)])
        store.tend(now=True)

        assert (committed.duplicates, committed.stored) == (SOME.num_rows, SOME.num_rows)
        assert store.info()["connections"] == 200
        assert all(check.passed for check in verify(store))


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


@pytest.mark.parametrize("fails", [False, True])
def test_queries_wait_while_opened_again(tmp_path: Path, fails: bool) -> None:
    """A query that comes while the file is opened again is answered afterwards; where that fails, it is refused."""

    class Held(Store):
        begun, go_on = threading.Event(), threading.Event()

        def _connect(self) -> None:
            if self._broken:
                self.begun.set()
                self.go_on.wait()
                if fails:
                    raise StoreError("no room")
            super()._connect()

    with Held.open(tmp_path / "s.duckdb") as store, ThreadPoolExecutor(2) as threads:
        store.commit([SOME])
        store._broken = MemoryError()
        committing = threads.submit(store.commit, [moved(SOME, 1)])
        store.begun.wait()
        asking = threads.submit(store.query, "select count(*) as n from connections")
        wait([asking], 0.2)  # in which it would be refused
        store.go_on.set()
        refused = committing.exception() is not None
        if fails:
            with pytest.raises(StoreError, match="is closed"):
                asking.result()
        else:
            assert asking.result().to_pylist()[0]["n"] in (100, 200)

    assert refused == fails


def test_queries_end_before_it_is_opened_again(tmp_path: Path) -> None:
    """A request that asks while the file must be opened again has all its answers first."""
    with Store.open(tmp_path / "s.duckdb") as store, ThreadPoolExecutor(1) as threads:
        store.commit([SOME])
        with store.reader() as reader:
            reader.query("from connections")
            store._broken = MemoryError()
            committing = threads.submit(store.commit, [moved(SOME, 1)])
            wait([committing], 0.2)  # in which the request would be cancelled
            answer = reader.query("select count(*) as n from connections").to_pylist()
        committed = committing.result()

    assert answer == [{"n": 100}]
    assert committed.stored == SOME.num_rows


def test_no_checkpoint_where_memory_may_be_wrong(tmp_path: Path) -> None:
    """A file that must be opened again stays as it is, and its log says what came since: of a commit that fails for
    want of memory, DuckDB may leave a part in what a checkpoint would write. Closed otherwise, it needs no log."""
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([SOME])
        store.fold()
        before = store.path.read_bytes()
        store._broken = MemoryError()
        store.commit([moved(SOME, 1)])
        assert store._openings == 2
        assert store.path.read_bytes() == before
        assert store.wal_bytes > 0
    assert store.wal_bytes == 0


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
                store.commit_each([duck.Request(SOME, "grpc", "a" * 32)], refused)
        known_too_early = store.taken("a" * 32)
        [again] = store.commit_each([duck.Request(SOME, "grpc", "a" * 32)], refused)
        store.tend(now=True)
        found, checks = store.info()["spans"], verify(store)
        told = store.query("select sum(rejected)::bigint as n from ingest where reason = 'bad trace id'").to_pylist()
    with Store.open(tmp_path / "s.duckdb") as store:
        reopened, known = store.info()["spans"], store.taken("a" * 32)

    assert fault.hit
    assert (known_too_early, known) == (None, SOME.num_rows)
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


@contextlib.contextmanager
def asked(store: Store) -> Iterator[None]:
    """A query that runs in the block, until it is ended."""
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(store.query, "select count(*) from range(100000000) a, range(100000000) b")
        while not any(reader.hungry for reader in [*store._readers._reading]):
            time.sleep(0.01)
        try:
            yield
        finally:
            store._readers.stop()
            with contextlib.suppress(StoreError):
                asking.result()


@pytest.mark.parametrize("after", [False, True])
def test_commit_ends_in_doubt_beside_a_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Where a query left too little memory for the end of a commit, the file is opened again and the spans are stored,
    once: their sender hears nothing of it."""
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([moved(SOME, 0)])
        with asked(store), monkeypatch.context() as failing:
            fault = inject(failing, duck, "execute", Fault(duck.execute, UNCERTAIN, after=after))
            committed = store.commit([moved(SOME, 1)])
        check_that_nothing_is_lost(store)

    assert fault.hit
    assert committed == Committed(*((0, SOME.num_rows) if after else (SOME.num_rows, 0)))


LEFT_OVER = duckdb.TransactionException('Catalog write-write conflict on alter with "journal_b"')
"""Of a table that was dropped where memory ended, as every later fold would meet it."""


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [(Waiting, "clear", UNCERTAIN), (duck, "execute", LEFT_OVER)],
    ids=["in doubt", "left over"],
)
def test_fold_fails_beside_a_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception
) -> None:
    """Where a query left too little memory for a fold, the file is opened again, and it is done at once."""
    with Store.open(tmp_path / "s.duckdb") as store:
        for number in range(2):
            store.commit([moved(SOME, number)])
        opened = store._openings
        with asked(store), monkeypatch.context() as failing:
            fault = inject(failing, owner, name, Fault(getattr(owner, name), error))
            store.fold()
        assert (store.trouble, store._tail.rows, store._openings) == (None, 0, opened + 1)
        check_that_nothing_is_lost(store)

    assert fault.hit


def test_fold_cannot_be_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that nothing ends, for want of memory, is in the way of no later fold."""
    short = duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate data")
    with Store.open(tmp_path / "s.duckdb") as store:
        for number in range(2):
            store.commit([moved(SOME, number)])
        with asked(store), monkeypatch.context() as failing:
            fault = inject(failing, duck, "execute", Fault(duck.execute, short, passing=2))
            failing.setattr(duck, "roll_back", lambda _: None if store._openings > 1 else short)
            store.fold()
        assert (store.trouble, store._tail.rows, store._openings) == (None, 0, 2)
        check_that_nothing_is_lost(store)

    assert fault.hit


def test_query_cannot_be_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of a query that could not be ended, for want of memory, is in the way of no later query."""
    with Store.open(tmp_path / "s.duckdb") as store:
        for again in (False, True):
            with monkeypatch.context() as failing, store.reader() as reader:
                failing.setattr(readers, "roll_back", lambda _: MemoryError())
                with pytest.raises(StoreError, match="nowhere"):
                    reader.query("from nowhere")
                if again:
                    assert reader.query("select 1 as one").to_pylist() == [{"one": 1}]
            assert store.query("select 1 as one").to_pylist() == [{"one": 1}]


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
