"""Transcripts of the protocol: this comes in at this time, that goes out. No clock, no network."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import semconv
from telemetry.connector import messages
from telemetry.connector.events import (
    AbandonUserMedia,
    AnswerApplied,
    ApplyAnswer,
    AssetsLoaded,
    AttemptBegan,
    AttemptEnded,
    Cancel,
    Connect,
    DtlsConnected,
    FrameDecoded,
    IceCompleted,
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
from telemetry.connector.plan import Limits, UserMedia
from telemetry.connector.protocol import NEXT, PLACES, TRAIL_LENGTH, Place
from telemetry.semconv import (
    ConnectionError,
    Detail,
    DisconnectReason,
    EndedBy,
    Outcome,
    Part,
    State,
    StepOutcome,
)
from tests.support.transcript import (
    ACCEPTED,
    ANSWER_SDP,
    MS,
    NO_CANDIDATES_SDP,
    OFFER_SDP,
    T0,
    WAY,
    Transcript,
    said,
)

ON_THE_WAY = [place for place in Place if Place.USER_MEDIA < place < Place.CONNECTED]
WITH_PEER = [place for place in ON_THE_WAY if place >= Place.NEGOTIATE]
STEPS = (State.SEARCHING, State.DOWNLOADING, State.CONNECTING)


# The way to a session.


def test_ordinary_attempt():
    """Without user media, an attempt passes every place in order and tells each change once."""
    script = Transcript().go(Place.CONNECTED)

    assert script.commands == [
        OpenSocket(),
        Send(messages.Hello("attempt-1", "test/1")),
        MakeOffer(()),
        Send(messages.Offer(OFFER_SDP)),
        ApplyAnswer(ANSWER_SDP),
    ]
    assert [(event.before, event.after) for event in script.of(Transition)] == [
        (State.DISCONNECTED, State.SEARCHING),
        (State.SEARCHING, State.DOWNLOADING),
        (State.DOWNLOADING, State.CONNECTING),
        (State.CONNECTING, State.CONNECTED),
    ]
    assert [event.step for event in script.of(StepEnded)] == list(STEPS)
    assert [event.part for event in script.of(PartEnded)] == [
        Part.WEBSOCKET_OPEN,
        Part.QUEUE,
        Part.ASSETS,
        Part.NEGOTIATE,
        Part.ICE,
        Part.DTLS,
        Part.FIRST_FRAME,
    ]
    assert script.ended.outcome is Outcome.CONNECTED
    assert script.protocol.state is State.CONNECTED
    assert script.protocol.session_id == "session-1"


def test_order_of_events_at_a_change_of_step():
    """A part ends before its step, a step before the transition, and all at the same nanosecond."""
    script = Transcript().go(Place.QUEUE)
    script.events.clear()
    script.take(ACCEPTED)

    assert [type(event) for event in script.events] == [SessionAccepted, PartEnded, StepEnded, Transition]
    assert {event.at_ns for event in script.events} == {script.now_ns}


def test_parts_add_up():
    """The parts of a step follow one another without gap or overlap, from its begin to its end."""
    script = Transcript(requested=UserMedia.CAMERA).take(Connect(), UserMediaOpened(UserMedia.CAMERA))
    script.go(Place.CONNECTED)
    begins = {event.after: event.at_ns for event in script.of(Transition)}
    ends = {event.step: event.at_ns for event in script.of(StepEnded)}

    for step in STEPS:
        at_ns = begins[step]
        for part in (event for event in script.of(PartEnded) if event.step is step):
            assert part.began_ns == at_ns
            at_ns = part.at_ns
        # What is left over in the last step is the wait for `started`.
        assert at_ns == ends[step] - (10 * MS if step is State.CONNECTING else 0)


def test_started_before_the_media():
    """When `started` comes first, the first frame alone completes the session."""
    script = Transcript().go(Place.ICE)
    script.take(said(messages.Started()), IceCompleted(), DtlsConnected(), FrameDecoded())

    assert script.protocol.place is Place.CONNECTED
    assert script.of(PartEnded)[-1].at_ns == script.of(StepEnded)[-1].at_ns


@pytest.mark.parametrize("place", [Place.NEGOTIATE, Place.ICE, Place.DTLS, Place.FIRST_FRAME])
def test_started_at_any_time_after_the_answer(place):
    """`started` is in order from the answer on."""
    script = Transcript().go(place)
    if place is Place.NEGOTIATE:
        script.take(OfferMade(OFFER_SDP), said(messages.Answer(ANSWER_SDP)))
    script.take(said(messages.Started()))

    assert script.protocol.place is place


def test_first_transition_says_what_was_asked():
    """An attempt that never ends is known from its first transition."""
    script = Transcript(number=2, requested=UserMedia.CAMERA, resume="session-0").take(Connect())
    (first,) = script.of(Transition)
    (began,) = script.of(AttemptBegan)

    asked = {
        semconv.ATTEMPT_NUMBER: 2,
        semconv.MEDIA_REQUESTED: "camera",
        semconv.MEDIA_REQUIRED: "none",
        semconv.RESUME_REQUESTED: True,
    }
    assert began.attributes == asked
    assert first.attributes == asked | {semconv.STATE: "SearchingForDigitalPerson", semconv.STEP_NUMBER: 1}


def test_end_of_attempt_says_what_is_known():
    """The attempt's end tells where the digital person runs, what was granted and which messages passed."""
    attributes = Transcript().go(Place.CONNECTED).ended.attributes

    assert attributes == {
        semconv.ATTEMPT_NUMBER: 1,
        semconv.MEDIA_REQUESTED: "none",
        semconv.MEDIA_REQUIRED: "none",
        semconv.MEDIA_GRANTED: "none",
        semconv.RESUME_REQUESTED: False,
        semconv.RESUMED: False,
        semconv.SIGNALLING_VERSION: "dp.signalling.v1",
        semconv.SERVER_REGION: "eu-west-1",
        semconv.SERVER_INSTANCE: "dp-7",
        semconv.OUTCOME: "connected",
        semconv.SIGNALLING_TRAIL: (
            *(">hello", "<accepted", "<assets", "<assets", "<ready"),
            *(">offer", "<answer", "<started"),
        ),
    }


