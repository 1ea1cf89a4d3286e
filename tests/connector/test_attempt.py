"""The shell around the protocol where something that should never happen does."""

import asyncio

import pytest

from telemetry.connector import attempt
from telemetry.connector.media import Peer
from telemetry.connector.scene import Scene
from telemetry.semconv import State
from telemetry.simulator.server import Simulator


def test_clock_is_utc_and_steady(monkeypatch):
    """The wall clock is asked once; from then on only the monotonic clock counts."""
    monkeypatch.setattr(attempt.time, "time_ns", lambda: 5_000)
    monkeypatch.setattr(attempt.time, "monotonic_ns", lambda: 100)
    now_ns = attempt.anchored_clock()
    monkeypatch.setattr(attempt.time, "time_ns", lambda: 1)
    monkeypatch.setattr(attempt.time, "monotonic_ns", lambda: 130)

    assert now_ns() == 5_030


@pytest.mark.real
async def test_broken_statistics(monkeypatch):
    """Statistics that raise end no session."""

    def broken(peer):
        raise RuntimeError("no counters")

    monkeypatch.setattr(Peer, "measure", broken)
    async with Simulator(speed=20) as simulator, Scene(simulator.url("steady")) as scene:
        await scene.connect()
        assert scene.state is State.CONNECTED


@pytest.mark.real
async def test_peer_that_does_not_close(monkeypatch, caplog):
    """A peer that does not close is left to itself after the limit, and that is logged."""
    close = Peer.close
    stuck = []

    async def hang(peer):
        stuck.append(peer)
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Peer, "close", hang)
    monkeypatch.setattr(attempt, "PEER_CLOSE_LIMIT_S", 0.05)
    async with Simulator(speed=20) as simulator:
        async with Scene(simulator.url("steady")) as scene:
            await scene.connect()
        await close(stuck[0])

    assert "did not close in time" in caplog.text


@pytest.mark.real
async def test_broken_task(monkeypatch, caplog):
    """A task that fails for a reason nobody foresaw is logged with the attempt, and a deadline ends the attempt."""

    async def broken(peer, servers, tracks):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Peer, "make_offer", broken)
    async with Simulator(speed=20) as simulator:
        scene = Scene(simulator.url("steady"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await scene.connect()

    assert scene.state is State.DISCONNECTED
