"""What a round of `irmas.refine` adds to a plan: fresh seeds of points that it holds, and neighbors of the leader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import count, islice
from typing import Any

from irmas.config import SWEEP_WIDE, check, flatten
from irmas.sweep.plan import Plan, PlannedRun, freeze


def fresh_runs(plan: Plan, points: Sequence[PlannedRun], seeds: int, beyond: Mapping[str, Any]) -> list[PlannedRun]:
    """Return the runs of a round, numbered behind those of `plan`.

    They are `seeds` fresh seeds of each of these points, a run of each standing for it, and the neighbors of the first
    one, the leader: its settings with one key's value replaced by the one in `beyond`, and all the seeds that the
    leader then has. Raises ConfigError where a neighbor's settings do not fit together.
    """
    leader, fresh = points[0], fresh_seeds(plan, seeds)
    own = sorted({*fresh, *(_seed(plan, run) for run in plan.runs if _settings(run) == _settings(leader))})
    # The seed varies slowest, so that points have equally many seeds after an interruption.
    runs = [_with(plan, point, seed=seed) for seed in fresh for point in points]
    runs += [_with(plan, leader, **{key: value, "seed": seed}) for seed in own for key, value in beyond.items()]
    known = {str(_settings(run, seed=True)) for run in plan.runs}
    runs = [run for run in runs if str(_settings(run, seed=True)) not in known]
    runs = [replace(run, id=number) for number, run in enumerate(runs, start=len(plan.runs) + 1)]
    for run in runs:
        check(plan.config_of(run))
    return runs


def fresh_seeds(plan: Plan, number: int) -> list[int]:
    """Return the smallest seeds that no run of the sweep has, so that none of them has chosen a point."""
    used = {_seed(plan, run) for run in plan.runs}
    return list(islice((seed for seed in count() if seed not in used), number))


def extended(plan: Plan, runs: Sequence[PlannedRun], name: str, *, allow_code_change: bool) -> Plan:
    """Return what a launcher takes to train `runs` as a round of the sweep `outputs/<name>`; runs that the sweep holds
    already are no new round.

    Raises DataError where the data is gone.
    """
    added = [run for run in runs if run.id > len(plan.runs)]
    rounds = [*plan.rounds, [added[0].id, added[-1].id]] if added else plan.rounds
    config = replace(plan.config, allow_code_change=allow_code_change)
    whole = freeze(config, [*plan.runs, *added], name, plan.command)
    return replace(whole, runs=list(runs), rounds=rounds)


def _seed(plan: Plan, run: PlannedRun) -> int:
    return int(run.changes.get("seed", plan.config.seed))


def _settings(run: PlannedRun, *, seed: bool = False) -> list[tuple[str, Any]]:
    """Return what tells the settings of a run from those of others."""
    others = SWEEP_WIDE if seed else SWEEP_WIDE | {"seed"}
    return sorted((key, value) for key, value in run.changes.items() if key not in others)


def _with(plan: Plan, run: PlannedRun, **values: Any) -> PlannedRun:
    """Return a run of a point's settings but for these. It trains all its epochs: were it halved, only lucky seeds of
    a point would count."""
    base = flatten(asdict(plan.config))
    changes = {key: value for key, value in (run.changes | values | {"halving": None}).items() if value != base[key]}
    return replace(run, id=0, overrides=run.overrides | values, changes=changes)