def test_trail_is_short():
    """Only the last few messages are told."""
    script = Transcript().go(Place.QUEUE).take(*(said(messages.Queued(1)) for _ in range(100))).take(Cancel())

    assert script.ended.attributes[semconv.SIGNALLING_TRAIL] == ("<queued",) * TRAIL_LENGTH


# User media.


def test_user_media_granted():
    """What is requested is opened first, and the server is told what will come."""
    script = Transcript(requested=UserMedia.MICROPHONE_AND_CAMERA).take(Connect())
    script.take(UserMediaOpened(UserMedia.MICROPHONE_AND_CAMERA)).go(Place.QUEUE)

    assert script.commands[0] == OpenUserMedia(UserMedia.MICROPHONE_AND_CAMERA)
    assert Send(messages.Hello("attempt-1", "test/1", None, True, True)) in script.commands
    assert script.of(PartEnded)[0].part is Part.USER_MEDIA


def test_requested_media_may_be_missing():
    """Media that are only requested do not stop the session."""
    script = Transcript(requested=UserMedia.MICROPHONE_AND_CAMERA, required=UserMedia.MICROPHONE).take(Connect())
    script.take(UserMediaOpened(UserMedia.MICROPHONE, Detail.DEVICE_NOT_FOUND)).go(Place.CONNECTED)

    assert script.ended.attributes[semconv.MEDIA_GRANTED] == "microphone"


@pytest.mark.parametrize(
    ("detail", "error", "retryable"),
    [
        (Detail.PERMISSION_DENIED, ConnectionError.NO_USER_MEDIA, False),
        (Detail.DEVICE_NOT_FOUND, ConnectionError.NO_USER_MEDIA, False),
        (Detail.DEVICE_IN_USE, ConnectionError.NO_USER_MEDIA, True),
        (None, ConnectionError.NO_USER_MEDIA, False),
        (Detail.CAPTURE_MISSING, ConnectionError.NOT_SUPPORTED, False),
        (Detail.CODEC_MISSING, ConnectionError.NOT_SUPPORTED, False),
    ],
)
def test_required_media_missing(detail, error, retryable):
    """Without the media that are required the attempt fails before any socket is opened."""
    script = Transcript(requested=UserMedia.CAMERA, required=UserMedia.CAMERA).take(Connect())
    script.take(UserMediaOpened(UserMedia.NONE, detail))

    told = detail or Detail.DEVICE_FAILED
    assert script.failure == (error, told, State.SEARCHING, Part.USER_MEDIA, retryable)
    assert script.commands == [OpenUserMedia(UserMedia.CAMERA), Release()]


def test_requested_media_keep_nobody_waiting():
    """When media that are only requested are not there in time, the session forms without them."""
    script = Transcript(requested=UserMedia.CAMERA).take(Connect())
    script.take(Tick(), after_ms=9_999).take(Tick(), after_ms=1)

    assert script.commands == [OpenUserMedia(UserMedia.CAMERA), AbandonUserMedia(), OpenSocket()]
    assert script.protocol.place is Place.OPENING


