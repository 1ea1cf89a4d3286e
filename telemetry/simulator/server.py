"""A digital-person server that plays scenarios over real sockets and real WebRTC.

The path of the URL chooses the scenario; `/mix` draws one for each connection.
Everything that a client sends is hostile: sizes, counts and waits are limited.
"""

import hmac
import math
import random
import ssl
import uuid
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from typing import Final, Self

from websockets import Request, Response, Subprotocol
from websockets.asyncio.server import Server, ServerConnection, serve

from telemetry.connector.messages import MAX_MESSAGE_BYTES, IceServer
from telemetry.errors import ServerError
from telemetry.settings import LOOPBACK
from telemetry.simulator import scenarios as do
from telemetry.simulator.scenarios import MIX, MIX_WEIGHTS, SCENARIOS, Scenario
from telemetry.simulator.sessions import Places, Sessions
from telemetry.simulator.visit import House, Visit

CLOSE_LIMIT_S: Final = 2.0
"""How long a client may take to answer a closing handshake."""
REMEMBERED_EPISODES: Final = 10_000
"""How many episodes with failing first attempts are counted at once; the oldest is forgotten first."""


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
        variation: float = 0.35,
        token: str | None = None,
        capacity: int = 1000,
        queue_limit: int = 100,
        queue_timeout_s: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
        ice_servers: Sequence[IceServer] = (),
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
            ice_servers: the STUN and TURN servers that a client is told of when it is accepted.
        """
        self.host = host
        self.port = port
        self.speed = speed
        self.sessions = Sessions()
        self.played: Counter[str] = Counter()
        """How many connections each scenario has had."""
        self._house = House(
            sessions=self.sessions,
            places=Places(capacity, queue_limit),
            instance=f"simulator-{uuid.uuid4().hex[:8]}",
            speed=speed,
            queue_timeout_s=queue_timeout_s,
            ice_servers=tuple(ice_servers),
        )
        self._most_connections = 2 * (capacity + queue_limit)
        self._variation = variation
        self._seed = seed
        self._token = token
        self._ssl_context = ssl_context
        self._scenarios = scenarios
        self._numbers = count(1)
        self._episode_keys = count(1)
        self._episodes: OrderedDict[str, int] = OrderedDict()
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
        if self._server and len(self._server.connections) >= self._most_connections:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
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
            return _at_pace(SCENARIOS[drawn], pace)
        scenario = self._scenarios.get(name) or SCENARIOS["unknown_scene"]
        if scenario.failures:
            episode = f"{name}/{key or client}"
            tries = self._episodes.pop(episode, 0)
            if tries < scenario.failures:
                self._episodes[episode] = tries + 1
                if len(self._episodes) > REMEMBERED_EPISODES:
                    self._episodes.popitem(last=False)
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
        await Visit(self._house, connection, connection.scenario).run()


class Door(ServerConnection):
    """A connection that remembers what its handshake asked for."""

    scenario: Scenario | None = None
    """None means that the handshake was refused."""


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
