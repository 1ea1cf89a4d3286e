"""Run every benchmark, or those named: `python -m tests.bench [cluster|connector|decode|store|reports …]`.

Each `bench_NAME.py` beside this file has a `main()` that prints its table and returns its figures.
The figures go to `results/<date>-<machine>.json` after each, with the versions that made them.
One that fails is told, the others run all the same, and the exit code is 1.
"""

import importlib
import json
import os
import platform
import sys
import traceback
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CORES = len(os.sched_getaffinity(0))
"""That this process may use, and those that it starts."""
LONG = {"cluster"}
"""Hours, unless `BENCH_FOLDER` has what they measure."""
PACKAGES = ("dp-telemetry", "duckdb", "pyarrow", "protobuf", "grpcio", "aiortc", "opentelemetry-sdk")


def main() -> int:
    available = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    chosen = sys.argv[1:] or [name for name in available if name not in LONG or "BENCH_FOLDER" in os.environ]
    if unknown := set(chosen) - set(available):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(available)}", file=sys.stderr)
        return 2
    cpu = _cpu()
    print(f"{cpu}, {CORES} cores, Python {platform.python_version()}", file=sys.stderr)
    failed = 0
    for name in chosen:
        print(f"\n== {name} ==", file=sys.stderr, flush=True)
        try:
            figures = importlib.import_module(f"tests.bench.bench_{name}").main()
        except Exception:
            traceback.print_exc()
            failed += 1
        else:
            print(f"written to {_kept(name, figures).relative_to(FOLDER.parent.parent)}", file=sys.stderr)
    if chosen != available:
        print(f"not run: {', '.join(sorted({*available} - {*chosen}))}", file=sys.stderr)
    return 1 if failed else 0


def _kept(name: str, figures: Any) -> Path:
    """Write figures beside those of today's other benchmarks."""
    path = FOLDER / "results" / f"{datetime.now(UTC):%Y-%m-%d}-{CORES}-cores.json"
    path.parent.mkdir(exist_ok=True)
    earlier = json.loads(path.read_text())["figures"] if path.exists() else {}
    path.write_text(json.dumps(about() | {"figures": earlier | {name: figures}}, indent=1) + "\n")
    return path


def about() -> dict[str, Any]:
    """When, where and with which versions something was measured."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu(),
            "cores": CORES,
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "versions": {package: version(package) for package in PACKAGES},
    }


def made_by(name: str) -> list[str]:
    """The lines of a page of results that say when and where it was made."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return [
        f"Made by `python -m tests.bench {name}` on {datetime.now(UTC):%Y-%m-%d}: {_cpu()}, {CORES} cores, "
        f"{memory_gb:.0f} GB; Python {platform.python_version()}, DuckDB {version('duckdb')}.",
        f"Load of the machine at the end, over 1, 5 and 15 minutes: {loads}.",
    ]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
