"""Finished runs of a sweep -> what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irmas.results.comparison import Answers, Estimate, TrainingNoise
from irmas.results.edges import Edge


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
    """Whether it may be the best one; None where it cannot be compared with the leader."""
    p_best: float | None = None
    """Probability of being the best, approximate."""
    expected_loss: float | None = None
    """Accuracy that choosing it is expected to lose to the best point, 0 to 1; approximate."""


@dataclass(frozen=True)
class Level:
    """The points with one value of a key."""

    value: Any
    accuracy: float
    """Least-squares mean: as if every level had been trained with the same other settings."""
    points: int
    lead: Estimate | None = None
    """The best level's accuracy minus this one's, with a 95 % interval for all pairs of levels of all keys together.

    None for the best level itself, and where it is not known.
    """

    @property
    def is_behind(self) -> bool:
        """The interval of the best level's lead excludes 0."""
        return self.lead is not None and self.lead.low > 0


@dataclass(frozen=True)
class Effect:
    """The main effect of one swept key."""

    key: str
    levels: tuple[Level, ...]
    """Numbers in ascending order, other values in the order of the runs."""
    p: float | None
    """Probability of such a difference between two levels without any effect, adjusted for all pairs of all keys."""
    edge: Edge | None
    """The value beyond the grid to try next, where the means rise towards its edge."""

    @property
    def best(self) -> Level:
        return max(self.levels, key=lambda level: level.accuracy)


@dataclass(frozen=True)
class Analysis:
    points: tuple[Point, ...]
    """By rank; the first is the leader."""
    leader: Estimate | None
    """The leader's accuracy without the luck of having been chosen, with a 95 % interval: its settings, trained again
    and validated on other recordings. None without predictions or training noise."""
    noise: TrainingNoise | None
    """None where neither seeds nor epochs tell it."""
    effects: tuple[Effect, ...]
    """Of every key with two levels or more whose effect the points that are there can tell."""
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
    """Of the best set: 0.95, or more after rounds of `irmas.refine`, which look at the same sweep again."""

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
        rest = sorted(self.best_set[1:], key=lambda point: (point.expected_loss or 0.0, point.runs))
        return [self.points[0], *rest][:count]


def analyse(
    runs: Sequence[Outcome],
    swept: Sequence[str],
    planned: Sequence[Mapping[str, Any]] | None = None,
    rounds: int = 0,
) -> Analysis:
    """Return what a sweep's finished runs, at least one, allow to conclude. The same runs give the same numbers.

    `planned` are the settings of all runs of the sweep, where more were planned than have finished. `rounds` is how
    often the sweep was refined.
    """
    raise NotImplementedError
