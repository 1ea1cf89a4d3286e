"""The peer connection against a real one, the user's own media, and a test for each of aiortc's blind spots."""

import asyncio
import errno
import threading
import time
from contextlib import asynccontextmanager, suppress

import av
import pytest
from aiortc.mediastreams import MediaStreamError

from telemetry import semconv
from telemetry.connector import media
from telemetry.connector.events import (
    AnswerApplied,
    DtlsConnected,
    FrameDecoded,
    IceCompleted,
    OfferMade,
    PeerClosed,
    PeerFailed,
)
from telemetry.connector.media import (
    DecoderGate,
    GreyTrack,
    MediaUnavailable,
    Peer,
    Screen,
    SilentTrack,
    Watcher,
    devices,
    media_file,
    media_source,
    open_track,
    synthetic,
)
from telemetry.connector.messages import IceServer
from telemetry.semconv import Detail
from telemetry.simulator.peer import Peer as RemotePeer


class Loopback:
    """Our peer and a simulated digital person's, with what ours told."""

    def __init__(self) -> None:
        self.told = []
        self._news = asyncio.Event()
        self.ours = Peer(self.tell, time.monotonic_ns)
        self.theirs = RemotePeer()

    def tell(self, input):
        self.told.append(input)
        self._news.set()

    async def until(self, kind):
        """Wait until ours tells something of a kind, and return it."""
        async with asyncio.timeout(10):
            while not any(isinstance(input, kind) for input in self.told):
                self._news.clear()
                await self._news.wait()
        return next(input for input in self.told if isinstance(input, kind))

    async def connect(self, *, fault=None, tracks=None, servers=()):
        """Exchange offer and answer."""
        await self.ours.make_offer(servers, tracks or {})
        offer = await self.until(OfferMade)
        await self.ours.apply_answer(await self.theirs.answer(offer.sdp, fault))


@asynccontextmanager
async def loopback():
    """A pair that leaves no task and no thread of a decoder behind."""
    pair = Loopback()
    try:
        yield pair
    finally:
        await pair.ours.close()
        await pair.theirs.close()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        assert [thread.name for thread in threading.enumerate() if "decoder" in thread.name] == []


@pytest.mark.real
async def test_order_of_what_is_told():
    """Offer, answer, ICE, DTLS and the first frame are told once each, in this order."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(FrameDecoded)

        kinds = [OfferMade, AnswerApplied, IceCompleted, DtlsConnected, FrameDecoded]
        assert [type(input) for input in pair.told] == kinds


@pytest.mark.real
async def test_selected_pair():
    """The selected pair is known, which aiortc's statistics do not tell, and which codec video comes in."""
    async with loopback() as pair:
        await pair.connect()
        completed = await pair.until(IceCompleted)

        assert completed.attributes == {
            semconv.ICE_LOCAL_TYPE: "host",
            semconv.ICE_REMOTE_TYPE: "host",
            semconv.ICE_LOCAL_PROTOCOL: "udp",
            semconv.ICE_RELAY: False,
            semconv.VIDEO_CODEC: "video/VP8",
        }


@pytest.mark.real
async def test_selected_pair_elsewhere(monkeypatch):
    """Should aioice keep the pair elsewhere, nothing is known of it and nothing breaks."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(IceCompleted)
        ice = pair.ours._connection.getTransceivers()[0].receiver.transport.transport._connection
        nominated = ice._nominated
        monkeypatch.delattr(ice, "_nominated")
        found = pair.ours._selected_pair()
        ice._nominated = nominated

        assert found == {}


@pytest.mark.real
async def test_relayed_pair():
    """A pair over a relay says so, and how the relay is reached."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(IceCompleted)
        ice = pair.ours._connection.getTransceivers()[0].receiver.transport.transport._connection
        next(iter(ice._nominated.values())).local_candidate.type = "relay"

        found = pair.ours._selected_pair()
        assert found[semconv.ICE_RELAY] is True
        assert found[semconv.ICE_RELAY_PROTOCOL] == "udp"


@pytest.mark.real
async def test_media_clock_follows_packets():
    """While packets come, media was seen just now; when the other side is gone without a word, the clock stops at once.

    aiortc itself notices after 30 s, and then says `closed`.
    """
    async with loopback() as pair:
        await pair.connect()
        await pair.until(FrameDecoded)
        pair.ours.measure()
        await asyncio.sleep(0.2)
        alive_ns, now_ns = pair.ours.measure().media_seen_ns, time.monotonic_ns()
        pair.theirs.vanish()
        await asyncio.sleep(0.05)
        last_ns = pair.ours.measure().media_seen_ns
        await asyncio.sleep(0.4)

        assert now_ns - alive_ns < 150_000_000
        assert pair.ours.measure().media_seen_ns == last_ns
        assert pair.ours._connection.connectionState == "connected"


