"""Sound files: what their headers say, and their samples."""

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
"""Seconds that a file may be too short without a remark: many excerpts of IRMAS lack one sample."""
SLACK = 2304
"""Number of samples that an mp3 may lack according to its header: two of its frames."""
UNKNOWN = 2**63 - 1
"""The length that libsndfile reports for a flac that was written to a pipe, and then cannot read."""
UNKNOWN_BYTES = 0x7FFFF000
"""Smallest size of a data chunk that means "unknown": programs that write to a pipe put such a number there."""
MAX_CHUNKS = 10_000
"""Number of chunks to look at: a gigabyte of zeros behind a header reads as a hundred million empty ones."""
CHUNKS = {b"RIFF": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
"""Byte order, and the name of the chunk that holds the samples, by the first bytes of wav and aiff files."""


@dataclass(frozen=True)
class Form:
    """The format and length in a file's header."""

    rate: int
    """Sample rate in Hz."""
    channels: int
    subtype: str
    """The sample format in libsndfile's words, such as PCM_16."""
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    @property
    def kind(self) -> str:
        return f"{self.rate} Hz, {_channels(self.channels)}, {self.subtype}"

    def remarks(self, seconds: float, *, of_irmas: bool) -> list[str]:
        """Return what is odd about a usable file; the expected format is known for IRMAS alone."""
        oddities = {
            f"{self.rate} Hz, resampled": of_irmas and self.rate != 44_100,
            _channels(self.channels): of_irmas and self.channels != 2,
            self.subtype: of_irmas and self.subtype != "PCM_16",
            f"longer than {seconds:g} s, used up to there": self.seconds > seconds + SHORTER_S,
            f"shorter than {seconds:g} s, padded with silence": self.seconds < seconds - SHORTER_S,
        }
        return [remark for remark, is_so in oddities.items() if is_so]


def _channels(number: int) -> str:
    return "1 channel" if number == 1 else f"{number} channels"


def read_form(path: Path) -> Form:
    """Read the header alone. Raise DataError, naming the file, if it is empty, truncated or not a sound file."""
    with opened(path) as file:
        return Form(file.samplerate, file.channels, file.subtype, file.frames)


def read_mono(path: Path) -> tuple[NDArray[np.float32], int]:
    """Return the mean of the channels, and the sample rate in Hz.

    Raise DataError, naming the file, if it is empty, truncated or not a sound file, or if its samples are silent or
    not finite.
    """
    blocks = [np.zeros(0, np.float32)]
    with opened(path) as file:
        # A damaged header may promise more samples than fit in memory. The mean of infinities is refused below.
        with np.errstate(all="ignore"):
            while len(block := file.read(1 << 18, dtype="float32", always_2d=True)):
                blocks.append(mean_of_channels(block))
        mono = np.concatenate(blocks)
        if len(mono) < file.frames - SLACK:
            raise DataError(f"{path}: truncated: the header says {file.frames} samples, the file has {len(mono)}")
        if not len(mono):
            raise DataError(f"{path}: holds no samples")
        if not np.isfinite(mono).all():
            raise DataError(f"{path}: holds samples that are not finite numbers")
        if not mono.any():
            raise DataError(f"{path}: silent: the mean of its channels is zero throughout")
        return mono, file.samplerate


def mean_of_channels(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average the channels: (samples, channels) -> (samples,)."""
    mean: NDArray[np.float32] = np.asfortranarray(block).mean(axis=1)  # numpy takes 5 times as long on the C order
    return mean


@contextmanager
def opened(path: Path) -> Iterator[SoundFile]:
    """Open a sound file. Raise DataError, naming it, if it is empty, truncated or broken, here or in the block."""
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise DataError(f"{path}: empty")
            _refuse_truncated(path, file)
        with SoundFile(os.fsencode(path)) as sound:  # a name need not be text
            if not sound.frames:
                raise DataError(f"{path}: holds no samples")
            if sound.frames == UNKNOWN:
                raise DataError(f"{path}: unknown length (written to a pipe?); re-encode the file")
            yield sound
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except LibsndfileError as error:
        raise DataError(f"{path}: {error.error_string}") from None


def _refuse_truncated(path: Path, file: BinaryIO) -> None:
    """Raise DataError if the samples' chunk is longer than the file: libsndfile silently reads what is left."""
    size = file.seek(0, 2)
    file.seek(0)
    order, samples = CHUNKS.get(file.read(4), ("", b""))
    position = 12
    for _ in range(MAX_CHUNKS if order else 0):
        if position + 8 > size:
            return
        file.seek(position)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        rest = size - position - 8
        if name == samples:
            if rest < length < UNKNOWN_BYTES:
                raise DataError(f"{path}: truncated: the header says {length} bytes of audio, the file has {rest}")
            return
        position += 8 + length + length % 2
