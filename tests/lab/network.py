"""Networks of one's own: a client, a router and a server, each in a network namespace, and what can go wrong between.

    client 10.0.1.2 --- 10.0.1.1 router 10.0.2.1 --- 10.0.2.2 server
                                 router 10.0.3.1 --- 10.0.3.2 relay, a TURN server's place

Nothing leads out of the four. Needs root, iproute2 and nftables.
"""

import ctypes
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

CLIENT: Final = "10.0.1.2"
SERVER: Final = "10.0.2.2"
TURN: Final = "10.0.3.2"
OUTSIDE: Final = "10.0.2.1"
"""The router's address towards the server, which is what the server sees of a client behind NAT."""
OUTSIDE_LATER: Final = "10.0.2.99"

Place = Literal["client", "router", "server", "relay"]
_PLACES: Final[tuple[Place, ...]] = ("client", "router", "server", "relay")
_NAME: Final = re.compile(r"dplab-(\d+)-\d+-(?:client|router|server|relay)")
_RESOLVERS: Final = Path("/etc/netns")
"""`ip netns exec` shows the files of a folder here to its command as those of /etc."""
_CLONE_NEWNET: Final = 0x4000_0000
_numbers: Final = count(1)

T = TypeVar("T")


def lacks() -> str | None:
    """What this machine lacks for namespaces. None means nothing."""
    missing = [tool for tool in ("ip", "nft", "turnserver") if not shutil.which(tool, path=_path())]
    if os.geteuid() != 0:
        return "it needs root, for network namespaces"
    if missing:
        return f"it needs {', '.join(missing)}, of Debian's iproute2, nftables and coturn"
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "this machine, a container perhaps, does not allow network namespaces"


def sweep() -> None:
    """Remove the namespaces of laboratories that no longer run."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for found in _NAME.finditer(listed):
        if not Path(f"/proc/{found[1]}").exists():
            _remove(found[0])


class Network:
    """Four namespaces. `with` makes and removes them, with every process that is left in them."""

    def __init__(self, *, nat: bool = False, wired: bool = True) -> None:
        """
        Args:
            nat: the router hides the client behind its own address.
            wired: False leaves the way between client and router to a `Wire`.
        """
        number = next(_numbers)
        self._names = {place: f"dplab-{os.getpid()}-{number}-{place}" for place in _PLACES}
        self._nat = nat
        self._wired = wired

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for name in self._names.values():
            _remove(name)

    def command(self, place: Place, *command: str) -> list[str]:
        """The command that runs a command in a namespace; the process is the command's own."""
        return ["ip", "netns", "exec", self._names[place], *command]

    def inside(self, place: Place, work: Callable[[], T]) -> T:
        """Do something in a namespace: sockets that it opens stay there."""
        done: list[T] = []

        def enter() -> None:
            with open(f"/run/netns/{self._names[place]}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            done.append(work())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return done[0]

    def filter(self, *rules: str) -> None:
        """Add rules of nftables to what the router forwards from and to the client."""
        self._nft(f"add rule inet lab client {rule}" for rule in rules)

    def rebind(self) -> None:
        """Give the router another address outside, as an operator or a new lease does: its NAT forgets everything."""
        self._ip("router", f"addr add {OUTSIDE_LATER}/24 dev right", f"addr del {OUTSIDE}/24 dev right")

    def address_link(self, place: Place, device: str) -> None:
        """Give the client's or the router's end of their link its address."""
        if place == "client":
            self._ip(
                place, f"addr add {CLIENT}/24 dev {device}", f"link set {device} up", "route add default via 10.0.1.1"
            )
        else:
            self._ip(place, f"addr add 10.0.1.1/24 dev {device}", f"link set {device} up")

    def _make(self) -> None:
        names = self._names
        for place, name in names.items():
            _run("ip", "netns", "add", name)
            self._ip(place, "link set lo up")
        resolver = _RESOLVERS / names["client"] / "resolv.conf"
        resolver.parent.mkdir(parents=True)
        resolver.write_text(f"nameserver {SERVER}\noptions timeout:1 attempts:1\n", encoding="ascii")
        self._link("right", OUTSIDE, "server", SERVER)
        self._link("far", "10.0.3.1", "relay", TURN)
        self._ip("server", f"route add 10.0.3.0/24 via {OUTSIDE}")
        self._ip("relay", "route add 10.0.2.0/24 via 10.0.3.1")
        if not self._nat:
            self._ip("server", f"route add 10.0.1.0/24 via {OUTSIDE}")
            self._ip("relay", "route add 10.0.1.0/24 via 10.0.3.1")
        if self._wired:
            _run(*f"ip link add left netns {names['router']} type veth peer name eth0 netns {names['client']}".split())
            self.address_link("router", "left")
            self.address_link("client", "eth0")
        self.inside("router", lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii"))
        self._nft(
            [
                "add table inet lab",
                "add chain inet lab client",
                "add chain inet lab forward { type filter hook forward priority 0; }",
                f"add rule inet lab forward ip saddr {CLIENT} jump client",
                f"add rule inet lab forward ip daddr {CLIENT} jump client",
            ]
        )
        if self._nat:
            self._nft(
                [
                    "add chain inet lab nat { type nat hook postrouting priority 100; }",
                    "add rule inet lab nat oifname { right, far } masquerade",
                ]
            )

    def _link(self, device: str, router: str, place: Place, address: str) -> None:
        """Lay a link between the router's device and a place."""
        far = f"peer name eth0 netns {self._names[place]}"
        _run(*f"ip link add {device} netns {self._names['router']} type veth {far}".split())
        self._ip("router", f"addr add {router}/24 dev {device}", f"link set {device} up")
        self._ip(place, f"addr add {address}/24 dev eth0", "link set eth0 up")

    def _ip(self, place: Place, *commands: str) -> None:
        _run("ip", "-n", self._names[place], "-batch", "-", text="\n".join(commands))

    def _nft(self, commands: Iterable[str]) -> None:
        _run(*self.command("router", "nft", "-f", "-"), text="\n".join(commands))


def _remove(name: str) -> None:
    """Remove a namespace and end the processes in it; nothing happens when it is gone."""
    if not Path(f"/run/netns/{name}").exists():
        return
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split()
    for pid in pids:
        subprocess.run(["kill", "-KILL", pid], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    shutil.rmtree(_RESOLVERS / name, ignore_errors=True)


def _run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _path()}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{text or ''}")


def _path() -> str:
    """Root's tools are in folders that not every shell of root's names."""
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
