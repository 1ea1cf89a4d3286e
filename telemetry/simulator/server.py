"""A digital-person server that plays scenarios over real sockets and real WebRTC.

The path of the URL chooses the scenario; `/mix` draws one for each connection.
Everything that a client sends is hostile: sizes, counts and waits are limited.
"""

import asyncio
import hmac
import logging
import math
import random
import ssl
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from typing import Any, Final, Self

from websockets import ConnectionClosed, Request, Response, Subprotocol
from websockets.asyncio.server import Server, ServerConnection, serve

from telemetry.connector import messages
from telemetry.connector.messages import MAX_MESSAGE_BYTES
from telemetry.errors import RemoteProtocolError, ServerError
from telemetry.settings import LOOPBACK
from telemetry.simulator import scenarios as do
from telemetry.simulator.peer import OfferRefused, Peer
from telemetry.simulator.scenarios import MIX, MIX_WEIGHTS, SCENARIOS, Scenario

HELLO_LIMIT_S: Final = 10.0
CLOSE_LIMIT_S: Final = 2.0
KEPT_SESSIONS: Final = 10_000
"""How many sessions are remembered for a reconnect; the oldest is forgotten first."""
REMEMBERED_EPISODES: Final = 10_000
LOAD_MESSAGES: Final = 5
REGION: Final = "simulated"

_log = logging.getLogger(__name__)


