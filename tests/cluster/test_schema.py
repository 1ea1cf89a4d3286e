"""What stock Collectors export to a cluster is answered like what one DuckDB file holds."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from telemetry import reports
from telemetry.cluster import schema, source
from telemetry.cluster.schema_setup import apply
from telemetry.simulator import fleet
from telemetry.store.duck import Store
from telemetry.support import capsule, context, find
from telemetry.support.asking import ask
from tests.cluster.collected import collected
from tests.cluster.copying import VARIANTS
from tests.cluster.nodes import Cluster, passed_on
from tests.cluster.test_reports import assert_equal

ATTEMPTS = 300
INSERTIONS = 4
KEYS = {
    "connections": "trace_id",
    "verdicts": "trace_id",
    "steps": "trace_id, step",
    "durations": "trace_id, step, part",
    "samples": "trace_id, span_id",
    "sessions": "session_id",
    "episodes": "episode_id",
    "spans": "trace_id, span_id",
}
LOST = "flags", "received_ns", *VARIANTS
"""What the exporter's table has no room for, or not with its type; and when it arrived."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A fleet of three days."""
    with Store.open(tmp_path_factory.mktemp("store") / "fleet.duckdb") as opened:
        for table in fleet.generate(ATTEMPTS, 3, seed=4, sample_every_s=300):
            opened.commit([table])
        yield opened


@pytest.fixture(scope="module")
def asked(cluster: Cluster, store: Store) -> Iterator[source.Cluster]:
    """The same fleet in a cluster: every span twice, in no order, an attempt's in several insertions at both nodes."""
    for node in range(2):
        apply(cluster.url(node=node), cluster=cluster.name)
    spans = collected(store.query(f"select {store.readable_columns} from spans"))
    twice = np.random.default_rng(1).permutation(np.tile(np.arange(spans.num_rows), 2))
    for number, rows in enumerate(np.array_split(twice, INSERTIONS)):
        with cluster.nodes[number % 2].client("telemetry") as client:
            client.insert_arrow("otel_traces", spans.take(pa.array(rows)))
    with source.opened(cluster.url()) as opened:
        yield opened


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(set(reports.catalogue()) - {"ingest_health"}))
def test_a_report_has_equal_rows(name: str, store: Store, asked: source.Cluster) -> None:
    """Spans that come twice, late and out of order count once, and each report is the same."""
    newest = store.query("select max(last_seen_ns) as ns, arg_max(session_id, start_ns) as id from connections")
    now_ns = newest["ns"][0].as_py() + 3_600_000_000_000
    given = {"since": "4d", "id": newest["id"][0].as_py()}
    params = {param.name: given[param.name] for param in reports.find(name).params if param.name in given}

    expected, answer = (reports.execute(name, params, holder, now_ns=now_ns) for holder in (store, asked))

    assert expected.num_rows > 0
    left_out = [column for column in ("received",) if column in expected.schema.names]
    assert_equal(expected.drop_columns(left_out), answer.drop_columns(left_out))


@pytest.mark.real
@pytest.mark.parametrize("relation", KEYS)
def test_a_relation_has_equal_rows(relation: str, store: Store, asked: source.Cluster) -> None:
    """Every column of every row: types are read back out of texts, and what is absent is null."""
    columns = [name for name in store.query(f"from {relation} limit 0").schema.names if name not in LOST]
    statement = f"select {', '.join(columns)} from {relation} order by {KEYS[relation]}"

    expected = store.query(statement)
    plain = [field.with_type(pa.int64()) if pa.types.is_decimal(field.type) else field for field in expected.schema]
    assert_equal(expected.cast(pa.schema(plain)), asked.query(statement))


@pytest.mark.real
def test_ids_name_the_same_attempts(store: Store, asked: source.Cluster) -> None:
    """Every row, and times within those of the attempt: what came before its session's id does not know of it."""
    keys = "id_hash, id, kind, trace_id"
    expected, found = (
        holder.query(f"select {keys}, start_ns, last_seen_ns from ids order by {keys}").to_pylist()
        for holder in (store, asked)
    )

    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for row, whole in zip(found, expected, strict=True):
        assert {name: row[name] for name in keys.split(", ")} == {name: whole[name] for name in keys.split(", ")}
        assert whole["start_ns"] <= row["start_ns"] <= row["last_seen_ns"] <= whole["last_seen_ns"]
        assert row == whole or row["kind"] in ("session", "episode")


