"""What a sweep has taken, from Slurm's accounting and from what its runs recorded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from factories import grid

from irmas.results import usage
from irmas.run.events import EPOCH_S
from irmas.run.folder import COMPLETED, Status
from irmas.run.lease import Writer
from irmas.sweep import jobs, slurm
from irmas.sweep.jobs import ARRAY, Job
from irmas.sweep.run_states import RunState, SweepState
from irmas.sweep.slurm import Task
from irmas.sweep.sweep import Sweep

TRES = "billing=1,cpu=2,gres/gpu:a100=1,gres/gpu=1,mem=8G,node=1"
STARTS = f"""\
7_1|irmas-mine|1000|120||{TRES}
7_1.batch|batch|1000||8000K|cpu=2,mem=8G,node=1
7_1.0|python|990||1258292K|cpu=2,gres/gpu=1,mem=8G,node=1
7_2|irmas-mine|600|120||{TRES}
7_2.0|python|600||1.10G|cpu=2,mem=8G,node=1
7_2|irmas-mine|900|120||{TRES}
7_2.0|python|900||1.00G|cpu=2,mem=8G,node=1
7_3|irmas-mine|20|120||{TRES}
7_3.0|python|20||7.9G|cpu=2,mem=8G,node=1
7_[4-9]|irmas-mine|0|120||
8_1|a stranger's|5000|120||{TRES}
8_1.0|python|5000||8G|cpu=2,mem=8G,node=1
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep of three runs: one left alone, one requeued, one that began without an epoch; 100 s per epoch."""
    sweep, _ = Sweep(tmp_path / "mine", grid({"lr": [0.1, 0.2, 0.3]})).write()
    jobs.record_job(sweep, Job("7", ARRAY, "irmas-mine", time.time()))
    return sweep


def state(sweep: Sweep, task: Task | None = None) -> SweepState:
    runs = []
    for run, epochs in zip(sweep.plan.runs, (8, 9, 0), strict=True):
        metrics = {EPOCH_S: 100.0} if epochs else None
        status = Status(COMPLETED, epoch=epochs, metrics=metrics, writer=Writer(pid=1, job=f"7_{run.id}"))
        runs.append(RunState(run, status, task, status))
    return SweepState(sweep, runs, [])


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    rows = [line.split("|") for line in text.splitlines()]
    monkeypatch.setattr(slurm, "accounted_starts", lambda numbers: rows if list(numbers) == ["7"] else [])


def test_hours_of_all_starts_and_what_did_not_train(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 + 1500 + 20 s of one GPU: 1700 in epochs, 600 + 20 lost, 200 idle."""
    answer(monkeypatch, STARTS)
    used, tasks = usage.lines(state(sweep))
    assert used == "used:    0.7 GPU hours in 4 starts of 3 tasks: 67% in epochs, 25% lost to restarts, 8% idle"
    assert tasks == (
        "tasks:   1.2G of 8G and 16 min 40 s of 2 h at most; hydra.launcher.mem=2G hydra.launcher.time=25 would fit"
    )


def test_while_tasks_are_live_nothing_is_concluded(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, STARTS)
    used, tasks = usage.lines(state(sweep, Task("7", 1, "RUNNING")))
    assert used.endswith("0.7 GPU hours in 4 starts of 3 tasks so far")
    assert tasks.endswith("of 2 h at most")


def test_a_setting_that_fits_is_not_named(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where more than half was used, nor where points have resources of their own."""
    answer(monkeypatch, STARTS.replace("mem=8G", "mem=2G").replace("|120|", "|30|"))
    assert usage.lines(state(sweep))[1] == "tasks:   1.2G of 2G and 16 min 40 s of 30 min at most"
    answer(monkeypatch, STARTS.replace("mem=8G", "mem=2G", 1).replace("|120|", "|UNLIMITED|"))
    assert len(usage.lines(state(sweep))) == 1


def test_runs_that_share_a_gpu_share_its_hours(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.record_launcher(sweep, ["hydra.launcher.runs_at_once=2", "hydra.launcher.warning=3600"])
    answer(monkeypatch, STARTS)
    used, tasks = usage.lines(state(sweep))
    assert "34% in epochs" in used
    assert tasks.endswith("; hydra.launcher.mem=2G would fit")  # time=25 is less than the warning


def test_without_gpus_hours_are_those_of_cores(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, STARTS.replace("gres/gpu", "gres/other"))
    assert usage.lines(state(sweep))[0].startswith("used:    1.4 core hours in 4 starts of 3 tasks: 67% in epochs")


@pytest.mark.parametrize(
    "rows", ["", "7_1|irmas-mine|50|120||\n7_1|irmas-mine|nonsense|120||\n7_1.0|python|1||x|\n9_1.0|python|1||1G|"]
)
def test_without_accounting_the_epochs_count(rows: str, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, rows)
    assert usage.lines(state(sweep)) == ["used:    28 min 20 s in 17 epochs of 2 runs"]


def test_a_sweep_that_has_trained_nothing_has_used_nothing(tmp_path: Path) -> None:
    sweep, _ = Sweep(tmp_path / "new", grid({"lr": [0.1]})).write()
    status: Sequence[Status] = [Status()]
    assert usage.lines(SweepState(sweep, [RunState(sweep.plan.runs[0], status[0], None, status[0])], [])) == []
