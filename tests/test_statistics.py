"""What is concluded from runs: against closed forms, brute force and least squares, and at its stated rates on
simulated sweeps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from irmas.results import anova, bootstrap, statistics
from irmas.results.bootstrap import Answers
from irmas.results.edges import find_edges
from irmas.results.statistics import Outcome, analyse

Array = NDArray[np.float64]

GRID = [
    {"dropout": dropout, "lr": lr, "l2": l2}
    for dropout, lr, l2 in itertools.product((0.3, 0.4, 0.5), (1e-3, 5e-4, 1e-4), (1e-3, 1e-4))
]
KEYS = ["dropout", "lr", "l2", "seed"]


def outcomes(correct: NDArray[np.bool_], values: Sequence[dict[str, Any]], per_recording: int = 1) -> list[Outcome]:
    """Runs 1, 2, ... from (runs, excerpts)."""
    n = correct.shape[1]
    names = np.array([f"excerpt {number:04d}" for number in range(n)])
    recordings = np.array([f"recording {number // per_recording:04d}" for number in range(n)])
    return [
        Outcome(number, its, float(row.mean()), None, Answers(row, names, recordings))
        for number, (its, row) in enumerate(zip(values, correct, strict=True), start=1)
    ]


def simulate(
    rng: np.random.Generator,
    points: Sequence[dict[str, Any]] = GRID,
    *,
    seeds: int = 1,
    excerpts: int = 150,
    training_sd: float = 0.0,
    seed_sd: float = 0.0,
    better: Array | float = 0.0,
) -> list[Outcome]:
    """Runs that are right in three of four excerpts, three to a recording, and `better` by that much.

    Excerpts and recordings have their difficulties, which all runs share; each run also has its own trouble with each
    recording and excerpt, and training makes it better or worse than its point, and each seed all points alike.
    """
    runs, recordings = len(points) * seeds, excerpts // 3
    total_sd = math.sqrt(0.6**2 + 1 + 0.3**2 + 1)
    cut = stats.norm.ppf(0.75) * total_sd
    slope = stats.norm.pdf(cut / total_sd) / total_sd
    shift = training_sd * rng.standard_normal(runs) + np.repeat(np.broadcast_to(better, len(points)), seeds)
    if seed_sd:
        shift += np.tile(seed_sd * rng.standard_normal(seeds), len(points))
    shift /= slope
    by_recording = 0.6 * rng.standard_normal(recordings) + 0.3 * rng.standard_normal((runs, recordings))
    by_excerpt = rng.standard_normal(excerpts) + rng.standard_normal((runs, excerpts))
    correct = np.repeat(by_recording, 3, axis=1) + by_excerpt + cut + shift[:, None] > 0
    return outcomes(correct, [{**point, "seed": seed} for point in points for seed in range(seeds)], per_recording=3)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 300)


# Points


def test_runs_that_differ_only_in_their_seed_are_one_point() -> None:
    values = [{"model.filters": filters, "seed": seed} for filters in ([8, 16], [8, 32]) for seed in (0, 1)]
    accuracies = [0.5, 0.75, 0.5, 1.0]
    runs = [
        Outcome(number, its, accuracy)
        for number, (its, accuracy) in enumerate(zip(values, accuracies, strict=True), start=1)
    ]
    points = analyse(runs, ["model.filters", "seed"]).points
    assert [(point.values, point.runs, point.accuracy, point.gap) for point in points] == [
        ({"model.filters": [8, 32]}, (3, 4), 0.75, 0),
        ({"model.filters": [8, 16]}, (1, 2), 0.625, 0.125),
    ]


def test_ties_go_to_the_lowest_run() -> None:
    accuracies = [0.2, 0.3, 0.1, 0.1, 0.2, 0.3, 0.3, 0.1, 0.2]  # plain sums of the three differ in the last bit
    runs = [
        Outcome(number, {"lr": number // 3, "seed": number % 3}, accuracy) for number, accuracy in enumerate(accuracies)
    ]
    assert [point.runs[0] for point in analyse(runs[::-1], ["lr", "seed"]).points] == [0, 3, 6]


def test_among_points_of_one_accuracy_the_smaller_loss_leads_as_in_the_ranking() -> None:
    losses = [0.8, 0.9, 0.7, 0.7, None]
    runs = [Outcome(number, {"lr": number}, 0.5, loss) for number, loss in enumerate(losses, start=1)]
    assert [point.runs[0] for point in analyse(runs, ["lr"]).points] == [3, 4, 1, 2, 5]


def test_the_same_runs_in_any_order_give_the_same_numbers() -> None:
    runs = simulate(np.random.default_rng(0), seeds=2)
    assert analyse(runs, KEYS) == analyse(runs, KEYS) == analyse(runs[::-1], KEYS)


def test_excerpts_are_paired_by_name() -> None:
    rng = np.random.default_rng(0)
    runs = simulate(rng)
    shuffled = []
    for run in runs:
        assert run.answers is not None
        order = rng.permutation(len(run.answers.correct))
        shuffled.append(replace(run, answers=Answers(*(array[order] for array in vars(run.answers).values()))))
    assert analyse(shuffled, KEYS) == analyse(runs, KEYS)


# Analysis of variance


def dummies(shape: Sequence[int], axes: Sequence[int]) -> Array:
    """(cells, combinations of the axes' levels): which one a cell has."""
    cells = np.indices(shape).reshape(len(shape), -1)
    code = np.ravel_multi_index([cells[axis] for axis in axes], [shape[axis] for axis in axes])
    return np.asarray(np.eye(code.max() + 1)[code])


def left_over(model: Sequence[Array], y: Array) -> float:
    design = np.hstack(model)
    return float(((y - design @ np.linalg.lstsq(design, y)[0]) ** 2).sum())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_sums_of_squares_are_those_of_least_squares(shape: list[int], runs: int, seed: int) -> None:
    y = np.random.default_rng(seed).random((math.prod(shape), runs))
    means = y.mean(axis=1)
    within = float(((y - means[:, None]) ** 2).sum()), means.size * (runs - 1)
    table = anova.complete([str(axis) for axis in range(len(shape))], means.reshape(shape), runs, (0.0, 0), within)
    model = [np.ones((y.size, 1))]
    for effect in table.effects:
        before = left_over(model, y.ravel())
        model.append(np.repeat(dummies(shape, [int(key) for key in effect.keys]), runs, axis=0))
        assert effect.variation.sum_of_squares == pytest.approx(before - left_over(model, y.ravel()))
    assert table.residual is not None
    cells = [np.repeat(np.eye(means.size), runs, axis=0)]
    assert table.residual.sum_of_squares == pytest.approx(left_over(model, y.ravel()) - left_over(cells, y.ravel()))
    rank = int(np.linalg.matrix_rank(np.hstack(model)))
    assert table.residual.df == means.size - rank
    assert sum(effect.variation.df for effect in table.effects) == rank - 1
    error = table.seeds or table.residual
    assert table.error == ("seeds" if runs > 1 else "residual" if table.residual.df else "")
    for effect in table.effects if table.error else ():
        mean_square = effect.variation.sum_of_squares / effect.variation.df
        assert effect.f == pytest.approx(mean_square / (error.sum_of_squares / error.df))
        assert effect.p == pytest.approx(stats.f.sf(effect.f, effect.variation.df, error.df))
    rows = [*(effect.variation for effect in table.effects), table.residual, *([table.seeds] if table.seeds else [])]
    assert sum(row.sum_of_squares for row in rows) == pytest.approx(((y - y.mean()) ** 2).sum())
    assert sum(row.share for row in rows) == pytest.approx(1)


def test_a_two_by_two_table_worked_by_hand() -> None:
    # Means 2 5 | 4 11 of two runs each, 1 above and below: main effects 16, 25; interaction 4; times two runs.
    table = anova.complete(["a", "b"], np.array([[2.0, 5.0], [4.0, 11.0]]), 2, (0.0, 0), (8.0, 4))
    assert [(effect.keys, effect.variation.sum_of_squares, effect.f) for effect in table.effects] == [
        (("a",), 32, 16),
        (("b",), 50, 25),
        (("a", "b"), 8, 4),
    ]
    ps = [float(stats.f.sf(f, 1, 4)) for f in (16, 25, 4)]
    assert [effect.p for effect in table.effects] == pytest.approx(ps)
    assert [effect.p_holm for effect in table.effects] == pytest.approx([2 * ps[0], 3 * ps[1], ps[2]])
    assert [effect.variation.share for effect in table.effects] == pytest.approx([32 / 98, 50 / 98, 8 / 98])
    assert (table.error, table.seeds) == ("seeds", anova.Variation(8.0, 4, 8 / 98))


def test_holm_steps_down_and_keeps_the_order() -> None:
    assert anova.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert anova.holm([0.5, 0.6]) == [1, 1]


def only_accuracies(points: Sequence[dict[str, Any]], accuracies: Sequence[float]) -> list[Outcome]:
    return [
        Outcome(number, values, accuracy)
        for number, (values, accuracy) in enumerate(zip(points, accuracies, strict=True), start=1)
    ]


def test_without_anything_left_to_test_against_there_is_no_f() -> None:
    two_keys = [{"lr": lr, "l2": l2} for lr in (1, 2) for l2 in (1, 2)]
    table = analyse(only_accuracies(two_keys, [0.1, 0.2, 0.4, 0.3]), ["lr", "l2"]).anova
    assert [(effect.f, effect.p, effect.p_holm) for effect in table.effects] == [(None, None, None)] * 3
    assert (table.is_complete, table.error) == (True, "")
    equal = analyse(only_accuracies(GRID, [0.4] * 18), KEYS[:3])
    assert {effect.f for effect in equal.anova.effects} == {None}
    assert equal.training_noise is None  # that nothing varies is no estimate


def test_unequal_numbers_of_seeds_count_as_their_harmonic_mean() -> None:
    # Means 2 5 | 4 11, worked by hand above, now of 1 1 | 2 2 runs: 4 / (1 + 1 + 1/2 + 1/2) each.
    cells = [(1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 1, 1), (2, 2, 0), (2, 2, 1)]
    values = [{"lr": lr, "l2": l2, "seed": seed} for lr, l2, seed in cells]
    table = analyse(only_accuracies(values, [0.02, 0.05, 0.03, 0.05, 0.1, 0.12]), ["lr", "l2", "seed"]).anova
    squares = [effect.variation.sum_of_squares for effect in table.effects]
    assert squares == pytest.approx([16e-4 * 4 / 3, 25e-4 * 4 / 3, 4e-4 * 4 / 3])
    assert [effect.f for effect in table.effects] == pytest.approx([16 * 2 / 3, 25 * 2 / 3, 4 * 2 / 3])


def test_an_incomplete_grid_has_marginal_means_alone() -> None:
    points = [{"lr": 0.1, "model": "report", "l2": 0}, {"lr": 0.2, "model": "report", "l2": 0}]
    points.append({"lr": 0.1, "model": "deep", "l2": 0})
    found = analyse(only_accuracies(points, [0.5, 0.25, 0.75]), ["lr", "model", "l2"])
    assert (found.anova.is_complete, found.anova.effects, found.training_noise) == (False, (), None)
    assert [
        (margin.key, [(level.value, level.accuracy, level.gap, level.runs) for level in margin.levels])
        for margin in found.margins
    ] == [
        ("lr", [(0.1, 0.625, 0, 2), (0.2, 0.25, 0.375, 1)]),
        ("model", [("report", 0.375, 0.375, 2), ("deep", 0.75, 0, 1)]),
    ]


def test_values_of_which_no_run_finished_count_as_swept() -> None:
    planned = [{"lr": lr, "l2": l2, "seed": seed} for lr in (0.001, 0.01, 0.1) for l2 in (0.1, 0.2) for seed in (0, 1)]
    found = analyse(only_accuracies([planned[0], planned[2]], [0.75, 0.5]), ["lr", "l2", "seed"], planned)
    assert found.combinations == 6
    assert [(edge.key, edge.levels, edge.side) for edge in found.edges] == [
        ("lr", (0.001, 0.01, 0.1), "smallest"),
        ("l2", (0.1, 0.2), "smallest"),
    ]


def test_training_noise_is_the_spread_within_points_or_what_interactions_leave() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(18)
    noise = analyse(only_accuracies(GRID, y.tolist()), KEYS[:3]).training_noise
    assert noise is not None
    axes = [[0], [1], [2], [0, 1], [0, 2], [1, 2]]
    residual = left_over([dummies((3, 3, 2), effect) for effect in axes], y)
    assert noise.sd == pytest.approx(math.sqrt(residual / 4))
    assert (noise.df, noise.source) == (4, "residual")

    seeds = [{"lr": lr, "seed": seed} for lr, seed in [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0)]]
    noise = analyse(only_accuracies(seeds, [0.1, 0.3, 0.2, 0.5, 0.8, 0.9]), ["lr", "seed"]).training_noise
    assert noise is not None
    assert noise.sd == pytest.approx(math.sqrt((0.02 + 0.18) / 3))
    assert (noise.df, noise.source) == (3, "seeds")


