"""`store`, `capsule` and `repro`: the commands that look after what was recorded, and carry it elsewhere."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from telemetry import settings
from telemetry.cli.asking import store_option
from telemetry.cli.output import counted, narrate, printable
from telemetry.errors import DecodeError, ExitCode, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from telemetry.store.duck import Store
    from telemetry.store.retention import Retention
    from telemetry.support.capsule import Capsule

FILE = click.Path(dir_okay=False, path_type=Path)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def retention_options(command: click.decorators.FC) -> click.decorators.FC:
    """The options that say what to forget."""
    for option in (
        click.option(
            "--keep-bytes",
            metavar="SIZE",
            help="Forget the oldest above this size, however few days they were kept: 500M, 20G. "
            "The file may be twice as large.",
        ),
        click.option("--keep-in", metavar="ENVIRONMENT=DAYS", multiple=True, help="Other days for an environment."),
        click.option("--keep-days", type=float, help="Forget what is older."),
    ):
        command = option(command)
    return command


def retention(keep_days: float | None, keep_in: tuple[str, ...], keep_bytes: str | None) -> "Retention | None":
    """What the options say; None means that they keep everything.

    Raises:
        UsageError: one of them cannot be read.
    """
    if keep_days is None and not keep_in and keep_bytes is None:
        return None
    from telemetry.store.retention import Retention

    if keep_days is not None and not keep_days > 0:
        raise UsageError("--keep-days must be over 0")
    max_bytes = None if keep_bytes is None else size_bytes("--keep-bytes", keep_bytes)
    return Retention(keep_days, max_bytes, dict(map(_environment_days, keep_in)))


def _environment_days(text: str) -> tuple[str, float]:
    name, _, days = text.rpartition("=")
    try:
        if name and float(days) > 0:
            return name, float(days)
    except ValueError:
        pass
    raise UsageError(f"--keep-in takes ENVIRONMENT=DAYS, such as staging=3, and was given {text!r}")


def size_bytes(option: str, text: str) -> int:
    """The size that an option gives.

    Raises:
        UsageError: it cannot be read.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:([kmgt])(i?))?b?", text.strip().lower())
    if not found:
        raise UsageError(f"{option} takes a size such as 500M, 64MiB or 20G, and was given {text!r}")
    number, unit, binary = found.groups(default="")
    size: float = float(number) * (1024 if binary else 1000) ** _POWERS[unit]
    return round(size)


@click.group()
def store() -> None:
    """Look after the store: what it holds, whether it is sound, backups, forgetting."""


