"""How the runs of a sweep stand: what their processes last said, joined with Slurm's word.

A status file holds what a run's process last knew: not that it was killed, nor that it never began.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from irmas.errors import UserError, in_words
from irmas.files import is_held
from irmas.run.folder import CANCELLED, COMPLETED, FAILED, FINAL, PENDING, RUNNING, RunFolder, Status
from irmas.sweep import jobs, slurm
from irmas.sweep.jobs import ARRAY, DATA, RANKING, DataFailure, Job, Work
from irmas.sweep.plan import PLAN, POOL, Plan, Point, run_folder
from irmas.sweep.slurm import LIVE, SlurmError, Task

NOT_SUBMITTED = "NOT_SUBMITTED"
"""Never began, and nothing in the queue will begin it."""

WAITING = LIVE - {"RUNNING", "SUSPENDED", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING"}
"""No process trains for such a task."""
MEANING = {
    "OUT_OF_MEMORY": "it needed more memory than it was given, see hydra.launcher.mem",
    "TIMEOUT": "its time limit was over, see hydra.launcher.time",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "a job of higher priority took its place",
    "DEADLINE": "its deadline was over",
    "CANCELLED": "by scancel, or with a job that it waited for",
}
"""Ends that explain why a process was killed."""
CLOCK_S = 2.0
"""Slurm tells the elapsed time in whole seconds."""
LAG_S = 5.0
"""So long sacct may not know yet what squeue tells."""
TOLD = "states are what the runs last said"
_OPTION = re.compile(r" --([a-z-]+)[ =](\S+)")


@dataclass(frozen=True)
class RunState:
    point: Point
    status: Status
    """With the state that holds, and why."""
    task: Task | None
    """The task that trains it, will train it, or trained it last."""
    told: Status | None
    """What its file says; None where that cannot be read."""


@dataclass(frozen=True)
class SweepState:
    runs: list[RunState]
    stages: list[Task]
    """The last data job and the last ranking job, named `data` and `ranking`, where Slurm knows them."""
    note: str = ""
    """Why Slurm's word is missing where there should be one."""
    in_pool: bool = False
    """A command on this machine trains its runs, one after another."""

    @property
    def is_live(self) -> bool:
        """Whether a run trains, or anything of the sweep is in the queue."""
        tasks = [*self.stages, *(run.task for run in self.runs if run.task is not None)]
        is_training = any(run.status.state == RUNNING for run in self.runs)
        return self.in_pool or is_training or any(task.is_live for task in tasks)

    @property
    def is_to_be_ranked(self) -> bool:
        """Whether a ranking waits; one that runs may be over before what is in the queue is."""
        return any(task.name == RANKING and task.state in WAITING for task in self.stages)


def look(sweep: Path, plan: Plan, *, last_word: bool = False) -> SweepState:
    """Reads only. Asks squeue and sacct once each at most, and nobody where the sweep was never on Slurm.

    For a `last_word`, which is written down, sacct is asked again while it lags behind squeue.
    """
    if not (sweep / jobs.FOLDER).is_dir():
        return _unheard(sweep, plan)
    if not os.access(sweep / jobs.FOLDER, os.R_OK | os.X_OK):
        return _unheard(sweep, plan, f"{sweep / jobs.FOLDER}: cannot be read: {TOLD}")
    try:
        names = _names_by_hand(plan) | {record.name for record in jobs.recorded(sweep)}
        queued = slurm.queue(sorted(names))
    except UserError as error:
        reason = error.reason if isinstance(error, SlurmError) else error
        return _unheard(sweep, plan, f"{reason}: {TOLD}")
    return heard(sweep, plan, queued, partial(_caught_up, queued) if last_word else slurm.accounting)


def _caught_up(queued: Iterable[Task], jobs: Iterable[str]) -> list[Task]:
    """What sacct says, when it knows all ends that squeue tells; that a task ran out of memory it alone knows."""
    numbers = set(jobs)
    ended = {task.id for task in queued if task.job in numbers and not task.is_live}
    deadline = time.monotonic() + LAG_S
    while True:
        told = slurm.accounting(numbers)
        known = {task.id for task in told if not task.is_live}
        if not told or ended <= known or time.monotonic() > deadline:
            return told
        time.sleep(LAG_S / 20)


def heard(
    sweep: Path, plan: Plan, queued: Iterable[Task], accounting: Callable[[Iterable[str]], list[Task]]
) -> SweepState:
    """With what squeue says; `accounting` is asked only if that leaves an unfinished run unexplained."""
    total = len(plan.points)
    word = _word(sweep, plan, queued)
    by_run = word.by_run(total)
    read = {point.id: _read(run_folder(sweep, point), on_slurm=True) for point in plan.points}
    if any(last.state not in FINAL and not any(t.is_live for t in by_run[run]) for run, (last, _) in read.items()):
        word.add(accounting(word.records | word.works))
        by_run = word.by_run(total)
    data = word.data_failures(sweep, total)
    runs = []
    for point in plan.points:
        last, told = read[point.id]
        task = choose(last, by_run[point.id])
        joined = join(last, task, word.time, data.get(point.id, "")) if told is not None else last
        runs.append(RunState(point, joined, task, told))
    return SweepState(runs, word.stages())


