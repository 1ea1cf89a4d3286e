"""Every name that travels in telemetry, spelled once.

Standard names come from the OpenTelemetry semantic conventions 1.44 and from the W3C WebRTC statistics identifiers.
They have no names for a WebRTC session's forming, so those are ours: the `dp.` (digital person) namespace.
An attribute that could hold personal data has `pii` as a segment of its name, so that a collector can strip it by name.

This file imports nothing and knows nothing but names.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

SCOPE_NAME: Final = "dp-telemetry.connector"
"""Instrumentation scope of every span of ours; its version is the connector's version."""


class State(StrEnum):
    """The states of a session, in their order; the value is the word on the wire, in spans and on pages."""

    DISCONNECTED = "Disconnected"
    SEARCHING = "SearchingForDigitalPerson"
    DOWNLOADING = "DownloadingAssets"
    CONNECTING = "ConnectingToDigitalPerson"
    CONNECTED = "Connected"

    @property
    def step(self) -> int:
        """0 for Disconnected up to 4 for Connected."""
        return list(State).index(self)

    @property
    def percentage(self) -> int:
        """An estimate for display: 0, 25, 50, 75, 100."""
        return 25 * self.step


TOTAL_STEPS: Final = len(State)


class Part(StrEnum):
    """What a step spends its time on. The parts of a step follow one another; `other` is what none of them covers."""

    USER_MEDIA = "user_media"
    WEBSOCKET_OPEN = "websocket.open"
    QUEUE = "queue"
    ASSETS = "assets"
    NEGOTIATE = "webrtc.negotiate"
    ICE = "webrtc.ice"
    DTLS = "webrtc.dtls"
    FIRST_FRAME = "media.first_frame"
    OTHER = "other"

    @property
    def state(self) -> "State | None":
        """The step that the part belongs to; None for `other`, which every step may have."""
        return _PART_STATE.get(self)


_PART_STATE: Final = {
    Part.USER_MEDIA: State.SEARCHING,
    Part.WEBSOCKET_OPEN: State.SEARCHING,
    Part.QUEUE: State.SEARCHING,
    Part.ASSETS: State.DOWNLOADING,
    Part.NEGOTIATE: State.CONNECTING,
    Part.ICE: State.CONNECTING,
    Part.DTLS: State.CONNECTING,
    Part.FIRST_FRAME: State.CONNECTING,
}


class ConnectionError(StrEnum):
    """`error.type` of a failed attempt: the closed list of the specification."""

    NO_USER_MEDIA = "noUserMedia"
    NO_SCENE = "noScene"
    SERVER_CONNECTION_FAILED = "serverConnectionFailed"
    NOT_SUPPORTED = "notSupported"
    MEDIA_STREAM_FAILED = "mediaStreamFailed"
    SESSION_TIMEOUT = "sessionTimeout"


class DisconnectReason(StrEnum):
    """Why a session that had been connected ended."""

    NORMAL = "normal"
    SESSION_TIMEOUT = "sessionTimeout"
    CONNECTION_LOST = "connectionLost"
    """Our extension: the network or the server vanished without a goodbye."""


class Outcome(StrEnum):
    """How an attempt ended."""

    CONNECTED = "connected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The caller gave up. Never in a failure rate."""
    UNFINISHED = "unfinished"
    """Derived by the store, never sent: the attempt began and nothing more was heard."""


