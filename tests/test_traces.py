"""A trace's rows as other viewers read them."""

import json
from pathlib import Path
from typing import Any

import pytest

from telemetry import settings, traces
from telemetry.receiver.otlp_json import decode_json
from telemetry.store.duck import Store
from tests.support.spans import attempt, table


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """The stored spans of one failed attempt."""
    given = table(
        attempt(
            1, outcome="failed", error="noScene", attributes={"app.flag": True, "app.ratio": 1.0, "app.list": [1, 2]}
        )
    )
    with Store.open(tmp_path / "store.duckdb") as store:
        store.commit([given])
        asked = (settings.data_folder("queries") / "jaeger" / "spans.sql").read_text("utf-8")
        found: list[dict[str, Any]] = store.query(asked, {"trace_ids": [f"{1:032x}"]}).to_pylist()
        return found


def test_otlp_json_comes_back_as_it_was(rows: list[dict[str, Any]]) -> None:
    """What the OTLP file holds is decoded to the rows that it was written from."""
    decoded = decode_json(json.dumps(traces.to_otlp(rows)).encode(), received_ns=rows[0]["received_ns"])

    assert decoded.rejected == ()
    ours, theirs = ({row["span_id"]: row for row in found} for found in (rows, decoded.table.to_pylist()))
    assert ours.keys() == theirs.keys()
    for span_id, row in ours.items():
        other = theirs[span_id]
        for name in ("name", "start_ns", "end_ns", "kind", "status_code", "attempt_id", "error_type", "service_name"):
            assert other[name] == row[name], name
        assert json.loads(other["attributes"] or "{}") == json.loads(row["attributes"] or "{}")


def test_jaeger_keeps_types_and_parents(rows: list[dict[str, Any]]) -> None:
    """Tags keep their type, a failed span has the error tag, and every child names its parent."""
    [trace] = traces.to_jaeger(rows)["data"]
    root = next(span for span in trace["spans"] if span["operationName"] == "connect")
    tags = {tag["key"]: tag for tag in root["tags"]}

    assert tags["app.flag"] == {"key": "app.flag", "type": "bool", "value": True}
    assert tags["app.ratio"]["type"] == "float64"
    assert tags["error"]["value"] is True
    assert tags["error.type"]["value"] == "noScene"
    assert all(span["references"][0]["spanID"] == root["spanID"] for span in trace["spans"] if span is not root)
    assert trace["processes"]["p1"]["serviceName"] == rows[0]["service_name"]


def test_chrome_events_are_in_microseconds(rows: list[dict[str, Any]]) -> None:
    """A span is a complete event with its begin and length in microseconds; a moment is an instant."""
    events = {event["args"].get("span_id"): event for event in traces.to_chrome(rows)["traceEvents"]}

    for row in rows:
        event = events[row["span_id"]]
        assert event["ph"] == ("X" if row["end_ns"] > row["start_ns"] else "i")
        assert event["dur"] == (row["end_ns"] - row["start_ns"]) / 1000


def test_nothing_gives_empty_files() -> None:
    """No rows are no traces, in every format."""
    assert traces.to_jaeger([])["data"] == []
    assert traces.to_chrome([])["traceEvents"] == []
    assert traces.to_otlp([]) == {"resourceSpans": []}
