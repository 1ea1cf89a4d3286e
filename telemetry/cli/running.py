"""`serve`, `simulate` and `demo`: the commands that run until they are told to stop."""

import asyncio
import os
import re
import shlex
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from telemetry import settings
from telemetry.cli.keeping import retention, retention_options, size_bytes
from telemetry.cli.output import counted, narrate
from telemetry.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from telemetry.alerts.watch import Plan
    from telemetry.receiver.room import Limits
    from telemetry.receiver.tls import Tls

_ORIGIN: Final = re.compile(
    r"(?!https://.*:443$|http://.*:80$)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _store_option(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--store",
        metavar="PATH|URL",
        help="The store's file, or clickhouse://user@host/db to show a cluster.  "
        f"[default: ${settings.STORE_VARIABLE}, or {settings.default_store()}]",
    )(command)


@click.command(
    epilog="""\b
Examples:
  telemetry serve
  telemetry serve --store /var/lib/telemetry/telemetry.duckdb
  TELEMETRY_TOKEN=… telemetry serve --host 0.0.0.0 --tls-certificate chain.pem --tls-key key.pem
  telemetry serve --rules alerts.toml
  telemetry serve --store clickhouse://reader@db.example/telemetry"""
)
@_store_option
@click.option("--host", default=settings.LOOPBACK, show_default=True, help="The address to listen on.")
@click.option("--grpc-port", default=settings.OTLP_GRPC_PORT, show_default=True, help="OTLP/gRPC; 0 for any free port.")
@click.option("--http-port", default=settings.OTLP_HTTP_PORT, show_default=True, help="OTLP/HTTP; 0 for any free port.")
@click.option("--pages-port", default=settings.PAGES_PORT, show_default=True, help="Pages; 0 for any free port.")
@retention_options
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="A site whose pages may send, such as https://kiosk.example, or * for all; repeatable.",
)
@click.option(
    "--max-body",
    metavar="SIZE",
    help="The largest request to take, before and after decompression: 1K to 128MiB.  [default: 64MiB]",
)
@click.option("--tls-certificate", type=_FILE, help="Speak TLS with this certificate chain (PEM) at every door.")
@click.option("--tls-key", type=_FILE, help="The certificate's key (PEM), without a passphrase.")
@click.option("--tls-client-ca", type=_FILE, help="Senders must show a certificate that this one (PEM) signed.")
@click.option("--open-to-all", is_flag=True, help="Listen beyond this machine even without a token.")
@click.option(
    "--rules",
    type=_FILE,
    help="Alert rules to check; they stand on /metrics, and the file's webhooks are told what changes.",
)
@click.option("--check-every", default="60s", show_default=True, help="How often to check the rules.")
def serve(
    store: str | None,
    host: str,
    grpc_port: int,
    http_port: int,
    pages_port: int,
    origins: tuple[str, ...],
    max_body: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    open_to_all: bool,
    keep_days: float | None,
    keep_in: tuple[str, ...],
    keep_bytes: str | None,
    rules: Path | None,
    check_every: str,
) -> None:
    """Receive telemetry, store it, and show it.

    One process: OTLP over gRPC and HTTP comes in, a DuckDB file keeps it, pages and a query API show it.
    A sender gets its answer when its spans are on disk and the next query sees them.
    Ctrl-C finishes what was begun; a second one stops at once and still loses nothing that was acknowledged.
    With TELEMETRY_TOKEN set, senders and readers must show one of the tokens in it (commas between them).
    To revoke one, start again without it: senders try again meanwhile, and nothing is lost.

    Before a ClickHouse cluster (--store clickhouse://…) it only shows: pages, query API, /metrics and alerts.
    Collectors export to the cluster themselves, and what is to be forgotten is a setting of its schema.
    """
    from telemetry.serve import Doors, serving, showing
    from telemetry.source import notice_path

    cluster = settings.cluster_address(store)
    if cluster:
        _refuse_receiving()
    kept = retention(keep_days, keep_in, keep_bytes)
    watch = _plan(rules, check_every)
    doors = Doors(
        host,
        grpc_port,
        http_port,
        pages_port,
        settings.tokens(),
        sites(origins),
        open_to_all,
        kept,
        watch,
        _tls(tls_certificate, tls_key, tls_client_ca),
        _limits(max_body),
    )

    async def show(cluster: str) -> None:
        async with until_stopped() as stopped, showing(cluster, doors) as address:
            narrate(
                f"pages      {address}\n"
                f"store      {read(cluster)[0]}\n"
                "receives   nothing: Collectors export to the cluster\n"
                "Ctrl-C stops"
            )
            await stopped.wait()

    if cluster:
        from telemetry.cluster.source import read

        asyncio.run(show(cluster))
        narrate("stopped")
        return
    path = settings.store_path(store)

    async def run() -> None:
        async with until_stopped(notice_path(path)) as stopped, serving(path, doors) as addresses:
            narrate(
                f"pages      {addresses.pages}\n"
                f"OTLP/HTTP  {addresses.otlp_http}/v1/traces\n"
                f"OTLP/gRPC  {addresses.otlp_grpc}\n"
                f"store      {path}\n"
                "Ctrl-C stops"
            )
            await stopped.wait()
            narrate("finishing what was begun; Ctrl-C again stops at once")

    asyncio.run(run())
    narrate("stopped; everything acknowledged is stored")


