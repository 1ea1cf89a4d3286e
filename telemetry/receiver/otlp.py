"""Decode OTLP trace requests, protobuf and JSON, into the columns of `spans`. No I/O, no clock.

This is the readable decoder, and the authority on what a request means.
`scanner.py` does the same faster, and leaves to this one each span in which anything is unusual.

What is taken and what is not:

- A body whose framing cannot be read (not protobuf, not JSON, lists where objects belong) is a `DecodeError`.
- A span that breaks a rule is rejected with a reason, and its neighbours are kept: no valid trace id or span id, a time
  outside 1970 to 2199, attributes nested deeper than `MAX_NESTING`, bytes that are no span, a field of the wrong type.
- Unknown fields and string-table references (`*_strindex`, meant for profiles) are ignored, as the specification asks.
- proto3 cannot tell "zero" from "absent": empty texts, zero counts and zero flags become NULL.
- An attribute that fills a typed column (`semconv.COLUMNS`) leaves the other attributes. One exception keeps export
  lossless: a column that both a span and a resource attribute may fill keeps the resource attribute where it was, so
  that its being there says who filled the column.
- Enum numbers that OTLP does not name are kept as their digits.

Attribute values become JSON whose types survive a round trip: int64 as integers, doubles with a point or an exponent,
bytes as {"bytesValue": base64}, NaN and the infinities as {"doubleValue": "NaN"}; of a repeated key the last wins.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as ProtobufError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.receiver import parts
from telemetry.semconv import COLUMNS, MAX_TYPED_FLOAT, MAX_TYPED_INT

_ARROW: Final = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}

SPANS_SCHEMA: Final = pa.schema(
    [
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
        ("parent_span_id", pa.string()),
        ("trace_state", pa.string()),
        ("flags", pa.int64()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("status_code", pa.string()),
        ("status_message", pa.string()),
        *((column.name, _ARROW[column.type]) for column in COLUMNS),
        ("attributes", pa.string()),
        ("resource_attributes", pa.string()),
        ("resource_dropped_attributes_count", pa.int64()),
        ("resource_schema_url", pa.string()),
        ("resource_entity_refs", pa.string()),
        ("scope_name", pa.string()),
        ("scope_version", pa.string()),
        ("scope_attributes", pa.string()),
        ("scope_dropped_attributes_count", pa.int64()),
        ("scope_schema_url", pa.string()),
        ("dropped_attributes_count", pa.int64()),
        ("events", pa.string()),
        ("dropped_events_count", pa.int64()),
        ("links", pa.string()),
        ("dropped_links_count", pa.int64()),
        ("received_ns", pa.int64()),
    ]
)
"""The columns of `queries/schema/spans.sql` in their order; a VARIANT column travels as JSON text."""

MAX_NESTING: Final = 16
"""Lists and maps inside one attribute value. No SDK makes more than one; Protobuf itself gives up at about 40."""
MAX_JSON_NESTING: Final = 200
"""Objects and lists around one another; an attribute takes four of them for each of its levels.
Where Python's own parser gives up depends on how deep in calls it begins."""
MAX_TIME_NS: Final = 7_258_118_400_000_000_000
"""2200-01-01. Reports add durations and buckets to a time, and must not overflow 64 bits because of one wrong clock."""
MAX_SPANS: Final = 200_000
"""A request may be all empty spans, thirty bytes each, and a row takes some 700 bytes; Collectors send 8,192."""
MAX_DECODED_BYTES: Final = 192 * 1024 * 1024
"""What resource and scope may add up to when repeated on each of their spans; less than the store's writer accepts."""

KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUS_CODES: Final = ("UNSET", "OK", "ERROR")

Row = dict[str, Any]
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Spans of one request that were not taken, for one reason."""

    reason: str
    """Of low cardinality: the rule that was broken."""
    count: int
    example: str
    """The first of them, shortened, for a person to find its sender."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The spans of one request."""

    table: pa.Table
    """Of `SPANS_SCHEMA`."""
    rejected: tuple[Rejection, ...]


