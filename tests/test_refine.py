"""Fresh seeds for the best points: which runs a round adds, what the plan remembers of it, and the command itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import start, wait_until
from factories import grid, read_plan, write_plan
from forked_commands import Commands, contents
from left_behind import ranking, runs, status

from irmas import refine
from irmas.config import Config, Data
from irmas.data import dataset
from irmas.errors import ConfigError, UserError
from irmas.files import held_by_many
from irmas.results import rounds
from irmas.results.analysis import Analysis, Point
from irmas.results.comparison import TrainingNoise
from irmas.results.effects import Effect, Level
from irmas.results.rounds import Request
from irmas.results.runs import Run, by_accuracy
from irmas.run.folder import DIVERGED, FAILED
from irmas.sweep import jobs
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.sweep import PLAN, Sweep


def grown(plan: Plan, runs: Sequence[PlannedRun]) -> Plan:
    """Return the plan as `rounds.with_round` does, but for the digests."""
    keys = list(dict.fromkeys([*plan.swept, "seed"]))
    return replace(plan, runs=list(runs), swept=keys, rounds=[*plan.rounds, [runs[0].id, runs[-1].id]])


def settings(plan: Plan, runs: Sequence[PlannedRun], *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(plan.config_of(run), key) for key in keys) for run in runs]


GRID = {"dropout": [0.3, 0.5], "lr": [0.001, 0.0001]}


# ---- which runs a round adds


def test_a_round_leaves_what_a_search_has_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "digest", lambda _: "data")
    plan = replace(grid(GRID), space={"lr": "interval(0.0001,0.001)"})
    added = rounds.fresh_runs(plan, plan.runs[:1], 2, {})
    assert rounds.with_round(plan, added, "mine", allow_code_change=False).space == plan.space


def test_a_round_adds_seeds_that_no_run_has_the_same_for_all_points() -> None:
    plan = grid(GRID | {"seed": [0, 2]})
    added = rounds.fresh_runs(plan, [plan.runs[2], plan.runs[0]], 3, {})
    assert [run.id for run in added] == [9, 10, 11, 12, 13, 14]
    first, second = (0.3, 0.0001), (0.3, 0.001)
    first = settings(plan, plan.runs[2:3], "dropout", "lr")[0]
    assert settings(plan, added, "seed") == [(1,), (1,), (3,), (3,), (4,), (4,)]
    assert settings(plan, added, "dropout", "lr") == [first, second] * 3


def test_a_sweep_without_seeds_keeps_the_names_of_its_runs_and_seeds_are_fresh_beside_the_base_s() -> None:
    plan = grid(GRID, replace(Config(), seed=1))
    added = rounds.fresh_runs(plan, plan.runs[:1], 2, {})
    assert settings(plan, added, "seed") == [(0,), (2,)]
    assert [run.folder_name for run in added] == ["005-dropout=0.3,lr=0.001,seed=0", "006-dropout=0.3,lr=0.001,seed=2"]
    assert plan.runs[0].folder_name == "001-dropout=0.3,lr=0.001"


def test_a_seed_that_is_the_base_s_but_was_not_swept_is_fresh() -> None:
    plan = grid({"dropout": [0.3, 0.5], "seed": [3, 4]})
    (run,) = rounds.fresh_runs(plan, plan.runs[:1], 1, {})
    assert (plan.config_of(run).seed, run.changes) == (0, {"dropout": 0.3})


def test_neighbors_have_the_settings_of_the_leader_and_all_the_seeds_that_it_then_has() -> None:
    plan = grid(GRID)
    added = rounds.fresh_runs(plan, [plan.runs[3], plan.runs[0]], 2, {"lr": 3e-05, "dropout": 0.7})
    assert settings(plan, added[:4], "dropout", "lr", "seed") == [
        (0.5, 0.0001, 1), (0.3, 0.001, 1), (0.5, 0.0001, 2), (0.3, 0.001, 2),
    ]  # fmt: skip
    assert settings(plan, added[4:], "dropout", "lr", "seed") == [
        (0.5, 3e-05, 0), (0.7, 0.0001, 0), (0.5, 3e-05, 1), (0.7, 0.0001, 1), (0.5, 3e-05, 2), (0.7, 0.0001, 2),
    ]  # fmt: skip
    assert plan.value(added[4], "lr") == 3e-05


def test_a_neighbor_that_the_sweep_holds_is_not_trained_twice() -> None:
    plan = grid({"dropout": [0.3, 0.5, 0.7]})
    added = rounds.fresh_runs(plan, plan.runs[1:2], 1, {"dropout": 0.7})
    assert settings(plan, added, "dropout", "seed") == [(0.5, 1), (0.7, 1)]


def test_a_neighbor_whose_settings_do_not_fit_is_refused() -> None:
    plan = grid({"dropout": [0.3, 0.5]})
    with pytest.raises(ConfigError, match=r"dropout=1\.5"):
        rounds.fresh_runs(plan, plan.runs[:1], 1, {"dropout": 1.5})


def test_where_folds_are_swept_a_fresh_seed_is_trained_on_each_of_them() -> None:
    plan = grid({"dropout": [0.3, 0.5], "data.fold": [0, 1, 2]})
    leader = plan.runs[4]
    added = rounds.fresh_runs(plan, [leader, plan.runs[0]], 2, {"dropout": 0.7})

    def repetitions(dropout: float) -> list[tuple[int, int]]:
        configs = map(plan.config_of, added)
        return [(config.seed, config.data.fold) for config in configs if config.dropout == dropout]

    fresh = [(seed, fold) for seed in (1, 2) for fold in (0, 1, 2)]
    assert repetitions(0.5) == repetitions(0.3) == fresh
    assert repetitions(0.7) == [(0, 0), (0, 1), (0, 2), *fresh]
    assert len(added) == 21
    assert added[0].folder_name == "007-dropout=0.5,data.fold=0,seed=1"
    assert Request(candidates=2, seeds=2).budget(plan) == 3 * Request(candidates=2, seeds=2).budget(grid(GRID))


def test_fresh_runs_are_not_halved_since_only_lucky_ones_would_count() -> None:
    plan = grid(GRID, replace(Config(), halving=3))
    added = rounds.fresh_runs(plan, plan.runs[:1], 1, {})
    assert settings(plan, [*plan.runs[:1], *added], "halving") == [(3,), (None,)]


# ---- what the plan remembers


def test_the_command_of_the_sweep_resumes_the_rounds_too(tmp_path: Path) -> None:
    plan = grid(GRID)
    write_plan(tmp_path, plan)
    added = rounds.fresh_runs(plan, plan.runs[:2], 1, {})
    refined, of_round = write_plan(tmp_path, grown(plan, added), append=True)
    assert of_round == added
    assert (refined.rounds, refined.refined, refined.swept) == ([[5, 6]], {5, 6}, ["dropout", "lr", "seed"])
    assert refined.runs[:4] == plan.runs
    assert read_plan(tmp_path) == refined
    assert write_plan(tmp_path, plan) == (refined, refined.runs)
    with pytest.raises(ConfigError, match=r"holds dropout=0\.5 lr=0\.001, which"):
        write_plan(tmp_path, grid({"dropout": [0.3], "lr": GRID["lr"]}))


def test_a_round_that_two_commands_plan_at_once_is_one_round(tmp_path: Path) -> None:
    plan = grid(GRID)
    write_plan(tmp_path, plan)
    added = rounds.fresh_runs(plan, plan.runs[:2], 1, {})
    once = write_plan(tmp_path, grown(plan, added), append=True)
    assert write_plan(tmp_path, grown(plan, added), append=True) == once
    assert write_plan(tmp_path, replace(once[0], runs=added), append=True) == once


def test_a_round_whose_runs_were_swept_meanwhile_is_none(tmp_path: Path) -> None:
    plan = grid(GRID)
    added = rounds.fresh_runs(plan, plan.runs[:2], 1, {})
    write_plan(tmp_path, grid(GRID | {"seed": [0, 1]}))
    written, of_round = write_plan(tmp_path, grown(plan, added), append=True)
    assert (written.rounds, settings(written, of_round, "seed")) == ([], [(1,), (1,)])
    assert len(written.runs) == 8


def test_a_grid_over_seeds_takes_the_fresh_runs_as_its_own(tmp_path: Path) -> None:
    plan = grid(GRID)
    write_plan(tmp_path, plan)
    write_plan(tmp_path, grown(plan, rounds.fresh_runs(plan, plan.runs[:2], 1, {})), append=True)
    wider, _ = write_plan(tmp_path, grid(GRID | {"seed": [0, 1]}))
    trained = settings(wider, wider.runs, "dropout", "lr", "seed")
    assert (len(trained), len(set(trained)), wider.rounds) == (8, 8, [[5, 6]])
    assert settings(wider, rounds.fresh_runs(wider, plan.runs[:1], 1, {}), "seed") == [(2,)]


def test_another_halving_is_refused_after_a_round_as_before(tmp_path: Path) -> None:
    plan = grid(GRID, replace(Config(), halving=3))
    write_plan(tmp_path, plan)
    added = rounds.fresh_runs(plan, plan.runs[:1], 1, {})
    refined, _ = write_plan(tmp_path, grown(plan, added), append=True)
    assert write_plan(tmp_path, plan)[0] == refined
    assert settings(refined, refined.runs, "halving") == [(3,)] * 4 + [(None,)]
    with pytest.raises(ConfigError, match="halving=2: sweep mine was made with halving=3"):
        write_plan(tmp_path, grid(GRID, replace(Config(), halving=2)))


def test_a_plan_of_before_there_were_rounds_has_none(tmp_path: Path) -> None:
    write_plan(tmp_path, grid(GRID))
    head = yaml.safe_load((tmp_path / PLAN).read_text())
    del head["rounds"]
    (tmp_path / PLAN).write_text(yaml.safe_dump(head))
    assert read_plan(tmp_path) == grid(GRID)


# ---- the order of a refined sweep


def test_points_that_were_trained_again_come_first_whatever_failed() -> None:
    def values(lr: float, seed: int) -> dict[str, Any]:
        return {"lr": lr, "seed": seed}

    def run(number: int, settings: dict[str, Any], accuracy: float) -> Run:
        return Run(number, settings, accuracy=accuracy, loss=1.0)

    planned = [values(lr, seed) for lr, seeds in ((0.1, 1), (0.2, 3), (0.3, 3), (0.4, 1)) for seed in range(seeds)]
    finished = [
        run(1, values(0.1, 0), 0.9),
        run(2, values(0.2, 0), 0.5), run(3, values(0.2, 1), 0.7), run(4, values(0.2, 2), 0.6),
        run(5, values(0.3, 0), 0.65),  # its fresh seeds failed
        run(8, values(0.4, 0), 0.8),
    ]  # fmt: skip
    order = [[run.id for run in members] for _, members in by_accuracy(finished, planned)]
    assert order == [[5], [2, 3, 4], [1], [8]]
    assert [[run.id for run in members] for _, members in by_accuracy(finished)] == [[1], [8], [5], [2, 3, 4]]
    once = [run for run in finished if run.values["seed"] == 0]
    assert [members[0].id for _, members in by_accuracy(once, [run.values for run in once])] == [1, 8, 5, 2]


# ---- what an analysis leads to


def analysis(
    *points: tuple[float, bool | None, float | None], edges: Sequence[tuple[str, float, float]] = (), noisy: bool = True
) -> Analysis:
    """Return an analysis of the grid's points in their order: accuracy, membership in the best set, expected loss."""
    plan = grid(GRID)
    result = tuple(
        Point(point.overrides, (point.id,), accuracy, None, kept, None, loss)
        for point, (accuracy, kept, loss) in zip(plan.runs, points, strict=False)
    )
    effects = tuple(Effect(key, (Level(value, 0.5),), None, beyond) for key, value, beyond in edges)
    noise = TrainingNoise(0.01, 9, "seeds") if noisy else None
    return Analysis(result, None, noise, effects, None, False, 100, 30, "", 0.95)


