"""OTLP/gRPC, rule by rule, over a real channel."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2

from telemetry.errors import DecodeError, Overloaded, ServerError
from telemetry.receiver import intake
from telemetry.receiver.answers import _NOT_KEPT, not_kept_response
from telemetry.receiver.grpc import serve
from telemetry.receiver.room import Limits
from telemetry.receiver.scanner import decode_protobuf
from telemetry.receiver.tls import Tls
from tests.receiver.test_intake import Held
from tests.support.otlp import Request, request, span
from tests.support.receiving import KeptSpans

pytestmark = pytest.mark.real

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@asynccontextmanager
async def channel(writer: KeptSpans | None = None, **options: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a receiver of its own."""
    served = await serve(writer or KeptSpans(), "127.0.0.1", 0, **options)
    unlimited = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=unlimited) as made:
        yield made
    await served.stop(0)


async def refused(made: grpc.aio.Channel, body: bytes, **call: Any) -> grpc.aio.AioRpcError:
    """The error that a body gets."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await made.unary_unary(EXPORT)(body, **call)
    return caught.value


def trailer(error: grpc.aio.AioRpcError) -> dict[str, bytes]:
    """The trailing metadata of an error."""
    return {key: value for key, value in error.trailing_metadata() if isinstance(value, bytes)}


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_success(compression: grpc.Compression) -> None:
    """A request is stored before it is answered, and a full success leaves partial_success unset; gzip is taken."""
    writer = KeptSpans()
    async with channel(writer) as made:
        response = await trace_service_pb2_grpc.TraceServiceStub(made).Export(request(span()), compression=compression)

    assert not response.HasField("partial_success")
    assert writer.names == ["connect"]


async def test_empty_request() -> None:
    """A request without spans succeeds."""
    async with channel() as made:
        response = await trace_service_pb2_grpc.TraceServiceStub(made).Export(Request())

    assert response == trace_service_pb2.ExportTraceServiceResponse()


async def test_partial_success() -> None:
    """Rejected spans are counted and explained in an OK."""
    writer = KeptSpans()
    async with channel(writer) as made:
        message = request(span(), span(trace_id=b""))
        response = await trace_service_pb2_grpc.TraceServiceStub(made).Export(message)

    assert response.partial_success.rejected_spans == 1
    assert "trace_id" in response.partial_success.error_message
    assert writer.names == ["connect"]


async def test_bad_data() -> None:
    """A message that cannot be read is INVALID_ARGUMENT with BadRequest, which no sender retries."""
    async with channel() as made:
        error = await refused(made, b"\xff")
    status = status_pb2.Status.FromString(trailer(error)["grpc-status-details-bin"])

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status.code == 3
    assert status.details[0].Unpack(error_details_pb2.BadRequest())
    assert "google.rpc.retryinfo-bin" not in trailer(error)


async def test_overload() -> None:
    """What cannot be stored now is UNAVAILABLE with RetryInfo, in both places where senders look."""
    async with channel(KeptSpans(Overloaded("busy", retry_after_s=2))) as made:
        error = await refused(made, request(span()).SerializeToString())
    found = trailer(error)
    status = status_pb2.Status.FromString(found["grpc-status-details-bin"])
    packed = error_details_pb2.RetryInfo()

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert status.details[0].Unpack(packed)
    assert packed.retry_delay.seconds == 2
    assert error_details_pb2.RetryInfo.FromString(found["google.rpc.retryinfo-bin"]) == packed


@pytest.mark.parametrize(("connections", "requests"), [(1, 1000), (4, 400), (50, 32)])
async def test_many_requests_at_once(connections: int, requests: int) -> None:
    """However they come, none is refused without a word of when to come again; on one connection they queue."""

    class Slow(KeptSpans):
        async def submit(self, table: Any, transport: str, digest: str | None = None) -> None:
            await asyncio.sleep(0.02)
            await super().submit(table, transport)

    async def send(made: grpc.aio.Channel) -> tuple[grpc.StatusCode, bool]:
        call = made.unary_unary(EXPORT)(body)
        return await call.code(), "google.rpc.retryinfo-bin" in dict(await call.trailing_metadata() or ())

    asyncio.get_running_loop().set_debug(False)  # which takes most of the time of so many calls
    body = request(span()).SerializeToString()
    served = await serve(Slow(), "127.0.0.1", 0)
    own = [("grpc.use_local_subchannel_pool", 1)]  # or channels to one address share a connection
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=own))
            for _ in range(connections)
        ]
        given = set(await asyncio.gather(*(send(made) for made in channels for _ in range(requests))))
    await served.stop(0)

    taken, told = (grpc.StatusCode.OK, False), (grpc.StatusCode.UNAVAILABLE, True)
    assert taken in given
    assert given <= ({taken} if connections == 1 else {taken, told})


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip], ids=["plain", "bomb"])
async def test_too_large(compression: grpc.Compression) -> None:
    """A message over the limit, as sent or decompressed, is RESOURCE_EXHAUSTED without RetryInfo: never again."""
    writer = KeptSpans()
    async with channel(writer, limits=Limits(max_body_bytes=100_000)) as made:
        error = await refused(made, bytes(20_000_000), compression=compression)

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "incomplete or too large" if compression is grpc.Compression.NoCompression else "request too large"
    assert writer.refused == [("grpc", reason, 0)]
    assert "google.rpc.retryinfo-bin" not in trailer(error)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip], ids=["plain", "gzip"])
async def test_bytes_at_once(compression: grpc.Compression) -> None:
    """Messages that together are over the limit are UNAVAILABLE, not RESOURCE_EXHAUSTED: they may come again."""
    async with channel(limits=Limits(max_bytes=1000)) as made:
        body = request(span(name="n" * 1000)).SerializeToString()
        error = await refused(made, body, compression=compression)

    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_other_compression() -> None:
    """A message in a coding that OTLP does not name is UNIMPLEMENTED."""
    async with channel() as made:
        error = await refused(made, bytes(1000), compression=grpc.Compression.Deflate)

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("signal", _NOT_KEPT)
def test_no_message_begins_as_gzip(signal: Literal["logs", "metrics"]) -> None:
    """What begins as gzip is no message, whatever follows."""
    for rest in (b"", b"\x00" * 20, b"\x08\x1c", request(span()).SerializeToString()):
        with pytest.raises(DecodeError):
            decode_protobuf(b"\x1f\x8b" + rest, 0)
        with pytest.raises(DecodeError):
            not_kept_response(signal, b"\x1f\x8b" + rest, "protobuf")


async def test_gzip_that_is_cut() -> None:
    """gzip that ends in the middle is INVALID_ARGUMENT."""
    async with channel() as made:
        error = await refused(made, gzip.compress(bytes(100))[:-9])

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "gzip" in (error.details() or "")


async def test_no_message() -> None:
    """A call that ends without a message is INVALID_ARGUMENT."""
    async with channel() as made:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await made.stream_unary(EXPORT)(iter(()))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_unexpected_error() -> None:
    """A fault of ours is INTERNAL, and tells nothing of itself."""
    async with channel(KeptSpans(KeyError("secret"))) as made:
        error = await refused(made, request(span()).SerializeToString())

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("Bearer one", None), ("Bearer no", "is not 'Bearer <token>' with a token"), (None, "asks for a token")],
    ids=["right", "wrong", "none"],
)
async def test_tokens(shown: str | None, expected: str | None) -> None:
    """A receiver with tokens answers UNAUTHENTICATED to whoever shows none of them, and says which it was."""
    async with channel(tokens=["one", "two"]) as made:
        call = {"metadata": [("authorization", shown)] if shown else []}
        if expected is None:
            assert await made.unary_unary(EXPORT)(b"", **call) == b""
        else:
            error = await refused(made, b"", **call)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert expected in (error.details() or "")


async def test_logs_and_metrics() -> None:
    """Logs and metrics are answered with OK that rejects every record and says why: nobody sends them again."""
    logs = logs_service_pb2.ExportLogsServiceRequest(
        resource_logs=[logs_pb2.ResourceLogs(scope_logs=[logs_pb2.ScopeLogs(log_records=[logs_pb2.LogRecord()] * 2)])]
    )
    points = [metrics_pb2.NumberDataPoint()] * 3
    metrics = metrics_service_pb2.ExportMetricsServiceRequest(
        resource_metrics=[
            metrics_pb2.ResourceMetrics(
                scope_metrics=[
                    metrics_pb2.ScopeMetrics(metrics=[metrics_pb2.Metric(sum=metrics_pb2.Sum(data_points=points))])
                ]
            )
        ]
    )
    async with channel() as made:
        for_logs = await logs_service_pb2_grpc.LogsServiceStub(made).Export(logs)
        for_metrics = await metrics_service_pb2_grpc.MetricsServiceStub(made).Export(metrics)

    assert for_logs.partial_success.rejected_log_records == 2
    assert for_metrics.partial_success.rejected_data_points == 3
    assert "traces only" in for_logs.partial_success.error_message


async def test_port_in_use() -> None:
    """A port that is taken is an error at once, never shared."""
    served = await serve(KeptSpans(), "127.0.0.1", 0)
    with pytest.raises(ServerError):
        await serve(KeptSpans(), "127.0.0.1", served.port)
    await served.stop(0)


async def test_tls(tmp_path: Path) -> None:
    """With a certificate the receiver speaks TLS."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    writer = KeptSpans()
    served = await serve(writer, "127.0.0.1", 0, tls=Tls(tmp_path / "cert.pem", tmp_path / "key.pem"))
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    named = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{served.port}", trusted, options=named) as made:
        await trace_service_pb2_grpc.TraceServiceStub(made).Export(request(span()))
    await served.stop(0)

    assert writer.names == ["connect"]