def decode_protobuf(body: bytes, received_ns: int) -> Decoded:
    """Decode a binary ExportTraceServiceRequest.

    Args:
        received_ns: nanoseconds UTC, the receiver's clock.

    Raises:
        DecodeError: the body as a whole is unreadable.
        PayloadTooLarge: it would not stay within limits when decoded.
    """
    check_parts(body)
    request = read_frames(body)
    batch = Batch(received_ns)
    parts.check_repeated(len(request.resource_spans), "resources")
    parts.check_repeated(sum(len(frame.scope_spans) for frame in request.resource_spans), "scopes")
    for resource_spans in request.resource_spans:
        resource = reading(protobuf_resource, resource_spans)
        for scope_spans in resource_spans.scope_spans:
            shell = joined(resource, reading(protobuf_scope, scope_spans))
            for span in scope_spans.spans:
                batch.add(shell, protobuf_span, span)
    return batch.decoded()


def read_frames(body: bytes) -> Any:
    """Parse a request in protobuf, its spans left as bytes.

    Raises:
        DecodeError: it is malformed.
    """
    try:
        return _Frames.FromString(body)
    except ProtobufError as error:
        raise DecodeError("the body is no OTLP trace request in binary protobuf") from error


def decode_json(body: bytes, received_ns: int) -> Decoded:
    """Decode an ExportTraceServiceRequest in OTLP's JSON: lowerCamelCase keys, hexadecimal ids, numbers for enums.

    Args:
        received_ns: nanoseconds UTC, the receiver's clock.

    Raises:
        DecodeError: the body as a whole is unreadable.
        PayloadTooLarge: it would not stay within limits when decoded.
    """
    request = read_json(body)
    batch = Batch(received_ns)
    scopes = 0
    try:
        resources = _objects(request, "resourceSpans")
        parts.check_repeated(len(resources), "resources")
        for resource_spans in resources:
            resource = reading(_json_resource, resource_spans)
            for scope_spans in _objects(resource_spans, "scopeSpans"):
                scopes += 1
                parts.check_repeated(scopes, "scopes")
                shell = joined(resource, reading(_json_scope, scope_spans))
                for span in _objects(scope_spans, "spans"):
                    batch.add(shell, json_span, span)
    except Refused as error:
        raise DecodeError(f"the body is no OTLP trace request in JSON: {error.reason}") from error
    return batch.decoded()


def rewritten(body: bytes) -> bytes:
    """The same request as protobuf itself writes it: no part given in pieces, no fields that OTLP does not know but in
    spans, which stay as they are.

    Raises:
        DecodeError: it is malformed.
    """
    request = read_frames(body)
    request.DiscardUnknownFields()
    written: bytes = request.SerializeToString()
    return written


def read_json(body: bytes) -> Mapping[str, Any]:
    """Parse a JSON object strictly.

    Raises:
        DecodeError: it is not UTF-8, not JSON, nested too deep, or not an object.
        PayloadTooLarge: it has too many parts.
    """
    parts.check_json(body)
    if parts.json_depth(body) > MAX_JSON_NESTING:
        raise DecodeError(f"the body is JSON nested deeper than {MAX_JSON_NESTING} levels")
    try:
        request = json.loads(body.decode("utf-8"), parse_constant=_no_constant) if body else {}
    except ValueError as error:  # not UTF-8, not JSON, or an integer of thousands of digits
        raise DecodeError(f"the body is not JSON in UTF-8: {str(error)[:200]}") from error
    if not isinstance(request, dict):
        raise DecodeError("the body is JSON, but not an object")
    return request


