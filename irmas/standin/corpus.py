"""A stand-in for IRMAS that anyone can render: General MIDI music under the names and quirks of its two sets.

`plan` and `plan_songs` decide which files there are; `music` makes their sound.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from irmas.console import SILENT, Progress
from irmas.errors import DataError
from irmas.files import errors_name, locked
from irmas.labels import CODES
from irmas.processes import cpu_count, mapped

# Part of the data's identity: raise it whenever the rendered bytes change.
VERSION = 1

# IRMAS itself: excerpts of each class in the order of CODES, and recordings with each quirk.
IRMAS_EXCERPTS = (388, 505, 451, 637, 760, 682, 721, 626, 577, 580, 778)
IRMAS_SIZE = sum(IRMAS_EXCERPTS)
IRMAS_RECORDINGS = 2261
IRMAS_TWINS = 16  # pairs of recordings of one class with bit-identical excerpts
IRMAS_CONFLICTS = 3  # such pairs labeled gac and gel
IRMAS_HALF_TAGGED = 12  # recordings whose excerpts occur with and without prefix and drums tag
IRMAS_UNKNOWN_DRUMS = 4  # recordings tagged [---]
IRMAS_TAGGED = 0.28  # share of recordings with prefix and drums tag
GENRES = {"cou_fol": 0.1, "cla": 0.2, "pop_roc": 0.35, "lat_sou": 0.08, "jaz_blu": 0.27}

# Each class's recordings are rounded up, and a recording's number has four digits.
SMALLEST = 33
LARGEST = (9999 - len(CODES)) * IRMAS_SIZE // IRMAS_RECORDINGS

# The test set: excerpts of a song, their length, and the version of the rendered bytes.
MOST_EXCERPTS = 5
SECONDS = (5.0, 20.0)
TEST_VERSION = 1


@dataclass(frozen=True)
class Recording:
    """A recording of the plan; twins share `lead` and `stream`, and so sound the same."""

    number: int
    code: str
    excerpts: int
    lead: str
    stream: int
    genre: str
    with_drums: bool
    prefix: int | None
    drums_tag: str
    half_tagged: bool = False

    def names(self) -> list[str]:
        """Return file names without suffix, in IRMAS's grammar; a half-tagged recording's last one is untagged."""
        tagged = self.excerpts - self.half_tagged if self.prefix is not None else 0
        end = f"[{self.genre}]{self.number:04d}"
        return [
            f"{self.prefix:03d}__[{self.code}][{self.drums_tag}]{end}__{number}"
            if number <= tagged
            else f"[{self.code}]{end}__{number - tagged}"
            for number in range(1, self.excerpts + 1)
        ]


def _class_sizes(size: int) -> list[int]:
    """Return excerpts per class in IRMAS's proportions, by largest remainder."""
    whole, rest = np.divmod(size * np.array(IRMAS_EXCERPTS), IRMAS_SIZE)
    whole[np.argsort(-rest, kind="stable")[: size - whole.sum()]] += 1
    return [int(count) for count in whole]


