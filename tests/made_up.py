"""Made-up sweeps with a known truth, as rankings and analyses: no file, no training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from irmas.config import Config, averaged_epochs, flatten, shown
from irmas.data.dataset import resolve
from irmas.results.analysis import Analysis, Outcome, analyse
from irmas.results.comparison import Answers
from irmas.results.points import by_accuracy
from irmas.results.ranking import Ranking, Row
from irmas.run.events import RANKED, VAL_ACCURACY, VAL_LOSS
from irmas.run.folder import COMPLETED
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import SweepState

Values = Mapping[str, Any]
REPORT: Mapping[str, Sequence[Any]] = {"dropout": [0.3, 0.4, 0.5], "lr": [0.001, 0.0005, 0.0001], "l2": [0.001, 0.0001]}
SEEDS: Mapping[str, Sequence[Any]] = {**REPORT, "seed": [0, 1, 2]}
EXCERPTS = 1200


def rise(accuracy: float, epochs: int, pace: float) -> list[float]:
    """Return accuracies by epoch, from nothing to `accuracy`; within `pace` epochs two thirds of what is left."""
    share = [1 - math.exp(-epoch / pace) for epoch in range(1, epochs + 1)]
    return [accuracy * part / share[-1] for part in share]


def sweep(
    axes: Mapping[str, Sequence[Any]],
    accuracy: Callable[[Values], float],
    *,
    pace: float = 2.0,
    failed: Mapping[int, str] | None = None,
    training_sd: float = 0.004,
    predicted: bool = True,
    base: Config | None = None,
    seed: int = 0,
) -> tuple[Ranking, Analysis | None]:
    """Return a run for each combination, `accuracy` up to training noise; `failed` are runs that ended so, by ID.

    Runs are right on much the same excerpts, four to a recording. Seeds vary slowest, as in a sweep that has grown.
    """
    rng = np.random.default_rng(seed)
    config = resolve(base or Config())
    flat = flatten(asdict(config))
    easy = np.repeat(rng.standard_normal(EXCERPTS // 4), 4) + 2 * rng.standard_normal(EXCERPTS)
    points, rows, outcomes = list[PlannedRun](), list[Row](), list[Outcome]()
    slowest_first = sorted(axes, key=lambda key: key != "seed")
    for number, combination in enumerate(itertools.product(*(axes[key] for key in slowest_first)), start=1):
        found = dict(zip(slowest_first, combination, strict=True))
        values = {key: found[key] for key in axes}
        changes = {key: value for key, value in values.items() if key in flat and flat[key] != value}
        points.append(PlannedRun(number, {key: v if key in flat else shown(v) for key, v in values.items()}, changes))
        if failed and number in failed:
            state, _, error = failed[number].partition(": ")
            rows.append(Row(number, values, state, 0, None, None, 0, error, "source", {}))
            continue
        epochs, schedule = (changes.get(key, flat[key]) for key in ("epochs", "schedule"))
        reached = float(np.clip(accuracy(values) + training_sd * rng.standard_normal(), 0, 1))
        curve = (np.array(rise(reached, epochs, pace)) + training_sd * rng.standard_normal(epochs)).clip(0, 1)
        last = averaged_epochs(schedule, epochs)
        figure = float(curve[-last:].mean())
        correct = _correct(easy + rng.standard_normal(EXCERPTS), figure)
        losses = (2 - 1.5 * curve).tolist()
        curves = {
            RANKED: dict(enumerate([float(curve[max(0, n - last) : n].mean()) for n in range(1, epochs + 1)], 1)),
            VAL_ACCURACY: dict(enumerate(curve.tolist(), 1)),
            VAL_LOSS: dict(enumerate(losses, 1)),
        }
        row = Row(number, values, COMPLETED, epochs, figure, losses[-1], EXCERPTS, "", "source", curves)
        rows.append(replace(row, last_accuracy=float(curve[-1])))
        answers = _answers(correct) if predicted else None
        outcomes.append(
            Outcome(number, values, figure, losses[-1], answers, tuple(curve.tolist()), schedule == "onecycle")
        )
    command = [f"{key}={','.join(map(shown, values))}" for key, values in axes.items()]
    plan = Plan("made-up", list(axes), "data", "source", "commit", config, points, command)
    return ranked(plan, rows), analyse(outcomes, list(axes)) if outcomes else None


def _correct(ease: Any, accuracy: float) -> Any:
    """Return the share of correct answers to each excerpt, all but one 0 or 1, with this mean."""
    right = np.zeros(EXCERPTS)
    easiest_first = np.argsort(-ease)
    whole = int(accuracy * EXCERPTS)
    right[easiest_first[:whole]] = 1
    right[easiest_first[whole : whole + 1]] = accuracy * EXCERPTS - whole
    return right


def _answers(correct: Any) -> Answers:
    names = np.array([f"excerpt {number:04d}" for number in range(EXCERPTS)])
    return Answers(correct, names, np.array([f"recording {number // 4:04d}" for number in range(EXCERPTS)]))


def ranked(plan: Plan, rows: Sequence[Row]) -> Ranking:
    order = [
        replace(row, rank=rank, point_accuracy=mean)
        for rank, (mean, runs) in enumerate(by_accuracy([row for row in rows if row.state == COMPLETED]), start=1)
        for row in runs
    ]
    return Ranking(plan, order + [row for row in rows if row.state != COMPLETED], [], SweepState([], []))
