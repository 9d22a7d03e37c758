"""Train fresh seeds of a sweep's best points and rank it again: `python -m irmas.refine outputs/<name>`."""

from __future__ import annotations

import math
import re
import signal
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from irmas import rank
from irmas.cli import overrides
from irmas.config import shown
from irmas.console import plain_console, plain_table, print_table
from irmas.errors import ConfigError, UserError
from irmas.exit import Parser, report_errors
from irmas.results import ranking
from irmas.results.page import counted
from irmas.results.points import combination
from irmas.results.ranking import Ranking
from irmas.run.folder import CANCELLED, COMPLETED, FINAL, PENDING, PRUNED, RUNNING
from irmas.sweep import data_job, jobs, refinement
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import NOT_SUBMITTED, RunState, SweepState, sweep_state
from irmas.sweep.slurm import ranges
from irmas.sweep.sweep import OUTPUTS, Sweep

if TYPE_CHECKING:  # scipy takes half a second to import, and Hydra imports its plugins again
    from hydra_plugins.irmas_launcher import IrmasLauncher
    from irmas.results.analysis import Analysis

MOST = 10_000
ROUNDS = 3
"""Rounds of full size that `until=decided` may take unless `runs=` says otherwise."""
EPILOG = f"""
The first points of the ranking are trained again with seeds that no run of the sweep has, and join the sweep as new
runs. A round that was interrupted is finished first. The command of the sweep still resumes all of it.

settings:
  candidates=3      points to train again: the leader, and those with the smallest expected loss
  seeds=3           fresh seeds of each of them
  edges=false       true: train the leader's neighbors too, one for each edge of the grid that the ranking names, with
                    as many seeds as the leader then has; it is not decided while an edge is named
  until=none        decided: repeat rounds until one point is known to be the best, or choosing any of those that may be
                    loses at most loss=
  loss=0.5          with until=decided: expected loss in points of accuracy
  runs=N            with until=decided: runs that all rounds of this sweep together may add
                    (default: {ROUNDS} * candidates * seeds)
  dry_run=false     true: show what would be trained, and write nothing
  allow_code_change=false, hydra/launcher=local|slurm, hydra.launcher.<setting>=...
                    as irmas.train takes them; on Slurm, settings that are not given are those of the sweep's last
                    submission
"""


@dataclass(frozen=True)
class Request:
    """The settings of the command line."""

    candidates: int = 3
    seeds: int = 3
    edges: bool = False
    until: str = "none"
    runs: int | None = None
    """Runs that rounds may add in all."""
    loss: float = 0.5
    """Expected loss in points of accuracy."""
    dry_run: bool = False
    allow_code_change: bool = False

    @property
    def is_repeated(self) -> bool:
        return self.until == "decided"

    @property
    def budget(self) -> int:
        return ROUNDS * self.candidates * self.seeds if self.runs is None else self.runs

    @property
    def words(self) -> list[str]:
        """The same on a command line."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return [f"{key}={shown(value)}" for key, (value, default) in values.items() if value != default]


def _whole(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= MOST):
        raise ValueError(text)
    return int(text)


def _points(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(text)
    return value


WHOLE: tuple[Callable[[str], Any], str] = (_whole, f"a whole number from 1 to {MOST}")
BOOLEAN: tuple[Callable[[str], Any], str] = ({"true": True, "false": False}.__getitem__, "true or false")
RULES: dict[str, tuple[Callable[[str], Any], str]] = {
    "candidates": WHOLE,
    "seeds": WHOLE,
    "edges": BOOLEAN,
    "until": ({"none": "none", "decided": "decided"}.__getitem__, "none or decided"),
    "runs": WHOLE,
    "loss": (_points, "a number from 0, in points of accuracy"),
    "dry_run": BOOLEAN,
    "allow_code_change": BOOLEAN,
}
"""Readers of each setting's text, which raise ValueError or KeyError, and what is allowed."""


