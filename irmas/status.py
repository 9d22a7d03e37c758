"""Show the states of the runs of a sweep, `python -m irmas.status outputs/<name>`, or all sweeps in outputs/."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from irmas.config import shown
from irmas.console import plain_console, plain_table, print_json, print_table, width
from irmas.errors import Parser, UserError, report_errors
from irmas.results import listing, usage
from irmas.results.ranking import styled
from irmas.run.events import RANKED, VAL_LOSS
from irmas.run.folder import COMPLETED, PENDING, PRUNED, RUNNING
from irmas.sweep.jobs import named_runs
from irmas.sweep.run_states import NOT_SUBMITTED, RunState, SweepState, sweep_state
from irmas.sweep.sweep import OUTPUTS, Sweep

REFRESH_S = 5.0
CONFIRM_S = 1.0
"""Time to the second look: between two runs, a local sweep looks finished."""
ERROR_LINES = 8
SPARE = ("elapsed", "node", "val loss", "task")
"""Columns left out on a narrow terminal, in this order."""
QUIET = (COMPLETED, PRUNED, PENDING, NOT_SUBMITTED, RUNNING)
"""States that need no explanation."""


def main() -> None:
    parser = Parser("irmas.status", "Show the states of the runs of a sweep, or all sweeps.")
    parser.add_argument(
        "sweep", type=Path, nargs="?", metavar="outputs/<name>", help="default: a list of all in outputs/"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--watch", action="store_true", help="update until nothing of the sweep is running or queued")
    mode.add_argument("--json", action="store_true", help="as JSON (docs/json.md)")
    mode.add_argument("--log", type=int, metavar="ID", help="print the log of one run")
    with report_errors("irmas.status"):
        args = parser.parse_args()
        if args.sweep is None:
            if args.watch or args.log is not None:
                raise UserError("--watch and --log: need a sweep, outputs/<name>")
            show_all(OUTPUTS, as_json=args.json)
            return
        if args.log is not None:
            sys.stdout.write(log(Sweep.open(args.sweep), args.log))
            return
        try:
            state = watch(args.sweep) if args.watch else look(args.sweep)
        except KeyboardInterrupt:  # ends the display; the sweep keeps running
            sys.exit(130)
        if args.json:
            print_json(as_json(state))
        else:
            show(state)


def show_all(outputs: Path, *, as_json: bool = False) -> None:
    """Print one row per sweep of a folder. Raises UserError where there is none."""
    entries, notes = listing.read(outputs) if outputs.is_dir() else ([], [])
    if not entries:
        remedy = "change to the folder that has it, or start a sweep with python -m irmas.train"
        raise UserError(f"no sweep is in {outputs}/ of {Path.cwd()}; {remedy}")
    if as_json:
        print_json(listing.as_json(entries, notes))
        return
    console = plain_console()
    print_table(console, listing.table(entries))
    for text in [*(f"{entry.path}: {entry.problem}" for entry in entries if entry.problem), *notes]:
        console.print(text, style="yellow")


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
        where = f"; its job prints to {sweep.slurm}" if sweep.slurm.is_dir() else ""
        raise UserError(f"--log {number}: no log yet: the run has not started{where}") from None


def watch(path: Path) -> SweepState:
    """Show the sweep until nothing of it trains or is in the queue, and return how it then stands.

    On a terminal this is a table, elsewhere a line whenever the state of a run changes.
    """
    console = plain_console()
    if console.is_terminal:
        console = Console(highlight=False, markup=False)
        with Live(console=console, transient=True, auto_refresh=False) as view:
            for state in poll(path):
                view.update(screen(state, console), refresh=True)
        return state
    before: dict[int, str] = {}
    for state in poll(path):
        if not before:
            console.print(header(state))
        for run in state.runs:
            if before.get(run.planned.id, run.status.state) != run.status.state:
                console.print(_line(run))
            before[run.planned.id] = run.status.state
    return state


def poll(path: Path) -> Iterator[SweepState]:
    """Yield how the sweep stands, every few seconds, until two looks in a row find nothing training or queued."""
    idle_looks, was_live = 0, False
    while True:
        state = look(path)
        yield state
        if not state.note:
            was_live = state.is_live
        # Where Slurm did not reply, its last reply holds: a controller that is down comes back.
        is_live = state.is_live or was_live
        idle_looks = 0 if is_live else idle_looks + 1
        if idle_looks == 2:
            return
        time.sleep(REFRESH_S if is_live else CONFIRM_S)


def show(state: SweepState) -> None:
    """Print counts, stages, one row per run, and why runs ended without finishing."""
    console = plain_console()
    console.print(header(state))
    console.print("".join(f"{line}\n" for line in usage.lines(state)))
    print_table(console, table(state, state.runs))
    for failure in failures(state):
        console.print(failure, end="\n\n")


def screen(state: SweepState, console: Console) -> Group:
    """Return what fits on a terminal: runs that need attention first, those that finished or wait if there is room."""
    room = max(console.height - 5 - str(header(state)).count("\n"), 1)
    urgency = [RUNNING, *sorted({run.status.state for run in state.runs} - set(QUIET)), *QUIET]
    by_urgency = sorted(state.runs, key=lambda run: urgency.index(run.status.state))
    left_out = len(state.runs) - room
    more = f"and {left_out} more: python -m irmas.status {state.sweep}" if left_out > 0 else ""
    shown_runs = sorted(by_urgency[:room], key=lambda run: run.planned.id)
    count = 0
    while width(console, lines := table(state, shown_runs, SPARE[:count])) > console.width and count < len(SPARE):
        count += 1
    return Group(header(state), lines, Text(more))


def header(state: SweepState) -> Text:
    counts = Counter(run.status.state for run in state.runs)
    parts = [Text.assemble(f"{count} ", styled(name)) for name, count in sorted(counts.items())]
    lines = [Text.assemble(f"{state.sweep}: ", Text(", ").join(parts))]
    if note := state.sweep.plan.config.note:
        lines.append(Text(f"note: {note}"))
    for stage in state.stages:
        place = f" on {stage.node}" if stage.node else f" ({stage.reason})" if stage.reason else ""
        lines.append(Text.assemble(f"{stage.name} job {stage.id}: ", styled(stage.state), f"{place}  {stage.elapsed}"))
    if state.note:
        lines.append(Text(state.note, style="yellow"))
    return Text("\n").join(lines)


def table(state: SweepState, runs: Sequence[RunState], left_out: Collection[str] = ()) -> Table:
    """Return one row per run, in their order, without the columns of these headings."""
    plan = state.sweep.plan
    rows = [_cells(run, {key: plan.value(run.planned, key) for key in plan.swept}) for run in runs]
    heads = [head for head in (rows[0] if rows else {}) if head not in left_out]
    return plain_table(heads, ([row[head] for head in heads] for row in rows), left=("state", "task", "node"))


def as_json(state: SweepState) -> dict[str, Any]:
    """Return the content of the table as docs/json.md describes it."""
    plan = state.sweep.plan
    jobs = [
        {
            "stage": task.name,
            "job": task.id,
            "state": task.state,
            "node": task.node or None,
            "elapsed_s": task.elapsed_s,
        }
        for task in state.stages
    ]
    return {
        "sweep": str(state.sweep),
        "note": plan.config.note,
        "is_live": state.is_live,
        "jobs": jobs,
        "runs": [_run_as_json(run, {key: plan.value(run.planned, key) for key in plan.swept}) for run in state.runs],
        "warnings": [state.note] if state.note else [],
    }


def _run_as_json(run: RunState, settings: dict[str, Any]) -> dict[str, Any]:
    status, task, metrics = run.status, run.task, run.status.metrics or {}
    return {
        "id": run.planned.id,
        "settings": settings,
        "state": status.state,
        "message": status.message or None,
        "exit_code": status.exit_code,
        "task": task.id if task else status.job or None,
        "node": (task.node if task else "") or status.node or None,
        "elapsed_s": _elapsed_s(run),
        "epoch": status.epoch,
        "epochs": status.epochs,
        "val_accuracy": metrics.get(RANKED),
        "val_loss": metrics.get(VAL_LOSS),
    }


def _cells(run: RunState, swept: Mapping[str, Any]) -> dict[str, str | Text]:
    """Return the cells of a row, keyed by column heading."""
    status, task = run.status, run.task
    reason = f" ({status.reason})" if status.state in (PENDING, RUNNING) and status.reason else ""
    metrics = status.metrics or {}
    return {
        "run ID": str(run.planned.id),
        **{key: shown(value) for key, value in swept.items()},
        "state": styled(status.state) + reason,
        "task": task.id if task else status.job or "-",
        "node": (task.node if task else "") or status.node or "-",
        "elapsed": _elapsed(run),
        "epoch": f"{status.epoch}/{status.epochs}" if status.epochs else "-",
        "val_accuracy": f"{metrics[RANKED]:.2%}" if RANKED in metrics else "-",
        "val loss": f"{metrics[VAL_LOSS]:.4f}" if VAL_LOSS in metrics else "-",
    }


def _elapsed(run: RunState) -> str:
    seconds = _elapsed_s(run)
    return str(timedelta(seconds=int(seconds))) if seconds else "-"


def _elapsed_s(run: RunState) -> float:
    """Return the time since the last start of the task; outside Slurm, since the first start of the run."""
    status = run.status
    if run.task is not None:
        return run.task.elapsed_s
    if status.started:
        return (time.time() if status.state == RUNNING else status.updated) - status.started
    return 0.0


def failures(state: SweepState) -> Iterator[Text]:
    """Yield why runs ended, one entry for all that ended alike."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for run in state.runs:
        name, code = run.status.state, run.status.exit_code or 0
        ending = f", killed by signal {-code}" if code < 0 else f", exit code {code}" if code else ""
        error = "\n".join(run.status.message.strip().splitlines()[-ERROR_LINES:])
        if name not in QUIET:
            alike[name + ending, error].append(run.planned.id)
    for (name, error), ids in alike.items():
        yield Text("\n    ".join([f"{named_runs(ids)} {name}", *error.splitlines()]))
    failed = sorted(number for ids in alike.values() for number in ids)
    runs = {run.planned.id: run.planned for run in state.runs}
    if logged := [number for number in failed if os.access(state.sweep.run_folder(runs[number]).log, os.R_OK)]:
        yield Text(f"all that a run printed: python -m irmas.status {state.sweep} --log {logged[0]}")
    if idle := [run.planned.id for run in state.runs if run.status.state == NOT_SUBMITTED]:
        them = "it" if len(idle) == 1 else "them"
        yield Text(f"{named_runs(idle)}: not queued; rerun the sweep command to submit {them}")


def _line(run: RunState) -> Text:
    status, task = run.status, run.task
    place = f" in task {task.id} on {task.node}" if task and task.node else f" in task {task.id}" if task else ""
    reason = f": {status.reason}" if status.reason else ""
    swept = "".join(f" {key}={shown(value)}" for key, value in run.planned.overrides.items())
    return Text.assemble(f"run {run.planned.id}{swept}  ", styled(status.state), f"{place}{reason}")


if __name__ == "__main__":
    main()
