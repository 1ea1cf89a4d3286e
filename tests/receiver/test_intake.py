"""Requests are decoded beside the event loop, those that wait together as one, and counted while they need memory."""

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pyarrow as pa
import pytest

from telemetry.errors import DecodeError, Overloaded
from telemetry.receiver import intake, scanner
from telemetry.receiver.intake import Intake
from telemetry.receiver.room import Limits, Room
from tests.support.otlp import request, span
from tests.support.receiving import KeptSpans

GOOD = request(span()).SerializeToString()


class Held:
    """Decodes when it is let, or does other work; keeps how many requests came together."""

    def __init__(self, work: Callable[..., Any] = scanner.decode_together) -> None:
        self.groups: list[int] = []
        self._work = work
        self.entered = asyncio.Event()
        self.let = threading.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, requests: Sequence[Any], *more: Any) -> Any:
        self.groups.append(len(requests))
        self._loop.call_soon_threadsafe(self.entered.set)
        self.let.wait(10)
        return self._work(requests, *more)

    async def let_when_cancelled(self, log: pytest.LogCaptureFixture, servers: int) -> None:
        """Let it once so many servers have cancelled what they were told to end."""
        while log.text.count("timeout graceful shutdown exceeded") < servers:  # noqa: ASYNC110  only the log tells
            await asyncio.sleep(0.01)
        self.let.set()


async def test_requests_that_wait_are_decoded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """While requests are decoded the event loop goes on, and those that come meanwhile are the next group."""
    writer = KeptSpans()
    door, held = Intake(writer), Held()
    monkeypatch.setattr(intake, "decode_together", held)
    first = asyncio.create_task(door.traces(GOOD, "protobuf", "grpc"))
    await held.entered.wait()
    others = [asyncio.create_task(door.traces(body, "protobuf", "grpc")) for body in (GOOD, b"\x0a", GOOD)]
    await asyncio.sleep(0)
    held.let.set()
    answers = await asyncio.gather(first, *others, return_exceptions=True)

    assert held.groups == [1, 3]
    assert [type(answer) for answer in answers].count(DecodeError) == 1
    assert isinstance(answers[2], DecodeError)
    assert len(writer.tables) == 3


async def test_large_bodies_are_decoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many bytes are decoded as one: memory is for one large body."""
    monkeypatch.setattr(intake, "DECODE_TOGETHER_BYTES", 2 * len(GOOD))
    door, held = Intake(KeptSpans()), Held()
    held.let.set()
    monkeypatch.setattr(intake, "decode_together", held)
    await asyncio.gather(*(door.traces(GOOD, "protobuf", "grpc") for _ in range(5)))

    assert held.groups == [2, 2, 1]


async def test_each_is_stored_before_the_next_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded by itself goes to the store at once, so that memory is for one large request."""
    stored = threading.Event()

    class Noting(KeptSpans):
        async def submit(self, table: pa.Table, transport: str, digest: str | None = None) -> None:
            stored.set()
            await super().submit(table, transport, digest)

    def one_by_one(waiting: Sequence[Any], answer: Callable[[list[Any]], Any]) -> None:
        for each in waiting:
            scanner.decode_together([each], answer)
            before.append(stored.wait(10))
            stored.clear()

    before: list[bool] = []
    monkeypatch.setattr(intake, "decode_together", one_by_one)
    door = Intake(Noting())
    await asyncio.gather(*(door.traces(GOOD, "protobuf", "grpc") for _ in range(3)))

    assert before[:2] == [True, True]


@pytest.mark.parametrize("signal", ["traces", "logs"])
async def test_nobody_waits_for_what_waits_for_the_store(signal: Literal["traces", "logs"]) -> None:
    """While queries and a backup hold all of asyncio's own threads, requests are decoded and answered as ever."""
    loop, let = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    door = Intake(KeptSpans())
    query = loop.run_in_executor(None, let.wait)
    if signal == "traces":
        sending = asyncio.create_task(door.traces(GOOD, "protobuf", "grpc"))
    else:
        sending = asyncio.create_task(door.not_kept(signal, b"", "protobuf", "grpc"))
    answered, _ = await asyncio.wait([sending], timeout=5)
    let.set()
    await sending

    assert answered
    assert await query


