"""What the launcher hands to Slurm, whatever Slurm's limits are, and what is left where Slurm refuses it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cluster.localcluster import LocalCluster
from cluster.sweeps import SMALL, Desk, numbers
from commands import ROOT, wait_until
from factories import read_plan
from left_behind import ranking, runs, status

from irmas.run.events import event_files
from irmas.sweep import jobs
from irmas.sweep.submit import LOCK

HELD = "hydra.launcher.sbatch={hold: true}"


@pytest.fixture
def small_desk(data: list[str], tmp_path: Path) -> Iterator[Desk]:
    """At a cluster with MaxArraySize 8 and without accounting."""
    local = LocalCluster(ARRAY="8", ACCOUNTING="no")
    try:
        started = local.up()
        assert started.returncode == 0, started.stdout + started.stderr
        yield Desk(local, tmp_path, data)
    finally:
        local.down("--wipe")


def queued(desk: Desk, *options: str) -> list[str]:
    """Jobs that are in the queue, in the order of their numbers; an array as `123_[1-18%6]`."""
    return sorted(desk.cluster.run("squeue", "-h", "-o", "%i", *options).split(), key=_number)


def _number(job: str) -> int:
    return int(job.partition("_")[0])


def trained_by(desk: Desk, name: str, array: str, index: int) -> list[int]:
    """The runs of an array task."""
    sweep = desk.sweep(name)
    work = {record.job: record.work for record in jobs.recorded(sweep)}[array]
    return work.ids(index, len(read_plan(sweep).runs))


def files(folder: Path) -> dict[str, bytes]:
    """Of a sweep, but for the lock, which comes and goes."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def cancels(said: str) -> list[str]:
    """The jobs that a command tells how to cancel."""
    match = re.search(r"^  cancel:  scancel (.*)$", said, re.MULTILINE)
    assert match, said
    return match[1].split()


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that exits with 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("irmas.train: ")
    assert done.stderr.count("irmas.train: ") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_sweep_beyond_max_array_size_becomes_arrays_that_share_a_throttle(small_desk: Desk) -> None:
    submitted = small_desk.submit("sweep=report", "epochs=1", "name=split", "hydra.launcher.throttle=3")
    arrays = [submitted[f"array{i}"] for i in (1, 2, 3)]
    assert queued(small_desk, "-t", "PENDING")[1:] == [
        f"{arrays[1]}_[1-7%3]",
        f"{arrays[2]}_[1-4%3]",
        submitted["ranking"],
    ]
    most = 0

    def ranked() -> bool:
        nonlocal most
        running = small_desk.cluster.run("squeue", "-h", "-r", "-t", "R,CG", "-n", "irmas-split", "-o", "%i").split()
        most = max(most, len(running))
        return small_desk.state(submitted["ranking"]) == "COMPLETED"

    wait_until(lambda: ranked() or most == 3, "three tasks run", 20)
    shown = small_desk.run("status", "outputs/split")
    assert shown.returncode == 0, shown.stderr
    assert re.search(rf"^ +8 .*PENDING.* {arrays[1]}_1 ", shown.stdout, re.MULTILINE), shown.stdout

    wait_until(ranked, "the ranking COMPLETED", 240)
    assert most == 3
    assert [entry["rank"] for entry in ranking(small_desk.sweep("split"))] == list(range(1, 19))
    tasks = [f"{array}_{index}" for array, size in zip(arrays, (7, 7, 4), strict=True) for index in range(1, size + 1)]
    assert [status(run)["job"] for run in runs(small_desk.sweep("split"))] == tasks
    shown = small_desk.run("status", "outputs/split")
    assert re.search(rf"^ +18 .*COMPLETED.* {arrays[2]}_4 ", shown.stdout, re.MULTILINE), shown.stdout


@pytest.mark.parametrize(
    ("sweep", "total"),
    [(["seed=range(1,1201)"], 1200), (["seed=range(100)", "batch_size=range(2,102)"], 10_000)],
)
def test_thousands_of_points_are_a_few_arrays_and_a_few_files(desk: Desk, sweep: list[str], total: int) -> None:
    submitted = desk.submit("-m", *sweep, "name=many", HELD)
    sizes = [min(1000, total - start) for start in range(0, total, 1000)]
    arrays = [submitted[f"array{i}"] for i in range(1, len(sizes) + 1)]
    expected = [f"{array}_[1-{size}]" for array, size in zip(arrays, sizes, strict=True)]
    assert queued(desk) == [*expected, submitted["ranking"]]
    for i, (array, size) in enumerate(zip(arrays, sizes, strict=True)):
        assert trained_by(desk, "many", array, 1) == [1000 * i + 1]
        assert trained_by(desk, "many", array, size) == [1000 * i + size]
    assert len(list((desk.sweep("many") / "slurm").iterdir())) <= 1 + 3 * len(submitted)
    assert not (desk.sweep("many") / "runs").exists()


