"""Runs that differ in nothing but their seed are one point, ranked by their mean."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
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


def by_accuracy(runs: Sequence[R]) -> list[tuple[float, list[R]]]:
    """Points as mean accuracy and runs, these by ID; the best first, ties by mean loss, then by the lowest ID."""
    points: dict[tuple[str, ...], list[R]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.id):
        points[combination(run.values)].append(run)
    # A loss that is not known is no smaller than any.
    losses = [_mean([math.inf if run.loss is None else run.loss for run in seeds]) for seeds in points.values()]
    means = [_mean([run.accuracy or 0.0 for run in seeds]) for seeds in points.values()]
    order = sorted(zip(means, losses, points.values(), strict=True), key=lambda point: (-point[0], point[1]))
    return [(mean, seeds) for mean, _, seeds in order]


def _mean(values: Sequence[float]) -> float:
    """fsum: seeds with the same accuracies in another order have the same mean."""
    return math.fsum(values) / len(values)
