"""Main effects by least squares, and the edges that they name."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from irmas.results.comparison import Comparison, Estimate, Variance
from irmas.results.effects import Grid, Level, beyond_edge, main_effects

KEYS = ["dropout", "lr", "recipe"]
POINTS = [
    dict(zip(KEYS, values, strict=True))
    for values in itertools.product([0.5, 0.3, 0.4], [1e-3, 1e-4], ["strong", "report"])
]


def exact(settings: list[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([0.5 + point["dropout"] / 10 + (point["lr"] == 1e-3) * 0.03 for point in settings])


def noisy(accuracies: np.ndarray[Any, np.dtype[np.float64]], sd: float) -> Comparison:
    n = len(accuracies)
    return Comparison(accuracies, np.zeros((n, 9)), np.ones(n), np.ones(9), Variance(sd**2, 1000, 0.0))


def test_levels_of_a_full_grid_have_their_means() -> None:
    accuracies = np.random.default_rng(0).random(len(POINTS))
    dropout, lr, recipe = main_effects(Grid.of(POINTS, KEYS), accuracies, None)
    assert [level.value for level in dropout.levels] == [0.3, 0.4, 0.5]
    assert [level.value for level in recipe.levels] == ["strong", "report"]
    for effect in (dropout, lr, recipe):
        for level in effect.levels:
            own = [a for a, point in zip(accuracies, POINTS, strict=True) if point[effect.key] == level.value]
            assert level.accuracy == pytest.approx(np.mean(own))
        assert effect.p is None


def test_a_missing_point_changes_no_effect() -> None:
    """The plain mean of lr=0.0001 would rise by losing its worst point."""
    for left_out in range(len(POINTS)):
        rest = [point for number, point in enumerate(POINTS) if number != left_out]
        dropout, lr, recipe = main_effects(Grid.of(rest, KEYS), exact(rest), noisy(exact(rest), 0.001))
        assert [level.accuracy for level in dropout.levels] == pytest.approx([0.545, 0.555, 0.565])
        assert lr.best.value == 1e-3
        assert lr.levels[0].lead is not None
        assert lr.levels[0].lead.value == pytest.approx(0.03)
        assert lr.levels[0].is_behind
        assert (lr.p or 1) < 0.01
        assert not any(level.is_behind for level in recipe.levels)


def test_keys_that_the_points_cannot_distinguish_have_no_effect() -> None:
    """dropout and lr change together in these points."""
    some = [point for point in POINTS if (point["dropout"] == 0.3) == (point["lr"] == 1e-3) and point["dropout"] != 0.4]
    assert [effect.key for effect in main_effects(Grid.of(some, KEYS), exact(some), None)] == ["recipe"]


def test_values_drawn_at_random_are_no_grid() -> None:
    drawn = [{"lr": 1e-3 * (1 + number), "dropout": 0.3 + number % 2 / 10} for number in range(60)]
    assert [*Grid.of(drawn, ["lr", "dropout"]).levels] == ["dropout"]


def levels(*accuracies: float, values: tuple[float, ...] = (0.0001, 0.0005, 0.001), half: float = 0.01) -> list[Level]:
    leads = [max(accuracies) - accuracy for accuracy in accuracies]
    return [
        Level(value, accuracy, Estimate(lead, lead - half, lead + half))
        for value, accuracy, lead in zip(values, accuracies, leads, strict=True)
    ]


def test_an_edge_is_named_only_where_the_means_rise_towards_it() -> None:
    assert beyond_edge("lr", levels(0.5, 0.55, 0.6)) == 0.002
    assert (beyond_edge("lr", levels(0.6, 0.55, 0.5)) or 1) < 0.0001
    assert beyond_edge("lr", levels(0.5, 0.55, 0.6, half=0.2)) is None  # by chance
    assert beyond_edge("lr", levels(0.5, 0.6, 0.55)) is None  # inside
    assert beyond_edge("lr", levels(0.55, 0.5, 0.6)) is None  # no rise towards it
    assert beyond_edge("seed", levels(0.5, 0.55, 0.6, values=(0, 1, 2))) is None
    assert beyond_edge("data.fold", levels(0.5, 0.55, 0.6, values=(2, 3, 4))) is None


def test_one_of_two_values_is_always_higher() -> None:
    two = [{"l2": value} for value in (1e-3, 1e-4)]
    accuracies = np.array([0.60, 0.61])
    (unsure,) = main_effects(Grid.of(two, ["l2"]), accuracies, noisy(accuracies, 0.02))
    assert unsure.beyond is None
    (sure,) = main_effects(Grid.of(two, ["l2"]), accuracies, noisy(accuracies, 0.001))
    assert sure.beyond == 1e-5


def test_nothing_lies_beyond_what_a_setting_allows() -> None:
    assert beyond_edge("data.pool", levels(0.6, 0.55, 0.5, values=(1, 2, 3))) is None
    assert 0.9 < (beyond_edge("dropout", levels(0.5, 0.55, 0.6, values=(0.5, 0.7, 0.9))) or 0) < 1
