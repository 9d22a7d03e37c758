"""Points drawn from a space of intervals and lists, the same ones for the same seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irmas.errors import ConfigError
from irmas.sweep.adaptive import DIGITS, Interval


@dataclass(frozen=True)
class Listed:
    """Values of any kind, as on the command line, all equally likely."""

    values: Sequence[str]

    @property
    def size(self) -> float:
        return len(self.values)


def refuse_too_many(space: Mapping[str, Interval | Listed], runs: int) -> None:
    """Raise ConfigError where a space has fewer points."""
    if runs > (size := math.prod(dimension.size for dimension in space.values())):
        raise ConfigError("search.runs", runs, f"must be at most {size:.0f}, which is all that this space has")


def draw(space: Mapping[str, Interval | Listed], runs: int, seed: int) -> list[dict[str, str]]:
    """Return different points, which fill the space evenly; fewer runs return the first of them.

    Raises ConfigError where the space has fewer points.
    """
    from scipy.stats import qmc  # takes a second to import

    refuse_too_many(space, runs)
    keys = sorted(space)  # the order of the command line changes no point
    sequence, exponent = qmc.Sobol(len(keys), rng=seed), math.ceil(math.log2(runs))
    points: dict[tuple[str, ...], None] = {}  # an ordered set
    while len(points) < runs:
        # The sequence is balanced, and scipy silent, only at powers of two.
        for shares in sequence.random_base2(exponent).tolist():
            for digits in DIGITS:
                point = tuple(_value(space[key], share, digits) for key, share in zip(keys, shares, strict=True))
                if point not in points:
                    points[point] = None
                    break
        exponent += sequence.num_generated > 2**exponent
    return [dict(zip(keys, point, strict=True)) for point in list(points)[:runs]]


def _value(dimension: Interval | Listed, share: float, digits: int) -> str:
    """Return the value at a share, 0 to 1, of a dimension, as on the command line."""
    if isinstance(dimension, Listed):
        return dimension.values[int(share * len(dimension.values))]
    margin = 0.5 if dimension.is_whole else 0.0  # the ends are as likely as the numbers between them
    low, high = dimension.low - margin, dimension.high + margin
    exact = low * (high / low) ** share if dimension.is_log else low + share * (high - low)
    return str(dimension.rounded(exact, digits))
