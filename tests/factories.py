"""Plans and sweeps for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from irmas.run.folder import RunFolder
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.sweep import Sweep


def read_plan(path: Path, ids: Sequence[int] | None = None) -> Plan:
    return Sweep.open(path, ids).plan


def write_plan(path: Path, plan: Plan, *, append: bool = False) -> tuple[Plan, list[PlannedRun]]:
    """Write a plan into a folder; return the plan that it then holds, and the runs of this one."""
    sweep, runs = Sweep(path, plan).write(append=append)
    return sweep.plan, runs


def run_folder(path: Path, run: PlannedRun) -> RunFolder:
    return RunFolder(path / "runs" / run.folder_name)
