"""How long a packet takes to the server and back, from the server's reports of what the user sends (RFC 3550, 6.4.1).

aiortc computes it only while the server's report answers the very last one of ours, and these go out about once a
second: a longer round trip, the one to know about, would never be seen.
The arithmetic of the RFC needs no memory, since a report carries the time at which the one that it answers was sent.
"""

import time
from collections.abc import Callable
from typing import Any, Final

_NTP_EPOCH_S: Final = 2_208_988_800
"""From 1900 to 1970 (RFC 5905)."""
_UNITS: Final = 1 << 16
"""In a second of the middle 32 bits of an NTP time."""
LONGEST_S: Final = 60.0
"""What is more, or less than nothing, is a clock that was set meanwhile."""


class RoundTrip:
    """The latest round trip."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        """
        Args:
            now_s: the wall clock, which is what aiortc stamps its reports with.
        """
        self._now_s = now_s
        self.seconds: float | None = None
        """None means that it is not known."""

    def listen(self, sender: Any) -> None:
        """Hear the reports on what a sender of aiortc sends; does nothing should it take them elsewhere one day."""
        take = getattr(sender, "_handle_rtcp_packet", None)
        if take is None:
            return

        async def heard(packet: Any) -> None:
            for report in getattr(packet, "reports", ()):
                if report.ssrc == sender._ssrc:
                    self.hear(report.lsr, report.dlsr)
            await take(packet)

        sender._handle_rtcp_packet = heard

    def hear(self, last_sender_report: int, delay_since: int) -> None:
        """Take a report.

        Args:
            last_sender_report: when the report that it answers was sent; 0 means that it answers none.
            delay_since: how long the server waited before it answered.
        """
        now = int((self._now_s() + _NTP_EPOCH_S) * _UNITS)
        seconds = ((now - last_sender_report - delay_since) & 0xFFFF_FFFF) / _UNITS
        if last_sender_report and seconds <= LONGEST_S:
            self.seconds = seconds
