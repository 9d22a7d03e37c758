"""A sweep as a folder, outputs/<name>: its plan, its runs, and the name of every file in it.

`plan.yaml` holds the base configuration, what the sweep was made from and the number of its runs; line i of
`points.jsonl` is run i.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from irmas.config import flatten, from_flat
from irmas.errors import ConfigError, UserError, first_line
from irmas.files import atomic_write, is_shared, locked, reread
from irmas.provenance import source_digest
from irmas.run.folder import CONFIG, FINAL, RunFolder, Status
from irmas.sweep import source
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
    code = _Inside("code")
    """Folder of the copies of the package's source, one per digest, that train or have trained the runs."""
    rungs = _Inside("rungs")
    point_lock = _Inside(".point.lock")
    """Lock of the run that chooses its point."""
    pool_lock = _Inside(".pool")
    """File that each command holds while it trains runs of the sweep on this machine."""
    submit_lock = _Inside(".submit.lock")
    plan_lock = _Inside(".lock")
    plan_file = _Inside(PLAN)
    runs_file = _Inside(RUNS)
    ranking_csv = _Inside("ranking.csv")
    ranking_json = _Inside("ranking.json")
    curves_csv = _Inside("curves.csv")
    report = _Inside("report.md")
    page = _Inside("report.html")
    ranking_tex = _Inside("ranking.tex")
    results_tex = _Inside("results.tex")
    plots = _Inside("plots")
    summary = _Inside("summary")
    """Event files with the ranking's pictures, for TensorBoard."""
    best = _Inside(BEST)

    def run_folder(self, run: PlannedRun) -> RunFolder:
        """Return the folder of a run; it is named by ID alone where runs choose their points."""
        return RunFolder(self.runs / (f"{run.id:03d}" if self.plan.is_adaptive else run.folder_name))

    def with_point(self, run: PlannedRun) -> PlannedRun:
        """Return a run with the point that it has chosen, if it has. Raises UserError where its file is damaged."""
        point = self.run_folder(run).point() if self.plan.is_open(run) else None
        return run if point is None else replace(run, **point)

    def status(self, run: PlannedRun) -> Status:
        """Return the status of a run. Raises UserError where its file is damaged."""
        return self.run_folder(run).status()

    @classmethod
    def of(cls, plan: Plan) -> Sweep:
        """Return the sweep that a plan names, below the working directory."""
        return cls(OUTPUTS / plan.name, plan)

    @classmethod
    def open(cls, path: Path, ids: Sequence[int] | None = None) -> Sweep:
        """Read the plan of a folder, with the runs of these IDs only (default: all), and the points of these.

        Raises UserError where the folder holds no plan, or none that this version can read; OSError where it may not
        be read.
        """
        sweep = cls._planned(path, ids)
        return replace(sweep, plan=replace(sweep.plan, runs=[*map(sweep.with_point, sweep.plan.runs)]))

    @classmethod
    def _planned(cls, path: Path, ids: Sequence[int] | None = None) -> Sweep:
        """Return and raise as `open` does, without the points that runs have chosen."""
        file = path / PLAN
        try:
            head = yaml.safe_load(reread(file.read_text))
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

    def share(self) -> None:
        """Let the group write what this process and its jobs make, where it shares the folder (`files.is_shared`).

        Raises UserError where the folder is another user's and something in it cannot be read or written.
        """
        is_there = os.access(self.path, os.F_OK)
        if is_shared(self.path if is_there else self.path.parent):
            os.umask(os.umask(0) & ~0o070)
        if not is_there or self.path.stat().st_uid == os.getuid():
            return
        for path in (self.path, *self.path.rglob("*")):
            # Slurm chooses the mode of a job's output, which nothing else writes.
            if os.access(path, os.R_OK if path.parent == self.slurm else os.R_OK | os.W_OK):
                continue
            remedy = f"chgrp -R <group> {self} && chmod -R g+rwX {self} && find {self} -type d -exec chmod g+s {{}} +"
            reason = f"is another user's, and {path} cannot be read and written here"
            raise UserError(f"{self}: {reason}; its owner hands it over with: {remedy}")

    def unfinished(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        return [run for run in runs if self.status(run).state not in FINAL]

    def merged(self, *, append: bool = False) -> tuple[Sweep, list[PlannedRun]]:
        """Return the sweep as `write` would leave it, and the runs of this plan as they are numbered there.

        `plan.extended` explains `append`. Raises ConfigError as it does, and UserError where the folder has lost its
        plan and holds runs that are not of this one.
        """
        if not self.plan_file.exists():
            known = {self.run_folder(run).path.name for run in self.plan.runs}
            if strange := sorted(path.name for path in self.runs.glob("[!.]*") if path.name not in known):
                reason = f"its {PLAN} is missing, and runs/{strange[0]} is not of this command"
                remedy = f"give the one that made the sweep (after irmas.refine, restore {PLAN}), or another name"
                raise UserError(f"{self}: {reason}; {remedy}")
            return self, self.plan.runs
        old = Sweep._planned(self.path)
        # Until a run is trained, data that is mended mixes nothing, nor does source that is edited and has no copy.
        has_begun = any(self.runs.glob(f"*/{CONFIG}"))
        keeps_source = has_begun or old.copy is not None
        plan, runs = extended(old.plan, self.plan, append=append, has_begun=has_begun, keeps_source=keeps_source)
        return replace(self, plan=plan), runs

    def write(self, *, append: bool = False) -> tuple[Sweep, list[PlannedRun]]:
        """Write the plan, or extend the one that the folder holds; return and raise as `merged` does.

        A new source is copied too. A plan that keeps an older one gets no key that this one does not know.
        """
        with locked(self.plan_lock):
            sweep, runs = self.merged(append=append)
            head = asdict(sweep.plan)
            head["runs"] = len(head.pop("runs"))
            if sweep.copy is not None and sweep.plan.source != self.plan.source:
                head = _with_keys_of(yaml.safe_load(self.plan_file.read_text()), head)
            elif sweep.copy is None and sweep.plan.source == source_digest(sweep.plan.builders):
                source.keep(sweep.code / sweep.plan.source, sweep.plan.builders)
            lines = "".join(json.dumps(asdict(run)) + "\n" for run in sweep.plan.runs)
            # Runs first: a reader that sees plan.yaml sees all of them, and none beyond the number that it gives.
            atomic_write(self.runs_file, lines)
            atomic_write(self.plan_file, yaml.safe_dump(head, sort_keys=False))
        return sweep, runs

    @property
    def copy(self) -> Path | None:
        """The copy of the source that the plan names; None for a sweep that an earlier version has made."""
        path = self.code / self.plan.source
        return path if path.is_dir() else None

    def copy_for(self, present: str, runs: Sequence[PlannedRun]) -> Path | None:
        """Return the copy that trains these runs in place of the source `present`; None where that one trains them.

        Raises UserError where there is no copy, or a run has a setting that its source does not know.
        """
        if self.plan.source == present or self.plan.config.allow_code_change:
            return None
        if self.copy is None:
            raise self._refusal(present)
        source.refuse_unknown(self.copy, map(self.plan.config_of, runs))
        return self.copy

    def kept_source(self, present: str) -> list[str]:
        """Return the line which says that a copy trains the sweep in place of the source `present`, where one does."""
        if self.copy is None or self.plan.source == present:
            return []
        return [f"{self}: trains with the source of its submission, {self.plan.source}, not {present}; {source.REMEDY}"]

    def refuse_source(self, digest: str) -> None:
        """Raise UserError where this source is none that the sweep was given, nor allowed to change."""
        is_known = digest == self.plan.source or (self.code / digest).is_dir()
        if not is_known and not self.plan.config.allow_code_change:
            raise self._refusal(digest)

    def _refusal(self, digest: str) -> UserError:
        reason = f"was planned with the package's source {self.plan.source}, which now is {digest}"
        remedy = "restore that source, or rerun the command with allow_code_change=true or another name"
        if self.copy is not None:  # this process was started by hand
            remedy = f"take the sweep's copy with PYTHONPATH={self.copy} python -P -m ..., or {remedy}"
        return UserError(f"{self}: {reason}; its runs would not be comparable: {remedy}")


def _with_keys_of(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return nested mappings without the keys that `old` lacks."""
    known = {key: value for key, value in new.items() if key in old}
    return {key: _with_keys_of(old[key], value) if isinstance(value, dict) else value for key, value in known.items()}


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
