"""A cluster that cannot answer says why, and tells no secret."""

import subprocess
import sys
from urllib.parse import quote

import pytest

from telemetry.cluster import source
from telemetry.errors import StoreError, UsageError
from tests.cluster.nodes import PASSWORD, USER, Cluster, Node


def test_a_password_is_taken_from_the_url_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address has all but the password; `CLICKHOUSE_PASSWORD` stands in for one."""
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", "from outside")

    address, password = source.read("clickhouse://me:pa%20ss@db.example/fleet")
    _, other = source.read("clickhouses://me@db.example/fleet")

    assert (password, other) == ("pa ss", "from outside")
    assert str(address) == "clickhouse://me@db.example:8123/fleet"
    assert "pa ss" not in repr(address)
    with pytest.raises(UsageError) as raised:
        source.read("clickhouse://me:secret@db.example:port/fleet")
    assert "secret" not in raised.value.message


def test_the_command_line_does_not_load_the_client() -> None:
    """Who has no cluster pays nothing for one."""
    code = "import sys, telemetry.cli, telemetry.source; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"sqlglot", "clickhouse_connect", "chdb", "telemetry.cluster.source"} & set(loaded)


def _secret(node: Node, password: str = PASSWORD, database: str = "telemetry") -> str:
    return f"clickhouse://{USER}:{quote(password)}@{node.host}:{node.http_port}/{database}"


@pytest.mark.real
def test_who_is_not_let_in_is_told_why(cluster: Cluster) -> None:
    """A wrong password, a missing database, and nobody at the address."""
    node = cluster.nodes[0]
    with pytest.raises(StoreError, match="CLICKHOUSE_PASSWORD") as refused, source.opened(_secret(node, "wrong")):
        pass
    assert "wrong" not in refused.value.message
    with (
        pytest.raises(StoreError, match="no database none; `telemetry store init"),
        source.opened(_secret(node, database="none")),
    ):
        pass
    with pytest.raises(StoreError, match="does not answer"), source.opened("clickhouse://127.0.0.1:9/telemetry"):
        pass


@pytest.mark.real
def test_a_missing_or_old_schema_says_how_to_make_it(cluster: Cluster) -> None:
    """Without a relation, or without one of its columns, the answer is `telemetry store init`."""
    cluster.everywhere("create database old", "create table old.connections (id Int64) engine MergeTree order by id")
    with source.opened(cluster.url("old")) as asked:
        with pytest.raises(StoreError, match=r"lacks the relations.*telemetry store init --store clickhouse://"):
            asked.query("select count(*) as n from steps")
        with pytest.raises(StoreError, match=r"of another version.*telemetry store init --store clickhouse://"):
            asked.query("select max(outcome) as n from connections")


@pytest.mark.real
def test_a_slow_node_ends_the_question_at_its_limit(cluster: Cluster, slow: str) -> None:
    """One of the nodes takes longer than the question may: no number, and the advice to ask for less."""
    with source.opened(slow) as asked, pytest.raises(StoreError, match="time limit"):
        asked.query("select max(start_ns) as n from ids", timeout_s=1)


@pytest.mark.real
@pytest.mark.parametrize("cluster", [3], indirect=True)
def test_a_dead_node_leaves_no_number(cluster: Cluster) -> None:
    """Of three nodes: with one down the others count nothing alone, and none answers for the one that is asked."""
    cluster.everywhere(
        "create table telemetry.local (id Int64) engine MergeTree order by id",
        "create table telemetry.connections as telemetry.local engine Distributed(fleet, telemetry, local, id)",
    )
    with source.opened(cluster.url()) as asked:
        assert asked.query("select count(*) as n from connections").to_pylist() == [{"n": 0}]
        cluster.nodes[2].stop()
        with pytest.raises(StoreError, match="cannot reach one of its nodes"):
            asked.query("select count(*) as n from connections")
        cluster.nodes[0].stop()
        with pytest.raises(StoreError, match="does not answer"):
            asked.query("select count(*) as n from connections")
