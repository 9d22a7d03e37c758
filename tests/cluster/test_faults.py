"""Faults on a cluster: how they are reported, and how a rerun of the sweep command resumes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from cluster.sweeps import TASK, Desk, epochs, hold, job_numbers, let_go, run_of, send, table
from commands import copied_package, wait_until
from left_behind import ranking, runs, scalars, status

from irmas.config import Config
from irmas.run.events import event_files
from irmas.run.folder import CANCELLED, COMPLETED, FAILED, RUNNING
from irmas.sweep import jobs
from irmas.sweep.sweep import Sweep

if TYPE_CHECKING:  # in this folder, conftest is another one
    from conftest import SmallDisk


def printed(desk: Desk, sweep: str, job: str) -> str:
    """Return the output of a job or array task."""
    return (desk.sweep(sweep) / "slurm" / f"{job}.out").read_text()


def test_of_several_runs_in_a_task_one_that_fails_takes_no_other_along(desk: Desk) -> None:
    """Run 1 fails by itself, run 3 is killed; the same tasks train runs 2 and 4 after them."""
    command = ["-m", "seed=1,2,3,4", "epochs=10", "name=several", "hydra.launcher.runs_per_task=2"]
    first, second, third, fourth = (run_of(desk, "several", number) for number in (1, 2, 3, 4))
    first.mkdir(parents=True)
    (first / "config.yaml").write_text(yaml.safe_dump(asdict(Config(batch_size=16))))
    numbers = desk.submit(*command)
    hold(third)
    send(signal.SIGKILL, third)
    desk.wait_for_ranking(numbers["ranking"])

    array = numbers["array1"]
    assert [status(run)["state"] for run in (first, second, third, fourth)] == [FAILED, COMPLETED, FAILED, COMPLETED]
    assert [status(run)["job"] for run in (second, fourth)] == [f"{array}_1", f"{array}_2"]
    assert all((run / "log.txt").stat().st_size for run in runs(desk.sweep("several")))
    codes = desk.cluster.run("sacct", "-nPX", "-j", array, "-o", "JobID,State,ExitCode").splitlines()
    assert sorted(codes) == [f"{array}_1|FAILED|1:0", f"{array}_2|FAILED|1:0"]
    shown = table(desk, "several")
    assert "2 COMPLETED, 2 FAILED" in shown
    assert re.search("batch_size=16.*batch_size=32", shown)
    assert "run 3 FAILED, killed by signal 9\n" in shown
    assert {entry["id"] for entry in ranking(desk.sweep("several")) if entry["rank"]} == {2, 4}

    (first / "config.yaml").unlink()
    again = desk.train(*command)
    assert "4 runs, 2 finished before, 0 in the queue" in again.stdout
    (last,) = {
        int(record.job) for record in jobs.recorded_jobs(Sweep.open(desk.sweep("several"))) if record.work.runs == "1,3"
    }
    wait_until(lambda: status(third)["state"] == COMPLETED and status(first)["state"] == COMPLETED, "1 and 3 end", 120)
    assert {status(run)["job"] for run in (first, third)} == {f"{last}_1"}
    assert epochs(third) == list(range(1, 11))


def test_data_that_cannot_be_made_is_reported_in_place_of_runs_that_wait_for_ever(desk: Desk, tmp_path: Path) -> None:
    root = Path(next(setting for setting in desk.settings if "root" in setting).partition("=")[2])
    (corpus,) = (folder for folder in root.glob("v*") if folder.is_dir())
    clips = tmp_path / "clips"
    shutil.copytree(corpus, clips)
    broken = min(clips.rglob("*.wav"))
    sound = broken.read_bytes()
    broken.write_bytes(b"no sound")
    desk = replace(desk, settings=["data=folder", f"data.root={clips}", "features=small"])
    command = ["epochs=1"]
    numbers = desk.submit(*command, "name=clips")
    desk.wait_for_ranking(numbers["ranking"], state=FAILED)
    assert desk.cluster.accounted(numbers["data"]) == [(numbers["data"], FAILED)]
    assert {state for _, state in desk.cluster.accounted(numbers["array1"])} == {CANCELLED}
    shown = table(desk, "clips")
    assert "outputs/clips: 1 CANCELLED\n" in shown
    assert re.search(rf"job {numbers['data']} is FAILED: 1 of 132 excerpts", shown)
    for text in (shown, printed(desk, "clips", numbers["ranking"])):
        assert f"{broken}: Format not recognised" in text
    assert [entry["state"] for entry in ranking(desk.sweep("clips"))] == [CANCELLED]
    assert [status(run)["state"] for run in runs(desk.sweep("clips"))] == [CANCELLED]

    broken.write_bytes(sound)
    numbers = desk.submit(*command, "name=clips")
    desk.wait_for_ranking(numbers["ranking"])
    assert [entry["state"] for entry in ranking(desk.sweep("clips"))] == [COMPLETED]
    assert jobs.recorded_data_failure(Sweep.open(desk.sweep("clips"))) is None


def test_a_sweep_keeps_its_settings_and_its_source_while_both_are_edited(desk: Desk, tmp_path: Path) -> None:
    """The launcher's array trains run 1, a job that is submitted by hand run 2; run 3 takes the edited source."""
    package = copied_package(tmp_path / "package")
    command = ["-m", "seed=1,2,3", "epochs=1", "name=frozen"]
    first, second, third = (run_of(desk, "frozen", number) for number in (1, 2, 3))
    done = desk.train(*command, "hydra.launcher.sbatch={hold: true}", PYTHONPATH=str(package))
    assert done.returncode == 0, done.stderr
    array = job_numbers(done.stdout)["array1"]

    learner = package / "irmas" / "learning" / "learner.py"
    before_edit = learner.read_text()
    learner.write_text(f"{before_edit}\nraise RuntimeError('edited')\n")
    with (package / "conf" / "train.yaml").open("a") as file:
        file.write("\nbatch_size: 8\n")
    desk.cluster.run("scancel", f"{array}_2")
    desk.cluster.run("scontrol", "release", f"{array}_1")
    desk.by_hand("frozen", "--array=2", package=package)
    for run in (first, second):
        wait_until(lambda: status(run)["state"] == COMPLETED, f"{run.name} COMPLETED", 120)  # noqa: B023
        assert yaml.safe_load((run / "config.yaml").read_text())["batch_size"] == 32
    old = source_of(first)
    assert source_of(second) == old

    learner.write_text(f"{before_edit}\n# edited\n")
    again = desk.train(*command, "batch_size=32", PYTHONPATH=str(package))
    assert "3 runs, 2 finished before, 1 in the queue" in again.stdout
    assert again.stdout.count(f"trains with the source of its submission, {old}, not ") == 1
    assert "submitted" not in again.stdout
    fresh = desk.train("seed=1", "epochs=1", "name=fresh", "batch_size=32", PYTHONPATH=str(package))
    moved = desk.train(*command, "batch_size=32", "allow_code_change=true", PYTHONPATH=str(package))
    assert "its submission" not in fresh.stdout + moved.stdout
    desk.cluster.run("scontrol", "release", f"{array}_3")
    desk.wait_for_ranking(job_numbers(fresh.stdout)["ranking"])
    wait_until(lambda: status(third)["state"] == COMPLETED, "run 3 COMPLETED", 120)
    new = source_of(runs(desk.sweep("fresh"))[0])
    assert source_of(third) == new != old
    mixed = desk.run("rank", "outputs/frozen").stdout
    assert f"mixed versions of the source: runs 1-2 by {old}, run 3 by {new}" in " ".join(mixed.split())


