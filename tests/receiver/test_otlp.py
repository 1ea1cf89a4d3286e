"""The decoder: every field has a home, types survive, and no bytes break it."""

import contextlib
import itertools
import json
import re
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest as Logs
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.receiver import otlp, otlp_json
from telemetry.receiver.otlp import SPANS_SCHEMA
from telemetry.receiver.otlp_json import decode_json
from telemetry.receiver.otlp_protobuf import decode_protobuf
from telemetry.settings import data_folder
from tests.support.otlp import (
    RECEIVED_NS,
    Request,
    attribute,
    mutated,
    request,
    requests,
    span,
    to_json,
)

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rows(message: Request) -> list[dict[str, Any]]:
    """What is stored of a request, columns that are NULL left out; the same from protobuf and from JSON."""
    made = decode_protobuf(message.SerializeToString(), RECEIVED_NS)

    assert decode_json(to_json(message), RECEIVED_NS).table.equals(made.table)

    return [{name: value for name, value in row.items() if value is not None} for row in made.table.to_pylist()]


def one(**fields: Any) -> dict[str, Any]:
    """The row of one span."""
    return rows(request(span(**fields)))[0]


def test_schema_is_that_of_the_store() -> None:
    """The decoder's columns are those of queries/schema/spans.sql, in their order and of their types."""
    arrow = {"varchar": pa.string(), "bigint": pa.int64(), "double": pa.float64(), "boolean": pa.bool_()}
    text = (data_folder("queries") / "schema" / "spans.sql").read_text()
    columns = re.findall(r"^  (\w+) (\w+)", text, re.MULTILINE)

    assert [(field.name, field.type) for field in SPANS_SCHEMA] == [
        (name, arrow.get(kind, pa.string())) for name, kind in columns
    ]


def test_every_field_of_otlp_has_a_home() -> None:
    """Whatever a field of a span, its scope or its resource says is found again in the row."""
    message = Request()
    expected = _fill(message, itertools.count(1000))
    found = {str(value) for value in _scalars(rows(message)[0])}

    assert len(expected) > 40
    assert sorted(expected - found) == []


def _fill(message: Message, numbers: "itertools.count[int]", depth: int = 0) -> set[str]:
    """Set every field to a value of its own, and say how each will look in the row."""
    expected: set[str] = set()
    for field in message.DESCRIPTOR.fields:
        number = next(numbers)
        if field.name.endswith("_strindex"):
            continue  # meant for profiles; a trace receiver treats it as absent
        if field.message_type:
            if field.message_type.name in ("ArrayValue", "KeyValueList") and depth > 8:
                continue
            value = getattr(message, field.name)
            if field.message_type.name == "AnyValue" and field.is_repeated is False:
                value.string_value = f"text {number}"
                expected.add(f"text {number}")
                continue
            expected |= _fill(value.add() if field.is_repeated else value, numbers, depth + 1)
        elif field.name in ("trace_id", "span_id", "parent_span_id"):
            value = bytes([1]) * (16 if field.name == "trace_id" else 8)
            value = number.to_bytes(2, "big") + value[2:]
            setattr(message, field.name, value)
            expected.add(value.hex())
        elif field.name in ("kind", "code"):
            setattr(message, field.name, 2)
            expected.add({"kind": "SERVER", "code": "ERROR"}[field.name])
        elif field.type == field.TYPE_STRING:
            text = f"text {number}"
            getattr(message, field.name).append(text) if field.is_repeated else setattr(message, field.name, text)
            expected.add(text)
        else:
            setattr(message, field.name, number)
            expected.add(str(number))
    return expected


def _scalars(value: Any) -> list[Any]:
    if isinstance(value, str) and value[:1] in ("{", "["):
        value = json.loads(value)
    if isinstance(value, dict):
        return [*value, *(found for item in value.values() for found in _scalars(item))]
    if isinstance(value, list):
        return [found for item in value for found in _scalars(item)]
    return [value]