@pytest.mark.real
async def test_media_clock_survives_the_wall_clock(monkeypatch):
    """A step of the wall clock moves no packet further back than to the last look."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(FrameDecoded)
        looked_ns = time.monotonic_ns()
        pair.ours.measure()
        await asyncio.sleep(0.15)

        class Ahead(media.datetime):
            @classmethod
            def now(cls, tz=None):
                return super().now(tz).replace(year=2100)

        monkeypatch.setattr(media, "datetime", Ahead)
        assert pair.ours.measure().media_seen_ns >= looked_ns


@pytest.mark.real
async def test_never_answers_ice():
    """A candidate that leads nowhere keeps ICE checking and telling nothing: the caller's deadline decides."""
    async with loopback() as pair:
        await pair.connect(fault="unreachable")
        await asyncio.sleep(0.3)

        assert [type(input) for input in pair.told] == [OfferMade, AnswerApplied]
        assert pair.ours.measure().media_seen_ns is None


@pytest.mark.real
async def test_wrong_fingerprint():
    """A certificate other than the answer named is a failure after ICE."""
    async with loopback() as pair:
        await pair.connect(fault="wrong_fingerprint")
        await pair.until(PeerFailed)

        assert [type(input) for input in pair.told] == [OfferMade, AnswerApplied, IceCompleted, PeerFailed]


@pytest.mark.real
async def test_hung_up_by_the_other_side():
    """A peer connection that the other side closes is told as closed, and our own close is not."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(FrameDecoded)
        await pair.theirs.close()
        await pair.until(PeerClosed)
        told = len(pair.told)
        await pair.ours.close()

        assert len(pair.told) == told


@pytest.mark.real
@pytest.mark.parametrize("sdp", ["", "junk", "v=0\r\n", "v=0\r\nm=audio x y z\r\n"])
async def test_answer_that_is_none(sdp):
    """An answer that cannot be used is told as refused, whatever is in it."""
    async with loopback() as pair:
        await pair.ours.make_offer((), {})
        await pair.ours.apply_answer(sdp)

        assert pair.told[-1].detail == Detail.SDP_REFUSED


@pytest.mark.real
async def test_bad_ice_servers():
    """A server list that cannot be used is the server's failure."""
    async with loopback() as pair:
        await pair.ours.make_offer((IceServer("gopher://x"),), {})

        assert [type(input) for input in pair.told] == [PeerFailed]
        assert pair.told[0].detail == Detail.PROTOCOL_VIOLATION


@pytest.mark.real
async def test_statistics():
    """Counters have W3C names and seconds; what nobody can know is absent."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(FrameDecoded)
        await asyncio.sleep(0.3)
        found = pair.ours.measure().attributes

        assert found[semconv.VIDEO_PACKETS_RECEIVED] > 0
        assert found[semconv.AUDIO_PACKETS_RECEIVED] > 0
        assert found[semconv.VIDEO_PACKETS_LOST] == 0
        assert 0 <= found[semconv.AUDIO_JITTER_S] < 1
        assert found[semconv.BYTES_RECEIVED] > found[semconv.BYTES_SENT] > 0
        assert semconv.RTT_S not in found
        assert semconv.VIDEO_FROZEN_MS not in found


@pytest.mark.real
async def test_round_trip_time_when_sending():
    """Who sends learns the round trip time from the receiver's reports."""
    async with loopback() as pair:
        await pair.connect(tracks={"audio": SilentTrack(), "video": GreyTrack()})
        found = {}
        for _ in range(100):
            await asyncio.sleep(0.1)
            found = pair.ours.measure().attributes
            if semconv.RTT_S in found:
                break

        assert 0 <= found[semconv.RTT_S] < 5


