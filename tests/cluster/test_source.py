"""A cluster that cannot answer says why, and tells no secret."""

import subprocess
import sys

import pytest

from telemetry.cluster import source
from telemetry.errors import StoreError, TelemetryError, UsageError
from tests.cluster.nodes import PASSWORD, USER, Cluster


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


@pytest.mark.real
def test_faults_are_errors_that_name_themselves(cluster: Cluster) -> None:
    """A wrong password, a missing database, a missing relation, a slow query and a dead node: never a number."""
    node = cluster.nodes[0]
    with (
        pytest.raises(StoreError, match="refuses the user or the password") as refused,
        source.opened(f"clickhouse://{USER}:wrong@{node.host}:{node.http_port}/telemetry"),
    ):
        pass
    assert "wrong" not in refused.value.message
    secret = PASSWORD.replace(" ", "%20")
    with (
        pytest.raises(StoreError, match="no such database"),
        source.opened(f"clickhouse://{USER}:{secret}@{node.host}:{node.http_port}/none"),
    ):
        pass

    cluster.everywhere(
        "create table telemetry.local (id Int64) engine MergeTree order by id",
        "create table telemetry.connections as telemetry.local engine Distributed(fleet, telemetry, local, id)",
    )
    with source.opened(cluster.url()) as asked:
        assert asked.query("select count(*) as n from connections").to_pylist() == [{"n": 0}]
        with pytest.raises(StoreError, match="lacks a relation"):
            asked.query("select count(*) as n from steps")
        with pytest.raises(StoreError, match="another version"):
            asked.query("select max(outcome) as n from connections")
        with pytest.raises(StoreError, match="time limit"):
            asked.query("select max(sleepEachRow(0.5)) as n from numbers(5)", timeout_s=1)
        cluster.nodes[1].stop()
        with pytest.raises(StoreError, match="cannot reach one of its nodes"):
            asked.query("select count(*) as n from connections")
        node.stop()
        with pytest.raises(TelemetryError, match="cannot answer"):
            asked.query("select count(*) as n from connections")
