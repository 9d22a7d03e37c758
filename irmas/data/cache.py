"""The feature cache: features.npy (excerpts, bands, frames), clips.csv (a line a row), features.json (the front end).

Built once, opened memory-mapped by many. The format is that of other people's caches too, which are only read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irmas.config import Features
from irmas.data.excerpts import Excerpt, listing_digest, read_table
from irmas.errors import DataError
from irmas.files import locked
from irmas.processes import cpu_count, fork_server, uninterrupted, when_parent_ends

VERSION = 1
"""Raise it whenever the same files and settings give other bytes: caches of other versions are built anew."""

FEATURES, CLIPS, SETTINGS = "features.npy", "clips.csv", "features.json"
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

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.labels))

    @cached_property
    def row_digests(self) -> list[bytes]:
        """Equal where the log-mels are identical."""
        return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in self.features]


def key(excerpts: list[Excerpt], features: Features) -> str:
    """Name of the cache of these files and settings; another one when either changes."""
    settings = json.dumps([VERSION, asdict(features)], sort_keys=True)
    return hashlib.sha256((settings + listing_digest(excerpts, times=True)).encode()).hexdigest()[:16]


def build(excerpts: list[Excerpt], features: Features, folder: Path, on_excerpts: Callable[[int], None]) -> None:
    """Compute the cache with every core; processes that start at once build it once, the others wait.

    The folder appears by a rename when it is complete: a builder that is killed leaves nothing that looks finished.
    Raises DataError, listing every file that cannot be read, or where the folder cannot be written.
    """
    with locked(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            return
        partial_folder = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(partial_folder, ignore_errors=True)
        partial_folder.mkdir()
        problems = _compute(excerpts, features, partial_folder / FEATURES, on_excerpts)
        if problems:
            shutil.rmtree(partial_folder)
            raise DataError(f"{len(problems)} of {len(excerpts)} excerpts cannot be used\n  " + "\n  ".join(problems))
        (partial_folder / CLIPS).write_text(_clips_csv(excerpts), encoding="utf-8")
        (partial_folder / SETTINGS).write_text(json.dumps(_settings(features), indent=2) + "\n")
        partial_folder.rename(folder)


def _compute(excerpts: list[Excerpt], features: Features, path: Path, on_excerpts: Callable[[int], None]) -> list[str]:
    """Fill features.npy; the problems found."""
    shape = (len(excerpts), features.n_mels, features.n_frames)
    try:
        np.lib.format.open_memmap(path, mode="w+", dtype=features.dtype, shape=shape).flush()
        with path.open("r+b") as file:  # a disk that fills up under mapped memory kills the worker with SIGBUS
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None
    chunks = [range(start, min(start + CHUNK, len(excerpts))) for start in range(0, len(excerpts), CHUNK)]
    problems = []
    workers = min(cpu_count(), len(chunks))
    with ProcessPoolExecutor(workers, mp_context=fork_server(), initializer=_begin_worker) as pool:
        try:
            with uninterrupted():
                paths = ([excerpts[row].path for row in chunk] for chunk in chunks)
                found = pool.map(partial(_fill, path, features), chunks, paths)
            for chunk, in_chunk in zip(chunks, found, strict=True):
                problems += in_chunk
                on_excerpts(len(chunk))
        except BaseException:  # Ctrl-C or a full disk need not wait for the other chunks
            pool.shutdown(cancel_futures=True)
            raise
    return problems


def _begin_worker() -> None:
    """It would wait for work forever where its parent was killed."""
    when_parent_ends(lambda: os._exit(1))


def _fill(path: Path, features: Features, rows: range, files: list[Path]) -> list[str]:
    """In a worker: compute some rows."""
    import torch  # here, so that opening a cache does not need it

    from irmas.data.features import LogMel, encode, read_waveform

    torch.set_num_threads(1)
    stored = np.load(path, mmap_mode="r+")
    log_mel = LogMel(features)
    problems = []
    for row, file in zip(rows, files, strict=True):
        try:
            waveform, rate = read_waveform(file)
            stored[row] = encode(log_mel(waveform[None], rate)[0], features)
        except DataError as error:
            problems.append(str(error))
    stored.flush()
    return problems


def _clips_csv(excerpts: list[Excerpt]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "label", "recording"])
    writer.writerows([excerpt.name, excerpt.label, excerpt.recording] for excerpt in excerpts)
    return text.getvalue()


def _settings(features: Features) -> dict[str, Any]:
    told = {"n_frames": features.n_frames, "db_reference": "clip maximum"}
    return asdict(features) | told | {"scale": features.scale, "offset": features.offset}


def front_end(folder: Path, features: Features) -> Features:
    """The front end that a ready-made cache was computed with, as its features.json tells it.

    What the file does not tell keeps the value of `features`, but for `resampling`, which is then unknown.
    Raises DataError where the folder or the file is missing or lacks a value.
    """
    told = _read_settings(folder)
    told = {"resampling": None, "top_db": -told["offset"] or features.top_db} | told
    return replace(features, **{entry.name: told[entry.name] for entry in fields(Features) if entry.name in told})


def _read_settings(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(f"data.cache={folder}: there is no such folder")
    try:
        told = json.loads((folder / SETTINGS).read_text())
        missing = {"sample_rate", "n_fft", "hop_length", "n_mels", "scale", "offset", "dtype"} - set(told)
    except (OSError, ValueError) as error:
        raise DataError(f"data.cache={folder}: {SETTINGS} cannot be read ({error})") from None
    if missing:
        raise DataError(f"data.cache={folder}: {SETTINGS} lacks {', '.join(sorted(missing))}")
    return told  # type: ignore[no-any-return]


def open_cache(folder: Path) -> FeatureCache:
    """Raises DataError, with the reason, where the three files are not there or do not fit together."""
    told = _read_settings(folder)
    try:
        # Copy-on-write: torch wants writable memory, the file is never written.
        features = np.lib.format.open_memmap(folder / FEATURES, mode="c")
    except (OSError, ValueError) as error:
        raise DataError(f"data.cache={folder}: {FEATURES} cannot be read ({error})") from None
    if features.ndim != 3 or features.shape[1] != told["n_mels"] or features.dtype.name != told["dtype"]:
        raise DataError(
            f"data.cache={folder}: {FEATURES} is {features.dtype} {features.shape}, "
            f"{SETTINGS} says {told['dtype']} with {told['n_mels']} bands"
        )
    columns = ("name", "label", "recording")
    clips = read_table(folder / CLIPS, columns, "data.cache")
    if len(clips) != len(features):
        raise DataError(f"data.cache={folder}: {FEATURES} has {len(features)} rows, {CLIPS} describes {len(clips)}")
    names, labels, recordings = ([row[column] for row in clips] for column in columns)
    return FeatureCache(folder, features, names, labels, recordings, float(told["scale"]), float(told["offset"]))


def digest(folder: Path) -> str:
    """Of a ready-made cache's three files."""
    state = hashlib.sha256()
    for name in (FEATURES, CLIPS, SETTINGS):
        with (folder / name).open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()
