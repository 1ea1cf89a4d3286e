"""OTLP/HTTP, rule by rule: each test is one rule of the specification, or one limit of ours."""

import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from starlette.types import ASGIApp

from telemetry.errors import Overloaded, StoreError
from telemetry.receiver.answers import _NOT_KEPT, answer_to, encoded, traces_response
from telemetry.receiver.http import otlp_app
from telemetry.receiver.intake import Intake
from telemetry.receiver.otlp import Rejection
from telemetry.receiver.room import Limits
from tests.support.otlp import request, span, to_json
from tests.support.receiving import KeptSpans

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
SMALL = Limits(max_body_bytes=10_000, max_bytes=15_000, max_requests=2)


def client(app: ASGIApp) -> httpx.AsyncClient:
    """Asks an application without a socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://receiver", headers={"Accept-Encoding": "identity"})


async def post(
    content: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    path: str = "/v1/traces",
    method: str = "POST",
    writer: KeptSpans | None = None,
    **options: Any,
) -> httpx.Response:
    """One request to a receiver of its own."""
    async with client(otlp_app(writer or KeptSpans(), **options)) as asking:
        return await asking.request(method, path, content=content, headers=headers or {})


def status_of(response: httpx.Response) -> status_pb2.Status:
    """The google.rpc.Status of an error, in whichever encoding it came."""
    if response.headers["content-type"] == "application/x-protobuf":
        return status_pb2.Status.FromString(response.content)
    made = response.json()
    return status_pb2.Status(code=made["code"], message=made["message"])


GOOD = request(span())
BODIES: list[tuple[dict[str, str], bytes]] = [(PROTOBUF, GOOD.SerializeToString()), (JSON, to_json(GOOD))]


@pytest.mark.parametrize(("headers", "body"), BODIES, ids=["protobuf", "json"])
async def test_success(headers: dict[str, str], body: bytes) -> None:
    """Both encodings are taken on one port; success is 200, in the request's encoding, without partial_success."""
    writer = KeptSpans()
    response = await post(body, headers, writer=writer)

    assert response.status_code == 200
    assert response.headers["content-type"] == headers["Content-Type"]
    assert response.content == (b"{}" if headers is JSON else b"")
    assert writer.names == ["connect"]


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "Application/JSON", 'application/json;charset="utf-8"']
)
async def test_content_type_parameters(content_type: str) -> None:
    """A content type is read without regard to case, and UTF-8 may be said."""
    assert (await post(b"{}", {"Content-Type": content_type})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "body"), [(PROTOBUF, b""), (JSON, b"{}"), (JSON, b""), (JSON, b'{"resourceSpans":[]}')]
)
async def test_empty_request(headers: dict[str, str], body: bytes) -> None:
    """A request without spans succeeds, and nothing is stored."""
    writer = KeptSpans()

    assert (await post(body, headers, writer=writer)).status_code == 200
    assert writer.tables == []


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize(("headers", "body"), BODIES, ids=["protobuf", "json"])
async def test_gzip(headers: dict[str, str], body: bytes, coding: str) -> None:
    """A gzip body is taken, also one of several members."""
    writer = KeptSpans()
    folded = gzip.compress(body[:10]) + gzip.compress(body[10:])

    assert (await post(folded, headers | {"Content-Encoding": coding}, writer=writer)).status_code == 200
    assert writer.names == ["connect"]


async def test_gzip_response() -> None:
    """A long response is compressed for a sender that accepts that."""
    headers = PROTOBUF | {"Accept-Encoding": "gzip"}
    many = request(span(trace_id=b"", name="x" * 60), span(span_id=b""), span(parent_span_id=b"1"))
    response = await post(many.SerializeToString(), headers)

    assert response.headers["content-encoding"] == "gzip"
    assert trace_service_pb2.ExportTraceServiceResponse.FromString(response.content).partial_success.rejected_spans == 3


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
async def test_partial_success(encoding: str) -> None:
    """Rejected spans are counted and explained in a 200; the others are stored."""
    writer = KeptSpans()
    message = request(span(), span(trace_id=b""))
    if encoding == "json":
        response = await post(to_json(message), JSON, writer=writer)
        partial = response.json()["partialSuccess"]
        rejected, text = partial["rejectedSpans"], partial["errorMessage"]
    else:
        response = await post(message.SerializeToString(), PROTOBUF, writer=writer)
        made = trace_service_pb2.ExportTraceServiceResponse.FromString(response.content).partial_success
        rejected, text = str(made.rejected_spans), made.error_message

    assert response.status_code == 200
    assert rejected == "1"
    assert "trace_id is not 16 bytes" in text
    assert writer.names == ["connect"]


