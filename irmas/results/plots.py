"""A ranking's pictures, as PNG: for print at 15 cm width, and told apart without colour too."""

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
from irmas.figures import (
    BLUE,
    CHARACTER,
    DASHES,
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
from irmas.results.bootstrap import Interval
from irmas.results.factorial import are_numbers
from irmas.results.ranking import Ranking
from irmas.results.statistics import Analysis, Margin, Point
from irmas.run.events import VAL_ACCURACY, VAL_LOSS
from irmas.sweep.slurm import ranges

Array = NDArray[np.float64]

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
    colour: str
    fill: str

    @property
    def style(self) -> dict[str, Any]:
        return {"marker": self.shape, "color": self.colour, "markerfacecolor": self.fill, "markersize": 4.5}


LEVEL, BEHIND, UNKNOWN = Mark("o", BLUE, BLUE), Mark("D", VERMILLION, "white"), Mark("s", GREY, "white")
"""Not distinguishable from the best; distinguishable; not known."""


def draw(
    ranking: Ranking, analysis: Analysis, confusion: tuple[NDArray[np.integer], Sequence[str]] | None
) -> dict[str, bytes]:
    """File names -> PNG, 15 cm wide. `confusion` is the leader's: counts (true x predicted), and the classes.

    The same input gives the same bytes. What lacks its data is left out: the heat map without two keys that have
    several levels (or with too many of them), the effects without any, the confusion matrix without `confusion`.
    """
    with our_style():
        figures = {
            "accuracy.png": _accuracy(ranking, analysis),
            "heatmap.png": _heatmap(ranking, analysis),
            "curves.png": _curves(ranking, analysis),
            "effects.png": _effects(ranking, analysis),
            "confusion.png": _confusion(analysis, *confusion) if confusion else None,
        }
        return {name: as_png(figure) for name, figure in figures.items() if figure}


# Points in the order of their rank


def _accuracy(ranking: Ranking, analysis: Analysis) -> Figure:
    points = analysis.points[:MOST_POINTS]
    notes = [
        _excerpts(ranking, analysis),
        _bars(analysis) if any(point.interval for point in points) else "",
        f"The first {len(points)} of {len(analysis.points)} points." if len(points) < len(analysis.points) else "",
        analysis.unpaired,
    ]
    title = f"Validation accuracy of {_counted(ranking, analysis)}, best first"
    with_seeds = any(len(point.runs) > 1 for point in points)
    legend_lines = len({point.in_set for point in points}) + with_seeds
    figure = new_figure(0.7 + 0.165 * len(points), title, notes, legend_lines)
    axes = figure.subplots()
    axes.grid(axis="x")
    _draw_points(axes, points, analysis)
    if with_seeds:
        _draw_seeds(axes, ranking, points)
    axes.set_ylim(len(points) - 0.4, -1.6)
    axes.margins(x=0.03)
    _label_rows(axes, points)
    axes.set_xlabel("validation accuracy, %")
    axes.spines["left"].set_visible(False)
    add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _draw_points(axes: Axes, points: Sequence[Point], analysis: Analysis) -> None:
    threshold = analysis.threshold or 0.0
    near = "too few excerpts to tell" if analysis.is_blind else f"at most {100 * threshold:.1f} points behind it"
    if any(point.in_set is False for point in points):
        edge = 100 * (points[0].accuracy - threshold)
        axes.axvline(edge, color=GREY, linewidth=0.8, linestyle=DASHES)
    for in_set, mark, text in (
        (True, LEVEL, f"not distinguishable from the leader: {near}"),
        (False, BEHIND, "behind the leader"),
        (None, UNKNOWN, "not compared"),
    ):
        those = [(place, point) for place, point in enumerate(points) if point.in_set is in_set]
        bars = [(place, *_percent(point.interval)) for place, point in those if point.interval]
        if bars:
            axes.hlines(*zip(*bars, strict=True), color=mark.colour, linewidth=1.2)
        if those:
            accuracies = [100 * point.accuracy for _, point in those]
            axes.plot(accuracies, [place for place, _ in those], label=text, linestyle="none", **mark.style)


def _draw_seeds(axes: Axes, ranking: Ranking, points: Sequence[Point]) -> None:
    """The single runs of points with several."""
    accuracies = {row.id: row.accuracy for row in ranking.rows}
    places = [(run, place) for place, point in enumerate(points) for run in point.runs if len(point.runs) > 1]
    seeds = [(100 * accuracy, place) for run, place in places if (accuracy := accuracies[run]) is not None]
    x, y = zip(*seeds, strict=True)
    axes.plot(x, y, "|", color=INK, markersize=6, markeredgewidth=0.7, label="single runs")


def _label_rows(axes: Axes, points: Sequence[Point]) -> None:
    """A table of run IDs and swept values, its head above the first point."""
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


def _heatmap(ranking: Ranking, analysis: Analysis) -> Figure | None:
    """By the two keys with the most levels, with a panel for each combination of the others."""
    keys = sorted(analysis.margins, key=lambda margin: -len(margin.levels))
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
    title = f"Validation accuracy by {shortened(rows.key, 24)} and {shortened(columns.key, 24)}"
    rows_with_names = 1 if len(chosen) == down * across else 2
    turned = _turned_height(_names(columns), wide / len(columns.levels))
    figure = new_figure(0.5 + down * high + rows_with_names * turned, title, notes)
    grid = figure.subplots(down, across, squeeze=False)
    for number, (axes, place, panel) in enumerate(zip(grid.flat, chosen, accuracies, strict=False)):
        image = _draw_panel(axes, panel, accuracies)
        if place == leader[2:]:
            corner = leader[1] - 0.5, leader[0] - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=VERMILLION, linewidth=2.5, clip_on=False))
        lines = [f"{key.key} = {_text(key.levels[level].value)}" for key, level in zip(others, place, strict=True)]
        axes.set_title("\n".join(shortened(line, int(wide / CHARACTER)) for line in lines))
        _name_levels(axes.yaxis, rows if number % across == 0 else None, CELL_HEIGHT)
        _name_levels(axes.xaxis, columns if number + across >= len(chosen) else None, wide / len(columns.levels))
    for axes in grid.flat[len(chosen) :]:
        axes.remove()
    figure.colorbar(image, ax=figure.axes, label="accuracy, %", aspect=30, pad=0.02)
    return figure


