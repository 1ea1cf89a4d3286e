"""The server's end of one WebRTC session, with the faults that it can play."""

import asyncio
import re
import socket
from contextlib import suppress
from typing import Any, Final, Literal

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole

from telemetry.connector import ice
from telemetry.simulator.media import LoopTrack

Fault = Literal["unreachable", "no_candidates", "wrong_fingerprint", "no_media", "not_sdp"]
CLOSE_LIMIT_S: Final = 5.0
"""A peer that has not closed by then is left to its own deadlines; closing takes under 50 ms on loopback."""
_CANDIDATE: Final = re.compile(r"^a=candidate:.*\r?\n", re.MULTILINE)
_FINGERPRINT: Final = re.compile(r"^(a=fingerprint:sha-\d+ )([0-9A-Fa-f]{2})", re.MULTILINE)


class OfferRefused(Exception):
    """The client's offer cannot be used."""


class Peer:
    """One peer connection that sends the digital person and swallows what the user sends."""

    def __init__(self) -> None:
        # An empty list, because the default asks a public STUN server.
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._tracks = {kind: LoopTrack(kind) for kind in ("audio", "video")}
        self._sink = MediaBlackhole()
        self._connection.on("track", self._sink.addTrack)
        self._connection.on("connectionstatechange", self._state_changed)
        self._connected = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._well: socket.socket | None = None
        """Where candidates that lead nowhere lead: a socket that nobody reads."""

    async def answer(self, offer: str, fault: Fault | None) -> str:
        """Take the client's offer and return the SDP of the answer.

        Raises:
            OfferRefused: the offer is no SDP, or has no audio and video that we could send.
        """
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        except Exception as error:  # aiortc raises whatever its parser stumbles over, and the offer is hostile input.
            raise OfferRefused("the offer is not a usable session description") from error
        transceivers = self._connection.getTransceivers()
        if not any(transceiver.kind == "video" for transceiver in transceivers):
            raise OfferRefused("the offer has no video")
        for transceiver in transceivers:
            track = self._tracks[transceiver.kind]
            if fault == "no_media":
                track.pause()
            self._connection.addTrack(track)
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        if fault in ("unreachable", "no_candidates"):
            # At once, before the connecting task runs: otherwise our own checks would open a way for the client.
            self.vanish()
        await self._sink.start()
        sdp: str = self._connection.localDescription.sdp
        if fault == "unreachable":
            return _CANDIDATE.sub("", sdp).replace("a=end-of-candidates\r\n", self._candidate_to_nowhere())
        if fault == "no_candidates":
            return _CANDIDATE.sub("", sdp)
        if fault == "wrong_fingerprint":
            return _FINGERPRINT.sub(lambda found: f"{found[1]}{int(found[2], 16) ^ 0xFF:02X}", sdp)
        return "this is no SDP" if fault == "not_sdp" else sdp

    async def connected(self) -> None:
        """Wait until the peers are connected."""
        await self._connected.wait()

    def stop_media(self) -> None:
        """Send no more media over a connection that stays up."""
        for track in self._tracks.values():
            track.pause()

    def vanish(self) -> None:
        """Be gone without a last packet: abort the sockets under aioice, which offers no way of its own to vanish."""
        for transport in ice.transports(self._connection):
            for protocol in transport._connection._protocols:
                protocol.transport.abort()
                protocol.transport = _CutCable(protocol.transport)

    async def close(self) -> None:
        """Close in good order and leave no task and no socket. May be called again, and cancelled."""
        # One task, because aiortc waits for ever on a second close() after a first one that was cancelled.
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._sink.stop()
                await ice.close_connection(self._connection)
        for track in self._tracks.values():
            track.stop()
        if self._well is not None:
            self._well.close()

    def _state_changed(self) -> None:
        if self._connection.connectionState == "connected":
            self._connected.set()

    def _candidate_to_nowhere(self) -> str:
        self._well = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._well.bind(("127.0.0.1", 0))
        port = self._well.getsockname()[1]
        return f"a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host\r\na=end-of-candidates\r\n"


class _CutCable(asyncio.DatagramTransport):
    """A datagram transport that takes everything and delivers nothing."""

    def __init__(self, cut: asyncio.DatagramTransport) -> None:
        super().__init__()
        self._cut = cut

    def sendto(self, data: Any, addr: Any = None) -> None:
        pass

    def abort(self) -> None:
        self._cut.abort()

    def close(self) -> None:
        self._cut.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._cut.get_extra_info(name, default)