def _unheard(sweep: Path, plan: Plan, note: str = "") -> SweepState:
    read = [(point, *_read(run_folder(sweep, point), on_slurm=False)) for point in plan.points]
    runs = [RunState(point, last, None, told) for point, last, told in read]
    return SweepState(runs, [], note, is_held(sweep / POOL))


def settle(sweep: Path, state: SweepState) -> None:
    """Write into its file how a dead run ended. Raises OSError where that is not allowed."""
    for run in state.runs:
        is_live = run.task is not None and run.task.is_live
        if is_live or run.told in (None, run.status) or run.status.state in (PENDING, RUNNING, NOT_SUBMITTED):
            continue
        folder = run_folder(sweep, run.point)
        if folder.recorded() == run.told:  # otherwise somebody has gone on with it since
            folder.amend_status(run.status)


def _read(folder: RunFolder, *, on_slurm: bool) -> tuple[Status, Status | None]:
    """Before Slurm is heard: what is known of the run, and its file's own word."""
    try:
        told = folder.recorded()
        # Whether a process lives that Slurm does not know of, the run's lock tells.
        return told if on_slurm and told.job else folder.status(), told
    except (UserError, OSError) as error:
        return Status(FAILED, message=in_words(error) or repr(error)), None


# ---- the rules


def choose(told: Status, tasks: Iterable[Task]) -> Task | None:
    """The task whose word counts: a live one, else the one that the file is of; for a run that never began the last."""
    by_number = sorted(tasks, key=lambda task: int(task.job))
    live = [task for task in by_number if task.is_live]
    own = [task for task in live or by_number if task.id == told.job]
    training = [task for task in live if task.state not in WAITING]
    ended = [] if told.job else by_number
    return next((group[-1] for group in (own, training, live, ended) if group), None)


def join(told: Status, task: Task | None, now: float, data: str = "") -> Status:
    """What holds, of what the run's process last said and what Slurm says of its task.

    `now` is Unix time; `data` says why the run's data could not be made, if so.
    """
    if told.state in FINAL:
        return told
    if task is not None and task.is_live:
        return _alive(told, task, now)
    if told.pid == 0:
        return _never_began(told, task, data)
    if told.state == RUNNING and told.job:
        return _ended(told, task)
    if task is not None and task.state in _overruling(told):
        return _ended(told, task)
    return told


def _alive(told: Status, task: Task, now: float) -> Status:
    is_its_own = told.job == task.id and task.state not in WAITING
    if told.state == RUNNING and (is_its_own or not told.job):  # without a job it trains outside Slurm
        return told
    if task.state in WAITING:
        return replace(told, state=PENDING, message=task.reason + ("; the same command releases it" * task.is_held))
    if is_its_own and told.updated >= now - task.elapsed_s - CLOCK_S:
        return told  # it ended in this very start of the task, which trains other runs
    return replace(told, state=PENDING, message=f"waits in task {task.id}")


def _never_began(told: Status, task: Task | None, data: str) -> Status:
    """Its file, if there is one, was written by `settle` or on behalf of a process that never was."""
    if data:
        return replace(told, state=CANCELLED, message=data)
    # FAILED says why; CANCELLED may be of an earlier submission.
    if task is not None and task.state != COMPLETED and (task.state != told.state or told.state == CANCELLED):
        return _ended(told, task)
    return replace(told, state=NOT_SUBMITTED) if told.state == PENDING else told


def _overruling(told: Status) -> frozenset[str]:
    """Slurm's states that say more than what a process, or its parent, said of its end."""
    if told.state == CANCELLED:  # in good order, not knowing why it was asked to
        return frozenset(MEANING) - {CANCELLED} | {FAILED}
    was_killed = told.state == FAILED and told.exit_code is not None and told.exit_code < 0
    return frozenset(MEANING) if was_killed else frozenset()


def _ended(told: Status, task: Task | None) -> Status:
    """The end of a process that could not tell it."""
    state, exit_code = FAILED, told.exit_code
    if task is None:
        what = f"its process ended without a word, and Slurm knows nothing of job {told.job}"
    elif task.state == COMPLETED:
        what = f"its process ended without a word, though Slurm says COMPLETED of job {task.id}"
    else:
        state = task.state
        exit_code = _exit_code(task) if exit_code is None else exit_code
        code = f"exit code {task.exit_code}" if task.exit_code else task.reason
        what = ", ".join(part for part in (f"Slurm says {state}", MEANING.get(state), code) if part)
    goes_on = f"goes on after epoch {told.epoch}" if told.epoch else "starts it again"
    return replace(told, state=state, exit_code=exit_code, message=f"{what}; the same command {goes_on}")


