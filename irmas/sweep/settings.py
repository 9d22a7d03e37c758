"""What a job of a sweep asks Slurm for: the values of `conf/hydra/launcher/slurm.yaml`, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from irmas.config import shown
from irmas.errors import ConfigError

OURS = frozenset({"array", "chdir", "dependency", "error", "job-name", "kill-on-invalid-dep", "nodes", "ntasks"})
OURS |= {"ntasks-per-node", "open-mode", "output", "parsable", "signal", "test-only", "wait", "wrap"}
"""Options of sbatch on which a sweep relies: a task is one process, in the folder of the command."""
TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<day_hours>\d+)(?::(?P<day_minutes>\d+)(?::\d+)?)?|(?P<clock>\d+(?::\d+){0,2}))"
)


@dataclass(frozen=True)
class Stage:
    """Resources of one job, as sbatch takes them."""

    partition: str | None
    cpus: int
    mem: str | int
    time: str | int
    """Minutes, or Slurm's own form."""
    sbatch: dict[str, Any] | None
    """Further long options; by default None and not empty, because Hydra adds no keys to a dictionary."""

    def options(self) -> dict[str, Any]:
        own = {"partition": self.partition, "cpus-per-task": self.cpus, "mem": self.mem, "time": self.time}
        return own | {key.replace("_", "-"): value for key, value in (self.sbatch or {}).items()}


@dataclass(frozen=True)
class Settings:
    """The launcher's settings; `task`, `prepare` and `rank` are what the three stages ask for."""

    task: Stage
    prepare: Stage
    rank: Stage
    points_per_task: int
    throttle: int | None
    requeues: int
    setup: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    exclude: str | None
    gpus: int | str
    warning: int


def read(values: Mapping[str, Any]) -> Settings:
    """Raises ConfigError for the first value that breaks its rule."""
    task = {field.name: values[field.name] for field in fields(Stage)}
    stages = {"task": task, "prepare": values["prepare"], "rank": values["rank"]}
    for name, stage in stages.items():
        if not isinstance(stage, dict):
            raise ConfigError(f"hydra.launcher.{name}", stage, f"has settings: {' '.join(task)}")
        _check({f"{'' if name == 'task' else name + '.'}{key}": value for key, value in stage.items()})
    _check({key: value for key, value in values.items() if key not in stages and key not in task})
    if seconds(task["time"]) <= values["warning"] + 30:
        raise ConfigError(
            "hydra.launcher.time",
            task["time"],
            f"Slurm looks every 30 s, so that the warning hydra.launcher.warning={values['warning']} (seconds) "
            "could come at the start of a task; give more time or a shorter warning",
        )
    if values["setup"] is not None and not (Path(values["setup"]).is_file() and os.access(values["setup"], os.R_OK)):
        raise ConfigError("hydra.launcher.setup", values["setup"], "there is no such file, or it cannot be read")
    own: dict[str, Any] = {field.name: values[field.name] for field in fields(Settings) if field.name not in stages}
    return Settings(Stage(**task), Stage(**stages["prepare"]), Stage(**stages["rank"]), **own)


def seconds(time: str | int) -> float:
    """Of a time limit in Slurm's form: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes]..."""
    match = TIME.fullmatch(str(time))
    if match is None:
        return float("inf")  # UNLIMITED
    if match["days"]:
        return int(match["days"]) * 86400 + int(match["day_hours"]) * 3600 + int(match["day_minutes"] or 0) * 60
    parts = [int(part) for part in match["clock"].split(":")]
    hours, minutes, rest = {1: (0, parts[0], 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    return hours * 3600 + minutes * 60 + rest


def _is_whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _whole(low: int) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: _is_whole(value, low)), f"a whole number from {low}"


def _is_line(value: object) -> bool:
    """Whether it can stand in a line `#SBATCH --key=value`, and be no more than the value."""
    return isinstance(value, bool | int | float | str) and str(value).isprintable() and str(value) != ""


def _are_options(value: object) -> bool:
    if not isinstance(value, dict):
        return value is None
    names = [str(key).replace("_", "-") for key in value]
    is_long = all(re.fullmatch("[a-z][a-z-]+", name) for name in names)
    return is_long and not set(names) & OURS and all(given is None or _is_line(given) for given in value.values())


WORD: tuple[Callable[[Any], bool], str] = (
    lambda value: value is None or bool(_is_line(value) and re.fullmatch(r"[^\s'\"]+", str(value))),
    "one word as sbatch takes it, or null",
)
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "points_per_task": _whole(1),
    "throttle": (lambda value: value is None or _is_whole(value, 1), "a whole number from 1, or null"),
    "requeues": _whole(0),
    "setup": (
        lambda value: value is None or (isinstance(value, str) and _is_line(value)),
        "the path of a shell script, or null",
    ),
    "cpus": _whole(1),
    "gpus": (
        lambda value: _is_whole(value, 0) or bool(re.fullmatch(r"[\w.-]+:\d+", str(value))),
        "a whole number from 0, or a type and a number as in a100:1",
    ),
    "mem": (lambda value: bool(re.fullmatch(r"\d+[KMGT]?B?", str(value))), "a number with K, M, G or T, as in 8G"),
    "time": (
        lambda value: bool(TIME.fullmatch(str(value))) or value == "UNLIMITED",
        "minutes, or a time as Slurm writes it, as in 1-12:00:00",
    ),
    "warning": _whole(1),
    "sbatch": (
        _are_options,
        f"long options of sbatch, a line each, other than {', '.join(sorted(OURS))}, as in {{nice: 100}}, or null",
    ),
} | dict.fromkeys(("partition", "account", "qos", "constraint", "exclude"), WORD)


def _check(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        rule = RULES.get(key.rpartition(".")[2])
        if rule is not None and not rule[0](value):
            raise ConfigError(f"hydra.launcher.{key}", shown(value), f"must be {rule[1]}")
