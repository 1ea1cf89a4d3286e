"""Refuse requests that are made of more parts than memory is meant for. Pure: no I/O, no clock.

Two bytes make an empty message, and a decoder spends a hundred times as much on it.
So a body that is small enough as bytes may still be a bomb: 64 MiB of empty messages took minutes and more than 8 GB.
What is counted is messages, and what of texts and numbers is listed, in protobuf; in JSON objects, lists and what is in
them.
"""

from functools import cache
from typing import Final

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from numpy.typing import NDArray

from telemetry.errors import PayloadTooLarge
from telemetry.receiver import compiled

MAX_PARTS: Final = 2_000_000
"""An attribute is two parts, so usual spans reach it at some 30 to 45 MB; Collectors send a few MB at once.
As many empty events, the dearest, take 0.5 GB for a moment; one such request is decoded at a time."""
MAX_REPEATED: Final = 50_000
"""Resources, or scopes, of one request: each is read into columns in Python. Collectors send 8,192 at most."""
MAX_VALUES: Final = 2 * MAX_PARTS
"""In JSON, of lists and objects: a text or number that comes alone is no part, and costs up to a fourth of one.
A request of 64 MiB with usual spans has half as many commas."""
_STEP: Final = 1024 * 1024
"""Bytes of JSON that are looked at together: more would take more memory, and nobody else's turn for longer."""
_DEEPER: Final = np.zeros(256, np.int8)
"""By octet of JSON outside of texts: how much deeper what follows is."""
_DEEPER[[*b"{["]], _DEEPER[[*b"}]"]] = 1, -1
_IN_TEXT, _DEPTH, _MOST_DEPTH, _BRACKETS, _COMMAS = range(5)
"""The shape of JSON, as far as it was looked at: in a text or not, and outside of texts how deep it is and was at the
most, what was opened, and commas. As in transcode.c."""
_DEEPEST: Final = 100
"""Protobuf itself refuses what is deeper. As in scan.c."""
_LONGEST: Final = 10
"""A varint, in bytes. As in scan.c."""
_LONGEST_FRAME: Final = 5
"""A tag or a size: protobuf itself refuses what is written with more. As in scan.c."""
_NOTHING: Final = -1
"""To count. As in scan.c."""
_LISTED: Final = -2
"""A text of many, or many numbers: one part, and one more for each 8 bytes. As in scan.c.
A number of one byte takes eight, a text of none as much as a small message."""
_AS_LARGE: Final = (
    FieldDescriptor.TYPE_DOUBLE,
    FieldDescriptor.TYPE_FLOAT,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_FIXED32,
    FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_SFIXED32,
)
"""Numbers that take as much in memory as in a body."""

Inner = NDArray[np.int16]


def check_json(body: bytes) -> None:
    """Look at OTLP's JSON.

    Raises:
        PayloadTooLarge: it has too many parts or values.
    """
    if len(body) > MAX_PARTS:
        json_depth(body)


def json_depth(body: bytes) -> int:
    """How many objects and lists stand around one another at the most; of what is not JSON, about as many.

    Raises:
        PayloadTooLarge: it has too many parts or values.
    """
    shape = np.zeros(5, np.int64)
    at = 0
    while at < len(body):
        piece = body[at : at + _STEP]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2 and at + _STEP < len(body):
            piece = piece[:-1]  # what it escapes comes with the next piece
        at += len(piece)
        try:
            compiled.look_at_json(piece, shape)
        except compiled.Unusual:
            look_slowly(piece, shape)
        _check(int(shape[_BRACKETS]), MAX_PARTS, "parts")
        _check(int(shape[_COMMAS]), MAX_VALUES, "values")
    return int(shape[_MOST_DEPTH])


