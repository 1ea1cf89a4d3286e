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
        async def submit(self, table: pa.Table, transport: str) -> None:
            stored.set()
            await super().submit(table, transport)

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
