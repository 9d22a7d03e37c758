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

from irmas.config import shown
from irmas.console import plain_table
from irmas.files import atomic_write
from irmas.results.points import by_accuracy
from irmas.run.events import VAL_ACCURACY, VAL_LOSS, RunScalars, read_all
from irmas.run.folder import CANCELLED, COMPLETED, PENDING, PROVENANCE, RUNNING, STOPPED, RunFolder
from irmas.sweep import jobs, states
from irmas.sweep import plan as plans
from irmas.sweep.plan import Plan, run_folder
from irmas.sweep.states import NOT_SUBMITTED, RunState, SweepState

if TYPE_CHECKING:  # scipy takes half a second to import
    from irmas.results.statistics import Analysis, Point


@dataclass(frozen=True)
class Row:
    """One run. COMPLETED ones have a rank and, behind them, STOPPED ones; others are listed with what is known."""

    id: int
    values: dict[str, Any]
    """The swept keys."""
    state: str
    epoch: int
    """The epoch that the scalars are of, from 1; 0 where there is none yet."""
    accuracy: float | None
    """Of validation, as the loss."""
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

    @property
    def is_finished(self) -> bool:
        """It is COMPLETED, and its accuracy is known."""
        return self.state == COMPLETED and self.accuracy is not None


@dataclass(frozen=True)
class Ranking:
    plan: Plan
    rows: list[Row]
    """By rank, then those without one by id."""
    problems: list[str]
    """What could not be read of the event files."""
    state: SweepState


def rank(sweep: Path, *, best: bool = False, state: SweepState | None = None) -> Ranking:
    """Rank by validation accuracy in the last epoch or, with `best`, in each run's best one; ties by loss.

    With several seeds a point, points are ranked by their mean. Slurm is not asked again where `state` is given.

    The best epoch is chosen on the excerpts that it is judged on, which flatters every run.
    Raises UserError where the folder holds no plan.
    """
    plan = plans.read(sweep)
    rows, problems = [], []
    state = state or states.look(sweep, plan, last_word=True)
    read = read_all([run_folder(sweep, run.point).path for run in state.runs])
    for run, scalars in zip(state.runs, read, strict=True):
        row, found = _row(sweep, plan, run, scalars, best)
        rows.append(row)
        problems += found
    ranked = _ranked(rows)
    ranked += _ranked_behind(ranked, [row for row in rows if row.state == STOPPED and row.accuracy is not None])
    with_rank = {row.id for row in ranked}
    return Ranking(plan, ranked + [row for row in rows if row.id not in with_rank], problems, state)


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
    """STOPPED runs, by the epoch that they came to: an accuracy after two epochs is not one after fifteen."""

    def order(row: Row) -> tuple[float, ...]:
        loss = math.inf if row.loss is None else row.loss
        return -max(row.curves[VAL_ACCURACY]), -(row.accuracy or 0.0), loss, row.id

    ordered = sorted(stopped, key=order)
    last = max((row.rank or 0 for row in ranked), default=0)
    return [replace(row, rank=number) for number, row in enumerate(ordered, start=last + 1)]


def _row(sweep: Path, plan: Plan, run: RunState, scalars: RunScalars, best: bool) -> tuple[Row, list[str]]:
    point, status, folder = run.point, run.status, run_folder(sweep, run.point)
    accuracies = scalars.values.get(VAL_ACCURACY, {})
    epoch = (max(accuracies, key=lambda step: accuracies[step]) if best else max(accuracies)) if accuracies else 0
    problems = [f"run {point.id}: {problem}" for problem in scalars.problems]
    try:
        source = _source(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        source = ""
        problems.append(f"run {point.id}: {PROVENANCE} ({error})")
    if status.state in (COMPLETED, STOPPED) and max(accuracies, default=0) != status.epoch:
        lacking = f"the event files lack epoch {status.epoch}, its last"
        problems.append(f"run {point.id}: {lacking}; remove {folder.path} to train it anew")
    return Row(
        point.id,
        {key: plan.value(point, key) for key in plan.swept},
        status.state,
        epoch,
        _finite(accuracies.get(epoch)),
        _finite(scalars.values.get(VAL_LOSS, {}).get(epoch)),
        status.val_excerpts,
        status.reason,
        source,
        scalars.values,
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


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def write(sweep: Path, ranking: Ranking, analysis: Analysis | None = None, stem: str = "ranking") -> list[Path]:
    """<stem>.csv and <stem>.json, a list of objects: one entry a run, in the ranking's order.

    Raises OSError, with the file's name, where it cannot be written.
    """
    points = by_run(analysis)
    entries = [_entry(row, points.get(row.id)) for row in ranking.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(entries[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    contents = {sweep / f"{stem}.csv": text.getvalue(), sweep / f"{stem}.json": json.dumps(entries, indent=1) + "\n"}
    for path, content in contents.items():
        atomic_write(path, content)
    return list(contents)


def by_run(analysis: Analysis | None) -> dict[int, Point]:
    return {run: point for point in (analysis.points if analysis else ()) for run in point.runs}


def _entry(row: Row, point: Point | None) -> dict[str, Any]:
    swept = {key: value if isinstance(value, int | float) else shown(value) for key, value in row.values.items()}
    return {
        "rank": row.rank,
        "id": row.id,
        **swept,
        "val_accuracy": row.accuracy,
        "val_loss": row.loss,
        "epoch": row.epoch,
        "state": row.state,
        "val_excerpts": row.val_excerpts,
        "point_accuracy": row.point_accuracy,
        "point_low": point.interval.low if point and point.interval else None,
        "point_high": point.interval.high if point and point.interval else None,
        "in_set": point.in_set if point else None,
        # With the prefix no digest reads as a number: 1234e5678901 by itself would.
        "source": " ".join(f"sha256:{digest}" for digest in row.source.split()),
    }


STYLES = {COMPLETED: "green", PENDING: "dim", RUNNING: "cyan"}
STYLES |= dict.fromkeys((CANCELLED, STOPPED, NOT_SUBMITTED), "yellow")


def styled(state: str) -> Text:
    return Text(state, style=STYLES.get(state, "red"))


def table(ranking: Ranking, analysis: Analysis | None = None) -> Table:
    """In the report's columns: run ID, swept keys, validation accuracy, validation loss.

    With several seeds a point also the mean, and with an analysis the interval, of the point.
    """
    points, with_seeds = by_run(analysis), "seed" in ranking.plan.swept
    heads = [
        "rank",
        "run ID",
        *ranking.plan.swept,
        "validation accuracy",
        *(["mean over seeds"] if with_seeds else []),
        *(["95 % interval of the mean" if with_seeds else "95 % interval"] if analysis else []),
        "validation loss",
        "epoch",
        "excerpts",
        "state",
    ]
    rows = list[list[str | Text]]()
    for row in ranking.rows:
        point = points.get(row.id)
        cells: list[str | Text] = [
            "-" if row.rank is None else str(row.rank),
            str(row.id),
            *(shown(value) for value in row.values.values()),
            _percent(row.accuracy),
            *([_percent(row.point_accuracy)] if with_seeds else []),
            *([_interval(point)] if analysis else []),
            "-" if row.loss is None else f"{row.loss:.4f}",
            str(row.epoch),
            str(row.val_excerpts),
            styled(row.state),
        ]
        rows.append(cells)
    return plain_table(heads, rows, left=["state"])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _interval(point: Point | None) -> str:
    return f"{point.interval.low:.1%} - {point.interval.high:.1%}" if point and point.interval else "-"
