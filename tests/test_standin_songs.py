"""The stand-in's test part has IRMAS's layout and names, several instruments an excerpt, the same bytes every time."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from irmas.console import SILENT
from irmas.data.excerpts import Labeled, read_test_part
from irmas.data.sound import read_form
from irmas.evaluation.testset import SONG
from irmas.labels import CODES
from irmas.standin.corpus import plan_songs, render_test_part


def render(folder: Path, number: int, seed: int) -> Path:
    return render_test_part(folder, SILENT, number, seed)


def digests(part: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in part.rglob("*.*")}


def test_a_part_follows_from_its_seed(tmp_path: Path) -> None:
    one, two = render(tmp_path / "one", 1, 0), render(tmp_path / "two", 1, 0)
    assert digests(one) == digests(two)
    assert plan_songs(1, 0) != plan_songs(1, 1)
    (one / "Part1" / "mark").touch()
    assert render(tmp_path / "one", 1, 0) == one
    assert (one / "Part1" / "mark").exists()  # what is there is not rendered again


def test_a_part_is_as_irmas_has_it(part: Path) -> None:
    excerpts, problems = read_test_part(part)
    assert problems == []
    songs: dict[str, list[Labeled]] = {}
    for excerpt in excerpts:
        match = SONG.fullmatch(excerpt.path.stem)
        assert match
        songs.setdefault(match["song"], []).append(excerpt)
        form = read_form(excerpt.path)
        assert (form.rate, form.channels, form.subtype) == (44_100, 2, "PCM_16")
        assert 5 <= form.seconds <= 20
        assert 2 <= len(excerpt.labels) <= 4
    assert list(songs) == [f"{number:02d} - Stand-in Song No. {number}" for number in (1, 2, 3)]
    assert all(2 <= len(of_song) <= 5 for of_song in songs.values())


def test_classes_are_about_equally_frequent() -> None:
    counted = Counter(code for song in plan_songs(30, 0) for code in {code for cast in song.casts for code in cast})
    assert set(counted) == set(CODES)
    assert max(counted.values()) - min(counted.values()) <= 3
