"""Copy a store into a new file while it is being written and read."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from telemetry.errors import StoreError
from telemetry.store import opening, relations
from telemetry.store.blocks import flush
from telemetry.store.duck import Store

_CHECKING_BYTES: Final = 512 * 1024 * 1024
"""Of memory, while a copy is read beside the store that it is of."""


def backup(store: Store, target: str | os.PathLike[str]) -> Path:
    """Write all that is committed to `target`, a complete store; commits and queries go on meanwhile.

    The file is copied as it is, with the room in it that is free, at the speed of the disk.
    The copy is made beside `target`, read once, and moved at the end: so `target` is a whole backup or is not there.

    Raises:
        StoreError: `target` exists, its disk is full, a block of the store is damaged, or queries that run on and on
            prevent it.
    """
    target = Path(target).expanduser().resolve()
    _refuse_if_taken(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part(target) as (partial, file):
            with store.frozen() as frozen:
                for piece in frozen.pieces():
                    file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())  # or a commit's own would wait for hundreds of megabytes at the end
            _check(partial, frozen.spans)
            partial.rename(target)
        flush(target.parent)
    except OSError as error:
        raise StoreError(f"cannot write the backup {target}: {error.strerror}") from error
    return target


@contextlib.contextmanager
def _part(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside `target` for nobody else; what a killed backup left of it is taken over."""
    partial = target.with_name(target.name + ".partial")
    with partial.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another backup to {target} is under way") from None
        if not _names(partial, file):
            raise StoreError(f"another backup to {target} ended just now")
        try:
            _refuse_if_taken(target)
            file.truncate(0)
            yield partial, file
        finally:
            with contextlib.suppress(OSError):
                if _names(partial, file):
                    partial.unlink()


def _refuse_if_taken(target: Path) -> None:
    for taken in (target, *opening.logs(target)):
        if taken.exists():
            raise StoreError(f"{taken} exists; choose another path, or remove it")


def _names(path: Path, file: BinaryIO) -> bool:
    """Whether a path is still this file's."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _check(copy: Path, expected: int) -> None:
    """Read all of it, by which DuckDB compares each block with its checksum."""
    with Store.open(copy, read_only=True, memory_limit_bytes=_CHECKING_BYTES) as opened:
        for name in (*relations.TABLES, "spans"):
            opened.query(f"select count(columns(*)) from stored.{name}")
        found = opened.query("select count(*) as n from stored.spans")["n"][0].as_py()
    if found != expected:
        raise StoreError(f"the backup has {found} spans and not {expected}")
