"""One client's connection, over a real socket: what the client may say, and when."""

import pytest

from telemetry.connector import messages
from telemetry.simulator.server import Simulator
from tests.support.raw_client import raw_client

pytestmark = pytest.mark.real

FAST = 50.0


async def test_queue_positions_count_down() -> None:
    """A client that is admitted from the queue hears its positions go down to 1 first."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url("queue_admitted")) as client:
        *queued, accepted = await client.hear_until(messages.Accepted)

        assert [message.position for message in queued] == [3, 2, 1]
        assert isinstance(accepted, messages.Accepted)


async def test_persisted_session_is_resumed() -> None:
    """A session left with `keep` or lost is resumed by its id; one that was ended is replaced by another."""
    async with Simulator(speed=FAST) as simulator:

        async def visit(resume: str | None, farewell: messages.Bye | None) -> messages.Accepted:
            async with raw_client(simulator.url("steady"), resume=resume) as client:
                accepted = await client.hear()
                if farewell:
                    await client.say(farewell)
                    await client.closed()
                assert isinstance(accepted, messages.Accepted)
            return accepted

        first = await visit(None, messages.Bye(keep=True))
        second = await visit(first.session_id, None)
        third = await visit(second.session_id, messages.Bye(keep=False))
        fourth = await visit(third.session_id, None)

        assert (first.session_id, first.resumed) != (second.session_id, second.resumed)
        assert (second.session_id, second.resumed) == (first.session_id, True)
        assert (third.session_id, third.resumed) == (first.session_id, True)
        assert fourth.session_id != first.session_id
        assert not fourth.resumed


async def test_idle_session_ends() -> None:
    """Activity keeps a session with a time limit alive; without it the server closes with 4001."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url("idle_timeout")) as client:
        accepted = await client.hear()
        await client.hear_until(messages.Ready)
        await client.connect_peer()
        await client.say(messages.Activity())

        assert isinstance(accepted, messages.Accepted)
        assert accepted.idle_limit_ms == 500
        assert await client.closed() == (4001, "no interaction")


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"hello"}',
        "{junk",
        '{"type":"offer","sdp":"v=0"}',
        b"binary",
        '{"type":"queued","position":1}',
    ],
)
async def test_client_that_breaks_the_protocol(frame: str | bytes) -> None:
    """Junk and messages out of order are answered with 4400, as first message and after hello."""
    async with Simulator() as simulator:
        for hello in (False, True):
            async with raw_client(simulator.url("silent"), hello=hello) as client:
                await client.socket.send(frame)
                assert (await client.closed())[0] == 4400


async def test_client_that_says_too_much() -> None:
    """A message above the protocol's limit is answered with 1009."""
    async with Simulator() as simulator, raw_client(simulator.url("silent")) as client:
        await client.socket.send("x" * (messages.MAX_MESSAGE_BYTES + 1))

        assert (await client.closed())[0] == 1009
