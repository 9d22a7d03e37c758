"""What a person sees of the doors: plain lines, tables, and while something takes long bars on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

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


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], left: Collection[str]) -> Table:
    """Without lines; the columns named in `left` are text, the others numbers."""
    lines = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        lines.add_column(head, justify="left" if head in left else "right", no_wrap=True)
    for row in rows:
        lines.add_row(*row)
    return lines


def print_table(console: Console, table: Table) -> None:
    """As wide as it needs to be: a line that the terminal wraps is better than a number cut short."""
    before, console.width = console.width, WIDEST
    console.print(table)
    console.width = before


def width(console: Console, table: Table) -> int:
    """Columns that a table needs where nothing is cut or wrapped."""
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum


class Progress(Protocol):
    """What long work reports to: tasks, one after another, each counted up to its total."""

    def start(self, task: str, total: int, unit: str = "excerpts") -> None:
        """Begin a task of `total` units."""

    def advance(self, count: int) -> None:
        """Count further units of the task as done."""


class Silent:
    """Progress that nobody sees."""

    def start(self, task: str, total: int, unit: str = "excerpts") -> None: ...

    def advance(self, count: int) -> None: ...


SILENT: Progress = Silent()


class ConsoleProgress:
    """Progress as a bar on a terminal; elsewhere as a line at every tenth of tasks of `lines_from` units or more."""

    def __init__(self, console: Console, lines_from: int = 1) -> None:
        self.console, self.lines_from = console, lines_from
        self.bars = progress_bars(console)
        self.task, self.unit, self.total, self.done = "", "", 0, 0

    def start(self, task: str, total: int, unit: str = "excerpts") -> None:
        self.close()
        self.bars = progress_bars(self.console)
        self.bar = self.bars.add_task(task, total=total, note=unit)
        self.task, self.unit, self.total, self.done = task, unit, total, 0
        self.bars.start()

    def advance(self, count: int) -> None:
        tenths = 10 * self.done // self.total
        self.done += count
        self.bars.update(self.bar, completed=self.done)
        in_lines = not self.console.is_terminal and self.total >= self.lines_from
        if in_lines and 10 * self.done // self.total > tenths:
            self.console.print(f"{self.task}: {self.done}/{self.total} {self.unit}")
        if self.done >= self.total:
            self.close()

    def close(self) -> None:
        self.bars.stop()


def download_progress(console: Console) -> Callable[[str, int, int | None], None]:
    """For `irmas.data.download`: a bar a file, or a line at every tenth."""
    bars = Bars(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console)
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


def progress_bars(console: Console) -> Bars:
    """Of things that are counted; what a task says of itself is its field `note`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
