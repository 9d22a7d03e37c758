"""Mixtures of recordings that a model was not trained on, as a test part on which a threshold is tuned."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irmas.console import Progress
from irmas.data import dataset
from irmas.data.excerpts import Excerpt
from irmas.data.sound import read_mono
from irmas.errors import DataError
from irmas.evaluation.testset import trained_on, training_data
from irmas.run.model_file import ModelFile
from irmas.standin.corpus import write_labels, write_wav

NUM_MIXTURES = 100
MOST_RECORDINGS = 3
MOST_EXCERPTS = 2
"""Excerpts of a recording, one after the other: several windows, as in a test excerpt."""
LEVELS_DB = (-6.0, 0.0)
PEAK = 0.9
SEED = 0

Recording = list[Excerpt]
"""Excerpts of one recording."""


def make(folder: Path, files: Sequence[ModelFile], progress: Progress) -> None:
    """Write mixtures of two or three recordings of different classes to `folder`: `mixture 001-1.wav` and its txt.

    The same models and data give the same bytes.
    Raises DataError, with the reason, if there are no waveforms, or too few of them that no net was trained on.
    """
    recordings, rate = _recordings(files, progress)
    seconds = files[0].features.seconds
    rng = np.random.default_rng(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    progress.start("mixing", NUM_MIXTURES)
    for number in range(1, NUM_MIXTURES + 1):
        n_classes = int(rng.integers(2, min(MOST_RECORDINGS, len(recordings)) + 1))
        labels = sorted(rng.choice(sorted(recordings), size=n_classes, replace=False).tolist())
        chosen = [recordings[label][int(rng.integers(len(recordings[label])))] for label in labels]
        sound = _mixed([_waveform(recording, seconds) for recording in chosen], rng)
        path = folder / f"mixture {number:03d}-1.wav"
        write_wav(path, np.rint(sound * 32767).astype(np.int16), rate)
        write_labels(path.with_suffix(".txt"), labels)
        progress.advance(1)


def _recordings(files: Sequence[ModelFile], progress: Progress) -> tuple[dict[str, list[Recording]], int]:
    """Return the recordings of each class that no net was trained on, all of the most frequent rate; and it, in Hz.

    They are those of the first net's data. Raises UserError if its sounds are not available, or too few.
    """
    data, features = training_data(files[0]), files[0].features
    if data.cache is not None:
        raise DataError("it was trained on a ready-made feature cache, and its sounds are not known")
    names, recordings = trained_on(files)
    excerpts = [
        excerpt
        for excerpt in dataset.locate(data, features, progress).excerpts or []
        if excerpt.name not in names and excerpt.recording not in recordings and excerpt.label in files[0].classes
    ]
    rates = [_rate(excerpt, features.seconds) for excerpt in excerpts]
    rate = max(Counter(filter(None, rates)).items(), key=itemgetter(1), default=(0, 0))[0]
    by_name: dict[tuple[str, str], Recording] = defaultdict(list)
    for excerpt, other in zip(excerpts, rates, strict=True):
        if other == rate:
            by_name[excerpt.label, excerpt.recording].append(excerpt)
    by_class: dict[str, list[Recording]] = defaultdict(list)
    for (label, _), recording in by_name.items():
        by_class[label].append(recording[:MOST_EXCERPTS])
    if len(by_class) < 2:
        raise DataError(f"{len(excerpts)} excerpts are of recordings that it was not trained on, too few to mix")
    return by_class, rate


def _rate(excerpt: Excerpt, seconds: float) -> int | None:
    """Return the sample rate in Hz; None for a file that is damaged or silent, which the training left out too."""
    try:
        samples, rate = read_mono(excerpt.path)
    except DataError:
        return None
    return rate if samples[: round(seconds * rate)].any() else None


def _waveform(recording: Recording, seconds: float) -> NDArray[np.float32]:
    """Return what the training would use of a recording's excerpts, (samples,), at a root mean square of 1."""
    parts = [read_mono(excerpt.path) for excerpt in recording]
    sound = np.concatenate([samples[: round(seconds * rate)] for samples, rate in parts])
    return sound / np.sqrt(np.mean(sound**2))  # type: ignore[no-any-return]


def _mixed(sounds: Sequence[NDArray[np.float32]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the sum at random levels; shorter sounds are repeated up to the end of the longest."""
    longest = max(map(len, sounds))
    mix = sum(10 ** (rng.uniform(*LEVELS_DB) / 20) * np.resize(sound, longest) for sound in sounds)
    return np.asarray(PEAK * mix / np.abs(mix).max())
