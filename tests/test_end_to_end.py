"""Every scenario of the simulator, met by the real connector over real sockets and real WebRTC.

All of them are played once, at the same time, each with a tracer of its own; the tests look at what came of it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from telemetry import semconv
from telemetry.connector.plan import Limits, Retry, UserMedia
from telemetry.connector.scene import Scene
from telemetry.errors import ConnectionFailed
from telemetry.semconv import Outcome, Part, Span, State
from telemetry.simulator.scenarios import SCENARIOS, Scenario
from telemetry.simulator.server import Simulator
from tests.support.devices import open_device

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("end_to_end")]

SPEED = 10.0
AT_ONCE = 8
"""More only makes the steps wait for the processor."""
SHORT = Limits(searching_s=3, downloading_s=3, ice_s=2, first_frame_s=2, media_silence_s=1)
"""For scenarios that end at a deadline: as short as a busy machine allows."""
PATIENT = Limits(sample_every_s=0.1)
STEPS = (State.SEARCHING, State.DOWNLOADING, State.CONNECTING)
PARTS = {str(part) for part in Part}


@dataclass
class Played:
    """What came of a scenario."""

    scenario: Scenario
    outcomes: list[Outcome] = field(default_factory=list)
    """One for each call of `connect()`."""
    error: ConnectionFailed | None = None
    session_ids: list[str] = field(default_factory=list)
    disconnects: list[tuple[str, str]] = field(default_factory=list)
    """sessionId and reason of each, as the listener was told."""
    states: list[str] = field(default_factory=list)
    spans: Sequence[ReadableSpan] = ()

    @property
    def attempts(self) -> dict[int, list[ReadableSpan]]:
        """The spans of each attempt, by trace, in the order in which the attempts began."""
        found: dict[int, list[ReadableSpan]] = {}
        for span in sorted(self.spans, key=lambda span: span.start_time or 0):
            assert span.context
            found.setdefault(span.context.trace_id, []).append(span)
        return found


async def play(scenario: Scenario, simulator: Simulator) -> Played:
    """Be the client that the scenario asks for."""
    client = scenario.client
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    played = Played(scenario)
    scene = Scene(
        simulator.url(scenario.name),
        requested_media=UserMedia(client.requested_media),
        required_media=UserMedia(client.required_media),
        media_source=lambda kind: open_device(client.devices, kind),
        persistent=client.persistent,
        retry=Retry(attempts=client.attempts, first_delay_s=0.05),
        limits=SHORT if client.meets_deadline else PATIENT,
        tracer_provider=provider,
    )
    gone = asyncio.Event()

    def disconnected(whose: Scene, session_id: str, reason: str) -> None:
        assert whose is scene
        played.disconnects.append((session_id, reason))
        gone.set()

    scene.on_disconnect(disconnected)
    scene.on_state(lambda progress: played.states.append(progress.name))
    for _ in range(2 if client.reconnects else 1):
        gone.clear()
        limit_s = client.gives_up_s / SPEED if client.gives_up_s else None
        try:
            async with asyncio.timeout(limit_s):
                played.session_ids.append(await scene.connect())
        except ConnectionFailed as error:
            played.error = error
            played.outcomes.append(Outcome.FAILED)
            break
        except TimeoutError:
            played.outcomes.append(Outcome.CANCELLED)
            break
        played.outcomes.append(Outcome.CONNECTED)
        if client.leaves:
            await asyncio.sleep(0.3)
            await scene.disconnect()
        async with asyncio.timeout(10):
            await gone.wait()
    await scene.disconnect()
    provider.shutdown()
    played.spans = exporter.get_finished_spans()
    return played


async def play_all() -> dict[str, Played]:
    """Every scenario, several at a time."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with Simulator(speed=SPEED) as simulator:

        async def one(scenario: Scenario) -> Played:
            async with turns:
                return await play(scenario, simulator)

        everything = await asyncio.gather(*(one(scenario) for scenario in SCENARIOS.values()))
    await asyncio.sleep(0)
    left = [str(task.get_coro()) for task in asyncio.all_tasks() - {asyncio.current_task()}]
    assert left == [], "connector or simulator left tasks behind"
    return {played.scenario.name: played for played in everything}


@cache
def played_once() -> dict[str, Played]:
    """What came of all scenarios; other tests of the same group look at the same run."""
    return asyncio.run(play_all())


@pytest.fixture(scope="module")
def everything() -> dict[str, Played]:
    """What came of all scenarios."""
    return played_once()


@pytest.fixture(params=SCENARIOS, scope="module")
def played(request: pytest.FixtureRequest, everything: dict[str, Played]) -> Played:
    """What came of one scenario."""
    return everything[request.param]


