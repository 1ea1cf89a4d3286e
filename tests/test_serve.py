"""One process that receives, stores and shows; asked by others while it runs and after it has stopped."""

import asyncio
import base64
import errno
import itertools
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from telemetry import formats, semconv, serve, settings, traces
from telemetry.cli.keeping import size_bytes
from telemetry.cli.running import sites
from telemetry.errors import ExitCode, ServerError, SessionNotFound, StoreLocked, UnknownReport, UsageError
from telemetry.serve import Doors, listening, serving
from telemetry.source import Server, notice_path, opened, otlp_endpoint, serving_url
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support import traffic
from tests.support.hooks import hook
from tests.support.spans import T0, attempt, table

pytestmark = pytest.mark.real

ANY = Doors(grpc_port=0, http_port=0, pages_port=0)
RANGE = {"since": str(T0 - 1), "until": str(T0 + 10**12)}


def send(otlp_http: str, *numbers: int) -> None:
    """Send failed attempts as OTLP/JSON; returns when they are acknowledged."""
    for number in numbers:
        body = traces.to_otlp(table(attempt(number, outcome="failed", error="noScene", detail="busy")).to_pylist())
        httpx.post(f"{otlp_http}/v1/traces", json=body, trust_env=False).raise_for_status()


@contextmanager
def serve_process(
    store: Path, *arguments: str, program: Sequence[str] = ("-m", "telemetry")
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`telemetry serve` in a process of its own, and where it listens."""
    command = [sys.executable, *program, "serve", "--store", str(store)]
    command += ["--grpc-port", "0", "--http-port", "0", "--pages-port", "0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        try:
            assert process.stderr
            assert process.stderr.readline().startswith("pages ")
            yield process, json.loads(notice_path(store).read_text())
        finally:
            process.kill()


def telemetry(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of the command line."""
    command = [sys.executable, "-m", "telemetry", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_what_arrives_is_asked_over_http_and_then_from_the_file(tmp_path: Path) -> None:
    """While the server runs it is asked, afterwards the file is opened; the rows and the story are the same."""
    path = tmp_path / "store.duckdb"

    def ask() -> tuple[str | None, bytes, dict[str, object]]:
        with opened(path) as asked:
            table = asked.report("recent", RANGE)
            return asked.url, formats.to_bytes(table, "csv"), asked.story("attempt-0002")

    async with serving(path, ANY) as addresses:
        await asyncio.to_thread(send, addresses.otlp_http, 1, 2)
        url, served, told = await asyncio.to_thread(ask)
    nowhere, kept, told_again = await asyncio.to_thread(ask)

    assert (url, nowhere) == (addresses.pages, None)
    assert served == kept
    assert served.count(b"\n") == 3
    assert told["verdict"] == told_again["verdict"]


async def test_the_sdk_exports_over_grpc(tmp_path: Path) -> None:
    """A span of the OpenTelemetry SDK is queryable as soon as its export has returned."""
    path = tmp_path / "store.duckdb"

    def export(endpoint: str) -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
        with provider.get_tracer("test").start_as_current_span("connect") as span:
            span.set_attributes({semconv.ATTEMPT_ID: "attempt-sdk", semconv.OUTCOME: "cancelled"})
        provider.shutdown()

    def ask() -> dict[str, object]:
        with opened(path) as asked:
            return asked.story("attempt-sdk")

    async with serving(path, ANY) as addresses:
        assert otlp_endpoint(path) == addresses.otlp_grpc
        await asyncio.to_thread(export, addresses.otlp_grpc)
        told = await asyncio.to_thread(ask)

    assert told["verdict"]["outcome"] == "cancelled"  # type: ignore[index]


async def test_the_notice_is_private_and_goes_with_the_server(tmp_path: Path) -> None:
    """The notice beside the store is for its owner alone, and is removed at the end."""
    path = tmp_path / "store.duckdb"

    async with serving(path, ANY) as addresses:
        notice = notice_path(path)
        assert stat.S_IMODE(notice.stat().st_mode) == 0o600
        assert json.loads(notice.read_text())["url"] == addresses.pages

    assert not notice.exists()


async def test_a_notice_left_behind_is_not_believed(tmp_path: Path) -> None:
    """A killed server's notice is ignored, even where the server of another store has its port."""
    mine, other = tmp_path / "mine.duckdb", tmp_path / "other.duckdb"

    async with serving(other, ANY) as addresses:
        notice_path(mine).write_text(json.dumps({"pid": os.getpid() + 1, "url": addresses.pages}))
        assert await asyncio.to_thread(serving_url, mine) is None
        assert await asyncio.to_thread(serving_url, other) == addresses.pages
    for garbage in ("", "[]", "{}", '{"url": 1, "pid": 1}', '{"url": "http://127.0.0.1:1", "pid": 1}'):
        notice_path(mine).write_text(garbage)
        assert await asyncio.to_thread(serving_url, mine) is None


async def test_errors_arrive_as_they_were_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server refuses is the same error, with the same exit code, as from the file."""
    path = tmp_path / "store.duckdb"

    def ask() -> None:
        with opened(path) as asked:
            assert isinstance(asked, Server)
            with pytest.raises(UnknownReport) as unknown:
                asked.report("recnt", {})
            assert "recent" in unknown.value.nearest
            with pytest.raises(SessionNotFound):
                asked.story("nothing-like-this")

    async with serving(path, ANY):
        await asyncio.to_thread(ask)
    with pytest.raises(ServerError, match="does not answer"), opened("http://127.0.0.1:1") as asked:
        asked.report("recent", {})


async def test_the_token_guards_every_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token nothing comes in or out without it; whoever has it in the environment need not think of it."""
    path = tmp_path / "store.duckdb"
    monkeypatch.delenv(settings.TOKEN_VARIABLE, raising=False)

    def ask() -> int:
        with opened(path) as asked:
            rows: int = asked.report("recent", RANGE).num_rows
            return rows

    async with serving(path, Doors(grpc_port=0, http_port=0, pages_port=0, tokens=("secret",))) as addresses:
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            await asyncio.to_thread(send, addresses.otlp_http, 1)
        with pytest.raises(ServerError, match="this server asks for a token"):
            await asyncio.to_thread(ask)
        monkeypatch.setenv(settings.TOKEN_VARIABLE, "wrong, secret")
        with pytest.raises(ServerError, match="does not know the token that TELEMETRY_TOKEN holds"):
            await asyncio.to_thread(ask)
        monkeypatch.setenv(settings.TOKEN_VARIABLE, "secret")
        assert await asyncio.to_thread(ask) == 0


def test_no_token_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a token that is known nor one that is not gets into the log, even at DEBUG, or into the store."""
    path, log = tmp_path / "store.duckdb", tmp_path / "log"
    right, wrong = "right-token-5e1f", "wrong-token-a907"
    monkeypatch.setenv(settings.TOKEN_VARIABLE, right)
    logged = f"import logging; logging.basicConfig(filename={str(log)!r}, level=logging.DEBUG); "
    program = ("-c", logged + "from telemetry.cli import main; main()")
    body = json.dumps(traces.to_otlp(table(attempt(1)).to_pylist())).encode()
    answers: list[int | grpc.StatusCode] = []

    with serve_process(path, program=program) as (process, notice):
        target = notice["otlp_grpc"].removeprefix("http://")
        with httpx.Client(trust_env=False) as client, grpc.insecure_channel(target) as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
            for token in (right, wrong):
                shown = {"authorization": f"Bearer {token}"}
                for content in (body, b"{"):
                    headers = shown | {"content-type": "application/json"}
                    answer = client.post(f"{notice['otlp_http']}/v1/traces", content=content, headers=headers)
                    answers.append(answer.status_code)
                answers.append(client.get(f"{notice['url']}/api/reports", headers=shown).status_code)
                answers.append(client.get(f"{notice['url']}/api/reports", auth=("anyone", token)).status_code)
                answers.append(export.future(b"\xff", metadata=[*shown.items()], timeout=10).code())
        process.send_signal(signal.SIGTERM)
        said = "".join(process.communicate(timeout=30))
    with Store.open(path) as store:
        ledger = store.query("select transport, reason, example from ingest").to_pylist()
        spans = store.query("from spans").to_pylist()

    assert answers[:5] == [200, 400, 200, 200, grpc.StatusCode.INVALID_ARGUMENT]
    assert answers[5:] == [401, 401, 401, 401, grpc.StatusCode.UNAUTHENTICATED]
    assert {row["transport"] for row in ledger if row["reason"] == "wrong token"} == {"http/json", "grpc"}
    assert "DEBUG" in log.read_text()
    assert spans
    written = "\n".join((said, log.read_text(), repr(ledger), repr(spans)))
    for token in (right, wrong):
        for text in (token, base64.b64encode(f"anyone:{token}".encode()).decode()):
            assert text not in written


async def test_what_stands_in_the_way_is_told(tmp_path: Path) -> None:
    """A taken port, a store in use and an open address are each an error of their own, and leave nothing open."""
    path = tmp_path / "store.duckdb"

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for doors in (Doors("127.0.0.1", 0, 0, port), Doors("127.0.0.1", 0, port, 0), Doors("127.0.0.1", port, 0, 0)):
            with pytest.raises(ServerError, match=str(port)):
                async with serving(path, doors):
                    pass
    with pytest.raises(UsageError, match="TELEMETRY_TOKEN"):
        async with serving(path, Doors(host="0.0.0.0", grpc_port=0, http_port=0, pages_port=0)):
            pass
    async with serving(path, ANY):
        with pytest.raises(StoreLocked):
            async with serving(path, ANY):
                pass
        assert notice_path(path).exists()


def test_an_answer_leaves_at_once() -> None:
    """What is accepted sends each part of an answer without waiting for the part before to be acknowledged."""
    with listening("127.0.0.1", 0, "pages") as door, socket.create_connection(door.getsockname()):
        accepted, _ = door.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told so")
def test_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose answer nobody takes ends, and holds no memory until the server stops."""
    monkeypatch.setattr(serve, "_UNREAD_S", 0.3)
    with listening("127.0.0.1", 0, "pages") as door, socket.create_connection(door.getsockname()):
        accepted, _ = door.accept()
        with accepted:
            accepted.settimeout(30)
            with pytest.raises(TimeoutError) as ended:
                accepted.sendall(bytes(64_000_000))
    assert ended.value.errno == errno.ETIMEDOUT


def test_a_signal_ends_it_in_good_order(tmp_path: Path) -> None:
    """SIGTERM: exit code 0, nothing on stdout, no notice left, and what was acknowledged is in the file."""
    path = tmp_path / "store.duckdb"

    with serve_process(path) as (process, notice):
        send(notice["otlp_http"], 1)
        second = telemetry("serve", "--store", str(path), "--grpc-port", "0", "--http-port", "0", "--pages-port", "0")
        asked = telemetry("report", "recent", "--store", str(path), "--format", "json", *_options(RANGE))
        process.send_signal(signal.SIGTERM)
        told, narrated = process.communicate(timeout=30)
    after = telemetry("report", "recent", "--store", str(path), "--format", "json", *_options(RANGE))

    assert (process.returncode, told) == (0, "")
    assert "stopped" in narrated
    assert not notice_path(path).exists()
    assert second.returncode == 5
    assert str(process.pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert [row["attempt_id"] for row in json.loads(asked.stdout)] == ["attempt-0001"]
    assert (asked.returncode, asked.stdout) == (after.returncode, after.stdout)


def test_a_second_ctrl_c_ends_it_at_once_and_loses_nothing(tmp_path: Path) -> None:
    """While a slow sender holds up the stop, another Ctrl-C leaves with 130; what was acknowledged stays."""
    path = tmp_path / "store.duckdb"

    with serve_process(path) as (process, notice):
        send(notice["otlp_http"], 1)
        host, _, port = notice["otlp_http"].removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as slow:
            head = "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            slow.sendall(head.encode())
            process.send_signal(signal.SIGINT)
            assert process.stderr
            while "Ctrl-C again" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            process.wait(timeout=4)
    found = telemetry("session", "attempt-0001", "--store", str(path), "--format", "ticket")

    assert process.returncode == 130
    assert not notice_path(path).exists()
    assert found.returncode == 0
    assert "attempt-0001" in found.stdout


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """After a kill -9 the next command opens the file, and every acknowledged span is there."""
    path = tmp_path / "store.duckdb"

    with serve_process(path) as (process, notice):
        send(notice["otlp_http"], *range(1, 6))
        process.kill()
        process.wait(timeout=10)
        assert notice_path(path).exists()
    found = telemetry("report", "recent", "--store", str(path), "--format", "json", *_options(RANGE))

    assert len(json.loads(found.stdout)) == 5


class Senders:
    """Threads that send to one server after another: each sends its request again until it is acknowledged.

    After a kill each also sends the one before again, as if that answer had been lost, too.
    """

    SPANS = 20
    """In a request."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.interrupted = 0
        """Requests of which nobody knows whether they are stored."""
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._no_server: dict[str, str] = {}
        self._notice = self._no_server
        self._ended = False

    def send_to(self, notice: dict[str, str], until: int) -> None:
        """Have all send there; returns once so many more requests are acknowledged."""
        with self._changed:
            until += self.acknowledged
            self._notice = notice
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.acknowledged >= until, 60)

    def end(self) -> None:
        """Have each end with its next acknowledgement."""
        self._ended = True

    def over_http(self) -> None:
        """Send as one sender of OTLP/HTTP does."""
        headers = {"content-type": "application/x-protobuf"}
        with httpx.Client(headers=headers, trust_env=False, timeout=30) as client:

            def send(notice: dict[str, str], body: bytes) -> None:
                client.post(f"{notice['otlp_http']}/v1/traces", content=body).raise_for_status()

            self._keep_sending(send, httpx.TransportError)

    def over_grpc(self) -> None:
        """Send as one sender of OTLP/gRPC does."""

        def send(notice: dict[str, str], body: bytes) -> None:
            with grpc.insecure_channel(notice["otlp_grpc"].removeprefix("http://")) as channel:
                channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")(body, timeout=30)

        self._keep_sending(send, grpc.RpcError)

    def _keep_sending(self, send: Callable[[dict[str, str], bytes], None], lost: type[Exception]) -> None:
        left, last = self._no_server, b""
        while not self._ended:
            bodies = [traffic.own(self.SPANS, next(self._numbers) * self.SPANS).SerializeToString()]
            while bodies:
                notice = self._other_than(left)
                try:
                    send(notice, bodies[0])
                    last = bodies.pop(0)
                except lost:
                    left = notice
                    self.interrupted += 1
                    bodies.insert(0, last)
            with self._changed:
                self.acknowledged += 1
                self._changed.notify_all()

    def _other_than(self, left: dict[str, str]) -> dict[str, str]:
        """Wait for another server than the one that was killed."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._notice is not left, 60)
            return self._notice


def test_kill_9_under_load(tmp_path: Path) -> None:
    """Killed while others send, and started again: what they send until it is acknowledged is there exactly once."""
    path, senders, chance = tmp_path / "store.duckdb", Senders(), random.Random(5)

    with ThreadPoolExecutor(6) as threads:
        sending = [threads.submit(way) for way in (senders.over_http, senders.over_grpc) * 3]
        for last in (False, False, True):
            with serve_process(path) as (process, notice):
                senders.send_to(notice, chance.randint(20, 100))
                if last:
                    senders.end()
                    wait(sending)
                    process.send_signal(signal.SIGTERM)
                else:
                    process.kill()
                process.communicate(timeout=30)
    for sender in sending:
        sender.result()
    with Store.open(path) as store:
        [found] = store.query("select count(*) as n, count(distinct span_id) as ids from spans").to_pylist()
        checks = verify(store)

    expected = senders.acknowledged * senders.SPANS
    assert senders.interrupted
    assert found == {"n": expected, "ids": expected}
    assert all(check.passed for check in checks), checks


def test_the_largest_request_is_a_setting(tmp_path: Path) -> None:
    """What is over `--max-body` is refused for good by each transport, and what is below is taken."""
    large = bytes(20_001)

    with serve_process(tmp_path / "store.duckdb", "--max-body", "20k") as (_, notice):
        send(notice["otlp_http"], 1)
        headers = {"content-type": "application/x-protobuf"}
        refused = httpx.post(f"{notice['otlp_http']}/v1/traces", content=large, headers=headers, trust_env=False)
        with grpc.insecure_channel(notice["otlp_grpc"].removeprefix("http://")) as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
            with pytest.raises(grpc.RpcError) as exhausted:
                export(large, timeout=10)

    assert refused.status_code == 413
    assert b"larger than 20000 bytes" in refused.content
    assert exhausted.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("size", ["much", "999", "200MiB", "-1"])
def test_a_largest_request_that_would_not_work(tmp_path: Path, size: str) -> None:
    """A size that is none, or below or above what works, stops the start and says what would."""
    said = telemetry("serve", "--store", str(tmp_path / "s.duckdb"), f"--max-body={size}")

    assert said.returncode == 2
    assert "--max-body takes" in said.stderr


def test_pages_of_a_named_site_may_send(tmp_path: Path) -> None:
    """Of browsers' pages, those of an `--origin` may send, and no others."""
    names = ("https://kiosk.example", "https://other.example", "https://stranger.example")
    options = [word for name in names[:2] for word in ("--origin", name)]
    preflight = {"Access-Control-Request-Method": "POST"}
    json_of = {"Content-Type": "application/json"}

    with serve_process(tmp_path / "store.duckdb", *options) as (_, notice):
        url = f"{notice['otlp_http']}/v1/traces"
        with httpx.Client(trust_env=False) as page:
            asked = [page.options(url, headers={"Origin": name} | preflight) for name in names]
            sent = [page.post(url, content=b"{}", headers={"Origin": name} | json_of) for name in names]

    assert [answer.headers.get("Access-Control-Allow-Origin") for answer in asked] == [*names[:2], None]
    assert [answer.status_code for answer in sent] == [200, 200, 403]


@pytest.mark.parametrize(
    "origin",
    [
        "https://kiosk.example/",
        "https://kiosk.example/page",
        "kiosk.example",
        "https://",
        "https://Kiosk.example",
        "HTTPS://kiosk.example",
        "https://kiosk.example:443",
        "http://kiosk.example:80",
        "https://kiosk.example:x",
        "https://user@kiosk.example",
        "https://*.kiosk.example",
        "https://kiösk.example",
        "https://a.example,https://b.example",
        "",
    ],
)
def test_what_no_browser_calls_a_site_stops_the_start(origin: str) -> None:
    """An `--origin` that no page could ever have is refused, and told what one looks like."""
    with pytest.raises(UsageError, match=r"--origin takes .*https://kiosk\.example"):
        sites([origin])


def test_sites() -> None:
    """Whatever browsers send as the origin of a page may be named, and a star."""
    names = ("https://kiosk.example", "http://localhost:3000", "http://[::1]:8080", "https://xn--ksk-1na.example", "*")
    names += ("null", "chrome-extension://abcdef", "http://kiosk.example:443", "http://192.168.0.1")

    assert sites(names) == names


def test_a_site_that_is_none_stops_the_command(tmp_path: Path) -> None:
    """`telemetry serve` says so, and does not start."""
    said = telemetry("serve", "--store", str(tmp_path / "s.duckdb"), "--origin", "https://kiosk.example/")

    assert said.returncode == ExitCode.USAGE
    assert "--origin takes" in said.stderr


@pytest.mark.parametrize(
    ("options", "gone", "stays"),
    [
        (("--keep-days", "5"), {1, 2}, {3}),
        (("--keep-in", "staging=5"), {2}, {1, 3}),
        (("--keep-bytes", "1K"), {1}, {3}),
    ],
    ids=["days", "environment", "bytes"],
)
def test_what_is_not_to_be_kept_is_forgotten(
    tmp_path: Path, options: tuple[str, ...], gone: set[int], stays: set[int]
) -> None:
    """A server forgets what its options say; here it looks twice a second, not every ten minutes."""
    path = tmp_path / "store.duckdb"
    quicker = "from telemetry.store import writer; writer.PRUNE_EVERY_S = 0.0; from telemetry.cli import main; main()"
    now_ns, day_ns = time.time_ns(), 86_400 * 10**9
    with Store.open(path) as store:
        old = table(attempt(1, start_ns=now_ns - 11 * day_ns))
        staging = table(attempt(2, start_ns=now_ns - 10 * day_ns, environment="staging"))
        store.commit([old, staging, table(attempt(3, start_ns=now_ns - day_ns))])
        store.tend(now=True)

    with serve_process(path, *options, program=("-c", quicker)) as (_, notice):
        until = time.monotonic() + 30
        while gone & (found := attempts(notice["url"])) and time.monotonic() < until:
            time.sleep(0.1)

    assert not gone & found
    assert stays <= found


def attempts(pages: str) -> set[int]:
    """The attempts of the last month."""
    answer = httpx.get(f"{pages}/api/reports/recent", params={"since": "30d"}, trust_env=False).raise_for_status()
    return {int(row["attempt_id"].removeprefix("attempt-")) for row in answer.json()["rows"]}


def test_open_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token only `--open-to-all` goes on to listen beyond loopback; this address is no machine's."""
    monkeypatch.delenv(settings.TOKEN_VARIABLE, raising=False)
    command = ("serve", "--store", str(tmp_path / "s.duckdb"), "--host", "192.0.2.1")

    refused, listened = telemetry(*command), telemetry(*command, "--open-to-all")

    assert (refused.returncode, listened.returncode) == (ExitCode.USAGE, ExitCode.UNAVAILABLE)
    assert "say --open-to-all" in refused.stderr
    assert "cannot listen on 192.0.2.1" in listened.stderr


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("500M", 500_000_000), ("64MiB", 2**26), ("1.5 k", None), ("2g", 2 * 10**9)]
)
def test_sizes(text: str, size: int | None) -> None:
    """Sizes count by thousands, or by 1024 with an `i`."""
    if size is None:
        with pytest.raises(UsageError, match="--keep-bytes takes a size"):
            size_bytes("--keep-bytes", text)
    else:
        assert size_bytes("--keep-bytes", text) == size


def _options(params: dict[str, str]) -> list[str]:
    return [word for name, value in params.items() for word in (f"--{name}", value)]


RULES = """
[[rules]]
name = "attempts fail"
report = "errors"
params = { since = "2026-09-21" }
column = "attempts"
above = 1
labels = { severity = "page" }

[[webhooks]]
name = "pager"
url_env = "PAGER"
"""


def metric(pages: str, name: str) -> list[str]:
    """The samples of one metric."""
    lines = httpx.get(f"{pages}/metrics", trust_env=False).text.splitlines()
    return [line for line in lines if line.startswith(name)]


async def test_rules_are_checked_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve --rules` shows what fires beside the receiver's own figures, tells webhooks, and logs no secret."""
    rules, path = tmp_path / "rules.toml", tmp_path / "store.duckdb"
    rules.write_text(RULES)
    async with hook() as posts:
        monkeypatch.setenv("PAGER", posts.url)
        with serve_process(path, "--rules", str(rules), "--check-every", "1s") as (process, notice):
            await asyncio.to_thread(send, notice["otlp_http"], 1, 2)
            await asyncio.wait_for(posts.until(1), 20)
            firing = await asyncio.to_thread(metric, notice["url"], "dp_telemetry_alert_firing{")
            requests = await asyncio.to_thread(metric, notice["url"], "dp_telemetry_requests_total{")
            process.send_signal(signal.SIGTERM)
            _, said = await asyncio.to_thread(process.communicate, timeout=20)

    (alert,) = posts.bodies[0]["alerts"]
    assert (alert["status"], alert["labels"]["detail"], alert["labels"]["severity"]) == ("firing", "busy", "page")
    assert len(posts.bodies) == 1
    assert len(firing) == len(requests) == 1
    assert process.returncode == 0
    assert "hush" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "{rules}"], "the environment variable PAGER is not set"),
        (["--rules", "{missing}"], "cannot read the rules"),
        (["--rules", "{wrong}"], "report errors has no column 'attempt'"),
        (["--rules", "{rules}", "--check-every", "0.5s"], "--check-every takes a duration from 1s to 1d"),
        (["--rules", "{rules}", "--check-every", "often"], "--check-every takes"),
    ],
)
def test_rules_that_cannot_be_used_stop_the_start(tmp_path: Path, arguments: list[str], message: str) -> None:
    """A server does not start with rules that it could not check."""
    files = {name: tmp_path / name for name in ("rules", "missing", "wrong")}
    files["rules"].write_text(RULES)
    files["wrong"].write_text(RULES.partition("[[webhooks]]")[0].replace('"attempts"', '"attempt"'))
    given = [argument.format(**files) for argument in arguments]

    ports = ("--grpc-port", "0", "--http-port", "0", "--pages-port", "0")
    said = telemetry("serve", "--store", str(tmp_path / "s.duckdb"), *ports, *given)

    assert said.returncode == 2
    assert message in said.stderr
