"""The digital person's voice and face: a short generated loop, encoded once per process and sent to every session.

Every video frame is a key frame, so a session may begin anywhere in the loop and decode at once.
Encoding costs as much as everything else a session does here; sharing the packets lets one core carry many sessions.
"""

import asyncio
import math
import time
from fractions import Fraction
from functools import cache
from typing import Any, Final

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, CodecContext, Packet, VideoFrame
from av.video.frame import PictureType

WIDTH: Final = 128
HEIGHT: Final = 96
FRAMES_PER_S: Final = 10
LOOP_S: Final = 1.2
AUDIO_RATE_HZ: Final = 48_000
AUDIO_PACKET_MS: Final = 60
"""The longest Opus packet: a third of the packets of the usual 20 ms, and packets are what a session costs."""
VIDEO_TIME_BASE: Final = Fraction(1, 90_000)
AUDIO_TIME_BASE: Final = Fraction(1, AUDIO_RATE_HZ)
TONE_HZ: Final = 220.0


class LoopTrack(MediaStreamTrack):
    """One session's playback of a shared loop of encoded packets.

    Used by one peer's event loop only.
    The first two packets go out at once: a receiver can show a frame only when it has seen the next one begin.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "video":
            self._packets, self._interval_s, self._time_base = video_loop(), 1 / FRAMES_PER_S, VIDEO_TIME_BASE
        else:
            self._packets, self._interval_s, self._time_base = audio_loop(), AUDIO_PACKET_MS / 1000, AUDIO_TIME_BASE
        self._sent = 0
        self._started_s = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()

    def pause(self) -> None:
        """Send nothing more; the connection itself stays up."""
        self._flowing.clear()

    async def recv(self) -> "Packet[Any]":
        """Wait until the next packet is due, and return it.

        Raises:
            MediaStreamError: the track was stopped.
        """
        if self._sent == 0:
            self._started_s = time.monotonic()
        due_s = self._started_s + max(0, self._sent - 1) * self._interval_s
        await asyncio.sleep(due_s - time.monotonic())
        await self._flowing.wait()
        if self.readyState != "live":
            raise MediaStreamError
        packet = Packet(self._packets[self._sent % len(self._packets)])
        packet.pts = round(self._sent * self._interval_s / self._time_base)
        packet.time_base = self._time_base
        self._sent += 1
        return packet


@cache
def video_loop() -> tuple[bytes, ...]:
    """One VP8 key frame per element: a face whose mouth opens and closes."""
    encoder = CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base = Fraction(1, FRAMES_PER_S)
    encoder.bit_rate = 100_000
    encoder.gop_size = 1
    encoder.options = {"deadline": "realtime", "lag-in-frames": "0", "cpu-used": "8"}
    count = round(LOOP_S * FRAMES_PER_S)
    packets = []
    for number in range(count):
        frame = _face(0.5 - 0.5 * math.cos(2 * math.pi * number / count))
        frame.pts, frame.time_base, frame.pict_type = number, encoder.time_base, PictureType.I
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return tuple(packets)


@cache
def audio_loop() -> tuple[bytes, ...]:
    """One Opus packet per element: a soft tone that swells and fades."""
    encoder = CodecContext.create("libopus", "w")
    encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", AUDIO_RATE_HZ
    encoder.time_base = AUDIO_TIME_BASE
    encoder.bit_rate = 24_000
    encoder.options = {"application": "voip", "frame_duration": str(AUDIO_PACKET_MS)}
    encoder.open()
    samples = AUDIO_RATE_HZ * AUDIO_PACKET_MS // 1000
    count = round(LOOP_S * 1000 / AUDIO_PACKET_MS)
    at_s = np.arange(samples * count) / AUDIO_RATE_HZ
    wave = 4000 * np.sin(2 * np.pi * TONE_HZ * at_s) * np.sin(np.pi * at_s / LOOP_S)
    packets = []
    for number, chunk in enumerate(np.split(wave.astype(np.int16), count)):
        frame = AudioFrame.from_ndarray(chunk.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE_HZ, number * samples, AUDIO_TIME_BASE
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return tuple(packets)


def _face(mouth: float) -> VideoFrame:
    """Draw a face; `mouth` runs from 0, closed, to 1, open."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    luma = np.full((HEIGHT, WIDTH), 60, np.uint8)
    luma[_ellipse(x, y, 64, 48, 30, 40)] = 180
    luma[_ellipse(x, y, 53, 38, 4, 4) | _ellipse(x, y, 75, 38, 4, 4)] = 30
    luma[_ellipse(x, y, 64, 66, 12, 2 + 7 * mouth)] = 40
    chroma = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
    return VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")


def _ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