@pytest.mark.real
async def test_statistics_elsewhere(monkeypatch):
    """Should aiortc keep its counters elsewhere, they are unknown and nothing breaks."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(FrameDecoded)
        monkeypatch.setattr(media, "_STREAMS", "elsewhere")
        found = pair.ours.measure().attributes

        assert semconv.VIDEO_PACKETS_RECEIVED not in found
        assert found[semconv.BYTES_RECEIVED] > 0


@pytest.mark.real
async def test_decoding_stops_when_nobody_watches():
    """After the first frame nothing is decoded until the application asks, and packets are counted all the while."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(FrameDecoded)
        await asyncio.sleep(0.2)
        screen, before = pair.ours._screens["video"], pair.ours.measure().attributes
        frames = screen.frames
        await asyncio.sleep(0.4)
        after = pair.ours.measure().attributes
        assert screen.frames == frames
        assert after[semconv.VIDEO_PACKETS_RECEIVED] > before[semconv.VIDEO_PACKETS_RECEIVED]
        assert semconv.VIDEO_FRAMES_DECODED not in after

        video = pair.ours.track("video")
        async with asyncio.timeout(5):
            frame = await video.recv()
            again = await video.recv()
        assert (frame.width, frame.height) == (128, 96)
        assert again.pts != frame.pts
        assert pair.ours.track("video") is video


@pytest.mark.real
async def test_sound_for_the_application():
    """The digital person's voice can be heard as soon as it is asked for, and ends with the connection."""
    async with loopback() as pair:
        await pair.connect()
        await pair.until(FrameDecoded)
        audio = pair.ours.track("audio")
        async with asyncio.timeout(5):
            assert (await audio.recv()).sample_rate == 48_000
        await pair.ours.close()
        for _ in range(media.WAITING_FRAMES["audio"]):
            if audio.readyState == "live":
                with suppress(MediaStreamError):
                    await audio.recv()
        with pytest.raises(MediaStreamError):
            await audio.recv()


async def test_no_track_without_peer():
    """Before there is a connection there is nothing to see, and nothing to close."""
    peer = Peer(lambda input: None, time.monotonic_ns)

    assert peer.track("video") is None
    assert peer.measure().attributes == {}
    peer._connection_changed()
    await peer.close()
    await peer.close()


@pytest.mark.real
@pytest.mark.parametrize("turns", [0, 1, 2, 4, 8, 16])
async def test_cancelled_while_offering(turns):
    """Cancelling while the offer is made leaves nothing behind, at whatever moment."""
    async with loopback() as pair:
        offering = asyncio.create_task(pair.ours.make_offer((), {}))
        for _ in range(turns):
            await asyncio.sleep(0)
        offering.cancel()
        await asyncio.gather(offering, return_exceptions=True)
        await pair.ours.close()

        assert all(isinstance(input, OfferMade) for input in pair.told)


@pytest.mark.real
@pytest.mark.parametrize("turns", [0, 1, 2, 4, 8])
async def test_cancelled_while_answering(turns):
    """Cancelling while the answer is applied leaves nothing behind."""
    async with loopback() as pair:
        await pair.ours.make_offer((), {})
        answer = await pair.theirs.answer(pair.told[0].sdp, None)
        answering = asyncio.create_task(pair.ours.apply_answer(answer))
        for _ in range(turns):
            await asyncio.sleep(0)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


# Gate, screen, watcher.


def test_gate_passes_only_while_open():
    """A closed gate drops frames, notes when they came, and lets the end pass."""
    gate = DecoderGate(lambda: 7)
    gate.put("one")
    gate.opened = False
    gate.put("two")
    gate.put(None)

    assert [gate.get_nowait(), gate.get_nowait()] == ["one", None]
    assert gate.empty()
    assert (gate.frame_ns, gate.passed_all) == (7, False)


def test_gate_without_a_place():
    """A receiver that keeps its queue elsewhere stays as it is."""
    receiver = object()

    assert isinstance(DecoderGate.before(receiver, time.monotonic_ns), DecoderGate)


async def test_slow_watcher_keeps_the_newest():
    """An application that is slower than the video sees the newest frames, and memory does not grow."""
    watcher = Watcher("video")
    for number in range(100):
        watcher.offer(number)

    assert [await watcher.recv() for _ in range(media.WAITING_FRAMES["video"])] == [96, 97, 98, 99]


async def test_stopped_watcher_is_replaced():
    """An application that stopped its track gets another when it asks again, and decoding pauses in between."""
    screen = Screen(SilentTrack(), DecoderGate(time.monotonic_ns))
    first = screen.show()
    first.stop()
    screen._gate.opened = False
    second = screen.show()

    assert second is not first
    assert screen._gate.opened
    screen.stop()
    with pytest.raises(MediaStreamError):
        await second.recv()


