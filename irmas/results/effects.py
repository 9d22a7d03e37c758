"""Main effects of any grid, complete or not, by least squares on its points; and the value to try beyond its edge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irmas.config import REPETITIONS, rule, shown
from irmas.results.comparison import Comparison, Estimate

Array = NDArray[np.float64]

MOST_LEVELS = 24
"""Most values of a key that is a factor of a grid; those of others were drawn at random."""
LABELS = frozenset({*REPETITIONS, "data.seed", "data.render_seed"})
"""Keys whose whole numbers name something: nothing lies beyond the last of them."""


@dataclass(frozen=True)
class Level:
    """The points with one value of a key."""

    value: Any
    accuracy: float
    """Least-squares mean: as if every level had been trained with the same other settings."""
    lead: Estimate | None = None
    """The best level's accuracy minus this one's, with a 95 % interval for all pairs of levels of all keys together.

    None for the best level itself, and where noise is unknown.
    """

    @property
    def is_behind(self) -> bool:
        """True where the interval of the best level's lead excludes 0."""
        return self.lead is not None and self.lead.low > 0


@dataclass(frozen=True)
class Effect:
    """The main effect of one swept key."""

    key: str
    levels: tuple[Level, ...]
    """Numbers in ascending order, other values in the order of the runs."""
    p: float | None
    """Probability of such a difference between two levels without any effect, adjusted for all pairs of all keys."""
    beyond: float | None
    """The value beyond the grid to try next; None unless the means rise towards the edge, and by more than noise."""

    @property
    def best(self) -> Level:
        return max(self.levels, key=lambda level: level.accuracy)


def are_numbers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


@dataclass(frozen=True)
class Grid:
    """The points of a sweep by the levels of their keys."""

    levels: dict[str, tuple[Any, ...]]
    """Levels of each key with several."""
    codes: NDArray[np.intp]
    """Number of each point's level, (keys, points)."""

    @classmethod
    def of(cls, settings: Sequence[Mapping[str, Any]], keys: Iterable[str], most: float = MOST_LEVELS) -> Grid:
        """Sort the values of each key with at most `most`: numbers ascending, others in the order of `settings`."""
        levels, codes = {}, []
        for key in keys:
            values = {shown(point[key]): point[key] for point in settings}
            if 1 < len(values) <= most:
                ordered = sorted(values.values()) if are_numbers(values.values()) else [*values.values()]
                levels[key] = tuple(ordered)
                number = {shown(value): code for code, value in enumerate(ordered)}
                codes.append([number[shown(point[key])] for point in settings])
        return cls(levels, np.array(codes, dtype=np.intp).reshape(len(levels), len(settings)))

    def take(self, points: Sequence[int]) -> Grid:
        return Grid(self.levels, self.codes[:, points])

    def keys(self) -> NDArray[np.intp]:
        """Return the number of the key that each column of the design but the first belongs to."""
        return np.repeat(np.arange(len(self.levels)), [len(levels) for levels in self.levels.values()])

    def design(self) -> Array:
        """Return the design of the main effects, (points, columns): 1, then an indicator of each level of each key."""
        columns = [np.ones((self.codes.shape[1], 1))]
        for code, levels in zip(self.codes, self.levels.values(), strict=True):
            columns.append(np.eye(len(levels))[code])
        return np.hstack(columns)

    def level_rows(self, key: int) -> Array:
        """Return the rows, (levels, columns), of a key's level means, which weigh all levels of other keys alike."""
        sizes = [len(levels) for levels in self.levels.values()]
        uniform = np.concatenate([[1.0], *(np.full(size, 1 / size) for size in sizes)])
        rows = np.tile(uniform, (sizes[key], 1))
        rows[:, 1:][:, self.keys() == key] = np.eye(sizes[key])
        return rows


