"""Writes docs/configuration.md from irmas/config.py and conf/: `python docs/reference.py`"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # of several checkouts with one environment, this one

from irmas import config  # noqa: E402
from irmas.config import RULES, Augment, Config, Data, Features, Model, shown  # noqa: E402

PAGE = ROOT / "docs" / "configuration.md"
GROUPS = {"data": Data, "features": Features, "model": Model, "augment": Augment}
HEAD = """# Settings

`python docs/reference.py` writes this page from `irmas/config.py` and `conf/`; a test keeps it so.

A setting is given as `key=value`, and swept with `-m key=value1,value2`. A group is a set of settings under one name:
`model=deep` chooses all of `model.*`, and single ones may follow, as in `model=deep model.dense=128`. What is wrong is
refused by name, before anything is written. What a job asks Slurm for, `hydra.launcher.…`, stands in
[operators.md](operators.md).
"""


def page() -> str:
    sections = [HEAD, "## Of a run", _table(Config, "")]
    for group, schema in GROUPS.items():
        sections += [f"## {group}", _document(schema), _options(group), _table(schema, f"{group}.")]
    for group in ("recipe", "sweep"):
        sections += [f"## {group}", _options(group)]
    sections.append(
        "`best=outputs/<name>` takes the settings of that sweep's winner; see [researchers.md](researchers.md)."
    )
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _document(schema: type) -> str:
    return inspect.getdoc(schema) or ""


def _table(schema: type, prefix: str) -> str:
    notes = dict(_notes(schema))
    rows = ["| setting | default | must be | |", "| --- | --- | --- | --- |"]
    for entry in fields(schema):
        if entry.name in GROUPS:
            continue
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        cells = (f"`{prefix}{entry.name}`", f"`{shown(default)}`", RULES[prefix + entry.name][1], notes[entry.name])
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _notes(schema: type) -> Iterator[tuple[str, str]]:
    """Each field, and the docstring below it."""
    tree = ast.parse(inspect.getsource(config))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == schema.__name__)
    for number, node in enumerate(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            below = body[number + 1 : number + 2]
            note = ast.get_docstring(ast.Module([*below], []))
            yield node.target.id, " ".join((note or "").split())


def _options(group: str) -> str:
    """Each file of a group: its comment, and what it sets."""
    rows = ["| option | | sets |", "| --- | --- | --- |"]
    for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
        text = path.read_text()
        comments = [
            line[1:].strip().replace("<", "&lt;")
            for line in text.splitlines()
            if line.startswith("#") and "@package" not in line
        ]
        said = "<br>".join(comments)
        rows.append(f"| `{group}={path.stem}` | {said} | {' '.join(_set_by(yaml.safe_load(text))) or 'nothing'} |")
    return "\n".join(rows)


def _set_by(option: dict[str, Any]) -> Iterator[str]:
    for chosen in option.pop("defaults", []):
        yield from (f"`{group.removeprefix('override /')}={name}`" for group, name in chosen.items())
    for key, value in config.flatten(option).items():
        yield f"`{key.removeprefix('hydra.sweeper.params.')}={shown(value)}`"


if __name__ == "__main__":
    PAGE.write_text(page())
