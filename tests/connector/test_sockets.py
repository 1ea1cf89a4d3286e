"""Opening the signalling socket, and the words for everything that can go wrong with it."""

import asyncio
import errno
import logging
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from websockets import Request, Response
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosedError,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.frames import Close

from telemetry.connector.events import SocketClosed, SocketFailed
from telemetry.connector.messages import SUBPROTOCOL
from telemetry.connector.sockets import Address, OpenFailed, _why, address_of, open_socket, why_closed
from telemetry.semconv import Detail


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://dp.example/scene", Address("dp.example", 80)),
        ("wss://user:secret@dp.example/scene?token=secret", Address("dp.example", 443)),
        ("wss://dp.example:8443", Address("dp.example", 8443)),
        ("ws://[::1]:9", Address("::1", 9)),
        ("http://dp.example", None),
        ("ws://", None),
        ("ws://dp.example:99999", None),
        ("ws://[::1", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_address(url, address):
    """Of a URL only host and port are kept; one that cannot be used has no address."""
    assert address_of(url) == address


def test_address_as_text():
    """An IPv6 address is told in brackets."""
    assert [str(Address("dp.example", 1)), str(Address("::1", 2))] == ["dp.example:1", "[::1]:2"]


def response(status):
    """An HTTP response."""
    return Response(status, "", Headers())


def hung_up(cause):
    """What websockets raises when the answer is cut short or is no HTTP."""
    error = InvalidMessage("did not receive a valid HTTP response")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (InvalidURI("ws://user:secret@", "bad"), Detail.INVALID_URL),
        (UnicodeError("label too long"), Detail.INVALID_URL),
        (ValueError("ssl argument is incompatible with a ws:// URI"), Detail.INVALID_URL),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), Detail.TLS),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Detail.DNS),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Detail.TCP_REFUSED),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] …"),
            Detail.TCP_REFUSED,
        ),
        (OSError("something"), Detail.TCP_UNREACHABLE),
        (OSError(errno.ENETUNREACH, "unreachable"), Detail.TCP_UNREACHABLE),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), Detail.TCP_TIMEOUT),
        (TimeoutError(), Detail.TCP_TIMEOUT),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Detail.SOCKET_LOST),
        (hung_up(EOFError()), Detail.SOCKET_LOST),
        (hung_up(ValueError("not HTTP")), Detail.NOT_SIGNALLING),
        (InvalidStatus(response(401)), "http_401"),
        (InvalidStatus(response(302)), "http_302"),
        (InvalidStatus(response(200)), Detail.NOT_SIGNALLING),
        (InvalidProxyStatus(response(407)), "http_407"),
        (ProxyError("no"), Detail.TCP_UNREACHABLE),
        (InvalidHandshake("no upgrade"), Detail.NOT_SIGNALLING),
        (RuntimeError("odd"), Detail.NOT_SIGNALLING),
    ],
    ids=lambda value: type(value).__name__,
)
def test_why(error, detail):
    """Each way in which opening fails has its code, and no text repeats the URL."""
    code, text = _why(error)

    assert code == detail
    assert "secret" not in text


@pytest.mark.parametrize(
    ("received", "sent", "told"),
    [
        (Close(4503, "busy"), Close(4503, "busy"), SocketClosed(4503, "busy")),
        (None, None, SocketFailed(Detail.SOCKET_LOST)),
        (None, Close(1011, "keepalive ping timeout"), SocketFailed(Detail.SOCKET_LOST, "no answer to a ping")),
        (None, Close(1009, ""), SocketFailed(Detail.MESSAGE_TOO_BIG, "over 262144 bytes")),
        (None, Close(1007, ""), SocketFailed(Detail.PROTOCOL_VIOLATION, "a frame that is no WebSocket text")),
    ],
)
def test_why_closed(received, sent, told):
    """A close frame of the server is told as it is; without one, our own close code tells what we met."""
    assert why_closed(ConnectionClosedError(received, sent, True if received and sent else None)) == told


