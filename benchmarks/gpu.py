"""What the switches of a CUDA device cost or bring: the figures of docs/gpu.md.

    python benchmarks/gpu.py [--rounds 5]

One process, one learner for each way to compute, a few steps of each in turn. The first way is the project's own; every
other differs from it by one switch. Rows are excerpts a second; memory is the most that torch's allocator held.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest.mock import patch

import numpy as np
import torch
from rounds import Row, in_turn, parser, ratios, show, timed

from irmas.config import Config, Model
from irmas.learning.device import set_up
from irmas.learning.learner import Examples, Learner

CUDA = torch.device("cuda")
STEPS = 100
CASES = [(224, 32, 1), (224, 128, 1), (64, 32, 1), (64, 32, 2)]
"""Bands and frames, batch, convolutions a block."""


@contextmanager
def debug_mode(mode: str) -> Iterator[None]:
    torch.set_deterministic_debug_mode(mode)
    yield
    torch.set_deterministic_debug_mode("warn")


@contextmanager
def autotuned() -> Iterator[None]:
    """cuDNN times its algorithms; it does so only where the mode is not deterministic."""
    with debug_mode("default"):
        torch.backends.cudnn.benchmark = True
        yield
        torch.backends.cudnn.benchmark = False


WAYS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "as it is": nullcontext,
    "not deterministic": lambda: debug_mode("default"),
    "cudnn.benchmark": autotuned,
    "float32": lambda: patch("irmas.learning.learner.autocast", lambda device: nullcontext()),
}


def examples(length: int, count: int) -> Examples:
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(256, (count, length, length), dtype=torch.uint8, generator=generator).to(CUDA)
    rows, names = torch.arange(count, device=CUDA), np.array(["none"])
    classes = [f"class {number:02d}" for number in range(11)]
    return Examples(features, rows % 11, classes, rows, rows[:1], 80 / 255, -80.0, names, names)


def measure(length: int, batch: int, convs: int, rounds: int) -> list[Row]:
    made = examples(length, batch * STEPS)
    config = Config(batch_size=batch, model=Model(convs_per_block=convs))

    def side(way: Callable[[], AbstractContextManager[object]]) -> Callable[[], float]:
        learner = Learner(config, made, CUDA)

        def epoch() -> None:
            with way():
                learner.train_epoch(1, lambda step: None)

        return timed(epoch)

    sides = {name: side(way) for name, way in WAYS.items()}
    in_turn(sides, 1)  # compiles, chooses algorithms, allocates
    torch.cuda.reset_peak_memory_stats()
    taken = in_turn(sides, rounds)
    memory = torch.cuda.max_memory_allocated() / 2**30
    what = f"{length} x {length}, batch {batch}, {convs} a block"
    first = taken["as it is"]
    rows = [Row(what, "excerpts a second", [len(made.train) / seconds for seconds in first], note=f"{memory:.1f} GiB")]
    return rows + [Row(what, f"{name} / as it is, speed", ratios(first, taken[name])) for name in list(WAYS)[1:]]


def main() -> None:
    given = parser(__doc__, rounds=5).parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: torch sees no GPU")
    set_up(CUDA, threads=1)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")  # noqa: T201
    show([row for case in CASES for row in measure(*case, given.rounds)], given.record)


if __name__ == "__main__":
    main()
