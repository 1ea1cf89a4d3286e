"""Clusters of any size for benchmarks: a fleet sent as Collectors send it, and copies of it beyond ten million spans.

A fleet is sent once, to one node: `otel_traces`, with all views behind it, in batches as a Collector makes them.
Clusters of several nodes, and of more spans, take their rows from that node, table by table, each to the shard of its
key; copies have the ids and times of those in `fleets.multiply`, so that DuckDB has the same.
A cluster that was interrupted is taken up where it was: every row may come twice.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from telemetry.cluster import schema
from telemetry.cluster.schema_setup import apply
from telemetry.semconv import COLUMNS
from telemetry.simulator import fleet
from tests.bench import fleets
from tests.bench.__main__ import CORES
from tests.bench.bench_reports import forget
from tests.cluster.nodes import CLUSTER, Cluster, Node, running

DATABASE: Final = "telemetry"
BATCH_SPANS: Final = 36_864
"""Sent at once: what a Collector gathers in a second or so, and a whole number of DuckDB's vectors."""
COPIED: Final = ("spans", "samples", "connections", "steps")
"""Tables with a shard by trace. `ids` is filled from `connections`, and the ledger is of one receiver."""
_LARGE_BLOCKS: Final = {
    "max_partitions_per_insert_block": 0,
    "min_insert_block_size_bytes": 2**30,
    "min_insert_block_size_rows": 2_000_000,
    "max_threads": 2,
    "optimize_on_insert": 0,
}
"""A day's rows at once, merged later: a row costs 9 µs so, and 18 where insertion merges, too (855,750 spans)."""
_ANSWER_LIMIT_S: Final = 7200
"""For statements that take a while on a busy machine."""
_DIGIT: Final = "lower(substring(hex(toUInt8(copy)), 2))"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def ready(folder: Path, size: fleets.Size, nodes: int) -> Iterator[tuple[Cluster, dict[str, Any]]]:
    """Serve a cluster of that size, made unless it is there already, and say what it took to make it.

    The nodes have read nothing yet: the system has forgotten their files.
    """
    home = folder / f"cluster-{size.spans}-{size.days:g}-{nodes}"
    made = home / "made.json"
    if not made.exists():
        made.write_text(json.dumps(_make(folder, home, size, nodes)))
    for file in home.rglob("*.bin"):
        forget(file)
    with running(home, nodes, threads=CORES) as cluster:
        _applied(cluster)
        yield cluster, json.loads(made.read_text()) | _held(cluster)


