"""Children: how they start, and that Ctrl-C at no moment leaves one behind or is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import ENVIRONMENT
from factories import run_folder, write_plan

from irmas.config import Config, Data, Features, Model
from irmas.console import plain_console
from irmas.errors import DataError
from irmas.processes import current_task, fork_server, mapped
from irmas.run.folder import COMPLETED, Status
from irmas.sweep import array_task, pool
from irmas.sweep.jobs import Work
from irmas.sweep.plan import Plan, PlannedRun, freeze
from irmas.sweep.pool import SweepProgress, Worker
from irmas.sweep.sweep import Sweep

INTERRUPTED = """
import os, signal
from multiprocessing import forkserver
from irmas.processes import fork_server

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been started in the background
start = forkserver.ensure_running

def ensure_running():
    os.kill(os.getpid(), signal.SIGINT)
    start()

forkserver.ensure_running = ensure_running
try:
    fork_server("irmas.errors")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_while_the_fork_server_starts_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def blocked(_: int) -> set[int]:
    return set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))


def test_ctrl_c_and_slurms_warning_reach_no_child_and_this_process_as_before() -> None:
    with mapped(blocked, [0], path=Path("here"), workers=1) as masks:
        assert {signal.SIGINT, signal.SIGUSR2} <= next(masks)
    assert signal.SIGINT not in blocked(0)


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_reported() -> None:
    with (
        pytest.raises(DataError, match=r"^here: a process that computes it was killed"),
        mapped(die, [0, 1], path=Path("here"), workers=1) as results,
    ):
        list(results)


@pytest.fixture
def interrupted_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when a child has just started."""
    start = BaseProcess.start

    def start_and_interrupt(self: BaseProcess) -> None:
        start(self)
        os.kill(os.getpid(), signal.SIGINT)

    context = get_context("forkserver")
    fork_server(pool.PRELOADED)
    monkeypatch.setattr(context.Process, "start", start_and_interrupt)


def test_the_last_run_that_is_left_has_the_threads_that_it_began_with(
    data: Data, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config(data=data, features=features, device="cpu")
    sweep = Path("outputs/s")
    plan = freeze(config, [PlannedRun(number, {"seed": number}, {"seed": number}) for number in (1, 2, 3)], "s")
    for point in plan.runs[:2]:
        ended = run_folder(sweep, point)
        ended.amend_status(Status(COMPLETED))
    begun = list[tuple[int, int]]()
    monkeypatch.setattr(pool, "cpu_count", lambda: 6)
    monkeypatch.setattr(pool, "_start", lambda workers, sweep, run, slot, slots: begun.append((run.id, slots.threads)))
    pool.launch(plan, None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    array_task.train(Sweep.open(sweep), Work("2-3"), current_task(), None, 0)
    array_task.train(Sweep.open(sweep), Work("3"), current_task(), 2, 0)
    assert begun == [(3, 2), (3, 6), (3, 3)]


def test_a_run_that_is_killed_beside_others_may_have_lacked_memory(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, Plan("s", [], "", "", "", Config(), [PlannedRun(1, {}, {})]))
    for at_once, hint in ((1, ""), (4, ", and lower hydra.launcher.runs_at_once=4 if memory ran out")):
        report, sender = get_context("forkserver").Pipe(duplex=False)
        sender.close()
        process: Any = SimpleNamespace(exitcode=-9)
        status = pool._final_status(sweep, Worker(process, sweep.plan.runs[0], 0, report), at_once)
        assert status.message == f"killed by signal 9; rerun the command to restart it{hint}"


@pytest.mark.usefixtures("interrupted_starts")
def test_ctrl_c_leaves_no_run_behind_that_has_just_started(data: Data, features: Features, tmp_path: Path) -> None:
    config = Config(epochs=200, data=data, features=features, model=Model(filters=[4]), device="cpu")
    plan = freeze(config, [PlannedRun(1, {}, {})], "s")
    write_plan(tmp_path / "s", plan)
    with SweepProgress(plain_console(), plan.runs, 0) as progress, pytest.raises(KeyboardInterrupt):
        pool.train(Sweep(tmp_path / "s", plan), plan.runs, 1, progress)
    assert not active_children()
