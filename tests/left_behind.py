"""What a sweep leaves on disk, as the tests of the local pool and those of Slurm read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irmas.run.events import read_scalars


def ranking(sweep: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((sweep / "ranking.json").read_text())
    return entries


def status(run: Path) -> dict[str, Any]:
    path = run / "status.json"
    told: dict[str, Any] = {"state": "PENDING", "epoch": 0, "pid": 0}
    return told | (json.loads(path.read_text()) if path.exists() else {})


def scalars(run: Path) -> dict[str, dict[int, float]]:
    return {tag: points for tag, points in read_scalars(run).values.items() if not tag.startswith("time/")}


def runs(sweep: Path) -> list[Path]:
    """Those that have begun."""
    return sorted((sweep / "runs").glob("*"))
