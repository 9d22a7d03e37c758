"""Accuracies of points compared under two kinds of noise: other recordings, and other trainings of the same settings.

Recordings are resampled, as all excerpts of one rise and fall together; all points are resampled alike, so that they
are compared on the same excerpts. Training noise is drawn beside that, independent for every run: each has a random
stream of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from irmas.results.runs import Answers

Array = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
MOST = 256
"""Points among which all pairs are simulated; beyond them a bound takes the simulation's place."""
ROUNDING = 1e-9
"""Smallest standard error: accuracies that differ by less are equal."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """A set of validation excerpts, and the runs that were validated on it."""

    excerpts: NDArray[np.str_]
    recordings: NDArray[np.str_]
    codes: NDArray[np.intp]
    """Number of each excerpt's recording, (excerpts,)."""
    sizes: Array
    """Number of excerpts of each recording, (recordings,)."""
    scores: dict[int, Array]
    """Scores by run, (recordings,): correct answers beyond accuracy x size, per excerpt of the sample; sum 0."""

    def add(self, run: int, answers: Answers) -> bool:
        """Add the run if it was validated on these excerpts, in whatever order; return whether it was."""
        if len(answers.excerpts) != len(self.excerpts):
            return False
        excerpts, recordings, correct = answers.excerpts, answers.recordings, answers.correct
        if not np.array_equal(excerpts, self.excerpts):
            order = np.argsort(excerpts)[np.argsort(np.argsort(self.excerpts))]
            excerpts, recordings, correct = excerpts[order], recordings[order], correct[order]
        if not (np.array_equal(excerpts, self.excerpts) and np.array_equal(recordings, self.recordings)):
            return False
        by_recording = np.bincount(self.codes, correct, minlength=len(self.sizes))
        self.scores[run] = (by_recording - correct.mean() * self.sizes) / len(correct)
        return True


def samples(answers: Mapping[int, Answers]) -> list[Sample]:
    """Return one sample for each set of excerpts, except those of a single recording, which cannot be resampled."""
    result: list[Sample] = []
    for run, own in answers.items():
        if not any(sample.add(run, own) for sample in result):
            _, codes = np.unique(own.recordings, return_inverse=True)
            sizes = np.bincount(codes).astype(np.float64)
            result.append(Sample(own.excerpts, own.recordings, codes, sizes, {}))
            result[-1].add(run, own)
    return [sample for sample in result if len(sample.sizes) > 1]


@dataclass(frozen=True)
class TrainingNoise:
    """Spread of one run's accuracy between trainings of the same settings, on the same excerpts."""

    sd: float
    df: int
    source: str
    """`seeds`, for the spread among the runs of a point, or `epochs`, for the fluctuation of the last epochs."""


@dataclass(frozen=True)
class Variance:
    """One run's variance by training, which the spread among trainings overstates."""

    mean_square: float
    """Mean square among trainings on the same excerpts."""
    df: int
    by_excerpts: float
    """Part of the mean square that resampling excerpts covers already: each training is right on other excerpts."""

    @property
    def estimate(self) -> float:
        return max(self.mean_square - self.by_excerpts, 0.0)

    def from_chi_square(self, chi_square: Array) -> Array:
        """Return the variances that would have led to this mean square with these values of chi square."""
        return np.maximum(self.mean_square * self.df / chi_square - self.by_excerpts, 0)

    def draw(self, rng: np.random.Generator, runs: Array) -> Array:
        """Return deviations by training of points with these numbers of runs, (points, resamples)."""
        drawn = np.sqrt(self.from_chi_square(rng.chisquare(self.df, RESAMPLES))) if self.df else np.zeros(1)
        return np.asarray(drawn * rng.standard_normal((len(runs), RESAMPLES)) / np.sqrt(runs)[:, None])


NO_VARIANCE = Variance(0.0, 0, 0.0)


@cache  # simulations need the same number of recordings thousands of times
def draw(n: int) -> NDArray[np.integer]:
    """Return how often each of n recordings is drawn, (resamples, n)."""
    return np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def widening(n: int) -> float:
    """Return the factor by which to widen deviations in resamples of n recordings, at least two.

    It is sqrt(n / (n - 1)) times Student's t over the normal quantile (Hesterberg 2015, expanded percentiles).
    """
    tail = (1 + CONFIDENCE) / 2
    return float(math.sqrt(n / (n - 1)) * stdtrit(n - 1, tail) / ndtri(tail))


