"""Many small runs in one task, side by side and one after another: figures of docs/gpu.md.

    PYTHONPATH=.:tests python benchmarks/at_once.py [--rounds 3] [--runs 18 36] [--at-once 6 18] [--device cpu]

Each side is an array task's own process, `python -m irmas.sweep.array_task outputs/<name> --runs-at-once N`, from its
start to its end. Outside Slurm it trains all runs of a plan: they differ in their seed, and train on noise.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from made import planned
from rounds import Row, in_turn, medians, parser, ratios, run, show

from irmas.processes import cpu_count
from irmas.run.folder import PROVENANCE
from irmas.sweep import pool
from irmas.sweep.sweep import Sweep


def train(sweep: Path, at_once: int, visible: str) -> float:
    shutil.rmtree(sweep / "runs", ignore_errors=True)
    command = [sys.executable, "-m", "irmas.sweep.array_task", str(sweep), "--runs-at-once", str(at_once)]
    return run(command, sweep, CUDA_VISIBLE_DEVICES=visible)


def measure(sweep: Path, counts: Sequence[int], rounds: int, what: str) -> list[Row]:
    """A row for each number of runs at once; by default 6 and 18 on a GPU, otherwise one run per core."""
    gpus = pool.gpus(Sweep.open(sweep))
    counts = counts or ([6, 18] if gpus else [cpu_count()])
    sides: dict[str, Callable[[], float]] = {
        f"{count} at once": partial(train, sweep, count, ",".join(gpus)) for count in (1, *counts)
    }
    taken = in_turn(sides, rounds)
    devices = {json.loads(path.read_text())["device"].partition(" (")[0] for path in sweep.glob(f"runs/*/{PROVENANCE}")}
    alone, *others = sides
    what += f"; {len(gpus) or 'no'} GPU, {cpu_count()} cores: {' '.join(sorted(devices))}"
    return [
        Row(
            what,
            f"{alone} / {side}",
            ratios(taken[alone], taken[side]),
            "",
            medians({s: taken[s] for s in (alone, side)}),
        )
        for side in others
    ]


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--runs", type=int, nargs="+", default=[18, 36])
    options.add_argument("--at-once", type=int, nargs="*", default=[])
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--excerpts", type=int, default=1320)
    options.add_argument("--size", type=int, nargs=2, default=[64, 47], metavar=("BANDS", "FRAMES"))
    options.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    given = options.parse_args()
    rows = []
    bands, frames = given.size
    for runs in given.runs:
        what = f"{runs} runs of {given.epochs} epochs, {given.excerpts} excerpts of {bands} x {frames}"
        with tempfile.TemporaryDirectory() as name:
            shape = {"excerpts": given.excerpts, "bands": bands, "frames": frames, "epochs": given.epochs}
            sweep = planned(Path(name), **shape, runs=runs, device=given.device)
            rows += measure(sweep, given.at_once, given.rounds, what)
    show(rows, given.record)


if __name__ == "__main__":
    main()
