"""Several sweeps beside each other: the settings that differ, their best points, and a paired test of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from irmas import plot_style
from irmas.config import WITHOUT_EFFECT, shown
from irmas.files import PNG
from irmas.results import comparison, ranking
from irmas.results.analysis import Analysis, Group, Point
from irmas.results.comparison import Array, Estimate
from irmas.results.ranking import Ranking
from irmas.sweep.plan import Plan
from irmas.sweep.sweep import Sweep

MOST_VALUES = 6
"""Most values of a setting that are listed."""
DATA = ("data.source", "data.size", "data.render_seed")
"""Settings with which excerpts of one name are different sounds."""


@dataclass(frozen=True)
class Side:
    """A sweep and what follows from it."""

    ranking: Ranking
    analysis: Analysis | None
    """None where no run has finished."""

    @classmethod
    def read(cls, sweep: Sweep) -> Side:
        result = ranking.rank(sweep)
        return cls(result, ranking.analyze(result))

    @property
    def name(self) -> str:
        return str(self.ranking.sweep)

    @property
    def notes(self) -> list[str]:
        """Sentences, without their periods, about files and runs that limit the ranking."""
        problems = [*self.ranking.problems, *(self.analysis.problems if self.analysis else ())]
        texts = [f"could not be read: {text}" for text in problems]
        texts += [*ranking.warnings(self.ranking), self.ranking.state.note]
        texts += [self.analysis.few_recordings, self.analysis.unpaired] if self.analysis else []
        return [f"{self.name}: {text}" for text in texts if text]

    @property
    def best(self) -> Point | None:
        return self.analysis.points[0] if self.analysis else None

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the best point's run with the lowest ID, by dotted key; empty where no run has finished."""
        plan = self.ranking.plan
        return plan.config_of(plan.runs[self.best.runs[0] - 1]).flat() if self.best else {}

    @property
    def luck(self) -> float | None:
        """Accuracy by which the best point looks better than it is, since it was chosen; None where it is unknown."""
        expected = self.analysis.leader if self.analysis else None
        return self.best.accuracy - expected.value if self.best and expected else None


@dataclass(frozen=True)
class Difference:
    """Accuracy of a sweep's best point minus that of another one's, on the same excerpts, with 95 % intervals."""

    observed: Estimate
    p: float
    """Probability of an observed difference as large, in either direction, between points that are equally good."""
    expected: Estimate | None
    """The difference without the luck of having been chosen; None where the training noise is unknown."""
    excerpts: int
    recordings: int

    @property
    def is_shown(self) -> bool:
        """True where the difference is real with 95 % confidence, the choice of both points allowed for."""
        return self.expected is not None and (self.expected.low > 0 or self.expected.high < 0)


def settings(sides: Sequence[Side]) -> dict[str, list[str]]:
    """Return the values of each setting that differs, one text per sweep, as a command would list them."""
    plans = [side.ranking.plan for side in sides]
    keys = [key for key in plans[0].config.flat() if key not in WITHOUT_EFFECT]
    rows = {key: [_values(plan, key) for plan in plans] for key in keys}
    rows |= {
        "note": [plan.config.note or "-" for plan in plans],
        "digest of the data": [plan.data for plan in plans],
        "digest of the source": [plan.source for plan in plans],
    }
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _values(plan: Plan, key: str) -> str:
    base = plan.config.flat()[key]
    values = list(dict.fromkeys(shown(run.changes.get(key, base)) for run in plan.runs))
    if len(values) > MOST_VALUES:
        return f"{values[0]}, {values[1]}, ... {values[-1]} ({len(values)} values)"
    return ",".join(values)


def compared(first: Side, other: Side) -> Difference | str:
    """Return what the best point of `other` has more than that of `first`, or why they cannot be compared."""
    for side in (first, other):
        if not side.analysis:
            return f"no run of {side.name} has finished"
        if side.settings["data.split"] == "all":
            return f"{side.name} trained on the validation excerpts (data.split=all)"
        if not side.analysis.group:
            return f"{side.name}: {side.analysis.unpaired.rstrip('.')}"
    return _other_excerpts(first, other) or difference(first, other)


def _other_excerpts(first: Side, other: Side) -> str:
    """Return why the best points were not validated on the same excerpts; empty where they were."""
    data, other_data = first.ranking.plan.data, other.ranking.plan.data
    differing = [
        key
        for key, value in first.settings.items()
        if key.startswith("data.") and key not in WITHOUT_EFFECT and other.settings[key] != value
    ]
    is_same_data = set(data.split("-")) & set(other_data.split("-")) and not set(differing) & set(DATA)
    if is_same_data and _names(first) == _names(other):
        return ""
    causes = [f"{key}={shown(first.settings[key])} and {shown(other.settings[key])}" for key in differing]
    return "validated on different excerpts: " + ", ".join(causes or [f"digests of the data {data} and {other_data}"])


def _names(side: Side) -> list[tuple[str, str]]:
    """Return the validation excerpts and their recordings, sorted."""
    sample = _group(side).sample
    return sorted(zip(sample.excerpts.tolist(), sample.recordings.tolist(), strict=True))


def _group(side: Side) -> Group:
    assert side.analysis
    assert side.analysis.group
    return side.analysis.group


