"""A server that is sent far more than it can take says so early, answers its pages, and loses and doubles nothing."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2

from telemetry.store.duck import Store
from tests.receiver.test_grpc import EXPORT
from tests.soak import counted, memory_mb
from tests.support.stream import Stream
from tests.test_serve import serve_process

pytestmark = pytest.mark.real

SECONDS = 5.0
CHANNELS, CALLS = 14, 24
"""More than the 256 requests that are let in at once; fewer on a connection than HTTP/2 lets in."""
OVER_HTTP = 300
PATIENCE_S = 30
"""Three times that of an SDK: this machine may be slow, and its senders share it."""
MOST_MB = 2000
ASKED = {"/api/health", "/api/reports/failure_rate?since=5m"}


class Flood:
    """Senders that never wait: what was acknowledged, by the number its ids begin with, and what was refused.

    It goes on until the pages have answered in the middle of it.
    """

    def __init__(self) -> None:
        self.acknowledged: dict[int, int] = {}
        self.refused: Counter[str] = Counter()
        self.refused_at: list[float] = []
        self.delays: set[int] = set()
        self.answers: list[tuple[str, float]] = []
        """What the pages answered, and when it was asked."""
        self._stream = Stream(faster=5000)
        self._number = 0
        self._begun = time.monotonic()

    def answered(self) -> set[str]:
        """What the pages answered of what was asked after the first refusal and before the last."""
        first, last = (self.refused_at[0], self.refused_at[-1]) if self.refused_at else (0.0, 0.0)
        return {asked for asked, at in self.answers if first < at < last}

    def _goes_on(self) -> bool:
        since = time.monotonic() - self._begun
        return since < SECONDS or (since < SECONDS + PATIENCE_S and self.answered() != ASKED)

    def _refuse(self, how: str, delay_s: int) -> None:
        self.refused[how] += 1
        self.refused_at.append(time.monotonic())
        self.delays.add(delay_s)

    def _next(self) -> tuple[int, bytes, int]:
        self._number += 1
        return self._number, *self._stream.body(self._number, self._number % self._stream.requests, time.time_ns())

    async def over_grpc(self, channel: grpc.aio.Channel) -> None:
        """One call after the other; no answer may take longer than an SDK waits."""
        while self._goes_on():
            number, body, spans = self._next()
            try:
                await channel.unary_unary(EXPORT)(body, timeout=PATIENCE_S)
            except grpc.aio.AioRpcError as error:
                trailer = dict(error.trailing_metadata() or ()).get("google.rpc.retryinfo-bin", b"")
                delay = error_details_pb2.RetryInfo.FromString(bytes(trailer)).retry_delay
                self._refuse(f"grpc {error.code().name}", delay.seconds)
                await asyncio.sleep(0.1)
            else:
                self.acknowledged[number] = spans

    async def over_http(self, client: httpx.AsyncClient, url: str) -> None:
        """As `over_grpc`."""
        while self._goes_on():
            number, body, spans = self._next()
            answer = await client.post(url, content=body, headers={"Content-Type": "application/x-protobuf"})
            if answer.status_code == 200:
                self.acknowledged[number] = spans
            else:
                self._refuse(f"http {answer.status_code}", int(answer.headers["retry-after"]))
                await asyncio.sleep(0.1)


async def ask(pages: httpx.AsyncClient, pid: int, flood: Flood) -> int:
    """Ask the pages until cancelled; returns the most memory that the server had."""
    most_mb = 0
    try:
        while True:
            for asked in sorted(ASKED):
                at = time.monotonic()
                (await pages.get(asked)).raise_for_status()
                flood.answers.append((asked, at))
            most_mb = max(most_mb, memory_mb(pid))
            await asyncio.sleep(0.3)
    except asyncio.CancelledError:
        return most_mb


async def test_overload(tmp_path: Path) -> None:
    """Of what is sent by 600 senders at once some is taken, the rest is told to come again; then comes kill -9."""
    path = tmp_path / "s.duckdb"
    flood = Flood()
    limits = httpx.Limits(max_connections=None)
    with serve_process(path) as (process, notice):
        target = notice["otlp_grpc"].removeprefix("http://")
        channels = [grpc.aio.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(CHANNELS)]
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False, limits=limits) as sending,
            httpx.AsyncClient(base_url=notice["url"], timeout=PATIENCE_S, trust_env=False) as pages,
        ):
            asking = asyncio.create_task(ask(pages, process.pid, flood))
            senders = [flood.over_grpc(channel) for channel in channels for _ in range(CALLS)]
            senders += [flood.over_http(sending, f"{notice['otlp_http']}/v1/traces") for _ in range(OVER_HTTP)]
            await asyncio.gather(*senders)
            asking.cancel()
            most_mb = await asking
        process.kill()
        for channel in channels:
            await channel.close()
    with Store.open(path) as store:
        ledger = store.query(
            "select transport, sum(requests)::int as n from ingest where reason = 'overloaded' group by 1 order by 1"
        ).to_pylist()
    stored = counted(path, [*flood.acknowledged])

    assert flood.acknowledged
    assert flood.refused.keys() == {"grpc UNAVAILABLE", "http 503"}
    assert flood.delays <= {1, 2}
    assert [row["transport"] for row in ledger] == ["grpc", "http/protobuf"]
    assert stored == {number: (spans, spans) for number, spans in flood.acknowledged.items()}
    assert flood.answered() == ASKED
    assert most_mb < MOST_MB
