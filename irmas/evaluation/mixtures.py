"""Mixtures of sounds that a model was not trained on, as a test part: what a threshold is chosen on."""

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
from irmas.data.sound import read_form, read_mono
from irmas.errors import DataError
from irmas.evaluation.testset import data_of, seen
from irmas.run.model_file import ModelFile
from irmas.standin.corpus import write_labels, write_wav

MIXTURES = 100
MOST_TOGETHER = 3
MOST_EXCERPTS = 2
"""Of a recording, one after the other: several windows, as in a test excerpt."""
LEVELS_DB = (-6.0, 0.0)
PEAK = 0.9
SEED = 0

Voice = list[Excerpt]
"""Excerpts of one recording."""


def make(folder: Path, files: Sequence[ModelFile], progress: Progress) -> None:
    """Write MIXTURES of two or three recordings of different classes to `folder`: `mixture 001-1.wav` and its txt.

    The same models and data give the same bytes.
    Raises DataError, saying why, where there are no waveforms, or too few of them that no net was trained on.
    """
    voices, rate = _voices(files, progress)
    seconds = files[0].features.seconds
    rng = np.random.default_rng(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    progress.start("mixing", MIXTURES)
    for number in range(1, MIXTURES + 1):
        together = int(rng.integers(2, min(MOST_TOGETHER, len(voices)) + 1))
        labels = sorted(rng.choice(sorted(voices), size=together, replace=False).tolist())
        chosen = [voices[label][int(rng.integers(len(voices[label])))] for label in labels]
        sound = _mixed([_voice(excerpts, seconds) for excerpts in chosen], rng)
        path = folder / f"mixture {number:03d}-1.wav"
        write_wav(path, np.rint(sound * 32767).astype(np.int16), rate)
        write_labels(path.with_suffix(".txt"), labels)
        progress.advance(1)


def _voices(files: Sequence[ModelFile], progress: Progress) -> tuple[dict[str, list[Voice]], int]:
    """By class, recordings that no net was trained on; all of the rate, in Hz, that most of them have."""
    excerpts, seconds = _unseen(files, progress), files[0].features.seconds
    rates = {excerpt.name: _rate(excerpt) for excerpt in excerpts}
    rate = max(Counter(filter(None, rates.values())).items(), key=itemgetter(1), default=(0, 0))[0]
    by_recording: dict[tuple[str, str], Voice] = defaultdict(list)
    for excerpt in excerpts:
        voice = by_recording[excerpt.label, excerpt.recording]
        if len(voice) < MOST_EXCERPTS and rates[excerpt.name] == rate and _sounds(excerpt, seconds):
            voice.append(excerpt)
    voices: dict[str, list[Voice]] = defaultdict(list)
    for (label, _), voice in by_recording.items():
        if voice:
            voices[label].append(voice)
    if len(voices) < 2:
        raise DataError(f"{len(excerpts)} excerpts are of recordings that it was not trained on, too few to mix")
    return voices, rate


def _unseen(files: Sequence[ModelFile], progress: Progress) -> list[Excerpt]:
    """Of the first net's data. Raises UserError where its sounds are not to be had."""
    data = data_of(files[0])
    if data.cache is not None:
        raise DataError("it was trained on a ready-made feature cache, and its sounds are not known")
    names, recordings = seen(files)
    return [
        excerpt
        for excerpt in dataset.locate(data, files[0].features, progress).excerpts or []
        if excerpt.name not in names and excerpt.recording not in recordings and excerpt.label in files[0].classes
    ]


def _rate(excerpt: Excerpt) -> int | None:
    """In Hz."""
    try:
        return read_form(excerpt.path).rate
    except DataError:  # the training left it out too
        return None


def _sounds(excerpt: Excerpt, seconds: float) -> bool:
    try:
        return bool(_heard(excerpt, seconds).any())
    except DataError:  # the training left it out too
        return False


def _heard(excerpt: Excerpt, seconds: float) -> NDArray[np.float32]:
    """As much of it as the training hears."""
    samples, rate = read_mono(excerpt.path)
    return samples[: round(seconds * rate)]


def _voice(excerpts: Voice, seconds: float) -> NDArray[np.float32]:
    """At a root mean square of 1."""
    sound = np.concatenate([_heard(excerpt, seconds) for excerpt in excerpts])
    return sound / np.sqrt(np.mean(sound**2))  # type: ignore[no-any-return]


def _mixed(sounds: Sequence[NDArray[np.float32]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Shorter ones are repeated up to the end of the longest."""
    longest = max(map(len, sounds))
    mix = sum(10 ** (rng.uniform(*LEVELS_DB) / 20) * np.resize(sound, longest) for sound in sounds)
    return np.asarray(PEAK * mix / np.abs(mix).max())
