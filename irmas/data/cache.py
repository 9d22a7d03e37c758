"""The feature cache: features.npy (excerpts, bands, frames), clips.csv (one line per row), features.json (front end).

Built once, opened memory-mapped by many. Caches of other tools have the same format and are only read. If excerpts
were left out, left_out.csv lists them with the reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irmas.config import Features
from irmas.console import SILENT, Progress
from irmas.data.excerpts import Excerpt, listing_digest
from irmas.errors import DataError
from irmas.files import atomic_write, errors_name, locked, read_csv, write_csv
from irmas.processes import cpu_count, mapped

log = logging.getLogger(__name__)

VERSION = 2
"""Part of a cache's key: raise it whenever the same files and settings give other bytes."""

FEATURES, CLIPS, SETTINGS, LEFT_OUT = "features.npy", "clips.csv", "features.json", "left_out.csv"
COLUMNS = ("name", "label", "recording")
NUMBERS = ("sample_rate", "n_fft", "hop_length", "n_mels", "scale", "offset")
"""The values that a features.json must have, besides the dtype."""
CHUNK = 32
"""Number of excerpts that a worker computes before it reports."""


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
    """The reasons why excerpts cannot be used, by name."""

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.labels))


def key(excerpts: list[Excerpt], features: Features, damaged: str = "refuse") -> str:
    """Return the name of the cache of these files and settings; it changes with either."""
    settings = json.dumps([VERSION, asdict(features), damaged], sort_keys=True)
    return hashlib.sha256((settings + listing_digest(excerpts, times=True)).encode()).hexdigest()[:16]


def flaw(folder: Path, excerpts: list[Excerpt], features: Features) -> str | None:
    """Return how a cache differs from what `build` makes of these excerpts, or None. Log-mels are not read."""
    try:
        opened, settings = open_cache(folder), _read_settings(folder)
    except DataError as error:
        return str(error)
    if settings != _settings(features) or opened.features.shape[2] != features.n_frames:
        return f"{folder}: was computed with other settings"
    rows = list(zip(opened.names, opened.labels, opened.recordings, strict=True))
    used = [excerpt for excerpt in excerpts if excerpt.name not in opened.left_out]
    if len(rows) + len(opened.left_out) != len(excerpts) or rows != _rows(used):
        return f"{folder}: {CLIPS} names other excerpts than the data set has"
    return None


def build(
    excerpts: list[Excerpt], features: Features, folder: Path, progress: Progress = SILENT, damaged: str = "refuse"
) -> bool:
    """Compute the cache with every core, unless a sound one exists; return whether it was computed here.

    Of processes that start at once, one computes. The folder appears by a rename when it is complete: a builder that is
    killed leaves nothing that looks finished. A damaged folder is replaced; processes that have it mapped keep it.
    Raise DataError if the disk is full, or, unless `damaged` is drop, with a list of all files that cannot be used.
    """
    if flaw(folder, excerpts, features) is None:  # checked without the lock, since the folder may be read-only
        return False
    with locked(folder.with_name(f"{folder.name}.lock")):
        reason = flaw(folder, excerpts, features)
        if reason is None:
            return False
        if folder.exists():
            log.warning("%s; rebuilding it", reason)
        progress.start("log-mels", len(excerpts))
        unfinished, old = (folder.with_name(f"{folder.name}.{state}") for state in ("part", "old"))
        try:
            for leftover in (unfinished, old):  # of a builder that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            unfinished.mkdir()
            _write(excerpts, features, unfinished, progress, damaged)
            if folder.exists():
                folder.rename(old)
            unfinished.rename(folder)
        except OSError as error:
            raise DataError(f"{error.filename or unfinished}: cannot be written ({error.strerror})") from None
        finally:
            for leftover in (unfinished, old):
                shutil.rmtree(leftover, ignore_errors=True)
    return True


def _write(excerpts: list[Excerpt], features: Features, folder: Path, progress: Progress, damaged: str) -> None:
    """Write the cache's files. Raise DataError as `build` does, and OSError, mostly with the file's name."""
    problems = _compute(excerpts, features, folder / FEATURES, progress)
    kept = [row for row in range(len(excerpts)) if row not in problems]
    if problems:
        listed = "".join(f"\n  {excerpts[row].path}: {reason}" for row, reason in sorted(problems.items()))
        message = f"{len(problems)} of {len(excerpts)} excerpts cannot be used"
        if damaged != "drop":
            raise DataError(f"{message}; data.damaged=drop leaves them out{listed}")
        if len({excerpts[row].label for row in kept}) < 2:
            raise DataError(f"{message}, and the remaining ones have fewer than two classes{listed}")
        np.save(folder / FEATURES, np.load(folder / FEATURES, mmap_mode="r")[kept])
        left_out = [(excerpts[row].name, reason) for row, reason in sorted(problems.items())]
        write_csv(folder / LEFT_OUT, ("name", "reason"), left_out)
    write_csv(folder / CLIPS, COLUMNS, _rows([excerpts[row] for row in kept]))
    atomic_write(folder / SETTINGS, json.dumps(_settings(features), indent=2) + "\n")


