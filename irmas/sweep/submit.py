"""The submission of a plan to Slurm, through submitit."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path

import submitit
from submitit.helpers import clean_env

from irmas.console import SILENT, plain_console
from irmas.errors import UserError
from irmas.files import atomic_write, locked
from irmas.run.folder import FINAL
from irmas.sweep import data_job, jobs, pruning, run_states, slurm
from irmas.sweep.jobs import ARRAY, Job
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.sbatch import SCRIPT, JobRequest, flags, job_requests, shell_lines
from irmas.sweep.settings import Settings
from irmas.sweep.slurm import SlurmError, Task
from irmas.sweep.sweep import Sweep

LATER = "now+120"
"""Start of a job unless `slurm.begin` moves it forward. A hold would stay if this process died."""
SUBMIT_LIMIT = re.compile(r"\b(Assoc|QOS)\w*SubmitJob\w*Limit\b")


@dataclass(frozen=True)
class Submission:
    """The jobs that a command has submitted, or with `by_hand` would submit."""

    runs: list[PlannedRun]
    """Runs of the command."""
    queued: int
    """Number of runs that were in the queue before."""
    remaining: int
    """Number of runs that had neither finished nor been queued before."""
    live: list[str]
    """Numbers of the sweep's jobs that were in the queue before."""
    requests: list[JobRequest]
    jobs: dict[str, str]
    """Slurm's numbers by the names of the requests."""
    released: list[str]
    """Tasks that Slurm held because a node could not start them."""


class SubmitLimitError(UserError):
    """More tasks than an association or QOS lets a user have in the queue."""


class Executor(submitit.SlurmExecutor):
    """An executor of slurm/irmas.sbatch instead of a pickled function; only here are submitit's own methods used."""

    def submit_script(self, command: Callable[[str], list[str]]) -> str:
        """Run the command for a copy of the script; return the job's number. Raises FailedJobError with its stderr."""
        self._command = command
        with redirect_stderr(StringIO()):  # submitit prints what it raises
            return self._submit_command("").job_id

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        """Return the script without its defaults: all options are on the command line."""
        return re.sub(r"^#SBATCH .*\n", "", SCRIPT.read_text(), flags=re.MULTILINE)

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return self._command(str(submission_file_path))


def launch(plan: Plan, settings: Settings, *, append: bool, by_hand: bool, refine: Sequence[str] = ()) -> Submission:
    """Submit as `submit` does, and print what was submitted and the commands that follow."""
    sweep = Sweep.of(plan)
    submission = submit(plan, settings, append=append, by_hand=by_hand, refine=refine)
    total, queued = len(submission.runs), submission.queued
    runs = "1 run" if total == 1 else f"{total} runs"
    finished = total - queued - submission.remaining
    lines = [f"{sweep}: {runs}, {finished} finished before, {queued} in the queue", *pruning.describe(plan)]
    per_task = max((request.work.runs_per_task for request in submission.requests), default=1)
    if per_task > (planned := settings.per_task(plan.config.device)):
        change = f"{per_task} runs per task instead of hydra.launcher.runs_per_task={planned}"
        lines.append(f"Slurm's submit limit requires fewer tasks: using {change}")
    if submission.requests and by_hand:
        lines += ["", "the plan is written, nothing is submitted. By hand:", ""]
        lines += [f"  {line}" for line in shell_lines(submission.requests)]
    if queued or submission.remaining:
        lines += Sweep.open(sweep.path, []).kept_source(plan.source)
    if queued and not submission.remaining:
        lines.append("all remaining runs are already queued; changed launcher settings do not affect them")
    if submission.released:
        lines.append(f"released: {' '.join(submission.released)}, which a node could not start")
    if submission.jobs:
        lines.append(f"submitted: {_describe_jobs(submission)}")
    if submission.jobs or queued:
        lines += ["", f"  watch:   python -m irmas.status {sweep} --watch", f"  rank:    python -m irmas.rank {sweep}"]
        lines.append(f"  cancel:  scancel {' '.join([*submission.live, *submission.jobs.values()])}")
    plain_console().print("\n".join(lines))
    return submission


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
    max_index = slurm.max_array_size() - 1
    proposed.merged(append=append)  # a refusal before the lock touches no folder
    with _undone_if_refused(proposed):
        sweep, runs = proposed.merged(append=append)
        state = run_states.sweep_state(sweep, is_final=True)
        if state.note:
            raise UserError(state.note)
        finished = {run.planned.id for run in state.runs if run.status.state in FINAL}
        queued = {run.planned.id for run in state.runs if run.task is not None and run.task.is_live} - finished
        remaining = [run for run in runs if run.id not in finished | queued]
        copy = sweep.copy_for(plan.source, remaining) if remaining else None
        unmade = Sweep(sweep.path, replace(sweep.plan, runs=remaining))
        needs_data = not data_job.is_made(unmade)
        if not needs_data and copy is None:  # checked here, so that not every task reports the same error
            data_job.make(unmade, SILENT)
        proposed.write(append=append)
        jobs.private_folder(sweep)  # Slurm does not make the folder of a job's output
        run_states.record_dead_runs(state)
        tasks = [run.task for run in state.runs if run.task]
        held = [task.id for task in [*tasks, *state.stages] if task.is_held]
        released = [] if by_hand else list(dict.fromkeys(held))
        for task in released:
            slurm.release(task)
        requests, numbers = list[JobRequest](), dict[str, str]()
        arrays = _live_jobs(tasks)
        if remaining or (arrays and not state.is_to_be_ranked):
            ids, per_task = [run.id for run in remaining], settings.per_task(plan.config.device)
            chain = partial(job_requests, proposed, settings, ids, max_index, needs_data, arrays, refine)
            if by_hand:
                requests = chain(per_task=per_task)
            else:
                at_once = settings.at_once(plan.config.device)
                requests, numbers = _submit_within_limit(sweep, chain, per_task, len(remaining), at_once)
    live = _live_jobs([*tasks, *state.stages])
    waiting = sum(run.id in queued for run in runs)
    return Submission(runs, waiting, len(remaining), live, requests, numbers, released)


