"""Commit waiting requests together on the store's writer thread, and tend the store on another.

A request waits for the commit that is under way; then all that wait are committed as one batch.
So batches grow with load, and an idle store answers at once.
The second thread folds, checkpoints and prunes, so that no request waits for that.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from telemetry.errors import DecodeError, IngestError, Overloaded, StoreError
from telemetry.store.duck import Committed, Request, Store
from telemetry.store.ledger import Ledger
from telemetry.store.retention import Retention, prune

MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
"""Of decoded columns: two seconds of 150,000 spans/s at about 700 bytes a span."""
MAX_WAITING_REQUESTS: Final = 4096
MAX_BATCH_ROWS: Final = 50_000
"""A larger batch is hardly faster per span, and makes those that wait for it wait longer."""
TEND_EVERY_S: Final = 0.5
PRUNE_EVERY_S: Final = 600.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    request: Request
    size_bytes: int
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Committed]"


class Writer:
    """Takes requests from any event loop; its first thread is the only one that commits."""

    def __init__(
        self,
        store: Store,
        *,
        retention: Retention | None = None,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        max_waiting_requests: int = MAX_WAITING_REQUESTS,
    ) -> None:
        """
        Args:
            retention: what to prune every ten minutes. None keeps everything.
            max_waiting_bytes: of decoded columns, waiting or being committed.
        """
        self.store = store
        self._retention = retention
        self._max_waiting_bytes = max_waiting_bytes
        self._max_waiting_requests = max_waiting_requests
        self._waiting: deque[_Waiting] = deque()
        self._noted = Ledger()
        """What was refused or came again, and is not written down yet."""
        self._news = False
        """Whether anything was since a commit was tried last: while they fail, others wait for a request to come."""
        self._in_flight_bytes = 0
        self._in_flight_requests = 0
        self._closing = False
        self._changed = threading.Condition()
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, name="store-writer", daemon=True),
            threading.Thread(target=self._tend, name="store-tender", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, table: pa.Table, transport: str = "import", digest: str | None = None) -> Committed:
        """Store the spans of one request; returns once they are durable and queryable.

        Args:
            table: of the receiver's SPANS_SCHEMA.
            transport: for the ledger: grpc, http/protobuf, http/json, import.
            digest: of the request, where all of its spans are in the table; `repeated` knows it then.

        Raises:
            Overloaded: too much is in flight, the store is closing, or the disk would not take it; send it again later.
            DecodeError: the table holds what no span can.
        """
        if table.num_rows == 0:
            return Committed(0, 0)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(Request(table, transport, digest), table.nbytes, loop, loop.create_future())
        with self._changed:
            if self._closing:
                raise Overloaded("the store is closing")
            alone = self._in_flight_requests == 0
            too_many = self._in_flight_requests >= self._max_waiting_requests
            too_large = self._in_flight_bytes + waiting.size_bytes > self._max_waiting_bytes
            if too_many or (too_large and not alone):
                raise Overloaded("too many spans are waiting to be stored; send these again later")
            self._in_flight_requests += 1
            self._in_flight_bytes += waiting.size_bytes
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.answer

    def repeated(self, digest: str, transport: str) -> bool:
        """Whether a request was taken before, all of it; if so, have the next commit write down that it came again."""
        spans = self.store.taken(digest)
        if spans is not None:
            self._note(lambda noted: noted.repeat(transport, spans))
        return spans is not None

    def refuse(self, transport: str, reason: str, rejected: int, example: str | None = None) -> None:
        """Have the next commit write down that spans, or a whole request, were refused. Does not wait."""
        self._note(lambda noted: noted.refuse(transport, reason, rejected, example))

    def _note(self, entry: Callable[[Ledger], None]) -> None:
        with self._changed:
            if not self._closing:
                entry(self._noted)
                self._news = True
                self._changed.notify()

    async def close(self) -> None:
        """Commit what waits, answer it, and end the threads. The store stays open."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._done.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _write(self) -> None:
        last = False
        while not last:
            try:
                last = self._commit_next()
            except Exception:
                _log.exception("a commit failed in a way that nobody thought of")
        if len(self._noted):
            _log.warning("what was refused at last is not written down, as the store failed")

    def _commit_next(self) -> bool:
        """Commit what waits and answer it; whether nothing comes after it."""
        group, noted, last = self._next_group()
        answers: list[Committed | IngestError] = []
        try:
            if group or len(noted):
                answers = self._commit(group, noted)
            if answers and isinstance(answers[-1], Overloaded):  # those that came meanwhile would wait as long in vain
                with self._changed:
                    group += self._waiting
                    self._waiting.clear()
        finally:
            with self._changed:
                self._in_flight_requests -= len(group)
                self._in_flight_bytes -= sum(waiting.size_bytes for waiting in group)
            others = answers[-1:] or [Overloaded("the store failed; its log says why", retry_after_s=2)]
            answers += others * (len(group) - len(answers))
            for waiting, answer in zip(group, answers, strict=True):
                try:
                    waiting.loop.call_soon_threadsafe(_resolve, waiting.answer, answer)
                except RuntimeError:  # its event loop is closed: nobody waits any more
                    _log.warning("nobody waits for the answer to a stored request")
        return last

    def _commit(self, group: list[_Waiting], noted: Ledger) -> list[Committed | IngestError]:
        """Each request's answer. What cannot be stored spoils only its own request."""
        try:
            return list(self.store.commit_each([waiting.request for waiting in group], noted))
        except Exception as error:
            with self._changed:
                self._noted.add(noted)
            if isinstance(error, DecodeError) and len(group) > 1:
                return self._commit_alone(group)
            return [_answer(error)] * len(group)

    def _commit_alone(self, group: list[_Waiting]) -> list[Committed | IngestError]:
        """The same, each for itself, until the store can take no more."""
        answers: list[Committed | IngestError] = []
        for waiting in group:
            answers += self._commit([waiting], Ledger())
            if isinstance(answers[-1], Overloaded):
                break
        return answers + answers[-1:] * (len(group) - len(answers))

    def _next_group(self) -> tuple[list[_Waiting], Ledger, bool]:
        """Wait for something to commit, and say whether nothing comes after it."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._news or self._closing)
            noted, self._noted, self._news = self._noted, Ledger(), False
            group: list[_Waiting] = []
            rows = 0
            while self._waiting and (not group or rows + self._waiting[0].request.spans.num_rows <= MAX_BATCH_ROWS):
                waiting = self._waiting.popleft()
                rows += waiting.request.spans.num_rows
                group.append(waiting)
            return group, noted, self._closing and not group

    def _tend(self) -> None:
        started_ns = time.time_ns() - time.monotonic_ns()
        pruned_at = time.monotonic()
        rest_s = TEND_EVERY_S
        while not self._done.wait(rest_s):
            rest_s = TEND_EVERY_S
            try:
                self.store.tend()
                if self.store.lags:
                    rest_s = 0.0  # so much came meanwhile
                if self._retention and time.monotonic() - pruned_at >= PRUNE_EVERY_S:
                    pruned_at = time.monotonic()
                    # The earlier of two clocks: one that jumps ahead must not make everything look old.
                    now_ns = min(time.time_ns(), started_ns + time.monotonic_ns())
                    prune(self.store, self._retention, now_ns=now_ns)
            except StoreError as error:  # the store remembers it as its trouble, and `telemetry store info` shows it
                _log.warning("%s", error.message)
            except Exception:
                _log.exception("tending the store failed in a way that nobody thought of")


def _answer(error: Exception) -> IngestError:
    """What senders are told of a commit that failed."""
    if isinstance(error, DecodeError):
        return error
    if isinstance(error, StoreError):
        return Overloaded(error.message, retry_after_s=2)
    _log.error("a commit failed in a way that nobody thought of", exc_info=error)
    return Overloaded("the store failed; its log says why", retry_after_s=2)


def _resolve(answer: "asyncio.Future[Committed]", result: Committed | IngestError) -> None:
    if answer.done():  # its request was cancelled
        return
    if isinstance(result, IngestError):
        answer.set_exception(result)
    else:
        answer.set_result(result)
