"""Take OTLP requests for both transports: who may send, decoded, stored, and what was refused.

Its methods run on the event loop.
Bodies are decoded on a thread, so that the loop answers meanwhile: a large one, or all the small ones that wait.
The thread does nothing else: what waits for the store on asyncio's own threads keeps no sender waiting.
"""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    broken_off,
    not_kept_response,
    traces_response,
)
from telemetry.receiver.otlp import Decoded
from telemetry.receiver.room import Room
from telemetry.receiver.scanner import Undecoded, decode_protobuf, decode_together
from telemetry.threads import ended
from telemetry.tokens import Tokens

Transport = Literal["grpc", "http/protobuf", "http/json"]
_Answer = asyncio.Future[Decoded | Exception]

DECODE_TOGETHER_BYTES: Final = 4 * 1024 * 1024
"""Of bodies that are decoded as one: some 15,000 spans, 50 ms. A larger body is decoded alone."""
_HASHED_AT_ONCE_BYTES: Final = 1024 * 1024
"""Of a body, on the event loop: half a millisecond."""
_DIGEST_LETTERS: Final = 32
"""128 bits, in hexadecimal."""

_REASONS: Final = {
    DecodeError: "unreadable request",
    PayloadTooLarge: "request too large",
    Overloaded: "overloaded",
    StoreError: "store failed",
}
"""In the ledger, for requests that were refused as a whole."""


_NO_MEMORY: Final = "there is too little memory to decode the request now; send it again later"
_MAX_AGENT: Final = 100
_MAX_EXAMPLE: Final = 200
"""Characters, in the ledger."""


class Writer(Protocol):
    """What stores spans: `telemetry.store.writer.Writer`."""

    async def submit(self, table: pa.Table, transport: str, digest: str | None = None) -> Any:
        """Return when the spans are durable; raise Overloaded when they were not taken."""

    def repeated(self, digest: str, transport: str) -> bool:
        """Whether this request was taken before, all of it; if so, write down that it came again."""

    def refuse(self, transport: str, reason: str, rejected: int, example: str | None = None) -> None:
        """Write down what was not taken."""


