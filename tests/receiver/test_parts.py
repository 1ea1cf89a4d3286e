"""Bombs of many small parts are refused before they unfold; what senders send is not."""

import contextlib
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2

from telemetry.errors import PayloadTooLarge
from telemetry.receiver import compiled, otlp_json, otlp_protobuf, parts, scanner
from telemetry.receiver.answers import not_kept_response
from tests.support.otlp import RECEIVED_NS, Request, mutated, request, requests, span, to_json
from tests.support.traffic import foreign, own


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    size, at = bytearray(), len(content)
    while at > 127:
        size.append(at & 127 | 128)
        at >>= 7
    return bytes([number << 3 | 2, *size, at]) + content


def around(content: bytes, *numbers: int) -> bytes:
    """A message within messages, the outermost number first."""
    for number in reversed(numbers):
        content = field(number, content)
    return content


@pytest.mark.parametrize(
    ("numbers", "unit"),
    [
        ((1, 2, 2), b"\x4a\x00"),
        ((1, 2, 2), b"\x4a\x02\x12\x00"),
        ((1, 2, 2), b"\x5a\x00"),
        ((1, 2, 2), b"\x6a\x00"),
        ((1, 2, 2), b"\x7a\x00"),
        ((1, 2, 2, 11), b"\x1a\x00"),
        ((1, 2, 2, 9, 2, 5), b"\x0a\x00"),
        ((1, 2, 2, 9, 2, 6), b"\x0a\x00"),
        ((1, 1), b"\x0a\x00"),
        ((1, 1, 3), b"\x1a\x00"),
        ((1, 1, 3), b"\x22\x00"),
        ((1, 2, 1), b"\x1a\x00"),
        ((1, 2), b"\x12\x00"),
    ],
)
def test_bomb_of_empty_messages(monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], unit: bytes) -> None:
    """Wherever a message may be repeated, more of them than the limit are refused, and no fewer."""
    monkeypatch.setattr(parts, "MAX_PARTS", 1000)
    bodies = [around(unit * count, *numbers) for count in (3000, 1010)]

    for body in bodies:
        with pytest.raises(PayloadTooLarge, match="more than 1000 parts"):
            parts.check_protobuf(body + bytes([8, 0]) * 1000, Request.DESCRIPTOR)
    parts.check_protobuf(around(unit * 400, *numbers) + bytes([8, 0]) * 2000, Request.DESCRIPTOR)


def test_bomb_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that take eight times as much memory as a body are counted by eight; those that take as much are not."""
    monkeypatch.setattr(parts, "MAX_PARTS", 1000)
    buckets = (1, 2, 2, 10, 1, 8)  # of an exponential histogram: varints
    bounds = (1, 2, 2, 9, 1)  # of a histogram: doubles

    with pytest.raises(PayloadTooLarge):
        not_kept_response("metrics", around(field(2, bytes(8000)), *buckets), "protobuf")
    for numbers, content in ((buckets, field(2, bytes(7000))), (bounds, field(7, bytes(80_000)))):
        assert not_kept_response("metrics", around(content, *numbers), "protobuf")[1] == 1


def test_malformed_span_hides_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read, a group in a span, ends its own message only: what stands behind it is counted."""
    monkeypatch.setattr(parts, "MAX_PARTS", 1000)
    body = around(field(2, b"\x0b") + field(2, b"\x5a\x00" * 3000), 1, 2)

    with pytest.raises(PayloadTooLarge, match="more than 1000 parts"):
        parts.check_protobuf(body, Request.DESCRIPTOR)
    assert parts.count_slowly(body, parts._inner(Request.DESCRIPTOR)) > 1000


@pytest.mark.parametrize(("numbers", "what"), [((), "resources"), ((1,), "scopes")])
def test_many_resources_or_scopes(monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], what: str) -> None:
    """Resources and scopes, which are read one by one, have a limit of their own, in either encoding."""
    monkeypatch.setattr(parts, "MAX_REPEATED", 100)
    body = around((b"\x12\x00" if numbers else b"\x0a\x00") * 101, *numbers)
    frames = [{"scopeSpans": [{}] * 101}] if numbers else [{}] * 101
    text = str({"resourceSpans": frames}).replace("'", '"').encode()

    for decoder in (otlp_protobuf, scanner):
        with pytest.raises(PayloadTooLarge, match=what):
            decoder.decode_protobuf(body, RECEIVED_NS)
    with pytest.raises(PayloadTooLarge, match=what):
        otlp_json.decode_json(text, RECEIVED_NS)


