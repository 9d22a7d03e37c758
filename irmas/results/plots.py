"""Pictures of a ranking, as PNG: for print at 15 cm width, and legible without color."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from irmas import plot_style
from irmas.config import brief
from irmas.console import counted
from irmas.plot_style import BLUE, CHARACTER, FAINT, LINE, VERMILLION, name_ticks, new_figure, shortened, turned_height
from irmas.results import importances
from irmas.results.analysis import Analysis, Point
from irmas.results.effects import Grid
from irmas.results.ranking import Ranking
from irmas.results.runs import Confusion
from irmas.run.events import VAL_ACCURACY, VAL_LOSS
from irmas.sweep.jobs import named_runs
from irmas.sweep.slurm import ranges

Array = NDArray[np.float64]
Curve = Mapping[int, float]

TABLE = 54
"""Number of characters of the table beside the points."""
MOST_POINTS, MOST_COUNTED = 40, 14
"""Most points that are drawn, and most classes for which numbers fit into the cells."""
MOST_ROWS, MOST_COLUMNS, MOST_PANELS = 40, 12, 6
PANELS_WIDTH, CELL_HEIGHT, PANELS_HEIGHT = plot_style.WIDTH - 1.7, 0.27, 8.0
"""Width of all heat maps together, height of a cell, and largest height of all heat maps."""

LINES = ((BLUE, "-", "o"), (VERMILLION, "--", "s"), (plot_style.GREEN, "-.", "^"), (plot_style.PURPLE, ":", "D"))
MARKS: tuple[tuple[bool | None, str, dict[str, Any]], ...] = (
    (True, "may be the best: in the best set", {"marker": "o", "color": BLUE, "markerfacecolor": BLUE}),
    (False, "behind the best", {"marker": "D", "color": VERMILLION, "markerfacecolor": "white"}),
    (None, "not compared", {"marker": "s", "color": plot_style.GREY, "markerfacecolor": "white"}),
)
"""Meanings and styles of marks by `Point.in_best_set`."""


def draw(ranking: Ranking, analysis: Analysis, formats: Iterable[str] = ()) -> dict[str, bytes]:
    """Return PNG files, 15 cm wide, by name, and the same in other formats. The same input gives the same bytes.

    Pictures without data are left out: the heat map without two keys that have several values (or with too many, or
    continuous ones), the accuracies of a single point, the confusion matrix without predictions of the leader.
    """
    with plot_style.our_style():
        figures = {
            "accuracy": _accuracy(ranking, analysis) if len(analysis.points) > 1 else None,
            "heatmap": None if importances.axes(analysis.points, ranking.plan.space) else _heatmap(ranking, analysis),
            "curves": _curves(ranking, analysis),
            "confusion": _confusion(analysis, analysis.confusion) if analysis.confusion else None,
        }
        return plot_style.as_files(figures, formats)


# ---- points in the order of their rank


def _accuracy(ranking: Ranking, analysis: Analysis) -> Figure:
    points = analysis.points[:MOST_POINTS]
    marks = [mark for mark in MARKS if any(point.in_best_set is mark[0] for point in points)]
    with_runs = any(len(point.runs) > 1 for point in points)
    has_bars, trainings = any(point.estimate for point in points), " and other trainings" if analysis.noise else ""
    notes = [
        excerpts(ranking, analysis),
        f"Bars: 95 % intervals of each point by itself, for other recordings{trainings}." if has_bars else "",
        "Points are compared on the same excerpts, so that bars may overlap." if has_bars and len(marks) > 1 else "",
        f"The first {len(points)} of {len(analysis.points)} points." if len(points) < len(analysis.points) else "",
        f"{analysis.few_recordings.capitalize()}." if has_bars and analysis.few_recordings else "",
        analysis.unpaired,
    ]
    title = f"val_accuracy of {population(ranking, analysis)}, best first"
    figure = new_figure(0.7 + 0.165 * len(points), title, notes, len(marks) + with_runs)
    axes = figure.subplots()
    axes.grid(axis="x")
    for in_best_set, meaning, style in marks:
        drawn = [(place, point) for place, point in enumerate(points) if point.in_best_set is in_best_set]
        bars = [(y, 100 * point.estimate.low, 100 * point.estimate.high) for y, point in drawn if point.estimate]
        if bars:
            axes.hlines(*zip(*bars, strict=True), color=style["color"], linewidth=1.2)
        x, y = [100 * point.accuracy for _, point in drawn], [place for place, _ in drawn]
        axes.plot(x, y, label=meaning, linestyle="none", markersize=4.5, **style)
    if with_runs:
        accuracies = {run.id: run.accuracy or 0.0 for run in ranking.runs}
        places = [(run, place) for place, point in enumerate(points) for run in point.runs if len(point.runs) > 1]
        x, y = [100 * accuracies[run] for run, _ in places], [place for _, place in places]
        axes.plot(x, y, "|", color=plot_style.INK, markersize=6, markeredgewidth=0.7, label="single runs")
    axes.set_ylim(len(points) - 0.4, -1.6)
    axes.margins(x=0.03)
    _label_rows(axes, points)
    axes.set_xlabel("val_accuracy, %")
    axes.spines["left"].set_visible(False)
    plot_style.add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _label_rows(axes: Axes, points: Sequence[Point]) -> None:
    """Write a table of run IDs and swept values, its head above the first point."""
    table = [["run", *points[0].values]]
    table += [[ranges(point.runs), *map(_text, point.values.values())] for point in points]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    while sum(widths) + 2 * len(widths) > TABLE and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    cells = [[shortened(text, width).rjust(width) for text, width in zip(row, widths, strict=True)] for row in table]
    axes.set_yticks(range(-1, len(points)), map("  ".join, cells), family="DejaVu Sans Mono")
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)


# ---- the grid


def _heatmap(ranking: Ranking, analysis: Analysis) -> Figure | None:
    """Draw the grid by the two keys with the most values, with a panel for each combination of the others."""
    whole = Grid.of([point.values for point in analysis.points], analysis.points[0].values, most=math.inf)
    levels = dict(sorted(whole.levels.items(), key=lambda item: -len(item[1])))
    sizes = [len(values) for values in levels.values()]
    is_continuous = bool(importances.axes(analysis.points, ranking.plan.space))
    if len(levels) < 2 or sizes[0] > MOST_ROWS or sizes[1] > MOST_COLUMNS or is_continuous:
        return None
    (rows, columns, *others), (n_rows, n_columns) = levels, sizes[:2]
    codes = dict(zip(whole.levels, whole.codes.tolist(), strict=True))
    places = [*zip(*(codes[key] for key in levels), strict=True)]
    leader, panels = places[0], dict[tuple[int, ...], Array]()  # in the order of the best point in each
    for point, place in zip(analysis.points, places, strict=True):
        panel = panels.setdefault(place[2:], np.full(sizes[:2], np.nan))
        if point.has_all_folds:
            panel[place[:2]] = 100 * point.accuracy
    high = CELL_HEIGHT * n_rows + 0.2 + LINE * len(others)
    most_across = max(1, int(PANELS_WIDTH / max(0.4 * n_columns, 1.2)))
    chosen = sorted(list(panels)[: min(MOST_PANELS, most_across * max(1, int(PANELS_HEIGHT / high)))])
    down = math.ceil(len(chosen) / most_across)
    across = math.ceil(len(chosen) / down)
    wide = PANELS_WIDTH / across
    accuracies = np.array([panels[place] for place in chosen])
    notes = [
        f"{population(ranking, analysis)}; {excerpts(ranking, analysis)}",
        f"Framed: the leader, {_named(analysis.points[0])}.",
        "Hatched: no finished run, or a fold is missing." if np.isnan(accuracies).any() else "",
        f"{len(chosen)} of {len(panels)} panels, those with the best points." if len(panels) > len(chosen) else "",
    ]
    title = f"val_accuracy by {shortened(rows, 24)} and {shortened(columns, 24)}"
    rows_with_names = 1 if len(chosen) == down * across else 2
    row_names, column_names = ([shortened(_text(value), 14) for value in levels[key]] for key in (rows, columns))
    turned = turned_height(column_names, wide / n_columns)
    figure = new_figure(0.5 + down * high + rows_with_names * turned, title, notes)
    grid = figure.subplots(down, across, squeeze=False)
    for number, (axes, place, panel) in enumerate(zip(grid.flat, chosen, accuracies, strict=False)):
        image = _draw_panel(axes, panel, accuracies, leader[:2] if place == leader[2:] else None)
        lines = [f"{key} = {_text(levels[key][level])}" for key, level in zip(others, place, strict=True)]
        axes.set_title("\n".join(shortened(line, int(wide / CHARACTER)) for line in lines))
        is_left, is_lowest = number % across == 0, number + across >= len(chosen)
        name_ticks(axes.yaxis, row_names if is_left else [], CELL_HEIGHT)
        name_ticks(axes.xaxis, column_names if is_lowest else [], wide / n_columns)
        axes.set_ylabel(shortened(rows, 24) if is_left else "")
        axes.set_xlabel(shortened(columns, 24) if is_lowest else "")
    for axes in grid.flat[len(chosen) :]:
        axes.remove()
    figure.colorbar(image, ax=figure.axes, label="val_accuracy, %", aspect=30, pad=0.02)
    return figure


def _draw_panel(axes: Axes, panel: Array, accuracies: Array, framed: tuple[int, ...] | None) -> AxesImage:
    """Draw one panel in the colors of all `accuracies`, with a frame around one cell."""
    low = np.nanmin(accuracies)
    high = max(np.nanmax(accuracies), low + 1)
    image = axes.imshow(panel, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    axes.patch.set(hatch="////", edgecolor=FAINT)  # visible where the image has no value
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(~np.isnan(panel)):
        color = "white" if panel[row, column] < (low + high) / 2 else "black"
        text = axes.text(column, row, f"{panel[row, column]:.1f}", color=color, in_layout=False)
        text.set(horizontalalignment="center", verticalalignment="center_baseline")
    if framed:
        corner = framed[1] - 0.5, framed[0] - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=VERMILLION, linewidth=2.5, clip_on=False))
    return image


# ---- epochs


def _curves(ranking: Ranking, analysis: Analysis) -> Figure:
    """Draw the mean over the runs of each point, and the first points in front with the band of their runs."""
    front, others = analysis.points[: len(LINES)], analysis.points[len(LINES) :]
    finished = {run for point in analysis.points for run in point.runs}
    unfinished = [run.id for run in ranking.runs if run.id not in finished and run.curve]
    losses = [loss for run in ranking.runs for loss in run.curves.get(VAL_LOSS, {}).values() if math.isfinite(loss)]
    highest = 1.2 * float(np.quantile(losses, 0.95)) if losses else math.inf
    is_cut = max(losses, default=0) > 1.5 * highest
    followers = {1: "", 2: " and the next"}.get(len(front), f" and the next {len(front) - 1}")
    notes = [
        excerpts(ranking, analysis),
        "Lines: means over a point's runs; bands: from its lowest to its highest run."
        if any(len(point.runs) > 1 for point in front)
        else "",
        f"In front: the leader{followers}; grey: all others." if others or unfinished else "",
        f"Losses above {highest:.3g} are cut off." if is_cut else "",
    ]
    title = f"Validation accuracy and loss by epoch, {population(ranking, analysis)}"
    figure = new_figure(2.5, title, notes, legend_lines=len(front))
    left, right = figure.subplots(1, 2)
    last = max(epoch for run in ranking.runs for epoch in run.curves.get(VAL_ACCURACY, {}))
    for axes, tag, factor in ((left, VAL_ACCURACY, 100), (right, VAL_LOSS, 1)):
        curves = {run.id: run.curves.get(tag, {}) for run in ranking.runs}
        axes.grid()
        behind = [_mean(_over_runs(curves, point)) for point in others] + [curves[run] for run in unfinished]
        axes.plot(*_joined(behind, factor), color=FAINT, linewidth=0.7, marker=".", markersize=2)
        for place, point in enumerate(front):
            _draw_curve(axes, curves, point, factor, place)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.set_xlim(0.5, last + 0.5)
    left.set_ylabel("val/accuracy, %")
    right.set_ylabel("val/loss")
    if is_cut:
        right.set_ylim(top=highest)
    plot_style.add_legend(figure, left.get_legend_handles_labels()[0])
    return figure


def _draw_curve(axes: Axes, curves: Mapping[int, Curve], point: Point, factor: float, place: int) -> None:
    """Draw a point's mean and, of several runs, the band from the lowest to the highest run."""
    color, dash, shape = LINES[place]
    layer, values = 9 - place, _over_runs(curves, point)
    style: dict[str, Any] = {"color": color, "linestyle": dash, "marker": shape, "markersize": 3}
    label = f"{named_runs(point.runs)}  {_named(point)}"
    axes.plot(*_joined([_mean(values)], factor), label=label, zorder=layer, **style)
    if len(point.runs) > 1:
        low, high = ([factor * edge(own) for own in values.values()] for edge in (min, max))
        axes.fill_between([*values], low, high, color=color, alpha=0.18, linewidth=0, zorder=layer - 5)


