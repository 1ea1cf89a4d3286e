"""The receiver over raw sockets: broken framing, senders that lie, drip or vanish."""

import asyncio
import gzip
import json
import logging
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2, status_pb2

from telemetry.receiver import intake
from telemetry.receiver.room import Limits
from tests.receiver.test_grpc import EXPORT
from tests.receiver.test_intake import Held
from tests.support.otlp import request, span
from tests.support.receiving import KeptSpans, receiving

pytestmark = pytest.mark.real

BODY = request(span()).SerializeToString()
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
QUICK = Limits(header_s=0.2, body_s=0.2, slow_s=0.05, max_body_bytes=100_000)


async def talk(port: int, *pieces: bytes, close: bool = False) -> bytes:
    """Send pieces, and return all that comes back until the receiver closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if close:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def complete(body: bytes = BODY, *, last: bool = True) -> bytes:
    """A whole request."""
    closing = b"Connection: close\r\n" if last else b""
    return HEAD + closing + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def test_pipelined_requests() -> None:
    """Two requests on one connection, sent without waiting, are answered in order."""
    writer = KeptSpans()
    async with receiving(writer) as ports:
        answer = await talk(ports.http, complete(last=False) + complete())

    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert writer.names == ["connect", "connect"]


async def test_chunked_body() -> None:
    """A body in chunks of one byte is put together."""
    writer = KeptSpans()
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in BODY)
    head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with receiving(writer) as ports:
        answer = await talk(ports.http, head + chunks + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert writer.names == ["connect"]


async def test_expect_continue() -> None:
    """A sender that asks before it sends a body is told to go on."""
    async with receiving(KeptSpans()) as ports:
        head = HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        answer = await talk(ports.http, head, BODY)

    assert answer.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 200" in answer


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS on a plain port
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        HEAD + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nContent-Type: application/json\r\n\r\n",  # no Host
    ],
)
async def test_broken_framing(garbage: bytes) -> None:
    """What is not HTTP/1.1 gets a 400 with a Status, the connection is closed, and the receiver lives on."""
    async with receiving(KeptSpans(), limits=QUICK) as ports:
        answer = await talk(ports.http, garbage, b"\r\n" * 4)
        after = await talk(ports.http, complete())

    assert answer.startswith(b"HTTP/1.1 4") or answer == b""
    if answer:
        assert "message" in json.loads(answer.rpartition(b"\r\n\r\n")[2])
    assert after.startswith(b"HTTP/1.1 200")


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = HEAD.replace(b"application/x-protobuf", b"text/plain") + CHUNKED


@pytest.mark.parametrize(
    ("sent", "later", "expected"),
    [
        (HEAD + CHUNKED + b"1\r\n", None, b""),
        (HEAD + CHUNKED + b"no size\r\n", b"", b"400"),
        (REFUSED + b"no size\r\n", b"", b"400"),
        (REFUSED, b"no size\r\n", b"415"),
    ],
    ids=["ends", "breaks", "breaks before its answer", "breaks after its answer"],
)
async def test_body_that_breaks(
    sent: bytes, later: bytes | None, expected: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that ends or breaks is answered once at most, wherever that is found out, and is no error in our log."""
    async with receiving(KeptSpans()) as ports, asyncio.timeout(10):
        reader, sender = await asyncio.open_connection("127.0.0.1", ports.http)
        sender.write(sent)
        answer = b""
        if later:
            answer = await reader.readuntil(b"\r\n\r\n")
            sender.write(later)
        if later is None:
            sender.write_eof()
        answer += await reader.read()
        sender.close()

    assert answer[9:12] == expected
    assert answer.count(b"HTTP/1.1 ") == bool(expected)
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_length_larger_than_the_body() -> None:
    """A sender that promises more than it sends and hangs up is not stored."""
    writer = KeptSpans()
    async with receiving(writer) as ports:
        await talk(ports.http, HEAD + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 5) + BODY, close=True)
        after = await talk(ports.http, complete())

    assert writer.names == ["connect"]
    assert after.startswith(b"HTTP/1.1 200")


async def test_sender_hangs_up_in_the_middle(caplog: pytest.LogCaptureFixture) -> None:
    """A sender that hangs up in the middle of a body is written down, and leaves nothing in the log."""
    writer = KeptSpans()
    async with receiving(writer) as ports:
        await talk(ports.http, HEAD + b"User-Agent: sdk/1\r\nContent-Length: 100\r\n\r\nabc", close=True)
        await talk(ports.http, complete())

    assert writer.refused == [("http/protobuf", "incomplete or too large", 0)]
    assert (writer.examples[0] or "").startswith("sdk/1")
    assert caplog.records == []


async def test_length_smaller_than_the_body() -> None:
    """What follows the promised length is not taken for part of the body."""
    writer = KeptSpans()
    async with receiving(writer, limits=QUICK) as ports:
        answer = await talk(
            ports.http, HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + b"x" * 50 + b"\r\n\r\n"
        )

    assert answer.startswith(b"HTTP/1.1 200")
    assert writer.names == ["connect"]


