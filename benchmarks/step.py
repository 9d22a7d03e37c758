"""A training step of ours beside a bare loop over the same net and excerpts, both in one process.

    python benchmarks/step.py [--rounds 7] [--threads 1]

Ours is `Learner.train_epoch`: it draws, decodes and augments each batch and sums its metrics. The bare loop is handed
batches that are ready: forward, backward, Adam.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from bare import BATCH, Run
from rounds import Row, in_turn, medians, parser, ratios, show, timed
from torch import Tensor

from irmas.config import Config
from irmas.learning.device import set_up
from irmas.learning.learner import Examples, Learner

STEPS = {64: 10, 224: 2}
"""By the length of both axes."""


def examples(length: int) -> Examples:
    generator = torch.Generator().manual_seed(0)
    count = BATCH * STEPS[length]
    features = torch.randint(256, (count, length, length), dtype=torch.uint8, generator=generator)
    classes = [f"class {number:02d}" for number in range(11)]
    names = np.array(["none"])
    rows = torch.arange(count)
    return Examples(features, rows % 11, classes, rows, rows[:1], 80 / 255, -80.0, names, names)


def bare_loop(learner: Learner, made: Examples) -> tuple[Run, list[tuple[Tensor, Tensor]]]:
    """The learner's net and optimizer as they stand, and its batches, ready."""
    run = Run(made.features, made.targets, made.train, learner.config)
    run.model.load_state_dict(copy.deepcopy(learner.model.state_dict()))
    return run, [(run.decibels(rows), made.targets[rows]) for rows in made.train.split(BATCH)]


def measure(length: int, rounds: int) -> Row:
    made = examples(length)
    learner = Learner(Config(), made, torch.device("cpu"))
    run, batches = bare_loop(learner, made)
    run.model.train()

    def bare() -> None:
        for batch, targets in batches:
            run.step(batch, targets)

    sides = {"ours": timed(lambda: learner.train_epoch(1, lambda step: None)), "bare": timed(bare)}
    in_turn(sides, 1)  # the first steps allocate
    taken = in_turn(sides, rounds)
    what = f"training step, {length} x {length}, batch {BATCH}"
    return Row(what, "ours / bare", ratios(taken["ours"], taken["bare"]), "<= 1.05", medians(taken))


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--threads", type=int, default=1, help="as each of two runs at once has them on two cores")
    given = options.parse_args()
    set_up(torch.device("cpu"), given.threads)
    show([measure(length, given.rounds) for length in STEPS], given.record)


if __name__ == "__main__":
    main()
