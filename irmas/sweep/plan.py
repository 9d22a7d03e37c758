"""The plan of a sweep: one base configuration and each point's differences, composed once and frozen on disk.

`outputs/<name>/plan.yaml` holds the base, what the sweep was made from and the number of its runs; line i of
`points.jsonl` is run i.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from irmas.config import NEUTRAL, OF_THE_COMMAND, Config, flatten, from_flat, shown
from irmas.errors import ConfigError, UserError, first_line
from irmas.files import atomic_write, locked
from irmas.run.folder import CONFIG, RunFolder

OUTPUTS = Path("outputs")
POOL = ".pool"
"""In a sweep's folder: held by each command that trains its runs on this machine."""
PLAN = "plan.yaml"
POINTS = "points.jsonl"
REMEDY = f"restore it, or remove {PLAN} and give the sweep's command again, which goes on with the runs that are there"


@dataclass(frozen=True)
class Point:
    """One combination of the swept values: `overrides` as they were written, `changes` to the flat base settings."""

    id: int
    overrides: dict[str, Any]
    changes: dict[str, Any]

    @property
    def folder_name(self) -> str:
        """`008-dropout=0.4,lr=0.001,l2=0.0001`, at most 120 characters long (a file name may have 255 bytes)."""
        text = ",".join(f"{key}={shown(value)}" for key, value in self.overrides.items())
        text = "".join(c if c.isascii() and (c.isalnum() or c in "._+=,-") else "_" for c in text)
        if len(text) > 116:
            text = text[:107] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.id:03d}-{text}" if text else f"{self.id:03d}"


@dataclass(frozen=True)
class Plan:
    """A sweep: its points and everything that they share."""

    name: str
    swept: list[str]
    """The swept keys in the order of the command line."""
    data: str
    """Digest of the data set's content."""
    source: str
    """Digest of the package's source: its runs are trained by no other, unless the configuration allows it."""
    commit: str
    """With `+` where files differed from it; empty for an installed package."""
    config: Config
    points: list[Point] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    """Overrides of the command that made it, as they were typed; empty in plans of earlier versions."""
    rounds: list[list[int]] = field(default_factory=list)
    """First and last run of each round of `irmas.refine`."""

    @property
    def refined(self) -> set[int]:
        """Runs that rounds of `irmas.refine` added."""
        return {number for first, last in self.rounds for number in range(first, last + 1)}

    def config_of(self, point: Point) -> Config:
        return from_flat(flatten(asdict(self.config)) | point.changes)

    def variants(self, *groups: str) -> list[Config]:
        """One configuration for each combination of these groups' settings that occurs, in the points' order."""
        prefixes = tuple(f"{group}." for group in groups)
        firsts: dict[str, Point] = {}
        for point in self.points:
            firsts.setdefault(str([item for item in point.changes.items() if item[0].startswith(prefixes)]), point)
        return [self.config_of(point) for point in firsts.values()]

    def value(self, point: Point, key: str) -> Any:
        """A swept key's value at a point; for a group its option's name."""
        return point.overrides[key] if key in point.overrides else flatten(asdict(self.config)).get(key)


def run_folder(sweep: Path, point: Point) -> RunFolder:
    return RunFolder(sweep / "runs" / point.folder_name)


def expand(
    base: Config, job_overrides: Sequence[Mapping[str, str]], change: Callable[[Mapping[str, str]], Mapping[str, Any]]
) -> list[Point]:
    """Points numbered from 1. `change` gives the flat settings, and their values, that overrides set: of one setting,
    or of all groups of a point, since one may choose another's option.

    Each distinct override is composed once, however many points it stands in. Groups come before single
    settings, so that `model=deep model.dense=128` means what it says.
    """
    flat_base = flatten(asdict(base))
    changes: dict[tuple[tuple[str, str], ...], Mapping[str, Any]] = {}
    points = []
    for number, overrides in enumerate(job_overrides, start=1):
        flat: dict[str, Any] = {}
        groups = tuple((key, text) for key, text in overrides.items() if key not in flat_base)
        for together in [groups, *(((key, text),) for key, text in overrides.items() if key in flat_base)]:
            if together not in changes:
                changes[together] = change(dict(together)) if together else {}
            flat.update(changes[together])
        named = {key: flat[key] if key in flat_base else text for key, text in overrides.items()}
        points.append(Point(number, named, {key: value for key, value in flat.items() if value != flat_base[key]}))
    return points