def test_user_media_after_the_whole_limit():
    """Requested media may be waited for only within the limit of the whole attempt."""
    script = Transcript(requested=UserMedia.CAMERA, limits=Limits(connect_s=1)).take(Connect())
    script.take(Tick(), after_ms=1000)

    assert script.failure[:2] == (ConnectionError.SESSION_TIMEOUT, Detail.CONNECT_DEADLINE)


def test_required_media_not_in_time():
    """When nobody answers the question for the microphone, the attempt ends at the part's limit."""
    script = Transcript(requested=UserMedia.MICROPHONE, required=UserMedia.MICROPHONE).take(Connect())
    script.take(Tick(), after_ms=10_000)

    assert script.failure == (
        *(ConnectionError.SESSION_TIMEOUT, Detail.STEP_DEADLINE),
        *(State.SEARCHING, Part.USER_MEDIA, True),
    )
    assert semconv.MEDIA_GRANTED not in script.ended.attributes


# Queue, assets, resuming.


def test_queue_positions():
    """Every position is told, and the first and the last stay on the part."""
    script = Transcript().go(Place.QUEUE)
    script.take(said(messages.Queued(5)), said(messages.Queued(2)), ACCEPTED)

    assert [event.position for event in script.of(QueueMoved)] == [5, 2]
    queue = script.of(PartEnded)[-1]
    assert queue.attributes == {semconv.QUEUE_POSITION_FIRST: 5, semconv.QUEUE_POSITION_LAST: 2}


def test_no_queue_is_unknown():
    """Without a queue there is no position, not 0."""
    assert Transcript().go(Place.ASSETS).of(PartEnded)[-1].attributes == {}


def test_assets_progress():
    """Progress is told, and the last state stays on the part."""
    script = Transcript().go(Place.NEGOTIATE)

    assert [(event.loaded_bytes, event.total_bytes) for event in script.of(AssetsLoaded)] == [(1, 2), (2, 2)]
    assert script.of(PartEnded)[-1].attributes == {semconv.ASSETS_BYTES_LOADED: 2, semconv.ASSETS_BYTES_TOTAL: 2}


def test_resumed():
    """A session that is continued keeps its id."""
    script = Transcript(resume="session-1", persistent=True).go(Place.QUEUE)
    script.take(said(messages.Accepted("session-1", resumed=True)))

    assert script.of(SessionAccepted)[-1].resumed
    assert Send(messages.Hello("attempt-1", "test/1", "session-1")) in script.commands


def test_resume_falls_back():
    """When the session is gone, the server's new one is taken, and it shows."""
    script = Transcript(resume="session-0").go(Place.CONNECTED)

    assert script.protocol.session_id == "session-1"
    assert script.ended.attributes[semconv.RESUME_REQUESTED] is True
    assert script.ended.attributes[semconv.RESUMED] is False


def test_accepted_without_place():
    """A server may say nothing of where it runs."""
    script = Transcript().go(Place.QUEUE).take(said(messages.Accepted("session-1"))).take(Cancel())

    assert semconv.SERVER_REGION not in script.ended.attributes
    assert semconv.SERVER_INSTANCE not in script.ended.attributes


# Candidates.


def test_candidates_are_counted_once():
    """Candidates of a bundle count once; each type that is absent is a known 0."""
    script = Transcript().go(Place.DTLS)
    negotiate, ice = script.of(PartEnded)[-2:]

    gathered = {semconv.ICE_GATHERED_HOST: 1, semconv.ICE_GATHERED_SRFLX: 0, semconv.ICE_GATHERED_RELAY: 1}
    remote = {semconv.ICE_REMOTE_HOST: 1, semconv.ICE_REMOTE_SRFLX: 0, semconv.ICE_REMOTE_RELAY: 0}
    assert negotiate.attributes == gathered | {semconv.ICE_SERVERS_OFFERED: 0}
    assert ice.attributes == gathered | remote | {semconv.ICE_SERVERS_OFFERED: 0, "webrtc.local.candidateType": "host"}


