"""`telemetry store init` makes the schema once, says what is missing, and touches nothing that it does not know."""

import pytest
from click.testing import CliRunner, Result

from telemetry.cli.app import root
from telemetry.cluster import schema
from telemetry.cluster.schema_setup import apply
from telemetry.errors import ExitCode, SchemaMismatch, UsageError
from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.real


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
    """Views follow the release that is told; spans stay, and a table that was not there is filled."""
    url = cluster.url("older")
    apply(url)
    with cluster.nodes[0].client("older") as client:
        client.command("create or replace view verdicts as select 1 as rule")
        client.command("alter table telemetry_schema update fingerprint = 'other' where 1 settings mutations_sync = 2")
        client.command("drop table fill_ids")
        client.command("drop table stored_ids")
        client.command(
            "insert into stored_spans (trace_id, span_id, name, attempt_id) values ('a', 'b', 'connect', 'c')"
        )

    assert apply(url).change == "brought up to date"
    assert apply(url).change == "is up to date"
    with cluster.nodes[0].client("older") as client:
        assert client.command("select count() from spans") == 1
        assert client.command("select arrayStringConcat(arraySort(groupArray(id))) from ids") == "ac"
        assert client.command("select count(owner) from verdicts") == 1


def test_another_version_is_left_alone(cluster: Cluster) -> None:
    """What is on disk in another form is named with what to do, and not touched; neither is another layout."""
    url = cluster.url("newer")
    apply(url)
    with pytest.raises(UsageError, match="is of one server; omit --cluster"):
        apply(url, cluster="fleet")
    with pytest.raises(UsageError, match="there is no cluster 'none'; the server knows fleet"):
        apply(url, cluster="none")
    with cluster.nodes[0].client("newer") as client:
        client.command("insert into telemetry_schema (version, release) values (99, '9.9')")

    with pytest.raises(SchemaMismatch, match=rf"version 99, and this release knows {schema.VERSION}; use release 9.9"):
        apply(url)
    refused = init(url)
    assert refused.exit_code == ExitCode.STORE