def test_the_thread_ends_with_its_intake() -> None:
    """An intake that nobody has any more leaves no thread behind."""
    door = Intake(KeptSpans())
    asyncio.run(door.traces(GOOD, "protobuf", "grpc"))
    (thread,) = door._executor._threads
    del door
    gc.collect()
    thread.join(10)

    assert not thread.is_alive()


async def test_a_sender_that_leaves_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose sender leaves while it is decoded is not stored; one that came with it is."""
    writer = KeptSpans()
    door, held = Intake(writer), Held()
    monkeypatch.setattr(intake, "decode_together", held)
    gone, stays = (asyncio.create_task(door.traces(GOOD, "protobuf", "grpc")) for _ in range(2))
    await held.entered.wait()
    gone.cancel()
    held.let.set()
    await stays

    assert held.groups == [2]
    assert len(writer.tables) == 1


async def test_a_sender_that_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose sender leaves while it waits leaves at once, and is never decoded."""
    writer = KeptSpans()
    door, held = Intake(writer), Held()
    monkeypatch.setattr(intake, "decode_together", held)
    first = asyncio.create_task(door.traces(GOOD, "protobuf", "grpc"))
    await held.entered.wait()
    gone, stays = (asyncio.create_task(door.traces(GOOD, "protobuf", "grpc")) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    waiting = len(door._waiting)
    held.let.set()
    await asyncio.gather(first, stays)

    assert waiting == 1
    assert held.groups == [1, 1]
    assert len(writer.tables) == 2


@pytest.mark.parametrize("body", [GOOD, b"\xff"], ids=["readable", "unreadable"])
@pytest.mark.parametrize("signal", ["traces", "logs"])
async def test_room_until_nothing_works_on_it(
    monkeypatch: pytest.MonkeyPatch, signal: Literal["traces", "logs"], body: bytes
) -> None:
    """A body that a thread works on is counted until that ends, however often its sender leaves."""
    door = Intake(KeptSpans(), Room(Limits(max_requests=2, max_bytes=len(body))))
    name = "decode_together" if signal == "traces" else "not_kept_response"
    held = Held(getattr(intake, name))
    monkeypatch.setattr(intake, name, held)

    async def send() -> Any:
        with door.room.request() as take:
            take(len(body))
            if signal == "traces":
                return await door.traces(body, "protobuf", "grpc")
            return await door.not_kept(signal, body, "protobuf", "grpc")

    gone = asyncio.create_task(send())
    await held.entered.wait()
    for _ in range(3):
        gone.cancel()
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await send()
    held.let.set()
    with pytest.raises(asyncio.CancelledError):
        await gone

    with door.room.request() as take:
        take(len(body))


async def test_who_leaves_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose sender leaves while it is decoded is written down, by the program that sent it."""
    writer = KeptSpans()
    door, held = Intake(writer), Held()
    monkeypatch.setattr(intake, "decode_together", held)
    gone = asyncio.create_task(door.traces(GOOD, "protobuf", "grpc", "sdk/1"))
    await held.entered.wait()
    gone.cancel()
    held.let.set()
    with pytest.raises(asyncio.CancelledError):
        await gone

    assert writer.refused == [("grpc", "left before it was stored", 0)]
    assert writer.examples == ["sdk/1"]


def test_the_event_loop_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything is cancelled while requests are decoded, nothing waits for them for ever."""

    async def begun() -> None:
        door, held = Intake(KeptSpans()), Held()
        monkeypatch.setattr(intake, "decode_together", held)
        sending.append(asyncio.create_task(door.traces(GOOD, "protobuf", "grpc")))
        await held.entered.wait()
        held.let.set()

    sending: list[asyncio.Task[Any]] = []
    asyncio.run(begun())

    assert sending[0].cancelled()


async def test_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody thought of reaches the request, and the next one is decoded."""
    door = Intake(KeptSpans())
    with monkeypatch.context() as patch:
        patch.setattr(intake, "decode_together", None)
        with pytest.raises(TypeError):
            await door.traces(GOOD, "protobuf", "grpc")
    await door.traces(GOOD, "protobuf", "grpc")


@pytest.mark.parametrize(("fault", "told"), [(MemoryError, Overloaded), (ZeroDivisionError, ZeroDivisionError)])
async def test_a_fault_is_only_its_own(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception], told: type[Exception]
) -> None:
    """Of requests that are decoded together, an error that nobody thought of reaches the one that makes it; one for
    whose decoding there is too little memory may come again."""

    def decode(waiting: Sequence[Any], answer: Callable[[list[Any]], Any]) -> None:
        if any(each.body == b"bad" for each in waiting):
            raise fault
        scanner.decode_together(waiting, answer)

    writer = KeptSpans()
    door = Intake(writer)
    monkeypatch.setattr(intake, "decode_together", decode)
    bodies = (GOOD, b"bad", GOOD)
    answers = await asyncio.gather(*(door.traces(body, "protobuf", "grpc") for body in bodies), return_exceptions=True)

    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]
    assert type(answers[1]) is told
    assert len(writer.tables) == 2


class Knowing(KeptSpans):
    """Remembers digests as the writer does."""

    def __init__(self) -> None:
        super().__init__()
        self.digests: list[str | None] = []

    async def submit(self, table: pa.Table, transport: str, digest: str | None = None) -> None:
        await super().submit(table, transport)
        self.digests.append(digest)

    def repeated(self, digest: str, transport: str) -> bool:
        return digest in self.digests


@pytest.mark.parametrize("size", [0, 3 * 1024 * 1024])
async def test_what_comes_again_is_not_decoded(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A request that was taken whole is answered by its digest, even where nothing more is let in; no other one is."""
    writer = Knowing()
    door = Intake(writer, Room(Limits(queue_s=0)))
    body = request(span(name="x" * size)).SerializeToString()
    await door.traces(body, "protobuf", "grpc")
    with monkeypatch.context() as busy, door.room.work(64 * 1024 * 1024):
        busy.setattr(intake, "decode_together", None)
        again = await door.traces(body, "protobuf", "http/protobuf")
        with pytest.raises(Overloaded):
            await door.traces(body + b"\x0a\x00", "protobuf", "grpc")
        with pytest.raises(Overloaded):
            await door.traces(body, "json", "http/json")

    assert not again.HasField("partial_success")  # type: ignore[attr-defined]
    assert len(writer.tables) == 1
    assert len(writer.digests[0] or "") == 32


async def test_what_was_refused_in_part_is_decoded_again() -> None:
    """Each time a request comes its sender is told what of it was refused."""
    writer = Knowing()
    door = Intake(writer)
    body = request(span(), span(span_id=b"")).SerializeToString()
    answers = [await door.traces(body, "protobuf", "grpc") for _ in range(2)]

    assert [answer.partial_success.rejected_spans for answer in answers] == [1, 1]  # type: ignore[attr-defined]
    assert writer.digests == [None, None]


@pytest.mark.parametrize(("error", "told"), [(None, 1), (Overloaded("busy"), 0), (DecodeError("no spans"), 1)])
async def test_what_comes_again_is_not_written_down_as_rejected(error: Exception | None, told: int) -> None:
    """A span that is rejected is in the ledger once, however often its request was told to come again before."""
    writer = KeptSpans(error)
    await asyncio.gather(
        Intake(writer).traces(request(span(), span(span_id=b"")).SerializeToString(), "protobuf", "grpc"),
        return_exceptions=True,
    )

    assert [(transport, count) for transport, _, count in writer.refused] == [("grpc", 1)] * told


async def test_logs_for_which_there_is_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may come again, as spans may."""

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(intake, "not_kept_response", fail)
    with pytest.raises(Overloaded):
        await Intake(KeptSpans()).not_kept("logs", b"", "protobuf", "grpc")


async def test_who_leaves_while_a_body_is_hashed_is_written_down() -> None:
    """Also a large request whose sender leaves at once is in the ledger."""
    writer = Knowing()
    leaving = asyncio.create_task(Intake(writer).traces(bytes(5 * 1024 * 1024), "protobuf", "grpc"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    assert writer.refused == [("grpc", "left before it was stored", 0)]
