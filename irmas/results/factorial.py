"""What was swept as a factorial design: the levels of each key, and the points' places among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irmas.config import shown


def are_numbers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def levels_of(settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Of keys with two or more, in their order: numbers ascending, others as they come."""
    levels = {}
    for key in keys:
        values = {shown(values[key]): values[key] for values in settings}
        if len(values) > 1:
            levels[key] = tuple(sorted(values.values()) if are_numbers(values.values()) else values.values())
    return levels


@dataclass(frozen=True)
class Grid:
    """Points by the levels of their keys."""

    levels: dict[str, tuple[Any, ...]]
    """Of each key with at least two."""
    codes: NDArray[np.intp]
    """(keys, points): which level."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.levels.values()))

    @property
    def is_complete(self) -> bool:
        _, n_points = self.codes.shape
        return bool(math.prod(self.shape) == n_points)  # no two of them are alike

    def arranged(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(points, ...) -> (levels of the first key, ..., of the last, ...), for a complete grid."""
        places = np.zeros(len(values), dtype=np.intp)
        for code, n_levels in zip(self.codes, self.shape, strict=True):
            places = places * n_levels + code
        arranged = np.empty_like(values)
        arranged[places] = values
        return arranged.reshape((*self.shape, *values.shape[1:]))


def arranged(settings: Sequence[Mapping[str, Any]], levels: Mapping[str, tuple[Any, ...]]) -> Grid:
    """Of points with these settings, all of them different."""
    codes = []
    for key, values in levels.items():
        code = {shown(value): number for number, value in enumerate(values)}
        codes.append([code[shown(its[key])] for its in settings])
    return Grid(dict(levels), np.array(codes, dtype=np.intp).reshape(len(levels), len(settings)))
