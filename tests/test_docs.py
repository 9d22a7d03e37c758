"""The promises of the documentation: its size, its links, and the names of files, modules and tests."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from commands import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.glob("*.md"))]
RELIABILITY = (DOCS / "reliability.md").read_text()


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL).replace("&lt;", "<")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_row_of_the_reliability_table_names_its_tests() -> None:
    rows = [line for line in RELIABILITY.splitlines() if line.startswith("| ")]
    untested = [row for row in rows if not row.startswith(("| ---", "| What", "| | ")) and ".py::" not in row]
    assert len(rows) > 20
    assert untested == []


@pytest.mark.parametrize(("file", "test"), re.findall(r"`([\w/]+\.py)::(\w+)`", RELIABILITY))
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize(("page", "lines"), [("README.md", 100), ("docs/researchers.md", 250)])
def test_the_first_pages_stay_short(page: str, lines: int) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked_from_the_readme_or_from_the_tutorial() -> None:
    linked = (ROOT / "README.md").read_text() + (DOCS / "researchers.md").read_text()
    assert [page.name for page in DOCS.glob("*.md") if f"{page.name})" not in linked] == []


def test_a_module_that_the_architecture_names_exists() -> None:
    names = re.findall(r"`((?:\w+/)*\w+\.(?:py|md\.j2))`", (DOCS / "architecture.md").read_text())
    assert len(names) > 50
    assert [name for name in names if not any((base / name).exists() for base in (ROOT / "irmas", ROOT))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_script_that_a_page_runs_exists(page: Path) -> None:
    scripts = re.findall(r"\b(?:python|sbatch) ((?:\w+/)+\w+\.(?:py|sbatch))", page.read_text())
    commands = [f"{name.replace('.', '/')}.py" for name in re.findall(r"python -m (irmas[.\w]*\w)", page.read_text())]
    assert [name for name in {*scripts, *commands} if not (ROOT / name).exists()] == []


def test_the_reference_of_settings_is_what_the_dataclasses_and_files_say() -> None:
    page = runpy.run_path(str(DOCS / "reference.py"))["page"]()
    assert (DOCS / "configuration.md").read_text() == page, "run `python docs/reference.py` to update it"
