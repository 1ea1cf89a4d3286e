"""A webhook's server on a real socket, as friendly or as hostile as a test wants it."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
"""The answer unless another is given."""
SILENCE = b""
"""The connection is closed without an answer."""
HANGING = None
"""The connection is kept open without an answer."""
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 100_000


def status(code: int, *headers: str) -> bytes:
    """An answer of that status."""
    return "\r\n".join((f"HTTP/1.1 {code} Said", "Content-Length: 0", *headers, "", "")).encode()


@dataclass
class Posts:
    """What arrived."""

    url: str
    answers: list[bytes | None]
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, number: int) -> None:
        """Wait until so many posts have come."""
        async with self.came:
            await self.came.wait_for(lambda: len(self.bodies) >= number)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one post and answer with the next of the answers."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            async with self.came:
                self.headers.append(headers)
                self.bodies.append(json.loads(body))
                self.came.notify_all()
            answer = self.answers.pop(0) if self.answers else OK
            if answer is HANGING:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def hook(answers: Iterable[bytes | None] = (), tls: ssl.SSLContext | None = None) -> AsyncIterator[Posts]:
    """A server that gives these answers, one a connection, and then takes everything."""
    posts = Posts("", list(answers))
    server = await asyncio.start_server(posts.take, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    posts.url = f"{'https' if tls else 'http'}://{'localhost' if tls else host}:{port}/hooks/hush"
    async with server:
        yield posts