class Simulator:
    """The server. Used by one event loop; `async with` starts and stops it.

    After it has stopped, no task, socket or peer of it is left.
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = 0,
        *,
        seed: int = 0,
        speed: float = 1.0,
        variation: float = 0.0,
        token: str | None = None,
        capacity: int = 1000,
        queue_limit: int = 100,
        queue_timeout_s: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
        scenarios: Mapping[str, Scenario] = SCENARIOS,
    ) -> None:
        """Prepare a server.

        Args:
            port: 0 means any free one; `port` tells which after the start.
            seed: the same seed draws the same scenarios and times for connections that come in the same order.
            speed: every time of a scenario is divided by it.
            variation: spread of the times of `/mix`: the sigma of a log-normal factor per connection. 0 means none.
            token: what the handshake's `Authorization: Bearer …` must carry. None means that none is asked for.
            capacity: sessions at once; more wait in a real queue.
            queue_limit: how many may wait; one more is refused with 4429, or with 4503 when it is 0.
            queue_timeout_s: seconds in the queue, at speed 1, before 4408.
        """
        self.host = host
        self.port = port
        self.speed = speed
        self.places = Places(capacity, queue_limit)
        self.queue_timeout_s = queue_timeout_s
        self.played: Counter[str] = Counter()
        """How many connections each scenario has had."""
        self.live: dict[str, Visit] = {}
        """Sessions with a connection, by sessionId."""
        self.instance = f"simulator-{uuid.uuid4().hex[:8]}"
        self._variation = variation
        self._seed = seed
        self._token = token
        self._ssl_context = ssl_context
        self._scenarios = scenarios
        self._numbers = count(1)
        self._episode_keys = count(1)
        self._episodes: OrderedDict[str, int] = OrderedDict()
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        """Bind and listen.

        Raises:
            ServerError: the address cannot be bound.
        """
        try:
            self._server = await serve(
                self._visit,
                self.host,
                self.port,
                ssl=self._ssl_context,
                process_request=self._process_request,
                process_response=self._process_response,
                select_subprotocol=self._select_subprotocol,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=16,
                close_timeout=CLOSE_LIMIT_S,
                server_header=None,
                create_connection=Door,
            )
        except OSError as error:
            raise ServerError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror or error}; choose another port"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def url(self, scenario: str = "steady") -> str:
        """Where to connect for a scenario.

        A scenario whose first attempts fail gets another URL at each call, so that episodes do not share their count.
        """
        scheme = "wss" if self._ssl_context else "ws"
        host = f"[{self.host}]" if ":" in self.host else self.host
        known = self._scenarios.get(scenario)
        key = f"/{next(self._episode_keys)}" if known and known.failures else ""
        return f"{scheme}://{host}:{self.port}/{scenario}{key}"

    # The handshake.

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        number = next(self._numbers)
        chance = random.Random(f"{self._seed}:{number}")
        scenario = self._choose(request.path, str(connection.remote_address[0]), chance)
        self.played[scenario.name] += 1
        given = request.headers.get("Authorization", "")
        if self._token and not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "the token was refused\n")
        if scenario.refuses_with is not None:
            return connection.respond(scenario.refuses_with, "this is not a digital-person server's answer\n")
        assert isinstance(connection, Door)
        connection.scenario = scenario
        return None

    def _choose(self, path: str, client: str, chance: random.Random) -> Scenario:
        """The scenario of a connection: by the first segment of the path; the second tells episodes apart."""
        name, _, key = path.partition("?")[0].strip("/").partition("/")
        if name == MIX:
            drawn = chance.choices(list(MIX_WEIGHTS), list(MIX_WEIGHTS.values()))[0]
            pace = math.exp(chance.gauss(0, self._variation))
            return _at_pace(self._scenarios[drawn], pace)
        scenario = self._scenarios.get(name) or self._scenarios["unknown_scene"]
        if scenario.failures:
            episode = f"{name}/{key or client}"
            tries = self._episodes.pop(episode, 0)
            if tries < scenario.failures:
                self._episodes[episode] = tries + 1
                _trim(self._episodes, REMEMBERED_EPISODES)
                return replace(scenario, script=scenario.failing_script)
        return scenario

    def _select_subprotocol(self, connection: ServerConnection, offered: object) -> Subprotocol | None:
        return None  # `_process_response` writes the header, because a scenario may select what nobody offered.

    def _process_response(self, connection: ServerConnection, request: Request, response: Response) -> None:
        assert isinstance(connection, Door)
        if connection.scenario and connection.scenario.subprotocol:
            response.headers["Sec-WebSocket-Protocol"] = connection.scenario.subprotocol

    async def _visit(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Door)
        assert connection.scenario
        await Visit(self, connection, connection.scenario).run()

    # Sessions.

    def claim(self, resume: str | None, visit: "Visit") -> tuple[str, bool]:
        """Give a session to a visit: the one to resume if it lives or was kept, else another.

        Returns:
            The sessionId, and whether it is the resumed one.
        """
        resumed = resume is not None and (resume in self.live or resume in self._kept)
        session_id = resume if resumed and resume else str(uuid.uuid4())
        self._kept.pop(session_id, None)
        if former := self.live.get(session_id):
            former.drop()
        self.live[session_id] = visit
        return session_id, resumed

    def release(self, session_id: str, visit: "Visit", *, keep: bool) -> None:
        """Take a session back from a visit, unless another visit has taken it over."""
        if self.live.get(session_id) is not visit:
            return
        del self.live[session_id]
        if keep:
            self._kept[session_id] = None
            _trim(self._kept, KEPT_SESSIONS)


class Door(ServerConnection):
    """A connection that remembers what its handshake asked for."""

    scenario: Scenario | None = None
    """None means that the handshake was refused."""


class Visit:
    """One connection of one client, from its handshake to its end."""

    def __init__(self, simulator: Simulator, connection: ServerConnection, scenario: Scenario) -> None:
        self._simulator = simulator
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
                self._simulator.release(self._session_id, self, keep=self._keep)
            self._simulator.places.leave(self)
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
        self._idle_s = action.idle_s / self._simulator.speed
        session_id, resumed = self._simulator.claim(None if action.forgets else self._resume, self)
        self._session_id = session_id
        await self._say(
            messages.Accepted(
                session_id,
                resumed=resumed,
                idle_limit_ms=round(self._idle_s * 1000),
                region=REGION,
                instance=self._simulator.instance,
            )
        )

    async def _take_place(self) -> bool:
        """Wait for a free place, telling the client its position. False means that the client was sent away."""
        places = self._simulator.places
        refused = places.enter(self)
        if refused:
            await self._close(refused, "no digital person is free")
            return False
        try:
            async with asyncio.timeout(self._simulator.queue_timeout_s / self._simulator.speed):
                while (position := places.position(self)) > 0:
                    await self._say(messages.Queued(position))
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
        ends_at_s = math.inf if seconds is None else time.monotonic() + seconds / self._simulator.speed
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

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._simulator.speed)


class Places:
    """The digital persons that are free, and the queue for them: first come, first served."""

    def __init__(self, capacity: int, queue_limit: int) -> None:
        self._capacity = capacity
        self._queue_limit = queue_limit
        self._taken: set[Visit] = set()
        self._waiting: list[Visit] = []
        self._moved = asyncio.Event()

    def enter(self, visit: Visit) -> int | None:
        """Take a free place or join the queue. Returns the close code for a visit that may do neither."""
        if len(self._taken) < self._capacity:
            self._taken.add(visit)
        elif len(self._waiting) < self._queue_limit:
            self._waiting.append(visit)
        else:
            return 4429 if self._queue_limit else 4503
        return None

    def position(self, visit: Visit) -> int:
        """0 means that the visit has its place, 1 that it is next."""
        return 0 if visit in self._taken else self._waiting.index(visit) + 1

    async def moved(self) -> None:
        """Wait until the queue moves."""
        await self._moved.wait()

    def leave(self, visit: Visit) -> None:
        """Give the place back, or leave the queue; the next in the queue moves up. May be called twice."""
        self._taken.discard(visit)
        if visit in self._waiting:
            self._waiting.remove(visit)
        while self._waiting and len(self._taken) < self._capacity:
            self._taken.add(self._waiting.pop(0))
        self._moved.set()
        self._moved = asyncio.Event()


async def run(simulator: Simulator) -> None:
    """Run a simulator until the caller is cancelled."""
    async with simulator:
        await asyncio.get_running_loop().create_future()


def _at_pace(scenario: Scenario, pace: float) -> Scenario:
    """The scenario with all its waits multiplied by `pace`."""

    def paced(action: do.Action) -> do.Action:
        match action:
            case do.Pause() | do.Load():
                return replace(action, seconds=action.seconds * pace)
            case do.Queue():
                return replace(action, each_s=action.each_s * pace)
            case _:
                return action

    return replace(scenario, script=tuple(paced(action) for action in scenario.script))


def _trim(remembered: OrderedDict[str, Any], limit: int) -> None:
    while len(remembered) > limit:
        remembered.popitem(last=False)
