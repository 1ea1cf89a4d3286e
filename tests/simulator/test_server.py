"""The simulator over real sockets and real WebRTC, seen by a client without the connector."""

import asyncio
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


async def test_ice_servers_are_named() -> None:
    """A client that is accepted is told of the STUN and TURN servers that the simulator was given."""
    relay = messages.IceServer("turn:127.0.0.1:3478", "user", "secret")
    async with Simulator(speed=FAST, ice_servers=[relay]) as simulator, raw_client(simulator.url("steady")) as client:
        accepted = (await client.hear_until(messages.Accepted))[-1]

    assert isinstance(accepted, messages.Accepted)
    assert accepted.ice_servers == (relay,)


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


async def test_other_subprotocol_is_selected() -> None:
    """A server that speaks another protocol selects what nobody offered, which no client accepts."""
    async with Simulator() as simulator:
        with pytest.raises(InvalidHandshake):
            async with raw_client(simulator.url("other_protocol")):
                pass
        async with raw_client(simulator.url("no_protocol")) as client:
            assert client.socket.subprotocol is None


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
