"""A cluster of ClickHouse nodes, each a process of its own on loopback, for tests and benchmarks.

It has no Keeper, so no replicas and no `ON CLUSTER`: a statement of DDL runs on each node.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

CLUSTER = "fleet"
USER, PASSWORD = "reader", "correct horse"
START_LIMIT_S = 60.0
MEMORY_SHARE = 0.4
"""Of the machine's, for each node: alone it would take nearly all, and several share one machine."""
NODE = Path(__file__).with_name("node.py")


@dataclass
class Node:
    """One ClickHouse process; `reader` needs a password, `default` none."""

    shard: int
    host: str
    http_port: int
    tcp_port: int
    process: "subprocess.Popen[bytes]"

    def client(self, database: str = "default", *, answer_limit_s: int = 300, **settings: object) -> "Client":
        """A client of this node alone, whose DDL and inserts go no further unless a table is Distributed."""
        import clickhouse_connect

        return clickhouse_connect.get_client(
            host=self.host,
            port=self.http_port,
            database=database,
            send_receive_timeout=answer_limit_s,
            settings={"distributed_foreground_insert": 1, **settings},
        )

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        self.process.kill()
        self.process.wait()


@dataclass
class Cluster:
    """Nodes that know each other as the shards of `name`."""

    name: str
    nodes: Sequence[Node]

    def url(self, database: str = "telemetry", node: int = 0, user: str = "default") -> str:
        """What `--store` takes."""
        return f"clickhouse://{user}@{self.nodes[node].host}:{self.nodes[node].http_port}/{database}"

    def everywhere(self, *statements: str) -> None:
        """Run DDL on each node."""
        for node in self.nodes:
            with node.client() as client:
                for statement in statements:
                    client.command(statement)


def passed_on(node: Node) -> int:
    """How many queries a node was asked by other nodes."""
    with node.client() as client:
        counts = client.query("select event, value from system.events where event in ('Query', 'InitialQuery')")
    events = dict(counts.result_rows)
    return int(events["Query"] - events["InitialQuery"])


@contextmanager
def running(folder: Path, nodes: int = 2, threads: int = 2) -> Iterator[Cluster]:
    """Start a cluster, and leave nothing behind.

    Args:
        folder: what they store goes here; what is there already is served again.
        threads: the most that one query has on each node.
    """
    with contextlib.ExitStack() as sockets:
        ports = [_free_port(sockets) for _ in range(2 * nodes)]
    tcp, http = ports[:nodes], ports[nodes:]
    shards = "".join(
        f"<shard><internal_replication>true</internal_replication>"
        f"<replica><host>127.0.0.1</host><port>{port}</port></replica></shard>"
        for port in tcp
    )
    started: list[Node] = []
    try:
        for index in range(nodes):
            home = folder / f"node-{index + 1}"
            home.mkdir(parents=True, exist_ok=True)
            (home / "config.xml").write_text(_config(home, index + 1, tcp[index], http[index], shards))
            (home / "users.xml").write_text(_users(threads))
            with (home / "log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, str(NODE)], cwd=home, stdin=subprocess.PIPE, stdout=log, stderr=log
                )
            started.append(Node(index + 1, "127.0.0.1", http[index], tcp[index], process))
        for node in started:
            _wait_for(node, folder)
        yield Cluster(CLUSTER, started)
    finally:
        for node in started:
            node.stop()
            assert node.process.stdin
            node.process.stdin.close()


def _free_port(sockets: contextlib.ExitStack) -> int:
    listener = sockets.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    return int(listener.getsockname()[1])


def _wait_for(node: Node, folder: Path) -> None:
    opener = build_opener(ProxyHandler({}))
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            with opener.open(f"http://{node.host}:{node.http_port}/ping", timeout=5):
                return
        except (URLError, OSError):
            if node.process.poll() is not None or time.monotonic() > deadline:
                log = (folder / f"node-{node.shard}" / "log").read_text(errors="replace")
                raise RuntimeError(f"node {node.shard} does not start: {log[-2000:]}") from None
            time.sleep(0.05)


def _config(home: Path, shard: int, tcp: int, http: int, shards: str) -> str:
    return f"""<clickhouse>
<path>{home}/data/</path>
<users_config>{home}/users.xml</users_config>
<listen_host>127.0.0.1</listen_host><tcp_port>{tcp}</tcp_port><http_port>{http}</http_port>
<remote_servers><{CLUSTER}>{shards}</{CLUSTER}></remote_servers>
<max_server_memory_usage_to_ram_ratio>{MEMORY_SHARE}</max_server_memory_usage_to_ram_ratio>
<macros><cluster>{CLUSTER}</cluster><shard>{shard}</shard><replica>1</replica></macros>
</clickhouse>
"""


def _users(threads: int) -> str:
    return f"""<clickhouse>
<profiles><default>
<max_threads>{threads}</max_threads><distributed_foreground_insert>1</distributed_foreground_insert>
</default></profiles>
<quotas><default/></quotas>
<users>
<default><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default>
<{USER}><password>{PASSWORD}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
<quota>default</quota></{USER}>
</users>
</clickhouse>
"""
