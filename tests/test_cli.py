"""The command line: help, exit codes, what goes to stdout and what to stderr."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner

from telemetry import reports
from telemetry.cli import output
from telemetry.cli.app import COMMANDS, root
from telemetry.store.duck import Store
from tests.support.spans import T0, attempt, table

TELEMETRY = (sys.executable, "-m", "telemetry")
HEAVY = ("duckdb", "pandas", "pyarrow", "aiortc", "grpc", "websockets", "opentelemetry", "starlette", "httpx", "rich")


def loaded_by(arguments: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after running the command line."""
    code = f"""
import sys
from telemetry.cli.app import root
try:
    root({arguments}, standalone_mode=False)
finally:
    print("loaded:", *(name for name in {HEAVY} if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(ran.stdout.splitlines()[-1].split()[1:])


def commands(group: click.Group = root, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its path; the reports, which are made from SQL, are tested with the catalogue."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group) and name != "report":
            yield from commands(command, (*path, name))


@pytest.mark.real
def test_help_loads_nothing_heavy() -> None:
    """`telemetry --help` is instant, because it loads no library of the parts."""
    assert loaded_by('["--help"]') == set()


@pytest.mark.real
def test_a_report_loads_no_media_and_no_receiver(tmp_path: Path) -> None:
    """Asking a store's file loads neither aiortc nor gRPC nor the web server."""
    path = tmp_path / "store.duckdb"
    Store.open(path).close()

    loaded = loaded_by(f'["report", "recent", "--store", {str(path)!r}]')

    assert "duckdb" in loaded
    assert not loaded & {"aiortc", "grpc", "websockets", "opentelemetry", "starlette"}


@pytest.mark.parametrize(("path", "command"), [pytest.param(p, c, id=" ".join(p)) for p, c in commands()])
def test_every_command_teaches(path: tuple[str, ...], command: click.Command) -> None:
    """Every command says what it does; one that does work shows examples, and each option is explained."""
    result = CliRunner().invoke(root, [*path, "--help"])

    assert result.exit_code == 0
    assert command.help
    if not isinstance(command, click.Group):
        assert "Example" in (command.epilog or "")
        assert f"telemetry {' '.join(path)}" in (command.epilog or "")
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help or isinstance(param.type, click.Choice), param.name


def test_every_command_is_listed_once() -> None:
    """The root's help shows every command under exactly one heading."""
    names = [name for group in COMMANDS.values() for name in group]
    text = CliRunner().invoke(root, ["--help"]).output

    assert len(names) == len(set(names))
    for name in names:
        assert f"\n  {name} " in text


def test_version() -> None:
    """`--version` says the name and the version."""
    result = CliRunner().invoke(root, ["--version"])

    assert result.output.startswith("telemetry 0.")


