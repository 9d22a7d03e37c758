"""Train fresh seeds of a sweep's best points and rank it again: `python -m irmas.refine outputs/<name>`."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from irmas import rank
from irmas.cli import overrides
from irmas.config import FOLD, REPETITIONS, check_rules, rules, shown
from irmas.console import counted, plain_console, plain_table, print_table
from irmas.errors import ConfigError, Parser, UserError, interruptible, report_errors
from irmas.results import ending, ranking, rounds
from irmas.results.ranking import Ranking
from irmas.results.rounds import Request
from irmas.results.runs import combination
from irmas.run.folder import CANCELLED, COMPLETED, FINAL, PENDING, PRUNED, RUNNING
from irmas.sweep import data_job, jobs
from irmas.sweep.plan import Plan
from irmas.sweep.run_states import NOT_SUBMITTED, RunState, SweepState, sweep_state
from irmas.sweep.slurm import ranges
from irmas.sweep.sweep import OUTPUTS, Sweep

if TYPE_CHECKING:  # scipy takes half a second to import, and Hydra imports its plugins again
    from hydra_plugins.irmas_launcher import IrmasLauncher
    from irmas.results.analysis import Analysis


def main() -> None:
    parser = Parser("irmas.refine", "Train fresh seeds of a sweep's best points, and rank it again.", _help())
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--in-job", action="store_true", help="for ranking jobs: rank, then train another round")
    parser.add_argument("--at-end", action="append", default=[], metavar="WORD", help=f"with --in-job: {rank.AT_END}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as orderly as Ctrl-C
    with report_errors("irmas.refine", "stopped; rerun the command to resume", starting=True):
        args = parser.parse_intermixed_args()
        path = args.sweep
        of_launcher = [word for word in args.settings if word.startswith("hydra")]
        request = read([word for word in args.settings if word not in of_launcher])
        Sweep.open(path, [])
        if path.resolve().parent != OUTPUTS.resolve():
            raise UserError(f"{path}: must be in {OUTPUTS}/ of the working directory; change to the folder that has it")
        sweep = Sweep.open(OUTPUTS / path.resolve().name)
        sweep.share()
        launcher = _launcher(sweep, request, of_launcher)
        if args.in_job:
            raise SystemExit(_in_job(sweep, request, launcher, args.at_end))
        raise SystemExit(_train(sweep, request, launcher))


def _help() -> str:
    lines = [
        "The first points of the ranking are trained again with seeds that no run of the sweep has, and join the sweep",
        "as new runs. A round that was interrupted is finished first. The sweep command still resumes all of it.",
        "",
        "settings:",
    ]
    for entry in fields(Request):
        default = "N" if entry.default is None else shown(entry.default)
        lines += [f"  {entry.name}={default}", f"      {entry.metadata['text']}"]
    lines += [
        "  hydra/launcher=local|slurm, hydra.launcher.<setting>=...",
        "      as in irmas.train; on Slurm, other settings are those of the sweep's last submission",
    ]
    return "\n".join(lines)


def read(words: Sequence[str]) -> Request:
    """Return the settings of a command line. Raises UserError for a word that is no setting or not allowed."""
    values, allowed = dict[str, Any](), rules(Request)
    for word in words:
        key, equals, text = word.partition("=")
        if key not in allowed:
            guesses = get_close_matches(key, allowed, n=1)
            hint = f"did you mean {guesses[0]}? " if guesses else ""
            raise UserError(
                f"{word}: there is no setting {key!r}; {hint}settings: {' '.join(allowed)} hydra.launcher.<setting>; "
                "python -m irmas.refine --help explains them"
            )
        if key in values:
            raise UserError(f"{word}: {key} is set twice")
        if not equals:
            raise UserError(f"{word}: must be followed by = and {allowed[key].text}")
        values[key] = _parsed(text)
    request = Request(**values)
    check_rules(request)
    for key in ("runs", "loss"):
        if key in values and not request.is_repeated:
            raise ConfigError(key, shown(values[key]), "requires until=decided, which repeats rounds")
    return request


def _parsed(text: str) -> Any:
    """Return a whole number, a number, true or false as Python's, and any other text as it is."""
    parsers: list[Callable[[str], Any]] = [int, float, {"true": True, "false": False}.__getitem__]
    for parse in parsers:
        with suppress(ValueError, KeyError):
            return parse(text)
    return text


def _launcher(sweep: Sweep, request: Request, words: Sequence[str]) -> IrmasLauncher:
    """Return the launcher with the settings of `words` and, on Slurm, of the sweep's last submission."""
    for word in words:
        if not word.startswith(("hydra/launcher=", "hydra.launcher.")):
            raise UserError(f"{word}: not supported; of Hydra's settings pass hydra/launcher and hydra.launcher.* only")
    values = {key: value for key, _, value in (word.partition("=") for word in words)}
    name = values.get("hydra/launcher") or overrides.default_launcher()
    recorded = jobs.recorded_launcher(sweep) if name == "slurm" else []
    texts = [*(word for word in recorded if word.partition("=")[0] not in values), *words]
    launcher = overrides.launcher(texts, with_files=not recorded)
    if request.is_repeated:
        launcher.refine_arguments = ["--in-job", *request.overrides, f"hydra/launcher={name}", *launcher.kept_overrides]
    launcher.check()
    return launcher


