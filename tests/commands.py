"""The doors as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def _command(door: str, arguments: tuple[str, ...]) -> list[str]:
    """Where Slurm is installed it would be the default."""
    launcher = ["hydra/launcher=local"] if _takes_launcher(door, arguments) else []
    return [sys.executable, "-m", f"irmas.{door}", *arguments, *launcher]


def _takes_launcher(door: str, arguments: tuple[str, ...]) -> bool:
    return door in ("train", "refine") and not any("launcher=" in word for word in arguments)


def irmas(door: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m irmas.<door> ARGUMENTS` in the folder `cwd`."""
    return subprocess.run(
        _command(door, arguments),
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def start(door: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """The same in the background, in a session of its own, where it answers SIGINT."""
    return subprocess.Popen(
        _command(door, arguments),
        cwd=cwd,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell ignores SIGINT for what it starts in the background, this test run perhaps among it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)


def marked(mark: str) -> list[int]:
    """Processes that were started with this mark in their environment, by whatever parent."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"IRMAS_TEST_MARK={mark}\0".encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found
