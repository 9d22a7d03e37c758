"""Validation accuracy under batch-norm statistics of 128 to all training excerpts, and under the running ones.

    python studies/batch_norm.py CACHE [--pool 2] [--epochs 6]

CACHE is a feature cache, as `data.cache` takes it. The report's net is trained at each of the report's learning rates;
each epoch's weights are validated under every kind of statistics. Accuracies and differences (mean and largest, in
points, from the accuracy under statistics of all excerpts) are over all epochs and learning rates. The cost is the
CPU time that the statistics take on one thread, in percent of that of an epoch with its validation.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import torch
from torch import Tensor

from irmas.config import Config, Data
from irmas.console import SILENT
from irmas.data import dataset, split
from irmas.learning import learner as learner_module
from irmas.learning import model as model_module
from irmas.learning.device import set_up
from irmas.learning.learner import Examples, Learner, load_examples
from irmas.learning.model import draw_for_norms, recompute_norms
from irmas.run import events

CPU = torch.device("cpu")
LRS = (0.001, 0.0005, 0.0001)
SIZES = (128, 256, 512, 1024, 2048)
RUNNING = "none: running statistics"
ALL = "all"


@dataclass(frozen=True)
class Verdict:
    """An epoch's weights under one kind of statistics."""

    accuracy: float
    statistics_s: float
    """Seconds that computing the statistics took."""
    validation_s: float
    """Seconds that validating took besides."""


def examples(config: Config) -> Examples:
    cache = dataset.load(config.data, config.features, SILENT)
    with tempfile.TemporaryDirectory() as name:
        parts = split.load_or_make(config.data, cache, Path(name))
    return load_examples(cache, parts, config.data.pool, CPU)


def sizes(train: int) -> dict[str, int]:
    """Numbers of excerpts by what the table calls them."""
    return {str(size): size for size in SIZES if size < train} | {ALL: train}


def trained(config: Config, made: Examples) -> Iterator[tuple[float, dict[str, Verdict]]]:
    """Yield, for each epoch, the seconds of its training, and the verdict under each kind of statistics."""
    learner = Learner(config, made, CPU)
    for epoch in range(1, config.epochs + 1):
        started = time.process_time()
        learner.train_epoch(epoch, lambda step: None)
        taken = time.process_time() - started
        running = copy.deepcopy(learner.model.state_dict())
        found = {RUNNING: validate(learner, epoch, None)}
        for name, size in sizes(len(made.train)).items():
            found[name] = validate(learner, epoch, size)
        learner.model.load_state_dict(running)
        yield taken, found


def validate(learner: Learner, epoch: int, size: int | None) -> Verdict:
    """Validate under statistics of so many training excerpts; None: under the running ones."""
    spent = 0.0

    def timed(model: torch.nn.Module, batches: Iterable[Tensor]) -> None:
        nonlocal spent
        if size is None:
            model.eval()
            return
        started = time.process_time()
        recompute_norms(model, batches)
        spent = time.process_time() - started

    with patch.multiple(model_module, NORM_SHARE=0.0, NORM_AT_LEAST=size or 1):
        learner.clean = draw_for_norms(learner.examples.train)
    started = time.process_time()
    with patch.object(learner_module, "recompute_norms", timed):
        scalars, _ = learner.validate(epoch)
    return Verdict(scalars[events.VAL_ACCURACY], spent, time.process_time() - started - spent)


def table(epochs: Sequence[tuple[float, dict[str, Verdict]]]) -> Iterator[str]:
    yield "| training excerpts | accuracy | difference | largest difference | cost |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name in epochs[0][1]:
        apart = [100 * abs(found[name].accuracy - found[ALL].accuracy) for _, found in epochs]
        accuracy = fmean(found[name].accuracy for _, found in epochs)
        cost = fmean(found[name].statistics_s / (taken + found[name].validation_s) for taken, found in epochs)
        yield f"| {name} | {accuracy:.1%} | {fmean(apart):.2f} | {max(apart):.2f} | {cost:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--pool", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    set_up(CPU, threads=1)
    config = dataset.resolve(Config(epochs=given.epochs, data=Data(cache=str(given.cache), pool=given.pool)))
    made = examples(config)
    epochs = [epoch for lr in LRS for epoch in trained(replace(config, lr=lr), made)]
    print(  # noqa: T201
        f"{len(made.train)} excerpts train, {len(made.validation)} validate, {given.epochs} epochs at "
        f"lr {', '.join(map(str, LRS))}; irmas draws {len(draw_for_norms(made.train))}\n"
    )
    print("\n".join(table(epochs)))  # noqa: T201


if __name__ == "__main__":
    main()
