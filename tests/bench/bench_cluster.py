"""What each report and look-up costs on a ClickHouse cluster of one, two and three nodes, beside a DuckDB file.

Both have the same spans, and answers are compared, every time.
All nodes are on this machine and share its cores, so more nodes cannot answer sooner here than one.
What scales is in the CPU of the busiest node: what each machine would have to do if every node had one to itself.

`BENCH_CLUSTER_SPANS` names the sizes, each with its days unless they are 90: `10000000,100000000` unless given.
`BENCH_CLUSTER_NODES` names the clusters: `1,2,3` unless given.
`BENCH_FOLDER` keeps stores and nodes for the next run: 1 GB of 10 million spans, ten times that of 100 million.
Making them takes an hour and 45 GB; `python -m tests.bench.clusters FOLDER SPANS:NODES …` makes them ahead.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from telemetry import reports
from telemetry.cluster import source
from telemetry.errors import StoreError
from telemetry.store.duck import Store
from tests.bench import clusters, fleets
from tests.bench.__main__ import made_by
from tests.bench.bench_reports import LOOK_UPS, LOOKED_UP, looked_up
from tests.bench.clusters import cpu_ms, say
from tests.cluster.nodes import Cluster
from tests.cluster.test_reports import assert_equal

RUNS = 3
SLOW_MS = 5000
"""What takes longer is asked once: its noise is small."""
LIMIT_S = 10 * source.QUERY_LIMIT_S
"""Longer than the product's own, so that what is too slow there is measured, too."""
LOOKED_FOR_MS = 60_000
"""After so long, the sessions that were looked for are enough."""
RANGES = {"7d": "the last 7 days", "100d": "all days"}
STORED_SPANS = 1_000_000
"""Sent to each cluster of one fleet, to see what storing costs."""
LEFT_OUT = ("received",)
"""When a span arrived: in each store by its own clock."""
WORDS = "wall_ms", "cpu_ms", "busiest_ms"
KINDS = {
    "spans, samples": {"spans", "samples"},
    "steps": {"steps", "durations"},
    "attempts": {"connections", "verdicts"},
    "the ledger": {"ingest"},
}
"""What a report reads, the first that fits: it is of the most rows."""
ONE_SESSION = "one session"

Spent = dict[str, float]
"""Milliseconds, by `WORDS`."""


def main() -> dict[str, Any]:
    sizes = os.environ.get("BENCH_CLUSTER_SPANS", "10000000,100000000").split(",")
    counts = [int(nodes) for nodes in os.environ.get("BENCH_CLUSTER_NODES", "1,2,3").split(",")]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(os.environ.get("BENCH_FOLDER", folder)).resolve()
        for size in map(fleets.Size.read, sizes):
            say(str(size))
            path, once = fleets.stored(kept, size)
            figures[str(size)] = found = {"copies": size.copies, "file_mb": path.stat().st_size >> 20, "clusters": {}}
            for nodes in counts:
                with clusters.ready(kept, size, nodes) as (cluster, facts):
                    found["clusters"][nodes] = facts | of_cluster(cluster, path, size)
                    if size.copies == 1:
                        say(f"  {nodes} nodes, storing {STORED_SPANS:,} spans")
                        found["clusters"][nodes]["storing"] = clusters.storing(once, cluster, STORED_SPANS)
                write(figures)
    return figures


def of_cluster(cluster: Cluster, path: Path, size: fleets.Size) -> dict[str, Any]:
    """Measure look-ups and every report on a cluster whose nodes have just begun, and on the file, in turns."""
    figures: dict[str, Any] = {}
    nodes = len(cluster.nodes)
    with Store.open(path, read_only=True) as store:
        chosen = f"select session_id from sessions order by session_id limit {LOOKED_UP}"
        sessions: list[str] = store.query(chosen)["session_id"].to_pylist()
        ledger = store.query("select * from ingest")
    with (
        patch.dict(source.SETTINGS, max_execution_time=LIMIT_S),
        patch.object(source, "QUERY_LIMIT_S", LIMIT_S),
        source.opened(cluster.url(clusters.DATABASE)) as asked,
    ):
        say(f"  {nodes} nodes, one session: cluster cold, warm, CPU, busiest node's CPU; then DuckDB cold, warm, CPU")
        figures[ONE_SESSION] = {
            name: {"cluster": found_by(cluster, asked, name, sessions), "duckdb": looked_up(path, sessions, look)}
            for name, look in LOOK_UPS.items()
        }
        clusters.take_ledger(cluster, ledger)
        with Store.open(path, read_only=True) as store:
            for since, label in RANGES.items():
                say(f"  {nodes} nodes, {label}: DuckDB wall, CPU | cluster wall, CPU, busiest node's CPU")
                given = {"since": since, "id": sessions[0]}
                figures[since] = {
                    name: measured(name, given, store, asked, cluster, size.now_ns) for name in reports.catalogue()
                }
    return figures


