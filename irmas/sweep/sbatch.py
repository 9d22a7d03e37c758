"""What is handed to sbatch for a sweep: a data job, one or more job arrays, a ranking job."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irmas.sweep import slurm
from irmas.sweep.jobs import ARRAY, DATA, RANKING, Work
from irmas.sweep.settings import Settings
from irmas.sweep.sweep import Sweep

MODULES = {DATA: "irmas.sweep.data_job", ARRAY: "irmas.sweep.array_task", RANKING: "irmas.rank"}
SCRIPTS = Path(__file__).parents[1] / "slurm"
SCRIPT = {DATA: "prepare.sbatch", ARRAY: "sweep.sbatch", RANKING: "rank.sbatch"}


@dataclass(frozen=True)
class Batch:
    """One call of sbatch."""

    name: str
    """`data`, `array1`, ..., `ranking`: what the dependencies of others call it."""
    stage: str
    module: str
    """Of Python, which the job runs."""
    options: dict[str, Any]
    """sbatch's own, long; True for one without a value, None for one that is not given."""
    arguments: list[str]
    """Of the batch script, which gives them to the module."""
    after_ok: str = ""
    after_any: tuple[str, ...] = ()
    """Names of other batches, or numbers of jobs that are in the queue already."""
    work: Work = field(default_factory=Work)

    def sbatch(self, number: Callable[[str], str]) -> dict[str, Any]:
        """All options that are given, with the numbers of the jobs that this one waits for."""
        waits = [f"afterok:{number(self.after_ok)}"] if self.after_ok else []
        waits += ["afterany:" + ":".join(map(number, self.after_any))] if self.after_any else []
        dependency = {"dependency": ",".join(waits)} if waits else {}
        # Otherwise a job that waits for one that failed waits for ever.
        never = {"kill-on-invalid-dep": "yes"} if self.after_ok else {}
        return {key: value for key, value in (self.options | dependency | never).items() if value is not None}


@dataclass(frozen=True)
class Order:
    """What is to be submitted, but for the points."""

    sweep: Sweep
    settings: Settings
    largest: int
    """The largest array index that Slurm takes."""
    is_made: bool
    """Whether the data is."""
    behind: list[str]
    """Arrays of this sweep that are in the queue."""
    refine: Sequence[str] = ()
    """Arguments of `irmas.refine`, where the ranking job is to submit the next round."""

    def batches(self, ids: Sequence[int], per_task: int) -> list[Batch]:
        """Data job, arrays, ranking job.

        With a throttle one array waits for the other: Slurm's own, %6, counts the tasks of one array.
        """
        data = [] if self.is_made or not ids else [self._data()]
        behind, arrays = self.behind, list[Batch]()
        for work, indices in _arrays(ids, per_task, self.largest):
            arrays.append(self._array(f"array{len(arrays) + 1}", work, indices, bool(data), tuple(behind)))
            if self.settings.throttle is not None:
                behind = [arrays[-1].name]
        return [*data, *arrays, self._ranking((*self.behind, *(array.name for array in arrays)))]

    def _data(self) -> Batch:
        options = self._common(DATA) | self.settings.prepare.options()
        return Batch("data", DATA, MODULES[DATA], options, [self._sweep])

    def _array(self, name: str, work: Work, indices: str, after_data: bool, behind: tuple[str, ...]) -> Batch:
        settings = self.settings
        throttle = "" if settings.throttle is None else f"%{settings.throttle}"
        options = self._common(ARRAY) | {
            "array": f"{indices}{throttle}",
            "gres": f"gpu:{settings.gpus}" if settings.gpus else None,
            "constraint": settings.constraint,
            "exclude": settings.exclude,
            "signal": f"USR2@{settings.warning}",
        }
        waits = behind if settings.throttle is not None else ()
        arguments = [self._sweep, *work.arguments(), "--requeues", str(settings.requeues)]
        options |= settings.task.options()
        return Batch(name, ARRAY, MODULES[ARRAY], options, arguments, "data" * after_data, waits, work)

    def _ranking(self, after: tuple[str, ...]) -> Batch:
        options = self._common(RANKING) | self.settings.rank.options()
        module = "irmas.refine" if self.refine else MODULES[RANKING]
        return Batch("ranking", RANKING, module, options, [self._sweep, *self.refine], after_any=after)

    @property
    def _sweep(self) -> str:
        return str(self.sweep)

    def _common(self, stage: str) -> dict[str, Any]:
        number = "%A_%a" if stage == ARRAY else "%j"
        return {
            "job-name": _job_name(self.sweep, stage),
            "output": f"{self.sweep.slurm}/{number}.out",
            "signal": "TERM@30",
            "open-mode": "append",
            "requeue": True,
            "account": self.settings.account,
            "qos": self.settings.qos,
        }


def _job_name(sweep: Sweep, stage: str) -> str:
    return f"{'irmas' if stage == ARRAY else stage}-{sweep.plan.name}"


def _arrays(ids: Sequence[int], per_task: int, largest: int) -> Iterator[tuple[Work, str]]:
    """Arrays and their indices. With one point a task the index is the run ID, as long as Slurm takes it."""
    ids = sorted(ids)
    if not ids:
        return
    if per_task == 1 and ids[-1] <= largest:
        yield Work(), slurm.ranges(ids)
        return
    for start in range(0, len(ids), largest * per_task):
        chunk = ids[start : start + largest * per_task]
        yield Work(slurm.ranges(chunk), per_task), slurm.ranges(range(1, math.ceil(len(chunk) / per_task) + 1))


def by_hand(batches: Sequence[Batch], setup: str | None = None) -> list[str]:
    """The lines that submit the same jobs from a shell."""
    lines = [] if setup is None else [f"export IRMAS_SETUP={shlex.quote(str(Path(setup).absolute()))}"]
    for batch in batches:
        options = batch.sbatch(lambda name: name if name.isdigit() else f"${name}")
        script = os.path.relpath((SCRIPTS / SCRIPT[batch.stage]).resolve())
        line = " ".join(["sbatch --parsable", *flags(options), shlex.join([script, *batch.arguments])])
        lines.append(line if batch.stage == RANKING else f"{batch.name}=$({line})")
    return lines


def flags(options: Mapping[str, Any]) -> list[str]:
    """As they are written on a command line."""
    given = {key: value for key, value in options.items() if value is not None}
    return [f"--{key}" if value is True else f"--{key}={_quoted(key, value)}" for key, value in given.items()]


def _quoted(key: str, value: object) -> str:
    """A dependency is of our own making, and by hand names the shell's variables."""
    return str(value) if key == "dependency" else shlex.quote(str(value))
