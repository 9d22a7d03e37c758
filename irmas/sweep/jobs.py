"""The Slurm jobs of a sweep: which runs each of them trains, and the record of them in `outputs/<name>/slurm/`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from irmas.errors import UserError
from irmas.files import atomic_write
from irmas.sweep.slurm import expand_ranges, ranges
from irmas.sweep.sweep import Sweep

FAILURE = "data.json"
LAUNCHER = "launcher.json"
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
        ids = expand_ranges(self.runs) if self.runs else range(1, total + 1)
        if index is None:
            return list(ids)
        return list(ids[(index - 1) * self.points_per_task : index * self.points_per_task])

    def arguments(self) -> list[str]:
        runs = ["--runs", self.runs] if self.runs else []
        return runs + (["--points-per-task", str(self.points_per_task)] if self.points_per_task > 1 else [])


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


@dataclass(frozen=True)
class DataFailure:
    """Why a data job failed, in its own words; `outputs/<name>/slurm/data.json` until one succeeds."""

    job: str
    error: str


def named_runs(ids: Iterable[int]) -> str:
    """`run 7`, `runs 1-3,7`."""
    text = ranges(ids)
    return f"run {text}" if text.isdigit() else f"runs {text}"


def private_folder(sweep: Sweep) -> Path:
    """`outputs/<name>/slurm`. What jobs print and are started with concerns nobody but their user."""
    folder = sweep.slurm
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def record(sweep: Sweep, job: Job) -> None:
    atomic_write(private_folder(sweep) / f"{job.job}.json", json.dumps(asdict(job)) + "\n")


def tidy(sweep: Sweep, cancelled: Iterable[str] = ()) -> None:
    """Remove what belongs to jobs that were taken back, and scripts that sbatch refused."""
    folder = sweep.slurm
    for number in cancelled:
        (folder / f"{number}.json").unlink(missing_ok=True)
        (folder / f"{number}_submission.sh").unlink(missing_ok=True)
    for script in folder.glob(".submission_file_*.sh"):  # submitit keeps it as a link once it has a number
        if not (script.is_symlink() and script.exists()):
            script.unlink()


def recorded(sweep: Sweep) -> Sequence[Job]:
    """In the order of their numbers. Raises UserError where a record is damaged."""
    return sorted(map(_read, sweep.slurm.glob("[0-9]*.json")), key=lambda job: int(job.job))


def _read(path: Path) -> Job:
    try:
        told = json.loads(path.read_text())
        return Job(**{**told, "work": Work(**told["work"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: is damaged ({error}); remove it, and scancel the job if it is still in the queue"
        ) from None


def record_launcher(sweep: Sweep, overrides: Sequence[str]) -> None:
    """Write down what the last submission was given of the launcher's settings, for `irmas.refine` to give again."""
    atomic_write(private_folder(sweep) / LAUNCHER, json.dumps(list(overrides)) + "\n")


def recorded_launcher(sweep: Sweep) -> list[str]:
    """Raises UserError where the record is damaged."""
    path = sweep.slurm / LAUNCHER
    try:
        overrides = json.loads(path.read_text())
        return [str(override) for override in overrides]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); remove it, and give the launcher's settings anew") from None


def record_data_failure(sweep: Sweep, failure: DataFailure | None) -> None:
    if failure is None:
        (sweep.slurm / FAILURE).unlink(missing_ok=True)
    else:
        atomic_write(private_folder(sweep) / FAILURE, json.dumps(asdict(failure)) + "\n")


def data_failure(sweep: Sweep) -> DataFailure | None:
    try:
        return DataFailure(**json.loads((sweep.slurm / FAILURE).read_text()))
    except FileNotFoundError:
        return None
