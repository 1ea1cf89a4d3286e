"""Every report answers alike from DuckDB and from a cluster of two nodes."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from telemetry import reports
from telemetry.cluster import source
from telemetry.store.duck import Store
from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def asked(filled: Cluster) -> Iterator[source.Cluster]:
    """A cluster with the same fleet."""
    with source.opened(filled.url()) as opened:
        yield opened


@pytest.mark.parametrize("name", sorted(reports.catalogue()))
def test_a_report_has_equal_rows(name: str, store: Store, asked: source.Cluster) -> None:
    """Counts and texts are the same, floats to twelve digits."""
    newest = store.query("select max(last_seen_ns) as ns, arg_max(session_id, start_ns) as id from connections")
    now_ns = newest["ns"][0].as_py() + 3_600_000_000_000
    params = {
        param.name: {"since": "4d", "id": newest["id"][0].as_py()}[param.name]
        for param in reports.find(name).params
        if param.name in ("since", "id")
    }

    expected = reports.execute(name, params, store, now_ns=now_ns)
    answer = reports.execute(name, params, asked, now_ns=now_ns)

    assert expected.num_rows > 0 or name == "ingest_health"
    assert_equal(expected, answer)


def assert_equal(expected: pa.Table, answer: pa.Table) -> None:
    """The same names, types, rows and order."""
    assert answer.schema.names == expected.schema.names
    assert answer.num_rows == expected.num_rows
    for name in expected.schema.names:
        wanted, got = expected[name].to_pylist(), answer[name].to_pylist()
        if pa.types.is_floating(expected.schema.field(name).type):
            assert [value is None for value in got] == [value is None for value in wanted], name
            got, wanted = ([value for value in values if value is not None] for values in (got, wanted))
            assert got == pytest.approx(wanted, rel=1e-12, abs=1e-12), name
        else:
            assert got == wanted, name
    for name in expected.schema.names:
        assert _kind(answer.schema.field(name).type) == _kind(expected.schema.field(name).type), name


def _kind(type: pa.DataType) -> pa.DataType:
    """A whole number is a whole number, whatever its width."""
    return pa.int64() if pa.types.is_integer(type) else type
