"""Hold a server at half its speed for an hour: `python -m tests.soak [minutes]`, `make soak`.

Senders keep a rate while readers ask for reports, stories and backups, and the store prunes by size and compacts.
Memory and file must stay flat, the file below twice what is kept, every acknowledgement must come before its sender
gives up, and what was acknowledged must be there, once.
The exit code is 1 where one of these does not hold; the figures go to `bench/results/`.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx

from telemetry.source import notice_path
from telemetry.store import writer
from telemetry.store.duck import Store
from tests.bench.__main__ import CORES, FOLDER, about
from tests.support.stream import Stream

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
KEPT_MB = 400
"""What the store may keep: some three minutes of 27,000 spans/s, so that an hour sees it full nearly all the time."""
PRUNE_EVERY_S = 60.0
"""Ten minutes in earnest; an hour must see many."""
FULL_SPEED_S = 30.0
"""After as long again, in which as much waits to be folded as may: what is taken then is folded, too."""
FASTER = 5000
"""A round of 84 minutes is sent in a second or two."""
SENDERS = 16
MOST_UNDER_WAY = 64
SAMPLE_S = 10.0
MACHINE = ("server_cpu_pct", "others_cpu_pct", "stolen_pct", "disk_full_pct")
COLUMNS = ("at_s", "memory_mb", "file_mb", "wal_mb", "spans_per_s", "p50_ms", "p99_ms", "max_ms", *MACHINE)
WIDTH = max(map(len, COLUMNS))
REPORTS = ("failure_rate", "errors", "funnel", "step_durations", "time_to_connect", "ingest_health", "recent")
BACKUP_EVERY = 150
"""Questions: every two minutes or so."""
PATIENCE_MS = 5000
"""Of a Collector by default; SDKs have twice that."""
LAST_S = 20.0
"""What was acknowledged so lately is counted in the file: much less than what is kept."""
GROWTH = 1.15
"""Of memory and file, from the second quarter of the time to the last: more is not flat."""
SLACK_MB = 64


@dataclass
class Seen:
    """What the senders and readers saw."""

    acknowledged: Counter[int] = field(default_factory=Counter)
    """Spans by round."""
    sent_at: dict[int, float] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    all_waits: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    slowest_answer_s: float = 0.0
    slowest_backup_s: float = 0.0


class Sender:
    """Sends rounds of the stream, one request after the other."""

    def __init__(self, port: int, stream: Stream, seen: Seen) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._export = self._channel.unary_unary(EXPORT)
        self._stream = stream
        self._next = 0
        self._seen = seen

    async def send(self) -> int:
        """Send the next request until it is taken; returns its spans."""
        number, request = divmod(self._next, self._stream.requests)
        self._next += 1
        body, spans = self._stream.body(number + 1, request, time.time_ns())
        began = time.perf_counter()
        while True:
            try:
                await self._export(body, timeout=10)
            except grpc.aio.AioRpcError as error:
                told = re.sub(r"\d+", "N", error.details() or "")  # which says where it was turned away
                self._seen.errors[f"{error.code().name}: {told[:80]}"] += 1
                await asyncio.sleep(1)
                continue
            self._seen.waits.append(time.perf_counter() - began)
            self._seen.acknowledged[number + 1] += spans
            self._seen.sent_at[number + 1] = time.monotonic()
            return spans

    async def at_full_speed(self, seconds: float) -> float:
        """Spans a second with senders that always wait for one answer."""
        began = time.monotonic()

        async def one() -> int:
            spans = 0
            while time.monotonic() - began < seconds:
                spans += await self.send()
            return spans

        return sum(await asyncio.gather(*(one() for _ in range(SENDERS)))) / (time.monotonic() - began)

    async def at(self, rate: float, seconds: float) -> None:
        """Keep a rate with as many senders as that needs, `MOST_UNDER_WAY` at most: more would be a flood."""
        began, due, under_way = time.monotonic(), 0.0, set[asyncio.Task[int]]()
        spacing = self._stream.spans / self._stream.requests / rate
        while due < seconds:
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            due = max(due + spacing, time.monotonic() - began - 1)  # what could not be sent is not made up for
            if len(under_way) >= MOST_UNDER_WAY:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self.send())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def close(self) -> None:
        await self._channel.close()


async def read(url: str, seen: Seen) -> None:
    """Ask for a report or a story, one after the other, and now and then for a backup, until cancelled."""
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        number = 0
        while True:
            number += 1
            name = REPORTS[number % len(REPORTS)]
            asked = f"/api/reports/{name}?since=5m"
            if number % 3 == 0 and seen.acknowledged:
                recent = (await client.get("/api/reports/recent?since=2m&format=json")).json().get("rows")
                name = "story"
                asked = f"/api/sessions/{recent[-1]['attempt_id']}" if recent else "/api/health"
            if number % BACKUP_EVERY == 0:
                name, asked = "backup", "/api/store/backup"
            began = time.perf_counter()
            async with client.stream("GET", asked) as answer:
                async for _ in answer.aiter_raw():
                    pass
            took_s = time.perf_counter() - began
            if name == "backup":
                seen.slowest_backup_s = max(seen.slowest_backup_s, took_s)
            else:
                seen.slowest_answer_s = max(seen.slowest_answer_s, took_s)
            seen.answers[f"{name} {answer.status_code}"] += 1
            await asyncio.sleep(0.5)


class Machine:
    """What the machine did since it was last asked, so that a stall of its own is not taken for the server's.

    Of one processor: what the server used, and everything else on the machine; of all: what the hypervisor gave to
    others (`steal`, proc_stat(5)); of the time: when all that was to run waited for the disk (`full`, proc_pressure).
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last = self._counts()

    def _counts(self) -> tuple[float, ...]:
        """Seconds since the start: the clock, the server's, all used, stolen, waited for the disk."""
        tick = os.sysconf("SC_CLK_TCK")
        ours = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        try:
            waited = int(Path("/proc/pressure/io").read_text().rpartition("total=")[2]) / 1e6
        except OSError:  # a kernel that does not count it
            waited = 0.0
        used = (user + nice + system + irq + softirq) / tick
        return time.monotonic(), (int(ours[11]) + int(ours[12])) / tick, used, steal / tick, waited

    def since(self) -> dict[str, float]:
        """Per cent, by the names of `MACHINE`."""
        before, self._last = self._last, self._counts()
        elapsed, server, used, stolen, waited = (now - then for now, then in zip(self._last, before, strict=True))
        shares = (server, used - server, stolen / (os.cpu_count() or 1), waited)
        return {name: round(100 * share / elapsed) for name, share in zip(MACHINE, shares, strict=True)}


