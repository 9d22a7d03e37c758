"""Which module imports which: down only, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from commands import ROOT

FLOORS = (
    "doors",
    "evaluation",
    "inference",
    "results",
    "sweep",
    "learning",
    "run data",
    "standin",
    "ground",
)
"""From the top. Rooms of one floor do not know each other."""
DOORS = {"train", "prepare", "rank", "refine", "status", "evaluate", "predict", "export"}
"""The modules of the package itself that stand on top; the others are the ground."""
KNOWN_BY = {
    "hydra": {"irmas.cli.overrides", "irmas.cli.compose", "irmas.prepare", "hydra_plugins.irmas_launcher"},
    "omegaconf": {
        "irmas.cli.overrides",
        "irmas.cli.compose",
        "irmas.train",
        "irmas.prepare",
        "hydra_plugins.irmas_launcher",
    },
    "submitit": {"irmas.sweep.submit"},
    "subprocess": {"irmas.sweep.slurm", "irmas.provenance"},
    "tensorboard": {"irmas.run.events"},
    "argparse": {"irmas.exit", "irmas.evaluate", "irmas.predict"},
    "pickle": {"irmas.run.checkpoint"},
    "jinja2": {"irmas.results.page"},
}
"""Only these modules import what the key names."""


def modules() -> dict[str, Path]:
    found = [*(ROOT / "irmas").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in found}


MODULES = modules()


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Modules that these statements import, among others."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
IMPORTS = {name: {*imported(ast.walk(tree))} - {name} for name, tree in TREES.items()}
"""Wherever in the file: in a function, or for annotations alone."""


def room(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "hydra_plugins" or parts[1:2] == ["cli"] or parts[-1] in DOORS & set(parts[1:2]):
        return "doors"
    return parts[1] if len(parts) > 2 or (len(parts) == 2 and (ROOT / "irmas" / parts[1]).is_dir()) else "ground"


def floor(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms.split())


def known(module: str) -> set[str]:
    """Modules of ours that it imports."""
    return IMPORTS[module] & MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    up = [
        other
        for other in known(module)
        if floor(other) < floor(module) or (floor(other) == floor(module) and room(other) != room(module))
    ]
    assert up == []


def test_no_modules_import_each_other_when_they_are_loaded() -> None:
    at_load = {name: ({*imported(tree.body)} & MODULES.keys()) - {name} for name, tree in TREES.items()}
    assert len([*TopologicalSorter(at_load).static_order()]) == len(MODULES)  # raises CycleError


@pytest.mark.parametrize("library", KNOWN_BY)
def test_a_library_is_known_where_it_belongs_alone(library: str) -> None:
    knowing = {name for name, others in IMPORTS.items() if any(other.split(".")[0] == library for other in others)}
    assert knowing == KNOWN_BY[library]


def test_the_page_draws_what_the_rooms_import() -> None:
    real: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        real[room(module)] |= {room(other) for other in known(module)} - {room(module), "ground"}
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn: dict[str, set[str]] = defaultdict(set)
    for start, end in re.findall(r"^ +(\w+) --> (\w+)$", page, re.MULTILINE):
        drawn[start].add(end)
    assert drawn == {start: ends for start, ends in real.items() if ends}
