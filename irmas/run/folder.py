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
from typing import Any

import yaml

from irmas.config import NEUTRAL, Config, flatten, shown
from irmas.errors import UserError
from irmas.files import atomic_write

CONFIG = "config.yaml"
STATUS = "status.json"
LOG = "log.txt"
CHECKPOINT = "checkpoint.pt"
PROVENANCE = "provenance.json"

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
        """As it stands on disk, but a process of this node that is gone without a last word has FAILED."""
        try:
            status = Status(**json.loads((self.path / STATUS).read_text()))
        except FileNotFoundError:
            return Status()
        if status.state == RUNNING and status.node == platform.node() and not self._is_held():
            return replace(status, state=FAILED, error="its process ended without a word (killed?)")
        return status

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
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunBusyError(f"{self.path}: another process trains it") from None
            yield

    def _is_held(self) -> bool:
        try:
            with (self.path / ".lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False
