"""The simulator over real sockets and real WebRTC, seen by a client without the connector."""

import asyncio
import gc
import ssl
from contextlib import suppress

import pytest
import trustme
from websockets import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.asyncio.client import connect

from telemetry.connector import messages
from telemetry.errors import ServerError
from telemetry.simulator.scenarios import MIX, MIX_WEIGHTS, SCENARIOS
from telemetry.simulator.server import Simulator
from tests.support.raw_client import raw_client

pytestmark = pytest.mark.real

FAST = 50.0


async def test_steady_session_shows_the_person() -> None:
    """A steady session sends real audio and video that decode, and ends with 1000 when the client says bye."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url("steady")) as client:
        opening = await client.hear_until(messages.Ready)
        await client.connect_peer()
        assert isinstance(await client.hear(), messages.Started)
        picture = await client.tracks["video"].recv()
        sound = await client.tracks["audio"].recv()
        await client.say(messages.Bye())

        assert [type(message) for message in opening] == [messages.Accepted, *[messages.Assets] * 6, messages.Ready]
        assert (picture.width, picture.height) == (128, 96)
        assert sound.sample_rate == 48_000
        assert await client.closed() == (1000, "bye")


async def test_stop_leaves_nothing() -> None:
    """Stopping with sessions in every step ends them with 1001 and leaves no task and no session."""
    before = asyncio.all_tasks()
    simulator = await Simulator(speed=FAST).__aenter__()
    async with (
        raw_client(simulator.url("steady")) as connected,
        raw_client(simulator.url("silent")) as searching,
        raw_client(simulator.url("assets_stall")) as downloading,
    ):
        await connected.hear_until(messages.Ready)
        await connected.connect_peer()
        await connected.peer_state("connected")
        await downloading.hear_until(messages.Assets)
        await simulator.__aexit__()
        assert [(await client.closed())[0] for client in (connected, searching, downloading)] == [1001] * 3
    await asyncio.sleep(0)

    assert simulator.sessions.live == {}
    assert asyncio.all_tasks() - before == set()


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.refuses_with])
async def test_refused_handshake(name: str) -> None:
    """A scenario that refuses the handshake answers with its HTTP status."""
    async with Simulator() as simulator:
        with pytest.raises(InvalidStatus) as refused:
            async with raw_client(simulator.url(name)):
                pass

        assert refused.value.response.status_code == SCENARIOS[name].refuses_with


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("busy", 4503),
        ("queue_full", 4429),
        ("queue_gave_up", 4408),
        ("expired_token", 4401),
        ("asset_missing", 4504),
        ("fails_inside", 1011),
        ("nowhere", 4404),
        ("dies_searching", 1006),
        ("dies_downloading", 1006),
    ],
)
async def test_close_code(name: str, code: int) -> None:
    """Each end before any media shows its close code; a path that names no scenario is an unknown scene."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url(name)) as client:
        with pytest.raises(ConnectionClosed):
            await client.hear_until(messages.Started)

        assert client.socket.close_code == code