@pytest.mark.parametrize(("offer", "answer"), [(NO_CANDIDATES_SDP, ANSWER_SDP), (OFFER_SDP, NO_CANDIDATES_SDP)])
@pytest.mark.parametrize("input", [PeerFailed(), Tick()])
def test_no_candidates(offer, answer, input):
    """When a side has no candidates, that is what the failure of ICE says."""
    script = Transcript().go(Place.NEGOTIATE)
    script.take(OfferMade(offer), said(messages.Answer(answer)), AnswerApplied())
    script.take(input, after_ms=10_000)

    assert script.failure[:2] == (ConnectionError.MEDIA_STREAM_FAILED, Detail.ICE_NO_CANDIDATES)


# Deadlines.


@pytest.mark.parametrize(
    ("place", "limit_ms", "error", "detail"),
    [
        (Place.OPENING, 10_000, ConnectionError.SERVER_CONNECTION_FAILED, Detail.TCP_TIMEOUT),
        (Place.QUEUE, 45_000, ConnectionError.SESSION_TIMEOUT, Detail.STEP_DEADLINE),
        (Place.ASSETS, 30_000, ConnectionError.SESSION_TIMEOUT, Detail.STEP_DEADLINE),
        (Place.NEGOTIATE, 10_000, ConnectionError.SESSION_TIMEOUT, Detail.STEP_DEADLINE),
        (Place.ICE, 10_000, ConnectionError.MEDIA_STREAM_FAILED, Detail.ICE_NO_PAIR),
        (Place.DTLS, 5_000, ConnectionError.MEDIA_STREAM_FAILED, Detail.DTLS),
        (Place.FIRST_FRAME, 10_000, ConnectionError.MEDIA_STREAM_FAILED, Detail.NO_FIRST_FRAME),
        (Place.STARTING, 20_000, ConnectionError.SESSION_TIMEOUT, Detail.STEP_DEADLINE),
    ],
)
def test_deadline_of_each_place(place, limit_ms, error, detail):
    """Each place has a limit: the timer is set to it, and the attempt fails then, not a nanosecond before."""
    script = Transcript().go(place)
    since_ns = script.of(Transition)[-1].at_ns
    if PLACES[place].limit:
        since_ns = script.now_ns
    due_ns = since_ns + limit_ms * MS

    assert script.protocol.next_timer_ns() == due_ns
    script.now_ns = due_ns - 1
    assert script.take(Tick(), after_ms=0).protocol.place is place
    script.now_ns = due_ns
    script.take(Tick(), after_ms=0)
    assert script.failure == (error, detail, PLACES[place].state, PLACES[place].part, True)


def test_handshake_not_answered():
    """A server that takes the TCP connection and says nothing is told from one that cannot be reached."""
    script = Transcript().go(Place.OPENING).take(TransportOpened()).take(Tick(), after_ms=10_000)

    assert script.failure[:2] == (ConnectionError.SESSION_TIMEOUT, Detail.STEP_DEADLINE)


@pytest.mark.parametrize("place", ON_THE_WAY)
def test_deadline_of_the_whole(place):
    """The whole attempt has a limit, wherever it is."""
    long = {name: 1000.0 for name in Limits.__slots__ if name != "connect_s"}
    script = Transcript(limits=Limits(connect_s=500, **long)).go(place).take(Tick(), after_ms=500_000)

    assert script.failure[:3] == (ConnectionError.SESSION_TIMEOUT, Detail.CONNECT_DEADLINE, PLACES[place].state)


def test_step_limit_is_told():
    """Each step says which limit it had."""
    script = Transcript().go(Place.CONNECTED)

    assert [event.attributes[semconv.STEP_LIMIT_MS] for event in script.of(StepEnded)] == [45_000, 30_000, 20_000]


def test_time_never_runs_backwards():
    """An input with an earlier time counts as at the latest time seen."""
    script = Transcript().go(Place.QUEUE)
    latest_ns = script.now_ns
    script.now_ns = T0 - 1
    script.take(ACCEPTED, after_ms=0)

    assert script.of(SessionAccepted)[-1].at_ns == latest_ns


def test_no_timer_without_attempt():
    """Before and after an attempt nothing is waited for, and a tick changes nothing."""
    script = Transcript()

    assert script.protocol.next_timer_ns() is None
    assert script.take(Tick()).events == []
    assert script.take(Connect(), Cancel()).protocol.next_timer_ns() is None


# Server failures.


