"""Rounds of `irmas.refine`: fresh seeds of a sweep's best points and neighbors of its leader, until it is decided."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count, islice, product
from typing import TYPE_CHECKING, Annotated, Any

from irmas.config import FLAG, FOLD, REPETITIONS, SWEEP_WIDE, Rule, check, one_of, shown, whole
from irmas.console import counted
from irmas.errors import UserError
from irmas.sweep.jobs import named_runs
from irmas.sweep.plan import Plan, PlannedRun, freeze

if TYPE_CHECKING:  # scipy takes half a second to import
    from irmas.results.analysis import Analysis

MANY = whole(1, 10_000)
POINTS = Rule(
    lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100,
    "a number from 0 to 100, in percentage points",
)
ROUNDS = 3
"""Rounds of full size that `until=decided` may take unless `runs=` sets a limit."""


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class Request:
    """The settings of `irmas.refine`."""

    candidates: Annotated[int, MANY] = _setting(
        3, "points to train again: the leader, and those with the smallest expected loss"
    )
    seeds: Annotated[int, MANY] = _setting(3, "fresh seeds of each of these points, on each fold where folds are swept")
    edges: Annotated[bool, FLAG] = _setting(
        False, "true: for each edge of the grid that the ranking names, train the leader's neighbor beyond it, too"
    )
    until: Annotated[str, one_of("none", "decided")] = _setting(
        "none", "decided: repeat rounds until one point is the best, or all of the best set are equally good"
    )
    loss: Annotated[float, POINTS] = _setting(
        0.5, "with until=decided: points are equally good if choosing any loses at most this much, in percentage points"
    )
    runs: Annotated[int | None, MANY] = _setting(
        None, f"with until=decided: most runs of all rounds together (default: {ROUNDS} * candidates * seeds * folds)"
    )
    dry_run: Annotated[bool, FLAG] = _setting(False, "true: show what would be trained, and write nothing")
    allow_code_change: Annotated[bool, FLAG] = _setting(False, "as in irmas.train")

    @property
    def is_repeated(self) -> bool:
        return self.until == "decided"

    def budget(self, plan: Plan) -> int:
        """Return the most runs that all rounds together may add to a sweep."""
        return ROUNDS * self.candidates * self.seeds * len(_folds(plan)) if self.runs is None else self.runs

    @property
    def overrides(self) -> list[str]:
        """Settings that differ from their defaults, as on a command line."""
        values = [(entry, getattr(self, entry.name)) for entry in fields(self)]
        return [f"{entry.name}={shown(value)}" for entry, value in values if value != entry.default]


# ---- when rounds end


def decided(analysis: Analysis, request: Request) -> str:
    """Return the reason for which no further round is needed; empty where one is."""
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
    """Return the message that a round with these runs exceeds the budget; empty where it does not."""
    used, budget = len(plan.refined), request.budget(plan)
    if not request.is_repeated or used + len(runs) <= budget:
        return ""
    return (
        f"not decided: {counted(len(analysis.best_set), 'point')} in the best set. Another round has {len(runs)} runs, "
        f"and {used} of runs={budget} are used; runs={used + len(runs)} or fewer candidates= allow it"
    )


def _beyond(analysis: Analysis) -> dict[str, Any]:
    """Return the values beyond the grid that are worth a try, by key."""
    return {effect.key: effect.beyond for effect in analysis.effects if effect.beyond is not None}


# ---- what a round trains


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

    Each of `points`, a run of which stands for it, gets the smallest seeds that no run of the sweep has, since those of
    the sweep have chosen the points; where folds are swept, on each of them, since a point is the mean over all. The
    leader, the first one, gets neighbors: its settings with one key's value replaced by that in `beyond`, with all the
    seeds that the leader then has.

    Raises ConfigError where a neighbor's settings do not fit together.
    """
    used = [int(run.changes.get("seed", plan.config.seed)) for run in plan.runs]
    fresh = list(islice((seed for seed in count() if seed not in used), seeds))
    leader = points[0]
    of_leader = {seed for run, seed in zip(plan.runs, used, strict=True) if _settings(run) == _settings(leader)}
    # Seed and fold vary slowest, so that points have equally many runs after an interruption.
    folds = _folds(plan)
    runs = [_with(plan, point, {"seed": seed} | fold) for seed in fresh for fold in folds for point in points]
    for seed, fold in product(sorted({*fresh, *of_leader}), folds):
        runs += [_with(plan, leader, {key: value, "seed": seed} | fold) for key, value in beyond.items()]
    known = {_settings(run, SWEEP_WIDE) for run in plan.runs}
    runs = [run for run in runs if _settings(run, SWEEP_WIDE) not in known]
    runs = [replace(run, id=number) for number, run in enumerate(runs, start=len(plan.runs) + 1)]
    for run in runs:
        check(plan.config_of(run))
    return runs


def with_round(plan: Plan, runs: Sequence[PlannedRun], name: str, *, allow_code_change: bool) -> Plan:
    """Return the plan with which a launcher trains `runs` as a round of the sweep `outputs/<name>`.

    Runs that the sweep holds already belong to an earlier round. Raises DataError where the data is gone.
    """
    added = [run for run in runs if run.id > len(plan.runs)]
    rounds = [*plan.rounds, [added[0].id, added[-1].id]] if added else plan.rounds
    config = replace(plan.config, allow_code_change=allow_code_change)
    whole = freeze(config, [*plan.runs, *added], name, plan.command, plan.space)
    return replace(whole, runs=list(runs), rounds=rounds)


def _folds(plan: Plan) -> list[dict[str, Any]]:
    """Return the setting of each fold of a sweep; of one that does not sweep them, a single mapping without any."""
    if FOLD not in plan.swept:
        return [{}]
    return [{FOLD: fold} for fold in sorted({plan.value(run, FOLD) for run in plan.runs})]


def _settings(run: PlannedRun, ignored: Collection[str] = SWEEP_WIDE.union(REPETITIONS)) -> str:
    """Return the settings that distinguish a point or, with those of a repetition, a run."""
    return str(sorted((key, value) for key, value in run.changes.items() if key not in ignored))


def _with(plan: Plan, run: PlannedRun, values: dict[str, Any]) -> PlannedRun:
    """Return a copy of a run with these settings and without halving, which would keep lucky seeds only."""
    base = plan.config.flat()
    changes = {key: value for key, value in (run.changes | values | {"halving": None}).items() if value != base[key]}
    return replace(run, id=0, overrides=run.overrides | values, changes=changes)
