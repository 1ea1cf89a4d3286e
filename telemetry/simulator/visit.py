"""One client's connection to the simulator: reads what it says and plays the scenario's script.

Everything that a client sends is hostile: sizes, order and waits are limited.
"""

import asyncio
import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from websockets import ConnectionClosed
from websockets.asyncio.server import ServerConnection

from telemetry.connector import messages
from telemetry.errors import RemoteProtocolError
from telemetry.simulator import scenarios as do
from telemetry.simulator.peer import OfferRefused, Peer
from telemetry.simulator.scenarios import Scenario
from telemetry.simulator.sessions import Places, Sessions

HELLO_LIMIT_S: Final = 10.0
PEER_LIMIT_S: Final = 30.0
"""How long the end of a session waits for its beginning."""
SHORTEST_STAY_S: Final = 0.5
"""In real time whatever the speed: a client needs some of it to show the first picture, more on a busy machine."""
LOAD_MESSAGES: Final = 5
REGION: Final = "simulated"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class House:
    """What all visits share."""

    sessions: Sessions
    places: Places
    instance: str
    """The name of this server, as a client is told it."""
    speed: float
    """Every time of a scenario is divided by it."""
    queue_timeout_s: float
    """Seconds at speed 1."""
    ice_servers: tuple[messages.IceServer, ...] = ()
    """STUN and TURN servers, as a client is told them."""


