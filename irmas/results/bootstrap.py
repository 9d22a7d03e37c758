"""What other recordings and other trainings would have made of accuracies: a cluster bootstrap, paired between runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Array = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
CHUNK = 256
"""Rows at a time: some 30 MB."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Answers:
    """Of a run to its validation excerpts, each (excerpts,), in any order."""

    correct: NDArray[np.bool_]
    excerpts: NDArray[np.str_]
    """Unique names."""
    recordings: NDArray[np.str_]


@dataclass(frozen=True)
class Sample:
    """A set of validation excerpts, and the runs that were judged on it."""

    excerpts: NDArray[np.str_]
    recordings: NDArray[np.str_]
    codes: NDArray[np.intp]
    """(excerpts,): the number of its recording."""
    sizes: Array
    """(recordings,): excerpts of each."""
    scores: dict[int, Array]
    """By run: (recordings,) right answers beyond accuracy x size, over the number of excerpts. They sum to 0."""

    def take(self, run: int, found: Answers) -> bool:
        """Add the run if it was judged on these excerpts, in whatever order."""
        if len(found.excerpts) != len(self.excerpts):
            return False
        if not np.array_equal(found.excerpts, self.excerpts):
            order = np.argsort(found.excerpts)[np.argsort(np.argsort(self.excerpts))]
            found = Answers(found.correct[order], found.excerpts[order], found.recordings[order])
        if not (np.array_equal(found.excerpts, self.excerpts) and np.array_equal(found.recordings, self.recordings)):
            return False
        right = np.bincount(self.codes, found.correct, minlength=len(self.sizes))
        self.scores[run] = (right - found.correct.mean() * self.sizes) / len(found.correct)
        return True


def samples(answers: Mapping[int, Answers]) -> list[Sample]:
    """One for each set of excerpts. Those of a single recording are left out: they cannot be resampled."""
    made: list[Sample] = []
    for run, found in answers.items():
        if not any(sample.take(run, found) for sample in made):
            _, codes = np.unique(found.recordings, return_inverse=True)
            sizes = np.bincount(codes).astype(np.float64)
            made.append(Sample(found.excerpts, found.recordings, codes, sizes, {}))
            made[-1].take(run, found)
    return [sample for sample in made if len(sample.sizes) > 1]


def resample(sizes: Array) -> Array:
    """(resamples, recordings): how often each recording was drawn, over the relative size of all that was drawn.

    Times scores it gives a resample's accuracy minus the real one, widened by what a bootstrap of n recordings lacks:
    sqrt(n / (n - 1)), and Student's t in the place of the normal quantile (Hesterberg 2015, expanded percentiles).
    """
    counts = draw(len(sizes))
    return np.asarray(counts * (widening(len(sizes)) * sizes.sum() / (counts @ sizes))[:, None])


def draw(n: int) -> NDArray[np.integer]:
    """(resamples, n): how often each of n recordings was drawn."""
    return np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def widening(n: int) -> float:
    """Of a deviation in a resample of n recordings, at least two; see `resample`."""
    tail = (1 + CONFIDENCE) / 2
    return float(math.sqrt(n / (n - 1)) * stdtrit(n - 1, tail) / ndtri(tail))


@dataclass(frozen=True)
class Noise:
    """Training noise beside the excerpts': standard deviations of one run's accuracy."""

    sd: float
    """In comparisons."""
    draws: Array
    """(resamples,): where the estimate's own uncertainty lets it lie."""
    own: Array
    """(rows, resamples) or the same for all of them, (1, resamples): in the place of `draws` in the intervals of
    accuracies."""


NO_NOISE = Noise(0.0, np.zeros(1), np.zeros((1, 1)))


def draw_sd(variance: float, df: float, excerpt_variance: float) -> Array:
    """(resamples,), from a variance, estimated on `df` degrees of freedom, that holds some of the excerpts' noise.

    That part is taken off, as the bootstrap has it already.
    """
    chi_square = np.random.default_rng(SEED + 1).chisquare(df, RESAMPLES)
    return np.sqrt(np.maximum(variance * df / chi_square - excerpt_variance, 0))


@dataclass(frozen=True)
class Rows:
    """Mean accuracies that are compared with one another: of points, or of the levels of a key."""

    accuracies: Array
    """(rows,)"""
    scores: Array
    """(rows, recordings): the runs' mean."""
    runs: Array
    """(rows,): the training noise's variance is divided by it."""


@dataclass(frozen=True)
class Spread:
    """What noise makes of rows. All of it is linear in their number."""

    intervals: list[Interval]
    """95 % intervals of the accuracies, 0 to 1."""
    gaps: list[Interval]
    """95 % intervals of the first row's accuracy minus each one's."""
    threshold: float
    """95 % quantile of the noise's range, largest minus smallest: of all differences between equal rows, the largest
    exceeds it in 5 % of cases."""
    optimism: float
    """Expected noise in the accuracy of the row that is chosen for the highest."""
    luck: float
    """Expected largest noise of all rows: what the best of equal ones shows."""


def spread(rows: Rows, weights: Array, noise: Noise, tests: int = 1) -> Spread:
    """A chunk of rows at a time, with running extremes over the rows for each resample.

    With several `tests`, each of rows of its own, the threshold is for all of them together (Bonferroni).
    """
    normal = np.random.default_rng(SEED + 2)
    own = np.broadcast_to(noise.own, (len(rows.scores), noise.own.shape[1]))
    intervals, gaps = [], []
    first = np.zeros(0)
    lowest, highest = np.full(len(weights), math.inf), np.full(len(weights), -math.inf)
    luckiest, best, bias = highest, highest, np.zeros(len(weights))
    for start in range(0, len(rows.scores), CHUNK):
        part = slice(start, start + CHUNK)
        accuracies = rows.accuracies[part, None]
        by_excerpts = rows.scores[part] @ weights.T  # (rows, resamples)
        by_training = normal.standard_normal(by_excerpts.shape) / np.sqrt(rows.runs[part, None])
        total = by_excerpts + noise.draws * by_training
        if start == 0:
            first = total[0]
        intervals += _middle(accuracies + by_excerpts + own[part] * by_training)
        gaps += _middle(rows.accuracies[0] - accuracies + first - total)
        lowest, highest = np.minimum(lowest, total.min(axis=0)), np.maximum(highest, total.max(axis=0))

        # Expectations take the estimate as it is: with few degrees of freedom the mean of the draws is far above it.
        total = by_excerpts + noise.sd * by_training
        luckiest = np.maximum(luckiest, total.max(axis=0))
        leader = (accuracies + total).argmax(axis=0)[None]
        leading = np.take_along_axis(accuracies + total, leader, axis=0)[0]
        bias = np.where(leading > best, np.take_along_axis(total, leader, axis=0)[0], bias)
        best = np.maximum(best, leading)
    within = [Interval(max(interval.low, 0.0), min(interval.high, 1.0)) for interval in intervals]
    threshold = float(np.quantile(highest - lowest, 1 - (1 - CONFIDENCE) / tests))
    return Spread(within, gaps, threshold, float(bias.mean()), float(luckiest.mean()))


def _middle(values: Array) -> list[Interval]:
    """(rows, resamples) -> the middle 95 % of each row."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
    return [Interval(*ends) for ends in zip(low.tolist(), high.tolist(), strict=True)]