class StepOutcome(StrEnum):
    """How a step ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNFINISHED = "unfinished"
    """Derived by the store, never sent."""


class EndedBy(StrEnum):
    """Who ended a session that had been connected."""

    CLIENT = "client"
    SERVER = "server"
    NETWORK = "network"


class Detail(StrEnum):
    """Low-cardinality codes that say what lies behind an error.

    `http_<status>` and `close_<code>` are made with `http_detail` and `close_detail` for what has no word of its own.
    """

    DNS = "dns"
    TCP_REFUSED = "tcp_refused"
    TCP_UNREACHABLE = "tcp_unreachable"
    TCP_TIMEOUT = "tcp_timeout"
    TLS = "tls"
    INVALID_URL = "invalid_url"
    NOT_SIGNALLING = "not_signalling"
    """The peer answered, but not as a WebSocket server that speaks our signalling protocol."""
    PROTOCOL_VIOLATION = "protocol_violation"
    MESSAGE_TOO_BIG = "message_too_big"
    SOCKET_LOST = "socket_lost"
    """The WebSocket ended without a closing handshake (the 1006 of the WebSocket protocol)."""
    TOKEN_REFUSED = "token_refused"
    SCENE_UNKNOWN = "scene_unknown"
    BUSY = "busy"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    ASSET_FAILED = "asset_failed"
    SERVER_ERROR = "server_error"
    SERVER_TIMEOUT = "server_timeout"
    """The server ended the session for its own time limit before it was fully available."""
    PERMISSION_DENIED = "permission_denied"
    DEVICE_NOT_FOUND = "device_not_found"
    DEVICE_IN_USE = "device_in_use"
    DEVICE_FAILED = "device_failed"
    CODEC_MISSING = "codec_missing"
    CAPTURE_MISSING = "capture_missing"
    SDP_REFUSED = "sdp_refused"
    ICE_NO_CANDIDATES = "ice_no_candidates"
    ICE_NO_PAIR = "ice_no_pair"
    DTLS = "dtls"
    NO_FIRST_FRAME = "no_first_frame"
    MEDIA_SILENT = "media_silent"
    """Connected, and no media packet has arrived for the media limit."""
    PEER_CLOSED = "peer_closed"
    STEP_DEADLINE = "step_deadline"
    CONNECT_DEADLINE = "connect_deadline"


def http_detail(status: int) -> str:
    """The detail code of a refused WebSocket handshake: `http_401`."""
    return f"http_{status}"


def close_detail(code: int) -> str:
    """The detail code of a WebSocket close code that has no word of its own: `close_4999`."""
    return f"close_{code}"


class Span(StrEnum):
    """Names of spans that are neither a step (`State`) nor a part (`Part`)."""

    CONNECT = "connect"
    TRANSITION = "transition"
    SAMPLE = "sample"


# Standard names.
SESSION_ID: Final = "session.id"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
NETWORK_CONNECTION_TYPE: Final = "network.connection.type"
NETWORK_PROTOCOL_NAME: Final = "network.protocol.name"
USER_AGENT_NAME: Final = "user_agent.name"
USER_AGENT_SYNTHETIC_TYPE: Final = "user_agent.synthetic.type"
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
DEPLOYMENT_ENVIRONMENT_NAME: Final = "deployment.environment.name"
CLOUD_REGION: Final = "cloud.region"
PROCESS_RUNTIME_NAME: Final = "process.runtime.name"
PROCESS_RUNTIME_VERSION: Final = "process.runtime.version"

# On every span of an attempt, beside `server.address`, `server.port`, `user_agent.synthetic.type`
# and what the application gave.
ATTEMPT_ID: Final = "dp.attempt.id"
EPISODE_ID: Final = "dp.episode.id"

# On `connect` (and on the first transition, so that an attempt that never ends is still known).
ATTEMPT_NUMBER: Final = "dp.attempt.number"
"""1 for the first try of an episode."""
OUTCOME: Final = "dp.outcome"
FAILURE_STEP: Final = "dp.failure.step"
FAILURE_PART: Final = "dp.failure.part"
FAILURE_DETAIL: Final = "dp.failure.detail"
FAILURE_RETRYABLE: Final = "dp.failure.retryable"
RESUME_REQUESTED: Final = "dp.session.resume_requested"
RESUMED: Final = "dp.session.resumed"
MEDIA_REQUESTED: Final = "dp.media.requested"
MEDIA_REQUIRED: Final = "dp.media.required"
MEDIA_GRANTED: Final = "dp.media.granted"
SIGNALLING_TRAIL: Final = "dp.signalling.trail"
"""The types of the last signalling messages, oldest first, `>` sent and `<` received: never their contents."""
SIGNALLING_VERSION: Final = "dp.signalling.version"
SERVER_REGION: Final = "dp.server.region"
SERVER_INSTANCE: Final = "dp.server.instance"

# On steps.
STATE: Final = "dp.state"
"""The step: on the step's own span, on its parts, and on the transition that begins it."""
STEP_OUTCOME: Final = "dp.step.outcome"
STEP_NUMBER: Final = "dp.step.number"
STEP_PERCENTAGE: Final = "dp.step.percentage"
STEP_LIMIT_MS: Final = "dp.step.limit_ms"

# On `transition`.
TRANSITION_FROM: Final = "dp.transition.from"
TRANSITION_TO: Final = "dp.transition.to"

