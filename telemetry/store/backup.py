"""Copy a store into a new file while it is being written and read."""

import contextlib
import os
import shutil
from pathlib import Path

import duckdb

from telemetry.errors import StoreError
from telemetry.store import opening, relations
from telemetry.store.duck import Store


def backup(store: Store, target: str | os.PathLike[str]) -> Path:
    """Write all that is committed to `target`, a complete store; commits and queries go on meanwhile.

    The copy is made beside the store (the store's statements may write nowhere else), checked, and moved at the end: so
    `target` is a whole backup or is not there.

    Raises:
        StoreError: `target` exists, its disk is full, or the copy is not what was copied.
    """
    target = Path(target).expanduser().resolve()
    if target.exists():
        raise StoreError(f"{target} exists; choose another path, or remove it")
    folder = opening.scratch(store.path)
    copy = folder / "copy.duckdb"
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(folder, ignore_errors=True)  # what a killed backup left
    try:
        folder.mkdir()
        Store.open(copy, memory_limit_bytes=store.memory_limit_bytes).close()
        _fill(store, copy)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(copy, partial)
        _flush(partial)
        partial.rename(target)
        _flush(target.parent)
    except OSError as error:
        raise StoreError(f"cannot write the backup {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return target


def _fill(store: Store, copy: Path) -> None:
    """Copy what every table holds once all that waits is folded."""
    with store.maintained() as connection:
        connection.execute(f"attach '{str(copy).replace(chr(39), chr(39) * 2)}' as copy")
        try:
            store.fold(connection)
            with store.transaction(connection):
                for name in ("spans", "ids", "ids_recent", *(relation.name for relation in relations.MERGED)):
                    connection.execute(f"insert into copy.stored.{name} by name from stored.{name}")
                expected = connection.execute("select count(*) from stored.spans").fetchall()
                found = connection.execute("select count(*) from copy.stored.spans").fetchall()
            if found != expected:
                raise StoreError(f"the backup has {found[0][0]} spans and not {expected[0][0]}")
        finally:
            with contextlib.suppress(duckdb.Error):
                connection.execute("detach copy")


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
