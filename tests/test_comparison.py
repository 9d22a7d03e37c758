"""Points compared under noise: against the tables of others, and against what simulated noise does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import studentized_range

from irmas.results import comparison
from irmas.results.comparison import NO_VARIANCE, Comparison, Variance, residual_variance
from irmas.results.runs import Answers

NO_EXCERPTS = np.ones(50)


def compared(accuracies: list[float], runs: int, sd: float, df: int) -> Comparison:
    """Return points that training noise alone moves."""
    n = len(accuracies)
    return Comparison(np.array(accuracies), np.zeros((n, 50)), np.full(n, runs), NO_EXCERPTS, Variance(sd**2, df, 0.0))


@pytest.mark.parametrize(("points", "df", "dunnett"), [(3, 10, 2.15), (5, 10, 2.47), (5, 20, 2.30), (6, 20, 2.39)])
def test_the_best_set_is_hsus(points: int, df: int, dunnett: float) -> None:
    """One-sided quantiles of Dunnett 1955, table 1a, which Hsu's comparison uses where all points are alike."""
    error = 0.01 * math.sqrt(2 / 3)

    def keeps(distance: float) -> bool:
        """Return whether the last point is kept, that far behind equal others."""
        result = compared([0.6] * (points - 1) + [0.6 - distance * error], runs=3, sd=0.01, df=df)
        *others, last = result.best_set(0.95)
        assert all(others)
        return last

    assert keeps(dunnett - 0.15)
    assert not keeps(dunnett + 0.15)


def test_a_higher_confidence_keeps_more() -> None:
    result = compared([0.6, 0.575], runs=1, sd=0.01, df=100)
    assert result.best_set(0.95) == [True, False] or result.best_set(0.99) == [True, True]
    assert sum(result.best_set(0.80)) <= sum(result.best_set(0.95)) <= sum(result.best_set(0.999))
    assert result.best_set(0.80) != result.best_set(0.999)


def test_beyond_many_points_a_bound_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = [0.60, 0.597, 0.59, *np.linspace(0.5, 0.58, 37)]
    exact = compared(accuracies, runs=1, sd=0.004, df=200).best_set(0.95)
    monkeypatch.setattr(comparison, "MOST", 10)
    bounded = compared(accuracies, runs=1, sd=0.004, df=200).best_set(0.95)
    assert exact[0]
    assert bounded[0]
    assert not any(bounded[3:])
    assert all(bound or not kept for kept, bound in zip(exact, bounded, strict=True))  # never narrower


def test_simultaneous_half_widths_are_tukeys() -> None:
    result = compared([0.6, 0.6, 0.6, 0.6], runs=2, sd=0.02, df=12)
    pairs = np.array([[1, -1, 0, 0], [1, 0, -1, 0], [1, 0, 0, -1], [0, 1, -1, 0], [0, 1, 0, -1], [0, 0, 1, -1.0]])
    halves, p = result.simultaneous(pairs)
    tukey = float(studentized_range.ppf(0.95, 4, 12)) * 0.02 / math.sqrt(2)
    assert halves == pytest.approx(np.full(6, tukey), rel=0.05)
    assert (p == 1).all()
    apart = compared([0.6, 0.6, 0.6, 0.6 - 1.2 * tukey], runs=2, sd=0.02, df=12).simultaneous(pairs)[1]
    assert apart[2] < 0.05 < apart[0]


def test_points_are_compared_on_the_same_excerpts() -> None:
    """Two points that are right on the same recordings differ by nothing, however few the recordings are."""
    rng = np.random.default_rng(0)
    scores = np.tile(rng.standard_normal(40) / 400, (2, 1))
    scores -= scores.mean(axis=1, keepdims=True)
    result = Comparison(np.array([0.6, 0.59]), scores, np.ones(2), np.full(40, 3.0), NO_VARIANCE)
    assert result.best_set(0.95) == [True, False]
    assert result.standard_errors(np.array([[1.0, -1.0]])) == pytest.approx([0], abs=1e-8)
    wide = result.intervals()
    assert wide[0].high - wide[0].low > 0.02