class Intake:
    """One transport's way in."""

    def __init__(
        self,
        writer: Writer,
        room: Room | None = None,
        *,
        tokens: Sequence[str] = (),
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """
        Args:
            room: how much it lets in at once; None means the limits that are usual.
            tokens: any one of them opens the door; none means that everyone who reaches it may send.
            clock: nanoseconds UTC.
        """
        self.room = room or Room()
        self._writer = writer
        self._tokens = Tokens(tokens)
        self._clock = clock
        self._waiting: dict[_Answer, Undecoded] = {}
        self._decoding: asyncio.Task[None] | None = None
        self._thread = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, "decoding")  # its thread ends when nobody has the intake any more
        decode_protobuf(b"", 0)  # the first use of pyarrow imports pandas, for which no sender should wait

    def admit(self, authorization: str | None) -> None:
        """Check the `authorization` header of a request.

        Raises:
            Refusal: a token is asked for, and this is none of them.
        """
        if not self._tokens:
            return
        scheme, _, token = (authorization or "").partition(" ")
        known = self._tokens.know(token.strip())
        if scheme.lower() != "bearer" or not known:
            message, reason = (NO_TOKEN, "no token") if authorization is None else (WRONG_TOKEN, "wrong token")
            headers = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, code_pb2.UNAUTHENTICATED, message, reason=reason, headers=headers)

    async def traces(self, body: bytes, encoding: Encoding, transport: Transport, agent: str | None = None) -> Message:
        """Store the spans of a request; return once they are durable.

        Args:
            agent: the program that sent it, as it calls itself: for the ledger.

        Raises:
            DecodeError: the body is unreadable.
            PayloadTooLarge: it is too large when decoded.
            Overloaded: it cannot be stored now.
        """
        with self._noting_who_leaves(transport, agent):
            digest = await _digest(body, encoding)
        if self._writer.repeated(digest, transport):
            return traces_response(())
        with self.room.work(len(body)):
            with self._noting_who_leaves(transport, agent):
                decoded = await self._decoded(Undecoded(body, encoding == "json", self._clock()))
            rejected = decoded.rejected
            try:
                if decoded.table.num_rows:
                    await self._writer.submit(decoded.table, transport, None if rejected else digest)
            except Overloaded:
                rejected = ()  # all of it comes again
                raise
            finally:
                for one in rejected:
                    self._writer.refuse(transport, one.reason, one.count, _example(agent, one.example))
        return traces_response(rejected)

    @contextmanager
    def _noting_who_leaves(self, transport: Transport, agent: str | None) -> Iterator[None]:
        """Before the store has the spans; over HTTP only a stop breaks off."""
        try:
            yield
        except asyncio.CancelledError:
            reason = "left before it was stored" if transport == "grpc" else broken_off().reason
            self._writer.refuse(transport, reason, 0, _example(agent))
            raise

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
            Overloaded: it cannot be decoded now.
        """
        with self.room.work(len(body)):
            async with self._thread:
                work = asyncio.get_running_loop().run_in_executor(
                    self._executor, not_kept_response, signal, body, encoding
                )
                await ended(work)
        try:
            response, count = work.result()
        except MemoryError as error:
            raise Overloaded(_NO_MEMORY) from error
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
        """Decode those that have waited longest, and answer each as soon as it is decoded: together they may come to
        more than the store takes, and what it refuses must go before the next is decoded."""
        group: deque[_Answer] = deque()
        requests: list[Undecoded] = []
        size = 0
        for answer, request in self._waiting.items():
            size += len(request.body)
            if group and size > DECODE_TOGETHER_BYTES:
                break
            group.append(answer)
            requests.append(request)
        for answer in group:
            del self._waiting[answer]
        loop = asyncio.get_running_loop()

        def tell(outcomes: Sequence[Decoded | Exception]) -> None:
            for outcome in outcomes[: len(group)]:
                group.popleft().set_result(outcome)

        left = [requests]
        try:
            while group and left:
                some = left.pop(0)
                try:
                    await loop.run_in_executor(
                        self._executor,
                        decode_together,
                        some,
                        lambda outcomes: loop.call_soon_threadsafe(tell, outcomes),
                    )
                except Exception as error:  # a fault of ours: by itself each shows whether it is its own
                    if len(some) == 1:
                        tell([Overloaded(_NO_MEMORY) if isinstance(error, MemoryError) else error])
                    else:
                        left = [[request] for request in some[len(some) - len(group) :]]
        finally:
            while group:
                group.popleft().cancel()  # where the event loop ends meanwhile, nobody may wait for ever

    def refused(self, transport: Transport, error: Exception, agent: str | None = None) -> None:
        """Write down that a whole request was refused: senders may never tell anyone.

        How many spans it had is not known, so none are counted.
        """
        reason = error.reason if isinstance(error, Refusal) else _REASONS.get(type(error), "internal error")
        self._writer.refuse(transport, reason, 0, _example(agent, str(error)))


async def _digest(body: bytes, encoding: Encoding) -> str:
    """By which a request is known when it comes again. What is JSON might be protobuf, too, so that counts as well."""
    digest = hashlib.sha256(encoding.encode())
    for start in range(0, len(body), _HASHED_AT_ONCE_BYTES):
        if start:
            await asyncio.sleep(0)
        digest.update(memoryview(body)[start : start + _HASHED_AT_ONCE_BYTES])
    return digest.hexdigest()[:_DIGEST_LETTERS]


def _example(agent: str | None, text: str | None = None) -> str | None:
    """What a row of the ledger says of one request: who sent it, and what was wrong."""
    name = "".join(letter for letter in (agent or "")[:_MAX_AGENT] if letter.isprintable())
    return ": ".join(part for part in (name, (text or "")[:_MAX_EXAMPLE]) if part) or None
