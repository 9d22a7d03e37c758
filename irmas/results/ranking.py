"""Event files of a sweep -> its ranking."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from irmas.config import anneals, averaged_epochs, shown
from irmas.console import plain_table
from irmas.files import atomic_write
from irmas.results.points import by_accuracy, combination
from irmas.run.events import RANKED, VAL_ACCURACY, VAL_LOSS, RunScalars, read_all
from irmas.run.folder import CANCELLED, COMPLETED, PENDING, PROVENANCE, PRUNED, RUNNING, RunFolder
from irmas.sweep import jobs, run_states
from irmas.sweep.plan import Plan
from irmas.sweep.run_states import NOT_SUBMITTED, RunState, SweepState
from irmas.sweep.slurm import ranges
from irmas.sweep.sweep import Sweep

if TYPE_CHECKING:  # scipy takes half a second to import
    from irmas.results.analysis import Analysis, Point


@dataclass(frozen=True)
class Row:
    """One run. COMPLETED ones have a rank and, behind them, PRUNED ones; others are listed with what is known."""

    id: int
    values: dict[str, Any]
    """The swept keys."""
    state: str
    epoch: int
    """The epoch that the scalars are of, from 1; 0 where there is none yet."""
    accuracy: float | None
    """The validation accuracy that is ranked; None where it is not known, or not comparable with that of the others."""
    loss: float | None
    val_excerpts: int
    error: str
    source: str
    """Digests of the package's source that trained it, the last one last; empty where none is known."""
    curves: dict[str, dict[int, float]]
    """Every scalar by tag and epoch, ascending."""
    rank: int | None = None
    """Runs that differ in nothing but their seed are one point, and share its rank."""
    point_accuracy: float | None = None
    """The mean over the point's COMPLETED runs, by which it is ranked."""
    last_accuracy: float | None = None
    """Validation accuracy of the last epoch alone."""

    @property
    def is_old(self) -> bool:
        """It was validated under batch norm's running statistics, by a version that knew no other."""
        return VAL_ACCURACY in self.curves and RANKED not in self.curves

    @property
    def is_finished(self) -> bool:
        """It is COMPLETED, and its accuracy is known."""
        return self.state == COMPLETED and self.accuracy is not None


@dataclass(frozen=True)
class Ranking:
    sweep: Sweep
    rows: list[Row]
    """By rank, then those without one by id."""
    problems: list[str]
    """What could not be read of the event files."""
    state: SweepState

    @property
    def plan(self) -> Plan:
        return self.sweep.plan


def rank(sweep: Sweep, state: SweepState | None = None) -> Ranking:
    """Rank by the validation accuracy `events.RANKED`; ties by loss.

    With several seeds a point, points are ranked by their mean. Slurm is not asked again where `state` is given.
    Runs of an earlier version, which lack that figure, are ranked by their last epoch where the sweep has no others,
    and have no rank where it has.

    """
    rows, problems = [], []
    state = state or run_states.sweep_state(sweep, is_final=True)
    read = read_all([sweep.run_folder(run.planned).path for run in state.runs])
    for run, scalars in zip(state.runs, read, strict=True):
        row, found = _row(sweep, run, scalars)
        rows.append(row)
        problems += found
    if not all(row.is_old for row in rows if row.curves):
        rows = [replace(row, accuracy=None) if row.is_old else row for row in rows]
    ranked = _ranked(rows)
    ranked += _ranked_behind(ranked, [row for row in rows if row.state == PRUNED and row.accuracy is not None])
    with_rank = {row.id for row in ranked}
    return Ranking(sweep, ranked + [row for row in rows if row.id not in with_rank], problems, state)


