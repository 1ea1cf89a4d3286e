"""The media half of a session: the peer connection and the user's own tracks. No other file knows aiortc and PyAV.

aiortc reports late and vaguely, so this file looks for itself: when the last packet came, whether a frame was decoded,
which pair was selected. What it cannot know is absent, never 0.
"""

import asyncio
import logging
import queue
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.contrib.media import MediaPlayer
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import SessionDescription
from av import AudioFrame, VideoFrame

from telemetry import semconv
from telemetry.connector.events import (
    AnswerApplied,
    DtlsConnected,
    FrameDecoded,
    IceCompleted,
    Input,
    Measured,
    OfferMade,
    PeerClosed,
    PeerFailed,
)
from telemetry.connector.ice import close_connection
from telemetry.connector.messages import IceServer
from telemetry.connector.plan import NS_PER_S
from telemetry.connector.round_trip import RoundTrip
from telemetry.semconv import Detail

FROZEN_MS: Final = 500
"""A gap between video frames is told from here on."""
WAITING_FRAMES: Final = {"video": 4, "audio": 50}
"""Frames that wait for the application, about a second of audio; when it is slower, the oldest are dropped."""

_log = logging.getLogger(__name__)


class Peer:
    """One peer connection that receives the digital person, and sends the user's tracks.

    Used by one event loop. What happens is told to `tell`, in order; nothing is told once `close` was called.
    """

    def __init__(self, tell: Callable[[Input], None], now_ns: Callable[[], int]) -> None:
        self._tell = tell
        self._now_ns = now_ns
        self._connection: RTCPeerConnection | None = None
        self._receivers: dict[str, RTCRtpReceiver] = {}
        self._gates: dict[str, DecoderGate] = {}
        self._screens: dict[str, Screen] = {}
        self._round_trip = RoundTrip()
        self._tasks: set[asyncio.Task[None]] = set()
        self._negotiating: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._ice_told = False
        self._frame_told = False
        self._seen: datetime | None = None
        self._seen_ns: int | None = None
        self._looked_ns: int | None = None

    async def make_offer(self, ice_servers: tuple[IceServer, ...], tracks: Mapping[str, MediaStreamTrack]) -> None:
        """Offer to receive audio and video and to send these tracks; tells `OfferMade` or `PeerFailed`."""
        await self._uncut(self._make_offer(ice_servers, tracks))

    async def apply_answer(self, sdp: str) -> None:
        """Take the server's answer; tells `AnswerApplied` or `PeerFailed`."""
        await self._uncut(self._apply_answer(sdp))

    def track(self, kind: str) -> "MediaStreamTrack | None":
        """The digital person's `video` or `audio`, from this moment on. None means that there is none.

        Asking for it starts the decoding of all frames.
        """
        screen = self._screens.get(kind)
        return screen.show() if screen else None

    def measure(self) -> Measured:
        """Look at the counters."""
        return Measured(self._media_seen_ns(), self._stats())

    async def close(self) -> None:
        """Leave no task, thread and socket. May be called again, and cancelled."""
        # One task, because aiortc waits for ever on a second close() after a first one that was cancelled.
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _uncut(self, step: Coroutine[Any, Any, None]) -> None:
        """Let a step of aiortc run to its end even when the caller is cancelled: cut short, it leaks sockets."""
        self._negotiating = asyncio.create_task(step)
        await asyncio.shield(self._negotiating)

    async def _make_offer(self, ice_servers: tuple[IceServer, ...], tracks: Mapping[str, MediaStreamTrack]) -> None:
        try:
            # An empty list stays one, because aiortc's default asks a public STUN server.
            servers = [RTCIceServer(server.urls, server.username, server.credential) for server in ice_servers]
            connection = self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
            connection.on("iceconnectionstatechange", self._ice_changed)
            connection.on("connectionstatechange", self._connection_changed)
            connection.on("track", self._track_came)
            for kind in ("audio", "video"):
                transceiver = connection.addTransceiver(
                    tracks.get(kind, kind), direction="sendrecv" if kind in tracks else "recvonly"
                )
                self._round_trip.listen(transceiver.sender)
            await connection.setLocalDescription(await connection.createOffer())
        except Exception as error:  # aiortc raises whatever it stumbles over in the server's list.
            _log.debug("no offer could be made", exc_info=error)
            self._say(PeerFailed(Detail.PROTOCOL_VIOLATION, "the server's list of ICE servers cannot be used"))
        else:
            self._say(OfferMade(connection.localDescription.sdp))

    async def _apply_answer(self, sdp: str) -> None:
        assert self._connection
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        except Exception as error:  # aiortc raises whatever its parser stumbles over, and the answer is hostile input.
            _log.debug("the answer cannot be used", exc_info=error)
            self._say(PeerFailed(Detail.SDP_REFUSED, "the server's answer cannot be used"))
        else:
            self._say(AnswerApplied())

    def _say(self, input: Input) -> None:
        if self._closing is None:
            self._tell(input)

    def _ice_changed(self) -> None:
        if self._connection and self._connection.iceConnectionState == "completed" and not self._ice_told:
            self._ice_told = True
            self._say(IceCompleted(self._selected_pair() | self._codec()))

    def _connection_changed(self) -> None:
        state = self._connection.connectionState if self._connection else "new"
        if state == "connected":
            self._ice_changed()
            self._say(DtlsConnected())
        elif state == "failed":
            self._say(PeerFailed())
        elif state == "closed":
            # aiortc also says `closed` when the other side vanished long ago; that it was not us is all we know.
            self._say(PeerClosed())

    def _track_came(self, track: MediaStreamTrack) -> None:
        assert self._connection
        for transceiver in self._connection.getTransceivers():
            if transceiver.receiver.track is track and track.kind not in self._screens:
                self._receivers[track.kind] = transceiver.receiver
                gate = self._gates[track.kind] = DecoderGate.before(transceiver.receiver, self._now_ns)
                gate.opened = track.kind == "video"
                screen = self._screens[track.kind] = Screen(track, gate)
                self._run(screen.run(self._frame_came))

    def _frame_came(self, kind: str) -> None:
        if kind == "video" and not self._frame_told:
            self._frame_told = True
            self._say(FrameDecoded())

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self) -> None:
        for screen in self._screens.values():
            screen.stop()
        if self._negotiating:
            await asyncio.wait([self._negotiating])
        if self._connection:
            await close_connection(self._connection)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What aiortc does not tell.

    def _media_seen_ns(self) -> int | None:
        """When the last media packet came, on our own clock."""
        now_ns = self._now_ns()
        latest = max(
            (
                source.timestamp
                for receiver in self._receivers.values()
                for source in receiver.getSynchronizationSources()
            ),
            default=None,
        )
        if latest is not None and latest != self._seen:
            # aiortc stamps packets with the wall clock. That a stamp changed is certain whatever that clock did;
            # its age is believed only as far back as the last look.
            age_ns = round((datetime.now(UTC) - latest).total_seconds() * NS_PER_S)
            longest_ns = now_ns - (self._looked_ns or now_ns)
            self._seen, self._seen_ns = latest, now_ns - min(max(age_ns, 0), longest_ns)
        self._looked_ns = now_ns
        return self._seen_ns

    def _selected_pair(self) -> dict[str, Any]:
        """What is known of the selected pair; empty when aioice keeps it elsewhere than where we look."""
        try:
            assert self._connection
            ice = next(iter(self._connection.getTransceivers())).receiver.transport.transport._connection
            pair = next(iter(ice._nominated.values()))
            local, remote = pair.local_candidate, pair.remote_candidate
            found = {
                semconv.ICE_LOCAL_TYPE: str(local.type),
                semconv.ICE_REMOTE_TYPE: str(remote.type),
                semconv.ICE_LOCAL_PROTOCOL: str(local.transport),
                semconv.ICE_RELAY: "relay" in (local.type, remote.type),
            }
            if local.type == "relay":
                found[semconv.ICE_RELAY_PROTOCOL] = str(ice.turn_transport)
            return found
        except (AttributeError, StopIteration):
            return {}

    def _codec(self) -> dict[str, Any]:
        """What video comes in: the first codec of the answer, since senders use the one that both sides prefer."""
        assert self._connection
        for media in SessionDescription.parse(self._connection.remoteDescription.sdp).media:
            if media.kind == "video" and media.rtp.codecs:
                return {semconv.VIDEO_CODEC: str(media.rtp.codecs[0].mimeType)}
        return {}

    def _stats(self) -> dict[str, Any]:
        """W3C statistics by our names."""
        found: dict[str, Any] = {}
        for kind, receiver in self._receivers.items():
            received, lost, jitter = _INBOUND[kind]
            for stat in _at_once(receiver.getStats()):
                if stat.type == "transport":
                    found[semconv.BYTES_RECEIVED] = stat.bytesReceived
                    found[semconv.BYTES_SENT] = stat.bytesSent
            stream = _main_stream(receiver)
            if stream is not None:
                found[received] = stream.packets_received
                found[lost] = stream.packets_lost
                # aiortc counts jitter in units of the RTP clock; W3C in seconds.
                found[jitter] = stream.jitter / _CLOCK_HZ[kind]
        if self._round_trip.seconds is not None:
            found[semconv.RTT_S] = self._round_trip.seconds
        gate = self._gates.get("video")
        if gate and gate.frame_ns is not None:
            gap_ms = (self._now_ns() - gate.frame_ns) // 1_000_000
            if gap_ms > FROZEN_MS:
                found[semconv.VIDEO_FROZEN_MS] = gap_ms
            if gate.passed_all:
                found[semconv.VIDEO_FRAMES_DECODED] = self._screens["video"].frames
        return found


