"""What the benchmarks share: sides that are measured in turn, and the ratios of each round as a table.

Only ratios count: in a round every side runs once, so that whatever else the machine does weighs on all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
BENCHMARKS = Path(__file__).parent
PEERS = BENCHMARKS / ".venv" / "bin" / "python"
"""Sees the project's packages and what requirements.txt adds; nothing of ours is measured in it."""
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{BENCHMARKS}", "CUDA_VISIBLE_DEVICES": ""}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)
"""As a user's: otherwise each process compiles what it imports."""
HEAD = "| what | of | median (smallest - largest) | goal | met | median times, and more |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """A line of the table: a value of each round."""

    what: str
    of: str
    """Such as `naive / ours`, or a unit."""
    values: Sequence[float]
    goal: str = ""
    """`>= 3` or `<= 1.1`; of the median."""
    note: str = ""

    def __str__(self) -> str:
        """In the columns of HEAD."""
        spread = f"{statistics.median(self.values):.2f} ({min(self.values):.2f} - {max(self.values):.2f})"
        return f"| {self.what} | {self.of} | {spread} | {self.goal} | {self._met()} | {self.note} |"

    def _met(self) -> str:
        if not self.goal:
            return ""
        sign, bound = self.goal.split()
        median = statistics.median(self.values)
        return "yes" if (median >= float(bound) if sign == ">=" else median <= float(bound)) else "NO"


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side returns (seconds), a value a round. Another side begins each round."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides)
        for name in [*names[number % len(names) :], *names[: number % len(names)]]:
            taken[name].append(sides[name]())
            sys.stderr.write(f"  round {number + 1}: {name} {taken[name][-1]:.2f} s\n")
    return taken


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(over, under, strict=True)]


def medians(taken: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {statistics.median(times):.2f} s" for name, times in taken.items())


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """The same as a side, in this process."""

    def side() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return side


def run(command: Sequence[str | Path], cwd: Path, *, code: int = 0, **environment: str) -> float:
    """Return the seconds that a command takes. Raises RuntimeError, with its output, for another exit code."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT | environment, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode != code:
        raise RuntimeError(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return taken


class Peer:
    """A side that lives in a process of its own, started and warmed before it is measured: see `serve`."""

    def __init__(self, *command: str | Path) -> None:
        self.process = subprocess.Popen(
            [PEERS, *command], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()  # its stdin ends


def serve(work: Callable[[], object]) -> None:
    """In the peer's process: does its work once a line of stdin, and answers with the seconds."""
    side = timed(work)
    for _ in sys.stdin:
        print(side(), flush=True)  # noqa: T201


def parser(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--record", type=Path, help="append the rows to this file, a JSON object a line")
    return made


def show(rows: Sequence[Row], record: Path | None) -> None:
    print("\n".join([HEAD, *map(str, rows)]))  # noqa: T201
    if record is not None:
        with record.open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
