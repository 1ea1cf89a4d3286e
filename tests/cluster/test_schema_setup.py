"""`telemetry store init` makes the schema once, says what is missing, and touches nothing that it does not know."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from telemetry.cli.app import root
from telemetry.cluster import schema, source
from telemetry.cluster.schema_setup import apply
from telemetry.errors import ExitCode, SchemaMismatch, StoreError, UsageError
from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.real

SPAN = "insert into stored_spans (trace_id, span_id, name, attempt_id) values ('a', 'b', 'connect', 'c')"


def init(*arguments: str) -> Result:
    return CliRunner().invoke(root, ["store", "init", "--store", *arguments])


def test_each_node_is_told_and_may_be_told_again(cluster: Cluster) -> None:
    """Without Keeper the command names the nodes that lack the schema, until none does; again, it changes nothing."""
    first = init(cluster.url("fresh"), "--cluster", "fleet")
    second = init(cluster.url("fresh", node=1), "--cluster", "fleet", "--keep-days", "90")
    again = init(cluster.url("fresh"), "--cluster", "fleet")

    assert (first.exit_code, first.stdout) == (0, "the schema was made\n")
    assert "1 of 2 nodes still lack it" in first.stderr
    assert (second.exit_code, second.stdout, second.stderr) == (0, "the schema was made\n", "")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "the schema is up to date\n", "")
    with cluster.nodes[1].client("fresh") as client:
        kept = client.query(
            "select name from system.tables where database = 'fresh' and create_table_query like '%TTL%'"
        )
    assert {row[0] for row in kept.result_rows} == {
        f"stored_{name}" for name in ("spans", "connections", "ids", "steps", "samples", "ingest")
    }


def test_definitions_of_another_release_are_replaced(cluster: Cluster) -> None:
    """Views follow the release that is told, and spans stay; until then, a reader of this release is refused."""
    url = cluster.url("older")
    apply(url)
    with cluster.nodes[0].client("older") as client:
        client.command("create or replace view verdicts as select 1 as rule")
        client.command(schema.mark(schema.Layout("older"), schema.VERSION, "other", "0.1"))
        client.command(SPAN)

    with (
        pytest.raises(StoreError, match="another release; bring it up with `telemetry store init`"),
        source.opened(url),
    ):
        pass
    assert apply(url).change == "brought up to date"
    assert apply(url).change == "is up to date"
    with cluster.nodes[0].client("older") as client:
        assert client.command("select count() from spans") == 1
        assert client.command("select count(owner) from verdicts") == 1


def test_what_an_interrupted_upgrade_left_is_completed(cluster: Cluster) -> None:
    """Version 1 had no `ids`: a table that is there and empty, as after a kill, is filled all the same."""
    url = cluster.url("first")
    apply(url)
    with cluster.nodes[0].client("first") as client:
        client.command(SPAN)
        client.command("truncate table stored_ids")
        client.command("drop view telemetry_schema")
        client.command(
            "create table telemetry_schema (version UInt32, fingerprint String, release String) engine MergeTree "
            "order by version as select 1, 'other', '0.1'"
        )

        assert apply(url).change == "brought up to date"
        assert client.command("select arrayStringConcat(arraySort(groupArray(id))) from ids") == "ac"
        assert apply(url).change == "is up to date"


def test_each_version_leads_to_the_next_one(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version runs its steps in turn, once; one that fails is run again, and those before it are not."""
    url, ran = cluster.url("stepped"), list[int]()
    apply(url)
    assert set(schema._UPGRADES) == set(range(1, schema.VERSION))
    add = "alter table stepped.stored_steps add column if not exists made_up{} String"

    def step(version: int, broken: str = "") -> Callable[[schema.Layout], list[str]]:
        return lambda layout: [ran.append(version) or add.format(version) + broken]  # type: ignore[func-returns-value]

    monkeypatch.setattr(schema, "VERSION", 4)
    monkeypatch.setitem(schema._UPGRADES, 2, step(2))
    monkeypatch.setitem(schema._UPGRADES, 3, step(3, " broken"))
    with pytest.raises(StoreError, match="cannot answer"):
        apply(url)
    monkeypatch.setitem(schema._UPGRADES, 3, step(3))

    assert apply(url).change == "brought up to date"
    assert apply(url).change == "is up to date"
    assert ran == [2, 3, 3]
    with cluster.nodes[0].client("stepped") as client:
        assert client.command("select version from telemetry_schema") == 4
        assert client.command("select count() from system.columns where name in ('made_up2', 'made_up3')") == 2


def test_statements_for_replicas_can_be_read(cluster: Cluster) -> None:
    """The nodes here have no Keeper to run them with; ClickHouse's own parser takes every one of them."""
    layout = schema.Layout("large", "fleet", replicated=True, on_cluster=True, keep_days=30)
    upgrades = [each for version in range(1, schema.VERSION) for each in schema.upgrade(layout, version)]
    with cluster.nodes[0].client() as client:
        for statement in (*schema.statements(layout), *upgrades, schema.mark(layout, schema.VERSION, "f", "1")):
            client.command(f"explain ast {statement}")


def test_another_version_is_left_alone(cluster: Cluster) -> None:
    """What is on disk in another form is named with what to do, and not touched; neither is another layout."""
    url = cluster.url("newer")
    apply(url)
    with pytest.raises(UsageError, match="is of one server; omit --cluster"):
        apply(url, cluster="fleet")
    with pytest.raises(UsageError, match="there is no cluster 'none'; the server knows fleet"):
        apply(url, cluster="none")
    with cluster.nodes[0].client("newer") as client:
        client.command(schema.mark(schema.Layout("newer"), 99, "", "9.9"))

    with pytest.raises(SchemaMismatch, match=rf"version 99, and this release knows {schema.VERSION}; use release 9.9"):
        apply(url)
    refused = init(url)
    assert refused.exit_code == ExitCode.STORE