def _compute(excerpts: list[Excerpt], features: Features, path: Path, progress: Progress) -> dict[int, str]:
    """Fill features.npy; return the rows that have no log-mel, with the reason."""
    shape = (len(excerpts), features.n_mels, features.n_frames)
    with errors_name(path):
        np.lib.format.open_memmap(path, mode="w+", dtype=features.dtype, shape=shape).flush()
        with path.open("r+b") as file:  # a disk that fills up under mapped memory kills the worker with SIGBUS
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    paths = [excerpt.path for excerpt in excerpts]
    chunks = [dict(enumerate(paths[start : start + CHUNK], start)) for start in range(0, len(paths), CHUNK)]
    problems: dict[int, str] = {}
    workers = min(cpu_count(), len(chunks))
    with mapped(partial(_fill, path, features), chunks, path=path, workers=workers) as results:
        for chunk, in_chunk in zip(chunks, results, strict=True):
            problems |= in_chunk
            progress.advance(len(chunk))
    return problems


def _fill(path: Path, features: Features, files: dict[int, Path]) -> dict[int, str]:
    """Compute the rows of some files in a worker; return those that have no log-mel, with the reason."""
    import torch  # here, so that opening a cache does not need it

    from irmas.data.features import LogMel, encode, read_waveform

    torch.set_num_threads(1)
    stored = np.load(path, mmap_mode="r+")
    log_mel = LogMel(features)
    problems = {}
    for row, file in files.items():
        try:
            waveform, rate = read_waveform(file)
            decibels = log_mel(waveform[None], rate)[0]
            if decibels.min() == decibels.max():
                raise DataError(f"{file}: silent in the first {features.seconds:g} s")
            stored[row] = encode(decibels, features)
        except DataError as error:
            problems[row] = str(error).removeprefix(f"{file}: ")
    stored.flush()
    return problems


def _rows(excerpts: list[Excerpt]) -> list[tuple[str, str, str]]:
    return [(excerpt.name, excerpt.label, excerpt.recording) for excerpt in excerpts]


def _settings(features: Features) -> dict[str, Any]:
    derived = {"n_frames": features.n_frames, "db_reference": "clip maximum"}
    return asdict(features) | derived | {"scale": features.scale, "offset": features.offset}


def front_end(folder: Path, features: Features) -> Features:
    """Return the front end that a ready-made cache was computed with, according to its features.json.

    Missing entries keep the value of `features`, except for `resampling`, which is then unknown (None).
    Raise DataError if the folder or the file is missing or lacks a value.
    """
    settings = _read_settings(folder, "data.cache")
    settings = {"resampling": None, "top_db": -settings["offset"] or features.top_db} | settings
    return replace(features, **{name: settings[name] for name in asdict(features) if name in settings})


def _read_settings(folder: Path, key: str = "") -> dict[str, Any]:
    name = f"{key}={folder}" if key else f"{folder}"
    if not folder.is_dir():
        raise DataError(f"{name}: there is no such folder")
    try:
        settings = json.loads((folder / SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {SETTINGS} cannot be read ({error})") from None
    if not isinstance(settings, dict):
        raise DataError(f"{name}: {SETTINGS} holds no settings")
    if missing := sorted({*NUMBERS, "dtype"} - set(settings)):
        raise DataError(f"{name}: {SETTINGS} lacks {', '.join(missing)}")
    for number in NUMBERS:
        if not isinstance(settings[number], int | float):
            raise DataError(f"{name}: {SETTINGS} says {number}={settings[number]}, which is not a number")
    return settings


def open_cache(folder: Path, key: str = "") -> FeatureCache:
    """Open a cache; `key` is the setting that names it, for messages.

    Raise DataError, with the reason, if files are missing or do not fit together.
    """
    settings = _read_settings(folder, key)
    name = f"{key}={folder}" if key else f"{folder}"
    try:
        # Copy-on-write: torch wants writable memory, the file is never written.
        features = np.lib.format.open_memmap(folder / FEATURES, mode="c")
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {FEATURES} cannot be read ({error})") from None
    n_mels, dtype = settings["n_mels"], settings["dtype"]
    if features.ndim != 3 or features.shape[1] != n_mels or features.dtype.name != dtype:
        stored = f"{features.dtype} {features.shape}"
        raise DataError(f"{name}: {FEATURES} is {stored}, {SETTINGS} says {dtype} with {n_mels} bands")
    clips = read_csv(folder / CLIPS, COLUMNS, key)
    if len(clips) != len(features):
        raise DataError(f"{name}: {FEATURES} has {len(features)} rows, {CLIPS} describes {len(clips)}")
    names, labels, recordings = ([row[column] for row in clips] for column in COLUMNS)
    table = read_csv(folder / LEFT_OUT, ("name", "reason"), key) if (folder / LEFT_OUT).exists() else []
    left_out = {row["name"]: row["reason"] for row in table}
    scale, offset = float(settings["scale"]), float(settings["offset"])
    return FeatureCache(folder, features, names, labels, recordings, scale, offset, left_out)


def digest(folder: Path) -> str:
    """Return the digest of a ready-made cache's three files."""
    state = hashlib.sha256()
    for name in (FEATURES, CLIPS, SETTINGS):
        with (folder / name).open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()
