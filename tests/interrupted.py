"""Press Ctrl-C in a pseudo-terminal at evenly spaced moments of a command's start, and count how it ends.

    python tests/interrupted.py [--tries 300]

The moments reach from the start of Python to twice the time that `--help` takes, when training has begun. What ends
before Python has reached the first line of the package is counted as Python's own. The exit code is 1 if anything ends
badly: with another code than 130, with more than one line, with a traceback, or with a trained epoch.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from select import select

from commands import ENVIRONMENT, ROOT, irmas

DATA = ["data=standin", "data.size=132", "features=small"]
SETTINGS = ["hydra/launcher=local", "epochs=500", "seed=0,1"]
PATIENCE_S = 60
GOOD, PYTHONS = "exit 130", "before the package"


def pressed(folder: Path, data: Sequence[str], name: str, delay_s: float) -> tuple[int, str]:
    """Press Ctrl-C so long after the start of a sweep of this name; return its exit code and what it printed."""
    ours, theirs = pty.openpty()

    def enter() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # this process may have been started in the background
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "irmas.train", *data, *SETTINGS, f"name={name}"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=enter,
    ) as process:
        os.close(theirs)
        time.sleep(delay_s)
        os.write(ours, b"\x03")
        printed, end = b"", time.monotonic() + PATIENCE_S
        while select([ours], [], [], max(0, end - time.monotonic()))[0]:
            try:
                printed += os.read(ours, 65_536)
            except OSError:  # the last process on the terminal has ended
                break
        else:
            process.kill()
    os.close(ours)
    return process.returncode, printed.decode().replace("^C", "")


def verdict(folder: Path, name: str, code: int, printed: str) -> str:
    """Return how an interrupted command has ended: `GOOD`, `PYTHONS`, or what is wrong."""
    trained = [json.loads(status.read_text())["epoch"] for status in (folder / "outputs" / name).rglob("status.json")]
    is_ours = f"{ROOT}/irmas/" in printed or f"{ROOT}/hydra_plugins/" in printed
    errors = [word for word in ("Traceback", "Exception ignored", "Fatal Python") if word in printed]
    if any(trained):
        return f"exit {code}, {max(trained)} epochs trained"
    if code != 130 and not is_ours and (errors or not printed.strip()):
        return PYTHONS
    if code == 130 and not errors and printed.count("irmas.train: ") <= 1:
        return GOOD
    return f"exit {code}, {', '.join(errors) or 'without an error'}: {printed}"


def count(folder: Path, data: Sequence[str], tries: int) -> Counter[str]:
    """Return how often a command has ended in each way; its features are there already."""
    began = time.monotonic()
    assert irmas("train", "--help", cwd=folder).returncode == 0
    step = 2 * (time.monotonic() - began) / tries
    names = {f"try{number}": number * step for number in range(1, tries + 1)}
    return Counter(verdict(folder, name, *pressed(folder, data, name, delay)) for name, delay in names.items())


def main() -> int:
    parser = argparse.ArgumentParser(prog="interrupted.py", description="Counts how a command ends after Ctrl-C.")
    parser.add_argument("--tries", type=int, default=300)
    with tempfile.TemporaryDirectory() as folder:
        assert irmas("prepare", *DATA, cwd=Path(folder)).returncode == 0
        counts = count(Path(folder), DATA, parser.parse_args().tries)
    for ending, number in counts.most_common():
        print(f"{number:5d}  {ending}")  # noqa: T201
    return int(bool(set(counts) - {GOOD, PYTHONS}))


if __name__ == "__main__":
    sys.exit(main())
