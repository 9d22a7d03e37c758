"""States of the runs of a sweep: their status files, corrected by what Slurm reports of their tasks.

A status file holds what a run's process last recorded: not that it was killed, nor that it never began.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from irmas.errors import UserError, in_words
from irmas.files import is_held
from irmas.run.folder import CANCELLED, COMPLETED, FAILED, FINAL, PENDING, RUNNING, RunFolder, Status
from irmas.sweep import jobs, slurm
from irmas.sweep.jobs import ARRAY, DATA, RANKING, Job, Work, named_sweep
from irmas.sweep.plan import PlannedRun
from irmas.sweep.slurm import COMPLETING, LIVE, SlurmError, Task
from irmas.sweep.sweep import Sweep

NOT_SUBMITTED = "NOT_SUBMITTED"
"""State of a run that never began, and that nothing in the queue will begin."""
WAITING = LIVE - {"RUNNING", "SUSPENDED", COMPLETING, "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING"}
"""States of tasks that no process trains for."""
MEANING = {
    "OUT_OF_MEMORY": "out of memory, see hydra.launcher.mem, or the rule that sets it, and hydra.launcher.runs_at_once",
    "TIMEOUT": "hit its time limit, see hydra.launcher.time",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "preempted by a higher-priority job",
    "DEADLINE": "passed its deadline",
    "CANCELLED": "by scancel, or with a job that it depended on",
}
"""Slurm's states that explain why a process was killed."""
LAG_S = 5.0
"""Time by which sacct may lag behind squeue."""


@dataclass(frozen=True)
class RunState:
    """One run and how it stands."""

    planned: PlannedRun
    status: Status
    """The merged status: what the run recorded, corrected by Slurm."""
    task: Task | None
    """The task that trains the run, will train it, or trained it last."""
    recorded: Status | None
    """The content of its status file; None where that cannot be read."""


@dataclass(frozen=True)
class SweepState:
    """All runs of a sweep and the jobs around them."""

    sweep: Sweep
    runs: list[RunState]
    stages: list[Task]
    """The last data job and the last ranking job, named `data` and `ranking`, where Slurm knows them."""
    note: str = ""
    """Reason why Slurm's reply is missing where there should be one."""
    in_pool: bool = False
    """True while a command on this machine trains runs of the sweep."""

    @property
    def is_live(self) -> bool:
        """Return whether a run trains, or anything of the sweep is in the queue."""
        tasks = [*self.stages, *(run.task for run in self.runs if run.task is not None)]
        is_training = any(run.status.state == RUNNING for run in self.runs)
        return self.in_pool or is_training or any(task.is_live for task in tasks)

    @property
    def completing(self) -> list[Task]:
        """Return the tasks of unfinished runs that are COMPLETING."""
        unfinished = (run.task for run in self.runs if run.status.state not in FINAL)
        return list(dict.fromkeys(task for task in unfinished if task is not None and task.state == COMPLETING))

    @property
    def is_to_be_ranked(self) -> bool:
        """Return whether a ranking job waits; one that runs may end before what is in the queue does."""
        return any(task.name == RANKING and task.state in WAITING for task in self.stages)


def sweep_state(sweep: Sweep, *, is_final: bool = False, cluster: str = "") -> SweepState:
    """Return how the runs stand, after one query each of squeue and sacct at most; none for a sweep never on Slurm.

    With `is_final`, for states that will be recorded, sacct is queried again while it lags behind squeue. Slurm's
    cluster is the one that the job records name, or else `cluster`, SLURM_CLUSTERS, or that of this machine.
    """
    if not sweep.slurm.is_dir():
        return without_slurm(sweep)
    try:
        names = job_names(sweep)
        cluster = jobs.recorded_cluster(sweep) or cluster or slurm.named_cluster()
        with slurm.on_cluster(cluster):
            queued = slurm.queue(sorted(names))
            return with_slurm(sweep, queued, partial(_settled_accounting, queued) if is_final else slurm.accounting)
    except UserError as error:
        return without_slurm(sweep, error)