def source_of(run: Path) -> str:
    """Return the digest of the source that trained a run."""
    return str(json.loads((run / "provenance.json").read_text())["source"])


def test_a_task_is_requeued_as_often_as_it_may(desk: Desk) -> None:
    """Two runs train at once in each task. Task 1 is requeued by hand, twice; 2 requeues itself after a warning."""
    sweep = ["-m", "seed=1,2,3,4", "epochs=10"]
    command = [*sweep, "name=budget", "hydra.launcher.requeues=1", "hydra.launcher.gpus=2"]
    folders = first, second, third, fourth = [run_of(desk, "budget", number) for number in (1, 2, 3, 4)]
    # A GPU for each run, by default; without CUDA, they name it and fail.
    done = desk.run("train", *command, *desk.settings, *TASK[1:], "hydra/launcher=slurm")
    desk.wait_for_ranking(job_numbers(done.stdout)["ranking"], state=FAILED)
    assert [status(run)["message"].partition(":")[0][-2:] for run in folders] == ["=0", "=1"] * 2

    command.append("hydra.launcher.runs_at_once=2")
    numbers = desk.submit(*command)
    array = numbers["array1"]
    hold(*folders)
    desk.cluster.run("scontrol", "requeue", f"{array}_1")
    desk.cluster.run("scancel", "--signal=USR2", f"{array}_2")
    let_go(third, fourth)
    hold(first, second, restart=1)
    desk.cluster.run("scontrol", "requeue", f"{array}_1")
    desk.wait_for_ranking(numbers["ranking"])

    states = [(status(run)["state"], status(run)["job"], status(run)["restart"]) for run in folders]
    assert states == [(FAILED, f"{array}_1", 1)] * 2 + [(COMPLETED, f"{array}_2", 1)] * 2
    assert re.search("runs 1-2 FAILED.*\n.* 3 times; hydra.launcher.requeues=1", table(desk, "budget"))
    output = printed(desk, "budget", f"{array}_2")
    assert [output.count(f"start {start}, runs 3-4, 2 at once\n") for start in (1, 2)] == [1, 1]
    assert f"task {array}_2: stopped before its time limit or a preemption, requeued\n" in output
    assert [output.count(f"run {number} seed={number}  COMPLETED ") for number in (3, 4)] == [1, 1]
    assert [len(event_files(run)) for run in (third, fourth)] == [2, 2]

    again = desk.train(*command)
    assert "4 runs, 2 finished before, 0 in the queue" in again.stdout
    whole = desk.run("train", *sweep, *desk.settings, "device=cpu", "name=whole", "hydra/launcher=local")
    assert whole.returncode == 0, whole.stderr
    wait_until(lambda: {status(run)["state"] for run in folders} == {COMPLETED}, "runs 1 and 2 COMPLETED", 90)
    assert [epochs(run) for run in folders] == [list(range(1, 11))] * 4
    assert [scalars(run) for run in folders] == [scalars(run) for run in runs(desk.sweep("whole"))]