@pytest.mark.parametrize(("headers", "body"), [(PROTOBUF, b"\xff\xff"), (JSON, b"{"), (JSON, b'{"a":' * 10_000)])
async def test_bad_data(headers: dict[str, str], body: bytes) -> None:
    """A body that cannot be read is 400 with INVALID_ARGUMENT and BadRequest, which no sender retries."""
    response = await post(body, headers)
    status = status_of(response)

    assert response.status_code == 400
    assert response.headers["content-type"] == headers["Content-Type"]
    assert status.code == 3
    assert "retry-after" not in response.headers
    if headers is PROTOBUF:
        detail = error_details_pb2.BadRequest()
        assert status.details[0].Unpack(detail)
        assert detail.field_violations[0].field == "body"
    else:
        assert response.json()["details"][0]["@type"] == "type.googleapis.com/google.rpc.BadRequest"


@pytest.mark.parametrize("headers", [PROTOBUF, JSON], ids=["protobuf", "json"])
@pytest.mark.parametrize("error", [Overloaded("busy"), StoreError("disk full")], ids=["overloaded", "store"])
async def test_overload(headers: dict[str, str], error: Exception) -> None:
    """What cannot be stored now is 503 with Retry-After of at most two seconds, which every sender retries."""
    body = dict((kind["Content-Type"], body) for kind, body in BODIES)[headers["Content-Type"]]
    response = await post(body, headers, writer=KeptSpans(error))

    assert response.status_code == 503
    assert response.headers["retry-after"] in ("1", "2")
    assert status_of(response).code == 14


async def test_unexpected_error() -> None:
    """A fault of ours is 500 with a Status that tells nothing of it."""
    response = await post(GOOD.SerializeToString(), PROTOBUF, writer=KeptSpans(KeyError("secret")))

    assert response.status_code == 500
    assert status_of(response).code == 13
    assert b"secret" not in response.content


@pytest.mark.parametrize(
    ("headers", "body", "path", "method", "expected", "says"),
    [
        ({}, b"", "/v1/traces", "POST", 415, "content-type is 'missing'"),
        ({"Content-Type": "text/plain"}, b"{}", "/v1/traces", "POST", 415, "application/x-protobuf"),
        ({"Content-Type": "application/json; charset=latin-1"}, b"{}", "/v1/traces", "POST", 415, "UTF-8"),
        (PROTOBUF | {"Content-Encoding": "zstd"}, b"", "/v1/traces", "POST", 415, "gzip"),
        (PROTOBUF | {"Content-Encoding": "gzip"}, b"plain", "/v1/traces", "POST", 400, "gzip"),
        (
            PROTOBUF | {"Content-Encoding": "gzip"},
            gzip.compress(b"x" * 99, mtime=0)[:-9],
            "/v1/traces",
            "POST",
            400,
            "middle",
        ),
        (
            PROTOBUF | {"Content-Encoding": "gzip"},
            gzip.compress(b"", mtime=0) * 101,
            "/v1/traces",
            "POST",
            400,
            "members",
        ),
        ({}, b"", "/v1/traces", "GET", 405, "POST"),
        ({}, b"", "/v1/traces", "PUT", 405, "POST"),
        (JSON, b"{}", "/", "POST", 404, "/v1/traces"),
        (JSON, b"{}", "/v1/traces/", "POST", 404, "/v1/traces"),
        (JSON, b"{}", "/v1development/profiles", "POST", 404, "/v1/traces"),
    ],
)
async def test_refused(headers: dict[str, str], body: bytes, path: str, method: str, expected: int, says: str) -> None:
    """What is no OTLP/HTTP is refused with the right code and a text that says what to send instead."""
    response = await post(body, headers, path=path, method=method)

    assert response.status_code == expected
    assert says in status_of(response).message
    if expected == 405:
        assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"x" * 10_001, PROTOBUF),
        (gzip.compress(b"x" * 10_001), PROTOBUF | {"Content-Encoding": "gzip"}),
        (gzip.compress(bytes(50 << 20)), JSON | {"Content-Encoding": "gzip"}),
    ],
    ids=["plain", "gzip", "bomb"],
)
async def test_too_large(body: bytes, headers: dict[str, str]) -> None:
    """A body over the limit, as sent or decompressed, is 413 and never retried."""
    response = await post(body, headers, limits=SMALL)

    assert response.status_code == 413
    assert status_of(response).code == 8
    assert "10000 bytes" in status_of(response).message