def _in_job(sweep: Sweep, request: Request, launcher: IrmasLauncher, at_end: Sequence[str]) -> int:
    """Rank the sweep behind an array of it, and submit the next round unless a run of the last one did not finish."""
    result = rank.show(sweep.path)
    unranked = ranking.unranked(result)
    ending.announce(result, at_end)
    console = plain_console()
    console.print()
    remaining = _unfinished(sweep_state(sweep, is_final=True))
    if in_rounds := [run for run in remaining if run.planned.id in sweep.plan.refined]:
        command = " ".join(["python -m irmas.refine", str(sweep), *request.overrides])
        console.print(
            f"{sweep}: no further round is submitted, since {_named(in_rounds)} did not finish\n"
            f"to train them and continue, unless they are in the queue: {command}"
        )
        return 1 if unranked else 0
    return _train(sweep, request, launcher)


def _train(sweep: Sweep, request: Request, launcher: IrmasLauncher) -> int:
    """Train a round, or with until=decided one after another; return the exit code. On Slurm, jobs train the rest."""
    console = plain_console()
    while True:
        state = _settled(sweep)
        sweep, plan = state.sweep, state.sweep.plan
        ids, analysis = {run.planned.id for run in _unfinished(state)}, None
        begun = [range(first, last + 1) for first, last in plan.rounds if ids & {*range(first, last + 1)}]
        runs = [plan.runs[number - 1] for numbers in begun for number in numbers]
        if not runs:
            analysis = _analysis(ranking.rank(sweep, state))
            runs = rounds.next_round(plan, analysis, request)
            if analysis.still_rising:
                console.print(f"{sweep}: accuracy still rises; more epochs help more than fresh seeds", style="yellow")
            if reason := rounds.decided(analysis, request) or rounds.spent(plan, analysis, request, runs):
                console.print(f"{sweep}: {reason}")
                return 0
        grown = rounds.with_round(plan, runs, sweep.path.name, allow_code_change=request.allow_code_change)
        Sweep(sweep.path, replace(plan, config=grown.config)).copy_for(grown.source, grown.runs)
        data_job.check(Sweep(sweep.path, grown))
        _announce(console, sweep, grown, analysis, request)
        if request.dry_run:
            return 0
        console.print()
        with interruptible():
            statuses = launcher.train(grown, append=True)
        if statuses is None:
            return 0
        ended_badly = {status.state for status in statuses} - {COMPLETED, PRUNED}
        if launcher.has_jobs or not request.is_repeated or ended_badly - FINAL:
            if analysis is None and not ended_badly:
                console.print(f"\n{sweep}: the interrupted round is finished; rerun irmas.refine for another one")
            return 1 if ended_badly else 0
        console.print()


def _settled(sweep: Sweep) -> SweepState:
    """Return the state of a sweep. Raises UserError where runs train, are queued or left to the sweep's command."""
    sweep = Sweep.open(sweep.path)
    state = sweep_state(sweep, is_final=True)
    remaining = _unfinished(state)
    if remaining and state.note:
        raise UserError(f"{sweep}: {_named(remaining)} may still be in the queue: {state.note}")
    live = [run for run in remaining if run.status.state == RUNNING or (run.task is not None and run.task.is_live)]
    if live or (remaining and state.in_pool):
        raise UserError(
            f"{sweep}: still training or in the queue: {_named(live or remaining)}; refine the sweep after they have "
            f"ended: python -m irmas.status {sweep} --watch"
        )
    idle = (PENDING, CANCELLED, NOT_SUBMITTED)
    if begun := [run for run in remaining if run.status.state in idle and run.planned.id not in sweep.plan.refined]:
        raise UserError(
            f"{sweep}: not trained to the end: {_named(begun)}; rerun the sweep command to train them, then refine it"
        )
    return state


def _unfinished(state: SweepState) -> list[RunState]:
    return [run for run in state.runs if run.status.state not in FINAL]


def _named(runs: Sequence[RunState]) -> str:
    return jobs.named_runs(run.planned.id for run in runs)


def _analysis(result: Ranking) -> Analysis:
    """Return the analysis. Raises UserError where the finished runs do not show which points to train again."""
    sweep = result.sweep
    if result.plan.config.data.split == "all":
        raise UserError(f"{sweep}: data.split=all trains on the validation excerpts: no seed shows the better point")
    if len({combination(run.values) for run in result.runs}) < 2:
        raise UserError(f"{sweep}: has one point, and nothing to choose; sweep a setting with irmas.train")
    analysis = ranking.analyze(result)
    if analysis is None or len(analysis.points) < 2:
        finished = "no run has" if analysis is None else "the runs of one point alone have"
        raise UserError(f"{sweep}: {finished} finished; python -m irmas.status {sweep} shows why")
    return analysis


def _announce(console: Console, sweep: Sweep, grown: Plan, analysis: Analysis | None, request: Request) -> None:
    """Print what is trained: one row for each point of a new round."""
    if analysis is None:
        named = jobs.named_runs(run.id for run in grown.runs)
        console.print(f"{sweep}: an earlier round is unfinished and comes first: {named}")
        return
    keys = [key for key in grown.swept if key not in REPETITIONS]
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
    print_table(
        console,
        plain_table(
            [*keys, "val_accuracy", "runs", "seeds to train" + (" on each fold" if FOLD in grown.swept else "")],
            rows,
            left=(),
        ),
    )
    if request.is_repeated:
        console.print(f"\nrounds are repeated until it is decided, up to {request.budget(grown)} runs in all")


if __name__ == "__main__":
    main()