def default_name(plan: Plan) -> str:
    """Swept keys and a digest of plan and data: the same command finds its own sweep, no other one does."""
    flat = {key: value for key, value in flatten(asdict(plan.config)).items() if key not in NEUTRAL}
    changes = [point.changes for point in plan.points]
    digest = hashlib.sha256(json.dumps([flat, changes, plan.data], sort_keys=True).encode()).hexdigest()[:8]
    keys = "-".join(key.rpartition(".")[2].rpartition("/")[2] for key in plan.swept) or "single"
    return f"{keys[:60]}-{digest}"


def write(folder: Path, plan: Plan, *, append: bool = False) -> tuple[Plan, list[Point]]:
    """Write the plan, or extend the one that the folder holds.

    Returns what the folder then holds, and the points of `plan` in their order as they are numbered there.

    Old points keep their numbers and new ones follow. Unless `append` (a sweeper that proposes points in
    batches, or a round of `irmas.refine`) the new grid must contain the old one, but for the runs that rounds have
    added; these are then returned too, behind the points of `plan`.

    Raises ConfigError, naming the key, where the folder's plan differs in anything else.
    """
    with locked(folder / ".lock"):
        plan, asked = merged(folder, plan, append=append)
        head = asdict(plan)
        head["runs"] = len(head.pop("points"))
        lines = "".join(json.dumps(asdict(point)) + "\n" for point in plan.points)
        # Points first: whoever sees plan.yaml sees all of them, and none beyond the number that it tells.
        atomic_write(folder / POINTS, lines)
        atomic_write(folder / PLAN, yaml.safe_dump(head, sort_keys=False))
    return plan, asked


def merged(folder: Path, plan: Plan, *, append: bool = False) -> tuple[Plan, list[Point]]:
    """What `write` would write and return. Raises ConfigError as `write` does, and UserError where the folder has lost
    its plan and holds runs that are not of this one."""
    if not (folder / PLAN).exists():
        known = {point.folder_name for point in plan.points}
        if strange := sorted(path.name for path in (folder / "runs").glob("*") if path.name not in known):
            raise UserError(
                f"{folder}: its {PLAN} is missing, and runs/{strange[0]} is not of this command; "
                "give the one that made the sweep, or another name"
            )
        return plan, plan.points
    return _extended(read(folder), plan, append, _has_begun(folder))


def refuse_source(folder: Path, plan: Plan, source: str) -> None:
    """Raise UserError where runs of `plan` would be trained by another source of the package than it was made with."""
    if source != plan.source and not plan.config.allow_code_change:
        raise UserError(
            f"{folder}: was planned with the package's source {plan.source}, which now is {source}; its runs would not "
            "be comparable: restore that source, or give the same command with allow_code_change=true, or another name"
        )


def _has_begun(folder: Path) -> bool:
    """Whether a run was trained: until then, data that is mended and source that is edited mix nothing."""
    return any((folder / "runs").glob(f"*/{CONFIG}"))


def read(folder: Path, ids: Sequence[int] | None = None) -> Plan:
    """The plan that a sweep's folder holds, with the points of these ids only (default: all).

    Raises UserError where the folder holds no plan, or none that this version can read; OSError where it may not be
    read.
    """
    path = folder / PLAN
    try:
        head = yaml.safe_load(path.read_text())
        total, config = int(head.pop("runs")), from_flat(flatten(head.pop("config")))
        plan = Plan(**head, config=config)
        path = folder / POINTS
        return replace(plan, points=_read_points(path, total, ids))
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = Path(str(error.filename)).name
        remedy = REMEDY if missing == POINTS else _sweeps_beside(folder)
        raise UserError(f"{folder}: no sweep is here ({missing} is missing); {remedy}") from None
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError, ConfigError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{path}: is damaged or from another version ({reason}); {REMEDY}") from error


