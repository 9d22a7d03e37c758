"""Everything that an uninterrupted run would have had at the end of an epoch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from irmas.files import atomic_write


def save(path: Path, state: dict[str, Any]) -> None:
    """A crash at any moment leaves the checkpoint before or this one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """None where there is no checkpoint yet. Never runs code from the file."""
    if not path.exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)  # type: ignore[no-any-return]