async def watch(pid: int, path: Path, seen: Seen, samples: list[dict[str, float]]) -> None:
    """Note memory, file and acknowledgements every ten seconds, until cancelled."""
    began = time.monotonic()
    spans = 0
    machine = Machine(pid)
    print(" ".join(f"{name:>{WIDTH}}" for name in COLUMNS), file=sys.stderr)
    while True:
        await asyncio.sleep(SAMPLE_S)
        waits, seen.waits = sorted(seen.waits), []
        seen.all_waits += waits
        before, spans = spans, seen.acknowledged.total()
        sample = {
            "at_s": round(time.monotonic() - began),
            "memory_mb": memory_mb(pid),
            "file_mb": _size_mb(path),
            "wal_mb": _size_mb(path.with_name(path.name + ".wal")),
            "spans_per_s": round((spans - before) / SAMPLE_S),
            "p50_ms": round(waits[len(waits) // 2] * 1000) if waits else -1,
            "p99_ms": round(waits[len(waits) * 99 // 100] * 1000) if waits else -1,
            "max_ms": round(waits[-1] * 1000) if waits else -1,
        } | machine.since()
        samples.append(sample)
        print(" ".join(f"{sample[name]:>{WIDTH}}" for name in COLUMNS), file=sys.stderr, flush=True)


def _size_mb(path: Path) -> int:
    try:
        return round(path.stat().st_size / 1e6)
    except FileNotFoundError:  # there is no log between checkpoints
        return 0


def memory_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


async def soak(path: Path, process: subprocess.Popen[bytes], minutes: float) -> dict[str, Any]:
    """Load a serving process; returns the figures."""
    notice = json.loads(notice_path(path).read_text())
    seen, samples = Seen(), list[dict[str, float]]()
    sender = Sender(int(notice["otlp_grpc"].rpartition(":")[2]), Stream(faster=FASTER), seen)
    await sender.at_full_speed(FULL_SPEED_S)
    full = await sender.at_full_speed(FULL_SPEED_S)
    seen.waits.clear()
    print(f"full speed is {full:,.0f} spans/s", file=sys.stderr, flush=True)
    beside = [
        asyncio.create_task(read(notice["url"], seen)),
        asyncio.create_task(watch(process.pid, path, seen, samples)),
    ]
    load = asyncio.create_task(sender.at(full / 2, minutes * 60))
    done, _ = await asyncio.wait([load, *beside], return_when=asyncio.FIRST_COMPLETED)
    for task in (load, *beside):
        task.cancel()
    ended = await asyncio.gather(load, *beside, return_exceptions=True)
    if done != {load}:
        raise AssertionError(f"the server, a reader or the watch ended early: {ended}")
    await sender.close()
    async with httpx.AsyncClient(base_url=notice["url"], timeout=60, trust_env=False) as client:
        trouble = (await client.get("/api/store")).json()["trouble"]
    last = {number: seen.acknowledged[number] for number, at in seen.sent_at.items() if time.monotonic() - at < LAST_S}
    return {
        "minutes": minutes,
        "full_spans_per_s": round(full),
        "acknowledged_spans": seen.acknowledged.total(),
        "errors_tried_again": dict(seen.errors),
        "answers_to_readers": dict(sorted(seen.answers.items())),
        "slowest_answer_s": round(seen.slowest_answer_s, 2),
        "slowest_backup_s": round(seen.slowest_backup_s, 2),
        "trouble": trouble,
        "p99_ms": round(sorted(seen.all_waits)[len(seen.all_waits) * 99 // 100] * 1000),
        "samples": samples,
        "last": last,
    }


def judged(figures: dict[str, Any], stored: dict[int, tuple[int, int]]) -> dict[str, Any]:
    """What held: the figures with a verdict, and without what the verdict was made of.

    Args:
        stored: spans, and different spans, of the last rounds.
    """
    samples, last = figures["samples"], figures.pop("last")
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    memory = [sum(sample["memory_mb"] for sample in part) / len(part) for part in (early, late)]
    largest = [max(sample["file_mb"] + sample["wal_mb"] for sample in part) for part in (early, late)]
    lost = sum(spans - stored.get(number, (0, 0))[1] for number, spans in last.items())
    doubled = sum(rows - different for rows, different in stored.values())
    p99s = sorted(sample["p99_ms"] for sample in samples)
    refused = [name for name in figures["answers_to_readers"] if not name.endswith(" 200")]
    verdict = {
        "memory_mb_second_quarter": round(memory[0]),
        "memory_mb_last_quarter": round(memory[1]),
        "largest_file_mb_second_quarter": largest[0],
        "largest_file_mb_last_quarter": largest[1],
        "p99_ms_median": p99s[len(p99s) // 2],
        "p99_ms_worst_ten_seconds": p99s[-1],
        "max_ms": max(sample["max_ms"] for sample in samples),
        "largest_file_over_kept": round(max(sample["file_mb"] for sample in samples) / KEPT_MB, 2),
        "checked_spans": sum(last.values()),
        "lost": lost,
        "doubled": doubled,
        "flat": memory[1] <= memory[0] * GROWTH + SLACK_MB and largest[1] <= largest[0] * GROWTH + SLACK_MB,
    }
    quick = min(sample["max_ms"] for sample in samples) >= 0 and verdict["max_ms"] < PATIENCE_MS
    kept = verdict["flat"] and verdict["largest_file_over_kept"] <= 2
    verdict["held"] = bool(quick and kept and not lost and not doubled and not refused and not figures["trouble"])
    return figures | {"verdict": verdict}


def counted(path: Path, numbers: list[int]) -> dict[int, tuple[int, int]]:
    """Spans, and different ones, of some rounds in the file."""
    with Store.open(path, read_only=True) as store:
        rows = store.query(
            "select substr(trace_id, 1, 8) as number, count(*) as spans, count(distinct trace_id || span_id) as others "
            "from spans where substr(trace_id, 1, 8) in (select unnest($numbers)) group by 1",
            {"numbers": [f"{number:08x}" for number in numbers]},
        ).to_pylist()
    return {int(row["number"], 16): (row["spans"], row["others"]) for row in rows}


def serve(path: str) -> None:
    """`telemetry serve` that prunes more often, and keeps little."""
    from telemetry.cli import main as telemetry

    writer.PRUNE_EVERY_S = PRUNE_EVERY_S  # type: ignore[misc]
    ports = ("--grpc-port", "0", "--http-port", "0", "--pages-port", "0")
    sys.argv = ["telemetry", "serve", "--store", path, "--keep-bytes", f"{KEPT_MB}M", *ports]
    telemetry()


def main(minutes: float) -> int:
    """Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "soak.duckdb"
        command = [sys.executable, "-m", "tests.soak", "serve", str(path)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                while not notice_path(path).exists():
                    if process.poll() is not None:
                        raise AssertionError("the server did not start")
                    time.sleep(0.1)
                figures = asyncio.run(soak(path, process, minutes))
            finally:
                process.terminate()
                process.wait(300)  # it writes its log to the file
        result = judged(figures, counted(path, list(figures["last"])))
    target = FOLDER / "results" / f"{datetime.now(UTC):%Y-%m-%d}-{CORES}-cores-soak.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(about() | result, indent=1) + "\n")
    told = {name: value for name, value in result.items() if name not in ("verdict", "samples")} | result["verdict"]
    for name, value in told.items():
        print(f"{name:>30}  {value}")
    return 0 if result["verdict"]["held"] else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        sys.exit(main(float(sys.argv[1] if sys.argv[1:] else os.environ.get("SOAK_MINUTES", "60"))))
