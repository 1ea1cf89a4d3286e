"""Decode OTLP trace requests in protobuf with a compiled scanner, `scan.c`. No I/O, no clock.

Says the same as `otlp.decode_protobuf`, some thirty times faster; a property test holds the two together.
The scanner takes a request apart and numbers what is different in it.
What an attribute means is then found out once for each different one, and columns are filled from these by number.

Whatever is unusual is left to the other decoders, for the whole request.
Without a compiler at installation there is no scanner, and everything is left to them.
"""

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError as ProtobufError
from numpy.typing import NDArray
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry.receiver import fragments, otlp
from telemetry.receiver.fragments import Unusual
from telemetry.receiver.otlp import Decoded, Refused, Shell
from telemetry.semconv import COLUMNS

MAX_ATTRIBUTES: Final = 4_000_000
"""In a request. Each takes 50 bytes of room to work in; a request of 64 MiB may hold 32 million empty ones."""

_MAX_REMEMBERED_BYTES: Final = 8192
"""A longer resource or scope is not remembered."""

# As in scan.c.
_NUMBERS: Final = (
    "start", "end", "kind", "flags", "status", "dropped_attributes_count", "dropped_events_count",
    "dropped_links_count", "name", "trace_state", "message", "has_parent", "scope", "attributes_end",
)  # fmt: skip
_OTHER, _STRING, _BOOL, _INT, _DOUBLE = range(5)
_PLACE: Final = [("offset", np.int64), ("size", np.int64)]
_RESOURCE: Final = np.dtype([("resource", _PLACE), ("schema", _PLACE)])
_SCOPE: Final = np.dtype([("resource", np.int64), ("scope", _PLACE), ("schema", _PLACE), ("spans", np.int64)])
_NESTED: Final = np.dtype([("row", np.int64), ("is_link", np.int64), ("place", _PLACE)])
_ATTRIBUTE: Final = np.dtype(
    [("place", _PLACE), ("text", _PLACE), ("key", np.int64), ("kind", np.int64), ("value", np.int64)]
)

_POINTERS: Final = (
    "numbers", "trace_ids", "span_ids", "parent_ids", "resource", "scope", "nest", "attribute", "text", "distinct",
)  # fmt: skip


class _Request(ctypes.Structure):
    _fields_ = (
        ("body", ctypes.c_char_p),
        ("size", ctypes.c_int64),
        ("seed", ctypes.c_uint64 * 2),
        *((name, ctypes.c_int64) for name in ("spans", "resources", "scopes", "nested", "attributes")),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("texts", "distincts")),
        *((name, ctypes.c_void_p) for name in ("text_slots", "distinct_slots")),
        *((name, ctypes.c_int64) for name in ("text_mask", "distinct_mask")),
        ("last_row", ctypes.c_void_p),
    )


def _load() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(Path(__file__).with_name("_scan.so")))
    except OSError:
        return None


_LIBRARY: Final = _load()
_SEED: Final = (ctypes.c_uint64 * 2).from_buffer_copy(os.urandom(16))
"""So that nobody can make a request whose attributes collide."""


def compiled() -> bool:
    """Whether there is a scanner: it is compiled at installation, where there is a C compiler."""
    return _LIBRARY is not None


def decode_protobuf(body: bytes, received_ns: int) -> Decoded:
    """As `otlp.decode_protobuf`."""
    try:
        return Decoded(_table(_Scanned(body), received_ns), ())
    except (Unusual, Refused, ProtobufError, UnicodeDecodeError):
        return fragments.decode_protobuf(body, received_ns)


