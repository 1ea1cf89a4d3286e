"""One attempt and its session as a pure state machine: `receive(input, now_ns)` gives commands and events.

No I/O, no clock, no asyncio. Everything about order lives in the two tables below: `PLACES` says what each place
means, `NEXT` says what may arrive there and where it leads. A server message that `NEXT` does not list
breaks the protocol.
A local input that it does not list comes late, and is ignored.

Failures, cancellation and ends can arrive at every place; they are handled by type, below the tables.
"""

import re
from collections import Counter, deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from telemetry import semconv
from telemetry.connector import messages
from telemetry.connector.events import (
    AbandonUserMedia,
    AnswerApplied,
    ApplyAnswer,
    AssetsLoaded,
    AttemptBegan,
    AttemptEnded,
    Attributes,
    Cancel,
    Command,
    Connect,
    DtlsConnected,
    Event,
    Failure,
    FrameDecoded,
    IceCompleted,
    Input,
    Interact,
    MakeOffer,
    Measured,
    OfferMade,
    OpenSocket,
    OpenUserMedia,
    PartEnded,
    PeerClosed,
    PeerFailed,
    QueueMoved,
    Received,
    Release,
    SampleTaken,
    Send,
    SessionAccepted,
    SessionEnded,
    SocketClosed,
    SocketFailed,
    SocketOpened,
    StepEnded,
    Tick,
    Transition,
    TransportOpened,
    UserMediaOpened,
)
from telemetry.connector.failures import cause_of
from telemetry.connector.plan import NS_PER_S, Plan, UserMedia
from telemetry.errors import RemoteProtocolError
from telemetry.semconv import ConnectionError, Detail, DisconnectReason, EndedBy, Outcome, Part, State, StepOutcome


class Place(IntEnum):
    """Where an attempt is, finer than its state."""

    IDLE = 0
    USER_MEDIA = 1
    OPENING = 2
    QUEUE = 3
    ASSETS = 4
    NEGOTIATE = 5
    ICE = 6
    DTLS = 7
    FIRST_FRAME = 8
    STARTING = 9
    """Everything is there except the server's `started`."""
    CONNECTED = 10
    ENDED = 11


@dataclass(frozen=True, slots=True)
class Meaning:
    """What it means to be at a place."""

    state: State
    part: Part | None = None
    """The part that lasts as long as the stay."""
    limit: str | None = None
    """The field of `Limits` for the part. None means that only the step limits it."""
    late: Detail = Detail.STEP_DEADLINE
    """What it means when a limit of the part or of the step has passed here."""


PLACES: Final = {
    Place.IDLE: Meaning(State.DISCONNECTED),
    Place.USER_MEDIA: Meaning(State.SEARCHING, Part.USER_MEDIA, "user_media_s"),
    Place.OPENING: Meaning(State.SEARCHING, Part.WEBSOCKET_OPEN, "websocket_open_s"),
    Place.QUEUE: Meaning(State.SEARCHING, Part.QUEUE),
    Place.ASSETS: Meaning(State.DOWNLOADING, Part.ASSETS),
    Place.NEGOTIATE: Meaning(State.CONNECTING, Part.NEGOTIATE, "negotiate_s"),
    Place.ICE: Meaning(State.CONNECTING, Part.ICE, "ice_s", Detail.ICE_NO_PAIR),
    Place.DTLS: Meaning(State.CONNECTING, Part.DTLS, "dtls_s", Detail.DTLS),
    Place.FIRST_FRAME: Meaning(State.CONNECTING, Part.FIRST_FRAME, "first_frame_s", Detail.NO_FIRST_FRAME),
    Place.STARTING: Meaning(State.CONNECTING),
    Place.CONNECTED: Meaning(State.CONNECTED),
    Place.ENDED: Meaning(State.DISCONNECTED),
}

