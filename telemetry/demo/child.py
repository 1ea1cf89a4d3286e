"""Run a coroutine in a process of its own, with a pipe between.

Ctrl-C reaches the whole process group, so a child ignores it: the parent decides.
A child whose pipe closes, because the parent is done or gone, cancels its work and leaves.
"""

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Final

from telemetry.errors import TelemetryError

LEAVE_LIMIT_S: Final = 5.0

Work = Callable[..., Coroutine[Any, Any, None]]
"""A function of a module, whose first argument is its `Parent`."""


class Child:
    """The other process, as its parent's event loop sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def receive(self) -> Any:
        """Wait for the next thing that the child sends.

        Raises:
            TelemetryError: the child ended instead.
        """
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._pipe.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._pipe.fileno())
        try:
            return self._pipe.recv()
        except EOFError as error:
            raise TelemetryError(
                "a process that was started for this ended early; what it said stands above"
            ) from error


@asynccontextmanager
async def child(work: Work, *arguments: Any) -> AsyncIterator[Child]:
    """Run `work(parent, *arguments)` in another process; end it at the end of the block."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the store's threads and locks
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_main, args=(theirs, work, arguments), daemon=True)
    with _without_ctrl_c():
        process.start()
    theirs.close()
    try:
        yield Child(ours)
    finally:
        ours.close()
        await asyncio.to_thread(process.join, LEAVE_LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Hold SIGINT back; a process that is started meanwhile never sees it."""
    resource_tracker.ensure_running()  # started later, it would let SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Parent:
    """The process that waits for the work, as the work sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def send(self, thing: Any) -> None:
        """Say something; if nobody listens any more, the work is about to be cancelled."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send(thing)

    def wait_until_gone(self) -> None:
        """Return when the other end of the pipe is closed."""
        with suppress(EOFError, OSError):
            self._pipe.recv()


def _main(pipe: Connection, work: Work, arguments: Sequence[Any]) -> None:
    parent = Parent(pipe)
    asyncio.run(_until_gone(parent, work(parent, *arguments)))


async def _until_gone(parent: Parent, work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)

    def watch() -> None:
        parent.wait_until_gone()
        with suppress(RuntimeError):  # the work ended at the same moment, and the loop is closed
            loop.call_soon_threadsafe(task.cancel)

    threading.Thread(target=watch, daemon=True).start()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
