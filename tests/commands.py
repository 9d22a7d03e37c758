"""The doors as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def irmas(door: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m irmas.<door> ARGUMENTS` in the folder `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", f"irmas.{door}", *arguments],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def start(door: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The same in the background, in a session of its own, where it answers SIGINT."""
    return subprocess.Popen(
        [sys.executable, "-m", f"irmas.{door}", *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell ignores SIGINT for what it starts in the background, this test run perhaps among it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