def difference(first: Side, other: Side) -> Difference:
    """Return what the best point of `other` has more than that of `first`, both validated on the same excerpts.

    Recordings are resampled alike for both, as in a ranking; the training noise of each is that of its own sweep.
    """
    rng = np.random.default_rng(comparison.SEED + 3)
    ahead, behind = _group(other).comparison, _group(first).comparison
    noise = ahead.by_excerpts[0] - behind.by_excerpts[0]
    for side in (ahead, behind):
        noise = noise + side.variance.draw(rng, side.runs[:1])[0]
    observed = float(ahead.accuracies[0] - behind.accuracies[0])
    expected = None
    if first.luck is not None and other.luck is not None:
        expected = _interval(observed - other.luck + first.luck, noise)
    beyond = int((np.abs(noise) >= abs(observed) - comparison.ROUNDING).sum())
    sample = _group(first).sample
    p = (1 + beyond) / (1 + comparison.RESAMPLES)
    return Difference(_interval(observed, noise), p, expected, len(sample.excerpts), len(sample.sizes))


def _interval(value: float, noise: Array) -> Estimate:
    tails = [(1 - comparison.CONFIDENCE) / 2, (1 + comparison.CONFIDENCE) / 2]
    return Estimate(value, *(value + np.quantile(noise, tails)).tolist())


def as_json(sides: Sequence[Side], differences: Sequence[Difference | str]) -> dict[str, Any]:
    """Return settings, best points and differences as docs/json.md describes them."""
    return {
        "sweeps": [_side_as_json(side) for side in sides],
        "settings": settings(sides),
        "differences": [
            {"sweep": side.name, "baseline": sides[0].name} | _difference_as_json(found)
            for side, found in zip(sides[1:], differences, strict=True)
        ],
        "warnings": [note for side in sides for note in side.notes],
    }


def _side_as_json(side: Side) -> dict[str, Any]:
    best, analysis = side.best, side.analysis
    entry: dict[str, Any] = {"sweep": side.name, "note": side.ranking.plan.config.note, "points": 0, "best_set": 0}
    if best is None or analysis is None:
        return entry | {"best": None}
    values = {"settings": best.values, "runs": best.runs, "val_accuracy": best.accuracy}
    values["interval"] = asdict(best.estimate) if best.estimate else None
    values["expected"] = asdict(analysis.leader) if analysis.leader else None
    size = len(analysis.best_set) if analysis.noise else None
    return entry | {"points": len(analysis.points), "best_set": size, "best": values}


def _difference_as_json(found: Difference | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"not_compared": found}
    return asdict(found) | {"is_shown": found.is_shown}


# ---- the picture


def draw(sides: Sequence[Side], differences: Sequence[Difference | str], format_: str = PNG) -> bytes:
    """Return a picture, 15 cm wide.

    It shows the points of each sweep, the best one's interval, and its lead over that of the first sweep.
    `differences` are those of all sweeps but the first, or why there are none.
    """
    with plot_style.our_style():
        known = next((found for found in differences if isinstance(found, Difference)), None)
        notes = [
            "Bars: 95 % intervals for other recordings and, where the training noise is known, other trainings.",
            f"Differences: paired on {known.excerpts:,} excerpts of {known.recordings:,} recordings." if known else "",
            f"{few.capitalize()}." if (few := comparison.few(known.recordings if known else 0)) else "",
        ]
        title = f"Best points of {len(sides)} sweeps, and all their points"
        figure = plot_style.new_figure(0.6 + 0.35 * len(sides), title, notes, legend_lines=1)
        widths = [1.4, 1] if known else [1]
        left, *others = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths).flat
        _draw_accuracies(left, sides)
        for axes in others:
            _draw_differences(axes, differences)
        for axes in (left, *others):
            axes.grid(axis="x")
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
        left.set_yticks(range(len(sides)), [plot_style.shortened(side.ranking.sweep.path.name, 30) for side in sides])
        left.set_ylim(len(sides) - 0.5, -0.5)
        plot_style.add_legend(figure, left.get_legend_handles_labels()[0], columns=3)
        return plot_style.as_file(figure, format_)


def _draw_accuracies(axes: Axes, sides: Sequence[Side]) -> None:
    points = [(point, row) for row, side in enumerate(sides) if side.analysis for point in side.analysis.points]
    best = [(side, point, row) for row, side in enumerate(sides) if (point := side.best)]
    marks: dict[str, Any] = {"linestyle": "none", "markersize": 4.5}
    x, y = [100 * point.accuracy for point, _ in points], [row + 0.22 for _, row in points]
    axes.plot(x, y, "|", color=plot_style.GREY, markersize=6, label="points")
    for _, point, row in best:
        if point.estimate:
            axes.hlines(row, 100 * point.estimate.low, 100 * point.estimate.high, color=plot_style.BLUE, linewidth=1.2)
    x, y = [100 * point.accuracy for _, point, _ in best], [row for *_, row in best]
    axes.plot(x, y, "o", color=plot_style.BLUE, label="the best one, observed", **marks)
    expected = [(point.accuracy - side.luck, row) for side, point, row in best if side.luck is not None]
    x, y = [100 * value for value, _ in expected], [row for _, row in expected]
    marks |= {"color": plot_style.VERMILLION, "markerfacecolor": "white"}
    axes.plot(x, y, "D", label="expected when trained again", **marks)
    axes.set_xlabel("val_accuracy, %")


def _draw_differences(axes: Axes, differences: Sequence[Difference | str]) -> None:
    axes.axvline(0, color=plot_style.GREY, linewidth=0.8, linestyle=plot_style.DASHES)
    for row, found in enumerate(differences, start=1):
        if isinstance(found, str):
            continue
        styles = ((found.observed, 0.0, "o", plot_style.BLUE), (found.expected, 0.2, "D", plot_style.VERMILLION))
        for estimate, below, marker, color in styles:
            if estimate:
                axes.hlines(row + below, 100 * estimate.low, 100 * estimate.high, color=color, linewidth=1.2)
                face = color if marker == "o" else "white"
                axes.plot(100 * estimate.value, row + below, marker, color=color, markerfacecolor=face, markersize=4.5)
    axes.set_xlabel("ahead of the first, points")
