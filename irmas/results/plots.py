"""Pictures of a ranking, as PNG: for print at 15 cm width, and legible without color."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from irmas.config import shown
from irmas.plot_style import (
    BLUE,
    CHARACTER,
    FAINT,
    GREEN,
    GREY,
    INK,
    LINE,
    PURPLE,
    VERMILLION,
    WIDTH,
    add_legend,
    as_png,
    new_figure,
    our_style,
    shortened,
)
from irmas.results.analysis import Analysis, Point
from irmas.results.comparison import Estimate
from irmas.results.effects import are_numbers
from irmas.results.ranking import Ranking
from irmas.run.events import VAL_ACCURACY, VAL_LOSS
from irmas.sweep.slurm import ranges

Array = NDArray[np.float64]
Curve = Mapping[int, float]
Curves = Mapping[int, Curve]

TABLE = 54  # characters
MOST_POINTS = 40
MOST_LEVELS, MOST_COLUMNS, MOST_PANELS = 40, 12, 6
GRID, CELL_HEIGHT, HIGHEST = WIDTH - 1.7, 0.27, 8.0
"""Of the heat maps: their width together, the height of a cell, and of all."""
MOST_COUNTED = 14
"""Classes whose cells have room for numbers."""

LINES = ((BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"))


@dataclass(frozen=True)
class Mark:
    shape: str
    color: str
    fill: str

    @property
    def style(self) -> dict[str, Any]:
        return {"marker": self.shape, "color": self.color, "markerfacecolor": self.fill, "markersize": 4.5}


MARKS = (
    (True, Mark("o", BLUE, BLUE), "may be the best: in the best set"),
    (False, Mark("D", VERMILLION, "white"), "behind the best"),
    (None, Mark("s", GREY, "white"), "not compared"),
)
"""Marks and their meanings by `Point.in_best_set`."""


def draw(
    ranking: Ranking, analysis: Analysis, confusion: tuple[NDArray[np.integer], Sequence[str]] | None
) -> dict[str, bytes]:
    """Return PNG files, 15 cm wide, by name. `confusion` is that of the leader's run with the lowest ID: counts (true x
    predicted), and the classes.

    The same input gives the same bytes. What lacks its data is left out: the heat map without two keys that have
    several values (or with too many of them), the confusion matrix without `confusion`.
    """
    with our_style():
        figures = {
            "accuracy.png": _accuracy(ranking, analysis),
            "heatmap.png": _heatmap(ranking, analysis),
            "curves.png": _curves(ranking, analysis),
            "confusion.png": _confusion(analysis, *confusion) if confusion else None,
        }
        return {name: as_png(figure) for name, figure in figures.items() if figure}


# Points in the order of their rank


def _accuracy(ranking: Ranking, analysis: Analysis) -> Figure:
    points = analysis.points[:MOST_POINTS]
    marks = [mark for mark in MARKS if any(point.in_best_set is mark[0] for point in points)]
    with_seeds = any(len(point.runs) > 1 for point in points)
    with_bars = any(point.estimate for point in points)
    other = "recordings and other trainings" if analysis.noise else "recordings"
    notes = [
        _excerpts(ranking, analysis),
        f"Bars: 95 % intervals of each point by itself, for other {other}." if with_bars else "",
        "Points are compared on the same excerpts, so that bars may overlap." if len(marks) > 1 and with_bars else "",
        f"The first {len(points)} of {len(analysis.points)} points." if len(points) < len(analysis.points) else "",
        analysis.unpaired,
    ]
    title = f"val_accuracy of {_counted(ranking, analysis)}, best first"
    figure = new_figure(0.7 + 0.165 * len(points), title, notes, len(marks) + with_seeds)
    axes = figure.subplots()
    axes.grid(axis="x")
    for in_best_set, mark, text in marks:
        _draw_points(axes, [point if point.in_best_set is in_best_set else None for point in points], mark, text)
    if with_seeds:
        _draw_seeds(axes, ranking, points)
    axes.set_ylim(len(points) - 0.4, -1.6)
    axes.margins(x=0.03)
    _label_rows(axes, points)
    axes.set_xlabel("val_accuracy, %")
    axes.spines["left"].set_visible(False)
    add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _draw_points(axes: Axes, points: Sequence[Point | None], mark: Mark, text: str) -> None:
    """Draw the points that are there at their places, with their intervals."""
    drawn = [(place, point) for place, point in enumerate(points) if point]
    bars = [(place, *_percent(point.estimate)) for place, point in drawn if point.estimate]
    if bars:
        axes.hlines(*zip(*bars, strict=True), color=mark.color, linewidth=1.2)
    accuracies = [100 * point.accuracy for _, point in drawn]
    axes.plot(accuracies, [place for place, _ in drawn], label=text, linestyle="none", **mark.style)


def _draw_seeds(axes: Axes, ranking: Ranking, points: Sequence[Point]) -> None:
    """Draw the single runs of points with several."""
    accuracies = {row.id: row.accuracy for row in ranking.rows}
    places = [(run, place) for place, point in enumerate(points) for run in point.runs if len(point.runs) > 1]
    seeds = [(100 * accuracy, place) for run, place in places if (accuracy := accuracies[run]) is not None]
    x, y = zip(*seeds, strict=True)
    axes.plot(x, y, "|", color=INK, markersize=6, markeredgewidth=0.7, label="single runs")


def _label_rows(axes: Axes, points: Sequence[Point]) -> None:
    """Write a table of run IDs and swept values, its head above the first point."""
    table = [["run", *points[0].values]]
    table += [[ranges(point.runs), *map(_text, point.values.values())] for point in points]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    while sum(widths) + 2 * len(widths) > TABLE and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    lines = ["  ".join(map(_cell, line, widths)) for line in table]
    axes.set_yticks(range(-1, len(points)), lines, family="DejaVu Sans Mono")
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)


def _cell(text: str, width: int) -> str:
    return shortened(text, width).rjust(width)


# The grid


@dataclass(frozen=True)
class Key:
    """A key with several values among the points."""

    name: str
    levels: tuple[Any, ...]
    """Numbers in ascending order, other values by rank."""


def _keys(points: Sequence[Point]) -> list[Key]:
    """Return the keys with several values, those with the most first."""
    keys = []
    for name in points[0].values:
        values = [*{shown(point.values[name]): point.values[name] for point in points}.values()]
        if len(values) > 1:
            keys.append(Key(name, tuple(sorted(values) if are_numbers(values) else values)))
    return sorted(keys, key=lambda key: -len(key.levels))


def _heatmap(ranking: Ranking, analysis: Analysis) -> Figure | None:
    """Draw the grid by the two keys with the most values, with a panel for each combination of the others."""
    keys = _keys(analysis.points)
    if len(keys) < 2 or len(keys[0].levels) > MOST_LEVELS or len(keys[1].levels) > MOST_COLUMNS:
        return None
    rows, columns, *others = keys
    panels, leader = _panels(analysis, keys)
    high = CELL_HEIGHT * len(rows.levels) + 0.2 + LINE * len(others)
    across = max(1, int(GRID / max(0.4 * len(columns.levels), 1.2)))
    chosen = sorted(list(panels)[: min(MOST_PANELS, across * max(1, int(HIGHEST / high)))])
    down = math.ceil(len(chosen) / across)
    across = math.ceil(len(chosen) / down)
    wide = GRID / across
    accuracies = np.array([panels[place] for place in chosen])
    notes = [
        f"{_counted(ranking, analysis)}; {_excerpts(ranking, analysis)}",
        f"Framed: the leader, {_named(analysis.points[0].values)}.",
        "Hatched: no finished run." if np.isnan(accuracies).any() else "",
        f"{len(chosen)} of {len(panels)} panels, those with the best points." if len(panels) > len(chosen) else "",
    ]
    title = f"val_accuracy by {shortened(rows.name, 24)} and {shortened(columns.name, 24)}"
    rows_with_names = 1 if len(chosen) == down * across else 2
    turned = _turned_height(_names(columns), wide / len(columns.levels))
    figure = new_figure(0.5 + down * high + rows_with_names * turned, title, notes)
    grid = figure.subplots(down, across, squeeze=False)
    for number, (axes, place, panel) in enumerate(zip(grid.flat, chosen, accuracies, strict=False)):
        image = _draw_panel(axes, panel, accuracies)
        if place == leader[2:]:
            corner = leader[1] - 0.5, leader[0] - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=VERMILLION, linewidth=2.5, clip_on=False))
        lines = [f"{key.name} = {_text(key.levels[level])}" for key, level in zip(others, place, strict=True)]
        axes.set_title("\n".join(shortened(line, int(wide / CHARACTER)) for line in lines))
        _name_levels(axes.yaxis, rows if number % across == 0 else None, CELL_HEIGHT)
        _name_levels(axes.xaxis, columns if number + across >= len(chosen) else None, wide / len(columns.levels))
    for axes in grid.flat[len(chosen) :]:
        axes.remove()
    figure.colorbar(image, ax=figure.axes, label="val_accuracy, %", aspect=30, pad=0.02)
    return figure


def _panels(analysis: Analysis, keys: Sequence[Key]) -> tuple[dict[tuple[int, ...], Array], tuple[int, ...]]:
    """Return accuracies, %, (levels of the first key, of the second), by the levels of the others; and the leader's
    levels.

    NaN where no point is. In the order of the best point in each.
    """
    codes = {key.name: {shown(level): number for number, level in enumerate(key.levels)} for key in keys}
    shape = len(keys[0].levels), len(keys[1].levels)
    panels: dict[tuple[int, ...], Array] = {}
    places = [tuple(codes[key][shown(point.values[key])] for key in codes) for point in analysis.points]
    for point, place in zip(analysis.points, places, strict=True):
        panels.setdefault(place[2:], np.full(shape, np.nan))[place[:2]] = 100 * point.accuracy
    return panels, places[0]


def _draw_panel(axes: Axes, panel: Array, accuracies: Array) -> AxesImage:
    """Draw one panel in the colors of all `accuracies`."""
    low = np.nanmin(accuracies)
    high = max(np.nanmax(accuracies), low + 1)
    image = axes.imshow(panel, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    axes.patch.set(hatch="////", edgecolor=FAINT)  # seen where the image has no value
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(~np.isnan(panel)):
        color = "white" if panel[row, column] < (low + high) / 2 else "black"
        text = axes.text(column, row, f"{panel[row, column]:.1f}", color=color, in_layout=False)
        text.set(horizontalalignment="center", verticalalignment="center_baseline")
    return image


def _name_levels(axis: Axis, key: Key | None, room: float) -> None:
    """Name the ticks after the levels and the axis after the key; neither where there is none."""
    _name_ticks(axis, _names(key) if key else [], room)
    axis.set_label_text(shortened(key.name, 24) if key else "")


def _names(key: Key) -> list[str]:
    return [shortened(_text(level), 14) for level in key.levels]


def _name_ticks(axis: Axis, names: Sequence[str], room: float) -> None:
    """Name the ticks at 0, 1, ..., which lie `room` inches apart; on the x-axis turned where they need more."""
    every = math.ceil(0.85 * LINE / room)
    is_turned = isinstance(axis, XAxis) and _turned_height(names, room) > 0
    axis.set_ticks(range(0, len(names), every), names[::every], rotation=90 if is_turned else 0)
    axis.set_tick_params(length=0)


def _turned_height(names: Sequence[str], room: float) -> float:
    """Return what names of the x-axis need beyond a line, turned if one is wider than `room`: inches."""
    widest = max(map(len, names), default=0) * CHARACTER
    return widest if widest > 0.95 * room else 0.0


# Epochs


def _curves(ranking: Ranking, analysis: Analysis) -> Figure:
    """Draw the mean over the seeds of each point, and the first points in front with the band of their seeds."""
    best, others = analysis.points[: len(LINES)], analysis.points[len(LINES) :]
    ranked = {run for point in analysis.points for run in point.runs}
    losses = [loss for row in ranking.rows for loss in row.curves.get(VAL_LOSS, {}).values() if math.isfinite(loss)]
    highest = 1.2 * float(np.quantile(losses, 0.95)) if losses else math.inf
    is_cut = max(losses, default=0) > 1.5 * highest
    unranked = [row.id for row in ranking.rows if row.id not in ranked and row.curves.get(VAL_ACCURACY)]
    with_seeds = any(len(point.runs) > 1 for point in best)
    followed = f" and the next {len(best) - 1}" if len(best) > 2 else " and the next" * (len(best) - 1)
    notes = [
        _excerpts(ranking, analysis),
        "Lines: means over a point's seeds; bands: from its lowest to its highest run." if with_seeds else "",
        f"In front: the leader{followed}; grey: all others." if others or unranked else "",
        f"Losses above {highest:.3g} are cut off." if is_cut else "",
    ]
    title = f"Validation accuracy and loss by epoch, {_counted(ranking, analysis)}"
    figure = new_figure(2.5, title, notes, legend_lines=len(best))
    left, right = figure.subplots(1, 2)
    last = max(epoch for row in ranking.rows for epoch in row.curves.get(VAL_ACCURACY, {}))
    for axes, tag, factor in ((left, VAL_ACCURACY, 100), (right, VAL_LOSS, 1)):
        curves = {row.id: row.curves.get(tag, {}) for row in ranking.rows}
        axes.grid()
        behind = [_over_seeds(curves, point.runs)[0] for point in others] + [curves[run] for run in unranked]
        axes.plot(*_joined(behind, factor), color=FAINT, linewidth=0.7, marker=".", markersize=2)
        for place, (point, line) in enumerate(zip(best, LINES, strict=False)):
            _draw_curve(axes, curves, point, line, factor, 9 - place)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.set_xlim(0.5, last + 0.5)
    left.set_ylabel("val/accuracy, %")
    right.set_ylabel("val/loss")
    if is_cut:
        right.set_ylim(top=highest)
    add_legend(figure, left.get_legend_handles_labels()[0])
    return figure


def _draw_curve(
    axes: Axes, curves: Curves, point: Point, line: tuple[str, str, str], factor: float, layer: int
) -> None:
    """Draw a point's mean and, of several seeds, the band from the lowest to the highest run."""
    color, dash, shape = line
    mean, lowest, highest = _over_seeds(curves, point.runs)
    text = f"{'run' if len(point.runs) == 1 else 'runs'} {ranges(point.runs)}  {_named(point.values)}"
    style: dict[str, Any] = {"color": color, "linestyle": dash, "marker": shape, "markersize": 3}
    axes.plot(*_joined([mean], factor), label=text, zorder=layer, **style)
    if len(point.runs) > 1:
        low, high = ([factor * value for value in edge.values()] for edge in (lowest, highest))
        axes.fill_between([*mean], low, high, color=color, alpha=0.18, linewidth=0, zorder=layer - 5)


