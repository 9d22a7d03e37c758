"""A ranking and its analysis -> report.md, report.html, pictures and best.yaml.

This module prepares values; the sentences of the report are in report.md.j2.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from irmas.config import anneals, averaged_epochs, shown
from irmas.files import atomic_write
from irmas.results import best, dashboard, page, plots
from irmas.results.analysis import Analysis, Point
from irmas.results.comparison import Estimate
from irmas.results.effects import Effect, Level
from irmas.results.outcomes import Confusion
from irmas.results.page import PLOTS, code, counted, listed, plain, setting
from irmas.results.ranking import Ranking, Row, mixed_schedules, mixed_sources, old_runs
from irmas.sweep.jobs import named_runs
from irmas.sweep.pruning import describe
from irmas.sweep.slurm import ranges

TEMPLATE = Path(__file__).with_name("report.md.j2")
TOP = 5
MOST_KEYS, MOST_LEVELS, MOST_UNRANKED, MOST_VALUES = 4, 6, 8, 24
"""Keys in the summary, leads of a key, reasons for missing ranks, and swept values of a key that are listed."""
DEDUCED: Mapping[str, frozenset[float]] = {
    "dropout": frozenset((0.3, 0.4, 0.5)),
    "lr": frozenset((0.001, 0.0005, 0.0001)),
    "l2": frozenset((0.001, 0.0001)),
}
"""The grid from which the reproduced report drew its deductions."""
BASELINE = {"dropout": 0.5, "l2": 0.001}
SLOW = 0.0001
PLATEAU = 0.8
EQUAL = 0.005
"""Expected loss of accuracy up to which points are called equally good."""


def write(ranking: Ranking, analysis: Analysis | None, confusion: Confusion | None) -> Path:
    """Write report, pictures and best.yaml; return the path of the HTML page. The same ranking writes the same bytes.

    `analysis` is None where no run has finished, `confusion`, that of the leader's run with the lowest ID, where its
    predictions are missing. Raises OSError, with the file's path.
    """
    pictures = dict[str, bytes]()
    if analysis and len(analysis.points) > 1:
        pictures = plots.draw(ranking, analysis, confusion)
    sweep = ranking.sweep
    folder = sweep.plots
    folder.mkdir(exist_ok=True)
    for stale in set(folder.glob("*.png")) - {folder / name for name in pictures}:
        stale.unlink()
    for name, png in pictures.items():
        atomic_write(folder / name, png)
    if pictures:
        dashboard.write(sweep, pictures)
    text = markdown(ranking, analysis, confusion, list(pictures))
    atomic_write(sweep.report, text)
    atomic_write(sweep.page, page.html(text, pictures))
    if analysis:
        atomic_write(sweep.best, best.text(ranking, analysis))
    return sweep.page


def markdown(ranking: Ranking, analysis: Analysis | None, confusion: Confusion | None, pictures: Sequence[str]) -> str:
    """Return the report of a ranking by last epochs. `confusion` is that of the leader's run with the lowest ID.

    `pictures` are the file names of those that there are, which lie in plots/ beside the report.
    """
    # Markdown, whose special characters `plain` and `code` escape.
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)  # noqa: S701
    environment.globals |= {
        "percent": percent,
        "whole": lambda share: f"{100 * share:.3g}",
        "counted": counted,
        "listed": listed,
        "plain": plain,
        "code": code,
        "runs": named_runs,
        "ranges": ranges,
        "values": _values,
        "others": _others,
        "swept": partial(_swept, ranking),
        "last": partial(_last_epoch, ranking),
    }
    template = environment.from_string(TEMPLATE.read_text())
    text = template.render(_about(ranking, pictures, confusion) | (_found(ranking, analysis) if analysis else {}))
    return _with_single_blank_lines(text)


def _about(ranking: Ranking, pictures: Sequence[str], confusion: Confusion | None) -> dict[str, Any]:
    """Return what the report says of any sweep."""
    plan, rows = ranking.plan, sorted(ranking.rows, key=lambda row: row.id)
    states = Counter("finished" if row.is_finished else row.state for row in rows)
    return {
        "name": plan.name,
        "plan": plan,
        "config": plan.config,
        "rows": rows,
        "analysis": None,
        "claims": None,
        "trained_on": plan.config.data.split == "all",
        "grid": {key: _levels_shown(ranking, key) for key in plan.swept},
        "halving": describe(plan),
        "states": ", ".join(f"{n} {state}" for state, n in sorted(states.items())),
        "unranked": _unranked(rows),
        "unseen": [plain(name) for name, row in zip(*reversed(confusion), strict=True) if not row.any()]
        if confusion
        else [],
        "warnings": [*filter(None, (mixed_sources(ranking), old_runs(ranking), mixed_schedules(ranking)))],
        "slurm_is_silent": ranking.state.note and any(row.rank is None for row in rows),
        "problems": [_inside(problem) for problem in ranking.problems],
        "pictures": pictures,
        "plots": PLOTS,
        "none_cell": page.NONE,
        "most_keys": MOST_KEYS,
        "most_levels": MOST_LEVELS,
        "most_unranked": MOST_UNRANKED,
        "equal": EQUAL,
    }


def _found(ranking: Ranking, analysis: Analysis) -> dict[str, Any]:
    """Return what the report says of finished runs."""
    best_set = [rank for rank, point in enumerate(analysis.points, start=1) if rank == 1 or point.in_best_set]
    schedules = {_setting(ranking, run, "schedule") for point in analysis.points for run in point.runs}
    return {
        "analysis": analysis,
        "step": best.next_step(ranking, analysis),
        "top": analysis.points[:TOP],
        "best_ranks": ranges(best_set),
        "not_compared": sum(point.in_best_set is None for point in analysis.points[1:]),
        "one_seed": all(len(point.runs) == 1 for point in analysis.points),
        "anneals": any(map(anneals, schedules)),
        "effects": sorted(analysis.effects, key=lambda effect: math.inf if effect.p is None else effect.p),
        "edges": any(effect.beyond is not None for effect in analysis.effects),
        "averaged": _averaged(ranking, analysis),
        "epochs": ranking.plan.config.epochs,
        "claims": _claims(ranking, analysis) if _is_the_reports_grid(ranking) else None,
    }


def percent(share: float, digits: int = 1) -> str:
    """Return a share in per cent, or a difference of two in percentage points; no zero is negative."""
    return f"{round(100 * share, digits) + 0.0:.{digits}f}"


def _values(point: Point) -> str:
    values = ", ".join(setting(key, value) for key, value in point.values.items())
    return f" ({values})" if values else ""


def _others(effect: Effect) -> list[Level]:
    return [level for level in effect.levels if level is not effect.best]


def _averaged(ranking: Ranking, analysis: Analysis) -> list[int]:
    """Return over how many epochs accuracies are averaged: one number, or the fewest and the most."""
    ranked = {run for point in analysis.points for run in point.runs}
    epochs = {
        1 if row.is_old else averaged_epochs(_setting(ranking, row.id, "schedule"), row.epoch)
        for row in ranking.rows
        if row.id in ranked
    }
    return sorted({min(epochs), max(epochs)})


def _setting(ranking: Ranking, run: int, key: str) -> Any:
    point = ranking.plan.runs[run - 1]
    return point.changes.get(key, getattr(ranking.plan.config, key))


def _last_epoch(ranking: Ranking, point: Point) -> str:
    found = [row.last_accuracy for row in ranking.rows if row.id in point.runs and row.last_accuracy is not None]
    return percent(math.fsum(found) / len(found), 2) if found else page.NONE


# The deductions of the reproduced report


@dataclass(frozen=True)
class Baseline:
    """The point that the reproduced report calls over-regularized, at the leader's learning rate."""

    point: Point
    verdict: bool | None


