"""Events of one attempt become OpenTelemetry spans; and the set-up of an exporter, for applications that want ours.

Only the OpenTelemetry API is needed. Times and contexts are always given, never taken from the surroundings:
so scenes that run at the same time cannot mix their spans. No exception of tracing reaches a session.
"""

import logging
import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider

from telemetry import __version__, semconv
from telemetry.connector.events import (
    AttemptBegan,
    AttemptEnded,
    Attributes,
    Event,
    Failure,
    PartEnded,
    SampleTaken,
    SessionAccepted,
    SessionEnded,
    StepEnded,
    Transition,
)
from telemetry.errors import UsageError
from telemetry.semconv import State

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider

SCHEDULE_DELAY_MS: Final = 500
"""So that a transition is in the store within two seconds; the SDK's own default of 5 s would be too late."""

_log = logging.getLogger(__name__)


class AttemptTrace:
    """The trace of one attempt. Used by one event loop; feed it every event in order."""

    def __init__(
        self,
        common: Attributes,
        *,
        provider: TracerProvider | None = None,
        previous: SpanContext | None = None,
    ) -> None:
        """Prepare the trace.

        Args:
            common: What every span carries.
            provider: Where spans are made. None means the global one.
            previous: The root of the attempt before this one in the same episode.
        """
        self._common = dict(common)
        self._provider = provider
        self._previous = previous
        self._tracer: trace.Tracer | None = None
        self._root: Span | None = None
        self._context = Context()
        self._step: Span | None = None
        self._broken = False

    @property
    def root(self) -> SpanContext | None:
        """The root span's identity, for the next attempt to link to. None means that there is none."""
        try:
            return self._root.get_span_context() if self._root else None
        except Exception as error:
            self._complain(error)
            return None

    def take(self, event: Event) -> None:
        """Write what an event means into spans. Raises nothing."""
        try:
            self._take(event)
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        # Once, because a broken exporter would otherwise fill the log of a healthy session.
        if not self._broken:
            self._broken = True
            _log.warning("tracing failed, the session goes on without it: %s", type(error).__name__, exc_info=error)

    def _take(self, event: Event) -> None:
        match event:
            case AttemptBegan():
                self._tracer = trace.get_tracer(semconv.SCOPE_NAME, __version__, self._provider)
                links = [Link(self._previous)] if self._previous else None
                self._root = self._start(
                    semconv.Span.CONNECT, event.at_ns, event.attributes, kind=SpanKind.CLIENT, links=links
                )
                self._context = trace.set_span_in_context(self._root, Context())
            case SessionAccepted():
                self._common[semconv.SESSION_ID] = event.session_id
            case Transition():
                names = {
                    semconv.TRANSITION_FROM: event.before.value,
                    semconv.TRANSITION_TO: event.after.value,
                    **event.attributes,
                }
                self._whole(semconv.Span.TRANSITION, event.at_ns, event.at_ns, names)
                if event.after not in (State.DISCONNECTED, State.CONNECTED):
                    self._step = self._start(event.after, event.at_ns, _step(event.after))
            case PartEnded():
                context = trace.set_span_in_context(self._step, Context()) if self._step else self._context
                span = self._start(event.part, event.began_ns, {**_step(event.step), **event.attributes}, context)
                self._finish(span, event.at_ns, {}, event.failure)
            case StepEnded() if self._step:
                attributes = dict(event.attributes)
                if event.failure and event.failure.part:
                    attributes[semconv.FAILURE_PART] = event.failure.part.value
                self._finish(self._step, event.at_ns, attributes, event.failure)
                self._step = None
            case AttemptEnded() if self._root:
                attributes = dict(event.attributes)
                if event.failure:
                    attributes[semconv.FAILURE_STEP] = event.failure.step.value
                    attributes[semconv.FAILURE_RETRYABLE] = event.failure.retryable
                    if event.failure.part:
                        attributes[semconv.FAILURE_PART] = event.failure.part.value
                self._finish(self._root, event.at_ns, attributes, event.failure)
            case SampleTaken():
                self._whole(semconv.Span.SAMPLE, event.at_ns, event.at_ns, event.attributes)
            case SessionEnded():
                self._whole(State.CONNECTED, event.began_ns, event.at_ns, event.attributes)
            case _:
                pass  # QueueMoved and AssetsLoaded are told by the attributes of their parts.

    def _start(
        self,
        name: str,
        start_ns: int,
        attributes: Attributes,
        context: Context | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        links: list[Link] | None = None,
    ) -> Span:
        assert self._tracer
        return self._tracer.start_span(
            str(name),
            # An empty context is not "none": none would mean the current one of whoever calls.
            context=self._context if context is None else context,
            kind=kind,
            attributes={**self._common, **attributes},
            links=links,
            start_time=start_ns,
        )

    def _finish(self, span: Span, end_ns: int, attributes: Mapping[str, Any], failure: Failure | None) -> None:
        if semconv.SESSION_ID in self._common:
            # The span may be older than the session.
            span.set_attribute(semconv.SESSION_ID, self._common[semconv.SESSION_ID])
        span.set_attributes(attributes)
        if failure:
            span.set_attribute(semconv.ERROR_TYPE, failure.error.value)
            span.set_attribute(semconv.FAILURE_DETAIL, failure.detail)
            span.set_status(Status(StatusCode.ERROR, failure.message))
        span.end(end_ns)

    def _whole(self, name: str, start_ns: int, end_ns: int, attributes: Attributes) -> None:
        self._start(name, start_ns, attributes).end(end_ns)


