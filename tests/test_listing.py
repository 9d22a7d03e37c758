"""The list of all sweeps: one line each, whatever is wrong with the others; Slurm is queried once."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import grid
from forked_commands import Commands, contents

from irmas.config import Config, Data
from irmas.console import age, byte_size
from irmas.files import disk_usage
from irmas.results import listing
from irmas.results.listing import Listed
from irmas.run.events import RANKED
from irmas.run.folder import COMPLETED, FAILED, PENDING, RUNNING, Status
from irmas.run.lease import Writer
from irmas.sweep import slurm
from irmas.sweep.jobs import ARRAY, Job, Work, record_job
from irmas.sweep.slurm import SlurmError, Task
from irmas.sweep.sweep import Sweep

HOUR = 3600
POINTS = {"lr": (0.1, 0.2), "seed": (1, 2)}
"""Runs 1 and 3 are one point, runs 2 and 4 the other one."""


def made(folder: Path, name: str, accuracies: Sequence[float], **base: Any) -> Sweep:
    """Write a sweep in `outputs` below a folder; its first runs are finished, with these accuracies, an hour ago."""
    sweep = Sweep(folder / "outputs" / name, grid(POINTS, Config(**base), name)).write()[0]
    for run, accuracy in zip(sweep.plan.runs, accuracies, strict=False):
        record(sweep, run.id, Status(COMPLETED, metrics={RANKED: accuracy}, updated=time.time() - HOUR))
    return sweep


def record(sweep: Sweep, number: int, status: Status) -> None:
    folder = sweep.run_folder(sweep.plan.runs[number - 1])
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "status.json").write_text(status.to_json())


def entries(folder: Path) -> dict[str, Listed]:
    return {entry.path.name: entry for entry in listing.read(folder / "outputs")[0]}


def test_the_list_has_states_best_point_age_and_size_and_writes_nothing(tmp_path: Path, commands: Commands) -> None:
    made(tmp_path, "older", [0.5, 0.25, 0.25, 0.375])
    sweep = made(tmp_path, "newer", [0.75], note="wider, as discussed")
    (tmp_path / "outputs" / "no-sweep").mkdir()
    record(sweep, 2, Status(FAILED, updated=time.time()))
    before = contents(tmp_path)
    done = commands.run("status", folder=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    head, first, second = [line.split() for line in done.stdout.splitlines()]
    assert head == ["sweep", "runs", "val_accuracy", "age", "size", "note"]
    assert " ".join(first).startswith("outputs/newer 1 COMPLETED, 1 FAILED, 2 PENDING 75.00% ")
    assert " ".join(first).endswith(" kB wider, as discussed")
    # A point is as good as the mean of its seeds.
    assert " ".join(second).startswith("outputs/older 4 COMPLETED 37.50% 1 h ")
    assert contents(tmp_path) == before
    size = disk_usage(tmp_path / "outputs" / "older")
    assert size >= sum(path.stat().st_size for path in (tmp_path / "outputs" / "older").rglob("*.json*"))
    assert " ".join(second).endswith(byte_size(size))


def test_accuracies_on_excerpts_that_were_trained_on_are_not_listed(tmp_path: Path) -> None:
    made(tmp_path, "all", [0.99], data=Data(split="all"))
    assert entries(tmp_path)["all"].accuracy is None


def test_the_age_of_a_sweep_that_has_not_begun_is_that_of_its_plan(tmp_path: Path) -> None:
    sweep = made(tmp_path, "mine", [])
    os.utime(sweep.plan_file, (1000, 1000))
    entry = entries(tmp_path)["mine"]
    assert (entry.updated, dict(entry.states), entry.accuracy) == (1000, {PENDING: 4}, None)


@pytest.mark.parametrize("damage", ["plan.yaml", "points.jsonl"])
def test_a_damaged_sweep_costs_only_its_own_row(damage: str, tmp_path: Path, commands: Commands) -> None:
    made(tmp_path, "good", [0.5])
    (made(tmp_path, "bad", [0.5]).path / damage).write_text("{")
    done = commands.run("status", folder=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert "outputs/good  1 COMPLETED, 3 PENDING" in done.stdout
    assert "outputs/bad   cannot be read" in done.stdout
    assert f"outputs/bad: outputs/bad/{damage}: is damaged" in done.stdout
    (tmp_path / "outputs" / "bad" / "plan.yaml").unlink()
    assert "plan.yaml is missing" in entries(tmp_path)["bad"].problem


def test_a_run_that_cannot_be_read_is_one_failed_run(tmp_path: Path) -> None:
    sweep = made(tmp_path, "mine", [0.5, 0.5])
    (sweep.run_folder(sweep.plan.runs[0]).path / "status.json").write_text("{")
    assert dict(entries(tmp_path)["mine"].states) == {FAILED: 1, COMPLETED: 1, PENDING: 2}


def test_slurm_is_queried_once_for_all_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("a", "b"), start=7):
        sweep = made(tmp_path, name, [0.5])
        record_job(sweep, Job(str(number), ARRAY, f"irmas-{name}", time.time(), Work()))
        writer = Writer(node="n1", pid=5, job=f"{number}_2")
        record(sweep, 2, Status(RUNNING, epoch=2, epochs=9, updated=time.time(), writer=writer))
    queries = list[object]()

    def queue(names: Sequence[str]) -> list[Task]:
        queries.append(names)
        return [Task("7", 2, "RUNNING", node="n1", name="irmas-a"), Task("7", 3, "PENDING", name="irmas-a")]

    def accounting(numbers: set[str]) -> list[Task]:
        queries.append(numbers)
        return [Task("8", 2, "TIMEOUT", name="irmas-b")]

    monkeypatch.setattr(slurm, "queue", queue)
    monkeypatch.setattr(slurm, "accounting", accounting)
    found = entries(tmp_path)
    assert dict(found["a"].states) == {COMPLETED: 1, RUNNING: 1, PENDING: 1, "NOT_SUBMITTED": 1}
    assert dict(found["b"].states) == {COMPLETED: 1, "TIMEOUT": 1, "NOT_SUBMITTED": 2}
    assert queries == [["irmas", "irmas-a", "irmas-b"], {"7", "8"}]


def test_without_slurms_reply_the_states_are_those_recorded_and_the_reason_is_given_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        sweep = made(tmp_path, name, [0.5])
        record_job(sweep, Job("7", ARRAY, f"irmas-{name}", time.time(), Work()))
        record(sweep, 2, replace(Status(RUNNING, updated=time.time()), writer=Writer("n1", 5, "7_2")))

    def queue(names: Sequence[str]) -> list[Task]:
        raise SlurmError("squeue", "is not installed here")

    monkeypatch.setattr(slurm, "queue", queue)
    found, notes = listing.read(tmp_path / "outputs")
    assert [dict(entry.states) for entry in found] == 2 * [{COMPLETED: 1, RUNNING: 1, PENDING: 2}]
    assert notes == ["squeue: is not installed here: states are those that the runs last recorded"]


@pytest.mark.parametrize("name", ["", "outputs", "outputs/no-sweep"])
def test_no_sweep_at_all_is_one_message(name: str, tmp_path: Path, commands: Commands) -> None:
    (tmp_path / name).mkdir(parents=True, exist_ok=True)
    message = commands.refuse("status", folder=tmp_path)
    assert message.startswith(f"irmas.status: no sweep is in outputs/ of {tmp_path}; ")


@pytest.mark.parametrize("arguments", [["--watch"], ["--log", "1"]])
def test_what_is_about_one_sweep_needs_one(arguments: list[str], tmp_path: Path, commands: Commands) -> None:
    made(tmp_path, "mine", [])
    assert "need a sweep, outputs/<name>" in commands.refuse("status", *arguments, folder=tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (86400 * 400, "400 d")]
)
def test_an_age_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (81_240_000, "81.2 MB"), (999_700_000, "1 GB")]
)
def test_a_size_has_three_digits(size: int, text: str) -> None:
    assert byte_size(size) == text
