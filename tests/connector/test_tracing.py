"""Events become spans: exact names, times, parents and attributes, without any current context, and without harm."""

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from telemetry import semconv
from telemetry.connector import messages, tracing
from telemetry.connector.events import Cancel, Connect, Measured, SocketClosed, Tick
from telemetry.connector.plan import Limits
from telemetry.connector.protocol import Place
from telemetry.connector.tracing import AttemptTrace, set_up_tracing
from telemetry.errors import UsageError
from telemetry.semconv import Part, Span, State
from tests.support.tracing import Recorder
from tests.support.transcript import MS, T0, Transcript, said

COMMON = {semconv.ATTEMPT_ID: "attempt-1", semconv.SERVER_ADDRESS: "dp.example", "app.tenant": "blue"}
STEPS = (State.SEARCHING, State.DOWNLOADING, State.CONNECTING)


@pytest.fixture
def recorder():
    """A provider of our own with counting ids."""
    return Recorder()


def traced(recorder, script, **options):
    """The trace of a transcript."""
    made = AttemptTrace(COMMON, provider=recorder.provider, **options)
    for event in script.events:
        made.take(event)
    return made


def test_connected_session(recorder):
    """A session is one trace: a root, a transition for each change, a span for each step and part, samples, its end."""
    script = Transcript(limits=Limits(media_silence_s=100)).go(Place.CONNECTED)
    script.take(Tick(), after_ms=5_000).take(Cancel())
    traced(recorder, script)

    assert [span.name for span in recorder.spans] == [
        *("transition", "websocket.open", "queue", "SearchingForDigitalPerson"),
        *("transition", "assets", "DownloadingAssets"),
        *("transition", "webrtc.negotiate", "webrtc.ice", "webrtc.dtls", "media.first_frame"),
        *("ConnectingToDigitalPerson", "transition", "connect", "sample", "transition", "Connected"),
    ]
    assert {span.context.trace_id for span in recorder.spans} == {1}
    assert {span.instrumentation_scope.name for span in recorder.spans} == {semconv.SCOPE_NAME}


def test_parents_and_kinds(recorder):
    """The root has no parent and is a client; parts belong to their steps, all else to the root."""
    traced(recorder, Transcript().go(Place.CONNECTED).take(Cancel()))
    root = recorder.one(Span.CONNECT)

    assert root.parent is None
    assert root.kind is SpanKind.CLIENT
    for span in recorder.spans:
        if span.name in set(Part):
            assert span.parent.span_id == recorder.one(span.attributes[semconv.STATE]).context.span_id
        elif span is not root:
            assert span.parent.span_id == root.context.span_id
            assert span.kind is SpanKind.INTERNAL


def test_times_are_exact(recorder):
    """Every time is the event's, to the nanosecond, and the parts of a step share their borders."""
    traced(recorder, Transcript().go(Place.CONNECTED))
    root, first, queue = recorder.one(Span.CONNECT), recorder.one(Part.WEBSOCKET_OPEN), recorder.one(Part.QUEUE)
    searching = recorder.one(State.SEARCHING)

    assert root.start_time == searching.start_time == first.start_time == T0 + 10 * MS
    assert first.end_time == queue.start_time == T0 + 30 * MS
    assert queue.end_time == searching.end_time == T0 + 40 * MS
    assert root.end_time == recorder.one(State.CONNECTING).end_time
    for transition in recorder.named(Span.TRANSITION):
        assert transition.start_time == transition.end_time


def test_common_attributes_everywhere(recorder):
    """What identifies the attempt is on every span, and the sessionId on every span that ends after acceptance."""
    traced(recorder, Transcript().go(Place.CONNECTED).take(Cancel()))

    for span in recorder.spans:
        assert COMMON.items() <= span.attributes.items()
        before = span.name == Part.WEBSOCKET_OPEN or span.attributes.get(semconv.TRANSITION_TO) == State.SEARCHING
        assert (semconv.SESSION_ID not in span.attributes) is before


def test_step_attributes(recorder):
    """Step, parts and the transition into the step carry the step's name and number."""
    traced(recorder, Transcript().go(Place.CONNECTED))

    for span in recorder.spans:
        state = span.attributes.get(semconv.STATE)
        if state:
            assert span.attributes[semconv.STEP_NUMBER] == State(state).step
    assert {recorder.one(step).attributes[semconv.STEP_OUTCOME] for step in STEPS} == {"completed"}


