"""A receiver for tests: over sockets with any writer, and a writer that keeps tables in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import uvicorn

from telemetry.receiver import grpc as otlp_grpc
from telemetry.receiver.http import otlp_app, server_config
from telemetry.receiver.intake import Writer
from telemetry.receiver.room import Limits
from telemetry.serve import listening


class KeptSpans:
    """Stands for the store's writer: keeps tables, or raises, and waits while `held` is not set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.tables: list[pa.Table] = []
        self.refused: list[tuple[str, str, int]] = []
        self.examples: list[str | None] = []
        self.error = error
        self.held = asyncio.Event()
        self.held.set()
        self.entered = asyncio.Event()

    async def submit(self, table: pa.Table, transport: str, digest: str | None = None) -> None:
        """Take the spans of one request."""
        self.entered.set()
        await self.held.wait()
        if self.error:
            raise self.error
        self.tables.append(table)

    def repeated(self, digest: str, transport: str) -> bool:
        """Know none: each request is decoded."""
        return False

    def refuse(self, transport: str, reason: str, rejected: int, example: str | None = None) -> None:
        """Write down what was not taken."""
        self.refused.append((transport, reason, rejected))
        self.examples.append(example)

    @property
    def names(self) -> list[str]:
        """The names of the spans taken."""
        return [name for table in self.tables for name in table["name"].to_pylist()]


@dataclass(frozen=True)
class Ports:
    """Where a test's receiver listens on 127.0.0.1."""

    http: int
    grpc: int


@asynccontextmanager
async def receiving(
    writer: Writer,
    *,
    tokens: Sequence[str] = (),
    origins: Sequence[str] = (),
    limits: Limits | None = None,
    **settings: Any,
) -> AsyncIterator[Ports]:
    """Both transports on free ports until the end of the block."""
    grpc = await otlp_grpc.serve(writer, "127.0.0.1", 0, tokens=tokens, limits=limits)
    app = otlp_app(writer, tokens=tokens, origins=origins, limits=limits)
    with listening("127.0.0.1", 0, "http") as listener:
        server = uvicorn.Server(server_config(app, limits, **settings))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
                await asyncio.sleep(0)
            yield Ports(listener.getsockname()[1], grpc.port)
        finally:
            server.should_exit = True
            await task
            await grpc.stop(1)
