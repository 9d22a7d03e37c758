"""All sweeps of a folder, one line each: states of the runs, the best accuracy, age, size on disk, note."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from irmas.console import age, byte_size, plain_table
from irmas.errors import UserError, in_words
from irmas.files import disk_usage
from irmas.results.ranking import styled
from irmas.results.runs import Run, by_accuracy
from irmas.run.events import RANKED, VAL_LOSS
from irmas.run.folder import COMPLETED
from irmas.sweep import jobs, slurm
from irmas.sweep.run_states import SweepState, job_names, sweep_state, with_slurm, without_slurm
from irmas.sweep.slurm import SlurmError
from irmas.sweep.sweep import Sweep


@dataclass(frozen=True)
class Listed:
    """One sweep of a list."""

    path: Path
    size: int
    """Bytes that its files take on disk."""
    states: Mapping[str, int]
    """Number of runs by state."""
    accuracy: float | None
    """Accuracy of the first point by rank, 0 to 1; None where no run has finished, or data.split=all."""
    updated: float
    """Unix time of the last activity of a run or, where none has begun, of the plan."""
    note: str = ""
    problem: str = ""
    """Reason why the sweep cannot be read."""


def read(outputs: Path) -> tuple[list[Listed], list[str]]:
    """Return the sweeps of a folder, the last active one first, and the reasons why Slurm's replies are missing.

    Slurm is queried once for all of them. A sweep that cannot be read has a `problem`. Raises OSError where the folder
    cannot be read.
    """
    found = [path for path in outputs.iterdir() if Sweep.is_at(path) or (path / "runs").is_dir()]
    sweeps, entries = list[Sweep](), list[Listed]()
    for path in found:
        try:
            sweeps.append(Sweep.open(path))
        except (UserError, OSError) as error:
            entries.append(
                Listed(path, disk_usage(path), {}, None, path.stat().st_mtime, problem=in_words(error) or repr(error))
            )
    states = _states(sweeps)
    entries += map(_entry, states)
    notes = dict.fromkeys(state.note for state in states if state.note)
    return sorted(entries, key=lambda entry: (-entry.updated, entry.path)), [*notes]


def _entry(state: SweepState) -> Listed:
    sweep, plan = state.sweep, state.sweep.plan
    finished = []
    for run in state.runs:
        metrics = run.status.metrics or {}
        if run.status.state == COMPLETED and RANKED in metrics:
            values = {key: plan.value(run.planned, key) for key in plan.swept}
            finished.append(Run(run.planned.id, values, accuracy=metrics[RANKED], loss=metrics.get(VAL_LOSS)))
    planned = [{key: plan.value(run.planned, key) for key in plan.swept} for run in state.runs]
    points = [] if plan.config.data.split == "all" else by_accuracy(finished, planned)
    return Listed(
        sweep.path,
        disk_usage(sweep.path),
        Counter(run.status.state for run in state.runs),
        points[0][0] if points else None,
        max(run.status.updated for run in state.runs) or sweep.plan_file.stat().st_mtime,
        plan.config.note or "",
    )


def _states(sweeps: Sequence[Sweep]) -> list[SweepState]:
    """Return how the runs of the sweeps stand, after one query each of squeue and sacct per cluster at most."""
    states = list[SweepState]()
    on_slurm: dict[str, list[tuple[Sweep, set[str]]]] = defaultdict(list)
    for sweep in sweeps:
        try:
            if sweep.slurm.is_dir():
                names = job_names(sweep)
                on_slurm[jobs.recorded_cluster(sweep) or slurm.named_cluster()].append((sweep, names))
            else:
                states.append(sweep_state(sweep))
        except UserError as error:
            states.append(without_slurm(sweep, error))
    for cluster, named in on_slurm.items():
        states += _on_cluster(cluster, named)
    return states


def _on_cluster(cluster: str, named: Sequence[tuple[Sweep, set[str]]]) -> list[SweepState]:
    """Return how sweeps stand, each given with the names that its jobs may have."""
    numbers = {record.job for sweep, _ in named for record in jobs.recorded_jobs(sweep)}
    try:
        with slurm.on_cluster(cluster):
            queued = slurm.queue(sorted({name for _, names in named for name in names}))
            accounted = cache(lambda: slurm.accounting(numbers))
            return [
                with_slurm(sweep, [task for task in queued if task.name in names], lambda _: accounted())
                for sweep, names in named
            ]
    except SlurmError as error:
        return [without_slurm(sweep, error) for sweep, _ in named]


def as_json(entries: Sequence[Listed], notes: Sequence[str]) -> dict[str, Any]:
    """Return the list as docs/json.md describes it."""
    sweeps = [
        {
            "sweep": str(entry.path),
            "states": entry.states,
            "val_accuracy": entry.accuracy,
            "updated": entry.updated,
            "bytes": entry.size,
            "note": entry.note or None,
            "problem": entry.problem or None,
        }
        for entry in entries
    ]
    return {"sweeps": sweeps, "warnings": list(notes)}


def table(entries: Sequence[Listed]) -> Table:
    """Return one row per sweep, in their order."""
    heads = ["sweep", "runs", "val_accuracy", "age", "size", "note"]
    return plain_table(heads, map(_row, entries), left=("sweep", "runs", "note"))


def _row(entry: Listed) -> list[str | Text]:
    counts = [Text.assemble(f"{count} ", styled(name)) for name, count in sorted(entry.states.items())]
    runs = Text("cannot be read", style="red") if entry.problem else Text(", ").join(counts)
    accuracy = "-" if entry.accuracy is None else f"{entry.accuracy:.2%}"
    return [str(entry.path), runs, accuracy, age(time.time() - entry.updated), byte_size(entry.size), entry.note]
