"""How much one transport lets in: requests, their bytes, bodies that arrive, and work that waits. No I/O.

Its methods run on the event loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from google.rpc import code_pb2

from telemetry.errors import Overloaded
from telemetry.receiver.answers import Refusal

_LEAST_QUEUE_BYTES: Final = 16 * 1024 * 1024
"""May always wait to be stored: a second or two of work."""
_MEASURE_S: Final = 1.0
"""Of work without a pause: so long tells how fast it goes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one transport takes at most."""

    max_body_bytes: int = 64 * 1024 * 1024
    """Before and after decompression; the OTLP specification recommends 64 MiB."""
    max_requests: int = 256
    """At once. A request waits only for its commit, so this many are seconds of load, not of patience."""
    max_bytes: int = 256 * 1024 * 1024
    """Of bodies at once: four of the largest."""
    queue_s: float = 2.5
    """Of work that waits, as fast as it went lately: who waited longer would be given up by its sender."""
    header_s: float = 10.0
    """For a request's headers to arrive."""
    max_messages: int = 8
    """Of gRPC that arrive at once: how large one is shows only when it is whole, so each may be as large as any."""
    max_pending: int = 3000
    """Calls of gRPC that were not looked at yet: each may bring 64 KB with it."""
    body_s: float = 30.0
    """For a request's body to arrive; SDKs give up after ten seconds, Collectors after five."""
    slow_s: float = 2.0
    """After which a body that still arrives gives way to one that has waited as long, one body each so many seconds."""
    place_s: float = 4.0
    """For a place to arrive in: Collectors give up after five seconds."""
    max_connections: int = 1000
    """An idle one costs some 30 KB, and 300 KB over HTTPS."""


class Room:
    """What one transport has let in."""

    def __init__(self, limits: Limits | None = None, at_once: int | None = None) -> None:
        """
        Args:
            at_once: how many bodies may arrive at once; None means all of the requests'.
        """
        self.limits = limits or Limits()
        self._requests = 0
        self._bytes = 0
        self._places = asyncio.Semaphore(at_once or self.limits.max_requests)
        self._coming = 0
        self._arriving: dict[asyncio.Timeout, float] = {}
        self._moved = 0.0
        self._work_bytes = 0
        self._work_bytes_per_s = 0.0
        self._done_bytes = 0
        self._busy_since = 0.0

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Room for one request; the function it gives takes room for so many more bytes of it.

        It is given back when nothing works on the request any more.

        Raises:
            Overloaded: too many requests, or too many bytes, are under way.
        """
        if self._requests >= self.limits.max_requests:
            if 2 * self._coming > self._requests:  # otherwise it is full of what waits for the store
                self._make_way()
            raise Overloaded(f"{self._requests} requests are under way; send this one again later")
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self._bytes + count > self.limits.max_bytes:
                raise Overloaded(f"{self._bytes} bytes of requests are under way; send this one again later")
            self._bytes += count
            taken += count

        self._requests += 1
        try:
            yield take
        finally:
            self._requests -= 1
            self._bytes -= taken

    @asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """A place for a body that arrives, and its time; waits until there is one.

        Raises:
            Refusal: it arrives too slowly, or is slow and others wait for its place.
            Overloaded: no place came free.
        """
        self._coming += 1
        try:
            await self._place()
            try:
                async with self._timed():
                    yield
            finally:
                self._places.release()
        finally:
            self._coming -= 1

    async def _place(self) -> None:
        """Wait for a place, in turn; while none comes free, the slowest body gives way."""
        late = asyncio.get_running_loop().call_later(self.limits.slow_s, self._make_way)
        try:
            async with asyncio.timeout(self.limits.place_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise Overloaded("too many messages arrive at once; send this one again later") from error
        finally:
            late.cancel()

    @asynccontextmanager
    async def _timed(self) -> AsyncIterator[None]:
        now = asyncio.get_running_loop().time
        clock = asyncio.timeout(self.limits.body_s)
        try:
            async with clock:
                self._arriving[clock] = now()
                yield
        except TimeoutError as error:
            if not clock.expired():
                raise
            waited_for = clock not in self._arriving
            raise _too_slow(self.limits.slow_s if waited_for else self.limits.body_s, waited_for) from error
        finally:
            self._arriving.pop(clock, None)

    def _make_way(self) -> None:
        """Turn out the body that has arrived for longest, if that is long.

        One at a time: where the network is slow for all of them, the others come to their end.
        """
        now = asyncio.get_running_loop().time()
        if now - self._moved < self.limits.slow_s:
            return
        for clock, since in self._arriving.items():
            if clock.expired():
                continue
            if now - since >= self.limits.slow_s:
                del self._arriving[clock]
                clock.reschedule(now)
                self._moved = now
            return

    @contextmanager
    def work(self, count: int) -> Iterator[None]:
        """Let a whole body in, whatever its size, unless so much waits that its turn would come too late.

        Measures how fast work is done while there is some.

        Raises:
            Overloaded: so much waits.
        """
        if self._work_bytes > max(_LEAST_QUEUE_BYTES, self.limits.queue_s * self._work_bytes_per_s):
            raise Overloaded(f"{self._work_bytes} bytes of requests wait to be stored; send this one again later")
        if not self._work_bytes:
            self._done_bytes, self._busy_since = 0, time.monotonic()
        self._work_bytes += count
        try:
            yield
        finally:
            self._work_bytes -= count
            self._done_bytes += count
            took_s = time.monotonic() - self._busy_since
            if took_s >= _MEASURE_S:
                self._work_bytes_per_s = self._done_bytes / took_s
                self._done_bytes, self._busy_since = 0, time.monotonic()


def _too_slow(after_s: float, waited_for: bool) -> Refusal:
    why = ", and others wait for its place" if waited_for else ""
    message = f"the body did not arrive within {after_s:g} s{why}; send it again, or smaller batches"
    headers = {"Connection": "close"}
    return Refusal(503, code_pb2.UNAVAILABLE, message, reason="too slow", headers=headers, retry_after_s=2)
