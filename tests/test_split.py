"""The split: five folds that keep together what belongs together, and say so where they do not."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from irmas.config import Data
from irmas.data.cache import FeatureCache
from irmas.data.split import FOLDS, Split, find_duplicates, load_or_make
from irmas.errors import DataError


def make_cache(recordings_per_class: int = 60, twins: dict[int, int] | None = None) -> FeatureCache:
    """Three classes, three excerpts a recording; `twins` are rows that repeat another row."""
    labels = [label for label in "abc" for _ in range(3 * recordings_per_class)]
    features = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4), np.uint8)
    for row, of in (twins or {}).items():
        features[row] = features[of]
    names = [f"{label}-{row}" for row, label in enumerate(labels)]
    recordings = [f"{row // 3:03d}" for row in range(len(labels))]
    return FeatureCache(Path("made"), features, names, labels, recordings, 1.0, 0.0)


def write_list(path: Path, *rows: tuple[str, str], header: tuple[str, str] = ("name", "part")) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def same(a: Split, b: Split) -> bool:
    return np.array_equal(a.train, b.train) and np.array_equal(a.validation, b.validation)


# Chains: 000 with 002 with 004; 001 and 003, each with 005. Rows 21 (007) and 181 (060) are of two classes.
TWINS = {6: 0, 13: 7, 15: 3, 16: 10, 181: 21}


def test_recordings_that_share_an_excerpt_are_one_group() -> None:
    cache = make_cache(twins=TWINS)
    duplicates = find_duplicates(cache)
    assert duplicates.joined_recordings == [("000", "002", "004"), ("001", "003", "005"), ("007", "060")]
    group_of = dict(zip(cache.recordings, duplicates.groups, strict=True))
    assert [group_of[recording] for recording in ("000", "004", "005", "060")] == ["000", "000", "001", "007"]
    assert sum(group != recording for recording, group in group_of.items()) == 5


def test_only_twins_with_another_label_are_in_conflict() -> None:
    assert find_duplicates(make_cache(twins=TWINS)).conflicting.tolist() == [21, 181]
    assert find_duplicates(make_cache()).conflicting.tolist() == []


def test_the_stand_ins_duplicates_are_found(corpus_cache: FeatureCache) -> None:
    duplicates = find_duplicates(corpus_cache)
    assert len(duplicates.joined_recordings) == 3
    conflicting = {(corpus_cache.labels[row], corpus_cache.recordings[row]) for row in duplicates.conflicting}
    assert sorted(label for label, _ in conflicting) == ["gac", "gel"]


@pytest.mark.parametrize("split", ["recording", "clip"])
def test_five_folds_partition_the_excerpts_with_every_class_in_each(split: str, tmp_path: Path) -> None:
    cache = make_cache(twins=TWINS)
    seen: Counter[int] = Counter()
    for fold in range(FOLDS):
        made = load_or_make(Data(split=split, fold=fold), cache, tmp_path)
        assert sorted([*made.train, *made.validation]) == list(range(540))
        seen.update(made.validation.tolist())
        validating = Counter(cache.labels[row] for row in made.validation)
        for label in cache.classes:
            assert abs(validating[label] / cache.labels.count(label) - 0.2) < 0.03
    assert seen == Counter(range(540))


def test_a_split_by_recording_never_leaks(tmp_path: Path) -> None:
    cache = make_cache(twins=TWINS)
    groups = find_duplicates(cache).groups
    for seed in range(3):
        for fold in range(FOLDS):
            made = load_or_make(Data(seed=seed, fold=fold), cache, tmp_path)
            assert made.leaking == 0
            assert not {groups[row] for row in made.train} & {groups[row] for row in made.validation}


def test_all_excerpts_train_and_a_fold_of_the_recordings_validates(tmp_path: Path) -> None:
    cache = make_cache(twins=TWINS)
    made = load_or_make(Data(split="all", fold=3), cache, tmp_path)
    kept_apart = load_or_make(Data(fold=3), cache, tmp_path)
    assert made.train.tolist() == list(range(540))
    assert made.validation.tolist() == kept_apart.validation.tolist()
    assert made.leaking == 1.0


def test_a_split_by_clip_leaks_and_says_how_much(tmp_path: Path) -> None:
    cache = make_cache(twins=TWINS)
    made = load_or_make(Data(split="clip"), cache, tmp_path)
    groups = find_duplicates(cache).groups
    training = {groups[row] for row in made.train}
    assert made.leaking == pytest.approx(np.mean([groups[row] in training for row in made.validation]))
    assert made.leaking > 0.9  # a sibling is in training unless both are among the fifth that validates


def test_an_excerpt_leaks_if_its_recording_or_a_twins_is_in_training(tmp_path: Path) -> None:
    cache = make_cache(twins=TWINS)
    # 015 validates as a whole; of 016 one excerpt trains; 007 as a whole, but it has a twin in 060.
    validating = {45, 46, 47, 48, 49, 21, 22, 23}
    parts = [(name, "validation" if row in validating else "train") for row, name in enumerate(cache.names)]
    made = load_or_make(Data(split=write_list(tmp_path / "list.csv", *parts)), cache, tmp_path)
    assert made.leaking == 5 / 8


def test_the_split_depends_on_the_datas_own_seed_alone(tmp_path: Path) -> None:
    cache = make_cache()
    made = load_or_make(Data(seed=1), cache, tmp_path / "a")
    np.random.seed(3)
    assert same(load_or_make(Data(seed=1, root="elsewhere", pool=2), cache, tmp_path / "b"), made)
    assert (tmp_path / "a/irmas-recording-seed1.csv").read_bytes() == (
        tmp_path / "b/irmas-recording-seed1.csv"
    ).read_bytes()
    assert not same(load_or_make(Data(seed=2), cache, tmp_path / "a"), made)


def test_a_written_split_is_read_back_as_it_stands(tmp_path: Path) -> None:
    cache = make_cache(twins=TWINS)
    made = load_or_make(Data(), cache, tmp_path)
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    again = load_or_make(Data(), cache, tmp_path)
    assert same(again, made)
    assert again.leaking == made.leaking
    assert path.read_bytes() == before
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == cache.names
    assert rows[6] == {"name": "a-6", "label": "a", "recording": "002", "group": "000", "fold": rows[0]["fold"]}
    # It is the file that counts: fold 1 becomes fold 0 and the other way round.
    path.write_text(path.read_text().replace(",0\n", ",x\n").replace(",1\n", ",0\n").replace(",x\n", ",1\n"))
    assert same(load_or_make(Data(fold=1), cache, tmp_path), made)


def test_a_split_of_other_data_is_refused(tmp_path: Path) -> None:
    load_or_make(Data(), make_cache(), tmp_path)
    with pytest.raises(DataError, match=r"irmas-recording-seed0\.csv: was made from other data; remove it"):
        load_or_make(Data(), make_cache(recordings_per_class=61), tmp_path)


def test_a_split_with_and_one_without_damaged_excerpts_lie_side_by_side(tmp_path: Path) -> None:
    load_or_make(Data(), make_cache(), tmp_path)
    load_or_make(Data(damaged="drop", conflicts="drop"), make_cache(recordings_per_class=61), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "irmas-recording-seed0-without-conflicts-without-damaged.csv",
        "irmas-recording-seed0.csv",
    ]


@pytest.mark.parametrize("split", ["recording", "clip", "list"])
def test_dropping_conflicts_removes_exactly_the_contradictory_excerpts(split: str, tmp_path: Path) -> None:
    cache = make_cache(twins=TWINS)
    if split == "list":
        parts = [(name, "validation" if row % 5 == 0 else "train") for row, name in enumerate(cache.names)]
        split = write_list(tmp_path / "list.csv", *parts)
    kept = load_or_make(Data(split=split), cache, tmp_path)
    for _ in range(2):  # made, then read back
        dropped = load_or_make(Data(split=split, conflicts="drop"), cache, tmp_path)
        assert sorted([*kept.train, *kept.validation]) == list(range(540))
        assert {*range(540)} - {*dropped.train, *dropped.validation} == {21, 181}
    (written,) = tmp_path.glob("irmas-*-without-conflicts.csv")
    with written.open(newline="") as file:
        assert [row for row, line in enumerate(csv.DictReader(file)) if line["fold"] == ""] == [21, 181]


def test_a_list_assigns_the_validation_excerpts(tmp_path: Path) -> None:
    cache = make_cache()
    parts = [(name, "validation" if row % 10 == 0 else "train") for row, name in enumerate(cache.names)]
    data = Data(split=write_list(tmp_path / "mine.csv", *reversed(parts), ("unknown", "train")))
    for _ in range(2):
        made = load_or_make(data, cache, tmp_path / "splits")
        assert made.validation.tolist() == list(range(0, 540, 10))
        assert len(made.train) == 486
        assert made.leaking == 1.0


@pytest.mark.parametrize("prefixed", [False, True])
def test_a_list_takes_stems_and_names_with_their_class(tmp_path: Path, prefixed: bool) -> None:
    """Excerpts of a folder are named class/stem, those of IRMAS by their stems alone."""
    cache = make_cache()
    names = [f"{label}/{name}" for label, name in zip(cache.labels, cache.names, strict=True)]
    of_folder = replace(cache, names=names) if prefixed else cache
    for row, listed in enumerate((cache.names, names, [f"{name}.wav" for name in names])):
        parts = [(name, "validation" if place == row else "train") for place, name in enumerate(listed)]
        data = Data(split=write_list(tmp_path / f"{row}.csv", *parts))
        assert load_or_make(data, of_folder, tmp_path / "splits").validation.tolist() == [row]


def test_lists_of_one_name_in_two_folders_are_not_mixed_up(tmp_path: Path) -> None:
    cache = make_cache()
    for row, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        parts = [(name, "validation" if place == row else "train") for place, name in enumerate(cache.names)]
        data = Data(split=write_list(tmp_path / folder / "list.csv", *parts))
        assert load_or_make(data, cache, tmp_path / "splits").validation.tolist() == [row]


def test_a_list_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    cache = make_cache()
    parts = [(name, "train") for name in cache.names]
    for rows, reason in (
        ([*parts[1:], (cache.names[0], "test")], "line 541: part is test; must be train or validation"),
        (
            [*parts, (f"a/{cache.names[1]}", "validation")],
            "line 542: a/a-1 has the part validation, and train in line 3",
        ),
        ([*parts[2:], (cache.names[0], "validation")], "1 excerpt is not in it, such as a/a-1"),
        (parts, "leaves no excerpt for training or none for validation"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            load_or_make(Data(split=write_list(tmp_path / "list.csv", *rows)), cache, tmp_path)
        assert f"data.split={tmp_path / 'list.csv'}" in str(caught.value)
    with pytest.raises(DataError, match="column part is missing; expected columns: name, part"):
        load_or_make(Data(split=write_list(tmp_path / "list.csv", header=("name", "fold"))), cache, tmp_path)
    with pytest.raises(DataError, match="No such file"):
        load_or_make(Data(split=str(tmp_path / "missing.csv")), cache, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


def test_too_few_excerpts_or_recordings_are_refused(tmp_path: Path) -> None:
    few = make_cache(recordings_per_class=2)
    few = replace(few, labels=["d", *few.labels[1:]])
    with pytest.raises(DataError, match=r"^data\.root=clips: d has 1 excerpt \(clips/d\); five folds need 5$"):
        load_or_make(Data(source="folder", root="clips"), few, tmp_path)
    with pytest.raises(DataError, match=r"^data\.cache=made: d has 1 excerpt; five folds need 5$"):
        load_or_make(Data(cache="made"), few, tmp_path)
    for split in ("recording", "clip"):
        load_or_make(Data(split=split), make_cache(recordings_per_class=2), tmp_path)
    four_recordings = make_cache(recordings_per_class=4)
    four_recordings = replace(four_recordings, recordings=[str(row % 4) for row in range(36)])
    with pytest.raises(DataError, match="/IRMAS-TrainingData: there are 4 recordings; five folds need 5"):
        load_or_make(Data(), four_recordings, tmp_path / "few")
