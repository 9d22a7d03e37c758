"""Everything that an uninterrupted run would have had at the end of an epoch."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from irmas.config import Config
from irmas.errors import DataError, UserError
from irmas.files import atomic_write, reread, with_digest, without_digest
from irmas.run.folder import refuse_other_config

log = logging.getLogger(__name__)

VERSION = 2
"""Raise it whenever what a checkpoint holds changes its meaning."""
RESTART = "remove checkpoint*.pt to train this run from its start"


def save(path: Path, state: dict[str, Any], config: Config) -> None:
    """Write a checkpoint and keep the one before beside it, so that a crash at any moment leaves one of them.

    Raises OSError, and keeps both that were there, if the disk is full.
    """
    write_numbers(path, state | {"version": VERSION, "config": config.flat()}, keep=_before(path))


def load(path: Path, config: Config) -> dict[str, Any] | None:
    """Return the state that was saved last or, if that is damaged, before; its tensors are on the CPU. None if new.

    Never runs code from the file. Raises UserError if neither can be read, or if it is of another version or, naming
    the key, of another configuration.
    """
    damages = []
    for candidate in filter(Path.exists, (path, _before(path))):
        try:
            state = read_numbers(candidate)
        except DataError as error:
            damages.append(str(error))
            continue
        for damage in damages:
            log.warning("%s; resumes from the checkpoint before it", damage)
        if (version := state.get("version")) != VERSION:
            raise UserError(f"{candidate}: is a checkpoint of {version=}, this is version={VERSION}; {RESTART}")
        refuse_other_config(candidate, state["config"], config)
        return state
    if damages:
        raise UserError(f"{'; '.join(damages)}; {RESTART}")
    return None


def _before(path: Path) -> Path:
    return path.with_stem(f"{path.stem}-before")


def write_numbers(path: Path, content: dict[str, Any], keep: Path | None = None) -> None:
    """Write tensors and plain values with a digest, which torch itself lacks. Raises OSError; what was there stays."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write(path, with_digest(buffer.getvalue()), keep=keep)


def read_numbers(path: Path) -> dict[str, Any]:
    """Return what `write_numbers` wrote. Never runs code from the file. Raises DataError, naming it, and OSError."""
    data = without_digest(reread(path.read_bytes))
    if data is None:
        raise DataError(f"{path}: is damaged (its digest differs)")
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its own message advises to run the file's code
        raise DataError(f"{path}: holds more than numbers, and was not written by this program") from None
    return content