def test_under_a_submit_limit_a_task_trains_more_runs(desk: Desk) -> None:
    command = ["sweep=report", "name=limited", "hydra.launcher.qos=limited"]
    done = desk.train(*command, HELD)
    assert done.returncode == 0, done.stderr
    assert "3 runs a task instead of hydra.launcher.points_per_task=1" in done.stdout
    submitted = numbers(done.stdout)
    array, last = submitted["array1"], submitted["ranking"]
    assert queued(desk) == [f"{array}_[1-6]", last]
    assert [trained_by(desk, "limited", array, index) for index in (1, 6)] == [[1, 2, 3], [16, 17, 18]]
    left = {path.name for path in (desk.sweep("limited") / "slurm").iterdir()}
    scripts = {name for name in left if name.startswith(".submission_file_")}
    of_jobs = {f"{job}{end}" for job in (array, last) for end in (".json", "_submission.sh")}
    assert left - scripts == of_jobs | {"launcher.json"}
    assert len(scripts) == 2

    again = desk.train(*command, HELD)
    assert "18 in the queue" in again.stdout
    assert queued(desk) == [f"{array}_[1-6]", last]


def test_runs_do_not_begin_before_the_last_job_is_taken(desk: Desk) -> None:
    """The first array is within the limit of 8, and its tasks would start at once; the ranking is beyond it."""
    submitted = desk.submit("-m", "seed=1,2,3,4,5,6,7,8", "epochs=1", "name=all", "hydra.launcher.qos=limited")
    wait_until(lambda: desk.state(submitted["array1"]).split() == ["RUNNING"] * 4, "the second array starts", 20)
    cancelled = str(int(submitted["array1"]) - 1)
    shown = desk.cluster.run("scontrol", "show", "job", cancelled)
    assert "JobState=CANCELLED" in shown
    submitted_at, eligible_at = (
        datetime.fromisoformat(re.findall(rf"{key}Time=(\S+)", shown)[0]) for key in ("Submit", "Eligible")
    )
    assert eligible_at - submitted_at > timedelta(minutes=1)


def test_a_submit_limit_that_cannot_be_met_leaves_nothing(desk: Desk) -> None:
    for change in (
        ["add", "qos", "one", "MaxSubmitJobsPerUser=1"],
        ["modify", "account", "irmas", "set", "qos+=one"],
    ):
        desk.cluster.run("sacctmgr", "-iQ", *change)
    wait_until(
        lambda: desk.cluster.call("sbatch", "--qos=one", "--hold", "--test-only", "--wrap=true").returncode == 0, "QOS"
    )
    said = refused(desk.train("-m", "seed=1,2,3", "name=one", "hydra.launcher.qos=one"))
    assert "QOSMaxSubmitJobPerUserLimit" in said
    assert "--qos=one" in said
    assert queued(desk) == []
    assert not desk.sweep("one").exists()


def test_what_slurm_refuses_leaves_neither_jobs_nor_files(desk: Desk) -> None:
    common = ["-m", "seed=1,2", "name=new", *desk.data, "device=cpu", "hydra/launcher=slurm"]
    for setting, reason in {
        "partition=nope": "Invalid partition name specified",
        "mem=900G": "Requested node configuration is not available",
        "qos=nope": "Invalid qos specification",
        "rank.partition=nope": "Invalid partition name specified",  # the array was taken before
    }.items():
        said = refused(desk.run("train", *common, f"hydra.launcher.{setting}"))
        assert reason in said
        assert f"--{setting.removeprefix('rank.')}" in said
        assert queued(desk) == []
        assert not (desk.folder / "outputs").exists()

    notes = desk.folder / "outputs" / "new" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.touch()
    # sbatch takes this one; that no node could ever run it shows when it is to begin
    assert "refused the ranking job" in refused(desk.run("train", *common, "hydra.launcher.rank.cpus=99"))
    assert queued(desk) == []
    assert list(notes.parent.iterdir()) == [notes]


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [("throttle=0", "a whole number from 1, or null"), ("nonsense=1", "no such setting"), ("processes=2", "throttle")],
)
def test_a_wrong_setting_is_one_message(desk: Desk, setting: str, allowed: str) -> None:
    said = refused(desk.train("-m", "seed=1,2", f"hydra.launcher.{setting}"))
    assert f"hydra.launcher.{setting.partition('=')[0]}" in said
    assert allowed in said
    assert not (desk.folder / "outputs").exists()


