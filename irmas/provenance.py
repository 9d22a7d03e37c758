"""Provenance of a result: source, commit, versions."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parent
REPORTED = ("torch", "torchaudio", "numpy", "hydra-core", "omegaconf", "submitit", "tensorboard", "soundfile")


def source_digest() -> str:
    """Return the digest, 12 hexadecimal digits, of the package's source as it is now on disk."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
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
