"""A training run and nothing else: no Hydra, no log, no checkpoint; what benchmarks/sweep.py measures ours against.

    python benchmarks/bare.py FEATURES.npz --dropout 0.4 --lr 0.001 --l2 0.0001 --epochs 5 --threads 1

Model, augmentation, batch-norm statistics, allocator and layout are the project's own, the loop is not. Prints one JSON
object: accuracy, seconds of imports and of training, and the Unix times at which training began and ended.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from irmas.config import Augment, Config, Model  # noqa: E402
from irmas.learning.device import seed, set_up  # noqa: E402
from irmas.learning.model import Classifier, augmented, draw_for_norms, recompute_norms  # noqa: E402

BATCH = 32


class Run:
    """The state of a run; `stored` are (excerpts, bands, frames) as uint8, in steps of 80 / 255 dB."""

    def __init__(self, stored: Tensor, targets: Tensor, train: Tensor, config: Config) -> None:
        seed(config, epoch=0)
        self.stored, self.targets, self.train, self.config = stored, targets, train, config
        total = torch.zeros(2, dtype=torch.double)
        for rows in train.split(BATCH):
            decibels = self.decibels(rows).double()
            total += torch.stack([decibels.sum(), decibels.square().sum()])
        self.mean_db, square = (total / (len(train) * stored[0].numel())).tolist()
        classes = int(targets.max()) + 1
        std_db = math.sqrt(square - self.mean_db**2)
        model = Classifier(config.model, classes, config.dropout, self.mean_db, std_db)
        self.model = model.to(memory_format=torch.channels_last)
        weights = list(self.model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": 2 * config.l2},
            {"params": [weight for weight in weights if weight.ndim <= 1]},
        ]
        self.optimizer = torch.optim.Adam(groups, lr=config.lr)
        counts = torch.bincount(targets[train], minlength=classes)
        self.weights = len(train) / (classes * counts)
        self.clean = draw_for_norms(train)

    def decibels(self, rows: Tensor) -> Tensor:
        return self.stored[rows][:, None].float().mul_(80 / 255).sub_(80)

    def train_epoch(self, epoch: int) -> None:
        seed(self.config, epoch)
        self.model.train()
        order = self.train[torch.randperm(len(self.train))]
        for rows in order.tensor_split(math.ceil(len(order) / BATCH)):
            self.step(augmented(self.decibels(rows), self.config.augment, self.mean_db), self.targets[rows])

    def step(self, batch: Tensor, targets: Tensor) -> Tensor:
        loss = F.cross_entropy(self.model(batch), targets, self.weights)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.inference_mode()
    def validate(self, validation: Tensor) -> float:
        batches = self.clean.tensor_split(math.ceil(len(self.clean) / BATCH))
        recompute_norms(self.model, (self.decibels(rows) for rows in batches))
        correct = torch.zeros((), dtype=torch.long)
        loss = torch.zeros((), dtype=torch.double)
        for rows in validation.split(BATCH):
            logits = self.model(self.decibels(rows))
            loss += F.cross_entropy(logits, self.targets[rows], reduction="sum")
            correct += (logits.argmax(1) == self.targets[rows]).sum()
        return int(correct) / len(validation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="npz: features, targets, train, validation")
    for name in ("dropout", "lr", "l2"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    imported, began = time.perf_counter(), time.time()
    set_up(torch.device("cpu"), given.threads)
    with np.load(given.data) as data:
        stored, targets, train, validation = (
            torch.from_numpy(data[name]) for name in ("features", "targets", "train", "validation")
        )
    config = Config(dropout=given.dropout, lr=given.lr, l2=given.l2, model=Model(), augment=Augment())
    run = Run(stored, targets, train, config)
    for epoch in range(1, given.epochs + 1):
        run.train_epoch(epoch)
        accuracy = run.validate(validation)
    times = {"import_s": imported - STARTED, "train_s": time.perf_counter() - imported}
    print(json.dumps({"accuracy": accuracy, **times, "began": began, "ended": time.time()}))  # noqa: T201


if __name__ == "__main__":
    main()