def _settled_accounting(queued: Iterable[Task], numbers: Iterable[str]) -> list[Task]:
    """Return what sacct reports once it has all ends that squeue shows: sacct alone knows that memory ran out."""
    numbers = set(numbers)
    ended = {task.id for task in queued if task.job in numbers and not task.is_live}
    deadline = time.monotonic() + LAG_S
    while True:
        tasks = slurm.accounting(numbers)
        if not tasks or ended <= {task.id for task in tasks if not task.is_live} or time.monotonic() > deadline:
            return tasks
        time.sleep(LAG_S / 20)


def with_slurm(sweep: Sweep, queued: Iterable[Task], accounting: Callable[[Iterable[str]], list[Task]]) -> SweepState:
    """Return how the runs stand, given the reply of squeue.

    `accounting` is queried only if that reply leaves an unfinished run unexplained.
    """
    view = _view(sweep, queued)
    by_run = view.by_run()
    read = {run.id: _read(sweep.run_folder(run), on_slurm=True) for run in sweep.plan.runs}
    if any(status.state not in FINAL and not any(t.is_live for t in by_run[id_]) for id_, (status, _) in read.items()):
        view.add(accounting(view.records | view.works))
        by_run = view.by_run()
    data = view.data_failures()
    runs = []
    for run in sweep.plan.runs:
        status, recorded = read[run.id]
        task = pick_task(status, by_run[run.id])
        if recorded is not None and not _trains_outside(sweep.run_folder(run), recorded, view):
            failed = status.state not in FINAL and task is not None and task.state == FAILED
            output = jobs.last_line(sweep, task) if failed and task else ""
            status = merge_state(status, task, view.time, data.get(run.id, ""), output)
        runs.append(RunState(run, status.with_silence(view.time), task, recorded))
    return SweepState(sweep, runs, view.stages())


def _trains_outside(folder: RunFolder, recorded: Status, view: _SlurmView) -> bool:
    """Return whether a process trains the run in a job of which Slurm reports nothing, as by hand inside salloc."""
    if recorded.state != RUNNING or not recorded.job or recorded.job in view.tasks:
        return False
    return folder.status().state == RUNNING


def without_slurm(sweep: Sweep, error: UserError | None = None) -> SweepState:
    """Return how the runs stand by what they recorded; `error` is why Slurm's reply is missing where it should not."""
    reason = error.reason if isinstance(error, SlurmError) else error
    note = f"{reason}: states are those that the runs last recorded" if error else ""
    read, now = [(run, *_read(sweep.run_folder(run), on_slurm=False)) for run in sweep.plan.runs], time.time()
    runs = [RunState(run, status.with_silence(now), None, recorded) for run, status, recorded in read]
    return SweepState(sweep, runs, [], note, is_held(sweep.pool_lock))


def _read(folder: RunFolder, *, on_slurm: bool) -> tuple[Status, Status | None]:
    """Return what is known of a run without Slurm, and the content of its status file."""
    try:
        recorded = folder.recorded()
        # Whether a process lives that Slurm does not know of is shown by the run's lock.
        return recorded if on_slurm and recorded.job else folder.status(), recorded
    except (UserError, OSError) as error:
        return Status(FAILED, message=in_words(error) or repr(error)), None


def record_dead_runs(state: SweepState) -> None:
    """Write into the status file of each dead run how it ended. Raises OSError where that is not allowed."""
    for run in state.runs:
        is_live = run.task is not None and run.task.is_live
        if is_live or run.recorded in (None, run.status) or run.status.state in (PENDING, RUNNING, NOT_SUBMITTED):
            continue
        folder = state.sweep.run_folder(run.planned)
        if folder.recorded() == run.recorded:  # otherwise a process has resumed it since
            folder.amend_status(run.status)


# ---- the rules


