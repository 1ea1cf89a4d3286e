"""Clusters for tests: `cluster` has two nodes and an empty database `telemetry` on each; `filled` has a fleet in it."""

from collections.abc import Iterator

import pytest

from telemetry.simulator import fleet
from telemetry.store.duck import Store
from tests.cluster.copying import copy
from tests.cluster.nodes import Cluster, running

ATTEMPTS = 900


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes; `@pytest.mark.parametrize("cluster", [3], indirect=True)` makes it three."""
    with running(tmp_path_factory.mktemp("cluster"), nodes=getattr(request, "param", 2)) as started:
        started.everywhere("create database if not exists telemetry")
        yield started


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A fleet of three days."""
    with Store.open(tmp_path_factory.mktemp("store") / "fleet.duckdb") as opened:
        for table in fleet.generate(ATTEMPTS, 3, seed=1, sample_every_s=300):
            opened.commit([table])
        yield opened


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Cluster]:
    """Two nodes with the same fleet, to be read only."""
    with running(tmp_path_factory.mktemp("filled")) as started:
        started.everywhere("create database if not exists telemetry")
        copy(store, started)
        yield started


@pytest.fixture(scope="module")
def slow(cluster: Cluster) -> str:
    """The address of a database whose relation `ids` keeps every node busy for half a minute."""
    cluster.everywhere(
        "create database slow",
        "create view slow.here as select sleepEachRow(0.1) as start_ns, start_ns as last_seen_ns, "
        "toUInt32(number + start_ns) as id_hash, '0123456789' as trace_id from numbers(300) "
        "settings max_block_size = 1, function_sleep_max_microseconds_per_block = 0",
        "create table slow.ids (id_hash UInt32, trace_id String, start_ns UInt8, last_seen_ns UInt8) "
        "engine Distributed(fleet, slow, here)",
        "create table slow.connections (attempt_id String, session_id String, episode_id String, trace_id String, "
        "start_ns UInt8, last_seen_ns UInt8) engine Memory",
    )
    return cluster.url("slow")
