"""A trained net at work: log-mels -> probabilities, and the self-test that shows whether it is still the same net.

A model file holds the probabilities of three fixed sounds as the net answered when it was written. Whatever loads the
file computes them again, through the front end too: a net whose source was edited since answers otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irmas.config import Features
from irmas.data.features import LogMel, decode, encode
from irmas.errors import UserError
from irmas.learning.model import LogMelNet, make_net, pooled
from irmas.provenance import source_digest, source_digests, versions
from irmas.run import model_file
from irmas.run.model_file import ModelFile

TOLERANCE = 1e-3
"""Largest change of a probability that other processors and versions of torch may cause; 1e-6 is usual."""
SOUND_S = 3.0
"""Longest of the self-test's sounds; the rest of a longer excerpt is silence."""

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

    def hear(self, front_end: LogMel, waveforms: Tensor, rate: int) -> Probabilities:
        """Return the probabilities of waveforms, (windows, samples at `rate`), with the front end of this net.

        Raise DataError for a rate that cannot be resampled.
        """
        # Encoded as in the feature cache, with the steps of its dtype: the net was trained on such features.
        stored = encode(front_end(waveforms, rate), front_end.features)
        return self.classify(decode(stored, front_end.features))

    def classify(self, log_mel_db: Tensor) -> Probabilities:
        """Return the probabilities of log-mels that are not pooled yet, pooled in the precision of the training."""
        return self.probabilities(pooled(log_mel_db, self.pool).float() if self.pool > 1 else log_mel_db)

    def self_test(self) -> list[list[float]]:
        """Return the probabilities of the fixed sounds, (sounds, classes)."""
        rate = 2 * self.features.sample_rate  # so that the resampling is tested too
        return self.hear(LogMel(self.features), _sounds(rate, self.features.seconds), rate).tolist()  # type: ignore[no-any-return]

    def check(self, path: Path, expected: list[list[float]]) -> None:
        """Raise UserError if the net of a file does not answer the self-test as it did when the file was written."""
        change = float(np.abs(np.subtract(self.self_test(), expected)).max()) if expected else 0.0
        if not change <= TOLERANCE:  # nor is NaN
            now = f"its self-test gives probabilities that differ by up to {change:.2g} from those in it"
            raise UserError(f"{path}: is another net than when it was written: {now}; {_reason(path, self.file)}")


def classifier(file: ModelFile) -> LogMelNet:
    """Return the trained module, on the CPU."""
    net = make_net(file.model, len(file.classes), dropout=0.0, mean_db=0.0, std_db=1.0)
    net.load_state_dict(file.weights)
    return net.eval()


def torch_net(file: ModelFile) -> Net:
    """Return the net of a model file, on the CPU."""
    module = classifier(file)

    @torch.inference_mode()
    def probabilities(log_mel_db: Tensor) -> Probabilities:
        return module.log_probabilities(log_mel_db[:, None]).exp().numpy()

    return Net(file.classes, file.features, file.pool, probabilities, file)


def read_net(path: Path) -> Net:
    """Return the net of a model file, on the CPU, after its self-test.

    Raises UserError, naming the path, if the file cannot be used or the source gives another net than was trained.
    """
    file = model_file.read(path)
    try:
        net = torch_net(file)
    except RuntimeError:  # of load_state_dict, which lists every weight
        raise UserError(f"{path}: its weights do not fit the net of this source; {_reason(path, file)}") from None
    net.check(path, file.self_test)
    return net


def with_self_test(file: ModelFile) -> ModelFile:
    """Return the model file with its self-test, and the digests of the source that computed it."""
    source, digests = source_digest(file.builders), source_digests(file.builders)
    return replace(file, self_test=torch_net(file).self_test(), source=source, source_files=digests)


def _sounds(rate: int, seconds: float) -> Tensor:
    """Return a plucked tone, a sweep and bursts of noise, (3, samples at `rate` Hz), alike on every machine."""
    seconds = min(seconds, SOUND_S)
    time = np.arange(round(rate * seconds)) / rate
    partials = [np.sin(2 * np.pi * 220 * number * time) / number for number in range(1, 9)]
    tone = np.sum(partials, axis=0) * np.exp(-3 * (time % 0.5))
    sweep = np.sin(2 * np.pi * time * (50 + rate / 8 * time / seconds))
    noise = np.random.RandomState(0).uniform(-1, 1, len(time)) * (time % 0.25 < 0.05)
    return torch.from_numpy(np.stack([tone, sweep, noise]).astype(np.float32))


def _reason(path: Path, file: ModelFile | None) -> str:
    """Return what has changed since a file was written, and how to use it all the same."""
    if file is None:
        return "export the net again"
    then, now = file.source_files, source_digests(file.builders)
    changed = sorted({name for name, _ in then.items() ^ now.items()})
    libraries = [(name, file.versions.get(name), present) for name, present in versions().items()]
    others = [f"{name} {before}, now {present}" for name, before, present in libraries if before != present]
    what = f"changed since: {', '.join(changed or others) or 'nothing that it records'}"
    copy = path.parent.parent.parent / "code" / file.source  # of a run in its sweep's folder
    if file.source and (copy / "irmas" / "predict.py").is_file():
        return f"{what}; to use the source that trained it, begin the command with PYTHONPATH={copy} python -P -m"
    return f"{what}; use the source that trained it, {file.source or 'an earlier version'}, or train the run again"
