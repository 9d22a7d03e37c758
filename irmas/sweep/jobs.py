"""The Slurm jobs of a sweep: which runs each of them trains, and their records in `outputs/<name>/slurm/`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from irmas.errors import UserError
from irmas.files import atomic_write, errors_name, is_shared, reread, visible
from irmas.sweep.settings import PREFIX, RENAMED
from irmas.sweep.slurm import Task, expand_ranges, ranges
from irmas.sweep.sweep import Sweep

FAILURE, LAUNCHER = "data.json", "launcher.json"
SUBMITTED_SCRIPT = ".submission_file_"
"""Beginning of the name of each script that submitit hands to sbatch."""
DATA, ARRAY, RANKING = "data", "array", "ranking"
"""Stages of a sweep, as job records name them."""
NOT_OPENED = "0:53"
"""Exit code of a job whose node could not open its output."""
_ENDED = re.compile(
    r"srun: (error: .* task \S+ (Exited|Killed|Terminated)|Terminating|launch/slurm)|slurmstepd: error: \*\*\*"
)
_OPTION = re.compile(r" --([a-z-]+)[ =](\S+)")


@dataclass(frozen=True)
class Work:
    """The runs of an array, as its script's arguments: `outputs/<name> [--runs 1-18] [--runs-per-task 6]`."""

    runs: str = ""
    """Run IDs, as in `1-6,9`; empty for every run of the plan."""
    runs_per_task: int = 1

    def ids(self, index: int | None, total: int) -> list[int]:
        """Return the run IDs of one array task (None: of the whole array), for a plan with `total` runs.

        With one run per task and no list of runs, the array index is the run ID.
        """
        ids = expand_ranges(self.runs) if self.runs else range(1, total + 1)
        if index is None:
            return list(ids)
        return list(ids[(index - 1) * self.runs_per_task : index * self.runs_per_task])

    def arguments(self) -> list[str]:
        runs = ["--runs", self.runs] if self.runs else []
        return runs + (["--runs-per-task", str(self.runs_per_task)] if self.runs_per_task > 1 else [])


@dataclass(frozen=True)
class Job:
    """One submission, recorded in `outputs/<name>/slurm/<job>.json`: Slurm itself forgets jobs."""

    job: str
    """Slurm's number of the job or of the whole array."""
    stage: str
    name: str
    """Name in Slurm, since a controller that crashed may reuse the number."""
    submitted: float
    """Unix time."""
    work: Work = field(default_factory=Work)
    after: str = ""
    """Number of the data job without which an array does not start."""
    cluster: str = ""
    """Name of its cluster; empty in records of earlier versions."""


@dataclass(frozen=True)
class DataFailure:
    """The error that ended a data job; kept in `outputs/<name>/slurm/data.json` until one succeeds."""

    job: str
    error: str


def job_name(stage: str, sweep: Sweep) -> str:
    """Return the name in Slurm of the sweep's jobs of a stage, when the launcher submits them."""
    return f"{'irmas' if stage == ARRAY else stage}-{sweep.plan.name}"


def named_runs(ids: Iterable[int]) -> str:
    """Return `run 7` or `runs 1-3,7`."""
    text = ranges(ids)
    return f"run {text}" if text.isdigit() else f"runs {text}"


def named_sweep(task: Task) -> tuple[Path, Work | None] | None:
    """Return the sweep that a batch script's arguments name, and what the job trains; None where they name no sweep.

    They end with `<stage> outputs/<name> [--runs R] [--runs-per-task N]`; only the stage `train` trains. Slurm shows
    them without quotes, and a folder's name may contain spaces.
    """
    options = _renamed({name.replace("-", "_"): value for name, value in _OPTION.findall(task.command)})
    words = _OPTION.sub("", task.command).split(" ")
    for first in range(1, len(words)):
        path = Path(task.folder, " ".join(words[first:]))
        if Sweep.is_at(path):
            if words[first - 1] in ("data", "rank", "refine"):
                return path.resolve(), None
            try:
                work = Work(options.get("runs", ""), int(options.get("runs_per_task", 1)))
                work.ids(1, 1)
            except ValueError:  # mistyped by hand: its tasks report that, and train nothing
                return None
            return path.resolve(), work
    return None


def private_folder(sweep: Sweep) -> Path:
    """Make and return `outputs/<name>/slurm`, which only its user may read: jobs print what concerns nobody else.

    So may the group with which the user shares the sweep.
    """
    if not sweep.slurm.exists():
        sweep.slurm.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_shared(sweep.path):
            sweep.slurm.chmod(0o2770)
    return sweep.slurm