UNDECIDED = ((0.6, True, 0.002), (0.59, True, 0.02), (0.58, True, 0.001), (0.4, False, 0.2))
EDGES = [("lr", 0.0001, 3e-05)]


def test_candidates_are_the_leader_and_those_that_lose_least() -> None:
    plan = grid(GRID)
    added = rounds.next_round(plan, analysis(*UNDECIDED), Request(candidates=2, seeds=1))
    assert settings(plan, added, "dropout", "lr", "seed") == [(0.3, 0.001, 1), (0.5, 0.001, 1)]
    with_edges = rounds.next_round(plan, analysis(*UNDECIDED, edges=EDGES), Request(candidates=1, seeds=1, edges=True))
    assert settings(plan, with_edges, "lr", "seed") == [(0.001, 1), (3e-05, 0), (3e-05, 1)]


def test_without_training_noise_the_first_of_the_ranking_show_it() -> None:
    unknown = analysis(*((accuracy, None, None) for accuracy in (0.6, 0.5, 0.4, 0.3)), noisy=False)
    plan = grid(GRID)
    added = rounds.next_round(plan, unknown, Request(candidates=2, seeds=1))
    assert settings(plan, added, "dropout", "lr") == [(0.3, 0.001), (0.3, 0.0001)]
    with pytest.raises(UserError, match="They differ"):
        rounds.next_round(plan, replace(unknown, unpaired="They differ."), Request())


