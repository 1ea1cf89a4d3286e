"""Decode OTLP trace requests with what is compiled: `scan.c`, and for JSON `transcode.c` before it. No I/O, no clock.

Says the same as the readable decoder, `otlp_protobuf.decode_protobuf` and `otlp_json.decode_json`, ten to twenty times
faster: property tests hold them together.
The scanner takes a request apart and numbers what is different in it.
What an attribute means is then found out once for each different one, and columns are filled from these by number.
JSON is turned into protobuf first.

There is one authority on what is rejected and why, the readable decoder.
A span in which anything is unusual (one to reject, malformed bytes, a key twice, each span of a refused resource) is
`odd`: it is read by `otlp.Batch`, and if it is taken, its row is put between the others where it belongs.
So a request costs what its odd spans cost there, and next to nothing more.
What is unusual around spans in protobuf is first written again by protobuf; in JSON, or where the request cannot be
read, all of it is left to the readable decoder.
Without a compiler at installation everything is.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError as ProtobufError
from numpy.typing import NDArray
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry.errors import IngestError
from telemetry.receiver import otlp, otlp_json, otlp_protobuf, parts
from telemetry.receiver.compiled import BOOL, DOUBLE, INT, OTHER, STRING, Scanned, Unusual, transcoded
from telemetry.receiver.otlp import Batch, Decoded, Refused, Row, Shell
from telemetry.semconv import COLUMNS, MAX_TYPED_FLOAT, MAX_TYPED_INT

_UNUSUAL: Final = (Unusual, ProtobufError, UnicodeDecodeError)
"""What leaves a whole request to the readable decoder."""
_MAX_REMEMBERED_BYTES: Final = 8192
"""A longer resource or scope, with its schema, is not remembered."""


def decode_protobuf(body: bytes, received_ns: int) -> Decoded:
    """As `otlp_protobuf.decode_protobuf`."""
    return _alone(Undecoded(body, False, received_ns))


def decode_json(body: bytes, received_ns: int) -> Decoded:
    """As `otlp_json.decode_json`."""
    return _alone(Undecoded(body, True, received_ns))


class Undecoded(NamedTuple):
    """A request that waits."""

    body: bytes
    is_json: bool
    received_ns: int


def decode_together(requests: Sequence[Undecoded], answer: Callable[[list[Decoded | IngestError]], Any]) -> None:
    """Answer what `decode_protobuf` or `decode_json` says of each request, or raises.

    One request after another in protobuf is one request. A few dozen small ones so cost little more than one of them:
    making columns takes some 3 ms, and a span 2 to 5 microseconds.
    Where one of them cannot be scanned, halving finds it, and the others are still decoded together.
    Those that come to more than one request may are halved, too, and nothing is kept of what is answered.

    Args:
        answer: takes, in turn, what is said of the next few.
    """
    if len(requests) == 1:
        answer([_outcome(requests[0])])
        return
    try:
        answer([*_joined(requests)])
        return
    except (*_UNUSUAL, IngestError):
        pass  # and let go of what was made until then
    half = len(requests) // 2
    decode_together(requests[:half], answer)
    decode_together(requests[half:], answer)


def _outcome(request: Undecoded) -> Decoded | IngestError:
    try:
        return _alone(request)
    except IngestError as error:
        return error


def _alone(request: Undecoded) -> Decoded:
    try:
        return _joined([request])[0]
    except _UNUSUAL:
        decode = otlp_json.decode_json if request.is_json else otlp_protobuf.decode_protobuf
        return decode(request.body, request.received_ns)


class _Framed(NamedTuple):
    """A request whose spans are counted, and within limits."""

    request: Undecoded
    scanned: Scanned
    json_places: NDArray[np.int64] | None
    """Where each span begins in JSON."""


def _framed(request: Undecoded) -> _Framed:
    if not request.is_json:
        return _Framed(request, _counted(request.body), None)
    parts.check_json(request.body)
    body, places = transcoded(request.body)
    return _Framed(request, _counted(body), places)


def _counted(body: bytes) -> Scanned:
    otlp_protobuf.check_parts(body)
    try:
        request = Scanned(body)
    except Unusual:
        request = Scanned(otlp_protobuf.rewritten(body))
    parts.check_repeated(request.resource_count, "resources")
    parts.check_repeated(request.scope_count, "scopes")
    otlp.check_spans(request.spans)
    return request


def _joined(requests: Sequence[Undecoded]) -> list[Decoded]:
    # Each is walked by itself first, so that none can reach into the next.
    framed = [_framed(request) for request in requests]
    one = framed[0].scanned if len(framed) == 1 else _counted(b"".join(each.scanned.body for each in framed))
    one.scan()
    shells = _shells(one)
    spans = [each.scanned.spans for each in framed]
    table = _table(one, shells, np.repeat([request.received_ns for request in requests], spans))
    decoded, usual_end = [], 0
    for each, count, end in zip(framed, spans, np.cumsum(spans).tolist(), strict=True):
        rows = slice(end - count, end)
        usual = count - int(np.count_nonzero(one.odd[rows]))
        own = table.slice(usual_end, usual)
        usual_end += usual
        decoded.append(Decoded(own, ()) if usual == count else _completed(each, own, one, shells, rows))
    return decoded


def _completed(each: _Framed, usual: pa.Table, one: Scanned, shells: Sequence[Shell | Refused], rows: slice) -> Decoded:
    """One of the requests, with what the readable decoder says of its odd spans.

    Args:
        usual: its other spans.
        one: the request in which it is scanned.
        shells: by scope of that.
        rows: its spans in that.
    """
    is_odd, scopes = one.odd[rows], one.number("scope")[rows]
    odd, others = np.flatnonzero(is_odd), np.flatnonzero(~is_odd)
    batch = Batch(each.request.received_ns, _repeated_bytes(_giving(shells, scopes[others])))
    read, spans = _readable(each, one, rows, odd)
    taken = [
        row
        for row, scope, span in zip(odd.tolist(), scopes[odd].tolist(), spans, strict=True)
        if batch.add(shells[scope], read, span)
    ]
    decoded = batch.decoded()
    if not others.size:
        return decoded
    if not taken:
        return Decoded(usual, decoded.rejected)
    order = np.argsort(np.concatenate([others, taken]))
    table = pa.concat_tables([usual, decoded.table]).take(pa.array(order)).combine_chunks()
    return Decoded(table, decoded.rejected)


def _readable(
    each: _Framed, one: Scanned, rows: slice, odd: NDArray[np.int64]
) -> tuple[Callable[[Any], Row], Iterator[Any]]:
    """How the readable decoder reads a span, and what it reads."""
    if each.json_places is None:
        places = (one.number(name)[rows][odd].tolist() for name in ("offset", "size"))
        return otlp_protobuf.read_span, map(one.bytes_at, zip(*places, strict=True))
    places = (each.json_places[at].tolist() for at in (odd, odd + 1))  # a span ends before the next one begins
    texts = (each.request.body[begin:end].decode() for begin, end in zip(*places, strict=True))
    return otlp_json.read_span, map(otlp_json.object_at, texts)


_Giving = list[tuple[Shell, int]]
"""What a resource and a scope say, and how many spans it is said of."""


def _giving(shells: Sequence[Shell | Refused], scopes: NDArray[np.int64]) -> _Giving:
    """
    Args:
        shells: by scope.
        scopes: of spans that are not odd, in their order.
    """
    used, counts = np.unique(scopes, return_counts=True)
    of_used = ((shells[scope], count) for scope, count in zip(used.tolist(), counts.tolist(), strict=True))
    return [(shell, count) for shell, count in of_used if isinstance(shell, Shell)]


def _repeated_bytes(giving: _Giving) -> int:
    return sum(shell.size_bytes * count for shell, count in giving)


def _table(request: Scanned, shells: Sequence[Shell | Refused], received_ns: NDArray[np.int64]) -> pa.Table:
    """The spans that are not odd; which are is known then.

    Args:
        shells: by scope.
        received_ns: of each span.

    Raises:
        PayloadTooLarge: resources and scopes, repeated on these, are larger than is taken.
    """
    if not request.spans:
        return otlp.SPANS_SCHEMA.empty_table()
    scopes = request.number("scope")
    request.odd |= np.array([isinstance(shell, Refused) for shell in shells])[scopes]
    columns = _span_columns(request) | _attribute_columns(request)
    columns["received_ns"] = pa.array(received_ns)
    if request.odd.any():
        usual = pa.array(~request.odd)
        columns = {name: column.filter(usual) for name, column in columns.items()}
        scopes = scopes[~request.odd]
    giving = _giving(shells, scopes)
    otlp.check_decoded(_repeated_bytes(giving))
    columns |= _inherited(columns, giving)
    arrays = [
        columns[field.name] if field.name in columns else otlp.nulls(scopes.size, field.type)
        for field in otlp.SPANS_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=otlp.SPANS_SCHEMA)


def _inherited(columns: dict[str, pa.Array], giving: _Giving) -> dict[str, pa.Array]:
    """What resources and scopes say, repeated on each of their spans that does not say it itself."""
    indices = pa.array(np.repeat(np.arange(len(giving)), [count for _, count in giving]))
    made = {}
    for name in {name for shell, _ in giving for name, value in shell.columns.items() if value is not None}:
        values = pa.array([shell.columns.get(name) for shell, _ in giving], otlp.SPANS_SCHEMA.field(name).type)
        inherited = pa.repeat(values[0], len(indices)) if len(giving) == 1 else values.take(indices)
        made[name] = pc.coalesce(columns[name], inherited) if name in columns else inherited
    return made


def _times(request: Scanned, name: str) -> pa.Array:
    """Points in time."""
    values = request.number(name)
    request.odd |= values.view(np.uint64) >= otlp.MAX_TIME_NS
    return pa.array(values)


def _counts(values: NDArray[np.int64]) -> pa.Array:
    """Counts and flags, of which zero says nothing."""
    return pa.array(values, mask=values == 0) if values.any() else otlp.nulls(len(values), pa.int64())


def _span_columns(request: Scanned) -> dict[str, pa.Array]:
    texts = pa.array(request.texts, pa.string())
    return {
        "trace_id": _ids(request.trace_ids, 32),
        "span_id": _ids(request.span_ids, 16),
        "parent_span_id": _parents(request),
        "trace_state": _texts(request.number("trace_state"), texts),
        "flags": _counts(request.number("flags")),
        "name": _texts(request.number("name"), texts).fill_null(""),
        "kind": _named(request.number("kind"), otlp.KINDS),
        "start_ns": _times(request, "start"),
        "end_ns": _times(request, "end"),
        "status_code": _named(request.number("status"), otlp.STATUS_CODES),
        "status_message": _texts(request.number("message"), texts),
        "dropped_attributes_count": _counts(request.number("dropped_attributes_count")),
        "events": _nested(request, 0, trace_pb2.Span.Event, otlp_protobuf.event),
        "dropped_events_count": _counts(request.number("dropped_events_count")),
        "links": _nested(request, 1, trace_pb2.Span.Link, otlp_protobuf.link),
        "dropped_links_count": _counts(request.number("dropped_links_count")),
    }


def _ids(characters: NDArray[np.uint8], length: int) -> pa.StringArray:
    offsets = np.arange(0, characters.size + 1, length, dtype=np.int32)
    return pa.StringArray.from_buffers(offsets.size - 1, pa.py_buffer(offsets), pa.py_buffer(characters))


def _parents(request: Scanned) -> pa.StringArray:
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


def _nested(request: Scanned, is_link: int, message: Any, read: Callable[[Any], Any]) -> pa.Array:
    """Events or links as JSON."""
    found: dict[int, list[Any]] = {}
    for row, _, place in request.nested[request.nested["is_link"] == is_link].tolist():
        try:
            item = read(message.FromString(request.bytes_at(place)))
        except (ProtobufError, Refused):
            request.odd[row] = True
        else:
            found.setdefault(row, []).append(item)
    present = np.zeros(request.spans, np.bool_)
    present[list(found)] = True
    return pa.array([otlp.json_text(items) for items in found.values()], pa.string()).take(_places(present))


# Attributes.

_TYPED: Final = {column.span: index for index, column in enumerate(COLUMNS) if column.span}
_REST: Final = len(COLUMNS)
_KINDS: Final = {"text": STRING, "bool": BOOL, "int": INT, "float": DOUBLE}
_KIND_OF: Final = np.array([*(_KINDS[column.type] for column in COLUMNS), OTHER])


def _attribute_columns(request: Scanned) -> dict[str, pa.Array]:
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
            pieces = _json_of(request, those).take(pa.array(values))
            request.odd[at[pieces.is_null().to_numpy(zero_copy_only=False)]] = True
            columns["attributes"] = _rest(pieces, at, request.spans)
        else:
            columns[COLUMNS[index].name] = _typed(request, COLUMNS[index].type, those, at, values)
    return columns


def _fit(distinct: NDArray[Any], column_of: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which attributes may fill their column, as `otlp.fits`."""
    kinds, integers, doubles = distinct["kind"], distinct["value"], distinct["value"].view(np.float64)
    fit: NDArray[np.bool_] = kinds == _KIND_OF[column_of]
    fit &= (kinds != INT) | ((integers > -MAX_TYPED_INT) & (integers < MAX_TYPED_INT))
    fit &= (kinds != DOUBLE) | ((doubles > -MAX_TYPED_FLOAT) & (doubles < MAX_TYPED_FLOAT))
    return fit