def _over_runs(curves: Mapping[int, Curve], point: Point) -> dict[int, list[float]]:
    """Return the values of the point's runs by epoch, for the epochs that all have."""
    runs = [curves[run] for run in point.runs]
    return {epoch: [curve[epoch] for curve in runs] for epoch in runs[0] if all(epoch in curve for curve in runs)}


def _mean(values: Mapping[int, Sequence[float]]) -> Curve:
    return {epoch: math.fsum(own) / len(own) for epoch, own in values.items()}


def _joined(curves: Iterable[Curve], factor: float) -> tuple[list[float], list[float]]:
    """Return epochs and values of all curves as one line with gaps between them."""
    epochs, values = [], []
    for curve in curves:
        epochs += [*curve, math.nan]
        values += [factor * value for value in curve.values()] + [math.nan]
    return epochs, values


# ---- the leader's errors


def _confusion(analysis: Analysis, confusion: Confusion) -> Figure:
    leader, counts, n = analysis.points[0], confusion.counts, len(confusion.classes)
    is_part, is_alone = len(leader.runs) > len(confusion.runs), len(analysis.points) == 1
    which = "" if is_alone else ", the leader"
    if is_part:
        which = f", the first of {len(leader.runs)}" if is_alone else f", the first of the leader's {len(leader.runs)}"
    notes = [
        f"The leader: {_named(leader)}." if leader.values and not is_alone else "",
        f"{100 * np.trace(counts) / max(counts.sum(), 1):.1f} % are right in the last epoch.",
        "Color: per cent of the row, so that the diagonal is each class's recall.",
        "Numbers: per cent and, small, excerpts." if n <= MOST_COUNTED else "",
        "The report names the classes with #." if plot_style.without_glyphs(confusion.classes) else "",
    ]
    title = f"Confusion matrix of {named_runs(confusion.runs)}{which}, n = {counts.sum():,} excerpts"
    names = [shortened(name, 16) for name in plot_style.drawable(confusion.classes)]
    width, height = 4.6, min(4.6, 0.4 * n)
    figure = new_figure(0.4 + height + turned_height(names, width / n), title, notes)
    axes = figure.subplots()
    share = 100 * counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.spines[:].set_visible(False)
    name_ticks(axes.xaxis, names, width / n)
    name_ticks(axes.yaxis, names, height / n)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if n > MOST_COUNTED:
        figure.colorbar(image, ax=axes, label="% of the row", aspect=30, pad=0.02)
        return figure
    for row, column in np.argwhere(counts):
        color = "white" if share[row, column] > 60 else "black"
        style: dict[str, Any] = {"color": color, "horizontalalignment": "center", "in_layout": False}
        axes.text(column, row, f"{share[row, column]:.0f}", verticalalignment="bottom", **style)
        axes.text(column, row + 0.06, f"{counts[row, column]}", verticalalignment="top", fontsize=6.5, **style)
    return figure


# ---- text


def population(ranking: Ranking, analysis: Analysis) -> str:
    """Return the number of points, and of runs where it is another one."""
    finished = sum(len(point.runs) for point in analysis.points)
    total, points = len(ranking.runs), len(analysis.points)
    runs = counted(finished, "run") if finished == total else f"{finished} of {counted(total, 'run')}"
    return runs if finished == points else f"{counted(points, 'point')} ({runs})"


def excerpts(ranking: Ranking, analysis: Analysis) -> str:
    """Return the number of validation excerpts and of their recordings."""
    if analysis.excerpts:
        return f"n = {analysis.excerpts:,} excerpts of {analysis.recordings:,} recordings."
    leader = next(run for run in ranking.runs if run.id == analysis.points[0].runs[0])
    return f"n = {leader.val_excerpts:,} excerpts."


def _named(point: Point) -> str:
    return shortened(", ".join(f"{key} {_text(value)}" for key, value in point.values.items()), 75)


def _text(value: object) -> str:
    """Return a value as in a table, but without the zero of 1.0."""
    return f"{value:.4g}" if isinstance(value, float) else brief(value)