# On parts.
QUEUE_POSITION_FIRST: Final = "dp.queue.position.first"
QUEUE_POSITION_LAST: Final = "dp.queue.position.last"
ASSETS_BYTES_LOADED: Final = "dp.assets.bytes_loaded"
ASSETS_BYTES_TOTAL: Final = "dp.assets.bytes_total"
ICE_GATHERED_HOST: Final = "dp.ice.gathered.host"
ICE_GATHERED_SRFLX: Final = "dp.ice.gathered.srflx"
ICE_GATHERED_RELAY: Final = "dp.ice.gathered.relay"
ICE_REMOTE_HOST: Final = "dp.ice.remote.host"
ICE_REMOTE_SRFLX: Final = "dp.ice.remote.srflx"
ICE_REMOTE_RELAY: Final = "dp.ice.remote.relay"
ICE_SERVERS_OFFERED: Final = "dp.ice.servers"
"""How many STUN and TURN servers the server named."""
ICE_RELAY: Final = "dp.ice.relay"
"""Whether the selected pair runs through a relay at either end."""
ICE_LOCAL_TYPE: Final = "webrtc.local.candidateType"
ICE_REMOTE_TYPE: Final = "webrtc.remote.candidateType"
ICE_LOCAL_PROTOCOL: Final = "webrtc.local.protocol"
ICE_RELAY_PROTOCOL: Final = "webrtc.local.relayProtocol"
VIDEO_CODEC: Final = "webrtc.codec.mimeType"
CLOSE_CODE: Final = "dp.close.code"
CLOSE_REASON: Final = "dp.close.reason"
CLOSE_CLEAN: Final = "dp.close.clean"
NO_PING_ANSWER: Final = "no answer to a ping"
"""The close reason of a socket that fell silent, beside code 1006; one that was reset or hung up on has none."""

# On `Connected`.
DISCONNECT_REASON: Final = "dp.disconnect.reason"
ENDED_BY: Final = "dp.disconnect.ended_by"
DISCONNECT_DETAIL: Final = "dp.disconnect.detail"
MEDIA_LAST_SEEN_AGO_MS: Final = "dp.media.last_seen_ago_ms"
"""Milliseconds since the last media packet arrived; on `Connected` it dates a death back to when it happened."""
IDLE_LIMIT_MS: Final = "dp.idle.limit_ms"

# On `sample`: W3C names under `webrtc.`, cumulative as W3C defines them; absent where aiortc cannot know.
SAMPLE_NUMBER: Final = "dp.sample.number"
RTT_S: Final = "webrtc.remote_inbound.roundTripTime"
VIDEO_PACKETS_RECEIVED: Final = "webrtc.inbound.video.packetsReceived"
VIDEO_PACKETS_LOST: Final = "webrtc.inbound.video.packetsLost"
VIDEO_JITTER_S: Final = "webrtc.inbound.video.jitter"
VIDEO_FRAMES_DECODED: Final = "webrtc.inbound.video.framesDecoded"
VIDEO_FROZEN_MS: Final = "dp.media.video.frozen_ms"
"""Milliseconds since the last decoded video frame, when that is over half a second."""
AUDIO_PACKETS_RECEIVED: Final = "webrtc.inbound.audio.packetsReceived"
AUDIO_PACKETS_LOST: Final = "webrtc.inbound.audio.packetsLost"
AUDIO_JITTER_S: Final = "webrtc.inbound.audio.jitter"
BYTES_RECEIVED: Final = "webrtc.transport.bytesReceived"
BYTES_SENT: Final = "webrtc.transport.bytesSent"


@dataclass(frozen=True, slots=True)
class Column:
    """A typed column of `spans` and the attributes that fill it."""

    name: str
    type: Literal["text", "int", "float", "bool"]
    span: str | None = None
    """The span attribute that fills it."""
    resource: str | None = None
    """The resource attribute that fills it where the span attribute is absent."""