@pytest.mark.real
def test_the_look_up_of_an_id_asks_one_shard(cluster: Cluster, store: Store, asked: source.Cluster) -> None:
    """Through either node, only the node that has the id's hash is asked which attempts it names."""
    statement = "select trace_id from ids where id_hash = md5_number_lower($id) % 4294967296 and id = $id order by 1"
    some = "select session_id as id from connections where session_id is not null order by 1 limit 6"
    ids = store.query(some)["id"].to_pylist()
    before = sum(map(passed_on, cluster.nodes))
    for node in range(len(cluster.nodes)):
        with source.opened(cluster.url(node=node)) as through:
            for id in ids:
                assert through.query(statement, {"id": id}).equals(store.query(statement, {"id": id}))

    assert sum(map(passed_on, cluster.nodes)) - before == len(ids)


@pytest.mark.real
def test_only_who_has_the_rows_is_asked_for_a_session(cluster: Cluster, store: Store, asked: source.Cluster) -> None:
    """A session whose ids and attempts are on one node: through it nobody else is asked, through the other it alone."""
    shards = "id_hash % 2 as shard, groupUniqArray(cityHash64(trace_id) % 2) as shards"
    with cluster.nodes[0].client("telemetry") as client:
        found = client.query(f"select id, {shards} from ids where kind = 'session' group by id, id_hash order by id")
    for number, node in enumerate(cluster.nodes):
        id = next(id for id, shard, of_attempts in found.result_rows if [shard] == of_attempts == [number])
        for through in range(2):
            before = [passed_on(each) for each in cluster.nodes]
            with source.opened(cluster.url(node=through)) as there:
                attempt = find.resolve(id, there).attempts[0]
                spans = ask(there, "spans_of", {"trace_id": attempt.trace_id})
                steps = ask(there, "steps_of", {"trace_id": attempt.trace_id})
                timeline = reports.execute("timeline", {"id": id}, there)
            told = [passed_on(each) - earlier for each, earlier in zip(cluster.nodes, before, strict=True)]

            assert (len(spans) > 0, len(steps) > 0) == (True, True)
            assert timeline.num_rows == reports.execute("timeline", {"id": id}, store).num_rows
            assert told[1 - number] == 0
            assert (told[number] == 0) == (node is cluster.nodes[through])


