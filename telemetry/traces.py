"""Write stored spans as other viewers read them: Jaeger JSON, Chrome trace JSON, OTLP/JSON. No I/O, no clock.

A row is a row of `spans` with its VARIANT columns as JSON text. What a typed column holds is an attribute again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from telemetry.receiver.otlp import looks_typed
from telemetry.semconv import COLUMNS

Row = Mapping[str, Any]
Attributes = dict[str, Any]

FORMATS: Final = ("jaeger", "chrome", "otlp")
_KINDS: Final = {"UNSPECIFIED": 0, "INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
_STATUS: Final = {"UNSET": 0, "OK": 1, "ERROR": 2}


def attributes_of(row: Row) -> Attributes:
    """All span attributes, those with a column first.

    A column that the resource filled is none of them; the receiver leaves such an attribute with the resource.
    """
    resource = _parsed(row["resource_attributes"], {})
    typed = {
        column.span: row[column.name]
        for column in COLUMNS
        if column.span and row[column.name] is not None and resource.get(column.resource) != row[column.name]
    }
    return {**typed, **_parsed(row["attributes"], {})}


def resource_of(row: Row) -> Attributes:
    """All resource attributes. One that a span attribute may also fill is with the span."""
    typed = {
        column.resource: row[column.name]
        for column in COLUMNS
        if column.resource and not column.span and row[column.name] is not None
    }
    return {**typed, **_parsed(row["resource_attributes"], {})}


def to_jaeger(rows: Iterable[Row]) -> dict[str, Any]:
    """The answer of Jaeger's query API: one entry per trace."""
    traces = [_jaeger_trace(trace_id, list(spans)) for trace_id, spans in groupby(rows, lambda row: row["trace_id"])]
    return {"data": traces, "total": len(traces), "limit": 0, "offset": 0, "errors": None}


def _jaeger_trace(trace_id: str, rows: Sequence[Row]) -> dict[str, Any]:
    processes: dict[str, dict[str, Any]] = {}
    known: dict[str, str] = {}
    spans = []
    for row in rows:
        resource = resource_of(row)
        name = str(resource.pop("service.name", "unknown"))
        key = json.dumps([name, resource], sort_keys=True)
        if key not in known:
            known[key] = f"p{len(known) + 1}"
            processes[known[key]] = {"serviceName": name, "tags": _tags(resource)}
        spans.append(_jaeger_span(row, known[key]))
    return {"traceID": trace_id, "spans": spans, "processes": processes, "warnings": None}


def _jaeger_span(row: Row, process: str) -> dict[str, Any]:
    tags = attributes_of(row) | {"span.kind": row["kind"].lower(), "otel.status_code": row["status_code"]}
    if row["status_code"] == "ERROR":
        tags["error"] = True
    if row["status_message"]:
        tags["otel.status_description"] = row["status_message"]
    if row["scope_name"]:
        tags |= {"otel.scope.name": row["scope_name"], "otel.scope.version": row["scope_version"]}
    references = [("CHILD_OF", row["trace_id"], row["parent_span_id"])] if row["parent_span_id"] else []
    references += [("FOLLOWS_FROM", link["trace_id"], link["span_id"]) for link in _parsed(row["links"], [])]
    return {
        "traceID": row["trace_id"],
        "spanID": row["span_id"],
        "operationName": row["name"],
        "references": [{"refType": kind, "traceID": trace, "spanID": span} for kind, trace, span in references],
        "flags": row["flags"] or 0,
        "startTime": row["start_ns"] // 1000,
        "duration": max(0, row["end_ns"] - row["start_ns"]) // 1000,
        "tags": _tags({key: value for key, value in tags.items() if value is not None}),
        "logs": [
            {
                "timestamp": event["time_ns"] // 1000,
                "fields": _tags({"event": event["name"], **(event.get("attributes") or {})}),
            }
            for event in _parsed(row["events"], [])
        ],
        "processID": process,
        "warnings": None,
    }


def _tags(attributes: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, **_tag(value)} for key, value in attributes.items()]


def _tag(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"type": "bool", "value": value}
        case int():
            return {"type": "int64", "value": value}
        case float():
            return {"type": "float64", "value": value}
        case str():
            return {"type": "string", "value": value}
        case _:
            return {"type": "string", "value": json.dumps(value, ensure_ascii=False)}