async def test_frozen_video_shows():
    """A gap between video frames is told from half a second on; frames are counted only while all are decoded."""
    now_ns = 0
    peer = Peer(lambda input: None, lambda: now_ns)
    gate = peer._gates["video"] = DecoderGate(lambda: now_ns)
    peer._screens["video"] = Screen(GreyTrack(), gate)
    gate.put("frame")
    now_ns = 500_000_000
    assert peer._stats() == {semconv.VIDEO_FRAMES_DECODED: 0}
    now_ns = 501_000_000

    assert peer._stats() == {semconv.VIDEO_FRAMES_DECODED: 0, semconv.VIDEO_FROZEN_MS: 501}


async def test_statistics_that_wait():
    """Should `getStats()` begin to wait one day, it is left alone."""

    async def waits():
        await asyncio.sleep(1)

    async def does_not():
        return {"a": 1}

    assert media._at_once(waits()) == []
    assert media._at_once(does_not()) == [1]


# The user's media.


@pytest.mark.parametrize("kind", ["audio", "video"])
async def test_synthetic(kind):
    """Synthetic media come at their pace, with rising times, until stopped."""
    track = open_track(media_source("synthetic"), kind)
    one, two = await track.recv(), await track.recv()
    track.stop()

    assert track.kind == kind
    assert two.pts > one.pts
    with pytest.raises(MediaStreamError):
        await track.recv()


@pytest.fixture
def wave(tmp_path):
    """A short sound file."""
    path = tmp_path / "tone.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = SilentTrack().frame(0)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


async def test_file(wave):
    """A file is played, and plays again from its begin when it is over."""
    track = open_track(media_source(str(wave)), "audio")
    for _ in range(3):
        assert (await track.recv()).samples
    track.stop()


async def test_file_without_video(wave):
    """A file without what is wanted is a device that is not there."""
    with pytest.raises(MediaUnavailable) as refused:
        open_track(media_file(wave), "video")

    assert refused.value.detail == Detail.DEVICE_NOT_FOUND


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (PermissionError(errno.EACCES, "no"), Detail.PERMISSION_DENIED),
        (FileNotFoundError(errno.ENOENT, "no"), Detail.DEVICE_NOT_FOUND),
        (OSError(errno.ENODEV, "no"), Detail.DEVICE_NOT_FOUND),
        (OSError(errno.EBUSY, "no"), Detail.DEVICE_IN_USE),
        (OSError(errno.EIO, "no"), Detail.DEVICE_FAILED),
        (ValueError("no container format 'v4l2'"), Detail.CAPTURE_MISSING),
        (av.error.InvalidDataError(1, "junk"), Detail.DEVICE_FAILED),
        (RuntimeError("odd"), Detail.DEVICE_FAILED),
        (MediaUnavailable(Detail.DEVICE_IN_USE), Detail.DEVICE_IN_USE),
    ],
)
def test_why_unavailable(error, detail):
    """What the system says of a device becomes one of a few codes."""

    def source(kind):
        raise error

    with pytest.raises(MediaUnavailable) as refused:
        open_track(source, "audio")
    assert refused.value.detail == detail


def test_no_codec(monkeypatch):
    """A runtime that cannot encode what is wanted cannot carry it."""
    monkeypatch.setitem(media._CODEC, "video", "no-such-codec")

    with pytest.raises(MediaUnavailable) as refused:
        open_track(synthetic, "video")
    assert refused.value.detail == Detail.CODEC_MISSING


def test_devices_of_this_platform(monkeypatch):
    """Devices are opened by FFmpeg's names, the platform's usual ones or those that are given."""
    opened = []

    class Player:
        audio = video = "track"

        def __init__(self, name, format):
            opened.append((name, format))

    monkeypatch.setattr(media, "MediaPlayer", Player)
    monkeypatch.setattr(media.sys, "platform", "linux")
    devices()("audio")
    devices(camera="/dev/video7")("video")
    media_source(None)("video")

    assert opened == [("default", "alsa"), ("/dev/video7", "v4l2"), ("/dev/video0", "v4l2")]


def test_unknown_platform(monkeypatch):
    """On a platform without a known way to capture, capture is missing."""
    monkeypatch.setattr(media.sys, "platform", "toaster")

    with pytest.raises(MediaUnavailable) as refused:
        open_track(media_source("devices"), "audio")
    assert refused.value.detail == Detail.CAPTURE_MISSING


def test_own_source():
    """A function that opens tracks is a source as it is."""
    assert media_source(synthetic) is synthetic
