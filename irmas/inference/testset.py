"""What a model is tested on: a test part, a folder of classes or a feature cache -> excerpts it was not trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from irmas.config import Data, Features, from_flat, shown
from irmas.data import cache, dataset, testparts
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import AUDIO, IRMAS_NAME, Excerpt, scan
from irmas.errors import DataError
from irmas.inference.recognizer import Net
from irmas.labels import CODES
from irmas.run.model_file import ModelFile

SONG = re.compile(r"(?P<song>.+)-\d+")
"""A test excerpt's name: `02 - And The Body Will Die-8`."""
STANDIN = re.compile(r"v\d+-\d+-seed\d+")
"""A rendered corpus's folder: its names are those of other corpora, its sounds are not."""


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
    path: Path
    excerpts: list[LabelledExcerpt]
    groups: str
    """`songs` or `recordings`."""
    is_multi_label: bool
    problems: list[str] = field(default_factory=list)
    """A line a file that cannot be used, with the reason."""
    trained_on: list[str] = field(default_factory=list)
    """Names that are left out, since the model was trained on them."""
    leaking: int = 0
    """Excerpts that are not left out, though the model was trained on others of their recordings."""
    features: FeatureCache | None = None
    """Of a feature cache."""


def read(path: Path, classes: Sequence[str], nets: Sequence[Net], files: Sequence[ModelFile]) -> EvaluationSet:
    """Test part, folder of classes or feature cache: what lies there tells. Nothing is heard yet.

    Raises DataError where it is none of them, has classes that the nets do not know, or a front end other than theirs.
    """
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
    return _without_trained_on(found, files)


def _is_sorted_by_class(path: Path) -> bool:
    """Labels are told by txt files beside the wavs, or else by subfolders."""
    if any(wav.with_suffix(".txt").exists() for wav in path.rglob("*.wav")):
        return False
    return any(file.suffix.lower() in AUDIO for file in path.glob("*/*"))


def _part(path: Path, classes: Sequence[str]) -> EvaluationSet:
    part = testparts.read(path, classes)
    excerpts = []
    for labelled in part.excerpts:
        song = SONG.fullmatch(labelled.path.stem)
        name = labelled.path.relative_to(path).with_suffix("").as_posix()
        excerpts.append(
            LabelledExcerpt(name, labelled.labels, song["song"] if song else labelled.path.stem, labelled.path)
        )
    return EvaluationSet(path, excerpts, "songs", True, part.problems)


def _classes(path: Path, files: Sequence[ModelFile]) -> EvaluationSet:
    found = [file for file in path.glob("*/*") if file.suffix.lower() in AUDIO]
    named_so = all(file.parent.name in CODES and IRMAS_NAME.fullmatch(file.stem) for file in found)
    try:
        scanned = scan(Data(source="irmas" if named_so else "folder", recordings=_recordings(path, files)), path)
    except DataError as error:
        raise DataError(str(error).removeprefix("data.root=")) from None
    return EvaluationSet(path, [_excerpt(excerpt) for excerpt in scanned], "recordings", False)


def _excerpt(excerpt: Excerpt) -> LabelledExcerpt:
    return LabelledExcerpt(excerpt.name, [excerpt.label], excerpt.recording, excerpt.path)


def _recordings(path: Path, files: Sequence[ModelFile]) -> str | None:
    """The list that a training on this very folder had."""
    for file in files:
        data = from_flat(file.config).data
        if data.recordings and Path(data.root) == path.absolute():
            return data.recordings
    return None


def _cache(path: Path, nets: Sequence[Net]) -> EvaluationSet:
    opened = cache.open_cache(path)
    for net in nets:
        _refuse_other_front_end(path, net.features)
    rows = enumerate(zip(opened.names, opened.labels, opened.recordings, strict=True))
    excerpts = [LabelledExcerpt(name, [label], recording, row=row) for row, (name, label, recording) in rows]
    return EvaluationSet(path, excerpts, "recordings", False, features=opened)


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
    files = [file for file in files if not _is_other_corpus(found.path, file)]
    names, recordings = seen(files)
    kept = [excerpt for excerpt in found.excerpts if excerpt.name not in names]
    left_out = [excerpt.name for excerpt in found.excerpts if excerpt.name in names]
    if not kept:
        raise DataError(f"{found.path}: the model was trained on all of its {len(left_out)} excerpts")
    leaking = sum(excerpt.group in recordings for excerpt in kept)
    return replace(found, excerpts=kept, trained_on=left_out, leaking=leaking)


def seen(files: Sequence[ModelFile]) -> tuple[set[str], set[str]]:
    """Names of all excerpts that any of the nets was trained on, and of all recordings that they are from."""
    names = {name for file in files for name in file.trained_on}
    # Of recordings that share an identical excerpt the files name the first; excerpts of IRMAS tell theirs.
    told = {match["recording"] for name in names if (match := IRMAS_NAME.fullmatch(name))}
    return names, told | {recording for file in files for recording in file.recordings}


def _is_other_corpus(path: Path, file: ModelFile) -> bool:
    data = from_flat(file.config).data
    corpus = dataset.corpus(data).name if data.source == "standin" else ""
    return bool(STANDIN.fullmatch(path.absolute().name)) and path.absolute().name != corpus