def test_outcome(played: Played) -> None:
    """`connect()` returns, raises or is cancelled exactly as the scenario says."""
    expected = played.scenario.expected

    assert set(played.outcomes) == {expected.outcome}
    assert bool(played.session_ids) == (expected.outcome is Outcome.CONNECTED)


def test_error(played: Played) -> None:
    """The raised error says what, where, why, whether to retry, and which attempt and session it was."""
    expected, error = played.scenario.expected, played.error
    if expected.outcome is not Outcome.FAILED:
        assert error is None
        return
    assert error is not None

    assert (error.name, error.step, error.part, error.detail, error.retryable) == (
        *(expected.error, expected.step, expected.part, expected.detail, expected.retryable),
    )
    assert (error.session_id is not None) == expected.accepted
    assert {span.attributes[semconv.ATTEMPT_ID] for span in last(played)} == {error.attempt_id}
    assert error.message


def test_root_tells_the_same(played: Played) -> None:
    """The attempt's root span carries the outcome, and the failure as the error has it."""
    expected = played.scenario.expected
    root = one(last(played), Span.CONNECT)
    got = [
        root.attributes.get(name)
        for name in (
            *(semconv.OUTCOME, semconv.ERROR_TYPE, semconv.FAILURE_STEP, semconv.FAILURE_PART),
            *(semconv.FAILURE_DETAIL, semconv.FAILURE_RETRYABLE),
        )
    ]

    assert got == [
        *(expected.outcome, expected.error, expected.step, expected.part),
        *(expected.detail, expected.retryable),
    ]
    assert (root.status.status_code is StatusCode.ERROR) == (expected.outcome is Outcome.FAILED)


def test_end_of_session(played: Played) -> None:
    """A session that had been connected ends for the reason, by whom and with the detail that the scenario says."""
    expected = played.scenario.expected
    spans = [span for span in played.spans if span.name == State.CONNECTED]
    if expected.outcome is not Outcome.CONNECTED:
        assert (spans, played.disconnects) == ([], [])
        return
    got = {
        tuple(
            span.attributes.get(name)
            for name in (semconv.DISCONNECT_REASON, semconv.ENDED_BY, semconv.DISCONNECT_DETAIL)
        )
        for span in spans
    }

    assert got == {(expected.reason, expected.ended_by, expected.disconnect_detail)}
    assert played.disconnects == [(session_id, expected.reason) for session_id in played.session_ids]


def test_attempts_form_episodes(played: Played) -> None:
    """Retries are attempts of one episode, numbered from 1, each linked to the one before it."""
    expected = played.scenario.expected
    roots = [one(spans, Span.CONNECT) for spans in played.attempts.values()]
    if played.scenario.client.reconnects:
        assert len({root.attributes[semconv.EPISODE_ID] for root in roots}) == 2
        return

    assert [root.attributes[semconv.ATTEMPT_NUMBER] for root in roots] == list(range(1, expected.attempts + 1))
    assert len({root.attributes[semconv.EPISODE_ID] for root in roots}) == 1
    assert [[link.context.span_id for link in root.links] for root in roots[1:]] == [
        [root.context.span_id] for root in roots[:-1]
    ]


def test_reconnect(played: Played) -> None:
    """A reconnect keeps the sessionId if the server still has the session, and says so in its spans."""
    same = played.scenario.expected.same_session
    if same is None:
        return
    first, second = played.session_ids
    resumed = one(last(played), Span.CONNECT)

    assert (first == second) == same
    assert resumed.attributes[semconv.RESUME_REQUESTED] is True
    assert resumed.attributes[semconv.RESUMED] is same


def test_states_follow_one_another(played: Played) -> None:
    """Listener and transitions tell the same chain of states, from Disconnected to Disconnected."""
    chain = [
        (span.attributes[semconv.TRANSITION_FROM], span.attributes[semconv.TRANSITION_TO])
        for span in in_order(played.spans)
        if span.name == Span.TRANSITION
    ]

    assert chain[0][0] == chain[-1][1] == State.DISCONNECTED
    assert all(before[1] == after[0] for before, after in pairwise(chain))
    assert [after for _, after in chain] == played.states


def test_one_root_and_every_parent(played: Played) -> None:
    """Each attempt has exactly one root, and every other span hangs below it."""
    for spans in played.attempts.values():
        known = {span.context.span_id for span in spans}
        parents = [span.parent.span_id for span in spans if span.parent]

        assert [span.name for span in spans if span.parent is None] == [Span.CONNECT]
        assert set(parents) <= known


def test_common_attributes(played: Played) -> None:
    """Every span of an attempt says whose it is and which server it was."""
    for spans in played.attempts.values():
        for name in (semconv.ATTEMPT_ID, semconv.EPISODE_ID, semconv.SERVER_ADDRESS, semconv.SERVER_PORT):
            assert len({span.attributes.get(name) for span in spans}) == 1, name
            assert spans[0].attributes.get(name), name


