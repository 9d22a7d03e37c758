"""Whether the leader lies on the edge of the swept values, and what to sweep beyond it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from irmas.config import RULES
from irmas.results.factorial import are_numbers

LABELS = frozenset({"seed", "data.seed", "data.fold", "data.render_seed"})
"""Whole numbers that name something: nothing lies beyond the last of them."""


@dataclass(frozen=True)
class Edge:
    """Where the leader's value of a numeric key lies among those swept."""

    key: str
    value: float
    levels: tuple[float, ...]
    side: str
    """`smallest`, `largest`, or empty: inside."""
    beyond: float | None
    """What to sweep next on that side; None inside, or where the setting allows nothing more."""


def find_edges(leader: Mapping[str, Any], levels: Mapping[str, tuple[Any, ...]]) -> tuple[Edge, ...]:
    """Of every key whose levels, in ascending order, are numbers: with two levels the leader is always on an edge."""
    return tuple(
        _edge(key, leader[key], levels[key]) for key in levels if key not in LABELS and are_numbers(levels[key])
    )


def _edge(key: str, value: float, levels: tuple[float, ...]) -> Edge:
    side = {levels[0]: "smallest", levels[-1]: "largest"}.get(value, "")
    outwards = levels[::-1] if side == "smallest" else levels
    return Edge(key, value, levels, side, _beyond(key, outwards) if side else None)


def _beyond(key: str, levels: Sequence[float]) -> float | None:
    """One step on from the last level; half or a quarter of one where the setting does not allow more."""
    neighbour, edge = levels[-2:]
    geometric = min(neighbour, edge) > 0 and _is_geometric(sorted(level for level in levels if level > 0))
    allows = RULES[key][0]
    for step in (1, 1 / 2, 1 / 4):
        value = edge * (edge / neighbour) ** step if geometric else round(edge + (edge - neighbour) * step, 12)
        value = _rounded(value, levels, 1 if geometric and step == 1 else 2)
        if (value - edge) * (edge - neighbour) > 0 and allows(value):
            return value
    return None


def _is_geometric(levels: Sequence[float]) -> bool:
    """Whether ascending levels span more than a factor of 5, or their ratios are more even than their differences."""
    ratios = [high / low for low, high in pairwise(levels)]
    differences = [high - low for low, high in pairwise(levels)]
    return levels[-1] / levels[0] > 5 or max(ratios) / min(ratios) < max(differences) / min(differences)


def _rounded(value: float, like: Sequence[float], digits: int) -> float:
    """To whole numbers among whole numbers, otherwise to significant digits: two if the others have more than one."""
    if all(isinstance(level, int) for level in like):
        return round(value)
    is_short = all(float(f"{level:.1g}") == level for level in like)
    return float(f"{value:.{digits if is_short else 2}g}")
