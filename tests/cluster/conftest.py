"""The Slurm of these tests: started here, wiped at the end, never one that happens to be there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.localcluster import LocalCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.xdist_group("cluster"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
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
