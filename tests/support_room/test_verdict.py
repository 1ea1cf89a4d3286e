"""Verdicts of whole attempts: the rule, the owner, the sentence with its number, and the spans that prove it."""

import pytest

from telemetry.support.asking import ask
from telemetry.support.rule import Certainty, Owner
from telemetry.support.verdict import duration, judge
from tests.support.source import MemorySource
from tests.support.spans import attempt, table

_ICE = {
    "ice_gathered_host": 2,
    "ice_gathered_srflx": 0,
    "ice_gathered_relay": 0,
    "ice_remote_host": 1,
    "ice_remote_srflx": 0,
    "ice_remote_relay": 0,
    "ice_servers": 0,
}


def _spans(number=1, **given):
    """The spans of one attempt; columns that `attempt` does not know are set on `connect` and `webrtc.ice`."""
    columns = {name: given.pop(name) for name in [*_ICE, "rtt_s", "close_code", "close_reason"] if name in given}
    rows = attempt(number, **given)
    for row in rows:
        if row["name"] in ("connect", "webrtc.ice"):
            row.update(columns)
    return rows


def _judged(**given):
    return _judge(MemorySource(table(_spans(**given))), 1)


def _judge(source, number):
    trace_id = {"trace_id": f"{number:032x}"}
    return judge(ask(source, "attempt", trace_id)[0], ask(source, "spans_of", trace_id))


def _failed(error, part, detail, **given):
    return {"outcome": "failed", "error": error, "stops_in": part, "detail": detail, **given}


_CASES = [
    (_failed("noUserMedia", "user_media", "permission_denied", media="microphone"), "media.permission_denied", "user"),
    (_failed("noUserMedia", "user_media", "device_not_found", media="camera"), "media.device_not_found", "user"),
    (_failed("noUserMedia", "user_media", "device_in_use", media="camera"), "media.device_in_use", "user"),
    (_failed("notSupported", "user_media", "codec_missing"), "client.codec_missing", "client"),
    (_failed("serverConnectionFailed", "websocket.open", "dns"), "open.dns", "undetermined"),
    (_failed("serverConnectionFailed", "websocket.open", "tcp_refused"), "open.tcp_refused", "server"),
    (_failed("serverConnectionFailed", "websocket.open", "tcp_timeout"), "open.tcp_timeout", "network"),
    (_failed("serverConnectionFailed", "websocket.open", "tls"), "open.tls", "configuration"),
    (_failed("serverConnectionFailed", "websocket.open", "http_401"), "open.http_401", "configuration"),
    (_failed("serverConnectionFailed", "websocket.open", "http_403"), "open.http_403", "undetermined"),
    (_failed("serverConnectionFailed", "websocket.open", "http_503"), "open.http_gateway", "server"),
    (
        _failed("serverConnectionFailed", "queue", "scene_unknown", close_code=4404),
        "search.scene_unknown",
        "configuration",
    ),
    (_failed("serverConnectionFailed", "queue", "socket_lost"), "server.socket_lost", "undetermined"),
    (_failed("serverConnectionFailed", "queue", "socket_lost", close_code=1006), "server.socket_reset", "server"),
    (
        _failed("serverConnectionFailed", "queue", "socket_lost", close_code=1006, close_reason="no answer to a ping"),
        "network.socket_silent",
        "network",
    ),
    (_failed("serverConnectionFailed", "queue", "close_4999", close_code=4999), "server.closed", "server"),
    (_failed("serverConnectionFailed", "queue", "protocol_violation"), "server.protocol_violation", "server"),
    (
        _failed("serverConnectionFailed", "queue", "protocol_violation", close_code=4400),
        "server.protocol_violation_ours",
        "client",
    ),
    (_failed("noScene", "queue", "busy", close_code=4503), "queue.busy", "capacity"),
    (_failed("noScene", "queue", "queue_timeout", close_code=4408), "queue.timeout", "capacity"),
    (_failed("sessionTimeout", "queue", "step_deadline"), "queue.silent_server", "server"),
    (_failed("sessionTimeout", "assets", "step_deadline"), "server.assets_stalled", "server"),
    (_failed("sessionTimeout", "webrtc.negotiate", "server_timeout"), "negotiate.unanswered", "server"),
    (_failed("sessionTimeout", "user_media", "step_deadline"), "media.permission_unanswered", "user"),
    (_failed("mediaStreamFailed", "webrtc.ice", "ice_no_pair"), "ice.unrecorded", "undetermined"),
    (_failed("mediaStreamFailed", "webrtc.ice", "ice_no_pair", **_ICE), "ice.no_relay_offered", "undetermined"),
    (
        _failed("mediaStreamFailed", "webrtc.ice", "ice_no_pair", **{**_ICE, "ice_servers": 2}),
        "ice.servers_unreached",
        "network",
    ),
    (
        _failed(
            "mediaStreamFailed", "webrtc.ice", "ice_no_pair", **{**_ICE, "ice_servers": 2, "ice_gathered_srflx": 1}
        ),
        "ice.relay_not_granted",
        "configuration",
    ),
    (
        _failed(
            "mediaStreamFailed", "webrtc.ice", "ice_no_pair", **{**_ICE, "ice_servers": 2, "ice_gathered_relay": 1}
        ),
        "ice.relay_unpaired",
        "server",
    ),
    (
        _failed("mediaStreamFailed", "webrtc.ice", "ice_no_candidates", **{**_ICE, "ice_remote_host": 0}),
        "ice.none_from_server",
        "server",
    ),
    (
        _failed("mediaStreamFailed", "webrtc.ice", "ice_no_candidates", **{**_ICE, "ice_gathered_host": 0}),
        "ice.none_gathered",
        "client",
    ),
    (_failed("mediaStreamFailed", "webrtc.dtls", "dtls"), "dtls.refused", "server"),
    (_failed("mediaStreamFailed", "webrtc.dtls", "dtls", connecting_ms=20_000), "dtls.unanswered", "undetermined"),
    (_failed("mediaStreamFailed", "media.first_frame", "no_first_frame"), "media.never_started", "server"),
    (_failed("mediaStreamFailed", "ConnectingToDigitalPerson", "novel"), "unknown.failure", "undetermined"),
    ({"outcome": "cancelled", "stops_in": "websocket.open"}, "cancelled", "user"),
    ({"outcome": "unfinished", "stops_in": "assets"}, "unfinished", "undetermined"),
    ({}, "connected.ended", "nobody"),
    ({"disconnect": None, "samples": 3}, "connected.open", "nobody"),
    ({"disconnect": "sessionTimeout", "ended_by": "server", "close_code": 4001}, "ended.idle", "user"),
    (
        {
            "disconnect": "connectionLost",
            "ended_by": "network",
            "disconnect_detail": "socket_lost",
            "media_last_seen_ago_ms": 40,
        },
        "lost.socket_reset",
        "server",
    ),
    (
        {
            "disconnect": "connectionLost",
            "ended_by": "network",
            "disconnect_detail": "socket_lost",
            "media_last_seen_ago_ms": 9_000,
        },
        "lost.silence",
        "network",
    ),
    (
        {
            "disconnect": "connectionLost",
            "disconnect_detail": "socket_lost",
            "media_last_seen_ago_ms": 40,
            "close_reason": "no answer to a ping",
        },
        "lost.signalling_silent",
        "undetermined",
    ),
    (
        {"disconnect": "connectionLost", "ended_by": "network", "disconnect_detail": "socket_lost"},
        "lost",
        "undetermined",
    ),
    (
        {"disconnect": "connectionLost", "ended_by": "network", "disconnect_detail": "media_silent"},
        "lost.media_silent",
        "undetermined",
    ),
    ({"samples": 2, "sample": {"rtt_s": 1.9}}, "quality.latency", "network"),
    (
        {"samples": 2, "sample": {"video_packets_lost": 30, "video_packets_received": 70}},
        "quality.loss",
        "network",
    ),
    ({"media": "microphone", "media_granted": "none"}, "connected.unheard", "user"),
]