@pytest.mark.real
def test_an_id_that_comes_late_names_the_whole_attempt(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    """One span has the session's id, and each arrives by itself: every question finds what one file has."""
    for node in range(2):
        apply(cluster.url("late", node=node), cluster=cluster.name)
    longest = "select arg_max(trace_id, span_count) from connections where session_id is not null"
    spans = store.query(f"select {store.readable_columns} from spans where trace_id = ({longest}) order by end_ns")
    ids = spans["session_id"].to_pylist()
    (id,) = set(ids) - {None}
    number = ids.index(id) + 1
    known = pa.array([id if row == number else None for row in range(len(ids))], pa.string())
    spans = spans.set_column(spans.schema.get_field_index("session_id"), "session_id", known)
    with cluster.nodes[0].client("late") as client:
        for row in range(0, len(ids), max(1, number)):
            client.insert_arrow("otel_traces", collected(spans.slice(row, max(1, number))))

    with Store.open(tmp_path / "late.duckdb") as file, source.opened(cluster.url("late")) as late:
        file.commit([spans])
        times = "select start_ns, last_seen_ns from ids where kind = 'session'"
        assert late.query(times).to_pylist() != file.query(times).to_pylist()
        found, expected = (find.resolve(id, holder).row for holder in (late, file))
        assert _without(found, ["received_ns"]) == _without(expected, ["received_ns"])
        others = [context.history({**row, "trace_id": "0" * 32}, late) for row in (found, expected)]
        assert others == [context.history({**expected, "trace_id": "0" * 32}, file)] * 2
        assert len(others[0].session) == 1
        found, expected = (reports.execute("timeline", {"id": id}, holder)["span_id"] for holder in (late, file))
        assert found.to_pylist() == expected.to_pylist()
        assert len(expected) == len(ids)


@pytest.mark.real
def test_a_story_is_the_same(store: Store, asked: source.Cluster) -> None:
    """All but the types of attributes without a column, which are texts, and when it arrived."""
    id = store.query("select min(attempt_id) as id from connections where outcome = 'failed'")["id"][0].as_py()
    expected, told = (capsule.pack(id, holder) for holder in (store, asked))
    texts = "waterfall", "timeline", "attempt"

    assert told.verdict == expected.verdict
    assert _without(told.story, texts) == _without(expected.story, texts)
    assert _without(told.story["attempt"], ["received_ns"]) == _without(expected.story["attempt"], ["received_ns"])


def _without(told: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in names}


@pytest.mark.real
def test_what_arrives_is_counted(store: Store, asked: source.Cluster) -> None:
    """`ingest` counts what came, though it came twice, in one insertion each."""
    spans = store.query("select count(*) as n from spans")["n"][0].as_py()
    counted = asked.query("select sum(stored) as stored, sum(requests) as requests, sum(rejected) as no from ingest")

    assert counted.to_pylist() == [{"stored": 2 * spans, "requests": INSERTIONS, "no": 0}]


@pytest.mark.real
def test_an_attempt_is_on_one_shard(cluster: Cluster, asked: source.Cluster) -> None:
    """No trace is torn apart, and who looks for one asks one node."""
    statement = "select count(distinct trace_id) as n from spans"
    shards = []
    for node in cluster.nodes:
        with node.client("telemetry") as client:
            shards.append(client.command("select count(distinct trace_id) from spans_local"))
    trace_id = asked.query("select min(trace_id) as id from connections")["id"][0].as_py()

    assert sum(shards) == asked.query(statement)["n"][0].as_py()
    assert min(shards) > 0.4 * sum(shards)
    with cluster.nodes[0].client(
        "telemetry", optimize_skip_unused_shards=1, force_optimize_skip_unused_shards=2
    ) as client:
        for relation in ("spans", "connections", "steps", "verdicts", "samples"):
            client.command(f"select count() from {relation} where trace_id = '{trace_id}'")


def test_a_question_reads_beyond_its_range_as_far_as_it_may_need() -> None:
    """The setting leaves room for sessions that began before or end later, and for the range that is compared with."""

    def days(**params: int | None) -> list[float]:
        given = {name: value and value * fleet.DAY_NS for name, value in params.items()}
        return [int(limit) / fleet.DAY_NS for limit in re.findall(r"_ns=(\d+)", schema.horizon(given)["log_comment"])]

    assert schema.horizon({}) == {}
    assert days(since=100) == [92]
    assert days(since=100, until=101) == [92, 109]
    assert days(since=100, until=103, before_since=None) == [89, 111]
    assert days(since=100, until=103, before_since=50, before_until=110) == [42, 118]
    assert days(since=3, until=4) == [0, 12]


@pytest.mark.real
def test_what_is_beyond_is_not_read(cluster: Cluster, asked: source.Cluster) -> None:
    """The limits reach every shard, and leave out the days before and after them."""

    def counted(since_day: int, until_day: int) -> int:
        beyond = schema.LONGEST_SESSION_NS + fleet.DAY_NS
        given = {"since": fleet.START_NS + since_day * fleet.DAY_NS + beyond}
        given["until"] = fleet.START_NS + until_day * fleet.DAY_NS - beyond
        with cluster.nodes[0].client("telemetry", **schema.horizon(given)) as client:
            return int(client.command("select count() from connections"))

    everything = asked.query("select count(*) as n from connections")["n"][0].as_py()
    assert everything == counted(0, 99) > counted(1, 99) > counted(9, 99) == 0
    assert everything == counted(0, 99) > counted(0, 1) > counted(0, -9) == 0


def test_statements_follow_the_layout() -> None:
    """Replicas and Keeper change the engines and where a statement runs; days to keep become a TTL."""
    alone = schema.statements(schema.Layout("d"))
    large = schema.statements(schema.Layout("d", "fleet", replicated=True, on_cluster=True, keep_days=30))

    assert not any("Distributed" in statement or "ttl " in statement for statement in alone)
    assert all(" on cluster 'fleet'" in statement for statement in large)
    assert sum("Replicated" in statement for statement in large) == 6
    assert sum("toIntervalDay(30)" in statement for statement in large) == 6