def look_slowly(piece: bytes, shape: NDArray[np.int64]) -> None:
    """As `compiled.look_at_json`, and five to twelve times as long: add to a shape what a piece of JSON has.

    Args:
        piece: does not end within an escape.
        shape: numbers as `_IN_TEXT` … `_COMMAS` name them.
    """
    # An escaped quote ends no text, nor begins one: outside of texts nothing is escaped.
    octets = np.frombuffer(piece.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    quotes = octets == ord('"')
    plain = octets[np.cumsum(quotes, dtype=np.uint8) & 1 == shape[_IN_TEXT]]
    steps = _DEEPER[plain]
    depths = shape[_DEPTH] + np.cumsum(steps, dtype=np.int64)
    shape[_IN_TEXT] ^= np.count_nonzero(quotes) & 1
    shape[_DEPTH] += steps.sum(dtype=np.int64)
    shape[_MOST_DEPTH] = depths.max(initial=shape[_MOST_DEPTH])
    shape[_BRACKETS] += np.count_nonzero(steps > 0)
    shape[_COMMAS] += np.count_nonzero(plain == ord(","))


def check_protobuf(body: bytes, message: Descriptor) -> None:
    """Look at a request in binary protobuf; what cannot be read is left to the decoder to refuse.

    Args:
        message: what the body says it is.

    Raises:
        PayloadTooLarge: it has too many parts.
    """
    if len(body) > 2 * MAX_PARTS:
        _check(count_protobuf(body, message), MAX_PARTS, "parts")


def count_protobuf(body: bytes, message: Descriptor) -> int:
    """How many parts a body holds at all levels; counting ends past `MAX_PARTS`.

    What cannot be read ends its message only: a malformed span must not hide a bomb behind it.
    """
    inner = _inner(message)
    try:
        return compiled.count_parts(body, inner, MAX_PARTS)
    except compiled.Unusual:
        return count_slowly(body, inner)


def count_slowly(body: bytes, inner: Inner) -> int:
    """As `compiled.count_parts`, a second for a million parts."""
    at, end, held, parts = 0, len(body), 0, 0
    around: list[tuple[int, int]] = []
    while True:
        try:
            number, begin, until = _field(body, at, end)
        except ValueError:
            if not around:
                return parts
            at = end
            end, held = around.pop()
            continue
        at = until
        child = int(inner[held, number]) if number < compiled.FIELDS else _NOTHING
        if child == _NOTHING:
            continue
        parts += 1 + (until - begin) // 8 if child == _LISTED else 1
        if parts > MAX_PARTS:
            return parts
        if child != _LISTED and len(around) < _DEEPEST:
            around.append((end, held))
            at, end, held = begin, until, child


@cache
def _inner(message: Descriptor) -> Inner:
    """By message, from the outermost, and field number: the message that the field holds, `_LISTED` or `_NOTHING`."""
    messages = [message]
    for owner in messages:
        messages += [found for field in owner.fields if (found := field.message_type) and found not in messages]
    inner = np.full((len(messages), compiled.FIELDS), _NOTHING, np.int16)
    for index, owner in enumerate(messages):
        for field in owner.fields:
            if field.message_type:
                inner[index, field.number] = messages.index(field.message_type)
            elif field.is_repeated and field.type not in _AS_LARGE:
                inner[index, field.number] = _LISTED
    return inner


def _field(body: bytes, at: int, end: int) -> tuple[int, int, int]:
    """A field's number, 0 if it holds no message, where what it holds begins, and where that ends.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    tag, at = _varint(body, at, end, _LONGEST_FRAME)
    wire, size = tag & 7, 0
    if wire == 2:
        size, at = _varint(body, at, end, _LONGEST_FRAME)
    elif wire == 0:
        at = _varint(body, at, end, _LONGEST)[1]
    elif wire in (1, 5):
        size = 8 if wire == 1 else 4
    else:
        raise ValueError
    if not 0 < tag >> 3 < 1 << 29 or at + size > end:
        raise ValueError
    return tag >> 3 if wire == 2 else 0, at, at + size


def _varint(body: bytes, at: int, end: int, most: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * most, 7):
        if at >= end:
            break
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128 and value < 1 << 64:
            return value, at
    raise ValueError


def check_repeated(count: int, what: str) -> None:
    """Raise PayloadTooLarge if there are too many resources, or scopes."""
    _check(count, MAX_REPEATED, what)


def _check(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise PayloadTooLarge(
            f"the request has more than {limit} {what}; send smaller batches", size_bytes=count, limit_bytes=limit
        )
