"""The connector's public face: a `Scene` connects an application with a digital person.

    async with Scene("wss://person.example/scene", token=token) as scene:
        scene.on_state(lambda state: print(state.name, state.percentage_loaded))
        session_id = await scene.connect()

Everything here belongs to one event loop. Any number of scenes may live at once.
"""

import asyncio
import logging
import platform
import ssl
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry.trace import SpanContext, TracerProvider

from telemetry import __version__, semconv
from telemetry.connector.attempt import Attempt, Target, anchored_clock
from telemetry.connector.events import (
    AssetsLoaded,
    Cancel,
    Event,
    QueueMoved,
    SessionAccepted,
    SessionEnded,
    Transition,
)
from telemetry.connector.media import MediaSource, Track, media_source
from telemetry.connector.plan import Limits, Plan, Retry, UserMedia
from telemetry.connector.protocol import Protocol
from telemetry.connector.sockets import address_of
from telemetry.connector.tracing import AttemptTrace
from telemetry.errors import ConnectionFailed, LocalProtocolError
from telemetry.semconv import TOTAL_STEPS, DisconnectReason, State

__all__ = ["ConnectionFailed", "ConnectionState", "DisconnectReason", "Limits", "Retry", "Scene", "State", "UserMedia"]

CLIENT: Final = f"dp-telemetry/{__version__} ({platform.python_implementation()} {platform.python_version()})"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """What a progress listener receives. An estimate for display."""

    name: str
    """`semconv.State`."""
    current_step: int
    """0 to 4."""
    total_steps: int
    percentage_loaded: int
    """0, 25, 50, 75 or 100."""

    @classmethod
    def of(cls, state: State) -> Self:
        """The progress at a state."""
        return cls(state.value, state.step, TOTAL_STEPS, state.percentage)

    def to_dict(self) -> dict[str, str | int]:
        """The same in the specification's own spelling."""
        return {
            "name": self.name,
            "currentStep": self.current_step,
            "totalSteps": self.total_steps,
            "percentageLoaded": self.percentage_loaded,
        }


