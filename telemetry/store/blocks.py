"""Keep copies of the blocks that a checkpoint may write over, and put torn ones back: a double write.

DuckDB writes what is new into free blocks, and then a header that refers to them: whenever the process is killed, the
old header or the new one holds. But it also writes metadata into the free parts of blocks that the old header refers
to, each whole, in place. A kill or a loss of power in the middle of that leaves a block whose checksum is wrong, and a
file that DuckDB refuses to open. (Seen once in 700 kills during checkpoints, on a busy machine.)

So before each checkpoint a file beside the store gets its blocks of metadata, with the header that they belong to. If
that is still the header when the store is opened, and a block is torn, its copy is put back. All that the header refers
to is the same in both.

Layout of a file of DuckDB 2.0, found by reading files: three headers of 4,096 bytes, of which the second and the third
take turns, then blocks. Each begins with the checksum of its rest.
"""

import fcntl
import hashlib
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

_HEADER_BYTES: Final = 4096
_HEADERS: Final = 3
_ITERATION: Final = struct.Struct("<8xQ")
_BLOCK_SIZE: Final = struct.Struct("<40xQ")
_NUMBER: Final = struct.Struct("<Q")
_FACTOR: Final = np.uint64(0xBF58476D1CE4E5B9)
_BASIS: Final = np.uint64(5381)

_log = logging.getLogger(__name__)


def beside(path: Path) -> Path:
    """Where the copies are, of a store."""
    return path.with_name(path.name + ".blocks")


class Copies:
    """The copies of a store that is open for writing. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: tuple[bytes, frozenset[int]] | None = None
        """The headers and the numbers of what was copied last."""

    def keep(self, file: BinaryIO, numbers: Iterable[int]) -> None:
        """Copy blocks to the file beside the store; they are durable on return.

        Does nothing where they were copied, and no checkpoint has ended since.

        Args:
            file: the store's, open for reading.
            numbers: which blocks; those that are not written yet are left out.

        Raises:
            OSError: the disk is full, say.
        """
        wanted = (_headers(file), frozenset(numbers))
        if wanted == self._kept:
            return
        self._kept = None
        self._write([*_copied(file, *wanted)])
        self._kept = wanted

    def _write(self, parts: list[bytes]) -> None:
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        is_new = not beside(self._path).exists()
        # Written over, as what a checkpoint makes free and takes again costs the disk more.
        with open(os.open(beside(self._path), os.O_WRONLY | os.O_CREAT, 0o666), "wb") as copies:
            copies.writelines([digest.digest(), *parts])
            copies.truncate()
            copies.flush()
            os.fdatasync(copies.fileno())
        if is_new:
            flush(self._path.parent)

    def discard(self) -> None:
        """Remove them when the store was closed in good order."""
        put_back(self._path)
        beside(self._path).unlink(missing_ok=True)
        self._kept = None


def _copied(file: BinaryIO, headers: bytes, numbers: Iterable[int]) -> Iterator[bytes]:
    yield headers
    for number in sorted(numbers):
        block = _block(file, headers, number)
        if not _is_torn(block):
            yield _NUMBER.pack(number)
            yield block


def put_back(path: Path) -> int:
    """Mend a store that nobody has open.

    Returns:
        How many blocks were torn.
    """
    try:
        copies = beside(path).read_bytes()
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as DuckDB does
            torn = [*_torn(file, copies)]
            for offset, block in torn:
                os.pwrite(file.fileno(), block, offset)
            os.fsync(file.fileno())
    except OSError:  # there are no copies, or somebody has the store open, or may write it and we may not
        return 0
    if torn:
        _log.warning("%s was left with %d torn blocks; they are whole again", path, len(torn))
    return len(torn)


def _torn(file: BinaryIO, copies: bytes) -> Iterator[tuple[int, bytes]]:
    """Where a copy belongs whose block is torn, and the copy."""
    headers = _headers(file)
    digest, rest = copies[:32], copies[32:]
    if hashlib.sha256(rest).digest() != digest or not rest.startswith(headers):
        return  # they were torn themselves, so that the checkpoint did not begin; or it ended
    size = _block_bytes(headers)
    for at in range(len(headers), len(rest), _NUMBER.size + size):
        [number] = _NUMBER.unpack_from(rest, at)
        if _is_torn(_block(file, headers, number)):
            begin = at + _NUMBER.size
            yield _HEADERS * _HEADER_BYTES + number * size, rest[begin : begin + size]


def _headers(file: BinaryIO) -> bytes:
    """The first header, which no other file has, and the one of the other two that holds."""
    first, *others = (os.pread(file.fileno(), _HEADER_BYTES, n * _HEADER_BYTES) for n in range(_HEADERS))
    return first + max(others, key=lambda header: (not _is_torn(header), *_ITERATION.unpack_from(header)))


def _block_bytes(headers: bytes) -> int:
    size: int = _BLOCK_SIZE.unpack_from(headers, _HEADER_BYTES)[0]
    return size


def _block(file: BinaryIO, headers: bytes, number: int) -> bytes:
    size = _block_bytes(headers)
    return os.pread(file.fileno(), size, _HEADERS * _HEADER_BYTES + number * size)


def _is_torn(block: bytes) -> bool:
    """Whether it is not what its checksum says, or not there."""
    words = np.frombuffer(block[: len(block) // 8 * 8], "<u8")
    if not words.size:
        return True
    return bool((np.bitwise_xor.reduce(words[1:] * _FACTOR) ^ _BASIS) != words[0])


def flush(path: Path) -> None:
    """Make a file durable, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
