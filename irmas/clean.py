"""Remove what a finished sweep does not need, its checkpoints: `python -m irmas.clean outputs/<name>`."""

from __future__ import annotations

from pathlib import Path

from irmas.console import byte_size, counted, plain_console
from irmas.errors import Parser, UserError, report_errors
from irmas.files import disk_usage
from irmas.run.folder import COMPLETED, FINAL, RUNNING
from irmas.sweep.jobs import named_runs
from irmas.sweep.run_states import SweepState, sweep_state
from irmas.sweep.sweep import Sweep


def main() -> None:
    parser = Parser("irmas.clean", "Remove the checkpoints of a sweep's finished runs; results and nets stay.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed, and remove nothing")
    with report_errors("irmas.clean"):
        args = parser.parse_args()
        clean(sweep_state(Sweep.open(args.sweep)), dry_run=args.dry_run)


def clean(state: SweepState, *, dry_run: bool = False) -> None:
    """Remove the checkpoints of all runs that another start would not resume, and print what that frees.

    Raises UserError where something of the sweep is running or queued; OSError where a file cannot be removed.
    """
    refuse_live(state)
    sweep, console = state.sweep, plain_console()
    total = disk_usage(sweep.path)
    removed, lost, unfinished, without_net = dict[Path, int](), list[int](), list[int](), list[int]()
    for run in state.runs:
        folder = sweep.run_folder(run.planned)
        if not (files := folder.checkpoints):
            continue
        if run.status.state not in FINAL:
            unfinished.append(run.planned.id)
        elif run.status.state == COMPLETED and not folder.model.is_file():
            without_net.append(run.planned.id)
        else:
            removed |= {file: disk_usage(file) for file in files}
            lost += [run.planned.id] if run.status.state != COMPLETED else []
    for file in [] if dry_run else removed:
        file.unlink(missing_ok=True)
    verb = "would free" if dry_run else "freed"
    folders = len({file.parent for file in removed})
    size = f"{verb} {byte_size(sum(removed.values()))} of {byte_size(total)}"
    console.print(f"{sweep}: {size}, the checkpoints of {counted(folders, 'finished run')}")
    if lost:
        console.print(f"without a net from now on: {named_runs(lost)}, which did not end as COMPLETED")
    if unfinished:
        console.print(f"kept: {named_runs(unfinished)}, not finished; rerun the sweep command to resume them")
    if without_net:
        console.print(f"kept: {named_runs(without_net)}, whose model.pt is missing")


def refuse_live(state: SweepState) -> None:
    """Raise UserError, naming what is live, where something of the sweep is running or queued, or may be."""
    sweep = state.sweep
    unfinished = [run.planned.id for run in state.runs if run.status.state not in FINAL]
    if unfinished and state.note:
        raise UserError(f"{sweep}: {named_runs(unfinished)} may still be in the queue: {state.note}")
    if not state.is_live:
        return
    runs = [
        run.planned.id
        for run in state.runs
        if run.status.state == RUNNING or (run.task is not None and run.task.is_live)
    ]
    live = [named_runs(runs)] if runs else []
    live += [f"{task.name} job {task.id}" for task in state.stages if task.is_live]
    live += ["a command on this machine trains its runs"] if state.in_pool and not live else []
    remedy = f"clean the sweep when that has ended: python -m irmas.status {sweep} --watch"
    raise UserError(f"{sweep}: still training or in the queue: {', '.join(live)}; {remedy}")


if __name__ == "__main__":
    main()
