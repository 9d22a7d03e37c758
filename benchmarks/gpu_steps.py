"""What a training step gains from a CUDA graph and from torch.compile inside it, on the GPU that is there.

    python benchmarks/gpu_steps.py [--rounds 3] [--minutes 9]
    python benchmarks/gpu_steps.py --dry       # on a CPU: tiny, with a stand-in for the graph; its figures mean nothing

One process, one learner for each way to step, an epoch of each in turn over as many excerpts as IRMAS has. Each table
is printed as soon as it is measured. The start-up of a way is the time of making its learner and of its first epoch,
less that of a later epoch. After half of the minutes nothing more is compiled; after nine tenths no other size begins.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from cuda_graph import CudaRecorder, GraphLearner
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from rounds import ROOT, Row, in_turn, parser, ratios, show, timed
from tape import CallRecorder, TapeRecorder

from irmas.config import Config
from irmas.learning.device import describe, set_up
from irmas.learning.learner import Examples, Learner

RUNS, EPOCHS = 18, 15
"""The original report's grid."""
GRID_GOAL = "<= 120"
"""Seconds of training for all of it."""
VALIDATION_BATCHES = (32, 256, 1024)
EAGER, GRAPH, COMPILED = "eager", "graph", "graph of a compiled net"


@dataclass
class Case:
    """A size of log-mels and of batches. The excerpts are as many as IRMAS has, and a fold of five validates."""

    bands: int
    frames: int
    batch: int
    recipe: str = "report"
    goal: str = ""
    """Speed of the graph relative to the eager step."""
    trained: int = 5364
    validated: int = 1341

    def __str__(self) -> str:
        """Return the name of its rows."""
        return f"{self.bands} x {self.frames}, batch {self.batch}, recipe={self.recipe}"

    def config(self) -> Config:
        ConfigStore.instance().store(name="schema", node=Config)
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = OmegaConf.to_object(compose("train", [f"recipe={self.recipe}"]))
        assert isinstance(config, Config)
        return replace(config, batch_size=self.batch, epochs=EPOCHS)

    def examples(self, device: torch.device) -> Examples:
        count = self.trained + self.validated
        shape = (count, self.bands, self.frames)
        features = torch.randint(256, shape, dtype=torch.uint8, device=device)
        rows, names = torch.arange(count, device=device), np.full(count, "none")
        classes = [f"class {number:02d}" for number in range(11)]
        parts = rows[: self.trained], rows[self.trained :]
        return Examples(features, rows % 11, classes, *parts, 80 / 255, -80.0, names, names)


CASES = [
    Case(224, 224, 32, goal=">= 1.4"),
    Case(64, 47, 32, goal=">= 3"),
    Case(128, 94, 32, "strong"),
    Case(128, 94, 32),
    Case(224, 224, 128, goal=">= 1.4"),
    Case(64, 47, 128, goal=">= 3"),
    Case(128, 94, 128),
    Case(64, 47, 32, "strong"),
]
"""The first one is that of the original report's grid."""


class Bench:
    """The device, and the ways to step on it. Its `dry` form runs on a CPU, with nets of a few filters."""

    def __init__(self, *, dry: bool, rounds: int, minutes: float) -> None:
        self.dry, self.rounds, self.began, self.seconds = dry, rounds, time.monotonic(), 60 * minutes
        self.device = torch.device("cpu" if dry else "cuda")
        self.cases = [replace(case, bands=16, frames=17, trained=61, validated=15) for case in CASES] if dry else CASES

    def is_over(self, share: float) -> bool:
        return time.monotonic() - self.began > share * self.seconds

    def config(self, case: Case) -> Config:
        config = case.config()
        return replace(config, model=replace(config.model, filters=[4, 8])) if self.dry else config

    def learner(self, way: str, config: Config, made: Examples) -> Learner:
        if way == EAGER:
            return Learner(config, made, self.device)
        if way == GRAPH:
            return GraphLearner(config, made, self.device, TapeRecorder() if self.dry else CudaRecorder())
        compiler: Callable[..., Any] = partial(torch.compile, dynamic=False, fullgraph=True)
        if self.dry:  # compiled functions run their Python code again, which no tape does
            return GraphLearner(config, made, self.device, CallRecorder(), partial(compiler, backend="aot_eager"))
        return GraphLearner(config, made, self.device, CudaRecorder(), compiler)

    def measure(self, case: Case) -> list[Row]:
        config, made = self.config(case), case.examples(self.device)
        sides: dict[str, Callable[[], float]] = {}
        first: dict[str, list[float]] = {}
        for way in (EAGER, GRAPH, COMPILED):
            if way == COMPILED and self.is_over(1 / 2):
                sys.stderr.write(f"{case}: too little time is left to compile\n")
                continue
            # What is compiled starts twice: with nothing on the disk, and with what the first one left there.
            first[way] = []
            for _ in range(2 if way == COMPILED else 1):
                sides.pop(way, None)  # before what it replays is dropped
                if "torch._dynamo" in sys.modules:  # whose import is part of the first start-up
                    torch.compiler.reset()
                started = time.perf_counter()
                learner = self.learner(way, config, made)
                sides[way] = timed(partial(learner.train_epoch, 1, lambda step: None))
                sides[way]()
                first[way].append(time.perf_counter() - started)
        taken = in_turn(sides, self.rounds)
        starts = {way: [start - statistics.median(taken[way]) for start in first[way]] for way in taken}
        validation = self.validation(config, made)
        rows = speeds(case, taken) + start_ups(case, starts) + validations(case, validation)
        return rows + (grid(case, taken, starts, validation) if case is self.cases[0] else [])

    def validation(self, config: Config, made: Examples) -> dict[str, list[float]]:
        configs = {batch: replace(config, batch_size=batch) for batch in VALIDATION_BATCHES}
        learners = {batch: Learner(sized, made, self.device) for batch, sized in configs.items()}
        sides = {f"by {batch}": timed(partial(learner.validate, 1)) for batch, learner in learners.items()}
        in_turn(sides, 1)  # allocates
        return in_turn(sides, self.rounds)


