"""The probabilities of a sound file's windows, and what follows from them: which instruments sound, and when."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from irmas.labels import INSTRUMENTS

SOUND_THRESHOLD = 0.3
"""Score from which on an instrument counts as sounding: at most three at once do."""

Span = tuple[float, float]
"""Begin and end in the file, s."""


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


def instrument(label: str) -> str:
    """Return the name of an IRMAS class; any other label as it is."""
    return INSTRUMENTS.get(label, label)
