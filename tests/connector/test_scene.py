"""The public API against real servers: what an application sees, may do at any moment, and that nothing is left.

Every scenario of the simulator is met in tests/test_end_to_end.py; here is what only an application can cause.
"""

import asyncio
import gc
import os
import socket
import threading
from contextlib import asynccontextmanager

import pytest
from opentelemetry import trace
from websockets.asyncio.server import serve

from telemetry import semconv
from telemetry.connector import messages, sockets
from telemetry.connector.media import MediaUnavailable, synthetic
from telemetry.connector.messages import SUBPROTOCOL
from telemetry.connector.plan import Limits, Retry, UserMedia
from telemetry.connector.scene import ConnectionState, Scene
from telemetry.errors import ConnectionFailed, LocalProtocolError
from telemetry.semconv import Detail, DisconnectReason, Part, Span, State
from telemetry.simulator.server import Simulator
from tests.support.tracing import Recorder

pytestmark = pytest.mark.real


@pytest.fixture
async def simulator():
    """A fast server that plays scenarios."""
    async with Simulator(speed=20) as running:
        yield running


@pytest.fixture
def recorder():
    """A provider of our own with counting ids."""
    return Recorder()


@asynccontextmanager
async def nothing_left():
    """Check that afterwards there are the tasks, threads and open files that there were before."""

    def present():
        tasks = {task for task in asyncio.all_tasks() if not task.done()}
        pools = ("asyncio_", "decoding")  # whose threads end in their own time, those of tests before, too
        threads = {thread for thread in threading.enumerate() if not thread.name.startswith(pools)}
        return tasks, threads, set(os.listdir("/proc/self/fd"))

    before = present()
    yield
    for _ in range(100):
        gc.collect()
        tasks, threads, files = present()
        if (tasks, threads) == before[:2] and len(files) <= len(before[2]):
            return
        # The other side's end of a socket closes in its own time.
        await asyncio.sleep(0.02)
    pytest.fail(f"left behind: {tasks - before[0]} {threads - before[1]} {files - before[2]}")


@asynccontextmanager
async def server(talk, **options):
    """A WebSocket server that says what the test wants."""
    async with serve(talk, "127.0.0.1", 0, **({"subprotocols": [SUBPROTOCOL]} | options)) as running:
        yield f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}/"


async def silent(connection):
    """Take the connection and say nothing."""
    await connection.wait_closed()


def failing(*codes):
    """Close with one code after the other, then say nothing."""
    left = list(codes)

    async def talk(connection):
        if left:
            await connection.close(left.pop(0))
        else:
            await connection.wait_closed()

    return talk


async def failure_of(scene):
    """The error of a connect() that must fail."""
    with pytest.raises(ConnectionFailed) as failed:
        await scene.connect()
    return failed.value


# What an application sees.


async def test_progress_and_disconnect(simulator):
    """Listeners see every state with its numbers, then the disconnect with scene, sessionId and reason."""
    states, ends, positions, assets = [], [], [], []
    scene = Scene(simulator.url("queue_admitted"))
    scene.on_state(states.append)
    scene.on_disconnect(lambda *told: ends.append(told))
    scene.on_queue(positions.append)
    scene.on_assets(lambda loaded, total: assets.append((loaded, total)))
    async with nothing_left(), scene:
        session_id = await scene.connect()
        assert scene.state is State.CONNECTED
        assert scene.session_id == session_id

    assert [(state.name, state.current_step, state.total_steps, state.percentage_loaded) for state in states] == [
        ("SearchingForDigitalPerson", 1, 5, 25),
        ("DownloadingAssets", 2, 5, 50),
        ("ConnectingToDigitalPerson", 3, 5, 75),
        ("Connected", 4, 5, 100),
        ("Disconnected", 0, 5, 0),
    ]
    assert ends == [(scene, session_id, DisconnectReason.NORMAL)]
    assert positions == [3, 2, 1]
    assert assets[-1][0] == assets[-1][1] > 0
    assert scene.state is State.DISCONNECTED


def test_state_in_the_specifications_spelling():
    """A state can be had with the specification's own keys."""
    assert ConnectionState.of(State.DOWNLOADING).to_dict() == {
        "name": "DownloadingAssets",
        "currentStep": 2,
        "totalSteps": 5,
        "percentageLoaded": 50,
    }


