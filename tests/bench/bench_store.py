"""What storing costs: microseconds a span by batch, acknowledgement times under load, bytes a span, growth.

Every figure is of this machine; ratios are what to compare. README.md beside this file says which decide.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from telemetry.store import relations
from telemetry.store.duck import FOLD_ROWS, Store
from telemetry.store.writer import Writer
from telemetry.support import story
from telemetry.support.asking import ask, hashed
from tests.support.copies import copied
from tests.support.spans import attempt, foreign, moved, table

HOUR_NS = 3_600 * 10**9
OWN = table(*(attempt(n, samples=3, attributes={"dp.signalling.version": 1}) for n in range(1, 501)))
FOREIGN = table(*(foreign(n) for n in range(1, 1001)))
BATCHES = (500, 5_000, 50_000)


def main(spans: int = int(os.environ.get("BENCH_SPANS", "1000000"))) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "insert_us_a_span": inserting(),
        "cpu_us_a_span": stages(),
        "acknowledging": asyncio.run(acknowledging()),
    }
    ready = sorted(Path(os.environ.get("BENCH_FOLDER", os.devnull)).glob("*-90.duckdb"), key=lambda p: p.stat().st_size)
    figures["growth"] = growth_of(ready) if ready else growth(spans)
    return figures


def many(some: pa.Table, rows: int, number: int = 0) -> pa.Table:
    """So many rows, all of them different spans, and others for each number below 1,000."""
    numbers = range(number * 1000, number * 1000 - (-rows // some.num_rows))
    return pa.concat_tables(moved(some, n, by_ns=n * 10**9) for n in numbers).slice(0, rows).combine_chunks()


def inserting() -> dict[str, dict[str, float]]:
    """Microseconds a span: committed by the store, and inserted as a bare Arrow table of text columns."""
    figures: dict[str, dict[str, float]] = {}
    print(f"{'batch':>8} {'own':>8} {'foreign':>8} {'bare':>8}   microseconds a span", file=sys.stderr)
    for rows in BATCHES:
        figures[str(rows)] = found = {}
        for name, some in (("own", OWN), ("foreign", FOREIGN)):
            batches = [many(some, rows, number) for number in range(3)]
            with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "s.duckdb") as store:
                commit: Callable[[pa.Table], object] = lambda batch, store=store: store.commit([batch])  # noqa: E731
                found[name] = best_us(commit, batches)
        found["bare"] = best_us(bare(), [many(OWN, rows, number) for number in range(3)])
        print(f"{rows:>8} {found['own']:8.1f} {found['foreign']:8.1f} {found['bare']:8.1f}", file=sys.stderr)
    return figures


def stages(spans: int = 250_000) -> dict[str, dict[str, float]]:
    """Microseconds of processor time a span, both cores, and bytes of log: of committing, folding and a checkpoint."""
    figures: dict[str, dict[str, float]] = {}
    for name, some in (("own", OWN), ("foreign", FOREIGN)):
        for rows in BATCHES[1:]:
            with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "s.duckdb") as store:
                figures[f"{name} {rows}"] = found = staged(store, [many(some, rows, n) for n in range(spans // rows)])
            said = ", ".join(f"{stage} {value:.1f}" for stage, value in found.items())
            print(f"{name} in batches of {rows}, a span: {said}", file=sys.stderr, flush=True)
    return figures


def staged(store: Store, batches: list[pa.Table]) -> dict[str, float]:
    """Folded whenever a fold is worthwhile, and at the end."""
    spent, waiting = {"commit": 0.0, "fold": 0.0, "checkpoint": 0.0}, 0
    clock = [time.process_time()]

    def spend(stage: str) -> None:
        clock.append(time.process_time())
        spent[stage] += clock[-1] - clock[-2]

    for batch in batches:
        waiting += store.commit([batch]).stored
        spend("commit")
        if waiting >= FOLD_ROWS or batch is batches[-1]:
            store.fold(all=batch is batches[-1])
            waiting %= FOLD_ROWS
            spend("fold")
    log_bytes = store.wal_bytes
    store.tend(now=True)
    spend("checkpoint")
    spans = sum(batch.num_rows for batch in batches)
    return {stage: seconds / spans * 1e6 for stage, seconds in spent.items()} | {"log_bytes": log_bytes / spans}


def bare() -> Callable[[pa.Table], object]:
    """Insertion without our work: no VARIANT, no duplicates looked for, one table on the same disk."""
    folder = tempfile.TemporaryDirectory()
    connection = duckdb.connect(str(Path(folder.name) / "s.duckdb"))
    connection.execute(relations.definition("spans").replace(" variant", " varchar"))

    def insert(batch: pa.Table, _folder: object = folder) -> None:
        connection.register("batch", batch)
        connection.execute("insert into spans from batch")

    return insert


def best_us(act: Callable[[pa.Table], object], batches: list[pa.Table]) -> float:
    """The fastest of several, per row: what the machine can do when nothing disturbs it."""
    times = []
    for batch in batches:
        begun = time.perf_counter()
        act(batch)
        times.append((time.perf_counter() - begun) / batch.num_rows * 1e6)
    return min(times)


async def acknowledging(seconds: float = 20, senders: int = 32, rows: int = 512) -> dict[str, float]:
    """Acknowledgement times with so many senders that always wait for one answer, folds and checkpoints included."""
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "s.duckdb")
        writer = Writer(store)
        pool: list[pa.Table] = []
        made = 0
        begun = time.perf_counter()

        async def sender() -> None:
            nonlocal made
            while time.perf_counter() - begun < seconds:
                if not pool:
                    made += 1
                    some = moved(OWN, made, by_ns=made * 10**9)
                    pool.extend(some.slice(start, rows) for start in range(0, some.num_rows, rows))
                asked = time.perf_counter()
                await writer.submit(pool.pop())
                waits.append(time.perf_counter() - asked)

        await asyncio.gather(*(sender() for _ in range(senders)))
        took = time.perf_counter() - begun
        await writer.close()
        stored = store.info()["spans"]
        store.close()
    waits.sort()
    figures = {
        "spans_per_s": stored / took,
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[len(waits) * 99 // 100] * 1000,
        "max_ms": waits[-1] * 1000,
    }
    print("acknowledged: " + ", ".join(f"{name} {value:.0f}" for name, value in figures.items()), file=sys.stderr)
    return figures


def growth(spans: int) -> list[dict[str, float]]:
    """Seconds to store, bytes a span and times of typical questions as the store grows tenfold."""
    points = []
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "s.duckdb") as store:
        stored, number, begun = 0, 0, time.perf_counter()
        for target in (spans // 100, spans // 10, spans):
            while stored < target:
                batch = pa.concat_tables(moved(OWN, number + n, by_ns=(number + n) * HOUR_NS // 60) for n in range(5))
                stored += store.commit([batch]).stored
                number += 5
                store.tend()
            took = time.perf_counter() - begun
            store.tend(now=True)
            point = {
                "spans": stored,
                "store_us_a_span": took / stored * 1e6,
                "bytes_a_span": store.path.stat().st_size / stored,
                **questions(store),
                **planning(store),
            }
            print(", ".join(f"{name} {value:,.1f}" for name, value in point.items()), file=sys.stderr)
            points.append(point)
    return points


def growth_of(paths: list[Path]) -> list[dict[str, float]]:
    """The same of ready fleets (`fleets.py`), and what committing and folding cost on top of so much, in copies."""
    points = []
    for path in paths:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            print(f"copying {path.name}", file=sys.stderr, flush=True)
            copy = copied(path, Path(folder) / "s.duckdb")
            begun = time.perf_counter()
            with Store.open(copy) as store:
                opened = time.perf_counter() - begun
                spans = store.info()["spans"]
                point = {
                    "spans": spans,
                    "open_s": opened,
                    "bytes_a_span": path.stat().st_size / spans,
                    **questions(store),
                    **planning(store),
                    **writing(store),
                }
        print(", ".join(f"{name} {value:,.1f}" for name, value in point.items()), file=sys.stderr, flush=True)
        points.append(point)
    return points


def writing(store: Store, rows: int = 5_000) -> dict[str, float]:
    """Microseconds a span of committing, and of folding a row group of such spans; processor time counts both cores."""
    batches = [many(OWN, rows, number) for number in range(25)]
    commit = best_us(lambda batch: store.commit([batch]), batches)
    begun = time.process_time()
    store.tend(now=True)
    return {"commit_us_a_span": commit, "fold_cpu_us_a_span": (time.process_time() - begun) / rows / len(batches) * 1e6}


def questions(store: Store) -> dict[str, float]:
    """Milliseconds of typical questions."""
    known = store.query(
        "select session_id from connections where session_id is not null order by start_ns desc limit 1 offset 100"
    ).to_pylist()[0]["session_id"]
    day = "select start_ns // 86400000000000 as day, count(*) filter (outcome = 'failed') / count(*) as ratio "
    return {
        "failures_by_day_ms": best_ms(lambda: store.query(day + "from connections group by 1 order by 1")),
        "percentiles_ms": best_ms(
            lambda: store.query("select step, quantile_cont(duration_ns, 0.95) from steps group by 1")
        ),
        "one_session_ms": best_ms(lambda: ask(store, "named", {"hashes": hashed([known])})),
        "its_story_ms": best_ms(lambda: story.tell(known, store)),
    }


def planning(store: Store) -> dict[str, float]:
    """Milliseconds until DuckDB knows how it would answer, by relation: what a report costs before it reads."""
    names = ("spans", "ingest", *relations.DEFINED, *relations.plain_views())
    return {
        f"plan_{name}_ms": best_ms(lambda name=name: store.query(f"explain select * from {name}"))  # type: ignore[misc]
        for name in names
    }


def best_ms(act: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        act()
        times.append((time.perf_counter() - begun) * 1000)
    return min(times)


if __name__ == "__main__":
    main()
