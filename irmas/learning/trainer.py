"""The life of a run, from its configuration or checkpoint to its last epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from irmas.config import Config
from irmas.errors import UserError, first_line
from irmas.learning.learner import Examples, Learner
from irmas.learning.model import augmented
from irmas.learning.net import with_self_test
from irmas.run import checkpoint, events, images, model_file, predictions
from irmas.run.events import EventWriter
from irmas.run.folder import COMPLETED, DIVERGED, PRUNED, RUNNING, RunFolder, Status
from irmas.run.predictions import Predictions

log = logging.getLogger(__name__)

STATUS_EVERY_S = 2.0


def fit(
    folder: RunFolder,
    config: Config,
    examples: Examples,
    device: torch.device,
    hparams: dict[str, Any],
    prune: Callable[[int, float], str] | None = None,
) -> Status:
    """Train a run from its last checkpoint to its end, and return how it ended.

    `hparams` are the settings that TensorBoard shows. `prune` returns, from an epoch and its ranked accuracy, why the
    run ends there, or an empty string. Raises LeaseLost, with the epoch not committed, if a newer start has taken over;
    UserError if the checkpoint is of another run; OSError.
    """
    learner = Learner(config, examples, device)
    status = _restore(folder, learner)
    folder.write_status(status)
    with EventWriter(folder.path, purge_step=status.epoch + 1) as writer:
        _write_header(writer, learner, hparams, folder.path.name, is_new=status.epoch == 0)
        while status.state == RUNNING and status.epoch < config.epochs:
            if prune and status.metrics and (reason := prune(status.epoch, status.metrics[events.RANKED])):
                log.info("pruned: %s", reason)
                writer.end(ok=True)
                writer.commit()
                status = replace(status, state=PRUNED, message=reason)
            else:
                epoch = status.epoch + 1
                scalars, answers = learner.train_and_validate(epoch, _status_writer(folder, status))
                status = _commit(folder, writer, learner, replace(status, epoch=epoch), scalars, answers)
    if status.state == RUNNING:
        _write_model(folder, learner, status)
        status = replace(status, state=COMPLETED)
    folder.write_status(status)
    return status


def _restore(folder: RunFolder, learner: Learner) -> Status:
    """Load the checkpoint into `learner`, if there is one; return the status of the run that starts or resumes."""
    epochs, val_excerpts = learner.config.epochs, len(learner.examples.validation)
    status = Status(RUNNING, epochs=epochs, steps=learner.steps, val_excerpts=val_excerpts, started=time.time())
    state = checkpoint.load(folder.checkpoint, learner.config)
    if state is None:
        return status
    try:
        learner.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = f"is of another net ({first_line(error)})"
        raise UserError(f"{folder.checkpoint}: {reason}; {checkpoint.RESTART}") from error
    log.info("resumes after epoch %d", state["epoch"])
    started = folder.status().started or status.started
    return replace(status, epoch=state["epoch"], metrics=state["metrics"], started=started)


def _write_header(writer: EventWriter, learner: Learner, hparams: dict[str, Any], name: str, *, is_new: bool) -> None:
    """Write the run's settings and, for a new run, four excerpts before and after augmentation."""
    writer.hparams(hparams, events.JUDGED, name)
    if is_new:
        examples = learner.examples
        rows = examples.train[:: max(len(examples.train) // 4, 1)][:4]
        titles = [examples.classes[int(target)] for target in examples.targets[rows]]
        log_mel = examples.decibels(rows)
        changed = augmented(log_mel, learner.config.augment, learner.mean_db)
        low, high = float(log_mel.min()), max(float(log_mel.max()), float(log_mel.min()) + 1)
        for tag, batch in ((events.SPECTROGRAMS, log_mel), (events.AUGMENTED, changed)):
            writer.image(0, tag, images.spectrograms(batch[:, 0].cpu().numpy(), titles, low, high))
    # Now, while this process still owns the run.
    writer.commit()


def _status_writer(folder: RunFolder, status: Status) -> Callable[[int], None]:
    """Return a function that writes the step into the status file every STATUS_EVERY_S."""
    last = time.monotonic()

    def on_step(step: int) -> None:
        nonlocal last
        if time.monotonic() - last > STATUS_EVERY_S:
            last = time.monotonic()
            folder.write_status(replace(status, step=step))

    return on_step


def _commit(
    folder: RunFolder,
    writer: EventWriter,
    learner: Learner,
    status: Status,
    scalars: dict[str, float],
    answers: Predictions,
) -> Status:
    """Write events, checkpoint and status of an epoch, in this order; of a diverged one the events only."""
    epoch = status.epoch
    log.info(
        f"epoch {epoch:{len(str(status.epochs))}d}/{status.epochs}"
        f"  train loss {scalars[events.TRAIN_LOSS]:.4f} accuracy {scalars[events.TRAIN_ACCURACY]:.2%}"
        f"  val loss {scalars[events.VAL_LOSS]:.4f} accuracy {scalars[events.VAL_ACCURACY]:.2%}"
        f"  {scalars[events.EXCERPTS_PER_S]:.0f} excerpts/s"
    )
    finite = {tag: value for tag, value in scalars.items() if math.isfinite(value)}
    status = replace(status, metrics=finite)
    if lost := [tag for tag in (events.TRAIN_LOSS, events.VAL_LOSS) if tag not in finite]:
        reason = f"{' and '.join(lost)} not finite in epoch {epoch}; a smaller lr may help"
        status = replace(status, state=DIVERGED, message=reason)
    folder.check_lease()
    writer.scalars(epoch, scalars)
    if lost or epoch == status.epochs:
        predictions.write(folder.predictions, answers)
        matrix = images.confusion_matrix(answers.confusion, learner.examples.classes)
        writer.image(epoch, events.CONFUSION, matrix)
        writer.end(ok=not lost)
    # Events first: after a crash in between, the epoch is trained again and its scalars are replaced.
    writer.commit()
    if not lost:
        folder.check_lease()
        state = {"epoch": epoch, "metrics": finite, **learner.state_dict()}
        checkpoint.save(folder.checkpoint, state, learner.config)
        folder.write_status(status)
    return status


def _write_model(folder: RunFolder, learner: Learner, status: Status) -> None:
    examples, weights = learner.examples, learner.model.state_dict()
    rows = examples.train.cpu().numpy()
    names, recordings = examples.names[rows].tolist(), sorted(set(examples.recordings[rows].tolist()))
    file = model_file.make(weights, examples.classes, learner.config, names, recordings, status.metrics or {})
    folder.check_lease()
    model_file.write(folder.model, with_self_test(file))
