"""An evaluation's picture: which classes are recognised, and whether the others are missed or named too often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irmas.evaluation.protocol import OfClass
from irmas.labels import INSTRUMENTS
from irmas.plot_style import BLUE, DASHES, FAINT, GREEN, GREY, PURPLE, add_legend, as_png, new_figure, our_style
from irmas.results.page import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from irmas.evaluation.evaluator import Evaluation

MOST_CLASSES = 60
NAME = 24
"""Characters of a class's name."""


def draw(result: Evaluation) -> bytes:
    """PNG, 15 cm wide: per class F1 with its interval, and precision beside recall. The same result, the same bytes."""
    with our_style():
        chief = result.chief
        classes = sorted((of for of in chief.classes if of.support), key=lambda of: -of.f1.value)[:MOST_CLASSES]
        rule = chief.rule
        by = f"threshold {rule.threshold:.3f}, {rule.name}" if rule.threshold is not None else rule.name
        source = result.found.source
        notes = [
            f"n = {counted(len(result.excerpts), 'excerpt')} of {counted(result.sources, source)}.",
            f"Bars: 95 % intervals, what other {source}s might have given." if result.scored.draws is not None else "",
            f"Dashed: the mean, macro F1 {chief.macro_f1.value:.3f}.",
            f"Without an excerpt: {', '.join(result.without_excerpts)}." if result.without_excerpts else "",
            f"The first {len(classes)} classes." if len(classes) == MOST_CLASSES else "",
        ]
        figure = new_figure(0.55 + 0.2 * len(classes), f"F1 by class ({by})", notes, legend_lines=1)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.15, 1])
        _draw_f1(left, classes, chief.macro_f1.value)
        _draw_precision_and_recall(right, classes)
        for axes in (left, right):
            axes.grid(axis="x")
            axes.set_xlim(-0.03, 1.03)
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
        left.set_ylim(len(classes) - 0.4, -0.6)
        handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
        add_legend(figure, handles, columns=3)
        return as_png(figure)


def _draw_f1(axes: Axes, classes: list[OfClass], mean: float) -> None:
    axes.axvline(mean, color=GREY, linewidth=0.8, linestyle=DASHES)
    for place, of in enumerate(classes):
        if of.f1.interval:
            axes.hlines(place, of.f1.interval.low, of.f1.interval.high, color=BLUE, linewidth=1.2)
    values = [of.f1.value for of in classes]
    axes.plot(values, range(len(classes)), "o", color=BLUE, markersize=4.5, label="F1")
    axes.set_yticks(range(len(classes)), [_name(of) for of in classes])
    axes.set_xlabel("F1")


def _draw_precision_and_recall(axes: Axes, classes: list[OfClass]) -> None:
    places = range(len(classes))
    axes.hlines(places, [of.precision for of in classes], [of.recall for of in classes], color=FAINT, linewidth=1.5)
    style: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, "markerfacecolor": "white"}
    axes.plot([of.precision for of in classes], places, "^", color=GREEN, label="precision", **style)
    axes.plot([of.recall for of in classes], places, "D", color=PURPLE, label="recall", **style)
    axes.set_xlabel("precision and recall")


def _name(of: OfClass) -> str:
    words = INSTRUMENTS.get(of.label, of.label)
    return f"{words if len(words) <= NAME else words[: NAME - 1] + '…'}  ({of.support})"
