"""The Slurm of these tests: started here, wiped at the end, never one that happens to be there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster.localcluster import LocalCluster
from cluster.sweeps import Desk
from commands import irmas, wait_until

JOBS = "JobArrayID:16,Name:20,State:12,Reason:24,exit_code:10,RestartCnt:10,NodeList:10,StartTime:22,EndTime:22"
"""What squeue shows of a job."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests that may take longest, so that several workers end at the same time."""
    marks = {item: item.get_closest_marker("timeout") for item in items}
    items.sort(key=lambda item: -(mark.args[0] if (mark := marks[item]) else 0))


@contextmanager
def started(local: LocalCluster) -> Iterator[LocalCluster]:
    """Start the cluster, with missing packages installed where CI=true only; wipe it at the end."""
    try:
        up = local.up(*["--install"] if os.environ.get("CI") == "true" else [])
        if "not installed" in up.stderr:
            pytest.skip("no Slurm on this machine: make cluster installs it")
        assert up.returncode == 0, up.stdout + up.stderr
        yield local
    finally:
        wiped = local.down("--wipe")
        assert wiped.returncode == 0, wiped.stderr


@pytest.fixture(scope="session")
def whole_cluster() -> Iterator[LocalCluster]:
    """Four nodes with two CPUs and two pretended GPUs each."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # Slurm's jobs do not stay on the core of a pytest worker.
    with started(LocalCluster()) as local:
        yield local


@pytest.fixture(scope="session")
def array_of_3_cluster(whole_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """A second one beside the first, with MaxArraySize 4 and without accounting."""
    with started(LocalCluster(ARRAY="4", ACCOUNTING="no")) as local:
        yield local


def idle(local: LocalCluster) -> Iterator[LocalCluster]:
    """Yield the cluster; afterwards, cancel what a test left in the queue, and wait until the nodes are free."""
    yield local
    sys.stdout.write(local.run("squeue", "--states=all", "-O", JOBS))  # which pytest shows if the test failed
    local.run("scancel", "--partition=main")
    local.run("scancel", "--partition=high")
    wait_until(lambda: not local.run("squeue", "-h"), "an empty queue", 60)


@pytest.fixture
def cluster(whole_cluster: LocalCluster) -> Iterator[LocalCluster]:
    yield from idle(whole_cluster)


@pytest.fixture
def small_cluster(array_of_3_cluster: LocalCluster) -> Iterator[LocalCluster]:
    yield from idle(array_of_3_cluster)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a small model, and of a small stand-in whose feature cache is there."""
    folder = tmp_path_factory.mktemp("data")
    data = ["data=standin", "data.size=132", "features=small", f"data.root={folder}", f"data.cache_dir={folder}/cache"]
    made = irmas("prepare", *data, cwd=folder)
    assert made.returncode == 0, made.stderr
    return [*data, "model.filters=[4,8]"]


def used(desk: Desk) -> Iterator[Desk]:
    """Yield the desk; afterwards, print the end of what each job printed, which pytest shows if the test failed."""
    yield desk
    for path in sorted(desk.folder.glob("outputs/*/slurm/*.out")):
        sys.stdout.write(f"---- {path.name}\n" + "".join(path.read_text(errors="replace").splitlines(True)[-8:]))


@pytest.fixture
def desk(cluster: LocalCluster, settings: list[str], tmp_path: Path) -> Iterator[Desk]:
    yield from used(Desk(cluster, tmp_path, settings))


@pytest.fixture
def small_desk(small_cluster: LocalCluster, settings: list[str], tmp_path: Path) -> Iterator[Desk]:
    yield from used(Desk(small_cluster, tmp_path, settings))
