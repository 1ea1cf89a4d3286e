"""The figures for Prometheus, over ASGI and as text."""

from pathlib import Path

import httpx

from telemetry.store.checks import sizes
from telemetry.store.duck import Store
from telemetry.web import prometheus
from telemetry.web.app import pages_app
from telemetry.web.prometheus import Figure
from tests.support.spans import attempt, table


async def test_stored_and_duplicate_spans_are_counted(tmp_path: Path) -> None:
    """`/metrics` counts what was stored and what was there already, by transport and reason."""
    with Store.open(tmp_path / "store.duckdb") as store:
        rows = table(attempt(1))
        store.commit([rows])
        store.commit([rows])
        transport = httpx.ASGITransport(app=pages_app(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert f"dp_telemetry_store_spans {rows.num_rows}" in lines
    [stored] = [line for line in lines if line.startswith("dp_telemetry_spans_stored_total{")]
    [duplicate] = [line for line in lines if line.startswith("dp_telemetry_spans_duplicate_total{")]
    assert stored.endswith(f" {rows.num_rows}")
    assert duplicate.endswith(f" {rows.num_rows}")


def test_a_store_in_trouble(tmp_path: Path) -> None:
    """What a store takes on disk, and whether it is in trouble, are metrics."""
    with Store.open(tmp_path / "store.duckdb") as store:
        well = sizes(store)
    lines = prometheus.text(prometheus.store_figures(well | {"trouble": "the disk is full"})).splitlines()

    assert f"dp_telemetry_store_file_bytes {well['file_bytes']}" in lines
    assert "dp_telemetry_store_trouble 1" in lines
    assert "dp_telemetry_store_trouble 0" in prometheus.text(prometheus.store_figures(well)).splitlines()


def test_labels_are_escaped() -> None:
    """Quotes, backslashes and line ends in a label value cannot end it."""
    figure = Figure("a_total", "counter", "Help.", [({"reason": 'x"} 1\n\\'}, 2)])

    assert prometheus.text([figure]).splitlines()[-1] == 'a_total{reason="x\\"} 1\\n\\\\"} 2'
