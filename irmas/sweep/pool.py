"""This machine as a cluster: a bounded pool of processes that train one run each."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from irmas.console import ConsoleProgress, plain_console
from irmas.errors import in_words
from irmas.files import held_by_many
from irmas.processes import cpu_count, fork_server, uninterrupted, when_parent_ends
from irmas.run.folder import CANCELLED, FAILED, FINAL, INTERRUPTED, PENDING, RUNNING, Status
from irmas.run.lease import LEASE_LOST, LeaseLost, RunBusyError
from irmas.sweep import plan as plans
from irmas.sweep import pruning
from irmas.sweep.plan import OUTPUTS, POOL, Plan, Point, run_folder
from irmas.sweep.progress import SweepProgress, label_width

PRELOADED = "irmas.sweep.train_run"
POLL_S = 0.2
GRACE_S = 10.0
"""From SIGTERM to SIGKILL; an epoch's commit takes well under a second."""
GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass
class Worker:
    process: BaseProcess
    point: Point
    slot: int
    last_word: Connection
    """What ended the run, in one message."""


def run(
    sweep: Path,
    plan: Plan,
    points: Sequence[Point],
    processes: int | None,
    progress: SweepProgress,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Train what is unfinished of these points, so many at once; returns when each has ended, one way or another.

    A point that fails does not take the others along. Ctrl-C, and `stopping`, end all children in good order.
    """
    gpus = _gpus() if plan.config.device != "cpu" else []
    processes = min(processes or len(gpus) or cpu_count(), len(points))
    # By all points: with another number of threads, a run that goes on would not end as if undisturbed.
    threads = max(cpu_count() // max(processes, 1), 1)
    waiting, workers = _unfinished(sweep, points), list[Worker]()
    with _all_ended(sweep, workers):
        while (waiting or workers) and not stopping():
            for slot in sorted(set(range(processes)) - {worker.slot for worker in workers})[: len(waiting)]:
                gpu = gpus[slot % len(gpus)] if gpus else None
                _start(workers, sweep, waiting.pop(0), slot, threads, gpu)
            time.sleep(POLL_S)
            for worker in [worker for worker in workers if not worker.process.is_alive()]:
                workers.remove(worker)
                worker.process.join()
                progress.ended(worker.point, _final_status(sweep, worker))
            for worker in workers:
                progress.report(worker.point, run_folder(sweep, worker.point).status())


def launch(plan: Plan, processes: int | None, *, append: bool = False) -> list[Status]:
    """Make the data, write the plan, train what is unfinished; how each point then stands.

    The plan is written when nothing more can be refused: a mistake that is mended leaves no sweep that differs.
    """
    from irmas.sweep import data_job  # here, since an array's tasks do without it, and without numpy

    console = plain_console()
    sweep = OUTPUTS / plan.name
    merged, points = plans.merged(sweep, plan, append=append)
    if unfinished := _unfinished(sweep, points):
        plans.refuse_source(sweep, merged, plan.source)
        fork_server(PRELOADED)  # before the data, which its processes make too
        data_job.make(sweep, replace(merged, points=unfinished), ConsoleProgress(console))
    merged, points = plans.write(sweep, plan, append=append)
    unfinished = _unfinished(sweep, points)
    runs = "1 run" if len(points) == 1 else f"{len(points)} runs"
    console.print(f"{sweep}: {runs}, {len(points) - len(unfinished)} finished before")
    for line in pruning.announced(replace(merged, points=points)):
        console.print(line)
    if unfinished:
        with (
            held_by_many(sweep / POOL),
            SweepProgress(console, len(points), len(points) - len(unfinished), label_width(points)) as progress,
        ):
            run(sweep, merged, points, processes, progress)
    return [run_folder(sweep, point).status() for point in points]


def _unfinished(sweep: Path, points: Sequence[Point]) -> list[Point]:
    return [point for point in points if run_folder(sweep, point).status().state not in FINAL]


def _start(workers: list[Worker], sweep: Path, point: Point, slot: int, threads: int, gpu: str | None) -> None:
    context = fork_server(PRELOADED)
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(sweep, point, threads, gpu, told), name=point.folder_name)
    with uninterrupted():  # until it is one of the workers, which are ended with this process
        process.start()
        told.close()
        workers.append(Worker(process, point, slot, heard))


def _train(sweep: Path, point: Point, threads: int, gpu: str | None, last_word: Connection) -> None:
    """In the child: what it says goes to the run's own log, and what ended the run to the parent too.

    On a full disk the parent alone hears it.
    """
    from irmas.sweep import train_run

    try:
        _log_to(run_folder(sweep, point).log)
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        train_run.start()
        when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
        train_run.train(sweep, point.id, threads)
    except train_run.Interrupted:
        sys.exit("stopped")
    except RunBusyError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(LEASE_LOST)
    except LeaseLost:
        sys.exit(LEASE_LOST)
    except Exception as error:
        said = in_words(error)
        if said is None:
            raise
        last_word.send(said)
        sys.exit(said)


def _log_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())


def _final_status(sweep: Path, worker: Worker) -> Status:
    """What the run said last; a process that was killed could say nothing, so that it is said here."""
    folder = run_folder(sweep, worker.point)
    status, code, said = folder.status(), worker.process.exitcode or 0, _last_word(worker)
    if status.state == RUNNING or code == LEASE_LOST:
        return replace(status, message="another process trains it")
    if code < 0 and status.state not in FINAL:
        goes_on = f"goes on after epoch {status.epoch}" if status.epoch else "starts it again"
        reason = f"killed by signal {-code}; the same command {goes_on}"
    elif code > 0 and (said or status.state == PENDING):
        reason = said or f"ended with exit code {code}; see {folder.log}"
    else:
        return status
    status = replace(status, state=FAILED, message=reason, exit_code=code)
    with suppress(OSError):  # a full disk; the caller tells it
        folder.amend_status(status)
    return status


def _last_word(worker: Worker) -> str:
    with worker.last_word as pipe:
        try:
            return str(pipe.recv())
        except EOFError:
            return ""


@contextmanager
def _all_ended(sweep: Path, workers: list[Worker]) -> Iterator[None]:
    """Leaves no child behind, whatever happens in between."""
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
                folder = run_folder(sweep, worker.point)
                with suppress(OSError):
                    folder.amend_status(replace(folder.status(), state=CANCELLED, message=INTERRUPTED))


def _gpus() -> list[str]:
    """What this process may use, without the cost of asking CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1", "NoDevFiles")]
    return [str(index) for index in range(len(list(GPUS.iterdir())))] if GPUS.is_dir() else []
