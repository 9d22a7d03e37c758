"""The submission of a plan to Slurm."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from irmas.console import SILENT, plain_console
from irmas.errors import UserError
from irmas.files import atomic_write, locked
from irmas.run.folder import CANCELLED, FINAL, RUNNING
from irmas.run.lease import is_owned
from irmas.sweep import cost, data_job, executor, jobs, pruning, run_states, slurm
from irmas.sweep.executor import Before, RefusedError, submit_within_limit
from irmas.sweep.jobs import ARRAY
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import RunState, SweepState
from irmas.sweep.sbatch import JobRequest, job_requests, shell_lines
from irmas.sweep.settings import Settings
from irmas.sweep.slurm import COMPLETING, SlurmError, Task
from irmas.sweep.sweep import Sweep

COMPLETING_WAIT_S = 60.0
"""Longest wait for tasks that are COMPLETING: Slurm kills a process within 30 s by default, then runs the epilog."""


@dataclass(frozen=True)
class Submission:
    """The jobs that a command has submitted, or with `by_hand` would submit."""

    runs: list[PlannedRun]
    """Runs of the command."""
    queued: int
    """Number of runs that were in the queue before."""
    elsewhere: int
    """Number of runs that processes outside the queue train, as inside salloc."""
    remaining: int
    """Number of runs that had neither finished nor been queued before, and that nothing trains."""
    live: list[str]
    """Numbers of the sweep's jobs that were in the queue before."""
    requests: list[JobRequest]
    jobs: dict[str, str]
    """Slurm's numbers by the names of the requests."""
    released: list[str]
    """Tasks that Slurm held because a node could not start them."""
    lost: list[str]
    """Jobs that were cancelled, since an earlier command never received their numbers."""
    runs_per_task: int = 1
    """Largest number of runs per task that the settings say, whatever Slurm's submit limit."""
    starts: str = ""
    """Time of the first task's start by Slurm's estimate; empty where it has none."""
    cluster: str = ""
    """Name of the cluster, if the settings, SLURM_CLUSTERS or the sweep's records name one."""


def launch(
    plan: Plan,
    settings: Settings,
    *,
    append: bool,
    by_hand: bool,
    refine: Sequence[str] = (),
    files: Sequence[Path] = (),
) -> Submission:
    """Submit as `submit` does; print what was submitted, the `files` of settings, and the commands that follow."""
    sweep = Sweep.of(plan)
    origins = [f"cluster settings: {' '.join(map(str, files))}"] if files else []
    notes = [] if by_hand else executor.environment_notes(settings)  # by hand they count
    try:
        submission = submit(plan, settings, append=append, by_hand=by_hand, refine=refine)
    except RefusedError as error:
        raise UserError("\n  ".join([str(error), *origins, *notes])) from None
    total, queued = len(submission.runs), submission.queued
    runs = "1 run" if total == 1 else f"{total} runs"
    finished = total - queued - submission.elsewhere - submission.remaining
    elsewhere = f", {submission.elsewhere} training outside the queue" if submission.elsewhere else ""
    counts = f"{sweep}: {runs}, {finished} finished before, {queued} in the queue{elsewhere}"
    lines = [counts, *pruning.describe(plan)]
    per_task = _runs_per_task(submission.requests)
    if per_task > submission.runs_per_task:
        change = f"{per_task} runs per task instead of hydra.launcher.runs_per_task={submission.runs_per_task}"
        lines.append(f"Slurm's submit limit requires fewer tasks: using {change}")
    if submission.requests:
        lines += origins
    if submission.requests and by_hand:
        lines += ["", "the plan is written, nothing is submitted. By hand:", ""]
        lines += [f"  {line}" for line in shell_lines(submission.requests)]
    if queued or submission.remaining:
        lines += Sweep.open(sweep.path, []).kept_source(plan.source)
    if queued and not submission.remaining:
        lines.append("all remaining runs are already queued; changed launcher settings do not affect them")
    if submission.released:
        lines.append(f"released: {' '.join(submission.released)}, which a node could not start")
    if submission.lost:
        lines.append(f"cancelled: {' '.join(submission.lost)}, which an earlier command submitted without a record")
    if submission.jobs:
        lines += [*notes, f"submitted: {_describe_jobs(submission)}"]
    arrays = [request for request in submission.requests if request.stage == ARRAY]
    if times := dict.fromkeys(slurm.spelled_out(str(request.options["time"])) for request in arrays):
        lines.append(f"limit: {' or '.join(times)} per start of a task")
    if submission.jobs:
        lines += [f"starts: {submission.starts} by Slurm's estimate"] if submission.starts else []
    if submission.jobs or queued:
        lines += ["", f"  watch:   python -m irmas.status {sweep} --watch", f"  rank:    python -m irmas.rank {sweep}"]
        scancel = f"scancel --clusters={submission.cluster}" if submission.cluster else "scancel"
        lines.append(f"  cancel:  {scancel} {' '.join([*submission.live, *submission.jobs.values()])}")
    plain_console().print("\n".join(lines))
    return submission