def _step(state: State) -> dict[str, str | int]:
    return {
        semconv.STATE: state.value,
        semconv.STEP_NUMBER: state.step,
        semconv.STEP_PERCENTAGE: state.percentage,
    }


def set_up_tracing(
    endpoint: str | None = None,
    *,
    protocol: str | None = None,
    service_name: str | None = None,
    service_version: str | None = None,
    resource: Mapping[str, str] | None = None,
    make_global: bool = True,
) -> "SdkTracerProvider":
    """Send spans over OTLP, half a second after they end at the latest; flush when the interpreter exits.

    What is not given here comes from the standard `OTEL_*` variables, then from the SDK's defaults.
    `OTEL_SDK_DISABLED=true` leaves everything off.

    Args:
        endpoint: For gRPC `http://host:4317`, for HTTP `http://host:4318`, without `/v1/traces`.
        protocol: `grpc` or `http/protobuf`. None means `OTEL_EXPORTER_OTLP_(TRACES_)PROTOCOL`, else `grpc`.
        service_name: None means `OTEL_SERVICE_NAME`, else the SDK's `unknown_service`.
        resource: Further resource attributes, such as `deployment.environment.name`.
        make_global: Whether scenes find the provider by themselves. A process can do this once.

    Returns:
        The provider. Call its `shutdown()` to flush and stop before the interpreter exits.

    Raises:
        UsageError: the protocol is neither of the two.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    variables = os.environ
    protocol = (
        protocol
        or variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or variables.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "grpc"
    )
    attributes: dict[str, str] = {
        semconv.PROCESS_RUNTIME_NAME: platform.python_implementation().lower(),
        semconv.PROCESS_RUNTIME_VERSION: platform.python_version(),
        **(resource or {}),
    }
    if service_name:
        attributes[semconv.SERVICE_NAME] = service_name
    if service_version:
        attributes[semconv.SERVICE_VERSION] = service_version
    provider = SdkTracerProvider(resource=Resource.create(attributes))
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() != "true":
        given_delay = "OTEL_BSP_SCHEDULE_DELAY" in variables
        processor = BatchSpanProcessor(
            _exporter(protocol, endpoint), schedule_delay_millis=None if given_delay else SCHEDULE_DELAY_MS
        )
        provider.add_span_processor(processor)
    if make_global:
        trace.set_tracer_provider(provider)
    return provider


def _exporter(protocol: str, endpoint: str | None) -> Any:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=endpoint)
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
    raise UsageError(f"the OTLP protocol {protocol!r} is not known; use grpc or http/protobuf")
