"""What each report costs as the store grows, cold and warm, and what the collector's own table costs for the same.

Every store is a fleet from the simulator's generator; reports are asked over its last 7 days, and over all.
`BENCH_REPORT_SPANS` names the sizes, each with its days unless they are 90: `1000000,10000000,100000000` unless given.
Making the largest takes an hour and 20 GB; `BENCH_FOLDER` keeps the stores for the next run, which then takes some
25 minutes, half of them for filling the collector's table.
The same questions are put to ClickHouse inside chDB over the table of the Collector's exporter, side by side, if
`BENCH_CHDB` names a Python that has it; `make bench-reports` makes one.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from telemetry import reports
from telemetry.semconv import COLUMNS
from telemetry.simulator import fleet
from telemetry.store.duck import Store
from telemetry.support import find, story
from telemetry.support.asking import hashed
from tests.bench import fleets
from tests.bench.__main__ import made_by
from tests.bench.questions import QUESTIONS, WITHOUT_UNFINISHED, loading

RUNS = 3
SLOW_MS = 5000
"""What takes longer is asked twice in all: its noise is small."""
RANGES = ("7d", "100d")
"""The last 7 days, and all."""
REPORT_AIM_MS = 1000
"""For every report over 7 days of 100 million spans, warm, on two cores."""
LOOKUP_AIM_MS = 20
"""For one session among as many."""
LOOKED_UP = 20
"""Sessions, spread over the whole time."""
LARGEST_COMPARED = int(os.environ.get("BENCH_CHDB_SPANS", "10000000"))
"""chDB fills the collector's table with some 60,000 spans a second."""
CHUNK_DAYS = 5
"""Of a Parquet file for chDB."""


