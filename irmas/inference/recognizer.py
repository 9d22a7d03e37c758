"""Trained nets, alone or together: waveform or log-mel -> probabilities of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irmas.config import Features
from irmas.data.features import LogMel, decode, encode
from irmas.errors import UserError
from irmas.learning.model import Classifier, pooled
from irmas.run.model_file import ModelFile

Probabilities = NDArray[np.float32]
"""(windows, classes); a row sums to 1."""


class Net(Protocol):
    """What a model file or an ONNX file holds."""

    @property
    def classes(self) -> list[str]: ...

    @property
    def features(self) -> Features: ...

    @property
    def pool(self) -> int: ...

    def probabilities(self, log_mel_db: Tensor) -> Probabilities:
        """(windows, bands, frames), pooled, in dB under each window's own maximum."""
        ...


@dataclass(frozen=True)
class TorchNet:
    """A model file's net, on the CPU."""

    file: ModelFile

    @property
    def classes(self) -> list[str]:
        return self.file.classes

    @property
    def features(self) -> Features:
        return self.file.features

    @property
    def pool(self) -> int:
        return self.file.pool

    @cached_property
    def classifier(self) -> Classifier:
        net = Classifier(self.file.model, len(self.file.classes), dropout=0.0, mean_db=0.0, std_db=1.0)
        net.load_state_dict(self.file.weights)
        return net.eval()

    @torch.inference_mode()
    def probabilities(self, log_mel_db: Tensor) -> Probabilities:
        logits = self.classifier(log_mel_db[:, None])
        return logits.softmax(1).numpy()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Recognizer:
    """One net, or several whose probabilities are averaged; each hears through the front end that it was trained with.

    Raises UserError where their classes differ, or where there is none.
    """

    nets: Sequence[Net]
    names: Sequence[str]
    """Where each net came from."""
    window_s: float
    """Length of the windows that are heard; that of the training's excerpts, unless asked for otherwise."""

    def __post_init__(self) -> None:
        first = self.nets[0]
        for name, net in zip(self.names, self.nets, strict=True):
            if net.classes != first.classes:
                raise UserError(
                    f"{name}: knows the classes {' '.join(net.classes)}, "
                    f"{self.names[0]} knows {' '.join(first.classes)}; only nets of the same classes are averaged"
                )

    @property
    def classes(self) -> list[str]:
        return self.nets[0].classes

    @cached_property
    def _front_ends(self) -> list[LogMel]:
        return [LogMel(replace(net.features, seconds=self.window_s)) for net in self.nets]

    def hear(self, waveforms: Tensor, rate: int) -> Probabilities:
        """(windows, samples at `rate`) -> (windows, classes). A silent window means nothing: leave it out.

        Raises DataError for a rate that cannot be resampled.
        """
        heard = []
        for net, front_end in zip(self.nets, self._front_ends, strict=True):
            # As in the feature cache, steps of its dtype included: what the net was trained on.
            stored = encode(front_end(waveforms, rate), front_end.features)
            heard.append(net.probabilities(as_trained(decode(stored, front_end.features), net.pool)))
        return np.mean(heard, axis=0, dtype=np.float32)  # type: ignore[no-any-return]


def as_trained(log_mel_db: Tensor, pool: int) -> Tensor:
    """(windows, bands, frames) -> what the net saw of an excerpt in its training."""
    return pooled(log_mel_db, pool).float() if pool > 1 else log_mel_db
