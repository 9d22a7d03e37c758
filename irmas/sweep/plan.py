"""The plan of a sweep: a base configuration and the differences of each run, composed once and numbered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from irmas import provenance
from irmas.config import SWEEP_WIDE, WITHOUT_EFFECT, Config, from_flat, shown
from irmas.errors import ConfigError


@dataclass(frozen=True)
class PlannedRun:
    """A run to be trained: `overrides` as they were typed, `changes` to the flat base configuration."""

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
    """The runs of a sweep and everything that they share."""

    name: str
    swept: list[str]
    """Swept keys in the order of the command line."""
    data: str
    """Digest of the content of the data set."""
    source: str
    """Digest of the source that trains the runs, and the name of its copy; `allow_code_change` takes another one."""
    commit: str
    """Git commit, with `+` where files differ from it; empty for an installed package."""
    config: Config
    runs: list[PlannedRun] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    """Overrides of the command that made the sweep, as they were typed; empty in plans of earlier versions."""
    rounds: list[list[int]] = field(default_factory=list)
    """First and last run of each round of `irmas.refine`."""
    builders: list[str] = field(default_factory=list)
    """Builders of the runs' nets, whose source belongs to that of the sweep."""
    space: dict[str, str] = field(default_factory=dict)
    """Intervals and lists from which `search` drew the points, as they were typed, by key; empty without a search."""
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Arguments of the `adaptive.Interval` of each key that has one; empty unless runs choose their points."""
    options: list[dict[str, Any]] = field(default_factory=list)
    """Listed values from which runs choose: overrides, typed, and what they change of the base configuration."""

    @property
    def is_adaptive(self) -> bool:
        """True where each run chooses its point when it starts, and writes it to its folder."""
        return self.config.search.method == "tpe"

    def is_open(self, run: PlannedRun) -> bool:
        """Return whether a run is still to choose its point."""
        return self.is_adaptive and not self.space.keys() <= run.overrides.keys()

    @property
    def chosen(self) -> set[str]:
        """Settings in which the points differ that runs choose; empty where they do not choose."""
        return {key for option in self.options for key in option["changes"]}

    @property
    def searched(self) -> str:
        """The overrides that make the points of a search; empty without one."""
        search = self.config.search
        head = f"search={search.method} search.runs={search.runs} search.seed={search.seed} "
        return head + _overrides(self.space) if self.space else ""

    @property
    def refined(self) -> set[int]:
        """IDs of the runs that rounds of `irmas.refine` added."""
        return {number for first, last in self.rounds for number in range(first, last + 1)}

    def config_of(self, run: PlannedRun) -> Config:
        return from_flat(self.config.flat() | run.changes)

    def variants(self, *groups: str) -> list[Config]:
        """Return one configuration for each combination of these groups' settings, in the order of the runs."""
        prefixes = tuple(f"{group}." for group in groups)
        firsts: dict[str, PlannedRun] = {}
        for run in self.runs:
            firsts.setdefault(str([item for item in run.changes.items() if item[0].startswith(prefixes)]), run)
        return [self.config_of(run) for run in firsts.values()]

    def value(self, run: PlannedRun, key: str) -> Any:
        """Return the value of a swept key in a run; of a group, the name of its option, or `-` where none is chosen.

        A run that is still to choose its point has `-`, too.
        """
        if key in self.space and self.is_open(run):
            return "-"
        return run.overrides[key] if key in run.overrides else (self.config.flat() | run.changes).get(key, "-")


