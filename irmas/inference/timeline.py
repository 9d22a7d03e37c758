"""A sound file as windows of equal length; and their probabilities: which instruments sound, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from soundfile import SoundFile

from irmas.data.sound import SLACK, mean_of_channels, opened
from irmas.errors import DataError

WINDOWS_S, HOPS_S = (0.1, 600.0), (0.01, 600.0)
"""Limits: a longer window would not fit into memory, a shorter one or a shorter hop adds nothing."""
SOUND_THRESHOLD = 0.3
"""Score from which on an instrument counts as sounding: at most three at once do."""

Span = tuple[float, float]
"""Begin and end in the file, s."""


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


def count_windows(seconds: float, window_s: float, hop_s: float) -> int:
    """Return the number of windows of a file."""
    return 1 + int(np.ceil(max(seconds - window_s, 0) / hop_s))


def read_windows(path: Path, length_s: float, hop_s: float) -> Iterator[Window]:
    """Yield a window every `hop_s`, which is at most `length_s`; the last one ends with the file.

    Memory holds one window, however long the file is.
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


@dataclass(frozen=True)
class Timeline:
    """The windows of a file; times are in seconds, rounded to microseconds."""

    seconds: float
    """Length of the whole file."""
    classes: list[str]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    """Probabilities, (windows, classes); NaN for a silent window."""

    @property
    def is_silent(self) -> NDArray[np.bool_]:
        """True for silent windows, (windows,)."""
        return np.isnan(self.probabilities[:, 0])

    @property
    def overall(self) -> NDArray[np.float64] | None:
        """Mean of each class, (classes,), over the windows that are not silent; None if all are."""
        loud = self.probabilities[~self.is_silent]
        return loud.mean(axis=0, dtype=np.float64) if len(loud) else None

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the edges of the moments in which no window starts or ends, (moments + 1,), and the scores in them.

        Scores, (moments, classes), are the mean over the windows that hold the moment, NaN if one of them is silent.
        """
        edges = np.unique([self.starts, self.ends])
        silent = self.is_silent.astype(int)
        number = np.zeros((len(edges), 2), int)  # of windows, and of silent windows
        total = np.zeros((len(edges), len(self.classes)))
        for times, sign in ((self.starts, 1), (self.ends, -1)):
            places = np.searchsorted(edges, times)
            np.add.at(number, places, sign * np.stack([np.ones_like(silent), silent], axis=1))
            np.add.at(total, places, sign * np.nan_to_num(self.probabilities.astype(np.float64)))
        number, total = number.cumsum(axis=0)[:-1], total.cumsum(axis=0)[:-1]
        return edges, np.where(number[:, 1:] > 0, np.nan, total / number[:, :1])

    def sounding(self) -> list[list[Span]]:
        """Return, for each class, the spans in which its score is `SOUND_THRESHOLD` or more."""
        edges, scores = self.moments()
        return [_spans(edges, column >= SOUND_THRESHOLD) for column in scores.T]

    def silence(self) -> list[Span]:
        """Return the spans that silent windows cover."""
        edges, scores = self.moments()
        return _spans(edges, np.isnan(scores[:, 0]))


def _spans(edges: NDArray[np.float64], chosen: NDArray[np.bool_]) -> list[Span]:
    spans, place = [], 0
    for is_chosen, group in groupby(chosen):
        begin, place = place, place + len(list(group))
        if is_chosen:
            spans.append((float(edges[begin]), float(edges[place])))
    return spans


def clock(seconds: float) -> str:
    """Return a time as on a clock: 0:04.5, 59:10, 1:00:00."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{tenths / 10:04.1f}".removesuffix(".0")
