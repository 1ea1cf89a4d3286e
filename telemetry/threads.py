"""Waiting for work on threads, which nobody can cancel."""

import asyncio
from collections.abc import Callable
from typing import Any


async def ended(work: asyncio.Future[Any], stop: Callable[[], None] | None = None) -> None:
    """Wait until work on a thread has ended, however it did; who is cancelled leaves when it has, and not before.

    Args:
        stop: makes it end sooner; is called, on a thread too, where somebody is cancelled.

    Raises:
        CancelledError: once the work is done.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            if stop and not cancelled:
                asyncio.get_running_loop().run_in_executor(None, stop)
            cancelled = error
    if cancelled:
        if not work.cancelled():
            work.exception()  # nobody is left to ask for it
        raise cancelled
