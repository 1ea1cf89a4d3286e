"""Closing while ICE is under way."""

import asyncio

import pytest
from aiortc import RTCPeerConnection, RTCRtpTransceiver

from telemetry.connector import ice

pytestmark = pytest.mark.real


async def connecting() -> tuple[RTCPeerConnection, RTCPeerConnection]:
    """Two peers that have exchanged what they need."""
    one, other = RTCPeerConnection(), RTCPeerConnection()
    one.addTransceiver("audio")
    await one.setLocalDescription(await one.createOffer())
    await other.setRemoteDescription(one.localDescription)
    await other.setLocalDescription(await other.createAnswer())
    await one.setRemoteDescription(other.localDescription)
    return one, other


async def test_closed_as_the_checks_succeed() -> None:
    """Nobody asks for consent on a connection that was closed in the moment in which its checks had succeeded."""
    before = asyncio.all_tasks()
    one, other = await connecting()
    (transport,) = ice.transports(one)
    async with asyncio.timeout(5):
        while not transport._connection._check_list_done:  # noqa: ASYNC110  # aioice tells nobody
            await asyncio.sleep(0)

    assert one.iceConnectionState == "checking"
    await asyncio.gather(ice.close_connection(one), ice.close_connection(other))

    left = [task for task in asyncio.all_tasks() - before if not task.done()]
    assert not [task for task in left if "query_consent" in repr(task)]


async def test_closed_as_media_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Media that began while the connection was closing, after they were stopped, do not go on."""
    before = asyncio.all_tasks()
    stop = RTCRtpTransceiver.stop

    async def stop_and_wait(transceiver: RTCRtpTransceiver) -> None:
        await stop(transceiver)
        while transceiver.receiver.transport.state in ("new", "connecting"):  # noqa: ASYNC110  # nobody tells it
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)

    monkeypatch.setattr(RTCRtpTransceiver, "stop", stop_and_wait)
    one, other = await connecting()
    async with asyncio.timeout(5):
        await asyncio.gather(ice.close_connection(one), ice.close_connection(other))

    left = [task for task in asyncio.all_tasks() - before if not task.done()]
    assert not [task for task in left if "_run_rtcp" in repr(task) or "_run_rtp" in repr(task)]
