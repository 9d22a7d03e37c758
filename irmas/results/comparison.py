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
from scipy.sparse import csr_array
from scipy.special import ndtri, stdtrit

from irmas.console import counted
from irmas.results.runs import NAMES, Answers

Array = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
FEW = 10
"""Intervals of fewer recordings are unreliable, since they are resampled."""
MOST = 256
"""Points among which all pairs are simulated; beyond them a bound takes the simulation's place."""
ROUNDING = 1e-9
"""Smallest standard error: accuracies that differ by less are equal."""


def few(recordings: int, noun: str = "recording") -> str:
    """Return the warning, without its period, to show beside intervals; empty where there are enough, or none."""
    return f"only {counted(recordings, noun)}: intervals are unreliable below {FEW}" if 0 < recordings < FEW else ""


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
    """Scores by run, (recordings,): correct answers beyond accuracy x size, per excerpt that validates it; sum 0."""
    folds: int = 1
    """Number of sets of excerpts that are joined here, each of which validates runs of its own."""

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


def joined(samples: Sequence[Sample]) -> Sample:
    """Return one sample, such as that of all folds. A run's scores are 0 for recordings that do not validate it."""
    if len(samples) == 1:
        return samples[0]
    excerpts, recordings = (np.concatenate([getattr(one, name) for one in samples]) for name in NAMES)
    _, codes = np.unique(recordings, return_inverse=True)
    sizes = np.bincount(codes).astype(np.float64)
    result, first = Sample(excerpts, recordings, codes, sizes, {}, len(samples)), 0
    for sample in samples:
        places = np.zeros(len(sample.sizes), dtype=np.intp)
        places[sample.codes] = codes[first : first + len(sample.codes)]
        first += len(sample.codes)
        for run, scores in sample.scores.items():
            result.scores[run] = np.zeros(len(sizes))
            result.scores[run][places] = scores
    return result


@dataclass(frozen=True)
class TrainingNoise:
    """Spread of one run's accuracy between trainings of the same settings, on the same excerpts."""

    sd: float
    df: int
    source: str
    """`seeds`, for the spread among the runs of a point; `folds`, for that beyond what a fold does to all points alike;
    `epochs`, for the fluctuation of the last epochs."""


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


def inflation(n: int, folds: int = 1) -> float:
    """Return n / (n - folds): scores of n recordings vary too little, since their sum over each fold is 0."""
    return n / max(n - folds, 1)


def widening(n: int, folds: int = 1) -> float:
    """Return the factor by which to widen deviations in resamples of n recordings, at least two in each fold.

    It is sqrt(n / (n - folds)) times Student's t over the normal quantile (Hesterberg 2015, expanded percentiles).
    """
    tail = (1 + CONFIDENCE) / 2
    return float(math.sqrt(inflation(n, folds)) * stdtrit(max(n - folds, 1), tail) / ndtri(tail))


def resample(sizes: Array, folds: int = 1) -> Array:
    """Return weights, (resamples, recordings): weights times scores are a resample's accuracy minus the observed one.

    A weight is how often the recording was drawn, over the relative size of everything that was drawn, widened.
    """
    counts = draw(len(sizes))
    return np.asarray(counts * (widening(len(sizes), folds) * sizes.sum() / (counts @ sizes))[:, None])


class Comparison:
    """The points that were validated on one set of excerpts, with draws of their noise."""

    def __init__(
        self, accuracies: Array, scores: Array, runs: Array, sizes: Array, variance: Variance, folds: int = 1
    ) -> None:
        """Draw the noise of points: accuracies and numbers of runs, (points,), scores, (points, recordings)."""
        self.accuracies, self.runs, self.variance = accuracies, runs, variance
        self.by_excerpts = scores @ resample(sizes, folds).T
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


def residual_variance(values: Array, points: NDArray[np.intp], folds: NDArray[np.intp]) -> tuple[float, int]:
    """Return the variance around the sum of an effect of the point and one of the fold, and its degrees of freedom.

    With one fold it is the variance within points. With several it is that of the mean of a point's runs on a fold,
    times their number: what a training set does to one point and not to another is in it, and all of these runs share
    that. `values` are (runs,) or (runs, recordings), whose variances are added up; points and folds, (runs,), are
    numbers.
    """
    rest, units = values.reshape(len(values), -1), len(values)
    if folds.any():
        cells = points * (folds.max() + 1) + folds
        rest, units = rest - _within(rest, cells), len(np.unique(cells))
    rest = _within(rest, points)
    basis, sizes, _ = np.linalg.svd(_within(np.eye(folds.max() + 1)[folds], points), full_matrices=False)
    basis = basis[:, sizes > ROUNDING]
    rest -= basis @ (basis.T @ rest)
    df = units - len(np.unique(points)) - basis.shape[1]
    return (float((rest**2).sum()) / df if df else 0.0), df


def _within(values: Array, points: NDArray[np.intp]) -> Array:
    """Return values, (runs, columns), minus the mean of their point."""
    sums = (
        csr_array((np.ones(len(points)), (points, np.arange(len(points))))) @ values
    )  # np.add.at takes three times as long
    return np.asarray(values - (sums / np.maximum(np.bincount(points), 1)[:, None])[points])