def _panels(analysis: Analysis, keys: Sequence[Margin]) -> tuple[dict[tuple[int, ...], Array], tuple[int, ...]]:
    """Accuracies, %, (levels of the first key, of the second), by the levels of the others; and the leader's levels.

    NaN where no point is. In the order of the best point in each.
    """
    codes = {key.key: {shown(level.value): number for number, level in enumerate(key.levels)} for key in keys}
    shape = len(keys[0].levels), len(keys[1].levels)
    panels: dict[tuple[int, ...], Array] = {}
    places = [tuple(codes[key][shown(point.values[key])] for key in codes) for point in analysis.points]
    for point, place in zip(analysis.points, places, strict=True):
        panels.setdefault(place[2:], np.full(shape, np.nan))[place[:2]] = 100 * point.accuracy
    return panels, places[0]


def _draw_panel(axes: Axes, panel: Array, accuracies: Array) -> AxesImage:
    """In the colours of all `accuracies`."""
    low = np.nanmin(accuracies)
    high = max(np.nanmax(accuracies), low + 1)
    image = axes.imshow(panel, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    axes.patch.set(hatch="////", edgecolor=FAINT)  # seen where the image has no value
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(~np.isnan(panel)):
        colour = "white" if panel[row, column] < (low + high) / 2 else "black"
        text = axes.text(column, row, f"{panel[row, column]:.1f}", color=colour, in_layout=False)
        text.set(horizontalalignment="center", verticalalignment="center_baseline")
    return image


def _name_levels(axis: Axis, key: Margin | None, room: float) -> None:
    """And the axis after the key; neither where there is none."""
    _name_ticks(axis, _names(key) if key else [], room)
    axis.set_label_text(shortened(key.key, 24) if key else "")


def _names(key: Margin) -> list[str]:
    return [shortened(_text(level.value), 14) for level in key.levels]


def _name_ticks(axis: Axis, names: Sequence[str], room: float) -> None:
    """At 0, 1, ..., which lie `room` inches apart; on the x-axis turned where they need more."""
    every = math.ceil(0.85 * LINE / room)
    is_turned = isinstance(axis, XAxis) and _turned_height(names, room) > 0
    axis.set_ticks(range(0, len(names), every), names[::every], rotation=90 if is_turned else 0)
    axis.set_tick_params(length=0)


def _turned_height(names: Sequence[str], room: float) -> float:
    """What names of the x-axis need beyond a line, turned if one is wider than `room`: inches."""
    widest = max(map(len, names), default=0) * CHARACTER
    return widest if widest > 0.95 * room else 0.0


# One key at a time


def _effects(ranking: Ranking, analysis: Analysis) -> Figure | None:
    """A panel a key: the mean of each of its levels."""
    keys = [key for key in analysis.margins if len(key.levels) <= MOST_LEVELS]
    if not keys:
        return None
    levels = [level for key in keys for level in key.levels]
    left_out = [key.key for key in analysis.margins if key not in keys]
    behind = "Open: behind the key's best level (95 % for all pairs together)."
    notes = [
        _excerpts(ranking, analysis),
        "Each level's mean over the other keys; dashed: the mean of all points.",
        _bars(analysis) if any(level.interval for level in levels) else "",
        behind if any(level.holds for level in levels) else "",
        "" if analysis.anova.is_complete else "Combinations are missing: levels also differ in the other keys.",
        f"Left out, with more than {MOST_LEVELS} levels: {', '.join(left_out)}." if left_out else "",
    ]
    down = math.ceil(len(keys) / 3)
    across = math.ceil(len(keys) / down)
    rooms = [0.85 * WIDTH / across / (len(key.levels) + 0.2) for key in keys]
    turned = max(_turned_height(_names(key), room) for key, room in zip(keys, rooms, strict=True))
    title = f"Mean validation accuracy by level, {_counted(ranking, analysis)}"
    figure = new_figure(0.1 + down * (1.9 + turned), title, notes)
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    mean = 100 * sum(point.accuracy for point in analysis.points) / len(analysis.points)
    for axes, key, room in zip(grid.flat, keys, rooms, strict=False):
        axes.grid(axis="y")
        axes.axhline(mean, color=GREY, linewidth=0.8, linestyle=DASHES)
        _draw_levels(axes, key)
        axes.set_xlim(-0.6, len(key.levels) - 0.4)
        _name_levels(axes.xaxis, key, room)
    for axes in grid.flat[len(keys) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy, %")
    return figure


def _draw_levels(axes: Axes, key: Margin) -> None:
    if are_numbers(level.value for level in key.levels):
        axes.plot([100 * level.accuracy for level in key.levels], color=FAINT, linewidth=1)
    for place, level in enumerate(key.levels):
        mark = BEHIND if level.holds else LEVEL
        if level.interval:
            axes.plot([place, place], _percent(level.interval), color=mark.colour, linewidth=1.2)
        axes.plot(place, 100 * level.accuracy, **mark.style)


# Epochs


def _curves(ranking: Ranking, analysis: Analysis) -> Figure:
    """Every run, and those of the first points in front."""
    best = analysis.points[: len(LINES)]
    followed = f" and the next {len(best) - 1}" if len(best) > 2 else " and the next" * (len(best) - 1)
    losses = [loss for row in ranking.rows for loss in row.curves.get(VAL_LOSS, {}).values() if math.isfinite(loss)]
    highest = 1.2 * float(np.quantile(losses, 0.95)) if losses else math.inf
    is_cut = max(losses, default=0) > 1.5 * highest
    in_front = {run for point in best for run in point.runs}
    others = any(row.curves.get(VAL_ACCURACY) for row in ranking.rows if row.id not in in_front)
    notes = [
        _excerpts(ranking, analysis),
        f"In front: the leader{followed}; grey: all others." if others else "",
        f"Losses above {highest:.3g} are cut off." if is_cut else "",
    ]
    title = f"Validation accuracy and loss by epoch, {len(ranking.rows)} runs"
    figure = new_figure(2.5, title, notes, legend_lines=len(best))
    left, right = figure.subplots(1, 2)
    last = max(epoch for row in ranking.rows for epoch in row.curves.get(VAL_ACCURACY, {}))
    for axes, tag, factor in ((left, VAL_ACCURACY, 100), (right, VAL_LOSS, 1)):
        curves = {row.id: row.curves.get(tag, {}) for row in ranking.rows}
        axes.grid()
        axes.plot(*_joined(curves.values(), factor), color=FAINT, linewidth=0.7, marker=".", markersize=2)
        for place, (point, (colour, dash, shape)) in enumerate(zip(best, LINES, strict=False)):
            line = _joined([curves[run] for run in point.runs], factor)
            text = f"{'run' if len(point.runs) == 1 else 'runs'} {ranges(point.runs)}  {_named(point.values)}"
            axes.plot(*line, color=colour, linestyle=dash, marker=shape, markersize=3, label=text, zorder=9 - place)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.set_xlim(0.5, last + 0.5)
    left.set_ylabel("validation accuracy, %")
    right.set_ylabel("validation loss")
    if is_cut:
        right.set_ylim(top=highest)
    add_legend(figure, left.get_legend_handles_labels()[0])
    return figure


def _joined(curves: Iterable[Mapping[int, float]], factor: float) -> tuple[list[float], list[float]]:
    """Epochs and values of all, as one line with gaps between them."""
    epochs, values = [], []
    for curve in curves:
        epochs += [*curve, math.nan]
        values += [factor * value for value in curve.values()] + [math.nan]
    return epochs, values


# The leader's errors


def _confusion(analysis: Analysis, counts: NDArray[np.integer], classes: Sequence[str]) -> Figure:
    n, values = len(classes), analysis.points[0].values
    notes = [
        f"The leader: {_named(values)}." if values else "",
        f"{100 * np.trace(counts) / max(counts.sum(), 1):.1f} % are right.",
        "Colour: per cent of the row, so that the diagonal is each class's recall.",
        "Numbers: per cent and, small, excerpts." if n <= MOST_COUNTED else "",
    ]
    title = f"Confusion matrix of the leader, n = {counts.sum():,} excerpts"
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
            colour = "white" if share[row, column] > 60 else "black"
            style: dict[str, Any] = {"color": colour, "horizontalalignment": "center", "in_layout": False}
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


def _bars(analysis: Analysis) -> str:
    noise = "recordings and seeds" if analysis.intervals_hold_training_noise else "recordings"
    return f"Bars: 95 % intervals, what other {noise} might have given."


def _named(values: Mapping[str, Any]) -> str:
    return shortened(", ".join(f"{key} {_text(value)}" for key, value in values.items()), 75)


def _text(value: object) -> str:
    """As it is written on the command line, but a fraction with five digits."""
    return f"{value:.5g}" if isinstance(value, float) else shown(value)


def _percent(interval: Interval) -> tuple[float, float]:
    return 100 * interval.low, 100 * interval.high
