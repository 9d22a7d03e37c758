"""Finished runs of a sweep -> what can be concluded from them.

Two kinds of noise are told apart. Excerpt noise: other validation recordings would have given other accuracies, as
resampling them shows. Training noise: the same settings would have given another net, as the spread among seeds shows
or, with one seed a point, what main effects and two-way interactions leave of a complete grid. What a seed does to all
points alike is no noise to a comparison, where all of them have the same seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irmas.config import shown
from irmas.results import anova, bootstrap
from irmas.results.anova import Anova, Variation
from irmas.results.bootstrap import Interval, Noise, Predictions, Rows, Sample, Spread
from irmas.results.edges import Edge, are_numbers, find_edges

FEWEST_DF = 4
"""Of the noise of comparisons. To leave it fewer would cost more than to take for noise what seeds do to all points
alike."""


@dataclass(frozen=True)
class Outcome:
    """A finished run. The arrays are (excerpts,), one entry a validation excerpt, in any order."""

    id: int
    values: dict[str, Any]
    """The swept keys."""
    accuracy: float
    """Of validation, in the last epoch, 0 to 1."""
    correct: NDArray[np.bool_] | None
    """None, like the two below, where the predictions are missing."""
    excerpts: NDArray[np.str_] | None
    """Unique names."""
    recordings: NDArray[np.str_] | None
    loss: float | None = None
    """Of validation, in the last epoch: the smaller one leads among points of one accuracy, as in the ranking."""


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
    """95 % interval of the accuracy; None without predictions."""
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
class TrainingNoise:
    sd: float
    """Standard deviation of one run's accuracy among trainings of a point, on the same excerpts; without what its seed
    does to all points alike, where the analysis of variance has that by itself."""
    df: int
    source: str
    """`seeds`, or `residual`: of the analysis of variance."""


@dataclass(frozen=True)
class Analysis:
    points: tuple[Point, ...]
    """By accuracy, ties by loss, then by the lowest run ID; the first is the leader."""
    excerpts: int
    """That the leader was validated on; 0 without its predictions, as the recordings."""
    recordings: int
    compared: int
    """Points that were validated on the leader's excerpts, itself included: they are paired."""
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
    errors: _Errors | None
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
    grid = _grid(points, keys)
    blocks = _blocks(points, runs)
    table = _anova(points, runs, grid, blocks)
    noise = _training_noise(table)
    leading = None
    for sample in bootstrap.samples({run.id: found for run in runs if (found := _predictions(run))}):
        numbers = [number for number, point in enumerate(points) if sample.scores.keys() >= set(point.runs)]
        if numbers:
            made = _compare(points, numbers, sample, grid, table, blocks)
            leading = made if numbers[0] == 0 else leading
            for number, interval in zip(numbers, made.spread.intervals, strict=True):
                points[number] = replace(points[number], interval=interval)
    if leading:
        for number, interval in zip(leading.numbers, leading.spread.gaps, strict=True):
            points[number] = _judged(points[number], interval, leading.spread.threshold, noise)
    return Analysis(
        points=tuple(points),
        excerpts=len(leading.sample.excerpts) if leading else 0,
        recordings=len(leading.sample.sizes) if leading else 0,
        compared=len(leading.numbers) if leading else 0,
        unpaired=_unpaired(runs, points[0], leading),
        threshold=leading.spread.threshold if leading else None,
        training_noise=noise,
        intervals_hold_training_noise=_is_of_seeds(noise),
        anova=table,
        margins=_margins(points, grid, leading, noise),
        edges=find_edges(points[0].values, _levels_of(every, keys)),
        combinations=len({tuple(shown(values[key]) for key in keys) for values in every}),
        optimism=leading.spread.optimism if leading else None,
        luck=leading.spread.luck if leading else None,
    )


def _points(runs: Sequence[Outcome], keys: Sequence[str]) -> list[Point]:
    together: dict[tuple[str, ...], list[Outcome]] = {}
    for run in sorted(runs, key=lambda run: run.id):
        together.setdefault(tuple(shown(run.values[key]) for key in keys), []).append(run)
    means = [
        # fsum: seeds with the same accuracies in another order have the same mean.
        (math.fsum(run.accuracy for run in seeds) / len(seeds), seeds)
        for seeds in together.values()
    ]
    means.sort(key=lambda mean: (-mean[0], _loss(mean[1]), mean[1][0].id))
    return [
        Point({key: seeds[0].values[key] for key in keys}, tuple(run.id for run in seeds), mean, means[0][0] - mean)
        for mean, seeds in means
    ]


def _loss(seeds: Sequence[Outcome]) -> float:
    """The mean; infinite where one is not known."""
    return math.fsum(math.inf if run.loss is None else run.loss for run in seeds) / len(seeds)


def _predictions(run: Outcome) -> Predictions | None:
    if run.correct is None or run.excerpts is None or run.recordings is None:
        return None
    return Predictions(run.correct, run.excerpts, run.recordings)


def _judged(point: Point, interval: Interval, threshold: float, noise: TrainingNoise | None) -> Point:
    holds = interval.low > 0 if noise else None
    return replace(point, gap_interval=interval, holds=holds, in_set=point.gap <= threshold)


def _unpaired(runs: Sequence[Outcome], leader: Point, leading: _Comparison | None) -> str:
    missing = {run.id for run in runs if not _predictions(run)}
    if not leading:
        why = "lacks predictions" if missing & set(leader.runs) else "was validated on a single recording"
        return f"The leader (run {leader.runs[0]}) {why}: nothing can be paired with it."
    others = {run.id for run in runs} - missing - leading.sample.scores.keys()
    causes = {"without predictions": missing, "validated on other excerpts": others}
    left_out = [f"{len(ids)} {cause}" for cause, ids in causes.items() if ids]
    return f"Of {len(runs)} runs, {' and '.join(left_out)} cannot be paired with the leader." if left_out else ""


