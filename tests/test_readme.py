"""The README says what is true: its Python runs as far as a compiler can tell, its commands and paths exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from telemetry import reports
from telemetry.cli.app import root

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


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_lead_somewhere(path: str) -> None:
    """Every relative link leads to a file or folder of the repository."""
    assert (TOP / path).exists()