NEXT: Final[dict[tuple[Place, type], Place]] = {
    (Place.IDLE, Connect): Place.USER_MEDIA,
    (Place.USER_MEDIA, UserMediaOpened): Place.OPENING,
    (Place.OPENING, TransportOpened): Place.OPENING,
    (Place.OPENING, SocketOpened): Place.QUEUE,
    (Place.QUEUE, messages.Queued): Place.QUEUE,
    (Place.QUEUE, messages.Accepted): Place.ASSETS,
    (Place.ASSETS, messages.Assets): Place.ASSETS,
    (Place.ASSETS, messages.Ready): Place.NEGOTIATE,
    (Place.NEGOTIATE, OfferMade): Place.NEGOTIATE,
    (Place.NEGOTIATE, messages.Answer): Place.NEGOTIATE,
    (Place.NEGOTIATE, messages.Started): Place.NEGOTIATE,
    (Place.NEGOTIATE, AnswerApplied): Place.ICE,
    (Place.ICE, messages.Started): Place.ICE,
    (Place.ICE, IceCompleted): Place.DTLS,
    (Place.DTLS, messages.Started): Place.DTLS,
    (Place.DTLS, DtlsConnected): Place.FIRST_FRAME,
    (Place.FIRST_FRAME, messages.Started): Place.FIRST_FRAME,
    (Place.FIRST_FRAME, FrameDecoded): Place.STARTING,
    (Place.STARTING, messages.Started): Place.CONNECTED,
    (Place.CONNECTED, Interact): Place.CONNECTED,
}

_STEP_LIMIT: Final = {
    State.SEARCHING: "searching_s",
    State.DOWNLOADING: "downloading_s",
    State.CONNECTING: "connecting_s",
}
_STEPS: Final = frozenset(_STEP_LIMIT)
TRAIL_LENGTH: Final = 16
"""How many of the last signalling messages are told by their types."""
LOOKS_PER_SILENCE: Final = 4
"""How often the media counters are looked at within the limit for silence: it is overrun by a quarter at most."""
_CANDIDATE: Final = re.compile(r"^a=candidate:.* typ (host|srflx|relay)\b", re.MULTILINE)


