"""The lease with which one process at a time owns a run's folder.

Slurm may restart a task whose old process still lives on a node that it lost sight of, and locks do not always reach
across nodes. A lease is therefore a kernel lock and a name. A process that wants the run

1. locks its own file, `.lock.<node>.<pid>`, and writes its `Writer` into it as JSON;
2. looks at `.lock`, the file of the last owner. If that is locked, its owner lives; if not, the status file may still
   name a live job on another node. Such a rival keeps the run (RunBusyError, and nothing has changed) unless `is_stale`
   says that Slurm has given the run to a newer start;
3. renames its own file to `.lock`, or returns to step 2 if another process did so meanwhile;
4. writes the run's files, and before each of them compares `.lock` with its own name (`Lease.check`).

A process that lost its run reads another name in step 4: `check` raises LeaseLost, it writes nothing more and exits
with LEASE_LOST. A write under way at that moment may still land: it is the same epoch, bit for bit, or a status that
the new owner's next one replaces. When an owner dies, the kernel releases its lock, and `.lock` stays.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from irmas.errors import UserError
from irmas.files import FlockMissingError, errors_name, flock, reread
from irmas.processes import current_task

LOCK = ".lock"
LOCK_WAIT_S = 0.2
"""A time longer than a reader of the status holds the lock."""
LEASE_LOST = 75
"""Exit code of a process whose run another process trains."""


@dataclass(frozen=True)
class Writer:
    """One start of a run, distinguished from every other that may still live; without a node: unknown."""

    node: str = ""
    pid: int = 0
    job: str = ""
    """Slurm's 123_4, or 123 for a job that is no array; empty outside Slurm."""
    restart: int = 0
    """Number of times that Slurm has requeued the job."""

    @classmethod
    def here(cls) -> Writer:
        """Return the writer that this process is."""
        task = current_task()
        return cls(task.node, os.getpid(), task.id, task.restart)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.node}" + (f", job {self.job}" if self.job else "")


class RunBusyError(UserError):
    """Another process trains this run."""


class LeaseLost(BaseException):
    """A newer start of the run has taken over, so this one writes nothing more. No failure, hence no Exception."""


@dataclass(frozen=True)
class Lease:
    """The right of one process to write a run's folder."""

    folder: Path
    owner: Writer

    def check(self) -> None:
        """Raise LeaseLost if another process has taken over."""
        # The content of a file opened just now: NFS answers a stat from its cache, and reuses inode numbers.
        with suppress(FileNotFoundError):
            if _writer_in(reread((self.folder / LOCK).read_text)) == self.owner:
                return
        raise LeaseLost("a newer start of this run has taken over; this one stops")


@contextmanager
def acquire(
    folder: Path, is_stale: Callable[[Writer], bool], live_elsewhere: Callable[[], Writer | None]
) -> Iterator[Lease]:
    """Make `folder` if it is missing, and own it until the block ends.

    `is_stale` returns whether a writer has lost the run even if its process lives; `live_elsewhere` returns the writer
    that runs on another node according to the status file. Raises RunBusyError if a rival keeps the run,
    FlockMissingError and OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer.here()
    own = folder / f"{LOCK}.{writer.node}.{writer.pid}"
    with own.open("wb", buffering=0) as file:
        try:
            flock(file, fcntl.LOCK_EX)
            with errors_name(own):
                file.write(json.dumps(asdict(writer)).encode() + b"\n")
                os.fsync(file.fileno())
            while not _replace_lock(folder, own, is_stale, live_elsewhere):
                pass
        finally:
            own.unlink(missing_ok=True)
        yield Lease(folder, writer)


def _replace_lock(
    folder: Path, own: Path, is_stale: Callable[[Writer], bool], live_elsewhere: Callable[[], Writer | None]
) -> bool:
    """Rename `own` to `.lock`, or return False if another process did so meanwhile. Raises RunBusyError."""
    path = folder / LOCK
    with path.open("a+") as before:
        is_free = _lock(before, fcntl.LOCK_EX, LOCK_WAIT_S)
        before.seek(0)
        rival = live_elsewhere() if is_free else _writer_in(before.read())
        if rival is not None and not is_stale(rival):
            raise RunBusyError(f"{folder}: another process trains it" + (f" ({rival})" if rival.node else ""))
        with path.open() as now:
            if not os.path.sameopenfile(now.fileno(), before.fileno()):
                return False
        own.replace(path)
        return True


def is_owned(folder: Path) -> bool:
    """Return whether a live process of this node, or of one whose locks reach here, owns `folder`."""

    def is_locked() -> bool:
        with (folder / LOCK).open() as file:
            return not _lock(file, fcntl.LOCK_SH)  # shared, so that readers do not see each other

    try:
        return reread(is_locked)
    except (FileNotFoundError, FlockMissingError):  # no process of this node can own a folder without flock
        return False


def _writer_in(text: str) -> Writer:
    try:
        return Writer(**json.loads(text))
    except (ValueError, TypeError):
        return Writer()


def _lock(file: IO[str], operation: int, wait_s: float = 0.0) -> bool:
    """Lock `file` within `wait_s`; return whether that succeeded."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        else:
            return True
