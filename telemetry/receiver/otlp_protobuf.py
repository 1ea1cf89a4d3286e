"""Read OTLP trace requests in binary protobuf, one span at a time. No I/O, no clock."""

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as ProtobufError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry.errors import DecodeError
from telemetry.receiver import otlp, parts
from telemetry.receiver.otlp import Decoded, Refused, Row, Shell


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
    batch = otlp.Batch(received_ns)
    parts.check_repeated(len(request.resource_spans), "resources")
    parts.check_repeated(sum(len(frame.scope_spans) for frame in request.resource_spans), "scopes")
    for resource_spans in request.resource_spans:
        resource = otlp.reading(read_resource, resource_spans)
        for scope_spans in resource_spans.scope_spans:
            shell = otlp.joined(resource, otlp.reading(read_scope, scope_spans))
            for span in scope_spans.spans:
                batch.add(shell, read_span, span)
    return batch.decoded()


def read_frames(body: bytes) -> Any:
    """Parse a request in protobuf, its spans left as bytes.

    Raises:
        DecodeError: it is malformed.
    """
    try:
        return otlp.parsed(_Frames, body)
    except ProtobufError as error:
        raise DecodeError("the body is no OTLP trace request in binary protobuf") from error


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


def check_parts(body: bytes) -> None:
    """Raise PayloadTooLarge if a request in protobuf has too many parts."""
    parts.check_protobuf(body, trace_service_pb2.ExportTraceServiceRequest.DESCRIPTOR)


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


_Frames: Final = _frames("telemetry.receiver.otlp_protobuf")


def read_resource(frame: Any) -> Shell:
    """What a resource gives to its spans.

    Raises:
        Refused: it cannot be kept.
    """
    resource = frame.resource
    refs = [
        otlp.present(
            schema_url=ref.schema_url,
            type=ref.type,
            id_keys=list(ref.id_keys),
            description_keys=list(ref.description_keys),
        )
        for ref in resource.entity_refs
    ]
    return otlp.resource_row(attributes(resource.attributes), resource.dropped_attributes_count, frame.schema_url, refs)


def read_scope(frame: Any) -> Shell:
    """What a scope gives to its spans.

    Raises:
        Refused: it cannot be kept.
    """
    scope = frame.scope
    return otlp.scope_row(
        scope.name, scope.version, attributes(scope.attributes), scope.dropped_attributes_count, frame.schema_url
    )


def read_span(body: bytes) -> Row:
    """What a span says itself.

    Raises:
        Refused: it breaks a rule.
    """
    try:
        span = otlp.parsed(trace_pb2.Span, body)
    except ProtobufError as error:
        raise Refused("the span is not readable: malformed protobuf, or text that is not UTF-8") from error
    return {
        **otlp.ids(span.trace_id, span.span_id, span.parent_span_id),
        "trace_state": span.trace_state or None,
        "flags": span.flags or None,
        "name": span.name,
        "kind": otlp.named(otlp.KINDS, span.kind),
        **otlp.times(span.start_time_unix_nano, span.end_time_unix_nano),
        "status_code": otlp.named(otlp.STATUS_CODES, span.status.code),
        "status_message": span.status.message or None,
        **otlp.attribute_columns(attributes(span.attributes)),
        "dropped_attributes_count": span.dropped_attributes_count or None,
        "events": otlp.json_text([event(item) for item in span.events]),
        "dropped_events_count": span.dropped_events_count or None,
        "links": otlp.json_text([link(item) for item in span.links]),
        "dropped_links_count": span.dropped_links_count or None,
    }


def event(item: trace_pb2.Span.Event) -> Row:
    """An event as it is kept."""
    return {
        "time_ns": item.time_unix_nano,
        "name": item.name,
        **otlp.present(
            attributes=attributes(item.attributes),
            dropped_attributes_count=item.dropped_attributes_count,
        ),
    }


def link(item: trace_pb2.Span.Link) -> Row:
    """A link as it is kept."""
    return {
        "trace_id": item.trace_id.hex(),
        "span_id": item.span_id.hex(),
        **otlp.present(
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
        return otlp.double(value.double_value)
    if kind == "bytes_value":
        return otlp.octets(value.bytes_value)
    if kind == "array_value":
        depth = otlp.deeper(depth)
        return [any_value(item, depth) for item in value.array_value.values]
    if kind == "kvlist_value":
        return otlp.mapping(attributes(value.kvlist_value.values, otlp.deeper(depth)))
    return None
