"""`connect` and `probe`: one real session with progress, or many with a summary."""

import asyncio
import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import click

from telemetry import settings
from telemetry.cli.output import narrate, printable, progress
from telemetry.errors import ConnectionFailed, ExitCode, UsageError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from telemetry.connector.scene import Scene
    from telemetry.probe import Result

MEDIA = click.Choice(["none", "microphone", "camera", "microphone_and_camera"])


def _session_options(command: Any) -> Any:
    """The options that `connect` and `probe` share."""
    for option in reversed(
        (
            click.option("--media", type=MEDIA, default="none", show_default=True, help="What to send, if possible."),
            click.option("--require", type=MEDIA, default="none", show_default=True, help="What must be sent."),
            click.option(
                "--media-from",
                default="devices",
                show_default=True,
                help="`devices`, `synthetic`, or a media file that plays in a loop.",
            ),
            click.option(
                "--attempts", type=click.IntRange(1, 100), default=1, show_default=True, help="Tries at most."
            ),
            click.option("--limit", type=float, default=60.0, show_default=True, help="Seconds for one try."),
            click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="On every span."),
            click.option(
                "--endpoint", help="Where spans go.  [default: $OTEL_EXPORTER_OTLP_ENDPOINT, or this machine]"
            ),
            click.option("--no-trace", is_flag=True, help="Send no spans."),
        )
    ):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples:
  telemetry connect ws://127.0.0.1:4390/steady
  telemetry connect wss://person.example/scene --media microphone --attempts 3 --stay inf
  TELEMETRY_SESSION_TOKEN=… telemetry connect wss://person.example/scene"""
)
@click.argument("url")
@_session_options
@click.option("--persistent", is_flag=True, help="Ask the server to keep the session for a reconnect.")
@click.option(
    "--stay", "stay_s", type=float, default=5.0, show_default=True, help="Seconds to stay; inf: until Ctrl-C."
)
def connect(url: str, persistent: bool, stay_s: float, **options: Any) -> None:
    """Open one session with a digital person, and show its progress.

    Prints the sessionId on stdout. If it fails: the error with its attempt id on stderr, and exit code 3.
    The token for the server is taken from TELEMETRY_SESSION_TOKEN.
    """
    from telemetry.connector.scene import Scene

    with _tracing(options) as provider:
        scene = Scene(url, persistent=persistent, **_arguments(options, provider))
        asyncio.run(_connect(scene, stay_s))


async def _connect(scene: "Scene", stay_s: float) -> None:
    began = time.monotonic()
    ended = asyncio.Event()

    def on_state(state: Any) -> None:
        narrate(f"{time.monotonic() - began:7.2f} s  {state.percentage_loaded:3d} %  {state.name}")

    def on_disconnect(scene: Any, session_id: str, reason: str) -> None:
        narrate(f"{time.monotonic() - began:7.2f} s  disconnected: {printable(str(reason))}")
        ended.set()

    scene.on_state(on_state)
    scene.on_queue(lambda position: narrate(f"{time.monotonic() - began:7.2f} s        place {position} in the queue"))
    scene.on_assets(lambda loaded, total: narrate(f"{time.monotonic() - began:7.2f} s        {_loaded(loaded, total)}"))
    scene.on_disconnect(on_disconnect)
    async with scene:
        click.echo(await scene.connect())
        with suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(stay_s) else stay_s):
                await ended.wait()


