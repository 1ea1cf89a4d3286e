"""The generated audio and video."""

import av
import pytest
from aiortc.mediastreams import MediaStreamError

from telemetry.simulator import media


def test_video_decodes_from_anywhere() -> None:
    """Every element of the video loop is a whole VP8 picture, so a session may begin with any of them."""
    sizes = []
    for packet in media.video_loop():
        (picture,) = av.CodecContext.create("libvpx", "r").decode(av.Packet(packet))
        sizes.append((picture.width, picture.height))

    assert sizes == [(media.WIDTH, media.HEIGHT)] * 12


def test_video_moves() -> None:
    """The pictures differ, so a frozen one can be told."""
    assert len(set(media.video_loop())) > 6


def test_audio_decodes() -> None:
    """Every element of the audio loop is an Opus packet of 60 ms that is not silent."""
    decoder = av.CodecContext.create("libopus", "r")
    frames = [frame for packet in media.audio_loop() for frame in decoder.decode(av.Packet(packet))]

    assert {frame.samples for frame in frames} == {2880}
    assert max(abs(frame.to_ndarray()).max() for frame in frames) > 1000 / 32768


async def test_track_begins_with_two_packets_at_once() -> None:
    """The first two packets need no waiting, and times grow by the frame interval."""
    track = media.LoopTrack("video")
    first, second = await track.recv(), await track.recv()

    assert (first.pts, second.pts) == (0, 9000)


async def test_stopped_track_ends() -> None:
    """A track that was stopped raises what aiortc expects of one that has ended."""
    track = media.LoopTrack("audio")
    track.stop()

    with pytest.raises(MediaStreamError):
        await track.recv()
