"""Clusters for tests: `cluster` has two nodes, and an empty database `telemetry` on each."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import Cluster, running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes; `@pytest.mark.parametrize("cluster", [3], indirect=True)` makes it three."""
    with running(tmp_path_factory.mktemp("cluster"), nodes=getattr(request, "param", 2)) as started:
        started.everywhere("create database if not exists telemetry")
        yield started