class _Scanned:
    """A request taken apart."""

    def __init__(self, body: bytes) -> None:
        if _LIBRARY is None:
            raise Unusual
        self.body = body
        self._kept: list[NDArray[Any]] = []
        """What the scanner has pointers to."""
        self._key_texts: dict[int, str] = {}
        self._request = request = _Request(body=body, size=len(body), seed=_SEED)
        if _LIBRARY.scan_count(ctypes.byref(request)) or request.attributes > MAX_ATTRIBUTES:
            raise Unusual
        otlp.check_spans(request.spans)
        self.spans = spans = request.spans
        texts = 3 * spans + request.attributes
        self.numbers = self._room("numbers", (len(_NUMBERS), spans), np.int64)
        self.trace_ids = self._room("trace_ids", 32 * spans, np.uint8)
        self.span_ids = self._room("span_ids", 16 * spans, np.uint8)
        self.parent_ids = self._room("parent_ids", (spans, 16), np.uint8)
        self.resources = self._room("resource", request.resources, _RESOURCE)
        self.scopes = self._room("scope", request.scopes, _SCOPE)
        self.nested = self._room("nest", request.nested, _NESTED)
        self.attributes = self._room("attribute", request.attributes, np.int32)
        text = self._room("text", texts, np.dtype(_PLACE))
        distinct = self._room("distinct", request.attributes, _ATTRIBUTE)
        self._slots("text", texts)
        self._slots("distinct", request.attributes)
        self._point("last_row", np.zeros(texts, np.int64))
        if _LIBRARY.scan_fill(ctypes.byref(request)):
            raise Unusual
        self.texts = [body[at : at + size].decode() for at, size in text[: request.texts].tolist()]
        self.distinct = distinct[: request.distincts]

    def _room(self, name: str, shape: Any, kind: Any) -> NDArray[Any]:
        made = np.empty(shape, kind)
        self._point(name, made)
        return made

    def _slots(self, name: str, count: int) -> None:
        slots = np.zeros(1 << (2 * count).bit_length(), np.uint32)
        self._point(f"{name}_slots", slots)
        setattr(self._request, f"{name}_mask", slots.size - 1)

    def _point(self, name: str, room: NDArray[Any]) -> None:
        setattr(self._request, name, room.ctypes.data)
        self._kept.append(room)

    def number(self, name: str) -> NDArray[np.int64]:
        """One number of each span."""
        numbers: NDArray[np.int64] = self.numbers[_NUMBERS.index(name)]
        return numbers

    def bytes_at(self, place: Any) -> bytes:
        """What stands there."""
        offset, size = place
        return self.body[offset : offset + size]

    def json_of(self, attributes: NDArray[np.int64]) -> pa.StringArray:
        """Each of these different attributes as `"key":value`."""
        assert _LIBRARY is not None
        kinds = self.distinct["kind"][attributes]
        simple = (kinds >= _STRING) & (kinds <= _INT)
        written = attributes[simple].astype(np.int32)
        out = np.empty(int(self.distinct["place"]["size"][written].sum()) * 6 + 32 * written.size, np.uint8)
        ends = np.zeros(written.size + 1, np.int32)
        _LIBRARY.scan_write(
            ctypes.byref(self._request),
            *map(ctypes.c_void_p, (written.ctypes.data, out.ctypes.data, ends[1:].ctypes.data)),
            ctypes.c_int64(written.size),
        )
        texts = pa.StringArray.from_buffers(written.size, pa.py_buffer(ends), pa.py_buffer(out))
        if simple.all():
            return texts
        left = self.distinct[attributes[~simple]]
        doubles = left["value"].view(np.float64)
        others = [
            f"{self._key_json(key)}:{double!r}" if finite else self._json_of(place)
            for place, key, finite, double in zip(
                left["place"],
                left["key"].tolist(),
                (np.isfinite(doubles) & (left["kind"] == _DOUBLE)).tolist(),
                doubles.tolist(),
                strict=True,
            )
        ]
        return pc.replace_with_mask(
            pc.replace_with_mask(pa.nulls(simple.size, pa.string()), pa.array(simple), texts),
            pa.array(~simple),
            pa.array(others, pa.string()),
        )

    def _json_of(self, place: Any) -> str:
        pair = common_pb2.KeyValue.FromString(self.bytes_at(place))
        return str(otlp.json_text({pair.key: otlp.any_value(pair.value)}))[1:-1]

    def _key_json(self, key: int) -> str:
        if key not in self._key_texts:
            self._key_texts[key] = str(otlp.json_text([self.texts[key]]))[1:-1]
        return self._key_texts[key]


