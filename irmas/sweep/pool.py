"""This machine as a cluster: a bounded pool of processes that train one run each, and the display of their progress."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from irmas.config import shown
from irmas.console import ConsoleProgress, plain_console, progress_bars
from irmas.errors import Parser, in_words, report_errors
from irmas.files import held_by_many
from irmas.processes import cpu_count, current_task, fork_server, torch_gpus, uninterrupted, when_parent_ends
from irmas.run import events
from irmas.run.folder import CANCELLED, COMPLETED, FAILED, FINAL, INTERRUPTED, PENDING, PRUNED, RUNNING, Status
from irmas.run.lease import LEASE_LOST, LeaseLost, RunBusyError
from irmas.sweep import pruning, source
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.slurm import expand_ranges, ranges
from irmas.sweep.sweep import Sweep

PRELOADED = "irmas.sweep.train_run"
GRACE_S = 10.0
"""Time from SIGTERM to SIGKILL; an epoch's commit takes well under a second."""
GPUS, DEVICES = Path("/proc/driver/nvidia/gpus"), Path("/dev")
OTHER_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")
"""Device files of GPUs in a container, of AMD, and under Windows, which `GPUS` does not list."""


@dataclass
class Worker:
    """A process that trains a run."""

    process: BaseProcess
    run: PlannedRun
    slot: int
    report: Connection
    """Pipe with the message of the error that ended the run, if one did."""


@dataclass(frozen=True)
class Slots:
    """The places in which runs train side by side, and what these have of the machine or of the Slurm task."""

    count: int
    threads: int
    """CPU threads of each."""
    gpus: list[str]

    def gpu(self, slot: int) -> str | None:
        return self.gpus[slot % len(self.gpus)] if self.gpus else None

    @property
    def per_gpu(self) -> int:
        """The largest number of slots that share a GPU."""
        return math.ceil(self.count / max(len(self.gpus), 1))