async def test_failure_carries_its_facts(simulator):
    """A failed connect() says what, where, whether to retry, and the ids for support."""
    scene = Scene(simulator.url("asset_missing"), new_id=iter(["episode", "attempt"]).__next__)
    async with nothing_left():
        error = await failure_of(scene)

    assert (error.name, error.step, error.part, error.detail) == (
        *("serverConnectionFailed", "DownloadingAssets"),
        *("assets", "asset_failed"),
    )
    assert (error.attempt_id, error.episode_id, error.retryable) == ("attempt", "episode", True)
    assert error.session_id == scene.session_id
    assert error.session_id
    assert scene.attempt_id == "attempt"
    assert scene.state is State.DISCONNECTED


async def test_the_person_can_be_seen_and_heard(simulator):
    """While connected, video and audio can be taken; before and after there are none."""
    scene = Scene(simulator.url("steady"))
    assert scene.video is None
    async with scene:
        await scene.connect()
        async with asyncio.timeout(5):
            frame = await scene.video.recv()
            sound = await scene.audio.recv()
    assert (frame.width, sound.sample_rate) == (128, 48_000)
    assert scene.video is None


async def test_interaction_keeps_the_session(simulator):
    """A user who does something restarts the session timeout; one who does not loses the session to it."""
    ended = asyncio.Event()
    scene = Scene(simulator.url("idle_timeout"))
    scene.on_disconnect(lambda scene, session_id, reason: ended.set())
    scene.interact()
    async with scene:
        await scene.connect()
        for _ in range(5):
            await asyncio.sleep(0.08)
            scene.interact()
        assert scene.state is State.CONNECTED
        async with asyncio.timeout(5):
            await ended.wait()


async def test_broken_listener(simulator, caplog):
    """A listener that raises is logged and breaks nothing."""

    def broken(state):
        raise RuntimeError("listener")

    scene = Scene(simulator.url("steady"))
    scene.on_state(broken)
    async with scene:
        assert await scene.connect()

    assert "a listener of Scene(" in caplog.text


async def test_connect_twice(simulator):
    """A scene that is connecting or connected refuses a second connect(), and goes on."""
    scene = Scene(simulator.url("steady"))
    async with scene:
        first = asyncio.create_task(scene.connect())
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError):
            await scene.connect()
        await first
        with pytest.raises(LocalProtocolError):
            await scene.connect()
        assert scene.state is State.CONNECTED


async def test_nothing_to_disconnect():
    """Disconnecting a scene that never connected does nothing."""
    scene = Scene("ws://127.0.0.1:1/")
    await scene.disconnect()

    assert scene.state is State.DISCONNECTED


def test_secrets_stay_out_of_reprs():
    """Neither token nor userinfo nor query shows in the repr of a scene."""
    scene = Scene("wss://user:secret@dp.example/?key=secret", token="secret")

    assert repr(scene) == "Scene(dp.example:443, Disconnected, session_id=None)"
    assert "secret" not in repr(scene._target)


# Spans.


async def test_spans_hold_no_secret(simulator, recorder):
    """Token, userinfo and query of the URL are on no span and in no error."""
    url = simulator.url("refused_token").replace("ws://", "ws://user:hidden@") + "?key=hidden"
    scene = Scene(url, token="hidden", tracer_provider=recorder.provider, synthetic=True, attributes={"app": "x"})
    error = await failure_of(scene)

    assert "hidden" not in str(error)
    assert recorder.spans
    for span in recorder.spans:
        assert "hidden" not in span.to_json()
        assert span.attributes[semconv.SERVER_ADDRESS] == "127.0.0.1"
        assert span.attributes[semconv.USER_AGENT_SYNTHETIC_TYPE] == "test"
        assert span.attributes["app"] == "x"


async def test_invalid_url_is_an_attempt(recorder):
    """A URL that cannot be used fails like everything else: with an attempt, spans and a next step."""
    error = await failure_of(Scene("htp:/nonsense?token=hidden", tracer_provider=recorder.provider))

    assert (error.name, error.detail) == ("serverConnectionFailed", "invalid_url")
    assert "hidden" not in str(error)
    assert recorder.one(Span.CONNECT).attributes[semconv.FAILURE_DETAIL] == "invalid_url"
    assert semconv.SERVER_ADDRESS not in recorder.one(Span.CONNECT).attributes


