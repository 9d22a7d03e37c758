"""Simulated sweeps of the report's grid with a known truth, and noise with the components that recorded sweeps have."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from irmas.config import FOLD, averaged_epochs
from irmas.data.split import FOLDS
from irmas.results.runs import Answers, Run
from irmas.run.events import VAL_ACCURACY

Array = NDArray[np.float64]

KEYS = ["dropout", "lr", "l2"]
GRID = [
    dict(zip(KEYS, values, strict=True))
    for values in itertools.product([0.3, 0.4, 0.5], [0.001, 0.0005, 0.0001], [0.001, 0.0001])
]
PER_RECORDING = 3
EPOCHS = 15


@dataclass(frozen=True)
class Noise:
    """Standard deviations of a run's accuracy, 0 to 1."""

    run: float = 0.0
    """Noise of each run by itself."""
    seed: float = 0.0
    """Noise that all runs of a seed share, where they share a random stream."""
    seed_lr: float = 0.0
    """Noise that all runs of a seed and a learning rate share."""
    twins: float = 0.0
    """Noise that two runs share that differ only in l2."""
    epoch: float = 0.0
    """Noise of each epoch by itself."""
    hard_fold: float = 0.0
    """Accuracy that all runs on fold 0 lack to those on the others; the mean over five folds is not changed."""
    fold_point: float = 0.0
    """Noise that all runs of a fold and a point share: another training set helps one point more than another."""


OWN_STREAMS = Noise(run=0.007, epoch=0.011)
SHARED_STREAMS = Noise(run=0.002, seed=0.005, seed_lr=0.0055, epoch=0.010)

NAMED = GRID[9]
"""A point that is named beforehand, or stands out."""


def _as_recorded(values: dict[str, Any]) -> float:
    """Return the main effects of the report's grid on IRMAS (18 runs under recomputed statistics)."""
    lr = {0.001: 0.602, 0.0005: 0.619, 0.0001: 0.559}
    dropout = {0.3: 0.005, 0.4: 0.002, 0.5: -0.008}
    return lr[values["lr"]] + dropout[values["dropout"]] + (0.004 if values["l2"] < 0.0005 else -0.004)


TRUTHS: dict[str, Callable[[dict[str, Any]], float]] = {
    "equal": lambda values: 0.55,
    "as recorded": _as_recorded,
    "one point 3 ahead": lambda values: 0.58 if values == NAMED else 0.55,
    "one point 5 ahead": lambda values: 0.60 if values == NAMED else 0.55,
}
"""True accuracy by the settings of a point."""


class Sweep:
    """A sweep whose points can be trained again: `train` gives the runs of a point, seed and fold."""

    def __init__(
        self,
        rng: np.random.Generator,
        truth: Callable[[dict[str, Any]], float],
        noise: Noise,
        excerpts: int = 1350,
        folds: int = 1,
    ) -> None:
        """Draw the excerpts, `excerpts` in each fold."""
        self.rng, self.noise, self.folds, self.per_fold = rng, noise, folds, excerpts
        self.truths = [truth(values) for values in GRID]
        excerpts *= folds
        recordings = np.arange(excerpts) // PER_RECORDING
        self.names = np.array([f"{number:05d}" for number in range(excerpts)])
        self.recordings = np.array([f"{number:04d}" for number in recordings])
        # Excerpts are hard by their recording, by themselves, and for a run: runs' answers correlate by 0.4 to 0.5.
        by_recording = rng.standard_normal(recordings[-1] + 1)[recordings]
        self.easy = np.sqrt(0.3) * by_recording + np.sqrt(0.35) * rng.standard_normal(excerpts)
        self.shared: dict[tuple[Any, ...], float] = {}

    def _draw(self, sd: float, *key: Any) -> float:
        """Return a deviation that is drawn once for all runs with this key."""
        return self.shared.setdefault(key, float(sd * self.rng.standard_normal()))

    def train(self, point: int, seed: int, run: int, fold: int = 0) -> Run:
        noise, values = self.noise, GRID[point]
        rows = slice(fold * self.per_fold, (fold + 1) * self.per_fold)
        reached = (
            self.truths[point]
            + noise.run * self.rng.standard_normal()
            + self._draw(noise.seed, seed)
            + self._draw(noise.seed_lr, seed, values["lr"])
            + self._draw(noise.twins, seed, values["lr"], values["dropout"])
        )
        if self.folds > 1:
            reached += noise.hard_fold * (1 / FOLDS - (fold == 0)) + self._draw(noise.fold_point, "fold", fold, point)
        curve = reached + noise.epoch * self.rng.standard_normal(EPOCHS)
        ranked = curve[-averaged_epochs("constant", EPOCHS) :]
        mine = np.sqrt(0.35) * self.rng.standard_normal(self.per_fold)
        hits = ndtri(ranked.clip(0.01, 0.99))[:, None] + self.easy[rows] + mine > 0
        share = hits.mean(axis=0)
        curve[-len(ranked) :] = hits.mean(axis=1)
        return Run(
            run,
            values | {"seed": seed} | ({FOLD: fold} if self.folds > 1 else {}),
            epoch=EPOCHS,
            accuracy=float(share.mean()),
            curves={VAL_ACCURACY: dict(enumerate(curve.tolist(), start=1))},
            answers=Answers(share, self.names[rows], self.recordings[rows]),
        )

    def grid(self, seeds: int) -> list[Run]:
        """Train all points with this number of seeds, on each fold."""
        all_runs = itertools.product(range(len(GRID)), range(seeds), range(self.folds))
        return [self.train(point, seed, run, fold) for run, (point, seed, fold) in enumerate(all_runs, start=1)]