@pytest.mark.parametrize("place", [place for place in ON_THE_WAY if place > Place.OPENING])
@pytest.mark.parametrize("code", [*messages.CLOSE_CODES, 4999])
def test_close_while_connecting(place, code):
    """A close code on the way is the failure that SIGNALLING.md says, in the part that was open."""
    script = Transcript().go(place).take(SocketClosed(code, "because"))
    meaning = messages.meaning_of_close(code)

    assert script.failure == (
        *(meaning.error, meaning.detail),
        *(PLACES[place].state, PLACES[place].part, meaning.retryable),
    )
    assert script.ended.attributes[semconv.CLOSE_CODE] == code
    assert script.ended.attributes[semconv.CLOSE_REASON] == "because"
    assert script.ended.attributes[semconv.CLOSE_CLEAN] is True
    assert "because" in script.ended.failure.message
    assert script.commands[-1] == Release()


def test_close_without_reason():
    """A close without a reason leaves the reason unknown."""
    script = Transcript().go(Place.QUEUE).take(SocketClosed(1011))

    assert semconv.CLOSE_REASON not in script.ended.attributes


@pytest.mark.parametrize("detail", [Detail.DNS, Detail.TCP_REFUSED, Detail.TLS, "http_401", Detail.SOCKET_LOST])
def test_socket_cannot_be_opened(detail):
    """What keeps the socket from opening is a failure of `websocket.open`, without a close code."""
    script = Transcript().go(Place.OPENING).take(SocketFailed(detail, "said"))

    assert script.failure[:4] == (
        *(ConnectionError.SERVER_CONNECTION_FAILED, detail),
        *(State.SEARCHING, Part.WEBSOCKET_OPEN),
    )
    assert semconv.CLOSE_CODE not in script.ended.attributes


def test_socket_lost():
    """A socket that vanishes has the code 1006 and was not clean."""
    script = Transcript().go(Place.ASSETS).take(SocketFailed(Detail.SOCKET_LOST))

    assert script.failure[:2] == (ConnectionError.SERVER_CONNECTION_FAILED, Detail.SOCKET_LOST)
    assert script.ended.attributes[semconv.CLOSE_CODE] == 1006
    assert script.ended.attributes[semconv.CLOSE_CLEAN] is False


# Messages that are malformed, early, late or repeated.

MESSAGES = {
    "queued": said(messages.Queued(1)),
    "accepted": ACCEPTED,
    "assets": said(messages.Assets(3, 3)),
    "ready": said(messages.Ready()),
    "answer": said(messages.Answer(ANSWER_SDP)),
    "started": said(messages.Started()),
    "hello": said(messages.Hello("a", "b")),
    "junk": Received("{junk"),
    "binary": Received(b"\x00"),
    "huge": Received("x" * (messages.MAX_MESSAGE_BYTES + 1)),
}
ALLOWED = {
    Place.QUEUE: {"queued", "accepted"},
    Place.ASSETS: {"assets", "ready"},
    Place.NEGOTIATE: set(),
    Place.ICE: {"started"},
    Place.DTLS: {"started"},
    Place.FIRST_FRAME: {"started"},
    Place.STARTING: {"started"},
}


@pytest.mark.parametrize("place", ON_THE_WAY)
@pytest.mark.parametrize("name", MESSAGES)
def test_message_out_of_order(place, name):
    """A message where it does not belong breaks the protocol: we close with 4400 and say where."""
    if name in ALLOWED.get(place, set()):
        return
    script = Transcript().go(place).take(MESSAGES[name])

    assert script.failure[:2] == (ConnectionError.SERVER_CONNECTION_FAILED, Detail.PROTOCOL_VIOLATION)
    assert script.failure[2:4] == (PLACES[place].state, PLACES[place].part)
    assert script.commands[-1] == Release(None, 4400)


@pytest.mark.parametrize("name", MESSAGES)
def test_message_to_a_connected_session(name):
    """A server that breaks the protocol later loses the session."""
    script = Transcript().go(Place.CONNECTED).take(MESSAGES[name])
    (end,) = script.of(SessionEnded)

    assert end.reason is DisconnectReason.CONNECTION_LOST
    assert end.attributes[semconv.DISCONNECT_DETAIL] == "protocol_violation"
    assert script.commands[-1] == Release(None, 4400)


@pytest.mark.parametrize(
    "inputs",
    [
        (said(messages.Assets(5, 9)), said(messages.Assets(4, 9))),
        (said(messages.Ready()), said(messages.Answer(ANSWER_SDP))),
        (said(messages.Ready()), OfferMade(OFFER_SDP), said(messages.Started())),
        (
            said(messages.Ready()),
            OfferMade(OFFER_SDP),
            said(messages.Answer(ANSWER_SDP)),
            said(messages.Answer(ANSWER_SDP)),
        ),
        (
            *(said(messages.Ready()), OfferMade(OFFER_SDP), said(messages.Answer(ANSWER_SDP))),
            *(said(messages.Started()), said(messages.Started())),
        ),
    ],
    ids=["assets shrink", "answer without offer", "started without answer", "two answers", "started twice"],
)
def test_order_within_a_place(inputs):
    """What may come once may not come twice, nor before what it answers."""
    script = Transcript().go(Place.ASSETS).take(*inputs)

    assert script.failure[1] == Detail.PROTOCOL_VIOLATION


