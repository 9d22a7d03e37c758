"""Planning and submitting a large sweep to a real Slurm, on hold, beside Hydra's BasicSweeper and submitit launcher.

    PYTHONPATH=tests python benchmarks/submitting.py [--rounds 3] [--points 10000] [--peer-points 200]

Ours is the whole command. The peer's sweep is measured up to sbatch's return, since it then waits for its jobs, and is
scaled from its points to ours; its imports count once. Both compose the same conf/. The cluster is a local one of the
benchmark's own (docs/localcluster.md).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.localcluster import LocalCluster
from rounds import BENCHMARKS, ENVIRONMENT, PEERS, ROOT, Row, in_turn, medians, parser, ratios, run, show

from irmas.config import Data, Features
from irmas.console import SILENT
from irmas.data import dataset

LEVELS = 100
"""Values of lr, at most; the other key has as many as are needed."""


@contextmanager
def local_cluster(**settings: str) -> Iterator[LocalCluster]:
    """A Slurm of its own on free ports, wiped at the end. Raises RuntimeError where it does not start."""
    local = LocalCluster(**settings)
    try:
        started = local.up()
        if started.returncode:
            raise RuntimeError(started.stdout + started.stderr)
        yield local
    finally:
        local.down("--wipe")


def grid(points: int) -> list[str]:
    """Overrides that sweep so many."""
    levels = min(LEVELS, points)
    lrs = ",".join(f"{0.0001 + 0.0001 * step:.4f}" for step in range(levels))
    dropouts = ",".join(f"{step / 1000:.3f}" for step in range(points // levels))
    return [f"dropout={dropouts}", f"lr={lrs}"]


def ours(folder: Path, local: LocalCluster, data: list[str], points: int) -> float:
    where = Path(tempfile.mkdtemp(dir=folder))
    held = ["hydra/launcher=slurm", "hydra.launcher.sbatch={hold: true}", "name=held"]
    command = [sys.executable, "-m", "irmas.train", "-m", *grid(points), *data, *held]
    taken = run(command, where, SLURM_CONF=local.environment["SLURM_CONF"])
    assert in_queue(local) == points + 1, "the array and the ranking"
    empty_queue(local)
    return taken


def peer(folder: Path, local: LocalCluster, data: list[str], points: int, scaled: int) -> float:
    """Seconds of `scaled` points, from those of `points`."""
    where = Path(tempfile.mkdtemp(dir=folder))
    own = ["hydra/launcher=submitit_slurm", "hydra/sweeper=basic", "+hydra.launcher.additional_parameters.hold=true"]
    folders = ["hydra.sweep.dir=runs", "hydra.sweep.subdir=${hydra.job.num}"]
    started = time.perf_counter()
    done = subprocess.run(
        [PEERS, BENCHMARKS / "hydra_submitit.py", "-m", *grid(points), *data, *own, *folders],
        cwd=where,
        env=ENVIRONMENT | {"SLURM_CONF": local.environment["SLURM_CONF"]},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    whole = time.perf_counter() - started
    swept = float(done.stdout.split()[-1])
    assert in_queue(local) == points
    empty_queue(local)
    return whole - swept + swept * scaled / points


def in_queue(local: LocalCluster) -> int:
    return len(local.run("squeue", "-hr", "-o", "%i").splitlines())


def empty_queue(local: LocalCluster) -> None:
    local.run("scancel", "--partition=main")
    while local.run("squeue", "-h"):
        time.sleep(0.2)


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--points", type=int, default=10_000)
    options.add_argument("--peer-points", type=int, default=200)
    given = options.parse_args()
    with local_cluster(ARRAY=str(given.points + 1)) as local, tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), ROOT / "data" / "standin"
        small = Features(hop_length=1050, n_mels=64)
        cached = Data("standin", str(root), cache_dir=str(folder / "cache"), size=132, render_seed=0)
        dataset.load(cached, small, SILENT)
        data = [
            "data=standin",
            "data.size=132",
            "features=small",
            f"data.root={root}",
            f"data.cache_dir={folder}/cache",
        ]
        sides = {
            "ours": lambda: ours(folder, local, data, given.points),
            "peer": lambda: peer(folder, local, data, given.peer_points, given.points),
        }
        taken = in_turn(sides, given.rounds)
    what = f"planning and submitting {given.points} points, the peer scaled from {given.peer_points}"
    show(
        [Row(what, "BasicSweeper and submitit / ours", ratios(taken["peer"], taken["ours"]), ">= 50", medians(taken))],
        given.record,
    )


if __name__ == "__main__":
    main()
