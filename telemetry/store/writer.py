"""Commit waiting requests together on the store's one writer thread.

A request waits for the commit that is under way; then all that wait are committed as one batch.
So batches grow with load, and an idle store answers at once.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from telemetry.errors import Overloaded, StoreError
from telemetry.store.duck import Committed, Store

MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
"""Of decoded columns. Two seconds of 150,000 spans/s at about 700 bytes a span."""
MAX_WAITING_REQUESTS: Final = 4096
MAX_BATCH_ROWS: Final = 50_000
"""A larger batch is no faster per span, and makes those that wait for it wait longer."""


@dataclass(slots=True)
class _Request:
    table: pa.Table
    size_bytes: int
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Committed]"


class Writer:
    """Takes requests from any event loop; its thread is the only one that commits."""

    def __init__(
        self,
        store: Store,
        *,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        max_waiting_requests: int = MAX_WAITING_REQUESTS,
    ) -> None:
        self.store = store
        self._max_waiting_bytes = max_waiting_bytes
        self._max_waiting_requests = max_waiting_requests
        self._waiting: deque[_Request] = deque()
        self._in_flight_bytes = 0
        self._in_flight_requests = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def submit(self, table: pa.Table) -> Committed:
        """Store the spans of one request; returns once they are durable and queryable.

        Raises:
            Overloaded: too much is in flight, the store is closing, or the disk would not take it; send it again later.
        """
        if table.num_rows == 0:
            return Committed(0, 0)
        loop = asyncio.get_running_loop()
        request = _Request(table, table.nbytes, loop, loop.create_future())
        with self._changed:
            if self._closing:
                raise Overloaded("the store is closing")
            if (
                self._in_flight_requests >= self._max_waiting_requests
                or self._in_flight_bytes + request.size_bytes > self._max_waiting_bytes
            ):
                raise Overloaded("too many spans are waiting to be stored")
            self._in_flight_requests += 1
            self._in_flight_bytes += request.size_bytes
            self._waiting.append(request)
            self._changed.notify()
        return await request.answer

    async def close(self) -> None:
        """Commit what waits, answer it, and end the thread. The store stays open."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while group := self._next_group():
            try:
                answer: Committed | Exception = self.store.commit([request.table for request in group])
            except StoreError as error:
                answer = Overloaded(error.message, retry_after_s=2)
            with self._changed:
                self._in_flight_requests -= len(group)
                self._in_flight_bytes -= sum(request.size_bytes for request in group)
            for request in group:
                request.loop.call_soon_threadsafe(_resolve, request.answer, answer)

    def _next_group(self) -> list[_Request]:
        """Wait for requests; empty means that the writer is closing and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            group: list[_Request] = []
            rows = 0
            while self._waiting and (not group or rows + self._waiting[0].table.num_rows <= MAX_BATCH_ROWS):
                request = self._waiting.popleft()
                rows += request.table.num_rows
                group.append(request)
            return group


def _resolve(answer: "asyncio.Future[Committed]", result: Committed | Exception) -> None:
    if answer.done():  # its request was cancelled
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
