"""CONFORMANCE.md keeps its word: each rule has tests, and they exist."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "telemetry" / "receiver" / "CONFORMANCE.md"
ROWS = [row for row in PAGE.read_text().splitlines() if row.startswith("| ") and "shown by" not in row]


def named(row: str) -> list[tuple[str, str]]:
    """The tests that a row names: file and function."""
    return re.findall(r"`([\w/]+\.py)::(\w+)`", row.rpartition("|")[0].rpartition("| ")[2])


def functions(path: Path) -> set[str]:
    """The test functions of a file, methods of its classes too."""
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_every_rule_is_shown(row: str) -> None:
    """Each row names at least one test, and each of them is there."""
    tests = named(row)

    assert tests
    for file, name in tests:
        assert name in functions(TESTS / file), f"{file} has no {name}"


def test_the_page_is_read() -> None:
    """All tables of the page are found."""
    assert len(ROWS) > 40
