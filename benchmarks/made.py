"""Made-up sweeps on disk: one that is to be trained on noise, and finished ones of any size."""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from factories import run_folder, write_plan

from irmas.config import Config, Data, Features
from irmas.console import SILENT
from irmas.run import events, predictions
from irmas.run.events import EventWriter
from irmas.run.folder import COMPLETED, PROVENANCE, Status
from irmas.run.lease import Writer
from irmas.run.predictions import Predictions
from irmas.sweep.plan import Plan, PlannedRun, expand
from irmas.sweep.sweep import Sweep

EXCERPTS = 265
"""That validate: as many as in `make demo`."""
AXES = {18: (3, 3, 2), 180: (6, 6, 5), 1_800: (12, 15, 10), 18_000: (30, 30, 20)}
"""Numbers of values of dropout, lr and l2, by the number of points."""
TAGS = (
    events.TRAIN_LOSS,
    events.TRAIN_ACCURACY,
    events.VAL_LOSS,
    events.VAL_ACCURACY,
    events.VAL_MACRO_F1,
    events.RANKED,
    events.LR,
    events.EPOCH_S,
    events.EXCERPTS_PER_S,
)


def axes(points: int) -> dict[str, list[float]]:
    """A grid of so many points around the report's."""
    dropout, lr, l2 = AXES[points]
    return {
        "dropout": [round(0.2 + 0.4 * step / dropout, 4) for step in range(dropout)],
        "lr": [round(0.0001 + 0.001 * step / lr, 7) for step in range(lr)],
        "l2": [round(0.0001 + 0.001 * step / l2, 7) for step in range(l2)],
    }


def plan(config: Config, points: list[PlannedRun], name: str) -> Plan:
    """Raises DataError as `freeze` does."""
    from irmas.sweep.plan import freeze

    return freeze(config, points, name)


def ready_cache(folder: Path, excerpts: int, bands: int, frames: int) -> Path:
    """A feature cache of noise: eleven classes, three excerpts a recording."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "features.npy", rng.integers(256, size=(excerpts, bands, frames), dtype=np.uint8))
    lines = [
        f"excerpt{number:06d},class{number % 33 // 3:02d},recording{number // 3:06d}" for number in range(excerpts)
    ]
    (folder / "clips.csv").write_text("\n".join(["name,label,recording", *lines]) + "\n")
    features = Features(n_mels=bands)
    settings = {"sample_rate": features.sample_rate, "n_fft": features.n_fft, "hop_length": features.hop_length}
    settings |= {"n_mels": bands, "dtype": "uint8", "scale": features.scale, "offset": features.offset}  # type: ignore[dict-item]
    (folder / "features.json").write_text(json.dumps(settings | {"n_frames": frames}))
    return folder


def planned(
    folder: Path, *, excerpts: int, bands: int, frames: int, epochs: int, runs: int = 1, device: str = "cpu"
) -> Path:
    """A planned sweep over seeds, on noise, its split dealt, as an array task finds it; its folder."""
    from irmas.data import dataset
    from irmas.sweep import data_job

    cache = ready_cache(folder / "cache", excerpts, bands, frames)
    config = dataset.resolve(Config(epochs=epochs, device=device, data=Data(cache=str(cache))))
    sweep = folder / "outputs" / "noise"
    made = plan(
        config, [PlannedRun(1 + seed, {"seed": seed}, {"seed": seed} if seed else {}) for seed in range(runs)], "noise"
    )
    data_job.make(Sweep(sweep, made), SILENT)
    write_plan(sweep, made)
    return sweep


def finished(folder: Path, points: int, epochs: int = 15) -> Path:
    """A sweep whose runs are all COMPLETED, with event files and predictions; its folder."""
    overrides = [
        {key: str(value) for key, value in zip(axes(points), values, strict=True)}
        for values in itertools.product(*axes(points).values())
    ]
    config = Config(epochs=epochs, device="cpu", data=Data("standin", size=1320, render_seed=0))
    made = plan(
        config, expand(config, overrides, lambda given: {key: float(text) for key, text in given.items()}), "made"
    )
    sweep = folder / "outputs" / "made"
    write_plan(sweep, made)
    rng = np.random.default_rng(0)
    easy = rng.standard_normal(EXCERPTS)
    sync, os.fsync = os.fsync, lambda fd: None  # what a crash would leave of it matters to nobody
    try:
        for point in made.runs:
            _finish(sweep, made, point, rng, easy)
    finally:
        os.fsync = sync
    return sweep


def _finish(sweep: Path, made: Plan, point: PlannedRun, rng: np.random.Generator, easy: np.ndarray) -> None:
    folder = run_folder(sweep, point)
    folder.path.mkdir(parents=True)
    correct = easy + rng.standard_normal(EXCERPTS) < rng.normal(0, 0.2)
    targets = np.arange(EXCERPTS) % 11
    names = np.array([f"excerpt{number:04d}" for number in range(EXCERPTS)])
    recordings = np.array([f"recording{number // 3:04d}" for number in range(EXCERPTS)])
    classes = np.array([f"class{number:02d}" for number in range(11)])
    predicted = np.where(correct, targets, (targets + 1) % 11)
    answers = Predictions(classes, names, recordings, targets, predicted, correct.astype(np.float64))
    predictions.write(folder.predictions, answers)
    epochs, accuracy = made.config.epochs, float(correct.mean())
    metrics = dict.fromkeys(TAGS, 1.0) | {events.VAL_LOSS: 2 - accuracy}
    metrics |= dict.fromkeys((events.RANKED, events.VAL_ACCURACY), accuracy)
    with EventWriter(folder.path, purge_step=1) as writer:
        for epoch in range(1, epochs + 1):
            risen = accuracy * (1 - 0.5**epoch) / (1 - 0.5**epochs)
            writer.scalars(epoch, metrics | dict.fromkeys((events.RANKED, events.VAL_ACCURACY), risen))
        writer.commit()
    (folder.path / PROVENANCE).write_text(json.dumps({"source": made.source}))
    done = Status(COMPLETED, epochs, epochs, metrics=metrics, val_excerpts=EXCERPTS, writer=Writer("node"))
    folder.amend_status(replace(done, started=time.time()))
