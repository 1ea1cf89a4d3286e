"""The rules by which an attempt is judged: whose it was, why, and what to do next. The one place that decides.

Read from the top: the first rule whose conditions all hold decides, and the last one always holds.
The same table judges one attempt (`verdict.py`) and, as the view `verdicts` in `queries/schema/verdicts.sql`, the whole
fleet: `view()` writes that file, and a test compares the two on every kind of attempt.
Rules read one row of the relation `connections` and nothing else, so an attempt is judged alike in any store.

A rule is `certain` only where its facts leave one owner, `likely` where they leave a leading suspect, and
`insufficient` where they do not tell: then it says what was not recorded and how to record it. No I/O, no clock.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Final

from telemetry.semconv import NO_PING_ANSWER, ConnectionError, Detail, DisconnectReason, EndedBy, Outcome, Part
from telemetry.support.conditions import (
    AtMost,
    Begins,
    Condition,
    Differ,
    Known,
    MoreThanOneIn,
    Over,
    Unknown,
    Value,
    is_,
)
from telemetry.support.rule import Certainty, Missing, Owner, Rival, Rule

_D, _E, _O, _P = Detail, ConnectionError, Owner, Part
_LIKELY, _INSUFFICIENT = Certainty.LIKELY, Certainty.INSUFFICIENT
_SIGNALLING: Final = "telemetry/connector/SIGNALLING.md"
_GET_USER_MEDIA: Final = "W3C Media Capture and Streams, getUserMedia()"
_HTTP: Final = "RFC 9110, section 15"
_ICE: Final = "RFC 8445 and RFC 8656; the split that element-call PR #4257 asks for"
_TWILIO: Final = "Twilio Voice Insights call tags: high_packet_loss above 5 %, high_latency above 400 ms"

_CONNECTED = is_("outcome", Outcome.CONNECTED)
_FAILED = is_("outcome", Outcome.FAILED)
_CANCELLED = is_("outcome", Outcome.CANCELLED)
_UNFINISHED = is_("outcome", Outcome.UNFINISHED)
_LOST = is_("disconnect_reason", DisconnectReason.CONNECTION_LOST)
_DEADLINE = is_("detail", _D.STEP_DEADLINE, _D.CONNECT_DEADLINE)
_NO_REMOTE = (AtMost("ice_remote_host", 0), AtMost("ice_remote_srflx", 0), AtMost("ice_remote_relay", 0))
_NO_LOCAL = (AtMost("ice_gathered_host", 0), AtMost("ice_gathered_srflx", 0), AtMost("ice_gathered_relay", 0))
_CANDIDATES = (
    "ice_gathered_host",
    "ice_gathered_srflx",
    "ice_gathered_relay",
    "ice_remote_host",
    "ice_remote_srflx",
    "ice_remote_relay",
    "ice_servers",
    "failing_part_ns",
)
_CLOSE = ("close_code", "close_reason", "message")

_CLOCK_WRONG = Rival(_O.USER, "the client's clock is wrong", "Ask for the client's date and time.")
_SERVER_LOG = "Look up the attempt id in the server's log"


def _in(part: Part) -> Condition:
    return is_("failing_part", part)


_DEVICES: Final = (
    Rule(
        "media.permission_denied",
        _O.USER,
        (_FAILED, is_("detail", _D.PERMISSION_DENIED)),
        "The microphone or camera that is required ({media_required}) was declined after {part_time}.",
        "Ask the user to allow {media_required} for this application, in its own and in the system's privacy settings.",
        "Only the user, or a policy on the user's machine, answers the permission question.",
        _GET_USER_MEDIA + ": NotAllowedError",
        cites=("failing_part_ns", "media_required", "media_requested"),
    ),
    Rule(
        "media.device_not_found",
        _O.USER,
        (_FAILED, is_("detail", _D.DEVICE_NOT_FOUND)),
        "There is no device for the media that is required ({media_required}).",
        "Ask the user to plug in or switch on a {media_required}, or let the application require less.",
        "The operating system listed no such device.",
        _GET_USER_MEDIA + ": NotFoundError",
        cites=("media_required",),
    ),
    Rule(
        "media.device_in_use",
        _O.USER,
        (_FAILED, is_("detail", _D.DEVICE_IN_USE)),
        "Another program holds the device for the media that is required ({media_required}).",
        "Ask the user to close other programs that use the {media_required}, then try again.",
        "The device exists and is allowed, and the operating system would not share it.",
        _GET_USER_MEDIA + ": NotReadableError",
        cites=("media_required",),
    ),
    Rule(
        "media.device_failed",
        _O.USER,
        (_FAILED, is_("detail", _D.DEVICE_FAILED)),
        "The device for the media that is required ({media_required}) failed to start.",
        "Ask the user to test the device in another program.",
        "The device exists and is allowed; starting it failed.",
        _GET_USER_MEDIA + ": AbortError",
        _LIKELY,
        cites=("media_required", "message"),
        rivals=(
            Rival(
                _O.CLIENT,
                "the client asked the device for something it cannot do",
                "See whether another program can use it.",
            ),
        ),
    ),
    Rule(
        "client.codec_missing",
        _O.CLIENT,
        (_FAILED, is_("detail", _D.CODEC_MISSING)),
        "This runtime ({runtime}) has no codec for the media that is required.",
        "Use a runtime that is supported, or install the codec.",
        "The client compared what is required with what its runtime lists.",
        "the connector's own check",
        cites=("runtime", "client_version", "media_required"),
    ),
    Rule(
        "client.capture_missing",
        _O.CLIENT,
        (_FAILED, is_("detail", _D.CAPTURE_MISSING)),
        "This runtime ({runtime}) cannot capture the media that is required ({media_required}).",
        "Use a runtime that can capture, or give the connector a media source.",
        "The client compared what is required with what its runtime can capture.",
        "the connector's own check",
        cites=("runtime", "client_version", "media_required"),
    ),
    Rule(
        "media.permission_unanswered",
        _O.USER,
        (_FAILED, _DEADLINE, _in(_P.USER_MEDIA)),
        "The request for microphone or camera was not answered within {part_time}.",
        "Ask whether the user saw a permission question, and whether another window hid it.",
        "Between asking and getting a device stands only the permission question.",
        _GET_USER_MEDIA + ": the prompt has no time limit of its own",
        _LIKELY,
        cites=("failing_part_ns", "media_required"),
        rivals=(
            Rival(
                _O.CLIENT,
                "the device driver hangs",
                "Ask whether the permission was given and the device light came on.",
            ),
        ),
    ),
)

_REACHING: Final = (
    Rule(
        "open.invalid_url",
        _O.CONFIGURATION,
        (_FAILED, is_("detail", _D.INVALID_URL)),
        "The server's address is not a WebSocket URL.",
        "Correct the URL that the application gives to the connector.",
        "The client did not even try to connect.",
        "RFC 6455, section 3",
        cites=("message",),
    ),
    Rule(
        "open.dns",
        _O.UNDETERMINED,
        (_FAILED, is_("detail", _D.DNS)),
        "The name {server} was not resolved, {part_time} after it was asked for.",
        "Ask the user to open any page of the same server; check the name for a typing error.",
        "A wrong name and a resolver out of reach end alike at the client.",
        "RFC 1035; getaddrinfo(3)",
        _INSUFFICIENT,
        cites=("server_address", "message", "network_type", "failing_part_ns"),
        rivals=(
            Rival(
                _O.NETWORK,
                "the client is offline, or its resolver is",
                "Other clients resolved the same name at that time.",
            ),
            Rival(
                _O.CONFIGURATION,
                "the name is wrong or has been withdrawn",
                "No client resolves the same name.",
            ),
        ),
        missing=(
            Missing(
                "whether the resolver answered 'no such name' or did not answer",
                "Let the application set network.connection.type; a client that is offline says 'unavailable'.",
            ),
        ),
    ),
    Rule(
        "open.tcp_refused",
        _O.SERVER,
        (_FAILED, is_("detail", _D.TCP_REFUSED)),
        "{server} refused the TCP connection after {part_time}.",
        "Check that the server listens on that port; compare with other clients of the same server.",
        "The host was reached and answered that nothing listens there.",
        "RFC 9293, section 3.5.2: a reset answers a connection to a closed port",
        _LIKELY,
        cites=("server_address", "server_port", "failing_part_ns"),
        rivals=(
            Rival(_O.CONFIGURATION, "the port is wrong", "Other clients use another port with success."),
            Rival(
                _O.NETWORK,
                "a firewall answers in the server's place",
                "Other networks reach the same port.",
            ),
        ),
    ),
    Rule(
        "open.tcp_unreachable",
        _O.NETWORK,
        (_FAILED, is_("detail", _D.TCP_UNREACHABLE)),
        "There is no route from this client to {server}.",
        "Ask whether the client is online, and whether a VPN or firewall stands between.",
        "A router, or the client's own system, answered that the destination cannot be reached.",
        "RFC 1122, section 4.2.3.9",
        _LIKELY,
        cites=("server_address", "network_type", "message"),
        rivals=(
            Rival(_O.SERVER, "the server's network is gone", "No client reaches it at that time."),
            Rival(_O.CONFIGURATION, "the address is wrong", "The address is not that of the service."),
        ),
    ),
    Rule(
        "open.tcp_timeout",
        _O.NETWORK,
        (_FAILED, is_("detail", _D.TCP_TIMEOUT)),
        "{server} did not answer the TCP connection for {part_time}.",
        "Ask whether other networks (a phone's, say) reach the server from the same place.",
        "Packets to the server, or its answers, vanished; a live host with a closed port would have refused.",
        "RFC 9293, section 3.8.3",
        _LIKELY,
        cites=("server_address", "server_port", "network_type", "failing_part_ns"),
        rivals=(
            Rival(
                _O.SERVER,
                "the server's host is down, or its own firewall drops packets",
                "No client reaches it at that time.",
            ),
        ),
    ),
    Rule(
        "open.tls",
        _O.CONFIGURATION,
        (_FAILED, is_("detail", _D.TLS)),
        "The secure connection to {server} could not be made: {message}.",
        "Check the certificate of {server} (expiry, names, chain), and that the port speaks TLS.",
        "TCP worked, and the certificate or the handshake was not acceptable.",
        "RFC 8446, section 6.2",
        _LIKELY,
        cites=("server_address", "server_port", "message"),
        rivals=(
            Rival(_O.NETWORK, "a proxy opens the TLS traffic", "Other networks show another certificate issuer."),
            _CLOCK_WRONG,
        ),
    ),
    Rule(
        "open.not_signalling",
        _O.CONFIGURATION,
        (_FAILED, is_("detail", _D.NOT_SIGNALLING)),
        "{server} answered, but not as a server of our signalling protocol.",
        "Check the URL's host, port and path; check that the server offers dp.signalling.v1.",
        "A server that does not select the subprotocol is not spoken to.",
        _SIGNALLING,
        _LIKELY,
        cites=("server_address", "server_port", "message"),
        rivals=(
            Rival(_O.NETWORK, "a captive portal answers in the server's place", "Ask for a page of any other site."),
            Rival(_O.SERVER, "the server was deployed without the subprotocol", "Other clients fail alike."),
        ),
    ),
    Rule(
        "open.http_401",
        _O.CONFIGURATION,
        (_FAILED, is_("detail", "http_401")),
        "The server refused the token in the handshake (HTTP 401).",
        "Issue a fresh token; check its expiry, its audience and the issuer's clock.",
        "401 means that the credentials are missing or not valid.",
        _HTTP + ".5.2",
        cites=("server_address", "message"),
    ),
    Rule(
        "open.http_407",
        _O.NETWORK,
        (_FAILED, is_("detail", "http_407")),
        "A proxy between client and server asks for credentials (HTTP 407).",
        "Ask the client's network administrators to let {server} pass, or configure the proxy's credentials.",
        "Only a proxy answers 407.",
        _HTTP + ".5.8",
        cites=("server_address",),
    ),
    Rule(
        "open.http_403",
        _O.UNDETERMINED,
        (_FAILED, is_("detail", "http_403")),
        "The handshake was forbidden (HTTP 403).",
        _SERVER_LOG + ": if it is not there, a proxy answered.",
        "Servers and filtering proxies both answer 403.",
        _HTTP + ".5.4",
        _INSUFFICIENT,
        cites=("server_address", "message"),
        rivals=(
            Rival(
                _O.CONFIGURATION,
                "the token or the origin has no right to this scene",
                "The server's log has the attempt.",
            ),
            Rival(_O.NETWORK, "a filtering proxy forbids the server", "The server's log lacks the attempt."),
        ),
        missing=(
            Missing(
                "who answered",
                "Let the server mark its own refusals with a header, and record that in the error's message.",
            ),
        ),
    ),
    Rule(
        "open.http_404",
        _O.CONFIGURATION,
        (_FAILED, is_("detail", "http_404", "http_410", "http_405")),
        "The server has nothing at the path of the URL (HTTP {http}).",
        "Correct the path of the URL that the application gives to the connector.",
        "The host answered for itself, and knows no such resource.",
        _HTTP + ".5.5",
        _LIKELY,
        cites=("server_address",),
        rivals=(Rival(_O.SERVER, "the service is not deployed behind this host", "Other clients fail alike."),),
    ),
    Rule(
        "open.http_429",
        _O.CAPACITY,
        (_FAILED, is_("detail", "http_429")),
        "The server turned the handshake away: too many requests (HTTP 429).",
        "Look at the rate of attempts from this client and of all; try again later.",
        "429 is the answer of a rate limit.",
        "RFC 6585, section 4",
        cites=("server_address", "attempt_number"),
    ),
    Rule(
        "open.http_gateway",
        _O.SERVER,
        (_FAILED, is_("detail", "http_502", "http_503", "http_504")),
        "A gateway answered that no server stands behind it (HTTP {http}).",
        "Check the health of the servers behind the gateway.",
        "The gateway was reached, and had nobody to pass the handshake to.",
        _HTTP + ".6",
        _LIKELY,
        cites=("server_address",),
        rivals=(
            Rival(_O.CAPACITY, "every server behind it is full", "Concurrent sessions were at their limit."),
            Rival(_O.NETWORK, "the client's own proxy answers", "The gateway's log lacks the attempt."),
        ),
    ),
    Rule(
        "open.http_5xx",
        _O.SERVER,
        (_FAILED, Begins("detail", "http_5")),
        "The server failed in the handshake (HTTP {http}).",
        _SERVER_LOG + ".",
        "5xx means that the server knows that it failed.",
        _HTTP + ".6",
        _LIKELY,
        cites=("server_address", "message"),
        rivals=(Rival(_O.NETWORK, "a proxy answers in the server's place", "The server's log lacks the attempt."),),
    ),
    Rule(
        "open.http_other",
        _O.CONFIGURATION,
        (_FAILED, Begins("detail", "http_")),
        "The handshake was answered with HTTP {http}.",
        "Check the URL, the token and what stands between client and server.",
        "A WebSocket server answers 101; redirects and other refusals mean that the request does not fit the server.",
        "RFC 6455, section 4.1; " + _HTTP,
        _LIKELY,
        cites=("server_address", "message"),
        rivals=(Rival(_O.NETWORK, "a proxy answers in the server's place", "The server's log lacks the attempt."),),
    ),
    Rule(
        "open.unanswered",
        _O.UNDETERMINED,
        (_FAILED, _DEADLINE, _in(_P.WEBSOCKET_OPEN)),
        "{server} did not complete the WebSocket handshake within {part_time}.",
        _SERVER_LOG + " for a handshake without an end.",
        "The client waited for TCP, TLS or the HTTP answer; which one is not recorded.",
        "RFC 6455, section 4.1",
        _INSUFFICIENT,
        cites=("server_address", "server_port", "failing_part_ns"),
        rivals=(
            Rival(_O.NETWORK, "packets vanish between client and server", "Other networks reach the server."),
            Rival(_O.SERVER, "the server accepts and does not answer", "Other clients fail alike."),
        ),
        missing=(
            Missing(
                "which layer did not answer",
                "Give the opening a shorter limit than the step, so that it ends as tcp_timeout, tls or http.",
            ),
        ),
    ),
)

_SEARCHING: Final = (
    Rule(
        "queue.busy",
        _O.CAPACITY,
        (_FAILED, is_("detail", _D.BUSY)),
        "Every digital person was busy and there is no queue (close {close}).",
        "Compare with concurrent sessions at that time; add digital persons, or switch a queue on.",
        "The server said so with a code that means nothing else.",
        _SIGNALLING + ": 4503",
        cites=_CLOSE,
    ),
    Rule(
        "queue.full",
        _O.CAPACITY,
        (_FAILED, is_("detail", _D.QUEUE_FULL)),
        "The queue was full (close {close}).",
        "Compare with concurrent sessions at that time; add digital persons, or lengthen the queue.",
        "The server said so with a code that means nothing else.",
        _SIGNALLING + ": 4429",
        cites=_CLOSE,
    ),
    Rule(
        "queue.timeout",
        _O.CAPACITY,
        (_FAILED, is_("detail", _D.QUEUE_TIMEOUT)),
        "Waited {part_time} in the queue, at place {position} in the end, until the server gave up (close {close}).",
        "Compare with concurrent sessions at that time; add digital persons, or tell users the expected wait.",
        "The server said so with a code that means nothing else.",
        _SIGNALLING + ": 4408",
        cites=(*_CLOSE, "queue_position_first", "queue_position_last", "failing_part_ns"),
    ),
    Rule(
        "queue.deadline",
        _O.CAPACITY,
        (_FAILED, _DEADLINE, _in(_P.QUEUE), Known("queue_position_last")),
        "Waited {part_time} in the queue, at place {position} in the end, until the client's deadline.",
        "Compare with concurrent sessions at that time; see the report of how long admitted clients waited.",
        "The server kept its word about the queue; there was nobody free in time.",
        _SIGNALLING + ": queued",
        cites=("failing_part_ns", "queue_position_first"),
    ),
    Rule(
        "queue.server_limit",
        _O.CAPACITY,
        (_FAILED, is_("detail", _D.SERVER_TIMEOUT), _in(_P.QUEUE), Known("queue_position_last")),
        "The server's own time limit ended the wait in the queue after {part_time}, at place {position}.",
        "Compare with concurrent sessions at that time.",
        "The client was still queued when the server's limit ran out.",
        _SIGNALLING + ": 4001",
        cites=(*_CLOSE, "failing_part_ns", "queue_position_first"),
    ),
    Rule(
        "queue.silent_server",
        _O.SERVER,
        (_FAILED, _DEADLINE, _in(_P.QUEUE)),
        "The server took the connection and said nothing for {part_time}.",
        _SERVER_LOG + ": it received hello and sent neither queued nor accepted.",
        "The client pings every 5 s and would have called the connection lost, so the way there and back worked.",
        _SIGNALLING + ": Transport",
        _LIKELY,
        cites=("failing_part_ns", "queue_position_last", "server_address"),
        rivals=(
            Rival(
                _O.NETWORK,
                "something between answers pings and passes no messages",
                "The server's log lacks the attempt's hello.",
            ),
        ),
    ),
    Rule(
        "search.scene_unknown",
        _O.CONFIGURATION,
        (_FAILED, is_("detail", _D.SCENE_UNKNOWN)),
        "The server knows no such scene or persona (close {close}).",
        "Correct the scene's name or the project's key; check that the scene is published.",
        "The server said so with a code that means nothing else.",
        _SIGNALLING + ": 4404",
        cites=_CLOSE,
    ),
    Rule(
        "search.token_refused",
        _O.CONFIGURATION,
        (_FAILED, is_("detail", _D.TOKEN_REFUSED)),
        "The server refused the token (close {close}).",
        "Issue a fresh token; check its expiry, its audience and the issuer's clock.",
        "The server said so with a code that means nothing else.",
        _SIGNALLING + ": 4401",
        cites=_CLOSE,
    ),
)

_SERVER: Final = (
    Rule(
        "server.asset_failed",
        _O.SERVER,
        (_FAILED, is_("detail", _D.ASSET_FAILED)),
        "The server could not load an asset of the digital person (close {close}).",
        "Look up the session in the server's log for the asset's name; check the last deployment of assets.",
        "The server loads the assets, and said that it failed.",
        _SIGNALLING + ": 4504",
        cites=(*_CLOSE, "session_id"),
    ),
    Rule(
        "server.assets_stalled",
        _O.SERVER,
        (_FAILED, is_("detail", _D.STEP_DEADLINE, _D.CONNECT_DEADLINE, _D.SERVER_TIMEOUT), _in(_P.ASSETS)),
        "The assets of the digital person were not loaded within {part_time}.",
        "Look up the session in the server's log; compare the time of this part with its cohort.",
        "The server loads the assets and only reports its progress; the signalling connection was alive.",
        _SIGNALLING + ": assets",
        _LIKELY,
        cites=("failing_part_ns", "session_id"),
        rivals=(
            Rival(
                _O.CONFIGURATION,
                "the assets are too large for the time limit",
                "Bytes kept growing until the deadline.",
            ),
        ),
    ),
    Rule(
        "server.error",
        _O.SERVER,
        (_FAILED, is_("detail", _D.SERVER_ERROR)),
        "The server failed or went away, and said so (close {close}).",
        "Look at the server's log and deployments at that time.",
        "1001, 1011, 1012 and 1013 are what a server says of itself.",
        "RFC 6455, section 7.4.1; " + _SIGNALLING,
        cites=_CLOSE,
    ),
    Rule(
        "server.protocol_violation_ours",
        _O.CLIENT,
        (_FAILED, is_("detail", _D.PROTOCOL_VIOLATION), is_("close_code", 4400)),
        "The server says that the client broke the signalling protocol (close {close}).",
        "Compare the client's version ({client_version}) with what the server expects.",
        "4400 is what a peer sends that cannot make sense of the other.",
        _SIGNALLING + ": 4400",
        _LIKELY,
        cites=("client_version", "close_reason", "message"),
        rivals=(Rival(_O.SERVER, "the server reads the protocol wrongly", "Other client versions fail alike."),),
    ),
    Rule(
        "server.protocol_violation",
        _O.SERVER,
        (_FAILED, is_("detail", _D.PROTOCOL_VIOLATION)),
        "The server sent what the signalling protocol does not allow: {message}.",
        "Compare the server's version with the protocol; the signalling trail shows the last messages.",
        "The client checks every message against the protocol's table.",
        _SIGNALLING + ": Messages, Order",
        _LIKELY,
        cites=("message", "client_version"),
        rivals=(Rival(_O.CLIENT, "the client reads the protocol wrongly", "Other client versions succeed."),),
    ),
    Rule(
        "server.message_too_big_ours",
        _O.CLIENT,
        (_FAILED, is_("detail", _D.MESSAGE_TOO_BIG), is_("close_code", 1009)),
        "The server found a message of the client too big (close {close}).",
        "Compare the size of the client's offer with the server's limit.",
        "1009 is what a peer sends that was sent too much.",
        "RFC 6455, section 7.4.1",
        _LIKELY,
        cites=("client_version", "message"),
        rivals=(Rival(_O.SERVER, "the server's limit is below the protocol's 256 KiB", "The offer is smaller."),),
    ),
    Rule(
        "server.message_too_big",
        _O.SERVER,
        (_FAILED, is_("detail", _D.MESSAGE_TOO_BIG)),
        "The server sent a message larger than the protocol allows.",
        "Look at what the server sends at this point.",
        "A message is at most 256 KiB.",
        _SIGNALLING + ": Transport",
        cites=("message",),
    ),
    Rule(
        "network.socket_silent",
        _O.NETWORK,
        (_FAILED, is_("detail", _D.SOCKET_LOST), is_("close_reason", NO_PING_ANSWER)),
        "The signalling connection fell silent {part_time} into {where}: a ping was not answered.",
        "Ask what happened to the client's network at that moment; look whether the server's log still has its side.",
        "A process that dies resets its sockets at once; only a path that was cut, or a dead host, is silent.",
        "RFC 9293, section 3.10.7; the connector pings every 5 s and waits 5 s",
        _LIKELY,
        cites=("close_code", "failing_part_ns", "network_type"),
        rivals=(Rival(_O.SERVER, "the server's host died or hangs", "Other clients of the server fell silent too."),),
    ),
    Rule(
        "server.socket_reset",
        _O.SERVER,
        (_FAILED, is_("detail", _D.SOCKET_LOST), is_("close_code", 1006), Unknown("close_reason")),
        "The far end dropped the signalling connection {part_time} into {where}, without a goodbye.",
        "Look at the server's log and restarts at that time; see whether other clients lost theirs in the same second.",
        "An end or a reset of TCP arrived, so the path worked; a server that closes on purpose says goodbye first.",
        "RFC 6455, section 7.1.5: 1006; RFC 9293, section 3.10.7",
        _LIKELY,
        cites=("failing_part_ns", "network_type", "message"),
        rivals=(Rival(_O.NETWORK, "a proxy or firewall reset the socket", "Only this client's network was hit."),),
    ),
    Rule(
        "server.socket_lost",
        _O.UNDETERMINED,
        (_FAILED, is_("detail", _D.SOCKET_LOST)),
        "The signalling connection vanished {part_time} into {where}, without a goodbye.",
        "Look at the server's log and restarts at that time; see whether other clients lost theirs in the same second.",
        "A server that dies, a proxy that restarts and a network that is cut end alike at the client.",
        "RFC 6455, section 7.1.5: 1006",
        _INSUFFICIENT,
        cites=("close_code", "failing_part_ns", "network_type", "message"),
        rivals=(
            Rival(_O.SERVER, "the server or its proxy died", "Other clients of the same server lost theirs too."),
            Rival(_O.NETWORK, "the client's network was cut", "Only this client was hit."),
        ),
        missing=(
            Missing(
                "whether the socket was reset or fell silent",
                "Nothing flows beside the socket before media does; the server's own log has its side.",
            ),
        ),
    ),
)

_NEGOTIATION: Final = (
    Rule(
        "negotiate.sdp_refused_by_server",
        _O.UNDETERMINED,
        (_FAILED, is_("detail", _D.SDP_REFUSED), is_("close_code", 4415)),
        "The server could not use the client's offer (close {close}).",
        "Compare the codecs and transports of both sides; try the newest client version.",
        "An offer that does not fit may be the fault of either side.",
        _SIGNALLING + ": 4415",
        _INSUFFICIENT,
        cites=(*_CLOSE, "client_version", "runtime"),
        rivals=(
            Rival(_O.CLIENT, "the offer lacks what every server needs", "Other client versions succeed."),
            Rival(_O.SERVER, "the server refuses what it should take", "All client versions fail alike."),
        ),
        missing=(
            Missing("what in the offer was refused", "Let the server name it in the close reason; SDP is never kept."),
        ),
    ),
    Rule(
        "negotiate.answer_unusable",
        _O.SERVER,
        (_FAILED, is_("detail", _D.SDP_REFUSED)),
        "The server's answer is not a session description that the client can use: {message}.",
        "Look up the session in the server's log for the answer it sent.",
        "The client read the answer and could not apply it.",
        "RFC 8866; RFC 3264",
        _LIKELY,
        cites=("message", "client_version", "session_id"),
        rivals=(Rival(_O.CLIENT, "the client cannot read a valid answer", "Other runtimes succeed."),),
    ),
    Rule(
        "negotiate.unanswered",
        _O.SERVER,
        (_FAILED, is_("detail", _D.STEP_DEADLINE, _D.CONNECT_DEADLINE, _D.SERVER_TIMEOUT), _in(_P.NEGOTIATE)),
        "Offer and answer were not exchanged within {part_time}.",
        "Look up the session in the server's log: whether the offer came, and why no answer left.",
        "The signalling connection was alive, and the server owed the answer.",
        _SIGNALLING + ": Order",
        _LIKELY,
        cites=(*_CLOSE, "failing_part_ns", "session_id", "ice_gathered_host"),
        rivals=(
            Rival(
                _O.CLIENT,
                "the client did not finish its own offer",
                "The signalling trail has no '> offer', or no gathered candidates were recorded.",
            ),
        ),
    ),
)


def _ice(*more: Condition) -> tuple[Condition, ...]:
    return (_FAILED, _in(_P.ICE), *more)


_UNREACHED = Missing(
    "whether any check of ours reached the server, or of the server's reached us",
    "aiortc does not count them; a capture at the server, or its own candidate-pair statistics, does.",
)
_ICE_RULES: Final = (
    Rule(
        "ice.none_from_server",
        _O.SERVER,
        _ice(*_NO_REMOTE),
        "The server's answer named no address at all to send media to.",
        "Look at the server's public address settings and at its log of gathering.",
        "Without a remote candidate there is nothing to pair, whatever the network does.",
        "RFC 8445, section 6.1.2",
        cites=_CANDIDATES,
    ),
    Rule(
        "ice.none_gathered",
        _O.CLIENT,
        _ice(*_NO_LOCAL),
        "The client found no address of its own to receive media at.",
        "Ask which network interfaces, VPN or policy the client has.",
        "The WebSocket worked, so the machine has a network that WebRTC was not given.",
        "RFC 8445, section 5.1.1",
        _LIKELY,
        cites=_CANDIDATES,
        rivals=(Rival(_O.NETWORK, "the interface went down meanwhile", "The WebSocket was lost as well."),),
    ),
    Rule(
        "ice.relay_unpaired",
        _O.SERVER,
        _ice(Over("ice_gathered_relay", 0)),
        "A relay was ready ({local}), and still no pair worked with the server ({remote}) for {part_time}.",
        "Look at the server's media address and firewall, and at the relay's permission and log.",
        "The client's way out works as far as the relay, so the fault lies beyond it.",
        _ICE,
        _LIKELY,
        cites=_CANDIDATES,
        rivals=(
            Rival(_O.NETWORK, "the way back from the relay is blocked", "Media to the relay's address is dropped."),
            Rival(_O.CONFIGURATION, "the relay may not reach the server's addresses", "The relay's log says 403."),
        ),
        missing=(_UNREACHED,),
    ),
    Rule(
        "ice.no_relay_offered",
        _O.UNDETERMINED,
        _ice(AtMost("ice_gathered_relay", 0), is_("ice_servers", 0)),
        "No pair worked for {part_time}, and the server named no relay to fall back on ({local}; remote {remote}).",
        "Offer a TURN server with TCP or TLS and see whether the same client connects.",
        "With direct ways only, a blocked network and a server that does not answer look alike.",
        _ICE,
        _INSUFFICIENT,
        cites=_CANDIDATES,
        rivals=(
            Rival(_O.NETWORK, "UDP between client and server is blocked", "Other networks connect to the server."),
            Rival(_O.SERVER, "the server's media addresses lead nowhere", "All clients of the server fail alike."),
            Rival(_O.CONFIGURATION, "a relay is needed and none is set up", "It connects with a TURN server."),
        ),
        missing=(_UNREACHED,),
    ),
    Rule(
        "ice.relay_not_granted",
        _O.CONFIGURATION,
        _ice(AtMost("ice_gathered_relay", 0), Over("ice_servers", 0), Over("ice_gathered_srflx", 0)),
        "STUN answered over UDP, yet none of {ice_servers} ICE servers granted a relay, and no direct pair worked.",
        "Check that a TURN server is among them, and its credentials and their expiry.",
        "UDP leaves and returns, so a missing relay is a matter of what the TURN server was told.",
        _ICE,
        _LIKELY,
        cites=_CANDIDATES,
        rivals=(Rival(_O.NETWORK, "the TURN server's port alone is blocked", "Its log lacks this client."),),
        missing=(_UNREACHED,),
    ),
    Rule(
        "ice.servers_unreached",
        _O.NETWORK,
        _ice(AtMost("ice_gathered_relay", 0), Over("ice_servers", 0), AtMost("ice_gathered_srflx", 0)),
        "None of {ice_servers} STUN and TURN servers answered, and no direct pair worked for {part_time}.",
        "Ask whether UDP is blocked where the client is; offer TURN over TCP or TLS on port 443.",
        "Nothing that the client sent by UDP was answered, by anyone.",
        _ICE,
        _LIKELY,
        cites=_CANDIDATES,
        rivals=(
            Rival(_O.CONFIGURATION, "the servers' addresses or credentials are wrong", "All clients gather none."),
            Rival(_O.SERVER, "the STUN and TURN servers are down", "All clients gather none at that time."),
        ),
        missing=(_UNREACHED,),
    ),
    Rule(
        "ice.unrecorded",
        _O.UNDETERMINED,
        _ice(),
        "No pair of addresses worked for {part_time}; which candidates there were is not recorded in full.",
        "Ask which network the client is in; see whether other clients of the same server connect.",
        "Whose it is depends on what was gathered: nothing, direct addresses only, or a relay.",
        _ICE,
        _INSUFFICIENT,
        cites=_CANDIDATES,
        rivals=(
            Rival(_O.NETWORK, "UDP is blocked", "Other networks connect to the server."),
            Rival(_O.SERVER, "the server's media addresses lead nowhere", "All clients of the server fail alike."),
            Rival(_O.CONFIGURATION, "a relay is needed and none is set up", "It connects with a TURN server."),
        ),
        missing=(
            Missing(
                "the candidates of both sides and the number of ICE servers",
                "Use a connector that sends dp.ice.gathered.*, dp.ice.remote.* and dp.ice.servers.",
            ),
        ),
    ),
)

_REFUSED_AT_ONCE_NS: Final = 3_000_000_000
"""DTLS sends again after 1 s and then doubles (RFC 9147, section 5.8.2): a refusal comes within the first repeats."""

_MEDIA: Final = (
    Rule(
        "dtls.refused",
        _O.SERVER,
        (_FAILED, _in(_P.DTLS), AtMost("failing_part_ns", _REFUSED_AT_ONCE_NS)),
        "The media path was found, and its encryption was refused within {part_time}.",
        "Look up the session in the server's log: the certificate it used must match its answer's fingerprint.",
        "A refusal this fast is an answer: packets flow both ways, and the certificates do not match.",
        "RFC 8842, section 5; RFC 9147, section 5.8.2",
        _LIKELY,
        cites=("failing_part_ns", "relay", "session_id"),
        rivals=(Rival(_O.NETWORK, "something between answers in the server's place", "Other networks succeed."),),
    ),
    Rule(
        "dtls.unanswered",
        _O.UNDETERMINED,
        (_FAILED, _in(_P.DTLS)),
        "The media path was found, and its encryption was not agreed on within {part_time}.",
        "Look up the session in the server's log: whether the client's handshake arrived there.",
        "Small checks pass and the handshake does not: a filter on the way and a server that hangs look alike.",
        "RFC 9147, section 5.8.2",
        _INSUFFICIENT,
        cites=("failing_part_ns", "relay", "local_candidate_type", "remote_candidate_type"),
        rivals=(
            Rival(_O.NETWORK, "DTLS or large packets are filtered", "Other networks succeed, or a TCP relay does."),
            Rival(_O.SERVER, "the server does not answer the handshake", "All clients of the server fail alike."),
        ),
        missing=(Missing("whether the handshake reached the server", "The server's log or a capture there."),),
    ),
    Rule(
        "media.undecoded",
        _O.CLIENT,
        (_FAILED, _in(_P.FIRST_FRAME), Over("video_packets_received", 0)),
        "{video_packets} video packets arrived, and no frame could be decoded within {part_time}.",
        "Compare the codec that was agreed with what the runtime ({runtime}) decodes.",
        "Media flows; only its decoding is left.",
        "W3C WebRTC Statistics: framesDecoded beside packetsReceived",
        _LIKELY,
        cites=("failing_part_ns", "runtime", "client_version"),
        rivals=(Rival(_O.SERVER, "the server never sent a key frame", "Other runtimes fail alike."),),
    ),
    Rule(
        "media.never_started",
        _O.SERVER,
        (_FAILED, _in(_P.FIRST_FRAME)),
        "The media path was ready and encrypted, and no picture came within {part_time}.",
        "Look up the session in the server's log: whether it sent media, and `started`.",
        "The same address pair carried the encryption both ways just before.",
        "RFC 7675: consent is checked on the very pair that media takes",
        _LIKELY,
        cites=("failing_part_ns", "relay", "video_packets_received", "session_id"),
        rivals=(
            Rival(_O.NETWORK, "large packets are dropped and small ones pass", "Other networks succeed."),
            Rival(_O.CLIENT, "packets came and could not be decoded", "The count of packets says so."),
        ),
    ),
    Rule(
        "media.peer_closed",
        _O.SERVER,
        (_FAILED, is_("detail", _D.PEER_CLOSED)),
        "The server closed the media connection while it was forming.",
        "Look up the session in the server's log for why it closed the peer connection.",
        "Only the other peer sends the DTLS goodbye.",
        "RFC 8446, section 6.1: close_notify",
        _LIKELY,
        cites=("session_id",),
        rivals=(
            Rival(
                _O.NETWORK,
                "the path died, which aiortc reports in the same words after 30 s",
                "The media had been silent for that long.",
            ),
        ),
    ),
    Rule(
        "media.silent",
        _O.UNDETERMINED,
        (_FAILED, is_("detail", _D.MEDIA_SILENT)),
        "Media stopped arriving while the session was forming.",
        "Look up the session in the server's log: whether it was still sending.",
        "A server that stops sending and a network that stops passing look alike.",
        "RFC 7675",
        _INSUFFICIENT,
        cites=("media_last_seen_ago_ms",),
        rivals=(
            Rival(_O.SERVER, "the server stopped sending", "Its counters of sent packets stand still."),
            Rival(_O.NETWORK, "UDP stopped passing", "Its counters of sent packets go on."),
        ),
        missing=(Missing("what the server sent", "The server's own outbound statistics."),),
    ),
    Rule(
        "server.limit_in_media",
        _O.UNDETERMINED,
        (_FAILED, is_("detail", _D.SERVER_TIMEOUT)),
        "The server's own time limit ended the attempt in {where}, {duration} after it began.",
        "Look up the session in the server's log for what it waited for.",
        "The server waited for something, and did not say for what.",
        _SIGNALLING + ": 4001",
        _INSUFFICIENT,
        cites=(*_CLOSE, "failing_part_ns"),
        rivals=(
            Rival(_O.SERVER, "the server is slow", "Its log shows work until the limit."),
            Rival(_O.NETWORK, "what it waited for was lost on the way", "The client's part had ended in time."),
        ),
        missing=(Missing("what the server waited for", "Let the server name it in the close reason."),),
    ),
    Rule(
        "deadline.between_parts",
        _O.UNDETERMINED,
        (_FAILED, _DEADLINE),
        "A deadline of the client's ended the attempt in {where}, {duration} after it began; no part was open.",
        "Look up the session in the server's log for what it did last.",
        "Between the parts the client waits for the server's next message or for itself.",
        _SIGNALLING + ": Order",
        _INSUFFICIENT,
        cites=("failing_step", "message"),
        rivals=(
            Rival(_O.SERVER, "the server owed the next message", "The signalling trail ends with the client's."),
            Rival(_O.CLIENT, "the client did not go on", "The signalling trail ends with the server's."),
        ),
        missing=(Missing("what was being waited for", "The signalling trail on the connect span tells who was next."),),
    ),
    Rule(
        "server.closed",
        _O.SERVER,
        (_FAILED, Begins("detail", "close_")),
        "The server closed the connection in {where}, with a code that the protocol gives no other meaning ({close}).",
        "Ask the server's operators what the code means; see SIGNALLING.md for those that have a meaning.",
        "A close code is the server's own word.",
        _SIGNALLING + ": Close codes",
        _LIKELY,
        cites=_CLOSE,
        rivals=(Rival(_O.NETWORK, "a proxy closed in the server's place", "The server's log lacks the close."),),
    ),
    Rule(
        "ice.outside_its_part",
        _O.UNDETERMINED,
        (_FAILED, is_("detail", _D.ICE_NO_CANDIDATES, _D.ICE_NO_PAIR, _D.DTLS, _D.NO_FIRST_FRAME)),
        "The media connection failed ({detail}), and the part that was open is not recorded as such.",
        "Ask which network the client is in; see whether other clients of the same server connect.",
        "Without the part there is no saying how long it took, or what it had found.",
        _ICE,
        _INSUFFICIENT,
        cites=(*_CANDIDATES, "failing_part"),
        rivals=(
            Rival(_O.NETWORK, "UDP is blocked or filtered", "Other networks connect to the server."),
            Rival(_O.SERVER, "the server's media side fails", "All clients of the server fail alike."),
        ),
        missing=(Missing("the part of the step", "Use a connector that sends dp.failure.part."),),
    ),
)

_OTHER_FAILURES: Final = (
    Rule(
        "telemetry.no_reason",
        _O.TELEMETRY,
        (_FAILED, Unknown("detail"), Unknown("error_type")),
        "The attempt failed in {where} after {duration}; its error was not recorded.",
        "Ask the user for the error's name and message; look up the attempt id in the server's log.",
        "A failed attempt carries error.type by contract.",
        "telemetry/semconv.py",
        _INSUFFICIENT,
        cites=("message", "failing_step", "failing_part"),
        missing=(Missing("error.type and dp.failure.detail", "Use a connector that keeps the span contract."),),
    ),
    Rule(
        "unknown.user_media",
        _O.USER,
        (_FAILED, is_("error_type", _E.NO_USER_MEDIA)),
        "The microphone or camera that is required could not be used ({detail}).",
        "Ask the user to test the device in another program, and for the permission that was given.",
        "The error belongs to the user's devices; its detail has no rule.",
        "semconv.py: ConnectionError",
        _LIKELY,
        cites=("detail", "message"),
        rivals=(Rival(_O.CLIENT, "the client asked wrongly", "Another program can use the device."),),
    ),
    Rule(
        "unknown.not_supported",
        _O.CLIENT,
        (_FAILED, is_("error_type", _E.NOT_SUPPORTED)),
        "This runtime ({runtime}) cannot do what is required ({detail}).",
        "Use a runtime that is supported.",
        "The error is the client's own word about itself; its detail has no rule.",
        "semconv.py: ConnectionError",
        _LIKELY,
        cites=("detail", "message", "runtime"),
        rivals=(Rival(_O.CONFIGURATION, "the application requires too much", "It works with less required."),),
    ),
    Rule(
        "unknown.no_scene",
        _O.CAPACITY,
        (_FAILED, is_("error_type", _E.NO_SCENE)),
        "No digital person was available ({detail}, close {close}).",
        "Compare with concurrent sessions at that time.",
        "The error says that nobody was free; its detail has no rule.",
        "semconv.py: ConnectionError",
        _LIKELY,
        cites=("detail", *_CLOSE),
        rivals=(Rival(_O.SERVER, "the server says so for another reason", "Its log names the reason."),),
    ),
    Rule(
        "unknown.failure",
        _O.UNDETERMINED,
        (_FAILED,),
        "Failed in {where} after {duration} with {error} ({detail}), for which there is no rule.",
        "Read the message ({message}) and look up the attempt id in the server's log; then add a rule.",
        "No rule fits these facts.",
        "this table",
        _INSUFFICIENT,
        cites=("error_type", "detail", "message", "failing_step", "failing_part", "close_code"),
        rivals=(
            Rival(_O.SERVER, "the server failed", "Its log has the attempt and an error."),
            Rival(_O.NETWORK, "the network failed", "The server's log lacks the attempt."),
            Rival(_O.CLIENT, "the client failed", "The message names something of the client's."),
        ),
        missing=(Missing("a detail code with a rule", "A line in semconv.Detail, and a rule here."),),
    ),
)

_CANCELLATIONS: Final = (
    Rule(
        "cancelled.queue",
        _O.USER,
        (_CANCELLED, is_("reached_step", 1), Known("queue_position_last")),
        "The caller gave up after {duration}, waiting in the queue at place {position}.",
        "Compare with how long admitted clients waited at that time.",
        "Giving up is the caller's choice; it counts in no failure rate.",
        "README: the outcome of an attempt",
        cites=("queue_position_first",),
        rivals=(Rival(_O.CAPACITY, "the wait was too long to bear", "Admitted clients waited as long."),),
    ),
    Rule(
        "cancelled",
        _O.USER,
        (_CANCELLED,),
        "The caller gave up in {where}, {duration} after the attempt began.",
        "Ask why; if the wait was long, compare its steps with the cohort.",
        "Giving up is the caller's choice; it counts in no failure rate.",
        "README: the outcome of an attempt",
        cites=("reached_step",),
    ),
)

_VANISHED: Final = (
    Rival(_O.CLIENT, "the client's process ended: closed, killed or crashed", "Ask; nothing came from it afterwards."),
    Rival(_O.NETWORK, "the client lost its network", "Its telemetry arrives later, or never."),
    Rival(_O.TELEMETRY, "the attempt ended and its last spans were lost", "The same client was heard of again."),
)
_UNFINISHED_RULE: Final = Rule(
    "unfinished",
    _O.UNDETERMINED,
    (_UNFINISHED,),
    "The attempt began, was last heard of in {where} after {heard}, and never ended.",
    "Ask the user what they saw; look up the attempt id in the server's log.",
    "Beginnings are sent at once and ends are not; a client that vanishes and telemetry that is lost look alike.",
    "semconv.Outcome.UNFINISHED; OpenTelemetry sends a span only when it ends",
    _INSUFFICIENT,
    cites=("reached_step", "last_seen_ns", "span_count"),
    rivals=_VANISHED,
    missing=(
        Missing(
            "how the attempt ended",
            "Let the application close the scene and flush tracing at exit; let the server report its side.",
        ),
    ),
)

_ENDINGS: Final = (
    Rule(
        "lost.signalling_silent",
        _O.UNDETERMINED,
        (
            _CONNECTED,
            _LOST,
            is_("disconnect_detail", _D.SOCKET_LOST),
            is_("close_reason", NO_PING_ANSWER),
            AtMost("media_last_seen_ago_ms", 1000),
        ),
        "Connected for {lived}; then pings were not answered, though media had arrived {silent} before.",
        "Look up the session in the server's log: whether its signalling still worked.",
        "Media came by its own way until the end, so client, server and network were not all gone.",
        "the connector pings every 5 s and waits 5 s",
        _INSUFFICIENT,
        cites=("close_code", "connected_ns", "disconnected_ns"),
        rivals=(
            Rival(_O.SERVER, "the server's signalling hangs", "Other clients of the server fell silent too."),
            Rival(_O.NETWORK, "something on the way forgot the TCP connection", "Only this client was hit."),
        ),
        missing=(Missing("whether the pings arrived", "The server's own log of its sockets."),),
    ),
    Rule(
        "lost.socket_reset",
        _O.SERVER,
        (_CONNECTED, _LOST, is_("disconnect_detail", _D.SOCKET_LOST), AtMost("media_last_seen_ago_ms", 1000)),
        "Connected for {lived}; then the connection vanished, {silent} after the last media packet.",
        "Look at the server's log and restarts at that time; see whether other clients lost theirs in the same second.",
        "Media flowed until that very moment, so the path worked and the far end ended the socket.",
        "RFC 9293: a process that dies resets its sockets at once, a cut path falls silent",
        _LIKELY,
        cites=("close_code", "ended_by", "connected_ns", "disconnected_ns"),
        rivals=(Rival(_O.NETWORK, "a proxy or firewall reset the socket", "Only this client was hit."),),
    ),
    Rule(
        "lost.silence",
        _O.NETWORK,
        (_CONNECTED, _LOST, is_("disconnect_detail", _D.SOCKET_LOST), Over("media_last_seen_ago_ms", 1000)),
        "Connected for {lived}; then everything fell silent, and {silent} after the last packet it was called lost.",
        "Ask what happened to the client's network at that moment; it died {silent} before the recorded end.",
        "Media and signalling stopped together without a reset: a path that was cut.",
        "RFC 9293; RFC 7675",
        _LIKELY,
        cites=("close_code", "ended_by", "network_type", "connected_ns", "disconnected_ns"),
        rivals=(Rival(_O.SERVER, "the server's host died or was cut off", "Other clients of the server fell silent."),),
    ),
    Rule(
        "lost.media_silent",
        _O.UNDETERMINED,
        (_CONNECTED, _LOST, is_("disconnect_detail", _D.MEDIA_SILENT)),
        "Connected for {lived}; then media stopped, and after {silent} without a packet the session was called lost.",
        "Look up the session in the server's log: whether it was still sending media.",
        "The signalling connection was not lost first; a server that stops sending, a NAT that forgets and a cut path "
        "look alike.",
        "RFC 7675; RFC 4787, section 4.3: UDP mappings expire",
        _INSUFFICIENT,
        cites=("media_last_seen_ago_ms", "relay", "network_type", "connected_ns", "disconnected_ns"),
        rivals=(
            Rival(_O.SERVER, "the server stopped sending", "Its counters of sent packets stand still."),
            Rival(_O.NETWORK, "UDP, or the whole path, stopped passing", "Its counters of sent packets go on."),
        ),
        missing=(Missing("what the server sent", "The server's own outbound statistics."),),
    ),
    Rule(
        "lost.peer_closed",
        _O.SERVER,
        (_CONNECTED, _LOST, is_("disconnect_detail", _D.PEER_CLOSED), AtMost("media_last_seen_ago_ms", 5000)),
        "Connected for {lived}; then the server closed the media connection, {silent} after the last packet.",
        "Look up the session in the server's log for why it closed the peer connection.",
        "A goodbye came over a path that still worked.",
        "RFC 8446, section 6.1: close_notify",
        _LIKELY,
        cites=("ended_by", "connected_ns", "disconnected_ns"),
        rivals=(Rival(_O.CLIENT, "the client's WebRTC stack closed by itself", "The server's log has no close."),),
    ),
    Rule(
        "lost.peer_closed_late",
        _O.UNDETERMINED,
        (_CONNECTED, _LOST, is_("disconnect_detail", _D.PEER_CLOSED)),
        "Connected for {lived}; then the media connection closed, {silent} after the last packet.",
        "Look up the session in the server's log for whether and why it closed the peer connection.",
        "aiortc reports a path that died for 30 s in the same words as a goodbye.",
        "aiortc 1.16: consent fails after 6 checks of 5 s, and the state becomes closed, never failed",
        _INSUFFICIENT,
        cites=("media_last_seen_ago_ms", "ended_by", "connected_ns", "disconnected_ns"),
        rivals=(
            Rival(_O.NETWORK, "the path died", "The server's log has no close."),
            Rival(_O.SERVER, "the server closed", "The server's log has the close."),
        ),
        missing=(Missing("when the last media packet came", "Use a connector that sends dp.media.last_seen_ago_ms."),),
    ),
    Rule(
        "lost.server_error",
        _O.SERVER,
        (_CONNECTED, _LOST, is_("disconnect_detail", _D.SERVER_ERROR)),
        "Connected for {lived}; then the server failed or restarted, and said so (close {close}).",
        "Look at the server's log and deployments at that time.",
        "1001, 1011, 1012 and 1013 are what a server says of itself.",
        "RFC 6455, section 7.4.1; " + _SIGNALLING,
        cites=(*_CLOSE[:2], "connected_ns", "disconnected_ns"),
    ),
    Rule(
        "lost.token",
        _O.CONFIGURATION,
        (_CONNECTED, _LOST, is_("disconnect_detail", _D.TOKEN_REFUSED)),
        "Connected for {lived}; then the server no longer took the token (close {close}).",
        "Issue tokens that live as long as a session may.",
        "The server said so with a code that means nothing else.",
        _SIGNALLING + ": 4401",
        cites=(*_CLOSE[:2], "connected_ns", "disconnected_ns"),
    ),
    Rule(
        "lost.closed_by_server",
        _O.SERVER,
        (_CONNECTED, _LOST, is_("ended_by", EndedBy.SERVER)),
        "Connected for {lived}; then the server ended the session ({disconnect_detail}, close {close}).",
        "Look up the session in the server's log for why it closed.",
        "The server's own word or deed ended the session.",
        _SIGNALLING + ": Close codes",
        _LIKELY,
        cites=("disconnect_detail", *_CLOSE[:2], "connected_ns", "disconnected_ns"),
        rivals=(Rival(_O.NETWORK, "a proxy closed in the server's place", "The server's log lacks the close."),),
    ),
    Rule(
        "lost",
        _O.UNDETERMINED,
        (_CONNECTED, _LOST),
        "Connected for {lived}; then the session was lost ({disconnect_detail}), {silent} after the last media packet.",
        "Look at the server's log at that time; see whether other clients lost theirs in the same second.",
        "A server that dies and a network that is cut end alike, unless it is known when media was last seen.",
        "RFC 6455, section 7.1.5: 1006",
        _INSUFFICIENT,
        cites=("disconnect_detail", "ended_by", "close_code", "media_last_seen_ago_ms"),
        rivals=(
            Rival(_O.SERVER, "the server or its proxy died", "Other clients of the same server lost theirs too."),
            Rival(_O.NETWORK, "the client's network was cut", "Only this client was hit."),
        ),
        missing=(Missing("when the last media packet came", "Use a connector that sends dp.media.last_seen_ago_ms."),),
    ),
    Rule(
        "ended.idle",
        _O.USER,
        (_CONNECTED, is_("disconnect_reason", DisconnectReason.SESSION_TIMEOUT)),
        "Connected for {lived}; then the server ended the session because the user did nothing for its idle limit.",
        "If the user was active, check that the application reports activity; otherwise lengthen the project's limit.",
        "The project sets a limit without interaction, and the server said that it was reached.",
        _SIGNALLING + ": 4001, activity",
        _LIKELY,
        cites=("ended_by", "close_code", "connected_ns", "disconnected_ns"),
        rivals=(Rival(_O.CLIENT, "the user was active and the application did not say so", "Ask what the user did."),),
    ),
)

_LOSS_ONE_IN: Final = 20
_HIGH_RTT_S: Final = 0.4
_FROZEN_MS: Final = 2_000
"""Our own: a still face of two seconds is noticed as a fault; pauses in speech are shorter."""

_SESSIONS: Final = (
    Rule(
        "quality.loss",
        _O.NETWORK,
        (_CONNECTED, MoreThanOneIn("video_packets_lost", "video_packets_received", _LOSS_ONE_IN)),
        "Connected for {lived}, and {loss} of the video packets were lost on the way.",
        "Ask for the network (wifi, mobile, VPN) and try a wired one; see other sessions in the same region.",
        "Lost packets are counted by gaps in their numbers, at the client.",
        _TWILIO,
        _LIKELY,
        cites=("network_type", "region", "disconnect_reason", "last_sample_number"),
        rivals=(Rival(_O.SERVER, "the server's own network loses them", "Sessions of other networks lose as much."),),
    ),
    Rule(
        "quality.latency",
        _O.NETWORK,
        (_CONNECTED, Over("rtt_min_s", _HIGH_RTT_S)),
        "Connected for {lived}, and a packet took {rtt} to the server and back even at the best moment.",
        "Ask for the network (mobile, satellite, VPN) and whether a nearer region exists.",
        "The smallest of all round trips holds no waiting by chance.",
        _TWILIO,
        _LIKELY,
        cites=("rtt_max_s", "network_type", "region", "relay", "last_sample_number"),
        rivals=(Rival(_O.CONFIGURATION, "the client was sent to a far region or relay", "Compare client and region."),),
    ),
    Rule(
        "quality.frozen",
        _O.UNDETERMINED,
        (_CONNECTED, Over("video_frozen_max_ms", _FROZEN_MS)),
        "Connected for {lived}, and the picture stood still for {frozen} or more.",
        "Look up the session in the server's log for the frames it rendered at that time.",
        "Frames stopped being decoded while the session lived; packets tell only part of why.",
        "W3C WebRTC Statistics: freezeCount; the limit is ours",
        _INSUFFICIENT,
        cites=("video_packets_lost", "video_packets_received", "rtt_max_s", "last_sample_number"),
        rivals=(
            Rival(_O.SERVER, "the server rendered no frames", "Its log has a gap then."),
            Rival(
                _O.NETWORK, "frames were lost on the way", "Packet counts stand still or losses grow in the samples."
            ),
            Rival(_O.CLIENT, "the client was too busy to decode", "Packets went on arriving in the samples."),
        ),
        missing=(Missing("what the server rendered", "The server's own frame statistics."),),
    ),
    Rule(
        "connected.unheard",
        _O.USER,
        (_CONNECTED, Differ("media_requested", "media_granted")),
        "Connected after {duration}, with {media_granted} instead of {media_requested}.",
        "If the user says that the digital person cannot hear or see them: this is why. Ask them to allow the device.",
        "The media was requested and not required, so the session formed without it.",
        "telemetry/connector/scene.py: media is requested and required separately",
        _LIKELY,
        cites=("media_required",),
        rivals=(Rival(_O.CLIENT, "the runtime could not capture", "Ask whether a permission question came."),),
    ),
    Rule(
        "connected.ended",
        _O.NOBODY,
        (_CONNECTED, is_("disconnect_reason", DisconnectReason.NORMAL)),
        "Connected after {duration}{relayed}, and ended normally by the {ended_by} after {lived}.",
        "Nothing failed. If the user complains, ask what they saw, and compare the steps with the cohort.",
        "The session formed, and one side closed it in good order.",
        _SIGNALLING,
        cites=("ended_by", "relay", "connected_ns", "disconnected_ns"),
    ),
    Rule(
        "connected.open",
        _O.NOBODY,
        (_CONNECTED, Unknown("disconnect_reason")),
        "Connected after {duration}{relayed}; no end of the session is recorded, it was last heard of after {heard}.",
        "If it should still be alive, look at it again; if the user says it broke, ask when.",
        "The session formed. A session that lives and one whose client vanished differ only by what comes later.",
        "semconv.py: sample",
        _LIKELY,
        cites=("connected_ns", "last_seen_ns", "last_sample_number", "relay"),
        rivals=_VANISHED,
    ),
    Rule(
        "connected.other",
        _O.UNDETERMINED,
        (_CONNECTED,),
        "Connected after {duration}, and ended for a reason that has no rule ({disconnect_reason}).",
        "Look up the session in the server's log; then add a rule.",
        "No rule fits these facts.",
        "this table",
        _INSUFFICIENT,
        cites=("disconnect_reason", "disconnect_detail", "ended_by"),
        rivals=(
            Rival(_O.SERVER, "the server ended it", "Its log has the end."),
            Rival(_O.CLIENT, "the client ended it", "Ask the user."),
        ),
        missing=(Missing("a disconnect reason with a rule", "A line in semconv.DisconnectReason, and a rule here."),),
    ),
)

_LAST: Final = Rule(
    "unknown",
    _O.TELEMETRY,
    (),
    "How this attempt ended was recorded in a word that nobody knows ({outcome}).",
    "Compare the version of the client with this store's.",
    "The outcome is one of a closed list.",
    "semconv.Outcome",
    _INSUFFICIENT,
    cites=("outcome", "client_version"),
    missing=(Missing("an outcome of the closed list", "Use a connector that keeps the span contract."),),
)

RULES: Final = (
    *_DEVICES,
    *_REACHING,
    *_SEARCHING,
    *_SERVER,
    *_NEGOTIATION,
    *_ICE_RULES,
    *_MEDIA,
    *_OTHER_FAILURES,
    *_CANCELLATIONS,
    _UNFINISHED_RULE,
    *_ENDINGS,
    *_SESSIONS,
    _LAST,
)
"""In the order in which they are tried."""


def decide(facts: Mapping[str, Value]) -> Rule:
    """The first rule that holds."""
    return next(rule for rule in RULES if rule.holds(facts))


def view() -> str:
    """The table as the view `verdicts`: the text of `queries/schema/verdicts.sql`.

    A verdict is one text, taken apart at the end: a list of rules for each owner would cost DuckDB a join each.
    """
    decisions = []
    for outcome, rules in groupby(RULES[:-1], key=lambda rule: rule.when[0]):
        *others, last = rules  # the last one asks nothing more
        whens = [f"when {' and '.join(more.sql() for more in rule.when[1:])} then {_verdict(rule)}" for rule in others]
        chosen = "\n      ".join(["case", *whens, f"else {_verdict(last)}"]) + "\n    end" if whens else _verdict(last)
        decisions.append(f"when {outcome.sql()} then {chosen}")
    return _VIEW.format(decisions="\n    ".join(decisions), last=_verdict(RULES[-1]))


def _verdict(rule: Rule) -> str:
    return f"'{rule.id} {rule.owner} {rule.certainty}'"


_VIEW: Final = """\
-- One row per attempt with its verdict: the rule that decided, whose it was, and how certain that is.
--
-- Written by `python -m telemetry.support.rules` from the table there, which gives each rule its reason and source.
-- The first rule that holds decides.
-- An owner `undetermined` means that the facts do not tell, `nobody` that nothing failed.

create view verdicts as
with judged as (
select
  *,
  case
    {decisions}
    else {last}
  end as verdict
from connections
)
select
  * exclude (verdict),
  split_part(verdict, ' ', 1) as rule,
  split_part(verdict, ' ', 2) as owner,
  split_part(verdict, ' ', 3) as certainty
from judged;
"""

if __name__ == "__main__":
    print(view(), end="")
