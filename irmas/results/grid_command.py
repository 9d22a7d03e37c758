"""A plan -> the command that sweeps its points, as somebody types it.

A plan holds composed settings, not the words of its command. Options of groups are read from `irmas/conf` and composed
as Hydra does, and every setting is compared with the plan's: a command that would train anything else is not given.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from irmas.config import Config, flatten, shown
from irmas.sweep.plan import Plan, Point

CONF = Path(__file__).parents[1] / "conf"
GROUPS = ("data", "features", "model", "augment")
"""Each is a folder of options in `conf/`, and a part of the settings."""
PATHS = frozenset({"data.root", "data.cache_dir"})
"""Relative in `conf/`, absolute in a plan."""
UNSAID = frozenset({"name", "allow_code_change"})
"""Settings that the new command does not take over."""
DEFAULTS = flatten(asdict(Config()))
_WORD = re.compile(r"[A-Za-z/][A-Za-z0-9._/-]*")
_NO_TEXT = re.compile(r"true|false|yes|no|on|off|null|nan|inf", re.IGNORECASE)


def grid_command(plan: Plan, name: str, replaced: Mapping[str, Sequence[Any]]) -> str | None:
    """Return the command that trains the points of `plan` as the sweep `name`, the `replaced` keys with other values.

    Where points differ in their seeds, it has the seeds that all of them share. None where the points are no full grid,
    or where their settings cannot be told from `conf/`.
    """
    axes = _axes(plan)
    fixed = None if axes is None else _fixed(plan, axes, replaced)
    if axes is None or fixed is None:
        return None
    axes |= {key: list(values) for key, values in replaced.items()}
    mode = ["-m"] if any(len(values) > 1 for values in axes.values()) else []
    settings = [override(key, *values) for key, values in axes.items()]
    settings += [override(key, value) for key, value in fixed.items()]
    return " ".join(["python -m irmas.train", *mode, *settings, override("name", name)])


def override(key: str, *values: Any) -> str:
    """Return `key=value` or, of several values, the override that sweeps them, quoted for Hydra and the shell."""
    text = f"{key}={','.join(map(_value, values))}"
    return text if re.fullmatch(r"[\w.,/=+-]+", text, re.ASCII) else shlex.quote(text)


def _value(value: Any) -> str:
    """Return a value in Hydra's grammar: text in quotes, unless it is a word that stands for nothing else."""
    if not isinstance(value, str):
        return shown(value)
    is_word = _WORD.fullmatch(value) and not _NO_TEXT.fullmatch(value)
    return value if is_word else '"' + value.replace('"', '\\"') + '"'


def _axes(plan: Plan) -> dict[str, list[Any]] | None:
    """Return the swept keys and their values, if every combination of them is a point; otherwise None."""
    values: dict[str, dict[str, Any]] = {key: {} for key in plan.swept}
    seeds: dict[tuple[str, ...], set[str]] = {}
    for point in plan.points:
        row = {key: plan.value(point, key) for key in plan.swept}
        if any(row[key] is None and key not in DEFAULTS for key in row):
            return None  # a group that was swept later: its first option is not known
        for key, value in row.items():
            values[key].setdefault(shown(value), value)
        others = tuple(shown(value) for key, value in row.items() if key != "seed")
        seeds.setdefault(others, set()).add(shown(row.get("seed")))
    if "seed" in values:
        shared = set.intersection(*seeds.values())
        values["seed"] = {text: seed for text, seed in values["seed"].items() if text in shared}
    if len(seeds) < math.prod(len(found) for key, found in values.items() if key != "seed"):
        return None
    axes = {key: list(found.values()) for key, found in values.items()}
    return axes if all(axes.values()) else None


def _fixed(plan: Plan, axes: Mapping[str, Any], replaced: Collection[str]) -> dict[str, Any] | None:
    """Return the overrides that all points share; None where they do not make the plan's settings."""
    base = flatten(asdict(plan.config))
    wanted = [base | point.changes for point in plan.points]
    options = [_options(point, axes) for point in plan.points]
    skipped = UNSAID | axes.keys() | set(replaced)
    if any(settings["data.cache"] is not None for settings in wanted):  # it brings its own front end
        skipped |= {key for key in DEFAULTS if key.startswith("features.")}
    try:
        fixed: dict[str, Any] = {}
        for group in GROUPS:
            if group not in axes and not (group == "model" and "recipe" in axes):
                option = _nearest_option(group, wanted[0], skipped)
                fixed |= {group: option} if option != _chosen()[group] else {}
        composed = [_composed(tuple(sorted({**fixed, **found}.items()))) for found in options]
    except (KeyError, OSError, TypeError, ValueError, yaml.YAMLError):
        return None  # a swept group or an option file of another kind
    for key in (key for key in DEFAULTS if key not in skipped):
        found = [settings[key] for settings in wanted]
        if found != [settings[key] for settings in composed]:
            if any(value != found[0] for value in found):
                return None
            fixed[key] = found[0]
    return fixed


def _options(point: Point, axes: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(point.overrides[key]) for key in axes if key not in DEFAULTS}


def _nearest_option(group: str, wanted: Mapping[str, Any], skipped: Collection[str]) -> str:
    """Return the option of a group that leaves the fewest settings to be given one by one."""
    default = _chosen()[group]
    keys = [key for key in DEFAULTS if key.startswith(f"{group}.") and key not in skipped]

    def overrides_with(option: str) -> tuple[int, bool, str]:
        settings = _composed(((group, option),))
        return sum(settings[key] != wanted[key] for key in keys) + (option != default), option != default, option

    return min((path.stem for path in (CONF / group).glob("*.yaml")), key=overrides_with)


@cache
def _chosen() -> dict[str, str]:
    """Return the options that `conf/train.yaml` chooses, by group."""
    defaults = yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
    named = {key: option for entry in defaults if isinstance(entry, dict) for key, option in entry.items()}
    return {group: named[group] for group in (*GROUPS, "recipe")}


@cache
def _composed(options: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return the settings that Hydra composes of these options and of the default ones of the other groups.

    Raises KeyError for a group of another kind, OSError or a YAMLError for an option that cannot be read.
    """
    given = dict(options)
    if strange := given.keys() - _chosen().keys():
        raise KeyError(*strange)
    recipe = _read("recipe", given.get("recipe", _chosen()["recipe"]))
    of_recipe = dict[str, str]()
    for entry in recipe.pop("defaults", []):
        ((key, option),) = entry.items()
        of_recipe[key.removeprefix("override /")] = option
    chosen = _chosen() | of_recipe | given
    settings = dict(DEFAULTS)
    for group in GROUPS:
        settings |= {f"{group}.{key}": value for key, value in flatten(_read(group, chosen[group])).items()}
    settings |= flatten(recipe)
    if strange := settings.keys() - DEFAULTS.keys():
        raise KeyError(*strange)
    return settings | {key: str(Path(settings[key]).absolute()) for key in PATHS if settings[key]}


def _read(group: str, option: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / group / f"{option}.yaml").read_text()) or {}
    return found
