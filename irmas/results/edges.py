"""Values beyond the edge of a grid towards which accuracies rise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from irmas.config import RULES

LABELS = frozenset({"seed", "data.seed", "data.fold", "data.render_seed"})
"""Whole numbers that name something: nothing lies beyond the last of them."""


@dataclass(frozen=True)
class Edge:
    """A value beyond those swept that may be better still."""

    key: str
    value: float
    """The best level, on the edge of the grid."""
    beyond: float
    """The value to try next."""


class Level(Protocol):
    """The mean of the points with one value of a key."""

    @property
    def value(self) -> Any: ...

    @property
    def accuracy(self) -> float: ...

    @property
    def is_behind(self) -> bool: ...


def find_edge(key: str, levels: Sequence[Level]) -> Edge | None:
    """Return what lies beyond the best of numeric levels, in ascending order, if the means rise towards it.

    The level farthest from that edge must be known to be behind: by chance alone one level of two is always higher, and
    three rise or fall throughout in one of three cases. None where the setting allows nothing more.
    """
    best = max(range(len(levels)), key=lambda number: levels[number].accuracy)
    if key in LABELS or best not in (0, len(levels) - 1):
        return None
    outwards = levels[::-1] if best == 0 else levels
    means = [level.accuracy for level in outwards[-3:]]
    rises = means == sorted(means) and outwards[0].is_behind
    beyond = _beyond(key, [level.value for level in outwards]) if rises else None
    return Edge(key, levels[best].value, beyond) if beyond is not None else None


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