def main() -> None:
    parser = Parser("irmas.refine", "Train fresh seeds of a sweep's best points, and rank it again.", EPILOG)
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--in-job", action="store_true", help="for ranking jobs: rank, then go on if all has finished")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as orderly as Ctrl-C
    with report_errors("irmas.refine", "stopped; rerun the command to resume"):
        arguments = parser.parse_intermixed_args()
        path = arguments.sweep
        request = read([word for word in arguments.settings if not word.startswith("hydra")])
        Sweep.open(path, [])
        if path.resolve().parent != OUTPUTS.resolve():
            raise UserError(f"{path}: must be in {OUTPUTS}/ of the working directory; change to the folder that has it")
        sweep = Sweep.open(OUTPUTS / path.resolve().name)
        launcher = _launcher(sweep, request, [word for word in arguments.settings if word.startswith("hydra")])
        raise SystemExit(_in_job(sweep, request, launcher) if arguments.in_job else _rounds(sweep, request, launcher))


def read(words: Sequence[str]) -> Request:
    """Raises UserError for the first word that is no setting, or breaks its rule."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if key not in RULES:
            guesses = get_close_matches(key, RULES, n=1)
            hint = f"did you mean {guesses[0]}? " if guesses else ""
            raise UserError(
                f"{word}: there is no setting {key!r}; {hint}settings: {' '.join(RULES)} hydra.launcher.<setting>; "
                "python -m irmas.refine --help explains them"
            )
        if key in values:
            raise UserError(f"{word}: {key} is given twice")
        parse, allowed = RULES[key]
        try:
            values[key] = parse(text)
        except (ValueError, KeyError):
            raise (
                ConfigError(key, text, f"must be {allowed}")
                if equals
                else UserError(f"{word}: must be followed by = and {allowed}")
            ) from None
    request = Request(**values)
    for key in ("runs", "loss"):
        if key in values and not request.is_repeated:
            raise UserError(f"{key}={shown(values[key])}: is for until=decided, which repeats rounds")
    return request


def _launcher(sweep: Sweep, request: Request, words: Sequence[str]) -> IrmasLauncher:
    """Return the launcher with the settings of `words` and, on Slurm, of the sweep's last submission."""
    for word in words:
        if not re.match(r"hydra/launcher=|hydra\.launcher\.", word):
            raise UserError(
                f"{word}: of Hydra's own settings only hydra/launcher and hydra.launcher.<setting> are taken"
            )
    keys = {word.partition("=")[0] for word in words}
    name = next((word.partition("=")[2] for word in words if word.startswith("hydra/")), overrides.default_launcher())
    before = jobs.recorded_launcher(sweep) if name == "slurm" else []
    launcher = overrides.launcher([*(word for word in before if word.partition("=")[0] not in keys), *words])
    if request.is_repeated:
        launcher.refine_arguments = ["--in-job", *request.words, f"hydra/launcher={name}", *launcher.kept_overrides]
    launcher.check()
    return launcher


def _in_job(sweep: Sweep, request: Request, launcher: IrmasLauncher) -> int:
    """Rank the sweep behind an array of it, and submit the next round unless a run of the last one did not finish."""
    unranked = ranking.unranked(rank.show(sweep))
    console = plain_console()
    console.print()
    plan = sweep.plan
    unfinished = [run for run in sweep_state(sweep, is_final=True).runs if not _is_finished(run)]
    if waiting := [run for run in unfinished if run.planned.id in plan.refined]:
        command = " ".join(["python -m irmas.refine", str(sweep), *request.words])
        console.print(
            f"{sweep}: no further round is submitted, since {_named(waiting)} did not finish\n"
            f"to train them and go on, unless they are in the queue: {command}"
        )
        return 1 if unranked else 0
    return _rounds(sweep, request, launcher)


