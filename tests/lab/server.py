"""The server of a fault, a process of its own: `python -m tests.lab.server ORDER`, where ORDER is JSON.

Prints `ready` when it listens and runs until it is killed.
"""

import asyncio
import contextlib
import json
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from telemetry.connector.messages import IceServer
from telemetry.simulator.server import Simulator
from tests.lab.network import SERVER

PORT = 8443
PROXY_PORT = 3128
SPEED = 2.0


@dataclass(frozen=True)
class ServerOrder:
    """What a server is to be."""

    token: str | None = None
    certificate: str | None = None
    """The path of a certificate with its key. None means no TLS."""
    ice_servers: tuple[dict[str, str], ...] = ()
    """The fields of `IceServer`."""

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


class NoSuchName(asyncio.DatagramProtocol):
    """A resolver that knows no name."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        # The question as it came, with the flags of an answer: response, recursion, NXDOMAIN (RFC 1035, section 4.1.1).
        self._transport.sendto(data[:2] + b"\x81\x83" + data[4:6] + b"\0\0\0\0\0\0" + data[12:], addr)


async def forbid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a proxy that lets nobody through."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def serving(order: ServerOrder) -> AsyncIterator[None]:
    """The simulator, a resolver and a proxy."""
    tls = None
    if order.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(order.certificate)
    ice_servers = [IceServer(**server) for server in order.ice_servers]
    simulator = Simulator(SERVER, PORT, speed=SPEED, token=order.token, ssl_context=tls, ice_servers=ice_servers)
    proxy = await asyncio.start_server(forbid, SERVER, PROXY_PORT)
    await asyncio.get_running_loop().create_datagram_endpoint(NoSuchName, local_addr=(SERVER, 53))
    async with simulator, proxy:
        yield


async def main(order: ServerOrder) -> None:
    """Serve until killed."""
    async with serving(order):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(ServerOrder(**json.loads(sys.argv[1]))))
