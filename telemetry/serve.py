"""One process that receives, stores and shows: OTLP/gRPC, OTLP/HTTP and the pages around one store.

It runs on one asyncio loop; the store's writer has the only other thread that matters.
A stop refuses what is new, finishes what was begun, flushes and closes; whoever got an acknowledgement has lost nothing
whenever the process ends, because an acknowledgement follows the commit.
"""

import asyncio
import json
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import uvicorn
from starlette.types import ASGIApp

from telemetry import settings
from telemetry.alerts.watch import Plan, Watch
from telemetry.errors import ServerError, UsageError
from telemetry.receiver import grpc as otlp_grpc
from telemetry.receiver.http import otlp_app, server_config
from telemetry.receiver.room import Limits
from telemetry.receiver.tls import Tls
from telemetry.reports import execute
from telemetry.source import notice_path
from telemetry.store.checks import sizes
from telemetry.store.duck import Store
from telemetry.store.retention import Retention
from telemetry.store.writer import Writer
from telemetry.web import upkeep
from telemetry.web.app import LOOPBACK_NAMES, QUERY_LIMIT_S, pages_app
from telemetry.web.prometheus import store_figures

if TYPE_CHECKING:
    from telemetry.cluster.source import Cluster

GRACE_S: Final = 5.0
"""How long requests in flight may take to finish after a stop; the SDKs' exporters give up after ten seconds."""
_FAREWELL_S: Final = 2.0
"""How long those that are broken off then may take to say so, and to have it written down."""
_UNREAD_S: Final = 300.0
"""Who takes nothing of an answer in this time, or does not say so, has gone."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Where to listen, for whom, and how long to keep what comes in."""

    host: str = settings.LOOPBACK
    grpc_port: int = settings.OTLP_GRPC_PORT
    """0 means any free port."""
    http_port: int = settings.OTLP_HTTP_PORT
    pages_port: int = settings.PAGES_PORT
    tokens: tuple[str, ...] = ()
    """What callers must show; none means that whoever reaches the address may."""
    origins: tuple[str, ...] = ()
    """Pages that may send telemetry from a browser."""
    open_to_all: bool = False
    """Listen beyond loopback even without a token."""
    retention: Retention | None = None
    """What to forget. None means nothing."""
    watch: Plan | None = None
    """The alert rules to check. None means none."""
    tls: Tls | None = None
    """For every door. None means plain text."""
    limits: Limits = field(default_factory=Limits)
    """Of what senders send, for each transport."""

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server listens."""

    pages: str
    otlp_http: str
    otlp_grpc: str


@asynccontextmanager
async def serving(store_path: Path, doors: Doors) -> AsyncIterator[Addresses]:
    """Open the store and all doors; close them in order on the way out.

    Raises:
        UsageError: the address is reachable by others and there is no token.
        StoreError: the store is locked, of another version, or cannot be opened.
        ServerError: a port is taken or an address cannot be used.
    """
    _refuse_strangers(doors)
    with (
        listening(doors.host, doors.http_port, "http") as http,
        listening(doors.host, doors.pages_port, "pages") as pages,
    ):
        store = await asyncio.to_thread(Store.open, store_path)
        try:
            async with _doors(store, doors, http, pages) as addresses:
                with _announced(store_path, addresses, doors.tls):
                    yield addresses
        finally:
            await asyncio.to_thread(store.close)


@asynccontextmanager
async def showing(url: str, doors: Doors) -> AsyncIterator[str]:
    """Open the pages before a ClickHouse cluster, and yield their address; nothing is received or forgotten here.

    Raises:
        UsageError: the address is reachable by others and there is no token; or the cluster's cannot be read.
        StoreError: the cluster does not answer, or refuses.
        ServerError: the port is taken or the address cannot be used.
    """
    from telemetry.cluster import source

    _refuse_strangers(doors)
    with listening(doors.host, doors.pages_port, "pages") as pages, ExitStack() as stack:
        cluster = await asyncio.to_thread(stack.enter_context, source.opened(url))
        address = f"{doors.scheme}://{_authority(doors.host, pages)}"
        watch = await asyncio.to_thread(_watch, cluster, doors, address)
        look = pages_app(
            cluster,
            info=cluster.info,
            tokens=doors.tokens,
            hosts=_names(doors),
            figures=watch.figures,
            receives=False,
        )
        server = _Server(look, _context(doors, senders=False))
        try:
            await server.begin(pages)
            async with watch.running():
                yield address
        finally:
            await server.stop(GRACE_S)


@asynccontextmanager
async def _doors(store: Store, doors: Doors, http: socket.socket, pages: socket.socket) -> AsyncIterator[Addresses]:
    writer = Writer(store, retention=doors.retention)
    try:
        watch = await asyncio.to_thread(_watch, store, doors, f"{doors.scheme}://{_authority(doors.host, pages)}")
        look = pages_app(
            store,
            info=store.info,
            tokens=doors.tokens,
            hosts=_names(doors),
            more=upkeep.routes(store),
            figures=lambda: store_figures(sizes(store)) + watch.figures(),
        )
        take = otlp_app(writer, tokens=doors.tokens, origins=doors.origins, limits=doors.limits)
        taking, looking = _Server(take, _context(doors, senders=True)), _Server(look, _context(doors, senders=False))
        grpc = await otlp_grpc.serve(
            writer, doors.host, doors.grpc_port, tokens=doors.tokens, limits=doors.limits, tls=doors.tls
        )
        try:
            await taking.begin(http)
            await looking.begin(pages)
            async with watch.running():
                yield Addresses(
                    pages=f"{doors.scheme}://{_authority(doors.host, pages)}",
                    otlp_http=f"{doors.scheme}://{_authority(doors.host, http)}",
                    otlp_grpc=f"{doors.scheme}://{_host(doors.host)}:{grpc.port}",
                )
        finally:
            # Together: while one waits for what it has begun, the others must take nothing new.
            await asyncio.gather(*(door.stop(GRACE_S) for door in (grpc, taking, looking)))
    finally:
        await writer.close()


def _watch(store: "Store | Cluster", doors: Doors, url: str) -> Watch:
    class Limited:
        def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
            return store.query(sql, params, timeout_s=QUERY_LIMIT_S)

    return Watch(doors.watch or Plan(()), lambda name, params: execute(name, params, Limited()), url=url)


class _Server(uvicorn.Server):
    """Serves an ASGI application, and leaves the signals to the process that runs it."""

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None) -> None:
        super().__init__(server_config(app, tls=tls))
        self._begun = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def begin(self, listener: socket.socket) -> None:
        """Start to serve on a listening socket."""
        self._serving = asyncio.create_task(self.serve(sockets=[listener]))
        await self._begun.wait()

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, wait at most so long for those under way, and end."""
        if not self._serving:
            return
        self.config.timeout_graceful_shutdown = int(grace_s)
        self.should_exit = True
        await self._serving
        if broken_off := self.server_state.tasks:  # uvicorn cancels them, and does not wait
            await asyncio.wait(broken_off, timeout=_FAREWELL_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self._begun.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening(host: str, port: int, what: str) -> socket.socket:
    """A socket for one of the doors."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ServerError(
            f"cannot listen on {_host(host)}:{port}: {error.strerror or error}; "
            f"stop what uses it, or choose another with --{what}-port"
        ) from error
    # Each connection inherits it. asyncio sets it where a socket names TCP, which this one does not; without it an
    # answer in two parts waits for the other side's delayed acknowledgement: 44 ms instead of 0.3 over loopback.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":  # others keep what was written for who does not read it until the server stops
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(_UNREAD_S * 1000))
    return listener


@contextmanager
def _announced(store_path: Path, addresses: Addresses, tls: Tls | None) -> Iterator[None]:
    """Tell the other commands, by a file beside the store, whom to ask."""
    notice = notice_path(store_path)
    body = {
        "pid": os.getpid(),
        "url": addresses.pages.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:"),
        "otlp_http": addresses.otlp_http,
        "otlp_grpc": addresses.otlp_grpc,
        "certificate": str(tls.certificate.resolve()) if tls else None,
    }
    draft = notice.with_name(notice.name + ".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(body, file)
    draft.replace(notice)
    try:
        yield
    finally:
        notice.unlink(missing_ok=True)


def _context(doors: Doors, *, senders: bool) -> ssl.SSLContext | None:
    return doors.tls.context(senders=senders) if doors.tls else None


def _refuse_strangers(doors: Doors) -> None:
    if doors.tokens or doors.open_to_all or settings.is_loopback(doors.host):
        return
    raise UsageError(
        f"{doors.host} is reachable by others and there is no token; "
        f"set {settings.TOKEN_VARIABLE}, or say --open-to-all if everyone who reaches it may read and write"
    )


def _names(doors: Doors) -> Sequence[str]:
    """The names a browser may use: any, where a token guards the door or everyone may come in."""
    return LOOPBACK_NAMES if settings.is_loopback(doors.host) else ("*",)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _authority(host: str, listener: socket.socket) -> str:
    return f"{_host(host)}:{listener.getsockname()[1]}"
