"""Finished runs of a sweep -> what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from irmas.config import averaged_epochs
from irmas.results import comparison
from irmas.results.comparison import (
    CONFIDENCE,
    NO_VARIANCE,
    ROUNDING,
    Answers,
    Comparison,
    Estimate,
    Sample,
    TrainingNoise,
    Variance,
    pooled_variance,
)
from irmas.results.effects import Effect, Grid, main_effects
from irmas.results.points import by_accuracy
from irmas.results.posterior import Posterior, posterior

FEWEST_DF = 4
"""Degrees of freedom below which an estimate says too little."""
TAIL = 4
"""Epochs at the end of a run that a line is drawn through, at least."""
FAST = 0.01
"""Gain of accuracy per epoch above which more epochs change more than settings do."""
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    id: int
    values: dict[str, Any]
    """Values of the swept keys."""
    accuracy: float
    """The ranked validation accuracy (`val_accuracy`), 0 to 1."""
    loss: float | None = None
    """The last epoch's validation loss; None where it is not finite or not known."""
    answers: Answers | None = None
    """None where the predictions are missing."""
    curve: tuple[float, ...] = ()
    """Validation accuracy of each epoch."""
    anneals: bool = False
    """The learning rate ends near zero, so that an epoch's neighbors are alike and still rise."""


@dataclass(frozen=True)
class Point:
    """The runs that differ in nothing but their seed."""

    values: dict[str, Any]
    """Values of the swept keys without the seed."""
    runs: tuple[int, ...]
    """IDs of its finished runs, ascending."""
    accuracy: float
    """The mean over its runs."""
    estimate: Estimate | None = None
    """The accuracy with its own 95 % interval: these settings, trained again and validated on other recordings.

    It makes no allowance for a point that was chosen. None without predictions.
    """
    in_best_set: bool | None = None
    """Membership in the best set; None where it cannot be compared with the leader."""
    p_best: float | None = None
    """Probability of being the best, approximate."""
    expected_loss: float | None = None
    """Accuracy that choosing it is expected to lose to the best point, 0 to 1; approximate."""


@dataclass(frozen=True)
class Analysis:
    points: tuple[Point, ...]
    """Points by rank; the first is the leader."""
    leader: Estimate | None
    """The leader's accuracy without the luck of having been chosen, with a 95 % interval: its settings, trained again
    and validated on other recordings. None without predictions or training noise."""
    noise: TrainingNoise | None
    """None where neither seeds nor epochs tell it."""
    effects: tuple[Effect, ...]
    """Effects of all keys with two levels or more that the finished points can tell apart."""
    rise: Estimate | None
    """Accuracy that a run gains per epoch at its end, mean over all runs; None where learning rates are annealed."""
    still_rising: bool
    """Nearly every run is still improving, and fast: more epochs come first."""
    excerpts: int
    """Validation excerpts of the leader; 0 without its predictions, as the recordings."""
    recordings: int
    unpaired: str
    """Why runs cannot be compared with the leader, in one sentence; empty where all can."""
    confidence: float
    """Confidence of the best set: 0.95, or more after rounds of `irmas.refine`, which look at the same sweep again."""

    @property
    def best_set(self) -> tuple[Point, ...]:
        """The points that may be the best one, by rank; the leader alone where none can be compared."""
        return self.points[:1] + tuple(point for point in self.points[1:] if point.in_best_set)

    @property
    def is_decided(self) -> bool:
        """Every point but the leader is known to be behind the best."""
        return all(point.in_best_set is False for point in self.points[1:])

    def candidates(self, count: int) -> list[Point]:
        """Return the leader and the points with the smallest expected loss, at most `count`, all in the best set."""
        rest = sorted(self.best_set[1:], key=lambda point: point.expected_loss or 0.0)
        return [self.points[0], *rest][:count]


def analyse(
    runs: Sequence[Outcome], swept: Sequence[str], planned: Iterable[Mapping[str, Any]] = (), rounds: int = 0
) -> Analysis:
    """Return what a sweep's finished runs, at least one, allow to conclude. The same runs give the same numbers.

    `planned` are the settings of all runs of the sweep, by which its points are ordered. `rounds` is how often the
    sweep was refined: each look at it takes half of the error rate that the one before had.
    """
    keys = [key for key in swept if key != "seed"]
    means = by_accuracy(runs, planned)
    points = [
        Point({key: seeds[0].values[key] for key in keys}, tuple(run.id for run in seeds), mean)
        for mean, seeds in means
    ]
    noise = _training_noise(runs, [np.array([run.accuracy for run in seeds]) for _, seeds in means])
    confidence = 1 - (1 - CONFIDENCE) / 2**rounds
    grid = _grid(points, keys)
    leading, everywhere, leader = None, None, None
    for sample in comparison.samples({run.id: run.answers for run in runs if run.answers}):
        inside = [number for number, point in enumerate(points) if sample.scores.keys() >= set(point.runs)]
        if not inside:
            continue
        compared, variance = _compare([points[number] for number in inside], sample, noise)
        found = _with_estimates([points[number] for number in inside], compared)
        if inside[0] == 0:
            leading = sample
            if noise:
                everywhere = compared if len(inside) == len(points) else None
                believed = posterior(compared, grid.take(inside), variance)
                leader = believed.leader
                found = _judged(found, compared.best_set(confidence), believed)
        for number, point in zip(inside, found, strict=True):
            points[number] = point
    rise, still_rising = _rise(runs)
    return Analysis(
        points=tuple(points),
        leader=leader,
        noise=noise,
        effects=main_effects(grid, np.array([point.accuracy for point in points]), everywhere),
        rise=rise,
        still_rising=still_rising,
        excerpts=len(leading.excerpts) if leading else 0,
        recordings=len(leading.sizes) if leading else 0,
        unpaired=_unpaired(runs, points[0], leading),
        confidence=confidence,
    )