class Refused(Exception):
    """A span, resource or scope breaks a rule."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Shell:
    """What a resource or a scope gives to each of its spans."""

    columns: Row
    size_bytes: int
    """Of its texts; each of its spans repeats them."""

    @classmethod
    def of(cls, columns: Row) -> "Shell":
        return cls(columns, sum(len(value.encode()) for value in columns.values() if isinstance(value, str)))


def reading(read: Callable[[Any], _Read], frame: Any) -> _Read | Refused:
    """What is read, or why it cannot be: a broken resource refuses each of its spans."""
    try:
        return read(frame)
    except Refused as error:
        return error


def joined(resource: Shell | Refused, scope: Shell | Refused) -> Shell | Refused:
    """What both give to each of their spans, or why there is one that cannot be read."""
    if isinstance(resource, Refused):
        return resource
    if isinstance(scope, Refused):
        return scope
    return Shell(resource.columns | scope.columns, resource.size_bytes + scope.size_bytes)


@dataclass(slots=True)
class Batch:
    """The rows of one request as they are collected, and the spans that were refused."""

    received_ns: int
    repeated_bytes: int = 0
    """What resource and scope come to on the spans so far."""
    rows: list[Row] = field(default_factory=list)
    _refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    _spans: int = 0

    def add(self, shell: Shell | Refused, read: Callable[[Any], Row], span: Any) -> bool:
        """Read one span, and make its row of what it, its scope and its resource say.

        Returns:
            Whether it was taken.
        """
        self._spans += 1
        check_spans(self._spans)
        if isinstance(shell, Refused):
            return self._refuse(shell.reason, span)
        row = reading(read, span)
        if isinstance(row, Refused):
            return self._refuse(row.reason, span)
        self.repeated_bytes += shell.size_bytes
        check_decoded(self.repeated_bytes)
        own = {name: value for name, value in row.items() if value is not None}
        self.rows.append({**shell.columns, **own, "received_ns": self.received_ns})
        return True

    def _refuse(self, reason: str, span: Any) -> Literal[False]:
        count, example = self._refused.get(reason, (0, ""))
        self._refused[reason] = (count + 1, example or _example(span))
        return False

    def decoded(self) -> Decoded:
        """The request in columns."""
        filled = set().union(*self.rows)
        columns = [
            pa.array([row.get(field.name) for row in self.rows], field.type)
            if field.name in filled
            else nulls(len(self.rows), field.type)
            for field in SPANS_SCHEMA
        ]
        return Decoded(
            pa.Table.from_arrays(columns, schema=SPANS_SCHEMA),
            tuple(Rejection(reason, count, example) for reason, (count, example) in self._refused.items()),
        )


_NULLS: Final = {kind: pa.nulls(MAX_SPANS, kind) for kind in set(SPANS_SCHEMA.types)}
"""Most columns of a request are empty: a part of these costs a tenth of making them. About 4 MB."""


def nulls(count: int, kind: pa.DataType) -> pa.Array:
    """An empty column."""
    return _NULLS[kind].slice(0, count)


def check_parts(body: bytes) -> None:
    """Raise PayloadTooLarge if a request in protobuf has too many parts."""
    parts.check_protobuf(body, trace_service_pb2.ExportTraceServiceRequest.DESCRIPTOR)


def check_spans(count: int) -> None:
    """Raise PayloadTooLarge if one request has more spans than are taken."""
    if count > MAX_SPANS:
        raise PayloadTooLarge(
            f"the request has more than {MAX_SPANS} spans; send smaller batches",
            size_bytes=count,
            limit_bytes=MAX_SPANS,
        )


def check_decoded(size_bytes: int) -> None:
    """Raise PayloadTooLarge if resource and scope, repeated on each of their spans, are larger than is taken."""
    if size_bytes > MAX_DECODED_BYTES:
        raise PayloadTooLarge(
            f"resource and scope attributes come to more than {MAX_DECODED_BYTES} bytes on their spans; "
            "send smaller batches",
            size_bytes=size_bytes,
            limit_bytes=MAX_DECODED_BYTES,
        )


# What a row is made of: the same for both encodings.

Attributes = Mapping[str, Any]
"""Values as they go into JSON, by key."""


def resource_row(
    attributes: Attributes, dropped: int, schema_url: str, entity_refs: Sequence[Mapping[str, Any]] = ()
) -> Shell:
    """The columns that a resource gives to each of its spans."""
    row: Row = {}
    rest = dict(attributes)
    for column in COLUMNS:
        key = column.resource
        if key in rest and fits(column.type, rest[key]):
            row[column.name] = rest[key] if column.span else rest.pop(key)
    row["resource_attributes"] = json_text(rest)
    row["resource_dropped_attributes_count"] = dropped or None
    row["resource_schema_url"] = schema_url or None
    row["resource_entity_refs"] = json_text(entity_refs)
    return Shell.of(row)


def scope_row(name: str, version: str, attributes: Attributes, dropped: int, schema_url: str) -> Shell:
    """The columns that a scope gives to each of its spans."""
    row: Row = {
        "scope_name": name or None,
        "scope_version": version or None,
        "scope_attributes": json_text(attributes),
        "scope_dropped_attributes_count": dropped or None,
        "scope_schema_url": schema_url or None,
    }
    return Shell.of(row)


_BY_SPAN_ATTRIBUTE: Final = {column.span: column for column in COLUMNS if column.span}


def attribute_columns(attributes: Attributes) -> Row:
    """The typed columns that span attributes fill, and `attributes` with what is left."""
    row: Row = {}
    rest: Row = {}
    for key, value in attributes.items():
        column = _BY_SPAN_ATTRIBUTE.get(key)
        if column and fits(column.type, value):
            row[column.name] = value
        else:
            rest[key] = value
    row["attributes"] = json_text(rest)
    return row


def fits(kind: str, value: Any) -> bool:
    """Whether an attribute's value may fill a column of that type."""
    if kind == "text":
        return isinstance(value, str)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "float":
        return isinstance(value, float) and -MAX_TYPED_FLOAT < value < MAX_TYPED_FLOAT
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_TYPED_INT < value < MAX_TYPED_INT


