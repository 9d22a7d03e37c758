"""Second starts: by a rerun of the command, by Slurm itself, and of tasks that all miss the same cache."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

from cluster.sweeps import Desk, epochs, job_numbers, run_of, table
from commands import wait_until
from left_behind import status

from irmas.files import locked
from irmas.run.folder import COMPLETED
from irmas.sweep import jobs
from irmas.sweep.sweep import Sweep


def written(run: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and mtime of each file of a run."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}


def test_jobs_that_slurm_forgot_are_submitted_again_and_a_finished_task_that_restarts_changes_nothing(
    desk: Desk,
) -> None:
    """Kill the controller right after a submission; in the end, requeue a finished task."""
    kept = desk.cluster.root / "controller" / "job_state"
    begun = time.time()
    desk.cluster.run("scancel", desk.cluster.sbatch("true", "--hold"))
    wait_until(lambda: kept.exists() and kept.stat().st_mtime > begun, "the controller has saved its state")
    known = kept.read_bytes()

    command = ["-m", "seed=1,2", "epochs=2", "name=forgotten"]
    process = desk.start("train", *desk.command(*command))
    assert process.stdout
    forgotten = job_numbers(next(line for line in process.stdout if line.startswith("submitted: ")))
    (controller,) = (pid for pid, name in desk.cluster.processes().items() if name == "slurmctld")
    os.kill(controller, signal.SIGKILL)
    kept.write_bytes(known)  # The controller saves every few seconds: drop what it saved of the submission.
    process.communicate(timeout=60)
    assert desk.cluster.up().returncode == 0
    tasks = [f"{forgotten['array1']}_{index}" for index in (1, 2)]
    wait_until(lambda: not any(desk.processes(task, "") for task in tasks), "the forgotten tasks have ended", 60)
    first, second = (run_of(desk, "forgotten", number) for number in (1, 2))
    if not first.exists() and not second.exists():  # The controller was killed before a task began.
        assert "outputs/forgotten: 2 NOT_SUBMITTED\n" in table(desk, "forgotten")
    assert not re.search("PENDING|RUNNING", table(desk, "forgotten"))

    again = desk.submit(*command)
    assert again == forgotten, "Slurm gives the same numbers again"
    desk.wait_for_ranking(again["ranking"])
    ended = [(status(run)["state"], status(run)["job"], epochs(run)) for run in (first, second)]
    assert ended == [(COMPLETED, task, [1, 2]) for task in tasks]
    assert [record.job for record in jobs.recorded_jobs(Sweep.open(desk.sweep("forgotten")))] == list(again.values())

    before = written(first)
    desk.cluster.run("scontrol", "requeue", tasks[0])
    output = desk.sweep("forgotten") / "slurm" / f"{tasks[0]}.out"
    wait_until(lambda: "start 2, run 1" in output.read_text(), "the second start", 60)
    wait_until(lambda: desk.cluster.accounted(tasks[0])[-1:] == [(tasks[0], COMPLETED)], "COMPLETED again")
    assert written(first) == before


def test_tasks_that_all_miss_the_cache_build_it_once(desk: Desk, tmp_path: Path) -> None:
    """Submit the array by hand, so that no data job builds the cache."""
    made = next(Path(setting.partition("=")[2]) for setting in desk.settings if setting.startswith("data.cache_dir="))
    (key,) = (path.name for path in made.iterdir() if path.is_dir())
    folder = tmp_path / "cache" / key
    warm = [setting for setting in desk.settings if not setting.startswith("data.cache_dir=")]
    desk = replace(desk, settings=[*warm, f"data.cache_dir={folder.parent}"])
    planned = desk.train("-m", "seed=1,2,3,4", "epochs=1", "name=cold", "hydra.launcher.submit=false")
    assert planned.returncode == 0, planned.stderr

    def has_missed(run: Path) -> bool:
        return (run / "log.txt").exists() and f"{key}.lock: waiting for another process" in (
            run / "log.txt"
        ).read_text()

    folders = [run_of(desk, "cold", number) for number in range(1, 5)]
    with locked(folder.with_name(f"{key}.lock")):
        array = desk.by_hand("cold", "--array=1-4")
        wait_until(lambda: all(map(has_missed, folders)), "four tasks miss the cache", 150)
        assert not folder.exists()
    wait_until(folder.exists, "one has built it", 60)
    built = (folder / "features.npy").stat()
    ends = [(f"{array}_{index}", COMPLETED) for index in range(1, 5)]
    wait_until(lambda: sorted(desk.cluster.accounted(array)) == ends, "four tasks COMPLETED", 150)
    assert [status(run)["state"] for run in folders] == [COMPLETED] * 4
    assert (folder / "features.npy").stat().st_mtime_ns == built.st_mtime_ns
    assert sorted(path.name for path in folder.parent.iterdir()) == [key, f"{key}.lock"]