def test_typed_columns() -> None:
    """An attribute that has a column fills it, with its type, and leaves the other attributes."""
    row = one(
        attributes=[
            attribute("session.id", "s-1"),
            attribute("dp.attempt.number", 2),
            attribute("dp.failure.retryable", True),
            attribute("webrtc.remote_inbound.roundTripTime", 0.25),
            attribute("other", "kept"),
        ]
    )

    assert (row["session_id"], row["attempt_number"], row["retryable"], row["rtt_s"]) == ("s-1", 2, True, 0.25)
    assert json.loads(row["attributes"]) == {"other": "kept"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("session.id", 7),
        ("server.port", "443"),
        ("server.port", True),
        ("server.port", 2**43),
        ("dp.failure.retryable", 1),
        ("webrtc.remote_inbound.roundTripTime", 1),
        ("webrtc.remote_inbound.roundTripTime", 1e300),
    ],
)
def test_other_type_than_the_column(key: str, value: Any) -> None:
    """A value that is no fit for its column leaves it NULL and stays with the other attributes."""
    row = one(attributes=[attribute(key, value)])

    assert json.loads(row["attributes"]) == {key: value}


def test_resource_columns() -> None:
    """A resource fills its columns; where a span attribute could fill one too, the resource keeps its own."""
    message = request(
        span(attributes=[attribute("cloud.region", "eu-west-1")]),
        span(),
        **{"service.name": "kiosk", "cloud.region": "us-east-1", "host.name": "h"},
    )
    own, inherited = rows(message)

    assert (own["service_name"], own["region"]) == ("kiosk", "eu-west-1")
    assert inherited["region"] == "us-east-1"
    assert json.loads(own["resource_attributes"]) == {"cloud.region": "us-east-1", "host.name": "h"}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("text", '"text"'),
        (True, "true"),
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
        (1.0, "1.0"),
        (1e300, "1e+300"),
        (float("nan"), '{"doubleValue":"NaN"}'),
        (float("inf"), '{"doubleValue":"Infinity"}'),
        (float("-inf"), '{"doubleValue":"-Infinity"}'),
        (b"\x00\xff", '{"bytesValue":"AP8="}'),
        ([1, "a", [2.5]], '[1,"a",[2.5]]'),
        ({"k": {"l": None}}, '{"k":{"l":null}}'),
        ({"bytesValue": "hello"}, '{"kvlistValue":{"bytesValue":"hello"}}'),
        ({"doubleValue": "NaN"}, '{"kvlistValue":{"doubleValue":"NaN"}}'),
        ({"kvlistValue": {"bytesValue": ""}}, '{"kvlistValue":{"kvlistValue":{"kvlistValue":{"bytesValue":""}}}}'),
        ({"kvlistValue": b""}, '{"kvlistValue":{"kvlistValue":{"bytesValue":""}}}'),
        ({"bytesValue": 1}, '{"bytesValue":1}'),
        ({"bytesValue": "", "k": 1}, '{"bytesValue":"","k":1}'),
        ({"doubleValue": "hello"}, '{"doubleValue":"hello"}'),
        ({"kvlistValue": {"k": 1}}, '{"kvlistValue":{"k":1}}'),
        ([], "[]"),
        (None, "null"),
        ("\x00", '"\\u0000"'),
    ],
)
def test_types_survive(value: Any, kept: str) -> None:
    """Each type of an attribute value has a form of its own in the JSON that is kept."""
    assert one(attributes=[attribute("k", value)])["attributes"] == f'{{"k":{kept}}}'


def test_last_of_a_repeated_key_wins() -> None:
    """Of a repeated attribute key the last value is kept, in columns and elsewhere."""
    row = one(
        attributes=[
            *(attribute("a", 1), attribute("a", 2)),
            *(attribute("session.id", "x"), attribute("session.id", "y")),
            *(attribute("server.port", 1), attribute("server.port", "one")),
        ]
    )

    assert row["session_id"] == "y"
    assert "server_port" not in row
    assert json.loads(row["attributes"]) == {"a": 2, "server.port": "one"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b""}, "trace_id"),
        ({"trace_id": bytes(16)}, "trace_id"),
        ({"trace_id": b"\x01" * 15}, "trace_id"),
        ({"span_id": bytes(8)}, "span_id"),
        ({"span_id": b"\x01" * 9}, "span_id"),
        ({"parent_span_id": b"\x01"}, "parent_span_id"),
        ({"start_time_unix_nano": otlp.MAX_TIME_NS}, "a time"),
        ({"end_time_unix_nano": 2**64 - 1}, "a time"),
    ],
)
def test_invalid_span_is_rejected(fields: dict[str, Any], reason: str) -> None:
    """A span that cannot be kept is rejected with its reason, and its neighbour is kept."""
    message = request(span(**fields), span())
    for decoded in (
        decode_protobuf(message.SerializeToString(), RECEIVED_NS),
        decode_json(to_json(message), RECEIVED_NS),
    ):
        (rejection,) = decoded.rejected

        assert decoded.table.num_rows == 1
        assert rejection.count == 1
        assert rejection.reason.startswith(reason)
        assert "name='connect'" in rejection.example


