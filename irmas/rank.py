"""Rank a sweep from its event files: `python -m irmas.rank outputs/<name>`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from irmas import status
from irmas.console import plain_console, print_json, print_table
from irmas.errors import Parser, UserError, in_words, report_errors
from irmas.files import FIGURES, VECTOR
from irmas.results import ending, ranking, usage
from irmas.results.ranking import Ranking
from irmas.run.folder import COMPLETED, FINAL, PENDING, PRUNED
from irmas.sweep import run_states
from irmas.sweep.sweep import Sweep

if TYPE_CHECKING:  # scipy takes half a second to import
    from irmas.results.analysis import Analysis

AT_END = "word of a command that gets a summary on stdin, once for each word"


def main() -> None:
    parser = Parser("irmas.rank", "Rank a sweep from its event files.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("--runs", action="store_true", help="one row per run also where points have several runs")
    parser.add_argument("--json", action="store_true", help="with --table: as JSON (docs/json.md)")
    parser.add_argument("--figures", nargs="+", choices=VECTOR, default=[], help=FIGURES)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--table", action="store_true", help="the table alone, at once; nothing is written")
    mode.add_argument("--watch", action="store_true", help="show the table until no run trains or is in the queue")
    parser.add_argument("--at-end", action="append", default=[], metavar="WORD", help=AT_END)
    with report_errors("irmas.rank"):
        args = parser.parse_args()
        if args.json and not args.table:
            raise UserError("--json: goes with --table")
        if args.figures and args.table:
            raise UserError("--figures: --table writes nothing")
        if args.watch:
            watch(args.sweep, by_run=args.runs)
        if args.table:
            result = ranking.rank(Sweep.open(args.sweep))
            if args.json:
                print_json(ranking.as_json(result))
            else:
                _print(plain_console(), result, None, by_run=args.runs)
        else:
            Sweep.open(args.sweep, []).share()
            result = show(args.sweep, by_run=args.runs, figures=args.figures)
            ending.announce(result, args.at_end)
        # A job that ranks nothing is to be FAILED, so that whoever waits for it, or for Slurm's mail, learns of it.
        if ranking.unranked(result) or all(run.rank is None for run in result.runs):
            sys.exit(1)


def watch(path: Path, *, by_run: bool = False) -> None:
    """Show the table as it grows until no run trains or is in the queue.

    A terminal shows it in one place; elsewhere it is printed again whenever a run has ended.
    """
    console, printed, was_live = plain_console(), -1, False
    with Live(console=console, transient=True, auto_refresh=False) as view:
        for state in status.poll(path):
            result = ranking.rank(state.sweep, state)
            ranked = sum(run.rank is not None for run in result.runs)
            was_live |= state.is_live or bool(state.note)
            if console.is_terminal:
                view.update(ranking.table(result, by_run=by_run), refresh=True)
            elif ranked != printed:
                _print(console, result, None, by_run=by_run)
                printed = ranked
    if not was_live and any(run.state not in FINAL for run in result.runs):
        console.print(f"{path}: nothing is running or queued; rerun the sweep command to train the remaining runs")


def show(path: Path, *, by_run: bool = False, figures: Sequence[str] = ()) -> Ranking:
    """Print the ranking of a sweep's folder; write it there with report and pictures, and final states of dead runs.

    `figures` are the formats of the pictures beside PNG. Raises OSError where a file cannot be read or written.
    """
    # Here, since `--table` and irmas.status answer without scipy and matplotlib.
    from irmas.results import report
    from irmas.results.best import next_step

    result = ranking.rank(Sweep.open(path))
    analysis = ranking.analyze(result)
    console = plain_console()
    try:
        _print(console, result, analysis, by_run=by_run)
    finally:  # also where nobody reads the output, as in `| head`
        run_states.record_dead_runs(result.state)
        try:
            written = ranking.write(result, analysis)
            page = report.write(result, analysis, figures)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise UserError(f"{in_words(error)}; blocks a file of the ranking: move it away, and rank again") from error
    console.print(f"\nwritten: {' '.join(map(str, written))}")
    console.print(f"report:  {page}")
    console.print(f"curves:  tensorboard --logdir {path}")
    for line in usage.lines(result.state):
        console.print(line)
    if analysis:
        step = next_step(result, analysis)
        for command in step.command.splitlines():
            console.print(f"next:    {command}")
        console.print(f"why:     {step.reason}")
    return result


def _print(console: Console, result: Ranking, analysis: Analysis | None, *, by_run: bool) -> None:
    completed = sum(run.state == COMPLETED for run in result.runs)
    pruned = sum(run.state == PRUNED for run in result.runs)
    counts = f"{completed} of {len(result.runs)} runs finished" + (f", {pruned} stopped early" if pruned else "")
    console.print(f"\n{result.sweep}: {counts}, by val_accuracy (last: the last epoch by itself)")
    if note := result.plan.config.note:
        console.print(f"note: {note}")
    if result.plan.searched:
        console.print(f"\n{result.plan.searched}")
    console.print()
    if result.plan.config.data.split == "all":
        text = "data.split=all: val_accuracy means nothing: the validation excerpts were trained on\n"
        console.print(text, style="yellow")
    print_table(console, ranking.table(result, analysis, by_run=by_run))
    for run in result.runs:
        if run.message and run.state not in (PENDING, PRUNED):
            console.print(f"run {run.id} {run.state}: {run.message}")
    notes = [f"could not be read: {text}" for text in [*result.problems, *(analysis.problems if analysis else ())]]
    notes += [analysis.few_recordings, analysis.unpaired] if analysis else []
    notes += [*ranking.warnings(result), result.state.note]
    for note in filter(None, notes):
        console.print(note, style="yellow")


if __name__ == "__main__":
    main()