class Visit:
    """One connection of one client, from its handshake to its end."""

    def __init__(self, house: House, connection: ServerConnection, scenario: Scenario) -> None:
        self._house = house
        self._connection = connection
        self._scenario = scenario
        self._session_id: str | None = None
        self._keep = True
        """Whether the session outlives this connection: unless it was ended on purpose."""
        self._resume: str | None = None
        self._idle_s = 0.0
        self._active_at_s = 0.0
        self._offer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._expects_offer = False
        self._peer: Peer | None = None

    async def run(self) -> None:
        """Play the scenario until it, the client or the server ends."""
        tasks: list[asyncio.Task[None]] = []
        try:
            if not await self._greet():
                return
            tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._perform())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            if self._session_id:
                self._house.sessions.release(self._session_id, self, keep=self._keep)
            self._house.places.leave(self)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            if self._peer:
                await self._peer.close()
            for result in results:
                if isinstance(result, Exception):
                    _log.error("a scenario failed: %s", self._scenario.name, exc_info=result)
                    await self._connection.close(1011, "the simulator failed")

    def drop(self) -> None:
        """End the connection at once: its session has moved to another one."""
        self._connection.transport.abort()

    async def _greet(self) -> bool:
        try:
            async with asyncio.timeout(HELLO_LIMIT_S):
                hello = messages.decode(await self._connection.recv())
        except ConnectionClosed:
            return False
        except (RemoteProtocolError, TimeoutError):
            await self._connection.close(4400, "expected hello")
            return False
        if not isinstance(hello, messages.Hello):
            await self._connection.close(4400, "expected hello")
            return False
        self._resume = hello.resume
        return True

    async def _listen(self) -> None:
        """Read what the client says until it leaves."""
        while True:
            try:
                message = messages.decode(await self._connection.recv())
            except ConnectionClosed:
                return
            except RemoteProtocolError as error:
                await self._connection.close(4400, str(error))
                return
            match message:
                case messages.Offer(sdp=sdp) if self._expects_offer and not self._offer.done():
                    self._offer.set_result(sdp)
                case messages.Activity():
                    self._active_at_s = time.monotonic()
                case messages.Bye(keep=keep):
                    self._keep = keep
                    await self._connection.close(1000, "bye")
                    return
                case _:
                    await self._connection.close(4400, f"unexpected {messages.type_of(message)}")
                    return

    async def _perform(self) -> None:
        with suppress(ConnectionClosed):
            for action in self._scenario.script:
                await self._act(action)
            await self._close(1000, "the scenario is over")

    async def _act(self, action: do.Action) -> None:
        match action:
            case do.Pause():
                await self._sleep(action.seconds)
            case do.Queue():
                for position in action.positions:
                    await self._say(messages.Queued(position))
                    await self._sleep(action.each_s)
            case do.Accept():
                await self._accept(action)
            case do.Load():
                await self._load(action)
            case do.AwaitOffer():
                await asyncio.shield(self._offer)
            case do.Answer():
                await self._answer(action.fault)
            case do.Start():
                self._active_at_s = time.monotonic()
                await self._say(messages.Started())
            case do.Stay():
                await self._stay(action.seconds)
            case do.StopMedia():
                if self._peer:
                    self._peer.stop_media()
            case do.HangUp():
                if self._peer:
                    await self._peer.close()
            case do.Close():
                await self._close(action.code, action.reason)
            case do.Vanish():
                if self._peer:
                    self._peer.vanish()
                self._connection.transport.abort()
            case do.Say():
                await self._connection.send(action.text)
            case do.SayTooMuch():
                await self._connection.send("x" * action.characters)

    async def _accept(self, action: do.Accept) -> None:
        if not await self._take_place():
            return
        self._idle_s = self._stay_s(action.idle_s) if action.idle_s else 0.0
        self._active_at_s = time.monotonic()
        session_id, resumed = self._house.sessions.claim(None if action.forgets else self._resume, self)
        self._session_id = session_id
        await self._say(
            messages.Accepted(
                session_id,
                resumed=resumed,
                ice_servers=self._house.ice_servers,
                idle_limit_ms=round(self._idle_s * 1000),
                region=REGION,
                instance=self._house.instance,
            )
        )

    async def _take_place(self) -> bool:
        """Wait for a free place, telling the client its position. False means that the client was sent away."""
        places = self._house.places
        refused = places.enter(self)
        if refused:
            await self._close(refused, "no digital person is free")
            return False
        try:
            async with asyncio.timeout(self._house.queue_timeout_s / self._house.speed):
                told = 0
                while (position := places.position(self)) > 0:
                    if position != told:
                        await self._say(messages.Queued(position))
                        told = position
                    await places.moved()
        except TimeoutError:
            await self._close(4408, "waited too long")
            return False
        return True

    async def _load(self, action: do.Load) -> None:
        for number in range(LOAD_MESSAGES + 1):
            loaded = round(action.total_bytes * action.share * number / LOAD_MESSAGES)
            await self._say(messages.Assets(loaded, action.total_bytes))
            if number < LOAD_MESSAGES:
                await self._sleep(action.seconds / LOAD_MESSAGES)
        if action.share >= 1:
            self._expects_offer = True
            await self._say(messages.Ready())

    async def _answer(self, fault: str | None) -> None:
        offer = await asyncio.shield(self._offer)
        self._peer = Peer()
        try:
            sdp = await self._peer.answer(offer, fault)  # type: ignore[arg-type]
        except OfferRefused as error:
            await self._close(4415, str(error))
        else:
            await self._say(messages.Answer(sdp))

    async def _stay(self, seconds: float | None) -> None:
        if self._peer and (seconds is not None or self._idle_s):
            # What ends a session must not be over before the session has begun.
            with suppress(TimeoutError):
                async with asyncio.timeout(PEER_LIMIT_S):
                    await self._peer.connected()
            self._active_at_s = time.monotonic()
        ends_at_s = math.inf if seconds is None else time.monotonic() + self._stay_s(seconds)
        while True:
            idle_at_s = self._active_at_s + self._idle_s if self._idle_s else math.inf
            remaining_s = min(ends_at_s, idle_at_s) - time.monotonic()
            if remaining_s <= 0:
                break
            # A day, because asyncio cannot sleep for ever.
            await asyncio.sleep(min(remaining_s, 86_400))
        if idle_at_s <= ends_at_s:
            await self._close(4001, "no interaction")

    async def _say(self, message: messages.ServerMessage) -> None:
        await self._connection.send(messages.encode(message))

    async def _close(self, code: int, reason: str) -> None:
        self._keep = False
        await self._connection.close(code, reason)

    def _stay_s(self, seconds: float) -> float:
        return max(seconds / self._house.speed, SHORTEST_STAY_S)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._house.speed)
