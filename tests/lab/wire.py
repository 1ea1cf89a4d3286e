"""A slow wire between client and router: packets from one TUN device to another, each after a delay.

The kernel's own `netem` would do, and many machines have kernels without it.
"""

import asyncio
import fcntl
import os
import struct
from types import TracebackType
from typing import Final, Self

from tests.lab.network import Network, Place

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x0001 | 0x1000
_DEVICE: Final = "wire"


class Wire:
    """The link of a network that was made without one; `with` lays and cuts it. Used by one event loop."""

    def __init__(self, network: Network, delay_s: float) -> None:
        """
        Args:
            delay_s: one way, in either direction.
        """
        self._network = network
        self._delay_s = delay_s
        self._ends: list[int] = []

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        places: tuple[Place, Place] = ("router", "client")
        self._ends = [self._network.inside(place, _open) for place in places]
        for place, end, other in zip(places, self._ends, reversed(self._ends), strict=True):
            self._network.address_link(place, _DEVICE)
            loop.add_reader(end, self._carry, end, other)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for end in self._ends:
            loop.remove_reader(end)
            os.close(end)
        self._ends = []

    def _carry(self, end: int, other: int) -> None:
        packet = os.read(end, 65_536)
        asyncio.get_running_loop().call_later(self._delay_s, self._deliver, other, packet)

    def _deliver(self, end: int, packet: bytes) -> None:
        if self._ends:
            os.write(end, packet)


def _open() -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN_NO_PI))
    return end
