"""A body as it arrives, for both transports: decompressed piece by piece, counted, and never over the limit."""

import asyncio
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.receiver.room import Limits

_INFLATE_STEP: Final = 1024 * 1024
"""Bytes that are made before others get their turn: about 3 ms."""
_READ_STEP: Final = 64 * 1024
"""Bytes that are read before: gzip may make nothing of them, and takes as long."""
_MAX_GZIP_MEMBERS: Final = 100
"""gzip allows concatenation; each member costs a decompressor, and twenty bytes make one."""


class Body:
    """Puts a body together."""

    def __init__(self, limits: Limits, take: Callable[[int], None], *, gzip: bool) -> None:
        """
        Args:
            take: takes room for so many bytes.
        """
        self._limits = limits
        self._take = take
        self._inflate = Inflate(limits) if gzip else None
        self._received = 0
        self._pieces: list[bytes] = []

    async def add(self, chunk: bytes) -> None:
        """Take what arrived.

        Raises:
            PayloadTooLarge: the body is larger than the limit, as sent or decompressed.
            Overloaded: there is no room for it now.
            DecodeError: it is not the gzip that it says it is.
        """
        self._received += len(chunk)
        if self._received > self._limits.max_body_bytes:
            raise too_large(self._received, self._limits)
        for piece in self._inflate.feed(chunk) if self._inflate else (chunk,):
            if piece:
                self._take(len(piece))
                self._pieces.append(piece)
            if self._inflate:
                await asyncio.sleep(0)

    def whole(self) -> bytes:
        """All of it, decompressed.

        Raises:
            DecodeError: it is gzip that ends in the middle.
        """
        if self._inflate and self._received:
            self._inflate.finish()
        return b"".join(self._pieces)


class Inflate:
    """Decompresses gzip piece by piece, and stops at the limit: a bomb never unfolds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._size = 0
        self._members = 1
        self._member = zlib.decompressobj(wbits=31)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The pieces that a chunk unfolds into, each at most `_INFLATE_STEP` long, some empty; none takes long."""
        for at in range(0, len(chunk), _READ_STEP):  # zlib copies what is left of a chunk with each piece
            yield from self._feed(chunk[at : at + _READ_STEP])

    def _feed(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._member.eof:
                self._members += 1
                if self._members > _MAX_GZIP_MEMBERS:
                    raise DecodeError(f"the body has more than {_MAX_GZIP_MEMBERS} gzip members")
                self._member = zlib.decompressobj(wbits=31)
            try:
                piece = self._member.decompress(chunk, _INFLATE_STEP)
            except zlib.error as error:
                raise DecodeError(f"the body says it is gzip, but cannot be decompressed: {error}") from error
            chunk = self._member.unused_data or self._member.unconsumed_tail
            self._size += len(piece)
            if self._size > self._limits.max_body_bytes:
                raise too_large(self._size, self._limits, " when decompressed")
            yield piece

    def finish(self) -> None:
        """Raise DecodeError unless the end was reached."""
        if not self._member.eof:
            raise DecodeError("the body says it is gzip, but ends in the middle")


def too_large(size_bytes: int, limits: Limits, when: str = "") -> PayloadTooLarge:
    """The refusal of a body."""
    return PayloadTooLarge(
        f"the body is larger than {limits.max_body_bytes} bytes{when}; send smaller batches",
        size_bytes=size_bytes,
        limit_bytes=limits.max_body_bytes,
    )