def freeze(
    base: Config,
    runs: Sequence[PlannedRun],
    name: str | None,
    command: Sequence[str] = (),
    space: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan of these runs under `name`, that of the configuration, or one made from the swept keys.

    A search drew the points of the runs from `space`.

    Raises DataError where the data of a run is absent and cannot be rendered.
    """
    from irmas.data import dataset  # imports numpy, which tasks of an array read plans without

    swept = list(dict.fromkeys([*(key for run in runs for key in run.overrides), *(space or {})]))
    names = {run.changes.get("model.builder", base.model.builder) for run in runs} - {None}
    builders = sorted(map(str, names))
    source, commit, folder = provenance.source_digest(builders), provenance.git_commit(), name or base.name or ""
    plan = Plan(folder, swept, "", source, commit, base, list(runs), list(command), [], builders, dict(space or {}))
    if builders:
        from irmas.learning.own import check

        for config in plan.variants("model", "features", "data"):
            check(config)
    plan = replace(plan, data="-".join(dict.fromkeys(dataset.digest(config.data) for config in plan.variants("data"))))
    return replace(plan, name=plan.name or _default_name(plan))


def _default_name(plan: Plan) -> str:
    """Return swept keys and a digest of plan and data: rerunning a command finds its sweep, no other command does."""
    flat = {key: value for key, value in plan.config.flat().items() if key not in WITHOUT_EFFECT}
    runs = plan.searched if plan.is_adaptive else [run.changes for run in plan.runs]
    digest = hashlib.sha256(json.dumps([flat, runs, plan.data], sort_keys=True).encode()).hexdigest()[:8]
    keys = "-".join(key.rpartition(".")[2].rpartition("/")[2] for key in plan.swept) or "single"
    return f"{keys[:60]}-{digest}"


def expand(
    base: Config, job_overrides: Sequence[Mapping[str, str]], change: Callable[[Mapping[str, str]], Mapping[str, Any]]
) -> list[PlannedRun]:
    """Return planned runs, numbered from 1, with the settings that their overrides change of `base`.

    `change` returns the flat settings that overrides set: those of one setting, or of all groups of a run together,
    since a group may choose another's option. Each distinct override is composed once, however many runs have it.
    Groups come before single settings, so that `model=deep model.dense=128` means what it says.
    """
    flat_base = base.flat()
    changes: dict[tuple[tuple[str, str], ...], Mapping[str, Any]] = {}
    runs = []
    for number, overrides in enumerate(job_overrides, start=1):
        flat: dict[str, Any] = {}
        groups = tuple((key, text) for key, text in overrides.items() if key not in flat_base)
        for together in [groups, *(((key, text),) for key, text in overrides.items() if key in flat_base)]:
            if together not in changes:
                changes[together] = change(dict(together)) if together else {}
            flat.update(changes[together])
        named = {key: flat[key] if key in flat_base else text for key, text in overrides.items()}
        runs.append(PlannedRun(number, named, {key: value for key, value in flat.items() if value != flat_base[key]}))
    return runs


def extended(
    old: Plan, new: Plan, *, append: bool, has_begun: bool, keeps_source: bool
) -> tuple[Plan, list[PlannedRun]]:
    """Return `old` with the runs of `new` that it lacks, and the runs of `new` as they are numbered there.

    Old runs keep their numbers and new ones follow. Unless `append` (a sweeper that proposes runs in batches, or a
    round of `irmas.refine`), `new` must contain the runs of `old`, except those that rounds added: these are returned
    too, behind the runs of `new`. Where a run `has_begun`, the data must be that of `old`. A plan that `keeps_source`
    has that of `old`, unless `new` allows a change.

    Raises ConfigError, naming the key, where the plans differ in anything else.
    """
    swept = {key for run in [*old.runs, *new.runs] for key in run.changes} - SWEEP_WIDE
    _refuse_other_settings(old, new, swept)
    if has_begun and old.data != new.data:
        data, digests = new.config.data, f"digest {old.data}, now {new.data}"
        reason = f"sweep {old.name} was made from other data or another list of data.split, data.recordings ({digests})"
        raise ConfigError("data", data.cache or data.root, f"{reason}; give another name")
    known, proposed = _by_settings(old, swept), _by_settings(new, swept)
    absent = [] if append else [run for settings, run in known.items() if settings not in proposed]
    _refuse_missing_runs(old, new, [run for run in absent if run.id not in old.refined])
    unknown = [settings for settings in proposed if settings not in known]
    added = _numbered(old, new, [proposed[settings] for settings in unknown], swept)
    known |= zip(unknown, added, strict=True)
    rounds = [*old.rounds]
    if len(new.rounds) > len(old.rounds) and added:
        rounds.append([added[0].id, added[-1].id])
    source = old if keeps_source and not new.config.allow_code_change else new
    if unknown := [builder for builder in new.builders if builder not in source.builders]:
        reason = f"sweep {old.name} keeps the source of its submission, which lacks it"
        raise ConfigError("model.builder", unknown[0], f"{reason}; allow_code_change=true or another name takes it")
    flat_new = new.config.flat()
    if new.config.note is None:
        flat_new["note"] = old.config.note
    plan = replace(
        new,
        swept=list(dict.fromkeys(old.swept + new.swept)),
        source=source.source,
        builders=sorted({*old.builders, *new.builders}),
        commit=source.commit,
        config=from_flat(old.config.flat() | {key: flat_new[key] for key in WITHOUT_EFFECT - {"name"}}),
        runs=[*old.runs, *added],
        rounds=rounds,
        intervals=old.intervals,
        options=old.options,
    )
    return plan, [*(known[settings] for settings in proposed), *absent]


def _by_settings(plan: Plan, swept: set[str]) -> dict[str, PlannedRun]:
    """Return the runs by the values of these keys; those that choose their points by a number, from 1."""
    flat, keys, numbers = plan.config.flat(), sorted(swept), count(1)
    return {
        f"{next(numbers)}" if plan.is_open(run) else json.dumps([run.changes.get(key, flat[key]) for key in keys]): run
        for run in plan.runs
    }


def _numbered(old: Plan, new: Plan, runs: Sequence[PlannedRun], swept: set[str]) -> list[PlannedRun]:
    """Return runs of `new` behind those of `old`, with their changes to the base of `old`."""
    flat_old, flat_new = old.config.flat(), new.config.flat()
    numbered = []
    for number, run in enumerate(runs, start=len(old.runs) + 1):
        full, keys = flat_new | run.changes, flat_old.keys() - (WITHOUT_EFFECT - swept)
        changes = {key: full[key] for key in flat_old if key in keys and full[key] != flat_old[key]}
        numbered.append(replace(run, id=number, changes=changes))
    return numbered


def _refuse_other_settings(old: Plan, new: Plan, swept: set[str]) -> None:
    flat_old, flat_new = old.config.flat(), new.config.flat()
    for key in flat_old:
        is_free = key in (WITHOUT_EFFECT - {"search.method", "search.seed"}) | swept
        if not is_free and flat_old[key] != flat_new[key]:
            reason = f"sweep {old.name} was made with {key}={shown(flat_old[key])}"
            raise ConfigError(key, shown(flat_new[key]), f"{reason}; give that, or another name")
    if old.space != new.space:
        reason = f"that sweep searches {_overrides(old.space)}, and this command {_overrides(new.space)}"
        raise ConfigError("name", old.name, f"{reason}; give the same intervals and lists, or another name")
    fewer, before = new.config.search.runs, old.config.search.runs
    if fewer and before and fewer < before:
        raise ConfigError("search.runs", fewer, f"sweep {old.name} has {before}, and only grows; or give another name")


def _overrides(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={text}" for key, text in values.items())


def _refuse_missing_runs(old: Plan, new: Plan, missing: Sequence[PlannedRun]) -> None:
    if not missing:
        return
    flat_old, overrides = old.config.flat(), missing[0].overrides
    values = overrides | {key: flat_old[key] for key in new.swept if key in flat_old.keys() - overrides}
    text = " ".join(f"{key}={shown(value)}" for key, value in values.items()) or "its single run"
    reason = f"that sweep holds {text}, which this command does not"
    raise ConfigError("name", old.name, f"{reason}; a sweep only grows: keep its values, or give another name")
