"""Ranks a sweep from its event files: `python -m irmas.rank outputs/<name>`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from irmas import status
from irmas.console import plain_console, print_table
from irmas.errors import UserError, in_words
from irmas.exit import Parser, report_errors
from irmas.results import ranking
from irmas.results.ranking import Ranking
from irmas.run.folder import COMPLETED, FINAL, PENDING, PRUNED
from irmas.sweep import run_states
from irmas.sweep.sweep import Sweep

if TYPE_CHECKING:  # scipy takes half a second to import
    from irmas.results.analysis import Analysis
    from irmas.results.outcomes import Confusion


def main() -> None:
    parser = Parser("irmas.rank", "Rank a sweep from its event files.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("--runs", action="store_true", help="a row per run also where points have several seeds")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--table", action="store_true", help="the table alone, at once; nothing is written")
    what.add_argument("--watch", action="store_true", help="until nothing of the sweep trains or waits any more")
    with report_errors("irmas.rank"):
        arguments = parser.parse_args()
        by_run = arguments.runs
        if arguments.table:
            result = ranking.rank(Sweep.open(arguments.sweep))
            _print(plain_console(), result, None, by_run=by_run)
        else:
            if arguments.watch:
                watch(arguments.sweep, by_run=by_run)
            result = show(Sweep.open(arguments.sweep), by_run=by_run)
        if ranking.unranked(result):
            sys.exit(1)


def watch(path: Path, *, by_run: bool = False) -> None:
    """Show the table as it grows until nothing of the sweep trains or is in the queue.

    On a terminal in its place, elsewhere anew whenever a run has ended.
    """
    console, ranked, was_live = plain_console(), -1, False
    with Live(console=console, transient=True, auto_refresh=False) as view:
        for state in status.poll(path):
            result = ranking.rank(state.sweep, state)
            was_live |= state.is_live or bool(state.note)
            if console.is_terminal:
                view.update(ranking.table(result, by_run=by_run), refresh=True)
            elif ranked != (ranked := sum(row.rank is not None for row in result.rows)):
                _print(console, result, None, by_run=by_run)
    if not was_live and any(row.state not in FINAL for row in result.rows):
        console.print(f"{path}: nothing is running or queued; rerun the sweep command to train the remaining runs")


def show(sweep: Sweep, *, by_run: bool = False) -> Ranking:
    """Print the ranking, write it to the sweep's folder with report and pictures, and how dead runs ended into theirs.

    Raises OSError where a file cannot be read or written.
    """
    result = ranking.rank(sweep)
    console = plain_console()
    # Here, since `--table` and irmas.status answer without scipy and matplotlib.
    from irmas.results import report
    from irmas.results.best import next_step

    analysis, confusion = analysed(result)
    try:
        _print(console, result, analysis, by_run=by_run)
    finally:  # also where nobody reads on, as in `| head`
        run_states.record_dead_runs(result.state)
        with _nothing_in_the_way():
            written = ranking.write(result, analysis)
            page = report.write(result, analysis, confusion)
    console.print(f"\nwritten: {' '.join(map(str, written))}")
    console.print(f"report:  {page}")
    console.print(f"curves:  tensorboard --logdir {sweep}")
    if analysis:
        step = next_step(result, analysis)
        console.print(f"next:    {step.command}\nwhy:     {step.reason}")
    return result


def analysed(result: Ranking) -> tuple[Analysis | None, Confusion | None]:
    """Return what the finished runs allow to conclude, None where there are none, and the leader's confusion matrix.

    Adds to the ranking's problems what could not be read.
    """
    from irmas.results import analysis, outcomes

    found, confusion, problems = outcomes.read(result)
    result.problems.extend(problems)
    plan, planned = result.plan, [row.values for row in result.rows]
    return analysis.analyse(found, plan.swept, planned, len(plan.rounds)) if found else None, confusion


@contextmanager
def _nothing_in_the_way() -> Iterator[None]:
    try:
        yield
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        remedy = "it is in the way of what the ranking writes: move it elsewhere, and rank again"
        raise UserError(f"{in_words(error)}; {remedy}") from error


def _print(console: Console, result: Ranking, analysis: Analysis | None, *, by_run: bool) -> None:
    lines = ranking.table(result, analysis, by_run=by_run)
    completed = sum(row.state == COMPLETED for row in result.rows)
    stopped = sum(row.state == PRUNED for row in result.rows)
    finished = f"{completed} of {len(result.rows)} runs finished" + (f", {stopped} stopped early" if stopped else "")
    console.print(f"\n{result.sweep}: {finished}, by val_accuracy (last: the last epoch by itself)\n")
    if result.plan.config.data.split == "all":
        console.print(
            "data.split=all: the validation excerpts were trained on, so that it tells nothing\n", style="yellow"
        )
    print_table(console, lines)
    for row in result.rows:
        if row.error and row.state not in (PENDING, PRUNED):
            console.print(f"run {row.id} {row.state}: {row.error}")
    for problem in result.problems:
        console.print(f"could not be read: {problem}", style="yellow")
    unpaired = analysis.unpaired if analysis else ""
    schedules = ranking.mixed_schedules(result)
    warnings = (unpaired, ranking.mixed_sources(result), ranking.old_runs(result), schedules, result.state.note)
    for warning in filter(None, warnings):
        console.print(warning, style="yellow")


if __name__ == "__main__":
    main()
