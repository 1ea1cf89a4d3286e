"""The messages of the signalling protocol and their JSON: SIGNALLING.md in this folder is their specification.

No I/O, no clock. `encode` and `decode` are inverse; `decode` treats its input as hostile.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from telemetry.errors import RemoteProtocolError
from telemetry.semconv import ConnectionError, Detail, DisconnectReason, close_detail

SUBPROTOCOL: Final = "dp.signalling.v1"
MAX_MESSAGE_BYTES: Final = 256 * 1024
"""An SDP of a browser with many candidates is under 20 KiB; more than this is not signalling."""
MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""


@dataclass(frozen=True, slots=True)
class Hello:
    attempt_id: str
    client: str
    resume: str | None = None
    """None means a new session."""
    microphone: bool = False
    camera: bool = False


@dataclass(frozen=True, slots=True)
class Queued:
    position: int
    """1 is next."""


@dataclass(frozen=True, slots=True)
class IceServer:
    urls: str
    username: str | None = None
    credential: str | None = None

    def __repr__(self) -> str:
        """Leave the credential out: a repr ends up in logs."""
        return f"IceServer({self.urls!r})"


@dataclass(frozen=True, slots=True)
class Accepted:
    session_id: str
    resumed: bool = False
    ice_servers: tuple[IceServer, ...] = ()
    idle_limit_ms: int = 0
    """0 means no limit."""
    region: str | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class Assets:
    loaded_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Ready:
    pass


@dataclass(frozen=True, slots=True)
class Offer:
    sdp: str


@dataclass(frozen=True, slots=True)
class Answer:
    sdp: str


@dataclass(frozen=True, slots=True)
class Started:
    pass


@dataclass(frozen=True, slots=True)
class Activity:
    pass


@dataclass(frozen=True, slots=True)
class Bye:
    keep: bool = False


ServerMessage = Queued | Accepted | Assets | Ready | Answer | Started
ClientMessage = Hello | Offer | Activity | Bye
Message = ServerMessage | ClientMessage

_BY_TYPE: Final[dict[str, type[Message]]] = {
    cls.__name__.lower(): cls for cls in (Hello, Queued, Accepted, Assets, Ready, Offer, Answer, Started, Activity, Bye)
}
_SESSION_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def type_of(message: Message) -> str:
    """The `type` of a message on the wire."""
    return type(message).__name__.lower()


def encode(message: Message) -> str:
    """Write a message as one JSON object."""
    body: dict[str, Any] = {"type": type_of(message)}
    for name, value in asdict(message).items():
        if value is not None or name == "resume":
            body[_camel(name)] = value
    return json.dumps(body, separators=(",", ":"))


def decode(text: str | bytes) -> Message:
    """Read one message.

    Raises:
        RemoteProtocolError: not JSON, not an object, an unknown type, a missing field or a field of the wrong form.
    """
    if isinstance(text, bytes):
        raise RemoteProtocolError("a binary frame; signalling messages are text frames")
    if len(text) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(f"a message of {len(text)} characters; the limit is {MAX_MESSAGE_BYTES}")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("a message that is not JSON") from error
    if not isinstance(body, dict):
        raise RemoteProtocolError("a message that is not a JSON object")
    kind = body.get("type")
    cls = _BY_TYPE.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise RemoteProtocolError("a message of unknown type")
    values: dict[str, Any] = {}
    for field in fields(cls):
        key = _camel(field.name)
        if body.get(key) is not None:
            values[field.name] = _READERS[field.name](body[key], key)
    try:
        return cls(**values)
    except TypeError as error:
        raise RemoteProtocolError(f"a {kind} message without all of its fields") from error


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _text(limit: int, pattern: re.Pattern[str] | None = None) -> Any:
    def read(value: object, key: str) -> str:
        if not isinstance(value, str) or len(value) > limit or (pattern and not pattern.fullmatch(value)):
            raise RemoteProtocolError(f"a message whose {key} has the wrong form")
        return value

    return read


def _integer(least: int) -> Any:
    def read(value: object, key: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_INTEGER:
            raise RemoteProtocolError(f"a message whose {key} is not an integer of at least {least}")
        return value

    return read


def _boolean(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise RemoteProtocolError(f"a message whose {key} is not a boolean")
    return value


def _ice_servers(value: object, key: str) -> tuple[IceServer, ...]:
    if not isinstance(value, list) or len(value) > 16:
        raise RemoteProtocolError(f"a message whose {key} is not a list of at most 16")
    servers = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("urls"), str):
            raise RemoteProtocolError(f"a message whose {key} holds something that is not a server")
        username, credential = item.get("username"), item.get("credential")
        if not isinstance(username, str | None) or not isinstance(credential, str | None):
            raise RemoteProtocolError(f"a message whose {key} holds credentials of the wrong form")
        servers.append(IceServer(item["urls"], username, credential))
    return tuple(servers)


_READERS: Final[dict[str, Any]] = {
    "attempt_id": _text(128),
    "client": _text(256),
    "resume": _text(128, _SESSION_ID),
    "microphone": _boolean,
    "camera": _boolean,
    "position": _integer(1),
    "session_id": _text(128, _SESSION_ID),
    "resumed": _boolean,
    "ice_servers": _ice_servers,
    "idle_limit_ms": _integer(0),
    "region": _text(64),
    "instance": _text(128),
    "loaded_bytes": _integer(0),
    "total_bytes": _integer(0),
    "sdp": _text(MAX_MESSAGE_BYTES),
    "keep": _boolean,
}


@dataclass(frozen=True, slots=True)
class CloseMeaning:
    """What a WebSocket close code means to a client."""

    error: ConnectionError
    """The error if the code arrives before the session is fully available."""
    detail: str
    reason: DisconnectReason
    """The disconnect reason if it arrives after."""
    retryable: bool


_E, _D, _R = ConnectionError, Detail, DisconnectReason
CLOSE_CODES: Final[dict[int, CloseMeaning]] = {
    1000: CloseMeaning(_E.SERVER_CONNECTION_FAILED, close_detail(1000), _R.NORMAL, False),
    1001: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.SERVER_ERROR, _R.CONNECTION_LOST, True),
    1006: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.SOCKET_LOST, _R.CONNECTION_LOST, True),
    1009: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.MESSAGE_TOO_BIG, _R.CONNECTION_LOST, False),
    1011: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.SERVER_ERROR, _R.CONNECTION_LOST, True),
    1012: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.SERVER_ERROR, _R.CONNECTION_LOST, True),
    1013: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.SERVER_ERROR, _R.CONNECTION_LOST, True),
    4001: CloseMeaning(_E.SESSION_TIMEOUT, _D.SERVER_TIMEOUT, _R.SESSION_TIMEOUT, True),
    4400: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.PROTOCOL_VIOLATION, _R.CONNECTION_LOST, False),
    4401: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.TOKEN_REFUSED, _R.CONNECTION_LOST, False),
    4404: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.SCENE_UNKNOWN, _R.CONNECTION_LOST, False),
    4408: CloseMeaning(_E.NO_SCENE, _D.QUEUE_TIMEOUT, _R.CONNECTION_LOST, True),
    4415: CloseMeaning(_E.MEDIA_STREAM_FAILED, _D.SDP_REFUSED, _R.CONNECTION_LOST, False),
    4429: CloseMeaning(_E.NO_SCENE, _D.QUEUE_FULL, _R.CONNECTION_LOST, True),
    4503: CloseMeaning(_E.NO_SCENE, _D.BUSY, _R.CONNECTION_LOST, True),
    4504: CloseMeaning(_E.SERVER_CONNECTION_FAILED, _D.ASSET_FAILED, _R.CONNECTION_LOST, True),
}
"""The table of SIGNALLING.md."""


def meaning_of_close(code: int) -> CloseMeaning:
    """What a close code means; an unknown one is a failure that only someone's change can mend."""
    return CLOSE_CODES.get(code) or CloseMeaning(
        _E.SERVER_CONNECTION_FAILED, close_detail(code), _R.CONNECTION_LOST, False
    )
