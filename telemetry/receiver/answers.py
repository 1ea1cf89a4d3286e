"""What a sender is told: OTLP responses and google.rpc.Status, in either encoding. No I/O, no clock.

Logs and metrics are not kept.
Their requests are answered with success and a `partial_success` that rejects every record and says why.
The alternatives are worse: 404 and UNIMPLEMENTED also stop retries, but an SDK then writes an error into its
application's log every few seconds, and a Collector pipeline that carries all three signals turns unhealthy.
A request that cannot be read is answered as for traces.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from google.protobuf import any_pb2, duration_pb2, json_format
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from telemetry.errors import DecodeError, Overloaded, PayloadTooLarge, StoreError
from telemetry.receiver import parts
from telemetry.receiver.otlp import Rejection, parsed
from telemetry.receiver.otlp_json import read_json

Encoding = Literal["protobuf", "json"]
Signal = Literal["traces", "logs", "metrics"]

NOT_KEPT: Final = "this receiver keeps traces only; send logs and metrics elsewhere, or switch their exporters off"
MAX_MESSAGE: Final = 1000
"""Characters of an error message in a response; the specification lets clients cap responses."""


class Refusal(Exception):
    """A request is refused for what its transport says, whatever its body is."""

    def __init__(
        self,
        http_status: int,
        code: int,
        message: str,
        *,
        reason: str,
        headers: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """
        Args:
            code: google.rpc.Code, which is also the gRPC status code.
            reason: why, in the ledger: a few words, the same for everyone.
            retry_after_s: when it may come again; None means never.
        """
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.message = message
        self.reason = reason
        self.headers = dict(headers or {})
        self.retry_after_s = retry_after_s


NO_TOKEN: Final = (
    "this receiver asks for a token: send the header 'authorization: Bearer <token>', "
    "in SDKs through OTEL_EXPORTER_OTLP_HEADERS"
)
WRONG_TOKEN: Final = (
    "the header 'authorization' is not 'Bearer <token>' with a token that this receiver takes; "
    "it may have been replaced: ask those who run the receiver"
)


def incomplete() -> Refusal:
    """The refusal of a body whose sender left, or that the transport itself would not take."""
    message = "the request ended before its body, or the body is too large"
    return Refusal(400, code_pb2.INVALID_ARGUMENT, message, reason="incomplete or too large")


def broken_off() -> Refusal:
    """The refusal of a request over HTTP that is still under way when a stop has waited long enough."""
    message = "the receiver stops and could not finish this request; send it again"
    return Refusal(503, code_pb2.UNAVAILABLE, message, reason="broken off by a stop", retry_after_s=2)


@dataclass(frozen=True, slots=True)
class Answer:
    """A refused request, for both transports."""

    http_status: int
    status: status_pb2.Status
    retry: error_details_pb2.RetryInfo | None
    """When to try again; None means never."""
    headers: Mapping[str, str]


def answer_to(error: Exception) -> Answer:
    """Map an error outward: the one place that knows which code each error has."""
    if isinstance(error, Refusal):
        return _answer(
            error.http_status, error.code, error.message, retry_after_s=error.retry_after_s, headers=error.headers
        )
    if isinstance(error, DecodeError):
        violation = error_details_pb2.BadRequest.FieldViolation(field="body", description=error.message[:MAX_MESSAGE])
        detail = error_details_pb2.BadRequest(field_violations=[violation])
        return _answer(400, code_pb2.INVALID_ARGUMENT, error.message, detail)
    if isinstance(error, PayloadTooLarge):
        return _answer(413, code_pb2.RESOURCE_EXHAUSTED, error.message)
    if isinstance(error, (Overloaded, StoreError)):
        seconds = error.retry_after_s if isinstance(error, Overloaded) else 2
        return _answer(503, code_pb2.UNAVAILABLE, error.message, retry_after_s=seconds)
    return _answer(500, code_pb2.INTERNAL, "the receiver failed on this request; its log says why")


def _answer(
    http_status: int,
    code: int,
    message: str,
    *details: Message,
    retry_after_s: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    status = status_pb2.Status(code=code, message=message[:MAX_MESSAGE])
    retry = None
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_after_s))
        headers = {"Retry-After": str(retry_after_s), **(headers or {})}
    for detail in (*details, *([retry] if retry else [])):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return Answer(http_status, status, retry, headers or {})


def encoded(message: Message, encoding: Encoding) -> bytes:
    """A response in the encoding of its request."""
    if encoding == "protobuf":
        return message.SerializeToString()
    return json_format.MessageToJson(message, indent=None, ensure_ascii=False).encode("utf-8")


def traces_response(rejected: Sequence[Rejection]) -> trace_service_pb2.ExportTraceServiceResponse:
    """Success; `partial_success` is set only if spans were rejected."""
    response = trace_service_pb2.ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = sum(rejection.count for rejection in rejected)
        reasons = "; ".join(f"{item.count}: {item.reason} ({item.example})" for item in rejected)
        response.partial_success.error_message = reasons[:MAX_MESSAGE]
    return response


@dataclass(frozen=True, slots=True)
class _NotKept:
    request: Any
    response: type[Message]
    path: tuple[str, ...]
    """Field names from the request down to the records."""
    count: str
    """The field of `partial_success` that says how many were rejected."""


_METRIC_DATA: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_NOT_KEPT: Final = {
    "logs": _NotKept(
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
        ("resource_logs", "scope_logs", "log_records"),
        "rejected_log_records",
    ),
    "metrics": _NotKept(
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
        ("resource_metrics", "scope_metrics", "metrics"),
        "rejected_data_points",
    ),
}


def not_kept_response(signal: Literal["logs", "metrics"], body: bytes, encoding: Encoding) -> tuple[Message, int]:
    """Success that rejects every record of a logs or metrics request, and how many those are.

    Raises:
        DecodeError: the request cannot be read.
        PayloadTooLarge: it has too many parts.
    """
    kind = _NOT_KEPT[signal]
    if encoding == "json":
        records = _below_json([read_json(body)], kind.path)
        points = sum(len(_below_json([metric], (data, "data_points"))) for metric in records for data in _METRIC_DATA)
    else:
        parts.check_protobuf(body, kind.request.DESCRIPTOR)
        try:
            request = parsed(kind.request, body)
        except ProtobufError as error:
            raise DecodeError(f"the body is no OTLP {signal} request in binary protobuf") from error
        records = _below([request], kind.path)
        points = sum(len(_points(metric)) for metric in records) if signal == "metrics" else 0
    count = points if signal == "metrics" else len(records)
    response: Any = kind.response()
    if records:
        setattr(response.partial_success, kind.count, count)
        response.partial_success.error_message = NOT_KEPT
    return response, count


def _below(owners: Iterable[Any], path: Sequence[str]) -> list[Any]:
    for name in path:
        owners = [item for owner in owners for item in getattr(owner, name)]
    return list(owners)


def _points(metric: Any) -> Sequence[Any]:
    data = metric.WhichOneof("data")
    points: Sequence[Any] = getattr(metric, data).data_points if data else ()
    return points


def _below_json(owners: Iterable[Any], path: Sequence[str]) -> list[Any]:
    """What lies at the end of a path of lists and objects; what has another shape counts as absent."""
    for name in path:
        first, *rest = name.split("_")
        key = first + "".join(word.capitalize() for word in rest)
        found: list[Any] = []
        for owner in owners:
            value = owner.get(key) if isinstance(owner, dict) else None
            found.extend(value if isinstance(value, list) else [] if value is None else [value])
        owners = found
    return list(owners)
