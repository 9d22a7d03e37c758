"""From a plan to Slurm, through submitit."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from irmas.console import SILENT, plain_console
from irmas.errors import UserError
from irmas.files import atomic_write, locked
from irmas.run.folder import FINAL
from irmas.sweep import data_job, jobs, pruning, run_states, slurm
from irmas.sweep.jobs import ARRAY, Job
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import SweepState
from irmas.sweep.sbatch import Batch, Order, by_hand, flags
from irmas.sweep.settings import Settings
from irmas.sweep.slurm import SlurmError
from irmas.sweep.sweep import Sweep

INHERITED = re.compile(r"(SLURM_(?!CONF$)|SLURMD_|SRUN_|SBATCH_)")
LATER = "now+120"
"""Not on hold: sbatch takes a job on hold that no node could run, and it would stay there if this process died."""
SUBMIT_LIMIT = re.compile(r"\b(Assoc|QOS)\w*SubmitJob\w*Limit\b")


@dataclass(frozen=True)
class Submission:
    """What a command has submitted."""

    runs: list[PlannedRun]
    """What was asked for."""
    finished: int
    queued: int
    """Runs that were in the queue before."""
    live: list[str]
    """Jobs of this sweep that were in the queue before: data, arrays, ranking."""
    submitted: int
    points_per_task: int
    jobs: dict[str, str]
    """Slurm's number by the batch's name."""
    batches: list[Batch]
    released: list[str]
    """Tasks that Slurm held because a node could not start them."""

    @property
    def is_over(self) -> bool:
        """Everything had finished before."""
        return self.finished == len(self.runs)


class SubmitLimitError(UserError):
    """More tasks than an association or QOS lets a user have in the queue."""


def launch(plan: Plan, settings: Settings, *, append: bool, by_hand: bool, refine: Sequence[str] = ()) -> Submission:
    """Submit, and say how to go on. Raises UserError as `submit` does."""
    done = submit(plan, settings, append=append, by_hand=by_hand, refine=refine)
    _say(plain_console(), Sweep.of(plan), settings, done, pruning.describe(plan))
    return done


def _say(console: Console, sweep: Sweep, settings: Settings, done: Submission, announced: Sequence[str]) -> None:
    runs = "1 run" if len(done.runs) == 1 else f"{len(done.runs)} runs"
    console.print(f"{sweep}: {runs}, {done.finished} finished before, {done.queued} in the queue")
    for line in announced:
        console.print(line)
    if done.points_per_task > settings.points_per_task:
        console.print(
            f"Slurm's submit limit takes fewer tasks: {done.points_per_task} runs a task "
            f"instead of hydra.launcher.points_per_task={settings.points_per_task}"
        )
    if done.batches and not done.jobs:
        console.print("\nthe plan is written, nothing is submitted. By hand:\n")
        for line in by_hand(done.batches, settings.setup):
            console.print(f"  {line}")
    if done.queued and not done.submitted:
        console.print("what is missing is in the queue already; launcher settings that differ now change nothing of it")
    if done.released:
        console.print(f"released: {' '.join(done.released)}, which a node could not start")
    if done.jobs:
        console.print(f"submitted: {_chain(done)}")
    if done.jobs or done.queued:
        console.print()
        console.print(f"  watch:   python -m irmas.status {sweep} --watch")
        console.print(f"  rank:    python -m irmas.rank {sweep}")
        console.print(f"  cancel:  scancel {' '.join([*done.live, *done.jobs.values()])}")


def _chain(done: Submission) -> str:
    """`data 120 -> array 121_[1-18%6] -> ranking 122`; `+` between arrays that do not wait for each other."""
    text = ""
    for batch in done.batches:
        beside = batch.stage == ARRAY and not batch.after_any and "array" in text
        array = f"_[{batch.options['array']}]" if batch.stage == ARRAY else ""
        text += f"{' + ' if beside else ' -> '}{batch.stage} {done.jobs[batch.name]}{array}"
    return text.removeprefix(" -> ")


def submit(
    plan: Plan, settings: Settings, *, append: bool = False, by_hand: bool = False, refine: Sequence[str] = ()
) -> Submission:
    """Write the plan, and submit the points that are neither finished nor in the queue; not `by_hand`.

    With `refine`, the arguments of `irmas.refine`, the ranking job submits the next round.

    Raises UserError, after which everything is as it was before, where Slurm does not answer or refuses a job.
    """
    proposed = Sweep.of(plan)
    if not str(proposed.path.absolute()).isprintable():
        raise UserError(f"{proposed.path.absolute()}: must be printable, since Slurm lists a job on one line")
    largest = slurm.max_array_size() - 1
    proposed.merged(append=append)  # what this refuses needs no lock
    with _undone_if_refused(proposed):
        sweep, runs = proposed.merged(append=append)
        state = run_states.sweep_state(sweep, is_final=True)
        if state.note:
            raise UserError(state.note)
        finished = {run.planned.id for run in state.runs if run.status.state in FINAL}
        live = {run.planned.id: run.task.job for run in state.runs if run.task and run.task.is_live}
        queued = [run for run in runs if run.id in live.keys() - finished]
        missing = [run for run in runs if run.id not in live.keys() | finished]
        if missing:
            sweep.refuse_source(plan.source)
        is_made = _prepared(Sweep(sweep.path, replace(sweep.plan, runs=missing)))
        proposed.write(append=append)
        jobs.private_folder(sweep)  # Slurm makes none for what a job prints
        run_states.record_dead_runs(state)
        held = [] if by_hand else _held(state)
        for task in held:
            slurm.release(task)
        order = Order(proposed, settings, largest, is_made, sorted(set(live.values()), key=int), refine)
        per_task, batches = settings.points_per_task, list[Batch]()
        numbers: dict[str, str] = {}
        while missing or (live and not state.is_to_be_ranked):
            batches = order.batches([run.id for run in missing], per_task)
            if by_hand:
                break
            try:
                numbers = _submit_all(sweep, batches, settings.setup)
                break
            except SubmitLimitError:
                if per_task >= len(missing):
                    raise
                per_task = max(per_task + 1, math.ceil(1.25 * per_task))
    stages = {stage.job for stage in state.stages if stage.is_live}
    queue = sorted({*live.values(), *stages}, key=int)
    done_before = len(runs) - len(queued) - len(missing)
    return Submission(runs, done_before, len(queued), queue, len(missing), per_task, numbers, batches, held)


def _held(state: SweepState) -> list[str]:
    """In the queue for ever, unless somebody releases them."""
    tasks = [run.task for run in state.runs if run.task is not None]
    return list(dict.fromkeys(task.id for task in [*tasks, *state.stages] if task.is_held))


def _prepared(missing: Sweep) -> bool:
    """Whether the data of the missing points is made. What is wrong with it is said here, and not by every task."""
    is_made = data_job.is_made(missing)
    if is_made:
        data_job.make(missing, SILENT)
    return is_made


def _submit_all(sweep: Sweep, batches: Sequence[Batch], setup: str | None) -> dict[str, str]:
    """All or none: nothing begins before Slurm has taken the last one, the ranking.

    Raises SubmitLimitError, or UserError with Slurm's reason.
    """
    numbers: dict[str, str] = {}
    try:
        for batch in batches:
            numbers[batch.name] = number = _sbatch(sweep, batch, numbers, setup)
            name, data = batch.options["job-name"], numbers["data"] if batch.after_ok else ""
            jobs.record(sweep, Job(number, batch.stage, name, time.time(), batch.work, data))
        for batch in reversed(batches):  # those that wait for others first
            if "begin" not in batch.options:
                _begin(batch, numbers[batch.name])
    except BaseException:
        slurm.cancel(list(numbers.values()))
        jobs.tidy(sweep, numbers.values())
        raise
    return numbers


def _sbatch(sweep: Sweep, batch: Batch, numbers: Mapping[str, str], setup: str | None) -> str:
    """The number of the job. submitit writes the batch script, hands it in and reads Slurm's answer."""
    import submitit

    class Executor(submitit.SlurmExecutor):
        """For a command instead of a pickled function: what a task needs is its folder and its index, and
        slurm/sweep.sbatch starts the same command. The script's arguments are what squeue shows of a job."""

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            return ["sbatch", str(submission_file_path), *batch.arguments]

    executor = Executor(jobs.private_folder(sweep))
    options = {"begin": LATER} | batch.sbatch(lambda name: numbers.get(name, name))
    executor.update_parameters(
        job_name=options.pop("job-name"),
        setup=[f". {shlex.quote(str(Path(setup).absolute()))}"] if setup else None,
        use_srun=False,
        stderr_to_stdout=True,
        wckey=None,
        additional_parameters=options,
    )
    with _outside_a_job(), redirect_stderr(StringIO()):  # submitit prints what it raises
        try:
            job = executor._submit_command(_command(batch.module))
        except submitit.core.utils.FailedJobError as error:
            jobs.tidy(sweep)
            raise _refusal(batch, str(error)) from None
    return str(job.job_id)


