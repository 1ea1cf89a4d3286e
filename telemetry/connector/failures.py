"""What lies behind each detail code: which of the six errors it is, whether to try again, and what to tell people.

No I/O, no clock.
"""

from dataclasses import dataclass
from typing import Final

from telemetry.semconv import ConnectionError, Detail, http_detail

_E, _D = ConnectionError, Detail
_RETRYABLE_HTTP: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may pass by themselves (RFC 9110, RFC 6585, RFC 8470)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What a detail code means when it ends an attempt."""

    error: ConnectionError
    retryable: bool
    what: str
    """What happened, to which thing; `{server}` stands for host and port."""
    advice: str
    """What to do next."""

    def message(self, server: str, text: str = "") -> str:
        """The sentence for people; `text` is what the system said, if that tells more."""
        said = f" ({text})" if text else ""
        return f"{self.what.format(server=server)}{said}; {self.advice}"


_SERVER, _MEDIA, _USER, _SUPPORT = (
    _E.SERVER_CONNECTION_FAILED,
    _E.MEDIA_STREAM_FAILED,
    _E.NO_USER_MEDIA,
    _E.NOT_SUPPORTED,
)
_LATER: Final = "try again in a moment"
_ASK_SERVER: Final = "tell whoever runs the server"

CAUSES: Final[dict[str, Cause]] = {
    _D.DNS: Cause(_SERVER, True, "the name of {server} could not be resolved", "check the host name and the network"),
    _D.TCP_REFUSED: Cause(_SERVER, True, "{server} refused the connection", "check that the server runs on that port"),
    _D.TCP_UNREACHABLE: Cause(_SERVER, True, "{server} cannot be reached from here", "check the network"),
    _D.TCP_TIMEOUT: Cause(
        _SERVER, True, "{server} did not answer in time", "check the address, the network and its firewall"
    ),
    _D.TLS: Cause(
        _SERVER, False, "no trusted TLS connection to {server} came about", "check its certificate and this clock"
    ),
    _D.INVALID_URL: Cause(_SERVER, False, "the URL of the server cannot be used", "give one like wss://host/path"),
    _D.NOT_SIGNALLING: Cause(
        _SERVER,
        False,
        "{server} answered, but does not speak the signalling protocol",
        "check that the URL is that of a digital-person server of this version",
    ),
    _D.PROTOCOL_VIOLATION: Cause(
        _SERVER, False, "{server} broke the signalling protocol", "compare the versions of client and server"
    ),
    _D.MESSAGE_TOO_BIG: Cause(
        _SERVER, False, "a signalling message to or from {server} was too big", "compare the versions of both sides"
    ),
    _D.SOCKET_LOST: Cause(_SERVER, True, "the connection to {server} broke off", f"{_LATER}, or check the network"),
    _D.TOKEN_REFUSED: Cause(_SERVER, False, "{server} refused the token", "get a new token"),
    _D.SCENE_UNKNOWN: Cause(_SERVER, False, "{server} knows no such scene", "check the path of the URL"),
    _D.BUSY: Cause(_E.NO_SCENE, True, "every digital person of {server} is busy", _LATER),
    _D.QUEUE_FULL: Cause(_E.NO_SCENE, True, "the queue of {server} is full", _LATER),
    _D.QUEUE_TIMEOUT: Cause(_E.NO_SCENE, True, "{server} ended the wait in its queue", _LATER),
    _D.ASSET_FAILED: Cause(_SERVER, True, "{server} could not load an asset", f"{_LATER}; if it stays, {_ASK_SERVER}"),
    _D.SERVER_ERROR: Cause(_SERVER, True, "{server} failed or is restarting", f"{_LATER}; if it stays, {_ASK_SERVER}"),
    _D.SERVER_TIMEOUT: Cause(
        _E.SESSION_TIMEOUT, True, "{server} ended the session for its time limit before it was available", _LATER
    ),
    _D.PERMISSION_DENIED: Cause(
        _USER, False, "the permission to use the microphone or camera was declined", "grant it in the system's settings"
    ),
    _D.DEVICE_NOT_FOUND: Cause(_USER, False, "the microphone or camera was not found", "plug it in or name another"),
    _D.DEVICE_IN_USE: Cause(
        _USER, True, "another program uses the microphone or camera", "close that program, then try again"
    ),
    _D.DEVICE_FAILED: Cause(_USER, False, "the microphone or camera could not be used", "try another device"),
    _D.CODEC_MISSING: Cause(
        _SUPPORT, False, "this runtime has no codec for the required media", "install PyAV with Opus and VP8"
    ),
    _D.CAPTURE_MISSING: Cause(
        _SUPPORT, False, "this runtime cannot capture from devices", "use a file or another build of PyAV"
    ),
    _D.SDP_REFUSED: Cause(
        _MEDIA, False, "offer and answer with {server} do not fit", "compare the codecs and versions of both sides"
    ),
    _D.ICE_NO_CANDIDATES: Cause(
        _MEDIA, True, "one side had no address to offer for media with {server}", "check the network, STUN and TURN"
    ),
    _D.ICE_NO_PAIR: Cause(
        _MEDIA, True, "no way for media was found between here and {server}", "check that UDP or TURN can pass"
    ),
    _D.DTLS: Cause(
        _MEDIA, True, "the encryption of media with {server} failed", f"{_LATER}; if it stays, {_ASK_SERVER}"
    ),
    _D.NO_FIRST_FRAME: Cause(
        _MEDIA, True, "connected to {server}, but no video could be shown", f"{_LATER}; if it stays, {_ASK_SERVER}"
    ),
    _D.MEDIA_SILENT: Cause(_MEDIA, True, "media from {server} stopped", "check the network, then try again"),
    _D.PEER_CLOSED: Cause(_MEDIA, True, "{server} closed the media connection", _LATER),
    _D.STEP_DEADLINE: Cause(
        _E.SESSION_TIMEOUT, True, "this step of connecting to {server} took too long", f"{_LATER}, or raise the limit"
    ),
    _D.CONNECT_DEADLINE: Cause(
        _E.SESSION_TIMEOUT, True, "connecting to {server} took too long", f"{_LATER}, or raise the limit"
    ),
    http_detail(401): Cause(_SERVER, False, "{server} refused the token", "get a new token"),
    http_detail(403): Cause(_SERVER, False, "{server} forbids this connection", "ask for access"),
    http_detail(404): Cause(_SERVER, False, "{server} has nothing at this path", "check the path of the URL"),
}


def cause_of(detail: str) -> Cause:
    """The meaning of a detail code; one without words of its own is told by its number."""
    known = CAUSES.get(detail)
    if known:
        return known
    kind, _, number = detail.partition("_")
    if kind == "http":
        retryable = number.isdecimal() and int(number) in _RETRYABLE_HTTP
        advice = _LATER if retryable else _ASK_SERVER
        return Cause(_SERVER, retryable, f"{{server}} answered the handshake with HTTP status {number}", advice)
    return Cause(_SERVER, False, f"{{server}} closed the connection ({detail})", _ASK_SERVER)
