"""Play faults: a network, a server, a client and a collector for each, and one store for all."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trustme

from telemetry.store.duck import Store
from telemetry.store.writer import Writer
from telemetry.support.story import Story, tell
from tests.lab.client import COLLECTOR_PORT, ClientOrder
from tests.lab.faults import PASSWORD, USER, Fault, Then
from tests.lab.network import SERVER, TURN, Network, Place, sweep
from tests.lab.server import PORT, PROXY_PORT, ServerOrder
from tests.lab.truth import Judged
from tests.lab.wire import Wire
from tests.support.receiving import receiving

AT_ONCE: Final = 5
LIMIT_S: Final = 150.0
"""For one fault; the longest has a collector that is down for a minute."""
FLUSH_S: Final = 1.0
"""Between the end of a client and the last of its spans in the store."""


@dataclass(frozen=True)
class Result:
    """What came of a fault."""

    fault: Fault
    judged: Judged
    story: Story
    complaints: tuple[str, ...]
    """What the story should show and does not."""


@dataclass(frozen=True)
class House:
    """What all faults share."""

    store: Store
    collector_port: int
    """On our own loopback."""
    folder: Path
    """Of certificates."""


async def play_all(faults: Sequence[Fault], folder: Path, tell_end: Callable[[Result], None]) -> list[Result]:
    """Play and judge faults, several at a time.

    Args:
        tell_end: called with each as it ends.
    """
    sweep()
    make_certificates(folder)
    turns = asyncio.Semaphore(AT_ONCE)
    with Store.open(folder / "lab.duckdb") as store:
        writer = Writer(store)
        try:
            async with receiving(writer) as ports:
                house = House(store, ports.http, folder)

                async def one(fault: Fault) -> Result:
                    async with turns:
                        result = await play(fault, house)
                    tell_end(result)
                    return result

                return await asyncio.gather(*map(one, faults))
        finally:
            await writer.close()


async def play(fault: Fault, house: House) -> Result:
    """Make one fault and judge what the store then knows of it."""
    with Network(nat=fault.nat, wired=fault.delay_s == 0) as network:
        network.filter(*fault.rules)
        try:
            async with asyncio.timeout(LIMIT_S), AsyncExitStack() as stack:
                attempt_id = await _Stage(fault, house, network, stack).run()
        except TimeoutError as error:
            raise RuntimeError(f"{fault.name} did not end within {LIMIT_S:.0f} s") from error
    story = tell(attempt_id, house.store)
    by_view = house.store.query(
        "select rule from verdicts where trace_id = $id", {"id": story.attempt["trace_id"]}
    ).to_pylist()
    complaints = [
        f"{name} is {story.attempt[name]!r}, not {value!r}"
        for name, value in fault.shows.items()
        if story.attempt[name] != value
    ]
    if by_view != [{"rule": story.verdict.rule}]:
        complaints.append(f"the relation `verdicts` says {by_view}")
    if fault.tells and not any(fault.tells in missing for missing in story.missing):
        complaints.append(f"nothing says that {fault.tells}, only {story.missing}")
    return Result(fault, Judged(fault.name, fault.truth, story.verdict), story, tuple(complaints))


class _Stage:
    """One fault in one network."""

    def __init__(self, fault: Fault, house: House, network: Network, stack: AsyncExitStack) -> None:
        self._fault = fault
        self._house = house
        self._network = network
        self._stack = stack
        self._server: asyncio.subprocess.Process | None = None

    async def run(self) -> str:
        """Play it. Returns the attempt's id, once the store has what there is."""
        fault = self._fault
        if fault.delay_s:
            self._stack.enter_context(Wire(self._network, fault.delay_s))
        if fault.turn:
            await self._start("relay", *_coturn(), until=None)
        if fault.listens:
            order = ServerOrder(fault.token, self._certificate(), self._ice_servers())
            self._server = await self._start(
                "server", sys.executable, "-m", "tests.lab.server", order.to_json(), until=b"ready\n"
            )
        lifeline = Lifeline(self._network, self._house.collector_port)
        self._stack.push_async_callback(lifeline.close)
        await lifeline.open()
        client = await self._start(
            "client", sys.executable, "-m", "tests.lab.client", self._client().to_json(), until=None
        )
        attempt_id = await self._watch(client, lifeline)
        await asyncio.sleep(FLUSH_S)
        return attempt_id

    async def _watch(self, client: asyncio.subprocess.Process, lifeline: "Lifeline") -> str:
        """Listen to the client until it ends, and do on the way what the fault says."""
        assert client.stdout
        attempt_id, then = "", self._fault.then
        async with asyncio.TaskGroup() as deeds:
            async for line in client.stdout:
                said = json.loads(line)
                attempt_id = said.get("attempt") or attempt_id
                if then and said.get("state") == then.at:
                    deeds.create_task(self._do(then, client, lifeline))
                    then = None
            await client.wait()
        if not attempt_id or then:
            raise RuntimeError(f"{self._fault.name}: the client ended too early, with {client.returncode}")
        return attempt_id

    async def _do(self, then: Then, client: asyncio.subprocess.Process, lifeline: "Lifeline") -> None:
        await asyncio.sleep(then.after_s)
        match then.does:
            case "filter":
                self._network.filter(*then.rules)
            case "rebind":
                self._network.rebind()
            case "kill_client":
                client.kill()
            case "kill_server" if self._server:
                self._server.kill()
            case "hang_server" if self._server:
                self._server.send_signal(signal.SIGSTOP)
            case "collector_down":
                await lifeline.close()
                await asyncio.sleep(then.lasts_s)
                await lifeline.open()

    async def _start(self, place: Place, *command: str, until: bytes | None) -> asyncio.subprocess.Process:
        """Run a command in a namespace until the fault is over; wait until it prints a line."""
        environment = dict(os.environ)
        if self._fault.proxied and place == "client":
            proxy = f"http://{SERVER}:{PROXY_PORT}"
            environment |= {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "127.0.0.1"}
        process = await asyncio.create_subprocess_exec(
            *self._network.command(place, *command),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL if place == "relay" else None,  # coturn tries what the kernel lacks
        )
        self._stack.push_async_callback(_end, process)
        if until:
            assert process.stdout
            if await process.stdout.readline() != until:
                raise RuntimeError(f"{command[-2]} did not start")
        return process

    def _client(self) -> ClientOrder:
        fault = self._fault
        return ClientOrder(
            **{
                "url": f"{fault.scheme}://{fault.host}:{PORT}/{fault.scenario}",
                "authority": str(self._house.folder / "authority.pem") if fault.scheme == "wss" else None,
                **fault.client,
            }
        )

    def _certificate(self) -> str | None:
        return str(self._house.folder / f"{self._fault.certificate}.pem") if self._fault.certificate else None

    def _ice_servers(self) -> tuple[dict[str, str], ...]:
        fault = self._fault
        return tuple(
            {"urls": url}
            if url.startswith("stun:")
            else {"urls": url, "username": USER, "credential": fault.turn_password}
            for url in fault.turn
        )