def test_bomb_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON of too many objects or lists is refused before it is parsed."""
    monkeypatch.setattr(parts, "MAX_PARTS", 1000)

    for text in (b'{"a":[' + b"{}," * 1000 + b"{}]}", b"[" * 1001):
        with pytest.raises(PayloadTooLarge):
            otlp_json.decode_json(text, RECEIVED_NS)


@pytest.mark.parametrize("unit", [b"1", b'""', b'"":1', b"[]"])
def test_bomb_of_json_values(monkeypatch: pytest.MonkeyPatch, unit: bytes) -> None:
    """Lists and objects of too many texts or numbers are refused, too; commas in texts count for nothing."""
    monkeypatch.setattr(parts, "MAX_PARTS", 1000)
    monkeypatch.setattr(parts, "MAX_VALUES", 900)
    opening, closing = (b"{", b"}") if b":" in unit else (b'{"":[', b"]}")
    bomb = opening + (unit + b",") * 901 + unit + closing
    harmless = opening + (unit + b",") * 900 + unit + closing

    with pytest.raises(PayloadTooLarge, match="more than 900 values"):
        otlp_json.read_json(bomb)
    assert otlp_json.read_json(harmless)
    assert otlp_json.read_json(b'{"":"' + b",[" * 5000 + b'"}')


def test_bomb_of_escapes() -> None:
    """A text of nothing but escapes takes no more memory to look at than it has bytes."""
    body = b'{"":"' + b"\\n" * 2 * parts._STEP + b'"}'
    tracemalloc.start()
    try:
        depth = parts.json_depth(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert depth == 1
    assert peak_bytes < 16 * parts._STEP


values = st.recursive(
    st.one_of(st.integers(), st.text(alphabet='{}[],"\\n\n\u2028')),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(alphabet='{"\\,', max_size=3), inner)),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(values, st.integers(2, 40), st.booleans(), st.sampled_from([compiled.look_at_json, parts.look_slowly]))
def test_json_is_counted_in_pieces(value: Any, step: int, ascii_only: bool, look: Any) -> None:
    """Depth, parts and values of JSON are what a parser finds, wherever the pieces end that it is looked at in."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    depth, brackets, commas = _shape(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "look_at_json", look if compiled.available() else parts.look_slowly)
        patch.setattr(parts, "_STEP", step)
        patch.setattr(parts, "MAX_PARTS", brackets)
        patch.setattr(parts, "MAX_VALUES", commas)
        assert parts.json_depth(body) == depth
        for name, count in (("MAX_PARTS", brackets), ("MAX_VALUES", commas)):
            with pytest.MonkeyPatch.context() as lower:
                lower.setattr(parts, name, count - 1)
                with pytest.raises(PayloadTooLarge):
                    parts.json_depth(body)


@pytest.mark.skipif(not compiled.available(), reason="there was no C compiler")
@settings(max_examples=500, deadline=None)
@given(st.lists(st.text(alphabet='{}[],"\\nx').map(str.encode) | st.binary(max_size=20), max_size=4))
def test_what_is_no_json_is_counted_alike(pieces: list[bytes]) -> None:
    """Whatever a body is, it has the same shape with a compiler and without, from any shape before it."""
    shapes = np.zeros((2, 5), np.int64)
    for piece in pieces:
        compiled.look_at_json(piece, shapes[0])
        parts.look_slowly(piece, shapes[1])

        assert shapes[0].tolist() == shapes[1].tolist()


def _shape(value: Any) -> tuple[int, int, int]:
    """How deep a value is, how many lists and objects it has, and how many commas stand between what is in them."""
    if not isinstance(value, (list, dict)):
        return 0, 0, 0
    inner = [_shape(item) for item in (value.values() if isinstance(value, dict) else value)]
    depths, brackets, commas = zip(*inner, strict=True) if inner else ((0,), (0,), (0,))
    return 1 + max(depths), 1 + sum(brackets), sum(commas) + max(len(inner) - 1, 0)


@pytest.mark.parametrize("signal", ["logs", "metrics"])
def test_bomb_of_what_is_not_kept(monkeypatch: pytest.MonkeyPatch, signal: Any) -> None:
    """Logs and metrics have the same limit."""
    monkeypatch.setattr(parts, "MAX_PARTS", 1000)

    with pytest.raises(PayloadTooLarge):
        not_kept_response(signal, around(b"\x12\x00" * 2000, 1, 2), "protobuf")


@pytest.mark.parametrize("make", [own, foreign])
def test_usual_requests_pass(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """As many spans as senders put into one request, scaled with the limit, are far from it."""
    monkeypatch.setattr(parts, "MAX_PARTS", parts.MAX_PARTS // 100)
    monkeypatch.setattr(parts, "MAX_VALUES", parts.MAX_VALUES // 100)
    message = make(500)
    body = message.SerializeToString()
    assert len(body) > 2 * parts.MAX_PARTS  # so that it is looked at

    parts.check_protobuf(body, Request.DESCRIPTOR)
    parts.check_json(to_json(request(*message.resource_spans[0].scope_spans[0].spans)))


@settings(max_examples=100, deadline=None)
@given(st.one_of(mutated(requests.map(lambda message: message.SerializeToString())), st.binary(max_size=200)))
def test_any_bytes(body: bytes) -> None:
    """Whatever bytes arrive, looking at them ends, with the one error that it may raise, and what is compiled counts as
    many parts as what is not."""
    for kind in (Request, logs_service_pb2.ExportLogsServiceRequest, metrics_service_pb2.ExportMetricsServiceRequest):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "MAX_PARTS", 3)
            with contextlib.suppress(PayloadTooLarge):
                parts.check_protobuf(body, kind.DESCRIPTOR)
        assert parts.count_protobuf(body, kind.DESCRIPTOR) == parts.count_slowly(body, parts._inner(kind.DESCRIPTOR))


def test_counts_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with as many parts as the limit passes, one more does not."""
    body = request(span(events=[{"name": "e"}] * 7, status={"code": 2})).SerializeToString()
    exact = 1 + 1 + 1 + 1 + 7 + 1  # ResourceSpans, Resource, ScopeSpans, Span, its events, its status
    padded = body + bytes([8, 0]) * 100

    monkeypatch.setattr(parts, "MAX_PARTS", exact)
    parts.check_protobuf(padded, Request.DESCRIPTOR)
    monkeypatch.setattr(parts, "MAX_PARTS", exact - 1)
    with pytest.raises(PayloadTooLarge):
        parts.check_protobuf(padded, Request.DESCRIPTOR)