async def attempt(url, **options):
    """Try to open a socket, and close it if that works."""
    values = {"token": None, "ssl_context": None, "transport_open": asyncio.Event(), "close_s": 1.0} | options
    opened = await open_socket(url, **values)
    await opened.close()


@asynccontextmanager
async def tcp_server(answer):
    """A server that reads a request and answers with these bytes."""

    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def free_port():
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.real
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_refused(host):
    """A port where nobody listens refuses, also when a name has several addresses."""
    with pytest.raises(OpenFailed) as failed:
        await attempt(f"ws://{host}:{free_port()}/")

    assert failed.value.detail == Detail.TCP_REFUSED


@pytest.mark.real
@pytest.mark.parametrize(
    ("answer", "detail"),
    [(b"SSH-2.0-OpenSSH_9\r\n\r\n", Detail.NOT_SIGNALLING), (b"", Detail.SOCKET_LOST)],
)
async def test_other_peers(answer, detail):
    """A peer that is no web server at all is told from one that hangs up."""
    async with tcp_server(answer) as port:
        with pytest.raises(OpenFailed) as failed:
            await attempt(f"ws://127.0.0.1:{port}/")

    assert failed.value.detail == detail


@pytest.mark.real
async def test_token_travels_in_the_header_only(caplog):
    """The token is in the Authorization header, in no URL, and in no log even at debug level."""
    seen = []
    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets.server").setLevel(logging.INFO)

    def look(connection, request: Request):
        seen.append((request.path, request.headers.get("Authorization")))

    async with serve(
        lambda connection: None, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], process_request=look
    ) as server:
        await attempt(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/scene", token="very-secret")

    assert seen == [("/scene", "Bearer very-secret")]
    assert "very-secret" not in caplog.text


@pytest.mark.real
async def test_redirect_is_not_followed():
    """A redirect is a refusal: the token goes nowhere else."""
    elsewhere = []

    def note(connection, request):
        elsewhere.append(request)

    async with serve(lambda connection: None, "127.0.0.1", 0, process_request=note) as other:
        target = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}/"
        answer = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
        async with tcp_server(answer) as port:
            with pytest.raises(OpenFailed) as failed:
                await attempt(f"ws://127.0.0.1:{port}/", token="very-secret")

    assert failed.value.detail == "http_302"
    assert elsewhere == []


@pytest.mark.real
@pytest.mark.parametrize("trusted", [True, False])
async def test_tls(trusted):
    """A certificate that is trusted opens, one that is not is a TLS failure."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    if trusted:
        authority.configure_trust(client_side)
    options = {"ssl": server_side, "subprotocols": [SUBPROTOCOL]}
    async with serve(lambda connection: None, "127.0.0.1", 0, **options) as server:
        url = f"wss://localhost:{server.sockets[0].getsockname()[1]}/"
        if trusted:
            await attempt(url, ssl_context=client_side)
            return
        with pytest.raises(OpenFailed) as failed:
            await attempt(url, ssl_context=client_side)

    assert failed.value.detail == Detail.TLS


@pytest.mark.real
async def test_tls_asked_of_a_server_without_it():
    """A plain server that hangs up on a TLS greeting is a TLS failure, not an unreachable network."""
    async with serve(lambda connection: None, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
        with pytest.raises(OpenFailed) as failed:
            await attempt(f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    assert failed.value.detail == Detail.TLS


@pytest.mark.real
async def test_transport_is_told():
    """Once TCP is connected that is known, whatever becomes of the handshake."""
    transport_open = asyncio.Event()
    async with tcp_server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as port:
        with pytest.raises(OpenFailed) as failed:
            await attempt(f"ws://127.0.0.1:{port}/", transport_open=transport_open)

    assert failed.value.detail == "http_503"
    assert transport_open.is_set()


@pytest.mark.real
async def test_no_subprotocol():
    """A WebSocket server that selects no subprotocol is not spoken to."""

    async def wait(connection):
        await connection.wait_closed()

    async with serve(wait, "127.0.0.1", 0) as server:
        with pytest.raises(OpenFailed) as failed:
            await attempt(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    assert failed.value.detail == Detail.NOT_SIGNALLING
