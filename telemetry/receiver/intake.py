"""Take OTLP requests for both transports: who may send, how much at once, decoded, stored, and what was refused.

Its methods run on the event loop.
Bodies are decoded on a thread, so that the loop answers meanwhile: a large one, or all the small ones that wait.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import pyarrow as pa
from google.protobuf.message import Message
from google.rpc import code_pb2

from telemetry.errors import DecodeError, Overloaded, PayloadTooLarge, StoreError
from telemetry.receiver.answers import (
    NO_TOKEN,
    WRONG_TOKEN,
    Encoding,
    Refusal,
    not_kept_response,
    traces_response,
)
from telemetry.receiver.otlp import Decoded
from telemetry.receiver.scanner import Undecoded, decode_together
from telemetry.threads import ended

Transport = Literal["grpc", "http/protobuf", "http/json"]
_Answer = asyncio.Future[Decoded | Exception]

_LEAST_QUEUE_BYTES: Final = 16 * 1024 * 1024
"""May always wait to be stored: a second or two of work."""
_MEASURE_S: Final = 1.0
"""Of work without a pause: so long tells how fast it goes."""
DECODE_TOGETHER_BYTES: Final = 4 * 1024 * 1024
"""Of bodies that are decoded as one: some 15,000 spans, 50 ms. A larger body is decoded alone."""


_REASONS: Final = {
    DecodeError: "unreadable request",
    PayloadTooLarge: "request too large",
    Overloaded: "overloaded",
    StoreError: "store failed",
}
"""In the ledger, for requests that were refused as a whole."""


_MAX_AGENT: Final = 100
_MAX_EXAMPLE: Final = 200
"""Characters, in the ledger."""


class Writer(Protocol):
    """What stores spans: `telemetry.store.writer.Writer`."""

    async def submit(self, table: pa.Table, transport: str) -> Any:
        """Return when the spans are durable; raise Overloaded when they were not taken."""

    def refuse(self, transport: str, reason: str, rejected: int, example: str | None = None) -> None:
        """Write down what was not taken."""


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
    body_s: float = 30.0
    """For a request's body to arrive; SDKs give up after ten seconds, Collectors after five."""
    slow_s: float = 2.0
    """After which a body that still arrives gives way to one that has waited as long, one body each so many seconds."""
    place_s: float = 4.0
    """For a place to arrive in: Collectors give up after five seconds."""
    max_connections: int = 1000
    """An idle one costs some 30 KB, and 300 KB over HTTPS."""


