"""Requests whose framing is mutated, over raw sockets to a real server: it goes on, and takes the next good one."""

import gzip
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.receiver.test_grpc import EXPORT
from tests.receiver.test_sockets import BODY, DATA, GREETING, HEAD, HEADERS, complete, frame, text
from tests.soak import memory_mb
from tests.support.otlp import mutated
from tests.test_serve import serve_process

pytestmark = pytest.mark.real

MUTATED = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
GROWTH_MB = 50
"""Of a server that has taken its first requests; 120 requests that were kept whole would be half of it, at least."""
PATIENCE_S = 10.0
LEFT = "in _send_error_status_from_server\n"
"""Is in what gRPC itself prints of a sender that left before it was told that its path is not UTF-8."""

Notice = dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Notice]]:
    """A server in a process of its own: its id, and where it listens."""
    with serve_process(tmp_path_factory.mktemp("mutated") / "s.duckdb") as (process, notice):
        yield process.pid, notice
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert said.count("Traceback") == said.count(LEFT), said


bodies = st.sampled_from([BODY, b"", gzip.compress(BODY), b'{"resourceSpans":[]}', b"x" * 10_000])
headers = st.sampled_from(
    [
        b"Connection: close\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Expect: 100-continue\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Type: application/json\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Origin: null\r\n",
        b"Authorization: Bearer \xff\r\n",
        b"X: " + b"x" * 40_000 + b"\r\n",
        b"no colon\r\n",
        b" folded\r\n",
        b"\x00: \x00\r\n",
    ]
)
request_lines = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/traces HTTP/1.0\r\n",
        b"POST http://x/v1/traces HTTP/1.1\r\nHost: x\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"POST /v1/traces HTTP/9.9\r\nHost: x\r\nHost: y\r\n",
        b"POST /" + b"%00/" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n",
    ]
)


@st.composite
def http_request(draw: st.DrawFn) -> bytes:
    """One request whose head, length or chunks may lie."""
    body, lie = draw(bodies), draw(st.sampled_from([0, 0, 0, -1, 1, 1000]))
    head = draw(st.just(HEAD) | st.just(HEAD) | request_lines) + b"".join(draw(st.lists(headers, max_size=2)))
    if draw(st.booleans()):
        return head + b"Content-Length: %d\r\n\r\n" % max(0, len(body) + lie) + body
    sizes = draw(
        st.lists(st.sampled_from([b"0", b"1", b"%x" % len(body), b"-1", b"ffffffffffffffff", b"g"]), max_size=4)
    )
    chunks = b"".join(size + b"\r\n" + body + b"\r\n" for size in sizes)
    return (
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y", b""]))
    )


good = st.just(complete(last=False))
pipelined = st.builds(
    bytes.__add__, st.lists(http_request() | good, min_size=1, max_size=3).map(b"".join), st.just(complete())
)


def call(body: bytes = BODY, *, prefix: bytes | None = None, fields: dict[str, str] | None = None) -> list[bytes]:
    """The frames of one call of gRPC."""
    named = {":method": "POST", ":scheme": "http", ":path": EXPORT, ":authority": "x", "te": "trailers"}
    named |= {"content-type": "application/grpc"} | (fields or {})
    head = b"".join(b"\x00" + text(name) + text(value) for name, value in named.items())
    prefix = b"\x00" + len(body).to_bytes(4, "big") if prefix is None else prefix
    return [frame(HEADERS, 4, head), frame(DATA, 1, prefix + body)]


@st.composite
def grpc_calls(draw: st.DrawFn) -> bytes:
    """A connection whose frames and message prefix may lie, or come twice, or in another order."""
    prefixes = [None, b"", b"\x01\x00\x00\x00\x01", b"\x00\xff\xff\xff\xff", b"\x02\x00\x00\x00\x05", b"\x00\x00\x00"]
    fields = [
        {},
        {":path": "/x/y"},
        {":path": "/\xf2"},
        {"grpc-timeout": "0n"},
        {"grpc-encoding": "snappy"},
        {":method": "GET"},
    ]
    frames = call(
        draw(bodies.filter(lambda body: len(body) < 16_000)),
        prefix=draw(st.sampled_from(prefixes)),
        fields=draw(st.sampled_from(fields)),
    )
    raw = st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.binary(max_size=40))
    frames += draw(st.lists(raw | st.sampled_from(frames), max_size=3))
    return draw(st.just(GREETING) | st.just(b"")) + b"".join(draw(st.permutations(frames)))


def raw(address: str, request: bytes, ending: str = "answer", *, until: bytes = b"", patience_s: float = 0.1) -> bytes:
    """Send bytes, end the connection, and return what came back.

    Args:
        ending: wait for an `answer` before, or not: `close`, `reset`, or close the sending half only.
        until: what an answer has when it is complete; empty means that nobody knows.
    """
    host, _, port = address.removeprefix("http://").partition(":")
    answer = b""
    with suppress(OSError), socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        connection.sendall(request)
        if ending == "half":
            connection.shutdown(socket.SHUT_WR)
        elif ending == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if ending in ("answer", "half"):
            connection.settimeout(patience_s)
            while not (until and until in answer) and (part := connection.recv(65_536)):
                answer += part
    return answer


def survives(
    server: tuple[int, Notice], door: str, requests: st.SearchStrategy[bytes], taken: Callable[[], bool]
) -> None:
    """Send what is drawn, as it is or mutated further; after each a good request is taken, and memory stays."""
    pid, notice = server
    assert taken()
    before_mb = memory_mb(pid)

    @MUTATED
    @given(requests | mutated(requests), st.sampled_from(["answer", "half", "close", "reset"]))
    def check(request: bytes, ending: str) -> None:
        raw(notice[door], request, ending)
        assert taken()

    check()
    assert memory_mb(pid) < before_mb + GROWTH_MB


def test_mutated_http(server: tuple[int, Notice]) -> None:
    """Whatever is wrong with a request of HTTP/1.1, or those behind it, the next good one is acknowledged."""
    address = server[1]["otlp_http"]
    assert raw(address, complete(), patience_s=PATIENCE_S).startswith(b"HTTP/1.1 200")
    with httpx.Client(headers={"content-type": "application/x-protobuf"}, trust_env=False) as client:
        survives(server, "otlp_http", pipelined, lambda: client.post(f"{address}/v1/traces", content=BODY).is_success)


def test_path_that_is_not_utf8(server: tuple[int, Notice]) -> None:
    """It is answered, and other calls after it: some releases of gRPC end the whole server at it."""
    address = server[1]["otlp_grpc"]
    unknown = b"grpc-status\x012"
    assert unknown in raw(
        address, GREETING + b"".join(call(fields={":path": "/\xf2"})), until=unknown, patience_s=PATIENCE_S
    )
    with grpc.insecure_channel(address.removeprefix("http://")) as channel:
        assert channel.unary_unary(EXPORT)(BODY, timeout=PATIENCE_S) == b""


def test_mutated_grpc(server: tuple[int, Notice]) -> None:
    """Whatever is wrong with frames of HTTP/2 or the prefix of a message, the next good one is acknowledged."""
    address = server[1]["otlp_grpc"]
    acknowledged = frame(DATA, 0, bytes(5))
    assert acknowledged in raw(address, GREETING + b"".join(call()), until=acknowledged, patience_s=PATIENCE_S)
    with grpc.insecure_channel(address.removeprefix("http://")) as channel:
        survives(server, "otlp_grpc", grpc_calls(), lambda: channel.unary_unary(EXPORT)(BODY, timeout=10) == b"")
