"""One process at a time writes a run, even if another lives on, and only the source that planned it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
from commands import ENVIRONMENT, wait_until
from factories import age_heartbeat, read_plan, write_plan

from irmas.config import Config, Data, Features, Model
from irmas.errors import UserError
from irmas.run import lease
from irmas.run.folder import COMPLETED, RUNNING, SILENT_S, RunFolder, Status
from irmas.run.lease import LEASE_LOST, LeaseLost, RunBusyError, Writer
from irmas.sweep import pool, slurm, train_run
from irmas.sweep.plan import PlannedRun, freeze
from irmas.sweep.sweep import PLAN

COMMITS = """
import sys, time
from pathlib import Path
from irmas.run.folder import RUNNING, RunFolder, Status
from irmas.run.lease import LeaseLost, RunBusyError, Writer
here, dead = Writer.here(), sys.argv[2:]
def is_stale(writer):
    return writer.restart < here.restart if writer.job == here.job else writer.job in dead
try:
    with RunFolder(Path(sys.argv[1])).acquire(is_stale) as folder:
        for epoch in range(1, 4001):
            folder.write_status(Status(RUNNING, epoch=epoch))
            if epoch == 1:
                print("acquired", flush=True)
            time.sleep(0.005)
        print("undisturbed", flush=True)
except RunBusyError as error:
    print(error, flush=True)
except LeaseLost:
    print("lost", flush=True)
    time.sleep(60)