async def test_stop_finishes_what_was_begun() -> None:
    """A stop lets a request under way finish, and its spans are answered for."""
    writer = KeptSpans()
    writer.held.clear()
    served = await serve(writer, "127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as made:
        sending = asyncio.ensure_future(made.unary_unary(EXPORT)(request(span()).SerializeToString()))
        await writer.entered.wait()
        stopping = asyncio.create_task(served.stop(5))
        await asyncio.sleep(0)
        writer.held.set()

        assert await sending == b""
        await stopping


async def test_broken_off_by_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    """What a stop breaks off is UNAVAILABLE, so that it is sent again; the log has no error of it."""
    writer = KeptSpans()
    writer.held.clear()
    served = await serve(writer, "127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as made:
        waiting = asyncio.create_task(refused(made, request(span()).SerializeToString()))
        await writer.entered.wait()
        await served.stop(0)

        assert (await waiting).code() is grpc.StatusCode.UNAVAILABLE
    assert [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


async def test_cancelled_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cancels a message that is decoded gets no more room meanwhile, and a stop ends all the same."""
    served, held = await serve(KeptSpans(), "127.0.0.1", 0, limits=Limits(max_requests=1)), Held()
    monkeypatch.setattr(intake, "decode_together", held)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as made:
        gone = made.unary_unary(EXPORT)(request(span()).SerializeToString())
        await held.entered.wait()
        gone.cancel()
        errors = [await refused(made, request(span()).SerializeToString()) for _ in range(3)]
        stopping = asyncio.create_task(served.stop(0))
        await asyncio.sleep(0)
        held.let.set()
        await stopping

    assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    assert held.groups == [1]