_OF_RECEIVING: Final = (
    "grpc_port",
    "http_port",
    "origins",
    "max_body",
    "tls_client_ca",
    "keep_days",
    "keep_in",
    "keep_bytes",
)


def _refuse_receiving() -> None:
    """Raises UsageError for an option that has no meaning before a cluster."""
    for name in _OF_RECEIVING:
        if _is_given(name):
            flag = "--origin" if name == "origins" else f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} is for a server that receives, and before a ClickHouse cluster it only shows; "
                "Collectors export to the cluster, and `telemetry store init --keep-days` says what it forgets"
            )


def _is_given(name: str) -> bool:
    """Whether an option stands on the command line, and not its default."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> "Tls | None":
    """What the options say of TLS.

    Raises:
        UsageError: one of them is missing.
    """
    from telemetry.receiver.tls import Tls

    if certificate and key:
        return Tls(certificate, key, client_ca)
    if certificate or key or client_ca:
        raise UsageError("TLS needs both --tls-certificate and --tls-key")
    return None


def sites(origins: Sequence[str]) -> tuple[str, ...]:
    """The sites that the options name, as browsers do.

    Raises:
        UsageError: no page can be of one of them.
    """
    for origin in origins:
        if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                "--origin takes what a browser calls a site, such as https://kiosk.example or http://localhost:3000: "
                f"small letters, no usual port, and nothing after it; or *. It was given {origin!r}"
            )
    return tuple(origins)


def _limits(max_body: str | None) -> "Limits":
    """What the options say of requests.

    Raises:
        UsageError: the size cannot be read, or would not work.
    """
    from telemetry.receiver.room import Limits

    limits = Limits()
    if max_body is None:
        return limits
    size = size_bytes("--max-body", max_body)
    if not 1000 <= size <= limits.max_bytes // 2:  # a body may take its size twice while it is decompressed
        raise UsageError(f"--max-body takes 1K to 128MiB, and was given {max_body!r}")
    return replace(limits, max_body_bytes=size)


def _plan(rules: Path | None, check_every: str) -> "Plan | None":
    """What the options say of alerts; None means that there are none.

    Raises:
        UsageError: one of them, or the file, cannot be used.
    """
    if rules is None:
        if _is_given("check_every"):
            raise UsageError("--check-every says how often to check rules; give them with --rules")
        return None
    from telemetry import reports
    from telemetry.alerts import judging, watch, webhook

    try:
        every_s = reports.duration_ns(check_every) / 1e9
    except ValueError:
        every_s = 0.0
    if not 1 <= every_s <= 86_400:
        raise UsageError(f"--check-every takes a duration from 1s to 1d, and was given {check_every!r}")
    hooks = webhook.read_webhooks(rules, judging.read_file(rules), os.environ)
    return watch.Plan(judging.read_rules(rules), hooks, every_s)


@asynccontextmanager
async def until_stopped(notice: Path | None = None) -> AsyncIterator[asyncio.Event]:
    """Set the event at the first SIGINT or SIGTERM; leave the process at once at the second.

    Leaving at once loses nothing acknowledged, because an acknowledgement follows the commit.

    Args:
        notice: a file to remove before leaving at once.
    """
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            if notice:
                notice.unlink(missing_ok=True)
            os._exit(ExitCode.INTERRUPTED)
        stopped.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield stopped
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@click.command(
    epilog="""\b