def ids(trace_id: bytes, span_id: bytes, parent_span_id: bytes) -> Row:
    """The three ids in hexadecimal; a parent of zeros is none, as senders write it that way too.

    Raises:
        Refused: an id has a wrong length, or is all zeros.
    """
    if len(trace_id) != 16 or not any(trace_id):
        raise Refused("trace_id is not 16 bytes, or all zeros")
    if len(span_id) != 8 or not any(span_id):
        raise Refused("span_id is not 8 bytes, or all zeros")
    if len(parent_span_id) not in (0, 8):
        raise Refused("parent_span_id is not 8 bytes")
    return {
        "trace_id": trace_id.hex(),
        "span_id": span_id.hex(),
        "parent_span_id": parent_span_id.hex() if any(parent_span_id) else None,
    }


def times(start_ns: int, end_ns: int) -> Row:
    """Both times.

    Raises:
        Refused: one lies past `MAX_TIME_NS`.
    """
    if start_ns >= MAX_TIME_NS or end_ns >= MAX_TIME_NS:
        raise Refused("a time lies past the year 2199; times are nanoseconds since 1970")
    return {"start_ns": start_ns, "end_ns": end_ns}


def named(names: Sequence[str], number: int) -> str:
    """The name of an enum's number; a number without a name is its digits."""
    return names[number] if 0 <= number < len(names) else str(number)


def double(value: float) -> Any:
    """A double as JSON keeps it."""
    if value != value:
        return {"doubleValue": "NaN"}
    if value in (float("inf"), float("-inf")):
        return {"doubleValue": "Infinity" if value > 0 else "-Infinity"}
    return value


def octets(value: bytes) -> Any:
    """Bytes as JSON keeps them."""
    return {"bytesValue": base64.b64encode(value).decode("ascii")}


def deeper(depth: int) -> int:
    """One level further into an attribute value.

    Raises:
        Refused: that is too deep.
    """
    if depth >= MAX_NESTING:
        raise Refused(f"an attribute is nested deeper than {MAX_NESTING} levels")
    return depth + 1


_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)


def json_text(value: Any) -> str | None:
    """Compact JSON; None for an empty list or object."""
    return _encoder.encode(value) if value else None


