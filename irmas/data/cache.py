"""The feature cache: features.npy (excerpts, bands, frames), clips.csv (a line a row), features.json (the front end).

Built once, opened memory-mapped by many. The format is that of other people's caches too, which are only read. Where
excerpts were left out, left_out.csv says which, and why.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irmas.config import Features
from irmas.data.excerpts import Excerpt, listing_digest, read_table
from irmas.data.workers import mapped
from irmas.errors import DataError
from irmas.files import atomic_write, errors_name, locked
from irmas.processes import cpu_count

log = logging.getLogger(__name__)

VERSION = 2
"""Raise it whenever the same files and settings give other bytes: caches of other versions are built anew."""

FEATURES, CLIPS, SETTINGS, LEFT_OUT = "features.npy", "clips.csv", "features.json", "left_out.csv"
COLUMNS = ("name", "label", "recording")
NUMBERS = ("sample_rate", "n_fft", "hop_length", "n_mels", "scale", "offset")
"""What a features.json tells at least, besides the dtype."""
CHUNK = 32
"""Excerpts a worker handles before it reports."""


@dataclass(frozen=True)
class FeatureCache:
    """An open cache. Decibels = scale * features + offset."""

    folder: Path
    features: NDArray[Any]
    """(excerpts, bands, frames), uint8 or float16, memory-mapped; band 0 is the lowest."""
    names: list[str]
    labels: list[str]
    recordings: list[str]
    scale: float
    offset: float
    left_out: dict[str, str] = field(default_factory=dict)
    """Excerpts that cannot be used, by name, and why."""

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.labels))

    @cached_property
    def row_digests(self) -> list[bytes]:
        """Equal where the log-mels are identical."""
        return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in self.features]


def key(excerpts: list[Excerpt], features: Features, damaged: str = "refuse") -> str:
    """Name of the cache of these files and settings; another one when either changes."""
    settings = json.dumps([VERSION, asdict(features), damaged], sort_keys=True)
    return hashlib.sha256((settings + listing_digest(excerpts, times=True)).encode()).hexdigest()[:16]


def flaw(folder: Path, excerpts: list[Excerpt], features: Features) -> str | None:
    """Why a cache of ours is not what `build` makes of these excerpts; None where it is. No log-mel is read."""
    try:
        opened, told = open_cache(folder), _read_settings(folder)
    except DataError as error:
        return str(error)
    if told != _settings(features) or opened.features.shape[2] != features.n_frames:
        return f"{folder}: was computed with other settings"
    rows = list(zip(opened.names, opened.labels, opened.recordings, strict=True))
    left = [excerpt for excerpt in excerpts if excerpt.name not in opened.left_out]
    if len(rows) + len(opened.left_out) != len(excerpts) or rows != _rows(left):
        return f"{folder}: {CLIPS} names other excerpts than there are"
    return None


def build(
    excerpts: list[Excerpt],
    features: Features,
    folder: Path,
    on_excerpts: Callable[[int], None],
    damaged: str = "refuse",
) -> None:
    """Compute the cache with every core, unless a sound one is there; of processes that start at once one does.

    The folder appears by a rename when it is complete: a builder that is killed leaves nothing that looks finished.
    A damaged folder is replaced: processes that have it mapped keep what they have.

    Raises DataError, listing every file that cannot be used unless `damaged` is drop, or where the disk is full.
    """
    with locked(folder.with_name(f"{folder.name}.lock")):
        reason = flaw(folder, excerpts, features)
        if reason is None:
            return
        if folder.exists():
            log.warning("%s; it is built anew", reason)
        partial_folder, old = (folder.with_name(f"{folder.name}.{state}") for state in ("part", "old"))
        try:
            for left in (partial_folder, old):  # by a builder that was killed
                shutil.rmtree(left, ignore_errors=True)
            partial_folder.mkdir()
            _write(excerpts, features, partial_folder, on_excerpts, damaged)
            if folder.exists():
                folder.rename(old)
            partial_folder.rename(folder)
        except OSError as error:
            raise DataError(f"{error.filename or partial_folder}: cannot be written ({error.strerror})") from None
        finally:
            for left in (partial_folder, old):
                shutil.rmtree(left, ignore_errors=True)


def _write(
    excerpts: list[Excerpt], features: Features, folder: Path, on_excerpts: Callable[[int], None], damaged: str
) -> None:
    """The cache's files. Raises DataError as `build` does, and OSError, mostly with the file's name."""
    problems = _compute(excerpts, features, folder / FEATURES, on_excerpts)
    kept = [row for row in range(len(excerpts)) if row not in problems]
    if problems:
        listed = "".join(f"\n  {excerpts[row].path}: {reason}" for row, reason in sorted(problems.items()))
        said = f"{len(problems)} of {len(excerpts)} excerpts cannot be used"
        if damaged != "drop":
            raise DataError(f"{said}; data.damaged=drop leaves them out{listed}")
        if len({excerpts[row].label for row in kept}) < 2:
            raise DataError(f"{said}, and what is left has fewer than two classes{listed}")
        _keep(folder / FEATURES, kept)
        left_out = [(excerpts[row].name, reason) for row, reason in sorted(problems.items())]
        atomic_write(folder / LEFT_OUT, _as_csv(("name", "reason"), left_out))
    atomic_write(folder / CLIPS, _as_csv(COLUMNS, _rows([excerpts[row] for row in kept])))
    atomic_write(folder / SETTINGS, json.dumps(_settings(features), indent=2) + "\n")


def _compute(
    excerpts: list[Excerpt], features: Features, path: Path, on_excerpts: Callable[[int], None]
) -> dict[int, str]:
    """Fill features.npy; the rows that have no log-mel, and why."""
    shape = (len(excerpts), features.n_mels, features.n_frames)
    with errors_name(path):
        np.lib.format.open_memmap(path, mode="w+", dtype=features.dtype, shape=shape).flush()
        with path.open("r+b") as file:  # a disk that fills up under mapped memory kills the worker with SIGBUS
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    chunks = [range(start, min(start + CHUNK, len(excerpts))) for start in range(0, len(excerpts), CHUNK)]
    problems: dict[int, str] = {}
    workers = min(cpu_count(), len(chunks))
    paths = ([excerpts[row].path for row in chunk] for chunk in chunks)
    with mapped(partial(_fill, path, features), chunks, paths, path=path, workers=workers) as found:
        for chunk, in_chunk in zip(chunks, found, strict=True):
            problems |= in_chunk
            on_excerpts(len(chunk))
    return problems


def _keep(path: Path, rows: Sequence[int]) -> None:
    """Leave only these rows in features.npy, where they are: the disk need not hold them twice."""
    stored = np.load(path, mmap_mode="r+")
    for place, row in enumerate(rows):
        stored[place] = stored[row]
    stored.flush()
    header = {"descr": stored.dtype.str, "fortran_order": False, "shape": (len(rows), *stored.shape[1:])}
    with path.open("r+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        assert file.tell() == stored.offset  # numpy leaves room for the number of rows
        file.truncate(stored.offset + len(rows) * stored[0].nbytes)


def _fill(path: Path, features: Features, rows: range, files: list[Path]) -> dict[int, str]:
    """In a worker: compute some rows; those that have no log-mel, and why."""
    import torch  # here, so that opening a cache does not need it

    from irmas.data.features import LogMel, encode, read_waveform

    torch.set_num_threads(1)
    stored = np.load(path, mmap_mode="r+")
    log_mel = LogMel(features)
    problems = {}
    for row, file in zip(rows, files, strict=True):
        try:
            waveform, rate = read_waveform(file)
            decibels = log_mel(waveform[None], rate)[0]
            if decibels.min() == decibels.max():
                raise DataError(f"{file}: nothing is to be heard in its first {features.seconds:g} s")
            stored[row] = encode(decibels, features)
        except DataError as error:
            problems[row] = str(error).removeprefix(f"{file}: ")
    stored.flush()
    return problems


def _rows(excerpts: list[Excerpt]) -> list[tuple[str, str, str]]:
    return [(excerpt.name, excerpt.label, excerpt.recording) for excerpt in excerpts]


def _as_csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def _settings(features: Features) -> dict[str, Any]:
    told = {"n_frames": features.n_frames, "db_reference": "clip maximum"}
    return asdict(features) | told | {"scale": features.scale, "offset": features.offset}


def front_end(folder: Path, features: Features) -> Features:
    """The front end that a ready-made cache was computed with, as its features.json tells it.

    What the file does not tell keeps the value of `features`, but for `resampling`, which is then unknown.
    Raises DataError where the folder or the file is missing or lacks a value.
    """
    with _named_by_the_user():
        told = _read_settings(folder)
    told = {"resampling": None, "top_db": -told["offset"] or features.top_db} | told
    return replace(features, **{entry.name: told[entry.name] for entry in fields(Features) if entry.name in told})


def _read_settings(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    try:
        told = json.loads((folder / SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: {SETTINGS} cannot be read ({error})") from None
    if not isinstance(told, dict):
        raise DataError(f"{folder}: {SETTINGS} holds no settings")
    missing = {*NUMBERS, "dtype"} - set(told)
    if missing:
        raise DataError(f"{folder}: {SETTINGS} lacks {', '.join(sorted(missing))}")
    for name in NUMBERS:
        if not isinstance(told[name], int | float):
            raise DataError(f"{folder}: {SETTINGS} says {name}={told[name]}, which is no number")
    return told


def open_cache(folder: Path) -> FeatureCache:
    """Raises DataError, with the reason, where the files are not there or do not fit together."""
    told = _read_settings(folder)
    try:
        # Copy-on-write: torch wants writable memory, the file is never written.
        features = np.lib.format.open_memmap(folder / FEATURES, mode="c")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: {FEATURES} cannot be read ({error})") from None
    if features.ndim != 3 or features.shape[1] != told["n_mels"] or features.dtype.name != told["dtype"]:
        raise DataError(
            f"{folder}: {FEATURES} is {features.dtype} {features.shape}, "
            f"{SETTINGS} says {told['dtype']} with {told['n_mels']} bands"
        )
    clips = read_table(folder / CLIPS, COLUMNS)
    if len(clips) != len(features):
        raise DataError(f"{folder}: {FEATURES} has {len(features)} rows, {CLIPS} describes {len(clips)}")
    names, labels, recordings = ([row[column] for row in clips] for column in COLUMNS)
    table = read_table(folder / LEFT_OUT, ("name", "reason")) if (folder / LEFT_OUT).exists() else []
    left_out = {row["name"]: row["reason"] for row in table}
    scale, offset = float(told["scale"]), float(told["offset"])
    return FeatureCache(folder, features, names, labels, recordings, scale, offset, left_out)


def open_named(folder: Path) -> FeatureCache:
    """The cache that data.cache names. Raises DataError, with the setting, as `open_cache` does."""
    with _named_by_the_user():
        return open_cache(folder)


@contextmanager
def _named_by_the_user() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"data.cache={error}") from None


def digest(folder: Path) -> str:
    """Of a ready-made cache's three files."""
    state = hashlib.sha256()
    for name in (FEATURES, CLIPS, SETTINGS):
        with (folder / name).open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()
