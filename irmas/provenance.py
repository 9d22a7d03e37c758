"""Where a result came from: source, commit, versions, node."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parent
REPORTED = ("torch", "torchaudio", "numpy", "hydra-core", "omegaconf", "submitit", "tensorboard", "soundfile")


def source_digest() -> str:
    """Of the package's own source as it is now."""
    state = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        state.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return state.hexdigest()[:12]


def git_commit() -> str:
    """The commit of a checkout, with `+` where files differ from it; empty for an installed package."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    if not (PACKAGE.parent / ".git").exists():
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in REPORTED}
