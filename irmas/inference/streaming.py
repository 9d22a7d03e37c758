"""Hears a sound file from its begin to its end, however long it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from irmas.errors import DataError
from irmas.inference import windows
from irmas.inference.recognizer import Recognizer
from irmas.inference.timeline import Timeline
from irmas.inference.windows import Window

BATCH_S = 96.0
"""Of sound that the net hears at once, whatever the length of its windows: memory grows with it."""


def count(seconds: float, window_s: float, hop_s: float) -> int:
    """How many windows a file has."""
    return 1 + int(np.ceil(max(seconds - window_s, 0) / hop_s))


def listen(path: Path, recognizer: Recognizer, hop_s: float, advance: Callable[[int], object]) -> Timeline:
    """Hear a file window by window, `advance` with their number; memory holds a batch of them.

    Raises DataError, naming the file, where it is empty, cut or no sound, where its samples are not finite, or where
    its rate cannot be resampled.
    """
    starts, ends, probabilities = [], [], []
    for batch in _batches(windows.read(path, recognizer.window_s, hop_s), max(1, int(BATCH_S / recognizer.window_s))):
        heard = np.full((len(batch), len(recognizer.classes)), np.nan, np.float32)
        loud = [place for place, window in enumerate(batch) if not window.is_silent]
        if loud:
            samples = torch.from_numpy(np.stack([batch[place].samples for place in loud]))
            try:
                heard[loud] = recognizer.hear(samples, batch[0].rate)
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
        probabilities.append(heard)
        starts += [window.start_s for window in batch]
        ends += [window.start_s + len(window.samples) / window.rate for window in batch]
        advance(len(batch))
    # Rounded, so that a window's end and another's start, where they are the same sample, are the same number.
    return Timeline(
        round(ends[-1], 6),
        recognizer.classes,
        np.round(starts, 6),
        np.round(ends, 6),
        np.concatenate(probabilities),
    )


def _batches(read: Iterator[Window], size: int) -> Iterator[list[Window]]:
    while batch := list(islice(read, size)):
        yield batch
