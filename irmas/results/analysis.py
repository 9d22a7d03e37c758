"""Finished runs of a sweep -> what follows from them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from irmas.config import REPETITIONS, averaged_epochs
from irmas.results import comparison
from irmas.results.comparison import Comparison, Estimate, Sample, TrainingNoise, Variance, few
from irmas.results.effects import Effect, Grid, main_effects
from irmas.results.posterior import posterior
from irmas.results.runs import Confusion, Run, by_accuracy

FEWEST_DF, TAIL = 4, 4
"""Fewest degrees of freedom of the spread among runs; fewest epochs at a run's end through which a line is drawn."""
FAST, NEARLY_ALL = 0.01, 0.9
"""Gain of accuracy per epoch above which more epochs change more than settings do; share of runs that must rise."""

Means = Sequence[tuple[float, list[Run]]]
"""Mean accuracy and runs of each point, by rank."""
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Point:
    """The finished runs that differ only in seed and fold."""

    values: dict[str, Any]
    """Values of the swept keys without seed and fold."""
    runs: tuple[int, ...]
    """IDs of the runs, ascending."""
    accuracy: float
    """Mean accuracy of the runs, 0 to 1; of several folds, the mean over them."""
    estimate: Estimate | None = None
    """Accuracy of these settings, trained again and validated on other recordings, with its own 95 % interval, which
    makes no allowance for a point that was chosen. None without predictions."""
    in_best_set: bool | None = None
    """Membership in the best set; None where the point cannot be compared with the leader."""
    p_best: float | None = None
    """Approximate probability of being the best."""
    expected_loss: float | None = None
    """Approximate accuracy that choosing the point is expected to lose to the best one, 0 to 1."""
    has_all_folds: bool = True
    """False where the point lacks a fold that the leader has, so that its accuracy cannot be compared."""


@dataclass(frozen=True)
class Group:
    """The points whose runs were all validated on one sample, or on those of the same folds."""

    numbers: list[int]
    """Numbers of the points by rank, ascending; 0 is the leader."""
    sample: Sample
    comparison: Comparison


@dataclass(frozen=True)
class Analysis:
    """Conclusions from the finished runs of a sweep."""

    points: tuple[Point, ...]
    """Points by rank; the first is the leader."""
    leader: Estimate | None
    """The leader's accuracy without the luck of having been chosen, with a 95 % interval, as `Point.estimate`; None
    without predictions or training noise."""
    noise: TrainingNoise | None
    """Training noise; None where neither runs nor epochs show it."""
    effects: tuple[Effect, ...]
    """Effects of all keys with two levels or more that the finished points distinguish."""
    rise: Estimate | None
    """Accuracy that a run gains per epoch at its end, mean over all runs; None where learning rates are annealed."""
    still_rising: bool
    """True where nearly every run is still improving, and fast: more epochs come first."""
    excerpts: int
    """Number of the leader's validation excerpts; 0 without its predictions."""
    recordings: int
    """Number of the leader's validation recordings; 0 without its predictions."""
    unpaired: str
    """Reason, one sentence, for which runs cannot be compared with the leader; empty where all can."""
    confidence: float
    """Confidence of the best set: 0.95, or more after rounds of `irmas.refine`, which test the same sweep again."""
    confusion: Confusion | None = None
    """Confusion matrix of the leader's run with the lowest ID, on each fold; None without its predictions."""
    problems: Sequence[str] = ()
    """Predictions that could not be read, and why."""
    folds: int = 1
    """Number of folds of each point that is compared."""
    group: Group | None = field(default=None, compare=False, repr=False)
    """The leader, and the points that can be compared with it; None where there is nothing to compare."""

    @property
    def few_recordings(self) -> str:
        """Warning, without its period, where too few recordings validate; empty where the intervals are reliable."""
        return few(self.recordings)

    @property
    def best_set(self) -> tuple[Point, ...]:
        """Points of the best set by rank; the leader alone where none can be compared with it."""
        return self.points[:1] + tuple(point for point in self.points[1:] if point.in_best_set)

    @property
    def is_decided(self) -> bool:
        """True where every point but the leader is known to be behind the best."""
        return all(point.in_best_set is False for point in self.points[1:])

    def candidates(self, count: int) -> list[Point]:
        """Return the leader and the points with the smallest expected loss, at most `count`, all in the best set."""
        rest = sorted(self.best_set[1:], key=lambda point: point.expected_loss or 0.0)
        return [self.points[0], *rest][:count]


