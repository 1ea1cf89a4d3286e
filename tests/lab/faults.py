"""The faults of the laboratory, as data: what is done, where, and what the verdict must say. No I/O.

Each is played in a network of its own. What a server does wrong is a scenario of the simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from telemetry.semconv import State
from telemetry.support.rule import Owner
from tests.lab.network import SERVER, TURN
from tests.lab.truth import TRUTHS, Truth

Deed = Literal["filter", "rebind", "kill_client", "kill_server", "hang_server", "collector_down"]
"""`filter` adds rules to the router; `hang_server` stops its process without ending it."""

UDP: Final = "meta l4proto udp"
DIRECT_UDP: Final = (f"ip daddr {SERVER} {UDP} drop", f"ip saddr {SERVER} {UDP} drop")
"""Media cannot go directly, and may go through the TURN server."""
RTP: Final = f"{UDP} @th,64,8 128-191 drop"
DTLS: Final = f"{UDP} @th,64,8 20-63 drop"
"""By the first byte after the UDP header, as RFC 7983 tells them apart."""
USER: Final = "lab"
PASSWORD: Final = "lab-password"


@dataclass(frozen=True)
class Then:
    """What happens on the way."""

    at: State
    """When the client says that it is in this state."""
    does: Deed
    after_s: float = 0.5
    rules: tuple[str, ...] = ("drop",)
    lasts_s: float = 0.0


@dataclass(frozen=True)
class Fault:
    """One fault and its truth."""

    name: str
    truth: Truth
    scenario: str = "steady"
    scheme: Literal["ws", "wss"] = "ws"
    host: str = SERVER
    listens: bool = True
    """Whether there is a server at all."""
    certificate: Literal["valid", "expired", "other_name"] | None = None
    token: str | None = None
    """What the server asks for."""
    proxied: bool = False
    """Whether the client must go through a proxy."""
    turn: tuple[str, ...] = ()
    """The URLs of ICE servers that the client is told of. With any, coturn runs."""
    turn_password: str = PASSWORD
    """What the client is told; the TURN server expects `PASSWORD`."""
    rules: tuple[str, ...] = ()
    """What the router drops from the beginning."""
    nat: bool = False
    delay_s: float = 0.0
    """One way. 0 means a wire without delay."""
    then: Then | None = None
    client: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ClientOrder`."""
    shows: Mapping[str, Any] = field(default_factory=dict)
    """What must stand in the attempt's row of `connections` besides."""
    tells: str | None = None
    """What the story must say is missing. None means nothing in particular."""


def _limits(**limits: float) -> dict[str, Any]:
    return {"limits": limits}


_TO_THE_END: Final = {"leaves_after_s": None}
_SHORT_OPEN: Final = _limits(websocket_open_s=3)
_SHORT_ICE: Final = _limits(ice_s=5)
_HEARTBEATS: Final = {"sample_every_s": 1.0}
_TURN_UDP: Final = (f"stun:{TURN}:3478", f"turn:{TURN}:3478?transport=udp")
_TURN_TCP: Final = (f"turn:{TURN}:3478?transport=tcp",)


def _of_server(name: str, scenario: str, **more: Any) -> Fault:
    """What the simulator alone does wrong, over a network that works."""
    return Fault(name, TRUTHS[scenario], scenario, **more)


