"""Swept values of a command line -> the runs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, RangeSweep

from irmas.cli import points
from irmas.errors import UserError


@dataclass(frozen=True)
class Proposal:
    """The runs that a command asks for."""

    runs: list[dict[str, str]]
    """Values of each run by key, as on the command line."""
    origins: dict[str, str] = field(default_factory=dict)
    """Places of overrides that a file gives, by override."""


def propose(overrides: Mapping[str, Override], listed: str | None) -> Proposal:
    """Return every combination of the values and of the rows of the file of points `listed`. Raise UserError."""
    axes = {key: _values(override) for key, override in overrides.items()}
    rows = points.read(Path(listed)) if listed else []
    for key in axes:
        if line := next((row.line for row in rows if key in row.cells), None):
            reason = f"{listed} has a column {key} (line {line}); give it in one of the two"
            raise UserError(f"{overrides[key].input_line}: {reason}")
    chosen = [row.cells for row in rows] or [{}]
    # The seed varies slowest, so that more seeds append runs and renumber none.
    seeds = _combinations({key: values for key, values in axes.items() if key == "seed"})
    grid = _combinations({key: values for key, values in axes.items() if key != "seed"})
    order = dict.fromkeys([*(key for cells in chosen for key in cells), *axes])
    runs = [seed | cells | values for seed in seeds for cells in chosen for values in grid]
    ordered = [{key: run[key] for key in order if key in run} for run in runs]
    return Proposal(ordered, points.origins(Path(listed), rows) if listed else {})


def _combinations(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _values(override: Override) -> list[str]:
    """Return the values of an override as on the command line. Raise UserError where they cannot be listed."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: a grid needs values, as in {override.key_or_group}=0.1,0.2")
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