def _exit_code(task: Task) -> int | None:
    """3 for Slurm's `3:0`, -9 for `0:9`."""
    code, _, signal = task.exit_code.partition(":")
    return (int(code) or -int(signal)) if task.exit_code else None


# ---- which task is of which run


@dataclass
class _Word:
    """What Slurm says of a sweep."""

    records: dict[str, Job]
    works: dict[str, Work]
    """By the number of an array."""
    tasks: dict[str, Task]
    time: float

    def add(self, accounted: Iterable[Task]) -> None:
        """How a task ended sacct knows better than squeue, having the steps; but it may lag."""
        seen = {task.job: task.name for task in self.tasks.values()}
        for task in accounted:
            name = self.records[task.job].name if task.job in self.records else seen.get(task.job)
            queued = self.tasks.get(task.id)
            if task.name == name and not task.is_live and not (queued and queued.is_live):
                self.tasks[task.id] = task

    def by_run(self, total: int) -> Mapping[int, list[Task]]:
        tasks: dict[int, list[Task]] = defaultdict(list)
        for task in self.tasks.values():
            if task.job in self.works:
                for number in self.works[task.job].ids(task.index, total):
                    tasks[number].append(task)
        return tasks

    def stages(self) -> list[Task]:
        last = {record.stage: record.job for record in self.records.values()}
        known = [(stage, self.tasks.get(last.get(stage, ""))) for stage in (DATA, RANKING)]
        return [replace(task, name=stage) for stage, task in known if task is not None]

    def data_failures(self, sweep: Path, total: int) -> dict[int, str]:
        """By run, where the data job failed that its last array waited for."""
        reasons, failure = {}, jobs.data_failure(sweep)
        for record in self.records.values():
            if record.stage == ARRAY:
                reason = self._data_failure(failure, record.after)
                reasons.update(dict.fromkeys(record.work.ids(None, total), reason))
        return reasons

    def _data_failure(self, failure: DataFailure | None, job: str) -> str:
        if not job:
            return ""
        told = failure.error if failure is not None and failure.job == job else ""
        task = self.tasks.get(job)
        if (task is not None and (task.is_live or task.state == COMPLETED)) or not (task or told):
            return ""
        reason = told or (f"exit code {task.exit_code}" if task and task.exit_code else "")
        # The ranking shows the last line alone: what was wrong, and the first place where.
        what, *places = [line.strip() for line in reason.splitlines()] or [""]
        ended = f"its data could not be made: job {job} {task.state if task else FAILED}"
        last = ": ".join([f"{ended}; {what}" if what else ended, *places[:1]])
        return "\n".join([*places[1:], last])


def _word(sweep: Path, plan: Plan, queued: Iterable[Task]) -> _Word:
    records = {record.job: record for record in jobs.recorded(sweep)}
    works = {record.job: record.work for record in records.values() if record.stage == ARRAY}
    is_ours: dict[str, bool] = {}
    tasks = {}
    for task in queued:
        if task.job not in is_ours:
            record, named = records.get(task.job), named_sweep(task)
            if named is None:  # what the launcher submits takes no arguments
                is_ours[task.job] = record is not None and record.name == task.name
            else:
                is_ours[task.job] = named[0] == sweep.resolve() and (
                    record is not None or task.name in _names_by_hand(plan)
                )
                if is_ours[task.job] and record is None:
                    works[task.job] = named[1]
        if is_ours[task.job]:
            tasks[task.id] = task
    return _Word(records, works, tasks, time.time())


def _names_by_hand(plan: Plan) -> set[str]:
    """Names that an array has before anything of it is recorded."""
    return {"irmas", f"irmas-{plan.name}"}


def named_sweep(task: Task) -> tuple[Path, Work] | None:
    """The sweep that a batch script's arguments name, `outputs/<name> [--runs R] [--points-per-task N]`, and the work.

    Slurm shows arguments without quotes: a folder's name may hold spaces.
    """
    options = dict(_OPTION.findall(task.command))
    words = _OPTION.sub("", task.command).split(" ")
    for first in range(1, len(words)):
        sweep = Path(task.folder, " ".join(words[first:]))
        if (sweep / PLAN).is_file():
            try:
                work = Work(options.get("runs", ""), int(options.get("points-per-task", 1)))
                work.ids(1, 1)
            except ValueError:  # mistyped by hand: its tasks say so, and train nothing
                return None
            return sweep.resolve(), work
    return None
