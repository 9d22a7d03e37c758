"""Tasks that Slurm holds or delays: a node that cannot start them, a person, a partition that is down."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.localcluster import LocalCluster
from cluster.sweeps import FORBIDDEN, Desk, table, wrapped
from commands import wait_until
from left_behind import ranking, runs, status

HELD = "hydra.launcher.sbatch={hold: true}"


@contextmanager
def broken_nodes(cluster: LocalCluster) -> Iterator[None]:
    """Let the check that Slurm does before each job fail on every node."""
    prolog = cluster.break_prolog()
    try:
        yield
    finally:
        prolog.unlink()
        assert cluster.up().returncode == 0


def test_the_sweep_command_releases_tasks_that_a_node_could_not_start(desk: Desk) -> None:
    command = ["-m", "seed=1,2", "epochs=1", "name=held"]
    with broken_nodes(desk.cluster):
        submitted = desk.submit(*command)
        held = [f"{submitted['array1']}_{index}" for index in (1, 2)]
        wait_until(
            lambda: desk.cluster.run("squeue", "-h", "-r", "-o", "%i %r").count("launch failed requeued held") == 2,
            "two tasks held",
            60,
        )
        assert "launch failed requeued held" in table(desk, "held")
        forbidding = wrapped(desk, scontrol=f'[ $1 != release ] || {FORBIDDEN}; exec {shutil.which("scontrol")} "$@"')
        refused = desk.train(*command, PATH=forbidding)
        assert refused.returncode == 0, refused.stderr
        assert f"forbids to release them: {' '.join(held)}; ask for" in refused.stdout
        assert "released" not in refused.stdout
    again = desk.train(*command)
    assert again.returncode == 0, again.stderr
    assert f"released: {' '.join(held)}" in again.stdout
    assert "submitted" not in again.stdout
    desk.wait_for_ranking(submitted["ranking"])
    assert [entry["rank"] for entry in ranking(desk.sweep("held"))] == [1, 1]  # seeds


def test_starts_that_reach_no_run_do_not_count_as_restarts(desk: Desk) -> None:
    """Where a failing prolog does not hold the job, Slurm restarts it as often as it finds a node."""
    with broken_nodes(desk.cluster), desk.cluster.scheduled("nohold_on_prolog_fail"):
        job = desk.submit("-m", "seed=1", "epochs=1", "name=prolog", "hydra.launcher.requeues=0")
        restarts = ("squeue", "-h", "-j", f"{job['array1']}_1", "-O", "RestartCnt")
        wait_until(lambda: int(desk.cluster.run(*restarts) or 0) >= 2, "two starts ended by the prolog", 60)
    desk.wait_for_ranking(job["ranking"])
    (run,) = runs(desk.sweep("prolog"))
    assert (status(run)["state"], status(run)["restart"] >= 2) == ("COMPLETED", True)


def test_who_or_what_holds_a_task_is_shown_and_left_alone(desk: Desk) -> None:
    command = ["-m", "seed=1,2", "epochs=1", "name=why", HELD]
    job = desk.submit(*command)["array1"]
    desk.cluster.run("scontrol", "hold", f"{job}_2")  # as root, an administrator's
    shown = table(desk, "why")
    assert re.search(r"PENDING .*JobHeldUser", shown)
    assert re.search(r"PENDING .*JobHeldAdmin", shown)
    assert "release" not in shown
    again = desk.train(*command)
    assert again.returncode == 0, again.stderr
    assert "2 in the queue" in again.stdout
    assert "released" not in again.stdout
    assert table(desk, "why") == shown


def test_a_partition_that_is_down_is_named(desk: Desk) -> None:
    desk.cluster.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        desk.submit("-m", "seed=1", "epochs=1", "name=down")
        wait_until(lambda: "PartitionDown" in table(desk, "down"), "the reason of the task that waits", 30)
        assert "release" not in table(desk, "down")
        assert "1 in the queue" in desk.train("-m", "seed=1", "epochs=1", "name=down").stdout
    finally:
        desk.cluster.run("scontrol", "update", "PartitionName=main", "State=UP")
