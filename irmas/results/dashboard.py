"""The ranking's pictures on TensorBoard: a run of their own, `summary`, beside the sweep's `runs/...`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from irmas.run.events import replace_images
from irmas.sweep.sweep import Sweep


def write(sweep: Sweep, pictures: Mapping[str, bytes]) -> None:
    """Show these PNG files as images `ranking/<name>`; the same ones again change nothing.

    Raises OSError, with the file's path, where they cannot be written.
    """
    replace_images(sweep.summary, {f"ranking/{PurePath(name).stem}": png for name, png in pictures.items()})
