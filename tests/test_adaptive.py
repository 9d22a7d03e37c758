"""Runs that choose their points when they start: search=tpe."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from factories import read_plan
from forked_commands import Commands
from left_behind import ranking

from irmas.cli.draw import Listed, draw
from irmas.config import Config, Search, shown
from irmas.errors import UserError
from irmas.results import runs
from irmas.run.folder import COMPLETED, DIVERGED, FAILED, PENDING, PRUNED, RUNNING, Status
from irmas.sweep import adaptive
from irmas.sweep.adaptive import Interval, Trial, choose
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import without_slurm
from irmas.sweep.sweep import Sweep

FORK = get_context("fork")
SPACE: Mapping[str, Interval | Sequence[Any]] = {
    "lr": Interval(1e-4, 1e-1, is_log=True, is_whole=False),
    "dropout": Interval(0.1, 0.6, is_log=False, is_whole=False),
    "model": ["report", "deep"],
}
TOP = 0.82


def accuracy(point: Mapping[str, Any]) -> float:
    rate, dropout = math.log10(point["lr"]) + 2.2, point["dropout"] - 0.3
    return float(TOP - 0.1 * rate**2 - 0.8 * dropout**2 - 0.02 * (point["model"] == "report"))


def finished(point: Mapping[str, Any], state: str = COMPLETED, epoch: int = 5) -> Trial:
    return Trial(point, state, epoch, accuracy(point))


def searched(seed: int, runs: int = 30, at_once: int = 4) -> list[dict[str, Any]]:
    """Return the points of a search of which several runs train at a time."""
    points = list[dict[str, Any]]()
    for number in range(1, runs + 1):
        ended, training = points[: number - at_once], points[max(number - at_once, 0) :]
        trials = [*map(finished, ended), *map(Trial, training)]
        points.append(choose(SPACE, trials, Search("tpe", runs, seed), number))
    return points


def plan(runs: int, models: Sequence[str] = ("report", "deep")) -> Plan:
    """Return the plan of a search over lr and the option of a group."""
    config = Config(search=Search("tpe", runs, 0))
    interval = {"low": 0.001, "high": 0.1, "is_log": True, "is_whole": False}
    options = [{"overrides": {"model": name}, "changes": {"model.dense": 8 * k}} for k, name in enumerate(models, 1)]
    space = {"lr": "tag(log,interval(0.001,0.1))", "model": ",".join(models)}
    opened = [PlannedRun(number, {}, {}) for number in range(1, runs + 1)]
    return Plan("s", [*space], "data", "source", "", config, opened, [], [], [], space, {"lr": interval}, options)


def written(folder: Path, plan: Plan) -> Sweep:
    sweep = Sweep(folder, plan).write()[0]
    for run in sweep.plan.runs:
        sweep.run_folder(run).path.mkdir(parents=True)
    return sweep


def with_point(sweep: Sweep, number: int) -> PlannedRun:
    run = sweep.plan.runs[number - 1]
    return adaptive.with_point(sweep.run_folder(run), sweep, run)


def test_a_search_finds_better_points_than_as_many_that_are_drawn() -> None:
    space = {key: part if isinstance(part, Interval) else Listed(part) for key, part in SPACE.items()}

    def drawn(seed: int) -> list[dict[str, Any]]:
        points = draw(space, 30, seed)
        return [{key: text if key == "model" else float(text) for key, text in point.items()} for point in points]

    def missed(search: Callable[[int], list[dict[str, Any]]]) -> float:
        return fmean(TOP - max(map(accuracy, search(seed))) for seed in range(5))

    assert missed(searched) < missed(drawn) / 2


def test_the_points_follow_from_the_seed_and_are_numbers_as_a_person_writes_them() -> None:
    points = searched(0, runs=14)
    assert searched(0, runs=14) == points
    assert searched(1, runs=14)[0] != points[0]
    assert len({str(point) for point in points}) == 14
    for point in points:
        assert [*point] == [*SPACE]
        assert 1e-4 <= point["lr"] <= 1e-1
        assert point["lr"] == float(f"{point['lr']:.3g}")


def test_no_point_is_repeated_and_a_small_space_is_exhausted() -> None:
    space: Mapping[str, Interval | Sequence[Any]] = {
        "batch_size": Interval(2, 5, is_log=False, is_whole=True),
        "model.filters": [[8, 16], [32]],
    }
    points = list[dict[str, Any]]()
    for number in range(1, 9):
        # The first one is by far the best, so that TPE asks for it again.
        trials = [Trial(point, COMPLETED, 1, float(point == points[0])) for point in points]
        points.append(choose(space, trials, Search("tpe", 8, 0), number))
    assert len({str(point) for point in points}) == 8
    assert all(isinstance(point["batch_size"], int) and point["model.filters"] in ([8, 16], [32]) for point in points)


@pytest.mark.parametrize("state", [PRUNED, DIVERGED])
def test_a_search_stays_away_from_points_that_were_pruned_or_diverged(state: str) -> None:
    space: Mapping[str, Interval | Sequence[Any]] = {"dropout": Interval(0, 0.9, is_log=False, is_whole=False)}
    good = [Trial({"dropout": 0.01 * k}, COMPLETED, 9, 0.5 + 0.01 * k) for k in range(10)]
    bad = [Trial({"dropout": 0.5 + 0.03 * k}, state, 3, None if state == DIVERGED else 0.6) for k in range(13)]
    chosen = [choose(space, good + bad, Search("tpe", 64, seed), 24)["dropout"] for seed in range(10)]
    assert sum(value < 0.4 for value in chosen) >= 8
    assert sum(choose(space, [], Search("tpe", 64, seed), 24)["dropout"] < 0.4 for seed in range(10)) < 8


def test_a_run_keeps_its_point_which_every_reader_sees(tmp_path: Path) -> None:
    sweep = written(tmp_path, plan(3))
    run = with_point(sweep, 2)
    assert [*run.overrides] == ["lr", "model"]
    assert run.changes == {"lr": run.overrides["lr"], "model.dense": 8 if run.overrides["model"] == "report" else 16}
    assert with_point(sweep, 2) == run  # a restarted or requeued one, with the plan as it was
    opened = Sweep.open(tmp_path)
    assert opened.plan.runs == [sweep.plan.runs[0], run, sweep.plan.runs[2]]
    assert [opened.plan.value(run, "lr") for run in opened.plan.runs] == ["-", run.overrides["lr"], "-"]
    assert opened.plan.config_of(run).model.dense == run.changes["model.dense"]
    assert [opened.run_folder(run).path.name for run in opened.plan.runs] == ["001", "002", "003"]
    read, _ = runs.read(opened, without_slurm(opened))
    assert [record.values for record in read] == [{"lr": "-", "model": "-"}, run.overrides, {"lr": "-", "model": "-"}]


def test_a_run_learns_from_what_the_others_have_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, seen = written(tmp_path, plan(6)), list[Trial]()
    points = [with_point(sweep, number).overrides for number in range(1, 6)]
    states = (COMPLETED, PRUNED, FAILED, RUNNING)
    for number, state in enumerate(states, start=1):
        status = Status(state, epoch=number, metrics={"val_accuracy": number / 8})
        sweep.run_folder(sweep.plan.runs[number - 1]).write_status(status)
    (tmp_path / "runs" / "005" / "status.json").write_text("{")

    def note(space: object, trials: Sequence[Trial], *rest: object) -> dict[str, Any]:
        seen.extend(trials)
        return {"lr": 0.002, "model": "deep"}

    monkeypatch.setattr(adaptive, "choose", note)
    with_point(sweep, 6)
    assert [trial.values for trial in seen] == points
    assert [(trial.state, trial.epoch, trial.accuracy) for trial in seen[:4]] == [
        (state, number, number / 8) for number, state in enumerate(states, start=1)
    ]
    assert (seen[4].state, seen[4].accuracy) == (PENDING, None)


def test_a_larger_search_appends_runs_behind_those_of_a_round(tmp_path: Path) -> None:
    sweep = written(tmp_path, plan(2))
    first, second = with_point(sweep, 1), with_point(sweep, 2)
    fresh = replace(first, id=3, overrides=first.overrides | {"seed": 1}, changes=first.changes | {"seed": 1})
    Sweep(tmp_path, replace(plan(2), runs=[fresh], rounds=[[3, 3]])).write(append=True)
    Sweep(tmp_path, replace(plan(4), options=[])).write()  # files of conf/ that are edited since change no sweep
    grown = read_plan(tmp_path)
    assert grown.runs == [first, second, fresh, PlannedRun(4, {}, {}), PlannedRun(5, {}, {})]
    assert grown.options == sweep.plan.options
    Sweep(tmp_path, plan(4)).write()
    assert read_plan(tmp_path).runs == grown.runs


def hold(sweep: Sweep, has_begun: Event) -> None:
    """Hold the lock of the points for ever."""

    def wait(*_: object) -> None:
        has_begun.set()
        time.sleep(600)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive, "choose", wait)
        with_point(sweep, 1)


def forked(function: Callable[..., object], *args: object) -> BaseProcess:
    process = FORK.Process(target=function, args=args, daemon=True)
    process.start()
    return process


def test_a_run_that_is_killed_while_it_chooses_holds_up_no_other(tmp_path: Path) -> None:
    sweep, has_begun = written(tmp_path, plan(3)), FORK.Event()
    holder = forked(hold, sweep, has_begun)
    assert has_begun.wait(60)
    waiting = forked(with_point, sweep, 2)
    waiting.join(1)
    assert waiting.is_alive()
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    waiting.join(60)
    assert waiting.exitcode == 0
    assert [bool(run.overrides) for run in read_plan(tmp_path).runs] == [False, True, False]
    assert with_point(sweep, 1).overrides  # requeued


def test_runs_that_start_at_once_choose_different_points(tmp_path: Path) -> None:
    models = [str(number) for number in range(8)]
    small = plan(8, models)
    sweep = written(tmp_path, replace(small, space={"model": ",".join(models)}, swept=["model"], intervals={}))
    with_point(sweep, 8)  # imports Optuna, so that the others differ in their start by less
    gate = FORK.Event()

    def start(number: int) -> None:
        gate.wait()
        with_point(sweep, number)

    processes = [forked(start, number) for number in range(1, 8)]
    gate.set()
    for process in processes:
        process.join(60)
    assert sorted(run.overrides["model"] for run in read_plan(tmp_path).runs) == models


def test_a_damaged_point_is_named(tmp_path: Path) -> None:
    written(tmp_path, plan(1))
    (tmp_path / "runs" / "001" / "point.json").write_text('{"overrides": ')
    with pytest.raises(UserError, match=r"runs/001/point\.json: is damaged .*; remove .*runs/001 and rerun"):
        Sweep.open(tmp_path)


def test_without_optuna_a_run_ends_with_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = written(tmp_path, plan(1))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"^search=tpe: needs Optuna: pip install 'irmas\[search\]'$"):
        with_point(sweep, 1)


def test_a_search_is_trained_pruned_ranked_and_grown(tmp_path: Path, commands: Commands) -> None:
    data = ["data=standin", "data.size=132", "features=small", "model.filters=[8,16]", "device=cpu"]
    space = ["lr=tag(log,interval(1e-4,1e-2))", "dropout=0.3,0.4", "augment=none,specaugment"]
    command = ["search=tpe", *space, *data, "epochs=2", "halving=2", "name=found", "hydra.launcher.runs_at_once=2"]
    done = commands.train(*command, "search.runs=4", folder=tmp_path)
    assert done.code == 0, done.stderr
    folder = tmp_path / "outputs" / "found"
    first = read_plan(folder).runs
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["001", "002", "003", "004"]
    ranked = {entry["id"]: entry for entry in ranking(folder)}
    for run in first:
        assert run.overrides.items() <= ranked[run.id].items()
        values = " ".join(f"{key}={shown(value)}" for key, value in run.overrides.items())
        assert f"run {run.id} {values} " in done.stdout
    done = commands.train(*command, "search.runs=5", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "outputs/found: 5 runs, 4 finished before" in done.stdout
    grown = read_plan(folder).runs
    assert grown[:4] == first
    assert grown[4].overrides
