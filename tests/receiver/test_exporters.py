"""The senders people use, against the receiver and a real store."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from telemetry import semconv
from telemetry.errors import Overloaded
from telemetry.receiver import intake
from telemetry.store.duck import Store
from telemetry.store.writer import Writer
from tests.support.receiving import KeptSpans, Ports, receiving

pytestmark = pytest.mark.real

EXPORTERS: dict[str, Callable[[Ports], SpanExporter]] = {
    "grpc": lambda ports: GrpcExporter(endpoint=f"http://127.0.0.1:{ports.grpc}", insecure=True),
    "grpc-gzip": lambda ports: GrpcExporter(
        endpoint=f"http://127.0.0.1:{ports.grpc}", insecure=True, compression=grpc.Compression.Gzip
    ),
    "http": lambda ports: HttpExporter(endpoint=f"http://127.0.0.1:{ports.http}/v1/traces"),
    "http-gzip": lambda ports: HttpExporter(
        endpoint=f"http://127.0.0.1:{ports.http}/v1/traces", compression=Compression.Gzip
    ),
}


def spans(count: int = 3) -> list[ReadableSpan]:
    """Finished spans of the real SDK, with attributes of all types, an event and a link."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer(semconv.SCOPE_NAME, "1.0")
    for number in range(count):
        with tracer.start_as_current_span("before") as before:
            pass
        with tracer.start_as_current_span(
            "connect",
            kind=SpanKind.CLIENT,
            links=[Link(before.get_span_context())],
            attributes={semconv.SESSION_ID: f"session-{number}", "n": number, "f": 0.5, "b": True, "l": ["x", "y"]},
        ) as span:
            span.add_event("happened", {"k": 1})
            span.set_status(Status(StatusCode.ERROR, "it failed"))
    provider.shutdown()
    return list(kept.get_finished_spans())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of its own for each test."""
    with Store.open(tmp_path / "s.duckdb") as opened:
        yield opened


@pytest.mark.parametrize("kind", EXPORTERS)
async def test_what_is_sent_can_be_queried(store: Store, kind: str) -> None:
    """When the SDK's exporter has its answer, a query finds every span with its columns, event and link."""
    sent = spans()
    writer = Writer(store)
    async with receiving(writer) as ports:
        exporter = EXPORTERS[kind](ports)
        result = await asyncio.to_thread(exporter.export, sent)
        found = store.query(
            """
            select name, kind, session_id, status_code, status_message, scope_version, (attributes.n)::bigint as n,
              (events[1].name)::varchar as event, (links[1].span_id)::varchar as linked, span_id
            from spans order by session_id nulls first, start_ns
            """
        ).to_pylist()
        await asyncio.to_thread(exporter.shutdown)
    await writer.close()
    connects = [row for row in found if row["name"] == "connect"]
    befores = {row["span_id"] for row in found if row["name"] == "before"}

    assert result is SpanExportResult.SUCCESS
    assert len(found) == len(sent)
    for number, row in enumerate(connects):
        assert (row["kind"], row["session_id"], row["n"]) == ("CLIENT", f"session-{number}", number)
        assert (row["status_code"], row["status_message"]) == ("ERROR", "it failed")
        assert (row["scope_version"], row["event"]) == ("1.0", "happened")
        assert row["linked"] in befores


async def test_what_comes_again_by_another_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same request over each transport, compressed or not, is stored once, decoded once, and counted each time."""
    sent = spans()
    writer = Writer(store)
    results = []
    async with receiving(writer) as ports:
        for exporter in (make(ports) for make in EXPORTERS.values()):
            results.append(await asyncio.to_thread(exporter.export, sent))
            await asyncio.to_thread(exporter.shutdown)
            monkeypatch.setattr(intake, "decode_together", None)
    await writer.close()
    rows = store.query(
        "select transport, sum(requests)::int as requests, sum(stored)::int as stored, "
        "sum(duplicates)::int as duplicates from ingest group by 1 order by 1"
    ).to_pylist()

    assert results == [SpanExportResult.SUCCESS] * 4
    assert [tuple(row.values()) for row in rows] == [
        ("grpc", 2, len(sent), len(sent)),
        ("http/protobuf", 2, 0, 2 * len(sent)),
    ]


@pytest.mark.parametrize("kind", ["grpc", "http"])
async def test_overload_is_tried_again(kind: str) -> None:
    """After a retryable answer the SDK's exporter sends again, and the spans arrive."""
    writer = KeptSpans()

    class Busy(KeptSpans):
        calls = 0

        async def submit(self, table: pa.Table, transport: str, digest: str | None = None) -> None:
            self.calls += 1
            if self.calls == 1:
                raise Overloaded("busy", retry_after_s=1)
            await writer.submit(table, transport, digest)

    async with receiving(Busy()) as ports:
        exporter = EXPORTERS[kind](ports)
        result = await asyncio.to_thread(exporter.export, spans(1))
        await asyncio.to_thread(exporter.shutdown)

    assert result is SpanExportResult.SUCCESS
    assert sorted(writer.names) == ["before", "connect"]


@pytest.mark.parametrize("kind", ["grpc", "http"])
async def test_token_is_asked_for(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without the token the SDK's exporter gives up at once; the receiver writes no token into a log."""
    writer = KeptSpans()
    with caplog.at_level(logging.DEBUG):
        async with receiving(writer, tokens=["a-secret"]) as ports:
            exporter = EXPORTERS[kind](ports)
            refused = await asyncio.to_thread(exporter.export, spans(1))
            await asyncio.to_thread(exporter.shutdown)

    assert refused is SpanExportResult.FAILURE
    assert writer.tables == []
    assert "a-secret" not in caplog.text