def _typed(request: Scanned, kind: str, those: NDArray[Any], at: NDArray[Any], values: NDArray[Any]) -> pa.Array:
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


def _json_of(request: Scanned, attributes: NDArray[np.int64]) -> pa.StringArray:
    """Each of these different attributes as `"key":value`; null if the readable decoder must look at it."""
    kinds = request.distinct["kind"][attributes]
    simple = (kinds >= STRING) & (kinds <= INT)
    texts = request.written(attributes[simple].astype(np.int32))
    if simple.all():
        return texts
    left = request.distinct[attributes[~simple]]
    doubles = left["value"].view(np.float64)
    keys = {key: str(otlp.json_text([request.texts[key]]))[1:-1] for key in set(left["key"].tolist())}
    others = [
        f"{keys[key]}:{double!r}" if finite else _other_json(request.bytes_at(place))
        for place, key, finite, double in zip(
            left["place"],
            left["key"].tolist(),
            (np.isfinite(doubles) & (left["kind"] == DOUBLE)).tolist(),
            doubles.tolist(),
            strict=True,
        )
    ]
    return pc.replace_with_mask(
        pc.replace_with_mask(pa.nulls(simple.size, pa.string()), pa.array(simple), texts),
        pa.array(~simple),
        pa.array(others, pa.string()),
    )


