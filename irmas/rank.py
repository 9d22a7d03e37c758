"""Ranks a sweep from its event files: `python -m irmas.rank outputs/<name>`."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from irmas.commandline import Parser, told_by
from irmas.progress import plain_console, width
from irmas.results import ranking
from irmas.results.ranking import Ranking
from irmas.run.folder import COMPLETED, PENDING
from irmas.sweep import states


def main() -> None:
    parser = Parser("irmas.rank", "Rank a sweep from its event files.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("--best", action="store_true", help="each run's best epoch instead of its last (flatters it)")
    with told_by("irmas.rank"):
        arguments = parser.parse_args()
        result = show(arguments.sweep, best=arguments.best)
        if any(row.state == COMPLETED and row.rank is None for row in result.rows):
            sys.exit(1)


def show(sweep: Path, *, best: bool = False) -> Ranking:
    """Print the ranking and write it to the sweep's folder, and how dead runs ended into theirs.

    Raises UserError where the folder holds no plan, OSError where it cannot be read or written.
    """
    result = ranking.rank(sweep, best=best)
    console = plain_console()
    try:
        _print(console, sweep, result, "best epoch" if best else "last epoch")
    finally:  # also where nobody reads on, as in `| head`
        states.settle(sweep, result.state)
        written = ranking.write(sweep, result, "ranking-best" if best else "ranking")
    console.print(f"written: {' '.join(map(str, written))}")
    return result


def _print(console: Console, sweep: Path, result: Ranking, epochs: str) -> None:
    lines = ranking.table(result)
    # A line that the terminal wraps is better than a number cut short.
    console.width = max(console.width, width(console, lines))
    finished = sum(row.state == COMPLETED for row in result.rows)
    console.print(
        f"\n{sweep}: {finished} of {len(result.rows)} runs finished, by validation accuracy in the {epochs}\n"
    )
    console.print(lines)
    for row in result.rows:
        if row.error and row.state != PENDING:
            console.print(f"run {row.id} {row.state}: {row.error}")
    for problem in result.problems:
        console.print(f"could not be read: {problem}", style="yellow")
    for warning in filter(None, (ranking.mixed_sources(result), result.state.note)):
        console.print(warning, style="yellow")
    console.print(f"\ncurves:  tensorboard --logdir {sweep / 'runs'}")


if __name__ == "__main__":
    main()
