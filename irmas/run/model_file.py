"""A trained net as one file, model.pt: its weights and all that is needed to use them elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from irmas.config import Config, Features, Model
from irmas.errors import DataError, UserError
from irmas.provenance import versions
from irmas.run.checkpoint import read_numbers, write_numbers

VERSION = 1
"""Raise it whenever what a model file holds changes its meaning."""


@dataclass(frozen=True)
class ModelFile:
    """A net and its front end, rebuilt from `model`, `features` and `pool`, and where they come from."""

    weights: dict[str, Tensor]
    """The net's state_dict, on the CPU, with the normalization (mean_db, std_db)."""
    classes: list[str]
    """The class of each output."""
    model: Model
    features: Features
    pool: int
    config: dict[str, Any]
    """All settings of the run, flat, for people and for finding the data again."""
    trained_on: list[str]
    """Names of the training excerpts: accuracy on them says nothing."""
    recordings: list[str]
    """The recordings of those excerpts; recordings that share an identical excerpt have one name."""
    metrics: dict[str, float]
    """The last epoch's scalars by tag."""
    versions: dict[str, str]
    """Versions of the libraries that trained it."""
    self_test: list[list[float]] = field(default_factory=list)
    """Probabilities of the fixed sounds of `learning.net`, (sounds, classes); empty in files of earlier versions."""
    source: str = ""
    """Digest of the package's source that trained the net and computed them, and with which it answers so."""
    source_files: dict[str, str] = field(default_factory=dict)
    """Digest of each of its files."""

    @property
    def builders(self) -> list[str]:
        """The builder of the net, if it is a user's own."""
        return [self.model.builder] if self.model.builder else []


def make(
    weights: dict[str, Tensor],
    classes: list[str],
    config: Config,
    trained_on: list[str],
    recordings: list[str],
    metrics: dict[str, float],
) -> ModelFile:
    """Return the content of a run's model file; weights are copied to the CPU."""
    weights = {name: weight.cpu().contiguous() for name, weight in weights.items()}
    net = (weights, classes, config.model, config.features, config.data.pool)
    return ModelFile(*net, config.flat(), trained_on, recordings, metrics, versions())


def write(path: Path, file: ModelFile) -> None:
    """Write a model file. Raises OSError if the disk is full; what was there stays."""
    content = {entry.name: getattr(file, entry.name) for entry in fields(file)}
    write_numbers(path, content | {"version": VERSION, "model": asdict(file.model), "features": asdict(file.features)})


def read(path: Path) -> ModelFile:
    """Read a model file. Never runs code from it.

    Raises UserError if it is absent, damaged, of another version, or no model file.
    """
    try:
        content = read_numbers(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except DataError as error:
        remedy = "to train a run again, remove its folder and rerun the sweep command"
        raise UserError(f"{error}, or is no model file, as a finished run has (model.pt); {remedy}") from None
    if not isinstance(content, dict) or "classes" not in content:
        raise UserError(f"{path}: is no model file; a finished run has one, model.pt")
    if (version := content.pop("version")) != VERSION:
        raise UserError(f"{path}: is a model file of {version=}, this is version={VERSION}; train the run again")
    try:
        model, features = Model(**content["model"]), Features(**content["features"])
        return ModelFile(**content | {"model": model, "features": features})
    except TypeError as error:  # which names the unknown entry
        raise UserError(f"{path}: was written by another version of irmas ({error})") from None
