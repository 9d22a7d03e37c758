"""Write files, killed with -9 ahead of every line that writes them; print how often, and fail if one was torn.

Run it in a process of its own, since it forks: `python tests/killed_at_each_line.py FOLDER`
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from factories import read_plan, write_plan

from irmas import files
from irmas.config import Config, Search
from irmas.files import atomic_write
from irmas.results import ranking
from irmas.run import lease
from irmas.run.folder import POINT, RunFolder, Status
from irmas.sweep import adaptive
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.sweep import PLAN, Sweep

LRS = (0.1, 0.2, 0.3)
LARGE = 8_000_000
"""Number of bytes that take a while to write."""


def plan(points: int) -> Plan:
    entries = [PlannedRun(number, {"lr": lr}, {"lr": lr}) for number, lr in enumerate(LRS[:points], start=1)]
    return Plan("s", ["lr"], "data", "source", "", Config(), entries)


class StatusFile:
    acquiring = (RunFolder.acquire.__wrapped__, lease.acquire.__wrapped__, lease._replace_lock)  # type: ignore[attr-defined]
    functions = (*acquiring, RunFolder.write_status, RunFolder.amend_status)

    def __init__(self, folder: Path) -> None:
        self.run = RunFolder(folder)

    def write(self, version: int) -> None:
        with self.run.acquire() as owned:
            owned.write_status(Status(epoch=version))

    def read(self) -> int:
        return self.run.recorded().epoch


class PlanFile:
    """A grid that grows."""

    functions = (Sweep.write,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, version: int) -> None:
        if version == 1:
            (self.folder / PLAN).unlink(missing_ok=True)
        Sweep(self.folder, plan(1 + version)).write()

    def read(self) -> int:
        return len(read_plan(self.folder).runs) - 1


class Ranking:
    """Two files: a kill may fall between them."""

    functions = (ranking.write,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, version: int) -> None:
        write_plan(self.folder, plan(3))
        result = ranking.rank(Sweep.open(self.folder))
        ranking.write(replace(result, runs=result.runs[: 1 + version]))

    def read(self) -> int:
        lines = (self.folder / "ranking.csv").read_text().splitlines()
        entries = (self.folder / "ranking.json").read_text()
        assert lines[-1].count(",") == lines[0].count(",")
        assert entries.endswith("]\n")
        assert len(lines) - 1 - entries.count('"id"') in (0, 1)
        return entries.count('"id"') - 1


class PointFile:
    """The point that a run chooses, under a lock that the next one needs."""

    functions = (adaptive.with_point, RunFolder.write_point)

    def __init__(self, folder: Path) -> None:
        interval = {"low": 0.1, "high": 0.2, "is_log": False, "is_whole": False}
        config = Config(search=Search("tpe", 1, 0))
        open_plan = replace(plan(0), config=config, runs=[PlannedRun(1, {}, {})], space={"lr": "interval(0.1,0.2)"})
        self.sweep, (self.run,) = Sweep(folder, replace(open_plan, intervals={"lr": interval})).write()
        self.folder = self.sweep.run_folder(self.run)
        self.folder.path.mkdir(parents=True)
        self.write(2)  # imports Optuna, so that the forks need not

    def write(self, version: int) -> None:
        if version == 1:
            (self.folder.path / POINT).unlink(missing_ok=True)
        else:
            adaptive.with_point(self.folder, self.sweep, self.run)

    def read(self) -> int:
        return 1 if self.folder.point() is None else 2


class Checkpoint:
    def __init__(self, folder: Path) -> None:
        from irmas.run import checkpoint  # last, since a process with torch takes longer to fork

        self.functions, self.path = (checkpoint.save,), folder / "checkpoint.pt"
        self.save, self.load = checkpoint.save, checkpoint.load

    def write(self, version: int) -> None:
        self.save(self.path, {"epoch": version}, Config())

    def read(self) -> int:
        state = self.load(self.path, Config())
        assert state is not None
        return int(state["epoch"])


def fork(child: Callable[[], None]) -> int:
    """Return the ID of a process that calls `child` and ends."""
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    return pid


def was_killed(pid: int) -> bool:
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def killed_at(number: int, write: Callable[[], None], functions: Iterable[Callable[..., Any]]) -> None:
    """Call `write`, but not beyond this line of these functions and of irmas/files.py."""
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


def at_each_line(file: Checkpoint | StatusFile | PlanFile | PointFile | Ranking) -> int:
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
    """Kill a process while it writes one large file; return the number of kills."""
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
    for kind in (StatusFile, PlanFile, Ranking, PointFile, Checkpoint):
        place = Path(sys.argv[1]) / kind.__name__
        place.mkdir()
        sys.stdout.write(f"{kind.__name__} {at_each_line(kind(place))}\n")
    sys.stdout.write(f"large {at_random_moments(Path(sys.argv[1]) / 'large')}\n")
