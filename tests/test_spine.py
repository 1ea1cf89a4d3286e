"""The whole way of a session: connector, collector, receiver, store, report, story."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry import reports
from telemetry.connector.scene import Scene
from telemetry.connector.tracing import set_up_tracing
from telemetry.errors import ConnectionFailed
from telemetry.serve import Doors, serving
from telemetry.simulator.server import Simulator
from telemetry.source import opened
from telemetry.store.duck import Store
from tests.support.collector import NO_ROTEL, collecting, rotel

pytestmark = pytest.mark.real

ANY = Doors(grpc_port=0, http_port=0, pages_port=0)
CLIENT = """
import asyncio, sys
from telemetry.connector.scene import Scene
from telemetry.connector.tracing import set_up_tracing

async def main():
    scene = Scene(sys.argv[1])
    scene.on_state(lambda state: print(scene.attempt_id, flush=True))
    await scene.connect()

set_up_tracing(endpoint=sys.argv[2], protocol="grpc", service_name="doomed")
asyncio.run(main())
"""


async def test_a_session_comes_back_as_report_frame_and_story(tmp_path: Path) -> None:
    """What the connector traced passes a real collector and is found again, span by span, by every way of asking."""
    command = rotel()
    if command is None:
        pytest.skip(NO_ROTEL)
    path = tmp_path / "store.duckdb"
    kept = InMemorySpanExporter()
    async with Simulator(speed=20) as simulator, serving(path, ANY) as addresses:
        port = int(addresses.otlp_grpc.rpartition(":")[2])
        async with collecting(command, tmp_path, port) as collector:
            endpoint = f"http://127.0.0.1:{collector}"
            provider = set_up_tracing(endpoint=endpoint, protocol="grpc", service_name="spine", make_global=False)
            provider.add_span_processor(SimpleSpanProcessor(kept))
            async with Scene(simulator.url("steady"), tracer_provider=provider) as scene:
                session_id = await scene.connect()
            with pytest.raises(ConnectionFailed) as failed:
                await Scene(simulator.url("busy"), tracer_provider=provider).connect()
            await asyncio.to_thread(provider.shutdown)
            made = {format(span.context.span_id, "016x") for span in kept.get_finished_spans()}
            found = await _arrived(addresses.pages, (session_id, failed.value.attempt_id), len(made))
            recent = await asyncio.to_thread(reports.run, "recent", store=addresses.pages, since="1h")
            story = await asyncio.to_thread(_story, addresses.pages, failed.value.attempt_id)
            told = await asyncio.to_thread(_story, addresses.pages, session_id)

    assert sorted(found) == sorted(made)
    assert sorted(recent["outcome"]) == ["connected", "failed"]
    assert story["verdict"]["owner"] == "capacity"
    assert told["verdict"]["outcome"] == "connected"
    with Store.open(path, read_only=True) as store:
        steps = store.query(
            "select outcome, other_ns, duration_ns from steps where session_id = $id", {"id": session_id}
        )
    assert [row["outcome"] for row in steps.to_pylist()] == ["completed"] * 3
    assert all(0 <= row["other_ns"] <= row["duration_ns"] for row in steps.to_pylist())


async def test_an_attempt_outlives_its_client(tmp_path: Path) -> None:
    """A transition is in the store within two seconds, and stays as an unfinished attempt if the client is killed."""
    path = tmp_path / "store.duckdb"
    async with Simulator() as simulator, serving(path, ANY) as addresses:
        arguments = ("-c", CLIENT, simulator.url("silent"), addresses.otlp_grpc)
        client = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        assert client.stdout
        attempt_id = (await client.stdout.readline()).decode().strip()
        began_ns = time.time_ns()
        async with asyncio.timeout(20):
            while (rows := await asyncio.to_thread(_recent, addresses.pages)).empty:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # another process sends in its own time
        client.kill()
        await client.wait()
    with Store.open(path, read_only=True) as store:
        transitions = store.query("select start_ns, received_ns from spans where name = 'transition'").to_pylist()

    assert list(rows["attempt_id"]) == [attempt_id]
    assert list(rows["outcome"]) == ["unfinished"]
    assert len(transitions) == 1
    assert transitions[0]["start_ns"] <= began_ns
    assert transitions[0]["received_ns"] - transitions[0]["start_ns"] < 2_000_000_000


async def _arrived(url: str, ids: tuple[str, str], count: int) -> list[str]:
    """The span ids of two attempts, as soon as there are that many: the collector sends on in its own time."""
    async with asyncio.timeout(20):
        while len(found := await asyncio.to_thread(_span_ids, url, ids)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return found


def _span_ids(url: str, ids: tuple[str, str]) -> list[str]:
    with opened(url) as source:
        return [span for id in ids for span in source.report("timeline", {"id": id})["span_id"].to_pylist()]


def _recent(url: str) -> pd.DataFrame:
    return reports.run("recent", store=url, since="1h")


def _story(url: str, id: str) -> dict[str, Any]:
    with opened(url) as source:
        return source.story(id)
