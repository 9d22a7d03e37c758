"""The stand-in's test part has IRMAS's layout and names, several instruments an excerpt, the same bytes every time."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from irmas.console import SILENT
from irmas.data import testparts
from irmas.data.sound import read_form
from irmas.evaluation.testset import SONG
from irmas.labels import CODES
from irmas.standin import songs


def render(folder: Path, number: int, seed: int) -> Path:
    return songs.render(folder, SILENT, number, seed)


def digests(part: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in part.rglob("*.*")}


def test_a_part_follows_from_its_seed(tmp_path: Path) -> None:
    one, two = render(tmp_path / "one", 1, 0), render(tmp_path / "two", 1, 0)
    assert digests(one) == digests(two)
    assert songs.plan(1, 0) != songs.plan(1, 1)
    (one / "Part1" / "mark").touch()
    assert render(tmp_path / "one", 1, 0) == one
    assert (one / "Part1" / "mark").exists()  # what is there is not rendered again


def test_a_part_is_as_irmas_has_it(part: Path) -> None:
    read = testparts.read(part)
    assert read.problems == []
    songs: dict[str, list[testparts.Labeled]] = {}
    for excerpt in read.excerpts:
        match = SONG.fullmatch(excerpt.path.stem)
        assert match
        songs.setdefault(match["song"], []).append(excerpt)
        form = read_form(excerpt.path)
        assert (form.rate, form.channels, form.subtype) == (44_100, 2, "PCM_16")
        assert 5 <= form.seconds <= 20
        assert 2 <= len(excerpt.labels) <= 4
    assert list(songs) == [f"{number:02d} - Stand-in Song No. {number}" for number in (1, 2, 3)]
    assert all(2 <= len(excerpts) <= 5 for excerpts in songs.values())


def test_classes_are_about_equally_frequent() -> None:
    counted = Counter(code for song in songs.plan(30, 0) for code in {code for cast in song.casts for code in cast})
    assert set(counted) == set(CODES)
    assert max(counted.values()) - min(counted.values()) <= 3