def main() -> dict[str, Any]:
    given = os.environ.get("BENCH_REPORT_SPANS", "1000000,10000000,100000000")
    chdb = os.environ.get("BENCH_CHDB")
    figures = {}
    for size in map(fleets.Size.read, given.split(",")):
        print(size, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(os.environ.get("BENCH_FOLDER", folder))
            figures[str(size)] = size_of(kept, size, chdb if size.spans <= LARGEST_COMPARED else None)
        write(figures)
    return figures


def size_of(folder: Path, size: fleets.Size, chdb: str | None) -> dict[str, Any]:
    """Measure a store of one size."""
    path, once = fleets.stored(folder, size)
    figures: dict[str, Any] = {"copies": size.copies, "file_mb": path.stat().st_size >> 20}
    with Store.open(path, read_only=True) as store:
        figures["spans"] = store.info()["spans"]
        chosen = f"select session_id from sessions order by session_id limit {LOOKED_UP}"
        sessions: list[str] = store.query(chosen)["session_id"].to_pylist()
    print("  one session: cold, first, again, CPU", file=sys.stderr, flush=True)
    figures["one session"] = {name: looked_up(path, sessions, look) for name, look in LOOK_UPS.items()}
    for since in RANGES:
        print(f"  the last {since}: cold, warm, CPU, memory", file=sys.stderr, flush=True)
        figures[since] = {name: measured(path, name, since, size.now_ns) for name in RANGED}
    if chdb:
        with tempfile.TemporaryDirectory(dir=folder) as workplace:
            export(once, Path(workplace), size.days)
            figures["otel_traces"] = compare(path, Path(workplace), chdb, size, sessions[0])
    return figures


IN_IDS = """select trace_id, start_ns, last_seen_ns from ids
where list_contains($hashes, id_hash) and list_contains($ids, id)"""
LOOK_UPS: dict[str, Callable[[Store, str], object]] = {
    "which attempts have it, in `ids`": lambda store, id: store.query(IN_IDS, {"ids": [id], "hashes": hashed([id])}),
    "all that is known of these": lambda store, id: find.resolve(id, store),
    "the report timeline": lambda store, id: reports.execute("timeline", {"id": id}, store),
    "the story of `telemetry session`": lambda store, id: story.tell(id, store),
}
RANGED = [name for name, report in reports.catalogue().items() if "id" not in {param.name for param in report.params}]


def looked_up(path: Path, sessions: list[str], look: Callable[[Store, str], object]) -> dict[str, float]:
    """Several sessions, one after the other and then again, from a file that nobody has read yet: milliseconds."""
    forget(path)
    with Store.open(path, read_only=True) as store:
        runs = [clocked(lambda id=id: look(store, id)) for id in (*sessions, *sessions)]  # type: ignore[misc]
    first, again = runs[1 : len(sessions)], runs[len(sessions) :]
    found = {
        "cold_ms": runs[0][0],
        "first_ms": statistics.median(time for time, _ in first),
        "again_ms": statistics.median(time for time, _ in again),
        "cpu_ms": statistics.median(cpu for _, cpu in again),
    }
    return told("", found)


def measured(path: Path, name: str, since: str, now_ns: int) -> dict[str, float]:
    """One report from a file that nobody has read yet, then again: milliseconds, and megabytes at the most."""
    given = {"since": since} if "since" in {param.name for param in reports.find(name).params} else {}
    forget(path)
    with Store.open(path, read_only=True) as store:
        before, runs = resident_mb(), []
        with peak() as most:
            while len(runs) <= (RUNS if not runs or runs[0][0] < SLOW_MS else 1):
                runs.append(clocked(lambda: reports.execute(name, given, store, now_ns=now_ns)))
    times, cpu = zip(*runs, strict=True)
    found = {
        "cold_ms": times[0],
        "warm_ms": statistics.median(times[1:]),
        "cpu_ms": min(cpu[1:]),
        "memory_mb": max(0, most[0] - before),
    }
    return told(name, found)


def clocked(act: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that it takes, and of CPU that it uses."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    act()
    return (time.perf_counter() - begun) * 1000, (time.process_time() - begun_cpu) * 1000


def told(name: str, found: Mapping[str, float]) -> dict[str, float]:
    """Show figures as they come."""
    print(f"    {name:<18} " + " ".join(f"{value:8.0f}" for value in found.values()), file=sys.stderr, flush=True)
    return {what: round(value, 1) for what, value in found.items()}


def forget(path: Path) -> None:
    """Let the system forget what it has of a file in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def resident_mb() -> float:
    """The memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class peak:
    """The most memory that the process has within the block, looked at every 5 ms."""

    def __enter__(self) -> list[float]:
        self._most, self._over = [resident_mb()], threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self._most

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self._most[0] = max(self._most[0], resident_mb())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def export(path: Path, folder: Path, days: float) -> None:
    """Write the spans as Parquet files that chDB fills the collector's table from."""
    names = (
        "trace_id",
        "span_id",
        "parent_span_id",
        "name",
        "kind",
        "start_ns",
        "end_ns",
        "status_code",
        "status_message",
    )
    columns = ", ".join((*names, *(column.name for column in COLUMNS)))
    import duckdb

    with duckdb.connect(str(path), read_only=True) as connection:
        for day in range(0, int(days) + 1, CHUNK_DAYS):
            since, until = (fleet.START_NS + at * fleet.DAY_NS for at in (day, day + CHUNK_DAYS))
            if day + CHUNK_DAYS > days:
                until = 2**62
            connection.execute(
                f"copy (select {columns} from spans where start_ns >= {since} and start_ns < {until})"
                f" to '{folder}/spans-{day:03}.parquet'"
            )


def compare(path: Path, folder: Path, chdb: str, size: fleets.Size, session_id: str) -> dict[str, Any]:
    """The same questions to both, over the last 7 days: milliseconds, and whether the figures agree."""
    since, until = (f"toDateTime64('{_time(ns)}', 9, 'UTC')" for ns in (size.now_ns - 7 * fleet.DAY_NS, size.now_ns))
    asked = {
        name: question.sql.format(since=since, until=until, session=session_id) for name, question in QUESTIONS.items()
    }
    given = json.dumps({"load": loading(size.copies), "questions": asked})
    script = Path(__file__).with_name("map_schema.py")
    done = subprocess.run(
        [chdb, script, folder, str(size.copies)], input=given, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    told: dict[str, Any] = json.loads(done.stdout)
    with Store.open(path, read_only=True) as store:
        rows = {}
        for name, question in QUESTIONS.items():
            theirs = told["answers"][name]
            params = {key: str(value).format(session=session_id) for key, value in question.params.items()}
            if question.report != "timeline":
                params["since"] = "7d"
            ours_ms, table = timed(store, question.report, params, size.now_ns)
            our_figure = sum(value or 0 for value in table[question.figure].to_pylist())
            their_figure = sum(float(row[-1] or 0) for row in theirs["rows"])
            rows[name] = {
                "ours_ms": round(ours_ms, 1),
                "otel_traces_ms": round(theirs["ms"], 1),
                "figure": our_figure,
                "their_figure": their_figure,
            }
            print(f"    {name:<30} {rows[name]}", file=sys.stderr, flush=True)
    return {key: told[key] for key in ("version", "loaded_s", "spans", "file_mb", "peak_mb")} | {"questions": rows}


def timed(store: Store, name: str, params: Mapping[str, object], now_ns: int) -> tuple[float, pa.Table]:
    """The median of several after a first one, and the answer."""
    times = [clocked(lambda: reports.execute(name, params, store, now_ns=now_ns))[0] for _ in range(1 + RUNS)]
    return statistics.median(times[1:]), reports.execute(name, params, store, now_ns=now_ns)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def write(figures: Mapping[str, Any]) -> None:
    """The figures as tables for people."""
    lines = [
        "# What reports cost",
        "",
        *made_by("reports"),
        "Milliseconds: cold is the first time after opening a file that the system had forgotten; "
        f"warm is the median of {RUNS} more, or one more where it took over {SLOW_MS // 1000} s; "
        "CPU is what the best of these used, on both cores together.",
        "Where the machine was busy with other things, CPU is the figure to go by.",
        "Memory is how much the process grew by at the most, in MB.",
        "",
        "| store | spans | file, MB | made of |",
        "|---|---:|---:|---|",
    ]
    for size, found in figures.items():
        made = "one fleet" if found["copies"] == 1 else f"one fleet {found['copies']} times over"
        lines.append(f"| {size} | {found['spans']:,} | {found['file_mb']:,} | {made} |")
    lines += one_session(figures)
    for label in RANGES:
        lines += ["", f"## {'The last 7 days' if label == '7d' else 'All days'}", "", over_aim(figures, label), ""]
        grown = f" | warm, {list(figures)[-1]} over {next(iter(figures))}"
        lines.append("| report | " + " | ".join(f"{size}: cold | warm | CPU | MB" for size in figures) + grown + " |")
        lines.append("|---" + "|---:" * (4 * len(figures) + 1) + "|")
        for name in RANGED:
            cells = [figures[size][label][name] for size in figures]
            texts = (
                f"{c['cold_ms']:.0f} | {c['warm_ms']:.0f} | {c['cpu_ms']:.0f} | {c['memory_mb']:.0f}" for c in cells
            )
            grown = f"{cells[-1]['warm_ms'] / cells[0]['warm_ms']:.1f}"
            lines.append(f"| {name} | " + " | ".join(texts) + f" | {grown} |")
    for size, found in figures.items():
        if "otel_traces" in found:
            lines += comparison(size, found["otel_traces"])
    target = Path(__file__).parent / "results" / "reports.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n")


def one_session(figures: Mapping[str, Any]) -> list[str]:
    """The table of look-ups."""
    lines = [
        "",
        "## One session by its id",
        "",
        f"{LOOKED_UP} sessions one after the other: the first of all, cold; the others, for the first time; all again, "
        "with the CPU that this takes. All but cold are medians.",
        f"The aim for finding one in `ids` is {LOOKUP_AIM_MS} ms; the rows below it are what is asked then.",
        "",
        "| look-up | " + " | ".join(f"{size}: cold | first | again | CPU" for size in figures) + " |",
        "|---" + "|---:" * 4 * len(figures) + "|",
    ]
    for name in LOOK_UPS:
        cells = (figures[size]["one session"][name] for size in figures)
        texts = (
            " | ".join(f"{cell[what]:.0f}" for what in ("cold_ms", "first_ms", "again_ms", "cpu_ms")) for cell in cells
        )
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return lines


def over_aim(figures: Mapping[str, Any], label: str) -> str:
    """One line that names what is slow."""
    slow = (
        f"{name} {found[label][name]['warm_ms'] / 1000:.1f} s at {size}"
        for size, found in figures.items()
        for name in RANGED
        if found[label][name]["warm_ms"] > REPORT_AIM_MS
    )
    return f"Reports over {REPORT_AIM_MS / 1000:g} s, warm: {', '.join(slow) or 'none'}."


def comparison(size: str, found: Mapping[str, Any]) -> list[str]:
    """The table of one size beside the collector's."""
    lines = [
        "",
        f"## {size} spans beside the collector's table, the last 7 days",
        "",
        f"`otel_traces` of the Collector's exporter in ClickHouse {found['version']} (chDB): {found['spans']:,} spans, "
        f"{found['file_mb']:,} MB on disk, filled in {found['loaded_s']:.0f} s, {found['peak_mb']:,} MB of memory.",
        "Its SQL is in `tests/bench/questions.py`; it answers less: percentiles without censoring, no intervals.",
        "",
        "| question | report | ours, warm | otel_traces, warm | times | figure | the same |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for name, row in found["questions"].items():
        times = row["otel_traces_ms"] / max(row["ours_ms"], 0.1)
        close = abs(row["figure"] - row["their_figure"]) <= 1e-6 * max(1.0, abs(row["figure"]))
        same = "yes" if close else "without unfinished" if name in WITHOUT_UNFINISHED else "**no**"
        lines.append(
            f"| {name} | {QUESTIONS[name].report} | {row['ours_ms']:.0f} | {row['otel_traces_ms']:.0f} | {times:.1f} "
            f"| {row['figure']:,.0f} | {same} |"
        )
    return lines


if __name__ == "__main__":
    main()
