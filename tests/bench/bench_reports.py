"""What each report costs: milliseconds over the last 7 days of a store, cold and warm, as the store grows.

Fleets come from the simulator's generator, 90 days of them, so that the range is a slice of what is there.
`BENCH_REPORT_SPANS` names the sizes, `1000000,10000000` unless given; add `100000000` where there is time and disk.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from telemetry import reports
from telemetry.simulator import fleet
from telemetry.store.duck import Store

DAYS = 90.0
SPANS_PER_ATTEMPT = 17
"""Of the generator, with a heartbeat every five minutes; only to choose how many attempts make a size."""
NOW_NS = fleet.START_NS + int(DAYS * fleet.DAY_NS)
WARM_RUNS = 3


def main() -> dict[str, Any]:
    sizes = [int(size) for size in os.environ.get("BENCH_REPORT_SPANS", "1000000,10000000").split(",")]
    figures = {}
    for spans in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "store.duckdb"
            made = build(path, spans)
            figures[str(spans)] = {"spans": made, "file_mb": path.stat().st_size >> 20, "reports_ms": measure(path)}
    show(figures)
    return figures


def build(path: Path, spans: int) -> int:
    """Fill a store with a fleet of about so many spans, tended as a serving process tends it."""
    made = 0
    with Store.open(path) as store:
        for table in fleet.generate(spans // SPANS_PER_ATTEMPT, DAYS, seed=1, sample_every_s=300):
            made += store.commit([table]).stored
            store.tend()
    return made


def measure(path: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of every report: the first time after opening, the median then, and its CPU on all cores."""
    timings = {}
    for name, report in reports.catalogue().items():
        with Store.open(path, read_only=True) as store:
            given = {"since": "7d"} if not any(param.required for param in report.params) else {"id": one_id(store)}
            walls, cpus = [], []
            for _ in range(1 + WARM_RUNS):
                begun, begun_cpu = time.perf_counter(), time.process_time()
                reports.execute(name, given, store, now_ns=NOW_NS)
                walls.append((time.perf_counter() - begun) * 1000)
                cpus.append((time.process_time() - begun_cpu) * 1000)
        figures = {"cold": walls[0], "warm": statistics.median(walls[1:]), "cpu": statistics.median(cpus[1:])}
        timings[name] = {what: round(ms, 1) for what, ms in figures.items()}
        print(f"  {name:<18} {timings[name]}", file=sys.stderr, flush=True)
    return timings


def one_id(store: Store) -> str:
    """Some attempt's id."""
    return str(store.query("select attempt_id from connections limit 1").column(0)[0])


def show(figures: dict[str, Any]) -> None:
    sizes = list(figures)
    print(
        "report".ljust(20) + "".join(f"{int(size) / 1e6:>16g} M spans" for size in sizes) + "  (cold / warm / CPU, ms)"
    )
    for name in reports.catalogue():
        cells = (figures[size]["reports_ms"][name] for size in sizes)
        texts = (f"{cell['cold']:>9.0f} /{cell['warm']:>6.0f} /{cell['cpu']:>6.0f}" for cell in cells)
        print(name.ljust(20) + "".join(texts))


if __name__ == "__main__":
    main()
