"""OTLP/gRPC: the Export methods of the trace, logs and metrics services, on bytes.

Messages are handed over undecoded, because `otlp.py` decodes them faster than the generated classes.
The token is looked at before the message is read, and gzip is decompressed here: gRPC itself would do either for
everyone, and count nothing. So the methods are served as streams of one message, which look the same on the wire.
UNAVAILABLE with RetryInfo is the only answer that asks a sender to try again. RetryInfo travels twice: inside
`grpc-status-details-bin` as the OTLP specification says, and as `google.rpc.retryinfo-bin`, where the Python SDK looks.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from telemetry.errors import DecodeError, ServerError, TelemetryError
from telemetry.receiver.answers import Refusal, answer_to
from telemetry.receiver.body import Body
from telemetry.receiver.intake import Intake, Limits, Writer
from telemetry.receiver.tls import Tls

_log = logging.getLogger(__name__)
_SERVICE: Final = "opentelemetry.proto.collector.{0}.v1.{1}Service"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_STREAMS: Final = 32
"""Requests at once on one connection: SDKs send one, Collectors ten by default."""
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
    intake = Intake(writer, tokens=tokens, limits=limits, at_once=limits.max_messages)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.max_body_bytes),
            ("grpc.http2.bdp_probe", 0),  # so what nobody reads yet is 64 KB of a call, not what the network can carry
            ("grpc.per_message_decompression", 0),
            ("grpc.compression_enabled_algorithms_bitset", _CODINGS),
            ("grpc.max_concurrent_streams", _STREAMS),
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

    async def traces(body: bytes) -> Message:
        return await intake.traces(body, "protobuf", "grpc")

    async def logs(body: bytes) -> Message:
        return await intake.not_kept("logs", body, "protobuf", "grpc")

    async def metrics(body: bytes) -> Message:
        return await intake.not_kept("metrics", body, "protobuf", "grpc")

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
    intake: Intake, take: Callable[[bytes], Awaitable[Message]]
) -> Callable[[AsyncIterator[bytes], Any], Awaitable[bytes]]:
    """The handler of one Export method: errors are mapped outward here."""

    async def export(messages: AsyncIterator[bytes], context: Any) -> bytes:
        try:
            intake.admit(dict(context.invocation_metadata()).get("authorization"))
            with intake.room() as hold:
                async with intake.arriving():
                    body = await _only(messages)
                    hold(len(body))
                if body.startswith(_GZIP):
                    unfolded = Body(intake.limits, hold, gzip=True)
                    await unfolded.add(body)
                    body = unfolded.whole()
                return (await take(body)).SerializeToString()
        except Exception as error:
            if not isinstance(error, (Refusal, TelemetryError)):
                _log.exception("a request failed")
            intake.refused("grpc", error)
            answer = answer_to(error)
        trailer = [("grpc-status-details-bin", answer.status.SerializeToString())]
        if answer.retry:
            trailer.append(("google.rpc.retryinfo-bin", answer.retry.SerializeToString()))
        context.set_trailing_metadata(tuple(trailer))
        await context.abort(_CODES[answer.status.code], answer.status.message)
        raise AssertionError("abort() raises")

    return export


async def _only(messages: AsyncIterator[bytes]) -> bytes:
    """The message of a call.

    Raises:
        DecodeError: there is none.
    """
    async for message in messages:
        return message
    raise DecodeError("the call ended without a message")
