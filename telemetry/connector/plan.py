"""What a caller asks of a connection: media, limits, retries.

No I/O, no clock.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NS_PER_S: Final = 1_000_000_000
YEAR_S: Final = 365 * 86_400


class UserMedia(StrEnum):
    """Which of the user's media travel to the digital person."""

    NONE = "none"
    MICROPHONE = "microphone"
    CAMERA = "camera"
    MICROPHONE_AND_CAMERA = "microphone_and_camera"

    @classmethod
    def of(cls, microphone: bool, camera: bool) -> "UserMedia":
        """The value for a pair of wishes."""
        if microphone:
            return cls.MICROPHONE_AND_CAMERA if camera else cls.MICROPHONE
        return cls.CAMERA if camera else cls.NONE

    @property
    def microphone(self) -> bool:
        return self in (UserMedia.MICROPHONE, UserMedia.MICROPHONE_AND_CAMERA)

    @property
    def camera(self) -> bool:
        return self in (UserMedia.CAMERA, UserMedia.MICROPHONE_AND_CAMERA)

    def __or__(self, other: "UserMedia") -> "UserMedia":
        """Everything that either of the two has."""
        return UserMedia.of(self.microphone or other.microphone, self.camera or other.camera)

    def covers(self, other: "UserMedia") -> bool:
        """Whether this has everything that the other has."""
        return (self | other) == self


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds: over 0, and at most a year.

    Raises:
        ValueError: one of them is not.
    """

    connect_s: float = 60.0
    """The whole of one attempt."""
    searching_s: float = 45.0
    """The step SearchingForDigitalPerson: with the queue, which is why it is long."""
    downloading_s: float = 30.0
    """The step DownloadingAssets."""
    connecting_s: float = 20.0
    """The step ConnectingToDigitalPerson."""
    user_media_s: float = 10.0
    """Opening microphone and camera. A user may have to answer a question."""
    websocket_open_s: float = 10.0
    """DNS, TCP, TLS and the WebSocket handshake together."""
    negotiate_s: float = 10.0
    """Offer and answer. Gathering alone takes aioice 5 s when a STUN server does not answer."""
    ice_s: float = 10.0
    """aiortc itself gives up after 63 s only."""
    dtls_s: float = 5.0
    first_frame_s: float = 10.0
    """From the connected peer to the first decoded video frame."""
    media_silence_s: float = 5.0
    """A connected session without any media packet for so long is lost. aiortc itself takes about 30 s to notice."""
    sample_every_s: float = 5.0
    """Between two samples of a connected session."""
    close_s: float = 2.0
    """For the server's answer to our closing handshake."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 < getattr(self, name) <= YEAR_S:
                raise ValueError(f"Limits.{name} must be over 0 seconds and at most a year")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often one `connect()` tries, and how long it waits in between: exponential backoff with jitter."""

    attempts: int = 1
    """At most so many. Only failures that may pass by themselves are tried again."""
    first_delay_s: float = 0.5
    factor: float = 2.0
    max_delay_s: float = 10.0
    jitter_ratio: float = 0.5
    """The share of a delay that is left to chance, so that many clients do not come back at the same moment."""
    chance: Callable[[], float] = random.random
    """A number from 0 to 1."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("Retry.attempts must be at least 1")

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after so many failures, 1 or more."""
        # The exponent is bounded because a float overflows where a delay has long reached its maximum.
        delay_s: float = min(self.max_delay_s, self.first_delay_s * self.factor ** min(failures - 1, 64))
        return delay_s * (1 - self.jitter_ratio * self.chance())


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one attempt has to know before it begins."""

    attempt_id: str
    episode_id: str
    server: str
    """Host and port for messages; never with path, query or user."""
    client: str
    """Name and version of this software, for the server's log."""
    number: int = 1
    """1 for the first attempt of an episode."""
    requested: UserMedia = UserMedia.NONE
    """Includes what is required."""
    required: UserMedia = UserMedia.NONE
    resume: str | None = None
    """The sessionId to continue. None means a new session."""
    persistent: bool = False
    """Whether the server is to keep the session when this connection ends."""
    limits: Limits = Limits()
