"""A sweep as a job array, from the command to the ranking, left alone and disturbed."""

from __future__ import annotations

import os
import re
import signal

import pytest
from cluster.sweeps import TASK, Desk, hold, job_numbers, let_go, run_of, table
from commands import wait_until
from left_behind import ranking, runs, scalars, status


def test_the_reports_sweep_ends_ranked_without_another_command(desk: Desk) -> None:
    data = ["data=standin", "data.size=132", "features=small"]  # It has yet to be made, in this folder.
    command = [
        "sweep=report",
        *data,
        *TASK,
        "epochs=1",
        "model.filters=[4,8]",
        "name=report",
        "hydra.launcher.throttle=6",
    ]
    done = desk.run("train", *command, "hydra/launcher=slurm")
    assert done.returncode == 0, done.stderr
    assert "18 runs, 0 finished before, 0 in the queue" in done.stdout
    job = job_numbers(done.stdout)
    array = job["array1"]
    assert f"data {job['data']} -> array {array}_[1-18%6] -> ranking {job['ranking']}\n" in done.stdout
    shown = desk.cluster.run("scontrol", "show", "job", array)
    assert "gres:gpu:1" in shown
    assert "ArrayTaskThrottle=6" in shown
    assert f"Dependency=afterok:{job['data']}" in shown

    desk.wait_for_ranking(job["ranking"])
    entries = ranking(desk.sweep("report"))
    assert [entry["rank"] for entry in entries] == list(range(1, 19))
    ended = {path.name.partition("-")[0]: status(path) for path in runs(desk.sweep("report"))}
    assert {number: run["job"] for number, run in ended.items()} == {f"{i:03d}": f"{array}_{i}" for i in range(1, 19)}
    assert {run["node"] for run in ended.values()} <= {"n1", "n2", "n3", "n4"}
    wait_until(lambda: len(desk.cluster.accounted(array)) == 18, "18 tasks in sacct")
    assert set(desk.cluster.accounted(array)) == {(f"{array}_{i}", "COMPLETED") for i in range(1, 19)}

    again = desk.run("train", *command, "hydra/launcher=slurm")
    assert again.returncode == 0, again.stderr
    assert "18 finished before" in again.stdout
    assert "submitted" not in again.stdout
    assert not desk.cluster.run("squeue", "-h")


@pytest.mark.timeout(900)
def test_disturbed_runs_end_as_undisturbed_ones(desk: Desk) -> None:
    """Run 1 is preempted, 2 requeued, 3 reaches its time limit, 4 is killed and submitted again, 5 loses its node.

    Two tasks fit on a node, so that run 5 is alone on its own.
    """
    sweep = ["-m", "seed=1,2,3,4,5", "epochs=12"]
    command = [*sweep, "name=disturbed", "hydra.launcher.warning=20"]
    array = desk.submit(*command)["array1"]
    folders = [run_of(desk, "disturbed", number) for number in range(1, 6)]
    first, _, third, fourth, fifth = folders
    hold(*folders)
    assert [status(run)["job"] for run in folders] == [f"{array}_{number}" for number in range(1, 6)]

    for pid in desk.processes(f"{array}_4"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: desk.state(f"{array}_4") == "FAILED", "the killed task FAILED", 60)
    shown = table(desk, "disturbed")
    assert re.search(rf"^ +4 +4 +FAILED +{array}_4 ", shown, re.MULTILINE), shown
    assert "run 4 FAILED" in shown
    again = desk.train(*command)
    assert "5 runs, 0 finished before, 4 in the queue" in again.stdout
    assert f"array {job_numbers(again.stdout)['array1']}_[4] -> ranking" in again.stdout
    wait_until(lambda: status(fourth)["state"] == "COMPLETED", "run 4 COMPLETED", 60)

    # Between now and the warning are 15 to 75 seconds: Slurm checks every 30.
    minutes, seconds = map(int, desk.cluster.run("squeue", "-h", "-j", f"{array}_3", "-o", "%M").split(":"))
    limit = minutes + (1 if seconds < 25 else 2)
    desk.cluster.run("scontrol", "update", f"jobid={array}_3", f"timelimit={limit}")
    before = status(fifth)
    # Nothing else is to start on the dying node: Slurm 22.05 gives a task that it starts there, and again elsewhere at
    # the moment when the node is DOWN, an allocation without GPUs ("node offset invalid"), in which srun fails.
    desk.cluster.run("scontrol", "update", f"nodename={before['node']}", "state=drain", "reason=dying")
    os.kill(desk.cluster.slurmd(before["node"]), signal.SIGKILL)
    desk.cluster.run("scontrol", "requeue", f"{array}_2")
    desk.cluster.sbatch("sleep 3", "--partition=high", "--gres=gpu:2", f"--nodelist={status(first)['node']}")
    let_go(first, third)
    wait_until(lambda: status(fifth)["restart"] == 1, "the run of the dead node elsewhere", 120)
    os.kill(before["pid"], signal.SIGCONT)
    wait_until(lambda: "taken over" in (fifth / "log.txt").read_text(), "its first start ends")
    # A task that Slurm starts on a node that registers again at that moment gets no step: invalid gres.
    restarted = [folder for folder in folders if folder != fourth]
    wait_until(lambda: all(status(run)["restart"] >= 1 for run in restarted), "all disturbed runs restart", 240)
    assert desk.cluster.accounted(f"{array}_5")[0] == (f"{array}_5", "NODE_FAIL")
    assert desk.cluster.up().returncode == 0
    assert desk.cluster.run("sinfo", "-h", "-n", before["node"], "-p", "main", "-o", "%T") in ("idle", "mixed")
    desk.wait_for_ranking(job_numbers(again.stdout)["ranking"], 480)
    ended = [status(run) for run in folders]
    assert [run["state"] for run in ended] == ["COMPLETED"] * 5
    assert [run["restart"] >= 1 for run in ended] == [True, True, True, False, True]
    assert len(ranking(desk.sweep("disturbed"))) == 5

    whole = desk.run("train", *sweep, *desk.settings, "device=cpu", "name=whole", "hydra/launcher=local")
    assert whole.returncode == 0, whole.stderr
    for run, undisturbed in zip(folders, runs(desk.sweep("whole")), strict=True):
        assert scalars(run) == scalars(undisturbed), run.name
