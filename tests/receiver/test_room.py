"""What is let in: bodies that arrive slowly make way, and no more waits than is soon done."""

import asyncio
from typing import Any

import pytest

from telemetry.errors import Overloaded
from telemetry.receiver import room as room_module
from telemetry.receiver.answers import Refusal
from telemetry.receiver.intake import Intake
from telemetry.receiver.room import Limits, Room
from tests.support.otlp import request, span
from tests.support.receiving import KeptSpans

GOOD = request(span()).SerializeToString()


async def arrive(room: Room, seconds: float) -> str:
    """Have a body arrive for so long; says how that ended."""
    try:
        async with room.arriving():
            await asyncio.sleep(seconds)
    except (Refusal, Overloaded) as error:
        return type(error).__name__
    return "whole"


async def test_one_slow_body_gives_way_at_a_time() -> None:
    """Where two wait for the places of two slow bodies, the older of these gives way to who waited first."""
    room = Room(Limits(slow_s=0.2), at_once=2)
    ended = await asyncio.gather(*(arrive(room, seconds) for seconds in (9, 0.3, 0, 0)))

    assert ended == ["Refusal", "whole", "whole", "whole"]


async def test_no_place_comes_free() -> None:
    """Who waits for a place in vain is told to come again before its sender gives up."""
    room = Room(Limits(place_s=0.1), at_once=1)
    ended = await asyncio.gather(arrive(room, 0.3), arrive(room, 0))

    assert ended == ["whole", "Overloaded"]


async def test_a_slow_body_keeps_its_place() -> None:
    """Where nobody waits long, a slow body takes the time that it needs."""
    room = Room(Limits(slow_s=0.2), at_once=2)
    slow = asyncio.create_task(arrive(room, 0.6))
    await asyncio.sleep(0)
    ended = [await arrive(room, 0.05) for _ in range(10)]

    assert {*ended, await slow} == {"whole"}


async def test_no_more_than_is_soon_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies of any size are let in until so much waits that the next would wait long, as fast as it went lately."""
    writer = KeptSpans()
    writer.held.clear()
    door = Intake(writer)
    body = GOOD + b"\x9a\x06" + b"\x80\x80\x80\x03" + bytes(6 * 1024 * 1024)  # a field that nobody knows

    async def let_in(count: int) -> tuple[list[asyncio.Task[Any]], bool]:
        sent = [asyncio.create_task(door.traces(body, "protobuf", "grpc")) for _ in range(count)]
        await asyncio.wait(sent, timeout=0.1)
        return sent, any(task.done() for task in sent)

    sent, refused = await let_in(3)
    more, refused_more = await let_in(1)
    monkeypatch.setattr(room_module, "_MEASURE_S", 0.0)
    writer.held.set()
    await asyncio.gather(*sent)
    writer.held.clear()
    many, refused_many = await let_in(8)
    writer.held.set()
    await asyncio.gather(*many)

    assert [refused, refused_more, refused_many] == [False, True, False]
    assert isinstance(more[0].exception(), Overloaded)
    assert len(writer.tables) == 11
