"""A trained net as one file: its weights and all that is needed to use them elsewhere, model.pt."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irmas.config import Config, Features, Model, flatten
from irmas.errors import UserError
from irmas.files import atomic_write, with_digest
from irmas.provenance import versions
from irmas.run.checkpoint import DamagedError, read_numbers

VERSION = 1
"""Raise it whenever what a model file holds changes its meaning."""


@dataclass(frozen=True)
class ModelFile:
    """`model`, `features` and `pool` are what rebuilds the net and its front end; `config` tells the whole training."""

    weights: dict[str, Tensor]
    """The net's state_dict, on the CPU; the normalisation (mean_db, std_db) is part of it."""
    classes: list[str]
    """The class of each output."""
    model: Model
    features: Features
    pool: int
    config: dict[str, Any]
    """Flat, as the run's own; for people, and for finding the data again."""
    trained_on: list[str]
    """Names of the excerpts: what it was trained on says nothing about how good it is."""
    recordings: list[str]
    """That those excerpts were cut from; recordings that share an identical excerpt have one name."""
    metrics: dict[str, float]
    """The last epoch's scalars by tag."""
    versions: dict[str, str]


def make(
    weights: dict[str, Tensor],
    classes: list[str],
    config: Config,
    trained_on: list[str],
    recordings: list[str],
    metrics: dict[str, float],
) -> ModelFile:
    return ModelFile(
        {name: weight.cpu().contiguous() for name, weight in weights.items()},
        classes,
        config.model,
        config.features,
        config.data.pool,
        flatten(asdict(config)),
        trained_on,
        recordings,
        metrics,
        versions(),
    )


def write(path: Path, file: ModelFile) -> None:
    """Raises OSError where the disk is full; what was there stays."""
    content = {name: getattr(file, name) for name in ModelFile.__dataclass_fields__}
    content |= {"version": VERSION, "model": asdict(file.model), "features": asdict(file.features)}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write(path, with_digest(buffer.getvalue()))


def read(path: Path) -> ModelFile:
    """Never runs code from the file.

    Raises UserError where it is absent, damaged, of another version, or no model file.
    """
    try:
        content = read_numbers(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except DamagedError as error:
        raise UserError(f"{error}; a finished run has a sound model file, model.pt") from None
    if not isinstance(content, dict) or "classes" not in content:
        raise UserError(f"{path}: is no model file; a finished run has one, model.pt")
    if (version := content.pop("version")) != VERSION:
        raise UserError(f"{path}: is a model file of version={version}, this is version={VERSION}; train the run anew")
    try:
        model, features = Model(**content["model"]), Features(**content["features"])
        return ModelFile(**content | {"model": model, "features": features})
    except TypeError as error:  # which names what is not known
        raise UserError(f"{path}: was written by another version of irmas ({error})") from None