@pytest.mark.parametrize("resume", [None, "session-0"])
def test_resumed_what_was_not_asked_for(resume):
    """A server cannot slip in a session by calling it resumed."""
    script = Transcript(resume=resume).go(Place.QUEUE).take(said(messages.Accepted("session-1", resumed=True)))

    assert script.failure[1] == Detail.PROTOCOL_VIOLATION
    assert script.protocol.session_id is None


def test_second_offer_is_not_sent():
    """An offer goes out once."""
    script = Transcript().go(Place.NEGOTIATE).take(OfferMade(OFFER_SDP), OfferMade(OFFER_SDP))

    assert script.commands.count(Send(messages.Offer(OFFER_SDP))) == 1


# The peer.


@pytest.mark.parametrize(
    ("place", "detail"),
    [
        (Place.NEGOTIATE, Detail.SDP_REFUSED),
        (Place.ICE, Detail.ICE_NO_PAIR),
        (Place.DTLS, Detail.DTLS),
        (Place.FIRST_FRAME, Detail.PEER_CLOSED),
        (Place.STARTING, Detail.PEER_CLOSED),
    ],
)
def test_peer_fails(place, detail):
    """A peer that fails is a failure of the media stream, and the open part tells of what kind."""
    script = Transcript().go(place).take(PeerFailed())

    assert script.failure[:4] == (
        *(ConnectionError.MEDIA_STREAM_FAILED, detail),
        *(State.CONNECTING, PLACES[place].part),
    )


def test_peer_fails_for_a_known_cause():
    """The peer's own word counts where it has one."""
    script = Transcript().go(Place.NEGOTIATE).take(PeerFailed(Detail.PROTOCOL_VIOLATION, "bad ICE servers"))

    assert script.failure[:2] == (ConnectionError.SERVER_CONNECTION_FAILED, Detail.PROTOCOL_VIOLATION)
    assert "bad ICE servers" in script.ended.failure.message


@pytest.mark.parametrize("place", WITH_PEER)
def test_peer_closed_while_connecting(place):
    """A peer connection that the server closes on the way is told as closed."""
    assert Transcript().go(place).take(PeerClosed()).failure[1] == Detail.PEER_CLOSED


@pytest.mark.parametrize("input", [PeerClosed(), PeerFailed()])
def test_peer_before_there_is_one(input):
    """News of a peer before there is one is ignored."""
    assert Transcript().go(Place.QUEUE).take(input).protocol.place is Place.QUEUE


def test_packets_without_frames():
    """A missing first frame says whether packets came, which tells a silent server from a missing codec."""
    script = Transcript().go(Place.FIRST_FRAME)
    script.take(Measured(script.now_ns, {semconv.VIDEO_PACKETS_RECEIVED: 40})).take(Tick(), after_ms=10_000)

    assert script.of(PartEnded)[-1].attributes == {semconv.VIDEO_PACKETS_RECEIVED: 40}


# The caller gives up.


@pytest.mark.parametrize("place", [Place.USER_MEDIA, *ON_THE_WAY])
def test_cancel(place):
    """Giving up is a cancelled attempt wherever it happens: no error, everything released, and a bye once we spoke."""
    script = Transcript(requested=UserMedia.CAMERA if place is Place.USER_MEDIA else UserMedia.NONE)
    script.go(place).take(Cancel())
    spoke = place >= Place.QUEUE

    assert script.ended.outcome is Outcome.CANCELLED
    assert script.ended.failure is None
    assert script.of(StepEnded)[-1].outcome is StepOutcome.CANCELLED
    assert script.of(Transition)[-1].after is State.DISCONNECTED
    assert script.commands[-1] == Release(messages.Bye(False) if spoke else None)
    assert script.protocol.state is State.DISCONNECTED


def test_cancel_before_the_attempt():
    """Giving up while waiting for the next attempt is an attempt without any step."""
    script = Transcript(number=3).take(Cancel())

    assert [type(event) for event in script.events] == [AttemptBegan, AttemptEnded]
    assert script.ended.outcome is Outcome.CANCELLED
    assert script.ended.attributes[semconv.ATTEMPT_NUMBER] == 3


