"""OTLP requests as applications send them, for benchmarks and fuzzing; the same for the same arguments."""

import random

from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry import semconv
from tests.support.otlp import RECEIVED_NS, Request, attribute, request, span

SPANS_PER_ATTEMPT = 20


def own(count: int, first: int = 0) -> Request:
    """Spans as our connector sends them: ten attributes each, all with a column; twenty spans an attempt."""
    made = []
    for number in range(first + 1, first + count + 1):
        attempt = number // SPANS_PER_ATTEMPT
        attributes = {
            semconv.ATTEMPT_ID: f"01JDATTEMPT{attempt:015x}",
            semconv.EPISODE_ID: f"01JDEPISODE{attempt:015x}",
            semconv.SERVER_ADDRESS: "dp.example",
            semconv.SERVER_PORT: 443,
            semconv.NETWORK_CONNECTION_TYPE: "wifi",
            semconv.SESSION_ID: f"session-{attempt:016x}",
            semconv.STATE: semconv.State.CONNECTING,
            semconv.STEP_NUMBER: 3,
            semconv.TRANSITION_FROM: semconv.State.DOWNLOADING,
            semconv.TRANSITION_TO: semconv.State.CONNECTING,
        }
        made.append(_span(number, attempt, "transition", attributes))
    return request(
        *made, **{"service.name": "kiosk", "service.version": "1.2.3", "telemetry.sdk.name": "opentelemetry"}
    )


def foreign(count: int, first: int = 0) -> Request:
    """Spans of other applications: ten attributes each, none with a column; one of them, an id, never comes twice."""
    dice = random.Random(first)
    made = []
    for number in range(first + 1, first + count + 1):
        attributes = {
            "http.request.method": dice.choice(("GET", "POST")),
            "http.route": f"/things/{dice.randrange(50)}",
            "http.response.status_code": dice.choice((200, 404, 500)),
            "user.tier": dice.choice("abc"),
            "thread.id": dice.randrange(32),
            "app.cost": dice.random(),
            "app.request.id": f"{dice.getrandbits(64):016x}",
            "app.cached": dice.random() < 0.5,
            "host.name": f"host-{dice.randrange(20)}",
            "app.rows": dice.randrange(1000),
        }
        made.append(_span(number, number // 8, f"GET {number % 50}", attributes))
    return request(*made, **{"service.name": "shop", "service.version": "1", "k8s.pod.name": "shop-7"})


def _span(number: int, trace: int, name: str, attributes: dict[str, object]) -> trace_pb2.Span:
    return span(
        trace_id=(trace + 1).to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=(trace + 1).to_bytes(8, "big"),
        name=name,
        kind=1,
        flags=257,
        start_time_unix_nano=RECEIVED_NS + number,
        end_time_unix_nano=RECEIVED_NS + number,
        attributes=[attribute(key, value) for key, value in attributes.items()],
    )
