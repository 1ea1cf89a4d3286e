"""The named behaviours of a digital-person server, as data: what it does, and what a client must make of it.

No I/O, no clock. Times are seconds at speed 1; the server divides them by its speed.
`server.py` plays a script from top to bottom; a client's `bye` or disappearance ends it at any point.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from telemetry.connector.messages import SUBPROTOCOL
from telemetry.semconv import (
    ConnectionError,
    Detail,
    DisconnectReason,
    EndedBy,
    Outcome,
    Part,
    State,
    http_detail,
)

# What a server can do.


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Queue:
    """Tell the client its places in the queue, one after the other."""

    positions: tuple[int, ...]
    each_s: float


@dataclass(frozen=True, slots=True)
class Accept:
    """Give the client a session: the one it asks to resume if that one lives, else another."""

    idle_s: float = 0.0
    """Seconds without activity after which `Stay` closes with 4001. 0 means no limit."""
    forgets: bool = False
    """True means that the session to resume is always gone."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load assets and say how far it is; then say that they are ready."""

    seconds: float
    total_bytes: int = 4_000_000
    share: float = 1.0
    """How much of them is loaded. Below 1 the server stops there and never says `ready`."""


@dataclass(frozen=True, slots=True)
class AwaitOffer:
    """Wait for the client's offer, and do nothing about it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Wait for the client's offer, form the peer connection and answer."""

    fault: Literal["unreachable", "no_candidates", "wrong_fingerprint", "no_media", "not_sdp"] | None = None
    """What is wrong with the answer. None means nothing."""


@dataclass(frozen=True, slots=True)
class Start:
    """Say that the digital person is ready."""


@dataclass(frozen=True, slots=True)
class Stay:
    """Keep the session until the time is over, or the session is idle for too long."""

    seconds: float | None = None
    """None means for as long as the client likes."""


@dataclass(frozen=True, slots=True)
class StopMedia:
    """Send no more audio and video over a connection that stays up."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the peer connection in good order and leave the socket open."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the WebSocket with a code."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Vanish:
    """Disappear as a power cut would: no closing handshake, no last packet, and the peer connection is gone too."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send a text frame as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class SayTooMuch:
    """Send one text frame of this many characters."""

    characters: int


Action = (
    Pause
    | Queue
    | Accept
    | Load
    | AwaitOffer
    | Answer
    | Start
    | Stay
    | StopMedia
    | HangUp
    | Close
    | Vanish
    | Say
    | SayTooMuch
)
Script = tuple[Action, ...]


# What the client does, and what must come of it.


@dataclass(frozen=True, slots=True)
class Client:
    """How a client must behave for the scenario to happen; the names are those of `Scene`'s arguments."""

    requested_media: Literal["none", "microphone", "camera", "microphone_and_camera"] = "none"
    required_media: Literal["none", "microphone", "camera", "microphone_and_camera"] = "none"
    devices: Literal["granted", "denied", "missing", "in_use", "broken", "unsupported"] = "granted"
    """What happens when the client asks for its microphone or camera."""
    persistent: bool = False
    attempts: int = 1
    """How often one `connect()` tries at most."""
    leaves: bool = True
    """True means that the client disconnects after a moment; False means that it waits for the server to end it."""
    reconnects: bool = False
    """True means that it disconnects and connects once more with the same scene."""
    gives_up_s: float | None = None
    """Seconds at speed 1 after which the caller cancels `connect()`. None means never."""
    meets_deadline: bool = False
    """True means that only a deadline of the client's ends the attempt: give it short limits where time matters."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a client must report in the end. Fields that do not apply are None."""

    outcome: Outcome
    error: ConnectionError | None = None
    step: State | None = None
    part: Part | None = None
    detail: str | None = None
    retryable: bool | None = None
    reason: DisconnectReason | None = None
    ended_by: EndedBy | None = None
    disconnect_detail: str | None = None
    accepted: bool = True
    """Whether the attempt ever has a sessionId."""
    attempts: int = 1
    """How many attempts the episode takes."""
    same_session: bool | None = None
    """Whether the reconnect keeps the sessionId. None means that nobody reconnects."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named behaviour."""

    name: str
    description: str
    """One sentence."""
    script: Script
    expected: Expected
    refuses_with: int | None = None
    """The HTTP status of a refused handshake. None means that the handshake succeeds."""
    subprotocol: str | None = SUBPROTOCOL
    """The subprotocol that the server selects, whatever the client offers."""
    failures: int = 0
    """How many first attempts of an episode get `failing_script`."""
    failing_script: Script = ()
    client: Client = field(default_factory=Client)


