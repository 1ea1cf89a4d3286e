"""The root command: the list of commands, and the one place where errors become messages and exit codes."""

import signal
from importlib import import_module
from typing import Any, Final

import click

from telemetry import __version__
from telemetry.errors import ConnectionFailed, ExitCode, TelemetryError

COMMANDS: Final = {
    "See it work": {
        "demo": "telemetry.cli.running",
        "serve": "telemetry.cli.running",
        "simulate": "telemetry.cli.running",
    },
    "Connect": {
        "connect": "telemetry.cli.connecting",
        "probe": "telemetry.cli.connecting",
    },
    "Ask": {
        "reports": "telemetry.cli.asking",
        "report": "telemetry.cli.asking",
        "session": "telemetry.cli.asking",
        "check": "telemetry.cli.asking",
    },
    "Keep": {
        "store": "telemetry.cli.keeping",
        "capsule": "telemetry.cli.keeping",
        "repro": "telemetry.cli.keeping",
    },
}
"""Every command, by heading, and the module that holds it under its own name."""


class Failure(click.ClickException):
    """An expected error on its way out: one message on stderr and the exit code that its class means."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: Any = None) -> None:
        click.echo(f"telemetry: {self.message}", err=True)


class Root(click.Group):
    """The root command; loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for commands in COMMANDS.values():
            if name in commands:
                command = getattr(import_module(commands[name]), name)
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in COMMANDS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(heading):
                formatter.write_dl([(name, command.get_short_help_str(90)) for name, command in commands if command])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TelemetryError as error:
            raise Failure(_explain(error), error.exit_code) from error
        except BrokenPipeError:
            raise  # click ends quietly: the reader of our output has gone
        except OSError as error:
            raise Failure(
                f"{error.strerror or error}: {error.filename or 'a file or socket'}", ExitCode.FAILED
            ) from error
        except (KeyboardInterrupt, RuntimeError) as error:
            if isinstance(error, RuntimeError) and str(error) != "Query interrupted":  # DuckDB's word for Ctrl-C
                raise
            click.echo("", err=True)
            raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None


def _explain(error: TelemetryError) -> str:
    if isinstance(error, ConnectionFailed):
        advice = "trying again may help" if error.retryable else "trying again will not help until something changes"
        return f"{error}\n{'; '.join([advice, *getattr(error, '__notes__', ())])}"
    return error.message


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="""\b
Examples:
  telemetry demo                              play hundreds of real sessions and look around
  telemetry serve                             receive telemetry, store it, show it
  telemetry connect ws://127.0.0.1:4390/steady
  telemetry report failure_rate --since 24h
  telemetry session 0f3c                      the story of one session, by any id or its beginning

\b
Exit codes:
  0 fine   1 failed   2 wrong usage   3 a connection failed, or an alert fired   4 no such thing
  5 the store cannot be used   6 a server or port is not available   130 interrupted
""",
)
@click.version_option(__version__, prog_name="telemetry", message="%(prog)s %(version)s")
def root() -> None:
    """Why a session with a digital person failed, how long each step took, and the story of any one session."""


def main() -> None:
    """Run the command line and leave with its exit code.

    SIGTERM is treated like Ctrl-C, so that a session under way ends in good order and its spans are sent.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    root(prog_name="telemetry")