# Intervals


def cluster_se(correct: Array, per_recording: int) -> float:
    """Of a mean, robust to correlation within recordings, with the small-sample factor n / (n - 1)."""
    sums = (correct - correct.mean()).reshape(-1, per_recording).sum(axis=1)
    return math.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(correct)


def rights(run: Outcome) -> Array:
    assert run.answers is not None
    return run.answers.correct.astype(float)


def test_intervals_are_those_of_the_cluster_robust_standard_error() -> None:
    runs = simulate(np.random.default_rng(0), [{"lr": 1}, {"lr": 2}], excerpts=300)
    found = analyse(runs, ["lr"])
    t = stats.t.ppf(0.975, 99)
    for point in found.points:
        assert point.interval is not None
        half = t * cluster_se(rights(runs[point.runs[0] - 1]), 3)
        assert point.interval.low == pytest.approx(point.accuracy - half, abs=0.1 * half)
        assert point.interval.high == pytest.approx(point.accuracy + half, abs=0.1 * half)
    ahead, behind = found.points
    difference = rights(runs[ahead.runs[0] - 1]) - rights(runs[behind.runs[0] - 1])
    half = t * cluster_se(difference, 3)
    assert behind.gap_interval is not None
    assert behind.gap_interval.low == pytest.approx(behind.gap - half, abs=0.1 * half)
    assert behind.gap_interval.high == pytest.approx(behind.gap + half, abs=0.1 * half)
    assert found.threshold == pytest.approx(half, rel=0.1)
    margin = found.margins[0].levels[behind.values["lr"] - 1]
    assert margin.gap_interval is not None
    assert margin.gap_interval.high - margin.gap == pytest.approx(half, rel=0.1)