async def test_too_large_without_length() -> None:
    """A body that does not say how long it is stops at the limit."""

    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 1000

    async with client(otlp_app(KeptSpans(), limits=SMALL)) as asking:
        response = await asking.post("/v1/traces", content=chunks(), headers=PROTOBUF)

    assert response.status_code == 413


async def test_requests_at_once() -> None:
    """One request too many is refused at once with 503; when others have finished there is room again."""
    writer = KeptSpans()
    writer.held.clear()
    async with client(otlp_app(writer, limits=SMALL)) as asking:

        async def send() -> int:
            response = await asking.post("/v1/traces", content=GOOD.SerializeToString(), headers=PROTOBUF)
            return response.status_code

        waiting = [asyncio.create_task(send()) for _ in range(2)]
        await writer.entered.wait()
        refused = await send()
        writer.held.set()

        assert refused == 503
        assert await asyncio.gather(*waiting) == [200, 200]
        assert await send() == 200


async def test_bytes_at_once() -> None:
    """Bodies that together are over the limit are refused with 503, not kept in memory."""
    writer = KeptSpans()
    writer.held.clear()
    body = request(span(name="n" * 9000)).SerializeToString()
    async with client(otlp_app(writer, limits=SMALL)) as asking:
        first = asyncio.create_task(asking.post("/v1/traces", content=body, headers=PROTOBUF))
        await writer.entered.wait()
        second = await asking.post("/v1/traces", content=body, headers=PROTOBUF)
        writer.held.set()

        assert second.status_code == 503
        assert (await first).status_code == 200


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer one", 200),
        ("bearer two", 200),
        ("Bearer three", 401),
        ("Basic one", 401),
        ("one", 401),
        ("Bearer ", 401),
        (None, 401),
    ],
)
async def test_tokens(authorization: str | None, expected: int) -> None:
    """Any of the tokens opens the door, nothing else does, and no answer repeats what was shown."""
    headers = JSON | ({"Authorization": authorization} if authorization else {})
    response = await post(b"{}", headers, tokens=["one", "two"])

    assert response.status_code == expected
    if expected == 401:
        assert status_of(response).code == 16
        assert response.headers["www-authenticate"] == "Bearer"
        assert "three" not in response.text


KIOSK = "https://kiosk.example"


