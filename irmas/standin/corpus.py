"""A stand-in for IRMAS's training set that anyone can render: General MIDI music under its names and quirks.

`plan` decides which recordings there are and what their files are called; `music` makes their sound.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from irmas.console import SILENT, Progress
from irmas.errors import DataError
from irmas.files import errors_name, locked
from irmas.labels import CODES
from irmas.processes import cpu_count, mapped


class _Planned(Protocol):
    @property
    def excerpts(self) -> int: ...


T = TypeVar("T", bound=_Planned)

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


def _write(root: Path, recording: Recording, seed: int) -> None:
    from irmas.standin.music import SAMPLE_RATE, perform  # here: opening a cache needs no synthesizer

    rng = np.random.default_rng([seed, recording.stream])
    sounds = perform(rng, recording.lead, recording.excerpts, with_drums=recording.with_drums)
    for name, sound in zip(recording.names(), sounds, strict=True):
        write_wav(root / recording.code / f"{name}.wav", sound, SAMPLE_RATE)


def write_wav(path: Path, sound: NDArray[np.int16], rate: int) -> None:
    """Write sound of shape (samples,) or (samples, channels), 16 bit. Raise OSError with the file's name."""
    wav = io.BytesIO()
    soundfile.write(wav, sound, rate, subtype="PCM_16", format="WAV")
    with errors_name(path):  # written here, since libsndfile's error does not say that a disk is full
        path.write_bytes(wav.getvalue())


def write_labels(path: Path, labels: Sequence[str]) -> None:
    """Write the labels of a test excerpt, one per line. Raise OSError with the file's name."""
    with errors_name(path):
        path.write_text("".join(f"{label}\n" for label in labels))


def render(root: Path, size: int, seed: int, progress: Progress = SILENT) -> None:
    """Render a corpus of `size` excerpts (3 s, 44.1 kHz, stereo, 16 bit) as root/<class>/<name>.wav.

    The bytes follow from size, seed and VERSION alone. See `render_all`; raise DataError for a size out of range, too.
    """
    render_all(root, CODES, partial(_write, seed=seed), plan(size, seed), progress)


def render_all(
    root: Path, folders: Iterable[str], write: Callable[[Path, T], None], items: Sequence[T], progress: Progress
) -> None:
    """Write every item, with every core, into a folder with these subfolders, unless `root` exists.

    `root` gets its name when everything is in it; what a killed rendering left is removed. Of processes that start at
    once, one renders. Raise DataError if the disk is full, UserError if the folder cannot be written.
    """
    unfinished = root.with_name(f"{root.name}.part")
    with locked(root.with_name(f"{root.name}.lock")):
        if root.is_dir():
            return
        progress.start("rendering", sum(item.excerpts for item in items))
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            for folder in folders:
                (unfinished / folder).mkdir(parents=True)
            task = partial(write, unfinished)
            with mapped(task, items, path=unfinished, workers=cpu_count(), chunksize=4) as written:
                for item, _ in zip(items, written, strict=True):
                    progress.advance(item.excerpts)
            unfinished.rename(root)
        except OSError as error:
            raise DataError(f"{error.filename or unfinished}: cannot be written ({error.strerror})") from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
