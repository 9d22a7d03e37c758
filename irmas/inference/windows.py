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
"""A longer window would not fit into memory; a shorter one or a shorter hop tells nothing more."""


@dataclass(frozen=True)
class Window:
    start_s: float
    """In the file."""
    samples: NDArray[np.float32]
    """The mean of the channels, at the file's own rate; a file shorter than a window makes one that is shorter."""
    rate: int
    """Hz."""

    @property
    def is_silent(self) -> bool:
        return not self.samples.any()


def read(path: Path, length_s: float, hop_s: float) -> Iterator[Window]:
    """A window every `hop_s`, which is at most `length_s`; the last one ends with the file, so that none of it is lost.

    Raises DataError, naming the file, where it is empty, cut or no sound, or holds samples that are not finite.
    """
    with opened(path) as file:
        rate = file.samplerate
        length = int(np.ceil(length_s * rate))  # as the training's front end cuts its excerpts
        hop = max(round(hop_s * rate), 1)
        start, held = 0, _mono(path, file, length)
        yield Window(0.0, held, rate)
        while len(held) == length and len(block := _mono(path, file, hop)):
            start += len(block)
            held = np.concatenate([held, block])[len(block) :]
            yield Window(start / rate, held, rate)
        if start + len(held) < file.frames - SLACK:
            raise DataError(f"{path}: cut: announces {file.frames} samples, holds {start + len(held)}")


def _mono(path: Path, file: SoundFile, samples: int) -> NDArray[np.float32]:
    mono = mean_of_channels(file.read(samples, dtype="float32", always_2d=True))
    if not np.isfinite(mono).all():
        raise DataError(f"{path}: holds samples that are not finite numbers")
    return mono
