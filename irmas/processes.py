"""Processes of our own on this machine."""

from __future__ import annotations

import os
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext


def fork_server() -> ForkServerContext:
    """Children start with torch imported (2 s each otherwise), yet inherit no thread or lock of this process."""
    # Threads that wait for each other by spinning were 15 times slower where another process used a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = get_context("forkserver")
    context.set_forkserver_preload(["irmas.data.features", "irmas.sweep.task"])
    return context


def cpu_count() -> int:
    """The cores this process may use: fewer than the machine's under Slurm."""
    return len(os.sched_getaffinity(0))
