"""Predictions of a run for each validation excerpt: predictions.npz."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irmas.errors import DataError
from irmas.files import atomic_write, with_digest, without_digest


@dataclass(frozen=True)
class Predictions:
    """All but the classes are (excerpts,), in the order of the feature cache."""

    classes: NDArray[np.str_]
    excerpts: NDArray[np.str_]
    """Names."""
    recordings: NDArray[np.str_]
    """Those that share an identical excerpt have one name."""
    targets: NDArray[np.integer]
    """Indices of classes."""
    predicted: NDArray[np.integer]
    """Classes predicted in the last epoch."""
    correct: NDArray[np.floating]
    """Share of correct answers over the epochs that the ranked accuracy averages, 0 to 1; its mean is that accuracy."""

    @property
    def confusion(self) -> NDArray[np.integer]:
        """Counts, (classes, classes): rows true, columns predicted."""
        size = len(self.classes)
        return np.bincount(self.targets * size + self.predicted, minlength=size**2).reshape(size, size)


def write(path: Path, predictions: Predictions) -> None:
    """The same predictions give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(predictions))
    atomic_write(path, with_digest(buffer.getvalue()))


def read(path: Path) -> Predictions | None:
    """None where there are none. Raises DataError where the file is damaged, OSError where it may not be read."""
    try:
        data = without_digest(path.read_bytes())
    except FileNotFoundError:
        return None
    if data is None:
        raise DataError(f"{path}: is damaged (its digest differs)")
    with np.load(io.BytesIO(data)) as stored:
        arrays = dict(stored)
    # Files of earlier versions are of the last epoch alone.
    arrays.setdefault("correct", (arrays["targets"] == arrays["predicted"]).astype(np.float64))
    return Predictions(**arrays)
