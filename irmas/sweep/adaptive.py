"""The points of `search=tpe`: each run chooses its own when it starts, from what the others have reached by then.

There is no server, no driver and no journal, which a killed process could damage: each run makes Optuna's study from
the folders of the others, under a lock that the kernel frees when its holder dies. A run writes its point to its own
folder before it trains, and keeps it after a restart. Runs that train or have failed count as bad ("constant liar"), so
that others choose points away from theirs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from irmas.config import Search, shown
from irmas.errors import UserError
from irmas.files import locked
from irmas.run.events import RANKED
from irmas.run.folder import COMPLETED, DIVERGED, PRUNED, RUNNING, RunFolder, Status
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.sweep import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

DIGITS = (3, 4, 5, 6, 17)
"""Significant digits of a chosen number: as few as keep its point from repeating an earlier one."""
ATTEMPTS = 20
"""Points of TPE that may repeat earlier ones before random points are tried: it prefers few values of a small space."""


@dataclass(frozen=True)
class Interval:
    """Numbers between two ends, both included."""

    low: float
    high: float
    is_log: bool
    """True where equal factors, not equal differences, are equally likely."""
    is_whole: bool

    @property
    def size(self) -> float:
        """Number of the values."""
        return self.high - self.low + 1 if self.is_whole else math.inf

    def rounded(self, exact: float, digits: int) -> float:
        """Return the nearest number in the interval with this many significant digits."""
        inside = min(max(float(f"{exact:.{digits}g}"), self.low), self.high)
        return round(inside) if self.is_whole else float(inside)


@dataclass(frozen=True)
class Trial:
    """A point that another run has chosen, and what came of it."""

    values: Mapping[str, Any]
    state: str = RUNNING
    epoch: int = 0
    accuracy: float | None = None
    """The ranked accuracy of that epoch; None where it is unknown."""


def refuse_without_optuna() -> None:
    """Raise UserError where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise UserError("search=tpe: needs Optuna: pip install 'irmas[search]'")


def with_point(folder: RunFolder, sweep: Sweep, run: PlannedRun) -> PlannedRun:
    """Return a run with its point; one that is still to choose it does so, and writes it to its folder.

    Raises UserError where Optuna is not installed or a point of the sweep is damaged; LeaseLost and OSError.
    """
    run = sweep.with_point(run)  # an earlier start may have chosen since the plan was read
    if not sweep.plan.is_open(run):
        return run
    refuse_without_optuna()
    import_module("optuna.samplers")  # takes seconds, for which no other run has to wait
    with locked(sweep.point_lock):
        chosen = Sweep.open(sweep.path)
        others = [other for other in chosen.plan.runs if other.id not in chosen.plan.refined]
        trials = [_trial(chosen, other) for other in others if not chosen.plan.is_open(other)]
        values = choose(space(sweep.plan), trials, sweep.plan.config.search, run.id)
        folder.write_point(point(sweep.plan, run, values))
    return sweep.with_point(run)


def _trial(sweep: Sweep, run: PlannedRun) -> Trial:
    values, status = {key: run.overrides[key] for key in sweep.plan.space}, Status()
    with suppress(UserError):  # a damaged status: its run counts as one that trains
        status = sweep.run_folder(run).recorded()
    return Trial(values, status.state, status.epoch, (status.metrics or {}).get(RANKED))


def space(plan: Plan) -> dict[str, Interval | list[Any]]:
    """Return the interval or the typed values of each key that runs choose."""
    listed: dict[str, dict[str, Any]] = {}
    for option in plan.options:
        for key in option["overrides"].keys() & plan.space.keys():
            value = option["overrides"][key]
            listed.setdefault(key, {})[shown(value)] = value
    return {
        key: Interval(**plan.intervals[key]) if key in plan.intervals else [*listed[key].values()] for key in plan.space
    }


def point(plan: Plan, run: PlannedRun, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides and changes of a run with these values: groups first, then single settings."""
    flat, overrides = plan.config.flat(), run.overrides | dict(values)
    changes = dict[str, Any]()
    for option in plan.options:
        if option["overrides"].items() <= overrides.items():
            changes |= option["changes"]
    changes |= {key: value for key, value in overrides.items() if key in flat}
    return {"overrides": overrides, "changes": {key: value for key, value in changes.items() if value != flat[key]}}


def choose(
    space: Mapping[str, Interval | Sequence[Any]], trials: Sequence[Trial], search: Search, number: int
) -> dict[str, Any]:
    """Return the point of run `number`: one that no trial has, and that Optuna's TPE prefers where ten have ended."""
    from optuna import create_study, logging
    from optuna.samplers import RandomSampler, TPESampler

    logging.set_verbosity(logging.WARNING)
    seed = int(hashlib.sha256(f"{search.seed} {number}".encode()).hexdigest()[:8], 16)
    study = create_study(direction="maximize", sampler=TPESampler(seed=seed, constant_liar=True))
    distributions = {key: _distribution(dimension) for key, dimension in space.items()}
    _add(study, distributions, trials)
    taken = {_name(trial.values) for trial in trials}
    while True:
        trial = study.ask(distributions)
        for values in _rounded(space, trial.params):
            if _name(values) not in taken:
                return values
        if trial.number == len(trials) + ATTEMPTS:
            study.sampler = RandomSampler(seed=seed)


def _name(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(shown(values[key]) for key in sorted(values))


def _rounded(space: Mapping[str, Interval | Sequence[Any]], asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a point with the values of a trial, in fewer digits first."""
    for digits in DIGITS:
        yield {
            key: dimension.rounded(asked[key], digits)
            if isinstance(dimension, Interval)
            else next(value for value in dimension if shown(value) == asked[key])
            for key, dimension in space.items()
        }


def _distribution(dimension: Interval | Sequence[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(dimension, Interval):
        return CategoricalDistribution([*map(shown, dimension)])
    if dimension.is_whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.is_log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.is_log)


def _add(study: Study, distributions: dict[str, BaseDistribution], trials: Sequence[Trial]) -> None:
    """Add the trials of other runs to a new study.

    One that diverged counts as pruned before its first epoch: worse than all that have an accuracy.
    """
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    ended = {PRUNED: TrialState.PRUNED, DIVERGED: TrialState.PRUNED}
    for trial in trials:
        is_listed = {key: isinstance(distributions[key], CategoricalDistribution) for key in trial.values}
        params = {key: shown(value) if is_listed[key] else value for key, value in trial.values.items()}
        state, value, steps = ended.get(trial.state, TrialState.RUNNING), None, dict[int, float]()
        if trial.state == COMPLETED and trial.accuracy is not None:
            state, value = TrialState.COMPLETE, trial.accuracy
        if trial.state == PRUNED and trial.accuracy is not None:
            steps = {trial.epoch: trial.accuracy}
        added = create_trial(
            state=state, value=value, params=params, distributions=distributions, intermediate_values=steps
        )
        study.add_trial(added)
