"""The names of the files in a run's folder, and what its status file says."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import yaml

from irmas.config import NEUTRAL, Config, flatten, shown
from irmas.errors import UserError
from irmas.files import atomic_write

CONFIG = "config.yaml"
STATUS = "status.json"
LOG = "log.txt"
CHECKPOINT = "checkpoint.pt"
PROVENANCE = "provenance.json"
LOCK = ".lock"

LOCK_WAIT_S = 0.2
"""Long enough for a reader of the status, which touches the lock for a moment, to be gone."""

PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"
DIVERGED = "DIVERGED"
"""The loss became NaN or infinite."""
STOPPED = "stopped; the same command goes on"
"""The reason of a CANCELLED run."""
FINAL = frozenset({COMPLETED, DIVERGED})
"""States that another start would only repeat."""


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
    error: str = ""

    @property
    def reason(self) -> str:
        """The error's last line: of a traceback, the one that says what happened."""
        return self.error.strip().splitlines()[-1] if self.error.strip() else ""


class RunBusyError(UserError):
    """Another process trains this run."""


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def log(self) -> Path:
        return self.path / LOG

    def status(self) -> Status:
        """As it stands on disk, but a process of this node that is gone without a last word has FAILED.

        Raises UserError where the file is damaged or from another version.
        """
        status = self._read_status()
        if status.state != RUNNING or status.node != platform.node() or self._is_held():
            return status
        # Again: it may have said its last word, or another may have started, before the lock was looked at.
        last = self._read_status()
        if last != status:
            return last
        return replace(status, state=FAILED, error="its process ended without a word (killed?)")

    def _read_status(self) -> Status:
        path = self.path / STATUS
        try:
            return Status(**json.loads(path.read_text()))
        except FileNotFoundError:
            return Status()
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}: is damaged or from another version ({error}); "
                f"remove it, and the same command goes on from the run's checkpoint"
            ) from error

    def write_status(self, status: Status) -> None:
        stamped = replace(status, node=platform.node(), pid=os.getpid(), updated=time.time())
        atomic_write(self.path / STATUS, json.dumps(asdict(stamped), indent=1) + "\n")

    def write_config(self, config: Config) -> None:
        """Write the run's configuration, or compare it with the one that is there.

        Raises UserError, naming the key, where the folder was trained with another one.
        """
        values = asdict(config)
        path = self.path / CONFIG
        if path.exists():
            there, here = flatten(yaml.safe_load(path.read_text())), flatten(values)
            for key in sorted(there.keys() | here.keys()):
                if key not in NEUTRAL and there.get(key) != here.get(key):
                    raise UserError(
                        f"{path}: was trained with {key}={shown(there.get(key))}, this is {key}={shown(here.get(key))}"
                    )
        atomic_write(path, yaml.safe_dump(values, sort_keys=False))

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        atomic_write(self.path / PROVENANCE, json.dumps(provenance, indent=1) + "\n")

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time trains a run; the kernel lets go when it dies. Raises RunBusyError."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("w") as file:
            deadline = time.monotonic() + LOCK_WAIT_S
            while not _locked(file, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise RunBusyError(f"{self.path}: another process trains it")
                time.sleep(LOCK_WAIT_S / 20)
            yield

    def _is_held(self) -> bool:
        try:
            with (self.path / LOCK).open() as file:
                return not _locked(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False


def _locked(file: IO[str], operation: int) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
