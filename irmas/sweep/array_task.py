"""One task of a job array: it trains its share of a sweep's runs, one or several at once, each in a process of its own.

`python -m irmas.sweep.array_task outputs/<name> [--runs 1-18] [--runs-per-task 6] [--runs-at-once 2] [--requeues 10]`,
the stage `train` of slurm/irmas.sbatch. A job that is no array trains all the runs.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from irmas.console import plain_console
from irmas.errors import Parser, UserError, report_errors
from irmas.processes import SlurmTask, current_task
from irmas.run.folder import COMPLETED, FAILED, PRUNED
from irmas.sweep import jobs, pool, slurm
from irmas.sweep.jobs import Job, Work
from irmas.sweep.plan import PlannedRun
from irmas.sweep.pool import SweepProgress
from irmas.sweep.settings import RENAMED, Settings
from irmas.sweep.slurm import SlurmError
from irmas.sweep.sweep import Sweep

REQUEUE_S, RETRY_S = 90.0, 5.0
"""Longest time for which a task asks to be requeued, less than the default warning before a time limit; its pause."""


def main() -> None:
    parser = Parser("irmas.sweep.array_task", "Train the runs of an array task.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("--runs", default="", metavar="1-6,9", help="run IDs (default: all of the plan)")
    parser.add_argument("--runs-per-task", type=int, default=1, metavar="N", help="length of a task's share of them")
    parser.add_argument("--runs-at-once", type=int, metavar="N", help="side by side (default: one per GPU, or one)")
    parser.add_argument("--requeues", type=int, default=Settings.requeues, metavar="N", help="restart at most N times")
    with report_errors("irmas.sweep.array_task"):
        for word in sys.argv[1:]:
            name = word.partition("=")[0].removeprefix("--").replace("-", "_")
            if name in RENAMED:
                parser.error(f"{word}: was renamed; give --{RENAMED[name].replace('_', '-')}")
        args = parser.parse_args()
        if args.runs_per_task < 1 or (args.runs_at_once is not None and args.runs_at_once < 1) or args.requeues < 0:
            parser.error("--runs-per-task and --runs-at-once must be from 1, --requeues from 0")
        try:
            slurm.expand_ranges(args.runs or "1")
        except ValueError as error:
            parser.error(f"--runs: {error}")
        work = Work(args.runs, args.runs_per_task)
        sys.exit(train(Sweep.open(args.sweep), work, current_task(), args.runs_at_once, args.requeues))


def train(sweep: Sweep, work: Work, task: SlurmTask, at_once: int | None, requeues: int) -> int:
    """Train the runs of a task; return 0 if all are COMPLETED or PRUNED, 143 after SIGTERM, otherwise 1.

    Unless `at_once` is given, one run per GPU trains at a time, and one where there is none.
    SIGUSR2 is Slurm's warning before a time limit or a preemption: the task then stops and requeues itself, `requeues`
    times at most, not counting starts that a prolog ended. Raises UserError where the plan does not have these runs.
    """
    received = set[int]()
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda received_number, frame: received.add(received_number))
    runs = _runs_of(task, sweep, work)
    if task.job and not (sweep.slurm / f"{task.job}.json").exists():  # it was submitted by hand
        jobs.record_job(sweep, Job(task.job, jobs.ARRAY, task.name, time.time(), work, cluster=task.cluster))
    named, restarts = jobs.named_runs(run.id for run in runs), _restarts(sweep, task)
    if restarts > requeues:
        times = f"was started {restarts + 1} times; hydra.launcher.requeues={requeues} allows no more"
        reason = f"{times}; rerun the sweep command to resume"
        for run in sweep.unfinished(runs):
            sweep.run_folder(run).amend_status(replace(sweep.status(run), state=FAILED, message=reason))
        sys.stderr.write(f"irmas.sweep.array_task: {named} {reason}\n")
        return 1
    stopping = {signal.SIGTERM} | ({signal.SIGUSR2} if task.job and restarts < requeues else set())
    console = plain_console()
    at_once = at_once or len(pool.gpus(sweep)) or 1
    where = f"task {task.id or 'outside Slurm'} on {task.node}, start {task.restart + 1}"
    console.print(f"{sweep}: {where}, {named}" + (f", {at_once} at once" if at_once > 1 else ""))
    with SweepProgress(console, runs, len(runs) - len(sweep.unfinished(runs))) as progress:
        pool.train(sweep, runs, at_once, progress, lambda: bool(received & stopping))
    if all(sweep.status(run).state in (COMPLETED, PRUNED) for run in runs):
        return 0
    if signal.SIGTERM in received:
        return 128 + signal.SIGTERM
    if received & stopping:
        refusal = "Slurm refused to requeue it; rerun the sweep command to resume"
        outcome = "requeued" if _requeue(task, received) else refusal
        console.print(f"task {task.id}: stopped before its time limit or a preemption, {outcome}")
    return 1


def _restarts(sweep: Sweep, task: SlurmTask) -> int:
    """Return how often a task was restarted after a start that came this far; Slurm's count where the disk is full.

    A controller that crashed may give the number of an earlier job again, whose starts do not count.
    """
    restarts = task.restart
    if task.job:
        with suppress(OSError):
            restarts = min(restarts, jobs.record_start(sweep, task.id))
    return restarts


def _requeue(task: SlurmTask, received: Set[int]) -> bool:
    """Ask Slurm to requeue the task until it accepts; give up after `REQUEUE_S`, or when it ends the task.

    A preemption may have requeued it already: asking then would stop its next start.
    """
    deadline = time.monotonic() + REQUEUE_S
    while signal.SIGTERM not in received:
        with suppress(SlurmError):
            if slurm.restarts(task.id) > task.restart or slurm.requeue(task.id):
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(RETRY_S)
    return False


def _runs_of(task: SlurmTask, sweep: Sweep, work: Work) -> list[PlannedRun]:
    runs = sweep.plan.runs
    ids = work.ids(task.index, len(runs))
    beyond = [number for number in ids if not 1 <= number <= len(runs)]
    if beyond or not ids:
        missing = f"run {beyond[0]}" if beyond else f"run for the array index {task.index}"
        raise UserError(f"{sweep}: has no {missing}; its runs are 1 to {len(runs)}")
    return [runs[number - 1] for number in ids]


if __name__ == "__main__":
    main()
