"""Submissions within Slurm's limits, and what is left where Slurm refuses them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

from cluster.sweeps import SMALL, Desk, job_numbers
from commands import ROOT, wait_until
from left_behind import ranking, runs, status

from irmas.run.events import event_files
from irmas.sweep import jobs
from irmas.sweep.sweep import Sweep

HELD = "hydra.launcher.sbatch={hold: true}"


def queued(desk: Desk, *options: str) -> list[str]:
    """Return the jobs in the queue, in the order of their numbers; an array as `123_[1-18%6]`."""
    return sorted(desk.cluster.run("squeue", "-h", "-o", "%i", *options).split(), key=_number)


def _number(job: str) -> int:
    return int(job.partition("_")[0])


def trained_by(desk: Desk, name: str, array: str, index: int) -> list[int]:
    """Return the runs of an array task."""
    sweep = Sweep.open(desk.sweep(name))
    work = {record.job: record.work for record in jobs.recorded_jobs(sweep)}[array]
    return work.ids(index, len(sweep.plan.runs))


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of a sweep's files without the lock, which comes and goes."""
    lock = Sweep.open(folder).submit_lock
    paths = (path for path in folder.rglob("*") if path.is_file() and path != lock)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def cancels(stdout: str) -> list[str]:
    """Return the jobs in the scancel line that a command printed."""
    match = re.search(r"^  cancel:  scancel (.*)$", stdout, re.MULTILINE)
    assert match, stdout
    return match[1].split()


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one message of a command that exits with 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(line.startswith("expected: ") for line in done.stdout.splitlines()), done.stdout
    assert done.stderr.startswith("irmas.train: ")
    assert done.stderr.count("irmas.train: ") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_sweep_beyond_max_array_size_becomes_arrays_that_share_a_throttle(small_desk: Desk) -> None:
    """Seven runs, of which an array takes three."""
    submitted = small_desk.submit("-m", "seed=range(1,8)", "epochs=1", "name=split", "hydra.launcher.throttle=2")
    arrays = [submitted[f"array{i}"] for i in (1, 2, 3)]
    assert queued(small_desk, "-t", "PENDING")[1:] == [
        f"{arrays[1]}_[1-3%2]",
        f"{arrays[2]}_[1%2]",
        submitted["ranking"],
    ]
    most = 0

    def ranked() -> bool:
        nonlocal most
        running = small_desk.cluster.run("squeue", "-h", "-r", "-t", "R", "-n", "irmas-split", "-o", "%i").split()
        most = max(most, len(running))
        return small_desk.state(submitted["ranking"]) == "COMPLETED"

    wait_until(lambda: ranked() or most == 2, "two tasks run", 20)
    shown = small_desk.run("status", "outputs/split")
    assert shown.returncode == 0, shown.stderr
    assert re.search(rf"^ +4 .*PENDING.* {arrays[1]}_1 ", shown.stdout, re.MULTILINE), shown.stdout

    wait_until(ranked, "the ranking COMPLETED", 240)
    assert most == 2
    assert [entry["rank"] for entry in ranking(small_desk.sweep("split"))] == [1] * 7  # seeds
    tasks = [f"{array}_{index}" for array, size in zip(arrays, (3, 3, 1), strict=True) for index in range(1, size + 1)]
    assert [status(run)["job"] for run in runs(small_desk.sweep("split"))] == tasks
    shown = small_desk.run("status", "outputs/split")
    assert re.search(rf"^ +7 .*COMPLETED.* {arrays[2]}_1 ", shown.stdout, re.MULTILINE), shown.stdout


def test_thousands_of_runs_are_a_few_arrays_and_a_few_files(desk: Desk) -> None:
    submitted = desk.submit("-m", "seed=range(102)", "batch_size=range(2,102)", "name=many", HELD)
    sizes = [1000] * 10 + [200]
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
    assert re.search("3 runs .* hydra.launcher.runs_per_task=1", done.stdout)
    submitted = job_numbers(done.stdout)
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


