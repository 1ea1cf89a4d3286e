"""What the command line writes: data to stdout, narration to stderr.

Telemetry holds texts from strangers, so nothing reaches a terminal before `printable` has seen it.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from telemetry.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

WIDE: Final = 10_000
"""Columns of a line: nothing is wrapped or squeezed here; a terminal wraps, `less -S` scrolls, a program reads."""
ABSENT: Final = "–"
_RANDOM_ID: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,3})?\d*Z")


def narrate(text: str) -> None:
    """Say something to the person; never data."""
    click.echo(text, err=True)


def printable(text: str) -> str:
    """Make control characters visible, so that a text from the network cannot command a terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def write_table(table: "pa.Table", format: str, output: Path | None) -> None:
    """Write a report's rows to stdout or to a file.

    Raises:
        UsageError: a binary format would go to a terminal.
    """
    if format == "table":
        _write_text(_as_text(table, output), output)
        return
    from telemetry import formats

    body = formats.to_bytes(table, format)
    if output is not None:
        output.write_bytes(body)
        narrate(f"{table.num_rows} rows written to {output}")
    elif format == "parquet" and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal; add --output FILE or redirect stdout")
    else:
        click.echo(body, nl=False)


def _write_text(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)


def _as_text(table: "pa.Table", output: Path | None) -> str:
    """Columns in line; on a terminal with short ids, whose beginnings are enough for `telemetry session`."""
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from telemetry import formats

    if table.num_rows == 0:
        return "no rows\n"
    to_terminal = output is None and sys.stdout.isatty()
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for field in table.schema:
        drawn.add_column(Text(field.name), justify="right" if _is_number(field.type) else "left", no_wrap=True)
    for row in formats.to_rows(table):
        cells = (cell(name, value) for name, value in row.items())
        drawn.add_row(*(Text(_short(text) if to_terminal else text) for text in cells))
    out = io.StringIO()
    Console(file=out, force_terminal=to_terminal, width=WIDE).print(drawn)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _short(text: str) -> str:
    return text[:8] if _RANDOM_ID.fullmatch(text) else text


def _is_number(type: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(type) or types.is_floating(type) or types.is_decimal(type))


def cell(name: str, value: object) -> str:
    """A value as a person reads it; the column's name carries its unit."""
    match value:
        case None:
            return ABSENT
        case bool():
            return "yes" if value else "no"
        case float() if name.endswith("_ratio"):
            return f"{value:.1%}"
        case float() if name.endswith("_ms"):
            return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"
        case float():
            return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
        case str():
            return printable(_MOMENT.sub(r"\1\2Z", value).replace("\n", " "))
        case _:
            return printable(str(value))


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and what it counts: `1 file`, `2 files`; None means that an s makes the many."""
    return f"{number} {one if number == 1 else many or one + 's'}"


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[str], None]]:
    """Show a bar on stderr while something is done `total` times; call what is given after each, with a short text.

    Without a terminal there is a line at every tenth of the way instead.
    """
    if not sys.stderr.isatty():
        yield _tenths(total, what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda note: bar.update(task, advance=1, note=printable(note))


def _tenths(total: int, what: str) -> Callable[[str], None]:
    done = 0

    def advance(note: str) -> None:
        nonlocal done
        done += 1
        if done == total or done * 10 // total > (done - 1) * 10 // total:
            narrate(f"{what}: {done} of {total}{', ' + printable(note) if note else ''}")

    return advance
