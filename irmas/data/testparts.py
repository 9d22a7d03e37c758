"""IRMAS's test set, in the three parts of its archives: wavs of 5 to 20 s, each with a txt of one label per line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irmas.data.sound import read_form
from irmas.errors import DataError
from irmas.labels import CODES


@dataclass(frozen=True)
class Labeled:
    """A test excerpt, with a label for every instrument in it."""

    path: Path
    labels: list[str]


@dataclass(frozen=True)
class Part:
    excerpts: list[Labeled]
    problems: list[str]
    """One line per file that cannot be used, with the reason."""


def beside(root: Path) -> list[Path]:
    """Return the parts beside the training set, where the download puts them."""
    return sorted(folder for folder in root.parent.glob("IRMAS-TestingData-Part[0-9]") if folder.is_dir())


def read(folder: Path, classes: Sequence[str] = CODES) -> Part:
    """Return every excerpt of a part, sorted by path; labels must be `classes`, and only headers of sounds are read."""
    files = sorted(path for path in folder.rglob("*.*") if not path.name.startswith("."))
    wavs, texts = ({path for path in files if path.suffix == suffix} for suffix in (".wav", ".txt"))
    excerpts, problems = [], []
    for wav in sorted(wavs):
        try:
            read_form(wav)
            excerpts.append(Labeled(wav, read_labels(wav.with_suffix(".txt"), classes)))
        except DataError as error:
            problems.append(str(error))
    problems += [f"{text}: has no wav" for text in sorted(texts) if text.with_suffix(".wav") not in wavs]
    if not wavs:
        problems.append(f"{folder}: holds no wav")
    return Part(excerpts, problems)


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