def test_without_a_controller_nothing_is_written_and_nothing_trains(desk: Desk, tmp_path: Path) -> None:
    lines = Path(desk.cluster.environment["SLURM_CONF"]).read_text().splitlines()
    port = int(desk.cluster.environment["IRMAS_CLUSTER_PORT"])
    config = tmp_path / "slurm.conf"  # slurmd answers at this port, and does not know what it is asked
    changed = [f"SlurmctldPort={port + 9}" if line.startswith("SlurmctldPort=") else line for line in lines]
    config.write_text("\n".join([*changed, "MessageTimeout=1", ""]))
    said = refused(desk.train("-m", "seed=1,2", "epochs=1", "name=deaf", SLURM_CONF=str(config)))
    assert "Unable to contact slurm controller" in said
    assert "hydra/launcher=local" in said
    assert not (desk.folder / "outputs").exists()


def test_a_command_that_is_given_again_submits_what_is_missing(desk: Desk) -> None:
    """Twice at once on a new name, and after a waiting task is gone without a trace."""
    command = ["-m", "seed=1,2,3", "epochs=1", "name=again", "hydra.launcher.throttle=2", HELD]
    both = [desk.start("train", *desk.command(*command)) for _ in range(2)]
    said = sorted((process.communicate(timeout=60)[0] for process in both), key=lambda text: "submitted" in text)
    assert [process.returncode for process in both] == [0, 0]
    assert "3 runs, 0 finished before, 3 in the queue" in said[0]
    assert "submitted" not in said[0]
    first = numbers(said[1])
    assert queued(desk) == [f"{first['array1']}_[1-3%2]", first["ranking"]]
    assert all(cancels(text) == [*first.values()] for text in said)

    desk.cluster.run("scancel", f"{first['array1']}_2")
    done = desk.train(*command)
    assert "3 runs, 0 finished before, 2 in the queue" in done.stdout
    second = numbers(done.stdout)
    assert queued(desk) == [
        f"{first['array1']}_[1,3%2]",
        first["ranking"],
        f"{second['array1']}_[2%2]",
        second["ranking"],
    ]
    assert cancels(done.stdout) == [*first.values(), *second.values()]
    shown = desk.cluster.run("scontrol", "show", "job", second["array1"])
    assert f"Dependency=afterany:{first['array1']}_" in shown
    assert trained_by(desk, "again", second["array1"], 2) == [2]

    for submission in (first, second):
        desk.cluster.run("scontrol", "release", submission["array1"])
    desk.wait_for_ranking(second["ranking"])
    told = [status(run) for run in runs(desk.sweep("again"))]
    tasks = [f"{first['array1']}_1", f"{second['array1']}_2", f"{first['array1']}_3"]
    assert [(run["state"], run["job"]) for run in told] == [("COMPLETED", task) for task in tasks]
    assert [len(event_files(run)) for run in runs(desk.sweep("again"))] == [1, 1, 1]
    recorded = [record.job for record in jobs.recorded(desk.sweep("again"))]
    assert recorded == [*first.values(), *second.values()]


def test_all_the_resources_arrive(desk: Desk) -> None:
    task = "partition=main gpus=2 cpus=2 mem=3G time=1-00:00:00 throttle=2 exclude=n4 account=irmas qos=normal"
    data = "prepare.partition=high prepare.cpus=1 prepare.mem=4G prepare.time=7"
    rank = "rank.partition=high rank.cpus=2 rank.mem=1G rank.time=9"
    further = ["sbatch={nice: 100, hold: true, comment: mine}", "prepare.sbatch={hold: true, nice: 7}"]
    settings = [*task.split(), *data.split(), *rank.split(), *further, "rank.sbatch={comment: last}"]
    command = ["-m", "seed=1,2,3", "name=asked", "data=standin", "data.size=132", "features=small", "device=cpu"]
    done = desk.run("train", *command, *(f"hydra.launcher.{setting}" for setting in settings), "hydra/launcher=slurm")
    assert done.returncode == 0, done.stderr
    submitted = numbers(done.stdout)
    common = f"Account=irmas QOS=normal WorkDir={desk.folder} Requeue=1"
    shown = {
        "data": "JobName=data-asked Partition=high NumCPUs=1 MinMemoryNode=4G TimeLimit=00:07:00 Nice=7",
        "array1": "JobName=irmas-asked Partition=main NumCPUs=2 MinMemoryNode=3G TimeLimit=1-00:00:00 Nice=100 "
        f"TresPerNode=gres:gpu:2 ExcNodeList=n4 ArrayTaskId=1-3%2 Comment=mine Reason=JobHeldUser "
        f"Dependency=afterok:{submitted['data']}(unfulfilled)",
        "ranking": "JobName=ranking-asked Partition=high NumCPUs=2 MinMemoryNode=1G TimeLimit=00:09:00 Comment=last",
    }
    for stage, expected in shown.items():
        words = desk.cluster.run("scontrol", "show", "job", submitted[stage]).split()
        assert {*expected.split(), *common.split()} - set(words) == set(), stage
        assert ("TresPerNode=gres:gpu:2" in words) == (stage == "array1")