def test_an_interval_stays_between_0_and_1() -> None:
    correct = np.ones((1, 20), dtype=bool)
    correct[0, 0] = False
    (point,) = analyse(outcomes(correct, [{}]), []).points
    assert point.interval is not None
    assert 0 < point.interval.low < 0.95
    assert point.interval.high == 1


def test_an_interval_of_few_recordings_is_as_wide_as_students(few_resamples: None) -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(60):
        (run,) = simulate(rng, [{}], excerpts=24)
        interval = analyse([run], []).points[0].interval
        assert interval is not None
        if interval.high < 1:
            ratios.append((interval.high - interval.low) / (2 * stats.t.ppf(0.975, 7) * cluster_se(rights(run), 3)))
    assert len(ratios) > 20
    assert np.mean(ratios) == pytest.approx(1, abs=0.07)


def test_an_interval_of_few_recordings_covers_the_truth_at_its_rate(few_resamples: None) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        (point,) = analyse(simulate(rng, [{}], excerpts=36), []).points
        assert point.interval is not None
        covered += point.interval.low <= 0.75 <= point.interval.high
    assert 0.92 <= covered / 300 <= 0.98


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_points_interval_covers_the_truth_with_several_seeds(seeds: int, few_resamples: None) -> None:
    rng = np.random.default_rng(seeds)
    covered = []
    for _ in range(60):
        found = analyse(simulate(rng, GRID[:3], seeds=seeds, training_sd=0.05), KEYS)
        assert found.intervals_hold_training_noise
        covered += [p.interval.low <= 0.75 <= p.interval.high for p in found.points if p.interval]
    assert 0.91 <= np.mean(covered) <= 0.985


