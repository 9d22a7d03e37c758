"""IRMAS's test set, in the three parts of its archives: a wav of 5 to 20 s, and a txt with its labels, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irmas.data.sound import read_form
from irmas.errors import DataError
from irmas.files import errors_name
from irmas.labels import CODES


@dataclass(frozen=True)
class Labelled:
    """A test excerpt: every instrument that is heard in it has a label."""

    path: Path
    labels: list[str]


@dataclass(frozen=True)
class Part:
    folder: Path
    excerpts: list[Labelled]
    problems: list[str]
    """A line a file that cannot be used, with the reason."""


def beside(root: Path) -> list[Path]:
    """The parts that lie beside the training set, where the download puts them."""
    return sorted(folder for folder in root.parent.glob("IRMAS-TestingData-Part[0-9]") if folder.is_dir())


def read(folder: Path, known: Sequence[str] = CODES) -> Part:
    """Every excerpt of a part, sorted by path; its labels are `known` ones. Of the sound only the header is read."""
    files = sorted(path for path in folder.rglob("*.*") if not path.name.startswith("."))
    wavs, texts = ({path for path in files if path.suffix == suffix} for suffix in (".wav", ".txt"))
    excerpts, problems = [], []
    for wav in sorted(wavs):
        try:
            read_form(wav)
            excerpts.append(Labelled(wav, read_labels(wav.with_suffix(".txt"), known)))
        except DataError as error:
            problems.append(str(error))
    problems += [f"{text}: has no wav" for text in sorted(texts) if text.with_suffix(".wav") not in wavs]
    if not wavs:
        problems.append(f"{folder}: holds no wav")
    return Part(folder, excerpts, problems)


def write_labels(path: Path, labels: Sequence[str]) -> None:
    """Raises OSError with the file's name."""
    with errors_name(path):
        path.write_text("".join(f"{label}\n" for label in labels))


def read_labels(path: Path, known: Sequence[str] = CODES) -> list[str]:
    """Each label once, in the file's order. Raises DataError, naming the file, for none and for an unknown one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text") from None
    labels = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise DataError(f"{path}: unknown label {unknown[0][:40]!r}; known are {' '.join(known)}")
    if not labels:
        raise DataError(f"{path}: holds no label")
    return labels
