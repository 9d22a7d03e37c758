"""The Slurm task that this process belongs to: the only module that reads SLURM_* variables."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class SlurmTask:
    """An array task, or a job that is no array, as its environment describes it; empty outside Slurm."""

    job: str
    """Number of the job or of the whole array."""
    index: int | None
    """Array index; None for a job that is no array."""
    name: str
    restart: int
    """How often the job was requeued before."""
    node: str
    """Slurm's name of this machine; outside Slurm its own."""
    cpus: int | None
    """CPUs of the task; None where Slurm does not limit them."""

    @property
    def id(self) -> str:
        """Return `123_4`, or `123` for a job that is no array; empty outside Slurm."""
        return self.job if self.index is None or not self.job else f"{self.job}_{self.index}"


def current_task() -> SlurmTask:
    get = os.environ.get
    index, cpus = get("SLURM_ARRAY_TASK_ID"), get("SLURM_CPUS_PER_TASK")
    return SlurmTask(
        job=get("SLURM_ARRAY_JOB_ID") or get("SLURM_JOB_ID", ""),
        index=None if index is None else int(index),
        name=get("SLURM_JOB_NAME", ""),
        restart=int(get("SLURM_RESTART_COUNT", "0")),
        node=get("SLURMD_NODENAME") or platform.node(),
        cpus=None if cpus is None else int(cpus),
    )
