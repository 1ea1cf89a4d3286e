"""How many spans a second one core takes: parsed by protobuf, decoded, and through each door into a store on disk."""

import asyncio
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import httpx

from telemetry.receiver import fragments, otlp, scanner
from telemetry.store.duck import Store
from telemetry.store.writer import Writer
from tests.support.otlp import RECEIVED_NS, Request, to_json
from tests.support.receiving import receiving
from tests.support.traffic import foreign, own

SPANS = 5_000
"""In a request; the decoder is also measured with an SDK's 512."""
REQUESTS = 20
"""Through each door: 100,000 spans, all different."""
SENDERS = 8
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def main() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind, make in (("own", own), ("foreign", foreign)):
        for count in (512, SPANS):
            figures[f"decode {kind} {count}"] = _decoders(kind, make(count), count)
        for door in ("grpc", "http", "json"):
            figures[f"door {kind} {door}"] = _door(kind, make, door)
    return figures


def _decoders(kind: str, message: Request, count: int) -> dict[str, float]:
    body, text = message.SerializeToString(), to_json(message)
    rates = {
        "parse": _rate(lambda: Request.FromString(body), count),
        "scanner": _rate(lambda: scanner.decode_protobuf(body, RECEIVED_NS), count),
        "fragments": _rate(lambda: fragments.decode_protobuf(body, RECEIVED_NS), count),
        "readable": _rate(lambda: otlp.decode_protobuf(body, RECEIVED_NS), count),
        "json": _rate(lambda: otlp.decode_json(text, RECEIVED_NS), count),
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


def _door(kind: str, make: Callable[[int, int], Request], door: str) -> dict[str, float]:
    """A receiver with a store in a process of its own, so that its processor time is its alone."""
    encode = to_json if door == "json" else Request.SerializeToString
    bodies = [encode(make(SPANS, SPANS * number)) for number in range(REQUESTS)]
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    server.start()
    try:
        http, grpc_port = ours.recv()
        began = time.perf_counter()
        latencies = asyncio.run(_send(bodies, door, http, grpc_port))
        wall_s = time.perf_counter() - began
        ours.send("stop")
        cpu_s, memory_mb, stored = ours.recv()
    finally:
        server.join(30)
        server.kill()
    spans = SPANS * REQUESTS
    if stored != spans:
        raise AssertionError(f"{stored} of {spans} acknowledged spans are in the store")
    p99_ms = sorted(latencies)[int(len(latencies) * 0.99)] * 1000
    print(
        f"{kind:8} {door:5} into the store: {spans / cpu_s:,.0f} spans/s/core, {spans / wall_s:,.0f} spans/s, "
        f"p99 {p99_ms:.0f} ms at full load, {memory_mb} MB"
    )
    return {
        "spans_per_core_s": round(spans / cpu_s),
        "spans_per_s": round(spans / wall_s),
        "p99_ms": round(p99_ms),
        "peak_mb": memory_mb,
    }


async def _send(bodies: list[bytes], door: str, http: int, grpc_port: int) -> list[float]:
    left: Iterator[bytes] = iter(bodies)
    latencies: list[float] = []
    options = [("grpc.max_send_message_length", -1)]
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}", options=options) as channel,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{http}", timeout=60) as client,
    ):
        export = channel.unary_unary(EXPORT)
        headers = {"Content-Type": "application/json" if door == "json" else "application/x-protobuf"}

        async def sender() -> None:
            for body in left:
                began = time.perf_counter()
                if door == "grpc":
                    await export(body)
                else:
                    (await client.post("/v1/traces", content=body, headers=headers)).raise_for_status()
                latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(sender() for _ in range(SENDERS)))
    return latencies


def _serve(pipe: Connection) -> None:
    async def serve() -> None:
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "bench.duckdb") as store:
            writer = Writer(store)
            async with receiving(writer) as ports:
                before = _cpu_s()
                pipe.send((ports.http, ports.grpc))
                await asyncio.to_thread(pipe.recv)
            await writer.close()
            spent = _cpu_s() - before
            stored = store.query("select count(*) as n from spans").to_pylist()[0]["n"]
            memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            pipe.send((spent, memory_mb, stored))

    asyncio.run(serve())


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