def _other_json(attribute: bytes) -> str | None:
    try:
        pair = common_pb2.KeyValue.FromString(attribute)
        value = otlp_protobuf.any_value(pair.value)
    except (ProtobufError, Refused):
        return None
    if pair.key in _TYPED and otlp.fits(COLUMNS[_TYPED[pair.key]].type, value):
        return None  # a value among fields that OTLP does not know, or given twice
    return str(otlp.json_text({pair.key: value}))[1:-1]


def _rest(pieces: pa.Array, at: NDArray[Any], spans: int) -> pa.Array:
    """An object for each span that has such pieces."""
    counts = np.bincount(at, minlength=spans)
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), pieces), ",")
    return pc.if_else(pa.array(counts > 0), pc.binary_join_element_wise("{", joined, "}", ""), None)


# Resources and scopes.


class _Frame(NamedTuple):
    """As `otlp_protobuf.read_resource` and `otlp_protobuf.read_scope` read it."""

    schema_url: str
    resource: resource_pb2.Resource | None = None
    scope: common_pb2.InstrumentationScope | None = None


@lru_cache(maxsize=256)
def _resource(resource: bytes, schema_url: bytes) -> Shell:
    return otlp_protobuf.read_resource(_Frame(schema_url.decode(), resource=resource_pb2.Resource.FromString(resource)))


@lru_cache(maxsize=256)
def _scope(scope: bytes, schema_url: bytes) -> Shell:
    read = common_pb2.InstrumentationScope.FromString(scope)
    return otlp_protobuf.read_scope(_Frame(schema_url.decode(), scope=read))


def _shells(request: Scanned) -> list[Shell | Refused]:
    """What resources and scopes say, for each scope."""
    resources = [_read(_resource, *map(request.bytes_at, places)) for places in request.resources.tolist()]
    return [
        otlp.joined(resources[index], _read(_scope, request.bytes_at(scope_at), request.bytes_at(schema_at)))
        for index, scope_at, schema_at, _ in request.scopes.tolist()
    ]


def _read(cached: Any, frame: bytes, schema_url: bytes) -> Shell | Refused:
    """Read a resource or a scope, or remember it: a sender repeats its own. A large one is not kept."""
    read = cached if len(frame) + len(schema_url) <= _MAX_REMEMBERED_BYTES else cached.__wrapped__
    return otlp.reading(lambda given: read(*given), (frame, schema_url))