def test_an_interval_is_that_of_a_cluster_bootstrap_and_training() -> None:
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((1, 200)) / 200 * 0.3
    scores -= scores.mean()
    by_excerpts = math.sqrt(200 / 199 * float((scores**2).sum()))
    alone = Comparison(np.array([0.5]), scores, np.ones(1), np.full(200, 3.0), NO_VARIANCE).intervals()[0]
    assert (alone.high - alone.low) / 2 == pytest.approx(1.97 * by_excerpts, rel=0.08)
    both = Comparison(
        np.array([0.5]), scores, np.full(1, 4), np.full(200, 3.0), Variance(0.04**2, 1000, 0.0)
    ).intervals()[0]
    assert (both.high - both.low) / 2 == pytest.approx(1.97 * math.hypot(by_excerpts, 0.02), rel=0.08)


def test_runs_are_paired_by_name_and_shares_of_epochs_count() -> None:
    names, recordings = np.array(["a", "b", "c", "d"]), np.array(["1", "1", "2", "3"])
    one = Answers(np.array([1.0, 0.5, 0.0, 0.2]), names, recordings)
    order = [2, 0, 3, 1]
    other = Answers(one.correct[order], names[order], recordings[order])
    strange = Answers(one.correct, np.array(["a", "b", "c", "x"]), recordings)
    alone = Answers(one.correct, names, np.array(["1"] * 4))
    first, second = comparison.samples({1: one, 2: other, 3: strange, 4: alone})
    assert first.scores.keys() == {1, 2}
    assert second.scores.keys() == {3}
    assert first.scores[1] == pytest.approx(first.scores[2])
    assert first.scores[1].sum() == pytest.approx(0)
    assert first.scores[1] == pytest.approx((np.array([1.5, 0.0, 0.2]) - 0.425 * np.array([2, 1, 1])) / 4)


def test_what_excerpts_add_to_the_spread_among_trainings_counts_once() -> None:
    seen = Variance(5.0, 10, 2.0)
    assert seen.estimate == 3.0
    assert seen.from_chi_square(np.array([5.0, 10.0, 25.0, 100.0])).tolist() == [8.0, 3.0, 0.0, 0.0]
    assert Variance(1.0, 10, 2.0).estimate == 0.0


def test_the_variance_within_points() -> None:
    one = np.zeros(6, dtype=np.intp)
    points = np.array([0, 0, 1, 2, 2, 2])
    variance, df = residual_variance(np.array([1.0, 3.0, 5.0, 2.0, 2.0, 5.0]), points, one)
    assert variance == pytest.approx(8 / 3)
    assert df == 3
    assert residual_variance(np.array([1.0]), one[:1], one[:1]) == (0.0, 0)
    variance, df = residual_variance(np.array([[1.0, 2.0], [3.0, 4.0]]), one[:2], one[:2])
    assert variance == pytest.approx(4.0)
    assert df == 1


def test_what_a_fold_does_to_all_points_alike_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    points, folds = (codes.ravel() for codes in np.indices((4, 3)))
    noise = rng.standard_normal(12)
    table = noise.reshape(4, 3)
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    for effect in (0.0, 100.0):
        variance, df = residual_variance(noise + 7 * points + effect * folds, points, folds)
        assert variance == pytest.approx(float((rest**2).sum()) / 6)
        assert df == 6
    twice = [np.repeat(codes, 2) for codes in (points, folds)]
    seeds = np.repeat(noise, 2) + np.tile([5.0, -5.0], 12)  # two seeds of a fold share what its training set does
    variance, df = residual_variance(seeds, *twice)
    assert variance == pytest.approx(2 * float((rest**2).sum()) / 6)
    assert df == 6
    lacking = slice(1, None)  # least squares, where a run is missing
    design = np.hstack([np.eye(4)[points], np.eye(3)[folds]])[lacking]
    left = noise[lacking] - design @ np.linalg.pinv(design) @ noise[lacking]
    variance, df = residual_variance(noise[lacking] + 9 * folds[lacking], points[lacking], folds[lacking])
    assert variance == pytest.approx(float((left**2).sum()) / 5)
    assert df == 5
