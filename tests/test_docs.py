"""What the documentation names is there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from commands import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())


def test_every_row_of_the_reliability_table_names_its_tests() -> None:
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")]
    untested = [row for row in rows if not row.startswith(("| ---", "| What", "| | ")) and ".py::" not in row]
    assert len(rows) > 20
    assert untested == []


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text()


def test_the_readme_has_a_line_for_every_module() -> None:
    house = (ROOT / "README.md").read_text().partition("## The house")[2]
    modules = [path.name for path in (ROOT / "irmas").rglob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if not re.search(rf"\b{re.escape(name)}\b", house)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_reference_of_settings_is_what_the_dataclasses_and_files_say() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "reference.py"))["page"]()
    assert (ROOT / "docs" / "configuration.md").read_text() == page, "python docs/reference.py writes it anew"
