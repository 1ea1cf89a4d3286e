"""The README says what is true: its Python runs as far as a compiler can tell, its commands and paths exist."""

import ast
import importlib
import re
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from telemetry import reports
from telemetry.cli.app import root
from telemetry.store.duck import Store

TOP = Path(__file__).parent.parent
TEXT = (TOP / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_python_imports_what_exists(block: str) -> None:
    """Every name that a Python example imports exists."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^\$ telemetry (\w+)", TEXT, re.MULTILINE))))
def test_commands_exist(command: str) -> None:
    """Every command that the README shows has help."""
    assert CliRunner().invoke(root, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("name", sorted(set(re.findall(r"telemetry report (\w+)|reports\.run\(\"(\w+)\"", TEXT))))
def test_reports_exist(name: tuple[str, str]) -> None:
    """Every report that the README shows is in the catalogue."""
    assert (name[0] or name[1]) in reports.catalogue()


def test_the_tree_is_whole() -> None:
    """The tree of modules names each folder and each file at the top of the package."""
    tree = TEXT.partition("\ntelemetry/\n")[2].partition("```")[0]
    top = [path for path in (TOP / "telemetry").iterdir() if not path.name.startswith("__")]

    assert [path.name for path in top if path.is_dir() and f" {path.name}/" not in tree] == []
    assert [path.name for path in top if path.suffix == ".py" and f" {path.name}" not in tree] == []


def test_a_report_is_pasted_into_a_shell(tmp_path: Path) -> None:
    """A report's file can be prepared and executed with its parameters, also those named like a word of SQL."""
    report = reports.find("recent")
    given = {"since": 0, "until": 2**62, "order": "'newest'", "limit": 1}
    Store.open(tmp_path / "store.duckdb").close()

    with duckdb.connect(tmp_path / "store.duckdb", read_only=True) as shell:
        shell.execute(f"prepare q as {(TOP / 'queries' / 'recent.sql').read_text(encoding='utf-8')}")
        values = ", ".join(f'"{param.name}" := {given.get(param.name, "null")}' for param in report.params)
        assert shell.execute(f"execute q({values})").fetchall() == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_lead_somewhere(path: str) -> None:
    """Every relative link leads to a file or folder of the repository."""
    assert (TOP / path).exists()
