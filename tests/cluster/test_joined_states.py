"""States of runs by their status files and a real Slurm; tasks are shell scripts that end in every way."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from cluster.localcluster import LocalCluster
from commands import irmas, wait_until

from irmas.config import Config
from irmas.run.folder import CANCELLED, COMPLETED, FAILED, PENDING, RUNNING, Status
from irmas.run.lease import Writer
from irmas.sweep import jobs, run_states, slurm
from irmas.sweep.jobs import ARRAY, Job, Work
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import NOT_SUBMITTED, RunState
from irmas.sweep.slurm import SlurmError
from irmas.sweep.sweep import Sweep

RUNS = 8


@pytest.fixture
def here(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """The cluster of the tests, as that of this process's Slurm commands."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    return cluster


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    runs = [PlannedRun(number, {"lr": number / 10}, {"lr": number / 10}) for number in range(1, RUNS + 1)]
    plan = Plan("mine", ["lr"], "data", "source", "", Config(), runs)
    sweep, _ = Sweep(tmp_path / "outputs" / "mine", plan).write()
    jobs.private_folder(sweep)
    return sweep


def submit(cluster: LocalCluster, sweep: Sweep, body: str, *options: str, arguments: str = "") -> str:
    """Submit a script with the sweep as its argument, as an operator does; the job is not recorded."""
    home = sweep.path.parent.parent
    (home / "irmas.sbatch").write_text(f"#!/bin/bash\n{body}\n")
    command = ["sbatch", "--parsable", "--output=/dev/null", "--job-name=irmas", "--mem=50", *options]
    return cluster.run(*command, "irmas.sbatch", "train", "outputs/mine", *arguments.split(), cwd=home)


def write_running(sweep: Sweep, number: int, job: str) -> None:
    """Write the status of a process that trains the run in this task."""
    folder = sweep.run_folder(sweep.plan.runs[number - 1])
    folder.path.mkdir(parents=True)
    folder.amend_status(Status(RUNNING, epoch=number, epochs=15, writer=Writer("n1", 1, job)))


def look(sweep: Sweep) -> dict[int, RunState]:
    state = run_states.sweep_state(sweep)
    assert not state.note
    return {run.planned.id: run for run in state.runs}


def seen(sweep: Sweep) -> dict[int, str]:
    return {number: run.status.state for number, run in look(sweep).items()}


def test_every_end_of_a_task_is_a_state(here: LocalCluster, sweep: Sweep) -> None:
    eater = f"{sys.executable} -c 'bytearray(400 << 20)'"
    body = f"""
    case $SLURM_ARRAY_TASK_ID in
        1) exit 3;;
        2) srun {eater};;
        3) kill -9 $$;;
        4|5) sleep 100;;
    esac"""
    job = submit(here, sweep, body, "--array=1-7")
    here.run("scancel", f"{job}_6")  # Whether it was pending or over, the run has not begun.
    for number in (1, 2, 3, 4, 5):
        write_running(sweep, number, f"{job}_{number}")
    wait_until(lambda: seen(sweep)[4] == RUNNING and look(sweep)[5].task is not None, "tasks 4 and 5 run")
    here.run("scancel", f"{job}_5")
    enforced = (here.root / "cgroup.conf").exists()
    expected = {1: FAILED, 2: "OUT_OF_MEMORY" if enforced else FAILED, 3: FAILED, 4: RUNNING, 5: CANCELLED}
    wait_until(lambda: {n: s for n, s in seen(sweep).items() if n <= 5} == expected, f"{seen(sweep)} is {expected}")
    wait_until(lambda: look(sweep)[1].status.exit_code == 3, "the exit code, which only sacct has")

    runs = look(sweep)
    assert "exit code 3:0" in runs[1].status.message
    assert runs[1].status.message.endswith("after epoch 1")
    assert runs[4].task is not None
    assert (runs[4].task.id, runs[4].task.node[:1]) == (f"{job}_4", "n")
    assert runs[8].status.state == NOT_SUBMITTED

    run_states.record_dead_runs(run_states.sweep_state(sweep))
    settled = sweep.run_folder(runs[2].planned).recorded()
    assert (settled.state, settled.epoch, settled.job) == (expected[2], 2, f"{job}_2")