def analyze(
    runs: Sequence[Run],
    swept: Sequence[str],
    planned: Iterable[Mapping[str, Any]] = (),
    rounds: int = 0,
    *,
    is_grid: bool = True,
) -> Analysis:
    """Return what a sweep's finished runs, at least one, allow to conclude. The same runs give the same numbers.

    `planned` are the settings of all runs of the sweep, by which its points are ordered. `rounds` is how often the
    sweep was refined: each round takes half of the error rate that the one before had. Without `is_grid`, as of points
    that a search has drawn, keys have no main effects.
    """
    keys = [key for key in swept if key not in REPETITIONS]
    means = by_accuracy(runs, planned)
    folds = [{run.fold for run in members} for _, members in means]
    points = [
        Point(
            {key: members[0].values[key] for key in keys},
            tuple(run.id for run in members),
            mean,
            has_all_folds=own >= folds[0],
        )
        for (mean, members), own in zip(means, folds, strict=True)
    ]
    samples = comparison.samples({run.id: run.answers for run in runs if run.answers})
    noise = _training_noise(means, samples)
    confidence = 1 - (1 - comparison.CONFIDENCE) / 2**rounds
    grid = _grid(points, keys if is_grid else [])
    whole = [number for number, point in enumerate(points) if point.has_all_folds]
    groups = _groups(means, samples, _training_variance(noise, means, samples))
    leading = next((group for group in groups if group.numbers[0] == 0), None)
    leader, everywhere, known = None, None, _estimates(points, groups)
    if leading and noise:
        belief = posterior(leading.comparison, grid.take(leading.numbers))
        leader, in_best_set = belief.leader, leading.comparison.best_set(confidence)
        for number, *verdict in zip(leading.numbers, in_best_set, belief.p_best, belief.expected_loss, strict=True):
            known[number] |= dict(zip(("in_best_set", "p_best", "expected_loss"), verdict, strict=True))
        everywhere = leading.comparison if leading.numbers == whole else None
    rise, still_rising = _rise(runs)
    return Analysis(
        points=tuple(replace(point, **values) for point, values in zip(points, known, strict=True)),
        leader=leader,
        noise=noise,
        effects=main_effects(grid.take(whole), np.array([points[number].accuracy for number in whole]), everywhere),
        rise=rise,
        still_rising=still_rising,
        excerpts=len(leading.sample.excerpts) if leading else 0,
        recordings=len(leading.sample.sizes) if leading else 0,
        folds=len(folds[0]),
        unpaired=_unpaired(runs, points, leading),
        confidence=confidence,
        group=leading,
    )


def _groups(means: Means, samples: Sequence[Sample], variance: Variance) -> list[Group]:
    """Return the points that can be compared with each other; each is in one group at most."""
    places = {run: place for place, sample in enumerate(samples) for run in sample.scores}
    together: dict[frozenset[int], list[int]] = defaultdict(list)
    for number, (_, members) in enumerate(means):
        if all(run.id in places for run in members):
            together[frozenset(places[run.id] for run in members)].append(number)
    groups = []
    for folds, numbers in together.items():
        sample = comparison.joined([samples[place] for place in sorted(folds)])
        weights = [_weights(means[number][1]) for number in numbers]
        scores = [np.array([sample.scores[run.id] for run in means[number][1]]) for number in numbers]
        compared = Comparison(
            np.array([means[number][0] for number in numbers]),
            np.array([own @ by_run for own, by_run in zip(weights, scores, strict=True)]),
            np.array([1 / (own @ own) for own in weights]),
            sample.sizes,
            variance,
            sample.folds,
        )
        groups.append(Group(numbers, sample, compared))
    return groups


def _weights(members: Sequence[Run]) -> NDArray[np.float64]:
    """Return the weight of each run in the mean of its point, as `runs.mean` has it."""
    folds = Counter(run.fold for run in members)
    return np.array([1 / (len(folds) * folds[run.fold]) for run in members])