async def test_queue_positions_count_down() -> None:
    """A client that is admitted from the queue hears its positions go down to 1 first."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url("queue_admitted")) as client:
        *queued, accepted = await client.hear_until(messages.Accepted)

        assert [message.position for message in queued] == [3, 2, 1]
        assert isinstance(accepted, messages.Accepted)


async def test_capacity_makes_a_real_queue() -> None:
    """Above its capacity the server queues, admits the next when somebody leaves, and refuses when that is full."""
    async with (
        Simulator(speed=FAST, capacity=1, queue_limit=1) as simulator,
        raw_client(simulator.url("steady")) as first,
    ):
        await first.hear_until(messages.Accepted)
        async with raw_client(simulator.url("steady")) as second:
            assert await second.hear() == messages.Queued(1)
            async with raw_client(simulator.url("steady")) as third:
                assert await third.closed() == (4429, "no digital person is free")
            await first.say(messages.Bye())
            assert isinstance(await second.hear(), messages.Accepted)


async def test_capacity_queue_has_a_time_limit() -> None:
    """Who waits in the real queue for too long is sent away with 4408."""
    async with (
        Simulator(speed=FAST, capacity=1, queue_timeout_s=1) as simulator,
        raw_client(simulator.url("steady")) as first,
    ):
        await first.hear_until(messages.Accepted)
        async with raw_client(simulator.url("steady")) as second:
            assert await second.closed() == (4408, "waited too long")


async def test_token() -> None:
    """With a token, the right bearer comes in, and a wrong one or none is refused with 401."""
    async with Simulator(token="secret") as simulator:
        headers = {"Authorization": "Bearer secret"}
        async with raw_client(simulator.url("busy"), additional_headers=headers) as client:
            assert (await client.closed())[0] == 4503
        for wrong in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(InvalidStatus):
                await connect(simulator.url("busy"), additional_headers=wrong, proxy=None)


async def test_tls() -> None:
    """With a TLS context the server speaks wss."""
    authority = trustme.CA()
    server_tls, client_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    async with (
        Simulator(ssl_context=server_tls) as simulator,
        raw_client(simulator.url("busy"), ssl=client_tls) as client,
    ):
        assert (await client.closed())[0] == 4503


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


async def test_flaky_counts_by_episode() -> None:
    """The first attempts at one URL fail and the next succeeds, whatever attempts at another URL do meanwhile."""
    async with Simulator(speed=FAST) as simulator:
        one, other = simulator.url("flaky"), simulator.url("flaky")

        async def try_once(url: str) -> str:
            async with raw_client(url) as client:
                try:
                    return type(await client.hear()).__name__
                except ConnectionClosed as closed:
                    return str(closed.rcvd.code if closed.rcvd else None)

        assert [await try_once(url) for url in (one, other, one, one, other, other)] == [
            *("4503", "4503", "4503", "Accepted", "4503", "Accepted")
        ]


async def test_idle_session_ends() -> None:
    """Activity keeps a session with a time limit alive; without it the server closes with 4001."""
    async with Simulator(speed=FAST) as simulator, raw_client(simulator.url("idle_timeout")) as client:
        accepted = await client.hear()
        await client.hear_until(messages.Ready)
        await client.connect_peer()
        await client.say(messages.Activity())

        assert isinstance(accepted, messages.Accepted)
        assert accepted.idle_limit_ms == 60
        assert await client.closed() == (4001, "no interaction")


async def test_other_subprotocol_is_selected() -> None:
    """A server that speaks another protocol selects what nobody offered, which no client accepts."""
    async with Simulator() as simulator:
        with pytest.raises(InvalidHandshake):
            async with raw_client(simulator.url("other_protocol")):
                pass
        async with raw_client(simulator.url("no_protocol")) as client:
            assert client.socket.subprotocol is None


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


async def test_mix_is_repeatable() -> None:
    """The same seed draws the same scenarios for connections in the same order, another seed others."""

    async def draw(seed: int) -> dict[str, int]:
        async with Simulator(speed=1000, seed=seed) as simulator:
            for _ in range(40):
                with suppress(InvalidStatus):
                    await (await connect(simulator.url(MIX), subprotocols=[messages.SUBPROTOCOL], proxy=None)).close()
            return dict(simulator.played)

    first, again, other = await draw(1), await draw(1), await draw(2)

    assert first == again != other
    assert first.keys() <= MIX_WEIGHTS.keys()
    assert sum(first.values()) == 40


async def test_port_in_use() -> None:
    """A port that is taken is a clear error that names the address."""
    async with Simulator() as simulator:
        with pytest.raises(ServerError, match=f"127.0.0.1:{simulator.port}.*another port"):
            await Simulator(port=simulator.port).__aenter__()


async def test_too_many_connections() -> None:
    """Connections beyond twice what places and queue hold are refused with 503."""
    async with Simulator(capacity=1, queue_limit=0) as simulator:
        async with raw_client(simulator.url("silent"), hello=False), raw_client(simulator.url("silent"), hello=False):
            with pytest.raises(InvalidStatus) as refused:
                await connect(simulator.url("silent"), proxy=None)

        assert refused.value.response.status_code == 503


async def test_no_socket_is_left_behind() -> None:
    """After sessions of all kinds, no peer's socket waits for the garbage collector to close it."""
    async with Simulator(speed=FAST) as simulator:
        for name in ("steady", "never_answers_ice", "hangs_up_media", "no_media"):
            async with raw_client(simulator.url(name)) as client:
                await client.hear_until(messages.Ready)
                await client.connect_peer()
    gc.collect()  # A socket left open warns here, and warnings are errors.