DECIDED = ((0.6, True, 0.0), (0.5, False, 0.1), (0.4, False, 0.2), (0.3, False, 0.3))


@pytest.mark.parametrize(
    ("result", "request_", "why"),
    [
        (analysis(*UNDECIDED), Request(until="decided"), ""),
        (analysis(*UNDECIDED), Request(until="decided", loss=1.9), ""),
        (analysis(*UNDECIDED), Request(until="decided", loss=2), "3 points .* loses at most 2.00"),
        (analysis(*UNDECIDED), Request(loss=2), ""),
        (analysis((0.6, True, 0.0), (0.5, True, None), (0.4, False, None)), Request(until="decided"), ""),
        (analysis(*DECIDED), Request(), r"dropout=0.3 lr=0.001 \(run 1\) is the only point"),
        (analysis(*DECIDED, edges=EDGES), Request(), "is the only point"),
        (analysis(*DECIDED, edges=EDGES), Request(edges=True), ""),
        (analysis(*UNDECIDED, edges=EDGES), Request(until="decided", loss=2, edges=True), ""),
    ],
)  # fmt: skip
def test_it_is_decided_when_one_point_is_left_or_all_are_as_good(result: Analysis, request_: Request, why: str) -> None:
    reason = rounds.decided(result, request_)
    assert bool(re.search(why, reason)) if why else reason == ""


