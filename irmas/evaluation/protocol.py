"""IRMAS's test protocol: scores of excerpts -> the classes that a rule names -> metrics with intervals.

After Han, Kim and Lee, Deep convolutional neural networks for predominant instrument recognition in polyphonic music,
IEEE/ACM TASLP 25 (2017). Pure computation: no file, no net.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from irmas.results.comparison import CONFIDENCE, draw, widening

Array = NDArray[np.float64]
Labels = NDArray[np.bool_]
"""True where an excerpt has a class, (excerpts, classes)."""

MEAN, MAX = "mean", "max"
FIXED, TUNED, ORACLE, TOP_SCORE = "fixed", "chosen on mixtures", "oracle", "highest score"


def aggregate(sums: Array, windows: int, method: str) -> Array:
    """Return an excerpt's scores, 0 to 1, from the sums over its windows, both (classes,).

    They are the `mean` of its windows, or with `max` the sums relative to the highest of them.
    """
    return sums / (windows if method == MEAN else sums.max())


@dataclass(frozen=True)
class ScoredExcerpts:
    classes: list[str]
    truth: Labels
    scores: Array
    """Scores, (excerpts, classes)."""
    groups: list[str]
    """Song or recording of each excerpt; these are resampled."""

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """Number of each excerpt's group, (excerpts,)."""
        return np.unique(self.groups, return_inverse=True)[1]

    @cached_property
    def draws(self) -> NDArray[np.integer] | None:
        """Number of times that each group is drawn, (resamples, groups); None for a single group."""
        groups = int(self.codes.max()) + 1
        return draw(groups) if groups > 1 else None

    def by_group(self, values: NDArray[np.generic]) -> Array:
        """Return the sums, (groups, ...), of values, (excerpts, ...)."""
        sums = np.zeros((int(self.codes.max()) + 1, *values.shape[1:]))
        np.add.at(sums, self.codes, values)
        return sums


@dataclass(frozen=True)
class Rule:
    """A rule that names classes by their scores."""

    name: str
    threshold: float | None = None
    """Score from which on a class is named; without one only the class of the highest score is."""

    def predict(self, scores: Array) -> Labels:
        if self.threshold is None:
            return np.asarray(np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)])
        return np.asarray(scores >= self.threshold, dtype=bool)


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Metric:
    value: float
    interval: Interval | None
    """95 % interval; None if resampling shows no spread: a single group, or a class that is never or always right."""

    @classmethod
    def resampled(cls, value: float, draws: Array, groups: int) -> Metric:
        """Return a metric with the interval of its values in resamples, NaN where they have none."""
        draws = draws[~np.isnan(draws)]
        if not len(draws) or (draws == value).all():
            return cls(value, None)
        ends = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = np.clip(value + widening(groups) * (ends - value), 0, 1).tolist()
        return cls(value, Interval(low, high))


@dataclass(frozen=True)
class ClassMetrics:
    label: str
    support: int
    """Number of excerpts that have the label; the metrics mean nothing if it is 0."""
    precision: float
    recall: float
    f1: Metric


@dataclass(frozen=True)
class RuleMetrics:
    rule: Rule
    precision: float
    recall: float
    micro_f1: Metric
    """F1 over all decisions together; if each excerpt has one label and one class is named, it is the accuracy."""
    macro_f1: Metric
    """Mean F1 of the classes that have support."""
    classes: list[ClassMetrics]


def measure(scored: ScoredExcerpts, rule: Rule) -> RuleMetrics:
    """Return a rule's metrics: values by scikit-learn, intervals from counts per group.

    scikit-learn would take minutes for the resamples.
    """
    from sklearn.metrics import precision_recall_fscore_support  # here, because it takes a second to import

    named, groups = rule.predict(scored.scores), int(scored.codes.max()) + 1
    precision, recall, f1, support = precision_recall_fscore_support(scored.truth, named, average=None, zero_division=0)
    micro = precision_recall_fscore_support(scored.truth, named, average="micro", zero_division=0)
    micro_draws, macro_draws, class_draws = _resampled_f1(scored, named)
    classes = [
        ClassMetrics(label, int(n), float(p), float(r), Metric.resampled(float(f), draws, groups))
        for label, n, p, r, f, draws in zip(scored.classes, support, precision, recall, f1, class_draws.T, strict=True)
    ]
    return RuleMetrics(
        rule,
        float(micro[0]),
        float(micro[1]),
        Metric.resampled(float(micro[2]), micro_draws, groups),
        Metric.resampled(float(f1[support > 0].mean()), macro_draws, groups),
        classes,
    )


def _resampled_f1(scored: ScoredExcerpts, named: Labels) -> tuple[Array, Array, Array]:
    """Return micro and macro F1, (resamples,), and each class's, (resamples, classes); no resamples of a single group.

    A class is NaN where no drawn group has it, and everywhere if one group has all its excerpts.
    """
    if scored.draws is None:
        return np.zeros(0), np.zeros(0), np.zeros((0, len(scored.classes)))
    in_groups = scored.by_group(scored.truth)
    hits, truths, positives = (
        scored.draws @ counts for counts in (scored.by_group(scored.truth & named), in_groups, scored.by_group(named))
    )
    with np.errstate(invalid="ignore"):
        micro = 2 * hits.sum(axis=1) / (truths + positives).sum(axis=1)
        by_class = np.where(truths > 0, 2 * hits / (truths + positives), np.nan)
    macro = np.nansum(by_class, axis=1) / np.maximum((truths > 0).sum(axis=1), 1)
    return micro, macro, np.where((in_groups > 0).sum(axis=0) > 1, by_class, np.nan)


def ranking_precision(scored: ScoredExcerpts) -> Metric:
    """Return LRAP, label ranking average precision: how far the true classes are ahead of the others, by score.

    It needs no threshold. If each excerpt has one label, it is the mean of 1 / the rank of the true class.
    """
    from sklearn.metrics import label_ranking_average_precision_score

    value = float(label_ranking_average_precision_score(scored.truth, scored.scores))
    if scored.draws is None:
        return Metric(value, None)
    sizes = scored.by_group(np.ones(len(scored.groups)))
    precisions = np.array([_precision(truth, row) for truth, row in zip(scored.truth, scored.scores, strict=True)])
    draws = (scored.draws @ scored.by_group(precisions)) / (scored.draws @ sizes)
    return Metric.resampled(value, draws, len(sizes))


def _precision(truth: NDArray[np.bool_], scores: Array) -> float:
    """Return an excerpt's LRAP: for its true classes, the mean share of true ones among those that score as high."""
    as_high = scores >= scores[truth, None]
    return float((as_high[:, truth].sum(axis=1) / as_high.sum(axis=1)).mean())


def best_threshold(truth: Labels, scores: Array) -> float:
    """Return the threshold of the highest micro F1, halfway between the scores that it separates."""
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked = scores.ravel()[order]
    hits = np.cumsum(truth.ravel()[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
    below = np.append(ranked[1:], 0.0)
    best = int(np.where(ranked > below, f1, -1.0).argmax())  # equal scores are named together
    return float((ranked[best] + below[best]) / 2)
