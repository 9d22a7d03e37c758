"""Rounds of `irmas.refine`: fresh seeds of a sweep's best points and neighbors of its leader, until it is decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from irmas.config import SWEEP_WIDE, check, shown
from irmas.errors import UserError
from irmas.results.page import counted
from irmas.run.folder import FINAL
from irmas.sweep.jobs import named_runs
from irmas.sweep.plan import Plan, PlannedRun, freeze
from irmas.sweep.run_states import RunState, SweepState

if TYPE_CHECKING:  # scipy takes half a second to import
    from irmas.results.analysis import Analysis

MOST = 10_000
ROUNDS = 3
"""Rounds of full size that `until=decided` may take unless `runs=` says otherwise."""


def _whole(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= MOST):
        raise ValueError(text)
    return int(text)


def _percentage_points(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(text)
    return value


def _setting(default: object, parse: Callable[[str], Any], allowed: str, text: str) -> Any:
    """Return a field; `parse` reads its value, and raises ValueError or KeyError where it is not `allowed`."""
    return field(default=default, metadata={"parse": parse, "allowed": allowed, "text": text})


WHOLE = _whole, f"a whole number from 1 to {MOST}"
BOOLEAN = {"true": True, "false": False}.__getitem__, "true or false"


@dataclass(frozen=True)
class Request:
    """The settings of `irmas.refine`."""

    candidates: int = _setting(
        3, *WHOLE, "points to train again: the leader, and those with the smallest expected loss"
    )
    seeds: int = _setting(3, *WHOLE, "fresh seeds of each of these points")
    edges: bool = _setting(
        False,
        *BOOLEAN,
        "true: train the leader's neighbors too, one for each edge of the grid that the ranking names, with as many "
        "seeds as the leader then has; the sweep is not decided while an edge is named",
    )
    until: str = _setting(
        "none",
        {"none": "none", "decided": "decided"}.__getitem__,
        "none or decided",
        "decided: repeat rounds until one point is known to be the best, or choosing any point of the best set loses "
        "at most loss=",
    )
    loss: float = _setting(
        0.5,
        _percentage_points,
        "a number from 0, in percentage points",
        "with until=decided: expected loss of accuracy in percentage points",
    )
    runs: int | None = _setting(
        None,
        *WHOLE,
        "with until=decided: most runs that all rounds of this sweep together may add "
        f"(default: {ROUNDS} * candidates * seeds)",
    )
    dry_run: bool = _setting(False, *BOOLEAN, "true: show what would be trained, and write nothing")
    allow_code_change: bool = _setting(False, *BOOLEAN, "as in irmas.train")

    @property
    def is_repeated(self) -> bool:
        return self.until == "decided"

    @property
    def budget(self) -> int:
        return ROUNDS * self.candidates * self.seeds if self.runs is None else self.runs

    @property
    def overrides(self) -> list[str]:
        """The settings that differ from their defaults, as on a command line."""
        values = {entry.name: (getattr(self, entry.name), entry.default) for entry in fields(self)}
        return [f"{key}={shown(value)}" for key, (value, default) in values.items() if value != default]


# ---- when rounds end


def decided(analysis: Analysis, request: Request) -> str:
    """Return why no further round is needed; empty where one is."""
    best = analysis.best_set
    if request.edges and _beyond(analysis):
        return ""
    if analysis.is_decided:
        values = " ".join(f"{key}={shown(value)}" for key, value in best[0].values.items())
        return f"decided: {values} ({named_runs(best[0].runs)}) is the only point of the best set"
    losses = [math.inf if point.expected_loss is None else 100 * point.expected_loss for point in best]
    if request.is_repeated and len(best) > 1 and max(losses) <= request.loss:
        return (
            f"decided: {len(best)} points are in the best set, and choosing any of them loses at most "
            f"{max(losses):.2f} percentage points (expected; loss={request.loss:g})"
        )
    return ""


def spent(plan: Plan, analysis: Analysis, request: Request, runs: Sequence[PlannedRun]) -> str:
    """Return why a round with these runs exceeds the budget; empty where it does not."""
    used = len(plan.refined)
    if not request.is_repeated or used + len(runs) <= request.budget:
        return ""
    return (
        f"not decided: {counted(len(analysis.best_set), 'point')} in the best set. Another round has {len(runs)} runs, "
        f"and {used} of runs={request.budget} are used; runs={used + len(runs)} or fewer candidates= allow it"
    )


def _beyond(analysis: Analysis) -> dict[str, Any]:
    """Return the values beyond the grid that are worth a try, by key."""
    return {effect.key: effect.beyond for effect in analysis.effects if effect.beyond is not None}


# ---- what a round trains


def unfinished(states: Iterable[RunState]) -> list[RunState]:
    return [run for run in states if run.status.state not in FINAL]


def interrupted(state: SweepState) -> list[PlannedRun]:
    """Return all runs of the rounds that have unfinished ones."""
    plan = state.sweep.plan
    ids = {run.planned.id for run in unfinished(state.runs)}
    rounds = [range(first, last + 1) for first, last in plan.rounds]
    return [plan.runs[number - 1] for numbers in rounds if ids.intersection(numbers) for number in numbers]


def next_round(plan: Plan, analysis: Analysis, request: Request) -> list[PlannedRun]:
    """Return the runs of the next round. Raises UserError where the points cannot be compared."""
    chosen = analysis.candidates(request.candidates)
    if len(analysis.best_set) == 1 and not analysis.is_decided:
        if analysis.unpaired:
            raise UserError(f"{plan.name}: {analysis.unpaired}")
        # Without training noise nothing can be compared: seeds show it.
        chosen = list(analysis.points[: request.candidates])
    points = [plan.runs[point.runs[0] - 1] for point in chosen]
    return fresh_runs(plan, points, request.seeds, _beyond(analysis) if request.edges else {})


def fresh_runs(plan: Plan, points: Sequence[PlannedRun], seeds: int, beyond: Mapping[str, Any]) -> list[PlannedRun]:
    """Return the runs of a round, numbered behind those of `plan`.

    They are `seeds` fresh seeds of each of these points, a run of each standing for it, and the neighbors of the first
    one, the leader: its settings with one key's value replaced by the one in `beyond`, and all the seeds that the
    leader then has. Raises ConfigError where a neighbor's settings do not fit together.
    """
    leader, fresh = points[0], _fresh_seeds(plan, seeds)
    own = sorted({*fresh, *(_seed(plan, run) for run in plan.runs if _settings(run) == _settings(leader))})
    # The seed varies slowest, so that points have equally many seeds after an interruption.
    runs = [_with(plan, point, seed=seed) for seed in fresh for point in points]
    runs += [_with(plan, leader, **{key: value, "seed": seed}) for seed in own for key, value in beyond.items()]
    known = {_settings(run, with_seed=True) for run in plan.runs}
    runs = [run for run in runs if _settings(run, with_seed=True) not in known]
    runs = [replace(run, id=number) for number, run in enumerate(runs, start=len(plan.runs) + 1)]
    for run in runs:
        check(plan.config_of(run))
    return runs


def extended(plan: Plan, runs: Sequence[PlannedRun], name: str, *, allow_code_change: bool) -> Plan:
    """Return the plan with which a launcher trains `runs` as a round of the sweep `outputs/<name>`.

    Runs that the sweep holds already are no new round. Raises DataError where the data is gone.
    """
    added = [run for run in runs if run.id > len(plan.runs)]
    rounds = [*plan.rounds, [added[0].id, added[-1].id]] if added else plan.rounds
    config = replace(plan.config, allow_code_change=allow_code_change)
    whole = freeze(config, [*plan.runs, *added], name, plan.command)
    return replace(whole, runs=list(runs), rounds=rounds)


def _fresh_seeds(plan: Plan, number: int) -> list[int]:
    """Return the smallest seeds that no run of the sweep has, so that none of them has chosen a point."""
    used = {_seed(plan, run) for run in plan.runs}
    return list(islice((seed for seed in count() if seed not in used), number))


def _seed(plan: Plan, run: PlannedRun) -> int:
    return int(run.changes.get("seed", plan.config.seed))


def _settings(run: PlannedRun, *, with_seed: bool = False) -> str:
    """Return the settings that tell a run from others."""
    ignored = SWEEP_WIDE if with_seed else SWEEP_WIDE | {"seed"}
    return str(sorted((key, value) for key, value in run.changes.items() if key not in ignored))


def _with(plan: Plan, run: PlannedRun, **values: Any) -> PlannedRun:
    """Return a run of a point's settings but for these, which trains all its epochs.

    Were it halved, only lucky seeds of a point would count.
    """
    base = plan.config.flat()
    changes = {key: value for key, value in (run.changes | values | {"halving": None}).items() if value != base[key]}
    return replace(run, id=0, overrides=run.overrides | values, changes=changes)
