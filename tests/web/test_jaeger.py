"""The questions of Jaeger's pages and of Grafana's Jaeger data source, asked through ASGI."""

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from telemetry.store.duck import Store
from telemetry.web.app import pages_app
from tests.support.spans import T0, attempt, foreign, table

RANGE = {"start": str(T0 // 1000 - 1), "end": str(T0 // 1000 + 10**9)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One attempt that connected, one that failed, and a trace of another service."""
    with Store.open(tmp_path_factory.mktemp("store") / "store.duckdb") as store:
        store.commit([table(attempt(1), attempt(2, outcome="failed", error="noScene"), foreign(3))])
        yield store


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """Asks the application."""
    transport = httpx.ASGITransport(app=pages_app(store))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


async def test_services_and_operations(client: httpx.AsyncClient) -> None:
    """Every service that sent spans is listed, and the span names of one."""
    services = (await client.get("/api/services")).json()["data"]
    operations = (await client.get("/api/services/shop/operations")).json()

    assert "shop" in services
    assert operations["data"] == ["GET /thing"]
    assert operations["total"] == 1


async def test_search_finds_traces_by_service_time_and_tags(client: httpx.AsyncClient) -> None:
    """A search answers with whole traces: of the service, in the range, with the tags."""
    service = next(s for s in (await client.get("/api/services")).json()["data"] if s != "shop")
    everything = (await client.get("/api/traces", params={"service": service, **RANGE})).json()["data"]
    tags = json.dumps({"error.type": "noScene"})
    failed = (await client.get("/api/traces", params={"service": service, "tags": tags, **RANGE})).json()["data"]
    early = (await client.get("/api/traces", params={"service": service, "start": "0", "end": "1"})).json()["data"]

    assert {trace["traceID"] for trace in everything} == {f"{1:032x}", f"{2:032x}"}
    assert [trace["traceID"] for trace in failed] == [f"{2:032x}"]
    assert early == []


async def test_a_trace_is_found_without_its_leading_zeros(client: httpx.AsyncClient) -> None:
    """Jaeger writes ids without leading zeros; both spellings find the trace."""
    assert (await client.get("/api/traces/1")).json() == (await client.get(f"/api/traces/{1:032x}")).json()


@pytest.mark.parametrize("id", ["abc", "f" * 32, "no-hex", "1" * 40])
async def test_an_unknown_trace_is_a_404(client: httpx.AsyncClient, id: str) -> None:
    """No such trace is an error and never an empty success."""
    answer = await client.get(f"/api/traces/{id}")

    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"service": "a", "start": "x"},
        {"service": "a", "minDuration": "5 parsecs"},
        {"service": "a", "tags": "{"},
        {"service": "a", "tags": "[1]"},
        {"service": "a", "tags": '{"colour": "red"}'},
    ],
)
async def test_a_search_that_cannot_be_read_is_refused(client: httpx.AsyncClient, params: dict[str, str]) -> None:
    """A missing service, a broken time, duration or tag is a 400 with words."""
    answer = await client.get("/api/traces", params=params)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