def _runs_per_task(requests: Iterable[JobRequest]) -> int:
    return max((request.work.runs_per_task for request in requests), default=1)


def _describe_jobs(submission: Submission) -> str:
    """Return `data 120 -> array 121_[1-18%6] -> ranking 122`; `+` between arrays that do not wait for each other."""
    text, before = "", ""
    for request in submission.requests:
        is_parallel = request.stage == before == ARRAY and not request.after_any
        indices = f"_[{request.options['array']}]" if request.stage == ARRAY else ""
        text += f"{' + ' if is_parallel else ' -> '}{request.stage} {submission.jobs[request.name]}{indices}"
        before = request.stage
    return text.removeprefix(" -> ")


def submit(
    plan: Plan, settings: Settings, *, append: bool = False, by_hand: bool = False, refine: Sequence[str] = ()
) -> Submission:
    """Write the plan and, unless `by_hand`, submit the runs that are neither finished nor in the queue.

    With `refine`, the arguments of `irmas.refine`, the ranking job submits the next round. Raises UserError where
    Slurm does not answer or refuses a job; everything is then as it was before.
    """
    proposed = Sweep.of(plan)
    if not str(proposed.path.absolute()).isprintable():
        raise UserError(f"{proposed.path.absolute()}: must be printable, since Slurm lists a job on one line")
    named = slurm.named_cluster(settings.cluster)
    recorded = jobs.recorded_cluster(proposed)
    with slurm.on_cluster(named or recorded):
        cluster, max_index = slurm.config()
        if recorded and recorded != cluster:
            _refuse_other_cluster(proposed, recorded, cluster)
        # A shell may have another SLURM_CLUSTERS by the time that lines are pasted; sbatch from here has none.
        settings = replace(settings, cluster=(named if by_hand else "") or slurm.other_cluster() or None)
        result = _submit(plan, proposed, settings, cluster, max_index, append=append, by_hand=by_hand, refine=refine)
        arrays = [result.jobs[request.name] for request in result.requests if result.jobs and request.stage == ARRAY]
        starts = slurm.expected_start(arrays) if arrays else ""
        return replace(result, cluster=named or slurm.other_cluster(), starts=starts)


def _refuse_other_cluster(sweep: Sweep, recorded: str, cluster: str) -> None:
    """Record how the runs ended on another cluster. Raises UserError where jobs are left there, or it is silent."""
    state = run_states.sweep_state(Sweep.open(sweep.path), is_final=True)
    if state.note:
        remedy = f"if {sweep} was copied here from there, remove {sweep.slurm} and rerun the command"
        raise UserError(f"{sweep}: its jobs are on cluster {recorded}; {state.note}; {remedy}")
    if live := _live_jobs([*state.stages, *(run.task for run in state.runs if run.task)]):
        remedy = f"give hydra.launcher.cluster={recorded}, or scancel --clusters={recorded} {' '.join(live)}"
        raise UserError(f"{sweep}: its jobs are on cluster {recorded}, and this command submits to {cluster}; {remedy}")
    run_states.record_dead_runs(state)


def _submit(
    plan: Plan,
    proposed: Sweep,
    settings: Settings,
    cluster: str,
    max_index: int,
    *,
    append: bool,
    by_hand: bool,
    refine: Sequence[str],
) -> Submission:
    proposed.merged(append=append)  # a refusal before the lock touches no folder
    with _undone_if_refused(proposed):
        sweep, runs = proposed.merged(append=append)
        listed = executor.listed_jobs(sweep)
        lost = [] if by_hand else executor.cancel_lost(sweep, listed)
        state = settled_state(sweep, cluster)
        finished = {run.planned.id for run in state.runs if run.status.state in FINAL}
        queued = {run.planned.id for run in state.runs if run.task is not None and run.task.is_live} - finished
        elsewhere = {run.planned.id for run in state.runs if run.status.state == RUNNING} - queued
        remaining = [run for run in runs if run.id not in finished | queued | elsewhere]
        done = {run.planned.id: run.status.epoch for run in state.runs}
        if remaining:
            places = cost.on_slurm(sweep.plan, settings, len(remaining))
            cost.expect(sweep, remaining, done, places, settings.max_hours)
        copy = sweep.copy_for(plan.source, remaining) if remaining else None
        unmade = Sweep(sweep.path, replace(sweep.plan, runs=remaining))
        needs_data = not data_job.is_made(unmade)
        if not needs_data and copy is None:  # checked here, so that not every task reports the same error
            data_job.make(unmade, SILENT)
        proposed.write(append=append)
        jobs.private_folder(sweep)  # Slurm does not make the folder of a job's output
        run_states.record_dead_runs(state)
        tasks = [run.task for run in state.runs if run.task]
        released = [] if by_hand else _release_held([*tasks, *state.stages])
        requests, numbers, planned = list[JobRequest](), dict[str, str](), 1
        arrays = _live_jobs(tasks)
        if remaining or (arrays and not state.is_to_be_ranked):
            ids, per_task = [run.id for run in remaining], settings.per_task(plan.config.device)
            chain = partial(job_requests, sweep, settings, ids, max_index, needs_data, arrays, refine)
            requests = chain(per_task=per_task)
            planned = _runs_per_task(requests)
            if not by_hand:
                at_once = settings.at_once(plan.config.device)
                before = Before(cluster, frozenset(task.job for task in listed))
                requests, numbers = submit_within_limit(sweep, chain, before, per_task, len(remaining), at_once)
    live = _live_jobs([*tasks, *state.stages])
    waiting, training = (sum(run.id in ids for run in runs) for ids in (queued, elsewhere))
    return Submission(runs, waiting, training, len(remaining), live, requests, numbers, released, lost, planned)