def to_chrome(rows: Sequence[Row]) -> dict[str, Any]:
    """A trace file that Chrome's and Perfetto's viewers open; times are microseconds."""
    events = [
        {
            "name": row["name"],
            "cat": row["kind"].lower(),
            "ph": "X" if row["end_ns"] > row["start_ns"] else "i",
            "ts": row["start_ns"] / 1000,
            "dur": (row["end_ns"] - row["start_ns"]) / 1000,
            "pid": 1,
            "tid": 1,
            "args": {"span_id": row["span_id"], "status": row["status_code"], **attributes_of(row)},
        }
        for row in rows
    ]
    names = [{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": rows[0]["attempt_id"]}}] if rows else []
    return {"displayTimeUnit": "ms", "traceEvents": [*names, *events]}


def to_otlp(rows: Iterable[Row]) -> dict[str, Any]:
    """OTLP/JSON, as `POST /v1/traces` takes it and the collector's file receiver reads it.

    Nothing is lost but what a span with a typed column repeats of its resource.
    """
    resources: dict[str, dict[str, Any]] = {}
    for row in rows:
        resource = {
            "resource": {
                "attributes": _otlp_attributes(resource_of(row)),
                "droppedAttributesCount": row["resource_dropped_attributes_count"] or 0,
                "entityRefs": [_otlp_entity(ref) for ref in _parsed(row["resource_entity_refs"], [])],
            },
            "schemaUrl": row["resource_schema_url"] or "",
        }
        scope = {
            "scope": {
                "name": row["scope_name"] or "",
                "version": row["scope_version"] or "",
                "attributes": _otlp_attributes(_parsed(row["scope_attributes"], {})),
                "droppedAttributesCount": row["scope_dropped_attributes_count"] or 0,
            },
            "schemaUrl": row["scope_schema_url"] or "",
        }
        made = resources.setdefault(json.dumps([resource, scope]), {**resource, "scopeSpans": [{**scope, "spans": []}]})
        made["scopeSpans"][0]["spans"].append(_otlp_span(row))
    return {"resourceSpans": list(resources.values())}


def _otlp_entity(ref: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schemaUrl": ref.get("schema_url") or "",
        "type": ref.get("type") or "",
        "idKeys": ref.get("id_keys") or [],
        "descriptionKeys": ref.get("description_keys") or [],
    }


def _otlp_span(row: Row) -> dict[str, Any]:
    return {
        "traceId": row["trace_id"],
        "spanId": row["span_id"],
        "parentSpanId": row["parent_span_id"] or "",
        "traceState": row["trace_state"] or "",
        "flags": row["flags"] or 0,
        "name": row["name"],
        "kind": _number(_KINDS, row["kind"]),
        "startTimeUnixNano": str(row["start_ns"]),
        "endTimeUnixNano": str(row["end_ns"]),
        "attributes": _otlp_attributes(attributes_of(row)),
        "droppedAttributesCount": row["dropped_attributes_count"] or 0,
        "events": [
            {
                "timeUnixNano": str(event["time_ns"]),
                "name": event["name"],
                "attributes": _otlp_attributes(event.get("attributes") or {}),
                "droppedAttributesCount": event.get("dropped_attributes_count") or 0,
            }
            for event in _parsed(row["events"], [])
        ],
        "droppedEventsCount": row["dropped_events_count"] or 0,
        "links": [
            {
                "traceId": link["trace_id"],
                "spanId": link["span_id"],
                "traceState": link.get("trace_state") or "",
                "attributes": _otlp_attributes(link.get("attributes") or {}),
                "droppedAttributesCount": link.get("dropped_attributes_count") or 0,
                "flags": link.get("flags") or 0,
            }
            for link in _parsed(row["links"], [])
        ],
        "droppedLinksCount": row["dropped_links_count"] or 0,
        "status": {"code": _number(_STATUS, row["status_code"]), "message": row["status_message"] or ""},
    }


def _number(names: Mapping[str, int], name: str) -> int:
    """The number of an enum's name; one that OTLP does not name was kept as its digits."""
    return names[name] if name in names else int(name)


def _otlp_attributes(attributes: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": _otlp_value(value)} for key, value in attributes.items()]


def _otlp_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case list():
            return {"arrayValue": {"values": [_otlp_value(item) for item in value]}}
        case dict():
            if not looks_typed(value):
                return {"kvlistValue": {"values": _otlp_attributes(value)}}
            if "kvlistValue" in value:
                return {"kvlistValue": {"values": _otlp_attributes(value["kvlistValue"])}}
            return value
        case _:
            return {}


def _parsed(text: str | None, default: Any) -> Any:
    return json.loads(text) if text else default
