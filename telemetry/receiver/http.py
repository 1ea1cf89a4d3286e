"""OTLP/HTTP: protobuf and JSON on one port by content type, as the OTLP specification 1.x says.

`otlp_app` is the application, `server_config` the uvicorn settings under which its limits on slow senders hold.
A success is 200 and follows the commit. Every 4xx and 5xx has a google.rpc.Status body in the request's encoding, or in
JSON where the request has none of ours; 503 (with Retry-After) is the only one that asks a sender to try again.
Browsers may send only from the origins that were configured: any other request with an Origin is refused, which also
keeps out pages that rebind their host name to this address.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import h11
import uvicorn
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from telemetry.errors import TelemetryError
from telemetry.receiver.answers import Encoding, Refusal, Signal, answer_to, broken_off, encoded, incomplete
from telemetry.receiver.body import Body, too_large
from telemetry.receiver.intake import Intake, Transport, Writer
from telemetry.receiver.room import Limits, Room

_log = logging.getLogger(__name__)
CONTENT_TYPES: Final[dict[str, Encoding]] = {"application/x-protobuf": "protobuf", "application/json": "json"}
CONTENT_TYPE_OF: Final = {encoding: name for name, encoding in CONTENT_TYPES.items()}


def otlp_app(
    writer: Writer, *, tokens: Sequence[str] = (), origins: Sequence[str] = (), limits: Limits | None = None
) -> ASGIApp:
    """Make the ASGI application of OTLP/HTTP.

    Args:
        tokens: any one of them opens the door; none means that everyone who reaches it may send.
        origins: pages that may send from a browser, such as `https://kiosk.example`; `*` means all.
    """
    door = _Door(Intake(writer, Room(limits), tokens=tokens), frozenset(origins))
    cors = Middleware(
        _Preflights,
        # A star in the answer would not do for sendBeacon, which sends credentials: name the origin that asks.
        allow_origin_regex=".*" if "*" in origins else None,
        allow_origins=[origin for origin in origins if origin != "*"],
        allow_methods=["POST"],
        allow_headers=["*"],
        allow_credentials=True,
        allow_private_network=True,
        expose_headers=["Retry-After"],
        max_age=7200,
    )
    app = Starlette(
        routes=[
            Route("/v1/traces", door.traces, methods=["POST"]),
            Route("/v1/logs", door.logs, methods=["POST"]),
            Route("/v1/metrics", door.metrics, methods=["POST"]),
        ],
        middleware=[*([cors] if origins else []), Middleware(GZipMiddleware, minimum_size=256, compresslevel=1)],
        exception_handlers={HTTPException: door.nothing_there, Exception: _error},
    )
    app.router.redirect_slashes = False  # no sender follows a redirect of a POST well; 404 says what is meant
    return app


def server_config(
    app: ASGIApp, limits: Limits | None = None, *, tls: ssl.SSLContext | None = None, **settings: Any
) -> uvicorn.Config:
    """The uvicorn settings of OTLP/HTTP.

    Args:
        tls: None means plain text.
        settings: uvicorn's own; not those of TLS, which would count no connection before it has greeted.
    """
    return uvicorn.Config(
        app,
        http=_timed(limits or Limits(), tls),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings speak to who develops a server: that an upgrade to WebSocket was refused, say
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=32 * 1024,
        timeout_keep_alive=75,  # longer than the batch interval of any SDK, so that connections are used again
        **settings,
    )


class _Preflights(CORSMiddleware):
    """Starlette's, which refuses in plain text."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 400:
            status = Status(code=code_pb2.PERMISSION_DENIED, message=bytes(response.body).decode())
            response.body = encoded(status, "json")
            response.headers.update({"Content-Type": "application/json", "Content-Length": str(len(response.body))})
        return response


class _Door:
    def __init__(self, intake: Intake, origins: frozenset[str]) -> None:
        self._intake = intake
        self._origins = origins

    async def traces(self, request: Request) -> Response:
        return await self._take(request, "traces")

    async def logs(self, request: Request) -> Response:
        return await self._take(request, "logs")

    async def metrics(self, request: Request) -> Response:
        return await self._take(request, "metrics")

    async def _take(self, request: Request, signal: Signal) -> Response:
        try:
            return await self._answer(request, signal)
        except ClientDisconnect:  # nobody is there to be answered, but uvicorn logs whatever is raised
            return await self._refused(request, incomplete())
        except asyncio.CancelledError:  # a stop; what is lost by it is written down already
            return await _error(request, broken_off())
        except Exception as error:
            if not isinstance(error, (Refusal, TelemetryError)):
                _log.exception("a request failed")
            return await self._refused(request, error)

    async def nothing_there(self, request: Request, error: Exception) -> Response:
        """Say it in OTLP's words where a request meets no route."""
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            message = f"{request.method} is not allowed here; OTLP/HTTP is POST"
            refusal = Refusal(405, code_pb2.UNIMPLEMENTED, message, reason="other method", headers=error.headers)
            return await _error(request, refusal)
        message = f"there is nothing at {request.url.path[:200]!r}; OTLP/HTTP traces go to POST /v1/traces"
        refusal = Refusal(404, code_pb2.NOT_FOUND, message, reason="other path", headers=error.headers)
        return await (self._refused(request, refusal) if request.method == "POST" else _error(request, refusal))

    async def _refused(self, request: Request, error: Exception) -> Response:
        self._intake.refused(_transport(request), error, request.headers.get("user-agent"))
        return await _error(request, error)

    async def _answer(self, request: Request, signal: Signal) -> Response:
        self._refuse_strange_pages(request.headers.get("origin"))
        self._intake.admit(request.headers.get("authorization"))
        encoding = request_encoding(request.headers.get("content-type"))
        with self._intake.room.request() as take:
            body = await _body(request, self._intake.room, take)
            transport, agent = _transport(request), request.headers.get("user-agent")
            if signal == "traces":
                answer = await self._intake.traces(body, encoding, transport, agent)
            else:
                answer = await self._intake.not_kept(signal, body, encoding, transport, agent)
        return Response(encoded(answer, encoding), headers={"Content-Type": CONTENT_TYPE_OF[encoding]})

    def _refuse_strange_pages(self, origin: str | None) -> None:
        if origin is not None and origin not in self._origins and "*" not in self._origins:
            raise Refusal(
                403,
                code_pb2.PERMISSION_DENIED,
                f"pages of {origin[:200]} may not send here; start the receiver with this origin allowed",
                reason="page of another origin",
            )


