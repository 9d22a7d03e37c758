"""IRMAS's test set: each wav with the labels of its txt, and everything that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from irmas.data.excerpts import find_test_parts, read_labels, read_test_part
from irmas.errors import DataError


@pytest.fixture
def part(tmp_path: Path) -> Path:
    folder = tmp_path / "IRMAS-TestingData-Part1" / "Part1"
    folder.mkdir(parents=True)
    for name, labels in (("(02) song-1", "gel\t\nvoi\t\n"), ("(02) song-8", "pia"), ("[other] x.y-3", "sax\r\n\r\n")):
        soundfile.write(folder / f"{name}.wav", np.full((100, 2), 0.5), 44_100)
        (folder / f"{name}.txt").write_bytes(labels.encode())
    return folder


def test_every_wav_has_the_labels_of_its_txt(part: Path) -> None:
    (part / "._hidden.wav").write_bytes(b"")
    excerpts, problems = read_test_part(part.parent)
    assert problems == []
    assert [(excerpt.path.name, excerpt.labels) for excerpt in excerpts] == [
        ("(02) song-1.wav", ["gel", "voi"]),
        ("(02) song-8.wav", ["pia"]),
        ("[other] x.y-3.wav", ["sax"]),
    ]


def test_unusable_files_are_listed_and_the_rest_is_read(part: Path) -> None:
    for name in ("unlabelled", "cut", "empty", "text", "strange", "binary", "blank"):
        soundfile.write(part / f"{name}.wav", np.full((100, 2), 0.5), 44_100)
        (part / f"{name}.txt").write_text("voi\n")
    (part / "unlabelled.txt").unlink()
    (part / "cut.wav").write_bytes((part / "cut.wav").read_bytes()[:-40])
    (part / "empty.wav").write_bytes(b"")
    (part / "text.wav").write_text("no sound")
    (part / "strange.txt").write_text("voi\nbanjo\n")
    (part / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (part / "blank.txt").write_text("\n")
    (part / "lonely.txt").write_text("voi\n")
    excerpts, problems = read_test_part(part.parent)
    assert len(excerpts) == 3
    assert problems == [
        f"{part}/binary.txt: not a text file",
        f"{part}/blank.txt: holds no label",
        f"{part}/cut.wav: truncated: the header says 400 bytes of audio, the file has 360",
        f"{part}/empty.wav: empty",
        f"{part}/strange.txt: unknown label 'banjo'; must be one of: cel cla flu gac gel org pia sax tru vio voi",
        f"{part}/text.wav: Format not recognised.",
        f"{part}/unlabelled.txt: No such file or directory",
        f"{part}/lonely.txt: has no wav",
    ]


def test_a_part_without_a_wav_is_a_problem(tmp_path: Path) -> None:
    assert read_test_part(tmp_path)[1] == [f"{tmp_path}: holds no wav"]


def test_the_parts_are_looked_for_beside_the_training_set(part: Path, tmp_path: Path) -> None:
    (tmp_path / "IRMAS-TestingData-Part2").mkdir()
    (tmp_path / "IRMAS-TestingData-Part3.zip").touch()
    (tmp_path / "IRMAS-TestingData-Part1.zip").touch()
    parts = find_test_parts(tmp_path / "IRMAS-TrainingData")
    assert parts == [part.parent, tmp_path / "IRMAS-TestingData-Part2"]
    assert find_test_parts(tmp_path / "elsewhere" / "IRMAS-TrainingData") == []


def test_a_real_part_is_read(shared: Path) -> None:
    (folder,) = find_test_parts(shared / "irmas_wav" / "IRMAS-TrainingData")
    excerpts, problems = read_test_part(folder)
    assert problems == []
    assert [excerpt.labels for excerpt in excerpts] == [["gel", "voi"]]


def test_a_missing_txt_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.txt: No such file"):
        read_labels(tmp_path / "x.txt")