def record_job(sweep: Sweep, job: Job) -> None:
    _write(private_folder(sweep) / f"{job.job}.json", asdict(job))


def record_start(sweep: Sweep, task: str) -> int:
    """Record that an array task such as 123_4 has started a process; return how often it had before. Raises OSError.

    Slurm's own count includes starts that ended in a failing prolog or launch, and so never reached a run.
    """
    path = private_folder(sweep) / f"{task}.starts"  # one byte per start, so that no crash leaves a torn number
    with errors_name(path), path.open("ab") as file:
        file.write(b"\n")
        file.flush()
        os.fsync(file.fileno())
        return file.tell() - 1


def recorded_jobs(sweep: Sweep) -> Sequence[Job]:
    """Return the records in the order of their numbers. Raises UserError where one is damaged."""
    records = []
    for path in sweep.slurm.glob("[0-9]*.json"):
        try:
            values = json.loads(reread(path.read_text))
            records.append(Job(**{**values, "work": Work(**_renamed(values["work"]))}))
        except (ValueError, TypeError, KeyError) as error:
            remedy = "remove it, and scancel the job if it is still in the queue"
            raise UserError(f"{path}: is damaged ({error}); {remedy}") from None
    return sorted(records, key=lambda job: int(job.job))


def recorded_cluster(sweep: Sweep) -> str:
    """Return the cluster of the sweep's last job, or of the last lines to submit by hand; empty if it is not known.

    Raises UserError where a record is damaged.
    """
    if records := recorded_jobs(sweep):
        return max(records, key=lambda job: job.submitted).cluster
    key = f"{PREFIX}cluster="
    names = (word.removeprefix(key) for word in recorded_launcher(sweep) if word.startswith(key))
    return next(names, "").strip("'").lower()


def remove_cancelled(sweep: Sweep, numbers: Iterable[str] = ()) -> None:
    """Remove the files of cancelled jobs, and scripts that sbatch refused."""
    for number in numbers:
        (sweep.slurm / f"{number}.json").unlink(missing_ok=True)
        (sweep.slurm / f"{number}_submission.sh").unlink(missing_ok=True)
    for script in sweep.slurm.glob(f"{SUBMITTED_SCRIPT}*.sh"):  # submitit makes it a link when the job has a number
        if not (script.is_symlink() and script.exists()):
            script.unlink()


def last_line(sweep: Sweep, task: Task) -> str:
    """Return where a failed task's output is and its last line, of 200 characters at most; empty where there is none.

    Lines in which Slurm only says that the process ended do not count, nor those of earlier starts than one that could
    not open the file.
    """
    path = sweep.slurm / f"{task.id}.out"
    if task.exit_code == NOT_OPENED:
        return f"its node could not write {path}: is the folder shared with the nodes?"
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    informative = [line.strip() for line in lines if line.strip() and not _ENDED.match(line)]
    return f"{path}: {visible(informative[-1])[:200]}" if informative else ""


def record_launcher(sweep: Sweep, overrides: Sequence[str]) -> None:
    """Write the launcher's settings of the last submission, which `irmas.refine` uses for the next one."""
    _write(private_folder(sweep) / LAUNCHER, list(overrides))


def recorded_launcher(sweep: Sweep) -> list[str]:
    """Return the recorded overrides, none without a record. Raises UserError where the record is damaged."""
    path = sweep.slurm / LAUNCHER
    try:
        pairs = [str(override).removeprefix(PREFIX).partition("=") for override in json.loads(path.read_text())]
        return [f"{PREFIX}{RENAMED.get(name, name)}={value}" for name, _, value in pairs]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); remove it, and repeat the launcher's settings") from None


def record_data_failure(sweep: Sweep, failure: DataFailure | None) -> None:
    if failure is None:
        (sweep.slurm / FAILURE).unlink(missing_ok=True)
    else:
        _write(private_folder(sweep) / FAILURE, asdict(failure))


def recorded_data_failure(sweep: Sweep) -> DataFailure | None:
    try:
        return DataFailure(**json.loads((sweep.slurm / FAILURE).read_text()))
    except FileNotFoundError:
        return None


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an earlier version under the names that they have now."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def _write(path: Path, values: Any) -> None:
    atomic_write(path, json.dumps(values) + "\n")
