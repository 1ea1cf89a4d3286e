"""What tracing costs a connection, and how many live scenes one core holds.

Each run is a process of its own that connects scenes to a simulator in another process, so that the CPU counted is the
client's alone. Traced and untraced runs take turns; the figure that decides is the ratio of their CPU, pair by pair.
Traced means the real thing: the SDK, a batch processor and an OTLP exporter over HTTP to a receiver that takes it all.
"""

import asyncio
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

CONNECTIONS = 20
PAIRS = 5
LIVE_SCENES = (1, 5, 10, 20)
LIVE_S = 6.0


def main() -> dict[str, Any]:
    """Print the table and return its figures."""
    simulator_url, stop_simulator = _child(_simulate)
    receiver_url, stop_receiver = _child(_swallow)
    try:
        cost = _cost_of_tracing(f"{simulator_url}steady", receiver_url)
        live = _live_scenes(f"{simulator_url}steady")
    finally:
        stop_simulator()
        stop_receiver()
    return {"cost": cost, "live": live}


def _cost_of_tracing(url: str, receiver: str) -> dict[str, float]:
    _run("connect", url, "")  # a warm-up: imports and codecs
    traced, plain = [], []
    for _ in range(PAIRS):
        traced.append(_run("connect", url, receiver))
        plain.append(_run("connect", url, ""))
    pairs = list(zip(traced, plain, strict=True))
    cost = {
        "cpu_ratio": statistics.median(a["cpu_ms"] / b["cpu_ms"] for a, b in pairs),
        "wall_ratio": statistics.median(a["wall_ms"] / b["wall_ms"] for a, b in pairs),
        "traced_cpu_ms": statistics.median(run["cpu_ms"] for run in traced),
        "untraced_cpu_ms": statistics.median(run["cpu_ms"] for run in plain),
        "traced_wall_ms": statistics.median(run["wall_ms"] for run in traced),
        "untraced_wall_ms": statistics.median(run["wall_ms"] for run in plain),
    }
    print(f"a connection, one after the other, {CONNECTIONS} a run, {PAIRS} pairs of runs:")
    print(f"  traced    {cost['traced_cpu_ms']:7.1f} ms CPU  {cost['traced_wall_ms']:7.1f} ms wall")
    print(f"  untraced  {cost['untraced_cpu_ms']:7.1f} ms CPU  {cost['untraced_wall_ms']:7.1f} ms wall")
    print(f"  ratio     {cost['cpu_ratio']:7.3f}         {cost['wall_ratio']:7.3f}")
    return cost


def _live_scenes(url: str) -> list[dict[str, float]]:
    print(f"scenes live at once for {LIVE_S:g} s, untraced, video and audio arriving and not decoded:")
    rows = []
    for scenes in LIVE_SCENES:
        run = _run("live", url, "", scenes)
        share = run["cpu_ms"] / (LIVE_S * 1000)
        rows.append({"scenes": scenes, "cpu_share_of_a_core": share, "scenes_a_core_holds": scenes / share})
        print(f"  {scenes:3d} scenes  {share:6.1%} of a core  → {scenes / share:5.0f} scenes on one core")
    return rows


def _run(what: str, url: str, receiver: str, scenes: int = 0) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.bench_connector", what, url, receiver, str(scenes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _child(target: Any) -> tuple[str, Any]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(theirs,), daemon=True)
    process.start()
    if not ours.poll(60):
        raise RuntimeError("a helper process of the benchmark did not start")
    return ours.recv(), process.terminate


def _simulate(pipe: Connection) -> None:
    from telemetry.simulator.server import Simulator

    async def serve() -> None:
        async with Simulator(speed=20.0) as simulator:
            pipe.send(simulator.url(""))
            await asyncio.get_running_loop().create_future()

    asyncio.run(serve())


def _swallow(pipe: Connection) -> None:
    class Swallow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Swallow)
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


def _client(what: str, url: str, receiver: str, scenes: int) -> None:
    from telemetry.connector.scene import Scene
    from telemetry.connector.tracing import set_up_tracing

    if receiver:
        set_up_tracing(endpoint=receiver, protocol="http/protobuf", service_name="bench")

    async def connect() -> None:
        for _ in range(CONNECTIONS):
            async with Scene(url) as scene:
                await scene.connect()

    async def live() -> None:
        nonlocal began
        many = [Scene(url) for _ in range(scenes)]
        await asyncio.gather(*(scene.connect() for scene in many))
        began = _cpu_s()
        await asyncio.sleep(LIVE_S)
        print(json.dumps({"cpu_ms": (_cpu_s() - began) * 1000}))
        await asyncio.gather(*(scene.disconnect() for scene in many))

    began, wall = _cpu_s(), time.perf_counter()
    if what == "live":
        asyncio.run(live())
        return
    asyncio.run(connect())
    cpu_ms = (_cpu_s() - began) * 1000 / CONNECTIONS
    print(json.dumps({"cpu_ms": cpu_ms, "wall_ms": (time.perf_counter() - wall) * 1000 / CONNECTIONS}))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    _client(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
