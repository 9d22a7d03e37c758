"""Files that several processes write and read: atomic writes, locks, csv tables."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import logging
import os
import platform
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from irmas.errors import DataError, UserError

T = TypeVar("T")
log = logging.getLogger(__name__)

WITHOUT_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Errors of flock on a file system that lacks it: Lustre mounted without `-o flock`, NFS without lockd, others."""
PNG, VECTOR = "png", ("pdf", "svg")
"""Formats of pictures."""
FIGURES = "the figures in these formats too, beside PNG"
PICTURES = tuple(f".{format_}" for format_ in (PNG, *VECTOR))
"""Endings of their files."""
READS = 3
"""Number of attempts to read a file that others replace."""


def atomic_write(path: Path, data: bytes | str, keep: Path | None = None) -> None:
    """Write `data` so that a reader, or a crash at any moment, finds the old file or the new one, never a torn one.

    With `keep` the old file stays under that name: between its renaming and the new one's, `keep` is all there is.
    Raise OSError, with `path` as its filename.
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
    """Append the SHA-256 of `data`, which readers of zip archives (torch, numpy) ignore there."""
    return data + hashlib.sha256(data).digest()


def without_digest(content: bytes) -> bytes | None:
    """Return the argument of `with_digest`; None if any byte has changed."""
    data = content[:-32]
    return data if with_digest(data) == content else None


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of killed `atomic_write` calls; safe only where `path` has a single writer."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def reread(read: Callable[[], T]) -> T:
    """Return the result of `read`, called again where NFS reports a stale handle: the file has just been replaced."""
    for _ in range(READS - 1):
        try:
            return read()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return read()


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Give an OSError of the block the file name `path`: the system names none when a disk is full."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a csv file atomically, with one line per row; None becomes an empty cell. Raise OSError."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    atomic_write(path, text.getvalue())


def read_csv(path: Path, columns: Sequence[str], key: str = "") -> list[dict[str, str]]:
    """Return the rows of a csv file as `read_lines` does, without the numbers of their lines."""
    return [row for _, row in read_lines(path, columns, key)]


def read_lines(path: Path, columns: Sequence[str], key: str = "") -> list[tuple[int, dict[str, str]]]:
    """Return line number and row of a csv file, keyed by column; other columns than `columns` are kept, too.

    `key` is the setting that names the file, for messages. Raise DataError if the file, a column or a value is missing.
    """
    name = f"{key}={path}" if key else f"{path}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := sorted(set(columns) - set(reader.fieldnames or ())):
                expected = f"expected columns: {', '.join(columns)}"
                raise DataError(f"{name}: column {', '.join(missing)} is missing; {expected}")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name}: {error}") from None
    for number, row in rows:
        if any(row[column] is None for column in columns):
            raise DataError(f"{name}: line {number} has fewer values than the first line has columns")
    return rows


class FlockMissingError(UserError):
    """A file lies on a file system without flock."""


def flock(file: IO[str] | IO[bytes], operation: int) -> None:
    """Lock a file as `fcntl.flock` does. Raises FlockMissingError, BlockingIOError and other OSErrors."""
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in WITHOUT_FLOCK:
            raise
        mount = next(path for path in Path(file.name).absolute().parents if path.is_mount())
        remedy = "mount it with flock (Lustre: -o flock), or work in a folder on another one"
        raise FlockMissingError(f"{mount}: this file system has no flock ({error.strerror}); {remedy}") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` during the block, after waiting for it; the lock of a killed process is free.

    On a file system without flock, existence of the file is the lock. Raise UserError if the file cannot be created.
    """
    from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout  # here: most commands lock nothing

    warnings.filterwarnings("ignore", "flock not supported")  # filelock itself replaces the lock, for ENOSYS alone
    lock: BaseFileLock = FileLock(path)
    wait_s = 2.0  # silently
    while not lock.is_locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(wait_s)
        except Timeout:
            log.warning("%s: waiting for another process that holds this lock", lock.lock_file)
            wait_s = -1
        except FileNotFoundError:
            continue  # the previous holder has just removed the folder
        except OSError as error:
            if error.errno not in WITHOUT_FLOCK:
                raise UserError(f"{path}: cannot be written ({error.strerror})") from None
            lock = SoftFileLock(f"{path}.soft")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held_by_many(path: Path) -> Iterator[None]:
    """Mark `path` as held during the block, as others may do at the same time; see `is_held`.

    Raises FlockMissingError and OSError.
    """
    with path.open("a+") as file:  # NFS demands a readable file for a shared lock, a writable one for the other
        flock(file, fcntl.LOCK_SH)
        yield


def is_held(path: Path) -> bool:
    """Return whether any living process holds `path` by `held_by_many`."""
    try:
        with path.open("r+" if os.access(path, os.W_OK) else "r") as file:
            flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, FlockMissingError) as error:
        return isinstance(error, BlockingIOError)
    return False


def visible(text: str | Path) -> str:
    """Return the text on one printable line: file names may hold control characters and undecodable bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def is_shared(folder: Path) -> bool:
    """Return whether the group of a folder may write in it, and owns what is made there (setgid)."""
    mode = folder.stat().st_mode if os.access(folder, os.F_OK) else 0
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def obstacle(folder: Path) -> str:
    """Return why no file can be created in `folder`, which need not exist yet; empty if one can."""
    nearest = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} cannot be written"


def disk_usage(path: Path) -> int:
    """Return the bytes that the files of a folder, or a file, take on disk, as far as they can be read."""
    files = [path] if path.is_file() else (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    total = 0
    for file in files:
        with suppress(OSError):
            total += 512 * file.lstat().st_blocks
    return total
