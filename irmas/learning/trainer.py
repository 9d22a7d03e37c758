"""One training run, from its configuration to its last epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from irmas.config import Config, averaged_epochs
from irmas.data.cache import FeatureCache
from irmas.data.split import Split
from irmas.errors import DataError, UserError
from irmas.learning import batch_norm, metrics
from irmas.learning.augment import spec_augment
from irmas.learning.device import autocast, seed
from irmas.learning.model import Classifier, pooled
from irmas.learning.optim import Schedule, make_optimizer
from irmas.run import checkpoint, events, images, model_file, predictions
from irmas.run.events import EventWriter
from irmas.run.folder import COMPLETED, DIVERGED, PRUNED, RUNNING, RunFolder, Status
from irmas.run.model_file import ModelFile
from irmas.run.predictions import Predictions

log = logging.getLogger(__name__)

STATUS_EVERY_S = 2.0
EXAMPLES = 4
"""Spectrograms shown before and after SpecAugment."""


@dataclass
class Examples:
    """A split data set on the device that trains."""

    features: Tensor
    """(excerpts, bands, frames) as stored; on CUDA the whole of it lies on the device, on the CPU in the page cache."""
    targets: Tensor
    classes: list[str]
    train: Tensor
    validation: Tensor
    scale: float
    offset: float
    names: NDArray[np.str_]
    """Of all excerpts, as the next."""
    recordings: NDArray[np.str_]
    """Those that share an identical excerpt have one name."""

    def decibels(self, rows: Tensor) -> Tensor:
        """(rows, 1, bands, frames), float32."""
        return self.features[rows][:, None].float().mul_(self.scale).add_(self.offset)


def load_examples(cache: FeatureCache, split: Split, pool: int, device: torch.device) -> Examples:
    """With `pool` above 1, blocks of pool x pool bins are averaged (in dB) once, here; a remainder is left out."""
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
    """A net, its optimizer and its schedule: trains an epoch, validates, and remembers itself as a state_dict."""

    def __init__(self, config: Config, examples: Examples, device: torch.device) -> None:
        self.config, self.examples, self.device = config, examples, device
        seed(config, epoch=0)
        mean_db, std_db = _moments(examples, config.batch_size)
        model = Classifier(config.model, len(examples.classes), config.dropout, mean_db, std_db)
        # The kernels' layout decides that of the activations: an input of one channel has both.
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean_db = mean_db
        self.optimizer = make_optimizer(self.model, config)
        self.steps = math.ceil(len(examples.train) / config.batch_size)
        self.schedule = Schedule(self.optimizer, config, self.steps)
        weights = metrics.class_weights(examples.targets[examples.train], len(examples.classes))
        self.weights = weights.float() if config.class_weights else None
        self.clean = batch_norm.draw(examples.train)
        self.correct = torch.zeros((0, len(examples.validation)), dtype=torch.bool)
        """(epochs, validation excerpts), of the last epochs, over which the ranked accuracy is the mean."""

    def train_epoch(self, epoch: int, on_step: Callable[[int], None]) -> dict[str, float]:
        """Pass once over the training part and return its scalars."""
        seed(self.config, epoch)
        self.model.train()
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), dtype=torch.long, device=self.device)
        order = self.examples.train[torch.randperm(len(self.examples.train), device=self.device)]
        lr = self.optimizer.param_groups[0]["lr"]
        started = time.perf_counter()
        # Batches of equal size, but for one excerpt: a small last one would have batch statistics of its own.
        for step, rows in enumerate(order.tensor_split(self.steps), start=1):
            loss, predicted = self._step(rows)
            # Summed on the device: reading a number back would make the GPU wait at each step.
            loss_sum += loss * len(rows)
            correct += (predicted == self.examples.targets[rows]).sum()
            on_step(step)
        seen = len(order)
        mean_loss = float(loss_sum) / seen
        return {
            events.TRAIN_LOSS: mean_loss,
            events.TRAIN_ACCURACY: float(correct) / seen,
            events.LR: lr,
            events.EXCERPTS_PER_S: seen / (time.perf_counter() - started),
        }

    def _step(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        log_mel = spec_augment(self.examples.decibels(rows), self.config.augment, self.mean_db)
        with autocast(self.device):
            logits = self.model(log_mel)
        loss = F.cross_entropy(logits.float(), self.examples.targets[rows], self.weights)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.after_step()
        return loss.detach(), logits.argmax(1)

    @torch.inference_mode()
    def validate(self, epoch: int) -> tuple[dict[str, float], Predictions]:
        """Recompute the batch-norm statistics and return the epoch's scalars and predictions.

        The loss is unweighted cross-entropy without penalty, the same for any l2.
        """
        with autocast(self.device):
            # As large as those of training, whose activations the device's memory holds; never of one excerpt, whose
            # last maps may have a single bin, of which there is no variance.
            batches = self.clean.tensor_split(math.ceil(len(self.clean) / max(self.config.batch_size, 3)))
            batch_norm.recompute(self.model, (self.examples.decibels(rows) for rows in batches))
        loss_sum = torch.zeros((), dtype=torch.double, device=self.device)
        predicted = []
        for rows in self.examples.validation.split(self.config.batch_size):
            with autocast(self.device):
                logits = self.model(self.examples.decibels(rows))
            targets = self.examples.targets[rows]
            loss_sum += F.cross_entropy(logits.float(), targets, reduction="sum")
            predicted.append(logits.argmax(1))
        answers = self._predictions(epoch, torch.cat(predicted))
        counts = torch.from_numpy(answers.confusion)
        scalars = {
            events.VAL_LOSS: float(loss_sum) / len(self.examples.validation),
            events.VAL_ACCURACY: metrics.accuracy(counts),
            events.VAL_MACRO_F1: metrics.macro_f1(counts),
            events.RANKED: float(answers.correct.mean()),
        }
        return scalars, answers

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
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part.state_dict() for name, part in parts.items()} | {"correct": self.correct}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.correct = state["correct"]


def _moments(examples: Examples, batch_size: int) -> tuple[float, float]:
    """Mean and standard deviation in dB over the training part. Raises DataError where they are not finite."""
    total = torch.zeros(2, dtype=torch.double)
    for rows in examples.train.split(batch_size):
        decibels = examples.decibels(rows).double()
        total += torch.stack([decibels.sum(), decibels.square().sum()]).cpu()
    bins = len(examples.train) * examples.features[0].numel()
    mean, mean_square = (float(part) / bins for part in total)
    if not math.isfinite(mean_square):
        raise DataError("the features of the training excerpts hold NaN or infinite values: build the cache anew")
    return mean, max(math.sqrt(max(mean_square - mean**2, 0.0)), 1e-3)


def fit(
    folder: RunFolder,
    config: Config,
    examples: Examples,
    device: torch.device,
    hparams: dict[str, Any],
    verdict: Callable[[int, float], str] | None = None,
) -> Status:
    """The life of a run: restore; for each epoch train, validate, commit. Returns how it ended.

    `verdict` tells between two epochs, from validation accuracy, why the run stops there; empty where it goes on.
    Raises Replaced, with the epoch not committed, where a newer start has taken over.
    """
    learner = Learner(config, examples, device)
    status = _restore(folder, learner, Status(RUNNING, epochs=config.epochs, started=time.time()))
    status = replace(status, steps=learner.steps, val_excerpts=len(examples.validation))
    folder.write_status(status)
    with EventWriter(folder.path, purge_step=status.epoch + 1) as writer:
        writer.hparams(hparams, events.JUDGED, folder.path.name)
        if status.epoch == 0:
            _show_examples(writer, learner)
        # Nothing is left for `close` to write after another has taken over.
        writer.commit()
        for epoch in range(status.epoch + 1, config.epochs + 1):
            if verdict and status.metrics and (reason := verdict(status.epoch, status.metrics[events.RANKED])):
                status = replace(status, state=PRUNED, message=reason)
                log.info("stopped: %s", reason)
                writer.end(ok=True)
                writer.commit()
                break
            started = time.perf_counter()
            scalars = learner.train_epoch(epoch, _heartbeat(folder, status))
            validation, answers = learner.validate(epoch)
            learner.schedule.after_epoch(validation[events.VAL_LOSS])
            scalars |= validation | {events.EPOCH_S: time.perf_counter() - started}
            log.info(_line(epoch, config.epochs, scalars))
            lost = [tag for tag in (events.TRAIN_LOSS, events.VAL_LOSS) if not math.isfinite(scalars[tag])]
            folder.confirm()
            writer.scalars(epoch, scalars)
            if epoch == config.epochs or lost:
                predictions.write(folder.predictions, answers)
                writer.image(epoch, events.CONFUSION, images.confusion_matrix(answers.confusion, examples.classes))
                writer.end(ok=not lost)
            # Events first: after a crash in between, the epoch is trained again and its scalars are replaced.
            writer.commit()
            finite = {tag: value for tag, value in scalars.items() if math.isfinite(value)}
            status = replace(status, epoch=epoch, step=0, metrics=finite)
            if lost:
                reason = f"{' and '.join(lost)} not finite in epoch {epoch}; a smaller lr may help"
                status = replace(status, state=DIVERGED, message=reason)
                break
            folder.confirm()
            checkpoint.save(folder.checkpoint, {"epoch": epoch, "metrics": finite, **learner.state_dict()}, config)
            folder.write_status(status)
    if status.state == RUNNING:
        folder.confirm()
        model_file.write(folder.model, _model_file(learner, status))
        status = replace(status, state=COMPLETED)
    folder.write_status(status)
    return status


def _model_file(learner: Learner, status: Status) -> ModelFile:
    examples = learner.examples
    rows = examples.train.cpu().numpy()
    names, recordings = examples.names[rows].tolist(), sorted(set(examples.recordings[rows].tolist()))
    weights = learner.model.state_dict()
    return model_file.make(weights, examples.classes, learner.config, names, recordings, status.metrics or {})


def _restore(folder: RunFolder, learner: Learner, status: Status) -> Status:
    state = checkpoint.load(folder.checkpoint, learner.config)
    if state is None:
        return status
    try:
        learner.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{folder.checkpoint}: is of another net ({str(error).splitlines()[0]}); {checkpoint.FROM_ITS_START}"
        ) from error
    log.info("goes on after epoch %d", state["epoch"])
    started = folder.status().started or status.started
    return replace(status, epoch=state["epoch"], metrics=state["metrics"], started=started)


def _heartbeat(folder: RunFolder, status: Status) -> Callable[[int], None]:
    """Tells the status file how far the epoch is, every other second."""
    last = time.monotonic()

    def on_step(step: int) -> None:
        nonlocal last
        if time.monotonic() - last > STATUS_EVERY_S:
            last = time.monotonic()
            folder.write_status(replace(status, step=step))

    return on_step


def _show_examples(writer: EventWriter, learner: Learner) -> None:
    """The same excerpts before and after SpecAugment."""
    examples = learner.examples
    rows = examples.train[:: max(len(examples.train) // EXAMPLES, 1)][:EXAMPLES]
    titles = [examples.classes[int(target)] for target in examples.targets[rows]]
    log_mel = examples.decibels(rows)
    shown = (
        (events.SPECTROGRAMS, log_mel),
        (events.AUGMENTED, spec_augment(log_mel, learner.config.augment, learner.mean_db)),
    )
    low = float(log_mel.min())
    high = max(float(log_mel.max()), low + 1)
    for tag, batch in shown:
        writer.image(0, tag, images.spectrograms(batch[:, 0].cpu().numpy(), titles, low, high))


def _line(epoch: int, epochs: int, scalars: dict[str, float]) -> str:
    return (
        f"epoch {epoch:{len(str(epochs))}d}/{epochs}"
        f"  train loss {scalars[events.TRAIN_LOSS]:.4f} accuracy {scalars[events.TRAIN_ACCURACY]:.2%}"
        f"  val loss {scalars[events.VAL_LOSS]:.4f} accuracy {scalars[events.VAL_ACCURACY]:.2%}"
        f"  {scalars[events.EXCERPTS_PER_S]:.0f} excerpts/s"
    )
