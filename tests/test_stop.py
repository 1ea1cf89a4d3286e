"""A stop of `telemetry serve`: at once nothing new is taken; what was begun is finished, or told to come again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc
import httpx
import pytest
from google.rpc import code_pb2, status_pb2

from telemetry import serve
from telemetry.receiver import intake
from telemetry.serve import serving
from telemetry.store.duck import Store
from tests.receiver.test_grpc import EXPORT
from tests.receiver.test_intake import Held
from tests.receiver.test_sockets import DATA, asked, begun, frames, read_frame
from tests.support.otlp import request, span
from tests.test_serve import ANY, send, serve_process

pytestmark = pytest.mark.real

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Error = TypeVar("Error", bound=Exception)


async def begin(url: str, path: str, size: int) -> Connection:
    """Begin a request over HTTP; returns when its body is waited for."""
    reader, sender = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf\r\n"
    sender.write(f"{head}Expect: 100-continue\r\nContent-Length: {size}\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    return reader, sender


async def until_raised(error: type[Error], asking: Callable[[], Awaitable[object]]) -> Error:
    """Ask again and again until it is refused."""
    while True:
        try:
            await asking()
        except error as refusal:
            return refusal


async def test_what_is_new_is_refused_and_what_was_begun_finished(tmp_path: Path) -> None:
    """After SIGTERM all doors refuse what is new while one request is under way at each, and these are answered."""
    path = tmp_path / "store.duckdb"
    over_http = request(span(name="begun over HTTP", span_id=b"\1" * 8)).SerializeToString()
    over_grpc = request(span(name="begun over gRPC" + 100_000 * ".", span_id=b"\2" * 8)).SerializeToString()
    text = b"attempt-0001"

    with serve_process(path) as (process, notice):
        pages, otlp_http, otlp_grpc = notice["url"], notice["otlp_http"], httpx.URL(notice["otlp_grpc"])
        assert otlp_grpc.port
        await asyncio.to_thread(send, otlp_http, 1)
        async with (
            asyncio.timeout(60),
            httpx.AsyncClient(trust_env=False) as client,
            grpc.aio.insecure_channel(f"127.0.0.1:{otlp_grpc.port}") as channel,
        ):
            await asyncio.gather(client.get(pages), client.get(otlp_http), channel.unary_unary(EXPORT)(b""))
            page, http = (
                await begin(pages, "/api/find", len(text)),
                await begin(otlp_http, "/v1/traces", len(over_http)),
            )
            call = await begun(otlp_grpc.port, over_grpc, sent=30_000)
            await asked(call[0])

            process.send_signal(signal.SIGTERM)
            for url in (pages, otlp_http):
                await until_raised(httpx.TransportError, lambda url=url: client.get(url))  # over the one that stands
                await until_raised(httpx.ConnectError, lambda url=url: client.get(url))  # and over a new one
            error = await until_raised(grpc.aio.AioRpcError, lambda: channel.unary_unary(EXPORT)(b""))

            call[1].write(b"".join(frames(over_grpc)[2:]))
            page[1].write(text)
            http[1].write(over_http)
            answers = [(await reader.read()).partition(b"\r\n")[0] for reader, _ in (page, http)]
            while (await read_frame(call[0]))[0] != DATA:  # an error has no message
                pass
            for _, sender in (page, http, call):
                sender.close()
            _, narrated = await asyncio.to_thread(process.communicate, timeout=30)
    with Store.open(path) as store:
        names = store.query("select name from spans where name like 'begun%' order by 1")["name"].to_pylist()

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert answers == [b"HTTP/1.1 200 OK"] * 2
    assert [name.rstrip(".") for name in names] == ["begun over HTTP", "begun over gRPC"]
    assert process.returncode == 0
    assert "Traceback" not in narrated


async def test_what_is_broken_off_is_answered_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is not finished in time gets 503 from each door before the store is closed, and the ledger has it."""
    path = tmp_path / "store.duckdb"
    monkeypatch.setattr(serve, "GRACE_S", 0.0)
    held = Held()
    monkeypatch.setattr(intake, "decode_together", held)

    letting = asyncio.create_task(held.let_when_cancelled(caplog, servers=2))
    async with asyncio.timeout(30):
        async with serving(path, ANY) as addresses:
            connections = [
                await begin(addresses.pages, "/api/find", 100),
                await begin(addresses.otlp_http, "/v1/traces", 100),
                await begin(addresses.otlp_http, "/v1/traces", 2),
            ]
            connections[-1][1].write(b"\x0a\x00")
            await held.entered.wait()
        await letting
        answers = [await reader.read() for reader, _ in connections]
        for _, sender in connections:
            sender.close()
    with Store.open(path) as store:
        ledger = store.query("select reason, requests::int as n from ingest where reason is not null").to_pylist()

    assert all(answer.startswith(b"HTTP/1.1 503") and b"retry-after: 2" in answer.lower() for answer in answers)
    assert status_pb2.Status.FromString(answers[-1].partition(b"\r\n\r\n")[2]).code == code_pb2.UNAVAILABLE
    assert ledger == [{"reason": "broken off by a stop", "n": 2}]
    assert [record for record in caplog.records if record.exc_info] == []
