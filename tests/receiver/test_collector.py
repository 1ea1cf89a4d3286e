"""A collector on the way: our configuration of the stock one, and a real one between the SDK and the store."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from telemetry import semconv
from telemetry import settings as our_settings
from telemetry.store.duck import Store
from telemetry.store.writer import Writer
from tests.receiver.test_exporters import spans
from tests.support.collector import NO_ROTEL, collecting, rotel
from tests.support.receiving import receiving

CONFIGURATION = Path(__file__).parents[2] / "telemetry" / "receiver" / "collector.yaml"


@pytest.fixture(scope="module")
def collector() -> dict[str, Any]:
    """The configuration, parsed."""
    parsed: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    return parsed


def test_pipelines_name_what_is_defined(collector: dict[str, Any]) -> None:
    """Each pipeline refers to components that exist, each component is used, and memory is limited first."""
    pipelines = collector["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines for name in pipeline[kind]}

        assert used == set(collector[kind])
    assert set(collector["service"]["extensions"]) == set(collector["extensions"])
    for pipeline in pipelines:
        assert pipeline["processors"][0] == "memory_limiter"


def test_collector_loses_nothing(collector: dict[str, Any]) -> None:
    """What the collector acknowledged waits on disk, and is sent until we have it."""
    exporter = collector["exporters"]["otlp/telemetry"]

    assert exporter["sending_queue"]["storage"] in collector["extensions"]
    assert exporter["retry_on_failure"] | {"max_elapsed_time": "0s"} == exporter["retry_on_failure"]
    assert "batch" not in collector["processors"]


def test_collector_ports(collector: dict[str, Any]) -> None:
    """It listens on other ports than ours, on loopback, and sends to our gRPC port."""
    protocols = collector["receivers"]["otlp"]["protocols"]
    ours = (our_settings.OTLP_GRPC_PORT, our_settings.OTLP_HTTP_PORT, our_settings.PAGES_PORT)
    for protocol in protocols.values():
        host, _, port = protocol["endpoint"].rpartition(":")

        assert host == our_settings.LOOPBACK
        assert int(port) not in ours
    endpoint = collector["exporters"]["otlp/telemetry"]["endpoint"]

    assert endpoint == f"${{env:TELEMETRY_OTLP_ENDPOINT:-{our_settings.LOOPBACK}:{our_settings.OTLP_GRPC_PORT}}}"
    assert f"${{env:{our_settings.TOKEN_VARIABLE}" in str(collector)


def test_collector_scrubs(collector: dict[str, Any]) -> None:
    """The pattern strips personal data and credentials everywhere, and none of the names that reports need."""
    statements = collector["processors"]["transform/scrub"]["trace_statements"]
    places, patterns = zip(
        *(re.fullmatch(r'delete_matching_keys\((\S+), "(.+)"\)', line).groups() for line in statements), strict=True
    )
    (pattern,) = set(patterns)
    names = {value for value in vars(semconv).values() if isinstance(value, str) and "." in value}

    assert set(places) == {f"{owner}.attributes" for owner in ("resource", "scope", "span", "spanevent")}
    for key in ("user.pii.email", "pii", "http.request.header.authorization", "Authorization", "x.api_key", "a.token"):
        assert re.search(pattern, key), key
    for key in names - {name for name in names if "pii" in name.split(".")}:
        assert not re.search(pattern, key), key


@pytest.mark.real
async def test_every_span_passes_a_real_collector(tmp_path: Path) -> None:
    """What the SDK sends to a collector is found in the store: every span, once, with its attributes and links."""
    command = rotel()
    if command is None:
        pytest.skip(NO_ROTEL)
    # Far below the collector's batch size: it truncates single requests above that.
    batches = [spans(200) for _ in range(5)]
    with Store.open(tmp_path / "s.duckdb") as store:
        writer = Writer(store)
        async with receiving(writer) as ports, collecting(command, tmp_path, ports.grpc) as port:
            exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
            results = [await asyncio.to_thread(exporter.export, batch) for batch in batches]
            await asyncio.to_thread(exporter.shutdown)
            sent = {format(span.context.span_id, "016x") for batch in batches for span in batch}
            async with asyncio.timeout(20):
                while store.query("select count(*) as n from spans").to_pylist()[0]["n"] < len(sent):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # the collector sends on in its own time
        await writer.close()
        found = store.query(
            "select span_id, session_id, name, status_message, (attributes.f)::double as f, links is not null as linked"
            " from spans"
        ).to_pylist()
    connects = [row for row in found if row["name"] == semconv.Span.CONNECT]

    assert set(results) == {SpanExportResult.SUCCESS}
    assert sorted(row["span_id"] for row in found) == sorted(sent)
    assert {(row["status_message"], row["f"], row["linked"]) for row in connects} == {("it failed", 0.5, True)}
    assert {row["session_id"] for row in connects} == {f"session-{number}" for number in range(200)}
