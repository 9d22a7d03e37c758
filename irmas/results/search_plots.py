"""Pictures of a sweep over continuous values: accuracy by each key, and the values of the best points together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from irmas import plot_style
from irmas.config import brief
from irmas.plot_style import BLUE, FAINT, GREY, INK, VERMILLION, name_ticks, new_figure, shortened, turned_height
from irmas.results import importances
from irmas.results.analysis import Analysis
from irmas.results.importances import Axis
from irmas.results.plots import excerpts, population
from irmas.results.ranking import Ranking

Array = NDArray[np.float64]

MOST_AXES, ACROSS, MOST_NAMES = 9, 3, 12
"""Most keys that are drawn, panels in a row, and names beside an axis."""
PANEL_HEIGHT, PARALLEL_HEIGHT = 1.75, 3.2
FEWEST_FOR_TREND, SPAN = 10, 0.6
"""Fewest points through which a trend is drawn, and the share of them that each of its places follows."""


def draw(ranking: Ranking, analysis: Analysis, formats: Iterable[str] = ()) -> dict[str, bytes]:
    """Return PNG files, 15 cm wide, by name, and the same in other formats; none for a grid.

    The same input gives the same bytes.
    """
    axes = importances.axes(analysis.points, ranking.plan.space)
    with plot_style.our_style():
        figures = {
            "scatter": _scatter(ranking, analysis, axes[:MOST_AXES]) if axes else None,
            "parallel": _parallel(ranking, analysis, axes[:MOST_AXES]) if len(axes) > 1 else None,
        }
        return plot_style.as_files(figures, formats)


def _scatter(ranking: Ranking, analysis: Analysis, axes: Sequence[Axis]) -> Figure:
    accuracies = 100 * np.array([point.accuracy for point in analysis.points])
    across = 2 if len(axes) == 4 else min(ACROSS, len(axes))
    down = math.ceil(len(axes) / across)
    has_trend = len(accuracies) >= FEWEST_FOR_TREND and any(axis.is_number for axis in axes)
    notes = [
        f"{population(ranking, analysis)}; {excerpts(ranking, analysis)}",
        f"The first {MOST_AXES} keys." if len(axes) == MOST_AXES else "",
        "Diamond: the leader.",
        "Line: trend by local regression; the other keys vary along it, too." if has_trend else "",
        "Bar: mean of the points with this value." if any(not axis.is_number for axis in axes) else "",
    ]
    wide = (plot_style.WIDTH - 0.6) / across - 0.25
    turned = max(turned_height(_names(axis), wide / len(_names(axis))) for axis in axes)
    figure = new_figure(0.2 + (PANEL_HEIGHT + turned) * down, "val_accuracy by each key", notes)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for number, axis in enumerate(axes):
        panel = grid.flat[number]
        _draw_axis(panel, axis, accuracies, wide)
        panel.set_xlabel(shortened(axis.key, 24))
        if number % across == 0:
            panel.set_ylabel("val_accuracy, %")
    for panel in grid.flat[len(axes) :]:
        panel.remove()
    return figure


def _names(axis: Axis) -> list[str]:
    return [shortened(name, 14) for name in axis.names]


def _draw_axis(panel: Axes, axis: Axis, accuracies: Array, wide: float) -> None:
    """Draw a key's panel, `wide` inches wide."""
    panel.grid()
    places = np.array(axis.places())
    if axis.is_number:
        x = 10**places if axis.is_log else places
        if len(x) >= FEWEST_FOR_TREND:
            at, trend = local_regression(places, accuracies)
            panel.plot(10**at if axis.is_log else at, trend, color=INK, linewidth=1.5, zorder=3)
        if axis.is_log:
            panel.set_xscale("log")
            panel.set_xticks(ticks := _log_ticks(x.min(), x.max()), [f"{tick:g}" for tick in ticks])
            panel.set_xticks([], minor=True)
    else:
        x = places
        means = [accuracies[places == place].mean() for place in range(len(axis.names))]
        at = np.arange(len(means), dtype=float)
        panel.hlines(means, at - 0.25, at + 0.25, color=INK, linewidth=1.5, zorder=3)
        name_ticks(panel.xaxis, _names(axis), wide / len(means))
        panel.set_xlim(-0.6, len(means) - 0.4)
    panel.plot(x[1:], accuracies[1:], "o", color=BLUE, markersize=3, alpha=0.7, markeredgewidth=0)
    panel.plot(x[:1], accuracies[:1], "D", color=VERMILLION, markersize=5, zorder=4)