def _rounds(sweep: Sweep, request: Request, launcher: IrmasLauncher) -> int:
    """Train a round, or with until=decided one after another; the exit code. On Slurm jobs do what follows."""
    console = plain_console()
    while True:
        state = _look(sweep)
        sweep, plan = state.sweep, state.sweep.plan
        runs, analysis = _interrupted(state), None
        if not runs:
            analysis = _analysis(ranking.rank(sweep, state))
            runs = next_round(plan, analysis, request)
            if analysis.still_rising:
                console.print(f"{sweep}: accuracy still rises; more epochs tell more than fresh seeds", style="yellow")
            if reason := decided(analysis, request) or _spent(plan, analysis, request, runs):
                console.print(f"{sweep}: {reason}")
                return 0
        grown = refinement.extended(plan, runs, sweep.path.name, allow_code_change=request.allow_code_change)
        Sweep(sweep.path, replace(plan, config=grown.config)).refuse_source(grown.source)
        data_job.check(Sweep(sweep.path, grown))
        _announce(console, sweep, grown, analysis, request)
        if request.dry_run:
            return 0
        console.print()
        statuses = launcher.train(grown, append=True)
        if statuses is None:
            return 0
        ended_badly = {status.state for status in statuses} - {COMPLETED, PRUNED}
        if launcher.has_jobs or not request.is_repeated or ended_badly - FINAL:
            if analysis is None and not ended_badly:
                console.print(f"\n{sweep}: the interrupted round is finished; rerun irmas.refine for another one")
            return 1 if ended_badly else 0
        console.print()


def _look(sweep: Sweep) -> SweepState:
    """Raises UserError where runs still train or wait, or were interrupted before any round began."""
    sweep = Sweep.open(sweep.path)
    state = sweep_state(sweep, is_final=True)
    unfinished = [run for run in state.runs if not _is_finished(run)]
    if unfinished and state.note:
        raise UserError(f"{sweep}: {_named(unfinished)} may still be in the queue: {state.note}")
    live = [run for run in unfinished if run.status.state == RUNNING or (run.task is not None and run.task.is_live)]
    if live or (unfinished and state.in_pool):
        raise UserError(
            f"{sweep}: still training or in the queue: {_named(live or unfinished)}; refine the sweep after they have "
            f"ended: python -m irmas.status {sweep} --watch"
        )
    idle = (PENDING, CANCELLED, NOT_SUBMITTED)
    if begun := [run for run in unfinished if run.status.state in idle and run.planned.id not in sweep.plan.refined]:
        raise UserError(
            f"{sweep}: not trained to the end: {_named(begun)}; rerun the command of the sweep to train them, and "
            "refine it then"
        )
    return state


def _named(runs: Sequence[RunState]) -> str:
    return jobs.named_runs(run.planned.id for run in runs)


def _is_finished(run: RunState) -> bool:
    return run.status.state in FINAL


def _interrupted(state: SweepState) -> list[PlannedRun]:
    """Return all runs of the rounds that have unfinished ones."""
    plan = state.sweep.plan
    unfinished = {run.planned.id for run in state.runs if not _is_finished(run)}
    rounds = [range(first, last + 1) for first, last in plan.rounds]
    return [plan.runs[number - 1] for ids in rounds if unfinished.intersection(ids) for number in ids]


def _analysis(result: Ranking) -> Analysis:
    """Raises UserError where the finished runs do not tell which points to train again."""
    if result.plan.config.data.split == "all":
        raise UserError(
            f"{result.sweep}: data.split=all trains on the validation excerpts: no seed shows which point is better"
        )
    if len({combination(row.values) for row in result.rows}) < 2:
        raise UserError(f"{result.sweep}: has one point, and nothing to choose; sweep a setting with irmas.train")
    analysis, _ = rank.analysed(result)
    if analysis is None or len(analysis.points) < 2:
        raise UserError(
            f"{result.sweep}: {'no run has' if analysis is None else 'the runs of one point alone have'} finished; "
            f"python -m irmas.status {result.sweep} shows why"
        )
    return analysis