@store.command(epilog="\b\nExample:\n  telemetry store info --format json")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@store_option
def info(format: str, store: str | None) -> None:
    """Say what the store holds, and how large it is."""
    from telemetry import formats, source

    with source.opened(store) as asked:
        facts = formats.jsonable(asked.info())
    if format == "json":
        click.echo(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        shown = _time(value) if name.endswith("_ns") else _bytes(value) if name.endswith("_bytes") else value
        click.echo(
            printable(f"{name.removesuffix('_ns').removesuffix('_bytes'):<16} {'–' if value is None else shown}")
        )


@store.command(epilog="\b\nExample:\n  telemetry store verify")
@store_option
def verify(store: str | None) -> None:
    """Compare what the store maintains with its definition, span by span.

    Reads every span. Exit code 5 if anything differs.
    """
    from telemetry import source

    with source.opened(store) as asked:
        checks = asked.verify()
    for check in checks:
        word = "differ" if check["differing"] else "ok"
        example = f", for example {check['example']}" if check["differing"] else ""
        click.echo(printable(f"{word:<6} {check['name']}: {check['differing']} of {check['rows']} differ{example}"))
    if any(check["differing"] for check in checks):
        raise click.exceptions.Exit(ExitCode.STORE)


@store.command(epilog="\b\nExample:\n  telemetry store backup /backups/telemetry-$(date +%F).duckdb")
@click.argument("target", type=FILE)
@store_option
def backup(target: Path, store: str | None) -> None:
    """Copy the store into a new file; a running server goes on serving.

    The copy is whole and at its place, or it is not there. A server makes it beside its store before it sends it.
    """
    from telemetry import source
    from telemetry.store.backup import backup as copy

    _refuse_taken(target)
    with source.opened(store, writable=True) as asked:
        if isinstance(asked, source.File):
            copy(asked.store, target)
        else:
            asked.backup(target)
    narrate(f"{target}: {_bytes(target.stat().st_size)}")


@store.command(
    epilog="""\b
Examples:
  telemetry store export spans/               Parquet, a folder for each day
  telemetry store export spans.jsonl.gz --days 7"""
)
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Only the last so many days.")
@store_option
def export(target: Path, days: float | None, store: str | None) -> None:
    """Write the spans for others to read: Parquet into a folder, or OTLP/JSON lines into a .jsonl or .jsonl.gz file.

    What a server holds is copied first, so that it goes on undisturbed. An earlier export is never written over.
    """
    from telemetry.store.transfer import export_otlp, export_parquet

    _refuse_taken(target)
    if not _is_lines(target) and _has_ending(target):
        raise UsageError(f"{target} has an ending that names no form; give a folder, or a .jsonl or .jsonl.gz file")
    write = export_otlp if _is_lines(target) else export_parquet
    since_ns = 0 if days is None else time.time_ns() - round(days * 86_400 * 10**9)
    with _readable(store) as opened:
        moved = write(opened, target, since_ns=since_ns)
    click.echo(f"{counted(moved.spans, 'span')} in {counted(moved.files, 'file')}")


def _refuse_taken(target: Path) -> None:
    """Raises UsageError where something is already; an empty folder is nothing."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} exists; choose another path, or remove it")


@contextmanager
def _readable(given: str | None) -> "Iterator[Store]":
    """The store's file, or a copy of what a server holds."""
    import tempfile

    from telemetry import source
    from telemetry.store.duck import Store

    with source.opened(given) as asked:
        if isinstance(asked, source.File):
            yield asked.store
            return
        with tempfile.TemporaryDirectory(prefix="telemetry-export-") as folder:
            copy = Path(folder) / "copy.duckdb"
            asked.backup(copy)
            with Store.open(copy, read_only=True) as opened:
                yield opened


@store.command(
    "import",
    epilog="""\b
Examples:
  telemetry store import spans/
  telemetry store import spans.jsonl.gz""",
)
@click.argument("given", metavar="SOURCE", type=click.Path(exists=True, path_type=Path))
@click.option("--store", type=FILE, help="The store's file.")
def import_spans(given: Path, store: Path | None) -> None:
    """Take spans in that `export` wrote, or a Collector's file exporter. No server may be running on the store.

    What is there already stays as it is, so an import may be repeated. Spans that break a rule are left out, and said
    and written down as such; then the exit code is 1.
    """
    from telemetry.store.transfer import import_otlp, import_parquet

    with _written(store, "import into a file, and `telemetry store copy` that to the cluster") as opened:
        moved = (import_otlp if _is_lines(given) else import_parquet)(opened, given)
    there = counted(moved.duplicates, "was", "were")
    click.echo(f"{counted(moved.spans, 'span')} from {counted(moved.files, 'file')}; {there} there already")
    for one in moved.rejected:
        left_out = counted(one.count, "span was", "spans were")
        narrate(printable(f"{left_out} left out: {one.reason}; for example {one.example}"))
    if moved.rejected:
        raise click.exceptions.Exit(ExitCode.FAILED)


def _is_lines(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz", ".json", ".json.gz"))


def _has_ending(path: Path) -> bool:
    """Whether it is named as files are; dates and versions have dots, too."""
    return re.fullmatch(r"\.[a-zA-Z]\w*", path.suffix) is not None


@store.command(
    epilog="""\b
Examples:
  telemetry store init --store clickhouse://admin@db.example/telemetry
  telemetry store init --store clickhouse://admin@db.example/telemetry --cluster fleet --keep-days 90"""
)
@click.option("--store", metavar="URL", required=True, help="clickhouse://user@host/db; the database is made.")
@click.option("--cluster", metavar="NAME", help="Its name in system.clusters; without it, one server holds everything.")
@click.option("--keep-days", type=click.IntRange(1), help="Forget what is older.")
def init(store: str, cluster: str | None, keep_days: int | None) -> None:
    """Make the schema on ClickHouse, or bring it up to date: stock Collectors export to its otel_traces.

    May be repeated. A cluster without Keeper is told node by node: once with the address of each.
    """
    from telemetry.cluster.schema_setup import apply

    applied = apply(store, cluster=cluster, keep_days=keep_days)
    click.echo(f"the schema {applied.change if applied.change != 'made' else 'was made'}")
    if applied.behind:
        narrate(f"{len(applied.behind)} of {applied.nodes} nodes still lack it: {', '.join(applied.behind)}")
        narrate("without Keeper no statement reaches them from here; repeat this with the address of each")


@store.command(
    "copy",
    epilog="""\b
Examples:
  telemetry store copy telemetry.duckdb clickhouse://admin@db.example/telemetry
  telemetry store copy clickhouse://reader@db.example/telemetry copy.duckdb""",
)
@click.argument("given", metavar="FROM")
@click.argument("target", metavar="TO")
def copy_spans(given: str, target: str) -> None:
    """Copy spans between a store's file and ClickHouse, day by day; days that are the same are passed over.

    So it may be repeated, and takes up what was interrupted. What a server holds is copied first, so that it goes on.
    """
    from telemetry.cluster import transfer

    def tell(done: int, all_spans: int) -> None:
        narrate(f"{done:,} of {all_spans:,} spans")

    def opened(end: str, file: "Callable[[], AbstractContextManager[Store]]") -> transfer.End:
        if settings.cluster_address(end):
            return stack.enter_context(transfer.clickhouse(end))
        return transfer.File(stack.enter_context(file()))

    with ExitStack() as stack:
        source = opened(given, lambda: _readable(given))
        copied = transfer.copy(source, opened(target, lambda: _written(Path(target))), tell)
    there = counted(copied.days_there, "day was", "days were")
    click.echo(f"{counted(copied.spans, 'span')} of {counted(copied.days, 'day')}; {there} there already")


@store.command(epilog="\b\nExample:\n  telemetry store prune --keep-days 30 --keep-in staging=3")
@retention_options
@click.option("--store", type=FILE, help="The store's file.")
def prune(keep_days: float | None, keep_in: tuple[str, ...], keep_bytes: str | None, store: Path | None) -> None:
    """Forget what is old, and give its room back. No server may be running on the store.

    A server takes the same options and forgets by itself.
    """
    from telemetry.store.retention import prune

    wanted = retention(keep_days, keep_in, keep_bytes)
    if wanted is None:
        raise UsageError("nothing to forget by; give --keep-days, --keep-in or --keep-bytes")
    path = settings.store_path(store, instead="it forgets by itself: `telemetry store init --keep-days`")
    if not path.exists():
        raise StoreError(f"there is no store at {path}, and so nothing to forget")
    with _written(path) as opened:
        pruned = prune(opened, wanted, now_ns=time.time_ns())
    click.echo(f"forgot {counted(pruned.attempts, 'attempt')}, {counted(pruned.spans, 'span')}")


@contextmanager
def _written(path: Path | None, instead: str = "this writes into a file") -> "Iterator[Store]":
    """Open a store's file for writing.

    Raises:
        UsageError: it is a cluster; the message ends with what to do instead.
    """
    from telemetry.store.duck import Store

    # Nobody else commits meanwhile, so that gaps may be closed.
    with Store.open(settings.store_path(path, instead=instead), merges=100) as opened:
        yield opened


@click.group()
def capsule() -> None:
    """Carry one attempt elsewhere: one scrubbed file that opens offline, and imports into any store."""


@capsule.command(
    "export",
    epilog="""\b
Examples:
  telemetry capsule export 4b7c --output case-1234.html
  telemetry capsule export 4b7c --format chrome           for ui.perfetto.dev and chrome://tracing""",
)
@click.argument("id")
@click.option("--output", type=FILE, help="Where to write it.  [default: ATTEMPT.capsule.html, or .FORMAT.json]")
@click.option(
    "--format",
    type=click.Choice(["html", "otlp", "chrome", "jaeger"]),
    default="html",
    show_default=True,
    help="html opens offline and imports; the others hold only the capsule's spans, for other viewers.",
)
@store_option
def export_capsule(id: str, output: Path | None, format: str, store: str | None) -> None:
    """Write everything about one attempt into one file; its name is printed on stdout.

    Tokens, personal data and the addresses of people are removed; the file says what was.
    From a ClickHouse cluster (--store clickhouse://…) it is the same file, and it imports into any store's file.
    """
    from telemetry import source
    from telemetry.support.capsule import unpack

    with source.opened(store) as asked:
        body = asked.capsule(id)
    packed = unpack(body)
    if format != "html":
        body = json.dumps(_trace(packed, format)).encode()
    ending = "capsule.html" if format == "html" else f"{format}.json"
    path = output or Path(re.sub(r"[^\w.-]", "_", packed.attempt_id) + f".{ending}")
    _refuse_taken(path)
    with path.open("xb") as file:
        file.write(body)
    removed = counted(sum(removed.count for removed in packed.removed), "value was", "values were")
    narrate(f"{removed} removed; the file lists them")
    click.echo(str(path))


def _trace(packed: "Capsule", format: str) -> Mapping[str, Any]:
    """The spans of a capsule as another viewer reads them."""
    from telemetry import traces

    if format == "otlp":
        return packed.otlp
    rows = packed.table(received_ns=0).sort_by([("trace_id", "ascending"), ("start_ns", "ascending")]).to_pylist()
    if format == "jaeger":
        return traces.to_jaeger(rows)
    return traces.to_chrome([row for row in rows if row["trace_id"] == packed.trace_id])


@capsule.command(
    "import",
    epilog="""\b
Examples:
  telemetry capsule import case-1234.html
  telemetry capsule import webrtc_internals_dump.txt --attempt 4b7c""",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--attempt", metavar="ID", help="Lay a dump of chrome://webrtc-internals on this attempt's timeline.")
@click.option("--ahead-ms", type=float, default=0.0, show_default=True, help="How far the browser's clock was ahead.")
@click.option("--store", type=FILE, help="The store's file.")
def import_capsule(file: Path, attempt: str | None, ahead_ms: float, store: Path | None) -> None:
    """Take a capsule's attempt into the store, and judge it again; its attempt id is printed on stdout."""
    from telemetry import source
    from telemetry.support import internals
    from telemetry.support.capsule import unpack

    path = settings.store_path(store, instead="import the capsule into a file, which answers the same")
    if attempt is not None:
        with source.opened(path) as asked:
            known = asked.story(attempt)["attempt"]
        entries = internals.read(file.read_bytes())
        _take_in(path, internals.to_otlp(entries, known["trace_id"], ahead_ns=round(ahead_ms * 1e6)))
        narrate(f"{counted(len(entries), 'entry of the browser is', 'entries of the browser are')} on its timeline")
        click.echo(known["attempt_id"])
        return
    packed = unpack(file.read_bytes())
    _take_in(path, packed.otlp)
    with source.opened(path) as asked:
        verdict = asked.story(packed.attempt_id)["verdict"]
    same = (verdict["rule"], verdict["owner"]) == (packed.verdict["rule"], packed.verdict["owner"])
    narrate(printable(f"the verdict is {'the same' if same else 'another'}: {verdict['sentence']}"))
    click.echo(packed.attempt_id)


def _take_in(path: Path, request: Mapping[str, Any]) -> None:
    """Store an OTLP/JSON request, through the server that holds the store if one does.

    Raises:
        DecodeError: one of its spans breaks a rule; none is stored.
    """
    from telemetry import source
    from telemetry.receiver.otlp_json import decode_json

    decoded = decode_json(json.dumps(request).encode(), time.time_ns())
    if decoded.rejected:
        one = decoded.rejected[0]
        raise DecodeError(f"{counted(one.count, 'span')} cannot be stored: {one.reason}; for example {one.example}")
    receiver = source.otlp_http_endpoint(path)
    if receiver:
        source.send(receiver, request, path)
        return
    with _written(path) as opened:
        opened.commit([decoded.table])


@click.command(
    epilog="""\b
Examples:
  telemetry repro 4b7c > scenario.py
  telemetry repro case-1234.html"""
)
@click.argument("id_or_capsule")
@store_option
def repro(id_or_capsule: str, store: str | None) -> None:
    """Turn a recorded attempt into a simulator scenario that leads to the same verdict.

    Prints the scenario as Python for `telemetry/simulator/scenarios.py` or a test.
    """
    from telemetry import source
    from telemetry.support.capsule import unpack

    file = Path(id_or_capsule)
    if file.is_file():
        body = file.read_bytes()
    elif len(file.parts) > 1 or _has_ending(file):
        raise UsageError(f"there is no file {file}")
    else:
        with source.opened(store) as asked:
            body = asked.capsule(id_or_capsule)
    click.echo(_scenario_of(unpack(body)), nl=False)


def _scenario_of(packed: "Capsule") -> str:
    """Let a store of its own put the capsule's spans together, as any store would."""
    import tempfile

    from telemetry.support.asking import ask
    from telemetry.support.repro import reproduce, to_source

    with tempfile.TemporaryDirectory() as folder, _written(Path(folder) / "capsule.duckdb") as store:
        store.commit([packed.table(time.time_ns())])
        params = {"trace_id": packed.trace_id}
        return to_source(reproduce(ask(store, "attempt", params)[0], ask(store, "spans_of", params)))


def _bytes(size: int | None) -> str:
    if size is None:
        return "–"
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _time(at_ns: int | None) -> str:
    from datetime import UTC, datetime

    return "–" if at_ns is None else f"{datetime.fromtimestamp(at_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