def _log_ticks(low: float, high: float) -> list[float]:
    """Return the decades between two numbers or, where these are fewer than two, rounder and less round numbers."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps: Sequence[tuple[float, ...]] = (1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    for digits in steps:
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [tick for tick in ticks if 0.99 * low <= tick <= 1.01 * high]
        if len(inside) > 1:
            return inside
    return [low, high]


def local_regression(x: Array, y: Array) -> tuple[Array, Array]:
    """Return places, ascending, and the trend of y there: lines through the nearest points, weighted by the tricube."""
    at = np.linspace(x.min(), x.max(), 60)
    trend = np.empty(len(at))
    nearest = max(FEWEST_FOR_TREND // 2, round(SPAN * len(x)))
    for number, place in enumerate(at):
        distances = np.abs(x - place)
        width = max(np.partition(distances, nearest - 1)[nearest - 1], 1e-9 * np.ptp(x)) * 1.001
        weights = (1 - np.minimum(distances / width, 1) ** 3) ** 3
        design = np.stack([np.ones(len(x)), x - place], axis=1) * np.sqrt(weights)[:, None]
        trend[number] = np.linalg.lstsq(design, y * np.sqrt(weights), rcond=None)[0][0]
    return at, trend


def _parallel(ranking: Ranking, analysis: Analysis, axes: Sequence[Axis]) -> Figure:
    accuracies = 100 * np.array([point.accuracy for point in analysis.points])
    columns = np.stack([*(_from_0_to_1(np.array(axis.places())) for axis in axes), _from_0_to_1(accuracies)], axis=1)
    count = importances.best(len(accuracies))
    notes = [
        f"{population(ranking, analysis)}; {excerpts(ranking, analysis)}",
        f"Each line is a point. Dashed: the leader; solid: the rest of the best {count}; faint: all others.",
    ]
    figure = new_figure(PARALLEL_HEIGHT, "Values of the best points together", notes)
    panel = figure.subplots()
    at = np.arange(columns.shape[1])
    panel.plot(at, columns[count:].T, color=FAINT, linewidth=0.6)
    panel.plot(at, columns[1:count].T, color=BLUE, linewidth=1.1)
    panel.plot(at, columns[0], color=VERMILLION, linewidth=1.8, linestyle="--")
    panel.vlines(at, 0, 1, color=INK, linewidth=0.8)
    for place, axis in enumerate(axes):
        for height, text in _ticks(axis):
            _label(panel, place, height, text)
    for height, accuracy in ((0.0, accuracies.min()), (1.0, accuracies.max())):
        _label(panel, len(axes), height, f"{accuracy:.1f} %")
    names = [*(f"{axis.key}{' (log)' if axis.is_log else ''}" for axis in axes), "val_accuracy"]
    panel.set_xticks(at, [shortened(name, 70 // len(names)) for name in names])
    panel.set_yticks([])
    panel.tick_params(axis="x", length=0)
    panel.spines[:].set_visible(False)
    panel.set_xlim(-0.25, len(axes) + 0.5)
    panel.set_ylim(-0.05, 1.05)
    return figure


def _from_0_to_1(values: Array) -> Array:
    scaled: Array = (values - values.min()) / (np.ptp(values) or 1.0)
    return scaled


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    """Return heights, 0 to 1, on an axis, and the values there."""
    if not axis.is_number:
        every, last = math.ceil(len(axis.names) / MOST_NAMES), len(axis.names) - 1
        return [(place / last, shortened(axis.names[place], 10)) for place in range(0, last + 1, every)]
    low, high = min(axis.values), max(axis.values)
    middle: float = float(f"{(low * high) ** 0.5 if axis.is_log else (low + high) / 2:.2g}")
    middle = round(middle) if isinstance(low, int) and isinstance(high, int) else middle
    inside = (np.log(middle / low) / np.log(high / low)) if axis.is_log else (middle - low) / (high - low)
    return [(0.0, brief(low)), (float(inside), brief(middle)), (1.0, brief(high))]


def _label(panel: Axes, place: float, height: float, text: str) -> None:
    """Write a value beside an axis, on white so that lines do not cross it."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
    panel.text(place + 0.03, height, text, verticalalignment="center", color=GREY, bbox=box, zorder=9, in_layout=False)