@dataclass(frozen=True)
class Rate:
    """How the learning rate that the reproduced report calls too slow ends."""

    is_best: bool
    best: str
    behind: float
    """Accuracy of the best learning rate minus that of this one."""
    lead: Estimate | None
    """The same with its interval; None where it is not known."""
    p: float | None
    verdict: bool | None


@dataclass(frozen=True)
class Claims:
    baseline: Baseline | None
    rate: Rate | None
    reached: int
    """Points at PLATEAU or above."""


def _is_the_reports_grid(ranking: Ranking) -> bool:
    keys = set(ranking.plan.swept) - {"seed"}
    return keys == DEDUCED.keys() and all({row.values[key] for row in ranking.rows} == DEDUCED[key] for key in keys)


def _claims(ranking: Ranking, analysis: Analysis) -> Claims:
    reached = sum(point.accuracy >= PLATEAU for point in analysis.points)
    effect = next((effect for effect in analysis.effects if effect.key == "lr"), None)
    return Claims(_baseline(analysis), _rate(effect) if effect else None, reached)


def _baseline(analysis: Analysis) -> Baseline | None:
    leader = analysis.points[0]
    wanted = {**leader.values, **BASELINE}
    point = next((point for point in analysis.points if point.values == wanted), None)
    if point is None:
        return None
    if point is leader:
        return Baseline(point, False if analysis.is_decided else None)
    # The leader regularizes less: no value of the grid is above the baseline's.
    return Baseline(point, True if point.in_best_set is False else None)


