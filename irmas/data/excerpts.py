"""File names on disk -> excerpts, in IRMAS's layout or in any folder with one subfolder per class; IRMAS's test set."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from irmas.config import Data
from irmas.console import counted
from irmas.data.sound import read_form
from irmas.errors import DataError
from irmas.files import read_lines, visible
from irmas.labels import CODES

IRMAS_NAME = re.compile(
    r"(?a)(?:(?P<prefix>\d{3})__)?\[(?P<label>[a-z]{3})\](?:\[(?P<drums>dru|nod|---)\])?\[(?P<genre>[a-z_]+)\]"
    r"(?P<recording>\d{4})__(?P<number>[123])"
)
"""All 6705 training excerpts match. The tags go by their place: `cla` is clarinet first, classical as a genre."""

AUDIO = frozenset({f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"}) | {
    *(".aif", ".aifc", ".oga", ".opus", ".snd", ".sph")
}
"""Endings of what libsndfile reads: the names of its formats, and customary others. Raw samples say no rate."""
SHOWN = 5
"""Number of endings that are named."""


@dataclass(frozen=True)
class Excerpt:
    """A sound file of one class. Excerpts of the same `recording` are not independent."""

    path: Path
    name: str
    label: str
    recording: str


def scan(data: Data, root: Path) -> list[Excerpt]:
    """Return all excerpts below `root`, sorted by class and name.

    Raise DataError with a list of every file that does not fit, or with what the folder lacks.
    """
    if not root.is_dir():
        raise DataError(f"data.root={root}: there is no such folder")
    in_layout = data.source != "folder"
    excerpts, problems = _scan_irmas(root) if in_layout else (_scan_folder(root, data.recordings), [])
    if problems:
        raise DataError(f"data.root={root}: {len(problems)} files do not fit\n  " + "\n  ".join(problems))
    if len({excerpt.label for excerpt in excerpts}) < 2:
        folders = f"subfolders {' '.join(CODES)} with wavs" if in_layout else "one subfolder of sound files per class"
        count = f"found {len(excerpts)} excerpts of fewer than two classes"
        raise DataError(f"data.root={root}: {count}; expected {folders}")
    if twice := sorted(name for name, times in Counter(excerpt.name for excerpt in excerpts).items() if times > 1):
        raise DataError(f"data.root={root}: the same name occurs twice: {' '.join(twice)}")
    return excerpts


def _scan_irmas(root: Path) -> tuple[list[Excerpt], list[str]]:
    """Return the excerpts, and one line per file that does not fit."""
    excerpts, problems = [], []
    for path in _audio_files(root):
        match, label, name = IRMAS_NAME.fullmatch(path.stem), path.parent.name, path.relative_to(root)
        if label not in CODES:
            problems.append(f"{name}: folder name must be one of: {' '.join(CODES)}")
        elif match is None or path.suffix != ".wav":
            problems.append(f"{name}: not a name of IRMAS, such as 008__[cel][nod][cla]0058__1.wav")
        elif match["label"] != label:
            problems.append(f"{name}: the name says {match['label']}, the folder {label}")
        else:
            # By the number and not by the stem: some recordings occur both with and without the prefix.
            excerpts.append(Excerpt(path, path.stem, label, match["recording"]))
    return excerpts, problems


def _scan_folder(root: Path, recordings: str | None) -> list[Excerpt]:
    files = _audio_files(root)
    recording_of = [path.stem for path in files]
    if recordings:
        users = NameList.read(Path(recordings), "recording", "data.recordings")
        recording_of = users.values_of([(path.parent.name, path.stem) for path in files])
    return [
        Excerpt(path, f"{path.parent.name}/{path.stem}", path.parent.name, recording)
        for path, recording in zip(files, recording_of, strict=True)
    ]


def _audio_files(root: Path) -> list[Path]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in AUDIO and not path.name.startswith(".")
    ]


def passed_over(root: Path) -> list[str]:
    """Return one line per kind of files and folders below `root` that `scan` passes over, except hidden ones."""
    entries = sorted(root.glob("[!.]*"))
    folders = [path for path in entries if path.is_dir()]
    others = [path for folder in folders for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() not in AUDIO]
    nested = [path for path in others if path.is_dir()]
    unread = [path for path in others if path not in nested]
    endings = " ".join(sorted({path.suffix or "none" for path in unread})[:SHOWN])
    filled = {path.parent for path in _audio_files(root)}
    kinds = {
        ("file", "beside the class folders"): [path for path in entries if path not in folders],
        ("folder", "inside class folders"): nested,
        ("file", f"with endings that are not read ({endings})"): unread,
        ("class folder", "without sound files"): [path for path in folders if path not in filled],
    }
    return [
        f"left out: {counted(len(paths), noun)} {place}{', such as' if paths[1:] else ':'} "
        + visible(paths[0].relative_to(root))
        for (noun, place), paths in kinds.items()
        if paths
    ]


@dataclass(frozen=True)
class NameList:
    """A user's csv that gives each excerpt a value."""

    title: str
    """The setting and the file, for messages."""
    column: str
    lines: list[tuple[int, str, str]]
    """Line number, name and value."""

    @classmethod
    def read(cls, path: Path, column: str, key: str, allowed: Sequence[str] = ()) -> NameList:
        """Read the list that setting `key` names. Raise DataError, naming the line, for a value that is not allowed."""
        lines = [(number, row["name"], row[column]) for number, row in read_lines(path, ("name", column), key)]
        for number, _, value in lines:
            if not value or (allowed and value not in allowed):
                reason = f"must be {' or '.join(allowed)}" if allowed else "must be given"
                raise DataError(f"{key}={path}: line {number}: {column} is {value or 'empty'}; {reason}")
        return cls(f"{key}={path}", column, lines)

    def values_of(self, excerpts: Sequence[tuple[str, str]]) -> list[str]:
        """Return the value of each excerpt, which is its class and its stem.

        A name in the list is class/stem or, where the stem is of one class, the stem, with or without the ending.
        Raise DataError, naming the line, for a name of several classes, for two values of an excerpt, and for an
        excerpt that is not in the list.
        """
        found: dict[tuple[str, str], tuple[int, str]] = {}
        named = defaultdict[str, set[tuple[str, str]]](set)
        for label, stem in excerpts:
            for name in (stem, f"{label}/{stem}"):
                named[name].add((label, stem))
        strange = ""
        for number, name, value in self.lines:
            meant = named.get(name) or named.get(bare_name(name), set())
            if len(meant) > 1:
                choice = " or ".join(sorted("/".join(excerpt) for excerpt in meant))
                raise DataError(f"{self.title}: line {number}: {name} is of several classes; give {choice}")
            for excerpt in meant:
                first, other = found.setdefault(excerpt, (number, value))
                if other != value:
                    reason = f"{name} has the {self.column} {value}, and {other} in line {first}"
                    raise DataError(f"{self.title}: line {number}: {reason}")
            strange = strange or ("" if meant else f"; line {number}: {name} is no excerpt")
        if lacking := [excerpt for excerpt in excerpts if excerpt not in found]:
            count = f"{counted(len(lacking), 'excerpt')} {'is' if len(lacking) == 1 else 'are'} not in it"
            raise DataError(f"{self.title}: {count}, such as {'/'.join(lacking[0])}{strange}")
        return [found[excerpt][1] for excerpt in excerpts]