async def test_concurrent_scenes_do_not_mix(simulator, recorder):
    """Many scenes at once have a trace each, and every span of a trace belongs to one attempt and one session."""
    scenes = [Scene(simulator.url("steady"), tracer_provider=recorder.provider) for _ in range(4)]
    async with nothing_left():
        sessions = await asyncio.gather(*(scene.connect() for scene in scenes))
        await asyncio.gather(*(scene.disconnect() for scene in scenes))

    by_trace = {}
    for span in recorder.spans:
        by_trace.setdefault(span.context.trace_id, []).append(span)
    assert len(by_trace) == len(set(sessions)) == 4
    told = set()
    for spans in by_trace.values():
        (attempt_id,) = {span.attributes[semconv.ATTEMPT_ID] for span in spans}
        (session_id,) = {span.attributes.get(semconv.SESSION_ID) for span in spans} - {None}
        told.add((attempt_id, session_id))
    assert told == {(scene.attempt_id, scene.session_id) for scene in scenes}


async def test_untraced(simulator):
    """Without an SDK a session works all the same."""
    async with Scene(simulator.url("steady"), tracer_provider=trace.NoOpTracerProvider()) as scene:
        assert await scene.connect()


async def test_broken_tracer(simulator):
    """A tracer that raises at everything breaks no session."""

    class Broken(trace.TracerProvider):
        def get_tracer(self, *args, **kwargs):
            return self

        def __getattr__(self, name):
            raise RuntimeError(name)

    async with Scene(simulator.url("steady"), tracer_provider=Broken()) as scene:
        assert await scene.connect()


# Giving up, at any moment.


@pytest.mark.parametrize(
    "scenario", ["silent", "assets_stall", "times_out_connecting", "never_answers_ice", "no_media", "steady"]
)
@pytest.mark.parametrize("after_s", [0, 0.1, 0.3])
async def test_cancelled(simulator, recorder, scenario, after_s):
    """Cancelling connect() at any moment leaves nothing, and its one outcome is told: cancelled, or what was faster."""
    scene = Scene(simulator.url(scenario), tracer_provider=recorder.provider)
    async with nothing_left():
        connecting = asyncio.create_task(scene.connect())
        await asyncio.sleep(after_s)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await scene.disconnect()

    assert scene.state is State.DISCONNECTED
    outcome = recorder.one(Span.CONNECT).attributes[semconv.OUTCOME]
    faster = {"steady": "connected", "times_out_connecting": "failed"}.get(scenario)
    assert outcome in ("cancelled", faster)