def _table(request: _Scanned, received_ns: int) -> pa.Table:
    shells = _shells(request)
    if not request.spans:
        return otlp.SPANS_SCHEMA.empty_table()
    columns = _span_columns(request) | _attribute_columns(request)
    return fragments.table(columns, shells, request.scopes["spans"].tolist(), received_ns)


def _span_columns(request: _Scanned) -> dict[str, pa.Array]:
    texts = pa.array(request.texts, pa.string())
    return {
        "trace_id": _ids(request.trace_ids, 32),
        "span_id": _ids(request.span_ids, 16),
        "parent_span_id": _parents(request),
        "trace_state": _texts(request.number("trace_state"), texts),
        "flags": fragments.counts(request.number("flags")),
        "name": _texts(request.number("name"), texts).fill_null(""),
        "kind": _named(request.number("kind"), otlp.KINDS),
        "start_ns": fragments.times(request.number("start").view(np.uint64)),
        "end_ns": fragments.times(request.number("end").view(np.uint64)),
        "status_code": _named(request.number("status"), otlp.STATUS_CODES),
        "status_message": _texts(request.number("message"), texts),
        "dropped_attributes_count": fragments.counts(request.number("dropped_attributes_count")),
        "events": _nested(request, 0, trace_pb2.Span.Event, otlp.event),
        "dropped_events_count": fragments.counts(request.number("dropped_events_count")),
        "links": _nested(request, 1, trace_pb2.Span.Link, otlp.link),
        "dropped_links_count": fragments.counts(request.number("dropped_links_count")),
    }


def _ids(characters: NDArray[np.uint8], length: int) -> pa.StringArray:
    offsets = np.arange(0, characters.size + 1, length, dtype=np.int32)
    return pa.StringArray.from_buffers(offsets.size - 1, pa.py_buffer(offsets), pa.py_buffer(characters))


def _parents(request: _Scanned) -> pa.StringArray:
    present = request.number("has_parent").astype(np.bool_)
    return _ids(request.parent_ids[present].reshape(-1), 16).take(_places(present))


def _places(present: NDArray[np.bool_]) -> pa.Array:
    """For each row its place among those present."""
    return pa.array(np.cumsum(present) - 1, mask=~present)


def _texts(numbers: NDArray[np.int64], texts: pa.Array) -> pa.Array:
    return texts.take(pa.array(numbers, mask=numbers < 0))


def _named(numbers: NDArray[np.int64], names: tuple[str, ...]) -> pa.Array:
    """Enum numbers as their names."""
    different, places = np.unique(numbers, return_inverse=True)
    return pa.array([otlp.named(names, number) for number in different.tolist()], pa.string()).take(pa.array(places))


def _nested(request: _Scanned, is_link: int, message: Any, read: Callable[[Any], Any]) -> pa.Array:
    """Events or links as JSON."""
    parts: dict[int, list[Any]] = {}
    for row, _, place in request.nested[request.nested["is_link"] == is_link].tolist():
        parts.setdefault(row, []).append(read(message.FromString(request.bytes_at(place))))
    present = np.zeros(request.spans, np.bool_)
    present[list(parts)] = True
    return pa.array([otlp.json_text(items) for items in parts.values()], pa.string()).take(_places(present))


# Attributes.

_TYPED: Final = {column.span: index for index, column in enumerate(COLUMNS) if column.span}
_REST: Final = len(COLUMNS)
_KINDS: Final = {"text": _STRING, "bool": _BOOL, "int": _INT, "float": _DOUBLE}
_KIND_OF: Final = np.array([*(_KINDS[column.type] for column in COLUMNS), _OTHER])


def _attribute_columns(request: _Scanned) -> dict[str, pa.Array]:
    """The typed columns that attributes fill, and `attributes` with the others."""
    distinct = request.distinct
    column_of_text = np.fromiter((_TYPED.get(text, _REST) for text in request.texts), np.int16, len(request.texts))
    column_of = column_of_text[distinct["key"]]
    column_of[~_fit(distinct, column_of)] = _REST
    rows = np.repeat(np.arange(request.spans), np.diff(request.number("attributes_end"), prepend=0))
    filled = column_of[request.attributes]
    order = np.argsort(filled, kind="stable")
    ends = np.cumsum(np.bincount(filled, minlength=_REST + 1))
    places = np.empty(distinct.size, np.int64)
    columns = {}
    for index in np.unique(column_of).tolist():
        those = np.flatnonzero(column_of == index)
        places[those] = np.arange(those.size)
        cells = order[ends[index - 1] if index else 0 : ends[index]]
        at, values = rows[cells], places[request.attributes[cells]]
        if index == _REST:
            columns["attributes"] = _rest(request.json_of(those).take(pa.array(values)), at, request.spans)
        else:
            columns[COLUMNS[index].name] = _typed(request, COLUMNS[index].type, those, at, values)
    return columns