class Lifeline:
    """The collector on the loopback of the client's namespace: a way for telemetry that no fault touches."""

    def __init__(self, network: Network, port: int) -> None:
        """
        Args:
            port: of the collector, on our own loopback.
        """
        self._network = network
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen there."""
        listener = self._network.inside("client", lambda: socket.create_server(("127.0.0.1", COLLECTOR_PORT)))
        self._server = await asyncio.start_server(self._relay, sock=listener)

    async def close(self) -> None:
        """Be gone, as a collector that is down."""
        if self._server:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            self._writers -= both


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _coturn() -> list[str]:
    """A TURN server that listens and relays at its own address only."""
    return [
        *("turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech", "--no-stdout-log", "--simple-log"),
        *("--listening-ip", TURN, "--relay-ip", TURN, "--listening-port", "3478", "--realm", "lab"),
        *("--user", f"{USER}:{PASSWORD}", "--log-file", "/dev/null", "--pidfile", "/dev/null", "--userdb", "/dev/null"),
    ]


def make_certificates(folder: Path) -> None:
    """Write an authority's certificate, and three of servers with their keys."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for name, issued in {
        "valid": authority.issue_cert(SERVER),
        "expired": authority.issue_cert(SERVER, not_before=past, not_after=past.replace(year=2021)),
        "other_name": authority.issue_cert("other.lab"),
    }.items():
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