def test_by_hand_and_by_the_launcher_the_same_folders_are_written(desk: Desk) -> None:
    """One sweep: run 1 by a line of one's own, run 2 by the printed lines, run 3 by the launcher."""
    setup = desk.folder / "setup.sh"
    setup.write_text(f"export PYTHONPATH={ROOT} PATH={Path(sys.executable).parent}:$PATH\necho modules are loaded\n")
    bare = {key: value for key, value in desk.cluster.environment.items() if key != "PYTHONPATH"}
    bare |= {"PATH": "/usr/bin:/bin", "IRMAS_SETUP": str(setup)}

    def shell(text: str) -> list[str]:
        done = subprocess.run(["bash", "-ec", text], env=bare, cwd=desk.folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        return done.stdout.split()

    def sbatch(script: str, *words: str) -> str:
        path = os.path.relpath(ROOT / "slurm" / script, desk.folder)
        options = [word for word in words if word.startswith("--")]
        arguments = [word for word in words if not word.startswith("--")]
        return shell(" ".join(["sbatch --parsable", *SMALL, *options, path, *arguments]))[0]

    written = desk.train("epochs=1", "name=single", "hydra.launcher.submit=false")
    assert written.returncode == 0, written.stderr
    single = sbatch("train.sbatch", "outputs/single")
    single_ranking = sbatch("rank.sbatch", f"--dependency=afterany:{single}", "outputs/single")

    planned = desk.train("-m", "seed=1", "epochs=1", "name=mixed", "hydra.launcher.submit=false")
    assert planned.returncode == 0, planned.stderr
    first = sbatch("sweep.sbatch", "--array=1", "--hold", "outputs/mixed")
    command = ["-m", "epochs=1", "name=mixed", f"hydra.launcher.setup={setup}", HELD]
    printed = desk.train(*command, "seed=1,2", "hydra.launcher.submit=false").stdout
    assert "2 runs, 0 finished before, 1 in the queue" in printed
    lines = [line.strip() for line in printed.splitlines() if "sbatch --parsable" in line]
    assert len(lines) == 2
    second = shell("\n".join([*lines, "echo $array1"]))[-1]
    assert "2 in the queue" in desk.train(*command, "seed=1,2").stdout
    third = desk.submit(*command, "seed=1,2,3")
    assert queued(desk, "-n", "irmas-mixed") == [f"{second}_[2]", f"{third['array1']}_[3]"]

    for job in (first, second, third["array1"]):
        desk.cluster.run("scontrol", "release", job)
    wait_until(lambda: bool(desk.processes(f"{third['array1']}_3")), "run 3 starts", 60)
    desk.wait_for_ranking(third["ranking"])
    done = [status(run)["job"] for run in runs(desk.sweep("mixed"))]
    assert done == [f"{first}_1", f"{second}_2", f"{third['array1']}_3"]
    assert [entry["rank"] for entry in ranking(desk.sweep("mixed"))] == [1, 1, 1]  # seeds
    assert "modules are loaded" in (desk.sweep("mixed") / "slurm" / f"{third['array1']}_3.out").read_text()
    desk.wait_for_ranking(single_ranking)
    assert [status(run)["job"] for run in runs(desk.sweep("single"))] == [single]
    assert len(ranking(desk.sweep("single"))) == 1

    before = files(desk.sweep("mixed"))
    assert "Invalid partition" in refused(desk.train(*command, "seed=1,2,3,4", "hydra.launcher.partition=nope"))
    assert files(desk.sweep("mixed")) == before
    assert "3 finished before" in desk.train(*command, "seed=1,2,3").stdout
