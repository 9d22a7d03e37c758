"""What a person sees of the doors: plain lines, tables, and while something takes long bars on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

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


def data_progress(console: Console) -> Callable[[str, int], Callable[[int], None]]:
    """For `irmas.data.dataset`: a bar, or a line at every tenth."""

    def begin(what: str, total: int) -> Callable[[int], None]:
        bars = progress_bars(console)
        count = _counter(console, bars, what, total, "excerpts")
        if console.is_terminal:
            bars.start()

        def advance(more: int) -> None:
            if count(more) >= total:
                bars.stop()

        return advance

    return begin


@contextmanager
def listening_progress(console: Console, what: str, windows: int) -> Iterator[Callable[[int], object]]:
    """A bar for a sound file; elsewhere than on a terminal a line at every tenth of a long one."""
    bars = progress_bars(console)
    with bars:
        yield _counter(console, bars, what, windows, "windows", in_lines=windows >= MANY_WINDOWS)


def _counter(
    console: Console, bars: Progress, what: str, total: int, unit: str, *, in_lines: bool = True
) -> Callable[[int], int]:
    """Takes how many more are done, shows it on a bar of its own or in lines, and says how many are."""
    done = 0
    bar = bars.add_task(what, total=total, note=unit)

    def count(more: int) -> int:
        nonlocal done
        tenths = 10 * done // total
        done += more
        bars.update(bar, completed=done)
        if in_lines and not console.is_terminal and 10 * done // total > tenths:
            console.print(f"{what}: {done}/{total} {unit}")
        return done

    return count


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


def progress_bars(console: Console) -> Progress:
    """Of things that are counted; what a task says of itself is its field `note`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