@pytest.mark.parametrize("turns", range(0, 60, 6))
async def test_cancelled_at_any_turn(simulator, turns):
    """Cancelling after any number of turns of the loop leaves nothing behind."""
    scene = Scene(simulator.url("steady"))
    async with nothing_left():
        connecting = asyncio.create_task(scene.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await scene.disconnect()


async def test_cancelled_twice(simulator):
    """A caller who cancels again while everything is being released does not cut the release short."""
    scene = Scene(simulator.url("never_answers_ice"))
    async with nothing_left():
        connecting = asyncio.create_task(scene.connect())
        await asyncio.sleep(0.3)
        connecting.cancel()
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert scene._attempt.over


async def test_timeout_of_the_caller(simulator):
    """A caller's own timeout around connect() is a TimeoutError there and a cancelled attempt here."""
    scene = Scene(simulator.url("silent"))
    async with nothing_left():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await scene.connect()


async def test_disconnect_while_connecting(simulator, recorder):
    """disconnect() from elsewhere ends a connect() that is under way, which is cancelled and recorded so."""
    scene = Scene(simulator.url("silent"), tracer_provider=recorder.provider)
    async with nothing_left():
        connecting = asyncio.create_task(scene.connect())
        await asyncio.sleep(0.1)
        await scene.disconnect()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    assert recorder.one(Span.CONNECT).attributes[semconv.OUTCOME] == "cancelled"


# Retries.

SOON = Retry(attempts=3, first_delay_s=0.01, chance=lambda: 0)


async def test_retries_are_an_episode(recorder):
    """Retries share the episode, have attempts and traces of their own, and link to the one before."""
    async with server(failing(4503, 4503, 4401)) as url:
        scene = Scene(url, retry=Retry(attempts=9, first_delay_s=0.01), tracer_provider=recorder.provider)
        async with nothing_left():
            error = await failure_of(scene)
    roots = recorder.named(Span.CONNECT)

    assert error.detail == "token_refused"
    assert [root.attributes[semconv.ATTEMPT_NUMBER] for root in roots] == [1, 2, 3]
    assert len({root.attributes[semconv.EPISODE_ID] for root in roots}) == 1
    assert len({root.attributes[semconv.ATTEMPT_ID] for root in roots}) == 3
    assert [link.context.span_id for root in roots for link in root.links] == [
        root.context.span_id for root in roots[:2]
    ]


async def test_attempts_run_out():
    """The last attempt's error is raised when there are no more."""
    async with server(failing(4503, 4503, 4429, 4401)) as url:
        error = await failure_of(Scene(url, retry=SOON))

    assert error.detail == "queue_full"


@pytest.mark.parametrize("how", ["cancel", "disconnect"])
async def test_given_up_between_attempts(recorder, how):
    """Giving up while waiting for the next attempt is told as that attempt, cancelled before its first step."""
    async with server(failing(4503)) as url:
        failed = asyncio.Event()
        scene = Scene(url, retry=Retry(attempts=2, first_delay_s=60), tracer_provider=recorder.provider)
        scene.on_state(lambda state: state.current_step or failed.set())
        async with nothing_left():
            connecting = asyncio.create_task(scene.connect())
            await failed.wait()
            await scene._attempt.settled()
            await asyncio.sleep(0)
            if how == "cancel":
                connecting.cancel()
            else:
                await scene.disconnect()
            with pytest.raises(asyncio.CancelledError):
                await connecting
    first, second = recorder.named(Span.CONNECT)

    assert (first.attributes[semconv.OUTCOME], second.attributes[semconv.OUTCOME]) == ("failed", "cancelled")
    assert second.attributes[semconv.ATTEMPT_NUMBER] == 2
    assert second.links[0].context.span_id == first.context.span_id
    assert {span.context.trace_id for span in recorder.spans if span.name == Span.TRANSITION} == {
        first.context.trace_id
    }


# Session persistence.


async def test_persistence(simulator, recorder):
    """A persistent scene comes back to its session, again and again."""
    scene = Scene(simulator.url("steady"), persistent=True, tracer_provider=recorder.provider)
    async with scene:
        first = await scene.connect()
        assert not scene.resumed
        for _ in range(2):
            await scene.disconnect()
            assert await scene.connect() == first
            assert scene.resumed

    asked = [root.attributes[semconv.RESUME_REQUESTED] for root in recorder.named(Span.CONNECT)]
    assert asked == [False, True, True]


async def test_persistence_falls_back(simulator):
    """When the session is gone, the server's new one is used, and the application can see it."""
    async with Scene(simulator.url("persisted_gone"), persistent=True) as scene:
        first = await scene.connect()
        await scene.disconnect()
        second = await scene.connect()

    assert second != first
    assert not scene.resumed


async def test_ended_session_is_not_resumed(simulator):
    """A session that the server ended for good is not asked for again."""
    ended = asyncio.Event()
    scene = Scene(simulator.url("closed_by_server"), persistent=True, limits=Limits(close_s=0.5))
    scene.on_disconnect(lambda *told: ended.set())
    asked = []
    async with scene:
        await scene.connect()
        async with asyncio.timeout(5):
            await ended.wait()
        asked.append(scene._resume)

    assert asked == [None]


async def test_without_persistence(simulator):
    """Without persistence every connect() is a session of its own."""
    async with Scene(simulator.url("steady")) as scene:
        first = await scene.connect()
        await scene.disconnect()
        assert await scene.connect() != first


# User media.


def source(**refused):
    """Synthetic media, except for the kinds that are refused with a code."""

    def open(kind):
        if kind in refused:
            raise MediaUnavailable(refused[kind])
        return synthetic(kind)

    return open


async def hello_of(scene_options):
    """What a server is told in hello, and the error that follows."""
    heard = []

    async def talk(connection):
        heard.append(messages.decode(await connection.recv()))
        await connection.close(4503)

    async with server(talk) as url:
        error = await failure_of(Scene(url, **scene_options))
    return heard, error


async def test_media_granted():
    """What is granted is announced; what is required counts as requested."""
    options = {"requested_media": "microphone", "required_media": UserMedia.CAMERA, "media_source": "synthetic"}
    (hello,), _ = await hello_of(options)

    assert (hello.microphone, hello.camera) == (True, True)


async def test_media_partly_granted():
    """A microphone that is only requested may be missing; the camera that is required is there."""
    (hello,), _ = await hello_of(
        {
            "requested_media": "microphone",
            "required_media": "camera",
            "media_source": source(audio=Detail.PERMISSION_DENIED),
        }
    )

    assert (hello.microphone, hello.camera) == (False, True)


async def test_required_media_decide_the_error():
    """When both are missing, the one that is required gives the reason, and no server is bothered."""
    heard, error = await hello_of(
        {
            "requested_media": "microphone",
            "required_media": "camera",
            "media_source": source(audio=Detail.PERMISSION_DENIED, video=Detail.DEVICE_IN_USE),
        }
    )

    assert heard == []
    assert (error.name, error.part, error.detail) == ("noUserMedia", Part.USER_MEDIA, Detail.DEVICE_IN_USE)


async def test_slow_device_is_closed_when_it_comes():
    """A device that opens after nobody waits for it any more is closed again."""
    release, opened = threading.Event(), []

    def slow(kind):
        release.wait(10)
        opened.append(synthetic(kind))
        return opened[0]

    async with server(silent) as url:
        scene = Scene(url, requested_media="camera", media_source=slow, limits=Limits(user_media_s=0.05))
        connecting = asyncio.create_task(scene.connect())
        await asyncio.sleep(0.2)
        release.set()
        await asyncio.sleep(0.1)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)

    assert opened[0].readyState == "ended"


