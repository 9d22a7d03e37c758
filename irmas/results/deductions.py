"""The report's deductions, asked of a sweep's runs: the numbers and tests with which each stands or falls."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from irmas.config import flatten, shown
from irmas.results.bootstrap import CONFIDENCE, Interval
from irmas.results.ranking import Ranking, Row
from irmas.results.statistics import Analysis, Level, Point
from irmas.run.events import VAL_ACCURACY

BASELINE = {"dropout": 0.5, "l2": 0.001}
"""What the report calls over-regularised."""
PLATEAU = 0.8
"""Of validation accuracy: the report says who reaches it."""
CLOSE = 0.9
"""Of the leader's accuracy: a run that is there has learned most of it."""
TWINS = "l2"
"""Runs that differ in it alone train almost alike, from the same seed: they count as one."""
FEWEST_PAIRS = 3
WHOLE = 1 / 6
"""Variance that rounding to whole epochs adds to the difference of two: 1/12 for each."""


def finished(ranking: Ranking) -> list[Row]:
    """By run ID."""
    return sorted((row for row in ranking.rows if row.is_finished), key=lambda row: row.id)


# Regularisation


def settings(ranking: Ranking, point: Point) -> dict[str, Any]:
    """All of a point's settings, flat; the seed is that of its first run."""
    planned = next(planned for planned in ranking.plan.points if planned.id == point.runs[0])
    return flatten(asdict(ranking.plan.config_of(planned)))


def baseline(ranking: Ranking, analysis: Analysis) -> Point | None:
    """The point with the baseline's regularisation and the leader's other settings; None where none has finished."""

    def others(point: Point) -> dict[str, Any]:
        return {key: value for key, value in point.values.items() if key not in BASELINE}

    for point in analysis.points:
        if others(point) == others(analysis.points[0]) and settings(ranking, point).items() >= BASELINE.items():
            return point
    return None


# Learning rate


@dataclass(frozen=True)
class Curve:
    """How one run's validation accuracy went."""

    epochs: int
    close: float
    """First epoch with CLOSE of the leader's last accuracy; infinite where there is none."""
    plateau: float
    """First epoch with PLATEAU, or infinite."""
    slope: float | None
    """Of a straight line through the last third of the epochs (at least three), an epoch."""
    fluctuation: float | None
    """Standard deviation about that line: a steady rise is no fluctuation."""


@dataclass(frozen=True)
class Mean:
    value: float
    error: float
    """Its standard error over the pairs, or over the runs with twins as one."""
    interval: Interval
    """95 % by Student's t, for all levels but the best together (Bonferroni)."""


@dataclass(frozen=True)
class Rate:
    """The runs of one learning rate. Its pairs are the runs that differ from one of the best rate in lr alone; those of
    twins are averaged to one."""

    level: Level
    runs: int
    close: tuple[int, float]
    """How many runs come there, and the median of the first epochs; infinite where more than half never do."""
    plateau: tuple[int, float]
    slope: Mean | None
    fluctuation: float | None
    pairs: int
    delay: Mean | None
    """In epochs, until CLOSE; None, like the next two, with fewer than three pairs. A run that never comes there counts
    as if it did in the epoch after its last: the true delay is longer."""
    slope_difference: Mean | None
    """This rate minus the best, like the next."""
    fluctuation_difference: Mean | None

    @property
    def rises_more(self) -> bool:
        """Still, and more than the best rate."""
        own, difference = self.slope, self.slope_difference
        return own is not None and difference is not None and min(own.interval.low, difference.interval.low) > 0


def learning_rates(ranking: Ranking, analysis: Analysis) -> list[Rate]:
    """The best first: the one with the highest marginal mean. Empty where lr has fewer than two levels."""
    levels = next((margin.levels for margin in analysis.margins if margin.key == "lr"), ())
    if not levels:
        return []
    close = CLOSE * analysis.points[0].accuracy
    curves: dict[float, dict[_Others, Curve]] = {level.value: {} for level in levels}
    for row in finished(ranking):
        others = tuple(shown(value) for key, value in row.values.items() if key not in ("lr", TWINS))
        twin = shown(row.values.get(TWINS))
        curves[row.values["lr"]][others, twin] = _curve(row.curves.get(VAL_ACCURACY, {}), close)
    best = min(levels, key=lambda level: level.gap)
    ordered = [best, *(level for level in levels if level is not best)]
    return [_rate(level, curves[level.value], curves[best.value], tests=len(levels) - 1) for level in ordered]