class Scene:
    """A place to meet a digital person. Connect, disconnect and connect again as often as you like."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        requested_media: UserMedia | str = UserMedia.NONE,
        required_media: UserMedia | str = UserMedia.NONE,
        media_source: str | Path | MediaSource | None = None,
        persistent: bool = False,
        synthetic: bool = False,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        retry: Retry | None = None,
        limits: Limits | None = None,
        tracer_provider: TracerProvider | None = None,
        ssl_context: ssl.SSLContext | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            url: `ws://` or `wss://`. Only its host and port appear in spans and messages.
            token: Sent as a bearer token in the handshake's `Authorization` header.
            requested_media: Sent if they can be had; the session forms without them too.
            required_media: Without them `connect()` fails.
            media_source: `devices` (None means these), `synthetic`, the path of a media file, or a function that opens
                a track for `audio` or `video`.
            persistent: Ask the server to keep the session, and continue it at the next `connect()`.
            synthetic: Mark everything as a test, which no failure rate counts.
            attributes: On every span, for example `network.connection.type` and `cloud.region`.
            retry: None means one attempt.
            limits: None means the defaults.
            tracer_provider: None means the global one.
            ssl_context: For `wss://`. None means the system's certificates.
            new_id: Makes attempt and episode ids. None means random UUIDs.
        """
        self._required = UserMedia(required_media)
        self._requested = UserMedia(requested_media) | self._required
        self._target = Target(url, token, _source(media_source), ssl_context)
        self._address = address_of(url)
        self._persistent = persistent
        self._synthetic = synthetic
        self._attributes = dict(attributes or {})
        self._retry = retry or Retry()
        self._limits = limits or Limits()
        self._provider = tracer_provider
        self._new_id = new_id or (lambda: str(uuid.uuid4()))
        self._state = State.DISCONNECTED
        self._session_id: str | None = None
        self._attempt_id: str | None = None
        self._resumed = False
        self._resume: str | None = None
        self._connecting = False
        self._leaving = asyncio.Event()
        self._attempt: Attempt | None = None
        self._on_state: list[Callable[[ConnectionState], object]] = []
        self._on_disconnect: list[Callable[[Scene, str, DisconnectReason], object]] = []
        self._on_queue: list[Callable[[int], object]] = []
        self._on_assets: list[Callable[[int, int], object]] = []

    def __repr__(self) -> str:
        return f"Scene({self._address}, {self._state}, session_id={self._session_id!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    @property
    def state(self) -> State:
        """Where the connection is at this moment."""
        return self._state

    @property
    def session_id(self) -> str | None:
        """The last sessionId that the server gave. None means that it gave none."""
        return self._session_id

    @property
    def attempt_id(self) -> str | None:
        """The id of the last attempt, for support. None before the first `connect()`."""
        return self._attempt_id

    @property
    def resumed(self) -> bool:
        """Whether the server continued the earlier session; False after a reconnect means that it gave a new one."""
        return self._resumed

    @property
    def video(self) -> Track | None:
        """The digital person's video. Asking for it starts the decoding. None means that there is none."""
        return self._track("video")

    @property
    def audio(self) -> Track | None:
        """The digital person's voice. Asking for it starts the decoding. None means that there is none."""
        return self._track("audio")

    def on_state(self, listener: Callable[[ConnectionState], object]) -> None:
        """Call the listener at every change of state."""
        self._on_state.append(listener)

    def on_disconnect(self, listener: "Callable[[Scene, str, DisconnectReason], object]") -> None:
        """Call the listener with scene, sessionId and reason when a connected session has ended."""
        self._on_disconnect.append(listener)

    def on_queue(self, listener: Callable[[int], object]) -> None:
        """Call the listener with the position in the queue, 1 being next."""
        self._on_queue.append(listener)

    def on_assets(self, listener: Callable[[int, int], object]) -> None:
        """Call the listener with loaded and total bytes while assets load."""
        self._on_assets.append(listener)

    async def connect(self) -> str:
        """Connect, with as many attempts as `retry` allows; return the sessionId.

        Cancelling it leaves nothing behind, and is recorded as cancelled.

        Raises:
            ConnectionFailed: the last attempt failed.
            LocalProtocolError: this scene is connecting or connected already.
            asyncio.CancelledError: the caller gave up, or `disconnect()` was called meanwhile.
        """
        if self._connecting or self._state is not State.DISCONNECTED:
            raise LocalProtocolError("this scene is connecting or connected already; await disconnect() first")
        self._connecting = True
        self._leaving.clear()
        try:
            if self._attempt:
                await self._attempt.settled()
            return await self._episode(self._new_id())
        finally:
            self._connecting = False

    async def disconnect(self) -> None:
        """End the session, or give up connecting. Returns when nothing is left; does nothing when nothing was there."""
        self._leaving.set()
        if self._attempt:
            await self._attempt.leave()

    def interact(self) -> None:
        """Tell the server that the user did something: it restarts the session timeout. Ignored while not connected."""
        if self._attempt:
            self._attempt.interact()

    async def _episode(self, episode_id: str) -> str:
        previous: SpanContext | None = None
        number = 1
        while True:
            plan, trace = self._next_attempt(episode_id, number, previous)
            self._attempt = Attempt(plan, self._target, trace, self._heard)
            try:
                return await self._attempt.connect()
            except ConnectionFailed as failure:
                if number >= self._retry.attempts or not failure.retryable:
                    raise
            previous = trace.root
            await self._back_off(episode_id, number, previous)
            number += 1

    async def _back_off(self, episode_id: str, failures: int, previous: SpanContext | None) -> None:
        """Wait before the next attempt.

        A caller who gives up meanwhile gave up the next attempt: it is recorded as cancelled before its first step,
        so that the episode does not look as if its attempts had been used up.
        """
        try:
            async with asyncio.timeout(self._retry.delay_s(failures)):
                await self._leaving.wait()
        except TimeoutError:
            return
        except asyncio.CancelledError:
            self._record_given_up(episode_id, failures + 1, previous)
            raise
        self._record_given_up(episode_id, failures + 1, previous)
        raise asyncio.CancelledError

    def _record_given_up(self, episode_id: str, number: int, previous: SpanContext | None) -> None:
        plan, trace = self._next_attempt(episode_id, number, previous)
        _, events = Protocol(plan).receive(Cancel(), anchored_clock()())
        for event in events:
            trace.take(event)

    def _next_attempt(self, episode_id: str, number: int, previous: SpanContext | None) -> tuple[Plan, AttemptTrace]:
        self._attempt_id = self._new_id()
        if not self._persistent:
            self._session_id = None
        self._resumed = False
        plan = Plan(
            attempt_id=self._attempt_id,
            episode_id=episode_id,
            server=str(self._address or "the server"),
            client=CLIENT,
            number=number,
            requested=self._requested,
            required=self._required,
            resume=self._resume if self._persistent else None,
            persistent=self._persistent,
            limits=self._limits,
        )
        common: dict[str, Any] = {
            **self._attributes,
            semconv.ATTEMPT_ID: plan.attempt_id,
            semconv.EPISODE_ID: episode_id,
        }
        if self._address:
            common[semconv.SERVER_ADDRESS] = self._address.host
            common[semconv.SERVER_PORT] = self._address.port
        if self._synthetic:
            common[semconv.USER_AGENT_SYNTHETIC_TYPE] = "test"
        return plan, AttemptTrace(common, provider=self._provider, previous=previous)

    def _heard(self, event: Event) -> None:
        """Keep what an event changes, and tell the listeners."""
        match event:
            case Transition(after=after):
                self._state = after
                self._call(self._on_state, ConnectionState.of(after))
            case QueueMoved(position=position):
                self._call(self._on_queue, position)
            case AssetsLoaded():
                self._call(self._on_assets, event.loaded_bytes, event.total_bytes)
            case SessionAccepted():
                if self._resume and self._persistent and not event.resumed:
                    _log.info("the session %s is gone; the server gave %s", self._resume, event.session_id)
                self._session_id = self._resume = event.session_id
                self._resumed = event.resumed
            case SessionEnded():
                if not event.resumable:
                    self._resume = None
                self._call(self._on_disconnect, self, self._session_id, event.reason)

    def _call(self, listeners: list[Any], *values: object) -> None:
        for listener in list(listeners):
            try:
                listener(*values)
            except Exception:  # A listener belongs to the application; it must not break the session.
                _log.exception("a listener of %r failed", self)

    def _track(self, kind: str) -> Track | None:
        peer = self._attempt.peer if self._attempt and not self._attempt.over else None
        return peer.track(kind) if peer else None


_source = media_source
"""By another name, because an argument of `Scene` has this one."""