@pytest.mark.parametrize("seed_sd", [0.03, 0.1])
def test_intervals_of_accuracies_hold_what_a_seed_does_to_all_points_alike(seed_sd: float, few_resamples: None) -> None:
    rng = np.random.default_rng(0)
    points, levels = [], []
    for _ in range(300):
        seeds = 0.75 + seed_sd * rng.standard_normal(3)
        values = [{**point, "seed": seed} for point in GRID[:9] for seed in range(3)]
        found = analyse(
            with_training_noise_alone(values, (np.tile(seeds, 9) + 0.02 * rng.standard_normal(27)).tolist()), KEYS
        )
        points += [point.interval for point in found.points]
        levels += [level.interval for level in found.margins[0].levels]
    for intervals in (points, levels):
        assert 0.9 <= np.mean([found.low <= 0.75 <= found.high for found in intervals if found]) <= 0.98


def with_training_noise_alone(values: Sequence[dict[str, Any]], accuracies: Sequence[float]) -> list[Outcome]:
    """All are right everywhere, so that no excerpts matter, whatever the accuracies are said to be."""
    runs = outcomes(np.ones((len(values), 20), dtype=bool), values)
    return [replace(run, accuracy=accuracy) for run, accuracy in zip(runs, accuracies, strict=True)]


def test_with_one_seed_intervals_leave_training_noise_out_and_the_set_does_not() -> None:
    accuracies = (0.7 + 0.01 * np.random.default_rng(0).standard_normal(18)).tolist()
    found = analyse(with_training_noise_alone(GRID, accuracies), KEYS[:3])
    assert found.training_noise is not None
    assert not found.intervals_hold_training_noise
    assert [point.interval for point in found.points] == [
        bootstrap.Interval(p.accuracy, p.accuracy) for p in found.points
    ]
    by_training = stats.studentized_range.ppf(0.95, 18, 4) * found.training_noise.sd
    assert found.threshold == pytest.approx(by_training, rel=0.1)


def test_excerpts_that_are_all_right_or_all_wrong_tell_no_interval() -> None:
    correct = np.array([[True] * 30, [False] * 30, [True] * 29 + [False]])
    found = analyse(outcomes(correct, [{"lr": 1}, {"lr": 2}, {"lr": 3}], per_recording=3), ["lr"])
    assert [(point.accuracy, point.interval is None) for point in found.points] == [
        (1, True),
        (pytest.approx(29 / 30), False),
        (0, True),
    ]