def unranked(ranking: Ranking) -> list[Row]:
    """Runs that are COMPLETED and could not be ranked."""
    return [row for row in ranking.rows if row.state == COMPLETED and row.rank is None]


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Return the finished runs by rank."""
    points = by_accuracy([row for row in rows if row.is_finished], [row.values for row in rows])
    return [
        replace(row, rank=number, point_accuracy=accuracy)
        for number, (accuracy, runs) in enumerate(points, start=1)
        for row in runs
    ]


def _ranked_behind(ranked: Sequence[Row], stopped: Sequence[Row]) -> list[Row]:
    """PRUNED runs, by the epoch that they came to: an accuracy after two epochs is not one after fifteen."""

    def order(row: Row) -> tuple[float, ...]:
        loss = math.inf if row.loss is None else row.loss
        return -max(row.curves[VAL_ACCURACY]), -(row.accuracy or 0.0), loss, row.id

    ordered = sorted(stopped, key=order)
    last = max((row.rank or 0 for row in ranked), default=0)
    return [replace(row, rank=number) for number, row in enumerate(ordered, start=last + 1)]


def _row(sweep: Sweep, run: RunState, scalars: RunScalars) -> tuple[Row, list[str]]:
    point, status, folder, plan = run.planned, run.status, sweep.run_folder(run.planned), sweep.plan
    accuracies = scalars.values.get(VAL_ACCURACY, {})
    epoch = max(accuracies, default=0)
    figures = scalars.values.get(RANKED, accuracies)
    problems = [f"run {point.id}: {problem}" for problem in scalars.problems]
    try:
        source = _source(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        source = ""
        problems.append(f"run {point.id}: {PROVENANCE} ({error})")
    if status.state in (COMPLETED, PRUNED) and epoch != status.epoch:
        lacking = f"the event files lack epoch {status.epoch}, its last"
        problems.append(f"run {point.id}: {lacking}; remove {folder.path} to train it again")
    return Row(
        point.id,
        {key: plan.value(point, key) for key in plan.swept},
        status.state,
        epoch,
        _finite(figures.get(epoch)),
        _finite(scalars.values.get(VAL_LOSS, {}).get(epoch)),
        status.val_excerpts,
        status.reason,
        source,
        scalars.values,
        last_accuracy=_finite(accuracies.get(epoch)),
    ), problems


def _source(folder: RunFolder) -> str:
    try:
        provenance = json.loads((folder.path / PROVENANCE).read_text())
    except FileNotFoundError:
        return ""
    return " ".join([*provenance.get("earlier_sources", []), provenance["source"]])


def mixed_sources(ranking: Ranking) -> str:
    """Which runs were trained by which version of the package, where there is more than one."""
    runs: dict[str, list[int]] = defaultdict(list)
    for row in ranking.rows:
        if row.source:
            runs[row.source].append(row.id)
    if len({digest for source in runs for digest in source.split()}) < 2:
        return ""
    parts = [(min(ids), f"{jobs.named_runs(ids)} by {source.replace(' ', ' then ')}") for source, ids in runs.items()]
    return "mixed versions of the source: " + ", ".join(text for _, text in sorted(parts))


def old_runs(ranking: Ranking) -> str:
    """Name the runs that were validated under running statistics, and say what to do about them."""
    old = [row.id for row in ranking.rows if row.is_old]
    if not old:
        return ""
    trained = "trained by an earlier version and validated with batch norm's running statistics"
    if all(row.is_old for row in ranking.rows if row.curves):
        return (
            f"all runs were {trained}: their rank is that of the last epoch's accuracy, which fluctuates; "
            "train the sweep again under another name=..."
        )
    return (
        f"{jobs.named_runs(old)}: {trained}, not comparable with the others and without a rank; remove their folders "
        "in runs/ and rerun the sweep command, or train all runs under another name=..."
    )


def mixed_schedules(ranking: Ranking) -> str:
    """Say over how many epochs the ranked accuracies are means, where some are means and others are not."""
    last, means = list[int](), set[int]()
    for row in ranking.rows:
        if row.rank is not None and not row.is_old:
            schedule = ranking.plan.runs[row.id - 1].changes.get("schedule", ranking.plan.config.schedule)
            if anneals(schedule):
                last.append(row.id)
            else:
                means.add(averaged_epochs(schedule, row.epoch))
    if not last or means <= {1}:
        return ""
    return (
        f"val_accuracy is the last epoch's for {jobs.named_runs(sorted(last))}, whose learning rate ends near zero, "
        f"and the mean over the last {' or '.join(map(str, sorted(means)))} epochs for the others"
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def write(ranking: Ranking, analysis: Analysis | None = None) -> list[Path]:
    """Write ranking.csv and ranking.json, one entry per run in the ranking's order, and return their paths.

    Raises OSError, with the file's name, where it cannot be written.
    """
    points = _by_run(analysis)
    entries = [_entry(row, points.get(row.id)) for row in ranking.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(entries[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    contents = {
        ranking.sweep.ranking_csv: text.getvalue(),
        ranking.sweep.ranking_json: json.dumps(entries, indent=1) + "\n",
    }
    for path, content in contents.items():
        atomic_write(path, content)
    return list(contents)


def _by_run(analysis: Analysis | None) -> dict[int, Point]:
    return {run: point for point in (analysis.points if analysis else ()) for run in point.runs}


def _entry(row: Row, point: Point | None) -> dict[str, Any]:
    swept = {key: value if isinstance(value, int | float) else shown(value) for key, value in row.values.items()}
    return {
        "rank": row.rank,
        "id": row.id,
        **swept,
        "val_accuracy": row.accuracy,
        "last_val_accuracy": row.last_accuracy,
        "val_loss": row.loss,
        "epoch": row.epoch,
        "state": row.state,
        "val_excerpts": row.val_excerpts,
        "point_accuracy": row.point_accuracy,
        "point_low": point.estimate.low if point and point.estimate else None,
        "point_high": point.estimate.high if point and point.estimate else None,
        "in_best_set": point.in_best_set if point else None,
        "p_best": point.p_best if point else None,
        "expected_loss": point.expected_loss if point else None,
        # With the prefix no digest reads as a number: 1234e5678901 by itself would.
        "source": " ".join(f"sha256:{digest}" for digest in row.source.split()),
    }


STYLES = {COMPLETED: "green", PENDING: "dim", RUNNING: "cyan"}
STYLES |= dict.fromkeys((CANCELLED, PRUNED, NOT_SUBMITTED), "yellow")


def styled(state: str) -> Text:
    return Text(state, style=STYLES.get(state, "red"))


def table(ranking: Ranking, analysis: Analysis | None = None, *, by_run: bool = False) -> Table:
    """Return the table of the points where there are seeds, and otherwise, or `by_run`, of the runs.

    A point has the means over its finished runs. With an analysis there are intervals, and marks of the best set.
    """
    of_points = "seed" in ranking.plan.swept and not by_run
    keys = [key for key in ranking.plan.swept if not (of_points and key == "seed")]
    heads = ["rank", "runs" if of_points else "run", *keys, "val_accuracy", "last"]
    heads += ["95 % interval", "best set"] if analysis else []
    heads += ["loss", "seeds" if of_points else "state"]
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in ranking.rows:
        groups[combination(row.values) if of_points else row.id].append(row)
    points = _by_run(analysis)
    rows = list[list[str | Text]]()
    for group in groups.values():
        finished = [row for row in group if row.is_finished]
        rows.append(
            [
                "-" if group[0].rank is None else str(group[0].rank),
                ranges(row.id for row in group),
                *(shown(group[0].values[key]) for key in keys),
                *_means(finished or group)[:2],
                *(_compared(points.get((finished or group)[0].id)) if analysis else []),
                _means(finished or group)[2],
                _counted(len(finished), len(group)) if of_points else styled(group[0].state),
            ]
        )
    return plain_table(heads, rows, left=["state"])


def _means(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Return the ranked accuracy, that of the last epoch and the loss, each the mean over the rows that have it."""
    accuracies = [row.accuracy for row in rows if row.accuracy is not None]
    last = [row.last_accuracy for row in rows if row.last_accuracy is not None]
    losses = [row.loss for row in rows if row.loss is not None]
    shares = [f"{math.fsum(found) / len(found):.2%}" if found else "-" for found in (accuracies, last)]
    return shares[0], shares[1], f"{math.fsum(losses) / len(losses):.3f}" if losses else "-"


def _compared(point: Point | None) -> list[str]:
    """Return the cells of a point's interval and of the best set."""
    interval = point.estimate if point else None
    in_best_set = point.in_best_set if point else None
    return [
        f"{100 * interval.low:.1f} - {interval.high:.1%}" if interval else "-",
        "-" if in_best_set is None else "yes" if in_best_set else "no",
    ]


def _counted(finished: int, seeds: int) -> Text:
    return Text(f"{finished}/{seeds}", style="green" if finished == seeds else "yellow")
