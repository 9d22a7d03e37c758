"""Readers of what a sweep leaves on disk, for the tests of the local pool and of Slurm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from irmas.run.events import read_scalars


def ranking(sweep: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((sweep / "ranking.json").read_text())
    return entries


def status(run: Path) -> dict[str, Any]:
    path = run / "status.json"
    pending: dict[str, Any] = {"state": "PENDING", "epoch": 0, "pid": 0}
    return pending | (json.loads(path.read_text()) if path.exists() else {})


def scalars(run: Path) -> dict[str, dict[int, float]]:
    return {tag: points for tag, points in read_scalars(run).values.items() if not tag.startswith("time/")}


def bits(state: Any) -> Any:
    """Return a state with its tensors as bytes and without clocks, so that it can be compared."""
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items() if not str(key).startswith("time/")}
    if isinstance(state, list | tuple):
        return [bits(value) for value in state]
    return (state.dtype, state.shape, state.numpy().tobytes()) if isinstance(state, Tensor) else state


def runs(sweep: Path) -> list[Path]:
    """Return the folders of the runs that have started."""
    return sorted((sweep / "runs").glob("*"))
