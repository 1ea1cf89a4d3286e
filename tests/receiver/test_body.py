"""A body is put together of what arrives, decompressed and counted piece by piece."""

import asyncio
import gzip
import random

import pytest

from telemetry.errors import Overloaded, PayloadTooLarge
from telemetry.receiver.body import _INFLATE_STEP, Body, Inflate
from telemetry.receiver.room import Limits

NOISE = random.Random(1).randbytes(3_000_000)


@pytest.mark.parametrize("plain", [NOISE, bytes(5_000_000), b"x", b""], ids=["noise", "zeros", "short", "empty"])
async def test_whole(plain: bytes) -> None:
    """However a body arrives, it is what was sent, and each of its bytes is counted once."""
    folded = gzip.compress(plain, 1)
    for step in (70_000, len(folded)):
        counted: list[int] = []
        body = Body(Limits(), counted.append, gzip=True)
        for at in range(0, len(folded), step):
            await body.add(folded[at : at + step])

        assert body.whole() == plain
        assert sum(counted) == len(plain)


def test_pieces_are_small() -> None:
    """Others get their turn after each piece, and no piece is large."""
    pieces = list(Inflate(Limits()).feed(gzip.compress(NOISE, 1)))

    assert len(pieces) > 1
    assert max(map(len, pieces)) <= _INFLATE_STEP


async def test_gzip_that_makes_nothing() -> None:
    """Of gzip that unfolds to nothing no more than 64 KB is read before others get their turn."""
    nothing = gzip.compress(b"")[:10] + b"\x00\x00\x00\xff\xff" * 200_000
    body = Body(Limits(), lambda count: None, gzip=True)
    adding = asyncio.create_task(body.add(nothing))
    turns = 0
    while not adding.done():
        turns += 1
        await asyncio.sleep(0)

    assert turns > len(nothing) // 65_536


async def test_stops_at_the_limit() -> None:
    """Of a bomb no more is unfolded than the limit allows; without room for it, nothing at all."""
    bomb = gzip.compress(bytes(50_000_000))
    counted: list[int] = []
    with pytest.raises(PayloadTooLarge):
        await Body(Limits(max_body_bytes=2_000_000), counted.append, gzip=True).add(bomb)

    def full(count: int) -> None:
        counted.append(count)
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        await Body(Limits(), full, gzip=True).add(bomb)

    assert sum(counted) <= 2_000_000 + _INFLATE_STEP
