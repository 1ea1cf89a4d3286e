"""The cluster of the tests is a real one."""

import pytest

from tests.cluster.nodes import PASSWORD, USER, Cluster

pytestmark = pytest.mark.real


def test_rows_are_spread_over_the_nodes_and_read_from_any(cluster: Cluster) -> None:
    """A Distributed table shares rows out by its key, and either node answers for all of them."""
    cluster.everywhere(
        "create table telemetry.local (id String) engine MergeTree order by id",
        "create table telemetry.everyone as telemetry.local "
        "engine Distributed(fleet, telemetry, local, cityHash64(id))",
    )
    with cluster.nodes[0].client() as client:
        client.command("insert into telemetry.everyone select toString(number) from numbers(1000)")

    counts = []
    for node in cluster.nodes:
        with node.client() as client:
            assert client.command("select count() from telemetry.everyone") == 1000
            counts.append(client.command("select count() from telemetry.local"))
    assert sum(counts) == 1000
    assert min(counts) > 400


def test_a_password_is_asked_for(cluster: Cluster) -> None:
    """The user `reader` gets in with the password, and not without."""
    import clickhouse_connect
    from clickhouse_connect.driver.exceptions import DatabaseError

    node = cluster.nodes[0]
    with clickhouse_connect.get_client(host=node.host, port=node.http_port, username=USER, password=PASSWORD) as client:
        assert client.command("select currentUser()") == USER
    with pytest.raises(DatabaseError):
        clickhouse_connect.get_client(host=node.host, port=node.http_port, username=USER, password="wrong")