def _release_held(tasks: Iterable[Task]) -> list[str]:
    """Release the tasks that a node could not start; return them, none where this site forbids that."""
    held = list(dict.fromkeys(task.id for task in tasks if task.is_held))
    for task in held:
        try:
            slurm.release(task)
        except SlurmError as error:
            if not error.is_forbidden:
                raise
            remedy = f"ask for `scontrol release`, or scancel {' '.join(held)} and rerun the command"
            plain_console().print(f"held, and this site forbids to release them: {' '.join(held)}; {remedy}")
            return []
    return held


def settled_state(sweep: Sweep, cluster: str = "") -> SweepState:
    """Return how the runs stand once no task of theirs is COMPLETING, or after `COMPLETING_WAIT_S`.

    A task that still is counts as ended if its process is gone. Raises UserError where Slurm does not answer.
    """
    deadline, console = None, plain_console()
    while True:
        state = run_states.sweep_state(sweep, is_final=True, cluster=cluster)
        if state.note:
            raise UserError(state.note)
        if not state.completing:
            return state
        tasks = " ".join(task.id for task in state.completing)
        if deadline is None:
            deadline = time.monotonic() + COMPLETING_WAIT_S
            console.print(f"waiting for Slurm to end or requeue what is COMPLETING: {tasks}")
        elif time.monotonic() > deadline:
            state = replace(state, runs=[_ended_if_gone(sweep, run) for run in state.runs])
            live = " ".join(task.id for task in state.completing)
            note = f"{live} may still train; rerun the command when it has ended" if live else "none of it trains"
            console.print(f"still COMPLETING after {COMPLETING_WAIT_S:g} s: {tasks}; {note}")
            return state
        time.sleep(COMPLETING_WAIT_S / 30)


def _ended_if_gone(sweep: Sweep, run: RunState) -> RunState:
    """Return a run whose task is COMPLETING as CANCELLED, unless a process of it may live."""
    if run.recorded is None or run.task is None or run.task.state != COMPLETING:
        return run
    is_silent = run.recorded.state != RUNNING or run.recorded.silence(time.time())
    if not is_silent or is_owned(sweep.run_folder(run.planned).path):
        return run
    task = replace(run.task, state=CANCELLED)
    return replace(run, task=task, status=run_states.merge_state(run.recorded, task, time.time()))


def _live_jobs(tasks: Iterable[Task]) -> list[str]:
    return sorted({task.job for task in tasks if task.is_live}, key=int)


@contextmanager
def _undone_if_refused(sweep: Sweep) -> Iterator[None]:
    """Hold the lock of submissions; after an error, restore the plan and remove what the block has written.

    What other commands wrote before, or wait to write, stays.
    """
    folders = [sweep.slurm, sweep.splits, sweep.code, sweep.path, sweep.path.parent]
    missing = [folder for folder in folders if not folder.exists()]
    with locked(sweep.submit_lock):
        before, copies = _contents(sweep), {*sweep.code.glob("*")}
        try:
            yield
        except BaseException:
            for path, content in _contents(sweep).items():
                if path not in before:
                    path.unlink()
                elif content != before[path]:
                    atomic_write(path, before[path])
            for copy in {*sweep.code.glob("*")} - copies:
                shutil.rmtree(copy)
            sweep.submit_lock.unlink()  # a command that waits for it makes a new one
            for folder in missing:
                with suppress(OSError):  # a folder that is not empty stays
                    folder.rmdir()
            raise


def _contents(sweep: Sweep) -> dict[Path, bytes]:
    """Return the files that a submission may write, except its lock and those of `jobs`: tasks write beside these."""
    paths = (sweep.plan_file, sweep.runs_file, sweep.plan_lock, *sweep.splits.glob("*"))
    return {path: path.read_bytes() for path in paths if path.exists()}
