"""What is acknowledged can be folded: whatever an attribute holds comes out of the file as it went in."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.receiver.otlp_protobuf import decode_protobuf
from telemetry.store import relations
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.otlp import RECEIVED_NS, Request
from tests.support.otlp import requests as any_request

TEXTS = relations.texts()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("values") / "s.duckdb"


@settings(max_examples=15, deadline=None)
@given(st.lists(any_request, min_size=1, max_size=10))
def test_any_value(path: Path, requests: list[Request]) -> None:
    """Spans of any request are what was decoded, waiting and folded, and the relations equal their definition."""
    path.unlink(missing_ok=True)
    decoded = [decode_protobuf(request.SerializeToString(), RECEIVED_NS).table for request in requests]
    with Store.open(path) as store:
        for table in decoded:
            store.commit([table])
        waiting = kept(store)
        store.tend(now=True)
        folded = kept(store)
        left = store.info()["waiting_spans"]
        checks = verify(store)

    expected: dict[tuple[str, str], str] = {}
    for row in (row for table in decoded for row in table.to_pylist()):
        expected.setdefault((row["trace_id"], row["span_id"]), shown(row))  # what comes again is not stored
    assert left == 0
    assert waiting == folded == [text for _, text in sorted(expected.items())]
    assert all(check.passed for check in checks)


def shown(row: dict[str, Any]) -> str:
    """A span as text: not a number is itself there, and an object's keys have no order."""
    return repr(row | {name: json.dumps(json.loads(row[name] or "null"), sort_keys=True) for name in TEXTS})


def kept(store: Store) -> list[str]:
    """The spans of a store."""
    columns = ", ".join(f"{name}::json::varchar as {name}" for name in TEXTS)
    rows = store.query(f"select * replace ({columns}) from spans order by trace_id, span_id").to_pylist()
    return [shown(row) for row in rows]