def request_encoding(content_type: str | None) -> Encoding:
    """The encoding that a Content-Type names.

    Raises:
        Refusal: it is none of OTLP's.
    """
    name, _, parameters = (content_type or "").partition(";")
    encoding = CONTENT_TYPES.get(name.strip().lower())
    if encoding is None:
        raise Refusal(
            415,
            code_pb2.INVALID_ARGUMENT,
            f"content-type is {(content_type or 'missing')[:100]!r}; "
            "send application/x-protobuf (binary) or application/json",
            reason="other content type",
        )
    charset = parameters.strip().lower().replace('"', "").replace(" ", "")
    if encoding == "json" and charset.startswith("charset=") and charset not in ("charset=utf-8", "charset=utf8"):
        message = f"OTLP's JSON is UTF-8, not {charset[:40]}"
        raise Refusal(415, code_pb2.INVALID_ARGUMENT, message, reason="other content type")
    return encoding


async def _body(request: Request, room: Room, take: Callable[[int], None]) -> bytes:
    """Read and decompress a body as it arrives.

    Raises:
        Refusal: its Content-Encoding is unknown, or it arrives too slowly, or a stop does not wait for it any longer.
        PayloadTooLarge: it is larger than the limit, as sent or decompressed.
        Overloaded: there is no room for it now.
        DecodeError: it is not the gzip that it says it is.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip", ""):
        raise Refusal(
            415,
            code_pb2.INVALID_ARGUMENT,
            f"content-encoding {coding[:40]!r} is not understood; send gzip or none",
            reason="other content encoding",
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > room.limits.max_body_bytes:
        raise too_large(int(declared), room.limits)
    body = Body(room.limits, take, gzip=coding.endswith("gzip"))
    try:
        async with room.arriving():
            async for chunk in request.stream():
                await body.add(chunk)
    except asyncio.CancelledError:
        raise broken_off() from None
    return body.whole()


def _named_encoding(request: Request) -> Encoding:
    """The encoding that a request names; JSON where it names none of ours."""
    name = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return CONTENT_TYPES.get(name, "json")


def _transport(request: Request) -> Transport:
    return "http/json" if _named_encoding(request) == "json" else "http/protobuf"


async def _error(request: Request, error: Exception) -> Response:
    answer = answer_to(error)
    encoding = _named_encoding(request)
    headers = {**answer.headers, "Content-Type": CONTENT_TYPE_OF[encoding]}
    return Response(encoded(answer.status, encoding), answer.http_status, headers)


def _timed(limits: Limits, tls: ssl.SSLContext | None) -> type[asyncio.Protocol]:
    """An HTTP protocol that counts connections, and closes those whose greeting or request does not arrive in time.

    uvicorn limits only the time between requests: a sender that drips its headers, or the rest of a refused body,
    would hold its connection for ever. With TLS it would not know of a connection before its greeting is over.
    """

    class Timed(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _phase: Any = None
        _greeting: asyncio.Task[None] | None = None
        _early: bytes | None = None
        _lost = False

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            if len(self.connections) >= limits.max_connections:
                transport.abort()
            elif tls:
                transport.pause_reading()
                self.connections.add(self)
                self._early = b""
                self._greeting = self.loop.create_task(self._greet(transport, tls))
            else:
                self._begin(transport)

        async def _greet(self, transport: Any, context: ssl.SSLContext) -> None:
            try:
                encrypted = await self.loop.start_tls(
                    transport, self, context, server_side=True, ssl_handshake_timeout=limits.header_s
                )
            except Exception:  # a sender that does not speak TLS, shows no certificate, or is gone
                self.connections.discard(self)
                transport.abort()
                return
            if not self._lost:
                self._begin(encrypted)

        def _begin(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()
            early, self._early = self._early, None
            if early:
                self.data_received(early)

        def data_received(self, data: bytes) -> None:
            if self._early is not None:  # what came with the last of the greeting
                self._early += data
                return
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._lost = True
            super().connection_lost(exc)
            self._set(None, None)

        def _watch(self) -> None:
            """Time the headers and the body once each, from when they could begin."""
            phase = self.conn.their_state
            between_requests = phase is h11.IDLE and self.timeout_keep_alive_task is not None
            if phase not in (h11.IDLE, h11.SEND_BODY) or between_requests:
                self._set(None, None)
            elif phase is not self._phase:
                self._set(phase, limits.header_s if phase is h11.IDLE else limits.body_s + 1)

        def _set(self, phase: Any, seconds: float | None) -> None:
            if self._deadline:
                self._deadline.cancel()
            self._phase = phase
            self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

        def send_400_response(self, msg: str) -> None:
            if self.cycle:
                self.cycle.disconnected = True  # what is still said of the request that breaks here has no place
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                self.transport.close()
                return
            body = json.dumps({"code": code_pb2.INVALID_ARGUMENT, "message": "this is not HTTP/1.1"}).encode()
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            headers.append((b"content-length", str(len(body)).encode()))
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Timed