def _example(span: bytes | Mapping[str, Any]) -> str:
    """Enough of a span for a person to find its sender: its name and ids, or its first bytes where it has none."""
    if not isinstance(span, bytes):
        said = {key: span.get(key) for key in ("name", "traceId", "spanId")}
        return ", ".join(f"{key}={value[:60]!r}" for key, value in said.items() if isinstance(value, str))
    try:
        read = trace_pb2.Span.FromString(span)
    except ProtobufError:
        return f"first bytes {span[:32].hex()}"
    return f"name={read.name[:60]!r}, trace_id={read.trace_id[:20].hex()!r}, span_id={read.span_id[:20].hex()!r}"


def _present(**fields: Any) -> Row:
    """The fields that say something: as in proto3, zero and empty say nothing."""
    return {name: value for name, value in fields.items() if value}


# Protobuf.


_FIELD: Final = descriptor_pb2.FieldDescriptorProto


def _frames(package: str) -> Any:
    """Make an ExportTraceServiceRequest message class that leaves each span as bytes, so that a malformed one does not
    spoil its neighbours: on the wire a message and bytes are the same."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto",
        package=package,
        syntax="proto3",
        dependency=[resource_pb2.DESCRIPTOR.name, common_pb2.DESCRIPTOR.name],
    )
    resource, scope = resource_pb2.Resource.DESCRIPTOR.full_name, common_pb2.InstrumentationScope.DESCRIPTOR.full_name
    _message(file, "TraceFrames", resource_spans=(1, True, f"{package}.ResourceFrame"))
    _message(
        file,
        "ResourceFrame",
        resource=(1, False, resource),
        scope_spans=(2, True, f"{package}.ScopeFrame"),
        schema_url=(3, False, "string"),
    )
    _message(file, "ScopeFrame", scope=(1, False, scope), spans=(2, True, "bytes"), schema_url=(3, False, "string"))
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.TraceFrames"))


def _message(file: descriptor_pb2.FileDescriptorProto, name: str, **fields: tuple[int, bool, str]) -> None:
    """Add a message: by field its number, whether it is repeated, and its type, which is a message's if dotted."""
    plain = {"bytes": _FIELD.TYPE_BYTES, "string": _FIELD.TYPE_STRING}
    made = file.message_type.add(name=name)
    for field_name, (number, repeated, kind) in fields.items():
        made.field.add(
            name=field_name,
            number=number,
            label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
            type=plain.get(kind, _FIELD.TYPE_MESSAGE),
            type_name=None if kind in plain else f".{kind}",
        )


_Frames: Final = _frames("telemetry.receiver.otlp")


def protobuf_resource(frame: Any) -> Shell:
    """What a resource gives to its spans.

    Raises:
        Refused: it cannot be kept.
    """
    resource = frame.resource
    refs = [
        _present(
            schema_url=ref.schema_url,
            type=ref.type,
            id_keys=list(ref.id_keys),
            description_keys=list(ref.description_keys),
        )
        for ref in resource.entity_refs
    ]
    return resource_row(attributes(resource.attributes), resource.dropped_attributes_count, frame.schema_url, refs)


def protobuf_scope(frame: Any) -> Shell:
    """What a scope gives to its spans.

    Raises:
        Refused: it cannot be kept.
    """
    scope = frame.scope
    return scope_row(
        scope.name, scope.version, attributes(scope.attributes), scope.dropped_attributes_count, frame.schema_url
    )


def protobuf_span(body: bytes) -> Row:
    """What a span says itself.

    Raises:
        Refused: it breaks a rule.
    """
    try:
        span = trace_pb2.Span.FromString(body)
    except ProtobufError as error:
        raise Refused("the span is not readable: malformed protobuf, or text that is not UTF-8") from error
    return {
        **ids(span.trace_id, span.span_id, span.parent_span_id),
        "trace_state": span.trace_state or None,
        "flags": span.flags or None,
        "name": span.name,
        "kind": named(KINDS, span.kind),
        **times(span.start_time_unix_nano, span.end_time_unix_nano),
        "status_code": named(STATUS_CODES, span.status.code),
        "status_message": span.status.message or None,
        **attribute_columns(attributes(span.attributes)),
        "dropped_attributes_count": span.dropped_attributes_count or None,
        "events": json_text([event(item) for item in span.events]),
        "dropped_events_count": span.dropped_events_count or None,
        "links": json_text([link(item) for item in span.links]),
        "dropped_links_count": span.dropped_links_count or None,
    }


