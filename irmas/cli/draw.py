"""Points drawn from a space of intervals and lists, the same ones for the same seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irmas.errors import ConfigError

DIGITS = (3, 4, 5, 6, 17)
"""Significant digits of a drawn number: as few as keep it from repeating an earlier point."""


@dataclass(frozen=True)
class Interval:
    """Numbers between two ends, both included."""

    low: float
    high: float
    is_log: bool
    """True where equal factors, not equal differences, are equally likely."""
    is_whole: bool

    @property
    def size(self) -> float:
        """Number of the values."""
        return self.high - self.low + 1 if self.is_whole else math.inf

    def value(self, share: float, digits: int) -> str:
        """Return the value at a share, 0 to 1, of the interval, as on the command line."""
        margin = 0.5 if self.is_whole else 0.0  # the ends are as likely as the numbers between them
        low, high = self.low - margin, self.high + margin
        exact = low * (high / low) ** share if self.is_log else low + share * (high - low)
        inside = min(max(float(f"{exact:.{digits}g}"), self.low), self.high)
        return str(round(inside) if self.is_whole else inside)


@dataclass(frozen=True)
class Listed:
    """Values of any kind, as on the command line, all equally likely."""

    values: Sequence[str]

    @property
    def size(self) -> float:
        return len(self.values)

    def value(self, share: float, digits: int) -> str:
        return self.values[int(share * len(self.values))]


def draw(space: Mapping[str, Interval | Listed], runs: int, seed: int) -> list[dict[str, str]]:
    """Return different points, which fill the space evenly; fewer runs return the first of them.

    Raises ConfigError where the space has fewer points.
    """
    from scipy.stats import qmc  # takes a second to import

    if runs > (size := math.prod(dimension.size for dimension in space.values())):
        raise ConfigError("search.runs", runs, f"must be at most {size:.0f}, which is all that this space has")
    keys = sorted(space)  # the order of the command line changes no point
    sequence, exponent = qmc.Sobol(len(keys), rng=seed), math.ceil(math.log2(runs))
    points: dict[tuple[str, ...], None] = {}  # an ordered set
    while len(points) < runs:
        # The sequence is balanced, and scipy silent, only at powers of two.
        for shares in sequence.random_base2(exponent).tolist():
            for digits in DIGITS:
                point = tuple(space[key].value(share, digits) for key, share in zip(keys, shares, strict=True))
                if point not in points:
                    points[point] = None
                    break
        exponent += sequence.num_generated > 2**exponent
    return [dict(zip(keys, point, strict=True)) for point in list(points)[:runs]]