def test_runs_do_not_begin_before_slurm_has_taken_the_last_job(desk: Desk) -> None:
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
    message = refused(desk.train("-m", "seed=1,2,3", "name=one", "hydra.launcher.qos=one"))
    assert "QOSMaxSubmitJobPerUserLimit" in message
    assert "--qos=one" in message
    assert queued(desk) == []
    assert not desk.sweep("one").exists()


def test_what_slurm_refuses_leaves_neither_jobs_nor_files(desk: Desk) -> None:
    common = ["-m", "seed=1,2", "name=new", *desk.settings, "device=cpu", "hydra/launcher=slurm"]
    for setting, reason in {
        "partition=nope": "Invalid partition name specified",
        "mem=900G": "Requested node configuration is not available",
        "qos=nope": "Invalid qos specification",
        "rank.partition=nope": "Invalid partition name specified",  # after Slurm has taken the array
    }.items():
        message = refused(desk.run("train", *common, f"hydra.launcher.{setting}"))
        assert reason in message
        assert f"--{setting.removeprefix('rank.')}" in message
        assert queued(desk) == []
        assert not (desk.folder / "outputs").exists()
    for setting, allowed in {
        "throttle=0": "a whole number from 1, or null",
        "nonsense=1": "no such setting",
        "processes=2": "runs_at_once",
    }.items():
        message = refused(desk.run("train", *common, f"hydra.launcher.{setting}"))
        assert f"hydra.launcher.{setting.partition('=')[0]}" in message
        assert allowed in message
        assert not (desk.folder / "outputs").exists()

    notes = desk.folder / "outputs" / "new" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.touch()
    # sbatch takes this one; that no node can ever run it shows when it has to begin.
    assert "refused the ranking job" in refused(desk.run("train", *common, "hydra.launcher.rank.cpus=99"))
    assert queued(desk) == []
    assert list(notes.parent.iterdir()) == [notes]


def test_without_a_controller_nothing_is_written_and_nothing_trains(desk: Desk, tmp_path: Path) -> None:
    lines = Path(desk.cluster.environment["SLURM_CONF"]).read_text().splitlines()
    port = int(desk.cluster.environment["IRMAS_CLUSTER_PORT"])
    config = tmp_path / "slurm.conf"
    changed = [f"SlurmctldPort={port + 9}" if line.startswith("SlurmctldPort=") else line for line in lines]
    config.write_text("\n".join([*changed, "MessageTimeout=1", ""]))
    message = refused(desk.train("-m", "seed=1,2", "epochs=1", "name=mine", SLURM_CONF=str(config)))
    assert "Unable to contact slurm controller" in message
    assert "hydra/launcher=local" in message
    assert not (desk.folder / "outputs").exists()


def test_a_rerun_submits_the_missing_runs(desk: Desk) -> None:
    """Two commands at once for a new name; then a rerun after a waiting task was cancelled."""
    command = ["-m", "seed=1,2,3", "epochs=1", "name=again", "hydra.launcher.throttle=2", HELD]
    both = [desk.start("train", *desk.command(*command)) for _ in range(2)]
    outputs = sorted((process.communicate(timeout=60)[0] for process in both), key=lambda text: "submitted" in text)
    assert [process.returncode for process in both] == [0, 0]
    assert "3 runs, 0 finished before, 3 in the queue" in outputs[0]
    assert "submitted" not in outputs[0]
    first = job_numbers(outputs[1])
    assert queued(desk) == [f"{first['array1']}_[1-3%2]", first["ranking"]]
    assert all(cancels(text) == [*first.values()] for text in outputs)

    desk.cluster.run("scancel", f"{first['array1']}_2")
    done = desk.train(*command)
    assert "3 runs, 0 finished before, 2 in the queue" in done.stdout
    second = job_numbers(done.stdout)
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
    ended = [status(run) for run in runs(desk.sweep("again"))]
    tasks = [f"{first['array1']}_1", f"{second['array1']}_2", f"{first['array1']}_3"]
    assert [(run["state"], run["job"]) for run in ended] == [("COMPLETED", task) for task in tasks]
    assert [len(event_files(run)) for run in runs(desk.sweep("again"))] == [1, 1, 1]
    recorded = [record.job for record in jobs.recorded_jobs(Sweep.open(desk.sweep("again")))]
    assert recorded == [*first.values(), *second.values()]