def found_by(cluster: Cluster, asked: source.Cluster, name: str, sessions: Sequence[str]) -> dict[str, float] | None:
    """Several sessions, one after the other: the first from nodes that have read nothing; milliseconds.

    None if one was not found within the limit of a query; fewer sessions where all take too long.
    """
    runs: list[Spent] = []
    for id in sessions:
        spent, failed = spending(cluster, lambda id=id: LOOK_UPS[name](asked, id))  # type: ignore[misc]
        if failed:
            say(f"    {name:<36} FAILED: {failed}")
            return None
        runs.append(spent)
        if len(runs) > RUNS and sum(run["wall_ms"] for run in runs) > LOOKED_FOR_MS:
            break
    found = {
        "cold_ms": runs[0]["wall_ms"],
        "warm_ms": statistics.median(run["wall_ms"] for run in runs[1:]),
        "cpu_ms": statistics.mean(run["cpu_ms"] for run in runs[1:]),  # the system counts in steps of 10 ms
        "busiest_ms": statistics.mean(run["busiest_ms"] for run in runs[1:]),
    }
    say(f"    {name:<36}" + " ".join(f"{value:8.0f}" for value in found.values()))
    return found


def spending(cluster: Cluster, act: Callable[[], object]) -> tuple[Spent, str | None]:
    """Do something that a cluster answers: what that took, and why there was no answer."""
    begun, before = time.perf_counter(), cpu_ms(cluster)
    failed = None
    try:
        act()
    except StoreError as error:
        failed = str(error)
    wall_ms = 1000 * (time.perf_counter() - begun)
    used = [now - earlier for now, earlier in zip(cpu_ms(cluster), before, strict=True)]
    return {"wall_ms": wall_ms, "cpu_ms": sum(used), "busiest_ms": max(used)}, failed


def measured(
    name: str, given: Mapping[str, object], store: Store, asked: source.Cluster, cluster: Cluster, now_ns: int
) -> dict[str, Any]:
    """One report, of both in turns, after a first time of each: medians, in milliseconds."""
    params = {param.name: given[param.name] for param in reports.find(name).params if param.name in given}
    ours: list[Spent] = []
    theirs: list[Spent] = []
    answers: list[pa.Table] = []
    expected = pa.table({})
    failed = None
    while not failed and len(theirs) <= RUNS and (not theirs or theirs[0]["wall_ms"] < SLOW_MS):
        begun, cpu = time.perf_counter(), time.process_time()
        expected = reports.execute(name, params, store, now_ns=now_ns)
        ours.append({"wall_ms": 1000 * (time.perf_counter() - begun), "cpu_ms": 1000 * (time.process_time() - cpu)})
        spent, failed = spending(cluster, lambda: answers.append(reports.execute(name, params, asked, now_ns=now_ns)))
        theirs.append(spent)
    found = {f"duckdb_{word}": statistics.median(run[word] for run in ours[1:] or ours) for word in WORDS[:2]}
    found |= {word: statistics.median(run[word] for run in theirs[1:] or theirs) for word in WORDS}
    differs = None if failed else difference(expected, answers[-1])
    said = f"  FAILED: {failed}" if failed else f"  DIFFERS: {differs}" if differs else ""
    say(f"    {name:<18}" + " ".join(f"{value:8.0f}" for value in found.values()) + said)
    return {word: round(value, 1) for word, value in found.items()} | {"differs": differs, "failed": failed}


def difference(expected: pa.Table, answer: pa.Table) -> str | None:
    """The first difference of two answers, in a few words; None if they are equal."""
    left_out = [name for name in LEFT_OUT if name in expected.schema.names]
    try:
        assert_equal(expected.drop_columns(left_out), answer.drop_columns(left_out))
    except AssertionError as error:
        return str(error).partition("\n")[0][:100] or "rows"
    return None