def test_failure(recorder):
    """A failed attempt marks its root, its step and its part; the root has the message."""
    script = Transcript().go(Place.QUEUE).take(SocketClosed(4503, "busy"))
    traced(recorder, script)
    failed = {span.name: span for span in recorder.spans if span.status.status_code is StatusCode.ERROR}

    assert set(failed) == {Span.CONNECT, State.SEARCHING, Part.QUEUE}
    for span in failed.values():
        assert span.attributes[semconv.ERROR_TYPE] == "noScene"
        assert span.attributes[semconv.FAILURE_DETAIL] == "busy"
        assert span.status.description == script.ended.failure.message
    root = failed[Span.CONNECT].attributes
    assert (root[semconv.FAILURE_STEP], root[semconv.FAILURE_PART]) == (State.SEARCHING, Part.QUEUE)
    assert root[semconv.FAILURE_RETRYABLE] is True
    assert failed[State.SEARCHING].attributes[semconv.FAILURE_PART] == Part.QUEUE
    assert root[semconv.CLOSE_CODE] == 4503


def test_failure_between_parts(recorder):
    """A failure between parts names a step and no part."""
    traced(recorder, Transcript().go(Place.STARTING).take(SocketClosed(1011)))

    assert semconv.FAILURE_PART not in recorder.one(Span.CONNECT).attributes
    assert semconv.FAILURE_PART not in recorder.one(State.CONNECTING).attributes


def test_cancelled_is_no_error(recorder):
    """Giving up leaves complete spans, none of them an error."""
    traced(recorder, Transcript().go(Place.QUEUE).take(Cancel()))

    assert {span.status.status_code for span in recorder.spans} == {StatusCode.UNSET}
    assert recorder.one(Span.CONNECT).attributes[semconv.OUTCOME] == "cancelled"
    assert recorder.one(State.SEARCHING).attributes[semconv.STEP_OUTCOME] == "cancelled"


def test_given_up_before_it_began(recorder):
    """An attempt that was given up while waiting for its turn is a root alone."""
    traced(recorder, Transcript().take(Cancel()))

    assert [span.name for span in recorder.spans] == [Span.CONNECT]


def test_connected_outlives_the_root(recorder):
    """The session's span begins when the root ends, and ends when the session does."""
    traced(recorder, Transcript().go(Place.CONNECTED).take(Cancel(), after_ms=700))
    session, root = recorder.one(State.CONNECTED), recorder.one(Span.CONNECT)

    assert session.start_time == root.end_time
    assert session.end_time - session.start_time == 700 * MS
    assert session.attributes[semconv.DISCONNECT_REASON] == "normal"


def test_unknown_is_absent(recorder):
    """A sample tells what was measured, and nothing about what was not."""
    script = Transcript(limits=Limits(media_silence_s=100)).go(Place.CONNECTED)
    script.take(Measured(script.now_ns, {semconv.VIDEO_PACKETS_RECEIVED: 9})).take(Tick(), after_ms=5_000)
    traced(recorder, script)
    sample = recorder.one(Span.SAMPLE).attributes

    assert sample[semconv.VIDEO_PACKETS_RECEIVED] == 9
    assert semconv.RTT_S not in sample


def test_retry_links_to_the_attempt_before(recorder):
    """The root of a retry links to the root before it, in a trace of its own."""
    first = traced(recorder, Transcript().go(Place.QUEUE).take(SocketClosed(4503)))
    traced(recorder, Transcript(number=2).go(Place.QUEUE).take(Cancel()), previous=first.root)
    before, after = recorder.named(Span.CONNECT)

    assert [link.context.span_id for link in after.links] == [before.context.span_id]
    assert after.context.trace_id != before.context.trace_id


def test_current_context_is_not_used(recorder):
    """A span that is current where the connector runs does not become a parent."""
    with recorder.provider.get_tracer("app").start_as_current_span("request"):
        traced(recorder, Transcript().go(Place.CONNECTED))

    assert recorder.one(Span.CONNECT).parent is None
    assert recorder.one(Span.CONNECT).context.trace_id != recorder.one("request").context.trace_id


def test_interleaved_attempts_do_not_mix(recorder):
    """Two attempts whose events alternate have a trace each, each with its own ids only."""
    scripts = [Transcript().go(Place.CONNECTED).events for _ in range(2)]
    traces = [AttemptTrace({semconv.ATTEMPT_ID: name}, provider=recorder.provider) for name in ("a", "b")]
    for pair in zip(*scripts, strict=True):
        for made, event in zip(traces, pair, strict=True):
            made.take(event)

    by_trace = {}
    for span in recorder.spans:
        by_trace.setdefault(span.context.trace_id, set()).add(span.attributes[semconv.ATTEMPT_ID])
    assert sorted(by_trace.values(), key=min) == [{"a"}, {"b"}]


class Broken(TracerProvider):
    """A provider that cannot even make a tracer."""

    def get_tracer(self, *args, **kwargs):
        raise RuntimeError("no tracer today")


