"""Sites whose Slurm, or whose wrappers of its commands, behave otherwise than the defaults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.localcluster import LocalCluster
from cluster.sweeps import Desk, hold, run_of, table
from commands import wait_until
from left_behind import ranking, runs, status

EPILOG_S = 8


@contextmanager
def configured(cluster: LocalCluster, lines: str) -> Iterator[None]:
    """Run Slurm with these further lines of slurm.conf."""
    settings = cluster.root / "slurm.conf"
    before = settings.read_text()
    settings.write_text(before + lines)
    cluster.run("scontrol", "reconfigure")
    try:
        yield
    finally:
        settings.write_text(before)
        cluster.run("scontrol", "reconfigure")


def test_tasks_that_are_completing_are_not_in_the_queue(desk: Desk) -> None:
    """A long Epilog: a cancelled sweep is submitted again in full, a preempted task is not submitted twice."""
    epilog = desk.cluster.root / "epilog"
    epilog.write_text(f"#!/bin/sh\nsleep {EPILOG_S}\n")
    epilog.chmod(0o755)
    command = ["-m", "seed=1,2", "epochs=4", "name=cg"]
    with configured(desk.cluster, f"Epilog={epilog}\n"):
        first = desk.submit(*command)
        hold(*(run_of(desk, "cg", number) for number in (1, 2)))
        desk.cluster.run("scontrol", "requeue", f"{first['array1']}_2")
        desk.cluster.run("scancel", f"{first['array1']}_1")
        wait_until(lambda: desk.state(first["array1"]).split() == ["COMPLETING"] * 2, "both tasks are completing")
        assert f"waits in task {first['array1']}_1" not in table(desk, "cg")
        began = time.monotonic()
        done = desk.train(*command)
    assert done.returncode == 0, done.stderr
    assert f"COMPLETING: {first['array1']}_1 {first['array1']}_2" in done.stdout
    assert "2 runs, 0 finished before, 1 in the queue" in done.stdout
    assert time.monotonic() - began < 40
    second = desk.cluster.run("squeue", "-h", "-n", "irmas-cg", "-t", "PENDING,RUNNING", "-r", "-o", "%i").split()
    assert len(second) == 2
    assert f"{first['array1']}_2" in second
    ranked = desk.cluster.run("squeue", "-h", "-n", "ranking-cg", "-t", "PENDING", "-o", "%i").split()
    desk.wait_for_ranking(max(ranked, key=int))
    assert [status(run)["state"] for run in runs(desk.sweep("cg"))] == ["COMPLETED"] * 2
    assert [entry["rank"] for entry in ranking(desk.sweep("cg"))] == [1, 1]  # seeds
