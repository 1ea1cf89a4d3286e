"""How many spans a second one core takes: parsed by protobuf, decoded, inserted by DuckDB, and through each door into a
store on disk; how long an acknowledgement takes at half of full speed; and what it costs to have all sent again."""

import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import grpc
import httpx

from telemetry.receiver import otlp_json, otlp_protobuf, scanner
from telemetry.store.duck import Store
from telemetry.store.writer import Writer
from tests.support.otlp import RECEIVED_NS, Request, to_json
from tests.support.receiving import receiving
from tests.support.traffic import foreign, own

SPANS = 5_000
"""In a request of a Collector; an SDK sends 512."""
REQUESTS = 40
"""Through each door: 200,000 spans, all different, so that the store folds and checkpoints too."""
SENDERS = 8
AGAIN_S = 1.0
"""Until a sender comes again that was told to."""
DOORS = ("grpc", "http", "json")
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def main() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind, make in (("own", own), ("foreign", foreign)):
        for count in (512, SPANS):
            figures[f"decode {kind} {count}"] = _decoders(kind, make(count), count)
        figures[f"insert {kind}"] = inserted = _insert(kind, make)
        limits = {"parse": figures[f"decode {kind} {SPANS}"]["parse"], "insert": inserted}
        for door in DOORS:
            for count in (512, SPANS) if door == "grpc" else (SPANS,):
                figures[f"door {kind} {door} {count}"] = _door(kind, make, door, count, limits)
    return figures


def _decoders(kind: str, message: Request, count: int) -> dict[str, float]:
    body, text = message.SerializeToString(), to_json(message)
    rates = {
        "parse": _rate(lambda: Request.FromString(body), count),
        "scanner": _rate(lambda: scanner.decode_protobuf(body, RECEIVED_NS), count),
        "json": _rate(lambda: scanner.decode_json(text, RECEIVED_NS), count),
        "readable": _rate(lambda: otlp_protobuf.decode_protobuf(body, RECEIVED_NS), count),
        "readable json": _rate(lambda: otlp_json.decode_json(text, RECEIVED_NS), count),
    }
    said = ", ".join(f"{name} {rate:,.0f} ({rates['parse'] / rate:.1f} x)" for name, rate in rates.items())
    print(f"{kind:8} {count:5} spans a request, spans/s/core: {said}")
    return {name: round(rate) for name, rate in rates.items()}


def _rate(work: Callable[[], object], count: int) -> float:
    """Spans a second of processor time, the best of three half seconds."""
    work()
    best = 0.0
    for _ in range(3):
        began, rounds = time.process_time(), 0
        while (spent := time.process_time() - began) < 0.5:
            work()
            rounds += 1
        best = max(best, rounds * count / spent)
    return best


def _insert(kind: str, make: Callable[[int, int], Request]) -> int:
    """Spans a second of processor time that DuckDB inserts from decoded columns: one transaction a request, one table,
    text where the store has VARIANT."""
    tables = [scanner.decode_protobuf(make(SPANS, SPANS * n).SerializeToString(), RECEIVED_NS).table for n in range(10)]
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(str(Path(folder) / "bare.duckdb")) as connection:
        connection.register("batch", tables[0])
        connection.execute("create table spans as from batch limit 0")
        began = time.process_time()
        for table in tables:
            connection.register("batch", table)
            connection.execute("insert into spans from batch")
        rate = len(tables) * SPANS / (time.process_time() - began)
    print(f"{kind:8} {SPANS:5} spans a transaction, inserted by DuckDB: {rate:,.0f} spans/s/core")
    return round(rate)


