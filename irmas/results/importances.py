"""Keys of a sweep over continuous values: the scale of each, and what it is worth by Optuna's PED-ANOVA."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irmas.config import brief, shown
from irmas.results.effects import LABELS, MOST_LEVELS, are_numbers

if TYPE_CHECKING:
    from irmas.results.analysis import Point

BEST, FEWEST = 0.1, 20
"""Share of the points that count as the best, and fewest points of which importances are computed."""
MOST_NAMES = 5
"""Most values of a key that are listed."""
WIDE = 20
"""Factor between the smallest and the largest value above which a scale is logarithmic unless a search says so."""


@dataclass(frozen=True)
class Axis:
    """A swept key and its value in each point, the best point first."""

    key: str
    values: list[Any]
    is_log: bool
    """True for positive numbers whose ratios count."""

    @property
    def is_number(self) -> bool:
        return are_numbers(self.values)

    @property
    def names(self) -> list[str]:
        """Different values that are no numbers, in the order of the points."""
        return list(dict.fromkeys(map(shown, self.values)))

    def places(self) -> list[float]:
        """Return where each point is on the axis: its number, or the place of its value among `names`."""
        if self.is_number:
            return [math.log10(value) if self.is_log else float(value) for value in self.values]
        return [float(self.names.index(shown(value))) for value in self.values]

    def described(self, count: int) -> str:
        """Return the values of the first points: their range, or how often each one occurs."""
        first = self.values[:count]
        if self.is_number:
            return brief(min(first)) if min(first) == max(first) else f"{brief(min(first))} to {brief(max(first))}"
        counts = [f"{name} ({number})" for name, number in Counter(map(shown, first)).most_common()]
        return ", ".join([*counts[:MOST_NAMES], *(["..."] if len(counts) > MOST_NAMES else [])])


def axes(points: Sequence[Point], space: Mapping[str, str]) -> list[Axis]:
    """Return the keys with several values; none for a grid, which has no `space` and few values of each key."""
    swept = [
        Axis(key, values, _is_log(values, space.get(key)))
        for key in points[0].values
        if key not in LABELS and len({*map(shown, values := [point.values[key] for point in points])}) > 1
    ]
    has_many = any(axis.is_number and len({*axis.values}) > MOST_LEVELS for axis in swept)
    return swept if space or has_many else []


def _is_log(values: Sequence[Any], typed: str | None) -> bool:
    if not are_numbers(values) or min(values) <= 0:
        return False
    return max(values) > WIDE * min(values) if typed is None or "interval" not in typed else "log" in typed


def best(points: int) -> int:
    """Return how many of the points count as the best."""
    return max(2, math.ceil(BEST * points))


def importances(axes: Sequence[Axis], accuracies: Sequence[float]) -> dict[str, float] | None:
    """Return how much each key decides whether a point is among the best, shares that add up to 1; None without Optuna.

    Without a difference between the points, or with fewer than `FEWEST`, no key has a share.
    """
    try:
        from optuna import create_study, logging
        from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
        from optuna.trial import create_trial
    except ModuleNotFoundError:
        return None
    if len(accuracies) < FEWEST or min(accuracies) == max(accuracies):
        return {}
    logging.set_verbosity(logging.WARNING)
    spread = dict[str, BaseDistribution]()
    for axis in axes:
        if axis.is_number:
            spread[axis.key] = FloatDistribution(min(axis.values), max(axis.values), log=axis.is_log)
        else:
            spread[axis.key] = CategoricalDistribution(axis.names)
    study = create_study(direction="maximize")
    for number, accuracy in enumerate(accuracies):
        values = {axis.key: axis.values[number] if axis.is_number else shown(axis.values[number]) for axis in axes}
        study.add_trial(create_trial(params=values, distributions=spread, value=accuracy))
    return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST)))
