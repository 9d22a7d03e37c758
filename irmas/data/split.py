"""Which excerpts validate: five folds, stratified by class, dealt by recording, by clip, or from a list."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irmas.config import Data
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import bare_name, read_table
from irmas.errors import DataError
from irmas.files import atomic_write

FOLDS = 5
COLUMNS = ("name", "label", "recording", "group", "fold")


@dataclass(frozen=True)
class Duplicates:
    """Identical excerpts. `groups` has, for every excerpt, the first recording among those that share excerpts."""

    groups: list[str]
    pairs_of_recordings: list[tuple[str, ...]]
    """Recordings joined by identical excerpts."""
    conflicting: NDArray[np.intp]
    """Rows whose identical twin carries another label."""


def find_duplicates(cache: FeatureCache) -> Duplicates:
    """By identical rows, so that it works for a cache whose wavs are elsewhere."""
    rows_of = defaultdict(list)
    for row, digest in enumerate(cache.row_digests):
        rows_of[digest].append(row)
    leader = {recording: recording for recording in cache.recordings}

    def first(recording: str) -> str:
        while leader[recording] != recording:
            recording = leader[recording]
        return recording

    conflicting: list[int] = []
    for rows in rows_of.values():
        together = sorted({first(cache.recordings[row]) for row in rows})
        for recording in together[1:]:
            leader[recording] = together[0]
        if len({cache.labels[row] for row in rows}) > 1:
            conflicting += rows
    members = defaultdict(list)
    for recording in sorted(leader):
        members[first(recording)].append(recording)
    joined = [tuple(recordings) for recordings in members.values() if len(recordings) > 1]
    groups = [first(recording) for recording in cache.recordings]
    return Duplicates(groups, joined, np.array(sorted(conflicting), dtype=np.intp))


@dataclass(frozen=True)
class Split:
    """Rows of the cache."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    leaking: float
    """The share of validation excerpts with a sibling, from the same recordings, in training."""
    groups: list[str]
    """Of every row of the cache: the first recording among those that share excerpts with its own."""


def load_or_make(data: Data, cache: FeatureCache, folder: Path) -> Split:
    """The split that these settings ask for, written to `folder` as a csv with a line an excerpt.

    It depends on the data and its own seed alone. Processes that make it at once write the same bytes.
    Raises DataError where the excerpts are too few for five folds, or a csv's names do not fit.
    """
    path = folder / f"{_file_name(data)}.csv"
    if path.exists():
        rows = _read(path)
        if [row["name"] for row in rows] != cache.names:
            raise DataError(f"{path}: was made from other data; remove it or give another name=...")
        folds = np.array([int(row["fold"]) if row["fold"] else -1 for row in rows])
        groups = [row["group"] for row in rows]
    else:
        duplicates = find_duplicates(cache)
        groups = duplicates.groups
        folds = _deal(data, cache, duplicates)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, _as_csv(cache, groups, folds))
    train = np.flatnonzero((folds >= 0) & ((folds != data.fold) | (data.split == "all")))
    validation = np.flatnonzero(folds == data.fold)
    train_groups = {groups[row] for row in train}
    leaking = float(np.mean([groups[row] in train_groups for row in validation]))
    return Split(train, validation, leaking, groups)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        rows = read_table(path, COLUMNS)
    except DataError as error:
        raise DataError(f"{error}; remove it, and the same command deals it again") from None
    if wrong := {row["fold"] for row in rows} - {"", *map(str, range(FOLDS))}:
        raise DataError(f"{path}: has the fold {min(wrong)!r}; remove it, and the same command deals it again")
    return rows


def _file_name(data: Data) -> str:
    if data.split.endswith(".csv"):  # two lists may have the same name in different folders
        kind = f"list-{Path(data.split).stem}-{hashlib.sha256(data.split.encode()).hexdigest()[:6]}"
    else:
        kind = f"{data.split}-seed{data.seed}"
    dropped = [name for name in ("conflicts", "damaged") if getattr(data, name) == "drop"]
    return "-".join([f"{data.source}-{kind}", *(f"without-{name}" for name in dropped)])


def _deal(data: Data, cache: FeatureCache, duplicates: Duplicates) -> NDArray[np.int64]:
    """Each excerpt's fold; -1 for those left out."""
    folds = np.full(len(cache.names), -1)
    kept = np.arange(len(cache.names))
    if data.conflicts == "drop":
        kept = np.setdiff1d(kept, duplicates.conflicting)
    if data.split.endswith(".csv"):
        folds[kept] = _from_list(Path(data.split), [cache.names[row] for row in kept])
        return folds
    # Not at the top: it takes a second to import, and most tasks find the split already made.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels = [cache.labels[row] for row in kept]
    groups = None if data.split == "clip" else [duplicates.groups[row] for row in kept]
    fewest = min(labels.count(label) for label in set(labels))
    if fewest < FOLDS or (groups and len(set(groups)) < FOLDS):
        raise DataError(
            f"{cache.folder}: the smallest class has {fewest} excerpts; "
            f"{FOLDS} folds need at least {FOLDS}, of as many recordings"
        )
    splitter = (StratifiedGroupKFold if groups else StratifiedKFold)(FOLDS, shuffle=True, random_state=data.seed)
    for fold, (_, rows) in enumerate(splitter.split(kept, labels, groups)):
        folds[kept[rows]] = fold
    return folds


def read_list(path: Path) -> dict[str, str]:
    """The part of each name in a user's own split. Raises DataError."""
    parts = {bare_name(row["name"]): row["part"] for row in read_table(path, ("name", "part"), "data.split")}
    wrong = sorted(set(parts.values()) - {"train", "validation"})
    if wrong:
        raise DataError(f"data.split={path}: part is {', '.join(wrong)}; must be train or validation")
    return parts


def _from_list(path: Path, names: list[str]) -> list[int]:
    """0 for validation, 1 for training. Raises DataError, naming file and excerpts, where the list does not fit."""
    parts = read_list(path)
    lacking = [name for name in names if name not in parts]
    if lacking:
        raise DataError(f"data.split={path}: {len(lacking)} excerpts are not in it, such as {lacking[0]}")
    if {parts[name] for name in names} != {"train", "validation"}:
        raise DataError(f"data.split={path}: leaves no excerpt for training or none for validation")
    return [0 if parts[name] == "validation" else 1 for name in names]


def _as_csv(cache: FeatureCache, groups: list[str], folds: NDArray[np.int64]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    marks = ("" if fold < 0 else fold for fold in folds)
    writer.writerows(zip(cache.names, cache.labels, cache.recordings, groups, marks, strict=True))
    return text.getvalue()