def pick_task(recorded: Status, tasks: Iterable[Task]) -> Task | None:
    """Return the task that explains a run: a live one, else the one that its status file names.

    Of several live ones that is its own, then one that trains, then the last; for a run that never began, the last.
    """
    by_number = sorted(tasks, key=lambda task: int(task.job))
    live = [task for task in by_number if task.is_live]
    own = [task for task in live or by_number if task.id == recorded.job]
    training = [task for task in live if task.state not in WAITING]
    for candidates in (own, training, live, [] if recorded.job else by_number):
        if candidates:
            return candidates[-1]
    return None


def merge_state(recorded: Status, task: Task | None, now: float, data_failure: str = "", output: str = "") -> Status:
    """Return the status that holds, given what the run recorded and its task in Slurm.

    `now` is Unix time; `data_failure` is why the run's data could not be made, empty if it was; `output` is where and
    with what the output of a failed task ends.
    """
    if recorded.state in FINAL:
        return recorded
    if task is not None and task.is_live:
        return _alive(recorded, task, now)
    if recorded.pid == 0:
        return _never_began(recorded, task, data_failure, output)
    if recorded.state == RUNNING and recorded.job:
        return _ended(recorded, task, output)
    if task is not None and task.state in _overruling(recorded):
        return _ended(recorded, task, output)
    return recorded


def _alive(recorded: Status, task: Task, now: float) -> Status:
    is_its_own = recorded.job == task.id and task.state not in WAITING
    if recorded.state == RUNNING and (is_its_own or not recorded.job):  # without a job it trains outside Slurm
        return recorded
    if task.state == COMPLETING:
        return recorded if is_its_own else replace(recorded, state=PENDING, message=f"its task {task.id} is completing")
    if task.state in WAITING:
        remedy = "; rerun the sweep command to release it" if task.is_held else ""
        return replace(recorded, state=PENDING, message=task.reason + remedy)
    if is_its_own and recorded.updated >= now - task.elapsed_s - 2:  # Slurm gives whole seconds
        return recorded  # it ended in this very start of the task, which trains other runs
    return replace(recorded, state=PENDING, message=f"waits in task {task.id}")


def _never_began(recorded: Status, task: Task | None, data_failure: str, output: str) -> Status:
    """Return the status of a run whose file, if any, was written for a process that never was."""
    if data_failure:
        return replace(recorded, state=CANCELLED, message=data_failure)
    # FAILED has a reason of its own; CANCELLED may be of an earlier submission.
    if task is not None and task.state != COMPLETED and (task.state != recorded.state or recorded.state == CANCELLED):
        return _ended(recorded, task, output)
    return replace(recorded, state=NOT_SUBMITTED) if recorded.state == PENDING else recorded


def _overruling(recorded: Status) -> frozenset[str]:
    """Return Slurm's states that explain more than what a process, or its parent, recorded of its end."""
    if recorded.state == CANCELLED:  # a clean shutdown, whose cause the process does not know
        return frozenset(MEANING) - {CANCELLED} | {FAILED}
    was_killed = recorded.state == FAILED and recorded.exit_code is not None and recorded.exit_code < 0
    return frozenset(MEANING) if was_killed else frozenset()


def _ended(recorded: Status, task: Task | None, output: str) -> Status:
    """Return the status of a run whose process ended without recording why."""
    state, exit_code = FAILED, recorded.exit_code
    died = "the process died without reporting an error"
    if task is None:
        reason = f"{died}, and Slurm has no record of job {recorded.job}"
    elif task.state == COMPLETED:
        reason = f"{died}, although job {task.id} is COMPLETED"
    else:
        state = task.state
        if exit_code is None and task.exit_code:  # 3:0 is the exit code 3, 0:9 is signal 9
            number, signal = map(int, task.exit_code.split(":"))
            exit_code = number or (-signal if task.exit_code != jobs.NOT_OPENED else None)
        code = f"exit code {task.exit_code}" if task.exit_code else task.reason
        reason = ", ".join(part for part in (f"{state} in Slurm", MEANING.get(state), code, output) if part)
    effect = f"resume it after epoch {recorded.epoch}" if recorded.epoch else "restart it"
    message = f"{reason}; rerun the sweep command to {effect}"
    return replace(recorded, state=state, exit_code=exit_code, message=message)