def test_levels_are_compared_over_all_keys_at_once() -> None:
    values = [{**point, "seed": seed} for point in GRID for seed in range(3)]
    accuracies = (0.7 + 0.01 * np.random.default_rng(0).standard_normal(54)).tolist()
    found = analyse(with_training_noise_alone(values, accuracies), KEYS)
    assert found.training_noise is not None
    for margin, n_levels in zip(found.margins, (3, 3, 2), strict=True):
        sd = found.training_noise.sd / math.sqrt(54 / n_levels)
        half = stats.studentized_range.ppf(1 - 0.05 / 3, n_levels, 36) * sd
        for level in margin.levels:
            assert level.gap_interval is not None
            if level.gap == 0:
                assert level.gap_interval == bootstrap.Interval(0, 0)
            else:
                assert level.gap_interval.low == pytest.approx(level.gap - half, abs=0.07 * half)
                assert level.gap_interval.high == pytest.approx(level.gap + half, abs=0.07 * half)


def test_what_a_seed_does_to_all_points_alike_is_no_noise_of_comparisons() -> None:
    rng = np.random.default_rng(0)
    y = 0.7 + 0.01 * rng.standard_normal((18, 3)) + np.array([0.1, 0, -0.1])
    values = [{**point, "seed": seed} for point in GRID for seed in range(3)]
    found = analyse(with_training_noise_alone(values, y.ravel().tolist()), KEYS)
    cells, seeds = np.repeat(np.eye(18), 3, axis=0), np.tile(np.eye(3), (18, 1))
    left, within = left_over([cells, seeds], y.ravel()), left_over([cells], y.ravel())
    assert found.anova.blocks is not None
    assert found.anova.seeds is not None
    assert (found.anova.blocks.df, found.anova.seeds.df) == (2, 34)
    assert found.anova.blocks.sum_of_squares == pytest.approx(within - left)
    assert found.anova.seeds.sum_of_squares == pytest.approx(left)
    shares = [effect.variation.share for effect in found.anova.effects]
    assert found.anova.residual is not None
    rest = found.anova.residual.share + found.anova.blocks.share + found.anova.seeds.share
    assert sum(shares) + rest == pytest.approx(1)
    assert found.training_noise is not None
    assert found.training_noise.sd == pytest.approx(math.sqrt(left / 34))
    assert found.training_noise.df == 34
    by_training = stats.studentized_range.ppf(0.95, 18, 34) * found.training_noise.sd / math.sqrt(3)
    assert found.threshold == pytest.approx(by_training, rel=0.05)


@pytest.mark.parametrize("missing", [[], [(0.1, 1), (0.2, 2)], [(0.1, 1)]], ids=["few", "other seeds", "a seed less"])
def test_seeds_are_no_blocks_where_the_table_is_not_complete_or_too_small(missing: list[tuple[float, int]]) -> None:
    table = [(lr, seed) for lr in (0.1, 0.2) + (0.3, 0.4) * bool(missing) for seed in range(4 if missing else 3)]
    values = [{"lr": lr, "seed": seed} for lr, seed in table if (lr, seed) not in missing]
    accuracies = (0.7 + 0.01 * np.random.default_rng(0).standard_normal(len(values))).tolist()
    found = analyse(only_accuracies(values, accuracies), ["lr", "seed"])
    assert found.anova.blocks is None
    assert found.training_noise is not None
    assert found.training_noise.df == len(values) - len(found.points)


def test_the_order_of_seeds_among_the_runs_changes_nothing() -> None:
    y = np.random.default_rng(0).random((5, 3))
    values = [{"lr": lr, "seed": seed} for lr in range(5) for seed in range(3)]
    turned = sorted(zip(values, y.ravel().tolist(), strict=True), key=lambda run: run[0]["seed"] * (-1) ** run[0]["lr"])
    one = analyse(only_accuracies(values, y.ravel().tolist()), ["lr", "seed"])
    other = analyse(only_accuracies(*map(list, zip(*turned, strict=True))), ["lr", "seed"])
    assert one.anova.blocks is not None
    assert other.anova.blocks is not None
    assert other.anova.blocks.sum_of_squares == pytest.approx(one.anova.blocks.sum_of_squares)


# The set of the best


def test_the_threshold_is_the_studentized_range_where_that_holds() -> None:
    points = [{"lr": number} for number in range(18)]
    rng = np.random.default_rng(0)
    runs = outcomes(rng.random((18, 400)) < 0.7, points)  # independent, so that the standard error of each is known
    by_excerpts = stats.studentized_range.ppf(0.95, 18, np.inf) * math.sqrt(0.21 / 400)
    assert analyse(runs, ["lr"]).threshold == pytest.approx(by_excerpts, rel=0.05)

    seeds = [{**point, "seed": seed} for point in points for seed in range(3)]
    runs = with_training_noise_alone(seeds, (0.7 + 0.01 * rng.standard_normal(54)).tolist())
    found = analyse(runs, ["lr", "seed"])
    assert found.training_noise is not None
    by_training = stats.studentized_range.ppf(0.95, 18, 36) * found.training_noise.sd / math.sqrt(3)
    assert found.threshold == pytest.approx(by_training, rel=0.05)


