"""The doors as an unprivileged user opens them, many from one process; and what a command has changed on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from commands import ENVIRONMENT, ROOT

POWERLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Root keeps to permissions then, as everybody else has to."""


@dataclass(frozen=True)
class Said:
    code: int
    stdout: str
    stderr: str


class Doors:
    """`python -m irmas.<door> ARGUMENTS`, in forks of a process that has imported what they need."""

    def __init__(self) -> None:
        command = [sys.executable, str(ROOT / "tests" / "door_server.py")]
        self.server = subprocess.Popen(
            [*POWERLESS, *command] if os.getuid() == 0 else command,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.communicate(timeout=30)

    def open(self, door: str, *arguments: str, folder: Path, **environment: str) -> Said:
        case = {"door": door, "arguments": arguments, "folder": str(folder), "environment": environment}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(case) + "\n")
        self.server.stdin.flush()
        return Said(*json.loads(self.server.stdout.readline()))

    def train(self, *arguments: str, folder: Path, **environment: str) -> Said:
        return self.open("train", *arguments, "hydra/launcher=local", folder=folder, **environment)

    def refuse(self, door: str, *arguments: str, folder: Path, **environment: str) -> str:
        """The one message of a command that changes nothing and exits with 2."""
        before = contents(folder)
        said = self.open(door, *arguments, folder=folder, **environment)
        assert (said.code, said.stdout) == (2, ""), said
        assert said.stderr.startswith(f"irmas.{door}: ")
        assert said.stderr.count(f"irmas.{door}: ") == 1
        assert "Traceback" not in said.stderr
        assert contents(folder) == before
        return said.stderr


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and content of everything in a folder, as root sees it."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        text = path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else b""
        found[str(path.relative_to(folder))] = (stat.st_mode, stat.st_mtime_ns, text)
    return found
