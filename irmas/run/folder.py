"""The names of the files in a run's folder, and what its status file says."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

import yaml

from irmas.config import Config, differing_key, flatten, shown
from irmas.errors import UserError, first_line
from irmas.files import atomic_write, errors_name, remove_leftovers
from irmas.slurm_task import current_task

CONFIG = "config.yaml"
STATUS = "status.json"
LOG = "log.txt"
CHECKPOINT = "checkpoint.pt"
MODEL = "model.pt"
PREDICTIONS = "predictions.npz"
PROVENANCE = "provenance.json"
LOCK = ".lock"

LOCK_WAIT_S = 0.2
"""Long enough for a reader of the status, which touches the lock for a moment, to be gone."""

PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"
DIVERGED = "DIVERGED"
"""The loss became NaN or infinite."""
PRUNED = "PRUNED"
"""By successive halving, at one of its rungs."""
RENAMED = {"STOPPED": PRUNED}
"""States in status files of earlier versions."""
INTERRUPTED = "stopped; the same command goes on"
"""The reason of a CANCELLED run."""
FINAL = frozenset({COMPLETED, DIVERGED, PRUNED})
"""States that another start would only repeat."""
REPLACED = 75
"""Exit code of a process whose run another trains."""


@dataclass(frozen=True)
class Writer:
    """One start of a run, told from every other that may still live. Without a node: unknown."""

    node: str = ""
    pid: int = 0
    job: str = ""
    """In Slurm: 123_4, or 123 for a job that is no array."""
    restart: int = 0
    """In Slurm: how often the job was requeued before."""

    @classmethod
    def here(cls) -> Writer:
        """This process."""
        task = current_task()
        return cls(task.node, os.getpid(), task.id, task.restart)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.node}" + (f", job {self.job}" if self.job else "")


@dataclass(frozen=True)
class Status:
    """What the process that trains the run last said."""

    state: str = PENDING
    epoch: int = 0
    """Epochs that are committed."""
    epochs: int = 0
    step: int = 0
    """Steps done of the epoch that is being trained."""
    steps: int = 0
    metrics: dict[str, float] | None = None
    """The last epoch's scalars by tag."""
    val_excerpts: int = 0
    node: str = ""
    pid: int = 0
    job: str = ""
    """In Slurm: 123_4, or 123 for a job that is no array."""
    restart: int = 0
    """In Slurm: how often the job was requeued before."""
    exit_code: int | None = None
    """Of the process, where its parent saw it end by itself; minus the signal that killed it."""
    started: float = 0.0
    """Unix time of the first start."""
    updated: float = 0.0
    message: str = ""

    def check(self) -> None:
        """Raises TypeError, naming the entry, where one holds what `write_status` never writes."""
        for entry in fields(self):
            value, known = getattr(self, entry.name), type(entry.default)
            if entry.name == "metrics":
                is_sound = value is None or (isinstance(value, dict) and all(map(_is_number, value.values())))
            elif entry.name == "exit_code":
                is_sound = value is None or isinstance(value, int)
            else:
                is_sound = _is_number(value) if known is float else isinstance(value, known)
            if not is_sound:
                raise TypeError(f"{entry.name} is {value!r}")

    @property
    def writer(self) -> Writer:
        return Writer(self.node, self.pid, self.job, self.restart)

    @property
    def reason(self) -> str:
        """The error's last line: of a traceback, the one that says what happened."""
        return self.message.strip().splitlines()[-1].strip() if self.message.strip() else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


class RunBusyError(UserError):
    """Another process trains this run."""


class Replaced(BaseException):
    """A newer start of the run has taken over: whoever meets this writes nothing more. No failure, so no Exception."""


def _never(writer: Writer) -> bool:
    return False


