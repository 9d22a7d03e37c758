"""Kill writers of files with -9 before every line; print how often, after checking that no file was torn.

A program of its own, since it forks: `python tests/killed_at_each_line.py FOLDER`
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from irmas import files
from irmas.config import Config
from irmas.files import atomic_write
from irmas.results import ranking
from irmas.run.folder import RunFolder, Status
from irmas.sweep import plan as plans
from irmas.sweep.plan import Plan, Point

LRS = (0.1, 0.2, 0.3)
LARGE = 8_000_000
"""Bytes that take a while to write."""


def plan(runs: int) -> Plan:
    points = [Point(number, {"lr": lr}, {"lr": lr}) for number, lr in enumerate(LRS[:runs], start=1)]
    return Plan("s", ["lr"], "data", "source", "", Config(), points)


class StatusFile:
    functions = (RunFolder.held.__wrapped__, RunFolder._enter, RunFolder.write_status, RunFolder.amend_status)  # type: ignore[attr-defined]

    def __init__(self, folder: Path) -> None:
        self.run = RunFolder(folder)

    def write(self, version: int) -> None:
        with self.run.held() as held:
            held.write_status(Status(epoch=version))

    def read(self) -> int:
        return self.run.told().epoch


class PlanFile:
    """A grid that grows."""

    functions = (plans.write,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, version: int) -> None:
        if version == 1:
            (self.folder / plans.PLAN).unlink(missing_ok=True)
        plans.write(self.folder, plan(1 + version))

    def read(self) -> int:
        return len(plans.read(self.folder).points) - 1


class Ranking:
    """Two files: a kill may fall between them."""

    functions = (ranking.write,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, version: int) -> None:
        plans.write(self.folder, plan(3))
        result = ranking.rank(self.folder)
        ranking.write(self.folder, ranking.Ranking(result.plan, result.rows[: 1 + version], [], result.state))

    def read(self) -> int:
        lines = (self.folder / "ranking.csv").read_text().splitlines()
        entries = (self.folder / "ranking.json").read_text()
        assert lines[-1].count(",") == lines[0].count(",")
        assert entries.endswith("]\n")
        assert len(lines) - 1 - entries.count('"id"') in (0, 1)
        return entries.count('"id"') - 1


class Checkpoint:
    def __init__(self, folder: Path) -> None:
        from irmas.run import checkpoint  # Here and last: a process with torch takes longer to fork.

        self.functions, self.path = (checkpoint.save,), folder / "checkpoint.pt"
        self.save, self.load = checkpoint.save, checkpoint.load

    def write(self, version: int) -> None:
        self.save(self.path, {"epoch": version}, Config())

    def read(self) -> int:
        state = self.load(self.path, Config())
        assert state is not None
        return int(state["epoch"])


def fork(child: Callable[[], None]) -> int:
    """Fork a process that calls `child` and ends; return its process ID."""
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    return pid


def was_killed(pid: int) -> bool:
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def killed_at(number: int, write: Callable[[], None], functions: Iterable[Callable[..., Any]]) -> None:
    """Call `write`, killed before this line of these functions and of irmas/files.py."""
    lines, watched = 0, {function.__code__ for function in functions}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code not in watched and frame.f_code.co_filename != files.__file__:
            return None
        lines += event == "line"
        if lines == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    write()


def at_each_line(file: Checkpoint | StatusFile | PlanFile | Ranking) -> int:
    file.write(1)
    assert file.read() == 1
    versions = []
    for line in count(1):
        if not was_killed(fork(lambda: killed_at(line, lambda: file.write(2), file.functions))):  # noqa: B023
            break
        versions.append(file.read())
        file.write(1)
    assert set(versions) == {1, 2}
    assert file.read() == 2
    return len(versions)


def at_random_moments(path: Path) -> int:
    """Kill a writer of one large file at random moments; return how often."""
    contents = (b"o" * LARGE, b"n" * LARGE)
    atomic_write(path, contents[0])

    def write_on_and_on() -> None:
        while True:
            for content in contents:
                atomic_write(path, content)

    moments, kills = random.Random(0), 10
    for _ in range(kills):
        pid = fork(write_on_and_on)
        time.sleep(moments.uniform(0.01, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert was_killed(pid)
        assert path.read_bytes() in contents
    return kills


if __name__ == "__main__":
    for kind in (StatusFile, PlanFile, Ranking, Checkpoint):
        place = Path(sys.argv[1]) / kind.__name__
        place.mkdir()
        sys.stdout.write(f"{kind.__name__} {at_each_line(kind(place))}\n")
    sys.stdout.write(f"large {at_random_moments(Path(sys.argv[1]) / 'large')}\n")
