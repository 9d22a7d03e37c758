"""Swept values of a command line -> the runs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from irmas.cli import points
from irmas.cli.draw import Listed, draw, refuse_too_many
from irmas.config import REPETITIONS, Config, Search, check_search, rule, rules
from irmas.errors import ConfigError, UserError
from irmas.sweep import adaptive
from irmas.sweep.adaptive import Interval


@dataclass(frozen=True)
class Proposal:
    """The runs that a command asks for."""

    runs: list[dict[str, str]]
    """Values of each run by key, as on the command line."""
    origins: dict[str, str] = field(default_factory=dict)
    """Places of overrides that a file gives, by override."""
    space: dict[str, str] = field(default_factory=dict)
    """Intervals and lists from which points are drawn, as they were typed, by key."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """Intervals from which runs choose their points."""
    options: list[dict[str, str]] = field(default_factory=list)
    """Values of which the changes must be known before runs choose from them: groups together, then single settings."""


def propose(overrides: Mapping[str, Override], listed: str | None, search: Search) -> Proposal:
    """Return every combination of the values, with the rows of the file `listed` or with the points of a search.

    Raises UserError for what cannot be combined or drawn from.
    """
    check_search(search)
    is_search, head = search.method != "none", f"search={search.method}"
    drawn_from = {
        key: o for key, o in overrides.items() if is_search and o.is_sweep_override() and key not in REPETITIONS
    }
    if is_search and listed:
        raise UserError(f"points={listed}: lists the points, and {head} draws them; give one of the two")
    if is_search and not drawn_from:
        raise UserError(f"{head}: needs settings to draw, as in lr=interval(0.001,0.01) model=report,deep")
    axes = {key: _values(override) for key, override in overrides.items() if key not in drawn_from}
    space = {key: _dimension(override) for key, override in drawn_from.items()}
    chosen, origins = [dict[str, str]()], dict[str, str]()
    if search.method == "tpe":
        return _chosen_later(overrides, space, axes, search)
    if drawn_from:
        assert search.runs is not None
        assert search.seed is not None
        chosen = draw(space, search.runs, search.seed)
    elif listed:
        rows = points.read(Path(listed))
        _refuse_columns(listed, rows, [overrides[key] for key in axes])
        chosen, origins = [row.cells for row in rows], points.origins(Path(listed), rows)
    # The seed varies slowest, so that more seeds append runs and renumber none.
    repeated = REPETITIONS if drawn_from else ("seed",)
    repetitions = _combinations({key: axes[key] for key in repeated if key in axes})
    grid = _combinations({key: values for key, values in axes.items() if key not in repeated})
    columns = dict.fromkeys(key for point in chosen for key in point if key not in overrides)
    order = [*columns, *overrides]
    runs = [repetition | point | values for repetition in repetitions for point in chosen for values in grid]
    ordered = [{key: run[key] for key in order if key in run} for run in runs]
    return Proposal(ordered, origins, {key: _typed(override) for key, override in drawn_from.items()})


def _chosen_later(
    overrides: Mapping[str, Override],
    space: Mapping[str, Interval | Listed],
    axes: Mapping[str, Sequence[str]],
    search: Search,
) -> Proposal:
    """Return runs that are alike, each of which chooses its point from a space when it starts. Raise UserError."""
    adaptive.refuse_without_optuna()
    assert search.runs is not None
    if repeated := [overrides[key].input_line for key, values in axes.items() if len(values) > 1]:
        remedy = "python -m irmas.refine trains the best points with more seeds"
        raise UserError(f"{repeated[0]}: search=tpe trains each point once; give one value ({remedy})")
    refuse_too_many(space, search.runs)
    same = {key: value for key, (value,) in axes.items()}
    intervals = {key: dimension for key, dimension in space.items() if isinstance(dimension, Interval)}
    listed = {key: dimension.values for key, dimension in space.items() if isinstance(dimension, Listed)}
    groups = {key: values for key, values in listed.items() if key not in rules(Config)}
    options = [same | values for values in _combinations(groups)] if groups else []
    options += [{key: value} for key, values in listed.items() if key not in groups for value in values]
    options += [{key: str(end)} for key, interval in intervals.items() for end in (interval.low, interval.high)]
    typed = {key: _typed(overrides[key]) for key in space}
    return Proposal([same] * search.runs, {}, typed, intervals, options)


def _typed(override: Override) -> str:
    return str(override.input_line).partition("=")[2]


def _refuse_columns(listed: str, rows: Sequence[points.Row], overrides: Sequence[Override]) -> None:
    """Raise UserError for the first override whose key is a column, too."""
    for override in overrides:
        key = override.key_or_group
        if line := next((row.line for row in rows if key in row.cells), None):
            reason = f"{listed} has a column {key} (line {line}); give it in one of the two"
            raise UserError(f"{override.input_line}: {reason}")


def _dimension(override: Override) -> Interval | Listed:
    """Return what an override lets a search draw from. Raise UserError."""
    typed, key = override.value(), override.key_or_group
    tags = getattr(typed, "tags", None) or set()
    if tags - {"log"} or (tags and not isinstance(typed, IntervalSweep)):
        raise UserError(f"{override.input_line}: only an interval is tagged, as in {key}=tag(log,interval(0.001,0.01))")
    if not isinstance(typed, IntervalSweep):
        return Listed(list(dict.fromkeys(_values(override))))
    if (kind := _number_type(key)) is None:
        raise UserError(f"{override.input_line}: only a number has an interval; list the values, as in {key}=a,b")
    assert typed.start is not None
    assert typed.end is not None
    low, high = (int(end) if kind is int and float(end).is_integer() else end for end in (typed.start, typed.end))
    for end in (low, high):
        if not rule(key).allows(end):
            raise ConfigError(key, _typed(override), f"its end {end:g} must be {rule(key).text}")
    if low >= high:
        raise ConfigError(key, _typed(override), "its first end must be below the second")
    if tags and low <= 0:
        raise ConfigError(key, _typed(override), "with tag(log,...), both ends must be above 0")
    return Interval(low, high, is_log=bool(tags), is_whole=kind is int)


def _number_type(key: str) -> type | None:
    """Return int or float for a setting that is a number, None for any other key."""
    if key not in rules(Config):
        return None
    schema: type = Config
    *groups, name = key.split(".")
    for group in groups:
        schema = get_type_hints(schema)[group]
    hint = get_type_hints(schema)[name]
    return next((kind for kind in (int, float) if kind in (hint, *get_args(hint))), None)


def _combinations(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _values(override: Override) -> list[str]:
    """Return the values of an override as on the command line. Raise UserError where they cannot be listed."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        key = override.key_or_group
        if key in REPETITIONS:
            raise UserError(f"{override.input_line}: repeats every point and needs values, as in {key}=0,1")
        reason = "search=random draws from an interval, and search=tpe chooses from it; a grid needs values"
        raise UserError(f"{override.input_line}: {reason}, as in {key}=0.1,0.2")
    if not (values := list(_with_decimals(override).sweep_string_iterator())):
        raise UserError(f"{override.input_line}: holds no value to sweep")
    return values


def _with_decimals(override: Override) -> Override:
    """Let a range count in the decimals that were typed: in binary, 0.1 + 0.2 is 0.30000000000000004."""
    if not isinstance(typed := override.value(), RangeSweep):
        return override
    decimals: dict[str, Any] = {
        name: Decimal(str(number))
        for name, number in {"start": typed.start, "stop": typed.stop, "step": typed.step}.items()
        if isinstance(number, float)
    }
    return replace(override, _value=replace(typed, **decimals))