def write(figures: Mapping[str, Any]) -> None:
    """The figures as tables for people."""
    lines = [
        "# What reports cost on a cluster",
        "",
        *made_by("cluster"),
        f"Times are medians of {RUNS} after a first one, or that one where it took over {SLOW_MS // 1000} s, "
        "DuckDB and cluster in turns; all nodes share this machine.",
        "`times` is the cluster's time over DuckDB's, here. `busiest` is the CPU of the busiest node over DuckDB's: "
        "about what `times` would be if every node had a machine like this to itself. Below 1 the cluster is faster.",
        f"Bold is what `telemetry report` would give up, after {source.QUERY_LIMIT_S:.0f} s.",
        "Both are of what each took: where the machine was busy with other things, `busiest` is the figure to go by.",
        *levels(figures),
        *one_session(figures),
        *storing(figures),
        *growth(figures),
    ]
    for size, found in figures.items():
        for since, label in RANGES.items():
            lines += ["", f"## {size} spans, {label}", "", *table(since, found["clusters"])]
    target = Path(__file__).parent / "results" / "cluster.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n")


def table(since: str, found: Mapping[int, Any]) -> list[str]:
    """The reports over one range."""
    heads = "".join(f" {nodes} nodes, ms | times | busiest |" for nodes in found)
    lines = [f"| report | DuckDB, ms |{heads} the same |", "|---|---:|" + "---:|---:|---:|" * len(found) + "---|"]
    for name in reports.catalogue():
        each = [one[since][name] for one in found.values()]
        differs = [one["differs"] for one in each if one["differs"]]
        unknown = all(one["failed"] for one in each)
        same = f"**no**: {differs[0]}" if differs else "no answer" if unknown else "yes"
        ours = statistics.median(one["duckdb_wall_ms"] for one in each)
        lines.append(f"| {name} | {ours:.0f} | {' | '.join(map(cells, each))} | {same} |")
    return lines


def cells(one: Mapping[str, Any]) -> str:
    """What a report took, and that over DuckDB's; where there was no answer, until it was given up."""
    times = f"{one['wall_ms'] / max(one['duckdb_wall_ms'], 0.1):.1f}"
    if one["failed"]:
        late = "time limit" in one["failed"]
        return f"**{f'over {LIMIT_S:.0f} s' if late else one['failed']}** | >{times} | >{busiest(one):.1f}"
    refused = "**" if one["wall_ms"] > 1000 * source.QUERY_LIMIT_S else ""
    return f"{refused}{one['wall_ms']:.0f}{refused} | {times} | {busiest(one):.1f}"


def busiest(one: Mapping[str, Any]) -> float:
    """CPU of the busiest node over DuckDB's."""
    return float(one["busiest_ms"] / max(one["duckdb_cpu_ms"], 0.1))


def levels(figures: Mapping[str, Any]) -> list[str]:
    """By what reports read: how far the busiest node is from DuckDB, and at how many nodes it would draw level."""
    lines = [
        "",
        "## Where a cluster draws level",
        "",
        "Medians of `busiest` over the reports that read the same. `level` is the number of machines at which it "
        "would be 1, by a line through these clusters against one over their number of nodes; "
        "*none* where the part that more nodes do not lessen is above 1 already, and it is in brackets. "
        "`>` where a report was given up: it would have taken more.",
        "",
    ]
    heads = "".join(
        f" {size}: {' / '.join(map(str, found['clusters']))} nodes | level |" for size, found in figures.items()
    )
    lines += [f"| reads | reports | range |{heads}", "|---|---|---|" + "---:|---:|" * len(figures)]
    for kind in (ONE_SESSION, *KINDS):
        names = [name for name in reports.catalogue() if kind_of(name) == kind]
        for since, label in RANGES.items() if names else ():
            cells = []
            for found in figures.values():
                ratios = {
                    nodes: statistics.median(busiest(one[since][name]) for name in names)
                    for nodes, one in found["clusters"].items()
                }
                late = any(one[since][name]["failed"] for one in found["clusters"].values() for name in names)
                cells += ["> " * late + " / ".join(f"{ratio:.1f}" for ratio in ratios.values()), level(ratios)]
            lines.append(f"| {kind} | {len(names)} | {label} | {' | '.join(cells)} |")
    return lines