COLUMNS: Final = (
    Column("session_id", "text", SESSION_ID, SESSION_ID),
    Column("attempt_id", "text", ATTEMPT_ID),
    Column("episode_id", "text", EPISODE_ID),
    Column("attempt_number", "int", ATTEMPT_NUMBER),
    Column("outcome", "text", OUTCOME),
    Column("error_type", "text", ERROR_TYPE),
    Column("failing_step", "text", FAILURE_STEP),
    Column("failing_part", "text", FAILURE_PART),
    Column("detail", "text", FAILURE_DETAIL),
    Column("retryable", "bool", FAILURE_RETRYABLE),
    Column("resume_requested", "bool", RESUME_REQUESTED),
    Column("resumed", "bool", RESUMED),
    Column("media_requested", "text", MEDIA_REQUESTED),
    Column("media_required", "text", MEDIA_REQUIRED),
    Column("media_granted", "text", MEDIA_GRANTED),
    Column("state", "text", STATE),
    Column("step_number", "int", STEP_NUMBER),
    Column("step_outcome", "text", STEP_OUTCOME),
    Column("transition_from", "text", TRANSITION_FROM),
    Column("transition_to", "text", TRANSITION_TO),
    Column("queue_position_first", "int", QUEUE_POSITION_FIRST),
    Column("queue_position_last", "int", QUEUE_POSITION_LAST),
    Column("ice_gathered_host", "int", ICE_GATHERED_HOST),
    Column("ice_gathered_srflx", "int", ICE_GATHERED_SRFLX),
    Column("ice_gathered_relay", "int", ICE_GATHERED_RELAY),
    Column("ice_remote_host", "int", ICE_REMOTE_HOST),
    Column("ice_remote_srflx", "int", ICE_REMOTE_SRFLX),
    Column("ice_remote_relay", "int", ICE_REMOTE_RELAY),
    Column("ice_servers", "int", ICE_SERVERS_OFFERED),
    Column("relay", "bool", ICE_RELAY),
    Column("local_candidate_type", "text", ICE_LOCAL_TYPE),
    Column("remote_candidate_type", "text", ICE_REMOTE_TYPE),
    Column("close_code", "int", CLOSE_CODE),
    Column("close_reason", "text", CLOSE_REASON),
    Column("disconnect_reason", "text", DISCONNECT_REASON),
    Column("disconnect_detail", "text", DISCONNECT_DETAIL),
    Column("ended_by", "text", ENDED_BY),
    Column("media_last_seen_ago_ms", "int", MEDIA_LAST_SEEN_AGO_MS),
    Column("sample_number", "int", SAMPLE_NUMBER),
    Column("rtt_s", "float", RTT_S),
    Column("video_packets_received", "int", VIDEO_PACKETS_RECEIVED),
    Column("video_packets_lost", "int", VIDEO_PACKETS_LOST),
    Column("video_jitter_s", "float", VIDEO_JITTER_S),
    Column("video_frames_decoded", "int", VIDEO_FRAMES_DECODED),
    Column("video_frozen_ms", "int", VIDEO_FROZEN_MS),
    Column("audio_packets_received", "int", AUDIO_PACKETS_RECEIVED),
    Column("audio_packets_lost", "int", AUDIO_PACKETS_LOST),
    Column("audio_jitter_s", "float", AUDIO_JITTER_S),
    Column("bytes_received", "int", BYTES_RECEIVED),
    Column("bytes_sent", "int", BYTES_SENT),
    Column("server_address", "text", SERVER_ADDRESS),
    Column("server_port", "int", SERVER_PORT),
    Column("network_type", "text", NETWORK_CONNECTION_TYPE, NETWORK_CONNECTION_TYPE),
    Column("synthetic", "text", USER_AGENT_SYNTHETIC_TYPE, USER_AGENT_SYNTHETIC_TYPE),
    Column("region", "text", CLOUD_REGION, CLOUD_REGION),
    Column("runtime", "text", USER_AGENT_NAME, PROCESS_RUNTIME_NAME),
    Column("service_name", "text", None, SERVICE_NAME),
    Column("client_version", "text", None, SERVICE_VERSION),
    Column("service_instance_id", "text", None, SERVICE_INSTANCE_ID),
    Column("environment", "text", None, DEPLOYMENT_ENVIRONMENT_NAME),
)
"""What reports read.

An attribute of another type than its column's leaves the column NULL and stays with the other attributes.
"""
MAX_TYPED_INT: Final = 2**43
"""A larger number stays an attribute: reports turn typed milliseconds into nanoseconds in 64 bits."""
MAX_TYPED_FLOAT: Final = 1e12
"""A larger number, or NaN, stays an attribute: one of them would spoil every average."""