# ---- which task trains which run


@dataclass
class _SlurmView:
    """The tasks of a sweep in Slurm, and what its job records say of them."""

    sweep: Sweep
    records: dict[str, Job]
    works: dict[str, Work]
    """Work of the arrays, by number."""
    tasks: dict[str, Task]
    time: float

    def add(self, accounted: Iterable[Task]) -> None:
        """Take ends from sacct, which has the steps and so knows more than squeue; but it may lag."""
        seen = {task.job: task.name for task in self.tasks.values()}
        for task in accounted:
            name = self.records[task.job].name if task.job in self.records else seen.get(task.job)
            queued = self.tasks.get(task.id)
            if task.name == name and not task.is_live and not (queued and queued.is_live):
                self.tasks[task.id] = task

    def by_run(self) -> Mapping[int, list[Task]]:
        tasks: dict[int, list[Task]] = defaultdict(list)
        for task in self.tasks.values():
            if task.job in self.works:
                for number in self.works[task.job].ids(task.index, len(self.sweep.plan.runs)):
                    tasks[number].append(task)
        return tasks

    def stages(self) -> list[Task]:
        last = {record.stage: record.job for record in self.records.values()}
        known = [(stage, self.tasks.get(last.get(stage, ""))) for stage in (DATA, RANKING)]
        return [replace(task, name=stage) for stage, task in known if task is not None]

    def data_failures(self) -> dict[int, str]:
        """Return, by run, why the data job failed that its last array waited for; empty where it did not."""
        reasons = {}
        for record in self.records.values():
            if record.stage == ARRAY:
                ids = record.work.ids(None, len(self.sweep.plan.runs))
                reasons.update(dict.fromkeys(ids, self._data_failure(record.after)))
        return reasons

    def _data_failure(self, job: str) -> str:
        task, failure = self.tasks.get(job), jobs.recorded_data_failure(self.sweep)
        error = failure.error if failure is not None and failure.job == job else ""
        if not job or not (task or error) or (task and (task.is_live or task.state == COMPLETED)):
            return ""
        reason = error or (f"exit code {task.exit_code}" if task and task.exit_code else "")
        summary, *details = [line.strip() for line in reason.splitlines()] or [""]
        # `Status.reason` is the last line: it gets the summary and the first of the details.
        head = f"the data job {job} is {task.state if task else FAILED}"
        return "\n".join([*details[1:], ": ".join(filter(None, [head, summary, *details[:1]]))])


def _view(sweep: Sweep, queued: Iterable[Task]) -> _SlurmView:
    records = {record.job: record for record in jobs.recorded_jobs(sweep)}
    works = {record.job: record.work for record in records.values() if record.stage == ARRAY}
    is_ours: dict[str, bool] = {}
    tasks = {}
    for task in queued:
        if task.job not in is_ours:
            record, named = records.get(task.job), named_sweep(task)
            if named is None:  # its script is no longer there, or names no sweep
                is_ours[task.job] = record is not None and record.name == task.name
            else:
                path, work = named
                is_array = work is not None and task.name in _names_by_hand(sweep)
                is_ours[task.job] = path == sweep.path.resolve() and (record is not None or is_array)
                if is_ours[task.job] and record is None and work is not None:
                    works[task.job] = work
        if is_ours[task.job]:
            tasks[task.id] = task
    return _SlurmView(sweep, records, works, tasks, time.time())


def job_names(sweep: Sweep) -> set[str]:
    """Return the names that jobs of the sweep may have. Raises UserError where their records cannot be read."""
    if not os.access(sweep.slurm, os.R_OK | os.X_OK):
        raise UserError(f"{sweep.slurm}: cannot be read")
    return _names_by_hand(sweep) | {record.name for record in jobs.recorded_jobs(sweep)}


def _names_by_hand(sweep: Sweep) -> set[str]:
    """Return the names that an array has before anything of it is recorded."""
    return {"irmas", jobs.job_name(ARRAY, sweep)}