async def test_length_over_the_limit() -> None:
    """A body that is announced as too large is refused before it arrives."""
    async with receiving(KeptSpans(), limits=QUICK) as ports:
        answer = await talk(ports.http, HEAD + b"Content-Length: 99999999999\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("begun", "expected"),
    [
        (b"", b""),
        (b"POST /v1/tr", b""),
        (HEAD, b""),
        (HEAD + b"Content-Length: 100\r\n\r\n", b"HTTP/1.1 503"),
        (HEAD + b"Content-Length: 100\r\n\r\nabc", b"HTTP/1.1 503"),
    ],
    ids=["nothing", "line", "headers", "no body", "part of the body"],
)
async def test_slow_sender(begun: bytes, expected: bytes) -> None:
    """A sender that stops in the middle loses its connection when its time is up."""
    async with receiving(KeptSpans(), limits=QUICK) as ports:
        assert (await talk(ports.http, begun)).startswith(expected)


async def test_slow_sender_gives_way() -> None:
    """A sender that says nothing makes way, once that has taken long, for others where there is no room for more."""
    writer = KeptSpans()
    async with receiving(writer, limits=Limits(max_requests=1, slow_s=0.2)) as ports, asyncio.timeout(10):
        reader, slow = await asyncio.open_connection("127.0.0.1", ports.http)
        slow.write(HEAD + b"Content-Length: 10\r\n\r\n")
        await asyncio.sleep(0.1)
        answers = [await talk(ports.http, complete())]
        while not answers[-1].startswith(b"HTTP/1.1 200"):
            await asyncio.sleep(0.1)
            answers.append(await talk(ports.http, complete()))

        assert answers[0].startswith(b"HTTP/1.1 503")
        assert (await reader.readline()).startswith(b"HTTP/1.1 503")
        slow.close()
    assert writer.names == ["connect"]


async def test_too_many_connections() -> None:
    """A connection past the limit is closed at once, the ones before it are served."""
    async with receiving(KeptSpans(), limits=Limits(max_connections=2)) as ports:
        held: list[Any] = [await asyncio.open_connection("127.0.0.1", ports.http) for _ in range(2)]
        assert await talk(ports.http, complete()) == b""

        reader, writer = held[0]
        writer.write(complete())
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        for _, each in held:
            each.close()


async def http2(port: int, *pieces: bytes) -> bytes:
    """Greet the gRPC port with pieces; returns the first frame's head, or nothing where the connection was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
    try:
        async with asyncio.timeout(10):
            return await reader.read(9) if pieces else (await reader.read())[-9:]
    except ConnectionError:
        return b""
    finally:
        if not pieces:
            writer.close()
        else:
            held.append(writer)


held: list[asyncio.StreamWriter] = []
"""Connections that stay open until their test ends."""
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


async def test_too_many_connections_of_grpc() -> None:
    """A gRPC connection past the limit is closed at once; when another has gone there is room again."""
    async with receiving(KeptSpans(), limits=Limits(max_connections=2)) as ports:
        answers = [await http2(ports.grpc, GREETING) for _ in range(3)]
        held.pop().close()
        held.pop(0).close()
        async with asyncio.timeout(10):
            while not (again := await http2(ports.grpc, GREETING)):
                held.pop().close()
    for writer in held:
        writer.close()
    held.clear()

    assert [answer[3:4] for answer in answers] == [b"\x04", b"\x04", b""]  # SETTINGS, or closed
    assert again[3:4] == b"\x04"


async def test_silent_connection_of_grpc() -> None:
    """A gRPC connection that never greets is closed when its time is up."""
    async with receiving(KeptSpans(), limits=QUICK) as ports, asyncio.timeout(5):
        await http2(ports.grpc)


CLEAR_REFS = Path("/proc/self/clear_refs")


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="only Linux forgets a peak of memory when asked")
async def test_nothing_unfolds_for_strangers() -> None:
    """Without a token nothing is decompressed: eight messages of 60 KB that would be 60 MB each cost less than one."""
    folded = gzip.compress(bytes(60_000_000))
    writer = KeptSpans()
    async with receiving(writer, tokens=["t"]) as ports:
        before_mb = peak_mb(forget=True)
        async with asyncio.timeout(60):
            await asyncio.gather(*(export(ports.grpc, folded) for _ in range(8)))
        grown_mb = peak_mb() - before_mb

    assert writer.refused == [("grpc", "no token", 0)] * 8
    assert grown_mb < 40


def peak_mb(*, forget: bool = False) -> int:
    """The most memory that this process had since its peak was last forgotten."""
    if forget:
        CLEAR_REFS.write_text("5")
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024


async def test_token_before_the_message() -> None:
    """Who shows no token is answered without a byte of the message."""
    writer = KeptSpans()
    async with receiving(writer, tokens=["t"]) as ports, asyncio.timeout(5):
        await export(ports.grpc, bytes(60_000), sent=0)

    assert writer.refused == [("grpc", "no token", 0)]


async def test_slow_message() -> None:
    """A message of gRPC that does not arrive in time is refused, and not before, where nobody waits for its place."""
    writer = KeptSpans()
    async with receiving(writer, limits=QUICK) as ports, asyncio.timeout(5):
        await export(ports.grpc, bytes(60_000), sent=20_000)

    assert writer.refused == [("grpc", "too slow", 0)]


async def test_slow_message_gives_way() -> None:
    """A message that arrives slowly makes way for one that waits, and is told to come again."""
    writer = KeptSpans()
    limits = Limits(max_messages=1, slow_s=0.2)
    async with receiving(writer, limits=limits) as ports, asyncio.timeout(10):
        slow = asyncio.create_task(export(ports.grpc, bytes(60_000), sent=20_000))
        await asyncio.sleep(0.1)
        await export(ports.grpc, gzip.compress(BODY))
        await slow

    assert writer.names == ["connect"]
    assert writer.refused == [("grpc", "too slow", 0)]


async def test_messages_at_once() -> None:
    """Of a message that has no place yet, nothing is asked for beyond the 64 KB that HTTP/2 begins with."""
    async with receiving(KeptSpans(), limits=Limits(max_messages=1)) as ports, asyncio.timeout(10):
        first, second = [await begun(ports.grpc, bytes(60_000_000), sent=30_000) for _ in range(2)]
        await asked(first[0])
        waiting = asyncio.create_task(asked(second[0]))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        waiting.cancel()
    for _, sender in (first, second):
        sender.close()

    assert not done


async def asked(reader: asyncio.StreamReader) -> None:
    """Wait until more of a message is asked for."""
    kind, stream = None, 0
    while kind != WINDOW_UPDATE or not stream:
        kind, stream = await read_frame(reader)


async def export(port: int, folded: bytes, *, sent: int | None = None) -> None:
    """Send a message that says that it is gzip, or its first bytes, and wait for the head of the answer."""
    reader, sender = await begun(port, folded, sent=sent)
    while (await read_frame(reader))[0] != HEADERS:
        pass
    sender.close()
    await sender.wait_closed()


async def begun(
    port: int, folded: bytes, *, sent: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a message that says that it is gzip, or its first bytes."""
    fields = {":method": "POST", ":scheme": "http", ":path": EXPORT, ":authority": "x", "te": "trailers"}
    fields |= {"content-type": "application/grpc", "grpc-encoding": "gzip"}
    headers = b"".join(b"\x00" + text(name) + text(value) for name, value in fields.items())
    reader, sender = await asyncio.open_connection("127.0.0.1", port)
    sender.write(GREETING + frame(HEADERS, 4, headers))
    pieces = frames(folded)
    sender.write(b"".join(pieces if sent is None else pieces[: math.ceil(sent / PIECE_BYTES)]))
    return reader, sender