def test_all_the_resources_arrive(desk: Desk) -> None:
    task = "partition=main gpus=2 cpus=2 mem=3G time=1-00:00:00 throttle=2 exclude=n4 account=irmas qos=normal"
    data = "prepare.partition=high prepare.cpus=1 prepare.mem=4G prepare.time=7"
    rank = "rank.partition=high rank.cpus=2 rank.mem=1G rank.time=9"
    further = ["sbatch={nice: 100, hold: true, comment: mine}", "prepare.sbatch={hold: true, nice: 7}"]
    settings = [*task.split(), *data.split(), *rank.split(), *further, "rank.sbatch={comment: last}"]
    command = ["-m", "seed=1,2,3", "name=arrive", "data=standin", "data.size=132", "features=small", "device=cpu"]
    done = desk.run("train", *command, *(f"hydra.launcher.{setting}" for setting in settings), "hydra/launcher=slurm")
    assert done.returncode == 0, done.stderr
    submitted = job_numbers(done.stdout)
    common = f"Account=irmas QOS=normal WorkDir={desk.folder} Requeue=1"
    shown = {
        "data": "JobName=data-arrive Partition=high NumCPUs=1 MinMemoryNode=4G TimeLimit=00:07:00 Nice=7",
        "array1": "JobName=irmas-arrive Partition=main NumCPUs=2 MinMemoryNode=3G TimeLimit=1-00:00:00 Nice=100 "
        f"TresPerNode=gres:gpu:2 ExcNodeList=n4 ArrayTaskId=1-3%2 Comment=mine Reason=JobHeldUser "
        f"Dependency=afterok:{submitted['data']}(unfulfilled)",
        "ranking": "JobName=ranking-arrive Partition=high NumCPUs=2 MinMemoryNode=1G TimeLimit=00:09:00 Comment=last",
    }
    for stage, expected in shown.items():
        words = desk.cluster.run("scontrol", "show", "job", submitted[stage]).split()
        assert {*expected.split(), *common.split()} - set(words) == set(), stage
        assert ("TresPerNode=gres:gpu:2" in words) == (stage == "array1")


def test_by_hand_and_by_the_launcher_the_same_folders_are_written(desk: Desk) -> None:
    """Submit run 1 by a line of one's own, run 2 by the printed lines, run 3 by the launcher."""
    setup = desk.folder / "setup.sh"
    setup.write_text(f"export PYTHONPATH={ROOT} PATH={Path(sys.executable).parent}:$PATH\necho modules are loaded\n")
    bare = {key: value for key, value in desk.cluster.environment.items() if key != "PYTHONPATH"}
    bare |= {"PATH": "/usr/bin:/bin", "IRMAS_SETUP": str(setup)}

    def shell(text: str) -> list[str]:
        done = subprocess.run(["bash", "-ec", text], env=bare, cwd=desk.folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        return done.stdout.split()

    def sbatch(stage: str, sweep: str, *options: str) -> str:
        script = os.path.relpath(ROOT / "slurm" / "irmas.sbatch", desk.folder)
        return shell(" ".join(["sbatch --parsable", *SMALL, *options, script, stage, sweep]))[0]

    written = desk.train("epochs=1", "name=single", "hydra.launcher.submit=false")
    assert written.returncode == 0, written.stderr
    single = sbatch("train", "outputs/single")
    single_ranking = sbatch("rank", "outputs/single", f"--dependency=afterany:{single}")

    planned = desk.train("-m", "seed=1", "epochs=1", "name=mixed", "hydra.launcher.submit=false")
    assert planned.returncode == 0, planned.stderr
    first = sbatch("train", "outputs/mixed", "--array=1", "--hold")
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