def _at_once(stats: Coroutine[Any, Any, Any]) -> list[Any]:
    """The rows of a `getStats()`, which is a coroutine by its signature only; none, should it begin to wait one day."""
    try:
        stats.send(None)
    except StopIteration as done:
        return list(done.value.values())
    stats.close()
    return []


def _main_stream(receiver: RTCRtpReceiver) -> Any:
    """The counters of a receiver's media, None when there are none.

    `getStats()` keeps one row for all streams, so after the first retransmission it tells those of the retransmissions.
    """
    streams: Mapping[int, Any] = getattr(receiver, _STREAMS, {})
    return max(streams.values(), key=lambda stream: stream.packets_received, default=None)


_INBOUND: Final = {
    "video": (semconv.VIDEO_PACKETS_RECEIVED, semconv.VIDEO_PACKETS_LOST, semconv.VIDEO_JITTER_S),
    "audio": (semconv.AUDIO_PACKETS_RECEIVED, semconv.AUDIO_PACKETS_LOST, semconv.AUDIO_JITTER_S),
}
_CLOCK_HZ: Final = {"video": 90_000, "audio": 48_000}
"""RTP clocks of video (RFC 3551) and of Opus (RFC 7587)."""


class DecoderGate(queue.Queue):  # type: ignore[type-arg]
    """Stands between a receiver and its decoder thread, and lets frames pass only while somebody watches.

    aiortc decodes every frame and keeps it for ever if nobody takes it. Packets are counted before the gate,
    so that a closed one costs neither statistics nor the clock of the last packet.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        super().__init__()
        self._now_ns = now_ns
        self.opened = True
        self.passed_all = True
        """Whether it was never closed when a frame came: else nobody knows how many frames there were to decode."""
        self.frame_ns: int | None = None
        """When the last complete frame came. None means that none did."""

    @classmethod
    def before(cls, receiver: RTCRtpReceiver, now_ns: Callable[[], int]) -> "DecoderGate":
        """Put a gate before the decoder of a receiver that has not begun.

        Should aiortc keep its queue elsewhere one day, the gate stands alone and everything is decoded.
        """
        gate = cls(now_ns)
        if hasattr(receiver, _DECODER_QUEUE):
            setattr(receiver, _DECODER_QUEUE, gate)
        return gate

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Pass a frame on, or drop it. None, the end, always passes."""
        if item is not None:
            self.frame_ns = self._now_ns()
            if not self.opened:
                self.passed_all = False
                return
        super().put(item, block, timeout)