def _curve(accuracies: Mapping[int, float], close: float) -> Curve:
    def first(threshold: float) -> float:
        return next((epoch for epoch, accuracy in accuracies.items() if accuracy >= threshold), math.inf)

    last = max(accuracies, default=0)
    tail = {epoch: accuracy for epoch, accuracy in accuracies.items() if epoch > last - end_epochs(last)}
    slope = fluctuation = None
    if len(tail) >= 3:
        epochs, values = np.array([*tail]), np.array([*tail.values()])
        slope, level = np.polyfit(epochs, values, 1).tolist()
        fluctuation = math.sqrt(float(((values - level - slope * epochs) ** 2).sum()) / (len(tail) - 2))
    return Curve(last, first(close), first(PLATEAU), slope, fluctuation)


def end_epochs(epochs: int) -> int:
    """How many epochs count as the end of a training."""
    return min(epochs, max(3, epochs // 3))


_Others = tuple[tuple[str, ...], str]
"""A run's other values than lr: without TWINS, and of it."""


def _rate(level: Level, curves: Mapping[_Others, Curve], best: Mapping[_Others, Curve], tests: int) -> Rate:
    shared = [] if curves is best else [others for others in curves if others in best]

    def mean(of: Callable[[Curve], float | None], rounding: float = 0.0) -> Mean | None:
        found = [(others, of(curves[others]), of(best[others])) for others in shared]
        return _mean(
            _twins_as_one((others, a - b) for others, a, b in found if a is not None and b is not None), tests, rounding
        )

    fluctuations = [curve.fluctuation for curve in curves.values() if curve.fluctuation is not None]
    return Rate(
        level=level,
        runs=len(curves),
        close=_reached(curves.values(), lambda curve: curve.close),
        plateau=_reached(curves.values(), lambda curve: curve.plateau),
        slope=_mean(_twins_as_one((others, c.slope) for others, c in curves.items() if c.slope is not None), tests),
        fluctuation=statistics.fmean(fluctuations) if fluctuations else None,
        pairs=len({others for others, _ in shared}),
        delay=mean(lambda curve: min(curve.close, curve.epochs + 1), WHOLE),
        slope_difference=mean(lambda curve: curve.slope),
        fluctuation_difference=mean(lambda curve: curve.fluctuation),
    )


def _reached(curves: Iterable[Curve], epoch: Callable[[Curve], float]) -> tuple[int, float]:
    epochs = [epoch(curve) for curve in curves]
    return sum(map(math.isfinite, epochs)), statistics.median_low(epochs) if epochs else math.inf


def _twins_as_one(values: Iterable[tuple[_Others, float]]) -> list[float]:
    together: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for (others, _), value in values:
        together[others].append(value)
    return [statistics.fmean(found) for found in together.values()]


def _mean(values: Sequence[float], tests: int, rounding: float = 0.0) -> Mean | None:
    """None of fewer than three: two that are alike by chance would leave no doubt. `rounding` adds to the variance."""
    if len(values) < FEWEST_PAIRS:
        return None
    mean, error = statistics.fmean(values), math.sqrt((statistics.variance(values) + rounding) / len(values))
    half = float(stdtrit(len(values) - 1, 1 - (1 - CONFIDENCE) / 2 / tests)) * error
    return Mean(mean, error, Interval(mean - half, mean + half))


# Capacity


@dataclass(frozen=True)
class Share:
    """Of runs that end at PLATEAU or above."""

    runs: int
    of: int
    interval: Interval
    """95 %."""


def share(rows: Sequence[Row]) -> Share:
    """Of finished runs, at least one."""
    above = sum(row.accuracy is not None and row.accuracy >= PLATEAU for row in rows)
    return Share(above, len(rows), wilson(above, len(rows)))


def wilson(successes: int, n: int) -> Interval:
    """Score interval of a proportion (Wilson 1927)."""
    z = float(ndtri((1 + CONFIDENCE) / 2))
    middle = (successes + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(successes * (n - successes) / n + z**2 / 4)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))
