"""The accuracy of points without their luck."""

from __future__ import annotations

import numpy as np
import pytest

from irmas.results.comparison import Comparison, Variance
from irmas.results.effects import Grid
from irmas.results.posterior import Posterior, posterior

GRID = [{"lr": lr, "dropout": dropout} for lr in (1, 2, 3) for dropout in (1, 2, 3, 4)]


def posterior_of(accuracies: list[float], sd: float, settings: list[dict[str, int]] = GRID, runs: int = 1) -> Posterior:
    """Return the posterior under training noise alone, the leader first."""
    order = np.argsort(-np.array(accuracies), kind="stable")
    n = len(order)
    seen = Comparison(
        np.array(accuracies)[order], np.zeros((n, 9)), np.full(n, runs), np.ones(9), Variance(sd**2, 100, 0.0)
    )
    return posterior(seen, Grid.of(settings, ["lr", "dropout"]).take(order.tolist()))


def test_the_best_of_equal_points_owes_its_height_to_luck() -> None:
    rng = np.random.default_rng(0)
    raw, honest = [], []
    for _ in range(20):
        accuracies = (0.5 + 0.02 * rng.standard_normal(len(GRID))).tolist()
        raw.append(max(accuracies) - 0.5)
        honest.append(posterior_of(accuracies, 0.02).leader.value - 0.5)
    assert np.mean(raw) > 0.025
    assert abs(np.mean(honest)) < 0.4 * np.mean(raw)


def test_a_point_that_stands_out_is_left_where_it_is() -> None:
    accuracies = [0.5 + 0.002 * (number % 3) for number in range(len(GRID))]
    accuracies[5] = 0.56
    kept = posterior_of(accuracies, 0.005)
    assert kept.leader.value == pytest.approx(0.56, abs=0.003)
    assert kept.p_best[0] > 0.99
    assert kept.expected_loss[0] < 1e-4


def test_main_effects_pull_a_point_to_where_its_levels_are() -> None:
    """The last lr is 4 points better everywhere; a point of it that fell behind is still believed to be good."""
    accuracies = [0.5 + 0.04 * (point["lr"] == 3) for point in GRID]
    accuracies[8] -= 0.03
    believed = posterior_of(accuracies, 0.02)
    last = believed.expected_loss[-8:]
    fallen = believed.expected_loss[3]  # the fourth, since the three others of its lr lead
    assert fallen < min(last)


def test_more_runs_are_believed_more() -> None:
    accuracies = [0.5] * 11 + [0.54]
    values = [posterior_of(accuracies, 0.02, runs=runs).leader.value for runs in (1, 3, 30)]
    assert values == sorted(values)
    assert values[0] < 0.53
    assert values[2] > 0.537


def test_probabilities_and_losses() -> None:
    rng = np.random.default_rng(3)
    accuracies = (0.5 + 0.03 * rng.standard_normal(len(GRID))).tolist()
    believed = posterior_of(accuracies, 0.01)
    assert sum(believed.p_best) == pytest.approx(1)
    assert min(believed.expected_loss) >= 0
    assert believed == posterior_of(accuracies, 0.01)
    assert believed.leader.low < believed.leader.value < believed.leader.high


def test_points_of_one_key_of_none_and_of_no_full_grid() -> None:
    line = [{"lr": lr, "dropout": 1} for lr in range(4)]
    assert posterior_of([0.5, 0.52, 0.51, 0.6], 0.01, line).p_best[0] > 0.9
    alone = posterior_of([0.5], 0.01, line[:1])
    assert alone.p_best == [1.0]
    assert alone.leader.value == pytest.approx(0.5, abs=0.002)
    assert (alone.leader.high - alone.leader.low) / 2 == pytest.approx(0.0196, rel=0.1)
    assert len(posterior_of([0.5 + number / 1000 for number in range(7)], 0.01, GRID[:7]).p_best) == 7


def test_what_recordings_do_to_all_points_alike_widens_the_leader_alone() -> None:
    rng = np.random.default_rng(0)
    scores = np.tile(rng.standard_normal(300) / 300, (4, 1))
    scores -= scores.mean(axis=1, keepdims=True)
    settings = Grid.of([{"lr": lr} for lr in range(4)], ["lr"])
    tiny = Variance(1e-6, 100, 0.0)
    seen = Comparison(np.array([0.56, 0.5, 0.5, 0.5]), scores, np.ones(4), np.ones(300), tiny)
    believed = posterior(seen, settings)
    assert believed.p_best[0] == 1
    width = float(np.sqrt(300 / 299 * (scores[0] ** 2).sum()))
    assert (believed.leader.high - believed.leader.low) / 2 == pytest.approx(1.97 * width, rel=0.1)
