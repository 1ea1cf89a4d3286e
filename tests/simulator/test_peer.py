"""The server's end of a WebRTC session: hostile offers, faults, and a clean end."""

import asyncio
import gc

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from websockets import ConnectionClosed

from telemetry.connector import messages
from telemetry.simulator.peer import Peer
from telemetry.simulator.server import Simulator
from tests.support.raw_client import raw_client

pytestmark = pytest.mark.real

FAST = 50.0


@pytest.mark.parametrize("offer", ["", "v=0", "v=0\r\nm=video", "\x00" * 100], ids=["empty", "short", "cut", "zeros"])
async def test_offer_that_is_no_sdp(offer: str) -> None:
    """An offer that cannot be used is answered with 4415, and the server goes on."""
    async with Simulator(speed=FAST) as simulator:
        async with raw_client(simulator.url("steady")) as client:
            await client.hear_until(messages.Ready)
            await client.say(messages.Offer(offer))
            assert (await client.closed())[0] == 4415
        async with raw_client(simulator.url("steady")) as client:
            assert isinstance(await client.hear(), messages.Accepted)


async def test_offer_without_video() -> None:
    """An offer that does not ask for video is answered with 4415."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url("steady")) as client:
        await client.hear_until(messages.Ready)
        await client.offer("audio")

        assert await client.closed() == (4415, "the offer has no video")


@pytest.mark.parametrize("name", ["wrong_fingerprint", "no_candidates"])
async def test_answers_that_cannot_connect(name: str) -> None:
    """A wrong fingerprint or no candidates make the client's peer fail at once."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url(name)) as client:
        await client.hear_until(messages.Ready)
        await client.connect_peer()

        assert await client.peer_state("failed", "connected") == "failed"


async def test_unreachable_answer_stays_open() -> None:
    """Candidates that lead nowhere keep the client's checks going: no answer, and no refusal either."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url("never_answers_ice")) as client:
        await client.hear_until(messages.Ready)
        await client.connect_peer()
        await client.hear_until(messages.Started)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.peer_state("failed", "connected", "closed")


async def test_death_takes_the_peer_along() -> None:
    """A server that dies leaves the client without a closing handshake and without a last packet of its peer."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url("dies_connected")) as client:
        await client.hear_until(messages.Ready)
        await client.connect_peer()
        with pytest.raises(ConnectionClosed):
            await client.hear_until(messages.Bye)

        assert client.socket.close_code == 1006
        assert client.peer.connectionState in ("connecting", "connected")


async def test_no_socket_is_left_behind() -> None:
    """After sessions of all kinds, no peer's socket waits for the garbage collector to close it."""
    async with Simulator(speed=FAST) as simulator:
        for name in ("steady", "never_answers_ice", "hangs_up_media", "no_media"):
            async with raw_client(simulator.url(name)) as client:
                await client.hear_until(messages.Ready)
                await client.connect_peer()
    gc.collect()  # A socket left open warns here, and warnings are errors.


async def test_close_that_is_cancelled_still_closes() -> None:
    """A close() that is cancelled goes on, and a second one waits for it: no task is left."""
    before = asyncio.all_tasks()
    client = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    client.addTransceiver("video", direction="recvonly")
    await client.setLocalDescription(await client.createOffer())
    peer = Peer()
    await peer.answer(client.localDescription.sdp, None)
    first = asyncio.create_task(peer.close())
    await asyncio.sleep(0)
    first.cancel()
    await peer.close()
    await client.close()
    await asyncio.gather(first, return_exceptions=True)

    assert first.cancelled()
    assert asyncio.all_tasks() - before == set()
