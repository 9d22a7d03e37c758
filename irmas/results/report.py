"""A ranking and its analysis -> report.md, report.html, pictures and best.yaml.

This module prepares values; the sentences of the report are in report.md.j2.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from irmas.files import atomic_write
from irmas.results import best, page, plots
from irmas.results.analysis import Analysis, Point
from irmas.results.effects import Effect
from irmas.results.page import PLOTS, code, counted, listed, plain, setting
from irmas.results.ranking import Ranking, warnings
from irmas.run.events import replace_images
from irmas.sweep.jobs import named_runs
from irmas.sweep.pruning import describe
from irmas.sweep.slurm import ranges
from irmas.sweep.sweep import Sweep

TOP = 5
MOST_VALUES = 24
"""Values of a swept key that are listed."""
LIMITS = {"most_keys": 4, "most_levels": 6, "most_unranked": 8, "equal": 0.005}
"""Keys in the summary, leads of a key, and reasons for missing ranks that are listed; and the expected loss of accuracy
up to which points are called equally good."""
DEDUCED: Mapping[str, frozenset[float]] = {
    "dropout": frozenset((0.3, 0.4, 0.5)),
    "lr": frozenset((0.001, 0.0005, 0.0001)),
    "l2": frozenset((0.001, 0.0001)),
}
"""The grid from which the reproduced report drew its deductions."""
BASELINE = {"dropout": 0.5, "l2": 0.001}
SLOW = 0.0001
PLATEAU = 0.8


def write(ranking: Ranking, analysis: Analysis | None) -> Path:
    """Write report, pictures and best.yaml; return the path of the HTML page. The same ranking writes the same bytes.

    `analysis` is None where no run has finished. Raises OSError, with the file's path.
    """
    pictures = dict[str, bytes]()
    if analysis and len(analysis.points) > 1:
        pictures = plots.draw(ranking, analysis)
    sweep = ranking.sweep
    folder = sweep.plots
    folder.mkdir(exist_ok=True)
    for stale in set(folder.glob("*.png")) - {folder / name for name in pictures}:
        stale.unlink()
    for name, png in pictures.items():
        atomic_write(folder / name, png)
    if pictures:
        show_on_tensorboard(sweep, pictures)
    text = markdown(ranking, analysis, list(pictures))
    atomic_write(sweep.report, text)
    atomic_write(sweep.page, page.html(text, pictures))
    if analysis:
        atomic_write(sweep.best, best.text(ranking, analysis))
    return sweep.page


def show_on_tensorboard(sweep: Sweep, pictures: Mapping[str, bytes]) -> None:
    """Write PNG files as images `ranking/<name>` of a run `summary` beside the sweep's; the same ones change nothing.

    Raises OSError, with the file's path, where they cannot be written.
    """
    replace_images(sweep.summary, {f"ranking/{PurePath(name).stem}": png for name, png in pictures.items()})


def markdown(ranking: Ranking, analysis: Analysis | None, pictures: Sequence[str]) -> str:
    """Return the report of a ranking. `pictures` are the file names of those that exist in plots/ beside the report."""
    functions = {
        "percent": percent,
        "whole": lambda share: f"{100 * share:.3g}",
        "counted": counted,
        "listed": listed,
        "plain": plain,
        "code": code,
        "runs": named_runs,
        "ranges": ranges,
        "setting": setting,
        "swept": partial(_swept, ranking),
        "last": partial(_last_accuracy, ranking),
    }
    values = {"pictures": pictures, "analysis": analysis, "claims": None} | _sweep_values(ranking, analysis)
    if analysis:
        values |= _analysis_values(ranking, analysis)
    lines = [line.rstrip() for line in page.render("report.md.j2", **functions, **values).strip().splitlines()]
    # Branches of the template leave blank lines.
    return "".join(f"{line}\n" for line, before in zip(lines, ["", *lines], strict=False) if line or before)


def _sweep_values(ranking: Ranking, analysis: Analysis | None) -> dict[str, Any]:
    """Return what the report shows of any sweep."""
    plan, runs = ranking.plan, sorted(ranking.runs, key=lambda run: run.id)
    states = Counter("finished" if run.is_finished else run.state for run in runs)
    confusion = analysis.confusion if analysis else None
    without_rank: dict[tuple[str, str], list[int]] = defaultdict(list)
    for run in runs:
        if run.rank is None:
            without_rank[run.state, run.message].append(run.id)
    return LIMITS | {
        "name": plan.name,
        "plan": plan,
        "config": plan.config,
        "total_runs": len(runs),
        "trained_on": plan.config.data.split == "all",
        "grid": {key: _levels_shown(ranking, key) for key in plan.swept},
        "halving": describe(plan),
        "states": ", ".join(f"{n} {state}" for state, n in sorted(states.items())),
        "unranked": [{"ids": ids, "state": state, "reason": reason} for (state, reason), ids in without_rank.items()],
        "unseen": [plain(name) for name, row in zip(confusion.classes, confusion.counts, strict=True) if not row.any()]
        if confusion
        else [],
        "warnings": warnings(ranking),
        "slurm_is_silent": ranking.state.note and bool(without_rank),
        "problems": [_without_folder(text) for text in [*ranking.problems, *(analysis.problems if analysis else ())]],
        "plots": PLOTS,
        "none_cell": page.NONE,
    }


def _analysis_values(ranking: Ranking, analysis: Analysis) -> dict[str, Any]:
    """Return what the report shows of finished runs."""
    best_set = [rank for rank, point in enumerate(analysis.points, start=1) if rank == 1 or point.in_best_set]
    finished = [run for run in ranking.runs if run.is_finished]
    averaged = {run.averaged_epochs for run in finished}
    return {
        "step": best.next_step(ranking, analysis),
        "top": analysis.points[:TOP],
        "best_ranks": ranges(best_set),
        "not_compared": sum(point.in_best_set is None for point in analysis.points[1:]),
        "one_seed": all(len(point.runs) == 1 for point in analysis.points),
        "anneals": any(run.anneals for run in finished),
        "effects": sorted(analysis.effects, key=lambda effect: math.inf if effect.p is None else effect.p),
        "edges": any(effect.beyond is not None for effect in analysis.effects),
        "averaged": sorted({min(averaged), max(averaged)}),
        "claims": _claims(ranking, analysis),
    }


def percent(share: float, digits: int = 1) -> str:
    """Return a share in per cent, or a difference of two in percentage points; no zero is negative."""
    return f"{round(100 * share, digits) + 0.0:.{digits}f}"


def _last_accuracy(ranking: Ranking, point: Point) -> str:
    """Return the mean accuracy of the last epoch over the point's runs, per cent."""
    known = [run.last_accuracy for run in ranking.runs if run.id in point.runs and run.last_accuracy is not None]
    return percent(math.fsum(known) / len(known), 2) if known else page.NONE


