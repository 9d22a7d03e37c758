"""Finished runs of a sweep -> what can be concluded from them.

Two kinds of noise are told apart. Excerpt noise: other validation recordings would have given other accuracies, as
resampling them shows. Training noise: the same settings would have given another net, as the spread among seeds shows
or, with one seed a point, what main effects and two-way interactions leave of a complete grid. What a seed does to all
points alike is no noise to a comparison, where all of them have the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irmas.config import shown
from irmas.results import anova, bootstrap, noise
from irmas.results.anova import Anova
from irmas.results.bootstrap import Answers, Interval, Rows, Sample, Spread
from irmas.results.edges import Edge, find_edges
from irmas.results.factorial import Grid, arranged, levels_of
from irmas.results.noise import Errors, TrainingNoise
from irmas.results.points import by_accuracy, combination

FEWEST_DF = 4
"""Of the noise of comparisons. To leave it fewer would cost more than to take for noise what seeds do to all points
alike."""


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    id: int
    values: dict[str, Any]
    """The swept keys."""
    accuracy: float
    """Of validation, in the last epoch, 0 to 1."""
    loss: float | None = None
    """As the accuracy; None where it is not known."""
    answers: Answers | None = None
    """None where the predictions are missing."""


@dataclass(frozen=True)
class Point:
    """The runs that differ in nothing but their seed."""

    values: dict[str, Any]
    """The swept keys without the seed."""
    runs: tuple[int, ...]
    accuracy: float
    """The mean over the seeds."""
    gap: float
    """The leader's accuracy minus this one's."""
    interval: Interval | None = None
    """95 % interval of the accuracy; None without predictions, and where all answers are right or none is."""
    gap_interval: Interval | None = None
    """95 % interval of the gap, with the training noise where it is known, for this one comparison by itself.

    None, like the two below, where the point is not paired with the leader.
    """
    holds: bool | None = None
    """The gap's interval excludes 0; None also where the training noise is not known."""
    in_set: bool | None = None
    """Not distinguishable from the leader: allows for all comparisons, and for the training noise where it is known."""


@dataclass(frozen=True)
class Level:
    """The points with one value of a key."""

    value: Any
    accuracy: float
    """The marginal mean: each point counts once."""
    gap: float
    """The best level's accuracy minus this one's."""
    runs: int
    interval: Interval | None
    """As a point's."""
    gap_interval: Interval | None
    """95 % for all pairs of levels of all keys at once, with the training noise where it is known."""
    holds: bool | None
    """The gap's interval excludes 0; None also where the training noise is not known."""


@dataclass(frozen=True)
class Margin:
    key: str
    levels: tuple[Level, ...]
    """Numbers in ascending order, other values in the runs' order."""


@dataclass(frozen=True)
class Analysis:
    points: tuple[Point, ...]
    """By accuracy, ties by loss, then by the lowest run ID; the first is the leader."""
    excerpts: int
    """That the leader was validated on; 0 without its predictions, as the recordings."""
    recordings: int
    unpaired: str
    """Why others are not, in one sentence; empty where all are."""
    threshold: float | None
    """A gap above it puts a point out of the set."""
    training_noise: TrainingNoise | None
    """None: whether a difference is beyond the choice of excerpts is known, beyond chance in training is not."""
    intervals_hold_training_noise: bool
    """Otherwise intervals of accuracies are of these trained nets, on other excerpts."""
    anova: Anova
    margins: tuple[Margin, ...]
    """Of keys with two levels or more. In an incomplete grid the levels of a key also differ in the other keys."""
    edges: tuple[Edge, ...]
    """Among all values that were swept, whether they finished or not."""
    combinations: int
    """That were swept; seeds aside."""
    optimism: float | None
    """How much the leader's accuracy is expected to be too high for having been chosen.

    A low guess where the points are equal, about 0.7 of the truth: it takes all of their spread for real.
    """
    luck: float | None
    """By how much the best of so many equal points would exceed their common accuracy."""

    @property
    def is_blind(self) -> bool:
        """No point could be out of the set: not even one without a right answer would lie far enough behind."""
        return self.threshold is not None and self.threshold >= self.points[0].accuracy


