"""Words that the project has replaced by the field's own do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import ROOT

FOLDERS = ("irmas", "hydra_plugins", "conf", "slurm", "docs", "tests", "benchmarks", "studies")
REPLACED = {
    r"\b(told|said|heard|unheard)\b": "recorded, message, reported, queried",
    r"\banew\b": "again",
    r"\bdoors?\b": "command",
    r"the same command goes on": "rerun the command to resume",
    r"\ba (run|row|line|subfolder) an? (task|run|excerpt|class|file)\b": "one run per task",
}
"""Patterns, and what stands in their place."""
PREPOSITIONS = re.compile(
    r"(about|above|after|among|as|at|behind|below|beside|between|beyond|by|for|from|in|inside|like|of|on|over|since"
    r"|through|to|under|until|what|when|where|whether|which|who|why|with|within|without)\b",
    re.IGNORECASE,
)


def files() -> Iterator[Path]:
    yield from (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "Makefile")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            is_text = path.suffix in (".py", ".md", ".yaml", ".sbatch", ".j2")
            if is_text and path != Path(__file__) and ".venv" not in path.parts:
                yield path


@pytest.mark.parametrize("pattern", REPLACED)
def test_a_replaced_word_does_not_come_back(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(pattern, line, re.IGNORECASE)
    ]
    assert found == [], f"write {REPLACED[pattern]}"


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield those of modules, classes and functions, and the strings that describe fields and constants."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def test_no_docstring_begins_with_a_preposition_or_a_question_word() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for folder in ("irmas", "hydra_plugins")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for text in docstrings(ast.parse(path.read_text()))
        if PREPOSITIONS.match(text.strip())
    ]
    assert found == []
