"""A whole sweep beside the pipeline that a user writes first (naive.py), and beside a bare loop (bare.py).

    python benchmarks/sweep.py [--rounds 3] [--epochs 5] [--geometry small] [--points 18]

Ours is `irmas.prepare`, which builds the feature cache, and `irmas.train` with its ranking and report. The bare loop
finds the features computed; it is held against `irmas.train` alone, with and without what both sides spend before
their first step.
"""

from __future__ import annotations

import csv
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
from rounds import BENCHMARKS, ENVIRONMENT, ROOT, Row, in_turn, parser, ratios, run, show

from irmas.config import Data, Features
from irmas.console import SILENT
from irmas.data import dataset, split
from irmas.run import events
from irmas.run.events import read_all
from irmas.run.folder import CONFIG

CORES = 2
GRID = {"dropout": [0.3, 0.4, 0.5], "lr": [0.001, 0.0005, 0.0001], "l2": [0.001, 0.0001]}
GEOMETRIES = {"small": Features(hop_length=1050, n_mels=64), "report": Features()}
Point = dict[str, float]


@dataclass
class Bench:
    """A folder in which all sides train the same points on the same excerpts and split."""

    folder: Path
    size: int
    geometry: str
    epochs: int
    points: list[Point]
    apart: dict[str, list[float]] = field(default_factory=dict)
    """Seconds by what was spent on, a value a round."""
    accuracies: dict[str, float] = field(default_factory=dict)
    """Means over the points."""

    def __post_init__(self) -> None:
        self.data = Data("standin", str(ROOT / "data" / "standin"), size=self.size, render_seed=0)
        self.data.cache_dir = str(self.folder / "cache")
        cache = dataset.load(self.data, GEOMETRIES[self.geometry], SILENT)
        parts = split.load_or_make(self.data, cache, self.folder)
        targets = np.array([cache.classes.index(label) for label in cache.labels])
        arrays = {"features": cache.features, "targets": targets, "train": parts.train, "validation": parts.validation}
        np.savez(self.folder / "data.npz", **arrays)  # type: ignore[arg-type]
        paths = {excerpt.name: str(excerpt.path) for excerpt in dataset.excerpts(self.data)}
        with (self.folder / "listing.csv").open("w") as file:
            lines = csv.writer(file)
            lines.writerow(["path", "label", "part"])
            for part, rows in (("train", parts.train), ("validation", parts.validation)):
                lines.writerows([paths[cache.names[row]], cache.labels[row], part] for row in rows)

    @property
    def axes(self) -> list[str]:
        """The points as overrides that sweep them."""
        values = {key: dict.fromkeys(point[key] for point in self.points) for key in GRID}
        return [f"{key}={','.join(map(str, levels))}" for key, levels in values.items()]

    def say(self, what: str, seconds: float) -> None:
        self.apart.setdefault(what, []).append(seconds)

    def ours(self) -> float:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        data = ["data=standin", f"data.size={self.size}", f"data.root={self.data.root}", f"features={self.geometry}"]
        prepared = run([sys.executable, "-m", "irmas.prepare", *data], folder)
        began = time.time()
        settings = [*data, f"epochs={self.epochs}", "device=cpu", "name=ours", "hydra/launcher=local"]
        trained = run([sys.executable, "-m", "irmas.train", "-m", *self.axes, *settings], folder)
        runs = list((folder / "outputs" / "ours" / "runs").iterdir())
        assert len(runs) == len(self.points), runs
        self.accuracies["ours"] = statistics.mean(
            scalars.values[events.VAL_ACCURACY][self.epochs] for scalars in read_all(runs)
        )
        first = min((path / CONFIG).stat().st_mtime for path in runs)
        last = max(json.loads((path / "status.json").read_text())["updated"] for path in runs)
        self.say("ours: prepare", prepared)
        self.say("ours: train", trained)
        self.say("ours: before the first run", first - began)
        self.say("ours: ranking and report", began + trained - last)
        return prepared + trained

    def naive(self) -> float:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        sizes = GEOMETRIES[self.geometry]
        fixed = [f"listing={self.folder / 'listing.csv'}", f"hop_length={sizes.hop_length}", f"n_mels={sizes.n_mels}"]
        fixed += ["hydra.sweep.dir=runs", "hydra.sweep.subdir=${hydra.job.num}", "hydra.job.chdir=true"]
        command: list[str | Path] = [sys.executable, BENCHMARKS / "naive.py", "-m", *self.axes, *fixed]
        taken = run([*command, f"epochs={self.epochs}"], folder)
        results = [json.loads(path.read_text())["accuracy"] for path in folder.glob("runs/*/result.json")]
        assert len(results) == len(self.points), results
        self.accuracies["naive"] = statistics.mean(results)
        return taken

    def bare(self) -> float:
        """A process a point, two at once."""
        waiting, done = SimpleQueue[Point](), list[dict[str, float]]()
        for point in self.points:
            waiting.put(point)

        def work() -> None:
            while True:
                try:
                    done.append(train_bare(self.folder / "data.npz", waiting.get_nowait(), self.epochs))
                except Empty:
                    return

        workers = [threading.Thread(target=work) for _ in range(CORES)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        taken = time.perf_counter() - started
        assert len(done) == len(self.points), done
        self.accuracies["bare"] = statistics.mean(result["accuracy"] for result in done)
        self.say("bare: imports", sum(result["import_s"] for result in done) / CORES)
        return taken


def train_bare(data: Path, point: Point, epochs: int) -> dict[str, float]:
    options = [f"--{key}={value}" for key, value in (point | {"epochs": epochs, "threads": 1}).items()]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "bare.py", data, *options],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def grid(points: int) -> list[Point]:
    """The whole grid, or the two levels of dropout with all else fixed."""
    whole = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    if points == len(whole):
        return whole
    return [{"dropout": dropout, "lr": 0.001, "l2": 0.0001} for dropout in GRID["dropout"][:points]]