def _read_points(path: Path, total: int, ids: Sequence[int] | None) -> list[Point]:
    """Raises ValueError where one that is asked for is not there."""
    wanted = set(range(1, total + 1)) if ids is None else {number for number in ids if number <= total}
    with path.open() as file:
        numbered = enumerate(islice(file, max(wanted, default=0)), start=1)
        points = [Point(**json.loads(line)) for number, line in numbered if number in wanted]
    if {point.id for point in points} != wanted:
        raise ValueError(f"it lacks runs, {PLAN} tells of {total}")
    return points


def _sweeps_beside(folder: Path) -> str:
    sweeps = sorted(str(path.parent) for path in folder.absolute().parent.glob(f"*/{PLAN}"))
    return (
        "sweeps: " + " ".join(f"{folder.parent / Path(sweep).name}" for sweep in sweeps)
        if sweeps
        else "start one with python -m irmas.train, or wait while it makes its data"
    )


def _extended(old: Plan, new: Plan, append: bool, begun: bool) -> tuple[Plan, list[Point]]:
    """`old` with the points of `new` that it lacks; and the points of `new`."""
    flat_old, flat_new = flatten(asdict(old.config)), flatten(asdict(new.config))
    swept = {key for point in [*old.points, *new.points] for key in point.changes} - OF_THE_COMMAND
    for key in flat_old:
        if key not in NEUTRAL | swept and flat_old[key] != flat_new[key]:
            raise ConfigError(
                key,
                shown(flat_new[key]),
                f"sweep {old.name} was made with {key}={shown(flat_old[key])}; give that, or another name",
            )
    if begun and old.data != new.data:
        raise ConfigError(
            "data",
            new.config.data.cache or new.config.data.root,
            f"sweep {old.name} was made from other data, or another list for data.split or data.recordings "
            f"(digest {old.data}, now {new.data}); give another name",
        )
    keys = sorted(swept)

    def identity(flat: Mapping[str, Any], point: Point) -> str:
        return json.dumps([point.changes.get(key, flat[key]) for key in keys])

    known = {identity(flat_old, point): point for point in old.points}
    proposed = {identity(flat_new, point): point for point in new.points}
    left_out = [] if append else [point for key, point in known.items() if key not in proposed]
    for missing in (point for point in left_out if point.id not in old.refined):
        values = missing.overrides | {
            key: flat_old[key] for key in new.swept if key in flat_old.keys() - missing.overrides
        }
        text = " ".join(f"{key}={shown(value)}" for key, value in values.items()) or "its single run"
        raise ConfigError(
            "name",
            old.name,
            f"that sweep holds {text}, which this command does not; "
            "a sweep only grows: keep its values, or give another name",
        )
    points = list(old.points)
    for key, point in proposed.items():
        if key not in known:
            full = flat_new | point.changes
            changes = {k: full[k] for k in flat_old if (k in swept or k not in NEUTRAL) and full[k] != flat_old[k]}
            known[key] = replace(point, id=len(points) + 1, changes=changes)
            points.append(known[key])
    config = from_flat(flat_old | {key: flat_new[key] for key in NEUTRAL - {"name"}})
    made_by = old if begun and not new.config.allow_code_change else new
    new = replace(new, source=made_by.source, commit=made_by.commit)
    rounds = list(old.rounds)
    if len(new.rounds) > len(old.rounds) and len(points) > len(old.points):
        rounds.append([len(old.points) + 1, len(points)])
    plan = replace(new, swept=list(dict.fromkeys(old.swept + new.swept)), config=config, points=points, rounds=rounds)
    return plan, [*(known[key] for key in proposed), *left_out]