# The grid


@dataclass(frozen=True)
class _Grid:
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


def _levels_of(settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Of keys with two or more, in their order: numbers ascending, others as they come."""
    levels = {}
    for key in keys:
        values = {shown(values[key]): values[key] for values in settings}
        if len(values) > 1:
            levels[key] = tuple(sorted(values.values()) if are_numbers(values.values()) else values.values())
    return levels


def _grid(points: Sequence[Point], keys: Sequence[str]) -> _Grid:
    levels = _levels_of([point.values for point in sorted(points, key=lambda point: point.runs)], keys)
    codes = []
    for key in levels:
        code = {shown(value): number for number, value in enumerate(levels[key])}
        codes.append([code[shown(point.values[key])] for point in points])
    return _Grid(levels, np.array(codes, dtype=np.intp).reshape(len(levels), len(points)))


def _blocks(points: Sequence[Point], runs: Sequence[Outcome]) -> list[list[int]] | None:
    """Each point's runs, by seed. None unless all points have the same seeds, and enough is left for the noise."""
    seeds = {run.id: shown(run.values.get("seed")) for run in runs}
    by_seed = [sorted(point.runs, key=lambda run: seeds[run]) for point in points]
    is_table = len({tuple(seeds[run] for run in row) for row in by_seed}) == 1
    return by_seed if is_table and (len(points) - 1) * (len(by_seed[0]) - 1) >= FEWEST_DF else None


def _anova(points: Sequence[Point], runs: Sequence[Outcome], grid: _Grid, blocks: list[list[int]] | None) -> Anova:
    accuracies = {run.id: np.array(run.accuracy) for run in runs}
    alike, rest = _squares(accuracies, blocks or [point.runs for point in points], blocks is not None)
    alike_df = len(blocks[0]) - 1 if blocks else 0
    within = (alike, alike_df), (rest, len(runs) - len(points) - alike_df)
    if not grid.is_complete:
        return anova.incomplete(len(runs) * float(np.var([*accuracies.values()])), *within)
    means = grid.arranged(np.array([point.accuracy for point in points]))
    harmonic = len(points) / sum(1 / len(point.runs) for point in points)
    return anova.complete(list(grid.levels), means, harmonic, *within)


def _squares(
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


def _margins(
    points: Sequence[Point], grid: _Grid, leading: _Comparison | None, noise: TrainingNoise | None
) -> tuple[Margin, ...]:
    """With intervals where every point is paired."""
    paired = leading if leading and len(leading.numbers) == len(points) else None
    return tuple(
        Margin(key, _levels(points, levels, codes, len(grid.levels), paired, noise))
        for (key, levels), codes in zip(grid.levels.items(), grid.codes, strict=True)
    )


def _levels(
    points: Sequence[Point],
    values: Sequence[Any],
    codes: NDArray[np.intp],
    n_keys: int,
    paired: _Comparison | None,
    noise: TrainingNoise | None,
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
            holds=level.gap > half if noise else None,
        )
        for level, interval, half in zip(levels, spread.intervals, halves.tolist(), strict=True)
    )


# Noise


def _training_noise(table: Anova) -> TrainingNoise | None:
    for source, variation in (("seeds", table.seeds), ("residual", table.residual)):
        if variation and variation.df and variation.sum_of_squares > anova.ROUNDING**2:  # else a coincidence
            return TrainingNoise(math.sqrt(variation.sum_of_squares / variation.df), variation.df, source)
    return None


def _is_of_seeds(noise: TrainingNoise | None) -> bool:
    return noise is not None and noise.source == "seeds"


@dataclass(frozen=True)
class _Errors:
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


def _compare(
    points: Sequence[Point],
    numbers: list[int],
    sample: Sample,
    grid: _Grid,
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
    errors = _errors(runs, rows, sample, grid, table, len(points))
    weights = bootstrap.resample(sample.sizes)
    drawn = errors.noise([1]) if errors else bootstrap.NO_NOISE
    return _Comparison(numbers, sample, rows, weights, errors, bootstrap.spread(rows, weights, drawn))


def _errors(
    runs: Sequence[Sequence[int]], rows: Rows, sample: Sample, grid: _Grid, table: Anova, n_points: int
) -> _Errors | None:
    """Their parts by excerpts are the same estimates, made of each run's scores in place of its accuracy. 0, so that
    this part counts twice, where the points are not those that the residual was made of."""
    noise = _training_noise(table)
    if not noise:
        return None
    alike, rest = (table.blocks, table.seeds) if _is_of_seeds(noise) else (None, table.residual)
    assert rest
    squares, dfs = (0.0, 0.0), (0, 0)
    if _is_of_seeds(noise):
        squares = _squares(sample.scores, runs, alike is not None)
        alike_df = alike.df if alike else 0
        dfs = alike_df, int(rows.runs.sum()) - len(runs) - alike_df
    elif len(runs) == n_points:
        squares = 0.0, float((anova.decompose(grid.arranged(rows.scores), len(grid.levels))[1] ** 2).sum())
        dfs = 0, noise.df
    n = len(sample.sizes)
    known = [found / df * n / (n - 1) if df else 0.0 for found, df in zip(squares, dfs, strict=True)]
    return _Errors(alike, rest, (known[0], known[1]), n_points, len(runs), _is_of_seeds(noise))