_OPENING: Final = (
    Fault("healthy", Truth(Owner.NOBODY, "connected.ended")),
    Fault("healthy_behind_nat", Truth(Owner.NOBODY, "connected.ended"), nat=True),
    Fault("healthy_tls", Truth(Owner.NOBODY, "connected.ended"), scheme="wss", certificate="valid"),
    Fault("dns_no_such_name", Truth(Owner.CONFIGURATION, "open.dns"), host="person.lab"),
    Fault(
        "dns_unanswered",
        Truth(Owner.NETWORK, "open.dns"),
        host="person.lab",
        rules=(f"{UDP} udp dport 53 drop",),
    ),
    Fault("tcp_refused", Truth(Owner.SERVER, "open.tcp_refused"), listens=False),
    Fault(
        "tcp_refused_by_firewall",
        Truth(Owner.NETWORK, "open.tcp_refused"),
        rules=("tcp dport 8443 reject with tcp reset",),
    ),
    Fault(
        "tcp_forbidden_by_router",
        Truth(Owner.NETWORK, "open.tcp_unreachable"),
        rules=("tcp dport 8443 reject with icmpx admin-prohibited",),
    ),
    Fault(
        "tcp_black_hole",
        Truth(Owner.NETWORK, "open.tcp_timeout"),
        rules=("tcp dport 8443 drop",),
        client=_SHORT_OPEN,
    ),
    Fault("tls_expired", Truth(Owner.CONFIGURATION, "open.tls"), scheme="wss", certificate="expired"),
    Fault("tls_wrong_name", Truth(Owner.CONFIGURATION, "open.tls"), scheme="wss", certificate="other_name"),
    Fault("tls_plain_server", Truth(Owner.CONFIGURATION, "open.tls"), scheme="wss"),
    Fault("proxy_403", Truth(Owner.NETWORK, "open.http_403"), proxied=True),
    Fault("token_wrong", Truth(Owner.CONFIGURATION, "open.http_401"), token="right", client={"token": "wrong"}),
    _of_server("token_expired", "expired_token"),
)

_WAITING: Final = (
    _of_server("server_busy", "busy"),
    _of_server("queue_full", "queue_full"),
    _of_server("queue_timeout", "queue_gave_up"),
    _of_server("user_cancels", "cancelled_in_queue", client={"gives_up_s": 1.5}),
    _of_server("asset_stall", "assets_stall", client=_limits(downloading_s=3)),
    _of_server("asset_missing", "asset_missing"),
    _of_server("permission_denied", "permission_denied", client={"required_media": "microphone", "devices": "denied"}),
    _of_server("device_missing", "device_missing", client={"required_media": "camera", "devices": "real"}),
    _of_server("device_busy", "device_in_use", client={"required_media": "microphone", "devices": "in_use"}),
)

_MEDIA: Final = (
    Fault("udp_blocked", Truth(Owner.NETWORK, "ice.no_relay_offered"), rules=(f"{UDP} drop",), client=_SHORT_ICE),
    Fault(
        "udp_blocked_turn_udp",
        Truth(Owner.NETWORK, "ice.servers_unreached"),
        rules=(f"{UDP} drop",),
        turn=_TURN_UDP,
        client=_SHORT_ICE,
    ),
    Fault(
        "udp_blocked_turn_tcp",
        Truth(Owner.NOBODY, "connected.ended"),
        rules=(f"{UDP} drop",),
        turn=_TURN_TCP,
        shows={"relay": True, "local_candidate_type": "relay"},
    ),
    Fault(
        "direct_blocked_turn_udp",
        Truth(Owner.NOBODY, "connected.ended"),
        rules=DIRECT_UDP,
        turn=_TURN_UDP,
        shows={"relay": True},
    ),
    Fault(
        "turn_wrong_credentials",
        Truth(Owner.CONFIGURATION, "ice.relay_not_granted"),
        rules=DIRECT_UDP,
        turn=_TURN_UDP,
        turn_password="an older one",
        client=_SHORT_ICE,
    ),
    Fault(
        "turn_tcp_wrong_credentials",
        Truth(Owner.CONFIGURATION, "ice.servers_unreached"),
        rules=(f"{UDP} drop",),
        turn=_TURN_TCP,
        turn_password="an older one",
        client=_SHORT_ICE,
    ),
    Fault(
        "ice_one_way",
        Truth(Owner.NETWORK, "ice.no_relay_offered"),
        rules=(f"ip saddr {SERVER} {UDP} drop",),
        client=_SHORT_ICE,
    ),
    Fault("dtls_blocked", Truth(Owner.NETWORK, "dtls.unanswered"), rules=(DTLS,)),
    _of_server("media_never_starts", "no_media", client=_limits(first_frame_s=3)),
    Fault(
        "media_filtered",
        Truth(Owner.NETWORK, "media.never_started"),
        rules=(RTP,),
        client=_limits(first_frame_s=3),
    ),
    _of_server("media_stops", "stops_media", client={**_TO_THE_END, **_limits(media_silence_s=3)}),
    Fault(
        "loss_30_percent",
        Truth(Owner.NETWORK, "quality.loss"),
        rules=(f"{UDP} numgen random mod 100 < 30 drop",),
        client={"leaves_after_s": 8, "limits": {**_HEARTBEATS, "dtls_s": 15}},
    ),
    Fault(
        "latency_2_s",
        Truth(Owner.NETWORK, "quality.latency"),
        delay_s=1.0,
        client={"requested_media": "microphone", "leaves_after_s": 12, "limits": {**_HEARTBEATS, "dtls_s": 15}},
    ),
)

