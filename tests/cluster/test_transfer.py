"""Spans travel between a store's file and ClickHouse, each once, with all that they carry."""

from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from telemetry.cli.app import root
from telemetry.cluster.schema_setup import apply
from telemetry.cluster.transfer import File, copy
from telemetry.errors import ExitCode
from telemetry.simulator import fleet
from telemetry.store.duck import Store
from tests.cluster.nodes import Cluster
from tests.support.spans import attempt, table


def run(*arguments: object) -> Result:
    return CliRunner().invoke(root, ["store", "copy", *map(str, arguments)])


def spans(path: Path) -> pa.Table:
    with Store.open(path, read_only=True) as store:
        return store.query(f"select {store.readable_columns} from spans order by trace_id, span_id")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small fleet of two days."""
    path = tmp_path / "here.duckdb"
    with Store.open(path) as store:
        for made in fleet.generate(200, 2, seed=1, sample_every_s=300):
            store.commit([made])
    return path


@pytest.mark.real
def test_there_and_back_nothing_is_lost(cluster: Cluster, path: Path, tmp_path: Path) -> None:
    """Every column of every span comes back, typed attributes and JSON; repeated, a copy moves nothing."""
    for node in range(2):
        apply(cluster.url(node=node), cluster=cluster.name)
    back = tmp_path / "back.duckdb"
    count = spans(path).num_rows

    there = run(path, cluster.url())
    again = run(path, cluster.url(node=1))
    returned = run(cluster.url(), back)

    assert there.exit_code == 0, there.stderr
    assert there.stdout.startswith(f"{count} spans of ")
    assert there.stdout.endswith("; 0 days were there already\n")
    assert f"{count:,} of {count:,} spans" in there.stderr
    assert again.stdout.startswith("0 spans of 0 days; ")
    assert returned.stdout == there.stdout
    assert spans(back).equals(spans(path))


@pytest.mark.real
def test_what_is_half_there_is_completed(cluster: Cluster, path: Path) -> None:
    """A copy that was interrupted in a day is taken up, and no span is there twice."""
    url = cluster.url("half")
    apply(url)
    whole = spans(path)
    with cluster.nodes[0].client("half") as client:
        client.insert_arrow("stored_spans", whole.slice(0, whole.num_rows // 2))

    assert run(path, url).exit_code == 0
    with cluster.nodes[0].client("half") as client:
        assert client.command("select count() from spans") == whole.num_rows
        assert client.command("select sum(span_count) from connections") == whole.num_rows
    assert "0 spans of 0 days" in run(path, url).stdout


@pytest.mark.real
def test_a_target_without_a_schema_is_refused(cluster: Cluster, path: Path) -> None:
    """The message says how to make one."""
    refused = run(path, cluster.url())

    cluster.everywhere("create database if not exists bare")
    bare = run(path, cluster.url("bare"))

    assert refused.exit_code in (0, ExitCode.STORE)
    assert bare.exit_code == ExitCode.STORE
    assert "make one with `telemetry store init" in bare.stderr


def test_only_days_that_differ_are_copied(tmp_path: Path) -> None:
    """A day with other spans is copied whole, one with the same is passed over."""
    with Store.open(tmp_path / "a.duckdb") as a, Store.open(tmp_path / "b.duckdb") as b:
        early, late = (table(attempt(number)) for number in (1, 2))
        shifted = late.set_column(
            late.schema.get_field_index("start_ns"), "start_ns", pa.compute.add(late["start_ns"], 3 * fleet.DAY_NS)
        )
        a.commit([early, shifted])
        b.commit([early])
        told: list[tuple[int, int]] = []

        copied = copy(File(a), File(b), lambda done, all_spans: told.append((done, all_spans)))

        assert (copied.days, copied.spans, copied.days_there) == (1, late.num_rows, 1)
        assert told == [(0, late.num_rows), (late.num_rows, late.num_rows)]
        assert copy(File(a), File(b)).spans == 0
