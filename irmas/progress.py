"""What a person sees while data is prepared and runs train: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from irmas.config import shown
from irmas.run import events
from irmas.run.folder import COMPLETED, FINAL, STOPPED, Status
from irmas.sweep.plan import Point

WIDEST = 9999
MANY_WINDOWS = 1000
"""They take long enough for a word where no bar is shown."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The doors answer for it: rich would end the process, with what is not yet written left undone."""
        raise BrokenPipeError


def plain_console(*, stderr: bool = False) -> Console:
    """Prints what it is given: names such as [cel][cla]0001__1 are no markup, and nothing is cut."""
    return _Console(highlight=False, markup=False, soft_wrap=True, stderr=stderr)


def print_table(console: Console, table: Table) -> None:
    """As wide as it needs to be: a line that the terminal wraps is better than a number cut short."""
    before, console.width = console.width, WIDEST
    console.print(table)
    console.width = before


def width(console: Console, table: Table) -> int:
    """Columns that a table needs where nothing is cut or wrapped."""
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum


class SweepProgress:
    """A bar for the sweep and one for each run that trains; use as a context manager."""

    def __init__(self, console: Console, total: int, done: int, width: int) -> None:
        self.console = console
        self.total, self.done, self.width = total, done, width
        self.bars = _bars(console)
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
        state = Text(status.state, style={COMPLETED: "green", STOPPED: "yellow"}.get(status.state, "red"))
        said = f"  {_scores(status)}{reason and '  ' + reason}  ({self.done}/{self.total})"
        self.console.print(Text.assemble(f"{_label(point):{self.width}}  ", state, said))


def data_progress(console: Console) -> Callable[[str, int], Callable[[int], None]]:
    """For `irmas.data.dataset`: a bar, or a line at every tenth."""

    def begin(what: str, total: int) -> Callable[[int], None]:
        done = 0
        bars = _bars(console)
        bar = bars.add_task(what, total=total, note="excerpts")
        if console.is_terminal:
            bars.start()

        def advance(more: int) -> None:
            nonlocal done
            tenths = 10 * done // total
            done += more
            bars.update(bar, completed=done)
            if not console.is_terminal and 10 * done // total > tenths:
                console.print(f"{what}: {done}/{total} excerpts")
            if done >= total:
                bars.stop()

        return advance

    return begin


@contextmanager
def listening_progress(console: Console, what: str, windows: int) -> Iterator[Callable[[int], None]]:
    """A bar for a sound file; elsewhere than on a terminal a line at every tenth of a long one."""
    done = 0
    bars = _bars(console)
    bar = bars.add_task(what, total=windows, note="windows")

    def advance(more: int) -> None:
        nonlocal done
        tenths = 10 * done // windows
        done += more
        bars.update(bar, completed=done)
        if not console.is_terminal and windows >= MANY_WINDOWS and 10 * done // windows > tenths:
            console.print(f"{what}: {done}/{windows} windows")

    with bars:
        yield advance


def download_progress(console: Console) -> Callable[[str, int, int | None], None]:
    """For `irmas.data.download`: a bar a file, or a line at every tenth."""
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console
    )
    tasks: dict[str, TaskID] = {}
    told: dict[str, int] = {}

    def advance(name: str, done: int, total: int | None) -> None:
        if console.is_terminal:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
                bars.start()
            bars.update(tasks[name], completed=done, total=total)
            if done == total:
                bars.stop()
        elif total and 10 * done // total != told.get(name):
            told[name] = 10 * done // total
            console.print(f"{name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return advance


def _bars(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _label(point: Point) -> str:
    return " ".join([f"run {point.id}", *(f"{key}={shown(value)}" for key, value in point.overrides.items())])


def label_width(points: list[Point]) -> int:
    return max((len(_label(point)) for point in points), default=0)


def _scores(status: Status) -> str:
    metrics = status.metrics or {}  # what is not finite is left out
    accuracy = f"val accuracy {metrics[events.VAL_ACCURACY]:.2%}" if events.VAL_ACCURACY in metrics else ""
    return accuracy + (f" loss {metrics[events.VAL_LOSS]:.4f}" if events.VAL_LOSS in metrics else "")
