"""The JavaScript SDK as a sender, in Node, against the receiver and a real store. `make test-senders` installs it."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from telemetry.errors import Overloaded
from telemetry.store.duck import Store
from telemetry.store.writer import Writer
from tests.support import javascript
from tests.support.receiving import KeptSpans, Ports, receiving

pytestmark = [pytest.mark.real, pytest.mark.skipif(not javascript.READY, reason=javascript.MISSING)]

EXPORTERS = ["json", "protobuf", "grpc"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of its own for each test."""
    with Store.open(tmp_path / "s.duckdb") as opened:
        yield opened


@asynccontextmanager
async def storing(store: Store, **options: Any) -> AsyncIterator[Ports]:
    """A receiver in front of a store."""
    writer = Writer(store)
    async with receiving(writer, **options) as ports:
        yield ports
    await writer.close()


def address(ports: Ports, exporter: str) -> str:
    """Where an exporter sends to."""
    return f"http://127.0.0.1:{ports.grpc}" if exporter == "grpc" else f"http://127.0.0.1:{ports.http}/v1/traces"


def stored_alike(store: Store, told: dict[str, Any], name: str) -> bool:
    """Whether each span that was sent is stored, with every attribute, its event and its link."""
    rows = store.query(
        """
        select trace_id, span_id, name, kind, status_code, status_message, session_id, scope_name, scope_version,
          attributes::json::varchar as attributes, events::json::varchar as events, links::json::varchar as links
        from spans order by (attributes.number)::bigint
        """
    ).to_pylist()
    expected = dict(told["attributes"])
    session = expected.pop("session.id")
    for number, (row, sent) in enumerate(zip(rows, told["spans"], strict=True)):
        assert (row["trace_id"], row["span_id"]) == (sent["traceId"], sent["spanId"])
        assert (row["name"], row["kind"], row["session_id"]) == (name, "CLIENT", session)
        assert (row["status_code"], row["status_message"]) == ("ERROR", "it failed")
        assert (row["scope_name"], row["scope_version"]) == ("senders", "1.0")
        assert json.loads(row["attributes"]) == expected | {"number": number}
        assert json.loads(row["events"])[0]["attributes"] == {"k": 1}
        assert json.loads(row["links"])[0]["attributes"] == {"why": "retry"}
    return True


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("exporter", EXPORTERS)
async def test_what_is_sent_can_be_queried(store: Store, exporter: str, compression: str) -> None:
    """When the SDK says that its export succeeded, every span is found again, with every attribute of every type."""
    async with storing(store) as ports:
        told = await javascript.node(
            exporter=exporter, url=address(ports, exporter), spans=5, compression=compression, headers={}
        )

    assert told["succeeded"], told["error"]
    assert told["warnings"] == []
    assert len(told["spans"]) == 5
    assert stored_alike(store, told, exporter)


@pytest.mark.parametrize("exporter", EXPORTERS)
async def test_partial_success_is_told(store: Store, exporter: str) -> None:
    """A span that is rejected costs its neighbours nothing; the SDK warns its application, and does not try again."""
    async with storing(store) as ports:
        told = await javascript.node(exporter=exporter, url=address(ports, exporter), spans=3, broken=True)
        ledger = store.query("select reason, rejected from ingest order by reason").to_pylist()
    told["spans"].pop()

    assert told["succeeded"]
    assert any("span_id is not 8 bytes" in warning for warning in told["warnings"])
    assert stored_alike(store, told, exporter)
    assert {(row["reason"], row["rejected"]) for row in ledger} >= {("span_id is not 8 bytes, or all zeros", 1)}


class Busy(KeptSpans):
    """Refuses the first request."""

    calls = 0

    async def submit(self, table: pa.Table, transport: str, digest: str | None = None) -> None:
        self.calls += 1
        if self.calls == 1:
            raise Overloaded("busy", retry_after_s=1)
        await super().submit(table, transport, digest)


@pytest.mark.parametrize("exporter", ["json", "protobuf"])
async def test_overload_is_tried_again(exporter: str) -> None:
    """After a 503 with Retry-After the SDK sends again, once, and the spans arrive."""
    writer = Busy()
    async with receiving(writer) as ports:
        told = await javascript.node(exporter=exporter, url=address(ports, exporter), spans=2)

    assert told["succeeded"]
    assert writer.calls == 2
    assert writer.names == [exporter, exporter]


async def test_overload_over_grpc_is_an_error_of_the_sdk() -> None:
    """This SDK never sends again over gRPC, whatever the answer: it tells its application that the export failed."""
    writer = Busy()
    async with receiving(writer) as ports:
        told = await javascript.node(exporter="grpc", url=address(ports, "grpc"), spans=2)

    assert not told["succeeded"]
    assert "UNAVAILABLE: busy" in told["error"]
    assert writer.calls == 1


@pytest.mark.parametrize("exporter", ["json", "protobuf"])
async def test_token(exporter: str) -> None:
    """Without the token the SDK gives up at once; with it the spans arrive."""
    writer = KeptSpans()
    async with receiving(writer, tokens=["a-secret"]) as ports:
        url = address(ports, exporter)
        without = await javascript.node(exporter=exporter, url=url, spans=1)
        shown = await javascript.node(exporter=exporter, url=url, spans=1, headers={"authorization": "Bearer a-secret"})

    assert not without["succeeded"]
    assert shown["succeeded"]
    assert writer.names == [exporter]