def kind_of(name: str) -> str:
    report = reports.find(name)
    if any(param.name == "id" for param in report.params):
        return ONE_SESSION
    read = set(re.findall(r"\b(?:from|join)\s+(\w+)", report.sql))
    return next(kind for kind, relations in KINDS.items() if read & relations)


def level(ratios: Mapping[int, float]) -> str:
    """The number of nodes at which a ratio of `rest + shared / nodes` is 1."""
    if len(ratios) < 2:
        return ""
    shared, rest = statistics.linear_regression([1 / nodes for nodes in ratios], list(ratios.values()))
    return f"{max(1, shared / (1 - rest)):.0f}" if rest < 1 else f"none ({rest:.1f})"


def one_session(figures: Mapping[str, Any]) -> list[str]:
    """The table of look-ups."""
    lines = [
        "",
        "## One session by its id",
        "",
        f"{LOOKED_UP} sessions one after the other, milliseconds: cold is the first, from files that the system had "
        "forgotten; warm, and first, is the median of the others, each read for the first time, too; again is the "
        "median of all when they are asked for once more.",
        "",
        "| look-up | spans | nodes | DuckDB: cold | first | again | CPU "
        "| cluster: cold | warm | CPU | busiest node's CPU |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in LOOK_UPS:
        for size, found in figures.items():
            for nodes, one in found["clusters"].items():
                ours, theirs = (one[ONE_SESSION][name][which] for which in ("duckdb", "cluster"))
                values = [f"{value:.0f}" for value in ours.values()]
                values += [f"{value:.0f}" for value in theirs.values()] if theirs else ["**no answer**", "", "", ""]
                lines.append(f"| {name} | {size} | {nodes} | {' | '.join(values)} |")
    return lines


def storing(figures: Mapping[str, Any]) -> list[str]:
    """What spans take: on disk, and of CPU until they are stored."""
    lines = [
        "",
        "## Storing",
        "",
        f"CPU is of {STORED_SPANS:,} spans sent into `otel_traces`, {clusters.BATCH_SPANS:,} at once to each node in "
        "turn, with all views, until nothing was left to merge; what sends them is not in it.",
        "What DuckDB's own receiver takes is in the figures of `decode`.",
        "",
        "| spans | made of | DuckDB, bytes a span | nodes | spans there | bytes a span | made in, s | of CPU, s "
        "| CPU, µs a span | busiest node | spans/s, sent by one |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size, found in figures.items():
        for nodes, one in found["clusters"].items():
            made = "one fleet" if found["copies"] == 1 else f"one fleet {found['copies']} times over"
            ours, theirs = (mb * 2**20 / one["spans"] for mb in (found["file_mb"], one["stored_mb"]))
            cost = one.get("storing")
            cells = (
                f"{cost['cpu_us']:.0f} | {cost['busiest_us']:.0f} | {cost['spans'] / cost['wall_s']:,.0f}"
                if cost
                else " | | "
            )
            lines.append(
                f"| {size} | {made} | {ours:.0f} | {nodes} | {one['spans']:,} | {theirs:.0f} "
                f"| {one['wall_s']:.0f} | {one['cpu_s']:.0f} | {cells} |"
            )
    return lines


def growth(figures: Mapping[str, Any]) -> list[str]:
    """How much longer each report takes of the largest size than of the smallest."""
    if len(figures) < 2:
        return []
    small, *_, large = figures
    counts = [n for n in figures[small]["clusters"] if n in figures[large]["clusters"]]
    heads = [f"{who}, {label}" for label in RANGES.values() for who in ("DuckDB", *(f"{n} nodes" for n in counts))]
    lines = ["", f"## Growth from {small} to {large}", "", "CPU of the one over that of the other.", ""]
    lines += [f"| report | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name in reports.catalogue():
        cells = []
        for since in RANGES:
            each = [
                (figures[large]["clusters"][n][since][name], figures[small]["clusters"][n][since][name]) for n in counts
            ]
            ours = (statistics.median(one["duckdb_cpu_ms"] for one in pair) for pair in zip(*each, strict=True))
            more, less = ours
            cells.append(f"{more / max(less, 0.1):.1f}")
            cells += [
                f"{'>' if more['failed'] else ''}{more['cpu_ms'] / max(less['cpu_ms'], 0.1):.1f}" for more, less in each
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
