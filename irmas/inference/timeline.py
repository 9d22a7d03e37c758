"""What was heard in a sound file, and when: the probabilities of its windows, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from irmas.labels import INSTRUMENTS

SOUNDS = 0.3
"""A score from which on an instrument is said to sound: three at once at most."""

Span = tuple[float, float]
"""Begin and end in the file, s."""


@dataclass(frozen=True)
class Timeline:
    """Times are in seconds, to the microsecond."""

    seconds: float
    """Of the whole file."""
    classes: list[str]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    """(windows, classes); a silent window's are NaN."""

    @property
    def is_silent(self) -> NDArray[np.bool_]:
        """Of each window."""
        return np.isnan(self.probabilities[:, 0])

    @property
    def overall(self) -> NDArray[np.float64] | None:
        """Each class's mean over the windows that are not silent; None where all are."""
        heard = self.probabilities[~self.is_silent]
        return heard.mean(axis=0, dtype=np.float64) if len(heard) else None

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Between which times nothing changes (moments + 1), and the scores there: (moments, classes).

        A moment's score is the mean over the windows that hold it; NaN where one of them is silent, and so the moment.
        """
        edges = np.unique([self.starts, self.ends])
        silent = self.is_silent.astype(int)
        number = np.zeros((len(edges), 2), int)  # of windows, and of those that are silent
        total = np.zeros((len(edges), len(self.classes)))
        for times, sign in ((self.starts, 1), (self.ends, -1)):
            places = np.searchsorted(edges, times)
            np.add.at(number, places, sign * np.stack([np.ones_like(silent), silent], axis=1))
            np.add.at(total, places, sign * np.nan_to_num(self.probabilities.astype(np.float64)))
        number, total = number.cumsum(axis=0)[:-1], total.cumsum(axis=0)[:-1]
        return edges, np.where(number[:, 1:] > 0, np.nan, total / number[:, :1])

    def sounding(self) -> list[list[Span]]:
        """For each class, when its score is `SOUNDS` or more."""
        edges, scores = self.moments()
        return [_spans(edges, column >= SOUNDS) for column in scores.T]

    def silence(self) -> list[Span]:
        """What silent windows hold."""
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
    """0:04.5, 59:10, 1:00:00."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{tenths / 10:04.1f}".removesuffix(".0")


def instrument(label: str) -> str:
    """A class of IRMAS in words, any other as it is."""
    return INSTRUMENTS.get(label, label)