@pytest.mark.parametrize("input", [SocketFailed(Detail.DNS), SocketClosed(1000), PeerFailed()])
def test_nothing_fails_before_it_begins(input):
    """Before `Connect` there is nothing to fail."""
    assert Transcript().take(input).events == []


# A connected session.


def session_end(script):
    """Reason, who ended it, and the detail."""
    (end,) = script.of(SessionEnded)
    return end.reason, end.attributes[semconv.ENDED_BY], end.attributes.get(semconv.DISCONNECT_DETAIL), end.resumable


def test_disconnect():
    """Leaving is normal: a bye, a release, one end."""
    script = Transcript().go(Place.CONNECTED).take(Cancel(), after_ms=5_000)
    (end,) = script.of(SessionEnded)

    assert session_end(script) == (DisconnectReason.NORMAL, EndedBy.CLIENT, None, True)
    assert end.at_ns - end.began_ns == 5_000 * MS
    assert end.attributes[semconv.IDLE_LIMIT_MS] == 60_000
    assert script.commands[-1] == Release(messages.Bye(False))
    assert script.ended.outcome is Outcome.CONNECTED


def test_disconnect_keeps_a_persistent_session():
    """With persistence, the bye asks the server to keep the session."""
    script = Transcript(persistent=True).go(Place.CONNECTED).take(Cancel())

    assert script.commands[-1] == Release(messages.Bye(True))


@pytest.mark.parametrize("code", [*messages.CLOSE_CODES, 4999])
def test_close_while_connected(code):
    """A close code ends a session for the reason that SIGNALLING.md says."""
    script = Transcript().go(Place.CONNECTED).take(SocketClosed(code))
    meaning = messages.meaning_of_close(code)
    lost = meaning.reason is DisconnectReason.CONNECTION_LOST

    assert session_end(script) == (meaning.reason, EndedBy.SERVER, meaning.detail if lost else None, lost)
    assert script.of(SessionEnded)[0].attributes[semconv.CLOSE_CODE] == code


@pytest.mark.parametrize(
    ("input", "ended_by", "detail"),
    [
        (SocketFailed(Detail.SOCKET_LOST), EndedBy.NETWORK, "socket_lost"),
        (SocketFailed(Detail.MESSAGE_TOO_BIG), EndedBy.SERVER, "message_too_big"),
        (PeerClosed(), EndedBy.SERVER, "peer_closed"),
        (PeerFailed(), EndedBy.NETWORK, "peer_closed"),
    ],
)
def test_session_lost(input, ended_by, detail):
    """A session that breaks is lost, and says how."""
    script = Transcript().go(Place.CONNECTED).take(input)

    assert session_end(script) == (DisconnectReason.CONNECTION_LOST, ended_by, detail, True)


def test_idle_limit_unknown():
    """A server without idle limit leaves it unknown."""
    script = Transcript().go(Place.QUEUE).take(said(messages.Accepted("s"))).go(Place.CONNECTED).take(Cancel())

    assert semconv.IDLE_LIMIT_MS not in script.of(SessionEnded)[0].attributes


def test_media_silence():
    """Without any media for the limit the session is lost, and its end tells since when."""
    script = Transcript(limits=Limits(media_silence_s=4, sample_every_s=60)).go(Place.CONNECTED)
    connected_ns = script.now_ns
    seen_ns = connected_ns + 1500 * MS

    looks = 0
    while script.protocol.place is Place.CONNECTED:
        script.now_ns = script.protocol.next_timer_ns()
        script.take(Measured(min(seen_ns, script.now_ns)), Tick(), after_ms=0)
        looks += 1

    assert looks == 6
    assert script.now_ns == connected_ns + 6000 * MS
    assert session_end(script)[:3] == (DisconnectReason.CONNECTION_LOST, EndedBy.NETWORK, "media_silent")
    assert script.of(SessionEnded)[0].attributes[semconv.MEDIA_LAST_SEEN_AGO_MS] == 4500


def test_media_never_measured():
    """When counters are never heard of, the session's begin is when media was last seen."""
    script = Transcript(limits=Limits(media_silence_s=4)).go(Place.CONNECTED).take(Tick(), after_ms=4_000)

    assert session_end(script)[2] == "media_silent"


