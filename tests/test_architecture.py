"""Imports between modules go down only, as docs/architecture.md draws them."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from commands import ROOT

from irmas.provenance import PACKAGE, training_source

LAYERS = (
    "commands",
    "evaluation",
    "inference",
    "results",
    "sweep",
    "learning",
    "run data",
    "standin",
    "base",
)
"""Packages from the top; those of one layer do not import each other."""
COMMANDS = {
    "__main__",
    "train",
    "prepare",
    "rank",
    "refine",
    "status",
    "compare",
    "clean",
    "evaluate",
    "predict",
    "export",
}
"""Modules at the top of the package that are commands; the others there are the base."""
IMPORTED_BY = {
    "hydra": {
        "irmas.cli.overrides",
        "irmas.cli.compose",
        "irmas.cli.space",
        "irmas.prepare",
        "hydra_plugins.irmas_launcher",
    },
    "submitit": {"irmas.sweep.executor"},
    "subprocess": {
        "irmas.sweep.slurm",
        "irmas.sweep.source",
        "irmas.provenance",
        "irmas.processes",
        "irmas.results.ending",
    },
    "tensorboard": {"irmas.run.events"},
    "pickle": {"irmas.run.checkpoint"},
    "jinja2": {"irmas.results.report"},
    "optuna": {"irmas.results.importances", "irmas.sweep.adaptive"},
    "pooch": {"irmas.data.download"},
    "filelock": {"irmas.files"},
}
"""The only modules that import a library."""


def modules() -> dict[str, Path]:
    found = [*(ROOT / "irmas").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in found}


MODULES = modules()


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the modules that these statements import, among others."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
IMPORTS = {name: {*imported(ast.walk(tree))} - {name} for name, tree in TREES.items()}
"""Imports anywhere in a file: at its top, in a function, or for annotations alone."""


def package(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "hydra_plugins" or parts[1:2] == ["cli"] or (len(parts) == 2 and parts[1] in COMMANDS):
        return "commands"
    is_package = len(parts) > 2 or (len(parts) == 2 and (ROOT / "irmas" / parts[1]).is_dir())
    return parts[1] if is_package else "base"


def layer(module: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if package(module) in packages.split())


def own_imports(module: str) -> set[str]:
    return IMPORTS[module] & MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    upwards = [
        other
        for other in own_imports(module)
        if layer(other) < layer(module) or (layer(other) == layer(module) and package(other) != package(module))
    ]
    assert upwards == []


def test_no_modules_import_each_other_when_they_are_loaded() -> None:
    at_load = {name: ({*imported(tree.body)} & MODULES.keys()) - {name} for name, tree in TREES.items()}
    assert len([*TopologicalSorter(at_load).static_order()]) == len(MODULES)  # raises CycleError


@pytest.mark.parametrize("library", IMPORTED_BY)
def test_a_library_is_imported_where_it_belongs(library: str) -> None:
    importers = {name for name, others in IMPORTS.items() if any(other.split(".")[0] == library for other in others)}
    assert importers == IMPORTED_BY[library]


def test_a_module_has_a_name_of_its_own() -> None:
    names = Counter(name.rpartition(".")[2] for name, path in MODULES.items() if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1 or name in sys.stdlib_module_names] == []


def test_the_source_that_a_sweep_keeps_is_what_its_processes_import() -> None:
    reached, remaining = set[str](), ["irmas.sweep.array_task", "irmas.sweep.data_job", "irmas.sweep.train_run"]
    while remaining:
        name = remaining.pop()
        if name and name not in reached:
            reached.add(name)
            remaining += [*own_imports(name), name.rpartition(".")[0]]
    assert {(PACKAGE / name).resolve() for name in training_source()} == {MODULES[name] for name in reached}


def test_the_page_draws_what_the_packages_import() -> None:
    real: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        real[package(module)] |= {package(other) for other in own_imports(module)} - {package(module), "base"}
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn: dict[str, set[str]] = defaultdict(set)
    for start, end in re.findall(r"^ +(\w+) --> (\w+)$", page, re.MULTILINE):
        drawn[start].add(end)
    assert drawn == {start: ends for start, ends in real.items() if ends}