def resample(sizes: Array) -> Array:
    """Return weights, (resamples, recordings): weights times scores are a resample's accuracy minus the observed one.

    A weight is how often the recording was drawn, over the relative size of everything that was drawn, widened.
    """
    counts = draw(len(sizes))
    return np.asarray(counts * (widening(len(sizes)) * sizes.sum() / (counts @ sizes))[:, None])


class Comparison:
    """The points that were validated on one set of excerpts, with draws of their noise."""

    def __init__(self, accuracies: Array, scores: Array, runs: Array, sizes: Array, variance: Variance) -> None:
        """Draw the noise of points: accuracies and numbers of runs, (points,), scores, (points, recordings)."""
        self.accuracies, self.runs, self.variance = accuracies, runs, variance
        self.by_excerpts = scores @ resample(sizes).T
        """Deviations of the accuracies by the choice of recordings, (points, resamples)."""
        self.training = variance.estimate / runs
        """Variance of each point's mean by training, (points,)."""
        self.noise = self.by_excerpts + variance.draw(np.random.default_rng(SEED + 1), runs)

    def intervals(self) -> list[Estimate]:
        """Return each point's accuracy with its own 95 % interval."""
        ends = np.quantile(self.accuracies[:, None] + self.noise, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
        low, high = ends.clip(0, 1).tolist()
        return [Estimate(*numbers) for numbers in zip(self.accuracies.tolist(), low, high, strict=True)]

    def standard_errors(self, weights: Array) -> Array:
        """Return the standard errors of weighted sums of accuracies; weights are (sums, points)."""
        by_excerpts = (weights @ self.by_excerpts).var(axis=1)
        return np.asarray(np.sqrt(by_excerpts + weights**2 @ self.training).clip(ROUNDING))

    def best_set(self, confidence: float) -> list[bool]:
        """Return for each point whether it is in the best set, which holds the best point with this confidence.

        Hsu's comparison with the best (Hsu 1981), studentized, its quantiles from the draws: a point is out if it is
        further behind any other, in standard errors of their difference, than the worst of equal points would be.
        """
        n_points = len(self.accuracies)
        # Beyond MOST points: Bonferroni's bound over all of them, and only the best as rivals.
        bound = None if n_points <= MOST else float(-ndtri((1 - confidence) / (n_points - 1)))
        best = np.argsort(-self.accuracies, kind="stable")[:MOST]
        errors = self._errors_of_differences(best)
        kept = []
        for number in range(n_points):
            is_rival = best != number
            error = errors[is_rival, number]
            ahead = self.accuracies[best[is_rival]] - self.accuracies[number]
            critical = bound
            if critical is None:
                worst = ((self.noise[best[is_rival]] - self.noise[number]) / error[:, None]).max(axis=0, initial=0)
                critical = float(np.quantile(worst, confidence))
            kept.append(bool((ahead / error).max(initial=0) <= critical))
        return kept

    def _errors_of_differences(self, rivals: NDArray[np.intp]) -> Array:
        """Return the standard errors, (rivals, points), of the differences between rivals and all points."""
        centered = self.by_excerpts - self.by_excerpts.mean(axis=1, keepdims=True)
        variances = (centered**2).mean(axis=1)
        together = centered[rivals] @ centered.T / centered.shape[1]
        by_excerpts = variances[rivals, None] + variances - 2 * together
        by_training = self.training[rivals, None] + self.training
        return np.asarray(np.sqrt((by_excerpts + by_training).clip(ROUNDING**2)))

    def simultaneous(self, weights: Array) -> tuple[Array, Array]:
        """Return, for sums with these weights, (sums, points), half-widths that hold for all of them together, and p.

        p is the probability that the largest of all sums, in standard errors, is as far from 0 without any effect.
        """
        errors = self.standard_errors(weights)
        largest = np.abs((weights @ self.noise) / errors[:, None]).max(axis=0)
        observed = np.abs(weights @ self.accuracies) / errors
        beyond = (largest[None] >= observed[:, None]).sum(axis=1)
        return np.quantile(largest, CONFIDENCE) * errors, (1 + beyond) / (1 + RESAMPLES)


def pooled_variance(values: Sequence[Array]) -> tuple[float, int]:
    """Return the variance within groups and its degrees of freedom; values are (runs,) or (runs, recordings).

    Of several columns the variances are added up.
    """
    squares = sum(float(((group - group.mean(axis=0)) ** 2).sum()) for group in values)
    df = sum(len(group) - 1 for group in values)
    return (squares / df if df else 0.0), df
