"""What goes wrong on a cluster, how it is told, and how the same command goes on."""

from __future__ import annotations

import os
import re
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from cluster.sweeps import Desk, epochs, run_of, table
from cluster.sweeps import numbers as submitted
from commands import ROOT, wait_until
from left_behind import ranking, runs, scalars, status

from irmas.config import Config
from irmas.provenance import source_digest
from irmas.run.events import event_files
from irmas.run.folder import CANCELLED, COMPLETED, FAILED, RUNNING
from irmas.sweep import jobs

if TYPE_CHECKING:  # in this folder, conftest is another one
    from conftest import SmallDisk


def printed(desk: Desk, sweep: str, job: str) -> str:
    """What a job or array task has printed."""
    return (desk.sweep(sweep) / jobs.FOLDER / f"{job}.out").read_text()


def send(number: signal.Signals, *folders: Path) -> None:
    """To the processes that train."""
    for run in folders:
        os.kill(status(run)["pid"], number)


def hold(*folders: Path, restart: int = 0) -> None:
    """Stop each run's process after its first epochs, so that it does not end before it is disturbed."""
    waiting = list(folders)

    def are_held() -> bool:
        for run in waiting[:]:
            told = status(run)
            if told["state"] == RUNNING and told["epoch"] >= 1 and told["restart"] == restart:
                send(signal.SIGSTOP, run)
                waiting.remove(run)
        return not waiting

    wait_until(are_held, f"{[run.name for run in folders]} train, start {restart + 1}", 120)


def test_of_several_runs_in_a_task_one_that_fails_takes_no_other_along(desk: Desk) -> None:
    """Run 1 fails by itself, run 3 is killed; 2 and 4 are trained after them by the same tasks."""
    command = ["-m", "seed=1,2,3,4", "epochs=4", "name=several", "hydra.launcher.points_per_task=2"]
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
    told = table(desk, "several")
    assert "2 COMPLETED, 2 FAILED" in told
    assert "was trained with batch_size=16, this is batch_size=32" in told
    assert "run 3 FAILED, killed by signal 9\n    killed by signal 9; the same command goes on after epoch" in told
    assert {entry["id"] for entry in ranking(desk.sweep("several")) if entry["rank"]} == {2, 4}

    (first / "config.yaml").unlink()
    again = desk.train(*command)
    assert "4 runs, 2 finished before, 0 in the queue" in again.stdout
    (last,) = {int(record.job) for record in jobs.recorded(desk.sweep("several")) if record.work.runs == "1,3"}
    wait_until(lambda: status(third)["state"] == COMPLETED and status(first)["state"] == COMPLETED, "1 and 3 end", 120)
    assert {status(run)["job"] for run in (first, third)} == {f"{last}_1"}
    assert epochs(third) == list(range(1, 5))


def test_data_that_cannot_be_made_is_told_in_place_of_runs_that_wait_for_ever(desk: Desk, tmp_path: Path) -> None:
    root = Path(next(setting for setting in desk.data if "root" in setting).partition("=")[2])
    (corpus,) = (folder for folder in root.glob("v*") if folder.is_dir())
    clips = tmp_path / "clips"
    shutil.copytree(corpus, clips)
    broken = min(clips.rglob("*.wav"))
    sound = broken.read_bytes()
    broken.write_bytes(b"no sound")
    desk = replace(desk, data=["data=folder", f"data.root={clips}", "features=small"])
    command = ["epochs=1"]
    numbers = desk.submit(*command, "name=clips")
    desk.wait_for_ranking(numbers["ranking"])
    assert desk.cluster.accounted(numbers["data"]) == [(numbers["data"], FAILED)]
    assert {state for _, state in desk.cluster.accounted(numbers["array1"])} == {CANCELLED}
    told = table(desk, "clips")
    assert "outputs/clips: 1 CANCELLED\n" in told
    assert f"its data could not be made: job {numbers['data']} FAILED; 1 of 132 excerpts cannot be used" in told
    for where in (told, printed(desk, "clips", numbers["ranking"])):
        assert f"{broken}: Format not recognised" in where
    assert [entry["state"] for entry in ranking(desk.sweep("clips"))] == [CANCELLED]
    assert [status(run)["state"] for run in runs(desk.sweep("clips"))] == [CANCELLED]

    broken.write_bytes(sound)
    numbers = desk.submit(*command, "name=clips")
    desk.wait_for_ranking(numbers["ranking"])
    assert [entry["state"] for entry in ranking(desk.sweep("clips"))] == [COMPLETED]
    assert jobs.data_failure(desk.sweep("clips")) is None