_DECODER_QUEUE: Final = "_RTCRtpReceiver__decoder_queue"
_STREAMS: Final = "_RTCRtpReceiver__remote_streams"
"""Where aiortc 1.16 keeps them. Both have a way to do without."""


class Screen:
    """Takes the decoded frames of one remote track: tells of each, hands them to whoever watches, drops the rest."""

    def __init__(self, track: MediaStreamTrack, gate: DecoderGate) -> None:
        self._track = track
        self._gate = gate
        self._watcher: Watcher | None = None
        self.frames = 0
        """Decoded so far."""

    async def run(self, came: Callable[[str], None]) -> None:
        """Take frames until the track ends."""
        with suppress(MediaStreamError):
            while True:
                frame = await self._track.recv()
                self.frames += 1
                came(self._track.kind)
                if self._watcher is None or self._watcher.readyState != "live":
                    self._gate.opened = False
                else:
                    self._watcher.offer(frame)
        self.stop()

    def show(self) -> MediaStreamTrack:
        """A track with the frames from here on; the same one until it is stopped."""
        if self._watcher is None or self._watcher.readyState != "live":
            self._watcher = Watcher(self._track.kind)
            # A decoder that missed frames asks the sender for a key frame by itself.
            self._gate.opened = True
        return self._watcher

    def stop(self) -> None:
        """End the track that was shown."""
        if self._watcher:
            self._watcher.offer(None)


class Watcher(MediaStreamTrack):
    """The application's end of a remote track. Keeps the newest frames only: a slow application cannot fill memory."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._frames: asyncio.Queue[Any] = asyncio.Queue(WAITING_FRAMES[kind])

    def offer(self, frame: Any) -> None:
        """Keep a frame; None is the end."""
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(frame)

    async def recv(self) -> Any:
        """The next frame.

        Raises:
            MediaStreamError: the track has ended.
        """
        if self.readyState != "live":
            raise MediaStreamError
        frame = await self._frames.get()
        if frame is None:
            self.stop()
            raise MediaStreamError
        return frame


# The user's media.

Track = MediaStreamTrack
MediaSource = Callable[[str], Track]
"""Opens the user's `audio` or `video`; may block; raises `MediaUnavailable`."""
_CODEC: Final = {"audio": "libopus", "video": "libvpx"}