def sent(path: Path, cluster: Cluster, most: int, database: str = DATABASE, since_day: int = 0) -> Iterator[int]:
    """Send the spans of a file to each node in turn, in the order in which they ended; gives the days that are done."""
    done = 0
    with ExitStack() as stack:
        connection = stack.enter_context(duckdb.connect(str(path), read_only=True))
        clients = [stack.enter_context(node.client(database)) for node in cluster.nodes]
        (last,) = connection.execute("select max(end_ns) from stored.spans").fetchall()[0]
        for day in range(since_day, (last - fleet.START_NS) // fleet.DAY_NS + 1):
            begin = fleet.START_NS + day * fleet.DAY_NS
            statement = f"{_otel_traces()} where end_ns >= {begin} and end_ns < {begin + fleet.DAY_NS} order by end_ns"
            for number, batch in enumerate(connection.sql(statement).to_arrow_reader(BATCH_SPANS)):
                clients[(day + number) % len(clients)].insert_arrow("otel_traces", pa.Table.from_batches([batch]))
                done += batch.num_rows
                if done >= most:
                    yield day
                    return
            yield day


def storing(path: Path, cluster: Cluster, most: int) -> dict[str, float]:
    """What it costs to store spans that Collectors send, with all views and merges, in a database of its own."""
    _applied(cluster, "door")
    before, begun = cpu_ms(cluster), time.perf_counter()
    for _ in sent(path, cluster, most, "door"):
        pass
    wall_s = time.perf_counter() - begun
    settle(cluster)
    used = [now - earlier for now, earlier in zip(cpu_ms(cluster), before, strict=True)]
    spans = _spans(cluster, "door")
    cluster.everywhere("drop database door sync")
    return {
        "spans": spans,
        "wall_s": wall_s,
        "cpu_us": 1000 * sum(used) / spans,
        "busiest_us": 1000 * max(used) / spans,
    }


def settle(cluster: Cluster) -> None:
    """Wait until no node merges any more."""
    for node in cluster.nodes:
        with node.client() as client:
            idle = 0
            while idle < 3:
                idle = 0 if client.query("select count() from system.merges").result_rows[0][0] else idle + 1
                time.sleep(0.5)


def cpu_ms(cluster: Cluster) -> list[float]:
    """What each node's process has used until now."""
    tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
    stats = (Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split() for node in cluster.nodes)
    return [tick_ms * (int(fields[11]) + int(fields[12])) for fields in stats]


def take_ledger(cluster: Cluster, ledger: pa.Table) -> None:
    """Have what arrived as a file's receiver counted it, so that both are asked the same."""
    cluster.everywhere(f"truncate table {DATABASE}.stored_ingest")
    with cluster.nodes[0].client(DATABASE, **_LARGE_BLOCKS) as client:
        rows = client.query(
            "select name from system.columns where database = {database:String} and table = 'stored_ingest'",
            {"database": DATABASE},
        ).result_rows
        client.insert_arrow("stored_ingest", ledger.select([name for (name,) in rows]))


def _applied(cluster: Cluster, database: str = DATABASE) -> None:
    for node in range(len(cluster.nodes)):
        apply(cluster.url(database, node=node), cluster=CLUSTER)
    cluster.everywhere(f"system flush distributed {database}.incoming_ids")  # what an upgrade has told it


def _held(cluster: Cluster) -> dict[str, Any]:
    stored = 0
    for node in cluster.nodes:
        with node.client() as client:
            parts = f"from system.parts where active and database = '{DATABASE}'"
            stored += int(client.query(f"select sum(bytes_on_disk) {parts}").result_rows[0][0])
    with cluster.nodes[0].client() as client:
        (release,) = client.query("select version()").result_rows[0]
    return {"stored_mb": stored >> 20, "version": release}


def _spans(cluster: Cluster, database: str = DATABASE) -> int:
    with cluster.nodes[0].client(database, answer_limit_s=_ANSWER_LIMIT_S) as client:
        return int(client.query("select count() from spans").result_rows[0][0])


def _make(folder: Path, home: Path, size: fleets.Size, nodes: int) -> dict[str, Any]:
    """Make a cluster, or go on with one that is half made; gives what that took."""
    kept = home / "making.json"
    if not kept.exists():
        shutil.rmtree(home, ignore_errors=True)
    took: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"day": 0, "wall_s": 0.0, "cpu_s": 0.0}
    once = fleets.Size(size.spans // size.copies, size.days)
    with ExitStack() as stack:
        sending = (size.copies, nodes) == (1, 1)
        source, facts = (None, {}) if sending else stack.enter_context(ready(folder, once, 1))
        cluster = stack.enter_context(running(home, nodes, threads=CORES))
        _applied(cluster)
        days = (
            _copying(source.nodes[0], cluster, size.copies, took["day"])
            if source
            else sent(fleets.stored(folder, size)[1], cluster, sys.maxsize, since_day=took["day"])
        )
        begun, earlier = time.perf_counter() - took["wall_s"], sum(cpu_ms(cluster)) / 1000 - took["cpu_s"]

        def note(day: int) -> None:
            took.update(day=day, wall_s=time.perf_counter() - begun, cpu_s=sum(cpu_ms(cluster)) / 1000 - earlier)
            kept.write_text(json.dumps(took))

        for day in days:
            note(day + 1)
            say(f"    {home.name}: day {day + 1} of {size.days:g} is there after {took['wall_s']:.0f} s")
        settle(cluster)
        note(took["day"])
        _merge(cluster)
        took["spans"] = _spans(cluster)
    if facts and took["spans"] != size.copies * facts["spans"]:
        raise RuntimeError(f"{home} has {took['spans']:,} spans, not {size.copies} times {facts['spans']:,}; remove it")
    kept.unlink()
    return took


def _merge(cluster: Cluster) -> None:
    """Merge each day into one part, as are days that nothing comes to any more; what is one already stays."""
    for node in cluster.nodes:
        for name in (*COPIED, "ids"):
            with node.client(DATABASE, answer_limit_s=_ANSWER_LIMIT_S, optimize_skip_merged_partitions=1) as client:
                client.command(f"optimize table stored_{name} final")


def _copying(source: Node, cluster: Cluster, copies: int, since_day: int) -> Iterator[int]:
    """Take the rows of another node, a day after the other, several times over; gives the days that are done."""
    views = [f"fill_{name}" for name in COPIED[1:]]  # what they would compute is copied
    cluster.everywhere(*(f"detach table {DATABASE}.{view}" for view in views))
    with source.client(DATABASE) as client:
        (last,) = client.query("select max(last_seen_ns) from stored_connections").result_rows[0]
        columns = dict(
            client.query(
                "select table, groupArray(name) from system.columns where database = {database:String} group by table",
                {"database": DATABASE},
            ).result_rows
        )
    for day in range(since_day, (last - fleet.START_NS) // fleet.DAY_NS + 1):
        begin = fleet.START_NS + day * fleet.DAY_NS
        for name in COPIED:
            moment, names = schema._DAY_NS[name], columns[f"stored_{name}"]
            from_source = (
                f"select * from remote('{source.host}:{source.tcp_port}', {DATABASE}, stored_{name}) "
                f"where {moment} >= {begin} and {moment} < {begin + fleet.DAY_NS}"
            )
            ours = {column: fleets.copied(column, _DIGIT) if copies > 1 else column for column in names}
            for number, node in enumerate(cluster.nodes):
                with node.client(DATABASE, answer_limit_s=_ANSWER_LIMIT_S, **_LARGE_BLOCKS) as client:
                    client.command(
                        f"insert into stored_{name} ({', '.join(ours)}) select {', '.join(ours.values())} "
                        f"from ({from_source}) array join range({copies}) as copy "
                        f"where cityHash64({ours['trace_id']}) % {len(cluster.nodes)} = {number}"
                    )
        yield day
    cluster.everywhere(*(f"attach table {DATABASE}.{view}" for view in views))


def _otel_traces() -> str:
    """DuckDB's select of spans as the Collector's exporter writes them: every value of an attribute is a text."""
    spans = [(str(column.span), column.name) for column in COLUMNS if column.span]
    resources = [(str(column.resource), column.name) for column in COLUMNS if column.resource and not column.span]
    return f"""select make_timestamp_ns(start_ns) as "Timestamp", trace_id as "TraceId", span_id as "SpanId",
    coalesce(parent_span_id, '') as "ParentSpanId", name as "SpanName", concat(kind[1], lower(kind[2:])) as "SpanKind",
    coalesce(service_name, '') as "ServiceName", {_texts(resources, "resource_attributes")} as "ResourceAttributes",
    coalesce(scope_name, '') as "ScopeName", coalesce(scope_version, '') as "ScopeVersion",
    {_texts(spans, "attributes")} as "SpanAttributes", (end_ns - start_ns)::ubigint as "Duration",
    concat(status_code[1], lower(status_code[2:])) as "StatusCode", coalesce(status_message, '') as "StatusMessage"
    from stored.spans"""


def _texts(pairs: Iterable[tuple[str, str]], others: str) -> str:
    """A map of the columns that are not null, and of the attributes that have none."""
    entries = ", ".join(f"{{'key': '{attribute}', 'value': {column}::varchar}}" for attribute, column in pairs)
    typed = f"map_from_entries(list_filter([{entries}], lambda entry: entry.value is not null))"
    return f"map_concat({typed}, coalesce({others}::json::map(varchar, varchar), map {{}}))"


def main() -> None:
    folder, *given = sys.argv[1:]
    for one in given:
        spans, _, nodes = one.partition(":")
        with ready(Path(folder).resolve(), fleets.Size.read(spans), int(nodes)) as (_, figures):
            say(f"  {one}: {figures}")


if __name__ == "__main__":
    main()
