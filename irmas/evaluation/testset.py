"""What a model is tested on: a test part, a folder of classes or a feature cache -> excerpts it was not trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from filecmp import cmp
from pathlib import Path

from irmas.config import Data, Features, shown
from irmas.data import cache, dataset, testparts
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import AUDIO, IRMAS_NAME, Excerpt, scan
from irmas.errors import DataError
from irmas.inference.recognizer import Net
from irmas.labels import CODES
from irmas.run.model_file import ModelFile

SONG = re.compile(r"(?P<song>.+)-\d+")
"""A test excerpt's name: `02 - And The Body Will Die-8`."""
COMPARED = 8
"""Excerpts of one name that tell whether two folders hold the same data: `cel/001` may be any sound."""


@dataclass(frozen=True)
class LabelledExcerpt:
    name: str
    labels: list[str]
    group: str
    """Its song or recording."""
    path: Path | None = None
    """None for a row of a feature cache."""
    row: int = 0


@dataclass(frozen=True)
class EvaluationSet:
    paths: list[Path]
    excerpts: list[LabelledExcerpt]
    source: str
    """What excerpts are cut from: `song` or `recording`."""
    is_multi_label: bool
    problems: list[str] = field(default_factory=list)
    """A line a file that cannot be used, with the reason."""
    trained_on: list[str] = field(default_factory=list)
    """Names that are left out, since the model was trained on them."""
    leaking: int = 0
    """Excerpts that are not left out, though the model was trained on others of their recordings."""
    features: FeatureCache | None = None
    """Of a feature cache."""

    def __str__(self) -> str:
        return " ".join(map(str, self.paths))


def read(
    paths: Sequence[Path], classes: Sequence[str], nets: Sequence[Net], files: Sequence[ModelFile]
) -> EvaluationSet:
    """Test parts, which are taken together, or one folder of classes or feature cache. Nothing is heard yet.

    Raises DataError where it is none of them, has classes that the nets do not know, or a front end other than theirs.
    """
    found = [_read(path, classes, nets, files) for path in paths]
    single = next((str(other) for other in found if not other.is_multi_label), None)
    if len(found) == 1:
        return found[0]
    if single is not None:
        raise DataError(f"{single}: is no test part, and only test parts are taken together")
    excerpts = [
        replace(excerpt, name=f"{part.paths[0].name}/{excerpt.name}") for part in found for excerpt in part.excerpts
    ]
    return replace(
        found[0], paths=list(paths), excerpts=excerpts, problems=[p for part in found for p in part.problems]
    )


def _read(path: Path, classes: Sequence[str], nets: Sequence[Net], files: Sequence[ModelFile]) -> EvaluationSet:
    """What lies there tells what it is."""
    if not path.is_dir():
        raise DataError(f"{path}: {'is no folder' if path.exists() else 'there is no such folder'}")
    if (path / cache.SETTINGS).exists():
        found = _cache(path, nets)
    elif _is_sorted_by_class(path):
        found = _classes(path, files)
    else:
        return _part(path, classes)
    unknown = sorted({label for excerpt in found.excerpts for label in excerpt.labels} - set(classes))
    if unknown:
        raise DataError(
            f"{path}: has the classes {' '.join(unknown)}, which the model does not know; it knows {' '.join(classes)}"
        )
    return _without_trained_on(found, [file for file in files if _is_of(found, file)])


def _is_sorted_by_class(path: Path) -> bool:
    """Labels are told by txt files beside the wavs, or else by subfolders."""
    if any(wav.with_suffix(".txt").exists() for wav in path.rglob("*.wav")):
        return False
    return any(file.suffix.lower() in AUDIO for file in path.glob("*/*"))


def _part(path: Path, classes: Sequence[str]) -> EvaluationSet:
    part = testparts.read(path, classes)
    if not part.excerpts:
        raise DataError(
            f"{path}: holds no excerpt with labels ({part.problems[0]}); what is tested on is a folder of wavs with a "
            "txt each, a folder with a subfolder of sounds a class, or a feature cache"
        )
    excerpts = []
    for labelled in part.excerpts:
        song = SONG.fullmatch(labelled.path.stem)
        name = labelled.path.relative_to(path).with_suffix("").as_posix()
        excerpts.append(
            LabelledExcerpt(name, labelled.labels, song["song"] if song else labelled.path.stem, labelled.path)
        )
    return EvaluationSet([path], excerpts, "song", True, part.problems)


