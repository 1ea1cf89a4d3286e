"""The compiled decoders say what the readable ones say, about any bytes."""

import gc
import json
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.message import DecodeError as ProtobufError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.receiver import compiled, otlp, otlp_json, otlp_protobuf, parts, scanner
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
        (scanner.decode_protobuf, otlp_protobuf.decode_protobuf),
        (scanner.decode_json, otlp_json.decode_json),
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


@st.composite
def mixed(draw: st.DrawFn) -> bytes:
    """A usual request in protobuf with odd spans at any places: of any request, and bytes that are none."""
    frames = otlp_protobuf.read_frames(draw(st.sampled_from([own(5), foreign(9)])).SerializeToString())
    lists = [scope.spans for resource in frames.resource_spans for scope in resource.scope_spans]
    for other in draw(st.lists(requests.map(_spans), max_size=3)):
        for body in other:
            spans = draw(st.sampled_from(lists))
            spans.insert(draw(st.integers(0, len(spans))), draw(st.just(body) | mutated(st.just(body))))
    if draw(st.booleans()):  # a resource refuses its spans, or a scope
        frame = draw(st.sampled_from(frames.resource_spans))
        owner = draw(st.sampled_from([frame.resource, frame.scope_spans[0].scope]))
        owner.attributes.append(attribute("deep", nested(otlp.MAX_NESTING + 1)))
    return bytes(frames.SerializeToString())


def _spans(message: Request) -> list[bytes]:
    return [
        each.SerializeToString()
        for part in message.resource_spans
        for scope in part.scope_spans
        for each in scope.spans
    ]


def nested(levels: int) -> list[Any]:
    """Lists in lists."""
    return [nested(levels - 1)] if levels > 1 else []


@QUICK
@given(mixed(), st.sampled_from([otlp.MAX_DECODED_BYTES, 2000]))
def test_odd_spans_among_usual_ones(body: bytes, max_decoded_bytes: int) -> None:
    """Odd spans among usual ones are what they are to the readable decoder, and so are the limits of the request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otlp, "MAX_DECODED_BYTES", max_decoded_bytes)
        same(body)
        try:
            message = Request.FromString(body)
        except ProtobufError:
            return  # a span that is none cannot be written in JSON
        same(to_json(message))


ODD: list[tuple[dict[str, Any], int]] = [
    ({"trace_id": b""}, 0),
    ({"end_time_unix_nano": 2**63}, 0),
    ({"attributes": [attribute("deep", nested(otlp.MAX_NESTING + 1))]}, 0),
    ({"events": [{"attributes": [attribute("deep", nested(otlp.MAX_NESTING + 1))]}]}, 0),
    ({"attributes": [attribute("a", 1), attribute("a", 2)]}, 1),
]


@pytest.mark.parametrize(("fields", "taken"), ODD)
def test_one_odd_span_among_thousands(fields: dict[str, Any], taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other span is left to the readable decoder, and the odd one keeps its place."""
    read = left_to_readable(monkeypatch)
    message = own(4000)
    spans = message.resource_spans[0].scope_spans[0].spans
    spans[3000].CopyFrom(span(name="odd", **fields))

    for decode, body in (
        (scanner.decode_protobuf, message.SerializeToString()),
        (scanner.decode_json, to_json(message)),
    ):
        decoded = decode(body, RECEIVED_NS)
        names = decoded.table["name"].to_pylist()
        assert names == [each.name for each in spans if taken or each.name != "odd"]
        assert sum(rejection.count for rejection in decoded.rejected) == 1 - taken
    assert read == [otlp_protobuf.__name__, otlp_json.__name__]


def left_to_readable(patch: pytest.MonkeyPatch) -> list[str]:
    """Leave no request to the readable decoder; returns which of its functions read a span, when they have."""
    read: list[str] = []

    def noted(module: ModuleType) -> Callable[[Any], Any]:
        reader = module.read_span
        return lambda given: read.append(module.__name__) or reader(given)

    for module in (otlp_protobuf, otlp_json):
        patch.setattr(module, "read_span", noted(module))
    patch.setattr(otlp_protobuf, "decode_protobuf", None)
    patch.setattr(otlp_json, "decode_json", None)
    return read


