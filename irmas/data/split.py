"""The excerpts that train and validate: five folds, stratified by class, by recording, by clip, or from a list."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irmas.config import Data
from irmas.console import counted
from irmas.data.cache import FeatureCache
from irmas.data.dataset import corpus_folder
from irmas.data.excerpts import NameList
from irmas.errors import DataError
from irmas.files import read_csv, write_csv

FOLDS = 5
TRAIN, VALIDATION = "train", "validation"
COLUMNS = ("name", "label", "recording", "group", "fold")


@dataclass(frozen=True)
class Duplicates:
    """Identical excerpts in a feature cache."""

    groups: list[str]
    """One group per excerpt, named after the first of the recordings that share excerpts."""
    joined_recordings: list[tuple[str, ...]]
    """Recordings joined by identical excerpts, one tuple per group."""
    conflicting: NDArray[np.intp]
    """Rows that have an identical twin with another label."""


def find_duplicates(cache: FeatureCache) -> Duplicates:
    """Return which rows are identical; the sound files are not needed."""
    rows_of = defaultdict(list)
    for row, log_mel in enumerate(cache.features):
        rows_of[hashlib.blake2b(log_mel.tobytes(), digest_size=16).digest()].append(row)
    group_of = {recording: {recording} for recording in cache.recordings}
    conflicting: list[int] = []
    for rows in rows_of.values():
        together = set[str]().union(*(group_of[cache.recordings[row]] for row in rows))
        group_of.update(dict.fromkeys(together, together))
        if len({cache.labels[row] for row in rows}) > 1:
            conflicting += rows
    groups = [min(group_of[recording]) for recording in cache.recordings]
    joined = sorted({tuple(sorted(group)) for group in group_of.values() if len(group) > 1})
    return Duplicates(groups, joined, np.array(sorted(conflicting), dtype=np.intp))


@dataclass(frozen=True)
class Split:
    """Rows of the cache."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    leaking: float
    """Share of validation excerpts that have a sibling, from the same recordings, in training."""
    groups: list[str]
    """One group per row of the cache, as in `Duplicates`."""


def load_or_make(data: Data, cache: FeatureCache, folder: Path) -> Split:
    """Return the split of these settings, written to `folder` as a csv with one line per excerpt.

    It depends on the data and its own seed alone: processes that make it at once write the same bytes.
    Raise DataError if the excerpts are too few for five folds, or a csv's names do not fit.
    """
    path = folder / f"{_file_name(data)}.csv"
    if path.exists():
        rows = _read(path)
        if [row["name"] for row in rows] != cache.names:
            raise DataError(f"{path}: was made from other data; remove it or set another name=...")
        folds = np.array([int(row["fold"]) if row["fold"] else -1 for row in rows])
        groups = [row["group"] for row in rows]
    else:
        duplicates = find_duplicates(cache)
        groups = duplicates.groups
        folds = assign_folds(data, cache, duplicates)
        folder.mkdir(parents=True, exist_ok=True)
        cells = ("" if fold < 0 else fold for fold in folds)
        write_csv(path, COLUMNS, zip(cache.names, cache.labels, cache.recordings, groups, cells, strict=True))
    train = np.flatnonzero((folds >= 0) & ((folds != data.fold) | (data.split == "all")))
    validation = np.flatnonzero(folds == data.fold)
    train_groups = {groups[row] for row in train}
    leaking = float(np.mean([groups[row] in train_groups for row in validation]))
    return Split(train, validation, leaking, groups)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        rows = read_csv(path, COLUMNS)
        if wrong := {row["fold"] for row in rows} - {"", *map(str, range(FOLDS))}:
            raise DataError(f"{path}: has the fold {min(wrong)!r}")
    except DataError as error:
        raise DataError(f"{error}; remove it, and rerun the command to make it again") from None
    return rows


def _file_name(data: Data) -> str:
    if data.split.endswith(".csv"):  # two lists may have the same name in different folders
        kind = f"list-{Path(data.split).stem}-{hashlib.sha256(data.split.encode()).hexdigest()[:6]}"
    else:
        kind = f"{data.split}-seed{data.seed}"
    dropped = [name for name in ("conflicts", "damaged") if getattr(data, name) == "drop"]
    return "-".join([f"{data.source}-{kind}", *(f"without-{name}" for name in dropped)])


def assign_folds(data: Data, cache: FeatureCache, duplicates: Duplicates) -> NDArray[np.int64]:
    """Return each excerpt's fold; -1 for those left out. Raise DataError as `load_or_make` does."""
    folds = np.full(len(cache.names), -1)
    kept = np.arange(len(cache.names))
    if data.conflicts == "drop":
        kept = np.setdiff1d(kept, duplicates.conflicting)
    if data.split.endswith(".csv"):
        folds[kept] = _from_list(Path(data.split), [_class_and_stem(cache, int(row)) for row in kept])
        return folds
    labels = [cache.labels[row] for row in kept]
    groups = None if data.split == "clip" else [duplicates.groups[row] for row in kept]
    _refuse_few(data, cache, Counter(labels), groups)
    # Here: it takes a second to import, and most tasks find the split already made.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = (StratifiedGroupKFold if groups else StratifiedKFold)(FOLDS, shuffle=True, random_state=data.seed)
    for fold, (_, rows) in enumerate(splitter.split(kept, labels, groups)):
        folds[kept[rows]] = fold
    return folds


def _refuse_few(data: Data, cache: FeatureCache, counts: Counter[str], groups: list[str] | None) -> None:
    """Raise DataError, naming the classes and their folders, for fewer excerpts or recordings than folds."""
    root = None if data.cache is not None else corpus_folder(data)
    few = [
        f"{label} has {counted(count, 'excerpt')}{f' ({root / label})' if root else ''}"
        for label, count in sorted(counts.items())
        if count < FOLDS
    ]
    if groups and len(set(groups)) < FOLDS:
        few.append(f"there are {counted(len(set(groups)), 'recording')}")
    if few:
        name = f"data.cache={cache.folder}" if root is None else f"data.root={data.root}"
        raise DataError(f"{name}: {', '.join(few)}; five folds need {FOLDS}")


def _class_and_stem(cache: FeatureCache, row: int) -> tuple[str, str]:
    label = cache.labels[row]
    return label, cache.names[row].removeprefix(f"{label}/")


def read_list(path: Path) -> NameList:
    """Return a user's own split. Raise DataError, naming the line, for a part that is not one."""
    return NameList.read(path, "part", "data.split", (TRAIN, VALIDATION))


def _from_list(path: Path, excerpts: list[tuple[str, str]]) -> list[int]:
    """Return 0 for validation, 1 for training. Raise DataError, naming file and line, if the list does not fit."""
    parts = read_list(path).values_of(excerpts)
    if {*parts} != {TRAIN, VALIDATION}:
        raise DataError(f"data.split={path}: leaves no excerpt for training or none for validation")
    return [0 if part == VALIDATION else 1 for part in parts]
