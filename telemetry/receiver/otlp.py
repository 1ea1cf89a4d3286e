"""What an OTLP trace request becomes: the columns of `spans`, the same for protobuf and JSON. No I/O, no clock.

With `otlp_protobuf.py` and `otlp_json.py`, which read the two, this is the readable decoder, and the authority on what
a request means. `scanner.py` does the same faster, and leaves to this one each span in which anything is unusual.

What is taken and what is not:

- A body whose framing cannot be read (not protobuf, not JSON, lists where objects belong) is a `DecodeError`.
- A span that breaks a rule is rejected with a reason, and its neighbours are kept: no valid trace id or span id, a time
  outside 1970 to 2199, attributes nested deeper than `MAX_NESTING`, bytes that are no span, a field of the wrong type.
- Unknown fields and string-table references (`*_strindex`, meant for profiles) are ignored, as the specification asks.
- proto3 cannot tell "zero" from "absent": empty texts, zero counts and zero flags become NULL.
- An attribute that fills a typed column (`semconv.COLUMNS`) leaves the other attributes. One exception keeps export
  lossless: a column that both a span and a resource attribute may fill keeps the resource attribute where it was, so
  that its being there says who filled the column. A span that repeats what its resource says there is not told from
  one that says nothing.
- Enum numbers that OTLP does not name are kept as their digits.

Attribute values become JSON whose types survive a round trip: int64 as integers, doubles with a point or an exponent,
bytes as {"bytesValue": base64}, NaN and the infinities as {"doubleValue": "NaN"}; of a repeated key the last wins.
A map that would read as one of these is {"kvlistValue": {"bytesValue": …}}, and one that would read as that is wrapped
once more; stores of earlier versions have such maps unwrapped, and so as bytes or numbers.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import pyarrow as pa
from google.protobuf.message import DecodeError as ProtobufError
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry.errors import PayloadTooLarge
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


# What a row is made of.

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


def mapping(value: Row) -> Row:
    """A map as JSON keeps it."""
    return {"kvlistValue": value} if looks_typed(value) else value


def looks_typed(value: Mapping[str, Any]) -> bool:
    """Whether an object in stored JSON is anything but a map by itself: bytes, no finite number, or a wrapped map."""
    if len(value) != 1:
        return False
    match value:
        case {"bytesValue": str()} | {"doubleValue": "NaN" | "Infinity" | "-Infinity"}:
            return True
        case {"kvlistValue": dict() as inner}:
            return looks_typed(inner)
    return False


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


def parsed(kind: Any, body: bytes) -> Any:
    """A message of protobuf.

    Raises:
        ProtobufError: it is malformed.
        MemoryError: there is too little for it; protobuf has only other words for that.
    """
    try:
        return kind.FromString(body)
    except ProtobufError as error:
        if "alloc failed" in str(error):
            raise MemoryError from error
        raise


def present(**fields: Any) -> Row:
    """The fields that say something: as in proto3, zero and empty say nothing."""
    return {name: value for name, value in fields.items() if value}