def test_tasks_outlive_a_rival_a_controller_that_is_killed_and_a_warning_with_no_start_left(desk: Desk) -> None:
    command = ["-m", "seed=1,2", "epochs=10", "name=steady", "hydra.launcher.requeues=0"]
    first, second = (run_of(desk, "steady", number) for number in (1, 2))
    numbers = desk.submit(*command)
    array = numbers["array1"]
    hold(first, second)

    rival = desk.by_hand("steady", "--array=2")
    wait_until(lambda: desk.state(f"{rival}_2") == FAILED, "the second task of run 2 FAILED", 60)
    assert "another process trains it" in (desk.folder / "outputs" / f"irmas-{rival}_2.out").read_text()
    assert (status(second)["state"], status(second)["job"]) == (RUNNING, f"{array}_2")

    kept = desk.cluster.root / "controller" / "job_state"
    begun = max(status(run)["started"] for run in (first, second))
    wait_until(lambda: kept.stat().st_mtime > begun + 1, "the controller has saved that both run", 30)
    for pid, name in desk.cluster.processes().items():
        if name == "slurmctld":
            os.kill(pid, signal.SIGKILL)
    desk.cluster.up()
    assert "outputs/steady: 2 RUNNING\n" in table(desk, "steady")

    desk.cluster.run("scancel", "--signal=USR2", f"{array}_1")
    send(signal.SIGCONT, first, second)
    desk.wait_for_ranking(numbers["ranking"])
    assert "outputs/steady: 2 COMPLETED\n" in table(desk, "steady")
    assert set(desk.cluster.accounted(array)) == {(f"{array}_1", COMPLETED), (f"{array}_2", COMPLETED)}
    assert [(status(run)["restart"], len(event_files(run))) for run in (first, second)] == [(0, 1), (0, 1)]


