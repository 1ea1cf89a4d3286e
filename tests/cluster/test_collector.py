"""Ready configurations of the stock Collector for a cluster, and a real collector that writes into one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from telemetry import semconv
from telemetry import settings as our_settings
from telemetry.cluster import source
from telemetry.cluster.schema_setup import apply
from tests.cluster.nodes import Cluster
from tests.receiver.test_exporters import spans
from tests.support.collector import NO_ROTEL, collecting_into, rotel

FOLDER = Path(__file__).parents[2] / "telemetry"


def parsed(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return read


@pytest.fixture(scope="module", params=["cluster/collector.yaml", "cluster/collector-edge.yaml"])
def collector(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One of the configurations, parsed."""
    return parsed(request.param)


def test_pipelines_name_what_is_defined(collector: dict[str, Any]) -> None:
    """Each pipeline refers to components that exist, each component is used, and memory is limited first."""
    pipelines = collector["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert {name for pipeline in pipelines for name in pipeline[kind]} == set(collector[kind])
    assert set(collector["service"]["extensions"]) == set(collector["extensions"])
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in pipelines)


def test_the_collector_loses_nothing(collector: dict[str, Any]) -> None:
    """Each exporter has a queue on disk and never gives up, and an insertion is answered when it is stored."""
    for exporter in collector["exporters"].values():
        assert exporter["sending_queue"]["storage"] in collector["extensions"]
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
    clickhouse = collector["exporters"]["clickhouse"]

    assert clickhouse["connection_params"]["distributed_foreground_insert"] == "1"
    assert (clickhouse["create_schema"], clickhouse["traces_table_name"]) == (False, "otel_traces")
    assert f"${{env:{source.PASSWORD_VARIABLE}" in clickhouse["password"]


def test_it_receives_and_scrubs_as_the_one_in_front_of_the_file(collector: dict[str, Any]) -> None:
    """Senders need not know where their spans go, and personal data stays out either way."""
    known = parsed("receiver/collector.yaml")

    assert collector["receivers"] == known["receivers"]
    assert collector["processors"]["transform/scrub"] == known["processors"]["transform/scrub"]


def test_the_edge_sends_to_our_receiver_as_before() -> None:
    """The mixed set-up adds the cluster and takes nothing away."""
    edge, known = (
        parsed(name)["exporters"]["otlp/telemetry"]
        for name in ("cluster/collector-edge.yaml", "receiver/collector.yaml")
    )

    assert edge == known
    assert str(our_settings.OTLP_GRPC_PORT) in edge["endpoint"]


@pytest.mark.real
async def test_every_span_passes_a_real_collector_into_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """What the SDK sends to a collector is in the cluster: every span, once, with its attributes and links."""
    command = rotel()
    if command is None:
        pytest.skip(NO_ROTEL)
    for node in range(2):
        apply(cluster.url(node=node), cluster=cluster.name)
    batches = [spans(200) for _ in range(3)]
    sent = {format(span.context.span_id, "016x") for batch in batches for span in batch}
    async with collecting_into(command, tmp_path, f"http://127.0.0.1:{cluster.nodes[0].http_port}") as port:
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
        results = [await asyncio.to_thread(exporter.export, batch) for batch in batches]
        await asyncio.to_thread(exporter.shutdown)
        with source.opened(cluster.url(node=1)) as asked:
            async with asyncio.timeout(60):
                while asked.query("select count(*) as n from spans").to_pylist()[0]["n"] < len(sent):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # the collector sends on in its own time
            found = asked.query(
                "select span_id, session_id, name, kind, status_code, status_message, attributes, links from spans"
            ).to_pylist()
    connects = [row for row in found if row["name"] == semconv.Span.CONNECT]

    assert set(results) == {SpanExportResult.SUCCESS}
    assert sorted(row["span_id"] for row in found) == sorted(sent)
    assert {(row["kind"], row["status_code"], row["status_message"]) for row in connects} == {
        ("CLIENT", "ERROR", "it failed")
    }
    assert {row["session_id"] for row in connects} == {f"session-{number}" for number in range(200)}
    assert all(row["links"] and '"f":"0.5"' in row["attributes"] for row in connects)
