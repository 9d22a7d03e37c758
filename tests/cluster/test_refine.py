"""Rounds of irmas.refine on Slurm: one more array and one more ranking job, which submits the next round."""

from __future__ import annotations

import json

from cluster.sweeps import Desk, job_numbers
from commands import wait_until
from left_behind import ranking, runs, status

from irmas.run.folder import COMPLETED
from irmas.sweep import jobs
from irmas.sweep.jobs import ARRAY, RANKING
from irmas.sweep.sweep import Sweep


def test_a_refined_sweep_goes_from_round_to_round_by_its_ranking_jobs(desk: Desk) -> None:
    """Submit the first round by hand; two more follow until the budget is used up."""
    command = ["-m", "lr=0.003,0.001,0.0001", "epochs=4", "name=grid"]
    desk.cluster.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        first = desk.submit(*command)
        early = desk.run("refine", "outputs/grid", "hydra/launcher=slurm")
    finally:
        desk.cluster.run("scontrol", "update", "PartitionName=main", "State=UP")
    assert (early.returncode, early.stdout) == (2, "")
    assert (
        "outputs/grid: still training or in the queue: runs 1-3; refine the sweep after they have ended" in early.stderr
    )
    desk.wait_for_ranking(first["ranking"])
    sweep = desk.sweep("grid")
    resources = json.loads((sweep / "slurm" / "launcher.json").read_text())
    assert resources == ["hydra.launcher.cpus=1", "hydra.launcher.mem=2G"]

    words = ["outputs/grid", "candidates=2", "seeds=1", "hydra/launcher=slurm"]
    refined = desk.run("refine", *words)
    assert refined.returncode == 0, refined.stderr
    once = job_numbers(refined.stdout)
    assert f"array {once['array1']}_[4-5] -> ranking {once['ranking']}" in refined.stdout
    assert "python -m irmas.status outputs/grid --watch" in refined.stdout
    desk.wait_for_ranking(once["ranking"])
    assert [status(run)["state"] for run in runs(sweep)] == [COMPLETED] * 5
    assert len(ranking(sweep)) == 5
    # The round has the resources of the sweep's first array.
    assert desk.cluster.run("sacct", "-nPX", "-j", f"{once['array1']}_4", "-o", "ReqMem,ReqCPUS") == "2G|1"

    started = desk.run("refine", *words, "until=decided", "loss=0", "runs=6")
    assert started.returncode == 0, started.stderr
    desk.wait_for_ranking(job_numbers(started.stdout)["ranking"])
    wait_until(lambda: len(jobs.recorded_jobs(Sweep.open(sweep))) >= 8, "the job that ranks has submitted a round", 60)
    last = jobs.recorded_jobs(Sweep.open(sweep))[-1]
    desk.wait_for_ranking(last.job)
    assert [job.stage for job in jobs.recorded_jobs(Sweep.open(sweep))] == [ARRAY, RANKING] * 4
    output = (sweep / "slurm" / f"{last.job}.out").read_text()
    assert "outputs/grid: 9 of 9 runs finished" in output
    assert "6 of runs=6 are used; runs=8 or fewer candidates= allow it" in output
    assert Sweep.open(sweep).plan.rounds == [[4, 5], [6, 7], [8, 9]]
    assert [status(run)["state"] for run in runs(sweep)] == [COMPLETED] * 9

    again = desk.train(*command)
    assert "outputs/grid: 9 runs, 9 finished before, 0 in the queue" in again.stdout, again.stderr


def test_a_round_with_a_failed_run_is_the_last_until_it_is_rerun(desk: Desk) -> None:
    first = desk.submit("-m", "lr=0.003,0.001", "epochs=4", "name=broken")
    desk.wait_for_ranking(first["ranking"])
    sweep = desk.sweep("broken")
    leader = next(entry for entry in ranking(sweep) if entry["rank"] == 1)
    run = sweep / "runs" / f"003-lr={leader['lr']},seed=1"
    run.mkdir()
    (run / "config.yaml").write_text("epochs: 1\n")
    words = ["outputs/broken", "candidates=2", "seeds=1", "until=decided", "loss=0", "hydra/launcher=slurm"]
    started = desk.run("refine", *words)
    assert started.returncode == 0, started.stderr
    job = job_numbers(started.stdout)["ranking"]
    desk.wait_for_ranking(job)
    output = (sweep / "slurm" / f"{job}.out").read_text()
    assert "outputs/broken: no further round is submitted, since run 3 did not finish\n" in output
    assert ": python -m irmas.refine outputs/broken candidates=2 seeds=1 until=decided loss=0\n" in output
    assert len(Sweep.open(sweep).plan.runs) == 4
