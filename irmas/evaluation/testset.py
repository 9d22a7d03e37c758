"""A test part, a folder of classes or a feature cache -> the labeled excerpts in it that a model was not trained on.

Mixtures of such excerpts are a test part on which a threshold is tuned.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from filecmp import cmp
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irmas.config import Data, shown
from irmas.console import Progress
from irmas.data import cache, dataset
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import AUDIO, IRMAS_NAME, Excerpt, read_test_part, scan
from irmas.data.sound import read_mono
from irmas.errors import DataError
from irmas.labels import CODES
from irmas.run.model_file import ModelFile
from irmas.standin.corpus import write_labels, write_wav

SONG = re.compile(r"(?P<song>.+)-\d+")
"""A test excerpt's name: `02 - And The Body Will Die-8`."""
COMPARED = 8
"""Excerpts of equal names that are compared to find out whether two folders hold the same data."""
NUM_MIXTURES = 100
MOST_RECORDINGS = 3
MOST_EXCERPTS = 2
"""Excerpts of a recording, one after the other: several windows, as in a test excerpt."""
LEVELS_DB = (-6.0, 0.0)
PEAK = 0.9


@dataclass(frozen=True)
class LabeledExcerpt:
    name: str
    labels: list[str]
    group: str
    """Song or recording that it is cut from."""
    path: Path | None = None
    """Sound file; None for a row of a feature cache."""
    row: int = 0


@dataclass(frozen=True)
class EvaluationSet:
    paths: list[Path]
    excerpts: list[LabeledExcerpt]
    source: str
    """The thing that excerpts are cut from: `song` or `recording`."""
    is_multi_label: bool
    problems: list[str] = field(default_factory=list)
    """One line per file that cannot be used, with the reason."""
    trained_on: list[str] = field(default_factory=list)
    """Names of the excerpts that are left out because the model was trained on them."""
    leaking: int = 0
    """Number of the other excerpts whose recordings the model was trained on."""
    features: FeatureCache | None = None
    """Feature cache that the excerpts are rows of, if they are."""

    def __str__(self) -> str:
        return " ".join(map(str, self.paths))


def read(paths: Sequence[Path], files: Sequence[ModelFile]) -> EvaluationSet:
    """Return the excerpts of one or several test parts, of one folder of classes, or of one feature cache.

    Sounds are not read yet. Raises DataError if a path is none of them, or has classes or a front end that the models
    do not have.
    """
    sets = [_read(path, files) for path in paths]
    if len(sets) == 1:
        return sets[0]
    if other := next((str(data) for data in sets if not data.is_multi_label), None):
        raise DataError(f"{other}: is no test part, and only test parts are evaluated together")
    excerpts = [replace(item, name=f"{part.paths[0].name}/{item.name}") for part in sets for item in part.excerpts]
    problems = [problem for part in sets for problem in part.problems]
    return replace(sets[0], paths=list(paths), excerpts=excerpts, problems=problems)


def _read(path: Path, files: Sequence[ModelFile]) -> EvaluationSet:
    """Return the excerpts of one path, whose kind follows from what it holds."""
    classes = files[0].classes
    if not path.is_dir():
        raise DataError(f"{path}: {'is no folder' if path.exists() else 'there is no such folder'}")
    if (path / cache.SETTINGS).exists():
        data = _cache(path, files)
    elif _is_sorted_by_class(path):
        data = _classes(path, files)
    else:
        return _part(path, classes)
    if unknown := sorted({label for excerpt in data.excerpts for label in excerpt.labels} - {*classes}):
        raise DataError(f"{path}: has unknown classes {' '.join(unknown)}; the model has {' '.join(classes)}")
    return _without_trained_on(data, [file for file in files if _is_training_data(data, file)])


def _is_sorted_by_class(path: Path) -> bool:
    """Return whether labels are the names of subfolders, as there are no txt files beside the wavs."""
    if any(wav.with_suffix(".txt").exists() for wav in path.rglob("*.wav")):
        return False
    return any(file.suffix.lower() in AUDIO for file in path.glob("*/*"))


def _part(path: Path, classes: Sequence[str]) -> EvaluationSet:
    labeled, problems = read_test_part(path, classes)
    if not labeled:
        raise DataError(
            f"{path}: holds no excerpt with labels ({problems[0]}); give a folder of wavs with one txt each, "
            "a folder with one subfolder of sounds per class, or a feature cache"
        )
    excerpts = []
    for wav, labels in ((item.path, item.labels) for item in labeled):
        song = SONG.fullmatch(wav.stem)
        name = wav.relative_to(path).with_suffix("").as_posix()
        excerpts.append(LabeledExcerpt(name, labels, song["song"] if song else wav.stem, wav))
    return EvaluationSet([path], excerpts, "song", True, problems)


def _classes(path: Path, files: Sequence[ModelFile]) -> EvaluationSet:
    sounds = [file for file in path.glob("*/[!.]*") if file.suffix.lower() in AUDIO]
    is_irmas = all(file.parent.name in CODES and IRMAS_NAME.fullmatch(file.stem) for file in sounds)
    # The list of recordings that a training on this very folder had.
    trainings = [data for data in map(training_data, files) if Path(data.root) == path.absolute()]
    recordings = next((data.recordings for data in trainings if data.recordings), None)
    try:
        scanned = scan(Data(source="irmas" if is_irmas else "folder", recordings=recordings), path)
    except DataError as error:
        raise DataError(str(error).removeprefix("data.root=")) from None
    excerpts = [LabeledExcerpt(item.name, [item.label], item.recording, item.path) for item in scanned]
    return EvaluationSet([path], excerpts, "recording", False)


