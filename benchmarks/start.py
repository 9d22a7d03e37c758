"""From the start of a run's process to the end of its first training step, beside the imports that it cannot avoid.

    python benchmarks/start.py [--rounds 5]

Ours is `python -m irmas.sweep.task outputs/<name> 1`. Nothing in it is changed but `Learner._step`, which says when it
is through; the peer is `python -c "import torch, torchaudio"`, which says so when it has imported them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made import one_run
from rounds import ENVIRONMENT, Row, in_turn, medians, parser, ratios, show

SAID = "the first step is done"
TASK = f"""
import runpy, sys
from irmas.learning.trainer import Learner
step = Learner._step
def first(self, rows):
    step(self, rows)
    print({SAID!r}, flush=True)
Learner._step = first
sys.argv = ["irmas.sweep.task", *sys.argv[1:]]
runpy.run_module("irmas.sweep.task", run_name="__main__", alter_sys=True)
"""
IMPORTS = f"import torch, torchaudio; print({SAID!r}, flush=True)"


def until_said(code: str, *arguments: str) -> float:
    """Seconds from the start of `python -c CODE` to the line that it prints; then it is ended."""
    started = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        heard = any(line.strip() == SAID for line in process.stdout)
        taken = time.perf_counter() - started
        process.kill()
    assert heard, command
    return taken


def main() -> None:
    given = parser(__doc__, rounds=5).parse_args()
    with tempfile.TemporaryDirectory() as name:
        sweep = one_run(Path(name), excerpts=330, bands=64, frames=64, epochs=1)

        def ours() -> float:
            shutil.rmtree(sweep / "runs", ignore_errors=True)
            return until_said(TASK, str(sweep), "1")

        sides = {"task": ours, "imports": lambda: until_said(IMPORTS)}
        in_turn(sides, 1)  # files into the page cache
        taken = in_turn(sides, given.rounds)
    what = "start of a task to its first step done"
    show([Row(what, "task / imports", ratios(taken["task"], taken["imports"]), "<= 1.3", medians(taken))], given.record)


if __name__ == "__main__":
    main()