# ---- the command line


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["candidate=3"], ["candidate=3: there is no setting 'candidate'", "did you mean candidates?"]),
        (["lr=0.1"], ["lr=0.1: there is no setting 'lr'", "settings: candidates seeds edges"]),
        (["candidates=many"], ["candidates=many: must be a whole number from 1 to 10000"]),
        (["candidates=0"], ["candidates=0: must be a whole number from 1 to 10000"]),
        (["seeds=1.5"], ["seeds=1.5: must be a whole number from 1 to 10000"]),
        (["edges=yes"], ["edges=yes: must be one of true, false"]),
        (["until=dawn"], ["until=dawn: must be one of none, decided"]),
        (["until=decided", "loss=-1"], ["loss=-1: must be a number from 0"]),
        (["until=decided", "loss=nan"], ["loss=nan: must be a number from 0"]),
        (["runs=9"], ["runs=9: requires until=decided"]),
        (["loss=1"], ["loss=1: requires until=decided"]),
        (["seeds=1", "seeds=2"], ["seeds is set twice"]),
        (["dry_run"], ["dry_run: must be followed by = and one of true, false"]),
        (["hydra.sweeper.params=3"], ["hydra.sweeper.params=3: not supported", "hydra/launcher"]),
        (["hydra/launcher=basic"], ["hydra/launcher=basic: must be one of local, slurm"]),
        (["hydra/launcher=local", "hydra.launcher.procs=2"], ["hydra.launcher.procs", "runs_at_once"]),
        (["hydra/launcher=local", "hydra.launcher.processes=2"], ["processes: was renamed; give", "runs_at_once"]),
        (["hydra/launcher=local", "hydra.launcher.runs_at_once=0"], ["hydra.launcher.runs_at_once=0", "from 1"]),
        (["hydra/launcher=local", "hydra.launcher.runs_at_once=1,2"], ["runs_at_once=1,2", "a whole number from 1"]),
        (["hydra/launcher=slurm", "hydra.launcher.time=soon"], ["hydra.launcher.time=soon", "minutes"]),
        (["hydra/launcher=slurm", "hydra.launcher.submit=false", "until=decided"], ["submit=false", "until=decided"]),
        (["--nope"], ["--nope", "--help"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_mistake_is_one_message(words: list[str], wanted: list[str], commands: Commands, tmp_path: Path) -> None:
    write_plan(tmp_path / "outputs" / "mine", grid(GRID))
    message = commands.refuse("refine", "outputs/mine", *words, folder=tmp_path)
    assert message.count("\n") == 1
    for text in wanted:
        assert text in message


def test_the_settings_of_the_last_submission_are_used_again(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, grid({}))
    # The number of runs under the name that it had in an earlier version.
    jobs.record_launcher(sweep, [f"hydra.launcher.{text}" for text in ("points_per_task=6", "partition=gpu", "cpus=4")])
    request = Request(until="decided", seeds=2)
    words = ["hydra.launcher.cpus=1", "hydra/launcher=slurm", "hydra.launcher.wait=true"]
    launcher = refine._launcher(sweep, request, words)
    # The job that ranks waits for no round that it has submitted.
    kept = ["hydra.launcher.partition=gpu", "hydra.launcher.cpus=1", "hydra.launcher.runs_per_task=6"]
    assert launcher.kept_overrides == kept
    ours = ["hydra/launcher=slurm", *kept]
    assert launcher.refine_arguments == ["--in-job", "seeds=2", "until=decided", *ours]
    assert refine._launcher(sweep, Request(), ["hydra/launcher=slurm"]).refine_arguments == ()
    assert refine._launcher(sweep, request, ["hydra/launcher=local"]).kept_overrides == []


def test_a_damaged_record_of_the_launcher_is_named(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, grid({}))
    path = jobs.private_folder(sweep) / "launcher.json"
    path.write_text("[")
    with pytest.raises(UserError, match=r"launcher\.json: is damaged"):
        refine._launcher(sweep, Request(), ["hydra/launcher=slurm"])


# ---- the command


@dataclass(frozen=True)
class Swept:
    """A folder with a finished sweep of three runs, and the command that made it."""

    folder: Path
    command: list[str]

    @property
    def sweep(self) -> Path:
        return self.folder / "outputs" / "grid"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Swept:
    folder = tmp_path_factory.mktemp("refined")
    data = ["data=standin", "data.size=132", f"data.root={folder}/data", f"data.cache_dir={folder}/data/cache"]
    net = ["features=small", "model.filters=[4,8]", "epochs=4", "device=cpu"]
    command = ["-m", *data, *net, "lr=0.003,0.001,0.0001", "name=grid"]
    done = commands.train(*command, folder=folder)
    assert done.code == 0, done.stderr
    return Swept(folder, command)


@pytest.fixture
def mine(finished: Swept, tmp_path: Path) -> Swept:
    shutil.copytree(finished.folder / "outputs", tmp_path / "outputs")
    return Swept(tmp_path, finished.command)


LOCAL = "hydra/launcher=local"


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(mine: Swept, commands: Commands) -> None:
    before = contents(mine.folder)
    done = commands.run("refine", "outputs/grid", "dry_run=true", "candidates=2", "seeds=2", LOCAL, folder=mine.folder)
    assert (done.code, done.stderr) == (0, "")
    assert contents(mine.folder) == before
    lines = done.stdout.splitlines()
    assert lines[0] == "outputs/grid: round 1 would train 4 runs of 2 points, 16 epochs"
    assert lines[2].split() == ["lr", "val_accuracy", "runs", "seeds", "to", "train"]
    leader = next(entry for entry in ranking(mine.sweep) if entry["rank"] == 1)
    assert lines[3].split() == [str(leader["lr"]), f"{leader['point_accuracy']:.2%}", "1", "1-2"]
    assert len(lines) == 5


def test_a_round_is_trained_ranked_and_kept_by_the_sweeps_own_command(mine: Swept, commands: Commands) -> None:
    before = {path: path.stat().st_mtime_ns for path in (mine.sweep / "runs").rglob("*") if path.is_file()}
    done = commands.run("refine", "outputs/grid", "candidates=2", "seeds=2", LOCAL, folder=mine.folder)
    assert done.code == 0, done.stderr
    assert "outputs/grid: 4 runs, 0 finished before" in done.stdout
    assert "outputs/grid: 7 of 7 runs finished" in done.stdout
    assert [run.name.rpartition(",")[2] for run in runs(mine.sweep)][3:] == ["seed=1", "seed=1", "seed=2", "seed=2"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    entries = ranking(mine.sweep)
    assert sorted(entry["rank"] for entry in entries) == [1, 1, 1, 2, 2, 2, 3]
    assert {entry["seed"] for entry in entries if entry["rank"] == 1} == {0, 1, 2}

    again = commands.train(*mine.command, folder=mine.folder)
    assert again.code == 0, again.stderr
    assert "outputs/grid: 7 runs, 7 finished before" in again.stdout
    planned = read_plan(mine.sweep)
    assert (planned.rounds, len(planned.runs)) == ([[4, 7]], 7)


def test_a_killed_round_is_finished_by_either_command_and_no_other_is_planned(mine: Swept, commands: Commands) -> None:
    words = ["candidates=2", "seeds=2", "hydra.launcher.runs_at_once=1"]
    process = start("refine", "outputs/grid", *words, cwd=mine.folder)
    wait_until(lambda: len(runs(mine.sweep)) > 3 and status(runs(mine.sweep)[3])["epoch"] >= 1, "an epoch", 60)
    child = status(runs(mine.sweep)[3])["pid"]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "the end of the child", 15)
    before = read_plan(mine.sweep)
    assert before.rounds == [[4, 7]]
    unfinished = contents(mine.folder)

    done = commands.run("refine", "outputs/grid", "dry_run=true", LOCAL, folder=mine.folder)
    assert done.stdout == "outputs/grid: an earlier round is unfinished and comes first: runs 4-7\n"
    assert contents(mine.folder) == unfinished
    copy = mine.folder / "copy"
    shutil.copytree(mine.folder / "outputs", copy / "outputs")
    for folder, command in ((mine.folder, ["refine", "outputs/grid", LOCAL]), (copy, ["train", *mine.command, LOCAL])):
        done = commands.run(*command, folder=folder)
        assert done.code == 0, done.stderr
        assert "7 of 7 runs finished" in done.stdout
        assert read_plan(folder / "outputs" / "grid") == before
    assert (
        "4 runs, 0 finished before"
        in commands.run("refine", "outputs/grid", "seeds=2", "candidates=2", LOCAL, folder=copy).stdout
    )


def test_rounds_are_repeated_until_the_budget_is_used_or_the_loss_is_small(mine: Swept, commands: Commands) -> None:
    words = ["outputs/grid", "until=decided", "candidates=2", "seeds=1", LOCAL]
    done = commands.run("refine", *words, "runs=4", "loss=0", folder=mine.folder)
    assert done.code == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if ": round " in line] == [
        "outputs/grid: round 1 trains 2 runs of 2 points, 8 epochs",
        "outputs/grid: round 2 trains 2 runs of 2 points, 8 epochs",
    ]
    assert "outputs/grid: 7 of 7 runs finished" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"outputs/grid: not decided: \d points in the best set\. Another round has 2 runs, and 4 of runs=4 are used; "
        "runs=6 or fewer candidates= allow it",
        last,
    )
    assert read_plan(mine.sweep).rounds == [[4, 5], [6, 7]]

    before = contents(mine.folder)
    for more, reason in (("runs=4", "not decided: "), ("loss=100", "decided: ")):
        done = commands.run("refine", *words, more, folder=mine.folder)
        assert (done.code, done.stdout.startswith(f"outputs/grid: {reason}"), done.stdout.count("\n")) == (0, True, 1)
    assert contents(mine.folder) == before


