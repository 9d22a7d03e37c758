"""The expected cost of a command's runs, from epochs that earlier runs of the same data and net have measured."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from irmas.config import shown
from irmas.console import byte_size, counted, duration, plain_console
from irmas.errors import ConfigError, UserError
from irmas.files import disk_usage
from irmas.processes import cpu_count
from irmas.run.events import EPOCH_S, read_scalars
from irmas.run.folder import PROVENANCE
from irmas.sweep import pool
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.settings import PREFIX, Settings
from irmas.sweep.sweep import PLAN, Sweep

PACE = ("batch_size", "optimizer", "data.pool", "data.split", "features.", "model.", "augment.")
"""Beginnings of the settings on which the time of an epoch depends: those of a net and of what it reads."""
LOOKS, LOOK_S = 100, 2.0
"""Largest number of runs of each other sweep, and time, in which measured epochs are looked for."""


@dataclass(frozen=True)
class Places:
    """The GPUs or cores on which runs train."""

    at_once: int
    """Number of runs that train at the same time."""
    on_gpu: bool
    """False also where a GPU is requested, and device=cpu leaves it idle."""
    unit: str
    """`GPU` where one is requested, otherwise `core`: what hours are counted of."""
    share: Callable[[PlannedRun], float]
    """Number of such units that a run occupies; a fraction where several runs share one."""

    @property
    def device(self) -> str:
        return "a GPU" if self.on_gpu else "the CPU"


@dataclass(frozen=True)
class Measured:
    """A run that has trained, and what it took."""

    name: str
    """`run 3 of outputs/demo`."""
    device: str
    epoch_s: float
    """Median of its epochs."""
    size: int
    """Bytes of its folder on disk."""


def on_slurm(plan: Plan, settings: Settings, count: int) -> Places:
    """Return the places of `count` runs in tasks with these settings; without a throttle, all tasks run at once."""
    device, flat = plan.config.device, plan.config.flat()
    has_gpus = settings.gpu_count > 0 or any(key.startswith("gpus") for key in settings.options())

    def share(run: PlannedRun) -> float:
        own = settings.of_point(flat | run.changes) if settings.rules else settings
        return (max(own.gpu_count, 1) if has_gpus else own.cpus or 1) / own.at_once(device)

    tasks = settings.throttle or math.ceil(count / settings.per_task(device))
    at_once = max(min(tasks * settings.at_once(device), count), 1)
    return Places(at_once, has_gpus and device != "cpu", "GPU" if has_gpus else "core", share)


def here(plan: Plan, runs_at_once: int | None, count: int) -> Places:
    """Return the places of `count` runs on this machine, `runs_at_once` at a time."""
    sweep = Sweep.of(plan)
    gpus, at_once = len(pool.gpus(sweep)), max(min(pool.most_at_once(sweep, runs_at_once), count), 1)
    share = min((gpus or cpu_count()) / at_once, 1.0 if gpus else math.inf)
    return Places(at_once, gpus > 0, "GPU" if gpus else "core", lambda run: share)


def expect(
    sweep: Sweep, runs: Sequence[PlannedRun], done: Mapping[int, int], places: Places, max_hours: float | None
) -> None:
    """Print what runs of a sweep, at least one, are expected to take, given the epochs that are `done` by run ID.

    Raises ConfigError where that is more than `max_hours`, or is not known.
    """
    nets = _by_net(sweep.plan, runs)
    found = measured(sweep, nets, on_gpu=places.on_gpu)
    unknown = sum(len(members) for net, members in nets.items() if net not in found)
    lacks = f"no epoch of the net and data of {counted(unknown, 'run')} is measured on {places.device} yet"
    remedy = f"; {PREFIX}pilot=true trains one run per net first"
    if unknown and max_hours is not None:
        raise ConfigError(f"{PREFIX}max_hours", shown(max_hours), lacks + remedy)
    lacks += remedy if unknown > len(nets) - len(found) else ""
    if not found:
        plain_console().print(f"expected: {lacks}")
        return
    known = [(run, found[net]) for net, members in nets.items() if net in found for run in members]
    epochs = [run.changes.get("epochs", sweep.plan.config.epochs) - done.get(run.id, 0) for run, _ in known]
    seconds = [number * by.epoch_s for number, (_, by) in zip(epochs, known, strict=True)]
    used = sum(own * places.share(run) for own, (run, _) in zip(seconds, known, strict=True)) / 3600
    basis = _basis([*found.values()])
    if max_hours is not None and used > max_hours:
        reason = f"{counted(len(runs), 'run')} would take {hours(used, places.unit)} ({basis})"
        raise ConfigError(f"{PREFIX}max_hours", shown(max_hours), f"{reason}; raise it, or train fewer runs or epochs")
    lasts = math.ceil(len(known) / places.at_once) * sum(seconds) / len(known)
    each = f" x {counted(epochs[0], 'epoch')}" if len({*epochs}) == 1 else f", {counted(sum(epochs), 'epoch')}"
    parts = [
        f"{counted(len(known), 'run')}{each}",
        hours(used, places.unit),
        f"about {duration(_rounded(lasts))} with {places.at_once} at a time",
        byte_size(sum(by.size for _, by in known)),
    ]
    plain_console().print(f"expected: {', '.join(parts)} ({basis})" + (f"; {lacks}" if unknown else ""))


def unmeasured(plan: Plan, places: Places) -> list[PlannedRun]:
    """Return the first run of each net of which no epoch is measured."""
    nets = _by_net(plan, plan.runs)
    found = measured(Sweep.of(plan), nets, on_gpu=places.on_gpu)
    return [members[0] for net, members in nets.items() if net not in found]


def measured(sweep: Sweep, nets: Collection[str], *, on_gpu: bool) -> dict[str, Measured]:
    """Return a run that has measured an epoch, by net, of this sweep or of those beside it with the same data.

    The newest sweeps are looked through first, until each net has one or `LOOK_S` have passed.
    """
    found, deadline = dict[str, Measured](), time.monotonic() + LOOK_S
    for other in _sweeps(sweep, deadline):
        for net, runs in _by_net(other.plan, other.plan.runs).items():
            for run in runs if net in nets and net not in found else ():
                if one := _measurement(other, run, on_gpu=on_gpu):
                    found[net] = one
                    break
                if time.monotonic() > deadline:
                    return found
        if len(found) == len(nets):
            break
    return found


def _sweeps(sweep: Sweep, deadline: float) -> Iterator[Sweep]:
    """Yield the sweep on disk, then those beside it with the same data, newest first, with some of their runs."""
    plans = sweep.path.parent.glob(f"*/{PLAN}")
    for file in sorted(plans, key=lambda file: (file.parent != sweep.path, -file.stat().st_mtime)):
        if time.monotonic() > deadline:
            return
        with suppress(UserError, OSError):
            if Sweep.open(file.parent, []).plan.data == sweep.plan.data:
                yield Sweep.open(file.parent, None if file.parent == sweep.path else range(1, LOOKS + 1))


def _by_net(plan: Plan, runs: Sequence[PlannedRun]) -> dict[str, list[PlannedRun]]:
    """Return runs by the settings on which the time of their epochs depends."""
    flat, alike = plan.config.flat(), defaultdict[str, list[PlannedRun]](list)
    for run in runs:
        alike[str([item for item in run.changes.items() if item[0].startswith(PACE)])].append(run)
    nets = defaultdict[str, list[PlannedRun]](list)
    for members in alike.values():
        own = {key: value for key, value in (flat | members[0].changes).items() if key.startswith(PACE)}
        nets[json.dumps(own, sort_keys=True)] += members
    return nets


def _measurement(sweep: Sweep, run: PlannedRun, *, on_gpu: bool) -> Measured | None:
    """Return what a run measured; None where it has trained no epoch yet, or on another kind of device."""
    folder = sweep.run_folder(run)
    try:
        last = (folder.recorded().metrics or {}).get(EPOCH_S)
        device = str(json.loads((folder.path / PROVENANCE).read_text())["device"]) if last else ""
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return None
    if last is None or device.startswith("cpu (") == on_gpu:
        return None
    # Not the last one alone, in which its node may have been busy.
    epochs = read_scalars(folder.path).values.get(EPOCH_S, {}).values() or [last]
    return Measured(f"run {run.id} of {sweep}", device, median(epochs), disk_usage(folder.path))


def _basis(found: Sequence[Measured]) -> str:
    first = found[0]
    if len(found) == 1:
        return f"from {first.name}: {first.epoch_s:.3g} s per epoch on {first.device}"
    low, high = min(by.epoch_s for by in found), max(by.epoch_s for by in found)
    return f"from {first.name} and {len(found) - 1} more: {low:.3g} to {high:.3g} s per epoch on {first.device}"


def hours(number: float, unit: str) -> str:
    """Return `2.3 GPU hours`."""
    text = f"{number:.1f}" if number >= 1 else f"{number:.2g}" if number >= 0.01 else "under 0.01"
    return f"{text} {unit} hours"


def _rounded(seconds: float) -> int:
    """Return whole minutes from ten minutes on."""
    return round(seconds / 60) * 60 if seconds >= 600 else math.ceil(seconds)
