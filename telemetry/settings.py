"""Where things are by default, and the environment variables that move them.

Flags win over environment variables, environment variables over the defaults here. There is no configuration file.
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import Final

from telemetry.errors import UsageError

LOOPBACK: Final = "127.0.0.1"
OTLP_GRPC_PORT: Final = 4317
"""The standard port of OTLP/gRPC (IANA)."""
OTLP_HTTP_PORT: Final = 4318
"""The standard port of OTLP/HTTP (IANA)."""
PAGES_PORT: Final = 4380
SIMULATOR_PORT: Final = 4390

CLUSTER_SCHEMES: Final = ("clickhouse:/", "clickhouses:/")
"""How the address of a ClickHouse cluster begins, also after it was taken for a path."""
_SERVER_SCHEMES: Final = ("http:/", "https:/")
"""How the address of a server begins, also then."""
STORE_VARIABLE: Final = "TELEMETRY_STORE"
SERVER_VARIABLE: Final = "TELEMETRY_SERVER"
TOKEN_VARIABLE: Final = "TELEMETRY_TOKEN"
"""The bearer token for a server that asks for one; never a flag, so that no process list shows it."""
SESSION_TOKEN_VARIABLE: Final = "TELEMETRY_SESSION_TOKEN"
"""The bearer token for the digital-person server that `connect` and `probe` talk to."""


def cluster_address(given: str | os.PathLike[str] | None = None) -> str | None:
    """What was given, else `TELEMETRY_STORE`, if it is the address of a ClickHouse cluster."""
    chosen = os.fspath(given or os.environ.get(STORE_VARIABLE, ""))
    return chosen if chosen.startswith(CLUSTER_SCHEMES) else None


def default_store() -> str:
    """Which store is asked when none is named."""
    return os.environ.get(STORE_VARIABLE) or str(store_path())


def not_a_file(address: str, instead: str) -> UsageError:
    """The refusal of what needs a store's file, where the store is a cluster or a server."""
    shown = re.sub(":/+([^@/]*@)?", "://", address, count=1)  # without the password
    what = "the address of a server" if address.startswith(_SERVER_SCHEMES) else "a ClickHouse cluster"
    return UsageError(f"{shown} is {what} and no file; {instead}")


def store_path(
    given: str | os.PathLike[str] | None = None, *, instead: str = "this needs a file: name one with --store"
) -> Path:
    """The store's file: what was given, else `TELEMETRY_STORE`, else a place in the user's data folder.

    Args:
        instead: what to do where that is a cluster.

    Raises:
        UsageError: it is the address of a ClickHouse cluster, or of a server.
    """
    chosen = os.fspath(given or os.environ.get(STORE_VARIABLE, ""))
    if address := cluster_address(given):
        raise not_a_file(address, instead)
    if chosen.startswith(_SERVER_SCHEMES):
        raise not_a_file(chosen, f"name the file that it serves; a server to ask is named with {SERVER_VARIABLE}")
    if chosen:
        return Path(chosen).expanduser()
    data_home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data_home).expanduser() / "dp-telemetry" / "telemetry.duckdb"


def tokens() -> tuple[str, ...]:
    """What `TELEMETRY_TOKEN` holds: a server knows all of them, a client shows the first. Commas stand between.

    Raises:
        UsageError: one has characters that a header cannot carry.
    """
    given = os.environ.get(TOKEN_VARIABLE, "")
    found = tuple(token.strip() for token in given.split(",") if token.strip())
    if not all(token.isascii() and token.isprintable() for token in found):
        raise UsageError(f"a token in {TOKEN_VARIABLE} has characters that no header carries; use letters and digits")
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def data_folder(name: str) -> Path:
    """The folder `queries` or `dashboards`: inside an installed wheel, or at the top of a checkout.

    Raises:
        UsageError: neither place has it, so the installation is incomplete.
    """
    package = Path(__file__).parent
    for folder in (package / "_data" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise UsageError(f"the installation lacks its {name}/ folder; install the package again")
