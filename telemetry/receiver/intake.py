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
    UNAUTHENTICATED,
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

DECODE_TOGETHER_BYTES: Final = 4 * 1024 * 1024
"""Of bodies that are decoded as one: some 15,000 spans, 50 ms. A larger body is decoded alone."""


_REASONS: Final = {
    DecodeError: "unreadable request",
    PayloadTooLarge: "request too large",
    Overloaded: "overloaded",
    StoreError: "store failed",
    Refusal: "refused by its headers",
}
"""In the ledger, for requests that were refused as a whole."""


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
    header_s: float = 10.0
    """For a request's headers to arrive."""
    max_messages: int = 8
    """Of gRPC that arrive at once: how large one is shows only when it is whole, so each may be as large as any."""
    body_s: float = 30.0
    """For a request's body to arrive; SDKs give up after ten seconds, Collectors after five."""
    slow_s: float = 2.0
    """After which a body that still arrives gives way to others that wait for its place."""
    max_connections: int = 1000
    """An idle one costs some 30 KB."""


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
        self._arriving: dict[asyncio.Timeout, float] = {}
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
            raise Refusal(401, code_pb2.UNAUTHENTICATED, UNAUTHENTICATED, {"WWW-Authenticate": "Bearer"})

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Room for one request; the function it gives takes room for so many more bytes of it.

        `traces` and `not_kept` return, however they end, when nothing works on the body any more.

        Raises:
            Overloaded: too many requests, or too many bytes, are under way.
        """
        if self._requests >= self.limits.max_requests:
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
            Refusal: it arrives too slowly.
            Overloaded: it is slow, and others wait for its place.
        """
        await self._place()
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self.limits.body_s) as clock:
                self._arriving[clock] = now()
                yield
        except TimeoutError as error:
            if not clock.expired():
                raise
            if clock in self._arriving:
                raise _too_slow(self.limits) from error
            raise Overloaded("this body arrives slowly, and others wait for its place; send it again later") from error
        finally:
            self._arriving.pop(clock, None)
            self._places.release()

    async def _place(self) -> None:
        """Wait for a place; while none comes free, the slowest body gives way."""
        while True:
            try:
                async with asyncio.timeout(self.limits.slow_s):
                    await self._places.acquire()
                    return
            except TimeoutError:
                self._make_way()

    def _make_way(self) -> None:
        """Turn out the body that has arrived for longest, if that is long."""
        now = asyncio.get_running_loop().time()
        clock, since = next(iter(self._arriving.items()), (None, now))
        if clock and now - since >= self.limits.slow_s:
            del self._arriving[clock]
            clock.reschedule(now)

    async def traces(self, body: bytes, encoding: Encoding, transport: Transport) -> Message:
        """Store the spans of a request; return once they are durable.

        Raises:
            DecodeError: the body is unreadable.
            PayloadTooLarge: it is too large when decoded.
            Overloaded: it cannot be stored now.
        """
        decoded = await self._decoded(Undecoded(body, encoding == "json", self._clock()))
        for rejection in decoded.rejected:
            self._writer.refuse(transport, rejection.reason, rejection.count, rejection.example)
        if decoded.table.num_rows:
            await self._writer.submit(decoded.table, transport)
        return traces_response(decoded.rejected)

    async def not_kept(
        self, signal: Literal["logs", "metrics"], body: bytes, encoding: Encoding, transport: Transport
    ) -> Message:
        """Answer a request for a signal that is not kept, and write down that it was not.

        Raises:
            DecodeError: the body is unreadable.
        """
        async with self._thread:
            work = asyncio.get_running_loop().run_in_executor(None, not_kept_response, signal, body, encoding)
            await ended(work)
        response, count = work.result()
        if count:
            self._writer.refuse(transport, f"{signal} are not kept", count)
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

    def refused(self, transport: Transport, error: Exception) -> None:
        """Write down that a whole request was refused: senders may never tell anyone.

        How many spans it had is not known, so none are counted.
        """
        self._writer.refuse(transport, _REASONS.get(type(error), "internal error"), 0, str(error)[:200])


async def _outcomes(requests: Sequence[Undecoded]) -> Sequence[Decoded | Exception]:
    """What became of each; a fault of ours, which is then everyone's, too."""
    try:
        return await asyncio.to_thread(decode_together, requests)
    except Exception as error:
        return [error] * len(requests)


def _too_slow(limits: Limits) -> Refusal:
    message = f"the body did not arrive within {limits.body_s:g} s; send smaller batches"
    return Refusal(408, code_pb2.DEADLINE_EXCEEDED, message, {"Connection": "close"})


def _digest(token: str) -> bytes:
    """Tokens are compared by digest: equal lengths, and none is kept as it is."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
