"""What goes into the protocol, what it asks for, and what it reports. No I/O, no clock.

input    something that happened: to the socket, to the peer, to the clock, or a wish of the caller
command  something that the shell must do
event    something that became true, with its time; spans and listeners are made of these

Times are integer nanoseconds UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from telemetry.connector.messages import ClientMessage, IceServer
from telemetry.connector.plan import UserMedia
from telemetry.semconv import ConnectionError, DisconnectReason, Outcome, Part, State, StepOutcome

Attributes = Mapping[str, str | int | float | bool | tuple[str, ...]]
"""Facts by their names in `semconv`. What is not known is absent."""

# Inputs.


@dataclass(frozen=True, slots=True)
class Connect:
    """The caller wants to be connected."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The caller gave up, or wants to leave."""


@dataclass(frozen=True, slots=True)
class Interact:
    """The user did something."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class UserMediaOpened:
    """The user's media were asked for; what could not be opened is left out."""

    granted: UserMedia
    detail: str | None = None
    """Why something is left out: `semconv.Detail`."""
    text: str = ""
    """The same for a person to read."""


@dataclass(frozen=True, slots=True)
class TransportOpened:
    """TCP, and TLS where asked for, are connected; the WebSocket handshake follows."""


@dataclass(frozen=True, slots=True)
class SocketOpened:
    """The WebSocket handshake succeeded."""


@dataclass(frozen=True, slots=True)
class SocketFailed:
    """The socket could not be opened, or it broke without a close frame from the server."""

    detail: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """The server closed the WebSocket with a close frame."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """A frame arrived."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class OfferMade:
    """The peer made its offer and has gathered its candidates."""

    sdp: str


@dataclass(frozen=True, slots=True)
class AnswerApplied:
    """The peer took the server's answer; ICE begins."""


@dataclass(frozen=True, slots=True)
class IceCompleted:
    """ICE found a way; DTLS begins."""

    attributes: Attributes = field(default_factory=dict)
    """What is known of the selected pair."""


@dataclass(frozen=True, slots=True)
class DtlsConnected:
    """The peer connection is connected."""


@dataclass(frozen=True, slots=True)
class FrameDecoded:
    """The first video frame was decoded."""


@dataclass(frozen=True, slots=True)
class PeerFailed:
    """The peer connection failed."""

    detail: str | None = None
    """None means that the open part tells."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer connection was closed, and not by us."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the peer's counters say."""

    media_seen_ns: int | None = None
    """When the last media packet arrived. None means that none did."""
    attributes: Attributes = field(default_factory=dict)


Input = (
    Connect
    | Cancel
    | Interact
    | Tick
    | UserMediaOpened
    | TransportOpened
    | SocketOpened
    | SocketFailed
    | SocketClosed
    | Received
    | OfferMade
    | AnswerApplied
    | IceCompleted
    | DtlsConnected
    | FrameDecoded
    | PeerFailed
    | PeerClosed
    | Measured
)

# Commands.


@dataclass(frozen=True, slots=True)
class OpenUserMedia:
    """Open these; answer with `UserMediaOpened`."""

    wanted: UserMedia


@dataclass(frozen=True, slots=True)
class AbandonUserMedia:
    """Open no more user media; what opens late is closed again."""


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Open the WebSocket; answer with `SocketOpened`, `SocketFailed`."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a signalling message."""

    message: ClientMessage


@dataclass(frozen=True, slots=True)
class MakeOffer:
    """Make a peer and its offer; answer with `OfferMade`, `PeerFailed`."""

    ice_servers: tuple[IceServer, ...]


@dataclass(frozen=True, slots=True)
class ApplyAnswer:
    """Give the peer the server's answer; answer with `AnswerApplied`, `PeerFailed`."""

    sdp: str


@dataclass(frozen=True, slots=True)
class Release:
    """Close everything: socket, peer, user media. The last command."""

    bye: ClientMessage | None = None
    """To be sent before the socket is closed."""
    code: int = 1000
    """The code to close the socket with, if it is still open."""


Command = OpenUserMedia | AbandonUserMedia | OpenSocket | Send | MakeOffer | ApplyAnswer | Release

# Events.


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed."""

    error: ConnectionError
    detail: str
    message: str
    step: State
    part: Part | None
    """None means between parts."""
    retryable: bool


@dataclass(frozen=True, slots=True)
class AttemptBegan:
    at_ns: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Transition:
    """The state changed."""

    at_ns: int
    before: State
    after: State
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueMoved:
    at_ns: int
    position: int
    """1 is next."""


@dataclass(frozen=True, slots=True)
class SessionAccepted:
    at_ns: int
    session_id: str
    resumed: bool


@dataclass(frozen=True, slots=True)
class AssetsLoaded:
    at_ns: int
    loaded_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class PartEnded:
    began_ns: int
    at_ns: int
    step: State
    part: Part
    attributes: Attributes
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class StepEnded:
    at_ns: int
    step: State
    outcome: StepOutcome
    attributes: Attributes
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """`connect()` returns, raises or was cancelled. Exactly one for each attempt."""

    at_ns: int
    outcome: Outcome
    attributes: Attributes
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class SampleTaken:
    at_ns: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A connected session is over. Exactly one for each attempt that connected and ended."""

    began_ns: int
    at_ns: int
    reason: DisconnectReason
    resumable: bool
    """Whether the server may still have the session."""
    attributes: Attributes


Event = (
    AttemptBegan
    | Transition
    | QueueMoved
    | SessionAccepted
    | AssetsLoaded
    | PartEnded
    | StepEnded
    | AttemptEnded
    | SampleTaken
    | SessionEnded
)