def _cache(path: Path, files: Sequence[ModelFile]) -> EvaluationSet:
    opened = cache.open_cache(path)
    for features in (file.features for file in files):
        cached = cache.front_end(path, features)
        skipped = {"dtype"}  # features are decoded to dB in any case
        if None in (cached.resampling, features.resampling):  # a ready-made cache does not record it
            skipped.add("resampling")
        for key, value in asdict(cached).items():
            if key not in skipped and value != getattr(features, key):
                needed = f"{key}={shown(getattr(features, key))}"
                raise DataError(
                    f"{path}: was computed with {key}={shown(value)}, the model needs {needed}; give the sounds "
                    "themselves, or a cache of its front end"
                )
    rows = enumerate(zip(opened.names, opened.labels, opened.recordings, strict=True))
    excerpts = [LabeledExcerpt(name, [label], recording, row=row) for row, (name, label, recording) in rows]
    return EvaluationSet([path], excerpts, "recording", False, features=opened)


def _without_trained_on(data: EvaluationSet, files: Sequence[ModelFile]) -> EvaluationSet:
    """Leave out the excerpts that a model was trained on. Raises DataError if none remains."""
    names, recordings = trained_on(files)
    kept = [excerpt for excerpt in data.excerpts if excerpt.name not in names]
    left_out = [excerpt.name for excerpt in data.excerpts if excerpt.name in names]
    if not kept:
        raise DataError(f"{data}: the model was trained on all of its {len(left_out)} excerpts")
    leaking = sum(excerpt.group in recordings for excerpt in kept)
    return replace(data, excerpts=kept, trained_on=left_out, leaking=leaking)


def trained_on(files: Sequence[ModelFile]) -> tuple[set[str], set[str]]:
    """Return the names of all excerpts that any of the nets was trained on, and of their recordings."""
    names = {name for file in files for name in file.trained_on}
    # Of recordings that share an identical excerpt the files name the first; IRMAS's names hold their own.
    recordings = {match["recording"] for name in names if (match := IRMAS_NAME.fullmatch(name))}
    return names, recordings | {recording for file in files for recording in file.recordings}


def training_data(file: ModelFile) -> Data:
    """Return the data settings of a net's training, without settings that this version does not know."""
    names = [entry.name for entry in fields(Data) if f"data.{entry.name}" in file.config]
    return Data(**{name: file.config[f"data.{name}"] for name in names})


def _is_training_data(data: EvaluationSet, file: ModelFile) -> bool:
    """Return whether excerpts are those that have their names in the net's data; yes if its sounds are missing."""
    training = training_data(file)
    try:
        sounds = {excerpt.name: excerpt.path for excerpt in scan(training, dataset.corpus_folder(training))}
    except DataError:
        return True
    alike = [(item.path, sounds[item.name]) for item in data.excerpts if item.path and item.name in sounds]
    # A stand-in is rendered as a whole: there are no others of its recordings.
    if not alike and training.source == "standin" and data.features is None:
        return False
    return all(cmp(path, other, shallow=False) for path, other in alike[:COMPARED])


def write_mixtures(folder: Path, files: Sequence[ModelFile], progress: Progress) -> None:
    """Write mixtures of two or three recordings of different classes to `folder`: `mixture 001-1.wav` and its txt.

    The same models and data give the same bytes.
    Raises DataError, with the reason, if there are no waveforms, or too few of them that no net was trained on.
    """
    recordings, rate = _recordings(files, progress)
    seconds = files[0].features.seconds
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    progress.start("mixing", NUM_MIXTURES)
    for number in range(1, NUM_MIXTURES + 1):
        n_classes = int(rng.integers(2, min(MOST_RECORDINGS, len(recordings)) + 1))
        labels = sorted(rng.choice(sorted(recordings), size=n_classes, replace=False).tolist())
        chosen = [recordings[label][int(rng.integers(len(recordings[label])))] for label in labels]
        sounds = [_waveform(recording, seconds) for recording in chosen]
        longest = max(map(len, sounds))  # shorter sounds are repeated up to its end
        mix = np.asarray(sum(10 ** (rng.uniform(*LEVELS_DB) / 20) * np.resize(sound, longest) for sound in sounds))
        path = folder / f"mixture {number:03d}-1.wav"
        write_wav(path, np.rint(PEAK * mix / np.abs(mix).max() * 32767).astype(np.int16), rate)
        write_labels(path.with_suffix(".txt"), labels)
        progress.advance(1)


def _recordings(files: Sequence[ModelFile], progress: Progress) -> tuple[dict[str, list[list[Excerpt]]], int]:
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
    by_name: dict[tuple[str, str], list[Excerpt]] = defaultdict(list)
    for excerpt, other in zip(excerpts, rates, strict=True):
        if other == rate:
            by_name[excerpt.label, excerpt.recording].append(excerpt)
    by_class: dict[str, list[list[Excerpt]]] = defaultdict(list)
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


def _waveform(recording: list[Excerpt], seconds: float) -> NDArray[np.float32]:
    """Return what the training would use of a recording's excerpts, (samples,), at a root mean square of 1."""
    parts = [read_mono(excerpt.path) for excerpt in recording]
    sound = np.concatenate([samples[: round(seconds * rate)] for samples, rate in parts])
    return sound / np.sqrt(np.mean(sound**2))  # type: ignore[no-any-return]