class Protocol:
    """One attempt to connect and, if it succeeds, its session. Used once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._place = Place.IDLE
        self._commands: list[Command] = []
        self._events: list[Event] = []
        self._now_ns = 0
        self._began_ns = 0
        self._step_ns = 0
        self._place_ns = 0
        self._transport_open = False
        self._socket_open = False
        self._granted: UserMedia | None = None
        """None means that it was not asked for yet."""
        self._session_id: str | None = None
        self._started = False
        self._offered = False
        self._answered = False
        self._facts: dict[str, Any] = {}
        """What is known of the attempt as a whole, by its names in telemetry."""
        self._part: dict[str, Any] = {}
        """What is known of the open part."""
        self._candidates: dict[str, Any] = {}
        self._ice_servers: tuple[messages.IceServer, ...] = ()
        self._measured = Measured()
        self._idle_limit_ms = 0
        self._look_ns = 0
        self._sample_ns = 0
        self._samples = 0
        self._trail: deque[str] = deque(maxlen=TRAIL_LENGTH)

    @property
    def place(self) -> Place:
        return self._place

    @property
    def state(self) -> State:
        return PLACES[self._place].state

    @property
    def session_id(self) -> str | None:
        """None means that the server has not accepted."""
        return self._session_id

    def receive(self, input: Input, now_ns: int) -> tuple[list[Command], list[Event]]:
        """Take one input; return what to do and what became true, in order.

        `now_ns` never runs backwards here: an earlier one counts as the latest seen.
        """
        self._now_ns = max(self._now_ns, now_ns)
        self._commands, self._events = [], []
        if self._place is not Place.ENDED:
            self._take(input)
        return self._commands, self._events

    def next_timer_ns(self) -> int | None:
        """When to send the next `Tick`, preceded by `Measured` if there is a peer. None means never."""
        if self._place is Place.CONNECTED:
            return min(self._look_ns, self._sample_ns)
        return self._deadline()[0] if self._place not in (Place.IDLE, Place.ENDED) else None

    def _take(self, input: Input) -> None:
        match input:
            case Cancel():
                self._leave()
            case Tick():
                self._tick()
            case Measured():
                self._measured = input
            case Received(data=data):
                self._hear(data)
            case SocketClosed(code=code, reason=reason):
                self._socket_closed(code, reason)
            case SocketFailed(detail=detail, text=text):
                self._socket_failed(detail, text)
            case PeerFailed(detail=peer_detail, text=text):
                self._peer_failed(peer_detail, text)
            case PeerClosed():
                self._peer_closed()
            case _ if (self._place, type(input)) in NEXT:
                self._proceed(input)

    def _proceed(self, arrived: Any) -> None:
        """Take what `NEXT` allows here: note what it says, then go where it leads."""
        match arrived:
            case Connect():
                self._begin()
            case UserMediaOpened():
                if not self._note_user_media(arrived):
                    return
            case TransportOpened():
                self._transport_open = True
            case SocketOpened():
                self._socket_open = True
            case messages.Queued(position=position):
                self._part.setdefault(semconv.QUEUE_POSITION_FIRST, position)
                self._part[semconv.QUEUE_POSITION_LAST] = position
                self._events.append(QueueMoved(self._now_ns, position))
            case messages.Accepted():
                if not self._note_accepted(arrived):
                    return
            case messages.Assets():
                if not self._note_assets(arrived):
                    return
            case OfferMade(sdp=sdp):
                self._note_offer(sdp)
            case messages.Answer(sdp=sdp):
                if not self._note_answer(sdp):
                    return
            case messages.Started():
                if not self._note_started():
                    return
            case IceCompleted(attributes=attributes):
                self._part.update(attributes)
            case Interact():
                self._send(messages.Activity())
        # The type is the key: `NEXT` was asked before.
        place = NEXT[self._place, type(arrived)]
        if place is not self._place:
            self._go(place)

    # Going from place to place.

    def _go(self, place: Place) -> None:
        if place is Place.USER_MEDIA and self._plan.requested is UserMedia.NONE:
            place, self._granted = Place.OPENING, UserMedia.NONE
        before, after = self.state, PLACES[place].state
        self._end_part()
        if after is not before:
            if before in _STEPS:
                self._end_step(StepOutcome.COMPLETED)
            self._transition(after)
            self._step_ns = self._now_ns
        self._place, self._place_ns = place, self._now_ns
        match place:
            case Place.USER_MEDIA:
                self._commands.append(OpenUserMedia(self._plan.requested))
            case Place.OPENING:
                self._commands.append(OpenSocket())
            case Place.QUEUE:
                plan, granted = self._plan, self._granted or UserMedia.NONE
                self._send(
                    messages.Hello(plan.attempt_id, plan.client, plan.resume, granted.microphone, granted.camera)
                )
            case Place.ICE:
                self._part.update(self._candidates)
            case Place.STARTING if self._started:
                self._go(Place.CONNECTED)
            case Place.CONNECTED:
                self._end_attempt(Outcome.CONNECTED)
                self._look_ns = self._now_ns + self._look_every_ns()
                self._sample_ns = self._now_ns + _ns(self._plan.limits.sample_every_s)
            case Place.NEGOTIATE:
                self._part[semconv.ICE_SERVERS_OFFERED] = self._candidates[semconv.ICE_SERVERS_OFFERED]
                self._commands.append(MakeOffer(self._ice_servers))

    def _begin(self) -> None:
        plan = self._plan
        self._began_ns = self._now_ns
        self._facts = {
            semconv.ATTEMPT_NUMBER: plan.number,
            semconv.MEDIA_REQUESTED: plan.requested.value,
            semconv.MEDIA_REQUIRED: plan.required.value,
            semconv.RESUME_REQUESTED: plan.resume is not None,
        }
        self._events.append(AttemptBegan(self._now_ns, dict(self._facts)))
        self._facts[semconv.SIGNALLING_VERSION] = messages.SUBPROTOCOL

    def _transition(self, after: State) -> None:
        attributes: dict[str, Any] = {}
        if after is not State.DISCONNECTED:
            attributes = {semconv.STATE: after.value, semconv.STEP_NUMBER: after.step}
        if after is State.SEARCHING:
            asked = (
                semconv.ATTEMPT_NUMBER,
                semconv.MEDIA_REQUESTED,
                semconv.MEDIA_REQUIRED,
                semconv.RESUME_REQUESTED,
            )
            attributes.update({name: self._facts[name] for name in asked})
        self._events.append(Transition(self._now_ns, self.state, after, attributes))

    def _end_part(self, failure: Failure | None = None) -> None:
        meaning = PLACES[self._place]
        if meaning.part:
            self._events.append(
                PartEnded(self._place_ns, self._now_ns, meaning.state, meaning.part, self._part, failure)
            )
        self._part = {}

    def _end_step(self, outcome: StepOutcome, failure: Failure | None = None) -> None:
        limit_ms = round(getattr(self._plan.limits, _STEP_LIMIT[self.state]) * 1000)
        attributes = {semconv.STEP_OUTCOME: outcome.value, semconv.STEP_LIMIT_MS: limit_ms}
        self._events.append(StepEnded(self._now_ns, self.state, outcome, attributes, failure))

    def _end_attempt(self, outcome: Outcome, failure: Failure | None = None) -> None:
        attributes = self._facts | {semconv.OUTCOME: outcome.value}
        if self._granted is not None:
            attributes[semconv.MEDIA_GRANTED] = self._granted.value
        if self._trail:
            attributes[semconv.SIGNALLING_TRAIL] = tuple(self._trail)
        self._events.append(AttemptEnded(self._now_ns, outcome, attributes, failure))

    def _end(self, code: int = 1000) -> None:
        """Nothing more happens after this."""
        bye = messages.Bye(self._plan.persistent) if self._socket_open and code == 1000 else None
        self._place = Place.ENDED
        self._commands.append(Release(bye, code))

    # What messages and media say.

    def _hear(self, data: str | bytes) -> None:
        try:
            message = messages.decode(data)
        except RemoteProtocolError as error:
            # The oversized frame is refused by the socket already; this is for what comes close to it.
            self._violation(error.message)
            return
        self._trail.append(f"<{messages.type_of(message)}")
        if (self._place, type(message)) in NEXT:
            self._proceed(message)
        else:
            self._violation(f"an unexpected {messages.type_of(message)}")

    def _violation(self, what: str) -> None:
        self._stop(Detail.PROTOCOL_VIOLATION, EndedBy.SERVER, what, code=4400)

    def _note_user_media(self, opened: UserMediaOpened) -> bool:
        self._granted = opened.granted
        if opened.granted.covers(self._plan.required):
            return True
        self._fail(opened.detail or Detail.DEVICE_FAILED, opened.text)
        return False

    def _note_accepted(self, accepted: messages.Accepted) -> bool:
        if accepted.resumed and accepted.session_id != self._plan.resume:
            self._violation("a session resumed that was not asked for")
            return False
        self._session_id = accepted.session_id
        self._idle_limit_ms = accepted.idle_limit_ms
        self._ice_servers = accepted.ice_servers
        self._candidates[semconv.ICE_SERVERS_OFFERED] = len(accepted.ice_servers)
        self._facts[semconv.RESUMED] = accepted.resumed
        if accepted.region:
            self._facts[semconv.SERVER_REGION] = accepted.region
        if accepted.instance:
            self._facts[semconv.SERVER_INSTANCE] = accepted.instance
        self._events.append(SessionAccepted(self._now_ns, accepted.session_id, accepted.resumed))
        return True

    def _note_assets(self, assets: messages.Assets) -> bool:
        if assets.loaded_bytes < self._part.get(semconv.ASSETS_BYTES_LOADED, 0):
            self._violation("assets that shrink")
            return False
        self._part[semconv.ASSETS_BYTES_LOADED] = assets.loaded_bytes
        self._part[semconv.ASSETS_BYTES_TOTAL] = assets.total_bytes
        self._events.append(AssetsLoaded(self._now_ns, assets.loaded_bytes, assets.total_bytes))
        return True

    def _note_offer(self, sdp: str) -> None:
        if self._offered:
            return
        self._offered = True
        gathered = _count_candidates(sdp)
        self._candidates.update(
            {
                semconv.ICE_GATHERED_HOST: gathered["host"],
                semconv.ICE_GATHERED_SRFLX: gathered["srflx"],
                semconv.ICE_GATHERED_RELAY: gathered["relay"],
            }
        )
        self._part.update(self._candidates)
        self._send(messages.Offer(sdp))

    def _note_answer(self, sdp: str) -> bool:
        if self._answered or not self._offered:
            self._violation("an unexpected answer")
            return False
        self._answered = True
        remote = _count_candidates(sdp)
        self._candidates.update(
            {
                semconv.ICE_REMOTE_HOST: remote["host"],
                semconv.ICE_REMOTE_SRFLX: remote["srflx"],
                semconv.ICE_REMOTE_RELAY: remote["relay"],
            }
        )
        self._commands.append(ApplyAnswer(sdp))
        return True

    def _note_started(self) -> bool:
        if self._started or not self._answered:
            self._violation("an unexpected started")
            return False
        self._started = True
        return True

    def _send(self, message: messages.ClientMessage) -> None:
        self._trail.append(f">{messages.type_of(message)}")
        self._commands.append(Send(message))

    # Time.

    def _tick(self) -> None:
        if self._place is Place.IDLE:
            return
        if self._place is Place.CONNECTED:
            self._look()
            return
        at_ns, detail = self._deadline()
        if self._now_ns < at_ns:
            return
        if self._place is Place.USER_MEDIA and self._plan.required is UserMedia.NONE and self._part_is_late():
            # What was only requested keeps nobody waiting.
            self._commands.append(AbandonUserMedia())
            self._proceed(UserMediaOpened(UserMedia.NONE))
            return
        self._fail(detail)

    def _deadline(self) -> tuple[int, Detail]:
        """The next limit to pass while connecting, and what it means; of equal ones the narrowest."""
        limits, meaning = self._plan.limits, PLACES[self._place]
        late = self._late(meaning.late)
        ends = [(self._step_ns + _ns(getattr(limits, _STEP_LIMIT[meaning.state])), late)]
        if meaning.limit:
            ends.insert(0, (self._place_ns + _ns(getattr(limits, meaning.limit)), late))
        ends.append((self._began_ns + _ns(limits.connect_s), Detail.CONNECT_DEADLINE))
        return min(ends, key=lambda end: end[0])

    def _part_is_late(self) -> bool:
        return self._now_ns >= self._place_ns + _ns(self._plan.limits.user_media_s)

    def _late(self, detail: Detail) -> Detail:
        if self._place is Place.OPENING and not self._transport_open:
            return Detail.TCP_TIMEOUT
        return self._ice_detail() if detail is Detail.ICE_NO_PAIR else detail

    def _look(self) -> None:
        """See whether media still come, and take a sample when one is due."""
        if self._now_ns >= self._look_ns:
            self._look_ns = self._now_ns + self._look_every_ns()
            if self._silence_ns() >= _ns(self._plan.limits.media_silence_s):
                self._stop(Detail.MEDIA_SILENT, EndedBy.NETWORK)
                return
        if self._now_ns >= self._sample_ns:
            self._sample_ns = self._now_ns + _ns(self._plan.limits.sample_every_s)
            self._samples += 1
            attributes = {**self._measured.attributes, semconv.SAMPLE_NUMBER: self._samples, **self._last_seen()}
            self._events.append(SampleTaken(self._now_ns, attributes))

    def _look_every_ns(self) -> int:
        return max(1, _ns(self._plan.limits.media_silence_s) // LOOKS_PER_SILENCE)

    def _silence_ns(self) -> int:
        """How long no media came. The first frame, with which the session began, counts as media."""
        return self._now_ns - max(self._measured.media_seen_ns or 0, self._place_ns)

    def _last_seen(self) -> Attributes:
        return {semconv.MEDIA_LAST_SEEN_AGO_MS: max(0, self._silence_ns() // 1_000_000)}

    # Ends.

    def _socket_closed(self, code: int, reason: str) -> None:
        self._socket_open = False
        self._note_close(code, clean=True, reason=reason)
        meaning = messages.meaning_of_close(code)
        text = f"close code {code}: {reason}" if reason else f"close code {code}"
        if self._place is Place.CONNECTED:
            self._end_session(meaning.reason, EndedBy.SERVER, meaning.detail)
        else:
            self._fail(meaning.detail, text, error=meaning.error, retryable=meaning.retryable)

    def _socket_failed(self, detail: str, text: str) -> None:
        was_open, self._socket_open = self._socket_open, False
        if was_open and detail == Detail.SOCKET_LOST:
            self._note_close(1006, clean=False, reason=text)
        network = detail == Detail.SOCKET_LOST
        self._stop(detail, EndedBy.NETWORK if network else EndedBy.SERVER, text)

    def _note_close(self, code: int, *, clean: bool, reason: str = "") -> None:
        self._facts[semconv.CLOSE_CODE] = code
        self._facts[semconv.CLOSE_CLEAN] = clean
        if reason:
            self._facts[semconv.CLOSE_REASON] = reason

    def _peer_failed(self, detail: str | None, text: str) -> None:
        if self._place in (Place.NEGOTIATE, Place.ICE, Place.DTLS, Place.FIRST_FRAME, Place.STARTING, Place.CONNECTED):
            by_place = {Place.NEGOTIATE: Detail.SDP_REFUSED, Place.ICE: self._ice_detail(), Place.DTLS: Detail.DTLS}
            self._stop(detail or by_place.get(self._place, Detail.PEER_CLOSED), EndedBy.NETWORK, text)

    def _peer_closed(self) -> None:
        if self._place >= Place.NEGOTIATE:
            self._stop(Detail.PEER_CLOSED, EndedBy.SERVER)

    def _ice_detail(self) -> Detail:
        """Nobody can pair what was never there."""
        local = (semconv.ICE_GATHERED_HOST, semconv.ICE_GATHERED_SRFLX, semconv.ICE_GATHERED_RELAY)
        remote = (semconv.ICE_REMOTE_HOST, semconv.ICE_REMOTE_SRFLX, semconv.ICE_REMOTE_RELAY)
        both = all(any(self._candidates.get(name) for name in side) for side in (local, remote))
        return Detail.ICE_NO_PAIR if both else Detail.ICE_NO_CANDIDATES

    def _stop(self, detail: str, ended_by: EndedBy, text: str = "", *, code: int = 1000) -> None:
        """End for a cause that means a failure while connecting and a lost connection after it."""
        if self._place is Place.CONNECTED:
            self._end_session(DisconnectReason.CONNECTION_LOST, ended_by, detail, code)
        else:
            self._fail(detail, text, code=code)

    def _fail(
        self,
        detail: str,
        text: str = "",
        *,
        error: ConnectionError | None = None,
        retryable: bool | None = None,
        code: int = 1000,
    ) -> None:
        if self._place is Place.IDLE:
            return
        cause, meaning = cause_of(detail), PLACES[self._place]
        failure = Failure(
            error or cause.error,
            str(detail),
            cause.message(self._plan.server, text),
            meaning.state,
            meaning.part,
            cause.retryable if retryable is None else retryable,
        )
        if self._place is Place.FIRST_FRAME:
            # Whether packets came at all tells a silent server from a codec that cannot be decoded.
            self._part.update(self._measured.attributes)
        self._end_part(failure)
        self._end_step(StepOutcome.FAILED, failure)
        self._transition(State.DISCONNECTED)
        self._end_attempt(Outcome.FAILED, failure)
        self._end(code)

    def _leave(self) -> None:
        """End because the caller wants to."""
        if self._place is Place.CONNECTED:
            self._end_session(DisconnectReason.NORMAL, EndedBy.CLIENT)
            return
        if self._place is Place.IDLE:
            # The caller gave up before the attempt began, while it waited for its turn.
            self._begin()
        else:
            self._end_part()
            self._end_step(StepOutcome.CANCELLED)
            self._transition(State.DISCONNECTED)
        self._end_attempt(Outcome.CANCELLED)
        self._end()

    def _end_session(
        self, reason: DisconnectReason, ended_by: EndedBy, detail: str | None = None, code: int = 1000
    ) -> None:
        attributes: dict[str, Any] = {
            semconv.STATE: State.CONNECTED.value,
            semconv.STEP_NUMBER: State.CONNECTED.step,
            semconv.DISCONNECT_REASON: reason.value,
            semconv.ENDED_BY: ended_by.value,
            **self._last_seen(),
        }
        if detail and reason is DisconnectReason.CONNECTION_LOST:
            attributes[semconv.DISCONNECT_DETAIL] = str(detail)
        if self._idle_limit_ms:
            attributes[semconv.IDLE_LIMIT_MS] = self._idle_limit_ms
        for name in (semconv.CLOSE_CODE, semconv.CLOSE_CLEAN, semconv.CLOSE_REASON):
            if name in self._facts:
                attributes[name] = self._facts[name]
        self._transition(State.DISCONNECTED)
        resumable = reason is DisconnectReason.CONNECTION_LOST or ended_by is EndedBy.CLIENT
        self._events.append(SessionEnded(self._place_ns, self._now_ns, reason, resumable, attributes))
        self._end(code)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _count_candidates(sdp: str) -> Counter[str]:
    """How many candidates of each type the first media section with candidates has.

    Only one section, because bundled sections repeat the candidates of the first.
    """
    for section in re.split(r"^m=", sdp, flags=re.MULTILINE):
        found = Counter(_CANDIDATE.findall(section))
        if found:
            return found
    return Counter()