"""


def slurm_job(job: str, restart: int = 0, node: str = "n1") -> dict[str, str]:
    """Return the environment of a task, without what it does not define."""
    array, _, index = job.partition("_")
    variables = {"SLURM_JOB_ID": array, "SLURMD_NODENAME": node}
    if index:
        variables = {"SLURM_JOB_ID": "77", "SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index, **variables}
    return variables | ({"SLURM_RESTART_COUNT": str(restart)} if restart else {})


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Return a function that starts a process which commits in a loop as long as it may."""
    processes: list[subprocess.Popen[str]] = []

    def start_writer(variables: dict[str, str], *dead_jobs: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COMMITS, str(path), *dead_jobs]
        processes.append(subprocess.Popen(command, env=ENVIRONMENT | variables, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start_writer
    for process in processes:
        process.kill()
        process.communicate()


def printed(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def pid_of(path: Path) -> int:
    """Return the ID of the process that keeps writing; a write under way during a takeover may still land once."""
    end = time.monotonic() + 20
    while True:
        first = RunFolder(path).status()
        time.sleep(0.1)
        last = RunFolder(path).status()
        if last.pid == first.pid and last.epoch > first.epoch:
            return last.pid
        assert time.monotonic() < end, "no process writes"


def test_a_requeued_task_takes_over_from_a_process_that_goes_on_elsewhere(path: Path, start: Start) -> None:
    old = start(slurm_job("12_3"))
    assert printed(old) == "acquired"
    new = start(slurm_job("12_3", restart=1, node="n2"))
    assert printed(new) == "acquired"
    assert printed(old) == "lost"
    assert old.poll() is None
    assert pid_of(path) == new.pid
    assert RunFolder(path).status().writer == Writer("n2", new.pid, "12_3", 1)
    assert sorted(file.name for file in path.iterdir() if "status.json" not in file.name) == [".lock"]


@pytest.mark.parametrize("restart", [1, 2])
def test_an_equal_or_lower_restart_of_the_same_job_is_busy(path: Path, start: Start, restart: int) -> None:
    holder = start(slurm_job("12_3", restart=2, node="n2"))
    assert printed(holder) == "acquired"
    answer = printed(start(slurm_job("12_3", restart=restart)))
    assert answer == f"{path}: another process trains it (process {holder.pid} on n2, job 12_3)"
    assert pid_of(path) == holder.pid


def test_a_live_job_keeps_its_run_and_a_dead_ones_is_taken(path: Path, start: Start) -> None:
    holder = start(slurm_job("12"))
    assert printed(holder) == "acquired"
    assert "another process trains it" in printed(start(slurm_job("13", restart=5), "11"))
    heir = start(slurm_job("13"), "12")
    assert printed(heir) == "acquired"
    assert printed(holder) == "lost"
    assert pid_of(path) == heir.pid


def test_of_two_successors_at_once_one_survives(path: Path, start: Start) -> None:
    for job in range(20, 24):
        old = start(slurm_job(f"{job}"))
        assert printed(old) == "acquired"
        successors = [start(slurm_job(f"{job}", restart=1, node=node)) for node in ("n2", "n3")]
        first_lines = [printed(successor) for successor in successors]
        assert "acquired" in first_lines
        lost = [
            line != "acquired" or (first_lines == ["acquired", "acquired"] and pid_of(path) != successor.pid)
            for successor, line in zip(successors, first_lines, strict=True)
        ]
        assert sorted(lost) == [False, True]
        assert pid_of(path) == successors[lost.index(False)].pid
        successors[lost.index(False)].kill()
        successors[lost.index(False)].wait()
        (path / "status.json").unlink()


def test_a_start_that_comes_between_is_not_pushed_aside(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders: list[subprocess.Popen[str]] = []
    lock = lease._lock

    def when_another_has_started(file: IO[str], operation: int, wait_s: float = 0.0) -> bool:
        if not holders:
            holders.append(start({}))
            assert printed(holders[0]) == "acquired"
        return lock(file, operation, wait_s)

    monkeypatch.setattr(lease, "_lock", when_another_has_started)
    with pytest.raises(RunBusyError), RunFolder(path).acquire():
        pass
    assert pid_of(path) == holders[0].pid
    assert list(path.glob(".lock?*")) == []


def test_the_lock_of_a_killed_process_is_free(path: Path, start: Start) -> None:
    holder = start({})
    assert printed(holder) == "acquired"
    second = start({})
    assert printed(second) == f"{path}: another process trains it (process {holder.pid} on {platform.node()})"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    heir = start({})
    assert printed(heir) == "acquired"
    assert pid_of(path) == heir.pid


def test_a_writer_whose_lock_does_not_reach_here_keeps_the_run_unless_its_job_is_stale(path: Path) -> None:
    folder = RunFolder(path)
    path.mkdir()
    folder.amend_status(Status(RUNNING, writer=Writer("far", 7, "12_3")))
    with pytest.raises(RunBusyError, match=r"\(process 7 on far, job 12_3\)"), folder.acquire():
        pass
    with folder.acquire(lambda writer: writer == Writer("far", 7, "12_3")):
        pass
    folder.amend_status(Status(COMPLETED, writer=Writer("far", 7, "12_3")))
    with folder.acquire():
        pass


def test_a_writer_without_lock_and_heartbeat_loses_the_run_though_its_job_lives_on(path: Path) -> None:
    folder = RunFolder(path)
    path.mkdir()
    folder.amend_status(Status(RUNNING, writer=Writer("far", 7, "12")))
    age_heartbeat(folder, SILENT_S + 1)
    with folder.acquire(lambda writer: False):
        pass


def test_a_run_whose_lock_was_removed_is_no_longer_written(path: Path) -> None:
    with RunFolder(path).acquire() as folder:
        folder.write_status(Status(RUNNING, epoch=1))
        (path / ".lock").unlink()
        with pytest.raises(LeaseLost):
            folder.write_status(Status(RUNNING, epoch=2))
        with pytest.raises(LeaseLost):
            folder.write_config(Config())
        with pytest.raises(LeaseLost):
            folder.write_provenance({"source": "s"})
    assert folder.status().epoch == 1
    assert [file.name for file in path.iterdir()] == ["status.json"]


def test_the_writer_is_named_by_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    assert Writer.here() == Writer(platform.node(), os.getpid())
    with monkeypatch.context() as patched:
        for name, value in slurm_job("12", node="n4").items():
            patched.setenv(name, value)
        assert Writer.here() == Writer("n4", os.getpid(), "12")
    for name, value in slurm_job("12_3", restart=2).items():
        monkeypatch.setenv(name, value)
    assert Writer.here() == Writer("n1", os.getpid(), "12_3", 2)


def test_slurm_decides_which_writer_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    queried: list[str] = []

    def is_running(job: str) -> bool:
        queried.append(job)
        return job == "9_1"

    monkeypatch.setattr(slurm, "is_running", is_running)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    for name, value in slurm_job("12_3", restart=2).items():
        monkeypatch.setenv(name, value)
    assert train_run.is_stale(Writer("n1", 5, "12_3", 1))
    assert not train_run.is_stale(Writer("n1", 5, "12_3", 2))
    assert not train_run.is_stale(Writer("n1", 5, "12_3", 3))
    assert not train_run.is_stale(Writer("n1", 5))
    assert not train_run.is_stale(Writer())
    assert queried == []
    assert not train_run.is_stale(Writer("n1", 5, "9_1"))
    assert train_run.is_stale(Writer("n1", 5, "12_4", 7))
    assert queried == ["9_1", "12_4"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert train_run.is_stale(Writer("n1", 5, "9_1"))


@pytest.fixture
def one_run(data: Data, features: Features, tmp_path: Path) -> Callable[[int], Path]:
    """Return a function that plans a sweep of a single run of that many epochs."""

    def plan_one(epochs: int) -> Path:
        config = Config(epochs=epochs, data=data, features=features, model=Model(filters=[4]))
        folder = tmp_path / "outputs" / "one"
        write_plan(folder, freeze(config, [PlannedRun(1, {}, {})], "one"))
        return folder

    return plan_one


def begin_task(sweep: Path, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "irmas.sweep.train_run", str(sweep), "1", "--threads", "1"]
    return subprocess.Popen(
        command, env=ENVIRONMENT | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_task_that_lost_its_run_logs_it_once_and_leaves_the_run_alone(one_run: Callable[[int], Path]) -> None:
    sweep = one_run(10_000)
    run = RunFolder(sweep / "runs" / "001")
    processes = [begin_task(sweep, **slurm_job("12"))]
    try:
        wait_until(lambda: run.status().epoch >= 1, "an epoch", 60)
        processes.append(begin_task(sweep, **slurm_job("12", restart=1, node="n2")))
        output, _ = processes[0].communicate(timeout=60)
        assert processes[0].returncode == LEASE_LOST
        assert output.count("a newer start of this run has taken over; this one stops") == 1
        wait_until(lambda: run.status().writer.restart == 1, "the second start", 60)
        assert run.status().pid == processes[1].pid
        processes[1].terminate()
        processes[1].communicate(timeout=60)
        status = run.status()
        assert (status.state, status.job, status.writer.restart) == ("CANCELLED", "12", 1)
    finally:
        for process in processes:
            process.kill()


def test_a_task_of_another_source_is_refused_unless_that_is_allowed(one_run: Callable[[int], Path]) -> None:
    sweep = one_run(1)
    plan = read_plan(sweep)
    edited = (sweep / PLAN).read_text().replace(plan.source, "0123456789ab")
    (sweep / PLAN).write_text(edited)
    shutil.rmtree(sweep / "code")  # of an earlier version
    run = RunFolder(sweep / "runs" / "001")
    refused = begin_task(sweep)
    _, error = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "0123456789ab" in error
    assert plan.source in error
    assert "allow_code_change=true" in error
    assert "Traceback" not in error
    status = run.status()
    assert (status.state, status.epoch) == ("FAILED", 0)
    assert "0123456789ab" in status.reason

    (sweep / PLAN).write_text(edited.replace("allow_code_change: false", "allow_code_change: true"))
    allowed = begin_task(sweep)
    _, error = allowed.communicate(timeout=60)
    assert allowed.returncode == 0, error
    assert (run.status().state, run.status().message) == (COMPLETED, "")
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert (provenance["source"], provenance["plan_source"]) == (plan.source, "0123456789ab")


def test_a_command_of_another_source_trains_nothing_and_still_returns_finished_runs(
    one_run: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = one_run(1)
    shutil.rmtree(sweep / "code")  # of an earlier version
    before = (sweep / PLAN).read_text()
    edited = replace(read_plan(sweep), source="0123456789ab")
    run = RunFolder(sweep / "runs" / "001")
    run.path.mkdir(parents=True)
    (run.path / "config.yaml").touch()  # it has begun
    with pytest.raises(UserError, match=r"0123456789ab.*allow_code_change=true"):
        pool.launch(edited, 1)
    assert [file.name for file in run.path.iterdir()] == ["config.yaml"]
    run.write_status(Status(COMPLETED))
    assert [status.state for status in pool.launch(edited, 1)] == [COMPLETED]
    assert (sweep / PLAN).read_text() == before
