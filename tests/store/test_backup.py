"""A backup is a whole store, as it was at one moment, or is not there."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from telemetry.errors import StoreError
from telemetry.store import duck, frozen, turnstile
from telemetry.store.backup import backup
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from telemetry.store.frozen import Frozen
from telemetry.store.retention import DAY_NS, Retention, prune
from tests.support.spans import T0, attempt, foreign, table

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


def in_the_middle(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act once while a backup copies the file, after its first piece."""
    read = Frozen._read

    def after_acting(self: Frozen, length: int, at: int) -> bytes:
        if at == frozen._PIECE_BYTES:
            act()
        return read(self, length, at)

    monkeypatch.setattr(frozen, "_PIECE_BYTES", 64 * 1024)
    monkeypatch.setattr(Frozen, "_read", after_acting)


def test_all_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile spans are committed, folded and forgotten; the backup is what was there before, and sound."""
    some = [table(*(attempt(n) for n in range(start, start + 50))) for start in (1, 51)]
    during: list[object] = []
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit(some[:1])

        def act() -> None:
            store.commit(some[1:])
            store.tend(now=True)
            during.extend([store.info()["waiting_spans"], store.compact(), store.wal_bytes > 0])
            during.append(prune(store, Retention(days=1), now_ns=T0 + 3 * DAY_NS).attempts)

        in_the_middle(monkeypatch, act)
        made = backup(store, tmp_path / "copy.duckdb")
        owed = store.room_owed
        store.tend(now=True)
        left, log_bytes = store.info()["spans"], store.wal_bytes
    with Store.open(made) as copy:
        found, checks = copy.info()["spans"], verify(copy)

    assert during == [0, False, True, 100]
    assert owed
    assert (left, log_bytes) == (0, 0)
    assert found == some[0].num_rows
    assert all(check.passed for check in checks), checks


def test_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for the other, and both are whole; to the same place only one is made."""
    with Store.open(tmp_path / "s.duckdb") as store, ThreadPoolExecutor() as threads:
        store.commit([table(*(attempt(n) for n in range(1, 50)))])
        others: list[Future[Path]] = []

        def act() -> None:
            if not others:
                others.extend(threads.submit(backup, store, tmp_path / name) for name in ("b.duckdb", "a.duckdb"))
                wait(others, return_when=FIRST_COMPLETED)

        in_the_middle(monkeypatch, act)
        made = backup(store, tmp_path / "a.duckdb")
        for path in (made, others[0].result()):
            with Store.open(path) as copy:
                assert all(check.passed for check in verify(copy))
        with pytest.raises(StoreError, match=r"another backup to .*a\.duckdb is under way"):
            others[1].result()


def test_taken_over(tmp_path: Path) -> None:
    """What a killed backup left is no hindrance; a log of another file at the target is."""
    target = tmp_path / "copy.duckdb"
    with Store.open(tmp_path / "s.duckdb") as store:
        target.with_name("copy.duckdb.partial").write_bytes(b"x" * 5_000_000)
        backup(store, target)
        target.rename(tmp_path / "elsewhere.duckdb")
        target.with_name("copy.duckdb.wal").touch()
        with pytest.raises(StoreError, match=r"copy\.duckdb\.wal exists"):
            backup(store, target)
    with Store.open(tmp_path / "elsewhere.duckdb") as copy:
        assert copy.info()["spans"] == 0


def test_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy with a damaged block is no backup."""
    pread = os.pread
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([table(*(attempt(n, attributes={"text": "x" * 1000 + str(n)}) for n in range(1, 400)))])
        size = backup(store, tmp_path / "sound.duckdb").stat().st_size
        middle = size // 2

        def flipped(descriptor: int, length: int, offset: int) -> bytes:
            piece = bytearray(pread(descriptor, length, offset))
            if len(piece) > middle:
                piece[middle] ^= 0xFF
            return bytes(piece)

        monkeypatch.setattr(os, "pread", flipped)
        with pytest.raises(StoreError):
            backup(store, tmp_path / "copy.duckdb")

    assert not (tmp_path / "copy.duckdb").exists()


def test_fails_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens while the file is about to be frozen: afterwards it is not."""
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([table(attempt(1))])
        with monkeypatch.context() as scarce:
            scarce.setattr(duck, "Frozen", lambda *_: (_ for _ in ()).throw(MemoryError()))
            with pytest.raises(StoreError, match="too little memory"):
                backup(store, tmp_path / "copy.duckdb")
        store.tend(now=True)
        assert store.wal_bytes == 0
        assert backup(store, tmp_path / "copy.duckdb").exists()


def test_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that takes too long for the log is given up, and the log is emptied."""
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([table(*(attempt(n) for n in range(1, 50)))])

        def act() -> None:
            store.commit([table(attempt(50))])
            monkeypatch.setattr(duck, "MOST_FROZEN_WAL_BYTES", 1)
            store.tend(now=True)

        in_the_middle(monkeypatch, act)
        with pytest.raises(StoreError, match="given up, as the log of the store grew too long"):
            backup(store, tmp_path / "copy.duckdb")
        assert store.wal_bytes == 0


def test_still_locked(tmp_path: Path) -> None:
    """Copying the file does not open it to other processes."""
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        backup(store, tmp_path / "copy.duckdb")
        other = [sys.executable, "-c", f"import duckdb; duckdb.connect({str(path)!r})"]
        opened = subprocess.run(other, capture_output=True, text=True)

    assert "Could not set lock" in opened.stderr


def test_closed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that closes does not wait for a long backup, which is given up and leaves nothing."""
    store = Store.open(tmp_path / "s.duckdb")
    store.commit([table(*(attempt(n) for n in range(1, 50)))])
    closing = threading.Thread(target=store.close)

    def act() -> None:
        closing.start()
        closing.join()  # which waits for nothing that is copied, nor for its disk

    in_the_middle(monkeypatch, act)
    with pytest.raises(StoreError, match="given up, as the store is closing"):
        backup(store, tmp_path / "copy.duckdb")

    assert [path.name for path in tmp_path.iterdir()] == ["s.duckdb"]


def test_queries_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that goes on for longer than anyone waits prevents it, and the error says so; afterwards it is made."""
    monkeypatch.setattr(turnstile, "PATIENCE_S", 0.0)
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([table(*(attempt(n) for n in range(1, 50)))])
        with (
            store.reader() as reader,
            reader.batches("select name from spans", rows=10),
            pytest.raises(StoreError, match="cannot be copied: queries run on and on"),
        ):
            backup(store, tmp_path / "copy.duckdb")
        assert backup(store, tmp_path / "copy.duckdb").exists()
