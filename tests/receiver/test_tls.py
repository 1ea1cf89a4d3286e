"""TLS at every door of a real server: who is believed, and who is let in."""

import asyncio
import ssl
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from telemetry import traces
from telemetry.errors import UsageError
from telemetry.receiver.room import Limits
from telemetry.receiver.tls import Tls
from telemetry.serve import Addresses, Doors, serving
from telemetry.source import notice_path, opened, send
from tests.support.otlp import request, span
from tests.support.receiving import KeptSpans, receiving
from tests.support.spans import attempt, table

pytestmark = pytest.mark.real

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
BODY = request(span()).SerializeToString()
PROTOBUF = {"Content-Type": "application/x-protobuf"}


@dataclass(frozen=True)
class Issued:
    """A server's files, the authority behind them, and a sender's own certificate."""

    tls: Tls
    authority: Path
    sender: Path
    sender_key: Path

    def trusting(self, *, shown: bool = False) -> ssl.SSLContext:
        """A client that trusts the authority, and shows the sender's certificate if asked to."""
        context = ssl.create_default_context(cafile=self.authority)
        if shown:
            context.load_cert_chain(self.sender, self.sender_key)
        return context


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    """Certificates for the loopback address and for one sender, from one authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server, sender = authority.issue_cert("127.0.0.1"), authority.issue_cert("sender@example.test")
    paths = {name: folder / f"{name}.pem" for name in ("chain", "key", "ca", "sender", "sender_key")}
    for name, content in (
        ("chain", server.cert_chain_pems[0].bytes()),
        ("key", server.private_key_pem.bytes()),
        ("ca", authority.cert_pem.bytes()),
        ("sender", sender.cert_chain_pems[0].bytes()),
        ("sender_key", sender.private_key_pem.bytes()),
    ):
        paths[name].write_bytes(content)
    return Issued(Tls(paths["chain"], paths["key"]), paths["ca"], paths["sender"], paths["sender_key"])


def doors(tls: Tls) -> Doors:
    """Any free ports."""
    return Doors(grpc_port=0, http_port=0, pages_port=0, tls=tls)


async def post(addresses: Addresses, context: ssl.SSLContext) -> int:
    """Send one span over HTTPS; returns the status."""
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        return (await client.post(f"{addresses.otlp_http}/v1/traces", content=BODY, headers=PROTOBUF)).status_code


async def export(addresses: Addresses, issued: Issued, *, shown: bool = False) -> Any:
    """Send one span over gRPC with TLS."""
    own = {"private_key": issued.sender_key.read_bytes(), "certificate_chain": issued.sender.read_bytes()}
    credentials = grpc.ssl_channel_credentials(issued.authority.read_bytes(), **(own if shown else {}))
    async with grpc.aio.secure_channel(addresses.otlp_grpc.removeprefix("https://"), credentials) as channel:
        return await channel.unary_unary(EXPORT)(BODY, timeout=5)


async def test_every_door_speaks_tls(tmp_path: Path, issued: Issued) -> None:
    """gRPC, HTTP and pages show the certificate, plain text gets no answer, and the command line finds its server."""
    path = tmp_path / "s.duckdb"

    def ask() -> tuple[str | None, int]:
        with opened(path) as asked:
            return asked.url, asked.info()["spans"]

    async with serving(path, doors(issued.tls)) as addresses:
        assert {url.partition(":")[0] for url in (addresses.pages, addresses.otlp_http, addresses.otlp_grpc)} == {
            "https"
        }
        assert await export(addresses, issued) == b""
        assert await post(addresses, issued.trusting()) == 200
        with pytest.raises(httpx.TransportError):
            await post(replace(addresses, otlp_http=addresses.otlp_http.replace("https", "http")), issued.trusting())
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await post(addresses, ssl.create_default_context())
        url, spans = await asyncio.to_thread(ask)
        failed = traces.to_otlp(table(attempt(1, outcome="failed", error="noScene", detail="busy")).to_pylist())
        await asyncio.to_thread(send, addresses.otlp_http, failed, path)
        _, more = await asyncio.to_thread(ask)

    assert (url, spans) == (addresses.pages, 1)
    assert more > spans


async def test_another_certificate_on_the_port_is_not_believed(tmp_path: Path, issued: Issued) -> None:
    """A server with another certificate than the notice names is not asked."""
    path = tmp_path / "s.duckdb"
    other = tmp_path / "other.pem"
    other.write_bytes(trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].bytes())

    def server() -> str | None:
        from telemetry.source import serving_url

        return serving_url(path)

    async with serving(path, doors(issued.tls)):
        notice = notice_path(path)
        notice.write_text(notice.read_text().replace(str(issued.tls.certificate), str(other)))
        assert await asyncio.to_thread(server) is None


async def test_senders_show_a_certificate(tmp_path: Path, issued: Issued) -> None:
    """With a client CA only senders that show a certificate of it come in; the pages are not for senders."""
    tls = replace(issued.tls, client_ca=issued.authority)
    async with serving(tmp_path / "s.duckdb", doors(tls)) as addresses:
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await post(addresses, issued.trusting())
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await export(addresses, issued)
        assert await post(addresses, issued.trusting(shown=True)) == 200
        assert await export(addresses, issued, shown=True) == b""
        async with httpx.AsyncClient(verify=issued.trusting(), trust_env=False) as client:
            assert (await client.get(f"{addresses.pages}/api/health")).status_code == 200


async def test_silent_connections(issued: Issued) -> None:
    """Connections that never greet count from the first, and end when their time is up; then others come in."""
    context = issued.tls.context(senders=True)
    async with receiving(KeptSpans(), limits=Limits(max_connections=2, header_s=0.5), tls=context) as ports:
        silent = [await asyncio.open_connection("127.0.0.1", ports.http) for _ in range(3)]
        async with asyncio.timeout(5):
            refused = await silent[2][0].read()
            assert not silent[0][0].at_eof()
            ended = [await reader.read() for reader, _ in silent[:2]]
        async with httpx.AsyncClient(verify=issued.trusting(), trust_env=False) as client:
            answer = await client.post(f"https://127.0.0.1:{ports.http}/v1/traces", content=BODY, headers=PROTOBUF)
        for _, writer in silent:
            writer.close()

    assert [refused, *ended] == [b"", b"", b""]
    assert answer.status_code == 200


@pytest.mark.parametrize("wrong", ["missing", "garbage", "other key", "passphrase", "client ca"])
def test_files_that_cannot_be_used(tmp_path: Path, issued: Issued, wrong: str) -> None:
    """A file that is missing, broken, locked or of another certificate is named before a door opens."""
    bad = tmp_path / "bad.pem"
    if wrong == "passphrase":
        key = serialization.load_pem_private_key(issued.tls.key.read_bytes(), None)
        locked = serialization.BestAvailableEncryption(b"x")
        bad.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    elif wrong != "missing":
        bad.write_bytes(issued.sender_key.read_bytes() if wrong == "other key" else b"nothing")
    tls = replace(issued.tls, client_ca=bad) if wrong == "client ca" else replace(issued.tls, key=bad)

    for use in (lambda: tls.context(senders=True), tls.credentials):
        with pytest.raises(UsageError, match="cannot use") as caught:
            use()
        assert "bad.pem" in caught.value.message


def test_half_of_the_options(tmp_path: Path) -> None:
    """A certificate without its key is a mistake of usage, told before anything is opened."""
    command = [sys.executable, "-m", "telemetry", "serve", "--store", str(tmp_path / "s.duckdb")]
    said = subprocess.run([*command, "--tls-certificate", "x"], capture_output=True, text=True, timeout=30, check=False)

    assert said.returncode == 2
    assert "--tls-key" in said.stderr