def _over_seeds(curves: Curves, runs: Sequence[int]) -> tuple[Curve, Curve, Curve]:
    """Return the mean, the lowest and the highest value of each epoch that all these runs have."""
    found = [curves[run] for run in runs]
    epochs = [epoch for epoch in found[0] if all(epoch in curve for curve in found)]
    values = {epoch: [curve[epoch] for curve in found] for epoch in epochs}
    mean = {epoch: math.fsum(of_epoch) / len(of_epoch) for epoch, of_epoch in values.items()}
    return mean, {epoch: min(values[epoch]) for epoch in epochs}, {epoch: max(values[epoch]) for epoch in epochs}


def _joined(curves: Iterable[Curve], factor: float) -> tuple[list[float], list[float]]:
    """Return epochs and values of all curves as one line with gaps between them."""
    epochs, values = [], []
    for curve in curves:
        epochs += [*curve, math.nan]
        values += [factor * value for value in curve.values()] + [math.nan]
    return epochs, values


# The leader's errors


def _confusion(analysis: Analysis, counts: NDArray[np.integer], classes: Sequence[str]) -> Figure:
    n, leader = len(classes), analysis.points[0]
    seeds = f", the first of the leader's {len(leader.runs)}" if len(leader.runs) > 1 else ", the leader"
    notes = [
        f"The leader: {_named(leader.values)}." if leader.values else "",
        f"{100 * np.trace(counts) / max(counts.sum(), 1):.1f} % are right in the last epoch.",
        "Color: per cent of the row, so that the diagonal is each class's recall.",
        "Numbers: per cent and, small, excerpts." if n <= MOST_COUNTED else "",
    ]
    title = f"Confusion matrix of run {leader.runs[0]}{seeds}, n = {counts.sum():,} excerpts"
    names = [shortened(name, 16) for name in classes]
    width, height = 4.6, min(4.6, 0.4 * n)
    figure = new_figure(0.4 + height + _turned_height(names, width / n), title, notes)
    axes = figure.subplots()
    share = 100 * counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.spines[:].set_visible(False)
    _name_ticks(axes.xaxis, names, width / n)
    _name_ticks(axes.yaxis, names, height / n)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if n <= MOST_COUNTED:
        for row, column in np.argwhere(counts):
            color = "white" if share[row, column] > 60 else "black"
            style: dict[str, Any] = {"color": color, "horizontalalignment": "center", "in_layout": False}
            axes.text(column, row, f"{share[row, column]:.0f}", verticalalignment="bottom", **style)
            axes.text(column, row + 0.06, f"{counts[row, column]}", verticalalignment="top", fontsize=6.5, **style)
    else:
        figure.colorbar(image, ax=axes, label="% of the row", aspect=30, pad=0.02)
    return figure


# Words


def _counted(ranking: Ranking, analysis: Analysis) -> str:
    finished = sum(len(point.runs) for point in analysis.points)
    runs = f"{finished} runs" if finished == len(ranking.rows) else f"{finished} of {len(ranking.rows)} runs"
    return runs if finished == len(analysis.points) else f"{len(analysis.points)} points ({runs})"


def _excerpts(ranking: Ranking, analysis: Analysis) -> str:
    if analysis.excerpts:
        return f"n = {analysis.excerpts:,} excerpts of {analysis.recordings:,} recordings."
    leader = next(row for row in ranking.rows if row.id == analysis.points[0].runs[0])
    return f"n = {leader.val_excerpts:,} excerpts."


def _named(values: Mapping[str, Any]) -> str:
    return shortened(", ".join(f"{key} {_text(value)}" for key, value in values.items()), 75)


def _text(value: object) -> str:
    """Return a value as it is written on the command line, but a fraction with five digits."""
    return f"{value:.5g}" if isinstance(value, float) else shown(value)


def _percent(estimate: Estimate) -> tuple[float, float]:
    return 100 * estimate.low, 100 * estimate.high
