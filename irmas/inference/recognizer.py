"""Trained nets, alone or averaged: a waveform, a log-mel or a whole file -> probabilities of the classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irmas.config import Features
from irmas.console import SILENT, Progress
from irmas.data.features import LogMel, decode, encode
from irmas.data.sound import read_form
from irmas.errors import DataError, UserError
from irmas.inference import windows
from irmas.inference.timeline import Timeline
from irmas.learning.model import Classifier, pooled
from irmas.run.model_file import ModelFile

BATCH_S = 96.0
"""Seconds of sound in a batch, whatever the length of its windows: memory grows with it."""

Probabilities = NDArray[np.float32]
"""Probabilities of the classes, (windows, classes); each row sums to 1."""


@dataclass(frozen=True)
class Net:
    classes: list[str]
    features: Features
    pool: int
    probabilities: Callable[[Tensor], Probabilities]
    """Function of log-mels, (windows, bands, frames), pooled, in dB under each window's own maximum."""
    file: ModelFile | None = None
    """Model file that the net is of; None for an exported net, which does not record its training."""

    def classify(self, log_mel_db: Tensor) -> Probabilities:
        """Return the probabilities of log-mels that are not pooled yet, pooled in the precision of the training."""
        return self.probabilities(pooled(log_mel_db, self.pool).float() if self.pool > 1 else log_mel_db)


def classifier(file: ModelFile) -> Classifier:
    """Return the trained module, on the CPU."""
    net = Classifier(file.model, len(file.classes), dropout=0.0, mean_db=0.0, std_db=1.0)
    net.load_state_dict(file.weights)
    return net.eval()


def torch_net(file: ModelFile) -> Net:
    """Return the net of a model file, on the CPU."""
    module = classifier(file)

    @torch.inference_mode()
    def probabilities(log_mel_db: Tensor) -> Probabilities:
        return module(log_mel_db[:, None]).softmax(1).numpy()  # type: ignore[no-any-return]

    return Net(file.classes, file.features, file.pool, probabilities, file)


@dataclass(frozen=True)
class Recognizer:
    """One net, or several whose probabilities are averaged, each with the front end that it was trained with.

    Raises UserError if their classes differ, if a window is too short for a net, or if the hop is longer than a window.
    """

    nets: Sequence[Net]
    names: Sequence[str]
    """Path of each net's file."""
    window_s: float
    hop_s: float
    """Seconds from one window of a file to the next."""

    def __post_init__(self) -> None:
        if self.hop_s > self.window_s:
            raise UserError(f"--hop {self.hop_s:g}: must be at most as long as a window, {self.window_s:g} s")
        for name, net, front_end in zip(self.names, self.nets, self.front_ends, strict=True):
            if net.classes != self.classes:
                raise UserError(
                    f"{name}: has the classes {' '.join(net.classes)}, {self.names[0]} has {' '.join(self.classes)}; "
                    "only nets of the same classes are averaged"
                )
            if (frames := front_end.features.n_frames) < net.pool:
                raise UserError(
                    f"--window {self.window_s:g}: is too short for {name}: {frames} frames, it needs {net.pool}"
                )

    @property
    def classes(self) -> list[str]:
        return self.nets[0].classes

    @cached_property
    def front_ends(self) -> list[LogMel]:
        """Front end of each net, for windows of `window_s`."""
        return [LogMel(replace(net.features, seconds=self.window_s)) for net in self.nets]

    def probabilities(self, waveforms: Tensor, rate: int) -> Probabilities:
        """Classify windows, (windows, samples at `rate`); leave out silent ones, for which the result means nothing.

        Raises DataError for a rate that cannot be resampled.
        """
        answers = []
        for net, front_end in zip(self.nets, self.front_ends, strict=True):
            # Encoded as in the feature cache, with the steps of its dtype: the net was trained on such features.
            stored = encode(front_end(waveforms, rate), front_end.features)
            answers.append(net.classify(decode(stored, front_end.features)))
        return np.mean(answers, axis=0, dtype=np.float32)  # type: ignore[no-any-return]

    def timeline(self, path: Path, progress: Progress = SILENT) -> Timeline:
        """Classify the windows of a file, a batch at a time; memory holds one batch.

        Raises DataError, naming the file, if it is empty, truncated or no sound, if its samples are not finite, or if
        its rate cannot be resampled.
        """
        progress.start(path.name, windows.count(read_form(path).seconds, self.window_s, self.hop_s), "windows")
        remaining = windows.read(path, self.window_s, self.hop_s)
        starts, ends, probabilities = [], [], []
        while batch := list(islice(remaining, max(1, int(BATCH_S / self.window_s)))):
            answers = np.full((len(batch), len(self.classes)), np.nan, np.float32)
            loud = [row for row, window in enumerate(batch) if not window.is_silent]
            if loud:
                samples = torch.from_numpy(np.stack([batch[row].samples for row in loud]))
                try:
                    answers[loud] = self.probabilities(samples, batch[0].rate)
                except DataError as error:
                    raise DataError(f"{path}: {error}") from None
            probabilities.append(answers)
            starts += [window.start_s for window in batch]
            ends += [window.end_s for window in batch]
            progress.advance(len(batch))
        # Rounded, so that a window's end and the start of another at the same sample are the same number.
        starts_s, ends_s = np.round(starts, 6), np.round(ends, 6)
        return Timeline(round(ends[-1], 6), self.classes, starts_s, ends_s, np.concatenate(probabilities))
