"""Everything that an uninterrupted run would have had at the end of an epoch."""

from __future__ import annotations

import io
import logging
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from irmas.config import Config, first_difference, flatten, shown
from irmas.errors import UserError
from irmas.files import atomic_write, with_digest, without_digest

log = logging.getLogger(__name__)

VERSION = 2
"""Raise it whenever what a checkpoint holds changes its meaning."""
BEFORE = "-before"
FROM_ITS_START = "remove checkpoint*.pt to train this run from its start"


class DamagedError(Exception):
    """A file that is cut or changed, or no checkpoint at all."""


def save(path: Path, state: dict[str, Any], config: Config) -> None:
    """A crash at any moment leaves this checkpoint or the one before, which stays beside it.

    Raises OSError, and keeps both that were there, where the disk is full.
    """
    buffer = io.BytesIO()
    torch.save(state | {"version": VERSION, "config": flatten(asdict(config))}, buffer)
    # torch itself compares no checksum when it loads.
    atomic_write(path, with_digest(buffer.getvalue()), keep=_before(path))


def load(path: Path, config: Config) -> dict[str, Any] | None:
    """What `save` was given last or, where that is damaged, before; its tensors on the CPU. None before the first.

    Never runs code from the file. Raises UserError if neither can be read, or if it is of another version or, naming
    the key, of another configuration.
    """
    damages = []
    for candidate in (path, _before(path)):
        if candidate.exists():
            try:
                state = read_numbers(candidate)
            except DamagedError as error:
                damages.append(str(error))
                continue
            for damage in damages:
                log.warning("%s; goes on from the checkpoint before it", damage)
            _refuse_another(candidate, state, config)
            return state
    if damages:
        raise UserError(f"{'; '.join(damages)}; {FROM_ITS_START}")
    return None


def _before(path: Path) -> Path:
    return path.with_stem(path.stem + BEFORE)


def read_numbers(path: Path) -> dict[str, Any]:
    """A file of numbers that has a digest. Never runs code from it. Raises DamagedError, naming it, and OSError."""
    data = without_digest(path.read_bytes())
    if data is None:
        raise DamagedError(f"{path}: is damaged (its digest differs)")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its own message advises to run the file's code
        raise DamagedError(f"{path}: holds more than numbers, and was not written by this program") from None
    return state


def _refuse_another(path: Path, state: dict[str, Any], config: Config) -> None:
    if state.get("version") != VERSION:
        raise UserError(
            f"{path}: is a checkpoint of version={state.get('version')}, this is version={VERSION}; {FROM_ITS_START}"
        )
    here = flatten(asdict(config))
    key = first_difference(state["config"], here)
    if key is not None:
        there = shown(state["config"].get(key))
        raise UserError(f"{path}: was trained with {key}={there}, this is {key}={shown(here.get(key))}")
