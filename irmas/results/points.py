"""Runs that differ in nothing but their seed are one point, ranked by their mean."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from irmas.config import shown


class Run(Protocol):
    """One that has finished."""

    @property
    def id(self) -> int: ...

    @property
    def values(self) -> Mapping[str, Any]:
        """Of the swept keys."""
        ...

    @property
    def accuracy(self) -> float | None:
        """Of validation, and known: `None` is a run's that has not finished."""
        ...

    @property
    def loss(self) -> float | None: ...


R = TypeVar("R", bound=Run)


def combination(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What the runs of a point have in common."""
    return tuple(shown(value) for key, value in values.items() if key != "seed")


def by_accuracy(runs: Sequence[R], planned: Iterable[Mapping[str, Any]] = ()) -> list[tuple[float, list[R]]]:
    """Return points as mean accuracy and runs, these by ID; the best first, ties by mean loss, then by the lowest ID.

    `planned` are the settings of all runs of the sweep, finished or not. Points with more planned seeds than others,
    which `irmas.refine` has trained again, come before these: of a point that was not, luck has chosen the seed.
    """
    seeds = Counter(map(combination, planned))
    fewest = min(seeds.values(), default=0)
    points: dict[tuple[str, ...], list[R]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.id):
        points[combination(run.values)].append(run)
    # A loss that is not known is no smaller than any.
    losses = [_mean([math.inf if run.loss is None else run.loss for run in found]) for found in points.values()]
    means = [_mean([run.accuracy or 0.0 for run in found]) for found in points.values()]
    is_refined = [seeds[key] > fewest for key in points]
    keys = ((not later, -mean, loss) for later, mean, loss in zip(is_refined, means, losses, strict=True))
    order = sorted(zip(keys, means, points.values(), strict=True), key=lambda point: point[0])
    return [(mean, found) for _, mean, found in order]


def _mean(values: Sequence[float]) -> float:
    """fsum: seeds with the same accuracies in another order have the same mean."""
    return math.fsum(values) / len(values)