class Intake:
    """One transport's way in."""

    def __init__(
        self,
        writer: Writer,
        *,
        tokens: Sequence[str] = (),
        limits: Limits | None = None,
        at_once: int | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """
        Args:
            tokens: any one of them opens the door; none means that everyone who reaches it may send.
            at_once: how many bodies may arrive at once; None means all of the requests'.
            clock: nanoseconds UTC.
        """
        self.limits = limits or Limits()
        self._writer = writer
        self._tokens = tuple(_digest(token) for token in tokens)
        self._clock = clock
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
        self._waiting: dict[_Answer, Undecoded] = {}
        self._decoding: asyncio.Task[None] | None = None
        self._thread = asyncio.Lock()
        decode_together(
            [Undecoded(b"", False, 0)]
        )  # the first use of pyarrow imports pandas, for which no sender should wait

    def admit(self, authorization: str | None) -> None:
        """Check the `authorization` header of a request.

        Raises:
            Refusal: a token is asked for, and this is none of them.
        """
        if not self._tokens:
            return
        scheme, _, token = (authorization or "").partition(" ")
        shown = _digest(token.strip())
        matches = [hmac.compare_digest(shown, known) for known in self._tokens]  # all of them: time tells nothing
        if scheme.lower() != "bearer" or not any(matches):
            message, reason = (NO_TOKEN, "no token") if authorization is None else (WRONG_TOKEN, "wrong token")
            headers = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, code_pb2.UNAUTHENTICATED, message, reason=reason, headers=headers)

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Room for one request; the function it gives takes room for so many more bytes of it.

        `traces` and `not_kept` return, however they end, when nothing works on the body any more.

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

    async def traces(self, body: bytes, encoding: Encoding, transport: Transport, agent: str | None = None) -> Message:
        """Store the spans of a request; return once they are durable.

        Args:
            agent: the program that sent it, as it calls itself: for the ledger.

        Raises:
            DecodeError: the body is unreadable.
            PayloadTooLarge: it is too large when decoded.
            Overloaded: it cannot be stored now.
        """
        with self._work(len(body)):
            try:
                decoded = await self._decoded(Undecoded(body, encoding == "json", self._clock()))
            except asyncio.CancelledError:
                self._writer.refuse(transport, "left before it was stored", 0, _example(agent))
                raise
            for rejection in decoded.rejected:
                self._writer.refuse(transport, rejection.reason, rejection.count, _example(agent, rejection.example))
            if decoded.table.num_rows:
                await self._writer.submit(decoded.table, transport)
        return traces_response(decoded.rejected)

    @contextmanager
    def _work(self, count: int) -> Iterator[None]:
        """Let a whole body in, whatever its size, unless so much waits that its turn would come too late.

        Measures how fast work is done while there is some.
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

    async def not_kept(
        self,
        signal: Literal["logs", "metrics"],
        body: bytes,
        encoding: Encoding,
        transport: Transport,
        agent: str | None = None,
    ) -> Message:
        """Answer a request for a signal that is not kept, and write down that it was not.

        Args:
            agent: the program that sent it, as it calls itself: for the ledger.

        Raises:
            DecodeError: the body is unreadable.
        """
        with self._work(len(body)):
            async with self._thread:
                work = asyncio.get_running_loop().run_in_executor(None, not_kept_response, signal, body, encoding)
                await ended(work)
        response, count = work.result()
        if count:
            self._writer.refuse(transport, f"{signal} are not kept", count, _example(agent))
        return response

    async def _decoded(self, request: Undecoded) -> Decoded:
        answer: _Answer = asyncio.get_running_loop().create_future()
        self._waiting[answer] = request
        if self._decoding is None:
            self._decoding = asyncio.create_task(self._decode())
        try:
            await asyncio.wait([answer])
        except asyncio.CancelledError:
            if self._waiting.pop(answer, None) is None:
                await ended(answer)
            raise
        outcome = answer.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _decode(self) -> None:
        """Decode until nothing waits."""
        while True:
            async with self._thread:
                if not self._waiting:
                    break
                await self._decode_together()
        self._decoding = None

    async def _decode_together(self) -> None:
        """Decode those that have waited longest."""
        group: dict[_Answer, Undecoded] = {}
        size = 0
        for answer, request in self._waiting.items():
            size += len(request.body)
            if group and size > DECODE_TOGETHER_BYTES:
                break
            group[answer] = request
        for answer in group:
            del self._waiting[answer]
        try:
            for answer, outcome in zip(group, await _outcomes([*group.values()]), strict=True):
                answer.set_result(outcome)
        finally:
            for answer in group:
                answer.cancel()  # where the event loop ends meanwhile, nobody may wait for ever

    def refused(self, transport: Transport, error: Exception, agent: str | None = None) -> None:
        """Write down that a whole request was refused: senders may never tell anyone.

        How many spans it had is not known, so none are counted.
        """
        reason = error.reason if isinstance(error, Refusal) else _REASONS.get(type(error), "internal error")
        self._writer.refuse(transport, reason, 0, _example(agent, str(error)))


async def _outcomes(requests: Sequence[Undecoded]) -> Sequence[Decoded | Exception]:
    """What became of each; a fault of ours, which is then everyone's, too."""
    try:
        return await asyncio.to_thread(decode_together, requests)
    except Exception as error:
        return [error] * len(requests)


def _example(agent: str | None, text: str | None = None) -> str | None:
    """What a row of the ledger says of one request: who sent it, and what was wrong."""
    name = "".join(letter for letter in (agent or "")[:_MAX_AGENT] if letter.isprintable())
    return ": ".join(part for part in (name, (text or "")[:_MAX_EXAMPLE]) if part) or None


def incomplete() -> Refusal:
    """The refusal of a body whose sender left, or that the transport itself would not take."""
    message = "the request ended before its body, or the body is too large"
    return Refusal(400, code_pb2.INVALID_ARGUMENT, message, reason="incomplete or too large")


def _too_slow(after_s: float, waited_for: bool) -> Refusal:
    why = ", and others wait for its place" if waited_for else ""
    message = f"the body did not arrive within {after_s:g} s{why}; send it again, or smaller batches"
    headers = {"Connection": "close"}
    return Refusal(503, code_pb2.UNAVAILABLE, message, reason="too slow", headers=headers, retry_after_s=2)


def _digest(token: str) -> bytes:
    """Tokens are compared by digest: equal lengths, and none is kept as it is."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