def main_effects(grid: Grid, accuracies: Array, compared: Comparison | None) -> tuple[Effect, ...]:
    """Return the effect of each key whose levels the points of the grid can tell apart.

    `compared` holds the same points in the same order; without it the leads have no intervals.
    """
    weights = _level_weights(grid)
    pairs = [(key, *pair) for key, rows in weights.items() for pair in combinations(range(len(rows)), 2)]
    leads = dict[tuple[str, int, int], tuple[float, float]]()  # half-width and p
    if compared and pairs:
        differences = np.array([weights[key][high] - weights[key][low] for key, low, high in pairs])
        half_widths, ps = compared.simultaneous(differences)
        leads = dict(zip(pairs, zip(half_widths.tolist(), ps.tolist(), strict=True), strict=True))
    effects = []
    for key, rows in weights.items():
        means = (rows @ accuracies).tolist()
        best = int(np.argmax(means))
        levels = []
        for place, (value, mean) in enumerate(zip(grid.levels[key], means, strict=True)):
            lead = means[best] - mean
            half, _ = leads.get((key, min(place, best), max(place, best)), (0.0, 1.0))
            levels.append(Level(value, mean, Estimate(lead, lead - half, lead + half) if half else None))
        smallest_p = min((p for (name, _, _), (_, p) in leads.items() if name == key), default=None)
        beyond = beyond_edge(key, levels) if are_numbers(grid.levels[key]) else None
        effects.append(Effect(key, tuple(levels), smallest_p, beyond))
    return tuple(effects)


def _level_weights(grid: Grid) -> dict[str, Array]:
    """Return the weights of the points, (levels, points), in each key's level means; no key that is confounded."""
    design = grid.design()
    inverse = np.linalg.pinv(design)
    weights = {}
    for number, key in enumerate(grid.levels):
        rows = grid.level_rows(number)
        differences = np.diff(rows, axis=0)
        if np.allclose(differences @ inverse @ design, differences, atol=1e-6):
            weights[key] = rows @ inverse
    return weights


def beyond_edge(key: str, levels: Sequence[Level]) -> float | None:
    """Return the value beyond the best of numeric levels, in ascending order, if the means rise towards it.

    The level farthest from that edge must be known to be behind: by chance alone one level of two is always higher, and
    three rise or fall throughout in one of three cases.
    """
    best = max(range(len(levels)), key=lambda number: levels[number].accuracy)
    if best not in (0, len(levels) - 1):
        return None
    outwards = levels[::-1] if best == 0 else levels
    means = [level.accuracy for level in outwards[-3:]]
    is_rising = means == sorted(means) and outwards[0].is_behind
    return _next_value(key, [level.value for level in outwards]) if is_rising else None


def _next_value(key: str, levels: Sequence[float]) -> float | None:
    """Return the value to try next beyond the last of these levels, which lead outwards.

    It is one step away, or half or a quarter of one where the setting does not allow more; None where the setting
    allows no such value, or where the levels only name something.
    """
    if key in LABELS:
        return None
    neighbor, edge = levels[-2:]
    geometric = min(neighbor, edge) > 0 and _is_geometric(sorted(level for level in levels if level > 0))
    allows = rule(key).allows
    for step in (1, 1 / 2, 1 / 4):
        ratio = min(max(edge / neighbor, 1 / 10), 10) if geometric else 0.0  # levels may lie far apart
        value = edge * ratio**step if geometric else round(edge + (edge - neighbor) * step, 12)
        value = _rounded(value, levels, 1 if geometric and step == 1 else 2)
        if (value - edge) * (edge - neighbor) > 0 and allows(value):
            return value
    return None


def _is_geometric(levels: Sequence[float]) -> bool:
    """Return True where ascending levels span more than a factor of 5, or vary less in ratios than in differences."""
    ratios = [high / low for low, high in pairwise(levels)]
    differences = [high - low for low, high in pairwise(levels)]
    return levels[-1] / levels[0] > 5 or max(ratios) / min(ratios) < max(differences) / min(differences)


def _rounded(value: float, like: Sequence[float], digits: int) -> float:
    """Round to whole numbers among whole numbers, otherwise to `digits`; two where other levels have more than one."""
    if all(isinstance(level, int) for level in like):
        return round(value)
    is_short = all(float(f"{level:.1g}") == level for level in like)
    return float(f"{value:.{digits if is_short else 2}g}")