def test_a_task_without_enough_memory_says_so(desk: Desk) -> None:
    if not (desk.cluster.root / "cgroup.conf").exists():
        pytest.skip("Slurm cannot limit memory here: no version 1 cgroups")
    command = ["epochs=1", "name=memory"]
    little = [*desk.settings, "device=cpu", "hydra/launcher=slurm", "hydra.launcher.mem=200M"]
    done = desk.run("train", *command, *little)
    assert done.returncode == 0, done.stderr
    numbers = job_numbers(done.stdout)
    desk.wait_for_ranking(numbers["ranking"], state=FAILED)
    shown = table(desk, "memory")
    assert "outputs/memory: 1 OUT_OF_MEMORY\n" in shown
    assert "run 1 OUT_OF_MEMORY, exit code 1\n" in shown
    assert "hydra.launcher.mem" in shown
    # The ranking job has recorded it, though the task itself FAILED, and sacct reports OUT_OF_MEMORY late.
    assert [status(run)["state"] for run in runs(desk.sweep("memory"))] == ["OUT_OF_MEMORY"]
    assert [entry["state"] for entry in ranking(desk.sweep("memory"))] == ["OUT_OF_MEMORY"]

    numbers = desk.submit(*command)
    desk.wait_for_ranking(numbers["ranking"])
    assert [entry["state"] for entry in ranking(desk.sweep("memory"))] == [COMPLETED]


@pytest.mark.timeout(600)
def test_on_a_full_disk_tasks_fail_with_the_reason_and_a_rerun_resumes(
    desk: Desk, small_disk: SmallDisk, tmp_path: Path
) -> None:
    """Run 1 has no space for its next checkpoint, run 2 for nothing at all."""
    sweep = ["-m", "seed=1,2", "epochs=10", "model.dense=4096"]
    whole = desk.run("train", *sweep, *desk.settings, "device=cpu", "name=whole", "hydra/launcher=local")
    assert whole.returncode == 0, whole.stderr
    undisturbed = runs(desk.sweep("whole"))

    desk = replace(desk, folder=small_disk.path)
    command = [*sweep, "name=full"]
    first, second = (run_of(desk, "full", number) for number in (1, 2))
    array = desk.submit(*command)["array1"]
    hold(first, second)
    small_disk.fill(free=200_000)
    send(signal.SIGCONT, first)
    wait_until(lambda: desk.state(f"{array}_1") == FAILED, "task 1 FAILED", 60)
    small_disk.fill(free=0)
    before = {path: path.read_bytes() for path in desk.sweep("full").glob("*.*")}
    send(signal.SIGCONT, second)
    wait_until(lambda: desk.state(f"{array}_2") == FAILED, "task 2 FAILED", 60)
    shown = table(desk, "full")
    assert "outputs/full: 2 FAILED\n" in shown
    assert "outputs/full/runs/001-seed=1/checkpoint.pt: No space left on device\n" in shown
    assert "FAILED in Slurm, exit code 1:0" in shown
    output = tmp_path / "output"
    by_hand = desk.by_hand("full", "--array=2", f"--output={output}")
    wait_until(lambda: desk.state(f"{by_hand}_2") == FAILED, "the task that was submitted by hand FAILED", 60)
    assert re.search(r"irmas.sweep.array_task: outputs/full/\S+: No space left on device\n", output.read_text())
    wait_until(lambda: not desk.cluster.run("squeue", "-h"), "the ranking has ended", 60)
    assert {path: path.read_bytes() for path in desk.sweep("full").glob("*.*")} == before

    small_disk.free()
    numbers = desk.submit(*command)
    desk.wait_for_ranking(numbers["ranking"])
    assert [status(run)["state"] for run in (first, second)] == [COMPLETED, COMPLETED]
    assert [epochs(run).count(1) for run in (first, second)] == [1, 1]
    assert [scalars(run) for run in (first, second)] == [scalars(run) for run in undisturbed]