def field(tag: int, content: bytes) -> bytes:
    """A field of up to 16,383 bytes."""
    return bytes([tag, len(content) & 127 | 128, len(content) >> 7]) + content


def request_of(*spans: bytes) -> bytes:
    """A request in protobuf with these spans."""
    return field(0x0A, field(0x12, b"".join(field(0x12, each) for each in spans)))


@pytest.mark.parametrize("repeated", [b"\x2a\x02", b"\x1a\x02", b"\x7a\x04\x12\x02"])
def test_repeated_texts_stay_within_their_room(repeated: bytes) -> None:
    """A span that says its name, its state or its status again and again is odd, and takes no other's room."""
    texts = b"".join(repeated + f"{number:02}".encode() for number in range(50))
    others = [span(name=f"n{n}", trace_state=f"s{n}", status={"message": f"m{n}"}) for n in range(9)]
    body = request_of(span().SerializeToString() + texts, *(each.SerializeToString() for each in others))

    same(body)
    assert compiled.Scanned(body).scan().odd.tolist() == [True] + 9 * [False]


@pytest.mark.parametrize("broken", [b"\x4a\x00" * 50 + b"\x07", b"\x4a\x00\x6a\x00" * 50 + b"\x48\x01", b"\x6a\xff"])
def test_a_broken_span_stays_within_its_room(broken: bytes) -> None:
    """Attributes and links of a span that breaks off are nobody's."""
    usual = span(attributes=[attribute("k", 1)], links=[{}], events=[{"name": "e"}]).SerializeToString()
    body = request_of(usual, span().SerializeToString() + broken, usual)

    same(body)
    assert compiled.Scanned(body).scan().odd.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "value", [b"\x0a\x01x\x0a\x01y", b"\xf8\x06\x01\x0a\x01x", b"\x0a\x01x\xf8\x06\x01", b"\x0a\x01\xff"]
)
def test_values_among_other_fields(value: bytes) -> None:
    """A value that is given twice, or among fields that OTLP does not know, fills the column of its key."""
    pair = b"\x0a\x0asession.id" + field(0x12, value)
    same(request_of(span().SerializeToString() + field(0x4A, pair)))


UNKNOWN_GROUP = b"\xfb\x06\x08\x01\xfc\x06"


