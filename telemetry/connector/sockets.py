"""Opening the signalling WebSocket, and telling why it broke: errors of websockets and the system as detail codes."""

import asyncio
import errno
import logging
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)

from telemetry.connector.events import SocketClosed, SocketFailed
from telemetry.connector.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL
from telemetry.semconv import NO_PING_ANSWER, Detail, http_detail

PING_EVERY_S: Final = 5.0
PING_LIMIT_S: Final = 5.0
"""Both are of SIGNALLING.md."""

# At its debug level websockets logs the handshake with the token; only a wish for this very logger may do that.
_socket_log = logging.getLogger(f"{__name__}.websocket")
_socket_log.setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, without anything that could be a secret."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(url: str) -> Address | None:
    """The address in a WebSocket URL. None means that the URL cannot be used."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"ws": 80, "wss": 443}[parts.scheme]
        return Address(parts.hostname, port) if parts.hostname else None
    except (ValueError, KeyError):
        return None


class SignallingSocket(ClientConnection):
    """A WebSocket that says when TCP, and TLS where asked for, are connected."""

    transport_open: "asyncio.Event | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.transport_open:
            self.transport_open.set()


async def open_socket(
    url: str, *, token: str | None, ssl_context: ssl.SSLContext | None, transport_open: asyncio.Event, close_s: float
) -> ClientConnection:
    """Open the WebSocket. There is no time limit here.

    Raises:
        OpenFailed: it could not be opened.
    """

    def make(*args: Any, **kwargs: Any) -> ClientConnection:
        made = SignallingSocket(*args, **kwargs)
        made.transport_open = transport_open
        return made

    tls: dict[str, Any] = {"ssl": ssl_context} if ssl_context else {}
    try:
        opening = connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {token}"} if token else None,
            compression=None,
            open_timeout=None,
            ping_interval=PING_EVERY_S,
            ping_timeout=PING_LIMIT_S,
            close_timeout=close_s,
            max_size=MAX_MESSAGE_BYTES,
            logger=_socket_log,
            create_connection=make,  # type: ignore[arg-type]
            **tls,
        )
        # A redirect is not followed: it would carry the token to wherever the answer says.
        opening.process_redirect = lambda exc: exc  # type: ignore[method-assign]
        opened = await opening
    except ConnectionError as error:
        by_tls = url.lower().startswith("wss:") and not transport_open.is_set()
        if by_tls and error.errno in (None, errno.ECONNRESET, errno.EPIPE):
            # A server that does not speak TLS drops the first message of it; TCP's own refusals have other numbers.
            raise OpenFailed(Detail.TLS, "it hung up during the TLS handshake") from error
        raise OpenFailed(*_why(error)) from error
    except Exception as error:
        raise OpenFailed(*_why(error)) from error
    if opened.subprotocol != SUBPROTOCOL:
        opened.transport.abort()
        raise OpenFailed(Detail.NOT_SIGNALLING, "it selected no subprotocol")
    return opened


class OpenFailed(Exception):
    """The WebSocket could not be opened."""

    def __init__(self, detail: str, text: str) -> None:
        super().__init__(text)
        self.detail = detail
        self.text = text


def _why(error: Exception) -> tuple[str, str]:
    """The detail code and what the system said. Texts that could repeat the URL are left out."""
    match error:
        case InvalidURI() | UnicodeError():
            return Detail.INVALID_URL, ""
        case ssl.SSLError():
            return Detail.TLS, str(getattr(error, "reason", None) or type(error).__name__)
        case socket.gaierror():
            return Detail.DNS, str(error.strerror)
        case InvalidStatus() | InvalidProxyStatus():
            status = error.response.status_code
            if status < 300:
                return Detail.NOT_SIGNALLING, f"HTTP status {status} instead of an upgrade"
            return http_detail(status), ""
        case InvalidMessage() if isinstance(error.__cause__, EOFError | ConnectionError):
            return Detail.SOCKET_LOST, "it hung up during the handshake"
        case InvalidProxy() | ProxyError():
            return Detail.TCP_UNREACHABLE, "the proxy did not let it pass"
        case InvalidHandshake():
            return Detail.NOT_SIGNALLING, type(error).__name__
        case OSError():
            return _why_os(error)
        case _:
            return Detail.INVALID_URL if isinstance(error, ValueError) else Detail.NOT_SIGNALLING, type(error).__name__


def _why_os(error: OSError) -> tuple[str, str]:
    number = error.errno
    if number is None:
        # Several addresses were tried; asyncio keeps what came of each as text only.
        found = re.search(r"\[Errno (\d+)\]", str(error))
        number = int(found[1]) if found else None
    text = errno.errorcode.get(number, "") if number else type(error).__name__
    if number == errno.ECONNREFUSED:
        return Detail.TCP_REFUSED, text
    if number == errno.ETIMEDOUT or isinstance(error, TimeoutError):
        return Detail.TCP_TIMEOUT, text
    if number in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
        return Detail.SOCKET_LOST, text
    return Detail.TCP_UNREACHABLE, text


def why_closed(closed: ConnectionClosed) -> SocketClosed | SocketFailed:
    """What ended an open socket: the server's close frame, or trouble that our own side met."""
    if closed.rcvd:
        return SocketClosed(closed.rcvd.code, closed.rcvd.reason)
    ours = closed.sent.code if closed.sent else None
    if ours == 1009:
        return SocketFailed(Detail.MESSAGE_TOO_BIG, f"over {MAX_MESSAGE_BYTES} bytes")
    if ours in (1002, 1003, 1007, 1008):
        return SocketFailed(Detail.PROTOCOL_VIOLATION, "a frame that is no WebSocket text")
    return SocketFailed(Detail.SOCKET_LOST, NO_PING_ANSWER if ours == 1011 else "")