def speeds(case: Case, taken: dict[str, list[float]]) -> list[Row]:
    per_second = {way: [case.trained / seconds for seconds in times] for way, times in taken.items()}
    rows = [Row(str(case), f"{way}, excerpts per second", values) for way, values in per_second.items()]
    others = [way for way in taken if way != EAGER]
    goals = {GRAPH: case.goal}
    return rows + [
        Row(str(case), f"{way} / eager, speed", ratios(taken[EAGER], taken[way]), goals.get(way, "")) for way in others
    ]


def start_ups(case: Case, starts: dict[str, list[float]]) -> list[Row]:
    eager = statistics.median(starts[EAGER])
    named = {GRAPH: starts[GRAPH][0]}
    if COMPILED in starts:
        named |= {COMPILED: starts[COMPILED][0], f"{COMPILED}, with its files on the disk": starts[COMPILED][1]}
    return [
        Row(str(case), f"{way}, s of start-up more than eager", [start - eager], "<= 1" if way == GRAPH else "")
        for way, start in named.items()
    ]


def validations(case: Case, taken: dict[str, list[float]]) -> list[Row]:
    as_is, *others = taken
    rows = [Row(str(case), f"validation {as_is}, statistics included, s", taken[as_is])]
    return rows + [
        Row(str(case), f"validation {side} / {as_is}, speed", ratios(taken[as_is], taken[side])) for side in others
    ]


def grid(
    case: Case, taken: dict[str, list[float]], starts: dict[str, list[float]], validation: dict[str, list[float]]
) -> list[Row]:
    """Return the seconds of the whole grid on one card, one run after another: arithmetic from medians."""
    excerpts = case.trained + case.validated
    what = f"arithmetic: {RUNS} runs, {EPOCHS} epochs, {excerpts} excerpts of {case.bands} x {case.frames}"
    validating = RUNS * EPOCHS * min(map(statistics.median, validation.values()))
    rows = []
    for way, times in taken.items():
        training, each, shared = RUNS * EPOCHS * statistics.median(times), RUNS * starts[way][-1], starts[way][0]
        each += starts[way][0] - starts[way][-1]  # the first run compiles
        note = f"validation {validating:.0f} s more, start-ups {each:.0f} s, or {shared:.0f} s if all runs share one"
        rows.append(Row(what, f"{way}, s of training", [training], GRID_GOAL, note))
    return rows


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--minutes", type=float, default=9)
    options.add_argument("--dry", action="store_true", help="on a CPU, tiny, with a stand-in for the graph")
    given = options.parse_args()
    if not given.dry and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu_steps.py: torch sees no GPU; --dry runs it on the CPU")
    bench = Bench(dry=given.dry, rounds=given.rounds, minutes=given.minutes)
    set_up(bench.device, threads=1)
    print(f"{describe(bench.device)}, torch {torch.__version__}")  # noqa: T201
    case = bench.cases[0]
    made = case.examples(bench.device)
    bench.learner(EAGER, bench.config(case), made).train_epoch(1, lambda step: None)  # CUDA itself starts
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for case in bench.cases:
            if bench.is_over(9 / 10):
                sys.stderr.write(f"{case}: too little time is left\n")
            else:
                show(bench.measure(case), given.record)


if __name__ == "__main__":
    main()
