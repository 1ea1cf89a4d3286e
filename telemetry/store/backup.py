"""Copy a store into a new file while it is being written and read."""

import contextlib
import os
from pathlib import Path
from typing import Final

from telemetry.errors import StoreError
from telemetry.store.duck import Frozen, Store

_PIECE_BYTES: Final = 8 * 1024 * 1024


def backup(store: Store, target: str | os.PathLike[str]) -> Path:
    """Write all that is committed to `target`, a complete store; commits and queries go on meanwhile.

    The file is copied as it is, with the room in it that is free, at the speed of the disk.
    The copy is made beside `target`, opened, and moved at the end: so `target` is a whole backup or is not there.

    Raises:
        StoreError: `target` exists, its disk is full, or queries that run on and on prevent it.
    """
    target = Path(target).expanduser().resolve()
    if target.exists():
        raise StoreError(f"{target} exists; choose another path, or remove it")
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.frozen() as frozen:
            _copy(frozen, partial)
        _check(partial, frozen.spans, store.memory_limit_bytes)
        partial.rename(target)
        _flush(target.parent)
    except OSError as error:
        raise StoreError(f"cannot write the backup {target}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return target


def _copy(frozen: Frozen, target: Path) -> None:
    with target.open("wb") as copy:
        for start in range(0, frozen.size_bytes, _PIECE_BYTES):
            if frozen.stopping.is_set():
                raise StoreError("the backup was given up, as the store is closing")
            copy.write(os.pread(frozen.descriptor, min(_PIECE_BYTES, frozen.size_bytes - start), start))
        copy.flush()
        os.fsync(copy.fileno())


def _check(copy: Path, expected: int, memory_limit_bytes: int) -> None:
    with Store.open(copy, read_only=True, memory_limit_bytes=memory_limit_bytes) as opened:
        found = opened.query("select count(*) as n from stored.spans")["n"][0].as_py()
    if found != expected:
        raise StoreError(f"the backup has {found} spans and not {expected}")


def _flush(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