def test_a_cancelled_array_and_a_cancelled_pending_task(here: LocalCluster, sweep: Sweep) -> None:
    first = submit(here, sweep, "true", "--array=1-2", "--hold")
    packed = submit(here, sweep, "true", "--array=1-2", "--hold", arguments="--runs 3-6 --runs-per-task 2")
    assert seen(sweep) == dict.fromkeys(range(1, 7), PENDING) | {7: NOT_SUBMITTED, 8: NOT_SUBMITTED}
    assert look(sweep)[5].task == next(task for task in slurm.queue(["irmas"]) if task.id == f"{packed}_2")
    here.run("scancel", first)
    here.run("scancel", f"{packed}_2")
    ends = {1: CANCELLED, 2: CANCELLED, 3: PENDING, 4: PENDING, 5: NOT_SUBMITTED, 6: NOT_SUBMITTED}
    wait_until(lambda: seen(sweep) == ends | {7: NOT_SUBMITTED, 8: NOT_SUBMITTED}, f"{seen(sweep)} is {ends}")


def test_a_recorded_job_without_arguments_is_identified_by_number_and_name(here: LocalCluster, sweep: Sweep) -> None:
    job = here.sbatch("sleep 100", "--job-name=irmas-mine", "--array=1-2")
    assert seen(sweep)[4] == NOT_SUBMITTED  # The job is not recorded yet.
    jobs.record_job(sweep, Job(job, ARRAY, "irmas-mine", time.time(), Work("4,6")))
    wait_until(lambda: f"{job}_2" in look(sweep)[6].status.message, "run 6 waits for its process")
    assert seen(sweep)[1] == NOT_SUBMITTED


def test_a_requeued_task_is_pending(here: LocalCluster, sweep: Sweep) -> None:
    job = submit(here, sweep, "sleep 100", "--array=1-1")
    write_running(sweep, 1, f"{job}_1")
    wait_until(lambda: slurm.is_running(f"{job}_1") and seen(sweep)[1] == RUNNING, "the task runs")
    assert slurm.restarts(f"{job}_1") == 0
    assert slurm.requeue(f"{job}_1")
    assert slurm.restarts(f"{job}_1") == 1
    wait_until(lambda: seen(sweep)[1] == PENDING, "the task waits")
    assert look(sweep)[1].status.message
    slurm.cancel([job])
    wait_until(lambda: not slurm.is_running(f"{job}_1"), "the task is gone")
    assert seen(sweep)[1] == CANCELLED
    slurm.cancel([job])
    assert not slurm.requeue("99999_1")
    assert slurm.restarts("99999_1") == 0
    assert not slurm.is_running("99999")
    assert slurm.config() == ("local", 1000)


def test_a_task_whose_node_has_not_the_folder_says_so(here: LocalCluster, sweep: Sweep) -> None:
    submit(here, sweep, "true", "--array=1-1", "--output=/nowhere/%a.out")
    wait_until(lambda: seen(sweep)[1] == FAILED, "the task FAILED")
    remedy = "could not write .*/outputs/mine/slurm/[0-9]+_1.out: is the folder shared with the nodes?"
    wait_until(lambda: bool(re.search(remedy, look(sweep)[1].status.message)), "the exit code, which only sacct has")


def test_the_status_command_and_the_ranking_show_the_same(here: LocalCluster, sweep: Sweep) -> None:
    job = submit(here, sweep, "exit 3", "--array=1-2")
    write_running(sweep, 1, f"{job}_1")
    wait_until(lambda: look(sweep)[1].status.exit_code == 3, "sacct has the exit code")

    def run(code: int, command: str, *args: str) -> str:
        done = irmas(command, "outputs/mine", *args, cwd=sweep.path.parent.parent, **here.environment)
        assert done.returncode == code, done.stderr
        return done.stdout

    assert "run 1 FAILED, exit code 3\n" in run(0, "status", "--watch")
    assert re.search("run 1 FAILED: .*exit code 3:0", run(1, "rank"))  # it ranks nothing
    assert [entry["state"] for entry in json.loads(sweep.ranking_json.read_text())][:2] == [FAILED, FAILED]
    assert sweep.run_folder(look(sweep)[1].planned).recorded().state == FAILED


def test_a_controller_that_is_down_is_named(here: LocalCluster, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Path(os.environ["SLURM_CONF"])
    port = f"SlurmctldPort={here.environment['IRMAS_CLUSTER_PORT']}"
    silent = sweep.path.parent.parent / "slurm.conf"
    assert port in config.read_text()
    silent.write_text(config.read_text().replace(port, "SlurmctldPort=9\nMessageTimeout=1"))
    monkeypatch.setenv("SLURM_CONF", str(silent))
    write_running(sweep, 1, "7_1")
    state = run_states.sweep_state(sweep)
    assert "Unable to contact slurm controller" in state.note
    assert [run.status.state for run in state.runs[1:]] == [PENDING] * (RUNS - 1)
    assert COMPLETED not in {run.status.state for run in state.runs}
    with pytest.raises(SlurmError, match="hydra/launcher=local"):
        slurm.is_running("7_1")