def train(
    sweep: Sweep,
    runs: Sequence[PlannedRun],
    at_once: int,
    progress: SweepProgress,
    is_stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Train the unfinished of these runs, `at_once` at a time; return when each has ended, one way or another.

    A run that fails does not take the others along. Ctrl-C, and `is_stopping`, end all children cleanly.
    """
    # However few runs are left: with more threads, a run that is resumed would not end as if undisturbed.
    slots = Slots(at_once, max(cpu_count() // at_once, 1), gpus(sweep))
    waiting, workers = sweep.unfinished(runs), list[Worker]()
    with _all_ended(sweep, workers):
        while (waiting or workers) and not is_stopping():
            for slot in sorted(set(range(at_once)) - {worker.slot for worker in workers})[: len(waiting)]:
                _start(workers, sweep, waiting.pop(0), slot, slots)
            time.sleep(0.2)
            for worker in [worker for worker in workers if not worker.process.is_alive()]:
                workers.remove(worker)
                worker.process.join()
                worker.run = sweep.with_point(worker.run)
                progress.end(worker.run, _final_status(sweep, worker, at_once))
            for worker in workers:
                worker.run = sweep.with_point(worker.run)
                progress.update(worker.run, sweep.status(worker.run))


def launch(plan: Plan, at_once: int | None, *, append: bool = False) -> list[Status]:
    """Make the data, write the plan, train its unfinished runs; return the status of each run of `plan`.

    Unless `at_once` is given, one run per GPU, or one per CPU core, trains at a time.
    The plan is written when nothing more can be refused: a mistake that is mended leaves no sweep that differs.
    """
    console = plain_console()
    proposed = Sweep.of(plan)
    sweep, runs = proposed.merged(append=append)
    copy = None
    if unfinished := sweep.unfinished(runs):
        copy = sweep.copy_for(plan.source, unfinished)
        if copy is None:
            _make_data(sweep, unfinished)
    sweep, runs = proposed.write(append=append)
    if sweep.plan.builders:  # runs that wait would import the nets of users' own as they are by then
        copy = sweep.copy
    finished = len(runs) - len(sweep.unfinished(runs))
    total = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    console.print(f"{sweep}: {total}, {finished} finished before")
    for line in pruning.describe(replace(sweep.plan, runs=runs)):
        console.print(line)
    if finished < len(runs):
        at_once = min(most_at_once(sweep, at_once), len(runs))
        count = "1 run" if at_once == 1 else f"{at_once} runs"
        reason = "" if shutil.which("sbatch") else " (sbatch is not on the PATH)"
        console.print(f"training here, {count} at a time{reason}")
        if copy is None:
            _train_all(sweep, runs, at_once)
        else:
            for line in sweep.kept_source(plan.source):
                console.print(line)
            source.train(copy, sweep.path, ranges(run.id for run in runs), at_once)
    return [sweep.status(run) for run in runs]


def main() -> None:
    """Train runs as `launch` does, until stdin ends: `source.train` starts this with the source of a copy."""
    parser = Parser("irmas.sweep.pool", "Train runs of a sweep on this machine, until stdin ends.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("--runs", required=True, metavar="1-6,9", help="run IDs")
    parser.add_argument("--runs-at-once", type=int, required=True, metavar="N", help="side by side")
    with report_errors("irmas.sweep.pool"):
        args = parser.parse_args()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        threading.Thread(target=_interrupt_when_stdin_ends, daemon=True).start()
        with suppress(KeyboardInterrupt):
            sweep = Sweep.open(args.sweep, expand_ranges(args.runs))
            _make_data(sweep, sweep.unfinished(sweep.plan.runs))
            _train_all(sweep, sweep.plan.runs, args.runs_at_once)


def _interrupt_when_stdin_ends() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


def _make_data(sweep: Sweep, runs: Sequence[PlannedRun]) -> None:
    from irmas.sweep import data_job  # imports numpy, which tasks of an array do without

    fork_server(PRELOADED)  # first, since its processes make the data too
    data_job.make(Sweep(sweep.path, replace(sweep.plan, runs=list(runs))), ConsoleProgress(plain_console()))


def _train_all(sweep: Sweep, runs: Sequence[PlannedRun], at_once: int) -> None:
    finished = len(runs) - len(sweep.unfinished(runs))
    with held_by_many(sweep.pool_lock), SweepProgress(plain_console(), runs, finished) as progress:
        train(sweep, runs, at_once, progress)


def gpus(sweep: Sweep) -> list[str]:
    """Return the GPUs that runs of a sweep may use here; torch is asked only where the kernel's files do not suffice.

    They also list those that a job was not given. Outside a job, runs get GPUs that torch does not see, and fail.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if sweep.plan.config.device == "cpu":
        return []
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1", "NoDevFiles")]
    count = len(list(GPUS.iterdir())) if GPUS.is_dir() else 0
    has_gpus, in_job = count or any(any(DEVICES.glob(name)) for name in OTHER_DEVICES), current_task().job != ""
    if has_gpus and (count != 1 or in_job):
        count = torch_gpus() or (0 if in_job else count)
    return [str(index) for index in range(count)]


def most_at_once(sweep: Sweep, at_once: int | None) -> int:
    """Return `at_once`, if it is given, or else one run per GPU or, without GPUs, one per CPU core."""
    return at_once or len(gpus(sweep)) or cpu_count()


def _start(workers: list[Worker], sweep: Sweep, run: PlannedRun, slot: int, slots: Slots) -> None:
    context = fork_server(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(sweep.path, run, slot, slots, sender), name=f"run {run.id}")
    with uninterrupted():  # until it is one of the workers, which are ended with this process
        process.start()
        sender.close()
        workers.append(Worker(process, run, slot, receiver))


def _train(path: Path, run: PlannedRun, slot: int, slots: Slots, report: Connection) -> None:
    """Train a run in a child process, with all output in its log; report an error to the parent too.

    On a full disk only the parent receives it.
    """
    from irmas.sweep import train_run

    try:
        sweep = Sweep.open(path, [run.id])
        log = sweep.run_folder(run).log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(file.fileno(), stream.fileno())
        if gpu := slots.gpu(slot):
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        train_run.start()
        when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
        train_run.train(sweep, slots.threads, slots.count, slots.per_gpu)
    except train_run.Interrupted:
        sys.exit("stopped")
    except (RunBusyError, LeaseLost) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(LEASE_LOST)
    except Exception as error:
        message = in_words(error)
        if message is None:
            raise
        report.send(message)
        sys.exit(message)


def _final_status(sweep: Sweep, worker: Worker, at_once: int) -> Status:
    """Return how a run ended; if its process could not record that, killed perhaps, record it."""
    folder = sweep.run_folder(worker.run)
    status, code, error = folder.status(), worker.process.exitcode or 0, ""
    with worker.report, suppress(EOFError):
        error = str(worker.report.recv())
    if status.state == RUNNING or code == LEASE_LOST:
        return replace(status, message="another process trains it")
    if code < 0 and status.state not in FINAL:
        effect = f"resume it after epoch {status.epoch}" if status.epoch else "restart it"
        message = f"killed by signal {-code}; rerun the command to {effect}"
        if code == -signal.SIGKILL and at_once > 1:
            message += f", and lower hydra.launcher.runs_at_once={at_once} if memory ran out"
    elif code > 0 and (error or status.state == PENDING):
        message = error or f"ended with exit code {code}; see {folder.log}"
    else:
        return status
    status = replace(status, state=FAILED, message=message, exit_code=code)
    with suppress(OSError):  # a full disk; the caller shows it
        folder.amend_status(status)
    return status


@contextmanager
def _all_ended(sweep: Sweep, workers: list[Worker]) -> Iterator[None]:
    """Leave no child behind, whatever happens in the block."""
    try:
        yield
    finally:
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for worker in workers:
            worker.process.join(max(deadline - time.monotonic(), 0))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
                folder = sweep.run_folder(worker.run)
                with suppress(OSError):
                    folder.amend_status(replace(folder.status(), state=CANCELLED, message=INTERRUPTED))


# ---- progress


class SweepProgress:
    """Progress of some runs, of which a number have finished; use as a context manager."""

    def __init__(self, console: Console, runs: Sequence[PlannedRun], finished: int) -> None:
        self.console = console
        self.total, self.finished = len(runs), finished
        self.width = max((len(_label(run)) for run in runs), default=0)
        self.bars = progress_bars(console)
        self.bar = self.bars.add_task("runs", total=self.total, completed=finished, note="")
        self.run_bars: dict[int, TaskID] = {}
        self.epochs: dict[int, int] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def update(self, run: PlannedRun, status: Status) -> None:
        """Show how far a run that trains has come."""
        if run.id not in self.run_bars:
            self.run_bars[run.id] = self.bars.add_task(_label(run), total=None, note="")
        epoch = status.epoch + (status.step / status.steps if status.steps else 0.0)
        scores = _scores(status)
        total, description = status.epochs or None, _label(run)
        self.bars.update(self.run_bars[run.id], description=description, total=total, completed=epoch, note=scores)
        if not self.console.is_terminal and status.epoch > self.epochs.get(run.id, 0):
            self.console.print(f"{_label(run):{self.width}}  epoch {status.epoch}/{status.epochs}  {scores}")
        self.epochs[run.id] = status.epoch

    def end(self, run: PlannedRun, status: Status) -> None:
        """Show how a run ended."""
        if run.id in self.run_bars:
            self.bars.remove_task(self.run_bars.pop(run.id))
        self.finished += status.state in FINAL
        self.bars.update(self.bar, completed=self.finished)
        state = Text(status.state, style={COMPLETED: "green", PRUNED: "yellow"}.get(status.state, "red"))
        reason = f"  {status.reason}" if status.reason and status.state != COMPLETED else ""
        counts = f"  {_scores(status)}{reason}  ({self.finished}/{self.total})"
        self.console.print(Text.assemble(f"{_label(run):{self.width}}  ", state, counts))


def _label(run: PlannedRun) -> str:
    return " ".join([f"run {run.id}", *(f"{key}={shown(value)}" for key, value in run.overrides.items())])


def _scores(status: Status) -> str:
    metrics = status.metrics or {}  # without those that are not finite
    accuracy = f"val_accuracy {metrics[events.RANKED]:.2%}" if events.RANKED in metrics else ""
    return accuracy + (f" loss {metrics[events.VAL_LOSS]:.4f}" if events.VAL_LOSS in metrics else "")


if __name__ == "__main__":
    from irmas.sweep import pool  # so that processes that train find its functions under this name

    pool.main()
