"""Made-up sweeps with a known truth, as rankings and analyses: no file, no training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from irmas.config import Config, flatten, shown
from irmas.results.bootstrap import Answers
from irmas.results.ranking import Ranking, Row
from irmas.results.statistics import Analysis, Outcome, analyse
from irmas.run.events import VAL_ACCURACY, VAL_LOSS
from irmas.run.folder import COMPLETED
from irmas.sweep.plan import Plan, Point
from irmas.sweep.states import SweepState

Values = Mapping[str, Any]
REPORT = {"dropout": [0.3, 0.4, 0.5], "lr": [0.001, 0.0005, 0.0001], "l2": [0.001, 0.0001]}
EXCERPTS = 1200


def rise(accuracy: float, epochs: int, pace: float, jitter: Sequence[float]) -> dict[int, float]:
    """From nothing to `accuracy` in the last epoch; within `pace` epochs two thirds of what is left."""
    share = [1 - math.exp(-epoch / pace) for epoch in range(1, epochs + 1)]
    return {
        epoch: accuracy * part / share[-1] + noise
        for epoch, (part, noise) in enumerate(zip(share, [*jitter[1:], 0.0], strict=True), start=1)
    }


def sweep(
    axes: Mapping[str, Sequence[Any]],
    accuracy: Callable[[Values], float],
    *,
    pace: Callable[[Values], float] = lambda values: 2.0,
    failed: Mapping[int, str] | None = None,
    training_sd: float = 0.004,
    predicted: bool = True,
    base: Config | None = None,
    seed: int = 0,
) -> tuple[Ranking, Analysis | None]:
    """A run for each combination, `accuracy` up to training noise; `failed` are runs that ended so, by ID.

    Runs are right on much the same excerpts, four to a recording.
    """
    rng = np.random.default_rng(seed)
    config = base or Config()
    flat = flatten(asdict(config))
    names = np.array([f"excerpt {number:04d}" for number in range(EXCERPTS)])
    recordings = np.array([f"recording {number // 4:04d}" for number in range(EXCERPTS)])
    easy = np.repeat(rng.standard_normal(EXCERPTS // 4), 4) + 2 * rng.standard_normal(EXCERPTS)
    points, rows, outcomes = [], [], []
    for number, combination in enumerate(itertools.product(*axes.values()), start=1):
        values = dict(zip(axes, combination, strict=True))
        changes = {key: value for key, value in values.items() if key in flat and flat[key] != value}
        points.append(Point(number, {key: v if key in flat else shown(v) for key, v in values.items()}, changes))
        reached = float(np.clip(accuracy(values) + training_sd * rng.standard_normal(), 0, 1))
        hardest_first = np.argsort(easy + rng.standard_normal(EXCERPTS))
        correct = np.ones(EXCERPTS, dtype=bool)
        correct[hardest_first[: round((1 - reached) * EXCERPTS)]] = False
        curve = rise(
            float(correct.mean()), config.epochs, pace(values), (0.003 * rng.standard_normal(config.epochs)).tolist()
        )
        if failed and number in failed:
            state, _, error = failed[number].partition(": ")
            rows.append(Row(number, values, state, 0, None, None, 0, error, "source", {}))
            continue
        loss = 2 - 1.5 * float(correct.mean())
        curves = {VAL_ACCURACY: curve, VAL_LOSS: dict.fromkeys(curve, loss)}
        rows.append(
            Row(number, values, COMPLETED, config.epochs, curve[config.epochs], loss, EXCERPTS, "", "source", curves)
        )
        found = Outcome(number, values, float(correct.mean()), loss, Answers(correct, names, recordings))
        outcomes.append(found if predicted else replace(found, answers=None))
    plan = Plan("made-up", list(axes), "data", "source", "commit", config, points)
    planned = [row.values for row in rows]
    return _ranked(plan, rows), analyse(outcomes, list(axes), planned) if outcomes else None


def _ranked(plan: Plan, rows: Sequence[Row]) -> Ranking:
    finished = sorted((row for row in rows if row.state == COMPLETED), key=lambda row: -(row.accuracy or 0))
    ranked = [replace(row, rank=rank) for rank, row in enumerate(finished, start=1)]
    return Ranking(plan, ranked + [row for row in rows if row.state != COMPLETED], [], SweepState([], []))
