"""The Slurm jobs of a sweep: which runs each of them trains, and the record of them in `outputs/<name>/slurm/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from irmas.files import atomic_write
from irmas.sweep.slurm import expand_ranges

FOLDER = "slurm"
DATA, ARRAY, RANKING = "data", "array", "ranking"
"""The three stages."""


@dataclass(frozen=True)
class Work:
    """What an array trains, as its batch script is told: `outputs/<name> [--runs 1-18] [--points-per-task 6]`."""

    runs: str = ""
    """Run IDs, as in `1-6,9`; empty for every run of the plan."""
    points_per_task: int = 1

    def ids(self, index: int | None, total: int) -> list[int]:
        """The runs of one array task, of a plan with `total` runs. A job that is no array (None) trains all.

        With one point a task and no list of runs, the array index is the run ID.
        """
        ids = expand_ranges(self.runs) if self.runs else list(range(1, total + 1))
        if index is None:
            return ids
        return ids[(index - 1) * self.points_per_task : index * self.points_per_task]


@dataclass(frozen=True)
class Job:
    """One submission. `outputs/<name>/slurm/<job>.json` outlives Slurm's memory of it."""

    job: str
    """Slurm's number of the job or of the whole array."""
    stage: str
    name: str
    """Its name in Slurm: a controller that crashed may give the number out again."""
    submitted: float
    """Unix time."""
    work: Work = field(default_factory=Work)
    """Of an array."""
    after: str = ""
    """The data job without which an array does not start."""


def record(sweep: Path, job: Job) -> None:
    folder = sweep / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"{job.job}.json", json.dumps(asdict(job)) + "\n")


def recorded(sweep: Path) -> Sequence[Job]:
    """In the order of their numbers."""
    texts = [path.read_text() for path in (sweep / FOLDER).glob("[0-9]*.json")]
    jobs = [Job(**{**told, "work": Work(**told["work"])}) for told in map(json.loads, texts)]
    return sorted(jobs, key=lambda job: int(job.job))
