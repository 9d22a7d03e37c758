"""A ranking and its analysis -> report.md, report.html, pictures and best.yaml.

This module prepares values; the sentences of the report are in report.md.j2.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from irmas import plot_style
from irmas.config import REPETITIONS, brief
from irmas.console import counted
from irmas.files import PNG, VECTOR, atomic_write
from irmas.results import best, comparison, importances, latex, plots, search_plots
from irmas.results.analysis import Analysis, Point
from irmas.results.ranking import Ranking, warnings
from irmas.results.runs import Run, mean
from irmas.run.events import replace_images
from irmas.sweep.jobs import named_runs
from irmas.sweep.pruning import describe
from irmas.sweep.slurm import ranges
from irmas.sweep.sweep import Sweep

TOP = 5
MOST_VALUES = 24
"""Most values of a swept key that are listed."""
LIMITS = {"most_keys": 4, "most_levels": 6, "most_unranked": 8, "equal": 0.005}
"""Most keys in the summary, leads of a key, and reasons for missing ranks that are listed; largest expected loss of
accuracy of points that are called equally good."""
SOFTWARE = {"irmas": "irmas", "torch": "PyTorch", "torchaudio": "torchaudio", "numpy": "NumPy", "python": "Python"}
"""Names of the libraries that a paper cites."""
DEDUCED = {"dropout": {0.3, 0.4, 0.5}, "lr": {0.001, 0.0005, 0.0001}, "l2": {0.001, 0.0001}}
"""The grid from which the reproduced report drew its deductions."""
BASELINE, SLOW, PLATEAU = {"dropout": 0.5, "l2": 0.001}, 0.0001, 0.8
"""Settings that it calls over-regularized, the learning rate that it calls too slow, the accuracy that it reaches."""


def write(ranking: Ranking, analysis: Analysis | None, formats: Sequence[str] = ()) -> Path:
    """Write report, pictures and best.yaml; return the path of the HTML page. The same ranking writes the same bytes.

    The pictures are PNG, and of these `formats` too. `analysis` is None where no run has finished. Raises OSError, with
    the file's path.
    """
    sweep, files = ranking.sweep, dict[str, bytes]()
    if analysis:
        files = plots.draw(ranking, analysis, formats) | search_plots.draw(ranking, analysis, formats)
    sweep.plots.mkdir(exist_ok=True)
    for stale in {path for ending in (PNG, *VECTOR) for path in sweep.plots.glob(f"*.{ending}")}:
        if stale.name not in files:
            stale.unlink()
    for name, content in files.items():
        atomic_write(sweep.plots / name, content)
    pictures = {name: content for name, content in files.items() if name.endswith(PNG)}
    if pictures:
        show_on_tensorboard(sweep, pictures)
    text = markdown(ranking, analysis, list(pictures))
    atomic_write(sweep.report, text)
    atomic_write(sweep.page, html(text, pictures))
    if analysis:
        atomic_write(sweep.best, best.text(ranking, analysis))
        (_, points), *_ = latex.tables(markdown(ranking, analysis, [], top=plots.MOST_POINTS), ranking.plan.name)
        _, *others = latex.tables(text, ranking.plan.name)
        atomic_write(sweep.ranking_tex, points)
        atomic_write(sweep.results_tex, "\n".join([latex.measured(text), *(table for _, table in others)]))
    return sweep.page


def show_on_tensorboard(sweep: Sweep, pictures: Mapping[str, bytes]) -> None:
    """Write PNG files as images `ranking/<name>` of a run `summary` beside the sweep's; the same ones change nothing.

    Raises OSError, with the file's path, where they cannot be written.
    """
    replace_images(sweep.summary, {f"ranking/{PurePath(name).stem}": png for name, png in pictures.items()})


def html(text: str, pictures: Mapping[str, bytes]) -> str:
    """Return a Markdown text as one self-contained page, which includes the pictures, PNG by file name.

    Raises KeyError where a picture of the text is missing.
    """
    from markdown import Markdown

    def embedded(source: re.Match[str]) -> str:
        png = base64.b64encode(pictures[PurePath(source[2]).name]).decode()
        return f'{source[1]}src="data:image/png;base64,{png}"'

    body = re.sub(r"(?<=\d) %", "&nbsp;%", Markdown(extensions=["tables", "fenced_code"]).convert(text))
    title = re.search(r"<h1>(.*?)</h1>", body)
    body = re.sub(r'(<img [^>]*?)src="([^"]*)"', embedded, body)
    return _render("report.html.j2", title=title[1] if title else "", body=body)


def markdown(ranking: Ranking, analysis: Analysis | None, pictures: Sequence[str], top: int = TOP) -> str:
    """Return the report of a ranking with its first `top` points.

    `pictures` are the file names of those that exist in plots/ beside the report.
    """
    functions = [percent, whole, counted, listed, plain, code, ranges, setting]
    values = {function.__name__: function for function in functions} | {
        "runs": named_runs,
        "swept": partial(_swept, ranking),
        "last": partial(_last_accuracy, ranking),
        "pictures": pictures,
        "analysis": analysis,
        "claims": None,
        "keys": None,
    }
    values |= _sweep_values(ranking, analysis)
    values |= _analysis_values(ranking, analysis) | {"top": analysis.points[:top]} if analysis else {}
    lines = [line.rstrip() for line in _render("report.md.j2", **values).strip().splitlines()]
    # Branches of the template leave blank lines.
    return "".join(f"{line}\n" for line, before in zip(lines, ["", *lines], strict=False) if line or before)


def _render(template: str, **values: Any) -> str:
    """Return a template of this package, filled with these values, which escape foreign text themselves."""
    from jinja2 import Environment, StrictUndefined

    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(undefined=StrictUndefined, autoescape=False, **options)  # noqa: S701
    return environment.from_string((Path(__file__).parent / template).read_text()).render(values)


# ---- values


def _sweep_values(ranking: Ranking, analysis: Analysis | None) -> dict[str, Any]:
    """Return what the report shows of any sweep."""
    plan, runs = ranking.plan, sorted(ranking.runs, key=lambda run: run.id)
    states = Counter("finished" if run.is_finished else run.state for run in runs)
    confusion = analysis.confusion if analysis else None
    recall = zip(confusion.classes, confusion.counts, strict=True) if confusion else ()
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
        "undrawn": plot_style.without_glyphs(confusion.classes) if confusion else {},
        "unseen": [plain(name) for name, row in recall if not row.any()],
        "warnings": warnings(ranking),
        "slurm_is_silent": ranking.state.note and bool(without_rank),
        "problems": [_without_folder(text) for text in [*ranking.problems, *(analysis.problems if analysis else ())]],
        "plots": ranking.sweep.plots.name,
        "none_cell": "-",
    }


def _analysis_values(ranking: Ranking, analysis: Analysis) -> dict[str, Any]:
    """Return what the report shows of finished runs."""
    best_set = [rank for rank, point in enumerate(analysis.points, start=1) if rank == 1 or point.in_best_set]
    finished = [run for run in ranking.runs if run.is_finished]
    averaged = {run.averaged_epochs for run in finished}
    return {
        "step": best.next_step(ranking, analysis),
        "best_ranks": ranges(best_set),
        "not_compared": sum(point.in_best_set is None for point in analysis.points[1:]),
        "one_seed": all(len(point.runs) == 1 for point in analysis.points),
        "anneals": any(run.anneals for run in finished),
        "effects": sorted(analysis.effects, key=lambda effect: math.inf if effect.p is None else effect.p),
        "edges": any(effect.beyond is not None for effect in analysis.effects),
        "averaged": sorted({min(averaged), max(averaged)}),
        "claims": _claims(ranking, analysis),
        "keys": _keys(ranking, analysis),
    } | _measured(ranking, finished)


def _measured(ranking: Ranking, finished: Sequence[Run]) -> dict[str, Any]:
    """Return how finished runs were made."""
    plan, ids = ranking.plan, [run.id for run in finished]
    planned = [plan.runs[number - 1] for number in sorted(ids)]
    values = {key: sorted({plan.value(run, key) for run in planned}) for key in ("seed", "epochs")}
    libraries = {name: sorted({run.versions[name] for run in finished if name in run.versions}) for name in SOFTWARE}
    return {
        "finished": len(finished),
        "seeds": [str(seed) for seed in values["seed"]],
        "epochs": [str(epochs) for epochs in values["epochs"]],
        "train_excerpts": next((run.train_excerpts for run in finished if run.rank == 1), 0),
        "software": [f"{SOFTWARE[name]} {listed(found)}" for name, found in libraries.items() if found],
        "resamples": comparison.RESAMPLES,
    }


def _keys(ranking: Ranking, analysis: Analysis) -> dict[str, Any] | None:
    """Return what the report shows of continuous values, the most important key first; None for a grid."""
    axes, points = importances.axes(analysis.points, ranking.plan.space), analysis.points
    if not axes:
        return None
    shares = importances.importances(axes, [point.accuracy for point in points])
    count = importances.best(len(points))
    rows = [(axis.key, (shares or {}).get(axis.key), axis.described(count)) for axis in axes]
    rows.sort(key=lambda row: -(row[1] or 0.0))
    return {"rows": rows, "count": count, "shares": shares, "fewest": importances.FEWEST}


def _claims(ranking: Ranking, analysis: Analysis) -> dict[str, Any] | None:
    """Return what became of the reproduced report's deductions, each with True, False or None for its verdict.

    None for any other grid than that report's.
    """
    if {*ranking.plan.swept}.difference(REPETITIONS) != DEDUCED.keys():
        return None
    if any({run.values[key] for run in ranking.runs} != levels for key, levels in DEDUCED.items()):
        return None
    leader, baseline, rate = analysis.points[0], None, None
    settings = leader.values | BASELINE
    for point in analysis.points:
        if point.values == settings:  # no point of the grid regularizes more
            verdict = _verdict(point.in_best_set is False, point is leader and analysis.is_decided)
            baseline = {"point": point, "verdict": verdict}
    for effect in analysis.effects:
        for level in effect.levels:
            if effect.key == "lr" and level.value == SLOW:
                leads = level is effect.best and any(other.is_behind for other in effect.levels)
                verdict = _verdict(level.is_behind, leads)
                rate = {"level": level, "best": effect.best, "p": effect.p, "verdict": verdict}
    reached = sum(point.accuracy >= PLATEAU for point in analysis.points)
    return {"baseline": baseline, "rate": rate, "epochs": ranking.plan.config.epochs, "reached": reached}


def _verdict(is_confirmed: bool, is_refuted: bool) -> bool | None:
    return True if is_confirmed else False if is_refuted else None


def _last_accuracy(ranking: Ranking, point: Point) -> str:
    """Return the mean accuracy of the last epoch over the point's runs, per cent."""
    last = mean([run for run in ranking.runs if run.id in point.runs], lambda run: run.last_accuracy)
    return "-" if last is None else percent(last, 2)


def _levels_shown(ranking: Ranking, key: str) -> str:
    """Return the values of a swept key; those of a group with what they change of the base configuration.

    Of a key that a search has drawn, return the interval or list as it was typed.
    """
    if key in ranking.plan.space:
        return plain(ranking.plan.space[key])
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


# ---- text


def percent(share: float, digits: int = 1) -> str:
    """Return a share in per cent, or a difference of two in percentage points; no zero is negative."""
    return f"{round(100 * share, digits) + 0.0:.{digits}f}"


def whole(share: float) -> str:
    """Return a share in per cent with as few digits as it has, three at most."""
    return f"{100 * share:.3g}"


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plain(value: Any) -> str:
    """Return a setting's value as plain text: a path may hold characters that are special in Markdown or HTML."""
    return re.sub(r"[\\`*_<>&|()~]", lambda match: f"&#{ord(match[0])};", brief(value))


def setting(key: str, value: Any) -> str:
    """Return `lr 0.001`, or `model=deep` where the value is a word."""
    return f"{key}{'=' if isinstance(value, str) else ' '}{plain(value)}"


def code(text: str) -> str:
    """Return a line of foreign text within backquotes, where nothing is special in Markdown or HTML."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"
