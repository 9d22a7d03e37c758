"""Provenance of a result: source, commit, versions."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parent
REPORTED = ("torch", "torchaudio", "numpy", "hydra-core", "omegaconf", "submitit", "tensorboard", "soundfile")


NOT_TRAINING = (
    *("__main__.py", "train.py", "prepare.py", "rank.py", "refine.py", "status.py", "compare.py", "clean.py"),
    *("evaluate.py", "predict.py", "export.py"),
    *("cli/", "evaluation/", "inference/", "results/", "plot_style.py", "data/download.py"),
    *("sweep/executor.py", "sweep/run_states.py", "sweep/sbatch.py", "sweep/submit.py"),
)
"""Files and folders that no process imports which trains a run or makes its data; a new file counts as training."""


@cache
def training_source() -> Mapping[str, bytes]:
    """Return the package's source that trains runs and makes their data, by path in the package.

    It is read once, so that the digest that a command plans with is that of the copy that it keeps.
    """
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("[!.]*.py"))}
    return {name: path.read_bytes() for name, path in paths.items() if not name.startswith(NOT_TRAINING)}


def source_digest() -> str:
    """Return the digest, 12 hexadecimal digits, of `training_source`."""
    digest = hashlib.sha256()
    for name, content in training_source().items():
        digest.update(name.encode() + content)
    return digest.hexdigest()[:12]


def git_commit() -> str:
    """Return the commit of a checkout, with `+` if files differ from it; empty for an installed package."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    if not (PACKAGE.parent / ".git").exists():
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in REPORTED}
