"""Apply the schema to a server or a cluster, and find out which one is there."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from telemetry import __version__
from telemetry.cluster import schema
from telemetry.cluster.source import connected
from telemetry.errors import StoreError, UsageError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

UPGRADE_LIMIT_S: Final = 86_400.0
"""For one statement: what fills a table from all that is there takes as long as it takes."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a schema."""

    change: Literal["made", "brought up to date", "is up to date"]
    nodes: int
    """How many there are."""
    behind: tuple[str, ...]
    """Nodes that lack it, or have that of another release: `host:port` of each, as the cluster reaches them."""


def apply(url: str, *, cluster: str | None = None, keep_days: int | None = None) -> Applied:
    """Make the schema, or bring it up to date; may be repeated, and takes up what was interrupted.

    With Keeper one call reaches every node; without, each node is told by a call with its own address.

    Args:
        cluster: its name in `system.clusters`. None means that this one server holds everything.
        keep_days: what is older is forgotten. None leaves that as it is, and keeps everything at first.

    Raises:
        SchemaMismatch: it is of a later version.
        UsageError: there is no such cluster.
        StoreError: the server refuses a statement.
    """
    with connected(url, "default", answer_limit_s=UPGRADE_LIMIT_S) as (client, address):
        layout = _layout(client, schema.Layout(address.database, cluster, keep_days=keep_days))
        found = schema.found(client, address)
        if found and found.clustered != bool(cluster):
            there = "is of a cluster; give --cluster" if found.clustered else "is of one server; omit --cluster"
            raise UsageError(f"the schema in {address} {there}, or choose another database")
        is_current = found is not None and found.is_current
        for version in range(found.version if found else schema.VERSION, schema.VERSION):
            for statement in schema.upgrade(layout, version):
                client.command(statement)
            client.command(schema.mark(layout, version + 1, "", __version__))
        if not is_current or keep_days is not None:
            for statement in schema.statements(layout):
                client.command(statement)
        if not is_current:
            client.command(schema.mark(layout, schema.VERSION, schema.fingerprint(), __version__))
        nodes, behind = _behind(client, layout)
    change: Literal["made", "brought up to date", "is up to date"] = (
        "made" if not found else "is up to date" if is_current else "brought up to date"
    )
    return Applied(change, nodes, behind)


def _layout(client: "Client", layout: schema.Layout) -> schema.Layout:
    """What the server says of the cluster: whether shards have replicas, and whether there is Keeper."""
    if layout.cluster is None:
        return layout
    rows = client.query("select cluster, max(replica_num) from system.clusters group by 1 order by 1").result_rows
    replicas: dict[str, int] = dict(map(tuple, rows))
    if layout.cluster not in replicas:
        raise UsageError(f"there is no cluster {layout.cluster!r}; the server knows {', '.join(replicas) or 'none'}")
    has_keeper = client.query(
        "select count() from system.tables where database = 'system' and name = 'zookeeper'"
    ).result_rows[0][0]
    replicated = replicas[layout.cluster] > 1
    if replicated and not has_keeper:
        raise StoreError(f"the shards of {layout.cluster} have replicas, which take Keeper; the server has none")
    return replace(layout, replicated=replicated, on_cluster=bool(has_keeper))


def _behind(client: "Client", layout: schema.Layout) -> tuple[int, tuple[str, ...]]:
    """How many nodes there are, and which lack the schema, or have that of another release."""
    if layout.cluster is None:
        return 1, ()
    everywhere = f"clusterAllReplicas('{layout.cluster}', "
    given = {"database": layout.database, "table": schema.VERSION_VIEW}
    nodes = client.query(
        "select concat(hostName(), ':', toString(tcpPort())) as node, "
        "countIf(database = {database:String} and name = {table:String}) > 0 as is_there "
        f"from {everywhere}system.tables) group by 1 order by 1",
        given,
    ).result_rows
    behind = tuple(node for node, is_there in nodes if not is_there)
    if not behind:
        known = client.query(
            "select concat(hostName(), ':', toString(tcpPort())) as node, any(fingerprint) as found "
            f"from {everywhere}`{layout.database}`.{schema.VERSION_VIEW}) group by 1 order by 1"
        ).result_rows
        behind = tuple(node for node, found in known if found != schema.fingerprint())
    return len(nodes), behind