@click.command(
    epilog="""\b
Examples:
  telemetry probe ws://127.0.0.1:4390/steady --count 100 --concurrency 10
  telemetry probe wss://person.example/scene --count 5 --format json"""
)
@click.argument("url")
@click.option("--count", type=click.IntRange(1), default=10, show_default=True, help="How many sessions.")
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="How many at once.")
@_session_options
@click.option("--stay", "stay_s", type=float, default=1.0, show_default=True, help="Seconds to stay connected.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def probe(url: str, count: int, concurrency: int, stay_s: float, format: str, **options: Any) -> None:
    """Open many real sessions, marked as synthetic, and sum up how they went.

    Exit code 3 if any failed. Ctrl-C ends the sessions under way and sums up what there is.
    """
    from telemetry import probe as probing
    from telemetry.connector.scene import Scene

    results: list[Result] = []
    interrupted = False

    with _tracing(options) as provider, progress(count, "sessions") as advance:
        arguments = _arguments(options, provider)

        def make_scene() -> Scene:
            return Scene(url, synthetic=True, **arguments)

        def done(result: "Result") -> None:
            results.append(result)
            failures = sum(each.error is not None for each in results)
            advance(f"{failures} failed" if failures else "")

        try:
            asyncio.run(probing.probe(make_scene, count=count, concurrency=concurrency, stay_s=stay_s, done=done))
        except KeyboardInterrupt:
            interrupted = True
    summary = probing.summary(results)
    click.echo(json.dumps(summary) if format == "json" else _summary_text(summary))
    if interrupted:
        raise click.exceptions.Exit(ExitCode.INTERRUPTED)
    if summary["failed"]:
        raise click.exceptions.Exit(ExitCode.CONNECTION_FAILED)


def _loaded(loaded_bytes: int, total_bytes: int) -> str:
    share = f"{loaded_bytes / total_bytes:.0%} of " if total_bytes else ""
    return f"assets: {share}{max(loaded_bytes, total_bytes) / 1e6:.1f} MB"


def _summary_text(summary: Mapping[str, Any]) -> str:
    ended = summary["connected"] + summary["failed"]
    lines = [f"{summary['connected']} of {ended} connected"]
    if summary["cancelled"]:
        lines[0] += f", {summary['cancelled']} cancelled"
    if summary["connect_p50_s"] is not None:
        lines.append(f"time to first frame: p50 {summary['connect_p50_s']:.2f} s, p95 {summary['connect_p95_s']:.2f} s")
    for failure in summary["failures"]:
        what = f"{failure['count']} × {failure['error']} in {failure['step']} ({failure['detail']})"
        lines.append(f"{what}, for example attempt {failure['example_attempt_id']}")
    return printable("\n".join(lines))


def _arguments(options: Mapping[str, Any], provider: "TracerProvider") -> dict[str, Any]:
    """The arguments of a `Scene` that the shared options mean."""
    from telemetry.connector.plan import Limits, Retry, UserMedia

    if not options["limit"] > 0:
        raise UsageError("--limit must be over 0 seconds")
    media_from = options["media_from"]
    if media_from not in ("devices", "synthetic") and not Path(media_from).exists():
        raise UsageError(f"there is no file {media_from}; --media-from takes one, or `devices`, or `synthetic`")
    return {
        "token": os.environ.get(settings.SESSION_TOKEN_VARIABLE),
        "requested_media": UserMedia(options["media"]),
        "required_media": UserMedia(options["require"]),
        "media_source": media_from,
        "retry": Retry(attempts=options["attempts"]),
        "limits": Limits(connect_s=options["limit"]),
        "attributes": _pairs(options["attributes"]),
        "tracer_provider": provider,
    }


def _pairs(given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--attribute takes KEY=VALUE, and was given {text!r}")
        pairs[key] = value
    return pairs


@contextmanager
def _tracing(options: Mapping[str, Any]) -> "Iterator[TracerProvider]":
    """Send spans to where the options, the environment or a server on this machine say; flush at the end.

    A failure on its way out learns where its story is told, if it is recorded.
    """
    from opentelemetry.trace import NoOpTracerProvider

    endpoint = _endpoint(options)
    if options["no_trace"] or endpoint is None:
        yield NoOpTracerProvider()
        return
    from telemetry.connector.tracing import set_up_tracing

    tokens = settings.tokens()
    if tokens:
        os.environ.setdefault("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{quote(tokens[0])}")
    provider = set_up_tracing(endpoint or None, service_name=os.environ.get("OTEL_SERVICE_NAME", "telemetry-cli"))
    failed = None
    with _losses() as lost:
        try:
            yield provider
        except ConnectionFailed as error:
            failed = error
            raise
        finally:
            provider.shutdown()
            if lost:
                narrate(printable(f"this is not recorded, or only in part: {lost[0]}"))
            elif failed:
                failed.add_note(f"telemetry session {failed.attempt_id} tells its story")


@contextmanager
def _losses() -> Iterator[list[str]]:
    """What the SDK says of spans that nobody took, which is kept from stderr meanwhile."""
    lost: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.getMessage().startswith("Transient error"):  # then it tries again
                lost.append(record.getMessage())

    listening = Listening(logging.WARNING)
    loggers = [logging.getLogger(f"opentelemetry.{part}") for part in ("exporter", "sdk")]
    for logger in loggers:
        logger.addHandler(listening)
    try:
        yield lost
    finally:
        for logger in loggers:
            logger.removeHandler(listening)


def _endpoint(options: Mapping[str, Any]) -> str | None:
    """Where to send spans; empty means what the environment says, None that nobody would take them."""
    if options["endpoint"]:
        return str(options["endpoint"])
    if any(name in os.environ for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return ""
    from telemetry.source import otlp_endpoint

    endpoint = otlp_endpoint(None if settings.cluster_address() else settings.store_path())
    where = urlsplit(endpoint)
    try:
        socket.create_connection((str(where.hostname), where.port or 0), timeout=1).close()
    except OSError:
        if not options["no_trace"]:
            narrate(f"nobody takes spans at {endpoint}, so this is not recorded; `telemetry serve` would")
        return None
    return endpoint