_OPENING: Final[Script] = (Pause(0.2), Accept())
_TO_READY: Final[Script] = (*_OPENING, Load(0.6))
_TO_STARTED: Final[Script] = (*_TO_READY, Answer(), Pause(0.2), Start())

_SEARCHING, _DOWNLOADING, _CONNECTING = State.SEARCHING, State.DOWNLOADING, State.CONNECTING
_SERVER_FAILED: Final = ConnectionError.SERVER_CONNECTION_FAILED
_MEDIA_FAILED: Final = ConnectionError.MEDIA_STREAM_FAILED
_NO_SCENE: Final = ConnectionError.NO_SCENE
_TIMED_OUT: Final = ConnectionError.SESSION_TIMEOUT


def _connected(
    reason: DisconnectReason = DisconnectReason.NORMAL,
    ended_by: EndedBy = EndedBy.CLIENT,
    detail: str | None = None,
    attempts: int = 1,
    same_session: bool | None = None,
) -> Expected:
    return Expected(
        Outcome.CONNECTED,
        reason=reason,
        ended_by=ended_by,
        disconnect_detail=detail,
        attempts=attempts,
        same_session=same_session,
    )


def _failed(
    error: ConnectionError, step: State, part: Part | None, detail: str, retryable: bool, accepted: bool | None = None
) -> Expected:
    known = step is not State.SEARCHING if accepted is None else accepted
    return Expected(Outcome.FAILED, error, step, part, detail, retryable, accepted=known)


