"""The house: nothing in it is so large that a reader loses the thread."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    file for top in ("jobd", "cli", "config", "scripts") for file in (ROOT / top).rglob("*.py")
]

CLASS_LINES, FUNCTION_LINES = 400, 60


def definitions(file: Path) -> Iterator[tuple[ast.AST, str, int]]:
    """Yield the classes and functions of a file, by name, with how many lines each has."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node, node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_class_and_no_function_is_too_long(file: Path) -> None:
    """Of a longer one parts can be told apart that have names."""
    for node, name, lines in definitions(file):
        most = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
        assert lines <= most, f"{file}: {name} has {lines} lines"


def test_all_files_are_looked_at() -> None:
    """Those behind the symlinks, too."""
    assert {ROOT / "cli" / "app.py", ROOT / "jobd" / "daemon" / "loop.py"} <= {*FILES}
