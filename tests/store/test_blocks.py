"""A block that a kill tore in the middle of a checkpoint is put back when the store is opened."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.errors import StoreError, StoreLocked
from telemetry.store import blocks
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.copies import copied
from tests.support.spans import attempt, moved, table

SOME = table(*(attempt(n) for n in range(1, 51)))


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """A store whose process was killed while a checkpoint wrote a block over: half of it is old, half is new."""
    path, before, left = (tmp_path / f"{name}.duckdb" for name in ("s", "before", "left"))
    with Store.open(path) as store:
        for number in range(3):
            store.commit([moved(SOME, number)])
            store.tend(now=True)
        store.commit([moved(SOME, 3)])
        copied(path, before)
        store.tend(now=True)
        shutil.copyfile(blocks.beside(path), blocks.beside(left))
        old, new = before.read_bytes(), path.read_bytes()
        size, half = 262_144, 131_072
        for start in range(3 * 4096, len(old), size):
            if old[start : start + size] != new[start : start + size]:
                old = old[:start] + new[start : start + half] + old[start + half :]
    left.write_bytes(old)
    shutil.copyfile(f"{before}.wal", f"{left}.wal")
    return left


def test_torn_block(torn: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without its copy the file cannot be opened; with it, everything acknowledged is there."""
    alone = copied(torn, torn.with_name("alone.duckdb"))
    with pytest.raises(StoreError, match="checksum"):
        Store.open(alone)
    with Store.open(torn) as store:
        found, checks = store.info()["spans"], verify(store)

    assert found == 4 * SOME.num_rows
    assert all(check.passed for check in checks), checks
    assert "whole again" in caplog.text
    assert not blocks.beside(torn).exists()


def test_torn_block_of_a_store_that_is_only_read(torn: Path) -> None:
    """A report on what a kill left mends it, too."""
    with Store.open(torn, read_only=True) as store:
        assert store.info()["spans"] == 4 * SOME.num_rows


def test_whole_store_is_left_alone(torn: Path) -> None:
    """Copies of another store, of an earlier state, or that are torn themselves change nothing."""
    path = torn.with_name("s.duckdb")
    with Store.open(path) as store:
        store.commit([moved(SOME, 9)])
    other = path.read_bytes()
    shutil.copyfile(blocks.beside(torn), blocks.beside(path))
    assert blocks.put_back(path) == 0
    assert path.read_bytes() == other

    copies = blocks.beside(torn).read_bytes()
    blocks.beside(torn).write_bytes(copies[:-1])
    assert blocks.put_back(torn) == 0
    blocks.beside(torn).write_bytes(copies)
    assert blocks.put_back(torn) > 0
    assert blocks.put_back(torn) == 0


@pytest.mark.real
def test_store_of_another_process_is_left_alone(torn: Path) -> None:
    """Nobody writes to a file that somebody has open."""
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    before = torn.read_bytes()
    command = [sys.executable, "-c", code, str(torn)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreLocked):
            Store.open(torn)
        assert other.stdin is not None
        other.stdin.close()

    assert torn.read_bytes() == before


def test_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that is tried again and again copies nothing again, until one has ended."""
    written: list[int] = []
    write = blocks.Copies._write
    monkeypatch.setattr(blocks.Copies, "_write", lambda self, parts: written.append(len(parts)) or write(self, parts))
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([SOME])
        store.tend(now=True)
        tried = len(written)
        with store.maintained() as connection:
            for _ in range(3):
                store._keep_blocks(connection)
        again = len(written) - tried
        store.commit([moved(SOME, 1)])
        store.tend(now=True)
        with store.maintained() as connection:
            store._keep_blocks(connection)

        assert again == 1
        assert len(written) == tried + 2


def test_closing_leaves_no_copies(tmp_path: Path) -> None:
    """A store that was closed is one file again."""
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([SOME])
        store.tend(now=True)
        assert blocks.beside(store.path).exists()

    assert [file.name for file in tmp_path.iterdir()] == ["s.duckdb"]
