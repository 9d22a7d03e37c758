"""The project's commands as an unprivileged user runs them, many from one process, and what they change on disk."""

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
"""Prefix under which root has to respect file permissions, as everybody else does."""


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str


class Commands:
    """Run `python -m irmas.<command> ARGS` in forks of a process that has imported what they need."""

    def __init__(self) -> None:
        server = [sys.executable, str(ROOT / "tests" / "command_server.py")]
        self.server = subprocess.Popen(
            [*POWERLESS, *server] if os.getuid() == 0 else server,
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

    def run(self, command: str, *args: str, folder: Path, **environment: str) -> Result:
        """Run one command in `folder` and return how it ended."""
        case = {"command": command, "args": args, "folder": str(folder), "environment": environment}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(case) + "\n")
        self.server.stdin.flush()
        return Result(*json.loads(self.server.stdout.readline()))

    def train(self, *args: str, folder: Path, **environment: str) -> Result:
        return self.run("train", *args, "hydra/launcher=local", folder=folder, **environment)

    def refuse(self, command: str, *args: str, folder: Path, **environment: str) -> str:
        """Return the one message of a command that exits with 2, and assert that it changed nothing."""
        before = contents(folder)
        result = self.run(command, *args, folder=folder, **environment)
        assert (result.code, result.stdout) == (2, ""), result
        assert result.stderr.startswith(f"irmas.{command}: ")
        assert result.stderr.count(f"irmas.{command}: ") == 1
        assert "Traceback" not in result.stderr
        assert contents(folder) == before
        return result.stderr


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, mtime and bytes of everything in a folder, as far as it can be read."""
    files = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        data = path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else b""
        files[str(path.relative_to(folder))] = (stat.st_mode, stat.st_mtime_ns, data)
    return files