def frames(folded: bytes) -> list[bytes]:
    """The frames of a message that says that it is gzip."""
    message = b"\x01" + len(folded).to_bytes(4, "big") + folded
    starts = range(0, len(message), PIECE_BYTES)
    return [frame(DATA, at == starts[-1], message[at : at + PIECE_BYTES]) for at in starts]


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int]:
    """The kind and the stream of the next frame."""
    size, kind, stream = struct.unpack(">xHBxI", await reader.readexactly(9))
    await reader.readexactly(size)
    return kind, stream


PIECE_BYTES = 16_384
"""Of a message in one frame."""
DATA, HEADERS, WINDOW_UPDATE = 0, 1, 8
"""Kinds of HTTP/2 frames."""


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    """A frame of the first stream of a connection."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1]) + payload


def text(word: str) -> bytes:
    """A string of a header."""
    return bytes([len(word)]) + word.encode("latin-1")


async def test_sender_vanishes_before_its_answer() -> None:
    """Spans of a sender that hangs up while they are stored are stored all the same."""
    writer = KeptSpans()
    writer.held.clear()
    async with receiving(writer) as ports:
        _, sender = await asyncio.open_connection("127.0.0.1", ports.http)
        sender.write(complete())
        await writer.entered.wait()
        sender.close()
        await sender.wait_closed()
        writer.held.set()
        await talk(ports.http, complete())

    assert writer.names == ["connect", "connect"]


@pytest.mark.parametrize("phase", ["arrives", "is decoded", "is stored"])
async def test_broken_off_by_a_stop(
    phase: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a stop breaks off is 503 with Retry-After and a Status, and written down where it may be lost."""
    writer, held = KeptSpans(), Held()
    writer.held.clear()
    if phase == "is decoded":
        monkeypatch.setattr(intake, "decode_together", held)
    letting = asyncio.create_task(held.let_when_cancelled(caplog, servers=1))
    async with asyncio.timeout(10):
        async with receiving(writer, timeout_graceful_shutdown=0) as ports:
            reader, sender = await asyncio.open_connection("127.0.0.1", ports.http)
            if phase == "arrives":
                sender.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
            else:
                sender.write(complete(last=False))
                await (held if phase == "is decoded" else writer).entered.wait()
        await letting
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        sender.close()

    assert head.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 2" in head.lower()
    assert status_pb2.Status.FromString(body).code == code_pb2.UNAVAILABLE
    assert writer.refused == ([("http/protobuf", "broken off by a stop", 0)] if phase != "is stored" else [])
    assert [record for record in caplog.records if record.exc_info] == []
