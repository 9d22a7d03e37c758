"""kill -9 at any moment: of a run, and of what writes a file."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ENVIRONMENT
from left_behind import bits, scalars

from irmas.config import Config, Data, Features, Model
from irmas.console import SILENT, plain_console
from irmas.run.folder import COMPLETED, FAILED, RunFolder
from irmas.sweep import data_job, pool
from irmas.sweep.plan import PlannedRun, freeze
from irmas.sweep.pool import SweepProgress
from irmas.sweep.sweep import Sweep

KILLS = 10


def test_no_file_is_ever_torn(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_at_each_line.py")
    done = subprocess.run([sys.executable, script, tmp_path], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = {name: int(number) for name, number in (line.split() for line in done.stdout.splitlines())}
    assert kills.keys() == {"StatusFile", "PlanFile", "Ranking", "PointFile", "Checkpoint", "large"}
    assert min(kills.values()) >= 5


@pytest.fixture(scope="module")
def begin(data: Data, features: Features, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return a function that plans the same single run in a folder of its own."""
    folder = tmp_path_factory.mktemp("killed")
    model = Model(filters=[4, 8], dense=8)
    config = Config(epochs=4, data=data, features=features, model=model, schedule="onecycle", device="cpu")

    def begin_another() -> Path:
        path = folder / str(len(list(folder.iterdir())))
        sweep, _ = Sweep(path, freeze(config, [PlannedRun(1, {}, {})], path.name)).write()
        data_job.make(sweep, SILENT)
        return path

    return begin_another


def train(sweep: Path, killed_after: float | None = None) -> str:
    """Train in a process that is killed that many seconds after its start; return the run's state at its end."""
    opened = Sweep.open(sweep)
    kill = threading.Thread(target=kill_child, args=(killed_after,))
    if killed_after is not None:
        kill.start()
    with SweepProgress(plain_console(), opened.plan.runs, 0) as progress:
        pool.train(opened, opened.plan.runs, 1, progress)
    if killed_after is not None:
        kill.join()
    return RunFolder(sweep / "runs" / "001").status().state


def kill_child(after: float) -> None:
    while not (children := multiprocessing.active_children()):
        time.sleep(0.001)
    time.sleep(after)
    (child,) = children
    if child.is_alive():
        os.kill(child.pid or 0, signal.SIGKILL)


def state_of(sweep: Path) -> Any:
    return torch.load(sweep / "runs" / "001" / "checkpoint.pt", weights_only=True)


def test_a_run_that_is_killed_at_any_of_10_moments_ends_as_an_undisturbed_one(begin: Callable[[], Path]) -> None:
    whole = begin()
    train(whole)  # with the fork server to start
    whole = begin()
    started = time.monotonic()
    assert train(whole) == COMPLETED
    duration = time.monotonic() - started
    moments, kills = random.Random(0), 0
    while kills < KILLS:
        sweep = begin()
        while train(sweep, moments.uniform(0, duration) if kills < KILLS else None) == FAILED:
            kills += 1
        assert RunFolder(sweep / "runs" / "001").status().state == COMPLETED
        assert bits(state_of(sweep)) == bits(state_of(whole))
        assert scalars(sweep / "runs" / "001") == scalars(whole / "runs" / "001")