@pytest.mark.parametrize("arguments", [["nonsense"], ["serve", "--nonsense"], ["probe", "ws://x", "--count", "0"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """An unknown command, an unknown option and a bad value are usage errors, told on stderr."""
    result = CliRunner().invoke(root, arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error" in result.stderr


def test_serving_strangers_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that others can reach is refused without a token, and the message says what to do."""
    monkeypatch.delenv("TELEMETRY_TOKEN", raising=False)

    result = CliRunner().invoke(root, ["serve", "--host", "0.0.0.0", "--store", str(tmp_path / "store.duckdb")])

    assert result.exit_code == 2
    assert "TELEMETRY_TOKEN" in result.stderr
    assert not list(tmp_path.iterdir())


def test_control_characters_are_made_visible() -> None:
    """A text from the network cannot command a terminal or reverse its reading order."""
    assert output.printable("a\x1b[31mb\u202ec\rd\ne ü") == "a\\x1b[31mb\\u202ec\\rd\ne ü"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("failure_ratio", 0.1234, "12.3%"),
        ("p95_ms", 1234.5, "1234"),
        ("p95_ms", 1.25, "1.2"),
        ("rate", 0.00012345, "0.0001234"),
        ("silent_s", 30460.4, "30460"),
        ("attempts", 12, "12"),
        ("resumed", True, "yes"),
        ("detail", None, "–"),
        ("detail", "a\x07", "a\\x07"),
        ("message", "two\nlines", "two lines"),
        ("start", "2026-09-21T14:13:20.123456789Z", "2026-09-21T14:13:20.123Z"),
        ("bucket", "2026-09-21T14:00:00Z", "2026-09-21T14:00:00Z"),
    ],
)
def test_cells_are_written_for_people(name: str, value: object, text: str) -> None:
    """A cell shows its value in the unit that its column's name carries."""
    assert output.cell(name, value) == text


def test_one_is_not_many() -> None:
    """A count and its word agree."""
    assert [output.counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [output.counted(number, "was", "were") for number in (1, 2)] == ["1 was", "2 were"]


def test_a_table_is_never_squeezed(capsys: pytest.CaptureFixture[str]) -> None:
    """A table that is not for a terminal has whole ids, one line a row, and no colours; nothing is said as such."""
    table = pa.table({"attempt_id": ["0f0e0d0c-0000-4000-8000-000000000000"], "message": ["word " * 100], "n": [1]})

    output.write_table(table, "table", None)
    output.write_table(table.slice(0, 0), "table", None)
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 3
    assert lines[1].startswith("0f0e0d0c-0000-4000-8000-000000000000  word word")
    assert lines[2] == "no rows"
    assert "\x1b" not in "".join(lines)


def test_files_get_what_stdout_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--output` writes the same bytes into a file, and says so on stderr."""
    table = pa.table({"n": [1, 2]})

    output.write_table(table, "csv", tmp_path / "n.csv")
    output.write_table(table, "csv", None)
    captured = capsys.readouterr()

    assert captured.out == (tmp_path / "n.csv").read_text() == "n\n1\n2\n"
    assert captured.err == f"2 rows written to {tmp_path / 'n.csv'}\n"


def test_progress_without_a_terminal_is_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, progress is a line at each tenth of the way, on stderr."""
    with output.progress(200, "sessions") as advance:
        for _ in range(200):
            advance("")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [f"sessions: {done} of 200" for done in range(20, 201, 20)]


@pytest.mark.real
def test_scenarios_are_listed_without_starting_anything() -> None:
    """`simulate --list` is data: one scenario a line on stdout."""
    result = CliRunner().invoke(root, ["simulate", "--list"])

    assert result.exit_code == 0
    assert any(line.startswith("steady ") for line in result.stdout.splitlines())


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_simulator(number: signal.Signals) -> None:
    """SIGINT and SIGTERM end a running server in good order, with exit code 0 and nothing on stdout."""
    with subprocess.Popen(
        [*TELEMETRY, "simulate", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        addresses = process.stderr.readline()
        process.send_signal(number)
        told, narrated = process.communicate(timeout=20)

    assert addresses.startswith("ws://127.0.0.1:")
    assert (process.returncode, told) == (0, "")
    assert "stopped" in narrated


@pytest.mark.real
def test_a_taken_port_is_exit_code_6() -> None:
    """A port that is in use is told in one line, without a traceback."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = subprocess.run(
            [*TELEMETRY, "simulate", "--port", str(port)], capture_output=True, text=True, timeout=30, check=False
        )

    assert ran.returncode == 6
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"telemetry: cannot listen on 127.0.0.1:{port}")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("command", [["report", "recent"], ["session", "some-id"], ["store", "info"]])
def test_a_store_that_cannot_be_used_is_exit_code_5(command: list[str], tmp_path: Path) -> None:
    """A store that is missing, or is none, is told in one line with its path."""
    garbage = tmp_path / "garbage.duckdb"
    garbage.write_bytes(b"not a database" * 1000)

    for path in (tmp_path / "none.duckdb", garbage):
        result = CliRunner().invoke(root, [*command, "--store", str(path)])
        assert (result.exit_code, result.stdout) == (5, "")
        assert str(path) in result.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "hint"),
    [
        (["report", "recnt"], 4, "recent"),
        (["report", "recent", "--nonsense"], 2, "No such option"),
        (["report", "recent", "--since", "yesterday-ish"], 2, "24h"),
        (["report", "recent", "--limit", "many"], 2, "whole number"),
        (["report", "recent", "--limit", "-1"], 2, "a whole number from 0"),
        (["session", "nothing-like-this"], 4, "empty"),
    ],
)
def test_questions_that_cannot_be_answered(arguments: list[str], exit_code: int, hint: str, tmp_path: Path) -> None:
    """An unknown report, option, value or id: nothing on stdout, an exit code of its own, and a hint on stderr."""
    path = tmp_path / "store.duckdb"
    Store.open(path).close()

    result = CliRunner().invoke(root, [*arguments, "--store", str(path)])

    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert hint in result.stderr


def test_check_fires_with_exit_code_3(tmp_path: Path) -> None:
    """`check` tells which rule fired and why, as text or JSON, and leaves with 3; with 0 when none does."""
    path, rules = tmp_path / "store.duckdb", tmp_path / "rules.toml"
    with Store.open(path) as store:
        store.commit([table(*(attempt(n, outcome="failed", error="noScene", detail="busy") for n in range(1, 9)))])
    times = f'since = "{T0 - 1}", until = "{T0 + 10**9}"'
    rule = '[[rules]]\nname = "failing"\nreport = "failure_rate"\ncolumn = "failure_ratio"\n'

    rules.write_text(f"{rule}params = {{ {times} }}\nabove = 0.1\n")
    fired = CliRunner().invoke(root, ["check", "--rules", str(rules), "--store", str(path), "--format", "json"])
    text = CliRunner().invoke(root, ["check", "--rules", str(rules), "--store", str(path)])
    rules.write_text(f"{rule}params = {{ {times} }}\nabove = 1.0\n")
    quiet = CliRunner().invoke(root, ["check", "--rules", str(rules), "--store", str(path)])
    rules.write_text("")
    broken = CliRunner().invoke(root, ["check", "--rules", str(rules), "--store", str(path)])

    assert [fired.exit_code, text.exit_code, quiet.exit_code, broken.exit_code] == [3, 3, 0, 2]
    assert json.loads(fired.stdout)[0]["status"] == "firing"
    assert text.stdout.startswith("FIRING   failing")
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ('{rule}above = 1\n[[webhooks]]\nurl = "nonsense"', "rules.toml, webhook 1: the address should be"),
        ('{rule}above = 1\n[[webhooks]]\nurl_env = "UNSET"', "rules.toml, webhook 1: the environment variable UNSET"),
        (
            "{rule}above = 1\nwhere = {{ colour = 3 }}",
            "rules.toml, rule 'r': report failure_rate has no column 'colour'",
        ),
        ("{rule}above = 1\nparams = {{ colour = 3 }}", "rules.toml, rule 1 (r): report failure_rate has no parameter"),
    ],
)
def test_check_reads_all_of_a_file(tmp_path: Path, rules: str, told: str) -> None:
    """What keeps `serve --rules` from starting is refused by `check`, with the file and the place in it."""
    path, file = tmp_path / "store.duckdb", tmp_path / "rules.toml"
    Store.open(path).close()
    file.write_text(rules.format(rule='[[rules]]\nname = "r"\nreport = "failure_rate"\ncolumn = "failure_ratio"\n'))

    result = CliRunner().invoke(root, ["check", "--rules", str(file), "--store", str(path)])

    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


@pytest.mark.parametrize("every", ["soon", "30s"])
def test_how_often_to_check_needs_rules(every: str) -> None:
    """`serve --check-every` without rules to check is wrong usage."""
    result = CliRunner().invoke(root, ["serve", "--check-every", every])

    assert result.exit_code == 2
    assert "give them with --rules" in result.stderr


def test_every_report_is_a_command_with_its_own_options() -> None:
    """A report's help is its question and notes, and it has an option for each parameter of its header."""
    for name, report in reports.catalogue().items():
        result = CliRunner().invoke(root, ["report", name, "--help"])
        assert result.exit_code == 0
        assert report.question.split()[0] in result.output
        for param in report.params:
            assert f"--{param.name.replace('_', '-')}" in result.output


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            ["recent", "--since", "2019-01-01", "--until", "2020-01-01", "--region", "mars"],
            "asked for since 2019-01-01T00:00:00Z, until 2020-01-01T00:00:00Z, region mars",
        ),
        (["timeline", "--id", "nobody"], "asked for id nobody"),
    ],
)
def test_an_empty_answer_says_what_was_asked(tmp_path: Path, asked: list[str], told: str) -> None:
    """Whoever finds nothing sees in which range; the data are as empty as the answer."""
    Store.open(tmp_path / "s.duckdb").close()

    result = CliRunner().invoke(root, ["report", *asked, "--store", str(tmp_path / "s.duckdb"), "--format", "json"])

    assert json.loads(result.stdout) == []
    assert result.stderr.strip() == told


def test_the_menu_lists_every_report() -> None:
    """`reports` is the menu: each name with its question, as text and as JSON."""
    text = CliRunner().invoke(root, ["reports"]).stdout
    menu = json.loads(CliRunner().invoke(root, ["reports", "--format", "json"]).stdout)

    assert menu == {name: report.question for name, report in reports.catalogue().items()}
    assert [line.split()[0] for line in text.splitlines()] == list(menu)
