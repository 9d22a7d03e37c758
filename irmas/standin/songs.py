"""A stand-in for IRMAS's test set: songs with two to four predominant instruments, in its layout and names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from irmas.console import Progress
from irmas.labels import CODES
from irmas.standin.corpus import render_all, write_labels, write_wav

# Part of the data's identity: raise it whenever the rendered bytes change.
VERSION = 1
SONGS = 30
MOST_EXCERPTS = 5
SECONDS = (5.0, 20.0)


@dataclass(frozen=True)
class Song:
    number: int
    casts: list[list[str]]
    """The predominant instruments of each excerpt."""
    seconds: float
    """Length of each excerpt."""
    with_drums: bool

    @property
    def excerpts(self) -> int:
        return len(self.casts)

    @property
    def name(self) -> str:
        return f"{self.number:02d} - Stand-in Song No. {self.number}"


def plan(songs: int, seed: int) -> list[Song]:
    """Return songs of two to four instruments, dealt so that all classes are about equally frequent.

    An excerpt has at least two of its song's instruments.
    """
    rng = np.random.default_rng([seed, 0])
    planned: list[Song] = []
    hand: list[str] = []
    for number in range(1, songs + 1):
        size = int(rng.integers(2, 5))
        if len(set(hand)) < size:
            hand += rng.permutation(CODES).tolist()
        ensemble = list(dict.fromkeys(hand))[:size]
        for code in ensemble:
            hand.remove(code)
        casts = [
            sorted(rng.choice(ensemble, size=rng.integers(2, size + 1), replace=False).tolist())
            for _ in range(rng.integers(2, MOST_EXCERPTS + 1))
        ]
        planned.append(Song(number, casts, round(rng.uniform(*SECONDS), 2), bool(rng.random() < 0.5)))
    return planned


def _write(root: Path, song: Song, seed: int) -> None:
    from irmas.standin.music import SAMPLE_RATE, perform_song

    rng = np.random.default_rng([seed, 1, song.number])
    sounds = perform_song(rng, song.casts, song.seconds, with_drums=song.with_drums)
    for number, (cast, sound) in enumerate(zip(song.casts, sounds, strict=True), start=1):
        path = root / "Part1" / f"{song.name}-{number}.wav"
        write_wav(path, sound, SAMPLE_RATE)
        write_labels(path.with_suffix(".txt"), cast)


def render(folder: Path, progress: Progress, songs: int = SONGS, seed: int = 0) -> Path:
    """Render a test part of `songs` songs (44.1 kHz, stereo, 16 bit) below `folder`, if it is missing; return its path.

    The bytes follow from songs, seed and VERSION alone. Raise DataError if the disk is full, UserError if the folder
    cannot be written.
    """
    root = folder / f"test-v{VERSION}-{songs}-seed{seed}"
    if not root.is_dir():  # it may be read-only
        render_all(root, ["Part1"], partial(_write, seed=seed), plan(songs, seed), progress)
    return root