def _begin(batch: Batch, number: str) -> None:
    """What sbatch takes although no node can run it is refused here."""
    try:
        slurm.begin(number)
    except SlurmError as error:
        raise _refusal(batch, error.reason) from None


def _command(module: str) -> str:
    return f'exec srun --cpus-per-task=$SLURM_CPUS_PER_TASK {shlex.quote(sys.executable)} -u -m {module} "$@"'


def _refusal(batch: Batch, stderr: str) -> UserError:
    said = "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in stderr.splitlines() if line)
    kind = SubmitLimitError if SUBMIT_LIMIT.search(stderr) else UserError
    given = " ".join(flags(batch.options))
    return kind(f"nothing is submitted: Slurm refused the {batch.stage} job ({said})\n  asked for: {given}")


@contextmanager
def _outside_a_job() -> Iterator[None]:
    """A job that submits jobs would hand its own resources on to them."""
    inside = {key: value for key, value in os.environ.items() if INHERITED.match(key)}
    for key in inside:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(inside)


@contextmanager
def _undone_if_refused(sweep: Sweep) -> Iterator[None]:
    """One submission of a sweep at a time. Nothing of a command that was refused stays, no plan of runs that nobody
    trains; what others wrote before or wait to write does."""
    folders = [sweep.slurm, sweep.splits, sweep.path, sweep.path.parent]
    made = [folder for folder in folders if not folder.exists()]
    with locked(sweep.submit_lock):
        plan = {path: path.read_bytes() for path in sweep.plan_files[:2] if path.exists()}
        before = set(_written(sweep))
        try:
            yield
        except BaseException:
            for path, content in plan.items():
                if path.read_bytes() != content:
                    atomic_write(path, content)
            for path in set(_written(sweep)) - before:
                path.unlink()
            sweep.submit_lock.unlink()  # who waits for it makes it anew
            for folder in made:
                with suppress(OSError):  # what is not empty stays
                    folder.rmdir()
            raise


def _written(sweep: Sweep) -> Iterator[Path]:
    """What a submission may write, but for its lock and what `jobs.tidy` removes: tasks write beside that."""
    yield from (path for path in sweep.plan_files if path.exists())
    yield from sweep.splits.glob("*")