_ALL: Final = (
    # Sessions that work.
    Scenario(
        "steady",
        "A session that forms at once and lasts until the client leaves.",
        (*_TO_STARTED, Stay()),
        _connected(),
    ),
    Scenario(
        "slow_assets",
        "The assets of the digital person take four seconds to load.",
        (*_OPENING, Load(4.0, total_bytes=40_000_000), Answer(), Start(), Stay()),
        _connected(),
    ),
    Scenario(
        "very_slow",
        "Every step takes several times as long as usual, and the session still forms.",
        (Pause(3), Accept(), Load(4), Pause(1), Answer(), Pause(3), Start(), Stay()),
        _connected(),
    ),
    Scenario(
        "queue_admitted",
        "The client waits in the queue, moves up, and is admitted.",
        (Queue((3, 2, 1), each_s=0.8), Accept(), Load(0.6), Answer(), Start(), Stay()),
        _connected(),
    ),
    Scenario(
        "microphone",
        "The client sends its microphone along, and the session forms.",
        (*_TO_STARTED, Stay()),
        _connected(),
        client=Client(requested_media="microphone", required_media="microphone"),
    ),
    Scenario(
        "persisted_reconnect",
        "The client leaves, comes back to the session that was kept for it, and finds the same sessionId.",
        (*_TO_STARTED, Stay()),
        _connected(same_session=True),
        client=Client(persistent=True, reconnects=True),
    ),
    Scenario(
        "persisted_gone",
        "The client comes back to a session that no longer exists, and is given another.",
        (Pause(0.2), Accept(forgets=True), Load(0.6), Answer(), Start(), Stay()),
        _connected(same_session=False),
        client=Client(persistent=True, reconnects=True),
    ),
    Scenario(
        "flaky",
        "The first two attempts of an episode meet a busy server, the third succeeds.",
        (*_TO_STARTED, Stay()),
        _connected(attempts=3),
        failures=2,
        failing_script=(Pause(0.1), Close(4503, "busy")),
        client=Client(attempts=4),
    ),
    # Sessions that end otherwise than by the client.
    Scenario(
        "closed_by_server",
        "The conversation ends, and the server closes the session in good order.",
        (*_TO_STARTED, Stay(2), Close(1000, "conversation ended")),
        _connected(DisconnectReason.NORMAL, EndedBy.SERVER),
        client=Client(leaves=False),
    ),
    Scenario(
        "idle_timeout",
        "The user does nothing for the session timeout, and the server ends the session.",
        (Pause(0.2), Accept(idle_s=3), Load(0.6), Answer(), Start(), Stay()),
        _connected(DisconnectReason.SESSION_TIMEOUT, EndedBy.SERVER),
        client=Client(leaves=False),
    ),
    Scenario(
        "dies_connected",
        "The server vanishes without a goodbye while the session lives.",
        (*_TO_STARTED, Stay(2), Vanish()),
        _connected(DisconnectReason.CONNECTION_LOST, EndedBy.NETWORK, Detail.SOCKET_LOST),
        client=Client(leaves=False),
    ),
    Scenario(
        "stops_media",
        "The session stays open, and its audio and video stop.",
        (*_TO_STARTED, Stay(2), StopMedia(), Stay()),
        _connected(DisconnectReason.CONNECTION_LOST, EndedBy.NETWORK, Detail.MEDIA_SILENT),
        client=Client(leaves=False, meets_deadline=True),
    ),
    Scenario(
        "hangs_up_media",
        "The server closes the peer connection and leaves the socket open.",
        (*_TO_STARTED, Stay(2), HangUp(), Stay()),
        _connected(DisconnectReason.CONNECTION_LOST, EndedBy.SERVER, Detail.PEER_CLOSED),
        client=Client(leaves=False),
    ),
    Scenario(
        "restarts_connected",
        "The server restarts while the session lives, and says so.",
        (*_TO_STARTED, Stay(2), Close(1012, "restarting")),
        _connected(DisconnectReason.CONNECTION_LOST, EndedBy.SERVER, Detail.SERVER_ERROR),
        client=Client(leaves=False),
    ),
    # No session: capacity.
    Scenario(
        "busy",
        "Every digital person is busy and there is no queue.",
        (Pause(0.2), Close(4503, "busy")),
        _failed(_NO_SCENE, _SEARCHING, Part.QUEUE, Detail.BUSY, True),
    ),
    Scenario(
        "queue_full",
        "The queue is full.",
        (Pause(0.2), Close(4429, "queue full")),
        _failed(_NO_SCENE, _SEARCHING, Part.QUEUE, Detail.QUEUE_FULL, True),
    ),
    Scenario(
        "queue_gave_up",
        "The client waits in the queue for longer than the server allows.",
        (Queue((5, 4), each_s=1.5), Close(4408, "waited too long")),
        _failed(_NO_SCENE, _SEARCHING, Part.QUEUE, Detail.QUEUE_TIMEOUT, True),
    ),
    Scenario(
        "cancelled_in_queue",
        "The caller gives up while the client waits in the queue.",
        (Queue((9, 8, 7, 6, 5, 4, 3, 2, 1), each_s=1.5), Close(4408, "waited too long")),
        Expected(Outcome.CANCELLED, accepted=False),
        client=Client(gives_up_s=2.0),
    ),
    # No session: refused.
    Scenario(
        "refused_token",
        "The server refuses the token in the handshake.",
        (),
        _failed(_SERVER_FAILED, _SEARCHING, Part.WEBSOCKET_OPEN, http_detail(401), False),
        refuses_with=401,
    ),
    Scenario(
        "expired_token",
        "The server takes the handshake and then finds that the token has expired.",
        (Pause(0.1), Close(4401, "token expired")),
        _failed(_SERVER_FAILED, _SEARCHING, Part.QUEUE, Detail.TOKEN_REFUSED, False),
    ),
    Scenario(
        "forbidden",
        "The server forbids the handshake.",
        (),
        _failed(_SERVER_FAILED, _SEARCHING, Part.WEBSOCKET_OPEN, http_detail(403), False),
        refuses_with=403,
    ),
    Scenario(
        "unavailable",
        "A proxy in front of the server answers that nobody is there.",
        (),
        _failed(_SERVER_FAILED, _SEARCHING, Part.WEBSOCKET_OPEN, http_detail(503), True),
        refuses_with=503,
    ),
    Scenario(
        "unknown_scene",
        "The server knows no such scene.",
        (Close(4404, "no such scene"),),
        _failed(_SERVER_FAILED, _SEARCHING, Part.QUEUE, Detail.SCENE_UNKNOWN, False),
    ),
    # No session: the server dies, stalls or fails.
    Scenario(
        "dies_searching",
        "The server vanishes while it searches for a digital person.",
        (Pause(0.3), Vanish()),
        _failed(_SERVER_FAILED, _SEARCHING, Part.QUEUE, Detail.SOCKET_LOST, True),
    ),
    Scenario(
        "dies_downloading",
        "The server vanishes while the assets load.",
        (*_OPENING, Load(0.4, share=0.5), Vanish()),
        _failed(_SERVER_FAILED, _DOWNLOADING, Part.ASSETS, Detail.SOCKET_LOST, True),
    ),
    Scenario(
        "dies_connecting",
        "The server vanishes instead of answering the offer.",
        (*_TO_READY, AwaitOffer(), Vanish()),
        _failed(_SERVER_FAILED, _CONNECTING, Part.NEGOTIATE, Detail.SOCKET_LOST, True),
    ),
    Scenario(
        "fails_inside",
        "The server meets an error of its own while it searches.",
        (Pause(0.2), Close(1011, "internal error")),
        _failed(_SERVER_FAILED, _SEARCHING, Part.QUEUE, Detail.SERVER_ERROR, True),
    ),
    Scenario(
        "silent",
        "The server takes the connection and never says a word.",
        (Stay(),),
        _failed(_TIMED_OUT, _SEARCHING, Part.QUEUE, Detail.STEP_DEADLINE, True),
        client=Client(meets_deadline=True),
    ),
    Scenario(
        "assets_stall",
        "The assets load halfway and no further.",
        (*_OPENING, Load(0.4, share=0.5), Stay()),
        _failed(_TIMED_OUT, _DOWNLOADING, Part.ASSETS, Detail.STEP_DEADLINE, True),
        client=Client(meets_deadline=True),
    ),
    Scenario(
        "asset_missing",
        "An asset of the digital person cannot be loaded.",
        (*_OPENING, Load(0.4, share=0.5), Close(4504, "asset missing")),
        _failed(_SERVER_FAILED, _DOWNLOADING, Part.ASSETS, Detail.ASSET_FAILED, True),
    ),
    Scenario(
        "times_out_connecting",
        "The server ends the session for its own time limit before it is fully available.",
        (*_TO_READY, AwaitOffer(), Pause(0.3), Close(4001, "session timeout")),
        _failed(_TIMED_OUT, _CONNECTING, Part.NEGOTIATE, Detail.SERVER_TIMEOUT, True),
    ),
    # No session: media.
    Scenario(
        "never_answers_ice",
        "The answer's candidates lead nowhere.",
        (*_TO_READY, Answer("unreachable"), Start(), Stay()),
        _failed(_MEDIA_FAILED, _CONNECTING, Part.ICE, Detail.ICE_NO_PAIR, True),
        client=Client(meets_deadline=True),
    ),
    Scenario(
        "no_candidates",
        "The answer has no candidates at all.",
        (*_TO_READY, Answer("no_candidates"), Start(), Stay()),
        _failed(_MEDIA_FAILED, _CONNECTING, Part.ICE, Detail.ICE_NO_CANDIDATES, True),
        client=Client(meets_deadline=True),
    ),
    Scenario(
        "wrong_fingerprint",
        "The answer names another certificate than the peer shows.",
        (*_TO_READY, Answer("wrong_fingerprint"), Start(), Stay()),
        _failed(_MEDIA_FAILED, _CONNECTING, Part.DTLS, Detail.DTLS, True),
    ),
    Scenario(
        "no_media",
        "The peers connect, and no audio or video ever comes.",
        (*_TO_READY, Answer("no_media"), Start(), Stay()),
        _failed(_MEDIA_FAILED, _CONNECTING, Part.FIRST_FRAME, Detail.NO_FIRST_FRAME, True),
        client=Client(meets_deadline=True),
    ),
    Scenario(
        "bad_answer",
        "The answer is not a session description.",
        (*_TO_READY, Answer("not_sdp"), Stay()),
        _failed(_MEDIA_FAILED, _CONNECTING, Part.NEGOTIATE, Detail.SDP_REFUSED, False),
    ),
    Scenario(
        "offer_refused",
        "The server cannot use the client's offer.",
        (*_TO_READY, AwaitOffer(), Close(4415, "offer refused")),
        _failed(_MEDIA_FAILED, _CONNECTING, Part.NEGOTIATE, Detail.SDP_REFUSED, False),
    ),
    # No session: the server speaks another protocol, or ours badly.
    Scenario(
        "other_protocol",
        "A WebSocket server that speaks another protocol.",
        (Stay(),),
        _failed(_SERVER_FAILED, _SEARCHING, Part.WEBSOCKET_OPEN, Detail.NOT_SIGNALLING, False),
        subprotocol="chat.v1",
    ),
    Scenario(
        "no_protocol",
        "A WebSocket server that selects no protocol at all.",
        (Stay(),),
        _failed(_SERVER_FAILED, _SEARCHING, Part.WEBSOCKET_OPEN, Detail.NOT_SIGNALLING, False),
        subprotocol=None,
    ),
    Scenario(
        "web_page",
        "A web server that answers the handshake with a page.",
        (),
        _failed(_SERVER_FAILED, _SEARCHING, Part.WEBSOCKET_OPEN, Detail.NOT_SIGNALLING, False),
        refuses_with=200,
    ),
    Scenario(
        "junk",
        "The server sends something that is not a message.",
        (Pause(0.1), Say("{junk"), Stay()),
        _failed(_SERVER_FAILED, _SEARCHING, Part.QUEUE, Detail.PROTOCOL_VIOLATION, False),
    ),
    Scenario(
        "out_of_order",
        "The server says that the assets are ready before it has accepted.",
        (Pause(0.1), Say('{"type":"ready"}'), Stay()),
        _failed(_SERVER_FAILED, _SEARCHING, Part.QUEUE, Detail.PROTOCOL_VIOLATION, False),
    ),
    Scenario(
        "oversized",
        "The server sends a message larger than the protocol allows.",
        (Pause(0.1), SayTooMuch(300_000), Stay()),
        _failed(_SERVER_FAILED, _SEARCHING, Part.QUEUE, Detail.MESSAGE_TOO_BIG, False),
    ),
    # No session: the client's own media.
    Scenario(
        "permission_denied",
        "The user declines the microphone that is required.",
        (*_TO_STARTED, Stay()),
        _failed(
            ConnectionError.NO_USER_MEDIA, _SEARCHING, Part.USER_MEDIA, Detail.PERMISSION_DENIED, False, accepted=False
        ),
        client=Client(requested_media="microphone", required_media="microphone", devices="denied"),
    ),
    Scenario(
        "device_missing",
        "The camera that is required does not exist.",
        (*_TO_STARTED, Stay()),
        _failed(
            ConnectionError.NO_USER_MEDIA, _SEARCHING, Part.USER_MEDIA, Detail.DEVICE_NOT_FOUND, False, accepted=False
        ),
        client=Client(requested_media="camera", required_media="camera", devices="missing"),
    ),
    Scenario(
        "device_in_use",
        "Another program holds the microphone that is required.",
        (*_TO_STARTED, Stay()),
        _failed(ConnectionError.NO_USER_MEDIA, _SEARCHING, Part.USER_MEDIA, Detail.DEVICE_IN_USE, True, accepted=False),
        client=Client(requested_media="microphone", required_media="microphone", devices="in_use"),
    ),
    Scenario(
        "not_supported",
        "This runtime cannot capture the camera that is required.",
        (*_TO_STARTED, Stay()),
        _failed(
            ConnectionError.NOT_SUPPORTED, _SEARCHING, Part.USER_MEDIA, Detail.CAPTURE_MISSING, False, accepted=False
        ),
        client=Client(requested_media="camera", required_media="camera", devices="unsupported"),
    ),
    Scenario(
        "permission_denied_optional",
        "The user declines a microphone that is only requested, and the session forms without it.",
        (*_TO_STARTED, Stay()),
        _connected(),
        client=Client(requested_media="microphone", devices="denied"),
    ),
)

SCENARIOS: Final[Mapping[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}

MIX: Final = "mix"
"""The path under which every connection meets a scenario drawn by `MIX_WEIGHTS`."""
MIX_WEIGHTS: Final[Mapping[str, float]] = {
    "steady": 70,
    "queue_admitted": 8,
    "slow_assets": 6,
    "very_slow": 2,
    "closed_by_server": 3,
    "busy": 2,
    "queue_gave_up": 1.5,
    "queue_full": 1,
    "never_answers_ice": 1,
    "asset_missing": 0.8,
    "dies_searching": 0.5,
    "dies_downloading": 0.5,
    "dies_connecting": 0.7,
    "dies_connected": 1,
    "stops_media": 0.5,
    "no_media": 0.4,
    "fails_inside": 0.6,
    "unavailable": 0.5,
}
"""How often each scenario is met in a mix that resembles a working day of a server with a few troubles."""
