"""A run's predictions for each validation excerpt, predictions.npz."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irmas.errors import DataError
from irmas.files import atomic_write, reread, with_digest, without_digest


@dataclass(frozen=True)
class Predictions:
    """Predictions; all arrays but the classes are (excerpts,), in the order of the feature cache."""

    classes: NDArray[np.str_]
    excerpts: NDArray[np.str_]
    recordings: NDArray[np.str_]
    """The recording of each excerpt; recordings that share an identical excerpt have one name."""
    targets: NDArray[np.integer]
    predicted: NDArray[np.integer]
    """Indices of the classes, true and predicted in the last epoch."""
    correct: NDArray[np.floating]
    """Share, 0 to 1, of correct predictions over the epochs of the ranked accuracy; its mean is that accuracy."""

    @property
    def confusion(self) -> NDArray[np.integer]:
        """Counts, (classes, classes): rows true, columns predicted."""
        size = len(self.classes)
        return np.bincount(self.targets * size + self.predicted, minlength=size**2).reshape(size, size)


def write(path: Path, predictions: Predictions) -> None:
    """Write predictions; the same predictions give the same bytes. Raises OSError."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(predictions))
    atomic_write(path, with_digest(buffer.getvalue()))


def read(path: Path) -> Predictions | None:
    """Read predictions; return None if the file is absent. Raises DataError if it is damaged, and OSError."""
    try:
        data = without_digest(reread(path.read_bytes))
    except FileNotFoundError:
        return None
    if data is None:
        raise DataError(f"{path}: is damaged (its digest differs)")
    with np.load(io.BytesIO(data)) as stored:
        arrays = dict(stored)
    # Files of earlier versions have the last epoch alone.
    arrays.setdefault("correct", (arrays["targets"] == arrays["predicted"]).astype(np.float64))
    return Predictions(**arrays)
