"""Sound files: what can be told of one before, and when, it is decoded."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from soundfile import LibsndfileError, SoundFile

from irmas.errors import DataError

SHORTER_S = 0.01
"""So much less than asked for is not worth a word: many excerpts of IRMAS lack one sample."""
SLACK = 2304
"""Samples that an mp3 may hold less than it announces: two of its frames."""
UNKNOWN = 2**63 - 1
"""What libsndfile gives for the length of a flac that was written to a pipe, and then cannot read it."""
BLOCK = 1 << 18
"""Samples read at once."""
OF_A_STREAM = 0x7FFFF000
"""Bytes from which a data chunk's size is no promise: who writes to a pipe does not know it, and gives so many."""
CHUNKS_AT_MOST = 10_000
"""A gigabyte of zeros behind a header reads as a hundred million empty ones."""
CHUNKS = {b"RIFF": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
"""wav and aiff: byte order, and the name of the chunk that holds the samples."""


@dataclass(frozen=True)
class Form:
    """What a file's header tells."""

    rate: int
    """Hz."""
    channels: int
    subtype: str
    """As libsndfile names it: PCM_16."""
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    @property
    def kind(self) -> str:
        return f"{self.rate} Hz, {_channels(self.channels)}, {self.subtype}"

    def remarks(self, seconds: float, *, of_irmas: bool) -> list[str]:
        """What a user should know of a file that is used all the same; IRMAS's form is known, others' is their own."""
        said = []
        if of_irmas and self.rate != 44_100:
            said.append(f"{self.rate} Hz, resampled")
        if of_irmas and self.channels != 2:
            said.append(_channels(self.channels))
        if of_irmas and self.subtype != "PCM_16":
            said.append(self.subtype)
        if self.seconds > seconds + SHORTER_S:
            said.append(f"longer than {seconds:g} s, used up to there")
        if self.seconds < seconds - SHORTER_S:
            said.append(f"shorter than {seconds:g} s, padded with silence")
        return said


def _channels(number: int) -> str:
    return "1 channel" if number == 1 else f"{number} channels"


def read_form(path: Path) -> Form:
    """From the header alone. Raises DataError, naming the file, where it is empty, cut or no sound."""
    with opened(path) as file:
        return Form(file.samplerate, file.channels, file.subtype, file.frames)


def read_mono(path: Path) -> tuple[NDArray[np.float32], int]:
    """The mean of the channels, and the sample rate in Hz.

    Raises DataError, naming the file, where it is empty, cut or no sound, and where its samples are silent or not
    finite.
    """
    with opened(path) as file:
        mono = _read_all(file)
        if len(mono) < file.frames - SLACK:
            raise DataError(f"{path}: cut: announces {file.frames} samples, holds {len(mono)}")
        if not len(mono):
            raise DataError(f"{path}: holds no samples")
        if not np.isfinite(mono).all():
            raise DataError(f"{path}: holds samples that are not finite numbers")
        if not mono.any():
            raise DataError(f"{path}: silent: the mean of its channels is zero throughout")
        return mono, file.samplerate


def _read_all(file: SoundFile) -> NDArray[np.float32]:
    """The mean of the channels. Block by block: memory for all that a damaged header announces is not to be had."""
    blocks = [np.zeros(0, np.float32)]
    with np.errstate(all="ignore"):  # inf - inf
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            blocks.append(mean_of_channels(block))
    return np.concatenate(blocks)


def mean_of_channels(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """(samples, channels) -> (samples,)."""
    mean: NDArray[np.float32] = np.asfortranarray(block).mean(axis=1)  # as they lie, numpy takes 5 times as long
    return mean


@contextmanager
def opened(path: Path) -> Iterator[SoundFile]:
    """Raises DataError, naming the file, where it is empty, cut or no sound; also for what is met while it is open."""
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise DataError(f"{path}: empty")
            _refuse_cut(path, file)
        with SoundFile(os.fsencode(path)) as sound:  # a name need not be text
            if not sound.frames:
                raise DataError(f"{path}: holds no samples")
            if sound.frames == UNKNOWN:
                raise DataError(f"{path}: does not tell its length; encode it anew")
            yield sound
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except LibsndfileError as error:
        raise DataError(f"{path}: {error.error_string}") from None


def _refuse_cut(path: Path, file: BinaryIO) -> None:
    """Raise DataError where the samples' chunk is longer than the file: libsndfile reads what is left, silently."""
    size = file.seek(0, 2)
    file.seek(0)
    order, wanted = CHUNKS.get(file.read(4), ("", b""))
    position = 12
    for _ in range(CHUNKS_AT_MOST if order else 0):
        if position + 8 > size:
            return
        file.seek(position)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if name == wanted:
            if position + 8 + length > size and length < OF_A_STREAM:
                raise DataError(f"{path}: cut: announces {length} bytes of samples, holds {size - position - 8}")
            return
        position += 8 + length + length % 2