def decided(analysis: Analysis, request: Request) -> str:
    """Return why no further round is needed; empty where one is."""
    best = analysis.best_set
    if request.edges and _beyond(analysis):
        return ""
    if analysis.is_decided:
        runs = jobs.named_runs(best[0].runs)
        values = " ".join(f"{key}={shown(value)}" for key, value in best[0].values.items())
        return f"decided: {values} ({runs}) is the only point that may be the best"
    losses = [point.expected_loss for point in best]
    if request.is_repeated and len(best) > 1 and all(x is not None and 100 * x <= request.loss for x in losses):
        largest = max(100 * (loss or 0) for loss in losses)
        return (
            f"decided: {len(best)} points may be the best, and choosing any of them loses at most {largest:.2f} points "
            f"of accuracy (expected; loss={request.loss:g})"
        )
    return ""


def next_round(plan: Plan, analysis: Analysis, request: Request) -> list[PlannedRun]:
    """Return the runs of the next round. Raises UserError where the points cannot be compared."""
    chosen = analysis.candidates(request.candidates)
    if len(analysis.best_set) == 1 and not analysis.is_decided:
        if analysis.unpaired:
            raise UserError(f"{plan.name}: {analysis.unpaired}")
        # Without training noise nothing can be compared: seeds show it.
        chosen = list(analysis.points[: request.candidates])
    points = [plan.runs[point.runs[0] - 1] for point in chosen]
    return refinement.fresh_runs(plan, points, request.seeds, _beyond(analysis) if request.edges else {})


def _beyond(analysis: Analysis) -> Mapping[str, Any]:
    """Return the values beyond the grid that are worth a try, by key."""
    return {effect.key: effect.beyond for effect in analysis.effects if effect.beyond is not None}


def _spent(plan: Plan, analysis: Analysis, request: Request, runs: Sequence[PlannedRun]) -> str:
    """Return why a round with these runs is too large for the budget; empty where it is not."""
    used = len(plan.refined)
    if not request.is_repeated or used + len(runs) <= request.budget:
        return ""
    return (
        f"not decided: {counted(len(analysis.best_set), 'point')} may be the best. Another round has {len(runs)} runs, "
        f"and {used} of runs={request.budget} are used; runs={used + len(runs)} or fewer candidates= allow it"
    )


def _announce(console: Console, sweep: Sweep, grown: Plan, analysis: Analysis | None, request: Request) -> None:
    """Print what is trained: a row for each point of a new round."""
    if analysis is None:
        named = jobs.named_runs(run.id for run in grown.runs)
        console.print(f"{sweep}: an earlier round is unfinished and comes first: {named}")
        return
    keys = [key for key in grown.swept if key != "seed"]
    known = {combination(point.values): point for point in analysis.points}
    seeds: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for run in grown.runs:
        seeds[combination({key: grown.value(run, key) for key in keys})].append(grown.config_of(run).seed)
    rows = []
    for values, fresh in seeds.items():
        point = known.get(values)
        accuracy, trained = (f"{point.accuracy:.2%}", len(point.runs)) if point else ("-", 0)
        rows.append([*values, accuracy, str(trained), ranges(fresh)])
    verb = "would train" if request.dry_run else "trains"
    number, epochs = len(grown.rounds), sum(grown.config_of(run).epochs for run in grown.runs)
    total = f"{counted(len(grown.runs), 'run')} of {counted(len(rows), 'point')}, {counted(epochs, 'epoch')}"
    console.print(f"{sweep}: round {number} {verb} {total}\n")
    print_table(console, plain_table([*keys, "val_accuracy", "runs", "seeds to train"], rows, left=()))
    if request.is_repeated:
        console.print(f"\nrounds go on until it is decided, up to {request.budget} runs in all")


if __name__ == "__main__":
    main()
