"""A sound file as windows of equal length, read one after another: memory holds one of them, however long the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from soundfile import SoundFile

from irmas.data.sound import SLACK, mean_of_channels, opened
from irmas.errors import DataError

SHORTEST_WINDOW_S, LONGEST_WINDOW_S, SHORTEST_HOP_S = 0.1, 600.0, 0.01
"""Limits: a longer window would not fit into memory, a shorter one or a shorter hop adds nothing."""


@dataclass(frozen=True)
class Window:
    start_s: float
    """Start in the file."""
    samples: NDArray[np.float32]
    """Mean of the channels, (samples,), at the file's own rate; shorter than a window only if the whole file is."""
    rate: int
    """Sample rate, Hz."""

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.samples) / self.rate

    @property
    def is_silent(self) -> bool:
        return not self.samples.any()


def count(seconds: float, window_s: float, hop_s: float) -> int:
    """Return the number of windows of a file."""
    return 1 + int(np.ceil(max(seconds - window_s, 0) / hop_s))


def read(path: Path, length_s: float, hop_s: float) -> Iterator[Window]:
    """Yield a window every `hop_s`, which is at most `length_s`; the last one ends with the file.

    Raises DataError, naming the file, if it is empty, truncated or no sound, or has samples that are not finite.
    """
    with opened(path) as file:
        rate = file.samplerate
        length = int(np.ceil(length_s * rate))  # as the front end cuts the excerpts of the training
        hop = max(round(hop_s * rate), 1)
        start, samples = 0, _read_mono(path, file, length)
        yield Window(0.0, samples, rate)
        while len(samples) == length and len(block := _read_mono(path, file, hop)):
            start += len(block)
            samples = np.concatenate([samples, block])[len(block) :]
            yield Window(start / rate, samples, rate)
        if (end := start + len(samples)) < file.frames - SLACK:
            raise DataError(f"{path}: truncated: the header says {file.frames} samples, the file has {end}")


def _read_mono(path: Path, file: SoundFile, samples: int) -> NDArray[np.float32]:
    mono = mean_of_channels(file.read(samples, dtype="float32", always_2d=True))
    if not np.isfinite(mono).all():
        raise DataError(f"{path}: holds samples that are not finite numbers")
    return mono
