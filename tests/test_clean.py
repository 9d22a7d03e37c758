"""Freeing what a finished sweep does not need: which checkpoints go, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from factories import grid, write_run
from forked_commands import Commands, contents

from irmas import clean
from irmas.errors import UserError
from irmas.files import held_by_many
from irmas.run.folder import CANCELLED, COMPLETED, DIVERGED, FAILED, PENDING, PRUNED, RUNNING, RunFolder, Status
from irmas.sweep.run_states import SweepState, sweep_state
from irmas.sweep.slurm import Task
from irmas.sweep.sweep import Sweep

STATES = (COMPLETED, PRUNED, DIVERGED, FAILED, CANCELLED, COMPLETED)
"""States of the runs by ID; the last one has lost its net."""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep with a run in each of these states, all with two checkpoints."""
    result = Sweep(tmp_path / "outputs" / "mine", grid({"seed": range(len(STATES))})).write()[0]
    for number, state in enumerate(STATES, start=1):
        folder = write_run(result, number, [(0.5, 1.0)], state)
        for name in ("checkpoint.pt", "checkpoint-before.pt", *["model.pt"][: number < len(STATES)]):
            (folder.path / name).write_bytes(bytes(10_000))
    (run_folders(result)[0].path / ".checkpoint.pt.node.123").write_bytes(bytes(10_000))
    return result


def run_folders(sweep: Sweep) -> list[RunFolder]:
    return [sweep.run_folder(run) for run in sweep.plan.runs]


def test_checkpoints_go_that_no_start_would_resume_and_all_else_stays(sweep: Sweep, commands: Commands) -> None:
    home = sweep.path.parent.parent
    before = contents(sweep.path)
    dry = commands.run("clean", "outputs/mine", "--dry-run", folder=home)
    assert (dry.code, dry.stderr) == (0, "")
    assert contents(sweep.path) == before
    done = commands.run("clean", "outputs/mine", folder=home)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == dry.stdout.replace("would free", "freed")
    # Blocks of 4096 bytes.
    assert done.stdout.startswith("outputs/mine: freed 86 kB of ")
    assert ", the checkpoints of 3 finished runs\n" in done.stdout
    assert "without a net from now on: runs 2-3, which did not end as COMPLETED\n" in done.stdout
    assert "kept: runs 4-5, not finished; rerun the sweep command to resume them\n" in done.stdout
    assert "kept: run 6, whose model.pt is missing\n" in done.stdout
    assert [len(folder.checkpoints) for folder in run_folders(sweep)] == [0, 0, 0, 2, 2, 2]
    gone = before.keys() - contents(sweep.path).keys()
    assert {Path(name).name for name in gone} == {"checkpoint.pt", "checkpoint-before.pt", ".checkpoint.pt.node.123"}
    assert len(gone) == 7
    again = commands.run("clean", "outputs/mine", folder=home)
    assert again.stdout.startswith("outputs/mine: freed 0 B of ")


def test_a_sweep_that_trains_on_this_machine_is_refused(sweep: Sweep, commands: Commands) -> None:
    with held_by_many(sweep.pool_lock):
        message = commands.refuse("clean", "outputs/mine", folder=sweep.path.parent.parent)
    assert "still training or in the queue: a command on this machine trains its runs; clean the sweep when" in message


def with_run(state: SweepState, number: int, status: Status, task: Task | None = None) -> SweepState:
    runs = [replace(run, status=status, task=task) if run.planned.id == number else run for run in state.runs]
    return replace(state, runs=runs)


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_live_is_named_and_nothing_is_removed(sweep: Sweep, dry_run: bool) -> None:
    idle = sweep_state(sweep)
    trains = with_run(idle, 4, Status(RUNNING))
    waits = with_run(trains, 5, Status(PENDING), Task("7", 5, "PENDING"))
    ranks = replace(
        idle, stages=[Task("9", state="PENDING", name="ranking"), Task("6", state="COMPLETED", name="data")]
    )
    silent = replace(idle, note="squeue: no answer")
    before = contents(sweep.path)
    for state, live in (
        (trains, "in the queue: run 4; "),
        (waits, "in the queue: runs 4-5; "),
        (ranks, "in the queue: ranking job 9; "),
        (silent, "runs 4-5 may still be in the queue: squeue: no answer"),
    ):
        with pytest.raises(UserError, match=live):
            clean.clean(state, dry_run=dry_run)
    assert contents(sweep.path) == before


def test_where_all_runs_are_final_slurms_silence_does_not_matter(sweep: Sweep) -> None:
    state = sweep_state(sweep)
    for number in (4, 5):
        state = with_run(state, number, Status(COMPLETED))
    clean.clean(replace(state, note="squeue: no answer"))
    assert not any(folder.checkpoints for folder in run_folders(sweep)[:-1])


def test_after_it_every_command_does_what_it_did(commands: Commands, corpus: Path, part: Path, tmp_path: Path) -> None:
    small = ["features.sample_rate=16000", "features.n_fft=1024", "features.hop_length=1500", "features.n_mels=16"]
    small += [f"data.root={corpus}", "model.filters=[4,8]", "model.dense=8", "epochs=2", "name=two"]
    train = ["-m", "seed=0,1", *small]
    assert commands.train(*train, folder=tmp_path).code == 0
    song = str(next(part.rglob("*.wav")))
    calls = [
        ["status", "outputs/two"],
        ["rank", "outputs/two"],
        ["evaluate", "outputs/two", str(part)],
        ["predict", "outputs/two", song, "--json", "-"],
        ["export", "outputs/two", "model.onnx"],
    ]
    before = [commands.run(*call, folder=tmp_path) for call in calls]
    assert [result.code for result in before] == [0] * len(calls), before
    written = contents(tmp_path)
    assert commands.run("clean", "outputs/two", folder=tmp_path).stdout.startswith("outputs/two: freed ")
    kept = contents(tmp_path)
    assert {Path(name).stem for name in written.keys() - kept.keys()} == {"checkpoint", "checkpoint-before"}

    assert [commands.run(*call, folder=tmp_path) for call in calls] == before
    again = commands.train(*train, folder=tmp_path)
    assert (again.code, again.stderr) == (0, "")
    assert "2 runs, 2 finished before" in again.stdout
    now = contents(tmp_path)
    assert now.keys() == kept.keys()
    changed = {name for name in now if now[name][2] != kept[name][2]}
    assert {name for name in changed if "/runs/" in name or not name.startswith("outputs/two/")} == set()

    grown = commands.train("-m", "seed=0,1,2", *small, folder=tmp_path)
    assert grown.code == 0, grown.stderr
    assert "3 runs, 2 finished before" in grown.stdout