def _live_jobs(tasks: Iterable[Task]) -> list[str]:
    return sorted({task.job for task in tasks if task.is_live}, key=int)


def _submit_within_limit(
    sweep: Sweep, chain: partial[list[JobRequest]], per_task: int, runs: int, at_once: int
) -> tuple[list[JobRequest], dict[str, str]]:
    """Submit `per_task` runs per task, or as few more as Slurm's submit limit requires, up to all `runs` in one task.

    A task gets `at_once` more at a time, so that no GPU idles. Returns and raises as `_submit_all` does.
    """
    while per_task < runs:
        with suppress(SubmitLimitError):
            return _submit_all(sweep, chain(per_task=per_task))
        per_task += at_once * math.ceil(per_task / (4 * at_once))
    return _submit_all(sweep, chain(per_task=per_task))


def _submit_all(sweep: Sweep, requests: list[JobRequest]) -> tuple[list[JobRequest], dict[str, str]]:
    """Submit all jobs or none: none starts before Slurm has accepted the last one, the ranking.

    Returns the requests, and Slurm's numbers by their names. Raises SubmitLimitError, or UserError with Slurm's reason.
    """
    numbers: dict[str, str] = {}
    try:
        for request in requests:
            numbers[request.name] = number = _sbatch(sweep, request, numbers)
            name, data = request.options["job-name"], numbers["data"] if request.after_ok else ""
            jobs.record_job(sweep, Job(number, request.stage, name, time.time(), request.work, data))
        for request in reversed(requests):  # first those that depend on others
            if "begin" not in request.options:
                try:
                    slurm.begin(numbers[request.name])
                except SlurmError as error:  # Slurm only now refuses a job that no node can run
                    raise _refusal(request, error.reason) from None
    except BaseException:
        slurm.cancel(list(numbers.values()))
        jobs.remove_cancelled(sweep, numbers.values())
        raise
    return requests, numbers


def _sbatch(sweep: Sweep, request: JobRequest, numbers: Mapping[str, str]) -> str:
    def command(script: str) -> list[str]:
        return request.command(script, lambda name: numbers.get(name, name), f"--begin={LATER}")

    slurm_conf = {key: value for key, value in os.environ.items() if key == "SLURM_CONF"}
    with clean_env():  # the resources of this process's own job would become those of the jobs that it submits
        os.environ.update(slurm_conf)
        try:
            return Executor(jobs.private_folder(sweep)).submit_script(command)
        except submitit.core.utils.FailedJobError as error:
            jobs.remove_cancelled(sweep)
            raise _refusal(request, str(error)) from None


def _refusal(request: JobRequest, stderr: str) -> UserError:
    reason = "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in stderr.splitlines() if line)
    kind = SubmitLimitError if SUBMIT_LIMIT.search(stderr) else UserError
    options = " ".join(flags(request.options))
    return kind(f"nothing is submitted: Slurm refused the {request.stage} job ({reason})\n  options: {options}")


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