def nested(levels: int) -> list[Any]:
    """A list within a list, so many times."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_nesting_is_limited() -> None:
    """Sixteen levels of lists are kept; deeper ones, however deep, refuse their own span only."""
    message = request(
        span(attributes=[attribute("k", nested(16))]),
        span(attributes=[attribute("k", nested(17))]),
        span(attributes=[attribute("k", nested(48))]),
    )

    assert len(rows(message)) == 1


def test_one_malformed_span_is_rejected_alone() -> None:
    """A span whose bytes are no span, or whose text is not UTF-8, does not take its neighbours along."""
    good = span().SerializeToString()
    bad_text = span(name="ab").SerializeToString().replace(b"ab", b"\xff\xfe")
    spans = b"".join(b"\x12" + bytes([len(item)]) + item for item in (good, bad_text, b"\x0a\x7f", good))
    scope = b"\x12" + _varint(len(spans)) + spans
    decoded = decode_protobuf(b"\x0a" + _varint(len(scope)) + scope, RECEIVED_NS)

    assert decoded.table.num_rows == 2
    assert [rejection.count for rejection in decoded.rejected] == [2]


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05abc", b"\xff\xff\xff", b"{}" * 3, b"\x0a\x02\x0a\x7f"])
def test_unreadable_protobuf(body: bytes) -> None:
    """A body whose framing is broken is a DecodeError."""
    with pytest.raises(DecodeError):
        decode_protobuf(body, RECEIVED_NS)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"1",
        b"nul",
        b'{"resourceSpans": {}}',
        b'{"resourceSpans": [1]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": 1}]}]}',
        b'{"a": NaN}',
        b"\xff{}",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a":' * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        "{}".encode("utf-16"),
    ],
)
def test_unreadable_json(body: bytes) -> None:
    """A body that is not JSON in UTF-8, is nested too deep or has another shape is a DecodeError."""
    with pytest.raises(DecodeError):
        decode_json(body, RECEIVED_NS)


def within_objects(levels: int, inside: bytes = b"1") -> bytes:
    """A request whose only field, an unknown one, holds so many objects less one around each other."""
    return b'{"a":' * levels + inside + b"}" * levels


def test_the_limit_of_nested_json_is_the_same_from_everywhere() -> None:
    """The deepest body is taken and a deeper one refused, from however deep it is called; texts are not looked into."""

    def from_below(calls: int, body: bytes) -> int:
        return from_below(calls - 1, body) if calls else decode_json(body, RECEIVED_NS).table.num_rows

    for calls in (0, 400):
        assert from_below(calls, within_objects(otlp_json.MAX_JSON_NESTING, b'"{[\\"[\\\\"')) == 0
        with pytest.raises(DecodeError, match="nested deeper than 200 levels"):
            from_below(calls, within_objects(otlp_json.MAX_JSON_NESTING + 1))
        with pytest.raises(DecodeError, match="nested deeper than 200 levels"):
            from_below(calls, within_objects(982)[:4912])


JSON_SPAN = {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "name": "n"}


def decoded_json(**fields: Any) -> otlp.Decoded:
    """One span in JSON, decoded."""
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [JSON_SPAN | fields]}]}]}).encode()
    return decode_json(body, RECEIVED_NS)


JSON_THAT_IS_TAKEN: list[dict[str, Any]] = [
    {"traceId": "5b8efff798038103d269b633813fc60C"},
    {"startTimeUnixNano": "12"},
    {"startTimeUnixNano": 12},
    {"startTimeUnixNano": 12.0},
    {"startTimeUnixNano": None, "attributes": None, "status": None},
    {"parentSpanId": ""},
    {"unknownField": {"deep": [1, 2]}},
    {"start_time_unix_nano": "not read: only lowerCamelCase is"},
    {"attributes": [{"key": "a", "value": {"unknownValue": 1}}]},
    {"attributes": [{"key": "a", "value": {"intValue": "-5"}}, {"key": "b", "value": {"intValue": -5}}]},
    {"attributes": [{"key": "a", "value": {"doubleValue": "NaN"}}, {"key": "b", "value": {"doubleValue": 5}}]},
    {"attributes": [{"key": "a", "value": {"bytesValue": "AP8"}}, {"key": "b", "value": {"bytesValue": "_-8="}}]},
    {"attributes": [{"key": "a", "value": {"stringValue": "\ud800 half a pair"}}]},
    {"name": "\ud83d\ude00 a whole one"},
]
JSON_THAT_IS_REJECTED: list[dict[str, Any]] = [
    {"traceId": "W47/95gDgQPSabYzgT/GDA=="},
    {"traceId": "5b 8e ff f7 98 03 81 03 d2 69 b6 33 81 3f c6 0c"},
    {"traceId": 5},
    {"name": 5},
    {"kind": "SPAN_KIND_SERVER"},
    {"kind": True},
    {"kind": 2**31},
    {"startTimeUnixNano": "yesterday"},
    {"startTimeUnixNano": -1},
    {"startTimeUnixNano": 1.5},
    {"attributes": {"a": 1}},
    {"attributes": [{"key": "a", "value": "text"}]},
    {"attributes": [{"key": "a", "value": {"intValue": 2**63}}]},
    {"attributes": [{"key": "a", "value": {"boolValue": "true"}}]},
    {"attributes": [{"key": "a", "value": {"doubleValue": "wide"}}]},
    {"attributes": [{"key": "a", "value": {"bytesValue": "%"}}]},
    {"events": [{"attributes": 5}]},
    {"links": [{"traceId": "xyz"}]},
]


@pytest.mark.parametrize("fields", JSON_THAT_IS_TAKEN)
def test_json_that_is_taken(fields: dict[str, Any]) -> None:
    """JSON is read as the OTLP specification allows senders to write it."""
    decoded = decoded_json(**fields)

    assert decoded.rejected == ()
    assert decoded.table["trace_id"][0].as_py() == "5b8efff798038103d269b633813fc60c"


@pytest.mark.parametrize("fields", JSON_THAT_IS_REJECTED)
def test_json_span_that_is_rejected(fields: dict[str, Any]) -> None:
    """A JSON span with a field of another type is rejected, not guessed at."""
    decoded = decoded_json(**fields)

    assert decoded.table.num_rows == 0
    assert [rejection.count for rejection in decoded.rejected] == [1]


SHORT_OF_MEMORY = """
import resource
import sys
from pathlib import Path