@dataclass(frozen=True)
class _Comparison:
    """The points that were validated on one set of excerpts."""

    numbers: list[int]
    sample: Sample
    rows: Rows
    weights: NDArray[np.float64]
    errors: Errors | None
    """None where training noise is not known."""
    spread: Spread


def analyse(
    runs: Sequence[Outcome], swept: Sequence[str], planned: Sequence[Mapping[str, Any]] | None = None
) -> Analysis:
    """What a sweep's runs, at least one, allow to conclude. The same runs give the same numbers.

    `planned` are the settings of all of the sweep's runs, where there are more than those that have finished.

    A point is out of the set of the best if the leader is ahead of it by more than the 95 % quantile of the range
    (largest minus smallest) of all points' noise. This is Tukey's test with a bootstrap in the place of the studentized
    range. It allows for every pair, and so for the leader having been chosen on the same excerpts: among equal points
    any is declared worse in at most 5 % of sweeps.
    """
    keys = [key for key in swept if key != "seed"]
    every = planned or [run.values for run in runs]
    points = _points(runs, keys)
    in_their_order = [point.values for point in sorted(points, key=lambda point: point.runs)]
    grid = arranged([point.values for point in points], levels_of(in_their_order, keys))
    blocks = _blocks(points, runs)
    table = _anova(points, runs, grid, blocks)
    training_noise = noise.in_training(table)
    leading = None
    for sample in bootstrap.samples({run.id: run.answers for run in runs if run.answers}):
        numbers = [number for number, point in enumerate(points) if sample.scores.keys() >= set(point.runs)]
        if numbers:
            made = _compare(points, numbers, sample, grid, table, blocks)
            leading = made if numbers[0] == 0 else leading
            for number, interval in zip(numbers, made.spread.intervals, strict=True):
                # Where all excerpts are right, or none, resampling them tells nothing.
                is_known = points[number].accuracy not in (0, 1) or interval.low < interval.high
                points[number] = replace(points[number], interval=interval if is_known else None)
    if leading:
        for number, interval in zip(leading.numbers, leading.spread.gaps, strict=True):
            points[number] = _judged(points[number], interval, leading.spread.threshold, training_noise)
    return Analysis(
        points=tuple(points),
        excerpts=len(leading.sample.excerpts) if leading else 0,
        recordings=len(leading.sample.sizes) if leading else 0,
        unpaired=_unpaired(runs, points[0], leading),
        threshold=leading.spread.threshold if leading else None,
        training_noise=training_noise,
        intervals_hold_training_noise=bool(training_noise and training_noise.is_of_seeds),
        anova=table,
        margins=_margins(points, grid, leading, training_noise),
        edges=find_edges(points[0].values, levels_of(every, keys)),
        combinations=len(set(map(combination, every))),
        optimism=leading.spread.optimism if leading else None,
        luck=leading.spread.luck if leading else None,
    )


def _compare(
    points: Sequence[Point],
    numbers: list[int],
    sample: Sample,
    grid: Grid,
    table: Anova,
    blocks: list[list[int]] | None,
) -> _Comparison:
    inside = [points[number] for number in numbers]
    rows = Rows(
        np.array([point.accuracy for point in inside]),
        np.array([np.mean([sample.scores[run] for run in point.runs], axis=0) for point in inside]),
        np.array([len(point.runs) for point in inside]),
    )
    runs = [blocks[number] if blocks else points[number].runs for number in numbers]
    errors = noise.estimate(runs, rows, sample, grid, table, len(points))
    weights = bootstrap.resample(sample.sizes)
    drawn = errors.noise([1]) if errors else bootstrap.NO_NOISE
    return _Comparison(numbers, sample, rows, weights, errors, bootstrap.spread(rows, weights, drawn))


def _points(runs: Sequence[Outcome], keys: Sequence[str]) -> list[Point]:
    means = by_accuracy(runs)
    return [
        Point({key: seeds[0].values[key] for key in keys}, tuple(run.id for run in seeds), mean, means[0][0] - mean)
        for mean, seeds in means
    ]


def _judged(point: Point, interval: Interval, threshold: float, training_noise: TrainingNoise | None) -> Point:
    holds = interval.low > 0 if training_noise else None
    return replace(point, gap_interval=interval, holds=holds, in_set=point.gap <= threshold)