def test_with_unequal_numbers_of_seeds_each_point_has_its_own_noise() -> None:
    values = [{"lr": 1, "seed": seed} for seed in range(9)] + [{"lr": 2, "seed": 0}]
    accuracies = [*np.linspace(0.6, 0.7, 9), 0.64]
    runs = with_training_noise_alone(values, accuracies)
    found = analyse(runs, ["lr", "seed"])
    assert found.training_noise is not None
    half = stats.t.ppf(0.975, 8) * found.training_noise.sd * math.sqrt(1 + 1 / 9)
    assert found.threshold == pytest.approx(half, rel=0.07)
    assert [point.runs for point in found.points] == [tuple(range(1, 10)), (10,)]
    for point in found.points:
        assert point.interval is not None
        own = stats.t.ppf(0.975, 8) * found.training_noise.sd / math.sqrt(len(point.runs))
        assert (point.interval.high - point.interval.low) / 2 == pytest.approx(own, rel=0.07)


@pytest.mark.parametrize(
    ("seeds", "training_sd", "seed_sd"), [(1, 0.03, 0), (3, 0.01, 0), (3, 0.03, 0), (3, 0.01, 0.05)]
)
def test_equal_points_are_declared_worse_in_5_percent_of_sweeps(
    seeds: int, training_sd: float, seed_sd: float, few_resamples: None
) -> None:
    rng = np.random.default_rng(seeds)
    n = 100
    sweeps = [analyse(simulate(rng, seeds=seeds, training_sd=training_sd, seed_sd=seed_sd), KEYS) for _ in range(n)]
    most = stats.binom.ppf(0.999, n, 0.055)
    assert sum(any(not point.in_set for point in found.points) for found in sweeps) <= most
    assert sum(any(level.holds for margin in found.margins for level in margin.levels) for found in sweeps) <= most
    effects = [[effect.p_holm for effect in found.anova.effects] for found in sweeps]
    assert sum(any(p is not None and p < 0.05 for p in ps) for ps in effects) <= most
    assert all(found.intervals_hold_training_noise == (seeds > 1) for found in sweeps)


def test_two_equal_points_are_told_apart_in_5_percent_of_sweeps(few_resamples: None) -> None:
    rng = np.random.default_rng(0)
    pairs = [analyse(simulate(rng, [{"lr": 1}, {"lr": 2}]), ["lr"]) for _ in range(200)]
    apart = sum(not found.points[1].in_set for found in pairs)
    assert stats.binom.ppf(0.001, 200, 0.045) <= apart <= stats.binom.ppf(0.999, 200, 0.055)


def test_a_point_that_is_better_is_found(few_resamples: None) -> None:
    rng = np.random.default_rng(0)
    better = np.where(np.arange(18) == 7, 0.12, 0.0)
    sweeps = [analyse(simulate(rng, seeds=3, training_sd=0.01, excerpts=300, better=better), KEYS) for _ in range(20)]
    in_set = [[point.runs for point in found.points if point.in_set] for found in sweeps]
    assert all(found.points[0].runs == (22, 23, 24) for found in sweeps)
    assert sum(runs == [(22, 23, 24)] for runs in in_set) >= 16
    assert all(point.holds for found in sweeps for point in found.points[1:])


