"""What each report costs on a ClickHouse cluster of one, two and three nodes, beside a DuckDB file of the same spans.

All nodes are on this machine and share its cores, so more nodes cannot answer sooner here than one.
What scales is in the CPU of the busiest node: what each machine would have to do if every node had one to itself.
Answers are compared, every time.

`BENCH_CLUSTER_SPANS` names the sizes, each with its days unless they are 90: `1000000,10000000` unless given.
`BENCH_CLUSTER_NODES` names the clusters: `1,2,3` unless given.
`BENCH_FOLDER` keeps stores and nodes for the next run: of 10 million spans a cluster takes half a gigabyte.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from telemetry import reports
from telemetry.cluster import schema, source
from telemetry.cluster.schema_setup import apply
from telemetry.simulator import fleet
from telemetry.store.duck import Store
from telemetry.store.relations import Merged
from tests.bench import fleets
from tests.bench.__main__ import made_by
from tests.cluster.nodes import CLUSTER, Cluster, Node, running
from tests.cluster.test_reports import assert_equal

RUNS = 3
RANGES = ("7d", "100d")
"""The last 7 days, and all."""
CHUNK_DAYS = 10
"""Of a Parquet file on its way into the nodes."""
DATABASE = "telemetry"
WORDS = "wall_ms", "cpu_ms", "busiest_ms"


def main() -> dict[str, Any]:
    sizes = os.environ.get("BENCH_CLUSTER_SPANS", "1000000,10000000").split(",")
    clusters = [int(nodes) for nodes in os.environ.get("BENCH_CLUSTER_NODES", "1,2,3").split(",")]
    figures: dict[str, Any] = {}
    for size in map(fleets.Size.read, sizes):
        say(str(size))
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(os.environ.get("BENCH_FOLDER", folder))
            path, _ = fleets.stored(kept, size)
            with Store.open(path):  # brings one that was kept up to date
                pass
            figures[str(size)] = found = {"file_mb": path.stat().st_size >> 20, "clusters": {}}
            for nodes in clusters:
                found["clusters"][nodes] = of_cluster(kept, path, size, nodes)
                write(figures)
    return figures


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def of_cluster(folder: Path, path: Path, size: fleets.Size, nodes: int) -> dict[str, Any]:
    """Measure every report on a cluster of that many nodes, and on the file, in turns."""
    home = folder / f"cluster-{size.spans}-{size.days:g}-{nodes}"
    with running(home, nodes, threads=os.cpu_count() or 1) as cluster:
        figures = load(cluster, path, home, size)
        with Store.open(path, read_only=True) as store, source.opened(cluster.url(DATABASE)) as asked:
            found = store.query(
                "select session_id from connections where session_id is not null order by start_ns limit 1 offset 1000"
            )
            for since in RANGES:
                say(f"  {nodes} nodes, the last {since}: DuckDB wall, CPU | cluster wall, CPU, busiest node's CPU")
                given = {"since": since, "id": found["session_id"][0].as_py()}
                figures[since] = {
                    name: measured(name, given, store, asked, cluster.nodes, size.now_ns)
                    for name in reports.catalogue()
                }
    return figures


def load(cluster: Cluster, path: Path, home: Path, size: fleets.Size) -> dict[str, Any]:
    """Fill the nodes, unless they are full already: every row goes straight to its shard, merged as DuckDB has it."""
    done = home / "loaded"
    begun = time.perf_counter()
    for number in range(len(cluster.nodes)):
        apply(cluster.url(DATABASE, node=number), cluster=CLUSTER)
    if not done.exists():
        views = ("samples", "connections", "steps")
        for node in cluster.nodes:  # what they would compute is loaded
            with node.client(DATABASE) as client:
                for name in views:
                    client.command(f"drop view if exists fill_{name}")
        with (
            tempfile.TemporaryDirectory(dir=home) as workplace,
            duckdb.connect(str(path), read_only=True) as connection,
        ):
            for since in range(fleet.START_NS, size.now_ns + 1, CHUNK_DAYS * fleet.DAY_NS):
                until = since + CHUNK_DAYS * fleet.DAY_NS
                load_days(connection, cluster, Path(workplace), since, until if until <= size.now_ns else 2**62)
                share = min(1.0, (until - fleet.START_NS) / (size.now_ns - fleet.START_NS))
                say(f"    loaded {share:4.0%} after {time.perf_counter() - begun:.0f} s")
        done.write_text(f"{time.perf_counter() - begun:.0f}")
    stored = 0
    for node in cluster.nodes:
        with node.client(DATABASE) as client:
            parts = f"from system.parts where active and database = '{DATABASE}'"
            stored += int(client.query(f"select sum(bytes_on_disk) {parts}").result_rows[0][0])
    with cluster.nodes[0].client(DATABASE) as client:
        (spans,) = client.query("select count() from spans").result_rows[0]
        (release,) = client.query("select version()").result_rows[0]
    return {"spans": spans, "stored_mb": stored >> 20, "loaded_s": int(done.read_text()), "version": release}


def load_days(connection: duckdb.DuckDBPyConnection, cluster: Cluster, folder: Path, since: int, until: int) -> None:
    """Take some days through Parquet files, of which each node takes its own rows."""
    for name, (columns, select) in selects().items():
        moment = "at_ns" if name == "samples" else "start_ns"
        file = folder / f"{name}.parquet"
        connection.execute(
            f"copy ({select} where {moment} >= {since} and {moment} < {until}) to '{file}' (compression lz4)"
        )
        for number, node in enumerate(cluster.nodes):
            with node.client(DATABASE, max_partitions_per_insert_block=0) as client:
                client.command(
                    f"insert into stored_{name} ({columns}) select {columns} from file('{file}', Parquet) "
                    f"where cityHash64(assumeNotNull(trace_id)) % {len(cluster.nodes)} = {number}"
                )
        file.unlink()


def selects() -> dict[str, tuple[str, str]]:
    """Each table of a node: its columns, and DuckDB's rows for it."""
    spans = {name: name for name in schema._span_columns()}
    for name in ("attributes", "resource_attributes", "resource_entity_refs", "scope_attributes", "events", "links"):
        spans[name] = f"{name}::json::varchar as {name}"
    found = {
        "spans": (", ".join(spans), f"select {', '.join(spans.values())} from stored.spans"),
        "samples": (", ".join(schema._sample_columns()), f"select {', '.join(schema._sample_columns())} from samples"),
    }
    for relation in map(Merged.read, ("connections", "steps")):
        names = (*relation.keys, *relation.aggregates)
        rows = ("range(span_count)::ubigint[] as span_count" if name == "span_count" else name for name in names)
        found[relation.name] = (", ".join(names), f"select {', '.join(rows)} from stored.{relation.name}")
    return found


