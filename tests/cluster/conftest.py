"""The Slurm of these tests: started here, wiped at the end, never one that happens to be there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.localcluster import LocalCluster
from cluster.sweeps import Desk
from commands import irmas, wait_until


@pytest.fixture(scope="session")
def started() -> Iterator[LocalCluster]:
    """Four nodes with two CPUs and two pretended GPUs each. Missing packages are installed where CI=true only."""
    local = LocalCluster()
    try:
        started = local.up(*["--install"] if os.environ.get("CI") == "true" else [])
        if "not installed" in started.stderr:
            pytest.skip("no Slurm on this machine: make cluster installs it")
        assert started.returncode == 0, started.stdout + started.stderr
        yield local
    finally:
        wiped = local.down("--wipe")
        assert wiped.returncode == 0, wiped.stderr


@pytest.fixture
def cluster(started: LocalCluster) -> Iterator[LocalCluster]:
    """Cancels what a test leaves in the queue, and waits until the nodes are free."""
    yield started
    started.run("scancel", "--partition=main")
    started.run("scancel", "--partition=high")
    wait_until(lambda: not started.run("squeue", "-h"), "an empty queue", 60)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a small stand-in whose feature cache is there."""
    folder = tmp_path_factory.mktemp("data")
    data = ["data=standin", "data.size=132", "features=small", f"data.root={folder}", f"data.cache_dir={folder}/cache"]
    made = irmas("prepare", *data, cwd=folder)
    assert made.returncode == 0, made.stderr
    return data


@pytest.fixture
def desk(cluster: LocalCluster, data: list[str], tmp_path: Path) -> Desk:
    return Desk(cluster, tmp_path, data)
