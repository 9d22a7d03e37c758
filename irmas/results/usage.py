"""The cost of a sweep: hours, the share of them that trained nothing, memory and time beside what was requested."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from irmas.console import counted, duration
from irmas.errors import UserError
from irmas.run.events import EPOCH_S
from irmas.sweep import jobs, slurm
from irmas.sweep.cost import hours
from irmas.sweep.jobs import ARRAY
from irmas.sweep.run_states import SweepState
from irmas.sweep.settings import PREFIX, Settings
from irmas.sweep.sweep import Sweep

GIB = 2**30
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
SAMPLED_S = 120
"""Length of a start from which its peak of memory is trusted: Slurm looks every 30 s by default."""
SPARE_MEMORY, SPARE_TIME = 1.25, 1.5
"""Factors by which a setting that fits exceeds what was used."""


@dataclass(frozen=True)
class Start:
    """One start of an array task, as sacct lists it and its steps."""

    task: str
    elapsed_s: int
    limit_s: int
    """Its time limit; 0 where it has none."""
    cpus: int
    gpus: int
    memory: float
    """Bytes that were allocated; 0 where Slurm does not say."""
    peak: float = 0.0
    """Most bytes that a step of it used; 0 where Slurm does not say."""


def lines(state: SweepState) -> list[str]:
    """Return what the runs of a sweep have taken, one line each for hours and for tasks; none where none has trained.

    Slurm's accounting is queried once for a sweep with jobs. Without it, hours are those of the epochs.
    """
    starts = _accounted(state.sweep)
    if starts:
        return [_used(state, starts), *_fitting(state, starts)]
    trained = [run.status for run in state.runs if _trained_s(run.status.epoch, run.status.metrics)]
    if not trained:
        return []
    seconds = sum(_trained_s(status.epoch, status.metrics) for status in trained)
    epochs = sum(status.epoch for status in trained)
    return [f"used:    {duration(math.ceil(seconds))} in {counted(epochs, 'epoch')} of {counted(len(trained), 'run')}"]


def _trained_s(epoch: int, metrics: dict[str, float] | None) -> float:
    """Return the time of the epochs that count, as if all had taken as long as the last."""
    return epoch * (metrics or {}).get(EPOCH_S, 0.0)


def _accounted(sweep: Sweep) -> list[Start]:
    """Return the starts of the sweep's tasks; none without jobs, or where Slurm or their records cannot be read."""
    try:
        names = {record.job: record.name for record in jobs.recorded_jobs(sweep) if record.stage == ARRAY}
        with slurm.on_cluster(jobs.recorded_cluster(sweep) if names else ""):
            return [*parse(slurm.accounted_starts(names), {*names.values()})]
    except (UserError, OSError):
        return []


def parse(rows: Iterable[Sequence[str]], names: set[str]) -> Iterator[Start]:
    """Yield the starts of jobs with these names, from rows of `slurm.STARTS`: each is followed by its steps."""
    start: Start | None = None
    for job_id, name, elapsed, limit, peak, tres in rows:
        task, _, step = job_id.partition(".")
        if step:
            if start is not None and start.task == task:
                start = replace(start, peak=max(start.peak, _size(peak)))
            continue
        if start is not None:
            yield start
        given = dict(pair.partition("=")[::2] for pair in tres.split(","))
        cpus, gpus = (int(_size(given.get(key, ""))) for key in ("cpu", "gres/gpu"))
        limit_s = 60 * int(limit) if limit.isdecimal() else 0
        is_ours = name in names and elapsed.isdecimal() and int(elapsed) > 0 and cpus > 0
        start = Start(task, int(elapsed), limit_s, cpus, gpus, _size(given.get("mem", ""))) if is_ours else None
    if start is not None:
        yield start


def _size(text: str) -> float:
    """Return a number or a size as Slurm writes it, such as 1.50G; 0 for any other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)[nc]?", text)
    return float(match[1]) * UNITS[match[2]] if match else 0.0


def _is_live(state: SweepState) -> bool:
    return any(run.task is not None and run.task.is_live for run in state.runs)


def _used(state: SweepState, starts: Sequence[Start]) -> str:
    """Return the line of the hours that all starts took; when all tasks have ended, with those outside epochs.

    They are lost to restarts in tasks that were restarted, or whose runs another task has resumed.
    """
    by_task, trained = defaultdict[str, list[Start]](list), defaultdict[str, float](float)
    for start in starts:
        by_task[start.task].append(start)
    for run in state.runs:
        trained[run.status.job] += _trained_s(run.status.epoch, run.status.metrics)
    unit = "GPU" if any(start.gpus for start in starts) else "core"
    at_once = int(_recorded(state.sweep, "runs_at_once") or 0)
    used = in_epochs = lost = 0.0
    for task, own in by_task.items():
        devices = own[-1].gpus if unit == "GPU" else own[-1].cpus
        took = sum(start.elapsed_s for start in own) * devices
        counts = trained[task] * devices / (at_once or max(own[-1].gpus, 1))
        is_restarted = len(own) > 1 or not 0 < counts <= took
        used, in_epochs, lost = used + took, in_epochs + counts, lost + (took - counts) * is_restarted
    text = f"used:    {hours(used / 3600, unit)} in {counted(len(starts), 'start')} of {counted(len(by_task), 'task')}"
    if _is_live(state):
        return f"{text} so far"
    parts = {"in epochs": in_epochs, "lost to restarts": max(lost, 0), "idle": max(used - in_epochs - max(lost, 0), 0)}
    return f"{text}: " + ", ".join(f"{share / used:.0%} {name}" for name, share in parts.items())


def _fitting(state: SweepState, starts: Sequence[Start]) -> list[str]:
    """Return the line of what tasks used at most beside what was requested, with settings that would fit."""
    memory, limits = ({getattr(start, name) for start in starts} for name in ("memory", "limit_s"))
    peak = max((start.peak for start in starts if start.elapsed_s >= SAMPLED_S), default=0.0)
    longest, parts, settings = max(start.elapsed_s for start in starts), list[str](), list[str]()
    # Points with resources of their own have other requests than these settings.
    if len(memory) == 1 and peak and (size := memory.pop()):
        parts.append(f"{peak / GIB:.2g}G of {size / GIB:.3g}G")
        if peak < size / 2 and (fitting := math.ceil(peak * SPARE_MEMORY / GIB)) * GIB < size:
            settings.append(f"{PREFIX}mem={fitting}G")
    if len(limits) == 1 and (limit := limits.pop()):
        parts.append(f"{duration(longest)} of {duration(limit)}")
        least = (int(_recorded(state.sweep, "warning") or Settings.warning) + 30) // 60 + 2
        if longest < limit / 2 and (minutes := max(math.ceil(longest * SPARE_TIME / 60), least)) * 60 < limit / 2:
            settings.append(f"{PREFIX}time={minutes}")
    would_fit = f"; {' '.join(settings)} would fit" if settings and not _is_live(state) else ""
    return [f"tasks:   {' and '.join(parts)} at most{would_fit}"] if parts else []


def _recorded(sweep: Sweep, key: str) -> str:
    """Return the value that the sweep's last submission gave a launcher's setting; empty where it kept the default."""
    words = (word.partition("=") for word in jobs.recorded_launcher(sweep))
    return next((value for name, _, value in words if name == f"{PREFIX}{key}"), "")
