"""A sweep as a folder, outputs/<name>: its plan, its runs, and the name of every file in it.

`plan.yaml` holds the base configuration, what the sweep was made from and the number of its runs; line i of
`points.jsonl` is run i.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import yaml

from irmas.config import flatten, from_flat
from irmas.errors import ConfigError, UserError, first_line
from irmas.files import atomic_write, locked
from irmas.run.folder import CONFIG, FINAL, RunFolder, Status
from irmas.sweep.plan import Plan, PlannedRun, extended

OUTPUTS = Path("outputs")
PLAN, RUNS, BEST = "plan.yaml", "points.jsonl", "best.yaml"
REMEDY = f"restore it, or remove {PLAN} and rerun the sweep command, which resumes the runs that are there"


class _Inside:
    """The path of a file or folder in a sweep."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, sweep: Sweep, owner: type[Sweep]) -> Path:
        return sweep.path / self.name


@dataclass(frozen=True)
class Sweep:
    """A folder and the plan of the runs in it, written there or not."""

    path: Path
    plan: Plan

    runs = _Inside("runs")
    splits = _Inside("splits")
    slurm = _Inside("slurm")
    """Folder of the job records and of the output of the jobs."""
    rungs = _Inside("rungs")
    pool_lock = _Inside(".pool")
    """File that each command holds while it trains runs of the sweep on this machine."""
    submit_lock = _Inside(".submit.lock")
    plan_lock = _Inside(".lock")
    plan_file = _Inside(PLAN)
    runs_file = _Inside(RUNS)
    ranking_csv = _Inside("ranking.csv")
    ranking_json = _Inside("ranking.json")
    report = _Inside("report.md")
    page = _Inside("report.html")
    plots = _Inside("plots")
    summary = _Inside("summary")
    """Event files with the ranking's pictures, for TensorBoard."""
    best = _Inside(BEST)

    def run_folder(self, run: PlannedRun) -> RunFolder:
        return RunFolder(self.runs / run.folder_name)

    def status(self, run: PlannedRun) -> Status:
        """Return the status of a run. Raises UserError where its file is damaged."""
        return self.run_folder(run).status()

    @classmethod
    def of(cls, plan: Plan) -> Sweep:
        """Return the sweep that a plan names, below the working directory."""
        return cls(OUTPUTS / plan.name, plan)

    @classmethod
    def open(cls, path: Path, ids: Sequence[int] | None = None) -> Sweep:
        """Read the plan of a folder, with the runs of these IDs only (default: all).

        Raises UserError where the folder holds no plan, or none that this version can read; OSError where it may not
        be read.
        """
        file = path / PLAN
        try:
            head = yaml.safe_load(file.read_text())
            total, config = int(head.pop("runs")), from_flat(flatten(head.pop("config")))
            plan = Plan(**head, config=config)
            file = path / RUNS
            return cls(path, replace(plan, runs=_read_runs(file, total, ids)))
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = Path(str(error.filename)).name
            remedy = REMEDY if missing == RUNS else _sweeps_beside(path)
            raise UserError(f"{path}: no sweep is here ({missing} is missing); {remedy}") from None
        except (yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError, ConfigError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else first_line(error)
            raise UserError(f"{file}: is damaged or from another version ({reason}); {REMEDY}") from error

    @staticmethod
    def is_at(path: Path) -> bool:
        return (path / PLAN).is_file()

    def __str__(self) -> str:
        return str(self.path)

    def unfinished(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        return [run for run in runs if self.status(run).state not in FINAL]

    def merged(self, *, append: bool = False) -> tuple[Sweep, list[PlannedRun]]:
        """Return the sweep as `write` would leave it, and the runs of this plan as they are numbered there.

        `plan.extended` explains `append`. Raises ConfigError as it does, and UserError where the folder has lost its
        plan and holds runs that are not of this one.
        """
        if not self.plan_file.exists():
            known = {run.folder_name for run in self.plan.runs}
            if strange := sorted(path.name for path in self.runs.glob("*") if path.name not in known):
                reason = f"its {PLAN} is missing, and runs/{strange[0]} is not of this command"
                remedy = f"give the one that made the sweep (after irmas.refine, restore {PLAN}), or another name"
                raise UserError(f"{self}: {reason}; {remedy}")
            return self, self.plan.runs
        # Until a run is trained, data that is mended and source that is edited mix nothing.
        has_begun = any(self.runs.glob(f"*/{CONFIG}"))
        plan, runs = extended(Sweep.open(self.path).plan, self.plan, append=append, has_begun=has_begun)
        return replace(self, plan=plan), runs

    def write(self, *, append: bool = False) -> tuple[Sweep, list[PlannedRun]]:
        """Write the plan, or extend the one that the folder holds; return and raise as `merged` does."""
        with locked(self.plan_lock):
            sweep, runs = self.merged(append=append)
            head = asdict(sweep.plan)
            head["runs"] = len(head.pop("runs"))
            lines = "".join(json.dumps(asdict(run)) + "\n" for run in sweep.plan.runs)
            # Runs first: a reader that sees plan.yaml sees all of them, and none beyond the number that it gives.
            atomic_write(self.runs_file, lines)
            atomic_write(self.plan_file, yaml.safe_dump(head, sort_keys=False))
        return sweep, runs

    def refuse_source(self, source: str) -> None:
        """Raise UserError where `source` is not the one that the sweep was planned with, nor allowed to change."""
        if source != self.plan.source and not self.plan.config.allow_code_change:
            reason = f"was planned with the package's source {self.plan.source}, which now is {source}"
            remedy = "restore that source, or rerun the command with allow_code_change=true or another name"
            raise UserError(f"{self}: {reason}; its runs would not be comparable: {remedy}")


def _read_runs(path: Path, total: int, ids: Sequence[int] | None) -> list[PlannedRun]:
    """Raise ValueError where a requested run is missing."""
    wanted = set(range(1, total + 1)) if ids is None else {number for number in ids if number <= total}
    with path.open() as file:
        numbered = enumerate(islice(file, max(wanted, default=0)), start=1)
        runs = [PlannedRun(**json.loads(line)) for number, line in numbered if number in wanted]
    if {run.id for run in runs} != wanted:
        raise ValueError(f"it lacks runs, {PLAN} has {total}")
    return runs


def _sweeps_beside(path: Path) -> str:
    sweeps = sorted(plan.parent.name for plan in path.absolute().parent.glob(f"*/{PLAN}"))
    if sweeps:
        return "sweeps: " + " ".join(str(path.parent / name) for name in sweeps)
    return "start one with python -m irmas.train, or wait while it makes its data"
