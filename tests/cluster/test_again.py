"""What is begun a second time: by a command, by Slurm itself, and by tasks that all miss the same cache."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

from cluster.sweeps import Desk, epochs, numbers, run_of, table
from commands import wait_until
from left_behind import status

from irmas.files import locked
from irmas.run.folder import COMPLETED
from irmas.sweep import jobs


def written(run: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of each file of a run."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}


def test_what_slurm_forgot_is_submitted_again_and_what_slurm_starts_again_stays_as_it_is(desk: Desk) -> None:
    """The controller is killed in the moment after a submission; in the end a finished task is requeued."""
    kept = desk.cluster.root / "controller" / "job_state"
    begun = time.time()
    desk.cluster.run("scancel", desk.cluster.sbatch("true", "--hold"))
    wait_until(lambda: kept.exists() and kept.stat().st_mtime > begun, "the controller has written down what it knows")
    known = kept.read_bytes()

    command = ["-m", "seed=1,2", "epochs=2", "name=forgotten"]
    process = desk.start("train", *desk.command(*command))
    assert process.stdout
    forgotten = numbers(next(line for line in process.stdout if line.startswith("submitted: ")))
    (controller,) = (pid for pid, name in desk.cluster.processes().items() if name == "slurmctld")
    os.kill(controller, signal.SIGKILL)
    kept.write_bytes(known)  # it writes every few seconds: nothing of the submission is to be in it
    process.communicate(timeout=60)
    assert desk.cluster.up().returncode == 0
    tasks = [f"{forgotten['array1']}_{index}" for index in (1, 2)]
    wait_until(lambda: not any(desk.processes(task, "") for task in tasks), "what it had begun is ended", 60)
    first, second = (run_of(desk, "forgotten", number) for number in (1, 2))
    if not first.exists() and not second.exists():  # it was killed soon enough
        assert "outputs/forgotten: 2 NOT_SUBMITTED\n" in table(desk, "forgotten")
    assert not re.search("PENDING|RUNNING", table(desk, "forgotten"))

    again = desk.submit(*command)
    assert again == forgotten, "the numbers are given out again"
    desk.wait_for_ranking(again["ranking"])
    ended = [(status(run)["state"], status(run)["job"], epochs(run)) for run in (first, second)]
    assert ended == [(COMPLETED, task, [1, 2]) for task in tasks]
    assert [record.job for record in jobs.recorded(desk.sweep("forgotten"))] == list(again.values())

    before = written(first)
    desk.cluster.run("scontrol", "requeue", tasks[0])
    output = desk.sweep("forgotten") / jobs.FOLDER / f"{tasks[0]}.out"
    wait_until(lambda: "start 2, run 1" in output.read_text(), "the second start", 60)
    wait_until(lambda: desk.cluster.accounted(tasks[0])[-1:] == [(tasks[0], COMPLETED)], "COMPLETED again")
    assert written(first) == before


def test_tasks_that_all_miss_the_cache_build_it_once(desk: Desk, tmp_path: Path) -> None:
    """Submitted by hand, so that no data job makes it. Six tasks: with 18, two cores would import torch for minutes."""
    made = next(Path(setting.partition("=")[2]) for setting in desk.data if setting.startswith("data.cache_dir="))
    (key,) = (path.name for path in made.iterdir() if path.is_dir())
    folder = tmp_path / "cache" / key
    warm = [setting for setting in desk.data if not setting.startswith("data.cache_dir=")]
    desk = replace(desk, data=[*warm, f"data.cache_dir={folder.parent}"])
    planned = desk.train("-m", "seed=1,2,3,4,5,6", "epochs=1", "name=cold", "hydra.launcher.submit=false")
    assert planned.returncode == 0, planned.stderr

    def has_missed(run: Path) -> bool:
        return (run / "log.txt").exists() and "log-mels: 132 excerpts" in (run / "log.txt").read_text()

    folders = [run_of(desk, "cold", number) for number in range(1, 7)]
    with locked(folder.with_name(f"{key}.lock")):
        array = desk.by_hand("cold", "--array=1-6")
        wait_until(lambda: all(map(has_missed, folders)), "six tasks miss the cache", 150)
        assert not folder.exists()
    wait_until(folder.exists, "one has built it", 60)
    built = (folder / "features.npy").stat()
    ends = [(f"{array}_{index}", COMPLETED) for index in range(1, 7)]
    wait_until(lambda: sorted(desk.cluster.accounted(array)) == ends, "six tasks COMPLETED", 150)
    assert [status(run)["state"] for run in folders] == [COMPLETED] * 6
    assert (folder / "features.npy").stat().st_mtime_ns == built.st_mtime_ns
    assert sorted(path.name for path in folder.parent.iterdir()) == [key, f"{key}.lock"]