def event(item: trace_pb2.Span.Event) -> Row:
    """An event as it is kept."""
    return {
        "time_ns": item.time_unix_nano,
        "name": item.name,
        **_present(
            attributes=attributes(item.attributes),
            dropped_attributes_count=item.dropped_attributes_count,
        ),
    }


def link(item: trace_pb2.Span.Link) -> Row:
    """A link as it is kept."""
    return {
        "trace_id": item.trace_id.hex(),
        "span_id": item.span_id.hex(),
        **_present(
            trace_state=item.trace_state,
            attributes=attributes(item.attributes),
            dropped_attributes_count=item.dropped_attributes_count,
            flags=item.flags,
        ),
    }


def attributes(pairs: Iterable[common_pb2.KeyValue], depth: int = 0) -> Row:
    """Attributes by key; of a repeated key the last wins.

    Raises:
        Refused: a value is nested too deep.
    """
    return {pair.key: any_value(pair.value, depth) for pair in pairs}


def any_value(value: common_pb2.AnyValue, depth: int = 0) -> Any:
    """A value as JSON keeps it; None for a value that is not set.

    Raises:
        Refused: it is nested too deep.
    """
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bool_value", "int_value"):
        return getattr(value, kind)
    if kind == "double_value":
        return double(value.double_value)
    if kind == "bytes_value":
        return octets(value.bytes_value)
    if kind == "array_value":
        depth = deeper(depth)
        return [any_value(item, depth) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values, deeper(depth))
    return None


# JSON.

_DIGITS: Final = re.compile(r"-?[0-9]{1,20}")
_INT64: Final = (-(2**63), 2**63 - 1)
_UINT64: Final = (0, 2**64 - 1)
_UINT32: Final = (0, 2**32 - 1)
_INT32: Final = (-(2**31), 2**31 - 1)


def json_object_at(text: str) -> Any:
    """The object in JSON that a text begins with, whatever stands behind it; read as `read_json` does."""
    return _decoder.raw_decode(text)[0]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON; OTLP writes it as a string")


_decoder: Final = json.JSONDecoder(parse_constant=_no_constant)


def _json_resource(frame: Mapping[str, Any]) -> Shell:
    resource = _object(frame, "resource")
    refs = [
        _present(
            schema_url=_string(ref, "schemaUrl"),
            type=_string(ref, "type"),
            id_keys=_strings(ref, "idKeys"),
            description_keys=_strings(ref, "descriptionKeys"),
        )
        for ref in _objects(resource, "entityRefs")
    ]
    return resource_row(
        _json_attributes(resource), _number(resource, "droppedAttributesCount"), _string(frame, "schemaUrl"), refs
    )


def _json_scope(frame: Mapping[str, Any]) -> Shell:
    scope = _object(frame, "scope")
    return scope_row(
        _string(scope, "name"),
        _string(scope, "version"),
        _json_attributes(scope),
        _number(scope, "droppedAttributesCount"),
        _string(frame, "schemaUrl"),
    )


def json_span(span: Mapping[str, Any]) -> Row:
    """What a span says itself.

    Raises:
        Refused: it breaks a rule.
    """
    status = _object(span, "status")
    return {
        **ids(_hex(span, "traceId"), _hex(span, "spanId"), _hex(span, "parentSpanId")),
        "trace_state": _string(span, "traceState") or None,
        "flags": _number(span, "flags") or None,
        "name": _string(span, "name"),
        "kind": named(KINDS, _enum(span, "kind")),
        **times(_number(span, "startTimeUnixNano", _UINT64), _number(span, "endTimeUnixNano", _UINT64)),
        "status_code": named(STATUS_CODES, _enum(status, "code")),
        "status_message": _string(status, "message") or None,
        **attribute_columns(_json_attributes(span)),
        "dropped_attributes_count": _number(span, "droppedAttributesCount") or None,
        "events": json_text([_json_event(item) for item in _objects(span, "events")]),
        "dropped_events_count": _number(span, "droppedEventsCount") or None,
        "links": json_text([_json_link(item) for item in _objects(span, "links")]),
        "dropped_links_count": _number(span, "droppedLinksCount") or None,
    }


