"""IRMAS's test protocol in numbers, against scikit-learn and against every threshold there is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, label_ranking_average_precision_score

from irmas.evaluation import protocol
from irmas.evaluation.protocol import FIXED, MAX, MEAN, TOP_SCORE, Rule, ScoredExcerpts
from irmas.results import comparison
from irmas.results.comparison import widening

CLASSES = ["cel", "cla", "flu", "voi"]


def made_up(seed: int, excerpts: int = 60, songs: int = 9, empty: int | None = None) -> ScoredExcerpts:
    """Return excerpts with labels other than `empty`, and scores in coarse steps, so that some are equal."""
    rng = np.random.default_rng(seed)
    truth = rng.random((excerpts, len(CLASSES))) < 0.4
    if empty is not None:
        truth[:, empty] = False
    alone = [k for k in range(len(CLASSES)) if k != empty]
    truth[~truth.any(axis=1), rng.choice(alone)] = True
    scores = np.round(0.6 * rng.random(truth.shape) + 0.4 * truth * rng.random(truth.shape), 1)
    return ScoredExcerpts(CLASSES, truth, scores, [f"song {number}" for number in rng.integers(songs, size=excerpts)])


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.floats(0.05, 1), st.sampled_from([None, 0, 3]))
def test_values_are_scikit_learns(seed: int, threshold: float, empty: int | None) -> None:
    scored = made_up(seed, empty=empty)
    found = protocol.measure(scored, Rule(FIXED, threshold))
    answers = scored.scores >= threshold
    supported = [k for k in range(len(CLASSES)) if k != empty and scored.truth[:, k].any()]
    assert found.micro_f1.value == f1_score(scored.truth, answers, average="micro", zero_division=0)
    expected = f1_score(scored.truth, answers, average="macro", labels=supported, zero_division=0)
    assert found.macro_f1.value == pytest.approx(expected)
    assert [metrics.support for metrics in found.classes] == scored.truth.sum(axis=0).tolist()
    lrap = label_ranking_average_precision_score(scored.truth, scored.scores)
    assert protocol.ranking_precision(scored).value == lrap


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    comparison.draw.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "RESAMPLES", 40)
        yield
    comparison.draw.cache_clear()


@pytest.mark.usefixtures("few_resamples")
def test_intervals_are_those_of_scikit_learn_on_every_resample() -> None:
    scored, rule = made_up(3), Rule(FIXED, 0.4)
    found = protocol.measure(scored, rule)
    answers = rule.predict(scored.scores)
    assert scored.draws is not None
    micro, macro, first, lrap = [], [], [], []
    for drawn in scored.draws:
        rows = np.repeat(np.arange(len(scored.groups)), drawn[scored.codes])
        truth, named = scored.truth[rows], answers[rows]
        micro.append(f1_score(truth, named, average="micro"))
        macro.append(f1_score(truth, named, average="macro"))
        first.append(f1_score(truth, named, average=None)[0])
        lrap.append(label_ranking_average_precision_score(truth, scored.scores[rows]))
    figures = [found.micro_f1, found.macro_f1, found.classes[0].f1, protocol.ranking_precision(scored)]
    for figure, draws in zip(figures, (micro, macro, first, lrap), strict=True):
        low, high = figure.value + widening(9) * (np.quantile(draws, [0.025, 0.975]) - figure.value)
        assert figure.interval is not None
        assert (figure.interval.low, figure.interval.high) == pytest.approx((max(low, 0), min(high, 1)))


def test_songs_that_rise_and_fall_together_widen_the_interval() -> None:
    truth = np.repeat(np.eye(4, dtype=bool), 50, axis=0)
    right = np.arange(200) % 5 > 0
    scores = np.where(right[:, None], truth, ~truth).astype(float)
    alone = protocol.measure(ScoredExcerpts(CLASSES, truth, scores, [str(row) for row in range(200)]), Rule(FIXED, 0.5))
    joined = protocol.measure(
        ScoredExcerpts(CLASSES, truth, scores, [str(row % 5) for row in range(200)]), Rule(FIXED, 0.5)
    )
    assert alone.micro_f1.value == joined.micro_f1.value
    assert alone.micro_f1.interval is not None
    assert joined.micro_f1.interval is not None
    width = alone.micro_f1.interval.high - alone.micro_f1.interval.low
    assert joined.micro_f1.interval.high - joined.micro_f1.interval.low > 2 * width


def test_the_highest_score_alone_is_judged_by_accuracy() -> None:
    scored = made_up(5)
    targets = np.random.default_rng(0).integers(4, size=60)
    single = ScoredExcerpts(CLASSES, np.eye(4, dtype=bool)[targets], scored.scores, scored.groups)
    found = protocol.measure(single, Rule(TOP_SCORE))
    assert found.micro_f1.value == pytest.approx(accuracy_score(targets, scored.scores.argmax(axis=1)))
    assert found.precision == found.recall == pytest.approx(found.micro_f1.value)


def test_one_song_and_a_class_of_one_song_have_no_interval() -> None:
    scored = made_up(1)
    one = protocol.measure(ScoredExcerpts(CLASSES, scored.truth, scored.scores, ["a"] * 60), Rule(FIXED, 0.5))
    assert one.micro_f1.interval is None
    assert one.classes[0].f1.interval is None
    truth = scored.truth.copy()
    truth[:, 2] = np.array(scored.groups) == "song 1"
    found = protocol.measure(ScoredExcerpts(CLASSES, truth, scored.scores, scored.groups), Rule(FIXED, 0.5))
    assert [metrics.f1.interval is None for metrics in found.classes] == [False, False, True, False]


@given(st.integers(0, 2**32))
def test_no_threshold_is_better_than_the_best(seed: int) -> None:
    scored = made_up(seed, excerpts=12)
    best = protocol.best_threshold(scored.truth, scored.scores)

    def micro_f1(threshold: float) -> float:
        named = scored.scores >= threshold
        return float(2 * (named & scored.truth).sum() / (named.sum() + scored.truth.sum()))

    assert micro_f1(best) == max(micro_f1(threshold) for threshold in np.linspace(0.025, 1.025, 21))


def test_a_threshold_lies_halfway_between_the_scores_that_it_parts() -> None:
    truth = np.array([[True, False], [True, False]])
    assert protocol.best_threshold(truth, np.array([[0.9, 0.2], [0.6, 0.1]])) == pytest.approx(0.4)


def test_windows_are_averaged_or_measured_against_the_highest_class() -> None:
    sums = np.array([1.5, 0.75, 0.0])
    assert protocol.aggregate(sums, 3, MEAN).tolist() == [0.5, 0.25, 0.0]
    assert protocol.aggregate(sums, 3, MAX).tolist() == [1.0, 0.5, 0.0]
