"""Plans, sweeps and rankings for tests."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from irmas.config import FOLD, Config, Search, averaged_epochs, flatten, shown
from irmas.data.dataset import resolve
from irmas.results.analysis import Analysis, analyze
from irmas.results.ranking import Ranking
from irmas.results.runs import Answers, Run, by_accuracy
from irmas.run import predictions
from irmas.run.events import RANKED, VAL_ACCURACY, VAL_LOSS, EventWriter
from irmas.run.folder import COMPLETED, RunFolder, Status
from irmas.run.predictions import Predictions
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import SweepState
from irmas.sweep.sweep import Sweep

Values = Mapping[str, Any]
REPORT: Mapping[str, Sequence[Any]] = {"dropout": [0.3, 0.4, 0.5], "lr": [0.001, 0.0005, 0.0001], "l2": [0.001, 0.0001]}
SEEDS: Mapping[str, Sequence[Any]] = {**REPORT, "seed": [0, 1, 2]}
EXCERPTS = 1200


def read_plan(path: Path, ids: Sequence[int] | None = None) -> Plan:
    return Sweep.open(path, ids).plan


def write_plan(path: Path, plan: Plan, *, append: bool = False) -> tuple[Plan, list[PlannedRun]]:
    """Write a plan into a folder; return the plan that it then holds, and the runs of this one."""
    sweep, runs = Sweep(path, plan).write(append=append)
    return sweep.plan, runs


def run_folder(path: Path, run: PlannedRun) -> RunFolder:
    return RunFolder(path / "runs" / run.folder_name)


def age_heartbeat(folder: RunFolder, seconds: float) -> None:
    """Let the last heartbeat of a run be so old."""
    file = folder.path / "status.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"updated": time.time() - seconds}))


def grid(axes: Mapping[str, Sequence[Any]], base: Config | None = None, name: str = "mine") -> Plan:
    """Return the plan of a grid over settings and groups; the seed varies slowest, as in a sweep that has grown."""
    flat = flatten(asdict(base or Config()))
    slowest_first = sorted(axes, key=lambda key: key != "seed")
    runs = []
    for number, combination in enumerate(itertools.product(*(axes[key] for key in slowest_first)), start=1):
        values = dict(zip(slowest_first, combination, strict=True))
        overrides = {key: values[key] if key in flat else shown(values[key]) for key in axes}
        changes = {key: values[key] for key in axes if key in flat and flat[key] != values[key]}
        runs.append(PlannedRun(number, overrides, changes))
    command = [f"{key}={','.join(map(shown, values))}" for key, values in axes.items()]
    return Plan(name, list(axes), "data", "source", "commit", base or Config(), runs, command)


def listed(points: Sequence[Values], space: Mapping[str, str] | None = None, base: Config | None = None) -> Plan:
    """Return the plan of these points, of settings alone, which a search has drawn from `space`."""
    base = base or Config()
    flat = base.flat()
    runs = [
        PlannedRun(number, dict(point), {key: value for key, value in point.items() if flat[key] != value})
        for number, point in enumerate(points, start=1)
    ]
    base = replace(base, search=Search("random", len(points), 0)) if space else base
    return Plan("drawn", [*points[0]], "data", "source", "commit", base, runs, [], space=dict(space or {}))


def write_run(
    sweep: Sweep,
    number: int,
    epochs: Sequence[tuple[float, float]],
    state: str = COMPLETED,
    message: str = "",
    ranked: Sequence[float] | None = None,
) -> RunFolder:
    """Write a run with this (accuracy, loss) in each epoch, in float32-exact numbers.

    `ranked` is the accuracy that is ranked in each epoch, where it is another one; empty for a run that has none.
    """
    folder = sweep.run_folder(sweep.plan.runs[number - 1])
    folder.path.mkdir(parents=True)
    with EventWriter(folder.path, purge_step=1) as writer:
        for epoch, (accuracy, loss) in enumerate(epochs, start=1):
            scalars = {VAL_ACCURACY: accuracy, VAL_LOSS: loss}
            if ranked is None or len(ranked):
                scalars[RANKED] = accuracy if ranked is None else ranked[epoch - 1]
            writer.scalars(epoch, scalars)
        writer.commit()
    folder.write_status(Status(state, epoch=len(epochs), epochs=2, val_excerpts=64, message=message))
    return folder


def answer(folder: RunFolder, correct: int, per_recording: int = 2) -> None:
    """Write predictions of which `correct` of 64 are right."""
    names = np.array([f"{number:02d}" for number in range(64)])
    targets = np.zeros(64, dtype=int)
    predicted = (np.arange(64) >= correct).astype(int)
    recordings = np.array([f"{number // per_recording}" for number in range(64)])
    answers = Predictions(np.array(["cel", "flu"]), names, recordings, targets, predicted, 1.0 - predicted)
    predictions.write(folder.predictions, answers)


def simulated(
    axes: Mapping[str, Sequence[Any]] | Plan,
    accuracy: Callable[[Values], float],
    *,
    pace: float = 2.0,
    failed: Mapping[int, str] | None = None,
    training_sd: float = 0.004,
    predicted: bool = True,
    base: Config | None = None,
) -> tuple[Ranking, Analysis | None]:
    """Return a sweep without files: a run for each combination, or of a plan; `accuracy` up to training noise.

    `failed` are runs that ended so, by ID. Runs are right on much the same excerpts, four to a recording.
    """
    rng = np.random.default_rng(0)
    plan = axes if isinstance(axes, Plan) else grid(axes, resolve(base or Config()), "made-up")
    easy = np.repeat(rng.standard_normal(EXCERPTS // 4), 4) + 2 * rng.standard_normal(EXCERPTS)
    runs = list[Run]()
    for planned in plan.runs:
        values = dict(planned.overrides)
        if failed and planned.id in failed:
            state, _, message = failed[planned.id].partition(": ")
            runs.append(Run(planned.id, values, state, message=message, source="source"))
            continue
        config = plan.config_of(planned)
        epochs, last = config.epochs, averaged_epochs(config.schedule, config.epochs)
        reached = float(np.clip(accuracy(values) + training_sd * rng.standard_normal(), 0, 1))
        curve = (np.array(rise(reached, epochs, pace)) + training_sd * rng.standard_normal(epochs)).clip(0, 1)
        ranked = [float(curve[max(0, n - last) : n].mean()) for n in range(1, epochs + 1)]
        correct = _correct(easy + rng.standard_normal(EXCERPTS), ranked[-1])
        curves = {RANKED: ranked, VAL_ACCURACY: curve.tolist(), VAL_LOSS: (2 - 1.5 * curve).tolist()}
        runs.append(
            Run(
                planned.id,
                values,
                epoch=epochs,
                accuracy=ranked[-1],
                loss=curves[VAL_LOSS][-1],
                last_accuracy=float(curve[-1]),
                curves={tag: dict(enumerate(numbers, start=1)) for tag, numbers in curves.items()},
                schedule=config.schedule,
                val_excerpts=EXCERPTS,
                source="source",
                answers=answers(correct, per_recording=4, fold=values.get(FOLD, 0)) if predicted else None,
            )
        )
    finished = [run for run in runs if run.is_finished]
    return ranking_of(plan, runs), analyze(finished, plan.swept, is_grid=not plan.space) if finished else None


def rise(accuracy: float, epochs: int, pace: float) -> list[float]:
    """Return accuracies by epoch, from nothing to `accuracy`; within `pace` epochs two thirds of what is left."""
    share = [1 - math.exp(-epoch / pace) for epoch in range(1, epochs + 1)]
    return [accuracy * part / share[-1] for part in share]


def _correct(ease: Any, accuracy: float) -> Any:
    """Return the share of correct answers to each excerpt, all but one 0 or 1, with this mean."""
    right = np.zeros(EXCERPTS)
    easiest_first = np.argsort(-ease)
    whole = int(accuracy * EXCERPTS)
    right[easiest_first[:whole]] = 1
    right[easiest_first[whole : whole + 1]] = accuracy * EXCERPTS - whole
    return right


def answers(correct: Any, per_recording: int, fold: int = 0) -> Answers:
    """Return these answers to excerpts of recordings with names of their own, others in each fold."""
    names = np.array([f"excerpt {fold}{number:04d}" for number in range(len(correct))])
    recordings = np.array([f"recording {fold}{number // per_recording:04d}" for number in range(len(correct))])
    return Answers(correct, names, recordings)


def ranking_of(plan: Plan, runs: Sequence[Run]) -> Ranking:
    """Return the ranking of these runs, without files."""
    order = [
        replace(run, rank=rank, point_accuracy=mean)
        for rank, (mean, members) in enumerate(by_accuracy([run for run in runs if run.is_finished]), start=1)
        for run in members
    ]
    sweep = Sweep.of(plan)
    return Ranking(sweep, order + [run for run in runs if not run.is_finished], [], SweepState(sweep, [], []))


def renamed(ranking: Ranking, **changes: Any) -> Ranking:
    """Return the ranking of a plan with these changes."""
    return replace(ranking, sweep=Sweep.of(replace(ranking.plan, **changes)))