def _with_estimates(points: Sequence[Point], compared: Comparison) -> list[Point]:
    """Add the intervals. Where all excerpts are right, or none, resampling them tells nothing."""
    return [
        replace(point, estimate=estimate if point.accuracy not in (0, 1) or estimate.low < estimate.high else None)
        for point, estimate in zip(points, compared.intervals(), strict=True)
    ]


def _judged(points: Sequence[Point], kept: Sequence[bool], believed: Posterior) -> list[Point]:
    judged = zip(points, kept, believed.p_best, believed.expected_loss, strict=True)
    return [replace(point, in_best_set=in_set, p_best=p, expected_loss=loss) for point, in_set, p, loss in judged]


def _grid(points: Sequence[Point], keys: Sequence[str]) -> Grid:
    """Return the grid of the points in their order, its levels in that of the runs."""
    by_run = sorted(range(len(points)), key=lambda number: points[number].runs)
    grid = Grid.of([points[number].values for number in by_run], keys)
    return Grid(grid.levels, grid.codes[:, np.argsort(by_run)])


def _compare(points: Sequence[Point], sample: Sample, noise: TrainingNoise | None) -> tuple[Comparison, Variance]:
    """Return the comparison of points on one sample, and the variance of one run by training that it reckons with."""
    variance = _training_variance(noise, sample, [point.runs for point in points])
    return Comparison(
        np.array([point.accuracy for point in points]),
        np.array([np.mean([sample.scores[run] for run in point.runs], axis=0) for point in points]),
        np.array([len(point.runs) for point in points]),
        sample.sizes,
        variance,
    ), variance


def _training_noise(runs: Sequence[Outcome], points: Sequence[NDArray[np.float64]]) -> TrainingNoise | None:
    """Return the spread among seeds or, where too few points have several, the fluctuation among epochs."""
    variance, df = pooled_variance(points)
    by_seeds = TrainingNoise(math.sqrt(variance), df, "seeds") if df and variance > ROUNDING**2 else None
    if by_seeds and df >= FEWEST_DF:
        return by_seeds
    residuals = [left for run in runs if not run.anneals for left in [_about_line(run.curve)] if left is not None]
    df = sum(len(left) - 2 for left in residuals)
    if not df:
        return by_seeds
    return TrainingNoise(math.sqrt(sum(float((left**2).sum()) for left in residuals) / df), df, "epochs")


def _training_variance(noise: TrainingNoise | None, sample: Sample, runs: Sequence[Sequence[int]]) -> Variance:
    if not noise:
        return NO_VARIANCE
    if noise.source != "seeds":
        return Variance(noise.sd**2, noise.df, 0.0)
    by_excerpts, _ = pooled_variance([np.array([sample.scores[run] for run in ids]) for ids in runs])
    n = len(sample.sizes)
    return Variance(noise.sd**2, noise.df, by_excerpts * n / (n - 1))


def _tail(curve: Sequence[float]) -> NDArray[np.float64] | None:
    """Return the accuracies of the last epochs, at least TAIL; None of a shorter run."""
    size = max(TAIL, averaged_epochs("constant", len(curve)))
    return np.array(curve[-size:]) if len(curve) >= size else None


def _about_line(curve: Sequence[float]) -> NDArray[np.float64] | None:
    """Return what a straight line through the last epochs leaves."""
    tail = _tail(curve)
    if tail is None:
        return None
    epochs = np.arange(len(tail))
    return np.asarray(tail - np.polyval(np.polyfit(epochs, tail, 1), epochs))


def _rise(runs: Sequence[Outcome]) -> tuple[Estimate | None, bool]:
    """Return the mean slope of the runs' last epochs with its 95 % interval over runs, and whether nearly all rise."""
    tails = [tail for run in runs if not run.anneals for tail in [_tail(run.curve)] if tail is not None]
    if len(tails) < len(runs):
        return None, False
    slopes = np.array([np.polyfit(np.arange(len(tail)), tail, 1)[0] for tail in tails])
    mean, n = float(slopes.mean()), len(slopes)
    half = float(slopes.std(ddof=1) / math.sqrt(n) * stdtrit(n - 1, 0.975)) if n > 1 else math.inf
    return Estimate(mean, mean - half, mean + half), bool(mean > FAST and (slopes > 0).mean() >= NEARLY_ALL)


def _unpaired(runs: Sequence[Outcome], leader: Point, leading: Sample | None) -> str:
    missing = {run.id for run in runs if not run.answers}
    remedy = " Remove a run's folder and rerun the sweep command to train it again." if missing else ""
    if not leading:
        why = "lacks predictions" if missing & set(leader.runs) else "was validated on a single recording"
        return f"The leader (run {leader.runs[0]}) {why}: nothing can be compared with it.{remedy}"
    others = {run.id for run in runs} - missing - leading.scores.keys()
    causes = {"without predictions": missing, "validated on other excerpts": others}
    left_out = [f"{len(ids)} {cause}" for cause, ids in causes.items() if ids]
    return (
        f"Of {len(runs)} runs, {' and '.join(left_out)} cannot be compared with the leader.{remedy}" if left_out else ""
    )
