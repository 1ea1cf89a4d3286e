"""What aiortc leaves to its callers: to end a connection without a task that lives on."""

import asyncio
from typing import Final

from aiortc import RTCIceTransport, RTCPeerConnection

CHECK_INTERVAL_S: Final = 0.03
"""aioice looks every 20 ms whether its checks have ended; until then a task of aiortc's lives on."""


async def close_connection(connection: RTCPeerConnection) -> None:
    """Close it, and leave no task.

    Closing takes several steps, between which connecting goes on. Media that begin after they were stopped would go on
    for ever: so all are stopped again. And where the checks had just succeeded, aioice finds that out after it was
    closed, and would ask the other side for its consent for half a minute: so what it began then is closed, too.
    """
    checking = connection.iceConnectionState in ("new", "checking")
    await connection.close()
    for transceiver in connection.getTransceivers():
        await transceiver.stop()
    if checking:
        await asyncio.sleep(CHECK_INTERVAL_S)
        for transport in transports(connection):
            await transport._connection.close()


def transports(connection: RTCPeerConnection) -> set[RTCIceTransport]:
    """Those that its media take, one where they are bundled."""
    return {transceiver.receiver.transport.transport for transceiver in connection.getTransceivers()}
