"""Writing files that other processes read."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from irmas.errors import UserError

log = logging.getLogger(__name__)

_DIGEST = hashlib.sha256
SILENT_S = 2.0
"""A wait for a lock that is worth a word."""


def atomic_write(path: Path, data: bytes | str, keep: Path | None = None) -> None:
    """Write `data` so that a reader, or a crash at any moment, finds the old file or the new one, never a torn one.

    With `keep` the old file stays under that name: between its renaming and the new one's, `keep` is all there is.
    Raises OSError, with `path` as its filename.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    with errors_name(path):
        try:
            with temporary.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def with_digest(data: bytes) -> bytes:
    """`data` and its SHA-256 behind it, where readers of zip archives (torch, numpy) pass over it."""
    return data + _DIGEST(data).digest()


def without_digest(content: bytes) -> bytes | None:
    """What `with_digest` was given; None where any byte has changed."""
    data, digest = content[: -_DIGEST().digest_size], content[-_DIGEST().digest_size :]
    return data if _DIGEST(data).digest() == digest else None


def remove_leftovers(folder: Path, name: str) -> None:
    """What `atomic_write` had begun of `name` in processes that were killed; only its single writer may know."""
    for leftover in folder.glob(f".{name}.*"):
        leftover.unlink(missing_ok=True)


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
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
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except FileNotFoundError:
            continue  # the holder before has just removed the folder
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        with file:
            _wait_for(path, file.fileno())
            # What was waited for may be gone: whoever comes now would lock another file.
            if _is_at(path, file.fileno()):
                yield
                return


def visible(text: str | Path) -> str:
    """On one line, as it can be printed: a file's name may hold control characters, and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


@contextmanager
def held_by_many(path: Path) -> Iterator[None]:
    """Hold a file, beside others who do: `is_held` tells of it until the last of them dies. Raises OSError."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_held(path: Path) -> bool:
    """Whether anyone holds it, as `held_by_many` does."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _wait_for(path: Path, descriptor: int) -> None:
    """Tells who waits for long."""
    end = time.monotonic() + SILENT_S
    while time.monotonic() < end:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(SILENT_S / 40)
    log.warning("%s: waits for another process that holds this lock", path)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def obstacle(folder: Path) -> str:
    """Why no file can be made in `folder`, which need not be there yet; empty where one can."""
    nearest = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} cannot be written"
