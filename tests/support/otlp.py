"""OTLP requests for tests: by hand, generated, mutated, and turned from protobuf into OTLP's JSON."""

import json
from typing import Any

from google.protobuf import json_format
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry import semconv
from telemetry.receiver.otlp import MAX_TIME_NS

Request = trace_service_pb2.ExportTraceServiceRequest
RECEIVED_NS = 1_790_000_000_000_000_000
"""The receiver's clock in tests."""
TRACE_ID = bytes(range(16))
SPAN_ID = bytes(range(8, 16))


def span(**fields: Any) -> trace_pb2.Span:
    """A valid span with the fields that matter to a test."""
    return trace_pb2.Span(
        **{
            "trace_id": TRACE_ID,
            "span_id": SPAN_ID,
            "name": "connect",
            "start_time_unix_nano": RECEIVED_NS - 2_000,
            "end_time_unix_nano": RECEIVED_NS - 1_000,
            **fields,
        }
    )


def attribute(key: str, value: Any) -> common_pb2.KeyValue:
    """An attribute of the OTLP type that a Python value stands for."""
    return common_pb2.KeyValue(key=key, value=any_value(value))


def any_value(value: Any) -> common_pb2.AnyValue:
    """A Python value as OTLP writes it; None is a value that is not set."""
    if value is None:
        return common_pb2.AnyValue()
    if isinstance(value, bool):
        return common_pb2.AnyValue(bool_value=value)
    if isinstance(value, list):
        return common_pb2.AnyValue(array_value=common_pb2.ArrayValue(values=[any_value(item) for item in value]))
    if isinstance(value, dict):
        pairs = [attribute(key, item) for key, item in value.items()]
        return common_pb2.AnyValue(kvlist_value=common_pb2.KeyValueList(values=pairs))
    if isinstance(value, str):
        return common_pb2.AnyValue(string_value=value)
    name = {int: "int_value", float: "double_value", bytes: "bytes_value"}[type(value)]
    return common_pb2.AnyValue(**{name: value})


def request(*spans: trace_pb2.Span, **resource: Any) -> Request:
    """A request with one resource, one scope and these spans."""
    return Request(
        resource_spans=[
            trace_pb2.ResourceSpans(
                resource=resource_pb2.Resource(attributes=[attribute(key, value) for key, value in resource.items()]),
                scope_spans=[trace_pb2.ScopeSpans(spans=spans)],
            )
        ]
    )


def to_json(message: Request) -> bytes:
    """The same request in OTLP's JSON: hexadecimal ids and numbers for enums, unlike protobuf's own mapping."""
    tree = json_format.MessageToDict(message, use_integers_for_enums=True)
    for resource_spans, made in zip(message.resource_spans, tree.get("resourceSpans", []), strict=False):
        for scope_spans, scope in zip(resource_spans.scope_spans, made.get("scopeSpans", []), strict=False):
            for source, target in zip(scope_spans.spans, scope.get("spans", []), strict=False):
                _hexadecimal(source, target, "trace_id", "span_id", "parent_span_id")
                for link, link_target in zip(source.links, target.get("links", []), strict=False):
                    _hexadecimal(link, link_target, "trace_id", "span_id")
    return json.dumps(tree).encode()


def _hexadecimal(source: Any, target: dict[str, Any], *names: str) -> None:
    for name in names:
        if value := getattr(source, name):
            first, *rest = name.split("_")
            target[first + "".join(word.capitalize() for word in rest)] = value.hex().upper()


# Generated requests.

_text = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(["AA==", "NaN"])
_typed = st.sampled_from(["bytesValue", "doubleValue", "kvlistValue"])
"""Keys of maps that may look like what JSON keeps of other types."""
_key = st.sampled_from(
    [column.span for column in semconv.COLUMNS if column.span]
    + [column.resource for column in semconv.COLUMNS if column.resource]
    + ["a", "b", "", "k.é", 'quote"', "line\nbreak"]
)
_scalar = st.one_of(
    st.none(),
    _text,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-5, 5),
    st.floats(),
    st.binary(max_size=5),
)
_value = st.recursive(
    _scalar,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3) | st.dictionaries(_typed, inner)
    ),
    max_leaves=5,
)
_attributes = st.lists(st.builds(attribute, _key, _value), max_size=6)
_count = st.sampled_from([0, 0, 0, 1, 2**32 - 1])
_time = st.sampled_from([0, 1, RECEIVED_NS, MAX_TIME_NS - 1, MAX_TIME_NS, 2**64 - 1]) | st.just(RECEIVED_NS)
_link = st.builds(
    trace_pb2.Span.Link,
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    trace_state=_text,
    attributes=_attributes,
    dropped_attributes_count=_count,
    flags=_count,
)
_event = st.builds(
    trace_pb2.Span.Event,
    time_unix_nano=_time,
    name=_text,
    attributes=_attributes,
    dropped_attributes_count=_count,
)
_span = st.builds(
    trace_pb2.Span,
    trace_id=st.sampled_from([TRACE_ID, bytes(16), b"short"]) | st.just(TRACE_ID),
    span_id=st.binary(min_size=8, max_size=8) | st.just(b""),
    parent_span_id=st.sampled_from([b"", SPAN_ID, bytes(8), b"\x01"]) | st.just(SPAN_ID),
    trace_state=_text,
    flags=_count,
    name=_text,
    kind=st.integers(0, 7) | st.just(-1),
    start_time_unix_nano=_time,
    end_time_unix_nano=_time,
    attributes=_attributes,
    dropped_attributes_count=_count,
    events=st.lists(_event, max_size=2),
    dropped_events_count=_count,
    links=st.lists(_link, max_size=2),
    dropped_links_count=_count,
    status=st.builds(trace_pb2.Status, message=_text, code=st.integers(0, 4)) | st.none(),
)
_entity = st.builds(
    common_pb2.EntityRef,
    schema_url=_text,
    type=_text,
    id_keys=st.lists(_text, max_size=2),
    description_keys=st.lists(_text, max_size=2),
)
_resource = st.builds(
    resource_pb2.Resource,
    attributes=_attributes,
    dropped_attributes_count=_count,
    entity_refs=st.lists(_entity, max_size=1),
)
_scope = st.builds(
    common_pb2.InstrumentationScope,
    name=_text,
    version=_text,
    attributes=_attributes,
    dropped_attributes_count=_count,
)
_scope_spans = st.builds(
    trace_pb2.ScopeSpans, scope=_scope | st.none(), spans=st.lists(_span, max_size=4), schema_url=_text
)
_resource_spans = st.builds(
    trace_pb2.ResourceSpans,
    resource=_resource | st.none(),
    scope_spans=st.lists(_scope_spans, max_size=2),
    schema_url=_text,
)
requests = st.builds(Request, resource_spans=st.lists(_resource_spans, max_size=2))
"""Requests with every field of OTLP, valid and invalid spans among them."""


@st.composite
def mutated(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body with a few bytes changed, removed, repeated or inserted."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 12))
        change = draw(st.sampled_from(["flip", "remove", "repeat", "insert", "cut"]))
        if change == "flip" and at < len(body):
            body[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "remove":
            del body[at : at + length]
        elif change == "repeat":
            body[at:at] = body[at : at + length]
        elif change == "insert":
            body[at:at] = draw(st.binary(max_size=12))
        elif change == "cut":
            del body[at:]
    return bytes(body)
