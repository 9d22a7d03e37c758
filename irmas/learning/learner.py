"""The net, its optimizer and its data on one device: train an epoch, validate, restore."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from irmas.config import Config, averaged_epochs
from irmas.data.cache import FeatureCache
from irmas.data.split import Split
from irmas.errors import DataError
from irmas.learning.device import autocast, seed
from irmas.learning.model import augmented, draw_for_norms, make_net, pooled, recompute_norms
from irmas.learning.optim import Schedule, make_optimizers
from irmas.run import events
from irmas.run.predictions import Predictions


@dataclass
class Examples:
    """A split data set on the device that trains."""

    features: Tensor
    """(excerpts, bands, frames) as stored: on CUDA all of it is on the device, on the CPU it is in the page cache."""
    targets: Tensor
    """(excerpts,), indices of classes."""
    classes: list[str]
    train: Tensor
    """Rows of the training part."""
    validation: Tensor
    """Rows of the validation part."""
    scale: float
    offset: float
    """Decibels = scale * features + offset."""
    names: NDArray[np.str_]
    """Names of all excerpts, in the order of the feature cache."""
    recordings: NDArray[np.str_]
    """The recording of each excerpt; recordings that share an identical excerpt have one name."""

    def decibels(self, rows: Tensor) -> Tensor:
        """Return log-mels in dB, (rows, 1, bands, frames), float32."""
        return self.features[rows][:, None].float().mul_(self.scale).add_(self.offset)


def load_examples(cache: FeatureCache, split: Split, pool: int, device: torch.device) -> Examples:
    """Move a cache to `device`; average blocks of pool x pool bins in dB, without a remainder, if `pool` is above 1."""
    stored, scale, offset = torch.from_numpy(cache.features), cache.scale, cache.offset
    if pool > 1:
        chunks = [pooled(chunk.float() * scale + offset, pool) for chunk in stored.split(256)]
        stored, scale, offset = torch.cat(chunks), 1.0, 0.0
    index = {label: number for number, label in enumerate(cache.classes)}
    return Examples(
        stored.to(device),
        torch.tensor([index[label] for label in cache.labels], device=device),
        cache.classes,
        torch.from_numpy(split.train).to(device),
        torch.from_numpy(split.validation).to(device),
        scale,
        offset,
        np.array(cache.names),
        np.array(split.groups),
    )


class Learner:
    """A net with its optimizer and schedule. Its state_dict restores it at the end of an epoch."""

    def __init__(self, config: Config, examples: Examples, device: torch.device) -> None:
        self.config, self.examples, self.device = config, examples, device
        seed(config, epoch=0)
        self.mean_db, std_db = _moments(examples, config.batch_size)
        model = make_net(config.model, len(examples.classes), config.dropout, self.mean_db, std_db)
        # The kernels' layout decides that of the activations: an input of one channel has both.
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = make_optimizers(self.model, config)
        self.steps = math.ceil(len(examples.train) / config.batch_size)
        self.schedules = [Schedule(optimizer, config, self.steps) for optimizer in self.optimizers]
        weights = class_weights(examples.targets[examples.train], len(examples.classes))
        self.weights = weights.float() if config.class_weights else None
        self.clean = draw_for_norms(examples.train)
        self.correct = torch.zeros((0, len(examples.validation)), dtype=torch.bool)
        """(epochs, validation excerpts) of the last epochs, over which the ranked accuracy is the mean."""

    def train_and_validate(self, epoch: int, on_step: Callable[[int], None]) -> tuple[dict[str, float], Predictions]:
        """Return all scalars of an epoch, and its predictions; call `on_step` with the number of steps done."""
        started = time.perf_counter()
        scalars = self.train_epoch(epoch, on_step)
        validation, predictions = self.validate(epoch)
        for schedule in self.schedules:
            schedule.after_epoch(validation[events.VAL_LOSS])
        return scalars | validation | {events.EPOCH_S: time.perf_counter() - started}, predictions

    def train_epoch(self, epoch: int, on_step: Callable[[int], None]) -> dict[str, float]:
        """Pass once over the training part and return its scalars."""
        seed(self.config, epoch)
        self.model.train()
        loss_sum, correct = torch.zeros((), device=self.device), torch.zeros((), dtype=torch.long, device=self.device)
        order = self.examples.train[torch.randperm(len(self.examples.train), device=self.device)]
        lr = self.optimizers[0].param_groups[0]["lr"]
        started = time.perf_counter()
        # Batches of equal size, but for one excerpt: a small last one would have batch statistics of its own.
        for step, rows in enumerate(order.tensor_split(self.steps), start=1):
            loss, right = self._step(rows)
            # Summed on the device: reading a number back would make the GPU wait at each step.
            loss_sum += loss
            correct += right
            on_step(step)
        seen = len(order)
        mean_loss = float(loss_sum) / seen  # waits for the GPU, ahead of the clock
        return {
            events.TRAIN_LOSS: mean_loss,
            events.TRAIN_ACCURACY: float(correct) / seen,
            events.LR: lr,
            events.EXCERPTS_PER_S: seen / (time.perf_counter() - started),
        }

    def _step(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a batch; return what `_compute` returns."""
        sums = self._compute(rows)
        for schedule in self.schedules:
            schedule.after_step()
        return sums

    def _compute(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Do all of a step that the device does; return the sum of the losses and the number of correct predictions."""
        log_mel = augmented(self.examples.decibels(rows), self.config.augment, self.mean_db)
        with autocast(self.device):
            logits = self.model(log_mel)
        targets, smoothing = self.examples.targets[rows], self.config.label_smoothing
        loss = F.cross_entropy(logits.float(), targets, self.weights, label_smoothing=smoothing)
        self.model.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach() * len(rows), (logits.argmax(1) == targets).sum()

    @torch.inference_mode()
    def validate(self, epoch: int) -> tuple[dict[str, float], Predictions]:
        """Recompute the batch-norm statistics and return the epoch's scalars and predictions.

        The loss is unweighted cross-entropy without penalty, the same for any l2.
        """
        with autocast(self.device):
            # As large as those of training, whose activations fit into memory; never of one excerpt, whose last maps
            # may have a single bin, of which there is no variance.
            batches = self.clean.tensor_split(math.ceil(len(self.clean) / max(self.config.batch_size, 3)))
            recompute_norms(self.model, (self.examples.decibels(rows) for rows in batches))
        loss_sum = torch.zeros((), dtype=torch.double, device=self.device)
        batches_predicted = []
        for rows in self.examples.validation.split(self.config.batch_size):
            with autocast(self.device):
                scores = self.model.log_probabilities(self.examples.decibels(rows))
            loss_sum += F.nll_loss(scores, self.examples.targets[rows], reduction="sum")
            batches_predicted.append(scores.argmax(1))
        predictions = self._predictions(epoch, torch.cat(batches_predicted))
        counts = torch.from_numpy(predictions.confusion)
        return {
            events.VAL_LOSS: float(loss_sum) / len(self.examples.validation),
            events.VAL_ACCURACY: accuracy(counts),
            events.VAL_MACRO_F1: macro_f1(counts),
            events.RANKED: float(predictions.correct.mean()),
        }, predictions

    def _predictions(self, epoch: int, predicted: Tensor) -> Predictions:
        examples, rows = self.examples, self.examples.validation.cpu().numpy()
        targets = examples.targets[examples.validation]
        correct = torch.cat([self.correct, (predicted == targets).cpu()[None]])
        self.correct = correct[-averaged_epochs(self.config.schedule, epoch) :]
        return Predictions(
            np.array(examples.classes),
            examples.names[rows],
            examples.recordings[rows],
            targets.cpu().numpy(),
            predicted.cpu().numpy(),
            self.correct.double().mean(0).numpy(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        return {name: part.state_dict() for name, part in self._parts().items()} | {"correct": self.correct}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises KeyError, RuntimeError or ValueError if it is of another net."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.correct = state["correct"]

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model}
        for prefix, optimizer, schedule in zip(("", "muon_"), self.optimizers, self.schedules, strict=False):
            parts |= {f"{prefix}optimizer": optimizer, f"{prefix}schedule": schedule}
        return parts


def _moments(examples: Examples, batch_size: int) -> tuple[float, float]:
    """Return mean and standard deviation in dB over the training part. Raises DataError if they are not finite."""
    total = torch.zeros(2, dtype=torch.double)
    for rows in examples.train.split(batch_size):
        decibels = examples.decibels(rows).double()
        total += torch.stack([decibels.sum(), decibels.square().sum()]).cpu()
    bins = len(examples.train) * examples.features[0].numel()
    mean, mean_square = (float(part) / bins for part in total)
    if not math.isfinite(mean_square):
        raise DataError("the features of the training excerpts hold NaN or infinite values: rebuild the cache")
    return mean, max(math.sqrt(max(mean_square - mean**2, 0.0)), 1e-3)


def accuracy(counts: Tensor) -> float:
    """Return the share of correct predictions of counts, (classes, classes): rows true, columns predicted."""
    return int(counts.diagonal().sum()) / int(counts.sum())


def macro_f1(counts: Tensor) -> float:
    """Return the mean F1 over the classes of the same counts; that of a class without any is 0, as in scikit-learn."""
    true_positives = counts.diagonal().double()
    return float((2 * true_positives / (counts.sum(0) + counts.sum(1)).clamp_min(1)).mean())


def class_weights(targets: Tensor, num_classes: int) -> Tensor:
    """Return inverse class frequencies, (classes,), in double precision; they average to 1 over the targets."""
    counts = torch.bincount(targets, minlength=num_classes)
    return len(targets) / ((counts > 0).sum() * counts.clamp_min(1).double())
