"""Writing files that other processes read."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irmas.errors import UserError


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` so that a reader, or a crash at any moment, finds the old file or the new one, never a torn one.

    Raises OSError, with `path` as its filename.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    with naming(path):
        try:
            with temporary.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError in the block names `path`: of a write to a full disk the system tells no file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, after waiting for it, that the kernel gives back when its holder dies.

    Raises UserError where the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