def test_a_failed_run_ends_the_rounds_and_is_trained_first_by_the_next_command(mine: Swept, commands: Commands) -> None:
    words = ["outputs/grid", "until=decided", "candidates=2", "seeds=1", "runs=4", "loss=0", LOCAL]
    lr = read_plan(mine.sweep).runs[min(e["id"] for e in ranking(mine.sweep) if e["rank"] == 1) - 1].overrides["lr"]
    broken = mine.sweep / "runs" / f"004-lr={lr},seed=1"
    broken.mkdir(parents=True)
    (broken / "config.yaml").write_text(yaml.safe_dump(asdict(Config(batch_size=16))))
    done = commands.run("refine", *words, folder=mine.folder)
    assert (done.code, status(broken)["state"]) == (1, FAILED)
    assert "was trained with batch_size=16" in done.stdout
    shutil.rmtree(broken)
    done = commands.run("refine", *words, folder=mine.folder)
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("outputs/grid: an earlier round is unfinished and comes first: runs 4-5\n")
    assert "round 2 trains 2 runs of 2 points, 8 epochs" in done.stdout


def test_a_run_of_the_sweep_that_failed_is_left_to_its_own_command(mine: Swept, commands: Commands) -> None:
    failed = mine.sweep / "runs" / "003-lr=0.0001"
    recorded = status(failed) | {"state": FAILED, "message": "its node failed"}
    (failed / "status.json").write_text(json.dumps(recorded))
    done = commands.run("refine", "outputs/grid", "dry_run=true", LOCAL, folder=mine.folder)
    assert done.stdout.startswith("outputs/grid: round 1 would train 6 runs of 2 points, 24 epochs\n")
    shutil.rmtree(failed)
    message = commands.refuse("refine", "outputs/grid", LOCAL, folder=mine.folder)
    assert "outputs/grid: not trained to the end: run 3; rerun the sweep command" in message