def test_broken_tracer_does_no_harm(caplog):
    """Whatever tracing raises stays inside, and is logged once."""
    made = AttemptTrace(COMMON, provider=Broken(shutdown_on_exit=False))
    for event in Transcript().go(Place.CONNECTED).take(Cancel()).events:
        made.take(event)

    assert made.root is None
    assert [record.message for record in caplog.records] == [
        "tracing failed, the session goes on without it: RuntimeError"
    ]


def test_broken_span_does_no_harm(recorder, caplog):
    """A root that cannot tell its identity is no link, and no error."""
    made = traced(recorder, Transcript().take(Connect()))
    made._root = object()

    assert made.root is None
    assert len(caplog.records) == 1


def test_untraced():
    """Without an SDK the events are taken and nothing happens."""
    made = AttemptTrace(COMMON, provider=trace.NoOpTracerProvider())
    for event in Transcript().go(Place.CONNECTED).events:
        made.take(event)

    assert not made.root.is_valid


def test_connector_needs_only_the_api():
    """Importing the connector loads no SDK and no exporter."""
    code = "import sys, telemetry.connector.scene; print([m for m in sys.modules if 'opentelemetry' in m])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "opentelemetry.trace" in loaded
    assert "opentelemetry.sdk" not in loaded
    assert "opentelemetry.exporter" not in loaded


# Set-up.


@pytest.fixture
def exporters(monkeypatch):
    """Which exporters were made, instead of real ones; no OTEL_* variable is set."""
    made = []

    def exporter(protocol, endpoint):
        if protocol not in ("grpc", "http/protobuf"):
            return real(protocol, endpoint)
        made.append((protocol, endpoint))
        return tracing_exporter()

    def tracing_exporter():
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        return InMemorySpanExporter()

    real = tracing._exporter
    monkeypatch.setattr(tracing, "_exporter", exporter)
    for name in list(tracing.os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return made


def test_set_up(exporters):
    """By default spans go out over gRPC within half a second, with a resource that names service and runtime."""
    provider = set_up_tracing(service_name="kiosk", service_version="1.2", resource={"a": "b"}, make_global=False)
    (processor,) = provider._active_span_processor._span_processors
    attributes = provider.resource.attributes
    provider.shutdown()

    assert exporters == [("grpc", None)]
    assert processor._batch_processor._schedule_delay_millis == 500
    assert (attributes["service.name"], attributes["service.version"], attributes["a"]) == ("kiosk", "1.2", "b")
    assert attributes[semconv.PROCESS_RUNTIME_NAME] == sys.implementation.name
    assert provider._atexit_handler is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http/protobuf",
        ),
    ],
)
def test_protocol_from_the_environment(exporters, monkeypatch, variables, expected):
    """The protocol comes from the standard variables, the one for traces first."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    set_up_tracing(make_global=False).shutdown()

    assert exporters == [(expected, None)]


def test_other_variables_are_respected(exporters, monkeypatch):
    """Service name, resource and schedule delay come from the standard variables where not given."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-env")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1234")
    provider = set_up_tracing(make_global=False)
    (processor,) = provider._active_span_processor._span_processors
    provider.shutdown()

    assert provider.resource.attributes["service.name"] == "from-env"
    assert provider.resource.attributes["deployment.environment.name"] == "test"
    assert processor._batch_processor._schedule_delay_millis == 1234


def test_disabled(exporters, monkeypatch):
    """`OTEL_SDK_DISABLED` leaves everything off."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
    set_up_tracing(make_global=False).shutdown()

    assert exporters == []


def test_unknown_protocol(exporters):
    """A protocol that does not exist is refused with those that do."""
    with pytest.raises(UsageError, match="grpc or http/protobuf"):
        set_up_tracing(protocol="carrier-pigeon", make_global=False)


@pytest.mark.parametrize(
    ("protocol", "endpoint", "goes_to"),
    [
        ("grpc", "http://127.0.0.1:4317", "127.0.0.1:4317"),
        ("http/protobuf", "http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
    ],
)
def test_endpoints(protocol, endpoint, goes_to):
    """An endpoint is a host and port for both protocols; over HTTP the standard path is added."""
    exporter = tracing._exporter(protocol, endpoint)
    exporter.shutdown()

    assert exporter._endpoint == goes_to


def test_make_global(monkeypatch, exporters):
    """A global provider is found by scenes that are given none."""
    found = []
    monkeypatch.setattr(trace, "set_tracer_provider", found.append)
    provider = set_up_tracing()
    provider.shutdown()

    assert found == [provider]


def test_messages_leave_no_content(recorder):
    """The trail tells types of messages and never what they said."""
    script = Transcript().go(Place.QUEUE).take(said(messages.Accepted("session-secret"))).take(Cancel())
    traced(recorder, script)

    assert recorder.one(Span.CONNECT).attributes[semconv.SIGNALLING_TRAIL] == (">hello", "<accepted")