def measured(
    name: str, given: Mapping[str, object], store: Store, asked: source.Cluster, nodes: Sequence[Node], now_ns: int
) -> dict[str, Any]:
    """One report, of both in turns, after a first time of each: medians, in milliseconds."""
    params = {param.name: given[param.name] for param in reports.find(name).params if param.name in given}
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    expected = answer = pa.table({})
    for _ in range(1 + RUNS):
        begun, cpu = time.perf_counter(), time.process_time()
        expected = reports.execute(name, params, store, now_ns=now_ns)
        ours.append({"wall_ms": 1000 * (time.perf_counter() - begun), "cpu_ms": 1000 * (time.process_time() - cpu)})
        begun, before = time.perf_counter(), [cpu_ms(node) for node in nodes]
        answer = reports.execute(name, params, asked, now_ns=now_ns)
        wall_ms = 1000 * (time.perf_counter() - begun)
        used = [cpu_ms(node) - earlier for node, earlier in zip(nodes, before, strict=True)]
        theirs.append({"wall_ms": wall_ms, "cpu_ms": sum(used), "busiest_ms": max(used)})
    found = {f"duckdb_{word}": statistics.median(run[word] for run in ours[1:]) for word in WORDS[:2]}
    found |= {word: statistics.median(run[word] for run in theirs[1:]) for word in WORDS}
    differs = difference(name, expected, answer)
    say(
        f"    {name:<18}"
        + " ".join(f"{value:8.0f}" for value in found.values())
        + (f"  DIFFERS: {differs}" if differs else "")
    )
    return {word: round(value, 1) for word, value in found.items()} | {"differs": differs}


def difference(name: str, expected: pa.Table, answer: pa.Table) -> str | None:
    """The first difference of two answers, in a few words; None if they are equal."""
    try:
        assert_equal(expected, answer)
    except AssertionError as error:
        return str(error).partition("\n")[0][:100] or "rows"
    return None


def cpu_ms(node: Node) -> float:
    """What a node's process has used until now."""
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write(figures: Mapping[str, Any]) -> None:
    """The figures as tables for people."""
    lines = [
        "# What reports cost on a cluster",
        "",
        *made_by("cluster"),
        f"Times are medians of {RUNS} after a first one, DuckDB and cluster in turns; all nodes share this machine.",
        "`times` is the cluster's time over DuckDB's, here. `busiest` is the CPU of the busiest node over DuckDB's: "
        "about what `times` would be if every node had a machine like this to itself. Below 1 the cluster is faster.",
        "Both are of what each took: where the machine was busy with other things, `busiest` is the figure to go by.",
    ]
    for size, found in figures.items():
        lines += ["", f"## {size}", "", f"DuckDB's file has {found['file_mb']:,} MB.", ""]
        lines += [
            "| nodes | spans | on disk, MB | bytes a span | loaded in, s | ClickHouse |",
            "|---:|---:|---:|---:|---:|---|",
        ]
        for nodes, one in found["clusters"].items():
            each = one["stored_mb"] * 2**20 / one["spans"]
            cells = f"{one['spans']:,} | {one['stored_mb']:,} | {each:.0f} | {one['loaded_s']} | {one['version']}"
            lines.append(f"| {nodes} | {cells} |")
        for since in RANGES:
            lines += table(since, found["clusters"])
    target = Path(__file__).parent / "results" / "cluster.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n")


def table(since: str, clusters: Mapping[int, Any]) -> list[str]:
    """The reports over one range."""
    heads = "".join(f" {nodes} nodes, ms | times | busiest |" for nodes in clusters)
    lines = ["", f"### {'The last 7 days' if since == '7d' else 'All days'}", ""]
    lines += [f"| report | DuckDB, ms |{heads} the same |", "|---|---:|" + "---:|---:|---:|" * len(clusters) + "---|"]
    for name in reports.catalogue():
        each = [one[since][name] for one in clusters.values()]
        cells = "".join(
            f" {one['wall_ms']:.0f} | {one['wall_ms'] / max(one['duckdb_wall_ms'], 0.1):.1f} | "
            f"{one['busiest_ms'] / max(one['duckdb_cpu_ms'], 0.1):.1f} |"
            for one in each
        )
        differs = [one["differs"] for one in each if one["differs"]]
        ours = statistics.median(one["duckdb_wall_ms"] for one in each)
        lines.append(f"| {name} | {ours:.0f} |{cells} {f'**no**: {differs[0]}' if differs else 'yes'} |")
    return lines


if __name__ == "__main__":
    main()