def test_a_sweep_elsewhere_or_in_training_is_refused(mine: Swept, commands: Commands) -> None:
    def refuse(sweep: str = "outputs/grid") -> str:
        return commands.refuse("refine", sweep, LOCAL, folder=mine.folder)

    assert "no sweep is here (plan.yaml is missing); sweeps: outputs/grid" in refuse("outputs/other")
    shutil.copytree(mine.sweep, mine.folder / "copy")
    assert "copy: must be in outputs/ of the working directory" in refuse("copy")
    (mine.sweep / "runs" / "003-lr=0.0001" / "status.json").unlink()
    with held_by_many(Sweep.open(mine.sweep).pool_lock):
        assert "outputs/grid: still training or in the queue: run 3; refine the sweep" in refuse()


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (grid(GRID), "no run has finished; python -m irmas.status outputs/mine shows why"),
        (
            grid({"seed": [0, 1]}),
            "has one point, and nothing to choose; sweep a setting with irmas.train",
        ),
        (grid(GRID, Config(data=Data(split="all"))), "data.split=all trains on the validation excerpts"),
    ],
    ids=["unfinished", "one point", "split"],
)
def test_a_sweep_that_shows_nothing_is_refused_with_the_reason(
    plan: Plan, reason: str, commands: Commands, tmp_path: Path
) -> None:
    sweep = tmp_path / "outputs" / "mine"
    write_plan(sweep, plan)
    for point in plan.runs:
        run = Sweep(sweep, plan).run_folder(point).path
        run.mkdir(parents=True)
        (run / "status.json").write_text(json.dumps({"state": DIVERGED, "pid": 1}))
    assert f"outputs/mine: {reason}" in commands.refuse("refine", "outputs/mine", LOCAL, folder=tmp_path)


def test_another_source_is_refused_before_anything_is_printed(mine: Swept, commands: Commands) -> None:
    path = mine.sweep / PLAN
    path.write_text(re.sub("(?m)^source: .*", "source: another", path.read_text()))
    message = commands.refuse("refine", "outputs/grid", LOCAL, folder=mine.folder)
    assert "was planned with the package's source another, which now is" in message
    allowed = ["allow_code_change=true", "dry_run=true", LOCAL]
    assert commands.run("refine", "outputs/grid", *allowed, folder=mine.folder).code == 0