# ---- the deductions of the reproduced report


def _claims(ranking: Ranking, analysis: Analysis) -> dict[str, Any] | None:
    """Return what became of the reproduced report's deductions, each with True, False or None for its verdict.

    None for any other grid than that report's.
    """
    if set(ranking.plan.swept) - {"seed"} != DEDUCED.keys():
        return None
    if any({run.values[key] for run in ranking.runs} != levels for key, levels in DEDUCED.items()):
        return None
    effect = next((effect for effect in analysis.effects if effect.key == "lr"), None)
    return {
        "baseline": _baseline(analysis),
        "rate": _slow_rate(effect) if effect else None,
        "epochs": ranking.plan.config.epochs,
        "reached": sum(point.accuracy >= PLATEAU for point in analysis.points),
    }


def _baseline(analysis: Analysis) -> dict[str, Any] | None:
    """Return the point that the report calls over-regularized, at the leader's learning rate."""
    leader = analysis.points[0]
    settings = leader.values | BASELINE
    point = next((point for point in analysis.points if point.values == settings), None)
    verdict = None
    if point is leader and analysis.is_decided:
        verdict = False
    elif point and point.in_best_set is False:
        verdict = True  # the leader regularizes less: no value of the grid is above the baseline's
    return {"point": point, "verdict": verdict} if point else None


def _slow_rate(effect: Effect) -> dict[str, Any] | None:
    """Return how the learning rate that the report calls too slow ends."""
    slow = next((level for level in effect.levels if level.value == SLOW), None)
    if slow is None:
        return None
    verdict = None
    if slow is effect.best and any(level.is_behind for level in effect.levels):
        verdict = False
    elif slow.is_behind:
        verdict = True
    return {"level": slow, "best": effect.best, "p": effect.p, "verdict": verdict}


# ---- the grid


def _levels_shown(ranking: Ranking, key: str) -> str:
    """Return the values of a swept key; those of a group with what they change of the base configuration."""
    changes: dict[str, dict[str, None]] = {}  # ordered sets
    for run in ranking.plan.runs:
        of_value = changes.setdefault(plain(ranking.plan.value(run, key)), {})
        for name, value in run.changes.items():
            is_of_group = name.startswith(f"{key}.") or (key == "recipe" and name not in ranking.plan.swept)
            if is_of_group and key in run.overrides:
                of_value[setting(name, value)] = None
    texts = [f"{value} ({listed([*settings])})" if settings else value for value, settings in changes.items()]
    more = [f"{len(texts) - MOST_VALUES} more"] if len(texts) > MOST_VALUES else []
    return ", ".join(texts[:MOST_VALUES] + more)


def _swept(ranking: Ranking, *names: str) -> str:
    """Return which of these settings, or of the settings of these groups, are swept."""
    keys = [key for key in ranking.plan.swept if key.partition(".")[0] in names]
    return f" ({listed(keys)}: see above)" if keys else ""


def _without_folder(problem: str) -> str:
    """Return a message with paths from `runs/` on: the rest depends on where the sweep is."""
    return " ".join(word[word.find("runs/") :] if "/runs/" in word else word for word in problem.split(" "))