def _estimates(points: Sequence[Point], groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return each point's field `estimate`. Where all excerpts are right, or none, resampling them shows nothing."""
    known: list[dict[str, Any]] = [{} for _ in points]
    for group in groups:
        for number, estimate in zip(group.numbers, group.comparison.intervals(), strict=True):
            if points[number].accuracy not in (0, 1) or estimate.low < estimate.high:
                known[number] = {"estimate": estimate}
    return known


def _grid(points: Sequence[Point], keys: Sequence[str]) -> Grid:
    """Return the grid of the points in their order, its levels in that of the runs."""
    by_run = sorted(range(len(points)), key=lambda number: points[number].runs)
    return Grid.of([points[number].values for number in by_run], keys).take(np.argsort(by_run).tolist())


def _training_noise(means: Means, samples: Sequence[Sample]) -> TrainingNoise | None:
    """Return the spread among runs or, where too few points have several, the fluctuation among epochs."""
    runs, layouts = _layouts(means, samples)
    found = []
    for source, layout in layouts.items():
        variance, df = comparison.residual_variance(np.array([run.accuracy for run in runs]), *layout)
        if df and variance > comparison.ROUNDING**2:
            found.append(TrainingNoise(math.sqrt(variance), df, source))
    if enough := [noise for noise in found if noise.df >= FEWEST_DF]:
        return enough[0]
    squares, df = 0.0, 0
    for tail in _tails(runs):
        epochs = np.arange(len(tail))
        residuals = tail - np.polyval(np.polyfit(epochs, tail, 1), epochs)
        squares += float((residuals**2).sum())
        df += len(tail) - 2
    return TrainingNoise(math.sqrt(squares / df), df, "epochs") if df else next(iter(found), None)


def _training_variance(noise: TrainingNoise | None, means: Means, samples: Sequence[Sample]) -> Variance:
    """Return one run's variance by training."""
    if not noise:
        return comparison.NO_VARIANCE
    runs, layouts = _layouts(means, samples)
    if noise.source not in layouts or not samples:
        return Variance(noise.sd**2, noise.df, 0.0)
    whole = comparison.joined(samples)
    known = [place for place, run in enumerate(runs) if run.id in whole.scores]
    scores = np.array([whole.scores[runs[place].id] for place in known])
    by_excerpts, _ = comparison.residual_variance(scores, *(codes[known] for codes in layouts[noise.source]))
    return Variance(noise.sd**2, noise.df, by_excerpts * comparison.inflation(len(whole.sizes), whole.folds))


def _layouts(means: Means, samples: Sequence[Sample]) -> tuple[list[Run], dict[str, tuple[Codes, Codes]]]:
    """Return all runs, and the numbers of their points and folds by the source of training noise that they show.

    The seeds of a point on one fold count as a point by themselves. Folds of different splits are different ones.
    """
    places = {run: place for place, sample in enumerate(samples) for run in sample.scores}
    runs = [run for _, members in means for run in members]
    points = np.repeat(np.arange(len(means)), [len(members) for _, members in means])
    names = [None if run.fold is None else (run.fold, places.get(run.id)) for run in runs]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    folds = np.array([numbers[name] for name in names])
    layouts = {"folds": (points, folds)} if folds.any() else {}
    return runs, layouts | {"seeds": (points * len(numbers) + folds, np.zeros_like(folds))}


def _tails(runs: Sequence[Run]) -> list[NDArray[np.float64]]:
    """Return the accuracies of the last epochs, at least TAIL, of runs that are long enough and do not anneal."""
    tails = []
    for curve in (run.curve for run in runs if not run.anneals):
        size = max(TAIL, averaged_epochs("constant", len(curve)))
        if len(curve) >= size:
            tails.append(np.array(curve[-size:]))
    return tails


def _rise(runs: Sequence[Run]) -> tuple[Estimate | None, bool]:
    """Return the mean slope of the runs' last epochs with its 95 % interval over runs, and whether nearly all rise."""
    tails = _tails(runs)
    if len(tails) < len(runs):
        return None, False
    slopes = np.array([np.polyfit(np.arange(len(tail)), tail, 1)[0] for tail in tails])
    mean, n = float(slopes.mean()), len(slopes)
    half = float(slopes.std(ddof=1) / math.sqrt(n) * stdtrit(n - 1, 0.975)) if n > 1 else math.inf
    return Estimate(mean, mean - half, mean + half), bool(mean > FAST and (slopes > 0).mean() >= NEARLY_ALL)


def _unpaired(runs: Sequence[Run], points: Sequence[Point], leading: Group | None) -> str:
    """Return the sentence on runs that cannot be compared with the leader."""
    leader, missing = points[0], {run.id for run in runs if not run.answers}
    remedy = " Remove a run's folder and rerun the sweep command to train it again." if missing else ""
    if not leading:
        why = "lacks predictions" if missing & set(leader.runs) else "was validated on a single recording"
        return f"The leader (run {leader.runs[0]}) {why}: nothing can be compared with it.{remedy}"
    lacking = {run for point in points if not point.has_all_folds for run in point.runs} - missing
    if lacking and not remedy:
        remedy = " Rerun the sweep command to train what is missing."
    elsewhere = {run.id for run in runs} - missing - lacking - leading.sample.scores.keys()
    causes = {
        "without predictions": missing,
        "of points that lack a fold": lacking,
        "validated on other excerpts": elsewhere,
    }
    parts = [f"{len(ids)} {cause}" for cause, ids in causes.items() if ids]
    left_out = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 2 else parts)
    return f"Of {len(runs)} runs, {left_out} cannot be compared with the leader.{remedy}" if left_out else ""
