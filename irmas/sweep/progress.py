"""What a user sees while runs train: a bar for the sweep and one for each run; plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from irmas.config import shown
from irmas.console import progress_bars
from irmas.run import events
from irmas.run.folder import COMPLETED, FINAL, PRUNED, Status
from irmas.sweep.plan import PlannedRun


class SweepProgress:
    """Progress of some runs, of which a number have finished; use as a context manager."""

    def __init__(self, console: Console, runs: Sequence[PlannedRun], finished: int) -> None:
        self.console = console
        self.total, self.finished = len(runs), finished
        self.width = max((len(_label(run)) for run in runs), default=0)
        self.bars = progress_bars(console)
        self.bar = self.bars.add_task("runs", total=self.total, completed=finished, note="")
        self.run_bars: dict[int, TaskID] = {}
        self.epochs: dict[int, int] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def update(self, run: PlannedRun, status: Status) -> None:
        """Show how far a run that trains has come."""
        if run.id not in self.run_bars:
            self.run_bars[run.id] = self.bars.add_task(_label(run), total=None, note="")
        epoch = status.epoch + (status.step / status.steps if status.steps else 0.0)
        scores = _scores(status)
        self.bars.update(self.run_bars[run.id], total=status.epochs or None, completed=epoch, note=scores)
        if not self.console.is_terminal and status.epoch > self.epochs.get(run.id, 0):
            self.console.print(f"{_label(run):{self.width}}  epoch {status.epoch}/{status.epochs}  {scores}")
        self.epochs[run.id] = status.epoch

    def end(self, run: PlannedRun, status: Status) -> None:
        """Show how a run ended."""
        if run.id in self.run_bars:
            self.bars.remove_task(self.run_bars.pop(run.id))
        self.finished += status.state in FINAL
        self.bars.update(self.bar, completed=self.finished)
        state = Text(status.state, style={COMPLETED: "green", PRUNED: "yellow"}.get(status.state, "red"))
        reason = f"  {status.reason}" if status.reason and status.state != COMPLETED else ""
        counts = f"  {_scores(status)}{reason}  ({self.finished}/{self.total})"
        self.console.print(Text.assemble(f"{_label(run):{self.width}}  ", state, counts))


def _label(run: PlannedRun) -> str:
    return " ".join([f"run {run.id}", *(f"{key}={shown(value)}" for key, value in run.overrides.items())])


def _scores(status: Status) -> str:
    metrics = status.metrics or {}  # without those that are not finite
    accuracy = f"val_accuracy {metrics[events.RANKED]:.2%}" if events.RANKED in metrics else ""
    return accuracy + (f" loss {metrics[events.VAL_LOSS]:.4f}" if events.VAL_LOSS in metrics else "")