def test_session_id_from_acceptance_on(played: Played) -> None:
    """A span that ended after the server had accepted carries the sessionId, an earlier one does not."""
    for spans in played.attempts.values():
        queue = [span for span in spans if span.name == Part.QUEUE and span.status.status_code is not StatusCode.ERROR]
        downloading = [span for span in spans if span.name == State.DOWNLOADING]
        accepted_ns = queue[0].end_time if queue and downloading else None
        for span in spans:
            known = semconv.SESSION_ID in span.attributes
            if accepted_ns is None or span.end_time < accepted_ns:
                assert not known, span.name
            elif span.end_time > accepted_ns or span.name == Part.QUEUE:
                assert known, span.name


def test_parts_add_up_to_steps(played: Played) -> None:
    """The parts of a step lie within it, follow one another without overlap, and the steps fill the attempt."""
    for spans in played.attempts.values():
        root = one(spans, Span.CONNECT)
        steps = [span for span in in_order(spans) if span.name in STEPS]
        assert [step.name for step in steps] == list(STEPS[: len(steps)])
        assert [step.start_time for step in steps] == [root.start_time, *(step.end_time for step in steps[:-1])]
        assert steps[-1].end_time == root.end_time
        for step in steps:
            parts = [span for span in spans if span.parent and span.parent.span_id == step.context.span_id]
            parts = [span for span in in_order(parts) if span.name in PARTS]
            edges = [step.start_time, *(edge for part in parts for edge in (part.start_time, part.end_time))]
            edges.append(step.end_time)
            assert edges == sorted(edges)
            assert all(Part(part.name).state == step.name for part in parts)
            spent = sum(part.end_time - part.start_time for part in parts)
            assert spent <= step.end_time - step.start_time


def test_failure_marks_its_step_and_part(played: Played) -> None:
    """Exactly the step and the part that failed are errors, with the same type and detail; all else is not."""
    expected = played.scenario.expected
    if expected.outcome is not Outcome.FAILED:
        return
    errors = {span.name: span for span in last(played) if span.status.status_code is StatusCode.ERROR}

    assert set(errors) == {Span.CONNECT, expected.step, expected.part} - {None}
    for span in errors.values():
        assert span.attributes[semconv.ERROR_TYPE] == expected.error
        assert span.attributes[semconv.FAILURE_DETAIL] == expected.detail


def test_cancelled_is_no_error(everything: dict[str, Played]) -> None:
    """A caller who gives up leaves a step that says cancelled, and no span with an error."""
    spans = everything["cancelled_in_queue"].spans

    assert one(spans, State.SEARCHING).attributes[semconv.STEP_OUTCOME] == "cancelled"
    assert not [span for span in spans if span.status.status_code is StatusCode.ERROR]


def test_queue_positions(everything: dict[str, Played]) -> None:
    """The queue's part knows where the client began in the queue and where it was last."""
    queue = one(everything["queue_admitted"].spans, Part.QUEUE)

    assert queue.attributes[semconv.QUEUE_POSITION_FIRST] == 3
    assert queue.attributes[semconv.QUEUE_POSITION_LAST] == 1


def test_samples_of_a_session(everything: dict[str, Played]) -> None:
    """A session sends numbered heartbeats with growing packet counts while it lives."""
    samples = [span for span in in_order(everything["steady"].spans) if span.name == Span.SAMPLE]
    packets = [sample.attributes[semconv.VIDEO_PACKETS_RECEIVED] for sample in samples]

    assert [sample.attributes[semconv.SAMPLE_NUMBER] for sample in samples] == list(range(1, len(samples) + 1))
    assert packets == sorted(packets)
    assert packets[-1] > 0


def test_media_were_granted(everything: dict[str, Played]) -> None:
    """What was granted is told apart from what was asked for."""
    with_microphone = one(everything["microphone"].spans, Span.CONNECT)
    without = one(everything["permission_denied_optional"].spans, Span.CONNECT)

    assert with_microphone.attributes[semconv.MEDIA_GRANTED] == "microphone"
    assert (without.attributes[semconv.MEDIA_REQUESTED], without.attributes[semconv.MEDIA_GRANTED]) == (
        *("microphone", "none"),
    )


def one(spans: Sequence[ReadableSpan], name: str) -> ReadableSpan:
    """The only span of a name."""
    (found,) = [span for span in spans if span.name == name]
    return found


def last(played: Played) -> list[ReadableSpan]:
    """The spans of the last attempt."""
    return list(played.attempts.values())[-1]


def in_order(spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    """Spans by their start; those that start together as they ended, which is the order of the exporter."""
    return sorted(spans, key=lambda span: span.start_time or 0)
