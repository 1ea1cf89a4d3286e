"""The round trip by RTCP, computed from made-up reports."""

from types import SimpleNamespace
from typing import Any

import pytest

from telemetry.connector.round_trip import RoundTrip

NOW_S = 1_790_000_000.0
NOW = int((NOW_S + 2_208_988_800) * 65_536) & 0xFFFF_FFFF


def heard(sent_ago_s: float, delay_s: float) -> float | None:
    """What a report makes of it."""
    trip = RoundTrip(lambda: NOW_S)
    trip.hear((NOW - round(sent_ago_s * 65_536)) & 0xFFFF_FFFF, round(delay_s * 65_536))
    return trip.seconds


def test_the_servers_wait_is_taken_off() -> None:
    """A report that was sent 3 s ago and answered after 1 s took 2 s on the way."""
    assert heard(3.0, 1.0) == pytest.approx(2.0, abs=1e-4)


def test_the_32_bits_may_wrap_in_between() -> None:
    """Half of an NTP time wraps every 18 hours, and nothing is seen of it."""
    trip = RoundTrip(lambda: 0.5 - 2_208_988_800 + (1 << 16))
    trip.hear(0xFFFF_8000, 0)

    assert trip.seconds == pytest.approx(1.0)


@pytest.mark.parametrize(("sent_ago_s", "delay_s"), [(0.0, 1.0), (61.0, 0.0), (-5.0, 0.0)])
def test_a_clock_that_was_set_is_not_believed(sent_ago_s: float, delay_s: float) -> None:
    """A round trip of less than nothing or of more than a minute is not known."""
    assert heard(sent_ago_s, delay_s) is None


def test_a_report_before_our_first_says_nothing() -> None:
    """Zero stands for a report that answers none."""
    trip = RoundTrip(lambda: NOW_S)
    trip.hear(0, 0)

    assert trip.seconds is None


async def test_only_reports_on_our_own_stream_count_and_all_are_passed_on() -> None:
    """aiortc still gets every packet."""
    passed: list[Any] = []

    async def take(packet: Any) -> None:
        passed.append(packet)

    sender = SimpleNamespace(_ssrc=7, _handle_rtcp_packet=take)
    trip = RoundTrip(lambda: NOW_S)
    trip.listen(sender)
    foreign = SimpleNamespace(reports=[SimpleNamespace(ssrc=8, lsr=NOW - 65_536, dlsr=0)])
    ours = SimpleNamespace(reports=[SimpleNamespace(ssrc=7, lsr=NOW - 65_536, dlsr=0)])
    bye = SimpleNamespace()

    await sender._handle_rtcp_packet(foreign)
    assert trip.seconds is None
    await sender._handle_rtcp_packet(ours)
    await sender._handle_rtcp_packet(bye)

    assert trip.seconds == pytest.approx(1.0)
    assert passed == [foreign, ours, bye]


def test_a_sender_that_takes_reports_elsewhere_is_left_alone() -> None:
    """Then the round trip stays unknown."""
    trip = RoundTrip()
    trip.listen(SimpleNamespace())

    assert trip.seconds is None
