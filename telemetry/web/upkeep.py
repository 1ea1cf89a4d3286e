"""What a server does with its store for the command line: compare it with its definitions, and copy it.

Only the process that owns the file can. One such request runs at a time; the others wait.
"""

import asyncio
import glob
import logging
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from telemetry.errors import StoreError
from telemetry.store.backup import backup
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from telemetry.threads import ended

_CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Each is a turn of a busy event loop: with Starlette's 64 KiB, 400 MB took more than a minute."""

_STALLED_S: Final = 300.0
"""Who takes not even a chunk of a copy in this time has gone, and the room on the disk is needed."""

_COPY_SHARE: Final = 1.5
"""Of the store's size: the copy, and what the log grows by meanwhile. That is a quarter of it at full speed, as a copy
of 10 million spans takes 8 s, and 34,000 spans/s arrive."""

_log = logging.getLogger(__name__)


class _Copy(FileResponse):
    """A copy of the store, which goes when it is sent, or cannot be."""

    chunk_size = _CHUNK_BYTES

    def __init__(self, path: Path, folder: tempfile.TemporaryDirectory[str]) -> None:
        super().__init__(path, media_type="application/octet-stream")
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            async with asyncio.timeout(_STALLED_S):
                await send(message)

        try:
            await super().__call__(scope, receive, send_on)
        except TimeoutError:  # the connection of an answer without its end is closed, once what was written is taken
            _log.warning("a copy of the store was given up: who asked for it took next to nothing for %g s", _STALLED_S)
        finally:
            await _removed(self._folder)


async def _removed(folder: tempfile.TemporaryDirectory[str]) -> None:
    """Remove a copy on a thread: a large one takes seconds."""
    await ended(asyncio.get_running_loop().run_in_executor(None, folder.cleanup))


def routes(store: Store) -> list[Route]:
    """The paths below `/api/store/`."""
    turn = asyncio.Lock()
    prefix = f".{store.path.name}.backup-"
    for left in store.path.parent.glob(f"{glob.escape(prefix)}*"):  # by a server that was killed: the store is ours now
        shutil.rmtree(left, ignore_errors=True)

    async def checks(request: Request) -> Response:
        async with turn:
            found = await asyncio.to_thread(verify, store)
        return JSONResponse([asdict(check) for check in found])

    async def copy(request: Request) -> Response:
        folder = tempfile.TemporaryDirectory(prefix=prefix, dir=store.path.parent)
        try:
            async with turn:
                _check_room(store)
                target = Path(folder.name) / store.path.name
                making = asyncio.get_running_loop().run_in_executor(None, backup, store, target)
                await ended(making)
            made = making.result()
        except BaseException:
            await _removed(folder)
            raise
        return _Copy(made, folder)

    return [Route("/api/store/verify", checks), Route("/api/store/backup", copy)]


def _check_room(store: Store) -> None:
    """A copy is made on the store's disk before it is sent: the log must not grow for as long as somebody reads slowly.

    Raises:
        StoreError: the disk has too little room for that.
    """
    needed = round((store.path.stat().st_size + store.wal_bytes) * _COPY_SHARE)
    free = shutil.disk_usage(store.path.parent).free
    if free < needed:
        raise StoreError(
            f"a copy of {store.path} is made beside it first, which takes {needed / 1e6:.0f} MB, and its disk has "
            f"{free / 1e6:.0f} MB free; make room, or stop the server and back up the file to another disk"
        )
