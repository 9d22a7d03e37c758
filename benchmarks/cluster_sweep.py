"""From the queue to the ranking of 18 short runs on a real Slurm, beside 18 calls of sbatch and a loop over sacct.

    PYTHONPATH=tests python benchmarks/cluster_sweep.py [--rounds 3] [--epochs 2] [--size 330]

Ours is the whole chain, to ranking.csv, with a task a run and with six runs a task. The peer's jobs train bare.py's
loop on ready features; when sacct says that all are COMPLETED their accuracies are sorted. `idle` is the share of the
time in which no run trained. The cluster is a local one of the benchmark's own (docs/localcluster.md).
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from cluster.localcluster import LocalCluster
from rounds import BENCHMARKS, ENVIRONMENT, Row, in_turn, medians, parser, ratios, run, show
from submitting import local_cluster
from sweep import Bench, grid

POLL_S = 0.2
SACCT_S = 1.0


def ours(bench: Bench, local: LocalCluster, per_task: int) -> float:
    where = Path(tempfile.mkdtemp(dir=bench.folder))
    data = ["data=standin", f"data.size={bench.size}", f"data.root={bench.data.root}", "features=small"]
    task = [f"hydra.launcher.{asked}" for asked in ("cpus=1", "mem=2G", f"runs_per_task={per_task}")]
    data += [f"data.cache_dir={bench.data.cache_dir}", f"epochs={bench.epochs}", "device=cpu", "name=ours"]
    command = [sys.executable, "-m", "irmas.train", "-m", *bench.axes, *data, "hydra/launcher=slurm", *task]
    began = time.time()
    run(command, where, SLURM_CONF=local.environment["SLURM_CONF"])
    sweep = where / "outputs" / "ours"
    while not (sweep / "ranking.csv").exists():
        time.sleep(POLL_S)
    taken = time.time() - began
    statuses = [json.loads(path.read_text()) for path in sweep.glob("runs/*/status.json")]
    assert [each["state"] for each in statuses] == ["COMPLETED"] * len(bench.points), statuses
    spans = [(each["started"], each["updated"]) for each in statuses]
    bench.say(f"ours, {per_task} a task", 1 - trained(spans) / taken)
    return taken


def by_hand(bench: Bench, local: LocalCluster) -> float:
    where = Path(tempfile.mkdtemp(dir=bench.folder))
    began = time.time()
    numbers = []
    for index, point in enumerate(bench.points):
        options = [f"--{key}={value}" for key, value in (point | {"epochs": bench.epochs, "threads": 1}).items()]
        python = [sys.executable, BENCHMARKS / "bare.py", bench.folder / "data.npz", *options]
        asked = ["--cpus-per-task=1", "--mem=2G", f"--output={where}/{index}.json"]
        wrap = f"--wrap=exec {shlex.join(map(str, python))}"
        numbers.append(answer(local, ["sbatch", "--parsable", *asked, wrap]).strip())
    while True:
        states = answer(local, ["sacct", "-nXP", "-o", "State", "-j", ",".join(numbers)]).split()
        if states == ["COMPLETED"] * len(numbers):
            break
        assert "FAILED" not in states, where
        time.sleep(SACCT_S)
    results = [json.loads((where / f"{index}.json").read_text()) for index in range(len(numbers))]
    assert sorted(results, key=lambda result: -result["accuracy"])
    taken = time.time() - began
    bench.say("by hand", 1 - trained((result["began"], result["ended"]) for result in results) / taken)
    return taken


def answer(local: LocalCluster, command: list[str]) -> str:
    environment = ENVIRONMENT | {"SLURM_CONF": local.environment["SLURM_CONF"]}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def trained(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in which at least one run trained."""
    total, end = 0.0, 0.0
    for began, ended in sorted(spans):
        total += max(ended - max(began, end), 0.0)
        end = max(end, ended)
    return total


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--size", type=int, default=330, help="excerpts")
    given = options.parse_args()
    with local_cluster() as local, tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), given.size, "small", given.epochs, grid(18))
        sides = {
            "ours, 1 a task": lambda: ours(bench, local, 1),
            "ours, 6 a task": lambda: ours(bench, local, 6),
            "by hand": lambda: by_hand(bench, local),
        }
        taken = in_turn(sides, given.rounds)
    idle = {side: f"{statistics.median(shares):.0%}" for side, shares in bench.apart.items()}
    rows = []
    for side in ("ours, 1 a task", "ours, 6 a task"):
        times = {name: taken[name] for name in (side, "by hand")}
        note = f"{medians(times)}; idle {idle[side]} and {idle['by hand']}"
        what = f"queue to ranked, 18 runs of {given.epochs} epochs, {given.size} excerpts"
        rows.append(Row(what, f"by hand / {side}", ratios(taken["by hand"], taken[side]), ">= 1", note))
    show(rows, given.record)


if __name__ == "__main__":
    main()