def bare_name(name: str) -> str:
    """Remove an audio file's suffix: users' lists name files, excerpts have none."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in AUDIO else name


def listing_digest(excerpts: list[Excerpt], *, times: bool) -> str:
    """Digest names, sizes and, if `times`, modification times, to detect exchanged files without reading them."""
    digest = hashlib.sha256()
    for excerpt in excerpts:
        try:
            stat = excerpt.path.stat()
            size, modified = stat.st_size, stat.st_mtime_ns
        except OSError:  # a dangling link, or removed: reading it raises the error
            size, modified = 0, 0
        digest.update(f"{excerpt.label}/{excerpt.name} {excerpt.recording} {size}".encode())
        digest.update(f" {modified}\n".encode() if times else b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class Labeled:
    """An excerpt of the test set, 5 to 20 s long, with a label for every instrument in it."""

    path: Path
    labels: list[str]


def find_test_parts(root: Path) -> list[Path]:
    """Return the parts of IRMAS's test set beside the training set `root`, where the download puts them."""
    return sorted(folder for folder in root.parent.glob("IRMAS-TestingData-Part[0-9]") if folder.is_dir())


def read_test_part(folder: Path, classes: Sequence[str] = CODES) -> tuple[list[Labeled], list[str]]:
    """Return every excerpt of a part, sorted by path, and one line per file that cannot be used, with the reason.

    Each wav has a txt with one label per line, which must be one of `classes`; only headers of sounds are read.
    """
    files = sorted(path for path in folder.rglob("*.*") if not path.name.startswith("."))
    wavs, texts = ([path for path in files if path.suffix == suffix] for suffix in (".wav", ".txt"))
    excerpts, problems = [], []
    for wav in wavs:
        try:
            read_form(wav)
            excerpts.append(Labeled(wav, read_labels(wav.with_suffix(".txt"), classes)))
        except DataError as error:
            problems.append(str(error))
    problems += [f"{text}: has no wav" for text in texts if text.with_suffix(".wav") not in {*wavs}]
    if not wavs:
        problems.append(f"{folder}: holds no wav")
    return excerpts, problems


def read_labels(path: Path, classes: Sequence[str] = CODES) -> list[str]:
    """Return each label once, in the file's order. Raise DataError, naming the file, for none or an unknown one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file") from None
    labels = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if unknown := [label for label in labels if label not in classes]:
        raise DataError(f"{path}: unknown label {unknown[0][:40]!r}; must be one of: {' '.join(classes)}")
    if not labels:
        raise DataError(f"{path}: holds no label")
    return labels