def test_a_plan_is_frozen_and_other_source_is_refused(desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("irmas", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = ["-m", "seed=1,2", "epochs=2", "name=frozen"]
    held = "hydra.launcher.sbatch={hold: true}"
    first, second = (run_of(desk, "frozen", number) for number in (1, 2))
    done = desk.train(*command, held, PYTHONPATH=str(copy))
    assert done.returncode == 0, done.stderr
    array = submitted(done.stdout)["array1"]

    settings = copy / "conf" / "train.yaml"
    settings.write_text(settings.read_text().replace("batch_size: 32", "batch_size: 8"))
    desk.cluster.run("scontrol", "release", f"{array}_1")
    wait_until(lambda: status(first)["state"] == COMPLETED, "run 1 COMPLETED", 90)
    assert yaml.safe_load((first / "config.yaml").read_text())["batch_size"] == 32
    settings.write_text(settings.read_text().replace("batch_size: 8", "batch_size: 32"))

    with (copy / "irmas" / "labels.py").open("a") as file:
        file.write("# edited\n")
    desk.cluster.run("scontrol", "release", f"{array}_2")
    wait_until(lambda: status(second)["state"] == FAILED, "run 2 FAILED", 90)
    before = source_digest()
    after = re.findall("which now is ([0-9a-f]{12})", status(second)["error"])[0]
    assert after != before
    refusal = f"was planned with the package's source {before}, which now is {after}"
    assert refusal in table(desk, "frozen")
    wait_until(lambda: (desk.sweep("frozen") / "ranking.json").exists(), "the ranking", 60)
    refused = desk.train(*command, PYTHONPATH=str(copy))
    assert refused.returncode == 2
    assert refusal in refused.stderr

    allowed = desk.train(*command, "allow_code_change=true", PYTHONPATH=str(copy))
    assert "2 runs, 1 finished before" in allowed.stdout
    number = submitted(allowed.stdout)["ranking"]
    desk.wait_for_ranking(number)
    assert status(second)["state"] == COMPLETED
    mixed = f"mixed versions of the source: run 1 by {before}, run 2 by {after}"
    assert mixed in printed(desk, "frozen", number)


def test_a_task_is_requeued_as_often_as_it_may(desk: Desk) -> None:
    """Run 1 is requeued by hand, twice; run 2 is warned, stops and requeues itself."""
    command = ["-m", "seed=1,2", "epochs=5", "name=budget", "hydra.launcher.requeues=1"]
    first, second = (run_of(desk, "budget", number) for number in (1, 2))
    numbers = desk.submit(*command)
    array = numbers["array1"]
    hold(first, second)
    desk.cluster.run("scontrol", "requeue", f"{array}_1")
    send(signal.SIGCONT, second)
    desk.cluster.run("scancel", "--signal=USR2", f"{array}_2")
    hold(first, restart=1)
    desk.cluster.run("scontrol", "requeue", f"{array}_1")
    desk.wait_for_ranking(numbers["ranking"])

    assert (status(first)["state"], status(first)["restart"]) == (FAILED, 1)
    assert "run 1 FAILED" in table(desk, "budget")
    assert "was started 3 times; hydra.launcher.requeues=1 allows no more" in table(desk, "budget")
    assert (status(second)["state"], status(second)["restart"]) == (COMPLETED, 1)
    assert "stopped ahead of its end, goes on after a requeue" in printed(desk, "budget", f"{array}_2")
    assert epochs(second) == list(range(1, 6))
    assert len(event_files(second)) == 2

    again = desk.train(*command)
    assert "2 runs, 1 finished before, 0 in the queue" in again.stdout
    wait_until(lambda: status(first)["state"] == COMPLETED, "run 1 COMPLETED", 90)
    assert epochs(first) == list(range(1, 6))


def test_tasks_outlive_a_rival_a_controller_that_is_killed_and_a_warning_with_no_start_left(desk: Desk) -> None:
    command = ["-m", "seed=1,2", "epochs=8", "name=steady", "hydra.launcher.requeues=0"]
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
    wait_until(lambda: kept.stat().st_mtime > begun + 1, "the controller has written down that both run", 30)
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
    little = [*desk.data, "device=cpu", "hydra/launcher=slurm", "hydra.launcher.mem=200M"]
    done = desk.run("train", *command, *little)
    assert done.returncode == 0, done.stderr
    numbers = submitted(done.stdout)
    desk.wait_for_ranking(numbers["ranking"])
    told = table(desk, "memory")
    assert "outputs/memory: 1 OUT_OF_MEMORY\n" in told
    assert "run 1 OUT_OF_MEMORY, exit code 1\n" in told
    assert "see hydra.launcher.mem" in told
    # The ranking has written it down, though the task itself FAILED, and sacct is late to know better.
    assert [status(run)["state"] for run in runs(desk.sweep("memory"))] == ["OUT_OF_MEMORY"]
    assert [entry["state"] for entry in ranking(desk.sweep("memory"))] == ["OUT_OF_MEMORY"]

    numbers = desk.submit(*command)
    desk.wait_for_ranking(numbers["ranking"])
    assert [entry["state"] for entry in ranking(desk.sweep("memory"))] == [COMPLETED]


@pytest.mark.timeout(600)
def test_on_a_full_disk_tasks_fail_with_the_reason_and_the_same_command_goes_on(
    desk: Desk, small_disk: SmallDisk, tmp_path: Path
) -> None:
    """Run 1 finds no room for its next checkpoint, run 2 for nothing at all."""
    sweep = ["-m", "seed=1,2", "epochs=20", "model.filters=[8]", "model.dense=4096"]
    whole = desk.run("train", *sweep, *desk.data, "device=cpu", "name=whole", "hydra/launcher=local")
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
    told = table(desk, "full")
    assert "outputs/full: 2 FAILED\n" in told
    assert "outputs/full/runs/001-seed=1/checkpoint.pt: No space left on device\n" in told
    assert "Slurm says FAILED, exit code 1:0; the same command goes on after epoch" in told
    said = tmp_path / "said"
    by_hand = desk.by_hand("full", "--array=2", f"--output={said}")
    wait_until(lambda: desk.state(f"{by_hand}_2") == FAILED, "the task that was submitted by hand FAILED", 60)
    assert re.search(r"irmas.sweep.array_task: outputs/full/\S+: No space left on device\n", said.read_text())
    wait_until(lambda: not desk.cluster.run("squeue", "-h"), "the ranking has ended", 60)
    assert {path: path.read_bytes() for path in desk.sweep("full").glob("*.*")} == before

    small_disk.free()
    numbers = desk.submit(*command)
    desk.wait_for_ranking(numbers["ranking"])
    assert [status(run)["state"] for run in (first, second)] == [COMPLETED, COMPLETED]
    assert [epochs(run).count(1) for run in (first, second)] == [1, 1]
    assert [scalars(run) for run in (first, second)] == [scalars(run) for run in undisturbed]
