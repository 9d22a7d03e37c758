"""Writes docs/configuration.md from the dataclasses of settings and conf/: `python docs/reference.py`"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, get_type_hints

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # of several checkouts with one environment, this one

from irmas.config import Augment, Config, Data, Features, Model, Search, flatten, rules, shown  # noqa: E402
from irmas.sweep.settings import LAUNCHERS, PREFIX  # noqa: E402

PAGE = ROOT / "docs" / "configuration.md"
GROUPS = {"data": Data, "features": Features, "model": Model, "augment": Augment, "search": Search}
HEAD = """# Settings

`python docs/reference.py` writes this page from `irmas/config.py`, `irmas/sweep/settings.py` and `conf/`; a test keeps
it so.

A setting is given as `key=value`, and swept with `-m key=value1,value2`. A group is a set of settings under one name:
`model=deep` chooses all of `model.*`, and single ones may follow, as in `model=deep model.dense=128`. Invalid settings
are rejected with the name of the key before anything is written.
"""


def page() -> str:
    sections = [HEAD, "## Of a run", _table(Config, "", nested=False)]
    for group, schema in GROUPS.items():
        sections += [f"## {group}", inspect.getdoc(schema) or "", _options(group), _table(schema, f"{group}.")]
    for group in ("recipe", "sweep"):
        sections += [f"## {group}", _options(group)]
    sections.append(
        "`best=outputs/<name>` takes the settings of that sweep's winner; see [researchers.md](researchers.md)."
    )
    for name, schema in LAUNCHERS.items():
        sections += [f"## hydra/launcher={name}", inspect.getdoc(schema) or "", _table(schema, PREFIX)]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _table(schema: type, prefix: str, *, nested: bool = True) -> str:
    notes, defaults = dict(_notes(schema)), schema()
    rows = ["| setting | default | must be | |", "| --- | --- | --- | --- |"]
    for key, rule in rules(schema).items():
        if nested or "." not in key:
            cells = (f"`{prefix}{key}`", f"`{shown(attrgetter(key)(defaults))}`", rule.text, notes[key])
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _notes(schema: type) -> Iterator[tuple[str, str]]:
    """Yield each setting, and the docstring below its field."""
    for base in schema.__mro__[:-1]:
        (tree,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(tree, ast.ClassDef)
        for node, below in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id, " ".join((ast.get_docstring(ast.Module([below], [])) or "").split())
    for name, hint in get_type_hints(schema).items():
        if hasattr(hint, "__dataclass_fields__"):
            yield from ((f"{name}.{key}", note) for key, note in _notes(hint))


def _options(group: str) -> str:
    """Return a table with a row for each file of a group: its comment, and the settings in it."""
    rows = ["| option | | sets |", "| --- | --- | --- |"]
    for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
        lines = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
        comments = "<br>".join(line[1:].strip().replace("<", "&lt;") for line in lines)
        settings = " ".join(_set_by(yaml.safe_load(path.read_text()) or {})) or "nothing"
        rows.append(f"| `{group}={path.stem}` | {comments} | {settings} |")
    return "\n".join(rows)


def _set_by(option: dict[str, Any]) -> Iterator[str]:
    for chosen in option.pop("defaults", []):
        yield from (f"`{group.removeprefix('override /')}={name}`" for group, name in chosen.items())
    for key, value in flatten(option).items():
        yield f"`{key.removeprefix('hydra.sweeper.params.')}={shown(value)}`"


if __name__ == "__main__":
    PAGE.write_text(page())
