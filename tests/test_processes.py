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

from irmas import processes
from irmas.config import Config, Data, Features, Model
from irmas.console import plain_console
from irmas.errors import DataError
from irmas.processes import cpu_count, current_task, fork_server, mapped
from irmas.run.folder import COMPLETED, Status
from irmas.sweep import array_task, pool, slurm
from irmas.sweep.jobs import Work
from irmas.sweep.plan import Plan, PlannedRun, freeze
from irmas.sweep.pool import SweepProgress, Worker
from irmas.sweep.slurm import SlurmError
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


IN_A_CHILD = """
import os, signal
from pathlib import Path
from irmas.processes import mapped

def child(_):
    from irmas.sweep import train_run
    train_run.start()
    return os.sched_getaffinity(0), signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "OMP_PROC_BIND" in os.environ

if __name__ == "__main__":
    with mapped(child, [0], path=Path("here"), workers=1) as results:
        print(*next(results))
"""


@pytest.mark.parametrize("is_ignored", [True, False])
def test_a_child_ignores_a_closed_terminal_if_its_command_did_and_no_thread_is_bound(
    is_ignored: bool, tmp_path: Path
) -> None:
    """nohup ignores it. A long TMPDIR leaves no room for the path of a socket."""
    long = tmp_path / ("scratch_local_job_tmp/" * 4)
    long.mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text(IN_A_CHILD)
    env = ENVIRONMENT | {"TMPDIR": str(long), "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}
    ignoring = ["nohup"] if is_ignored else ["env", "--default-signal=HUP"]
    done = subprocess.run([*ignoring, sys.executable, script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{os.sched_getaffinity(0)} {is_ignored} False\n"
    assert not list(long.iterdir())


def test_the_cores_are_those_of_the_allocation_and_of_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(processes, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(processes, "CGROUPS", tmp_path)
    assert cpu_count() == 64
    (tmp_path / "cgroup").write_text("4:memory:/other\n0::/box/inner\n")
    (tmp_path / "box" / "inner").mkdir(parents=True)
    (tmp_path / "box" / "inner" / "cpu.max").write_text("max 100000\n")
    assert cpu_count() == 64
    (tmp_path / "box" / "cpu.max").write_text("250000 100000\n")
    assert cpu_count() == 3
    (tmp_path / "box" / "inner" / "cpu.max").write_text("50000 100000\n")
    assert cpu_count() == 1
    (tmp_path / "cgroup").write_text("0::/\n")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    assert cpu_count() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert cpu_count() == 4


@pytest.mark.parametrize(
    ("kernel", "device", "torch", "job", "expected"),
    [
        (0, "", "9", "", 0),  # it is not asked
        (1, "nvidia0", "9", "", 1),
        (4, "nvidia0", "1", "", 1),  # one of four was given to this process
        (4, "nvidia0", "0", "", 4),  # a driver that does not work is no machine without GPUs
        (4, "nvidia0", "no torch", "", 4),
        (1, "nvidia0", "0", "7", 0),  # Slurm gave the job none
        (0, "kfd", "2", "", 2),
        (0, "dxg", "1", "", 1),
        (0, "nvidiactl", "9", "", 0),
    ],
)
def test_the_gpus_are_those_that_torch_can_use(
    kernel: int, device: str, torch: str, job: str, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (*(f"gpus/{number}" for number in range(kernel)), f"dev/{device or 'null'}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "python").write_text(f"#!/bin/sh\necho {torch}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(pool, "GPUS", tmp_path / "gpus")
    monkeypatch.setattr(pool, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    processes.torch_gpus.cache_clear()
    sweep = Sweep.of(Plan("gpus", [], "", "", "", Config()))
    assert pool.gpus(sweep) == [str(number) for number in range(expected)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert pool.gpus(sweep) == ["3", "5"]


def test_a_task_asks_again_until_slurm_requeues_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bool | SlurmError] = [False, SlurmError("scontrol", "no answer"), True]

    def requeue(job: str) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, SlurmError):
            raise answer
        return answer

    monkeypatch.setattr(slurm, "requeue", requeue)
    restarts = {"": 0}
    monkeypatch.setattr(slurm, "restarts", restarts.__getitem__)
    monkeypatch.setattr(array_task, "RETRY_S", 0.01)
    assert array_task._requeue(current_task(), set())
    assert not answers
    answers += [False] * 3
    restarts[""] = 1
    assert array_task._requeue(current_task(), set())
    assert len(answers) == 3, "Slurm has requeued it, and its next start is not to be stopped"
    restarts[""] = 0
    assert not array_task._requeue(current_task(), {signal.SIGTERM})
    monkeypatch.setattr(array_task, "REQUEUE_S", 0.0)
    assert not array_task._requeue(current_task(), set())
    assert len(answers) == 2


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
