"""OTLP/gRPC: the Export methods of the trace, logs and metrics services, on bytes.

Messages are handed over undecoded, because `scanner.py` decodes them faster than the generated classes.
The token is looked at before the message is read, and gzip is decompressed here: gRPC itself would do either for
everyone, and count nothing. So the methods are served as streams of one message, which look the same on the wire.
UNAVAILABLE with RetryInfo is our only answer that asks a sender to try again. RetryInfo travels twice: inside
`grpc-status-details-bin` as the OTLP specification says, and as `google.rpc.retryinfo-bin`, where the Python SDK looks.
Of thousands of calls at once gRPC itself ends some with CANCELLED, which asks for it, too.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from telemetry.errors import Overloaded, ServerError, TelemetryError
from telemetry.receiver.answers import Refusal, answer_to, incomplete
from telemetry.receiver.body import Body
from telemetry.receiver.intake import Intake, Writer
from telemetry.receiver.room import Limits, Room
from telemetry.receiver.tls import Tls

_log = logging.getLogger(__name__)
_SERVICE: Final = "opentelemetry.proto.collector.{0}.v1.{1}Service"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_CODINGS: Final = 1 << grpc.Compression.NoCompression | 1 << grpc.Compression.Gzip
"""Those that OTLP names; a message of any other is refused by gRPC itself."""
_GZIP: Final = b"\x1f\x8b"
"""How gzip begins, and no message: the first byte would be field 3 of wire type 7, and protobuf ends with type 5.

gRPC does not hand on whether a message is compressed.
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    port: int
    _server: Any

    async def stop(self, grace_s: float = 5.0) -> None:
        """Refuse new requests, wait at most so long for those under way, and end."""
        await self._server.stop(grace_s)


async def serve(
    writer: Writer,
    host: str,
    port: int,
    *,
    tokens: Sequence[str] = (),
    limits: Limits | None = None,
    tls: Tls | None = None,
) -> Served:
    """Start to serve OTLP/gRPC.

    Args:
        port: 0 means any free port.
        tokens: any one of them opens the door; none means that everyone who reaches it may send.
        tls: None means plain text.

    Raises:
        ServerError: the address cannot be bound.
        UsageError: the certificate cannot be used.
    """
    limits = limits or Limits()
    intake = Intake(writer, Room(limits, limits.max_messages), tokens=tokens)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.max_body_bytes),
            ("grpc.http2.bdp_probe", 0),  # so what nobody reads yet is 64 KB of a call, not what the network can carry
            ("grpc.per_message_decompression", 0),
            ("grpc.compression_enabled_algorithms_bitset", _CODINGS),
            # Clients keep back what is beyond the limit of a connection. "Overload protection" would refuse calls near
            # it, while earlier ones end. "Pending" are the calls of all connections that nobody here has seen yet.
            ("grpc.max_concurrent_streams", limits.max_requests),
            ("grpc.http.overload_protection", 0),
            ("grpc.server.max_pending_requests", limits.max_pending),
            ("grpc.server.max_pending_requests_hard_limit", limits.max_pending),
            ("grpc.max_metadata_size", 16 * 1024),
            ("grpc.max_allowed_incoming_connections", limits.max_connections),
            ("grpc.server_handshake_timeout_ms", round(limits.header_s * 1000)),
            ("grpc.max_connection_idle_ms", 300_000),
            ("grpc.max_connection_age_ms", 3_600_000),
            ("grpc.max_connection_age_grace_ms", round(limits.body_s * 1000)),
            ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share
            ("grpc.http2.max_ping_strikes", 5),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_time_ms", 60_000),  # finds senders that vanished
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
    )

    async def traces(body: bytes, agent: str | None) -> Message:
        return await intake.traces(body, "protobuf", "grpc", agent)

    async def logs(body: bytes, agent: str | None) -> Message:
        return await intake.not_kept("logs", body, "protobuf", "grpc", agent)

    async def metrics(body: bytes, agent: str | None) -> Message:
        return await intake.not_kept("metrics", body, "protobuf", "grpc", agent)

    for signal, name, take in (("trace", "Trace", traces), ("logs", "Logs", logs), ("metrics", "Metrics", metrics)):
        method = grpc.stream_unary_rpc_method_handler(_export(intake, take))  # no (de)serializers: bytes in, bytes out
        service = _SERVICE.format(signal, name)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise ServerError(f"cannot listen on {address} for OTLP/gRPC; is the port in use?") from error
    await server.start()
    return Served(bound, server)


def _export(
    intake: Intake, take: Callable[[bytes, str | None], Awaitable[Message]]
) -> Callable[[AsyncIterator[bytes], Any], Awaitable[bytes]]:
    """The handler of one Export method: errors are mapped outward here."""

    async def export(messages: AsyncIterator[bytes], context: Any) -> bytes:
        headers = dict(context.invocation_metadata())
        agent = headers.get("user-agent")
        try:
            intake.admit(headers.get("authorization"))
            with intake.room.request() as hold:
                body = await _body(messages, intake, hold, agent)
                return (await take(body, agent)).SerializeToString()
        except Exception as error:
            if not isinstance(error, (Refusal, TelemetryError)):
                _log.exception("a request failed")
            intake.refused("grpc", error, agent)
            answer = answer_to(error)
        trailer = [("grpc-status-details-bin", answer.status.SerializeToString())]
        if answer.retry:
            trailer.append(("google.rpc.retryinfo-bin", answer.retry.SerializeToString()))
        context.set_trailing_metadata(tuple(trailer))
        await context.abort(_CODES[answer.status.code], answer.status.message)
        raise AssertionError("abort() raises")

    return export


async def _body(
    messages: AsyncIterator[bytes], intake: Intake, hold: Callable[[int], None], agent: str | None
) -> bytes:
    """Read and decompress the message of a call.

    Raises:
        Refusal: it arrives too slowly, or not at all.
        PayloadTooLarge: it is larger than the limit when decompressed.
        Overloaded: there is no room for it now.
        DecodeError: it is not the gzip that it says it is.
    """
    begun = False
    try:
        async with intake.room.arriving():
            begun = True
            message = await _only(messages)
            hold(len(message))
    except asyncio.CancelledError:  # gRPC refuses what is too large by itself, or the sender left
        intake.refused("grpc", incomplete() if begun else Overloaded("the sender left while it waited"), agent)
        raise
    if not message.startswith(_GZIP):
        return message
    body = Body(intake.room.limits, hold, gzip=True)
    await body.add(message)
    return body.whole()


async def _only(messages: AsyncIterator[bytes]) -> bytes:
    """The message of a call. Whoever is cancelled leaves the reading alone: it ends with the call, and a read that is
    cancelled in the moment in which it is done would never give its memory back.

    Raises:
        Refusal: there is none.
    """
    reading: asyncio.Future[bytes | None] = asyncio.ensure_future(anext(messages, None))
    _reading.add(reading)
    reading.add_done_callback(_read)
    await asyncio.wait([reading])
    message = reading.result()
    if message is None:
        raise incomplete()
    return message


_reading: Final = set[asyncio.Future[bytes | None]]()
"""So that none is forgotten while it runs."""


def _read(reading: asyncio.Future[bytes | None]) -> None:
    _reading.discard(reading)
    if not reading.cancelled():
        reading.exception()  # where nobody waits for it any more
