"""A stand-in for IRMAS's training set that anyone can render: General MIDI music under its names and quirks.

`plan` decides which recordings there are and what their files are called; their sound is `standin_music`'s.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from irmas.data.workers import mapped
from irmas.errors import DataError
from irmas.files import errors_name
from irmas.labels import CODES
from irmas.processes import cpu_count

T = TypeVar("T")

# Part of the data's identity: raise it whenever the rendered bytes change.
VERSION = 1

# IRMAS itself: excerpts of each class in the order of CODES, and recordings with each quirk.
IRMAS_EXCERPTS = (388, 505, 451, 637, 760, 682, 721, 626, 577, 580, 778)
IRMAS_SIZE = sum(IRMAS_EXCERPTS)
IRMAS_RECORDINGS = 2261
IRMAS_TWINS = 16  # pairs of recordings of one class with bit-identical excerpts
IRMAS_CONFLICTS = 3  # such pairs labelled gac and gel
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
        """File names without ending, in IRMAS's grammar; a half-tagged recording's last one is untagged."""
        tagged = self.excerpts - self.half_tagged if self.prefix is not None else 0
        tail = f"[{self.genre}]{self.number:04d}"
        return [f"{self.prefix:03d}__[{self.code}][{self.drums_tag}]{tail}__{i + 1}" for i in range(tagged)] + [
            f"[{self.code}]{tail}__{i + 1}" for i in range(self.excerpts - tagged)
        ]


def _class_sizes(size: int) -> list[int]:
    """Excerpts a class in IRMAS's proportions, by largest remainder."""
    whole, rest = np.divmod(size * np.array(IRMAS_EXCERPTS), IRMAS_SIZE)
    whole[np.argsort(-rest, kind="stable")[: size - whole.sum()]] += 1
    return [int(count) for count in whole]


def plan(size: int, seed: int) -> list[Recording]:
    """The recordings of a corpus of `size` excerpts, numbered from 1, class after class.

    Raises DataError for a size that cannot be had.
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
    """Give some recordings IRMAS's oddities, no recording two of them."""
    of = {recording.number: recording for recording in recordings}
    free: list[Recording] = [recordings[i] for i in rng.permutation(len(recordings))]

    def share(in_irmas: int, at_least: int) -> range:
        return range(max(at_least, round(in_irmas * len(recordings) / IRMAS_RECORDINGS)))

    def take(*codes: str, at_least: int = 1) -> Recording:
        found = next(r for r in free if r.code in (codes or CODES) and r.excerpts >= at_least)
        free.remove(found)
        return found

    def twin(a: Recording, b: Recording) -> None:
        if a.excerpts < b.excerpts:
            a, b = b, a
        of[b.number] = replace(
            b, lead=a.lead, stream=a.stream, genre=a.genre, with_drums=a.with_drums, drums_tag=a.drums_tag
        )

    for _ in share(IRMAS_CONFLICTS, 1):
        twin(take("gac"), take("gel"))
    for _ in share(IRMAS_TWINS, 2):
        codes = [recording.code for recording in free]
        code = next(code for code in codes if codes.count(code) > 1)
        twin(take(code), take(code))
    for _ in share(IRMAS_HALF_TAGGED, 2):
        half = take(at_least=2)
        of[half.number] = replace(half, half_tagged=True, prefix=half.prefix or 1)
    for _ in share(IRMAS_UNKNOWN_DRUMS, 1):
        unknown = take()
        of[unknown.number] = replace(unknown, drums_tag="---", prefix=unknown.prefix or 1)
    return list(of.values())


def _write(root: Path, recording: Recording, seed: int) -> int:
    from irmas.standin.music import SAMPLE_RATE, perform  # here: whoever opens a cache needs no synthesizer

    rng = np.random.default_rng([seed, recording.stream])
    sounds = perform(rng, recording.lead, recording.excerpts, with_drums=recording.with_drums)
    for name, sound in zip(recording.names(), sounds, strict=True):
        write_wav(root / recording.code / f"{name}.wav", sound, SAMPLE_RATE)
    return recording.excerpts


def write_wav(path: Path, sound: NDArray[np.int16], rate: int) -> None:
    """(samples,) or (samples, channels), 16 bit. Raises OSError with the file's name."""
    wav = io.BytesIO()
    soundfile.write(wav, sound, rate, subtype="PCM_16", format="WAV")
    with errors_name(path):  # written here, since libsndfile tells little of a full disk
        path.write_bytes(wav.getvalue())


def render(root: Path, size: int, seed: int, on_excerpt: Callable[[int], None] | None = None) -> None:
    """Render a corpus of `size` excerpts (3 s, 44.1 kHz, stereo, 16 bit) as root/<class>/<name>.wav.

    The bytes follow from size, seed and VERSION alone. All cores of this process are used; `on_excerpt` is
    called here with the number of excerpts newly written. `root` appears when everything is in it. What a
    rendering left that was killed is removed: of two at once into one root, the caller lets one wait.
    Raises DataError for a root that exists, a size out of range, or a disk that is full.
    """
    if root.exists():
        raise DataError(f"{root} exists already: name another folder, or remove it to render anew")
    render_all(root, CODES, partial(_write, seed=seed), plan(size, seed), on_excerpt)


def render_all(
    root: Path,
    folders: Iterable[str],
    write: Callable[[Path, T], int],
    items: Sequence[T],
    on_excerpt: Callable[[int], None] | None,
) -> None:
    """`write` every item into an unfinished folder with these subfolders, with every core, which then becomes `root`.

    Raises DataError where the disk is full.
    """
    unfinished = root.with_name(f"{root.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for folder in folders:
            (unfinished / folder).mkdir(parents=True)
        with mapped(partial(write, unfinished), items, path=unfinished, workers=cpu_count(), chunksize=4) as written:
            for excerpts in written:
                if on_excerpt is not None:
                    on_excerpt(excerpts)
        unfinished.rename(root)
    except OSError as error:
        raise DataError(f"{error.filename or unfinished}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