def _fit(distinct: NDArray[Any], column_of: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which attributes may fill their column, as `otlp.fits`."""
    kinds, integers, doubles = distinct["kind"], distinct["value"], distinct["value"].view(np.float64)
    fit: NDArray[np.bool_] = kinds == _KIND_OF[column_of]
    fit &= (kinds != _INT) | ((integers > -otlp.MAX_TYPED_INT) & (integers < otlp.MAX_TYPED_INT))
    fit &= (kinds != _DOUBLE) | ((doubles > -otlp.MAX_TYPED_FLOAT) & (doubles < otlp.MAX_TYPED_FLOAT))
    return fit


def _typed(request: _Scanned, kind: str, those: NDArray[Any], at: NDArray[Any], values: NDArray[Any]) -> pa.Array:
    """A column.

    Args:
        those: the different attributes that fill it.
        at: the rows that it fills.
        values: which of those fills each of these.
    """
    given = request.distinct[those]
    numbers = given["value"].view(np.float64) if kind == "float" else given["value"]
    empty = np.ones(request.spans, np.bool_)
    empty[at] = False
    cells = np.zeros(request.spans, numbers.dtype)
    cells[at] = values if kind == "text" else numbers[values]
    if kind == "text":
        texts = pa.array([request.bytes_at(place).decode() for place in given["text"].tolist()], pa.string())
        return texts.take(pa.array(cells, mask=empty))
    return pa.array(cells.astype(np.bool_) if kind == "bool" else cells, mask=empty)


def _rest(pieces: pa.Array, at: NDArray[Any], spans: int) -> pa.Array:
    """An object for each span that has such pieces."""
    counts = np.bincount(at, minlength=spans)
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), pieces), ",")
    return pc.if_else(pa.array(counts > 0), pc.binary_join_element_wise("{", joined, "}", ""), None)


# Resources and scopes.


class _Frame(NamedTuple):
    """As `otlp.protobuf_resource` and `otlp.protobuf_scope` read it."""

    schema_url: str
    resource: resource_pb2.Resource | None = None
    scope: common_pb2.InstrumentationScope | None = None


@lru_cache(maxsize=256)
def _resource(resource: bytes, schema_url: bytes) -> Shell:
    return otlp.protobuf_resource(_Frame(schema_url.decode(), resource=resource_pb2.Resource.FromString(resource)))


@lru_cache(maxsize=256)
def _scope(scope: bytes, schema_url: bytes) -> Shell:
    return otlp.protobuf_scope(_Frame(schema_url.decode(), scope=common_pb2.InstrumentationScope.FromString(scope)))


def _shells(request: _Scanned) -> list[dict[str, Any]]:
    """What resources and scopes say, for each scope."""
    resources = [_read(_resource, *map(request.bytes_at, places)) for places in request.resources.tolist()]
    shells, repeated_bytes = [], 0
    for index, scope_at, schema_at, spans in request.scopes.tolist():
        resource = resources[index]
        scope = _read(_scope, request.bytes_at(scope_at), request.bytes_at(schema_at))
        shells.append(resource.columns | scope.columns)
        repeated_bytes += spans * (resource.size_bytes + scope.size_bytes)
        otlp.check_decoded(repeated_bytes)
    return shells


def _read(cached: Any, frame: bytes, schema_url: bytes) -> Shell:
    """Read a resource or a scope, or remember it: a sender repeats its own. A large one is not kept."""
    read = cached if len(frame) <= _MAX_REMEMBERED_BYTES else cached.__wrapped__
    shell: Shell = read(frame, schema_url)
    return shell
