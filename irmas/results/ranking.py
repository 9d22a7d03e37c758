"""Runs of a sweep -> their order, as a table, ranking.csv, ranking.json and curves.csv."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from irmas.config import FOLD, REPETITIONS, brief, shown
from irmas.console import plain_table
from irmas.files import atomic_write, write_csv
from irmas.results import runs
from irmas.results.runs import Run, by_accuracy, combination
from irmas.run.folder import CANCELLED, COMPLETED, PENDING, PRUNED, RUNNING
from irmas.sweep.jobs import named_runs
from irmas.sweep.plan import Plan
from irmas.sweep.run_states import NOT_SUBMITTED, SweepState, sweep_state
from irmas.sweep.slurm import ranges
from irmas.sweep.sweep import Sweep

if TYPE_CHECKING:  # scipy takes half a second to import
    from irmas.results.analysis import Analysis, Point

NAMES = {"seed": "seeds", FOLD: "folds"}
"""Names of the values of each repetition."""
STYLES = {COMPLETED: "green", PENDING: "dim", RUNNING: "cyan"}
STYLES |= dict.fromkeys((CANCELLED, PRUNED, NOT_SUBMITTED), "yellow")


@dataclass(frozen=True)
class Ranking:
    sweep: Sweep
    runs: list[Run]
    """Runs by rank, then those without one by ID. COMPLETED runs have a rank and, behind them, PRUNED ones."""
    problems: list[str]
    """Files of the runs that could not be read, and why."""
    state: SweepState

    @property
    def plan(self) -> Plan:
        return self.sweep.plan


def rank(sweep: Sweep, state: SweepState | None = None) -> Ranking:
    """Rank points by the mean of the validation accuracy `events.RANKED` over their folds and runs; ties by loss.

    Slurm is not queried again where `state` is passed. Runs of an earlier version, which lack that accuracy, are ranked
    by their last epoch where the sweep has no others, and have no rank where it has.
    """
    state = state or sweep_state(sweep, is_final=True)
    read, problems = runs.read(sweep, state)
    if not _all_old(read):
        read = [replace(run, accuracy=None) if run.is_old else run for run in read]
    points = by_accuracy([run for run in read if run.is_finished], [run.values for run in read])
    ranked = [
        replace(run, rank=number, point_accuracy=accuracy)
        for number, (accuracy, members) in enumerate(points, start=1)
        for run in members
    ]
    pruned = sorted((run for run in read if run.state == PRUNED and run.accuracy is not None), key=_pruned_order)
    ranked += [replace(run, rank=number) for number, run in enumerate(pruned, start=len(points) + 1)]
    with_rank = {run.id for run in ranked}
    return Ranking(sweep, ranked + [run for run in read if run.id not in with_rank], problems, state)


def _pruned_order(run: Run) -> tuple[float, ...]:
    """Return the key by which PRUNED runs are sorted: an accuracy after two epochs is not one after fifteen."""
    return -run.epoch, -(run.accuracy or 0.0), math.inf if run.loss is None else run.loss, run.id


def analyze(ranking: Ranking) -> Analysis | None:
    """Return what follows from the finished runs and their predictions; None where no run has finished."""
    from irmas.results import analysis

    finished = [run for run in ranking.runs if run.is_finished]
    if not finished:
        return None
    answered, confusion, problems = runs.with_answers(ranking.sweep, finished)
    plan, planned = ranking.plan, [run.values for run in ranking.runs]
    result = analysis.analyze(answered, plan.swept, planned, len(plan.rounds), is_grid=not plan.space)
    return replace(result, confusion=confusion, problems=problems)


# ---- what limits a ranking


def unranked(ranking: Ranking) -> list[Run]:
    """Return runs that are COMPLETED and could not be ranked."""
    return [run for run in ranking.runs if run.state == COMPLETED and run.rank is None]


def warnings(ranking: Ranking) -> list[str]:
    """Return sentences, without their periods, about runs that were not trained or validated alike."""
    texts = list[str]()
    by_source: dict[str, list[int]] = defaultdict(list)
    for run in sorted(ranking.runs, key=lambda run: run.id):
        by_source[run.source].append(run.id)
    if len({digest for source in by_source for digest in source.split()}) > 1:
        parts = [f"{named_runs(ids)} by {source.replace(' ', ' then ')}" for source, ids in by_source.items() if source]
        texts.append("mixed versions of the source: " + ", ".join(parts))
    if old := [run.id for run in ranking.runs if run.is_old]:
        trained = "were trained by an earlier version and validated with batch norm's running statistics"
        texts.append(
            f"all runs {trained}: their rank is that of the last epoch's accuracy, which fluctuates; "
            "train the sweep again under another name=..."
            if _all_old(ranking.runs)
            else f"{named_runs(old)} {trained}: they cannot be compared with the others and have no rank; remove their "
            "folders in runs/ and rerun the sweep command, or train all runs under another name=..."
        )
    ranked = [run for run in ranking.runs if run.rank is not None and not run.is_old]
    last = [run.id for run in ranked if run.anneals]
    means = sorted({run.averaged_epochs for run in ranked if not run.anneals})
    if last and set(means) - {1}:
        texts.append(
            f"val_accuracy is the last epoch's for {named_runs(last)}, whose learning rate ends near zero, "
            f"and the mean over the last {' or '.join(map(str, means))} epochs for the others"
        )
    return texts


def _all_old(read: Sequence[Run]) -> bool:
    return all(run.is_old for run in read if run.curves)


# ---- files


def write(ranking: Ranking, analysis: Analysis | None = None) -> list[Path]:
    """Write ranking.csv and ranking.json, one entry per run in the ranking's order, and curves.csv; return their paths.

    Raises OSError, with the file's name, where one cannot be written.
    """
    entries = _entries(ranking, analysis)
    write_csv(ranking.sweep.ranking_csv, list(entries[0]), [entry.values() for entry in entries])
    atomic_write(ranking.sweep.ranking_json, json.dumps(entries, indent=1) + "\n")
    columns = ["id", *ranking.plan.swept, "epoch", "tag", "value"]
    write_csv(ranking.sweep.curves_csv, columns, _scalars(sorted(ranking.runs, key=lambda run: run.id)))
    return [ranking.sweep.ranking_csv, ranking.sweep.ranking_json, ranking.sweep.curves_csv]


def _scalars(runs: Sequence[Run]) -> Iterator[list[Any]]:
    """Yield one row per scalar: the run, its swept settings, epoch, tag and value."""
    for run in runs:
        settings = _swept(run).values()
        for tag, curve in run.curves.items():
            yield from ([run.id, *settings, epoch, tag, value] for epoch, value in curve.items())


def _swept(run: Run) -> dict[str, Any]:
    """Return numbers as they are, and other values as on the command line."""
    return {key: value if isinstance(value, int | float) else shown(value) for key, value in run.values.items()}


def as_json(ranking: Ranking) -> dict[str, Any]:
    """Return the content of the table without an analysis, as docs/json.md describes it."""
    runs = [
        {"settings": run.values} | {key: value for key, value in entry.items() if key not in run.values}
        for run, entry in zip(ranking.runs, _entries(ranking), strict=True)
    ]
    notes = {"warnings": [*warnings(ranking), *filter(None, [ranking.state.note])], "problems": ranking.problems}
    return {"sweep": str(ranking.sweep), "note": ranking.plan.config.note, "runs": runs} | notes


def _entries(ranking: Ranking, analysis: Analysis | None = None) -> list[dict[str, Any]]:
    points = _by_run(analysis)
    return [_entry(run, points.get(run.id)) for run in ranking.runs]


def _by_run(analysis: Analysis | None) -> dict[int, Point]:
    """Return the point of each finished run by its ID."""
    return {number: point for point in (analysis.points if analysis else ()) for number in point.runs}


def _entry(run: Run, point: Point | None) -> dict[str, Any]:
    return {
        "rank": run.rank,
        "id": run.id,
        **_swept(run),
        "val_accuracy": run.accuracy,
        "last_val_accuracy": run.last_accuracy,
        "val_loss": run.loss,
        "epoch": run.epoch,
        "state": run.state,
        "val_excerpts": run.val_excerpts,
        "point_accuracy": run.point_accuracy,
        "point_low": point.estimate.low if point and point.estimate else None,
        "point_high": point.estimate.high if point and point.estimate else None,
        "in_best_set": point.in_best_set if point else None,
        "p_best": point.p_best if point else None,
        "expected_loss": point.expected_loss if point else None,
        # With the prefix no digest reads as a number: 1234e5678901 by itself would.
        "source": " ".join(f"sha256:{digest}" for digest in run.source.split()),
    }


# ---- the table


def styled(state: str) -> Text:
    """Return the name of a state in its color."""
    return Text(state, style=STYLES.get(state, "red"))


def table(ranking: Ranking, analysis: Analysis | None = None, *, by_run: bool = False) -> Table:
    """Return a table with one row per point where seeds or folds are swept, and otherwise, or `by_run`, one per run.

    A point has the means over its finished runs. With an analysis there are intervals, and marks of the best set.
    """
    repeated = [] if by_run else [key for key in REPETITIONS if key in ranking.plan.swept]
    groups: dict[Any, list[Run]] = defaultdict(list)
    for run in ranking.runs:
        groups[combination(run.values) if repeated else run.id].append(run)
    points = _by_run(analysis)
    rows = list[dict[str, str | Text]]()
    for group in groups.values():
        finished = [run for run in group if run.is_finished]
        members = finished or group
        rank, values = group[0].rank, group[0].values
        row: dict[str, str | Text] = {"rank": "-" if rank is None else str(rank)}
        row["runs" if repeated else "run"] = ranges(run.id for run in group)
        row |= {key: brief(value) for key, value in values.items() if key not in repeated}
        row["val_accuracy"] = _shown(runs.mean(members, lambda run: run.accuracy), ".2%")
        row["last"] = _shown(runs.mean(members, lambda run: run.last_accuracy), ".2%")
        if analysis:
            point = points.get(members[0].id)
            interval, in_best_set = (point.estimate, point.in_best_set) if point else (None, None)
            row["95 % interval"] = f"{100 * interval.low:.1f} - {interval.high:.1%}" if interval else "-"
            row["best set"] = {None: "-", True: "yes", False: "no"}[in_best_set]
        row["loss"] = _shown(runs.mean(members, lambda run: run.loss), ".3f")
        if repeated:
            style = "green" if len(finished) == len(group) else "yellow"
            row[" x ".join(NAMES[key] for key in repeated)] = Text(f"{len(finished)}/{len(group)}", style=style)
        else:
            row["state"] = styled(group[0].state)
        rows.append(row)
    return plain_table(list(rows[0]), [list(row.values()) for row in rows], left=["state"])


def _shown(value: float | None, format_: str) -> str:
    return "-" if value is None else format(value, format_)
