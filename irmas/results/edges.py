"""The value beyond the edge of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from irmas.config import rule

FARTHEST = 10
"""Times or parts of the last level that the next one is at most: levels may lie far apart."""
LABELS = frozenset({"seed", "data.seed", "data.fold", "data.render_seed"})
"""Whole numbers that name something: nothing lies beyond the last of them."""


def beyond(key: str, levels: Sequence[float]) -> float | None:
    """Return the value to try next beyond the last of these levels, which lead outwards.

    One step on; half or a quarter of one where the setting does not allow more; None where it allows nothing, or where
    the levels only name something.
    """
    if key in LABELS:
        return None
    neighbor, edge = levels[-2:]
    geometric = min(neighbor, edge) > 0 and _is_geometric(sorted(level for level in levels if level > 0))
    allows = rule(key).allows
    for step in (1, 1 / 2, 1 / 4):
        ratio = min(max(edge / neighbor, 1 / FARTHEST), FARTHEST) if geometric else 0.0
        value = edge * ratio**step if geometric else round(edge + (edge - neighbor) * step, 12)
        value = _rounded(value, levels, 1 if geometric and step == 1 else 2)
        if (value - edge) * (edge - neighbor) > 0 and allows(value):
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