def _json_event(item: Mapping[str, Any]) -> Row:
    return {
        "time_ns": _number(item, "timeUnixNano", _UINT64),
        "name": _string(item, "name"),
        **_present(attributes=_json_attributes(item), dropped_attributes_count=_number(item, "droppedAttributesCount")),
    }


def _json_link(item: Mapping[str, Any]) -> Row:
    return {
        "trace_id": _hex(item, "traceId").hex(),
        "span_id": _hex(item, "spanId").hex(),
        **_present(
            trace_state=_string(item, "traceState"),
            attributes=_json_attributes(item),
            dropped_attributes_count=_number(item, "droppedAttributesCount"),
            flags=_number(item, "flags"),
        ),
    }


def _json_attributes(owner: Mapping[str, Any], key: str = "attributes", depth: int = 0) -> Row:
    return {_string(pair, "key"): _json_value(_object(pair, "value"), depth) for pair in _objects(owner, key)}


def _json_value(value: Mapping[str, Any], depth: int = 0) -> Any:
    if value.get("stringValue") is not None:
        return _string(value, "stringValue")
    if value.get("boolValue") is not None:
        return _boolean(value, "boolValue")
    if value.get("intValue") is not None:
        return _number(value, "intValue", _INT64)
    if value.get("doubleValue") is not None:
        return double(_double(value, "doubleValue"))
    if value.get("bytesValue") is not None:
        return octets(_base64(value, "bytesValue"))
    if value.get("arrayValue") is not None:
        depth = deeper(depth)
        return [_json_value(item, depth) for item in _objects(_object(value, "arrayValue"), "values")]
    if value.get("kvlistValue") is not None:
        return _json_attributes(_object(value, "kvlistValue"), "values", deeper(depth))
    return None


def _object(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = owner.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(f"{key} is not an object")
    return value


def _objects(owner: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    values = owner.get(key)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise Refused(f"{key} is not a list of objects")
    return values


def _strings(owner: Mapping[str, Any], key: str) -> list[str]:
    values = owner.get(key)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Refused(f"{key} is not a list of texts")
    return [_whole(value) for value in values]


def _string(owner: Mapping[str, Any], key: str) -> str:
    value = owner.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(f"{key} is not a text")
    return _whole(value)


def _whole(text: str) -> str:
    """Text that UTF-8 can carry: JSON can escape half of a surrogate pair, which becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _boolean(owner: Mapping[str, Any], key: str) -> bool:
    value = owner.get(key)
    if not isinstance(value, bool):
        raise Refused(f"{key} is not true or false")
    return value


def _number(owner: Mapping[str, Any], key: str, limits: tuple[int, int] = _UINT32) -> int:
    """An integer, written as a number or as a string."""
    value = owner.get(key)
    if value is None:
        return 0
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not limits[0] <= value <= limits[1]:
        raise Refused(f"{key} is not an integer from {limits[0]} to {limits[1]}")
    return value


def _enum(owner: Mapping[str, Any], key: str) -> int:
    value = owner.get(key)
    if isinstance(value, str):
        raise Refused(f"{key} is a text; OTLP writes enums as numbers")
    return _number(owner, key, _INT32)


def _double(owner: Mapping[str, Any], key: str) -> float:
    value = owner.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Refused(f"{key} is not a number")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise Refused(f"{key} is not a number") from error


def _hex(owner: Mapping[str, Any], key: str) -> bytes:
    try:
        return binascii.unhexlify(_string(owner, key))
    except ValueError as error:
        raise Refused(f"{key} is not hexadecimal") from error


def _base64(owner: Mapping[str, Any], key: str) -> bytes:
    """Bytes from either alphabet of base64, padded or not, as the JSON mapping of protobuf accepts them."""
    text = _string(owner, key).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise Refused(f"{key} is not base64") from error
