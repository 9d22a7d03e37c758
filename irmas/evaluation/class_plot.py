"""An evaluation's picture: which classes are recognized, and whether the others are missed or named too often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from irmas import plot_style as style
from irmas.console import counted
from irmas.evaluation.protocol import ClassMetrics
from irmas.labels import INSTRUMENTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from irmas.evaluation.evaluator import Evaluation

MOST_CLASSES = 60


def draw(result: Evaluation, formats: Iterable[str] = ()) -> dict[str, bytes]:
    """Return `classes.png`, 15 cm wide, and the same in other formats, by name.

    It shows per class F1 with its interval, and precision beside recall.
    """
    with style.our_style():
        reported = result.reported
        rule, mean = reported.rule, reported.macro_f1.value
        supported = [metrics for metrics in reported.classes if metrics.support]
        labels = [metrics.label for metrics in reported.classes]
        names = dict(zip(labels, style.drawable(labels), strict=True))
        absent = [names[label] for label in result.without_excerpts]
        classes = sorted(supported, key=lambda metrics: -metrics.f1.value)[:MOST_CLASSES]
        by = f"threshold {rule.threshold:.3f}, {rule.name}" if rule.threshold is not None else rule.name
        source = result.data.source
        notes = [
            f"n = {counted(len(result.excerpts), 'excerpt')} of {counted(result.sources, source)}.",
            f"Bars: 95 % intervals, what other {source}s might have given." if result.scored.draws is not None else "",
            f"Dashed: the mean, macro F1 {mean:.3f}.",
            f"Without an excerpt: {', '.join(absent)}." if absent else "",
            style.numbering(labels, "results.json"),
            f"The first {len(classes)} classes." if len(classes) == MOST_CLASSES else "",
        ]
        figure = style.new_figure(0.55 + 0.2 * len(classes), f"F1 by class ({by})", notes, legend_lines=1)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.15, 1])
        _draw_f1(left, classes, names, mean)
        _draw_precision_and_recall(right, classes)
        for axes in (left, right):
            axes.grid(axis="x")
            axes.set_xlim(-0.03, 1.03)
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
        left.set_ylim(len(classes) - 0.4, -0.6)
        handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
        style.add_legend(figure, handles, columns=3)
        return style.as_files({"classes": figure}, formats)


def _draw_f1(axes: Axes, classes: list[ClassMetrics], drawable: Mapping[str, str], mean: float) -> None:
    axes.axvline(mean, color=style.GREY, linewidth=0.8, linestyle=style.DASHES)
    for row, metrics in enumerate(classes):
        if interval := metrics.f1.interval:
            axes.hlines(row, interval.low, interval.high, color=style.BLUE, linewidth=1.2)
    values = [metrics.f1.value for metrics in classes]
    axes.plot(values, range(len(classes)), "o", color=style.BLUE, markersize=4.5, label="F1")
    names = [style.shortened(INSTRUMENTS.get(metrics.label, drawable[metrics.label]), 24) for metrics in classes]
    labels = [f"{name}  ({metrics.support})" for name, metrics in zip(names, classes, strict=True)]
    axes.set_yticks(range(len(classes)), labels)
    axes.set_xlabel("F1")


def _draw_precision_and_recall(axes: Axes, classes: list[ClassMetrics]) -> None:
    rows = range(len(classes))
    precisions, recalls = [metrics.precision for metrics in classes], [metrics.recall for metrics in classes]
    axes.hlines(rows, precisions, recalls, color=style.FAINT, linewidth=1.5)
    marker: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, "markerfacecolor": "white"}
    axes.plot(precisions, rows, "^", color=style.GREEN, label="precision", **marker)
    axes.plot(recalls, rows, "D", color=style.PURPLE, label="recall", **marker)
    axes.set_xlabel("precision and recall")
