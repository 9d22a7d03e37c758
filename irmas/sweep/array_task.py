"""What one task of a job array does: its runs of the plan, one after another, each in a process of its own.

`srun python -m irmas.sweep.array_task outputs/<name> [--runs 1-18] [--points-per-task 6]`, in slurm/sweep.sbatch and in
what the launcher submits. Without an array it trains all its runs: slurm/train.sbatch.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from irmas.console import plain_console
from irmas.errors import UserError
from irmas.exit import Parser, report_errors
from irmas.run.folder import COMPLETED, FAILED, PRUNED
from irmas.run.lease import Writer
from irmas.sweep import jobs, pool, slurm
from irmas.sweep.jobs import Job, Work
from irmas.sweep.plan import PlannedRun
from irmas.sweep.progress import SweepProgress
from irmas.sweep.sweep import Sweep

REQUEUES = 10


@dataclass
class Asked:
    """What Slurm has asked this task to do."""

    warned: bool = False
    """The time limit or a preemption is near: stop, and go on in another start."""
    ended: bool = False


def main() -> None:
    parser = Parser("irmas.sweep.array_task", "Train the runs of an array task.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("--runs", default="", metavar="1-6,9", help="run IDs (default: all of the plan)")
    parser.add_argument("--points-per-task", type=int, default=1, metavar="N")
    parser.add_argument("--requeues", type=int, default=REQUEUES, metavar="N", help="starts again at most N times")
    with report_errors("irmas.sweep.array_task"):
        arguments = parser.parse_args()
        if arguments.points_per_task < 1 or arguments.requeues < 0:
            parser.error("--points-per-task must be from 1, --requeues from 0")
        try:
            slurm.expand_ranges(arguments.runs or "1")
        except ValueError as error:
            parser.error(f"--runs: {error}")
        work = Work(arguments.runs, arguments.points_per_task)
        index = os.environ.get("SLURM_ARRAY_TASK_ID")
        sys.exit(train(Sweep.open(arguments.sweep), work, None if index is None else int(index), arguments.requeues))


def train(sweep: Sweep, work: Work, index: int | None, requeues: int) -> int:
    """Train the runs of this task. Its exit code: 0 if all are COMPLETED or PRUNED, 143 after SIGTERM, otherwise 1.

    Raises UserError where the sweep holds no plan, or no such runs.
    """
    asked = Asked()
    me = Writer.here()
    can_requeue = bool(me.job) and me.restart < requeues
    _listen(asked, can_requeue)
    runs = _runs(sweep, work.ids(index, len(sweep.plan.runs)))
    if me.job:
        _record(sweep, work)
    if me.restart > requeues:
        return _refuse(sweep, runs, me.restart, requeues)
    console = plain_console()
    unfinished = sweep.unfinished(runs)
    named = jobs.named_runs(run.id for run in runs)
    console.print(f"{sweep}: task {me.job or 'outside Slurm'} on {me.node}, start {me.restart + 1}, {named}")
    with SweepProgress(console, runs, len(runs) - len(unfinished)) as progress:
        pool.train(sweep, unfinished, 1, progress, lambda: asked.warned or asked.ended)
    if all(sweep.status(run).state in (COMPLETED, PRUNED) for run in runs):
        return 0
    if asked.ended:
        return 128 + signal.SIGTERM
    if asked.warned:
        goes_on = "a requeue" if slurm.requeue(me.job) else "the same command: Slurm refused to requeue it"
        console.print(f"task {me.job}: stopped ahead of its end, goes on after {goes_on}")
    return 1


def _listen(asked: Asked, can_requeue: bool) -> None:
    """SIGUSR2 is the warning ahead of a time limit or a preemption, SIGTERM the end."""

    def warn(number: int, frame: object) -> None:
        asked.warned = can_requeue

    def end(number: int, frame: object) -> None:
        asked.ended = True

    signal.signal(signal.SIGUSR2, warn)
    signal.signal(signal.SIGTERM, end)


def _runs(sweep: Sweep, ids: Sequence[int]) -> list[PlannedRun]:
    runs = sweep.plan.runs
    beyond = [number for number in ids if not 1 <= number <= len(runs)]
    if beyond or not ids:
        asked = f"run {beyond[0]}" if beyond else f"run for the array index {os.environ.get('SLURM_ARRAY_TASK_ID')}"
        raise UserError(f"{sweep}: has no {asked}; its runs are 1 to {len(runs)}")
    return [runs[number - 1] for number in ids]


def _record(sweep: Sweep, work: Work) -> None:
    """An array that was submitted by hand is recorded by the first of its tasks."""
    number = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
    if not (sweep.slurm / f"{number}.json").exists():
        name = os.environ.get("SLURM_JOB_NAME", "")
        jobs.record(sweep, Job(number, jobs.ARRAY, name, time.time(), work))


def _refuse(sweep: Sweep, runs: Sequence[PlannedRun], restart: int, requeues: int) -> int:
    reason = (
        f"was started {restart + 1} times; hydra.launcher.requeues={requeues} allows no more. The same command goes on"
    )
    for run in sweep.unfinished(runs):
        sweep.run_folder(run).amend_status(replace(sweep.status(run), state=FAILED, message=reason))
    sys.stderr.write(f"irmas.sweep.array_task: {jobs.named_runs(run.id for run in runs)} {reason}\n")
    return 1


if __name__ == "__main__":
    main()
