"""The same spans over gRPC into our server, into Arize Phoenix, and through rotel into chDB: speed, and what is lost.

Each is sent to at full speed, asked at the last acknowledgement how many spans it can see, and then killed.
What it has after that was really stored; the rest of what it acknowledged is lost.
Phoenix and chDB are installed into `build/peers/` at the first run, outside the lock.
"""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc

from telemetry.source import notice_path
from telemetry.store.duck import Store
from tests.support.collector import NO_ROTEL, environment, rotel
from tests.support.stream import Stream

VERSIONS = {"arize-phoenix": "20.26.1", "chdb": "4.4.0"}
PEERS = Path(__file__).parents[2] / "build" / "peers"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SECONDS = 15.0
SENDERS = 8
TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Peer:
    """Something that takes OTLP/gRPC and stores spans."""

    port: int
    processes: list[subprocess.Popen[Any]]
    seen: Callable[[], int]
    """How many spans a query finds, while it runs."""
    stored: Callable[[], int]
    """How many are there after it was killed."""


def main() -> dict[str, Any]:
    install()
    stream = Stream()
    figures: dict[str, Any] = {
        "versions": VERSIONS | {"rotel": version("rotel")},
        "seconds": SECONDS,
        "senders": SENDERS,
    }
    for name, start in (("ours", ours), ("phoenix", phoenix), ("rotel and chDB", rotel_and_chdb)):
        with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as peer:
            figures[name] = measured(peer, stream)
        own, said = figures["ours"], figures[name]
        said["times_slower_per_core"] = round(own["spans_per_core_s"] / max(said["spans_per_core_s"], 1), 2)
        print(name + ": " + ", ".join(f"{key} {value:,}" for key, value in said.items()), file=sys.stderr, flush=True)
    return figures


def install() -> None:
    """Make the peers' environment, once."""
    python = PEERS / "bin" / "python"
    wanted = [f"{name}=={version}" for name, version in VERSIONS.items()]
    uv = Path(sys.executable).with_name("uv")
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, PEERS], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *wanted], check=True)


def measured(peer: Peer, stream: Stream) -> dict[str, Any]:
    """Send, look, kill, count."""
    before = sum(map(_cpu_s, peer.processes))
    began = time.monotonic()
    acknowledged, failed = asyncio.run(send(peer.port, stream))
    took = time.monotonic() - began
    spent = sum(map(_cpu_s, peer.processes)) - before
    seen = peer.seen()
    for process in peer.processes:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    stored = peer.stored()
    return {
        "acknowledged": acknowledged,
        "refused": failed,
        "spans_per_s": round(acknowledged / took),
        "spans_per_core_s": round(acknowledged / spent),
        "seen_at_last_acknowledgement": seen,
        "stored_after_kill": stored,
        "lost": max(0, acknowledged - stored),
    }


async def send(port: int, stream: Stream) -> tuple[int, int]:
    """Send for a while with senders that always wait for one answer; spans acknowledged, and refused."""
    began, number, taken, refused = time.monotonic(), 0, 0, 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        export = channel.unary_unary(EXPORT)

        async def one() -> None:
            nonlocal number, taken, refused
            while time.monotonic() - began < SECONDS:
                number += 1
                body, spans = stream.body(number // stream.requests, number % stream.requests, time.time_ns())
                try:
                    await export(body, timeout=30)
                    taken += spans
                except grpc.aio.AioRpcError:
                    refused += spans
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(one() for _ in range(SENDERS)))
    return taken, refused


@contextmanager
def ours(folder: Path) -> Iterator[Peer]:
    """`telemetry serve`."""
    path = folder / "s.duckdb"
    command = [sys.executable, "-m", "telemetry", "serve", "--store", str(path)]
    with running(*command, "--grpc-port", "0", "--http-port", "0", "--pages-port", "0") as process:
        wait(lambda: notice_path(path).exists())
        notice = json.loads(notice_path(path).read_text())

        def seen() -> int:
            with urllib.request.urlopen(f"{notice['url']}/api/store") as answer:
                return int(json.load(answer)["spans"])

        def stored() -> int:
            with Store.open(path, read_only=True) as store:
                return int(store.info()["spans"])

        yield Peer(int(notice["otlp_grpc"].rpartition(":")[2]), [process], seen, stored)


@contextmanager
def phoenix(folder: Path) -> Iterator[Peer]:
    """Arize Phoenix with its own SQLite file."""
    pages, port = free_ports(2)
    settings = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(pages),
        "PHOENIX_GRPC_PORT": str(port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }

    def rows() -> int:
        with closing(sqlite3.connect(folder / "phoenix.db", timeout=30)) as connection:
            return int(connection.execute("select count(*) from spans").fetchone()[0])

    with running(str(PEERS / "bin" / "phoenix"), "serve", env=os.environ | settings) as process:
        wait(lambda: _answers(f"http://127.0.0.1:{pages}/healthz"))
        yield Peer(port, [process], rows, rows)


@contextmanager
def rotel_and_chdb(folder: Path) -> Iterator[Peer]:
    """rotel, whose exporter inserts into chDB through ClickHouse's HTTP interface."""
    agent = rotel()
    if agent is None:
        raise AssertionError(NO_ROTEL)
    server = [str(PEERS / "bin" / "python"), str(Path(__file__).with_name("chdb_server.py")), str(folder)]
    port, other = free_ports(2)

    @contextmanager
    def serving() -> Iterator[tuple[subprocess.Popen[Any], str]]:
        with running(*server, stdout=subprocess.PIPE) as process:
            yield process, f"http://127.0.0.1:{int(process.stdout.readline())}"  # type: ignore[union-attr]

    def rows(url: str) -> int:
        with urllib.request.urlopen(f"{url}/count") as answer:
            return int(answer.read())

    def stored() -> int:
        with serving() as (_, url):
            return rows(url)

    with ExitStack() as stack:
        chdb, url = stack.enter_context(serving())
        options = {
            "--otlp-grpc-endpoint": f"127.0.0.1:{port}",
            "--otlp-http-endpoint": f"127.0.0.1:{other}",
            "--exporter": "clickhouse",
            "--clickhouse-exporter-endpoint": url,
            "--clickhouse-exporter-compression": "none",
            "--pid-file": str(folder / "pid"),
            "--log-file": str(folder / "log"),
        }
        words = [word for option in options.items() for word in option]
        collector = stack.enter_context(running(*agent, "start", *words, env=environment()))
        wait(lambda: _listens(port))
        yield Peer(port, [collector, chdb], lambda: rows(url), stored)


@contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process until the end of the block."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet | options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait(ready: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise AssertionError("a server did not start")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _cpu_s(process: subprocess.Popen[Any]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


if __name__ == "__main__":
    main()
