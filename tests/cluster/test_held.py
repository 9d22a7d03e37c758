"""Tasks that Slurm holds because a node could not start them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.localcluster import LocalCluster
from cluster.sweeps import Desk, table
from commands import wait_until
from left_behind import ranking


@contextmanager
def broken_nodes(cluster: LocalCluster) -> Iterator[None]:
    """Let the check that Slurm does before each job fail on every node: Slurm drains the node and holds the job."""
    prolog = cluster.root / "prolog"
    prolog.write_text("#!/bin/sh\nexit 1\n")
    prolog.chmod(0o755)
    try:
        with cluster.configured(f"Prolog={prolog}\n"):
            yield
    finally:
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
    again = desk.train(*command)
    assert again.returncode == 0, again.stderr
    assert f"released: {' '.join(held)}" in again.stdout
    assert "submitted" not in again.stdout
    desk.wait_for_ranking(submitted["ranking"])
    assert [entry["rank"] for entry in ranking(desk.sweep("held"))] == [1, 1]  # seeds
