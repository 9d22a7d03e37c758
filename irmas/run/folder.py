"""A run's folder: the names of its files, and its status file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from irmas.config import Config, first_difference, flatten, shown
from irmas.console import duration
from irmas.errors import UserError, first_line
from irmas.files import atomic_write, remove_leftovers, reread
from irmas.run.lease import Lease, Writer, acquire, is_owned

CONFIG = "config.yaml"
MODEL = "model.pt"
POINT = "point.json"
PROVENANCE = "provenance.json"

PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"
DIVERGED = "DIVERGED"
"""The loss became NaN or infinite."""
PRUNED = "PRUNED"
"""Ended by successive halving, at one of its rungs."""
SILENT_S = 300.0
"""Age from which the last heartbeat shows that a process may be dead.

A process that trains writes one every 2 s; to load, validate and save takes it minutes at most. Clocks of nodes may
differ by less: munge, which authenticates Slurm's nodes, refuses 5 minutes.
"""
INTERRUPTED = "stopped; rerun the command to resume"
"""The message of a CANCELLED run."""
FINAL = frozenset({COMPLETED, DIVERGED, PRUNED})
"""States that another start would only repeat."""


@dataclass(frozen=True)
class Status:
    """The last record of the process that trains a run."""

    state: str = PENDING
    epoch: int = 0
    """Number of committed epochs."""
    epochs: int = 0
    step: int = 0
    """Steps done of the epoch that is being trained."""
    steps: int = 0
    metrics: dict[str, float] | None = None
    """The last epoch's scalars by tag."""
    val_excerpts: int = 0
    writer: Writer = field(default_factory=Writer)
    exit_code: int | None = None
    """Exit code of the process if its parent saw it end; minus the signal that killed it."""
    started: float = 0.0
    """Unix time of the first start."""
    updated: float = 0.0
    """Unix time of the last write."""
    message: str = ""
    """The reason for the state."""

    @classmethod
    def from_json(cls, text: str) -> Status:
        """Return the status that `to_json`, or an earlier version, wrote.

        Raises ValueError, TypeError or AttributeError if `text` is damaged or has other entries.
        """
        values = json.loads(text)
        if "error" in values:  # the name of `message` in earlier versions, whose PRUNED was STOPPED
            values["message"] = values.pop("error")
        for name, value in values.items():
            if not _is_sound(name, value):
                raise TypeError(f"{name} is {value!r}")
        state = values.pop("state", PENDING)
        writer = Writer(**{name: values.pop(name) for name in _WRITER if name in values})
        return cls(PRUNED if state == "STOPPED" else state, **values, writer=writer)

    def to_json(self) -> str:
        """Return the entries of earlier versions: the writer's stand beside the others."""
        values = asdict(self)
        return json.dumps(values | values.pop("writer"), indent=1) + "\n"

    def silence(self, now: float) -> str:
        """Return the age of the last heartbeat, as in `12 min`, where it is above SILENT_S; else an empty string."""
        age = now - self.updated
        return duration(int(age) // 60 * 60) if age > SILENT_S else ""

    def with_silence(self, now: float) -> Status:
        """Return this status with the age of the heartbeat as its message, if the run is RUNNING and it is old."""
        silence = self.silence(now)
        return replace(self, message=f"last heartbeat {silence} ago") if silence and self.state == RUNNING else self

    @property
    def reason(self) -> str:
        """The last line of the message: that of a traceback says what happened."""
        return (self.message.strip().splitlines() or [""])[-1].strip()

    @property
    def node(self) -> str:
        return self.writer.node

    @property
    def pid(self) -> int:
        return self.writer.pid

    @property
    def job(self) -> str:
        return self.writer.job


_WRITER = asdict(Writer())
_ENTRIES = {name: type(value) for name, value in (asdict(Status()) | _WRITER).items()}


def _is_sound(name: str, value: object) -> bool:
    """Return whether an entry of a status file is known and has a type that `to_json` writes."""
    known = _ENTRIES.get(name, ())
    if name == "metrics" and isinstance(value, dict):
        return all(isinstance(number, (int, float)) for number in value.values())
    if name == "exit_code" and isinstance(value, int):
        return True
    return isinstance(value, (int, float) if known is float else known)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. The folder that `acquire` yields is written only while its lease holds."""

    path: Path
    lease: Lease | None = field(default=None, compare=False, repr=False)
    """None for a reader or a tool, whose writes nothing checks."""

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoint, the one before it, and what a killed process has left of one."""
        return sorted([*self.path.glob("checkpoint*.pt"), *self.path.glob(".checkpoint.pt.*")])

    @property
    def model(self) -> Path:
        """The net of a finished run."""
        return self.path / MODEL

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def _status(self) -> Path:
        return self.path / "status.json"

    @contextmanager
    def acquire(self, is_stale: Callable[[Writer], bool] = lambda writer: False) -> Iterator[RunFolder]:
        """Yield this folder with a lease, as `lease.acquire` does. Raises RunBusyError and OSError."""
        with acquire(self.path, is_stale, self._live_elsewhere) as lease:
            remove_leftovers(self.checkpoint)
            yield replace(self, lease=lease)

    def _live_elsewhere(self) -> Writer | None:
        status = self.recorded()
        is_elsewhere = status.job and status.node != Writer.here().node
        # Its job may live on without it: an interactive one, or one that is COMPLETING.
        is_live = status.state == RUNNING and is_elsewhere and not status.silence(time.time())
        return status.writer if is_live else None

    def check_lease(self) -> None:
        """Raise LeaseLost if this folder has a lease and another process has taken over."""
        if self.lease is not None:
            self.lease.check()

    def status(self) -> Status:
        """Return the recorded status, but FAILED for a process that died while RUNNING.

        That is one without a lock on this node. Locks of others may not reach here: such a process lives as long as it
        has a lock or a heartbeat. Raises UserError if the file is damaged or from another version.
        """
        status = self.recorded()
        is_here, silence = status.node == Writer.here().node, status.silence(time.time())
        if status.state != RUNNING or not (is_here or silence) or is_owned(self.path):
            return status
        # Read again: the process may have ended, or another may have started, just before the lock was looked at.
        last = self.recorded()
        if last != status:
            return last
        sign = "killed?" if is_here else f"no heartbeat for {silence}; last on {status.node or 'an unknown node'}"
        return replace(status, state=FAILED, message=f"the process died without reporting an error ({sign})")

    def recorded(self) -> Status:
        """Return what the status file says, whether its process lives or not. Raises UserError as `status` does."""
        try:
            return Status.from_json(reread(self._status.read_text))
        except FileNotFoundError:
            return Status()
        except (ValueError, TypeError, AttributeError) as error:
            remedy = "remove it and rerun the command to resume from the run's checkpoint"
            raise UserError(f"{self._status}: is damaged or from another version ({error}); {remedy}") from error

    def write_status(self, status: Status) -> None:
        """Write a status with this process as its writer. Raises LeaseLost and OSError."""
        self.check_lease()
        self.amend_status(replace(status, writer=Writer.here()))

    def amend_status(self, status: Status) -> None:
        """Write a status that keeps its writer, for a process that could not write how it ended. Raises OSError.

        The process may have died before it made its folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        atomic_write(self._status, replace(status, updated=time.time()).to_json())

    def write_config(self, config: Config) -> None:
        """Write the run's configuration, if it is the one that the folder was trained with.

        Raises UserError, naming the key, if it is another one; LeaseLost and OSError.
        """
        self.check_lease()
        path = self.path / CONFIG
        if path.exists():
            try:
                there = flatten(yaml.safe_load(reread(path.read_text)))
            except (yaml.YAMLError, ValueError, AttributeError) as error:
                remedy = "remove it, the checkpoint has the run's settings too"
                raise UserError(f"{path}: is damaged ({first_line(error)}); {remedy}") from error
            refuse_other_config(path, there, config)
        atomic_write(path, yaml.safe_dump(asdict(config), sort_keys=False))

    def point(self) -> dict[str, Any] | None:
        """Return the overrides and changes that the run has chosen; None where it has not. Raises UserError."""
        path = self.path / POINT
        try:
            point = json.loads(reread(path.read_text))
            return {"overrides": dict(point["overrides"]), "changes": dict(point["changes"])}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            remedy = f"remove {self.path} and rerun the command to train the run at another point"
            raise UserError(f"{path}: is damaged ({first_line(error)}); {remedy}") from error

    def write_point(self, point: dict[str, Any]) -> None:
        """Write what `point` returns. Raises LeaseLost and OSError."""
        self.check_lease()
        remove_leftovers(self.path / POINT)
        atomic_write(self.path / POINT, json.dumps(point, indent=1) + "\n")

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        """Write `provenance` and, as `earlier_sources`, the sources that trained the run before.

        Raises UserError if the file is damaged; LeaseLost and OSError.
        """
        self.check_lease()
        path = self.path / PROVENANCE
        try:
            before = json.loads(reread(path.read_text)) if path.exists() else provenance
            source, earlier = str(before["source"]), list(before.get("earlier_sources", []))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            remedy = "remove it and rerun the command to resume; the source of the first epochs is then unknown"
            raise UserError(f"{path}: is damaged ({first_line(error)}); {remedy}") from error
        if source != provenance["source"]:
            earlier.append(source)
        if earlier:
            provenance = provenance | {"earlier_sources": earlier}
        atomic_write(path, json.dumps(provenance, indent=1) + "\n")


def refuse_other_config(path: Path, there: dict[str, Any], config: Config) -> None:
    """Raise UserError, naming the key, if `config` trains another run than the flat settings `there` of `path`."""
    here = config.flat()
    if key := first_difference(there, here):
        raise UserError(f"{path}: was trained with {key}={shown(there.get(key))}, this is {key}={shown(here.get(key))}")
