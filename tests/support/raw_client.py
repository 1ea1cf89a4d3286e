"""A client of the signalling protocol without the connector: a bare WebSocket and a bare aiortc peer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from websockets import ConnectionClosed
from websockets.asyncio.client import ClientConnection, connect

from telemetry.connector import messages
from telemetry.connector.messages import SUBPROTOCOL, Message


class RawClient:
    """One connection; the peer is made when it is asked for."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.tracks: dict[str, MediaStreamTrack] = {}
        self.peer.on("track", lambda track: self.tracks.update({track.kind: track}))

    async def say(self, message: Message) -> None:
        """Send one message."""
        await self.socket.send(messages.encode(message))

    async def hear(self) -> Message:
        """The next message of the server."""
        return messages.decode(await self.socket.recv())

    async def hear_until(self, kind: type[Message]) -> list[Message]:
        """The messages up to and with the first one of a kind."""
        heard = [await self.hear()]
        while not isinstance(heard[-1], kind):
            heard.append(await self.hear())
        return heard

    async def offer(self, *kinds: str) -> None:
        """Offer to receive audio and video, or what is named."""
        for kind in kinds or ("audio", "video"):
            self.peer.addTransceiver(kind, direction="recvonly")
        await self.peer.setLocalDescription(await self.peer.createOffer())
        await self.say(messages.Offer(self.peer.localDescription.sdp))

    async def connect_peer(self) -> None:
        """Offer, and take the answer."""
        await self.offer()
        *_, answer = await self.hear_until(messages.Answer)
        assert isinstance(answer, messages.Answer)
        await self.peer.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))

    async def peer_state(self, *wanted: str) -> str:
        """Wait until the peer connection is in one of these states."""
        reached = asyncio.Event()

        def look() -> None:
            if self.peer.connectionState in wanted:
                reached.set()

        self.peer.on("connectionstatechange", look)
        look()
        await reached.wait()
        return str(self.peer.connectionState)

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait until the server closes; its code and reason."""
        with suppress(ConnectionClosed):
            while True:
                await self.socket.recv()
        return self.socket.close_code, self.socket.close_reason


@asynccontextmanager
async def raw_client(
    url: str, *, hello: bool = True, resume: str | None = None, **options: Any
) -> AsyncIterator[RawClient]:
    """A connected client that has said hello; it says nothing when it leaves."""
    options = {"subprotocols": [SUBPROTOCOL], "compression": None, "proxy": None} | options
    async with connect(url, **options) as socket:
        client = RawClient(socket)
        try:
            if hello:
                await client.say(messages.Hello("attempt-1", "raw", resume=resume))
            yield client
        finally:
            await client.peer.close()
