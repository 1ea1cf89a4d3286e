"""Transcripts of the connector's protocol: inputs with their times in, commands and events out. No clock."""

from typing import Any, TypeVar

from telemetry.connector import messages
from telemetry.connector.events import (
    AnswerApplied,
    AttemptEnded,
    Command,
    Connect,
    DtlsConnected,
    Event,
    FrameDecoded,
    IceCompleted,
    Input,
    OfferMade,
    Received,
    SocketOpened,
    TransportOpened,
    UserMediaOpened,
)
from telemetry.connector.plan import Plan, UserMedia
from telemetry.connector.protocol import Place, Protocol

T0 = 1_790_000_000_000_000_000
"""When transcripts begin, in nanoseconds UTC."""
MS = 1_000_000
HOST = "a=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\n"
RELAY = "a=candidate:2 1 udp 1 192.0.2.9 6000 typ relay raddr 0.0.0.0 rport 0\r\n"
OFFER_SDP = f"v=0\r\nm=audio 9 X 0\r\n{HOST}{RELAY}m=video 9 X 0\r\n{HOST}"
ANSWER_SDP = f"v=0\r\nm=audio 9 X 0\r\n{HOST}"
NO_CANDIDATES_SDP = "v=0\r\nm=audio 9 X 0\r\n"
E = TypeVar("E", bound=Event)


def said(message: messages.Message) -> Received:
    """A message of the server as it arrives."""
    return Received(messages.encode(message))


def plan(**changes: Any) -> Plan:
    """An ordinary plan."""
    values = {"attempt_id": "attempt-1", "episode_id": "episode-1", "server": "dp.example:443", "client": "test/1"}
    return Plan(**(values | changes))


ACCEPTED = said(messages.Accepted("session-1", idle_limit_ms=60_000, region="eu-west-1", instance="dp-7"))
WAY: dict[Place, tuple[Input, ...]] = {
    Place.IDLE: (),
    Place.OPENING: (Connect(),),
    Place.QUEUE: (TransportOpened(), SocketOpened()),
    Place.ASSETS: (ACCEPTED,),
    Place.NEGOTIATE: (said(messages.Assets(1, 2)), said(messages.Assets(2, 2)), said(messages.Ready())),
    Place.ICE: (OfferMade(OFFER_SDP), said(messages.Answer(ANSWER_SDP)), AnswerApplied()),
    Place.DTLS: (IceCompleted({"webrtc.local.candidateType": "host"}),),
    Place.FIRST_FRAME: (DtlsConnected(),),
    Place.STARTING: (FrameDecoded(),),
    Place.CONNECTED: (said(messages.Started()),),
}
"""What happens on the way of an ordinary attempt, up to each place."""


class Transcript:
    """A protocol under test: each input comes 10 ms after the one before unless told otherwise."""

    def __init__(self, **changes: Any) -> None:
        self.protocol = Protocol(plan(**changes))
        self.now_ns = T0
        self.commands: list[Command] = []
        self.events: list[Event] = []

    def take(self, *inputs: Input, after_ms: float = 10) -> "Transcript":
        """Feed inputs, each so long after the one before."""
        for input in inputs:
            self.now_ns += round(after_ms * MS)
            commands, events = self.protocol.receive(input, self.now_ns)
            self.commands += commands
            self.events += events
        return self

    def go(self, place: Place) -> "Transcript":
        """Follow the ordinary way to a place."""
        if place is Place.USER_MEDIA:
            return self.take(Connect())
        for reached, inputs in WAY.items():
            if reached > place:
                break
            if reached > self.protocol.place:
                self.take(*inputs)
                if self.protocol.place is Place.USER_MEDIA:
                    self.take(UserMediaOpened(UserMedia.NONE))
        assert self.protocol.place is place
        return self

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ended(self) -> AttemptEnded:
        """The one end of the attempt."""
        (end,) = self.of(AttemptEnded)
        return end

    @property
    def failure(self) -> tuple[str, str, str, str | None, bool]:
        """Error, detail, step, part and whether to retry."""
        failure = self.ended.failure
        assert failure
        return (failure.error, failure.detail, failure.step, failure.part, failure.retryable)
