"""Training noise: what other trainings with the same settings would have made of accuracies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irmas.results import anova, bootstrap
from irmas.results.anova import Anova, Variation
from irmas.results.bootstrap import Noise, Rows, Sample
from irmas.results.factorial import Grid


@dataclass(frozen=True)
class TrainingNoise:
    sd: float
    """Standard deviation of one run's accuracy among trainings of a point, on the same excerpts; without what its seed
    does to all points alike, where the analysis of variance has that by itself."""
    df: int
    source: str
    """`seeds`, or `residual`: of the analysis of variance."""

    @property
    def is_of_seeds(self) -> bool:
        return self.source == "seeds"


def in_training(table: Anova) -> TrainingNoise | None:
    for source, variation in (("seeds", table.seeds), ("residual", table.residual)):
        if variation and variation.df and variation.sum_of_squares > anova.ROUNDING**2:  # else a coincidence
            return TrainingNoise(math.sqrt(variation.sum_of_squares / variation.df), variation.df, source)
    return None


def squares(
    values: Mapping[int, NDArray[np.float64]], runs: Sequence[Sequence[int]], has_blocks: bool
) -> tuple[float, float]:
    """Sums of squares within points, by each point's runs: of what seeds do to all of them alike, and of the rest."""
    total, summed = 0.0, np.zeros(())
    for of_point in runs:
        own = np.array([values[run] for run in of_point])
        left = own - own.mean(axis=0)
        total += float((left**2).sum())
        summed = summed + left if has_blocks else summed
    alike = float((summed**2).sum()) / len(runs)
    return alike, max(total - alike, 0.0)


@dataclass(frozen=True)
class Errors:
    """Training noise as mean squares of single runs: of what seeds do to all points alike, and of the rest. That of n
    points is n times the variance of the former, plus that of the latter."""

    alike: Variation | None
    """None where it is not told from the rest."""
    rest: Variation
    by_excerpts: tuple[float, float]
    """What the choice of excerpts alone makes of both, as runs are not right on the same ones."""
    n_points: int
    n_paired: int
    """Points that the mean squares are of, and their parts by excerpts."""
    in_intervals: bool

    def noise(self, sizes: Sequence[int]) -> Noise:
        """For rows that are means over so many points."""
        variance, known = self.rest.mean_square, self.by_excerpts[1]
        own = np.array([self._own(size) for size in sizes]) if self.in_intervals else np.zeros((1, 1))
        return Noise(math.sqrt(max(variance - known, 0)), bootstrap.draw_sd(variance, self.rest.df, known), own)

    def _own(self, size: int) -> NDArray[np.float64]:
        """With what their seed does to all points alike, which no mean over points lessens."""
        if not self.alike:
            return bootstrap.draw_sd(self.rest.mean_square, self.rest.df, self.by_excerpts[1])
        share = size / self.n_points
        alike, rest = share * self.alike.mean_square, (1 - share) * self.rest.mean_square
        df = (alike + rest) ** 2 / (alike**2 / self.alike.df + rest**2 / self.rest.df)  # Satterthwaite 1946
        share = size / self.n_paired
        known = share * self.by_excerpts[0] + (1 - share) * self.by_excerpts[1]
        return bootstrap.draw_sd(alike + rest, df, known)


def estimate(
    runs: Sequence[Sequence[int]], rows: Rows, sample: Sample, grid: Grid, table: Anova, n_points: int
) -> Errors | None:
    """None where it is not known.

    The parts by excerpts are the same estimates, made of each run's scores in place of its accuracy. They are 0, so
    that this noise counts twice, where the points are not those that the residual was made of.
    """
    noise = in_training(table)
    if not noise:
        return None
    alike, rest = (table.blocks, table.seeds) if noise.is_of_seeds else (None, table.residual)
    assert rest
    by_excerpts, dfs = (0.0, 0.0), (0, 0)
    if noise.is_of_seeds:
        by_excerpts = squares(sample.scores, runs, alike is not None)
        alike_df = alike.df if alike else 0
        dfs = alike_df, int(rows.runs.sum()) - len(runs) - alike_df
    elif len(runs) == n_points:
        by_excerpts = 0.0, float((anova.decompose(grid.arranged(rows.scores), len(grid.levels))[1] ** 2).sum())
        dfs = 0, noise.df
    n = len(sample.sizes)
    known = [found / df * n / (n - 1) if df else 0.0 for found, df in zip(by_excerpts, dfs, strict=True)]
    return Errors(alike, rest, (known[0], known[1]), n_points, len(runs), noise.is_of_seeds)
