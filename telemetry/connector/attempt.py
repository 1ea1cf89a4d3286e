"""One attempt and its session, driven over real sockets and media: what `protocol` commands is done here."""

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from telemetry.connector import messages
from telemetry.connector.events import (
    AbandonUserMedia,
    ApplyAnswer,
    AttemptEnded,
    Cancel,
    Command,
    Connect,
    Event,
    Input,
    Interact,
    MakeOffer,
    Measured,
    OpenSocket,
    OpenUserMedia,
    Received,
    Release,
    Send,
    SocketFailed,
    SocketOpened,
    Tick,
    TransportOpened,
    UserMediaOpened,
)
from telemetry.connector.media import MediaSource, MediaUnavailable, Peer, Track, open_track
from telemetry.connector.plan import NS_PER_S, Plan, UserMedia
from telemetry.connector.protocol import Protocol
from telemetry.connector.sockets import OpenFailed, open_socket, why_closed
from telemetry.connector.tracing import AttemptTrace
from telemetry.errors import ConnectionFailed
from telemetry.semconv import Outcome

PEER_CLOSE_LIMIT_S: Final = 7.0
"""Closing a peer takes under 50 ms, but up to 5 s while aioice asks a STUN server that does not answer."""

_log = logging.getLogger(__name__)


def anchored_clock() -> Callable[[], int]:
    """A clock in nanoseconds UTC that never runs backwards: the wall clock is asked only once."""
    anchor_ns = time.time_ns() - time.monotonic_ns()
    return lambda: anchor_ns + time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to connect to, and with what."""

    url: str = field(repr=False)
    """May hold secrets in its query."""
    token: str | None = field(repr=False)
    source: MediaSource
    ssl_context: ssl.SSLContext | None = None


class Attempt:
    """One attempt to connect and its session. Used once, by one event loop.

    When `connect` has raised, and when `leave` has returned, no task, socket, peer or track of it is left.
    """

    def __init__(self, plan: Plan, target: Target, trace: AttemptTrace, heard: Callable[[Event], None]) -> None:
        self._plan = plan
        self._target = target
        self._trace = trace
        self._heard = heard
        self._protocol = Protocol(plan)
        self._now_ns = anchored_clock()
        self._loop = asyncio.get_running_loop()
        self._inputs: deque[Input] = deque()
        self._telling = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening_media: asyncio.Task[None] | None = None
        self._tracks: dict[str, Track] = {}
        self._socket: ClientConnection | None = None
        self._ended: asyncio.Future[AttemptEnded] = self._loop.create_future()
        self._released: asyncio.Task[None] | None = None
        self.peer: Peer | None = None
        """None means that there is none yet."""

    @property
    def over(self) -> bool:
        """Whether everything has ended and is released."""
        return self._released is not None and self._released.done()

    async def connect(self) -> str:
        """Connect; return the sessionId.

        Raises:
            ConnectionFailed: it failed.
            asyncio.CancelledError: the caller gave up, or `leave` was called meanwhile.
        """
        self._tell(Connect())
        try:
            ended = await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            await self.leave()
            raise
        if ended.outcome is Outcome.CONNECTED and self._protocol.session_id:
            return self._protocol.session_id
        await self.settled()
        if ended.failure is None:
            raise asyncio.CancelledError
        failure = ended.failure
        raise ConnectionFailed(
            failure.error,
            failure.message,
            step=failure.step,
            part=failure.part,
            detail=failure.detail,
            attempt_id=self._plan.attempt_id,
            episode_id=self._plan.episode_id,
            session_id=self._protocol.session_id,
            retryable=failure.retryable,
        )

    def interact(self) -> None:
        """Tell the server that the user did something."""
        self._tell(Interact())

    async def leave(self) -> None:
        """Give up, or end the session; return when everything is released."""
        self._tell(Cancel())
        await self.settled()

    async def settled(self) -> None:
        """Wait for the release of everything, even if the caller is cancelled: limits make it short."""
        cancelled: asyncio.CancelledError | None = None
        while self._released and not self._released.done():
            try:
                await asyncio.shield(self._released)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled:
            raise cancelled

    def _tell(self, input: Input) -> None:
        """Give the protocol an input and do what it says, one input after the other."""
        self._inputs.append(input)
        if self._telling:
            return
        self._telling = True
        try:
            while self._inputs:
                self._take(self._inputs.popleft())
        finally:
            self._telling = False
        self._set_timer()

    def _take(self, input: Input) -> None:
        if self.peer and not isinstance(input, Received):
            # Ends are dated by when media was last seen, so each is preceded by a fresh look.
            self._protocol.receive(self._measure(self.peer), self._now_ns())
        commands, events = self._protocol.receive(input, self._now_ns())
        for event in events:
            self._trace.take(event)
            if isinstance(event, AttemptEnded):
                self._ended.set_result(event)
            self._heard(event)
        for command in commands:
            self._do(command)

    def _measure(self, peer: Peer) -> Measured:
        try:
            return peer.measure()
        except Exception as error:  # Statistics of aiortc never end a session.
            _log.debug("no statistics", exc_info=error)
            return Measured()

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        at_ns = self._protocol.next_timer_ns()
        if at_ns is None:
            self._timer = None
        else:
            self._timer = self._loop.call_later(max(0, at_ns - self._now_ns()) / NS_PER_S, self._tell, Tick())

    def _do(self, command: Command) -> None:
        match command:
            case OpenUserMedia(wanted=wanted):
                self._opening_media = self._run(self._open_user_media(wanted))
            case AbandonUserMedia() if self._opening_media:
                self._opening_media.cancel()
            case OpenSocket():
                self._run(self._read_socket())
            case Send(message=message) if self._socket:
                self._run(self._send(self._socket, message))
            case MakeOffer(ice_servers=servers):
                self.peer = Peer(self._tell, self._now_ns)
                self._run(self.peer.make_offer(servers, self._tracks))
            case ApplyAnswer(sdp=sdp) if self.peer:
                self._run(self.peer.apply_answer(sdp))
            case Release():
                self._released = asyncio.create_task(self._release(command))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open_user_media(self, wanted: UserMedia) -> None:
        """Open microphone and camera, each on its own: one may fail and the other not."""
        refused: dict[str, MediaUnavailable] = {}
        for kind, wish in (("audio", wanted.microphone), ("video", wanted.camera)):
            if not wish:
                continue
            opening = self._loop.run_in_executor(None, open_track, self._target.source, kind)
            try:
                self._tracks[kind] = await asyncio.shield(opening)
            except MediaUnavailable as error:
                refused[kind] = error
            except asyncio.CancelledError:
                opening.add_done_callback(_stop_late_track)
                raise
        needed = {"audio": self._plan.required.microphone, "video": self._plan.required.camera}
        # What is required decides the error; of what is only wished, the first.
        first = min(refused, key=lambda kind: not needed[kind], default=None)
        granted = UserMedia.of("audio" in self._tracks, "video" in self._tracks)
        if first is None:
            self._tell(UserMediaOpened(granted))
        else:
            _log.info("%s is not available: %s", first, refused[first].detail)
            self._tell(UserMediaOpened(granted, refused[first].detail, refused[first].text))

    async def _read_socket(self) -> None:
        transport_open = asyncio.Event()
        watch = self._run(self._watch_transport(transport_open))
        try:
            self._socket = await open_socket(
                self._target.url,
                token=self._target.token,
                ssl_context=self._target.ssl_context,
                transport_open=transport_open,
                close_s=self._plan.limits.close_s,
            )
        except OpenFailed as error:
            watch.cancel()
            self._tell(SocketFailed(error.detail, error.text))
            return
        self._tell(SocketOpened())
        try:
            while True:
                self._tell(Received(await self._socket.recv()))
        except ConnectionClosed as closed:
            self._tell(why_closed(closed))

    async def _watch_transport(self, transport_open: asyncio.Event) -> None:
        await transport_open.wait()
        self._tell(TransportOpened())

    async def _send(self, socket: ClientConnection, message: messages.ClientMessage) -> None:
        with suppress(ConnectionClosed):  # The reader tells that.
            await socket.send(messages.encode(message))

    # The end.

    async def _release(self, release: Release) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                _log.error("a task of the attempt %s failed", self._plan.attempt_id, exc_info=result)
        await asyncio.gather(self._close_socket(release), self._close_peer())
        for track in self._tracks.values():
            track.stop()

    async def _close_socket(self, release: Release) -> None:
        socket = self._socket
        if socket is None:
            return
        try:
            async with asyncio.timeout(self._plan.limits.close_s):
                if release.bye:
                    await self._send(socket, release.bye)
                await socket.close(release.code)
        except TimeoutError:
            socket.transport.abort()
            await socket.wait_closed()

    async def _close_peer(self) -> None:
        if self.peer is None:
            return
        try:
            async with asyncio.timeout(PEER_CLOSE_LIMIT_S):
                await self.peer.close()
        except TimeoutError:
            _log.warning("the peer connection of attempt %s did not close in time", self._plan.attempt_id)


def _stop_late_track(opening: "asyncio.Future[Track]") -> None:
    """Stop a track that came after nobody waited for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().stop()