@pytest.fixture(scope="module")
def all_cases():
    """The attempts of all cases; the number of each is its place."""
    return MemorySource(table(*(_spans(number, **given) for number, (given, _, _) in enumerate(_CASES, 1))))


@pytest.mark.parametrize("number", range(1, len(_CASES) + 1), ids=[case[1] for case in _CASES])
def test_rule_and_owner(all_cases, number):
    """Each kind of attempt is decided by its rule, and belongs to its owner."""
    _, rule, owner = _CASES[number - 1]

    verdict = _judge(all_cases, number)

    assert (verdict.rule, verdict.owner) == (rule, owner)


def test_evidence_names_spans():
    """Every fact that a span states is cited with that span's id, name and time."""
    verdict = _judged(**_failed("noScene", "queue", "busy"))

    by_fact = {item.fact: item for item in verdict.evidence}
    assert by_fact["detail"].value == "busy"
    assert (by_fact["detail"].span_name, by_fact["detail"].span_id) == ("connect", f"{1 << 16:016x}")


def test_sentence_carries_the_number():
    """The sentence says how long the blocking part took."""
    verdict = _judged(**_failed("sessionTimeout", "assets", "step_deadline", downloading_ms=30_000))

    assert "30.0 s" in verdict.sentence


def test_insufficient_evidence_says_how_to_record_it():
    """Where the facts do not tell, no owner is named, the suspects are, and the verdict says what to record."""
    verdict = _judged(**_failed("mediaStreamFailed", "webrtc.ice", "ice_no_pair"))

    assert verdict.certainty is Certainty.INSUFFICIENT
    assert verdict.suspects == (Owner.NETWORK, Owner.SERVER, Owner.CONFIGURATION)
    assert "dp.ice.gathered" in verdict.missing[0].record


def test_hostile_message_stays_text():
    """Braces in a message are not taken for the names of facts."""
    verdict = _judged(**_failed("serverConnectionFailed", "websocket.open", "tls", message="{server} {0} {x!r}"))

    assert "{server} {0} {x!r}" in verdict.sentence


def test_view_agrees():
    """The relation `verdicts` judges the same attempts alike."""
    source = MemorySource(table(attempt(1, **_failed("noScene", "queue", "busy")), attempt(2)))

    rows = source.query("select rule, owner from verdicts order by attempt_id").to_pylist()

    assert rows == [
        {"rule": "queue.busy", "owner": "capacity"},
        {"rule": "connected.ended", "owner": "nobody"},
    ]


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [
        (0, "0.0 ms"),
        (85_000_000, "85 ms"),
        (999_600_000, "1.00 s"),
        (3_204_000_000, "3.20 s"),
        (59_960_000_000, "60.0 s"),
        (250_000_000_000, "4 min 10 s"),
        (7_500_000_000_000, "2 h 5 min"),
    ],
)
def test_duration(nanoseconds, words):
    """A length of time is written with about three digits."""
    assert duration(nanoseconds) == words
