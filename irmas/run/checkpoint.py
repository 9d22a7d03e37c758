"""Everything that an uninterrupted run would have had at the end of an epoch."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from irmas.errors import UserError
from irmas.files import atomic_write


def save(path: Path, state: dict[str, Any]) -> None:
    """A crash at any moment leaves the checkpoint before or this one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """None where there is no checkpoint yet. Never runs code from the file. Raises UserError if it cannot be read."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)  # type: ignore[no-any-return]
    # What torch raises for a file that is cut depends on where it is cut.
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise UserError(f"{path}: cannot be read ({reason}); remove it to train this run from its start") from error