def measure(geometry: str, points: int, epochs: int, size: int, rounds: int, *, goal: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), size, geometry, epochs, grid(points))
        taken = in_turn({"ours": bench.ours, "naive": bench.naive, "bare": bench.bare}, rounds)
    apart = {what: statistics.median(seconds) for what, seconds in bench.apart.items()}
    accuracy = ", ".join(f"{side} {value:.1%}" for side, value in bench.accuracies.items())
    what = f"sweep, {points} points, {epochs} epochs, {size} excerpts, features={geometry}"
    whole = ratios(bench.apart["ours: train"], taken["bare"])
    begun = [train - start for train, start in both(bench, "ours: train", "ours: before the first run")]
    loops = [bare - start for bare, start in zip(taken["bare"], bench.apart["bare: imports"], strict=True)]
    runs = [rest - ranking for rest, ranking in zip(begun, bench.apart["ours: ranking and report"], strict=True)]
    spent = f"ours {statistics.median(taken['ours']):.1f} s, naive {statistics.median(taken['naive']):.1f} s"
    startup = "start-up " + ", ".join(f"{key} {apart[key]:.1f} s" for key in apart if "before" in key or "bare" in key)
    ranking = f"ranking and report {apart['ours: ranking and report']:.1f} s"
    naive = ratios(taken["naive"], taken["ours"])
    loop = f"ours {statistics.median(begun):.1f} s, bare {statistics.median(loops):.1f} s"
    return [
        Row(what, "naive / ours", naive, ">= 3" * goal, f"{spent}; accuracy {accuracy}"),
        Row(what, "train / bare, all", whole, "", startup),
        Row(what, "train / bare, without start-up", ratios(begun, loops), "<= 1.1" * goal, f"{loop}, {ranking}"),
        Row(what, "runs / bare, without start-up and ranking", ratios(runs, loops)),
    ]


def both(bench: Bench, one: str, other: str) -> list[tuple[float, float]]:
    return list(zip(bench.apart[one], bench.apart[other], strict=True))


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--epochs", type=int, default=5, help="of the whole sweep; as make demo")
    options.add_argument("--size", type=int, default=1320, help="excerpts")
    options.add_argument("--points", type=int, default=18, choices=[1, 2, 3, 18])
    options.add_argument("--geometry", choices=[*GEOMETRIES, "both"], default="both")
    given = options.parse_args()
    rows = []
    if given.geometry != "report":
        rows += measure("small", given.points, given.epochs, given.size, given.rounds, goal=True)
    if given.geometry != "small":  # a part of the sweep: all of it takes hours
        rows += measure("report", 2, 1, given.size, 1, goal=False)
    show(rows, given.record)


if __name__ == "__main__":
    main()
