"""IRMAS's test protocol: scores of windows -> of excerpts -> answers, and how right they are, with intervals.

After Han, Kim and Lee, Deep convolutional neural networks for predominant instrument recognition in polyphonic music,
IEEE/ACM TASLP 25 (2017). Numbers alone: no file, no net.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from irmas.results.comparison import CONFIDENCE, draw, widening

Array = NDArray[np.float64]
Answers = NDArray[np.bool_]
"""(excerpts, classes)."""

MEAN, MAX = "mean", "max"
FIXED, MIXTURES, ORACLE, HIGHEST = "fixed", "chosen on mixtures", "oracle", "highest score"


def aggregate(sums: Array, windows: int, how: str) -> Array:
    """(classes,) sums of an excerpt's windows -> its scores, 0 to 1: their `mean`, or with `max` the highest is 1."""
    return sums / (windows if how == MEAN else sums.max())


@dataclass(frozen=True)
class Scored:
    """What is judged."""

    classes: list[str]
    truth: Answers
    scores: Array
    """(excerpts, classes)"""
    groups: list[str]
    """The song or recording of each excerpt: they are what is resampled."""

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """(excerpts,): the number of its group."""
        return np.unique(self.groups, return_inverse=True)[1]

    @cached_property
    def draws(self) -> NDArray[np.integer] | None:
        """(resamples, groups); None for a single group, which cannot be resampled."""
        groups = int(self.codes.max()) + 1
        return draw(groups) if groups > 1 else None


@dataclass(frozen=True)
class Rule:
    """Which classes an excerpt is said to have."""

    name: str
    threshold: float | None = None
    """Of the score; without one the highest alone is named."""

    def answers(self, scores: Array) -> Answers:
        if self.threshold is None:
            return np.asarray(np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)])
        return np.asarray(scores >= self.threshold, dtype=bool)


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    value: float
    interval: Interval | None
    """95 %; None where resampling tells nothing: a single group, or a class that is never, or always, recognised."""


@dataclass(frozen=True)
class OfClass:
    label: str
    support: int
    """Excerpts that have the label; without any the rest says nothing."""
    precision: float
    recall: float
    f1: Figure


@dataclass(frozen=True)
class Judgement:
    rule: Rule
    precision: float
    recall: float
    micro_f1: Figure
    """Over all decisions together; where each excerpt has one label and one answer, it is the accuracy."""
    macro_f1: Figure
    """The mean of the classes that have support."""
    classes: list[OfClass]


def judge(scored: Scored, rule: Rule) -> Judgement:
    """Values by scikit-learn, intervals from counts a group: scikit-learn would take minutes in the loop."""
    from sklearn.metrics import precision_recall_fscore_support  # here, since it takes a second to import

    answers = rule.answers(scored.scores)
    precision, recall, f1, support = precision_recall_fscore_support(
        scored.truth, answers, average=None, zero_division=0
    )
    whole = precision_recall_fscore_support(scored.truth, answers, average="micro", zero_division=0)
    resampled = _resampled_f1(scored, answers)
    classes = [
        OfClass(label, int(support[k]), float(precision[k]), float(recall[k]), resampled.figure(float(f1[k]), k))
        for k, label in enumerate(scored.classes)
    ]
    macro = resampled.figure(float(f1[support > 0].mean()), "macro")
    return Judgement(rule, float(whole[0]), float(whole[1]), resampled.figure(float(whole[2]), "micro"), macro, classes)


@dataclass(frozen=True)
class _Resampled:
    """What resamples of the groups gave, NaN where a class was in none of the drawn; empty for a single group."""

    groups: int
    draws: dict[int | str, Array]

    def figure(self, value: float, key: int | str) -> Figure:
        draws = self.draws.get(key, np.zeros(0))
        draws = draws[~np.isnan(draws)]
        if not len(draws) or (draws == value).all():
            return Figure(value, None)
        ends = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = np.clip(value + widening(self.groups) * (ends - value), 0, 1).tolist()
        return Figure(value, Interval(low, high))


def _resampled_f1(scored: Scored, answers: Answers) -> _Resampled:
    """By class, `micro` and `macro`: F1 from true positives, and how many are right or asked for."""
    if scored.draws is None:
        return _Resampled(1, {})
    counts = [_by_group(scored, counted) for counted in (scored.truth & answers, scored.truth, answers)]
    hits, truths, named = (scored.draws @ counted for counted in counts)
    with np.errstate(invalid="ignore"):
        micro = 2 * hits.sum(axis=1) / (truths + named).sum(axis=1)
        by_class = np.where(truths > 0, 2 * hits / (truths + named), np.nan)
    macro = np.nansum(by_class, axis=1) / np.maximum((truths > 0).sum(axis=1), 1)
    several = np.flatnonzero((counts[1] > 0).sum(axis=0) > 1)
    draws: dict[int | str, Array] = {"micro": micro, "macro": macro} | {int(k): by_class[:, k] for k in several}
    return _Resampled(scored.draws.shape[1], draws)


def _by_group(scored: Scored, values: NDArray[np.generic]) -> Array:
    """(excerpts, ...) -> sums, (groups, ...)."""
    sums = np.zeros((int(scored.codes.max()) + 1, *values.shape[1:]))
    np.add.at(sums, scored.codes, values)
    return sums


def ranking_precision(scored: Scored) -> Figure:
    """LRAP, label ranking average precision: how far ahead of the other classes the true ones are; needs no threshold.

    With one label an excerpt it is the mean of 1 / the true class's rank.
    """
    from sklearn.metrics import label_ranking_average_precision_score

    value = float(label_ranking_average_precision_score(scored.truth, scored.scores))
    if scored.draws is None:
        return Figure(value, None)
    sizes = _by_group(scored, np.ones(len(scored.groups)))
    drawn = (scored.draws @ _by_group(scored, _precisions(scored))) / (scored.draws @ sizes)
    return _Resampled(len(sizes), {"lrap": drawn}).figure(value, "lrap")


def _precisions(scored: Scored) -> Array:
    """(excerpts,): LRAP is their mean."""
    return np.array([_precision(truth, scores) for truth, scores in zip(scored.truth, scored.scores, strict=True)])


def _precision(truth: NDArray[np.bool_], scores: Array) -> float:
    """Of an excerpt: the mean share of true classes among those that are at least as high as each of them."""
    as_high = scores >= scores[truth, None]
    return float((as_high[:, truth].sum(axis=1) / as_high.sum(axis=1)).mean())


def best_threshold(truth: Answers, scores: Array) -> float:
    """That of the highest micro F1; halfway between the scores that it parts."""
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked = scores.ravel()[order]
    hits = np.cumsum(truth.ravel()[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
    below = np.append(ranked[1:], 0.0)
    best = int(np.where(ranked > below, f1, -1.0).argmax())  # equal scores are named together
    return float((ranked[best] + below[best]) / 2)
