"""A sweep as a job array, from the command to the ranking, left alone and disturbed."""

from __future__ import annotations

import os
import re
import signal

import pytest
from cluster.sweeps import TASK, Desk, numbers
from commands import wait_until
from left_behind import ranking, runs, scalars, status


def test_the_reports_sweep_ends_ranked_without_another_command(desk: Desk) -> None:
    data = ["data=standin", "data.size=132", "features=small"]  # in this folder, so that it has yet to be made
    command = ["sweep=report", *data, *TASK, "epochs=1", "name=report", "hydra.launcher.throttle=6"]
    done = desk.run("train", *command, "hydra/launcher=slurm")
    assert done.returncode == 0, done.stderr
    assert "18 runs, 0 finished before, 0 in the queue" in done.stdout
    job = numbers(done.stdout)
    array = job["array1"]
    assert f"data {job['data']} -> array {array}_[1-18%6] -> ranking {job['ranking']}\n" in done.stdout
    asked = desk.cluster.run("scontrol", "show", "job", array)
    assert "gres:gpu:1" in asked
    assert "ArrayTaskThrottle=6" in asked
    assert f"Dependency=afterok:{job['data']}" in asked

    desk.wait_for_ranking(job["ranking"])
    entries = ranking(desk.sweep("report"))
    assert [entry["rank"] for entry in entries] == list(range(1, 19))
    told = {path.name.partition("-")[0]: status(path) for path in runs(desk.sweep("report"))}
    assert {number: run["job"] for number, run in told.items()} == {f"{i:03d}": f"{array}_{i}" for i in range(1, 19)}
    assert {run["node"] for run in told.values()} <= {"n1", "n2", "n3", "n4"}
    wait_until(lambda: len(desk.cluster.accounted(array)) == 18, "18 tasks in sacct")
    assert set(desk.cluster.accounted(array)) == {(f"{array}_{i}", "COMPLETED") for i in range(1, 19)}

    again = desk.run("train", *command, "hydra/launcher=slurm")
    assert again.returncode == 0, again.stderr
    assert "18 finished before" in again.stdout
    assert "submitted" not in again.stdout
    assert not desk.cluster.run("squeue", "-h")


@pytest.mark.timeout(900)
def test_disturbed_runs_end_as_undisturbed_ones(desk: Desk) -> None:
    """1 is preempted, 2 requeued, 3 reaches its time limit, 4 loses its node, 5 is killed and submitted again."""
    sweep = ["-m", "seed=1,2,3,4,5", "epochs=40"]
    command = [*sweep, "name=disturbed", "hydra.launcher.warning=20"]
    job = desk.submit(*command)
    array = job["array1"]
    folders = [desk.sweep("disturbed") / "runs" / f"00{number}-seed={number}" for number in range(1, 6)]
    wait_until(lambda: all(status(run)["epoch"] >= 1 for run in folders), "five runs under way", 90)
    first = [status(run) for run in folders]
    assert [run["job"] for run in first] == [f"{array}_{number}" for number in range(1, 6)]

    # From now to the warning there are 15 to 75 seconds: Slurm looks every 30.
    minutes, seconds = map(int, desk.cluster.run("squeue", "-h", "-j", f"{array}_3", "-o", "%M").split(":"))
    limit = minutes + (1 if seconds < 25 else 2)
    desk.cluster.run("scontrol", "update", f"jobid={array}_3", f"timelimit={limit}")
    desk.cluster.sbatch("sleep 3", "--partition=high", "--gres=gpu:2", f"--nodelist={first[0]['node']}")
    desk.cluster.run("scontrol", "requeue", f"{array}_2")
    os.kill(desk.cluster.slurmd(first[3]["node"]), signal.SIGKILL)
    for pid in desk.processes(f"{array}_5"):
        os.kill(pid, signal.SIGKILL)

    wait_until(lambda: desk.state(f"{array}_5") == "FAILED", "the killed task FAILED", 60)
    table = desk.run("status", "outputs/disturbed").stdout
    assert re.search(rf"^ +5 +5 +FAILED +{array}_5 ", table, re.MULTILINE), table
    assert "run 5 FAILED" in table
    again = desk.train(*command)
    assert "5 runs, 0 finished before, 4 in the queue" in again.stdout
    assert f"array {numbers(again.stdout)['array1']}_[5] -> ranking" in again.stdout

    wait_until(lambda: status(folders[3])["restart"] == 1, "the run of the dead node elsewhere", 120)
    wait_until(lambda: "a newer start of this run has taken over" in (folders[3] / "log.txt").read_text(), "it stops")
    desk.cluster.up()  # brings the node back
    desk.wait_for_ranking(numbers(again.stdout)["ranking"], 480)
    ended = [status(run) for run in folders]
    assert [run["state"] for run in ended] == ["COMPLETED"] * 5
    assert [run["restart"] >= 1 for run in ended] == [True, True, True, True, False]
    assert len(ranking(desk.sweep("disturbed"))) == 5

    whole = desk.run("train", *sweep, *desk.data, "device=cpu", "name=whole", "hydra/launcher=local")
    assert whole.returncode == 0, whole.stderr
    for run, undisturbed in zip(folders, runs(desk.sweep("whole")), strict=True):
        assert scalars(run) == scalars(undisturbed), run.name
