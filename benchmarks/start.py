"""From the start of a run's process to the end of its first training step, beside the imports that it cannot avoid.

    python benchmarks/start.py [--rounds 5]

Ours are an array task, `python -m irmas.sweep.array_task outputs/<name>`, until an epoch of two steps is committed; and
a run alone, `python -m irmas.sweep.train_run outputs/<name> 1`, until its first step: nothing in it is changed but
`Learner._step`, which says when it is through. The peer is `python -c "import torch, torchaudio"`, which says so when
it has imported them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made import planned
from rounds import ENVIRONMENT, Row, in_turn, medians, parser, ratios, show

READY = "the first step is done"
TASK = f"""
import runpy, sys
from irmas.learning.learner import Learner
step = Learner._step
def first(self, rows):
    step(self, rows)
    print({READY!r}, flush=True)
Learner._step = first
sys.argv = ["irmas.sweep.train_run", *sys.argv[1:]]
runpy.run_module("irmas.sweep.train_run", run_name="__main__", alter_sys=True)
"""
IMPORTS = f"import torch, torchaudio; print({READY!r}, flush=True)"


def until_said(code: str, *arguments: str) -> float:
    """Seconds from the start of `python -c CODE` to the line that it prints; then it is ended."""
    started = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        is_ready = any(line.strip() == READY for line in process.stdout)
        taken = time.perf_counter() - started
        process.kill()
    assert is_ready, command
    return taken


def until_committed(sweep: Path) -> float:
    """Seconds from the start of an array task to the commit of its first epoch."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "irmas.sweep.array_task", str(sweep)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL):
        while not any(json.loads(status.read_text())["epoch"] for status in (sweep / "runs").glob("*/status.json")):
            time.sleep(0.005)
        return time.perf_counter() - started


def main() -> None:
    given = parser(__doc__, rounds=5).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweeps = {}
        for side, excerpts in (("array task", 66), ("run alone", 330)):
            (folder / side).mkdir()
            sweeps[side] = planned(folder / side, excerpts=excerpts, bands=64, frames=64, epochs=1)

        def array_task() -> float:
            shutil.rmtree(sweeps["array task"] / "runs", ignore_errors=True)
            return until_committed(sweeps["array task"])

        def run_alone() -> float:
            shutil.rmtree(sweeps["run alone"] / "runs", ignore_errors=True)
            return until_said(TASK, str(sweeps["run alone"]), "1")

        sides = {"array task": array_task, "run alone": run_alone, "imports": lambda: until_said(IMPORTS)}
        in_turn(sides, 1)  # files into the page cache
        taken = in_turn(sides, given.rounds)
    rows = []
    for side, until in (("array task", "an epoch of two steps"), ("run alone", "its first step")):
        over = ratios(taken[side], taken["imports"])
        rows.append(Row(f"start of a task to {until}", f"{side} / imports", over, "<= 1.3", medians(taken)))
    show(rows, given.record)


if __name__ == "__main__":
    main()