@pytest.mark.parametrize(
    "parts_of_resource",
    [
        [b"\x1a\x01u", b"\x1a\x01v"],
        [b"\x0a\x02\x10\x01", b"\x0a\x02\x10\x02"],
        [UNKNOWN_GROUP],
        [b"\x08\x01", b"\x10\x01"],
    ],
)
def test_what_is_unusual_around_spans_is_written_again(
    parts_of_resource: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resources given in parts, fields that OTLP does not know and those of another type cost no readable decoder."""
    spans = field(0x12, field(0x12, span().SerializeToString()))
    body = field(0x0A, parts_of_resource[0] + spans + b"".join(parts_of_resource[1:]) + spans)
    expected = outcome(otlp_protobuf.decode_protobuf, body)
    read = left_to_readable(monkeypatch)

    assert outcome(scanner.decode_protobuf, body) == expected
    assert len(expected[0]) == 2
    assert not read


@pytest.mark.parametrize("around", [b"\x1a\x01\xff\x1a\x01u", b"\x0a\x01\xff", b"\x0a\x03\x0a\x05a", b"\x1b"])
def test_what_is_malformed_around_spans_refuses_the_request(around: bytes) -> None:
    """A resource or its schema that cannot be read refuses the whole request, also if it is given again."""
    body = field(0x0A, around + field(0x12, field(0x12, span().SerializeToString())))

    same(body)
    with pytest.raises(DecodeError):
        scanner.decode_protobuf(body, RECEIVED_NS)


def longer(varint: int, size: int) -> bytes:
    """A varint of one byte, written with more."""
    return bytes([varint | 128] + (size - 2) * [128] + [0])


@pytest.mark.parametrize("size", [5, 6, 10])
def test_tags_and_sizes_written_with_too_many_bytes(size: int) -> None:
    """Protobuf refuses tags and sizes of more than five bytes: in a span, around spans, and where parts are counted."""
    usual = span(name="").SerializeToString()
    tag, length, number = (longer(0x2A, size) + b"\x01n", b"\x2a" + longer(1, size) + b"n", b"\x30" + longer(2, size))
    for field_of_span in (tag, length, number):
        same(request_of(usual, usual + field_of_span, usual))
    for resource in (longer(0x1A, size) + b"\x01n", b"\x1a" + longer(1, size) + b"n"):
        body = field(0x0A, resource + field(0x12, field(0x12, usual)))
        same(body)
        counted_alike(body)


@pytest.mark.parametrize("part", [1, 2])
def test_a_long_schema_is_not_remembered(part: int) -> None:
    """Resources and scopes with schema URLs of megabytes leave nothing of these behind."""
    tracemalloc.start()
    try:
        for number in range(2):
            url = b"%d" % number + b"u" * 1_000_000
            message = request(span())
            owner = message.resource_spans[0] if part == 1 else message.resource_spans[0].scope_spans[0]
            owner.schema_url = url.decode()
            assert scanner.decode_protobuf(message.SerializeToString(), RECEIVED_NS).table.num_rows == 1
        del message, owner, url
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert left < 500_000


@pytest.mark.parametrize("most", [900, 999, 1000])
def test_what_is_taken_of_resources_is_of_the_whole_request(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd spans and usual ones share what is taken; rejected ones take nothing."""
    monkeypatch.setattr(otlp, "MAX_DECODED_BYTES", most)
    twice = span(attributes=[attribute("a", 1), attribute("a", 2)])
    spans = [span(), twice, span(trace_id=b""), twice, span()]
    message = request(*spans, note="x" * (250 - len('{"note":""}')))
    same(message.SerializeToString())
    same(to_json(message))
    taken = outcome(scanner.decode_protobuf, message.SerializeToString())[0]

    assert taken is PayloadTooLarge if most < 1000 else len(taken) == 4


def test_a_large_resource_is_not_repeated_for_scopes_without_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty scopes, and spans that are rejected, cost none of what is taken of resources, nor memory."""
    monkeypatch.setattr(otlp, "MAX_DECODED_BYTES", 650_000)
    message = request(span(), span(), *[span(trace_id=b"")] * 100, note="x" * 300_000)
    for _ in range(1500):
        message.resource_spans[0].scope_spans.add()
    before = pa.default_memory_pool().max_memory()
    same(message.SerializeToString())

    assert pa.default_memory_pool().max_memory() - before < 50_000_000
    assert scanner.decode_protobuf(message.SerializeToString(), RECEIVED_NS).rejected[0].count == 100


@pytest.mark.parametrize("value", ["NaN", "[1,]", '"\\x"', "1" + "0" * 5000, "[" * 250 + "]" * 250])
def test_an_odd_span_does_not_hide_what_is_no_json(value: str) -> None:
    """A span of the wrong type is skipped as strictly as JSON is read."""
    good = json.dumps(JSON_SPAN)
    odd = '{"name":1,"x":{"spans":[{"}":"{"}]},"y":%s}'
    for each in (odd % value, odd % "0", '{"name":"a","name":"b"}', '{"\\u0061":1}', "{}", "[]", "null", "1"):
        same(f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{good},{each},{good}]}}]}}]}}'.encode())


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
    """JSON that was made from a request becomes that request again, and each span is found in it."""
    text = to_json(message)
    body, places = compiled.transcoded(text)
    names = [otlp_json.object_at(text[place:].decode())["name"] for place in places.tolist() if place < len(text)]

    assert Request.FromString(body) == message
    assert names == [trace_pb2.Span.FromString(each).name for each in _spans(message)]


def test_usual_requests_are_not_left_to_the_readable_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests as SDKs send them take the fast way, a parent of zeros among them."""
    monkeypatch.setattr(otlp_protobuf, "decode_protobuf", None)
    monkeypatch.setattr(otlp_json, "decode_json", None)
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


def together(waiting: list[scanner.Undecoded]) -> list[Any]:
    """What is said of requests that wait."""
    found: list[Any] = []
    scanner.decode_together(waiting, found.extend)
    return found


@QUICK
@given(st.lists(bodies, min_size=2, max_size=4))
def test_decoded_together(chosen: list[tuple[bytes, bool]]) -> None:
    """Requests that are decoded together are each what they are alone, whichever of them is broken."""
    waiting = [scanner.Undecoded(body, is_json, RECEIVED_NS + n) for n, (body, is_json) in enumerate(chosen)]

    for waits, found in zip(waiting, together(waiting), strict=True):
        decode = otlp_json.decode_json if waits.is_json else otlp_protobuf.decode_protobuf
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
    found = together([*waiting, scanner.Undecoded(to_json(own(1, 9)), True, RECEIVED_NS)])

    assert [each.table.num_rows for each in found if isinstance(each, Decoded)] == [3, 3, 3, 1]
    assert [table.num_rows for table in tables] == [10]


def test_a_broken_request_is_not_dear_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests with odd spans are still scanned at once, and a malformed one among many is found by halving."""
    scans = []
    join = scanner._joined
    monkeypatch.setattr(scanner, "_joined", lambda waiting: scans.append(len(waiting)) or join(waiting))
    odd = request(span(), span(trace_id=b"")).SerializeToString()
    malformed = b"\x0a\x02\x0a\x05"
    for body, most in ((odd, 1), (malformed, 15)):
        waiting = [scanner.Undecoded(own(2).SerializeToString(), False, RECEIVED_NS)] * 127
        waiting.insert(77, scanner.Undecoded(body, False, RECEIVED_NS))
        found = together(waiting)
        assert [n for n, each in enumerate(found) if not isinstance(each, Decoded) or each.rejected] == [77]
        assert len(scans) <= most
        scans.clear()


def test_large_requests_are_answered_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What together comes to more than one request may is answered in parts that do not."""
    monkeypatch.setattr(otlp, "MAX_DECODED_BYTES", 2500)
    body = request(span(), note="x" * 1000).SerializeToString()
    found: list[list[Any]] = []
    scanner.decode_together([scanner.Undecoded(body, False, RECEIVED_NS)] * 4, found.append)

    assert [[each.table.num_rows for each in some] for some in found] == [[1, 1], [1, 1]]


@QUICK
@given(mutated(requests.map(lambda message: message.SerializeToString())))
def test_parts_are_counted_alike(body: bytes) -> None:
    """The compiled count of parts is that of the readable walk, for any bytes."""
    counted_alike(body)


def counted_alike(body: bytes) -> None:
    """Both count the same parts."""
    inner = parts._inner(Request.DESCRIPTOR)
    assert compiled.count_parts(body, inner, parts.MAX_PARTS) == parts.count_slowly(body, inner)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without a compiler decodes and counts all the same."""
    message = request(span(events=[{"name": "e"}]))
    expected = outcome(otlp_protobuf.decode_protobuf, message.SerializeToString())
    monkeypatch.setattr(compiled, "_LIBRARY", None)

    assert outcome(scanner.decode_protobuf, message.SerializeToString()) == expected
    assert outcome(scanner.decode_json, to_json(message)) == expected
    assert parts.count_protobuf(message.SerializeToString(), Request.DESCRIPTOR) == 5
    with pytest.raises(compiled.Unusual):
        compiled.count_parts(b"", np.zeros((1, compiled.FIELDS), np.int16), 1)