def plan(size: int, seed: int) -> list[Recording]:
    """Return the recordings of a corpus of `size` excerpts, numbered from 1, class after class.

    Raise DataError if the size is out of range.
    """
    if not SMALLEST <= size <= LARGEST:
        raise DataError(f"stand-in of {size} excerpts: the size must be from {SMALLEST} to {LARGEST}")
    rng = np.random.default_rng([seed, 0])
    recordings: list[Recording] = []
    for code, count in zip(CODES, _class_sizes(size), strict=True):
        number_of = -(-count * IRMAS_RECORDINGS // IRMAS_SIZE)
        lost = rng.permutation(np.repeat(np.arange(number_of), 2))[: 3 * number_of - count]
        for excerpts in 3 - np.bincount(lost, minlength=number_of):
            number = len(recordings) + 1
            genre = str(rng.choice(list(GENRES), p=list(GENRES.values())))
            with_drums = genre != "cla" and bool(rng.random() < 0.5)
            prefix = int(rng.integers(1, 1000)) if rng.random() < IRMAS_TAGGED else None
            tag = "dru" if with_drums else "nod"
            recordings.append(Recording(number, code, int(excerpts), code, number, genre, with_drums, prefix, tag))
    return _with_quirks(recordings, rng)


def _with_quirks(recordings: list[Recording], rng: np.random.Generator) -> list[Recording]:
    """Give some recordings one of IRMAS's oddities each."""
    changed = {recording.number: recording for recording in recordings}
    free: list[Recording] = [recordings[i] for i in rng.permutation(len(recordings))]

    def count(in_irmas: int, at_least: int) -> int:
        return max(at_least, round(in_irmas * len(recordings) / IRMAS_RECORDINGS))

    def take(codes: Sequence[str] = CODES, excerpts: int = 1) -> Recording:
        taken = next(one for one in free if one.code in codes and one.excerpts >= excerpts)
        free.remove(taken)
        return taken

    pairs = [(take(["gac"]), take(["gel"])) for _ in range(count(IRMAS_CONFLICTS, 1))]
    for _ in range(count(IRMAS_TWINS, 2)):
        codes = [recording.code for recording in free]
        code = next(code for code in codes if codes.count(code) > 1)
        pairs.append((take([code]), take([code])))
    for pair in pairs:
        model, copy = sorted(pair, key=lambda recording: -recording.excerpts)
        shared = {name: getattr(model, name) for name in ("lead", "stream", "genre", "with_drums", "drums_tag")}
        changed[copy.number] = replace(copy, **shared)
    for _ in range(count(IRMAS_HALF_TAGGED, 2)):
        half = take(excerpts=2)
        changed[half.number] = replace(half, half_tagged=True, prefix=half.prefix or 1)
    for _ in range(count(IRMAS_UNKNOWN_DRUMS, 1)):
        unknown = take()
        changed[unknown.number] = replace(unknown, drums_tag="---", prefix=unknown.prefix or 1)
    return list(changed.values())


@dataclass(frozen=True)
class Song:
    """A song of the test set."""

    number: int
    casts: list[list[str]]
    """The predominant instruments of each excerpt."""
    seconds: float
    """Length of each excerpt."""
    with_drums: bool

    @property
    def excerpts(self) -> int:
        return len(self.casts)


def plan_songs(songs: int, seed: int) -> list[Song]:
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


def _write(root: Path, recording: Recording, seed: int) -> None:
    from irmas.standin.music import SAMPLE_RATE, perform  # here: opening a cache needs no synthesizer

    rng = np.random.default_rng([seed, recording.stream])
    sounds = perform(rng, recording.lead, recording.excerpts, with_drums=recording.with_drums)
    for name, sound in zip(recording.names(), sounds, strict=True):
        write_wav(root / recording.code / f"{name}.wav", sound, SAMPLE_RATE)


def _write_song(root: Path, song: Song, seed: int) -> None:
    from irmas.standin.music import SAMPLE_RATE, perform_song

    rng = np.random.default_rng([seed, 1, song.number])
    sounds = perform_song(rng, song.casts, song.seconds, with_drums=song.with_drums)
    for number, (cast, sound) in enumerate(zip(song.casts, sounds, strict=True), start=1):
        path = root / "Part1" / f"{song.number:02d} - Stand-in Song No. {song.number}-{number}.wav"
        write_wav(path, sound, SAMPLE_RATE)
        write_labels(path.with_suffix(".txt"), cast)


def write_wav(path: Path, sound: NDArray[np.int16], rate: int) -> None:
    """Write sound of shape (samples,) or (samples, channels), 16 bit. Raise OSError with the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = io.BytesIO()
    soundfile.write(wav, sound, rate, subtype="PCM_16", format="WAV")
    with errors_name(path):  # written here, since libsndfile's error does not say that a disk is full
        path.write_bytes(wav.getvalue())


def write_labels(path: Path, labels: Sequence[str]) -> None:
    """Write the labels of a test excerpt, one per line. Raise OSError with the file's name."""
    with errors_name(path):
        path.write_text("".join(f"{label}\n" for label in labels))


def render(root: Path, size: int, seed: int, progress: Progress = SILENT) -> None:
    """Render a corpus of `size` excerpts (3 s, 44.1 kHz, stereo, 16 bit) as root/<class>/<name>.wav, if it is missing.

    The bytes follow from size, seed and VERSION alone. `root` gets its name when everything is in it. Raise DataError
    if the disk is full or the size out of range, UserError if the folder cannot be written.
    """
    _render(root, partial(_write, seed=seed), plan(size, seed), progress)


def render_test_part(folder: Path, progress: Progress, songs: int = 30, seed: int = 0) -> Path:
    """Render a test part of `songs` songs (44.1 kHz, stereo, 16 bit) below `folder`, as `render` does; return its path.

    The bytes follow from songs, seed and TEST_VERSION alone.
    """
    root = folder / f"test-v{TEST_VERSION}-{songs}-seed{seed}"
    if not root.is_dir():  # it may be read-only
        _render(root, partial(_write_song, seed=seed), plan_songs(songs, seed), progress)
    return root


def _render(root: Path, write: Callable[[Path, Any], None], items: Sequence[Any], progress: Progress) -> None:
    """Write every recording or song below `root`, with every core; of processes that start at once, one renders."""
    unfinished = root.with_name(f"{root.name}.part")
    with locked(root.with_name(f"{root.name}.lock")):
        if root.is_dir():
            return
        progress.start("rendering", sum(item.excerpts for item in items))
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            task = partial(write, unfinished)
            with mapped(task, items, path=unfinished, workers=cpu_count(), chunksize=4) as written:
                for item, _ in zip(items, written, strict=True):
                    progress.advance(item.excerpts)
            unfinished.rename(root)
        except OSError as error:
            raise DataError(f"{error.filename or unfinished}: cannot be written ({error.strerror})") from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
