"""The compiled decoders say what the readable ones say, about any bytes."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.receiver import compiled, otlp, parts, scanner
from telemetry.receiver.otlp import Decoded
from tests.receiver.test_otlp import JSON_SPAN, JSON_THAT_IS_REJECTED, JSON_THAT_IS_TAKEN
from tests.support.otlp import RECEIVED_NS, Request, attribute, mutated, request, requests, span, to_json
from tests.support.traffic import foreign, own

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
pytestmark = pytest.mark.skipif(not compiled.available(), reason="no C compiler at installation")

Decoder = Callable[[bytes, int], Decoded]


def outcome(decode: Decoder, body: bytes) -> Any:
    """What a decoder makes of a body, or which error it raises."""
    try:
        decoded = decode(body, RECEIVED_NS)
    except (DecodeError, PayloadTooLarge) as error:
        return type(error), error.message
    decoded.table.validate(full=True)
    return decoded.table.to_pylist(), decoded.rejected


def same(body: bytes) -> None:
    """The decoders agree on a body as protobuf and as JSON, also when a resource comes for the second time."""
    for compiled_one, readable in (
        (scanner.decode_protobuf, otlp.decode_protobuf),
        (scanner.decode_json, otlp.decode_json),
    ):
        expected = outcome(readable, body)
        for _ in range(2):
            assert outcome(compiled_one, body) == expected


@QUICK
@given(requests)
def test_any_request(message: Request) -> None:
    """Any request, valid or not, has the same rows and the same rejections."""
    same(message.SerializeToString())
    same(to_json(message))


@QUICK
@given(mutated(requests.map(lambda message: message.SerializeToString())))
def test_any_bytes(body: bytes) -> None:
    """Any bytes have the same rows, the same rejections or the same error."""
    same(body)


@settings(QUICK, max_examples=150)
@given(mutated(requests.map(to_json)))
def test_any_text(body: bytes) -> None:
    """Any text has the same rows, the same rejections or the same error."""
    same(body)


@pytest.mark.parametrize(
    "attributes",
    [
        [attribute("a", 1), attribute("b", 2), attribute("a", 3)],
        [attribute("session.id", "x"), attribute("session.id", "y")],
        [attribute("session.id", "x"), attribute("session.id", 1), attribute("z", 1)],
        [attribute("session.id", 1), attribute("session.id", "x"), attribute("server.port", 4)],
        [attribute("k", "v" * 1000)],
    ],
)
def test_repeated_keys(attributes: list[Any]) -> None:
    """A key that comes twice ends in the same place with the same value."""
    message = request(span(attributes=attributes), span(attributes=[attribute("server.port", 1)]))
    same(message.SerializeToString())
    same(to_json(message))


@pytest.mark.parametrize("repeated", [b"\x2a\x02", b"\x1a\x02", b"\x7a\x04\x12\x02"])
def test_repeated_texts_stay_within_their_room(repeated: bytes) -> None:
    """A span that says its name, its state or its status again and again is left to the readable decoder."""
    texts = b"".join(repeated + f"{number:02}".encode() for number in range(50))
    body = framed(framed(framed(span().SerializeToString() + texts, b"\x12"), b"\x12"), b"\x0a")

    same(body)
    with pytest.raises(compiled.Unusual):
        compiled.Scanned(body).scan()


def framed(content: bytes, tag: bytes) -> bytes:
    """A field of 128 to 16,383 bytes."""
    return tag + bytes([len(content) & 127 | 128, len(content) >> 7]) + content


@pytest.mark.parametrize("fields", [*JSON_THAT_IS_TAKEN, *JSON_THAT_IS_REJECTED])
def test_rules_of_json(fields: dict[str, Any]) -> None:
    """What OTLP's JSON allows and forbids is the same for both, however a text is escaped."""
    tree = {"resourceSpans": [{"scopeSpans": [{"spans": [JSON_SPAN | fields, JSON_SPAN]}]}]}
    same(json.dumps(tree).encode())
    same(json.dumps(tree, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "value",
    [
        *('{"stringValue":"a"', "{}", "{,}", '{"stringValue":"a",}', '{"stringValue" "a"}', '{"stringValue":"a"}}'),
        *('{"stringValue":"\\x"}', '{"stringValue":"\\u12g4"}', '{"stringValue":"\\udc00\\ud800"}'),
        *('{"stringValue":"\\ud83d\\ude00\\t\\"\\\\\\/\\b\\f\\n\\r\\u0000é"}', '{"stringValue":"\t"}'),
        *('{"\\u0073tringValue":"a"}', '{"stringValue":"a","stringValue":"b"}', '{"stringValue":"a","intValue":1}'),
        *('{"stringValue":null,"intValue":1}', '{"stringValue":"","intValue":null}', '{"boolValue":tru}'),
        *('{"intValue":01}', '{"intValue":1.0}', '{"intValue":1e2}', '{"intValue":-0}', '{"intValue":"007"}'),
        *('{"intValue":""}', '{"intValue":"-"}', '{"intValue":- 1}', '{"intValue":9223372036854775808}'),
        *('{"intValue":-9223372036854775808}', '{"intValue":"99999999999999999999"}', '{"intValue":"+1"}'),
        *('{"doubleValue":-0}', '{"doubleValue":-0.0}', '{"doubleValue":1e999}', '{"doubleValue":1E-400}'),
        *('{"doubleValue":0.1}', '{"doubleValue":5e-324}', '{"doubleValue":1.}', '{"doubleValue":.5}'),
        *('{"doubleValue":123456789012345678901234567890}', '{"doubleValue":" 1_0"}', '{"doubleValue":"Infinity"}'),
        *('{"bytesValue":""}', '{"bytesValue":"A"}', '{"bytesValue":"AP=8"}', '{"bytesValue":"AA=="}'),
        *('{"arrayValue":{}}', '{"arrayValue":{"values":[null]}}', '{"arrayValue":{"values":[{},{"intValue":1}]}}'),
        *('{"kvlistValue":{"values":[{}]}}', '{"kvlistValue":null}', '{"unknown":[1,{"a":"\\q"}]}'),
        *('{"unknown":[1,{"a":[tru]}]}', '{"unknown":NaN}', '{"unknown":1' + "0" * 5000 + "}"),
        *('{"unknown":' + "[" * n + "]" * n + "}" for n in (50, 70, 300)),
        '{"arrayValue":{"values":[' * 20 + "]}}" * 20,
    ],
)
def test_corners_of_json(value: str) -> None:
    """Numbers, escapes, nesting and separators at the edge of JSON mean the same to both, or are refused by both."""
    text = f'{{"key":"a","value":{value}}}'
    span_of = f'{{"traceId":"{"1" * 32}","spanId":"{"2" * 16}","attributes":[{text}]}}'
    same(f' {{"resourceSpans" : [{{"scopeSpans":[{{"spans":[{span_of}]}}]}}]}} '.encode())


@pytest.mark.parametrize("message", [own(20), foreign(20), Request()])
def test_json_becomes_the_same_protobuf(message: Request) -> None:
    """JSON that was made from a request becomes that request again."""
    assert Request.FromString(compiled.transcoded(to_json(message))) == message


def test_usual_requests_are_not_left_to_the_readable_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests as SDKs send them take the fast way, a parent of zeros among them."""
    monkeypatch.setattr(otlp, "decode_protobuf", None)
    monkeypatch.setattr(otlp, "decode_json", None)
    values = {"s": "é\n", "b": True, "f": 0.1, "bytes": b"\x00", "list": [1, "a"], "map": {"k": 1}, "none": None}
    message = request(
        span(attributes=[attribute("session.id", "s"), attribute("n", 1), attribute("server.port", "443")], flags=257),
        span(parent_span_id=b"12345678", status={"code": 2, "message": "m"}, events=[{"name": "e"}], links=[{}]),
        span(parent_span_id=bytes(8), attributes=[attribute(key, value) for key, value in values.items()]),
        **{"service.name": "kiosk", "cloud.region": "r"},
    )

    assert scanner.decode_protobuf(message.SerializeToString(), RECEIVED_NS).table.num_rows == 3
    assert scanner.decode_json(to_json(message), RECEIVED_NS).table.num_rows == 3


bodies = st.one_of(
    st.sampled_from([own(3), foreign(2), Request()]).map(lambda message: (message.SerializeToString(), False)),
    st.sampled_from([own(2), foreign(3)]).map(lambda message: (to_json(message), True)),
    requests.map(lambda message: (message.SerializeToString(), False)),
    mutated(requests.map(to_json)).map(lambda body: (body, True)),
    st.sampled_from([(b"\x0a\x05ab", False), (b"\x0a", False), (b"[]", True)]),
)


@QUICK
@given(st.lists(bodies, min_size=2, max_size=4))
def test_decoded_together(chosen: list[tuple[bytes, bool]]) -> None:
    """Requests that are decoded together are each what they are alone, whichever of them is broken."""
    waiting = [scanner.Undecoded(body, is_json, RECEIVED_NS + n) for n, (body, is_json) in enumerate(chosen)]

    for waits, found in zip(waiting, scanner.decode_together(waiting), strict=True):
        decode = otlp.decode_json if waits.is_json else otlp.decode_protobuf
        if isinstance(found, Decoded):
            expected = decode(waits.body, waits.received_ns)
            assert (found.table.to_pylist(), found.rejected) == (expected.table.to_pylist(), expected.rejected)
        else:
            with pytest.raises(type(found)):
                decode(waits.body, waits.received_ns)


def test_usual_requests_are_scanned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usual requests that wait together are made into columns once."""
    tables = []
    make = scanner._table
    monkeypatch.setattr(scanner, "_table", lambda *given: tables.append(make(*given)) or tables[-1])
    waiting = [scanner.Undecoded(own(3, 3 * n).SerializeToString(), False, RECEIVED_NS) for n in range(3)]
    found = scanner.decode_together([*waiting, scanner.Undecoded(to_json(own(1, 9)), True, RECEIVED_NS)])

    assert [each.table.num_rows for each in found if isinstance(each, Decoded)] == [3, 3, 3, 1]
    assert [table.num_rows for table in tables] == [10]


@QUICK
@given(mutated(requests.map(lambda message: message.SerializeToString())))
def test_parts_are_counted_alike(body: bytes) -> None:
    """The compiled count of parts is that of the readable walk, for any bytes."""
    inner = parts._inner(Request.DESCRIPTOR)

    assert compiled.count_parts(body, inner, parts.MAX_PARTS) == parts.count_slowly(body, inner)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without a compiler decodes and counts all the same."""
    message = request(span(events=[{"name": "e"}]))
    expected = outcome(otlp.decode_protobuf, message.SerializeToString())
    monkeypatch.setattr(compiled, "_LIBRARY", None)

    assert outcome(scanner.decode_protobuf, message.SerializeToString()) == expected
    assert outcome(scanner.decode_json, to_json(message)) == expected
    assert parts.count_protobuf(message.SerializeToString(), Request.DESCRIPTOR) == 5
    with pytest.raises(compiled.Unusual):
        compiled.count_parts(b"", np.zeros((1, compiled.FIELDS), np.int16), 1)