@dataclass(frozen=True)
class RunFolder:
    """What `held` yields writes only as long as no newer start has taken over."""

    path: Path
    writer: Writer | None = field(default=None, compare=False, repr=False)
    """Who holds it; None for a reader or a tool, which answers to nobody."""

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def model(self) -> Path:
        """Of a finished run."""
        return self.path / MODEL

    @property
    def predictions(self) -> Path:
        return self.path / PREDICTIONS

    @property
    def log(self) -> Path:
        return self.path / LOG

    def status(self) -> Status:
        """As it stands on disk, but a process of this node that is gone without a last word has FAILED.

        Raises UserError where the file is damaged or from another version.
        """
        status = self.told()
        if status.state != RUNNING or status.node != Writer.here().node or self._is_held():
            return status
        # Again: it may have said its last word, or another may have started, before the lock was looked at.
        last = self.told()
        if last != status:
            return last
        return replace(status, state=FAILED, message="its process ended without a word (killed?)")

    def told(self) -> Status:
        """The file's own word, whether its process lives or not. Raises UserError as `status` does."""
        path = self.path / STATUS
        try:
            values = json.loads(path.read_text())
            if isinstance(values, dict) and "error" in values:  # its name in earlier versions
                values["message"] = values.pop("error")
            status = Status(**values)
            status.check()
            return replace(status, state=RENAMED.get(status.state, status.state))
        except FileNotFoundError:
            return Status()
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}: is damaged or from another version ({error}); "
                f"remove it, and the same command goes on from the run's checkpoint"
            ) from error

    def write_status(self, status: Status) -> None:
        """Stamped with this process. Raises Replaced."""
        self.confirm()
        self.amend_status(replace(status, **asdict(Writer.here())))

    def write_config(self, config: Config) -> None:
        """Write the run's configuration, or compare it with the one that is there.

        Raises UserError, naming the key, where the folder was trained with another one; and Replaced.
        """
        self.confirm()
        values = asdict(config)
        path = self.path / CONFIG
        if path.exists():
            try:
                there, here = flatten(yaml.safe_load(path.read_text())), flatten(values)
            except (yaml.YAMLError, ValueError, AttributeError) as error:
                remedy = "remove it, the run's checkpoint tells its settings too"
                raise UserError(f"{path}: is damaged ({first_line(error)}); {remedy}") from error
            key = differing_key(there, here)
            if key is not None:
                raise UserError(
                    f"{path}: was trained with {key}={shown(there.get(key))}, this is {key}={shown(here.get(key))}"
                )
        atomic_write(path, yaml.safe_dump(values, sort_keys=False))

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        """`earlier_sources` are those that trained the run before this one did. Raises Replaced."""
        self.confirm()
        path = self.path / PROVENANCE
        try:
            before = json.loads(path.read_text()) if path.exists() else provenance
            source, earlier = str(before["source"]), list(before.get("earlier_sources", []))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: is damaged ({first_line(error)}); remove it, and the same command goes on; "
                "which source trained the run's first epochs is then not known"
            ) from error
        if source != provenance["source"]:
            earlier = [*earlier, source]
        told = provenance | ({"earlier_sources": earlier} if earlier else {})
        atomic_write(path, json.dumps(told, indent=1) + "\n")

    @contextmanager
    def held(self, gone: Callable[[Writer], bool] = _never) -> Iterator[RunFolder]:
        """One process at a time trains a run; the kernel lets go when it dies. Raises RunBusyError.

        `gone` tells of another writer whether it has lost the run even if its process still lives: Slurm starts
        a task again when it loses sight of its node. Such a process meets Replaced at its next write.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        writer = Writer.here()
        mine = self.path / f"{LOCK}.{writer.node}.{writer.pid}"
        with mine.open("wb", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                with errors_name(mine):
                    file.write(json.dumps(asdict(writer)).encode() + b"\n")
                    os.fsync(file.fileno())
                while not self._enter(mine, gone):
                    pass
            finally:
                mine.unlink(missing_ok=True)
            remove_leftovers(self.path, CHECKPOINT)
            yield replace(self, writer=writer)

    def _enter(self, mine: Path, gone: Callable[[Writer], bool]) -> bool:
        """Put our lock in the place of the one before; False where another did so while we looked.

        A new file each time: the writer before, should it live after all, sees that the lock is no longer its own.
        """
        path = self.path / LOCK
        with path.open("a+") as before:
            if _locked_soon(before):
                status = self.told()
                # Locks do not always reach across nodes.
                alive = status.state == RUNNING and status.job and status.node != Writer.here().node
                rival = status.writer if alive else None
            else:
                rival = _writer(before)
            if rival is not None and not gone(rival):
                raise RunBusyError(f"{self.path}: another process trains it" + (f" ({rival})" if rival.node else ""))
            with path.open() as now:
                if not os.path.sameopenfile(now.fileno(), before.fileno()):
                    return False
            mine.replace(path)
            return True

    def confirm(self) -> None:
        """Raises Replaced where this process held the run and another has taken over.

        A write that is under way at that moment may still land: it is the same epoch, bit for bit, or a status
        that the other's next one covers.
        """
        if self.writer is None:
            return
        try:
            # By its content, opened anew: NFS answers a stat from its cache, and gives an inode's number out again.
            with (self.path / LOCK).open() as file:
                now = _writer(file)
        except FileNotFoundError:
            now = None
        if now != self.writer:
            raise Replaced("a newer start of this run has taken over; this one stops")

    def _is_held(self) -> bool:
        try:
            with (self.path / LOCK).open() as file:
                return not _locked(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def amend_status(self, status: Status) -> None:
        """Write a status that still names the process that trained: its parent tells how it died.

        It may have died before it made its folder.
        """
        amended = replace(status, updated=time.time())
        self.path.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path / STATUS, json.dumps(asdict(amended), indent=1) + "\n")


def _writer(file: IO[str]) -> Writer:
    """Whom a lock file names."""
    file.seek(0)
    try:
        return Writer(**json.loads(file.read()))
    except (ValueError, TypeError):
        return Writer()


def _locked_soon(file: IO[str]) -> bool:
    """Whether the lock could be had within LOCK_WAIT_S."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while not _locked(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOCK_WAIT_S / 20)
    return True


def _locked(file: IO[str], operation: int) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