class MediaUnavailable(Exception):
    """The user's microphone or camera cannot be had."""

    def __init__(self, detail: Detail, text: str = "") -> None:
        super().__init__(text or detail)
        self.detail = detail
        self.text = text


def media_source(given: "str | Path | MediaSource | None") -> MediaSource:
    """The source that a short word names: `devices` (also None), `synthetic`, or the path of a media file."""
    if given is None or given == "devices":
        return devices()
    if given == "synthetic":
        return synthetic
    if isinstance(given, str | Path):
        return media_file(given)
    return given


def open_track(source: MediaSource, kind: str) -> MediaStreamTrack:
    """Open the user's `audio` or `video`. Blocks for as long as the device needs.

    Raises:
        MediaUnavailable: it cannot be opened, or this runtime cannot carry it.
    """
    try:
        av.Codec(_CODEC[kind], "w")
    except ValueError as error:
        raise MediaUnavailable(Detail.CODEC_MISSING, f"no encoder {_CODEC[kind]}") from error
    try:
        track = source(kind)
    except MediaUnavailable:
        raise
    except Exception as error:
        raise MediaUnavailable(_detail_of(error), type(error).__name__) from error
    if track is None:
        raise MediaUnavailable(Detail.DEVICE_NOT_FOUND, f"the source has no {kind}")
    return track


def _detail_of(error: Exception) -> Detail:
    if isinstance(error, PermissionError):
        return Detail.PERMISSION_DENIED
    if isinstance(error, OSError):
        # 2 ENOENT, 6 ENXIO, 19 ENODEV; 16 EBUSY, 11 EAGAIN: the numbers are those of Linux and macOS.
        if error.errno in (2, 6, 19):
            return Detail.DEVICE_NOT_FOUND
        if error.errno in (11, 16, 35):
            return Detail.DEVICE_IN_USE
        return Detail.DEVICE_FAILED
    # PyAV's ValueError that is not an FFmpegError: no such capture format in this build.
    capture = isinstance(error, ValueError) and not isinstance(error, av.FFmpegError)
    return Detail.CAPTURE_MISSING if capture else Detail.DEVICE_FAILED


DEVICES: Final = {
    "linux": {"audio": ("default", "alsa"), "video": ("/dev/video0", "v4l2")},
    "darwin": {"audio": ("none:default", "avfoundation"), "video": ("default:none", "avfoundation")},
    "win32": {"audio": ("audio=default", "dshow"), "video": ("video=Integrated Camera", "dshow")},
}
"""The usual device and FFmpeg's capture format, by `sys.platform`."""


def devices(*, microphone: str | None = None, camera: str | None = None) -> MediaSource:
    """The user's own devices, by FFmpeg's names. None means the platform's usual one."""

    def open(kind: str) -> Any:
        usual, capture = DEVICES.get(sys.platform, {}).get(kind, (None, None))
        if capture is None:
            raise MediaUnavailable(Detail.CAPTURE_MISSING, f"no capture format is known for {sys.platform}")
        player = MediaPlayer((microphone if kind == "audio" else camera) or usual, format=capture)
        return player.audio if kind == "audio" else player.video

    return open


def media_file(path: str | Path) -> MediaSource:
    """A file that plays in a loop."""

    def open(kind: str) -> Any:
        player = MediaPlayer(str(path), loop=True)
        return player.audio if kind == "audio" else player.video

    return open


def synthetic(kind: str) -> MediaStreamTrack:
    """Silence, or a small grey picture: enough to be sent, cheap enough for hundreds of sessions."""
    return SilentTrack() if kind == "audio" else GreyTrack()


class _PacedTrack(MediaStreamTrack):
    """A track that gives a frame every `interval_s`."""

    interval_s: float

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._start_s = 0.0

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._count == 0:
            self._start_s = loop.time()
        await asyncio.sleep(self._start_s + self._count * self.interval_s - loop.time())
        self._count += 1
        return self.frame(self._count - 1)

    def frame(self, number: int) -> AudioFrame | VideoFrame:
        raise NotImplementedError


class SilentTrack(_PacedTrack):
    """Silence as Opus likes it."""

    kind = "audio"
    interval_s = 0.02

    def frame(self, number: int) -> AudioFrame:
        frame = AudioFrame(format="s16", layout="mono", samples=960)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.sample_rate, frame.time_base = number * 960, 48_000, Fraction(1, 48_000)
        return frame


class GreyTrack(_PacedTrack):
    """A small grey picture, five times a second."""

    kind = "video"
    interval_s = 0.2

    def frame(self, number: int) -> VideoFrame:
        frame = VideoFrame(width=160, height=120)
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts, frame.time_base = number * 18_000, Fraction(1, 90_000)
        return frame