def _unpaired(runs: Sequence[Outcome], leader: Point, leading: _Comparison | None) -> str:
    missing = {run.id for run in runs if not run.answers}
    if not leading:
        why = "lacks predictions" if missing & set(leader.runs) else "was validated on a single recording"
        return f"The leader (run {leader.runs[0]}) {why}: nothing can be paired with it."
    others = {run.id for run in runs} - missing - leading.sample.scores.keys()
    causes = {"without predictions": missing, "validated on other excerpts": others}
    left_out = [f"{len(ids)} {cause}" for cause, ids in causes.items() if ids]
    return f"Of {len(runs)} runs, {' and '.join(left_out)} cannot be paired with the leader." if left_out else ""


def _blocks(points: Sequence[Point], runs: Sequence[Outcome]) -> list[list[int]] | None:
    """Each point's runs, by seed. None unless all points have the same seeds, and enough is left for the noise."""
    seeds = {run.id: shown(run.values.get("seed")) for run in runs}
    by_seed = [sorted(point.runs, key=lambda run: seeds[run]) for point in points]
    is_table = len({tuple(seeds[run] for run in row) for row in by_seed}) == 1
    return by_seed if is_table and (len(points) - 1) * (len(by_seed[0]) - 1) >= FEWEST_DF else None


def _anova(points: Sequence[Point], runs: Sequence[Outcome], grid: Grid, blocks: list[list[int]] | None) -> Anova:
    accuracies = {run.id: np.array(run.accuracy) for run in runs}
    alike, rest = noise.squares(accuracies, blocks or [point.runs for point in points], blocks is not None)
    alike_df = len(blocks[0]) - 1 if blocks else 0
    within = (alike, alike_df), (rest, len(runs) - len(points) - alike_df)
    if not grid.is_complete:
        return anova.incomplete(len(runs) * float(np.var([*accuracies.values()])), *within)
    means = grid.arranged(np.array([point.accuracy for point in points]))
    harmonic = len(points) / sum(1 / len(point.runs) for point in points)
    return anova.complete(list(grid.levels), means, harmonic, *within)


def _margins(
    points: Sequence[Point], grid: Grid, leading: _Comparison | None, training_noise: TrainingNoise | None
) -> tuple[Margin, ...]:
    """With intervals where every point is paired."""
    paired = leading if leading and len(leading.numbers) == len(points) else None
    return tuple(
        Margin(key, _levels(points, levels, codes, len(grid.levels), paired, training_noise))
        for (key, levels), codes in zip(grid.levels.items(), grid.codes, strict=True)
    )


def _levels(
    points: Sequence[Point],
    values: Sequence[Any],
    codes: NDArray[np.intp],
    n_keys: int,
    paired: _Comparison | None,
    training_noise: TrainingNoise | None,
) -> tuple[Level, ...]:
    runs, sizes = np.array([len(point.runs) for point in points]), np.bincount(codes)
    means = np.bincount(codes, [point.accuracy for point in points]) / sizes
    gaps, numbers = (means.max() - means).tolist(), np.bincount(codes, runs).astype(int).tolist()
    levels = [
        Level(value, mean, gap, number, None, None, None)
        for value, mean, gap, number in zip(values, means.tolist(), gaps, numbers, strict=True)
    ]
    if not paired:
        return tuple(levels)
    scores = np.zeros((len(values), len(paired.sample.sizes)))
    np.add.at(scores, codes, paired.rows.scores)
    rows = Rows(means, scores / sizes[:, None], sizes**2 / np.bincount(codes, 1 / runs))
    drawn = paired.errors.noise(sizes.tolist()) if paired.errors else bootstrap.NO_NOISE
    spread = bootstrap.spread(rows, paired.weights, drawn, tests=n_keys)
    halves = np.full(len(levels), spread.threshold)
    halves[means.argmax()] = 0
    return tuple(
        replace(
            level,
            interval=interval,
            gap_interval=Interval(level.gap - half, level.gap + half),
            holds=level.gap > half if training_noise else None,
        )
        for level, interval, half in zip(levels, spread.intervals, halves.tolist(), strict=True)
    )
