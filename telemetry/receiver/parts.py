"""Refuse requests that are made of more parts than memory is meant for. Pure: no I/O, no clock.

Two bytes make an empty message, and a decoder spends a hundred times as much on it.
So a body that is small enough as bytes may still be a bomb: 64 MiB of empty messages took minutes and more than 8 GB.
What is counted is messages in protobuf, objects and lists in JSON.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from telemetry.errors import PayloadTooLarge

MAX_PARTS: Final = 2_000_000
"""An attribute is two parts, so a request of 64 MiB with attributes of usual size stays below.
As many empty events, the dearest, take 0.5 GB for a moment; one such request is decoded at a time."""
MAX_REPEATED: Final = 50_000
"""Resources, or scopes, of one request: each is read into columns in Python. Collectors send 8,192 at most."""


def check_json(body: bytes) -> None:
    """Look at OTLP's JSON.

    Raises:
        PayloadTooLarge: it has too many parts. Brackets in texts are counted too, which no usual text has so many of.
    """
    if len(body) > MAX_PARTS:
        _check(body.count(b"{") + body.count(b"["), MAX_PARTS, "parts")


def check_protobuf(body: bytes, message: Descriptor) -> None:
    """Look at a request in binary protobuf; what cannot be read is left to the decoder to refuse.

    Args:
        message: what the body says it is.

    Raises:
        PayloadTooLarge: it has too many parts.
    """
    _check_repeated(body, message)
    if len(body) <= 2 * MAX_PARTS:
        return
    at, end, inner = 0, len(body), _inner(message)
    around: list[tuple[int, Mapping[int, Any]]] = []
    parts = 0
    try:
        while True:
            while at >= end:
                if not around:
                    return
                end, inner = around.pop()
            number, at, until = _field(body, at)
            child = inner.get(number)
            if child is None or until > end:
                at = until
                continue
            parts += 1
            if parts > MAX_PARTS:
                _check(parts, MAX_PARTS, "parts")
            around.append((end, inner))
            end, inner = until, _inner(child)
    except (IndexError, ValueError):
        return


def _check_repeated(body: bytes, message: Descriptor) -> None:
    """Count resources and scopes; each list of scopes for itself, and then all of them."""
    resources = scopes = at = 0
    try:
        while at < len(body):
            number, at, until = _field(body, at)
            if number == 1:
                resources += 1
                check_repeated(resources, "resources")
                while at < until:
                    inner, _, at = _field(body, at)
                    scopes += inner == 2
                    check_repeated(scopes, "scopes")
            at = until
    except (IndexError, ValueError):
        return


@cache
def _inner(message: Descriptor) -> Mapping[int, Any]:
    """The messages that a message holds, by field number."""
    return {field.number: field.message_type for field in message.fields if field.message_type is not None}


def _field(body: bytes, at: int) -> tuple[int, int, int]:
    """A field's number, where what it holds begins, and where that ends.

    Raises:
        IndexError, ValueError: it cannot be read.
    """
    tag, at = _varint(body, at)
    wire = tag & 7
    if wire == 2:
        size, at = _varint(body, at)
        return tag >> 3, at, at + size
    if wire == 0:
        return 0, at, _varint(body, at)[1]
    if wire in (1, 5):
        return 0, at, at + (8 if wire == 1 else 4)
    raise ValueError


def _varint(body: bytes, at: int) -> tuple[int, int]:
    byte = body[at]
    at += 1
    if byte < 128:
        return byte, at
    value, shift = byte & 127, 7
    while shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError


def check_repeated(count: int, what: str) -> None:
    """Raise PayloadTooLarge if there are too many resources, or scopes."""
    _check(count, MAX_REPEATED, what)


def _check(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise PayloadTooLarge(
            f"the request has more than {limit} {what}; send smaller batches", size_bytes=count, limit_bytes=limit
        )
