"""Spans as a stock Collector's exporter writes them into `otel_traces`: every value of an attribute is a text."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from telemetry import traces

_MAP = pa.map_(pa.string(), pa.string())
SCHEMA = pa.schema(
    [
        ("Timestamp", pa.timestamp("ns")),
        *((name, pa.string()) for name in ("TraceId", "SpanId", "ParentSpanId", "TraceState", "SpanName", "SpanKind")),
        ("ServiceName", pa.string()),
        ("ResourceAttributes", _MAP),
        ("ScopeName", pa.string()),
        ("ScopeVersion", pa.string()),
        ("SpanAttributes", _MAP),
        ("Duration", pa.uint64()),
        ("StatusCode", pa.string()),
        ("StatusMessage", pa.string()),
        ("Events.Timestamp", pa.list_(pa.timestamp("ns"))),
        ("Events.Name", pa.list_(pa.string())),
        ("Events.Attributes", pa.list_(_MAP)),
        ("Links.TraceId", pa.list_(pa.string())),
        ("Links.SpanId", pa.list_(pa.string())),
        ("Links.TraceState", pa.list_(pa.string())),
        ("Links.Attributes", pa.list_(_MAP)),
    ]
)


def collected(spans: pa.Table) -> pa.Table:
    """The rows of `otel_traces` for rows of `spans`."""
    return pa.Table.from_pylist([_row(row) for row in spans.to_pylist()], schema=SCHEMA)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    resource = _texts(traces.resource_of(row))
    events = json.loads(row["events"] or "[]")
    links = json.loads(row["links"] or "[]")
    return {
        "Timestamp": row["start_ns"],
        "TraceId": row["trace_id"],
        "SpanId": row["span_id"],
        "ParentSpanId": row["parent_span_id"] or "",
        "TraceState": row["trace_state"] or "",
        "SpanName": row["name"],
        "SpanKind": row["kind"].title(),
        "ServiceName": resource.get("service.name", ""),
        "ResourceAttributes": resource,
        "ScopeName": row["scope_name"] or "",
        "ScopeVersion": row["scope_version"] or "",
        "SpanAttributes": _texts(traces.attributes_of(row)),
        "Duration": row["end_ns"] - row["start_ns"],
        "StatusCode": row["status_code"].title(),
        "StatusMessage": row["status_message"] or "",
        "Events.Timestamp": [event["time_ns"] for event in events],
        "Events.Name": [event["name"] for event in events],
        "Events.Attributes": [_texts(event.get("attributes") or {}) for event in events],
        "Links.TraceId": [link["trace_id"] for link in links],
        "Links.SpanId": [link["span_id"] for link in links],
        "Links.TraceState": [link.get("trace_state") or "" for link in links],
        "Links.Attributes": [_texts(link.get("attributes") or {}) for link in links],
    }


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in attributes.items()}
