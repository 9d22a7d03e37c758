"""The project's commands as a user starts them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from irmas.sweep.settings import CLUSTER_FILE

ROOT = Path(__file__).parent.parent

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", CLUSTER_FILE: ""}


def _command(command: str, args: tuple[str, ...]) -> list[str]:
    """Return the command line, with the local launcher, because Slurm is the default where it is installed."""
    needs_launcher = command in ("train", "refine") and not any("launcher=" in arg for arg in args)
    launcher = ["hydra/launcher=local"] if needs_launcher else []
    return [sys.executable, "-m", f"irmas.{command}", *args, *launcher]


def irmas(command: str, *args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m irmas.<command> ARGS` in the folder `cwd`."""
    return subprocess.run(
        _command(command, args),
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def start(command: str, *args: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Start `python -m irmas.<command> ARGS` in the background, in a session of its own, where SIGINT interrupts it."""
    return subprocess.Popen(
        _command(command, args),
        cwd=cwd,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Shells make background processes ignore SIGINT, and this test run may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def copied_package(folder: Path) -> Path:
    """Copy the package into a new folder, which as PYTHONPATH is the package of a command, and may be edited."""
    for name in ("irmas", "conf", "hydra_plugins", "slurm"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    return folder


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Poll until the condition holds, and fail after `timeout_s`; at most a fifth of the time goes into polling."""
    end = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        if condition():
            return
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(min(max(0.05, 4 * (time.monotonic() - began)), 1))


def marked(mark: str) -> list[int]:
    """Return the processes that were started with this mark in their environment, whatever their parent."""
    pids = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"IRMAS_TEST_MARK={mark}\0".encode() in environ.read_bytes():
                pids.append(int(environ.parent.name))
        except OSError:  # The process has ended, or is another user's.
            continue
    return pids
