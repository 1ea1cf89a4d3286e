"""Work in another process."""

import asyncio

import pytest

from telemetry.demo.child import Parent, child
from telemetry.errors import TelemetryError

pytestmark = pytest.mark.real


async def count_up_to(parent: Parent, limit: int) -> None:
    """Send 1, 2, … and end."""
    for number in range(1, limit + 1):
        parent.send(number)


async def wait_for_ever(parent: Parent) -> None:
    """Say so, and wait."""
    try:
        parent.send("waiting")
        await asyncio.get_running_loop().create_future()
    finally:
        await asyncio.sleep(0)


async def test_what_the_child_sends_arrives_in_order() -> None:
    """Everything that was sent is received, in order; then the end of the child is an error, not a hang."""
    async with child(count_up_to, 3) as counter:
        assert [await counter.receive() for _ in range(3)] == [1, 2, 3]
        with pytest.raises(TelemetryError, match="ended early"):
            await counter.receive()


async def test_the_child_leaves_with_the_block() -> None:
    """At the end of the block the child's work is cancelled and its process is gone."""
    async with asyncio.timeout(20):
        async with child(wait_for_ever) as waiting:
            assert await waiting.receive() == "waiting"


async def test_waiting_for_a_child_can_be_cancelled() -> None:
    """A parent that gives up waiting is not held back by the child."""
    async with asyncio.timeout(20):
        async with child(wait_for_ever) as waiting:
            await waiting.receive()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await waiting.receive()
