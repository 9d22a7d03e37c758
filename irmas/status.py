"""Shows how the runs of a sweep stand: `python -m irmas.status outputs/<name>`."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from irmas.config import shown
from irmas.console import plain_console, plain_table, print_table, width
from irmas.errors import UserError
from irmas.exit import Parser, report_errors
from irmas.results.ranking import styled
from irmas.run.events import RANKED, VAL_LOSS
from irmas.run.folder import COMPLETED, PENDING, PRUNED, RUNNING
from irmas.sweep.jobs import named_runs
from irmas.sweep.run_states import NOT_SUBMITTED, RunState, SweepState, sweep_state
from irmas.sweep.sweep import Sweep

REFRESH_S = 5.0
CONFIRM_S = 1.0
"""Between the end of one run and the beginning of the next a local sweep looks as if it were over."""
ERROR_LINES = 8
SPARE = ("elapsed", "node", "val loss", "task")
"""Columns that a narrow terminal does without."""
QUIET = (COMPLETED, PRUNED, PENDING, NOT_SUBMITTED, RUNNING)
"""States that need no explanation."""


def main() -> None:
    parser = Parser("irmas.status", "Show how the runs of a sweep stand.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--watch", action="store_true", help="until nothing of the sweep trains or waits any more")
    what.add_argument("--log", type=int, metavar="ID", help="print the log of one run")
    with report_errors("irmas.status"):
        arguments = parser.parse_args()
        if arguments.log is not None:
            sys.stdout.write(log(Sweep.open(arguments.sweep), arguments.log))
        else:
            show(_watched(arguments.sweep) if arguments.watch else look(arguments.sweep))


def look(path: Path) -> SweepState:
    return sweep_state(Sweep.open(path))


def log(sweep: Sweep, number: int) -> str:
    """Return what a run printed. Raises UserError where there is no such run, or it has not begun."""
    runs = sweep.plan.runs
    if not 1 <= number <= len(runs):
        raise UserError(f"--log {number}: {sweep} has the runs 1 to {len(runs)}")
    path = sweep.run_folder(runs[number - 1]).log
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        raise UserError(f"--log {number}: no log yet: the run has not started") from None


def _watched(path: Path) -> SweepState:
    """Ctrl-C only ends the display; the sweep keeps running."""
    try:
        return watch(path)
    except KeyboardInterrupt:
        sys.exit(130)


def watch(path: Path) -> SweepState:
    """Show the sweep until nothing of it trains or is in the queue; how it then stands.

    On a terminal a table, elsewhere a line whenever a run's state changes.
    """
    return _watch_on_terminal(path) if plain_console().is_terminal else _watch_in_lines(path)


def _watch_on_terminal(path: Path) -> SweepState:
    console = Console(highlight=False, markup=False)
    with Live(console=console, transient=True, auto_refresh=False) as view:
        for state in looks(path):
            view.update(screen(state, console), refresh=True)
    return state


def _watch_in_lines(path: Path) -> SweepState:
    console = plain_console()
    before: dict[int, str] = {}
    for state in looks(path):
        if not before:
            console.print(header(state))
        for run in state.runs:
            if before.get(run.planned.id, run.status.state) != run.status.state:
                console.print(_line(run))
            before[run.planned.id] = run.status.state
    return state


def looks(path: Path) -> Iterator[SweepState]:
    """How the sweep stands, every few seconds, until nothing of it trains or is in the queue."""
    was_live, was_queued = True, False
    while True:
        state = look(path)
        yield state
        is_live = state.is_live or (bool(state.note) and was_queued)  # a controller that is down comes back
        if not (is_live or was_live):
            return
        time.sleep(REFRESH_S if is_live else CONFIRM_S)
        was_live, was_queued = is_live, is_live if not state.note else was_queued


def show(state: SweepState) -> None:
    """Print counts, stages, a row a run, and why runs ended that are not COMPLETED."""
    console = plain_console()
    console.print(header(state), end="\n\n")
    print_table(console, table(state.runs))
    for failure in failures(state):
        console.print(failure, end="\n\n")


def screen(state: SweepState, console: Console) -> Group:
    """What fits on a terminal: the runs that need a look first, those that are over or wait if there is room."""
    height = console.height
    room = max(height - 5 - len(state.stages), 1)
    urgency = [RUNNING, *sorted({run.status.state for run in state.runs} - set(QUIET)), *QUIET]
    by_urgency = sorted(state.runs, key=lambda run: urgency.index(run.status.state))
    left_out = len(state.runs) - room
    more = f"and {left_out} more: python -m irmas.status {state.sweep}" if left_out > 0 else ""
    shown_runs = sorted(by_urgency[:room], key=lambda run: run.planned.id)
    lines = table(shown_runs)
    for count in range(1, len(SPARE) + 1):
        if width(console, lines) <= console.width:
            break
        lines = table(shown_runs, SPARE[:count])
    return Group(header(state), lines, Text(more))


def header(state: SweepState) -> Text:
    counts = Counter(run.status.state for run in state.runs)
    parts = [Text.assemble(f"{count} ", styled(name)) for name, count in sorted(counts.items())]
    lines = [Text.assemble(f"{state.sweep}: ", Text(", ").join(parts))]
    for stage in state.stages:
        where = f" on {stage.node}" if stage.node else f" ({stage.reason})" if stage.reason else ""
        lines.append(Text.assemble(f"{stage.name} job {stage.id}: ", styled(stage.state), f"{where}  {stage.elapsed}"))
    if state.note:
        lines.append(Text(state.note, style="yellow"))
    return Text("\n").join(lines)


def table(runs: Sequence[RunState], left_out: Collection[str] = ()) -> Table:
    """A row a run, in their order; `left_out` are headings of columns that are not shown."""
    swept = list(dict.fromkeys(key for run in runs for key in run.planned.overrides))
    rows = [_cells(run, swept) for run in runs]
    heads = [head for head in (rows[0] if rows else {}) if head not in left_out]
    return plain_table(heads, ([row[head] for head in heads] for row in rows), left=("state", "task", "node"))


def _cells(run: RunState, swept: Sequence[str]) -> dict[str, str | Text]:
    """By heading."""
    status, task, values = run.status, run.task, run.planned.overrides
    reason = f" ({status.reason})" if status.state == PENDING and status.reason else ""
    metrics = status.metrics or {}
    return {
        "run ID": str(run.planned.id),
        **{key: shown(values[key]) if key in values else "" for key in swept},
        "state": styled(status.state) + reason,
        "task": task.id if task else status.job or "-",
        "node": (task.node if task else "") or status.node or "-",
        "elapsed": _elapsed(run),
        "epoch": f"{status.epoch}/{status.epochs}" if status.epochs else "-",
        "val_accuracy": f"{metrics[RANKED]:.2%}" if RANKED in metrics else "-",
        "val loss": f"{metrics[VAL_LOSS]:.4f}" if VAL_LOSS in metrics else "-",
    }


def _elapsed(run: RunState) -> str:
    """Since the task's last start; outside Slurm since the run's first one."""
    status, seconds = run.status, 0.0
    if run.task is not None:
        seconds = run.task.elapsed_s
    elif status.started:
        seconds = (time.time() if status.state == RUNNING else status.updated) - status.started
    return str(timedelta(seconds=int(seconds))) if seconds else "-"


def failures(state: SweepState) -> Iterator[Text]:
    """Why runs ended, those together that ended alike."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for run in state.runs:
        name, lines = run.status.state, run.status.message.strip().splitlines()
        if name not in QUIET:
            alike[f"{name}{_exit(run.status.exit_code)}", "\n".join(lines[-ERROR_LINES:])].append(run.planned.id)
    for (name, error), ids in alike.items():
        yield Text("\n    ".join([f"{named_runs(ids)} {name}", *error.splitlines()]))
    failed = sorted(number for ids in alike.values() for number in ids)
    runs = {run.planned.id: run.planned for run in state.runs}
    if logged := [number for number in failed if os.access(state.sweep.run_folder(runs[number]).log, os.R_OK)]:
        yield Text(f"all that a run printed: python -m irmas.status {state.sweep} --log {logged[0]}")
    if idle := [run.planned.id for run in state.runs if run.status.state == NOT_SUBMITTED]:
        yield Text(f"{named_runs(idle)}: not queued; rerun the sweep command to submit them")


def _exit(code: int | None) -> str:
    if not code:
        return ""
    return f", killed by signal {-code}" if code < 0 else f", exit code {code}"


def _line(run: RunState) -> Text:
    status, task = run.status, run.task
    where = f" in task {task.id} on {task.node}" if task and task.node else f" in task {task.id}" if task else ""
    reason = f": {status.reason}" if status.reason else ""
    swept = "".join(f" {key}={shown(value)}" for key, value in run.planned.overrides.items())
    return Text.assemble(f"run {run.planned.id}{swept}  ", styled(status.state), f"{where}{reason}")


if __name__ == "__main__":
    main()
