"""Read a store's file while nothing changes it: what `Store.frozen` gives."""

import os
import threading
from collections.abc import Iterator
from typing import Final

from telemetry.errors import StoreError

_PIECE_BYTES: Final = 8 * 1024 * 1024


class Frozen:
    """A file that no checkpoint changes until its reader is done, or is told to give up."""

    def __init__(self, descriptor: int, size_bytes: int, spans: int) -> None:
        """
        Args:
            descriptor: of the store, which keeps it: closing any handle of a file lets go of DuckDB's lock on it.
            spans: how many are in the file.
        """
        self.spans = spans
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._reading = threading.Lock()
        self._why: str | None = None

    def pieces(self) -> Iterator[bytes]:
        """The whole file.

        Raises:
            StoreError: the reader was told to give up.
        """
        at = 0
        while at < self._size_bytes:
            piece = self._read(min(_PIECE_BYTES, self._size_bytes - at), at)
            at += len(piece)
            yield piece

    def give_up(self, why: str) -> None:
        """Let nothing be read any more. Waits for a piece that is being read, but not for its reader."""
        with self._reading:
            self._why = self._why or why

    def _read(self, length: int, at: int) -> bytes:
        with self._reading:
            if self._why:
                raise StoreError(f"the copy was given up, as {self._why}")
            piece = os.pread(self._descriptor, length, at)
        if not piece:
            raise StoreError("the file became shorter while it was copied")
        return piece
