"""Swept values of a command line -> the runs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import Any

from hydra.core.override_parser.types import Override, RangeSweep

from irmas.errors import UserError


def propose(overrides: Mapping[str, Override]) -> list[dict[str, str]]:
    """Return the values of each run by key, as on the command line: every combination. Raise UserError."""
    axes = {key: _values(override) for key, override in overrides.items()}
    # The seed varies slowest, so that more seeds append runs and renumber none.
    runs = _combinations({key: axes[key] for key in sorted(axes, key=lambda key: key != "seed")})
    return [{key: run[key] for key in axes} for run in runs]


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