Examples:
  telemetry simulate
  telemetry simulate --list                   the scenarios, with what each one does
  telemetry connect ws://127.0.0.1:4390/queue_admitted"""
)
@click.option("--host", default=settings.LOOPBACK, show_default=True, help="The address to listen on.")
@click.option("--port", default=settings.SIMULATOR_PORT, show_default=True, help="0 for any free port.")
@click.option("--seed", default=0, show_default=True, help="The same seed plays the same mix again.")
@click.option("--speed", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Divides every wait.")
@click.option("--capacity", type=click.IntRange(0), default=1000, show_default=True, help="Sessions at once.")
@click.option("--queue-limit", type=click.IntRange(0), default=100, show_default=True, help="How many may wait.")
@click.option("--list", "listing", is_flag=True, help="List the scenarios and leave.")
def simulate(host: str, port: int, seed: int, speed: float, capacity: int, queue_limit: int, listing: bool) -> None:
    """Be a digital-person server that plays scenarios over real sockets and real WebRTC.

    The path of the URL chooses the scenario; /mix draws one for every connection.
    With TELEMETRY_SESSION_TOKEN set, clients must show it.
    """
    from telemetry.simulator.scenarios import MIX, SCENARIOS
    from telemetry.simulator.server import Simulator

    if listing:
        width = max(map(len, SCENARIOS))
        for scenario in SCENARIOS.values():
            click.echo(f"{scenario.name:<{width}}  {scenario.description}")
        return
    simulator = Simulator(
        host,
        port,
        seed=seed,
        speed=speed,
        capacity=capacity,
        queue_limit=queue_limit,
        token=os.environ.get(settings.SESSION_TOKEN_VARIABLE),
    )

    async def run() -> None:
        async with simulator, until_stopped() as stopped:
            narrate(f"{simulator.url('steady')}\n{simulator.url(MIX)}\nCtrl-C stops")
            await stopped.wait()

    asyncio.run(run())
    narrate(f"stopped; {counted(sum(simulator.played.values()), 'connection')} played")


@click.command(
    epilog="""\b
Examples:
  telemetry demo                              play, report, and leave the pages open
  telemetry demo --once                       the same, and leave
  telemetry demo --store demo.duckdb          keep what was recorded"""
)
@click.option("--sessions", type=click.IntRange(1), default=240, show_default=True, help="How many sessions to play.")
@click.option("--seed", default=0, show_default=True, help="The same seed plays the same sessions again.")
@click.option(
    "--store", type=click.Path(dir_okay=False, path_type=Path), help="Where to keep them.  [default: nowhere]"
)
@click.option("--pages-port", default=settings.PAGES_PORT, show_default=True, help="Pages; 0 for any free port.")
@click.option("--once", is_flag=True, help="Leave when the report is printed.")
def demo(sessions: int, seed: int, store: Path | None, pages_port: int | None, once: bool) -> None:
    """Play real sessions through the whole pipeline, report, and leave the pages open.

    A simulator plays every scenario over real sockets and real WebRTC; real clients connect to it;
    their spans travel over OTLP into a store. Then: the failure report, and one failed session's story.
    """
    import tempfile

    if store:
        store = settings.store_path(store, instead="keep what is played in a file, and `telemetry store copy` that")
    with tempfile.TemporaryDirectory(prefix="telemetry-demo-") as folder:
        asyncio.run(_demo(sessions, seed, store, Path(folder), pages_port, once))


async def _demo(sessions: int, seed: int, kept: Path | None, folder: Path, pages_port: int | None, once: bool) -> None:
    from telemetry.cli.output import progress, write_table
    from telemetry.demo import pipeline
    from telemetry.serve import Doors
    from telemetry.source import opened
    from telemetry.support.text import render

    store = kept or folder / "demo.duckdb"
    visits = pipeline.plan(sessions, seed)
    failed: dict[str, str] = {}
    begun = datetime.now(UTC)
    doors = Doors(grpc_port=0, http_port=0, pages_port=_free_pages_port() if pages_port is None else pages_port)
    async with AsyncExitStack() as stack:
        with progress(len(visits), "sessions") as advance:

            def done(seen: pipeline.Seen) -> None:
                if seen.error and seen.attempt_id:
                    failed[seen.scenario] = seen.attempt_id
                advance(f"{seen.scenario}: {seen.error or 'connected'}")

            addresses = await stack.enter_async_context(pipeline.demonstration(store, doors, visits, done))
        # So that the commands answer the same when they are repeated, where something stays that answers.
        asks = kept or (None if once else addresses.pages)
        where = f" --store {shlex.quote(str(asks))}" if asks else ""
        with opened(addresses.pages) as asked:
            table = await asyncio.to_thread(asked.report, "failure_rate", {"by": "reason", "since": "1h"})
            told = await asyncio.to_thread(asked.story, pipeline.worth_telling(failed)) if failed else None
        click.echo(f"telemetry report failure_rate --by reason --since 1h{where}")
        write_table(table, "table", None)
        if told:
            click.echo(f"\ntelemetry session {told['attempt']['attempt_id']}{where}")
            click.echo(render(told, link=None if once else addresses.pages + told["link"]), nl=False)
        if once:
            return
        stopped = await stack.enter_async_context(until_stopped())
        narrate(f"\nlook around: {_overview(addresses.pages, begun, datetime.now(UTC))}\nCtrl-C stops")
        await stopped.wait()


def _overview(pages: str, begun: datetime, ended: datetime) -> str:
    """The overview of just what was played, so that it fills the charts."""
    since, until = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (begun, ended + timedelta(seconds=1)))
    return f"{pages}/?since={since}&until={until}"


def _free_pages_port() -> int:
    """The usual port, so that an address from yesterday works; 0 if it is taken."""
    try:
        with socket.create_server((settings.LOOPBACK, settings.PAGES_PORT)):
            return settings.PAGES_PORT
    except OSError:
        return 0