async def test_preflight() -> None:
    """A configured page may ask to send: also from a public page to a private network, and without the token."""
    asked = {
        "Origin": KIOSK,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,authorization,x-other",
        "Access-Control-Request-Private-Network": "true",
    }
    response = await post(b"", asked, method="OPTIONS", origins=[KIOSK], tokens=["t"])

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == KIOSK
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-allow-private-network"] == "true"
    assert "POST" in response.headers["access-control-allow-methods"]
    for name in ("content-type", "authorization", "x-other"):
        assert name in response.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize(
    ("origin", "method", "says"),
    [
        ("https://elsewhere.example", "POST", "origin"),
        ("http://kiosk.example", "POST", "origin"),
        (KIOSK, "PUT", "method"),
    ],
)
async def test_preflight_is_refused(origin: str, method: str, says: str) -> None:
    """A preflight of another page, or for another method, gets a Status like every refusal."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    response = await post(b"", asked, method="OPTIONS", origins=[KIOSK])

    assert response.status_code == 400
    assert status_of(response).code == 7
    assert says in status_of(response).message
    if says == "origin":
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origins", [[KIOSK], ["*"]])
@pytest.mark.parametrize(
    ("body", "fault", "expected"),
    [(b"{}", None, 200), (b"{", None, 400), (to_json(GOOD), Overloaded("busy"), 503), (to_json(GOOD), KeyError(), 500)],
)
async def test_cross_origin_request(origins: list[str], body: bytes, fault: Exception | None, expected: int) -> None:
    """A configured page may read its answer, errors too, by its own name: sendBeacon sends credentials."""
    response = await post(body, JSON | {"Origin": KIOSK}, origins=origins, writer=KeptSpans(fault))

    assert response.status_code == expected
    assert response.headers["access-control-allow-origin"] == KIOSK
    assert response.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("origins", [[], [KIOSK]])
@pytest.mark.parametrize("origin", ["https://elsewhere.example", "http://receiver", "null"])
async def test_other_origins(origin: str, origins: list[str]) -> None:
    """A page that was not configured may not send, whatever name it gave this address."""
    writer = KeptSpans()
    response = await post(GOOD.SerializeToString(), PROTOBUF | {"Origin": origin}, origins=origins, writer=writer)

    assert response.status_code == 403
    assert status_of(response).code == 7
    assert "access-control-allow-origin" not in response.headers
    assert writer.tables == []


LOGS = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{}, {}]}]}]}
METRICS = {
    "resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [{}, {}, {}]}}, {"name": "n"}]}]}]
}


@pytest.mark.parametrize(
    ("signal", "body", "field", "count"),
    [("logs", LOGS, "rejectedLogRecords", "2"), ("metrics", METRICS, "rejectedDataPoints", "3")],
)
async def test_logs_and_metrics(signal: str, body: dict[str, Any], field: str, count: str) -> None:
    """Logs and metrics are answered with a success that rejects every record and says why: nobody sends them again."""
    kind = _NOT_KEPT[signal]
    from_json = await post(json.dumps(body).encode(), JSON, path=f"/v1/{signal}")
    message = json_format.ParseDict(body, kind.request())
    from_protobuf = await post(message.SerializeToString(), PROTOBUF, path=f"/v1/{signal}")
    partial = from_json.json()["partialSuccess"]

    assert (from_json.status_code, from_protobuf.status_code) == (200, 200)
    assert partial[field] == count
    assert "traces only" in partial["errorMessage"]
    assert json_format.MessageToDict(kind.response.FromString(from_protobuf.content))["partialSuccess"] == partial


@pytest.mark.parametrize("signal", ["logs", "metrics"])
async def test_logs_and_metrics_empty_or_bad(signal: str) -> None:
    """An empty request is a full success, an unreadable one is 400, as for traces."""
    empty = await post(b"", PROTOBUF, path=f"/v1/{signal}")
    bad = await post(b"\xff", PROTOBUF, path=f"/v1/{signal}")
    shapeless = await post(
        b'{"resourceLogs": [1, {"scopeLogs": 2}], "resourceMetrics": {}}', JSON, path=f"/v1/{signal}"
    )

    assert (empty.status_code, empty.content) == (200, b"")
    assert bad.status_code == 400
    assert shapeless.status_code == 200


def test_responses_are_short() -> None:
    """However much was rejected, for reasons however long, the answer stays far below the 4 MiB that senders read."""
    rejected = [Rejection("x" * 10_000, 1_000_000, "y" * 10_000)] * 1_000

    for encoding in ("protobuf", "json"):
        assert len(encoded(traces_response(rejected), encoding)) < 2_000
        assert len(encoded(answer_to(StoreError("z" * 100_000)).status, encoding)) < 2_000


def test_nothing_reads_the_wall_clock() -> None:
    """Spans are stamped with the clock that was given."""
    writer = KeptSpans()
    asyncio.run(Intake(writer, clock=lambda: 77).traces(GOOD.SerializeToString(), "protobuf", "grpc"))

    assert writer.tables[0]["received_ns"].to_pylist() == [77]


async def test_ledger() -> None:
    """Whatever is not taken is written down: its transport, why, how many spans, by whom, and an example."""
    writer = KeptSpans()
    app = otlp_app(writer, limits=SMALL, tokens=["t"])
    async with client(app) as asking:
        asking.headers.update({"Authorization": "Bearer t", "User-Agent": "OTel/1.2"})
        for path, body, headers in (
            ("traces", request(span(), span(trace_id=b"")).SerializeToString(), PROTOBUF),
            ("traces", b"{", JSON),
            ("traces", b"x" * 10_001, PROTOBUF),
            ("traces", b"", PROTOBUF | {"Authorization": "Bearer wrong"}),
            ("traces", b"", {"Content-Type": "text/plain"}),
            ("traces", b"", JSON | {"Content-Encoding": "br"}),
            ("traces", b"", JSON | {"Origin": "https://elsewhere.example"}),
            ("trace", b"", JSON),
            ("logs", json.dumps(LOGS).encode(), JSON),
        ):
            await asking.post(f"/v1/{path}", content=body, headers=headers)

    assert writer.refused == [
        ("http/protobuf", "trace_id is not 16 bytes, or all zeros", 1),
        ("http/json", "unreadable request", 0),
        ("http/protobuf", "request too large", 0),
        ("http/protobuf", "wrong token", 0),
        ("http/json", "other content type", 0),
        ("http/json", "other content encoding", 0),
        ("http/json", "page of another origin", 0),
        ("http/json", "other path", 0),
        ("http/json", "logs are not kept", 2),
    ]
    assert all((example or "").startswith("OTel/1.2") for example in writer.examples)
    assert "/v1/trace'" in (writer.examples[-2] or "")