@pytest.mark.parametrize("late", ["opens", "fails"])
async def test_cancelled_while_a_device_opens(late):
    """Cancelling does not wait for a device; one that opens later is closed, one that fails later is forgotten."""
    release, opened = threading.Event(), []

    def slow(kind):
        release.wait(10)
        if late == "fails":
            raise MediaUnavailable(Detail.DEVICE_FAILED)
        opened.append(synthetic(kind))
        return opened[0]

    scene = Scene("ws://127.0.0.1:1/", requested_media="camera", media_source=slow)
    connecting = asyncio.create_task(scene.connect())
    await asyncio.sleep(0.05)
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    assert connecting.cancelled()
    release.set()
    await asyncio.sleep(0.1)

    assert all(track.readyState == "ended" for track in opened)


async def test_user_media_reach_the_server(simulator):
    """Microphone and camera are sent, and stopped when the session is over."""
    opened = []

    def keep(kind):
        opened.append(synthetic(kind))
        return opened[-1]

    scene = Scene(simulator.url("steady"), required_media="microphone_and_camera", media_source=keep)
    async with nothing_left(), scene:
        await scene.connect()

    assert [(track.kind, track.readyState) for track in opened] == [("audio", "ended"), ("video", "ended")]


# Servers that misbehave.


async def test_no_answer_to_pings(monkeypatch):
    """A server that no longer answers pings is a lost socket within the ping's limit."""
    monkeypatch.setattr(sockets, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(sockets, "PING_LIMIT_S", 0.1)
    gone = asyncio.Event()

    async def deaf(connection):
        connection.transport.pause_reading()
        await gone.wait()
        connection.transport.abort()

    async with server(deaf) as url:
        error = await failure_of(Scene(url, limits=Limits(close_s=0.1)))
        gone.set()

    assert error.detail == Detail.SOCKET_LOST
    assert "ping" in error.message


async def test_server_that_does_not_close():
    """A server that ignores our close is left after the limit, and nothing is left of it."""
    gone = asyncio.Event()

    async def stubborn(connection):
        await connection.recv()
        connection.transport.pause_reading()
        await gone.wait()
        connection.transport.abort()

    async with server(stubborn) as url:
        scene = Scene(url, limits=Limits(searching_s=0.1, close_s=0.1))
        async with asyncio.timeout(2):
            error = await failure_of(scene)
        gone.set()

    assert error.detail == Detail.STEP_DEADLINE


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        (b"\x00\x01", Detail.PROTOCOL_VIOLATION),
        ("{", Detail.PROTOCOL_VIOLATION),
        ("x" * (messages.MAX_MESSAGE_BYTES + 1), Detail.MESSAGE_TOO_BIG),
    ],
)
async def test_bad_frames(frame, detail):
    """Binary, junk and oversized frames are refused, each by its name, and the server is told why."""
    codes = []

    async def talk(connection):
        await connection.recv()
        await connection.send(frame)
        await connection.wait_closed()
        codes.append(connection.close_code)

    async with server(talk) as url:
        error = await failure_of(Scene(url))

    assert error.detail == detail
    assert codes == [1009 if detail == Detail.MESSAGE_TOO_BIG else 4400]


async def test_address_that_does_not_answer(monkeypatch):
    """A host that lets the connection hang is a TCP timeout at the limit."""
    blocked = asyncio.Event()

    async def hang(*args, **kwargs):
        await blocked.wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", hang)
    error = await failure_of(Scene("ws://192.0.2.1:9/", limits=Limits(websocket_open_s=0.1)))

    assert (error.name, error.detail) == ("serverConnectionFailed", Detail.TCP_TIMEOUT)


async def test_unknown_host(monkeypatch):
    """A name that does not exist is a DNS failure that names the host."""

    async def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    error = await failure_of(Scene("ws://nowhere.invalid/"))

    assert error.detail == Detail.DNS
    assert "nowhere.invalid:80" in error.message