def _classes(path: Path, files: Sequence[ModelFile]) -> EvaluationSet:
    found = [file for file in path.glob("*/*") if file.suffix.lower() in AUDIO]
    named_so = all(file.parent.name in CODES and IRMAS_NAME.fullmatch(file.stem) for file in found)
    try:
        scanned = scan(Data(source="irmas" if named_so else "folder", recordings=_recordings(path, files)), path)
    except DataError as error:
        raise DataError(str(error).removeprefix("data.root=")) from None
    return EvaluationSet([path], [_excerpt(excerpt) for excerpt in scanned], "recording", False)


def _excerpt(excerpt: Excerpt) -> LabelledExcerpt:
    return LabelledExcerpt(excerpt.name, [excerpt.label], excerpt.recording, excerpt.path)


def _recordings(path: Path, files: Sequence[ModelFile]) -> str | None:
    """The list that a training on this very folder had."""
    for file in files:
        data = data_of(file)
        if data.recordings and Path(data.root) == path.absolute():
            return data.recordings
    return None


def _cache(path: Path, nets: Sequence[Net]) -> EvaluationSet:
    opened = cache.open_cache(path)
    for net in nets:
        _refuse_other_front_end(path, net.features)
    rows = enumerate(zip(opened.names, opened.labels, opened.recordings, strict=True))
    excerpts = [LabelledExcerpt(name, [label], recording, row=row) for row, (name, label, recording) in rows]
    return EvaluationSet([path], excerpts, "recording", False, features=opened)


def _refuse_other_front_end(path: Path, features: Features) -> None:
    told = cache.front_end(path, features)
    if None in (told.resampling, features.resampling):  # a ready-made cache does not say
        told = replace(told, resampling=features.resampling)
    told = replace(told, dtype=features.dtype)  # decibels either way
    for key, value in asdict(told).items():
        if value != getattr(features, key):
            raise DataError(
                f"{path}: was computed with {key}={shown(value)}, the model hears with "
                f"{key}={shown(getattr(features, key))}; give the sounds themselves, or a cache of its front end"
            )


def _without_trained_on(found: EvaluationSet, files: Sequence[ModelFile]) -> EvaluationSet:
    """Raises DataError where nothing is left."""
    names, recordings = seen(files)
    kept = [excerpt for excerpt in found.excerpts if excerpt.name not in names]
    left_out = [excerpt.name for excerpt in found.excerpts if excerpt.name in names]
    if not kept:
        raise DataError(f"{found}: the model was trained on all of its {len(left_out)} excerpts")
    leaking = sum(excerpt.group in recordings for excerpt in kept)
    return replace(found, excerpts=kept, trained_on=left_out, leaking=leaking)


def seen(files: Sequence[ModelFile]) -> tuple[set[str], set[str]]:
    """Names of all excerpts that any of the nets was trained on, and of all recordings that they are from."""
    names = {name for file in files for name in file.trained_on}
    # Of recordings that share an identical excerpt the files name the first; excerpts of IRMAS tell theirs.
    told = {match["recording"] for name in names if (match := IRMAS_NAME.fullmatch(name))}
    return names, told | {recording for file in files for recording in file.recordings}


def data_of(file: ModelFile) -> Data:
    """What it was trained on; settings that this version does not know are left out."""
    told = {entry.name: f"data.{entry.name}" for entry in fields(Data)}
    return Data(**{name: file.config[key] for name, key in told.items() if key in file.config})


def _is_of(found: EvaluationSet, file: ModelFile) -> bool:
    """Whether excerpts are those that the net's data calls so; where its sounds are not at hand, names must do."""
    data = data_of(file)
    try:
        there = {excerpt.name: excerpt.path for excerpt in scan(data, dataset.corpus_folder(data))}
    except DataError:
        return True
    alike = [
        (path, there[excerpt.name]) for excerpt in found.excerpts if (path := excerpt.path) and excerpt.name in there
    ]
    if not alike and data.source == "standin":  # it is rendered as a whole: there are no others of its recordings
        return False
    return all(cmp(here, trained, shallow=False) for here, trained in alike[:COMPARED])