def _rate(effect: Effect) -> Rate | None:
    slow = next((level for level in effect.levels if level.value == SLOW), None)
    if slow is None:
        return None
    is_best = slow is effect.best
    verdict = None
    if slow.is_behind or (is_best and any(level.is_behind for level in effect.levels)):
        verdict = not is_best
    return Rate(is_best, shown(effect.best.value), effect.best.accuracy - slow.accuracy, slow.lead, effect.p, verdict)


# The grid


def _levels_shown(ranking: Ranking, key: str) -> str:
    """Return the values of a swept key; those of a group with what they change of the base configuration."""
    changed: dict[str, dict[str, None]] = {}
    for point in ranking.plan.runs:
        changes = [
            setting(name, value)
            for name, value in point.changes.items()
            if name.startswith(f"{key}.") or (key == "recipe" and name not in ranking.plan.swept)
        ]
        value = plain(ranking.plan.value(point, key))
        changed.setdefault(value, {}).update(dict.fromkeys(changes if key in point.overrides else []))
    shown_values = [f"{value} ({listed([*told])})" if told else value for value, told in changed.items()]
    more = [f"{len(shown_values) - MOST_VALUES} more"] if len(shown_values) > MOST_VALUES else []
    return ", ".join(shown_values[:MOST_VALUES] + more)


def _swept(ranking: Ranking, *names: str) -> str:
    """Return which of these settings, or of the settings of these groups, are swept."""
    keys = [key for key in ranking.plan.swept if key.partition(".")[0] in names]
    return f" ({listed(keys)}: see above)" if keys else ""


@dataclass(frozen=True)
class Unranked:
    """Runs that ended alike."""

    ids: list[int]
    state: str
    reason: str


def _unranked(rows: Iterable[Row]) -> list[Unranked]:
    reasons: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        if row.rank is None:
            reasons[row.state, row.error].append(row.id)
    return [Unranked(ids, state, reason) for (state, reason), ids in reasons.items()]


def _inside(problem: str) -> str:
    """Return a message without the part of a path that depends on where the sweep lies."""
    return " ".join(word[word.find("runs/") :] if "/runs/" in word else word for word in problem.split(" "))


def _with_single_blank_lines(text: str) -> str:
    """Return the text without the blank lines that branches of the template leave."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return "".join(f"{line}\n" for line, before in zip(lines, ["", *lines], strict=False) if line or before)