_MID_SESSION: Final = (
    _of_server("idle_timeout", "idle_timeout", client=_TO_THE_END),
    Fault(
        "media_cut_mid_session",
        Truth(Owner.NETWORK, "lost.media_silent"),
        then=Then(State.CONNECTED, "filter", rules=(f"{UDP} drop",)),
        client=_TO_THE_END,
    ),
    Fault(
        "path_cut_mid_session",
        Truth(Owner.NETWORK, "lost.media_silent"),
        then=Then(State.CONNECTED, "filter"),
        client=_TO_THE_END,
    ),
    Fault(
        "path_cut_searching",
        Truth(Owner.NETWORK, "network.socket_silent"),
        "silent",
        then=Then(State.SEARCHING, "filter"),
    ),
    Fault(
        "path_cut_downloading",
        Truth(Owner.NETWORK, "network.socket_silent"),
        "assets_stall",
        then=Then(State.DOWNLOADING, "filter"),
    ),
    Fault(
        "nat_rebinding",
        Truth(Owner.NETWORK, "lost.media_silent"),
        nat=True,
        then=Then(State.CONNECTED, "rebind"),
        client=_TO_THE_END,
    ),
)

_STAYS_IN: Final = {
    State.SEARCHING: "silent",
    State.DOWNLOADING: "assets_stall",
    State.CONNECTING: "never_answers_ice",
    State.CONNECTED: "steady",
}
"""A scenario that keeps a client in a state for long enough."""


def _each_state(name: str, deed: Deed, truths: Mapping[State, Truth], after_s: float) -> tuple[Fault, ...]:
    return tuple(
        Fault(
            f"{name}_{state.step}_{state}",
            truth,
            _STAYS_IN[state],
            then=Then(state, deed, after_s),
            client={**_TO_THE_END, **_limits(ice_s=20)},
        )
        for state, truth in truths.items()
    )


_BEFORE_CONNECTED: Final = (State.SEARCHING, State.DOWNLOADING, State.CONNECTING)
_KILLED: Final = (
    *_each_state(
        "server_killed",
        "kill_server",
        {
            **dict.fromkeys(_BEFORE_CONNECTED, Truth(Owner.SERVER, "server.socket_reset")),
            State.CONNECTED: Truth(Owner.SERVER, "lost.socket_reset"),
        },
        0.5,
    ),
    # After the half second in which beginnings are exported.
    *_each_state(
        "client_killed",
        "kill_client",
        {
            **dict.fromkeys(_BEFORE_CONNECTED, Truth(Owner.CLIENT, "unfinished")),
            State.CONNECTED: Truth(Owner.CLIENT, "connected.open"),
        },
        2.0,
    ),
    Fault(
        "server_hangs",
        Truth(Owner.SERVER, "network.socket_silent"),
        "silent",
        then=Then(State.SEARCHING, "hang_server"),
    ),
)

_TELEMETRY: Final = (
    Fault(
        "collector_down_briefly",
        Truth(Owner.NOBODY, "connected.ended"),
        then=Then(State.SEARCHING, "collector_down", after_s=0.0, lasts_s=3),
        client={"leaves_after_s": 6},
    ),
    Fault(
        "collector_down_for_a_minute",
        Truth(Owner.NOBODY, "connected.ended"),
        then=Then(State.CONNECTED, "collector_down", after_s=2.0, lasts_s=60),
        client={"leaves_after_s": 75, "limits": _HEARTBEATS},
        tells="heartbeats are missing",
    ),
)

FAULTS: Final[Mapping[str, Fault]] = {
    fault.name: fault for fault in (*_TELEMETRY[::-1], *_MID_SESSION, *_KILLED, *_MEDIA, *_WAITING, *_OPENING)
}
"""The longest first, for they are played several at a time."""

QUICK: Final = (
    "dns_unanswered",
    "tcp_refused",
    "dtls_blocked",
    "udp_blocked_turn_tcp",
    "client_killed_2_DownloadingAssets",
)
"""What `make test` has time for."""