def test_a_point_that_is_better_is_found_among_seeds_that_help_and_harm_all_points(
    few_resamples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    better = np.where(np.arange(18) == 7, 0.12, 0.0)
    sweeps = [simulate(rng, seeds=3, training_sd=0.01, excerpts=300, seed_sd=0.05, better=better) for _ in range(20)]

    def alone() -> int:
        return sum(sum(point.in_set is True for point in analyse(sweep, KEYS).points) == 1 for sweep in sweeps)

    assert alone() >= 10
    monkeypatch.setattr(statistics, "FEWEST_DF", math.inf)
    assert alone() <= 2


def test_a_key_that_matters_is_found_with_one_seed(few_resamples: None) -> None:
    rng = np.random.default_rng(0)
    better = np.array([-0.15 if point["lr"] == 1e-4 else 0.0 for point in GRID])
    sweeps = [analyse(simulate(rng, training_sd=0.01, excerpts=600, better=better), KEYS) for _ in range(20)]
    held = [[level.holds for level in found.margins[1].levels] for found in sweeps]
    assert all(found.margins[1].levels[0].value == 1e-4 for found in sweeps)
    assert sum(levels == [True, False, False] for levels in held) >= 16
    ps = [found.anova.effects[1].p_holm for found in sweeps]
    assert sum(p is not None and p < 0.05 for p in ps) >= 16


# Chosen for being the best


def rows_and_weights() -> tuple[bootstrap.Rows, Array]:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((40, 30)) / 1000
    return bootstrap.Rows(0.7 + 0.01 * rng.random(40), scores, np.ones(40)), bootstrap.resample(
        rng.integers(1, 9, 30).astype(float)
    )


def test_optimism_luck_and_threshold_by_brute_force(few_resamples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weights = rows_and_weights()
    optimism, luck, ranges = [], [], []
    for weight in weights:
        noise = rows.scores @ weight
        optimism.append(noise[np.argmax(rows.accuracies + noise)])
        luck.append(noise.max())
        ranges.append(noise.max() - noise.min())
    for chunk in (7, 40, 256):
        monkeypatch.setattr(bootstrap, "CHUNK", chunk)
        found = bootstrap.spread(rows, weights, bootstrap.NO_NOISE)
        assert found.optimism == pytest.approx(np.mean(optimism))
        assert found.luck == pytest.approx(np.mean(luck))
        assert found.threshold == pytest.approx(np.quantile(ranges, 0.95))


def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weights = rows_and_weights()
    draws = bootstrap.draw_sd(0.01**2, 5, 0.0)
    noise = bootstrap.Noise(0.01, draws, np.array([draws * row for row in range(len(rows.accuracies))]))
    whole = bootstrap.spread(rows, weights, noise)
    monkeypatch.setattr(bootstrap, "CHUNK", 7)
    parts = bootstrap.spread(rows, weights, noise)
    assert [parts.threshold, parts.optimism, parts.luck] == pytest.approx([whole.threshold, whole.optimism, whole.luck])
    for some, all_ in ((parts.intervals, whole.intervals), (parts.gaps, whole.gaps)):
        assert [end for i in some for end in (i.low, i.high)] == pytest.approx(
            [e for i in all_ for e in (i.low, i.high)]
        )


@pytest.mark.parametrize("training_sd", [0.0, 0.05])
def test_luck_is_the_expected_maximum_and_counts_no_noise_twice(training_sd: float) -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(10):
        found = analyse(simulate(rng, GRID[:9], seeds=6, training_sd=training_sd), KEYS)
        assert found.training_noise is not None
        assert found.luck is not None
        ratios.append(found.luck / (1.485 * found.training_noise.sd / math.sqrt(6)))  # 1.485: of nine standard normals
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)


def test_optimism_of_equal_points_is_the_documented_share_of_the_truth(few_resamples: None) -> None:
    rng = np.random.default_rng(0)
    found = [analyse(simulate(rng, [{"lr": number} for number in range(18)]), ["lr"]) for _ in range(60)]
    truth = np.mean([analysis.points[0].accuracy - 0.75 for analysis in found])
    assert np.mean([analysis.luck for analysis in found if analysis.luck]) == pytest.approx(truth, rel=0.2)
    assert np.mean([analysis.optimism for analysis in found if analysis.optimism]) == pytest.approx(
        0.7 * truth, rel=0.2
    )


# What cannot be paired


def without_predictions(run: Outcome) -> Outcome:
    return replace(run, answers=None)


def test_a_run_without_predictions_is_left_out_of_the_comparison_alone() -> None:
    runs = simulate(np.random.default_rng(0))
    last = analyse(runs, KEYS).points[-1].runs[0]
    found = analyse([without_predictions(run) if run.id == last else run for run in runs], KEYS)
    *others, point = found.points
    assert (point.interval, point.gap_interval, point.holds, point.in_set) == (None, None, None, None)
    assert all(other.interval and other.gap_interval and other.in_set is not None for other in others)
    assert (found.excerpts, found.recordings) == (150, 50)
    assert found.unpaired == "Of 18 runs, 1 without predictions cannot be paired with the leader."
    assert found.anova.is_complete
    assert all(level.interval is None for margin in found.margins for level in margin.levels)


def test_without_the_leaders_predictions_nothing_is_compared() -> None:
    runs = simulate(np.random.default_rng(0))
    first = analyse(runs, KEYS).points[0].runs[0]
    found = analyse([without_predictions(run) if run.id == first else run for run in runs], KEYS)
    assert found.unpaired == f"The leader (run {first}) lacks predictions: nothing can be paired with it."
    assert (found.threshold, found.optimism, found.luck, found.excerpts) == (None, None, None, 0)
    assert [point.interval is not None for point in found.points] == [False] + [True] * 17
    assert {point.in_set for point in found.points} == {None}


def test_other_folds_have_intervals_of_their_own_and_no_comparison() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for fold in (0, 1):
        for run in simulate(rng, GRID[:3]):
            assert run.answers is not None
            answers = replace(run.answers, excerpts=np.char.add(f"{fold} ", run.answers.excerpts))
            runs.append(replace(run, id=3 * fold + run.id, values={**run.values, "data.fold": fold}, answers=answers))
    found = analyse(runs, [*KEYS, "data.fold"])
    fold_of_leader = found.points[0].values["data.fold"]
    assert found.unpaired == "Of 6 runs, 3 validated on other excerpts cannot be paired with the leader."
    assert all((point.in_set is not None) == (point.values["data.fold"] == fold_of_leader) for point in found.points)
    assert all(point.interval for point in found.points)
    assert "data.fold" not in {edge.key for edge in found.edges}


def test_excerpts_of_other_recordings_are_other_excerpts() -> None:
    first, second = simulate(np.random.default_rng(0), [{"lr": 1}, {"lr": 2}])
    assert second.answers is not None
    answers = replace(second.answers, recordings=np.roll(second.answers.recordings, 1))
    found = analyse([first, replace(second, answers=answers)], ["lr"])
    assert [point.in_set for point in found.points] == [True, None]


def test_a_single_recording_cannot_be_resampled() -> None:
    rng = np.random.default_rng(0)
    found = analyse(outcomes(rng.random((2, 30)) < 0.5, [{"lr": 1}, {"lr": 2}], per_recording=30), ["lr"])
    assert "single recording" in found.unpaired
    assert [point.interval for point in found.points] == [None, None]


def test_one_run_alone() -> None:
    found = analyse(simulate(np.random.default_rng(0), [{}]), [])
    assert (found.threshold, found.margins, found.edges, found.training_noise) == (0, (), (), None)
    assert (found.points[0].in_set, found.anova.is_complete, found.anova.effects) == (True, True, ())


def test_without_an_estimate_of_training_noise_nothing_is_said_to_hold() -> None:
    found = analyse(simulate(np.random.default_rng(0), GRID[:17], better=np.linspace(0, 0.2, 17)), KEYS)
    assert not found.anova.is_complete
    assert found.training_noise is None
    assert any(point.in_set is False for point in found.points)
    assert {point.holds for point in found.points} == {None}
    assert {level.holds for margin in found.margins for level in margin.levels} == {None}


# The edge


@pytest.mark.parametrize(
    ("key", "levels", "leader", "side", "beyond"),
    [
        ("lr", (1e-4, 5e-4, 1e-3), 1e-3, "largest", 2e-3),
        ("lr", (1e-4, 5e-4, 1e-3), 1e-4, "smallest", 2e-5),
        ("lr", (1e-4, 5e-4, 1e-3), 5e-4, "", None),
        ("lr", (1e-4, 3e-4, 1e-3), 1e-3, "largest", 3e-3),
        ("l2", (1e-4, 1e-3), 1e-4, "smallest", 1e-5),
        ("l2", (1e-4, 1e-3), 1e-3, "largest", 1e-2),
        ("lr", (1e-4, 1.2e-3), 1.2e-3, "largest", 1.4e-2),
        ("l2", (0, 1e-4, 1e-3), 1e-3, "largest", 1e-2),
        ("l2", (0, 1e-4, 1e-3), 0, "smallest", None),
        ("dropout", (0.3, 0.4, 0.5), 0.5, "largest", 0.6),
        ("dropout", (0.3, 0.4, 0.5), 0.3, "smallest", 0.2),
        ("dropout", (0.3, 0.4, 0.5), 0.4, "", None),
        ("dropout", (0.05, 0.1), 0.1, "largest", 0.15),
        ("dropout", (0.1, 0.3, 0.5), 0.1, "smallest", 0.0),
        ("dropout", (0.7, 0.8, 0.9), 0.9, "largest", 0.95),
        ("dropout", (0.0, 0.1), 0.0, "smallest", None),
        ("batch_size", (16, 32, 64), 64, "largest", 128),
        ("batch_size", (2, 4, 8), 2, "smallest", None),
        ("epochs", (10, 15, 20), 20, "largest", 25),
    ],
)
def test_what_to_sweep_beyond_an_edge(
    key: str, levels: tuple[float, ...], leader: float, side: str, beyond: float | None
) -> None:
    (edge,) = find_edges({key: leader}, {key: levels})
    assert (edge.value, edge.levels, edge.side, edge.beyond) == (leader, levels, side, beyond)


def test_only_numbers_have_an_edge() -> None:
    points: list[dict[str, Any]] = [
        {"class_weights": weights, "schedule": schedule, "data.pool": pool, "data.seed": seed, "lr": 0.1}
        for weights, schedule, pool, seed in [
            (True, "constant", 4, 0),
            (False, "plateau", 2, 1),
            (True, "onecycle", 1, 2),
        ]
    ]
    (edge,) = analyse(only_accuracies(points, [0.1, 0.2, 0.3]), list(points[0])).edges
    assert (edge.key, edge.levels, edge.side, edge.beyond) == ("data.pool", (1, 2, 4), "smallest", None)
