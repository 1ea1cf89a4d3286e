"""A real collector as a process: rotel, which installs from the package registry."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

LIBRARY = f"libpython{sysconfig.get_python_version()}.so.1.0"
NO_ROTEL = (
    f"NOT TESTED: a real collector. rotel needs Python 3.13 or older, and its shared {LIBRARY}; "
    "install Debian's libpython3-dev for this Python, or build Python with --enable-shared"
)


def rotel() -> list[str] | None:
    """The command that runs the collector; None where it, or the shared library it needs, is missing."""
    spec = find_spec("rotel")
    if spec is None or not spec.submodule_search_locations:
        return None
    binary = Path(spec.submodule_search_locations[0]) / "rotel-agent"
    found = subprocess.run([binary, "--version"], env=environment(), capture_output=True, check=False)
    return [str(binary)] if found.returncode == 0 else None


def environment() -> dict[str, str]:
    folders = [str(sysconfig.get_config_var("LIBDIR")), os.environ.get("LD_LIBRARY_PATH", "")]
    return {"PATH": os.environ.get("PATH", ""), "LD_LIBRARY_PATH": ":".join(filter(None, folders))}


def collecting(command: list[str], folder: Path, export_to: int) -> AbstractAsyncContextManager[int]:
    """Run the collector, sending on over OTLP/gRPC to a port; gives its own gRPC port."""
    return _running(command, folder, "otlp", "--otlp-exporter-endpoint", f"http://127.0.0.1:{export_to}")


def collecting_into(command: list[str], folder: Path, clickhouse: str) -> AbstractAsyncContextManager[int]:
    """Run the collector, writing into `telemetry.otel_traces` of a ClickHouse node; gives its own gRPC port."""
    given = ("--clickhouse-exporter-endpoint", clickhouse, "--clickhouse-exporter-database", "telemetry")
    return _running(command, folder, "clickhouse", *given, "--clickhouse-exporter-async-insert", "false")


@asynccontextmanager
async def _running(command: list[str], folder: Path, exporter: str, *given: str) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        grpc_port, http_port = one.getsockname()[1], two.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *command,
        "start",
        *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}"),
        *("--otlp-http-endpoint", f"127.0.0.1:{http_port}"),
        *("--exporter", exporter, *given),
        *("--pid-file", str(folder / "pid"), "--log-file", str(folder / "log")),
        env=environment(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            await _answers(grpc_port)
        yield grpc_port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(20):
            await process.wait()


async def _answers(port: int) -> None:
    """Wait until something listens on a port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.05)  # another process: there is nothing to wait on
            continue
        writer.close()
        return
