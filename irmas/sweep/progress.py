"""What a person sees while runs train: a bar for the sweep and one for each run, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from irmas.config import shown
from irmas.console import progress_bars
from irmas.run import events
from irmas.run.folder import COMPLETED, FINAL, PRUNED, Status
from irmas.sweep.plan import Point


class SweepProgress:
    """A bar for the sweep and one for each run that trains; use as a context manager."""

    def __init__(self, console: Console, total: int, done: int, width: int) -> None:
        self.console = console
        self.total, self.done, self.width = total, done, width
        self.bars = progress_bars(console)
        self.sweep = self.bars.add_task("runs", total=total, completed=done, note="")
        self.tasks: dict[int, TaskID] = {}
        self.seen: dict[int, int] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def report(self, point: Point, status: Status) -> None:
        """A run that trains."""
        if point.id not in self.tasks:
            self.tasks[point.id] = self.bars.add_task(_label(point), total=None, note="")
        share = status.step / status.steps if status.steps else 0.0
        self.bars.update(
            self.tasks[point.id],
            total=status.epochs or None,
            completed=status.epoch + share,
            note=_scores(status),
        )
        if not self.console.is_terminal and status.epoch > self.seen.get(point.id, 0):
            self.console.print(
                f"{_label(point):{self.width}}  epoch {status.epoch}/{status.epochs}  {_scores(status)}",
            )
        self.seen[point.id] = status.epoch

    def ended(self, point: Point, status: Status) -> None:
        if point.id in self.tasks:
            self.bars.remove_task(self.tasks.pop(point.id))
        self.done += status.state in FINAL
        self.bars.update(self.sweep, completed=self.done)
        reason = "" if status.state == COMPLETED else status.reason
        state = Text(status.state, style={COMPLETED: "green", PRUNED: "yellow"}.get(status.state, "red"))
        said = f"  {_scores(status)}{reason and '  ' + reason}  ({self.done}/{self.total})"
        self.console.print(Text.assemble(f"{_label(point):{self.width}}  ", state, said))


def _label(point: Point) -> str:
    return " ".join([f"run {point.id}", *(f"{key}={shown(value)}" for key, value in point.overrides.items())])


def label_width(points: list[Point]) -> int:
    return max((len(_label(point)) for point in points), default=0)


def _scores(status: Status) -> str:
    metrics = status.metrics or {}  # what is not finite is left out
    accuracy = f"val_accuracy {metrics[events.RANKED]:.2%}" if events.RANKED in metrics else ""
    return accuracy + (f" loss {metrics[events.VAL_LOSS]:.4f}" if events.VAL_LOSS in metrics else "")
