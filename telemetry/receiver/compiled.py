"""Call what is compiled of the receiver, `scan.c` and `transcode.c`. No I/O, no clock.

It is compiled at installation, where there is a C compiler. Without it, everything here says `Unusual`: the decoders in
Python do all that is compiled, and slower.
"""

import ctypes
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FIELDS: Final = 32
"""`count_parts` knows fields of smaller numbers. As in scan.c."""

# As in scan.c.
NUMBERS: Final = (
    "start", "end", "kind", "flags", "status", "dropped_attributes_count", "dropped_events_count",
    "dropped_links_count", "name", "trace_state", "message", "has_parent", "scope", "attributes_end", "odd", "offset",
    "size",
)  # fmt: skip
OTHER, STRING, BOOL, INT, DOUBLE = range(5)
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
    room, size = ctypes.c_void_p, ctypes.c_int64
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name("_scan.so")))
        library.count_parts.argtypes = (ctypes.c_char_p, size, room, size)
        library.transcode.argtypes = (ctypes.c_char_p, size, room, size, room, size)
        library.json_shape.argtypes = (ctypes.c_char_p, size, room)
        numbers = size.in_dll(library, "scan_numbers").value
    except (OSError, AttributeError, ValueError):  # there is none, or it was made of other sources
        return None
    if numbers != len(NUMBERS):
        return None
    library.scan_write.argtypes = (room, room, room, room, size)
    library.count_parts.restype = library.transcode.restype = size
    library.scan_write.restype = library.json_shape.restype = None
    return library


_LIBRARY: Final = _load()
_SEED: Final = (ctypes.c_uint64 * 2).from_buffer_copy(os.urandom(16))
"""So that nobody can make a request whose attributes collide."""


class Unusual(Exception):
    """Something for the decoders in Python."""


def available() -> bool:
    """Whether there was a C compiler."""
    return _LIBRARY is not None


def count_parts(body: bytes, inner: NDArray[np.int16], limit: int) -> int:
    """How many parts a message in protobuf holds at all levels; counting ends past the limit.

    Args:
        inner: by message, from the outermost, and field number: what the field holds, as `parts` says it.

    Raises:
        Unusual: this is not compiled.
    """
    if _LIBRARY is None:
        raise Unusual
    return int(_LIBRARY.count_parts(body, len(body), inner.ctypes.data, limit))


def look_at_json(piece: bytes, shape: NDArray[np.int64]) -> None:
    """Add to a shape what a piece of JSON has, as `parts` says it.

    Raises:
        Unusual: this is not compiled.
    """
    if _LIBRARY is None:
        raise Unusual
    _LIBRARY.json_shape(piece, len(piece), shape.ctypes.data)


def transcoded(body: bytes) -> tuple[bytes, NDArray[np.int64]]:
    """A trace request in JSON as the same request in protobuf, and where each of its spans begins in the JSON.

    A span that cannot be turned has no fields.

    Raises:
        Unusual: what is around the spans cannot be turned, or this is not compiled.
    """
    if _LIBRARY is None:
        raise Unusual
    room = np.empty(2 * len(body) + 64, np.uint8)  # five bytes of protobuf for three of JSON, "{}," in a list
    spans = np.full(body.count(b"{"), len(body))
    size = _LIBRARY.transcode(body, len(body), room.ctypes.data, room.size, spans.ctypes.data, spans.size)
    if size < 0:
        raise Unusual
    return room[:size].tobytes(), spans


class Scanned:
    """A request in protobuf taken apart.

    It is made with counts alone, to be checked by the caller; `scan` takes room in proportion, some 130 bytes for each
    attribute, of which `parts.MAX_PARTS` is the limit.
    Spans that are unusual are `odd`: of what else is said of them only scope, offset and size mean something.

    Raises:
        Unusual: what is around the spans is unusual, or this is not compiled.
    """

    def __init__(self, body: bytes) -> None:
        if _LIBRARY is None:
            raise Unusual
        self.body = body
        self._library = _LIBRARY
        self._kept: list[NDArray[Any]] = []
        """What the scanner has pointers to."""
        self._request = request = _Request(body=body, size=len(body), seed=_SEED)
        if _LIBRARY.scan_count(ctypes.byref(request)):
            raise Unusual
        self.spans: int = request.spans
        self.resource_count: int = request.resources
        self.scope_count: int = request.scopes

    def scan(self) -> "Scanned":
        """Take it apart; once.

        Raises:
            Unusual: it cannot be.
        """
        request, spans = self._request, self.spans
        texts = 3 * spans + request.attributes
        self.numbers = self._room("numbers", (len(NUMBERS), spans), np.int64)
        self.trace_ids = self._room("trace_ids", 32 * spans, np.uint8)
        self.span_ids = self._room("span_ids", 16 * spans, np.uint8)
        self.parent_ids = self._room("parent_ids", (spans, 16), np.uint8)
        self.resources = self._room("resource", request.resources, _RESOURCE)
        self.scopes = self._room("scope", request.scopes, _SCOPE)
        nested = self._room("nest", request.nested, _NESTED)
        attributes = self._room("attribute", request.attributes, np.int32)
        text = self._room("text", texts, np.dtype(_PLACE))
        distinct = self._room("distinct", request.attributes, _ATTRIBUTE)
        self._slots("text", texts)
        self._slots("distinct", request.attributes)
        self._point("last_row", np.zeros(texts, np.int64))
        if self._library.scan_fill(ctypes.byref(request)):
            raise Unusual
        self.texts = [self.body[at : at + size].decode() for at, size in text[: request.texts].tolist()]
        self.distinct = distinct[: request.distincts]
        self.nested, self.attributes = nested[: request.nested], attributes[: request.attributes]
        self.odd = self.number("odd").astype(np.bool_)
        return self

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
        numbers: NDArray[np.int64] = self.numbers[NUMBERS.index(name)]
        return numbers

    def bytes_at(self, place: Any) -> bytes:
        """What stands there."""
        offset, size = place
        return self.body[offset : offset + size]

    def written(self, attributes: NDArray[np.int32]) -> pa.StringArray:
        """Each of these different attributes, of kind `STRING`, `BOOL` or `INT`, as `"key":value` in JSON."""
        out = np.empty(int(self.distinct["place"]["size"][attributes].sum()) * 6 + 32 * attributes.size, np.uint8)
        ends = np.zeros(attributes.size + 1, np.int32)
        places = (attributes.ctypes.data, out.ctypes.data, ends[1:].ctypes.data)
        self._library.scan_write(ctypes.byref(self._request), *places, attributes.size)
        return pa.StringArray.from_buffers(attributes.size, pa.py_buffer(ends), pa.py_buffer(out))
