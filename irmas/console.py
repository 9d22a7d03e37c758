"""Output of the commands: plain lines, tables, and progress bars on a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

WIDEST = 9999
JSON_VERSION = 1
"""Raise it whenever an entry of docs/json.md is removed or changes its meaning."""
MANY_WINDOWS = 1000
"""Windows that take long enough for a line where no bar is shown."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the decision to the command: rich would end the process before pending files are written."""
        raise BrokenPipeError


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text unchanged: no markup, as in the name [cel][cla]0001__1, and nothing is cut."""
    return _Console(highlight=False, markup=False, soft_wrap=True, stderr=stderr)


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], left: Collection[str]) -> Table:
    """Return a table without rules; the columns named in `left` are text, the others numbers."""
    lines = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        lines.add_column(head, justify="left" if head in left else "right", no_wrap=True)
    for row in rows:
        lines.add_row(*row)
    return lines


def print_table(console: Console, table: Table) -> None:
    """Print a table as wide as it needs to be: a wrapped line is better than a number cut short."""
    before, console.width = console.width, WIDEST
    console.print(table)
    console.width = before


def print_json(content: Mapping[str, Any]) -> None:
    """Print one object of docs/json.md. Numbers that are not finite become null, as JSON has none."""
    text = json.dumps({"version": JSON_VERSION} | _finite(content), indent=1, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def width(console: Console, table: Table) -> int:
    """Return the width in characters that a table needs if nothing is cut or wrapped."""
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum


class Progress:
    """The receiver of progress: tasks, one after another, each counted up to its total. This one shows nothing."""

    def start(self, task: str, total: int, unit: str = "excerpts") -> None:
        """Begin a task of `total` units."""

    def advance(self, count: int) -> None:
        """Count further units of the task as done."""


SILENT = Progress()


class ConsoleProgress(Progress):
    """Progress as a bar on a terminal; elsewhere as a line at every tenth of tasks of `lines_from` units or more."""

    def __init__(self, console: Console, lines_from: int = 1) -> None:
        self.console, self.lines_from = console, lines_from
        self.bars = progress_bars(console)

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


def progress_bars(console: Console) -> Bars:
    """Return bars for things that are counted; a task's remark is its field `note`."""
    task, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (task, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), note)
    return Bars(*columns, console=console, transient=True, disable=not console.is_terminal)


def duration(seconds: int) -> str:
    """Return a time as in `1 d 2 h 30 min`."""
    minutes, rest = divmod(seconds, 60)
    parts = {"d": minutes // 1440, "h": minutes // 60 % 24, "min": minutes % 60, "s": rest}
    return " ".join(f"{number} {unit}" for unit, number in parts.items() if number) or "0 min"


def counted(n: int, one: str) -> str:
    """Return `1 run`, `3 runs`."""
    return f"{n} {one}" if n == 1 else f"{n} {one}s"


def byte_size(size: float) -> str:
    """Return `512 B`, `81.2 MB`."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = next((power for power in range(4) if size < 999.5 * 1000**power), 4)
    return f"{size / 1000**power:.3g} {units[power]}"


def age(seconds: float) -> str:
    """Return a time in its largest unit: `12 s`, `5 min`, `3 h`, `20 d`."""
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    name, length = next((unit for unit in units.items() if seconds >= unit[1]), ("s", 1))
    return f"{max(int(seconds), 0) // length} {name}"