def _door(
    kind: str, make: Callable[[int, int], Request], door: str, count: int, limits: dict[str, float]
) -> dict[str, float]:
    """At full speed and then at half of it, into a receiver in a process of its own.

    So its processor time is its alone; folds and a last checkpoint are counted too.

    Args:
        count: spans a request.
        limits: spans a second of processor time, to compare with.
    """
    spans = SPANS * REQUESTS
    print(f"{kind:8} {door:5} {count:5}: making {spans:,} spans …", end="\r", file=sys.stderr, flush=True)
    encode = to_json if door == "json" else Request.SerializeToString
    bodies = [encode(make(count, first)) for first in range(0, spans, count)]
    half = len(bodies) * 2 // 3  # two thirds at full speed: as long as the rest at half
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    server.start()
    try:
        http, grpc_port = ours.recv()
        began = time.perf_counter()
        asyncio.run(_send(bodies[:half], door, http, grpc_port))
        wall_s = time.perf_counter() - began
        pause_s = 2 * wall_s / half
        latencies = sorted(asyncio.run(_send(bodies[half:], door, http, grpc_port, pause_s)))
        ours.send("all are sent")
        cpu_s = ours.recv()
        asyncio.run(_send(bodies, door, http, grpc_port))
        ours.send("all are sent again")
        again_s = ours.recv() - cpu_s
        memory_mb, stored = ours.recv()
    finally:
        server.join(30)
        server.kill()
    sent = count * len(bodies)
    if stored != sent:
        raise AssertionError(f"{stored} of {sent} acknowledged spans are in the store")
    figures = {
        "spans_per_core_s": round(sent / cpu_s),
        "spans_per_s": round(half * count / wall_s),
        "p50_ms_at_half_speed": round(latencies[len(latencies) // 2] * 1000),
        "p99_ms_at_half_speed": round(latencies[int(len(latencies) * 0.99)] * 1000),
        "peak_mb": memory_mb,
        "again_times_faster": round(cpu_s / again_s, 1),
        **{f"{name}_times_faster": round(rate * cpu_s / sent, 1) for name, rate in limits.items()},
    }
    said = ", ".join(f"{name} {figure:,}" for name, figure in figures.items())
    print(f"{kind:8} {door:5} {count:5} spans a request, into the store: {said}", flush=True)
    return figures


async def _send(bodies: list[bytes], door: str, http: int, grpc_port: int, pause_s: float = 0) -> list[float]:
    """Send all; seconds until each was acknowledged, counted from when it was due.

    Args:
        pause_s: from one request to the next; 0 means as fast as some senders that always wait for an answer.
    """
    latencies: list[float] = []
    options = [("grpc.max_send_message_length", -1)]
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}", options=options) as channel,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{http}", timeout=60) as client,
    ):
        export = channel.unary_unary(EXPORT)
        headers = {"Content-Type": "application/json" if door == "json" else "application/x-protobuf"}

        async def acknowledged(body: bytes) -> bool:
            if door == "grpc":
                try:
                    await export(body)
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    return False
                return True
            answer = await client.post("/v1/traces", content=body, headers=headers)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                answer.raise_for_status()
            return answer.is_success

        async def send(body: bytes, due: float) -> None:
            if await acknowledged(body):
                latencies.append(time.perf_counter() - due)
                return
            await asyncio.sleep(AGAIN_S)
            await send(body, due)

        async def sender(left: Iterator[bytes]) -> None:
            for body in left:
                await send(body, time.perf_counter())

        left, began = iter(bodies), time.perf_counter()
        if not pause_s:
            await asyncio.gather(*(sender(left) for _ in range(SENDERS)))
            return latencies
        async with asyncio.TaskGroup() as tasks:
            for number, body in enumerate(bodies):
                due = began + number * pause_s
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.create_task(send(body, due))
    return latencies


def _serve(pipe: Connection) -> None:
    async def serve() -> None:
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "bench.duckdb") as store:
            writer = Writer(store)
            async with receiving(writer) as ports:
                before = _cpu_s()
                pipe.send((ports.http, ports.grpc))
                for _ in range(2):
                    await asyncio.to_thread(pipe.recv)
                    await asyncio.to_thread(store.tend, now=True)
                    pipe.send(_cpu_s() - before)
            await writer.close()
            stored = store.query("select count(*) as n from spans").to_pylist()[0]["n"]
            memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            pipe.send((memory_mb, stored))

    asyncio.run(serve())


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
