"""Sweeps over continuous values: which keys matter, how the report says it, and the pictures."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import REPORT, listed, simulated, write_run
from forked_commands import Commands
from PIL import Image

from irmas.cli.draw import Listed, draw
from irmas.results import importances, plots, ranking, report, search_plots
from irmas.results.analysis import Analysis
from irmas.results.ranking import Ranking
from irmas.sweep.adaptive import Interval
from irmas.sweep.sweep import Sweep

SPACE = {"lr": "tag(log,interval(1e-4,1e-2))", "dropout": "interval(0.1,0.6)", "schedule": "constant,plateau"}


def search(points: int) -> tuple[Ranking, Analysis]:
    """Return a search in which lr matters, schedule a little, and dropout does not."""
    space: Mapping[str, Interval | Listed] = {
        "lr": Interval(1e-4, 1e-2, is_log=True, is_whole=False),
        "dropout": Interval(0.1, 0.6, is_log=False, is_whole=False),
        "schedule": Listed(["constant", "plateau"]),
    }
    drawn = [
        {"lr": float(point["lr"]), "dropout": float(point["dropout"]), "schedule": point["schedule"]}
        for point in draw(space, points, 0)
    ]

    def accuracy(values: Mapping[str, Any]) -> float:
        return float(0.8 - 0.08 * (math.log10(values["lr"]) + 3) ** 2 + 0.01 * (values["schedule"] == "constant"))

    ranking, analysis = simulated(listed(drawn, SPACE), accuracy)
    assert analysis
    return ranking, analysis


@pytest.fixture(scope="module")
def large() -> tuple[Ranking, Analysis]:
    return search(64)


def test_what_decides_is_important_and_what_does_not_is_not(large: tuple[Ranking, Analysis]) -> None:
    axes = importances.axes(large[1].points, SPACE)
    assert [(axis.key, axis.is_log) for axis in axes] == [("lr", True), ("dropout", False), ("schedule", False)]
    shares = importances.importances(axes, [point.accuracy for point in large[1].points])
    assert shares is not None
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["lr"] > 0.6 > 0.2 > shares["dropout"]


def test_a_grid_has_main_effects_and_a_search_importances(large: tuple[Ranking, Analysis]) -> None:
    grid = simulated(REPORT, lambda values: 0.5 + values["dropout"] / 10)
    assert grid[1]
    assert grid[1].effects
    assert importances.axes(grid[1].points, {}) == []
    assert search_plots.draw(grid[0], grid[1]) == {}
    assert large[1].effects == ()
    pictures = {**plots.draw(*large), **search_plots.draw(*large)}
    assert [*pictures] == ["accuracy.png", "curves.png", "scatter.png", "parallel.png"]
    text = report.markdown(*large, list(pictures))
    assert "## Keys" not in text
    assert "| search | random, 64 points, seed 0 |" in text
    assert "| dropout | interval&#40;0.1,0.6&#41; |" in text
    rows = text.partition("## Importances")[2].splitlines()
    assert rows[2] == "| key | importance, % | values of the best 7 points |"
    assert rows[4].startswith("| lr | ")
    assert " to " in rows[4]
    assert "(plots/scatter.png)" in text
    assert "(plots/parallel.png)" in text


def test_the_ranking_says_what_was_searched_and_keeps_exact_values(tmp_path: Path, commands: Commands) -> None:
    points = [{"lr": lr, "l2": l2} for lr in (0.1 + 0.2, 0.0123456) for l2 in (0.1, 0.2)]
    space = {"lr": "interval(0.01,0.4)", "l2": "0.1,0.2"}
    sweep = Sweep(tmp_path / "outputs" / "drawn", listed(points, space)).write()[0]
    for number in range(1, 5):
        write_run(sweep, number, [(number / 8, 1.0)])
    analysis = ranking.analyze(ranking.rank(sweep))
    assert analysis
    assert analysis.effects == ()
    printed = commands.run("rank", "outputs/drawn", folder=tmp_path).stdout
    assert "\nsearch=random search.runs=4 search.seed=0 lr=interval(0.01,0.4) l2=0.1,0.2\n" in printed
    rows = [line.split()[:4] for line in printed.splitlines() if line.endswith("COMPLETED")]
    assert rows == [
        ["1", "4", "0.01235", "0.2"],
        ["2", "3", "0.01235", "0.1"],
        ["3", "2", "0.3", "0.2"],
        ["4", "1", "0.3", "0.1"],
    ]
    lines = (sweep.path / "ranking.csv").read_text().splitlines()
    assert lines[1].startswith("1,4,0.0123456,0.2,")
    assert lines[4].startswith("4,1,0.30000000000000004,0.1,")


def test_points_of_a_file_with_continuous_values_are_drawn_too() -> None:
    points = [{"lr": 1e-4 * 1.1**number, "epochs": 5 + number % 2} for number in range(30)]
    ranking, analysis = simulated(listed(points), lambda values: 0.5 + values["epochs"] / 100)
    assert analysis
    axes = importances.axes(analysis.points, {})
    assert [(axis.key, axis.is_log) for axis in axes] == [("lr", False), ("epochs", False)]
    assert [*search_plots.draw(ranking, analysis)] == ["scatter.png", "parallel.png"]


def test_without_optuna_and_with_few_points_the_report_says_so(
    large: tuple[Ranking, Analysis], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Importances need 20 points that differ in accuracy; 5 have finished." in report.markdown(*search(5), [])
    monkeypatch.setitem(sys.modules, "optuna", None)
    text = report.markdown(*large, [])
    assert "Importances need Optuna: `pip install 'irmas[search]'`." in text
    assert "importance, %" not in text


def test_the_trend_follows_a_line_and_smooths_noise() -> None:
    x = np.linspace(0, 1, 50)
    at, trend = search_plots.local_regression(x, 3 + 2 * x)
    assert trend == pytest.approx(3 + 2 * at)
    noise = np.random.default_rng(0).standard_normal(50)
    _, trend = search_plots.local_regression(x, noise)
    assert trend.std() < 0.5 * noise.std()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-4, 1e-2, [1e-4, 1e-3, 1e-2]),
        (1.1e-4, 9e-3, [3e-4, 1e-3, 3e-3]),
        (0.2, 0.31, [0.2, 0.3]),
        (2.1, 2.9, [2.1, 2.9]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round_where_there_are_round_ones(
    low: float, high: float, ticks: Sequence[float]
) -> None:
    assert search_plots._log_ticks(low, high) == pytest.approx(ticks)


ODD = [
    {
        "lr": 10.0 ** -(2 + number % 13 / 10),
        "model.filters": [8 * (1 + number % 3)],
        "data.root": f"/a/long/folder/{number}",
    }
    for number in range(30)
]


@pytest.mark.parametrize(
    ("points", "space"),
    [
        (ODD, {"lr": "interval(1e-4,1e-2)"}),
        (ODD[:2], {"lr": "interval(1e-4,1e-2)"}),
        ([{"batch_size": 16 + number, "dropout": 0.3} for number in range(12)], {"batch_size": "interval(16,64)"}),
    ],
    ids=["lists and paths", "two points", "one key"],
)
def test_no_search_is_too_small_or_odd(points: Sequence[Mapping[str, Any]], space: Mapping[str, str]) -> None:
    result, analysis = simulated(listed(points, space), lambda _: 0.7)
    assert analysis
    pictures = search_plots.draw(result, analysis)
    assert pictures
    for name, png in pictures.items():
        picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
        assert all((edge == 255).all() for edge in edges), name
    assert report.markdown(result, analysis, list(pictures))
    assert ranking.table(result, analysis)
