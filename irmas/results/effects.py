"""Main effects of any grid, complete or not: least squares on the points that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irmas.config import shown
from irmas.results import edges
from irmas.results.comparison import Comparison, Estimate

Array = NDArray[np.float64]

MOST_LEVELS = 24
"""Values of a key above which it is no factor of a grid, but drawn at random."""


@dataclass(frozen=True)
class Level:
    """The points with one value of a key."""

    value: Any
    accuracy: float
    """Least-squares mean: as if every level had been trained with the same other settings."""
    points: int
    lead: Estimate | None = None
    """The best level's accuracy minus this one's, with a 95 % interval for all pairs of levels of all keys together.

    None for the best level itself, and where it is not known.
    """

    @property
    def is_behind(self) -> bool:
        """The interval of the best level's lead excludes 0."""
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
    """Levels of each key with 2 to MOST_LEVELS of them."""
    codes: NDArray[np.intp]
    """(keys, points): number of each point's level."""

    @classmethod
    def of(cls, settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Grid:
        """Sort the values of each key: numbers ascending, others in the order of `settings`."""
        levels, codes = {}, []
        for key in keys:
            values = {shown(point[key]): point[key] for point in settings}
            if 1 < len(values) <= MOST_LEVELS:
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
        """Return the columns of the main effects, (points, columns): 1, then each level of each key, 1 where it is."""
        columns = [np.ones((self.codes.shape[1], 1))]
        for code, levels in zip(self.codes, self.levels.values(), strict=True):
            columns.append(np.eye(len(levels))[code])
        return np.hstack(columns)

    def level_rows(self, key: int) -> Array:
        """Return the rows, (levels, columns), of the means of a key's levels: all levels of other keys alike."""
        sizes = [len(levels) for levels in self.levels.values()]
        others = np.concatenate([[1.0], *(np.full(size, 1 / size) for size in sizes)])
        rows = np.tile(others, (sizes[key], 1))
        rows[:, 1:][:, self.keys() == key] = np.eye(sizes[key])
        return rows


def main_effects(grid: Grid, accuracies: Array, compared: Comparison | None) -> tuple[Effect, ...]:
    """Return the effect of each key whose levels the points that are there can tell apart.

    `compared` holds the same points in the same order; without it nothing is known of the leads but their size.
    """
    design = grid.design()
    inverse = np.linalg.pinv(design)
    means, pairs = {}, []
    for number, key in enumerate(grid.levels):
        rows = grid.level_rows(number)
        differences = np.diff(rows, axis=0)
        if np.allclose(differences @ inverse @ design, differences, atol=1e-6):
            means[key] = number, rows @ inverse
            pairs += [(key, low, high) for low, high in combinations(range(len(rows)), 2)]
    halves, ps = dict[tuple[str, int, int], float](), dict[tuple[str, int, int], float]()
    if compared and pairs:
        weights = np.array([means[key][1][high] - means[key][1][low] for key, low, high in pairs])
        half_widths, probabilities = compared.simultaneous(weights)
        halves = dict(zip(pairs, half_widths.tolist(), strict=True))
        ps = dict(zip(pairs, probabilities.tolist(), strict=True))
    found = []
    for key, (number, weights) in means.items():
        values = (weights @ accuracies).tolist()
        counts = np.bincount(grid.codes[number], minlength=len(values)).tolist()
        best = int(np.argmax(values))
        levels = []
        for place, (value, mean, count) in enumerate(zip(grid.levels[key], values, counts, strict=True)):
            half = halves.get((key, min(place, best), max(place, best)))
            lead = values[best] - mean
            levels.append(Level(value, mean, count, Estimate(lead, lead - half, lead + half) if half else None))
        of_key = [p for (name, _, _), p in ps.items() if name == key]
        beyond = beyond_edge(key, levels) if are_numbers(grid.levels[key]) else None
        found.append(Effect(key, tuple(levels), min(of_key) if of_key else None, beyond))
    return tuple(found)


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
    rises = means == sorted(means) and outwards[0].is_behind
    return edges.beyond(key, [level.value for level in outwards]) if rises else None