def test_samples():
    """While a session lives, samples come at their interval with what was last measured."""
    script = Transcript(limits=Limits(media_silence_s=100, sample_every_s=5)).go(Place.CONNECTED)
    for _ in range(2):
        script.take(Measured(script.now_ns + 4000 * MS, {semconv.RTT_S: 0.02}), after_ms=0)
        script.take(Tick(), after_ms=5_000)

    assert [event.attributes for event in script.of(SampleTaken)] == [
        {semconv.SAMPLE_NUMBER: number, semconv.RTT_S: 0.02, semconv.MEDIA_LAST_SEEN_AGO_MS: 1000} for number in (1, 2)
    ]


def test_tick_too_early():
    """A tick before anything is due does nothing."""
    script = Transcript().go(Place.CONNECTED)
    script.events.clear()

    assert script.take(Tick()).events == []


def test_interaction():
    """What the user does is told to the server while the session lives, and ignored before."""
    script = Transcript().take(Interact()).go(Place.QUEUE).take(Interact()).go(Place.CONNECTED).take(Interact())

    assert script.commands.count(Send(messages.Activity())) == 1


def test_nothing_happens_after_the_end():
    """After the end every input is ignored."""
    script = Transcript().go(Place.CONNECTED).take(Cancel())
    events, commands = len(script.events), len(script.commands)
    script.take(Cancel(), Tick(), ACCEPTED, SocketClosed(1000), PeerClosed(), Interact(), Connect())

    assert (len(script.events), len(script.commands)) == (events, commands)


# The tables.


def test_every_place_is_explained_and_reachable():
    """Each place has a meaning, and every place between start and end is led to by the table."""
    assert set(PLACES) == set(Place)
    assert set(NEXT.values()) == set(Place) - {Place.IDLE, Place.ENDED}


def test_the_table_only_leads_forward():
    """No input leads back to an earlier place."""
    assert all(place <= after for (place, _), after in NEXT.items())


# Any sequence of inputs.

ANY_INPUT = st.one_of(
    st.sampled_from(
        [
            *(input for inputs in WAY.values() for input in inputs),
            *MESSAGES.values(),
            UserMediaOpened(UserMedia.CAMERA),
            UserMediaOpened(UserMedia.NONE, Detail.PERMISSION_DENIED),
            Interact(),
            Tick(),
            Measured(T0, {semconv.RTT_S: 0.1}),
        ]
    ),
    st.sampled_from([Cancel(), PeerClosed(), PeerFailed(), SocketFailed(Detail.DNS), SocketFailed(Detail.SOCKET_LOST)]),
    st.builds(SocketClosed, st.integers(1000, 4999), st.text(max_size=5)),
    st.builds(Received, st.text(max_size=40) | st.binary(max_size=8)),
)


@settings(max_examples=60)
@given(
    reach=st.sampled_from([Place.IDLE, *ON_THE_WAY, Place.CONNECTED]),
    inputs=st.lists(st.tuples(ANY_INPUT, st.integers(-1_000, 20_000)), max_size=20),
    requested=st.sampled_from(UserMedia),
    required=st.sampled_from(UserMedia),
)
def test_any_sequence(reach, inputs, requested, required):
    """Any sequence of inputs leaves a defined place, raises nothing, and ends with exactly one outcome."""
    script = Transcript(requested=requested | required, required=required)
    if requested | required is UserMedia.NONE:
        script.go(reach)
    for input, after_ms in inputs:
        script.take(input, after_ms=after_ms)
        assert script.protocol.place in Place
        assert len(script.of(AttemptEnded)) == (script.protocol.place >= Place.CONNECTED)
        timer_ns = script.protocol.next_timer_ns()
        assert (timer_ns is None) == (script.protocol.place in (Place.IDLE, Place.ENDED))
    script.take(Cancel())

    assert script.protocol.place is Place.ENDED
    assert len(script.of(AttemptEnded)) == 1
    assert len(script.of(SessionEnded)) == (script.ended.outcome is Outcome.CONNECTED)
    assert (script.ended.outcome is Outcome.FAILED) == (script.ended.failure is not None)
    assert sum(isinstance(command, Release) for command in script.commands) == 1
    assert isinstance(script.commands[-1], Release)
    for before, after in pairwise(script.events):
        assert before.at_ns <= after.at_ns
    for step in script.of(StepEnded):
        parts = [part for part in script.of(PartEnded) if part.step is step.step]
        assert all(one.at_ns == two.began_ns for one, two in pairwise(parts))
        assert all(part.at_ns <= step.at_ns for part in parts)


def test_socket_opened_twice():
    """A local input that comes late is ignored."""
    script = Transcript().go(Place.ASSETS)
    script.events.clear()

    assert script.take(SocketOpened(), UserMediaOpened(UserMedia.NONE), AnswerApplied()).events == []
