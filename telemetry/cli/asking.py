"""`reports`, `report`, `session` and `check`: the commands that ask the store, or the server that holds it."""

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from telemetry import settings
from telemetry.cli.output import narrate, printable, write_table
from telemetry.errors import UsageError

if TYPE_CHECKING:
    from telemetry.reports import Param, Report

FORMATS = click.Choice(["table", "csv", "json", "parquet"])


def store_option(command: click.decorators.FC) -> click.decorators.FC:
    """The option that says which store to ask."""
    return click.option(
        "--store",
        metavar="PATH|URL",
        help="A store's file, the address of a server, or clickhouse://user@host/db.  "
        f"[default: ${settings.SERVER_VARIABLE}, ${settings.STORE_VARIABLE}, or {settings.default_store()}]",
    )(command)


@click.command(epilog="\b\nExample:\n  telemetry reports")
@click.option("--format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def reports(format: str) -> None:
    """List the reports, each with the question that it answers."""
    from telemetry.reports import catalogue

    menu = {name: report.question for name, report in catalogue().items()}
    if format == "json":
        click.echo(json.dumps(menu, indent=1))
        return
    width = max(map(len, menu), default=0)
    for name, question in menu.items():
        click.echo(f"{name:<{width}}  {question}")


class Reports(click.Group):
    """A command for every report, with options made from the header of its SQL."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from telemetry.reports import catalogue

        return list(catalogue())

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        from telemetry.reports import find

        return _command_of(find(name))


@click.group(
    cls=Reports,
    subcommand_metavar="NAME [OPTIONS]",
    epilog="""\b
Examples:
  telemetry report failure_rate --since 24h
  telemetry report step_durations --since 7d --region eu --format csv > steps.csv
  telemetry report recent --format json
  telemetry report NAME --help                the report's own options""",
)
def report() -> None:
    """Answer one question; `telemetry reports` lists them.

    A running server is asked; without one the store's file is opened, and clickhouse:// asks a cluster.
    The rows are the same.
    """


def _command_of(report: "Report") -> click.Command:
    options = [
        click.Option(["--format"], type=FORMATS, default="table", show_default=True, help="How to write the rows."),
        click.Option(["--output"], type=click.Path(dir_okay=False, path_type=Path), help="A file instead of stdout."),
    ]

    def answer(format: str, output: Path | None, store: str | None, **given: str | bool | None) -> None:
        from telemetry import source

        params = {name: value for name, value in given.items() if value is not None}
        with source.opened(store) as asked:
            table = asked.report(report.name, params)
        write_table(table, format, output)
        if table.num_rows == 0:
            narrate(_asked(report, params))

    command = click.Command(
        report.name,
        callback=answer,
        params=[*map(_option_of, report.params), *options],
        help=report.documentation,
        epilog=f"\b\nExample:\n  telemetry report {report.name} --format csv --output {report.name}.csv",
    )
    return store_option(command)


def _asked(report: "Report", params: Mapping[str, object]) -> str:
    """What an answer without rows was asked for: perhaps the range ended too early, or a word is misspelt."""
    bound = report.bind(params, time.time_ns())
    limits = {name: bound[name] for name in ("since", "until") if bound.get(name) is not None}
    parts = [f"{name} {_utc(at_ns)}" for name, at_ns in limits.items()]
    parts += [f"{name} {value}" for name, value in params.items() if name not in ("since", "until")]
    return printable(f"asked for {', '.join(parts)}")


def _utc(at_ns: object) -> str:
    return f"{datetime.fromtimestamp(int(str(at_ns)) // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _option_of(param: "Param") -> click.Option:
    flag = f"--{param.name.replace('_', '-')}"
    if param.type == "boolean":
        return click.Option([f"{flag}/--no-{flag[2:]}", param.name], default=None, help=param.help)
    kind = click.Choice(param.choices) if param.choices else None
    metavar = None if param.choices else param.type.upper()
    return click.Option([flag, param.name], type=kind, metavar=metavar, required=param.required, help=param.help)


@click.command(
    epilog="""\b
Examples:
  telemetry session 4b7c                      the beginning of an id is enough
  telemetry session 4b7c --format ticket      a short block of text for a ticket
  telemetry session 4b7c --format json | jq .verdict
  telemetry session 4b7c --store clickhouse://reader@db.example/telemetry"""
)
@click.argument("id")
@click.option("--format", type=click.Choice(["text", "json", "ticket"]), default="text", show_default=True)
@store_option
def session(id: str, format: str, store: str | None) -> None:
    """Tell what happened to one session: the verdict first, then the timeline.

    ID is a sessionId, an attempt id, an episode id, a trace id, or a unique beginning of one.
    From a ClickHouse cluster (--store clickhouse://…) the story is the same.
    """
    from telemetry import source
    from telemetry.support import text

    with source.opened(store) as asked:
        story = asked.story(id)
        link = asked.url + story["link"] if asked.url else None
    if format == "json":
        click.echo(json.dumps(story, indent=1, ensure_ascii=False))
    else:
        write = text.render if format == "text" else text.ticket
        click.echo(write(story, link=link), nl=False)


@click.command(
    epilog="""\b
Examples:
  telemetry check --rules alerts.toml
  telemetry check --rules alerts.toml --format json || page-someone

\b
A rule of the file:
  [[rules]]
  name = "too many attempts fail"
  report = "failure_rate"
  params = { since = "1h", bucket = "all" }
  column = "service_failure_ratio"
  above = 0.05
  least = 50"""
)
@click.option("--rules", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The TOML file of rules.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@store_option
def check(rules: Path, format: str, store: str | None) -> None:
    """Hold reports against limits; exit code 3 when a rule fires.

    A rule on a share fires when its whole interval is beyond the limit, and never on fewer cases than it asks for.
    A ClickHouse cluster (--store clickhouse://…) is held against the same rules.
    The whole file is read as `telemetry serve --rules` reads it, its webhooks too; none of them is told.
    """
    from telemetry import source
    from telemetry.alerts import judging, webhook
    from telemetry.formats import jsonable

    wanted = judging.read_rules(rules)
    webhook.read_webhooks(rules, judging.read_file(rules), os.environ)
    with source.opened(store) as asked:
        try:
            findings = judging.check(wanted, asked.report)
        except UsageError as error:
            raise UsageError(f"{rules}, {error.message}") from error
    if format == "json":
        click.echo(json.dumps([jsonable(finding.to_dict()) for finding in findings], indent=1, ensure_ascii=False))
    else:
        click.echo(printable(judging.as_text(findings)))
    raise click.exceptions.Exit(judging.exit_code(findings))
