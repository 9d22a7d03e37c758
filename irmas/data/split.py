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
    train = np.flatnonzero((folds != data.fold) & (folds >= 0))
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
    labels, groups = np.array(cache.labels)[kept], np.array(duplicates.groups)[kept]
    by_recording = data.split == "recording"
    fewest = np.unique_counts(labels).counts.min()
    if fewest < FOLDS or (by_recording and len(np.unique(groups)) < FOLDS):
        raise DataError(
            f"{cache.folder}: the smallest class has {fewest} excerpts; "
            f"{FOLDS} folds need at least {FOLDS}, of as many recordings"
        )
    folds[kept] = deal_groups(labels, groups, data.seed) if by_recording else deal(labels, data.seed)
    return folds


def deal(labels: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """The fold of each excerpt, with the same share of every class in each.

    As scikit-learn's StratifiedKFold deals: scikit-learn takes half as long to import as torch.
    """
    rng = np.random.RandomState(seed)
    folds = np.empty(len(labels), dtype=int)
    dealt = 0
    for label in dict.fromkeys(labels.tolist()):
        rows = np.flatnonzero(labels == label)
        of_class = np.sort(np.arange(dealt, dealt + len(rows)) % FOLDS)
        rng.shuffle(of_class)
        folds[rows] = of_class
        dealt += len(rows)
    return folds


def deal_groups(labels: NDArray[np.str_], groups: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """The fold of each excerpt, that of its group, with nearly the same share of every class in each.

    As scikit-learn's StratifiedGroupKFold deals: the most uneven groups first, in an order drawn by the seed where they
    are alike, each to the fold with which the classes are then spread most evenly.
    """
    _, class_of = np.unique(labels, return_inverse=True)
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), class_of.max() + 1))
    np.add.at(counts, (group_of, class_of), 1)
    order = np.random.RandomState(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    fold_of = np.empty(len(names), dtype=int)
    held = np.zeros((FOLDS, counts.shape[1]))
    to_each = np.eye(FOLDS)[:, :, None]
    for group in order:
        shares = (held + to_each * counts[group]) / counts.sum(axis=0)  # (fold that takes it, fold, class)
        spread, sizes = shares.std(axis=1).mean(axis=1).tolist(), held.sum(axis=1)
        best = 0
        for fold in range(1, FOLDS):
            is_equal = abs(spread[fold] - spread[best]) <= 1e-8 + 1e-5 * spread[best]
            if spread[fold] < spread[best] or (is_equal and sizes[fold] < sizes[best]):
                best = fold
        held[best] += counts[group]
        fold_of[group] = best
    return fold_of[group_of]


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
