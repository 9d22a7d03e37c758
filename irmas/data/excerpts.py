"""File names on disk -> excerpts, in IRMAS's layout or any folder with a subfolder a class."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from irmas.config import Data
from irmas.errors import DataError
from irmas.labels import CODES

IRMAS_NAME = re.compile(
    r"(?a)(?:(?P<prefix>\d{3})__)?\[(?P<label>[a-z]{3})\](?:\[(?P<drums>dru|nod|---)\])?\[(?P<genre>[a-z_]+)\]"
    r"(?P<recording>\d{4})__(?P<number>[123])"
)
"""All 6705 training excerpts match. The tags go by their place: `cla` is clarinet first, classical as a genre."""

AUDIO = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})


@dataclass(frozen=True)
class Excerpt:
    """One file. `recording` is what it was cut from: excerpts of one recording are not independent."""

    path: Path
    name: str
    label: str
    recording: str


def scan(data: Data, root: Path) -> list[Excerpt]:
    """All excerpts below `root`, sorted by class and name.

    Raises DataError, listing every file that does not fit, or naming what the folder lacks.
    """
    if not root.is_dir():
        raise DataError(f"data.root={root}: there is no such folder")
    return _scan_folder(root, data.recordings) if data.source == "folder" else _scan_irmas(root)


def _scan_irmas(root: Path) -> list[Excerpt]:
    excerpts, problems = [], []
    for path in _audio_files(root):
        match = IRMAS_NAME.fullmatch(path.stem)
        label = path.parent.name
        if label not in CODES:
            problems.append(f"{path.relative_to(root)}: the folder is none of {' '.join(CODES)}")
        elif match is None or path.suffix != ".wav":
            problems.append(f"{path.relative_to(root)}: not a name of IRMAS, such as 008__[cel][nod][cla]0058__1.wav")
        elif match["label"] != label:
            problems.append(f"{path.relative_to(root)}: the name says {match['label']}, the folder {label}")
        else:
            # By the number and not by the stem: some recordings occur both with and without the prefix.
            excerpts.append(Excerpt(path, path.stem, label, match["recording"]))
    if problems:
        raise DataError(f"data.root={root}: {len(problems)} files do not fit\n  " + "\n  ".join(problems))
    return _enough(excerpts, root, f"subfolders {' '.join(CODES)} with wav files")


def _scan_folder(root: Path, recordings: str | None) -> list[Excerpt]:
    known = _read_recordings(Path(recordings)) if recordings else {}
    excerpts, problems = [], []
    for path in _audio_files(root):
        name = path.relative_to(root).with_suffix("").as_posix()
        recording = known.get(name, known.get(path.stem)) if recordings else path.stem
        if not recording:
            problems.append(f"{name}: has no line in data.recordings={recordings}, nor has {path.stem}")
        else:
            excerpts.append(Excerpt(path, name, path.parent.name, recording))
    if problems:
        raise DataError(f"data.root={root}: {len(problems)} files do not fit\n  " + "\n  ".join(problems))
    return _enough(excerpts, root, f"a subfolder a class, with files such as {' '.join(sorted(AUDIO))}")


def _audio_files(root: Path) -> list[Path]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in AUDIO and not path.name.startswith(".")
    ]


def _enough(excerpts: list[Excerpt], root: Path, wanted: str) -> list[Excerpt]:
    if len({excerpt.label for excerpt in excerpts}) < 2:
        raise DataError(
            f"data.root={root}: found {len(excerpts)} excerpts of fewer than two classes; wanted are {wanted}"
        )
    twice = sorted(name for name, times in Counter(excerpt.name for excerpt in excerpts).items() if times > 1)
    if twice:
        raise DataError(f"data.root={root}: the same name occurs twice: {' '.join(twice)}")
    return excerpts


def _read_recordings(path: Path) -> dict[str, str]:
    """Raises DataError naming the file and the column that it lacks."""
    rows = read_table(path, ("name", "recording"), "data.recordings")
    return {bare_name(row["name"]): row["recording"] for row in rows}


def bare_name(name: str) -> str:
    """Without an audio file's ending: users' lists name files, we name excerpts."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in AUDIO else name


def read_table(path: Path, columns: tuple[str, ...], key: str = "") -> list[dict[str, str]]:
    """The rows of a csv; `key` is the setting that names it, if one does.

    Raises DataError, naming setting and file, where it is absent or lacks a value.
    """
    named = f"{key}={path}" if key else f"{path}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{named}: the column {', '.join(sorted(missing))} is missing; wanted are {', '.join(columns)}"
                )
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{named}: {error}") from None
    short = [number for number, row in enumerate(rows, start=2) if any(row[column] is None for column in columns)]
    if short:
        raise DataError(f"{named}: line {short[0]} has fewer values than the first line has columns")
    return rows


def listing_digest(excerpts: list[Excerpt], *, times: bool) -> str:
    """Of names, sizes and, on request, modification times: tells whether files were exchanged without reading them."""
    digest = hashlib.sha256()
    for excerpt in excerpts:
        try:
            stat = excerpt.path.stat()
            size, modified = stat.st_size, stat.st_mtime_ns
        except OSError:  # a link to nothing, or gone: who reads it says so
            size, modified = 0, 0
        digest.update(f"{excerpt.label}/{excerpt.name} {excerpt.recording} {size}".encode())
        digest.update(f" {modified}\n".encode() if times else b"\n")
    return digest.hexdigest()