from telemetry.receiver.answers import not_kept_response
from telemetry.receiver.otlp_protobuf import read_frames, read_span

body = sys.stdin.buffer.read()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000, resource.RLIM_INFINITY))
try:
    {0}
except BaseException as error:
    said = type(error).__name__
else:
    said = "read"
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(said)
"""


@pytest.mark.parametrize(
    ("reads", "body"),
    [
        ("read_frames(body)", request(*[span(attributes=[attribute("key", "value" * 10)] * 20)] * 10_000)),
        ("read_span(body)", span(attributes=[attribute("key", "value" * 10)] * 100_000)),
        ("not_kept_response('logs', body, 'protobuf')", Logs(resource_logs=[logs_pb2.ResourceLogs()] * 100_000)),
    ],
    ids=["request", "span", "logs"],
)
def test_too_little_memory_is_no_fault_of_the_sender(reads: str, body: Message) -> None:
    """What is valid is not called malformed where there is no memory to read it: the sender would drop it."""
    ran = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY.format(reads)],
        input=body.SerializeToString(),
        capture_output=True,
        timeout=60,
    )

    assert (ran.stdout, ran.stderr) == (b"MemoryError\n", b"")


def test_unknown_fields_of_protobuf() -> None:
    """Fields that no version of ours knows are ignored at every level, and change nothing of what is known."""
    unknown = b"\xc2\x3e\x03abc\xc8\x3e\x07"  # field 1000 as bytes, field 1001 as a number
    known, resource, scope = Request(), trace_pb2.ResourceSpans(), trace_pb2.ScopeSpans()
    inner = span(attributes=[attribute("a", 1)], events=[{"name": "e"}])
    scope.spans.append(trace_pb2.Span.FromString(inner.SerializeToString() + unknown))
    resource.scope_spans.append(trace_pb2.ScopeSpans.FromString(scope.SerializeToString() + unknown))
    known.resource_spans.append(trace_pb2.ResourceSpans.FromString(resource.SerializeToString() + unknown))
    body = known.SerializeToString() + unknown

    assert len(body) > len(request(inner).SerializeToString()) + 3 * len(unknown)
    decoded, expected = (decode_protobuf(each, RECEIVED_NS) for each in (body, plain(inner)))
    assert decoded.rejected == ()
    assert decoded.table.equals(expected.table)


def plain(inner: trace_pb2.Span) -> bytes:
    """A request with one span and nothing else."""
    scope = trace_pb2.ScopeSpans(spans=[inner])
    return Request(resource_spans=[trace_pb2.ResourceSpans(scope_spans=[scope])]).SerializeToString()


def test_references_to_string_tables() -> None:
    """References to the string table of profiles, which a trace has none of, count as absent and reject nothing."""
    value = common_pb2.AnyValue.FromString(b"\x40\x05")  # string_value_strindex = 5
    pair = common_pb2.KeyValue.FromString(b"\x18\x04" + common_pb2.KeyValue(value=value).SerializeToString())
    decoded = decode_protobuf(plain(span(attributes=[pair, attribute("a", 1)])), RECEIVED_NS)

    assert decoded.rejected == ()
    assert json.loads(decoded.table["attributes"][0].as_py()) == {"": None, "a": 1}


def test_broken_resource_refuses_its_spans() -> None:
    """A resource that cannot be kept refuses each of its spans, and no others."""
    bad = {
        "resource": {"attributes": [{"key": 1}]},
        "scopeSpans": [{"spans": [JSON_SPAN, JSON_SPAN]}],
    }
    good = {"scopeSpans": [{"spans": [JSON_SPAN]}]}
    decoded = decode_json(json.dumps({"resourceSpans": [bad, good]}).encode(), RECEIVED_NS)

    assert decoded.table.num_rows == 1
    assert decoded.rejected[0].count == 2


def test_empty_request() -> None:
    """A request without spans is fine, in either encoding, and so is no body at all."""
    for body, decode in (
        (b"", decode_protobuf),
        (b"", decode_json),
        (b"{}", decode_json),
        (b"\x0a\x00", decode_protobuf),
    ):
        decoded = decode(body, RECEIVED_NS)

        assert decoded.table.num_rows == 0
        assert decoded.table.schema.equals(SPANS_SCHEMA)
        assert decoded.rejected == ()


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_large_resource_on_many_spans(letter: str) -> None:
    """A resource that would be repeated past the limit on its spans, in bytes, is refused before it is."""
    message = request(*[span()] * 4000, big=letter * (200_000_000 // 4000 // len(letter.encode()) + 1_000))

    with pytest.raises(PayloadTooLarge):
        decode_protobuf(message.SerializeToString(), RECEIVED_NS)


def test_too_many_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with more spans than are taken is refused."""
    monkeypatch.setattr(otlp, "MAX_SPANS", 3)

    with pytest.raises(PayloadTooLarge):
        decode_protobuf(request(*[span()] * 4).SerializeToString(), RECEIVED_NS)


@QUICK
@given(requests)
def test_protobuf_and_json_say_the_same(message: Request) -> None:
    """A request means the same in either encoding: the same rows, and the same spans rejected for the same reasons."""
    protobuf = decode_protobuf(message.SerializeToString(), RECEIVED_NS)
    from_json = decode_json(to_json(message), RECEIVED_NS)

    assert from_json.table.equals(protobuf.table)
    assert [(item.reason, item.count) for item in from_json.rejected] == [
        (item.reason, item.count) for item in protobuf.rejected
    ]


@QUICK
@given(mutated(requests.map(lambda message: message.SerializeToString())))
def test_mutated_protobuf(body: bytes) -> None:
    """Whatever bytes arrive, they are decoded or refused."""
    with contextlib.suppress(DecodeError, PayloadTooLarge):
        decode_protobuf(body, RECEIVED_NS)


@QUICK
@given(mutated(requests.map(to_json)))
def test_mutated_json(body: bytes) -> None:
    """Whatever text arrives, it is decoded or refused."""
    with contextlib.suppress(DecodeError, PayloadTooLarge):
        decode_json(body, RECEIVED_NS)
