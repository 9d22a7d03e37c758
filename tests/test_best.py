"""best.yaml, as irmas.train takes it, and the command that follows a ranking."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import REPORT, SEEDS, Values, grid, read_plan, renamed, simulated, write_run
from forked_commands import Commands
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

import irmas
from irmas.cli import overrides
from irmas.config import SWEEP_WIDE, Config, Data, Features, Model, flatten
from irmas.results import best, ranking, report
from irmas.results.analysis import Analysis
from irmas.results.best import NextStep
from irmas.results.ranking import Ranking
from irmas.sweep.plan import Plan
from irmas.sweep.sweep import BEST, Sweep

WINNER = Config(
    lr=0.0005,
    seed=7,
    epochs=5,
    data=Data(source="standin", root="/there/standin", cache_dir="/there/cache", size=132, render_seed=0),
    features=Features(hop_length=1050, n_mels=64),
    model=Model(filters=[4, 8]),
)
SLURM = {"scontrol": "echo MaxArraySize = 1001", "squeue": "true", "sacct": "true", "sbatch": "exit 1"}


def settings(config: Config) -> dict[str, Any]:
    return {key: value for key, value in asdict(config).items() if key not in SWEEP_WIDE}


def keep(folder: Path, values: dict[Any, Any], name: str = "outputs/mine") -> Path:
    (folder / name).mkdir(parents=True)
    path = folder / name / BEST
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a working directory with the winner in outputs/mine."""
    keep(tmp_path, settings(WINNER))
    return tmp_path


def composed(commands: Commands, folder: Path, *arguments: str) -> dict[str, Any]:
    """Return what irmas.train would train, flat."""
    done = commands.run("train", *arguments, "--cfg", "job", folder=folder)
    assert (done.code, done.stderr) == (0, "")
    return flatten(yaml.safe_load(done.stdout))


# Writing


def regularized(values: Values) -> float:
    return (0.8 if values["dropout"] == 0.4 else 0.75) + 50 * float(values["lr"])


def by_lr(values: Values) -> float:
    return 0.6 + 50 * float(values["lr"])


def level(values: Values) -> float:
    return 0.7


def ranked(*args: Any, **options: Any) -> tuple[Ranking, Analysis]:
    ranking, analysis = simulated(*args, **options)
    assert analysis
    return ranking, analysis


def test_the_file_holds_the_leaders_settings_and_their_accuracy() -> None:
    result, analysis = ranked(REPORT, regularized, base=replace(WINNER, epochs=15))
    text = best.text(result, analysis)
    leader, honest = analysis.points[0], analysis.leader
    assert yaml.safe_load(text) == settings(replace(WINNER, epochs=15, **leader.values))
    head = [line for line in text.splitlines() if line.startswith("# ")]
    values = " ".join(f"{key}={value}" for key, value in leader.values.items())
    assert head[0] == f"# The leader of the sweep made-up: run {leader.runs[0]}, {values}"
    assert honest
    assert head[1] == (
        f"# val_accuracy {100 * honest.value:.2f} % expected when trained again and validated on other recordings "
        f"(95 % interval {100 * honest.low:.2f} to {100 * honest.high:.2f} %); "
        f"observed: {100 * leader.accuracy:.2f} % after 15 epochs"
    )
    assert len(analysis.best_set) > 1
    assert head[2] == f"# {len(analysis.best_set)} of 18 points are in the best set; this is the first of them"
    assert head[3].endswith("python -m irmas.train best=outputs/made-up epochs=50 name=made-up-production")
    assert text == best.text(result, analysis)


def test_the_file_says_whether_the_leader_is_the_best() -> None:
    assert "\n# It is better than every other point\n" in best.text(*ranked({"lr": [0.005, 0.0001]}, by_lr))
    alone = best.text(*ranked({"lr": [0.005, 0.0001]}, by_lr, predicted=False))
    assert "\n# The others cannot be compared with it\n" in alone
    assert re.search(r"\n# val_accuracy \d\d\.\d\d % after 15 epochs\n", alone)
    single = best.text(*ranked({}, level))
    assert "points" not in single
    assert re.findall(r"^# (\w+)", single, re.MULTILINE) == ["The", "val_accuracy", "end"]


def test_the_first_run_of_several_seeds_represents_the_point_not_the_luckiest() -> None:
    result, analysis = ranked(
        {"lr": [0.001, 0.0001], "seed": [5, 6, 7]}, lambda values: 0.6 + 50 * values["lr"] + values["seed"] / 100
    )
    assert best.config(result, analysis).seed == 5
    assert best.config(result, analysis).lr == 0.001
    head = best.text(result, analysis).splitlines()[0]
    assert "made-up: runs 1,3,5, which differ in seed (below: seed 5, of run 1), lr=0.001" in head
    of_folds = best.text(*ranked({"lr": [0.001, 0.0001], "data.fold": [1, 2]}, by_lr)).splitlines()[0]
    assert "made-up: runs 1-2, which differ in data.fold (below: data.fold 1, of run 1), lr=0.001" in of_folds


# The next command


def test_runs_that_still_rise_are_trained_for_longer() -> None:
    result, analysis = ranked(REPORT, level, base=Config(epochs=5), pace=5.0)
    step = best.next_step(result, analysis)
    assert analysis.rise
    assert step == NextStep(
        "python -m irmas.train -m dropout=0.3,0.4,0.5 lr=0.001,0.0005,0.0001 l2=0.001,0.0001 epochs=15 name=made-up-15",
        f"accuracy still rises by {100 * analysis.rise.value:.1f} percentage points per epoch, "
        "and more epochs come first",
    )
    later = renamed(result, name="made-up-5")
    assert best.next_step(later, analysis).command.endswith(" name=made-up-15")


def test_a_sweep_of_an_earlier_version_leaves_the_leader_to_be_trained_for_longer() -> None:
    result, analysis = ranked(REPORT, level, base=Config(epochs=5), pace=5.0)
    old = renamed(result, command=[])
    step = best.next_step(old, analysis)
    assert step.command == "python -m irmas.train best=outputs/made-up epochs=15 name=made-up-15"


def test_where_a_search_or_a_file_sets_the_epochs_the_leader_is_trained_for_longer() -> None:
    result, analysis = ranked(REPORT, level, base=Config(epochs=5), pace=5.0)
    by_file = {"config": replace(result.plan.config, points="p.csv"), "swept": [*result.plan.swept, "epochs"]}
    for changes in ({"space": {"epochs": "interval(2,5)"}}, by_file):
        step = best.next_step(renamed(result, **changes), analysis)
        assert step.command == "python -m irmas.train best=outputs/made-up epochs=15 name=made-up-15"


def test_no_second_seed_is_proposed_where_a_file_sets_the_seed() -> None:
    result, _ = ranked({"lr": [0.002, 0.001]}, by_lr)
    assert "seed=0,1" in (best._second_seed(result) or "")
    by_file = renamed(result, config=replace(result.plan.config, points="p.csv"), swept=["lr", "seed"])
    assert best._second_seed(by_file) is None


def test_several_points_in_the_best_set_are_refined() -> None:
    result, analysis = ranked(SEEDS, level, training_sd=0.015)
    assert best.next_step(result, analysis) == NextStep(
        "python -m irmas.refine outputs/made-up",
        f"{len(analysis.best_set)} of 18 points are in the best set; fresh seeds of the first of them narrow it",
    )


def test_a_single_best_point_goes_into_production() -> None:
    result, analysis = ranked({"lr": [0.005, 0.0001]}, by_lr)
    step = best.next_step(result, analysis)
    assert step == NextStep(best.production_command(result, analysis), "run 1 is better than every other point")
    apart = best.next_step(*ranked({"lr": [0.005, 0.0001]}, by_lr, predicted=False))
    assert apart == NextStep(step.command, "the other points cannot be compared with run 1")
    only = ranked({"lr": [0.005, 0.0001]}, by_lr, failed={2: "FAILED: x"})
    assert best.next_step(*only) == NextStep(step.command, "one point has finished, and no other to compare it with")


@pytest.mark.parametrize(
    ("data", "tested"),
    [
        (Data(), "data/IRMAS-TestingData-Part*"),
        (Data(source="standin", size=330), "standin"),
        (Data(source="folder", split="all"), "DATA"),
        (Data(source="folder"), "DATA"),
    ],
)
def test_a_single_configuration_is_put_to_use_not_into_production(data: Data, tested: str) -> None:
    for axes in ({}, {"seed": [0, 1]}, {"data.fold": [0, 1]}):
        result, analysis = ranked(axes, level, base=Config(epochs=5, data=data), pace=5.0)
        assert analysis.still_rising
        step = best.next_step(result, analysis)
        assert step.command.splitlines() == [
            f"python -m irmas.evaluate outputs/made-up {tested}",
            "python -m irmas.predict outputs/made-up song.mp3",
            "python -m irmas.export outputs/made-up model.onnx",
        ]
        assert "roduction" not in best.text(result, analysis)
        assert step.command in report.markdown(result, analysis, [])


def test_points_that_lack_a_fold_are_trained_before_the_leader_is_for_longer() -> None:
    axes = {"lr": [0.002, 0.001], "data.fold": [0, 1]}
    command = "python -m irmas.train -m lr=0.002,0.001 data.fold=0,1"
    reason = "1 point cannot be compared, since runs on some folds have not finished"
    step = best.next_step(*ranked(axes, by_lr, failed={1: "FAILED: x"}))
    assert step == NextStep(command, reason)
    result, analysis = ranked(axes, by_lr, failed={1: "DIVERGED: x"})  # in vain
    assert best.next_step(result, analysis).command == best.production_command(result, analysis)


def test_unknown_training_noise_asks_for_a_second_seed() -> None:
    cycle = Config(schedule="onecycle", seed=3)
    step = best.next_step(*ranked({"lr": [0.002, 0.001]}, by_lr, base=cycle))
    command = "python -m irmas.train -m lr=0.002,0.001 seed=3,4 name=made-up"
    assert step == NextStep(command, "one seed cannot show how much trainings of a point differ; a second one can")
    two = best.next_step(*ranked({"lr": [0.002, 0.001], "seed": [3, 4]}, by_lr, base=cycle, training_sd=0.02))
    assert " seed=" not in two.command


@pytest.mark.parametrize(
    ("name", "follows"),
    [
        ("mine", "mine-production"),
        ("a,b=c+d", "a,b=c+d-production"),
        ("x" * 100, "x" * 89 + "-production"),
        ("mine-production", "mine-production-2"),
        ("mine-production-9", "mine-production-10"),
        ("x" * 89 + "-production", "x" * 84 + "-production-2"),
    ],
)
def test_the_command_can_be_pasted_whatever_the_sweep_is_called(name: str, follows: str, tmp_path: Path) -> None:
    result, analysis = ranked({"lr": [0.001, 0.0001]}, by_lr)
    command = best.production_command(renamed(result, name=name), analysis)
    pasted = ["sh", "-c", f"printf '%s\\n' {command.removeprefix('python -m irmas.train ')}"]
    words = subprocess.run(pasted, capture_output=True, text=True, check=True).stdout.splitlines()
    parsed = OverridesParser.create().parse_overrides(words)
    typed = {override.key_or_group: override.value() for override in parsed}
    assert typed == {"best": f"outputs/{name}", "epochs": 50, "name": follows}


# Reading


@pytest.mark.parametrize("path", ["outputs/mine", "outputs/mine/", f"outputs/mine/{BEST}"])
def test_irmas_train_trains_the_winner(path: str, commands: Commands, folder: Path) -> None:
    expected = flatten(asdict(replace(WINNER, epochs=50, name="longer")))
    assert composed(commands, folder, f"best={path}", "epochs=50", "name=longer") == expected


def test_overrides_take_precedence_over_best(commands: Commands, folder: Path) -> None:
    result = composed(commands, folder, "dropout=0.1", "model.dense=64", "best=outputs/mine", "data.root=/here")
    changed = {"dropout": 0.1, "model.dense": 64, "data.root": "/here"}
    assert result == flatten(asdict(WINNER)) | changed


def test_a_chosen_group_replaces_the_winners(commands: Commands, folder: Path) -> None:
    result = composed(commands, folder, "best=outputs/mine", "model=deep", "data=irmas")
    assert result == flatten(asdict(replace(WINNER, model=Model(convs_per_block=2), data=Data())))


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PATH with the commands of a Slurm that knows nothing."""
    commands = tmp_path_factory.mktemp("slurm")
    for name, answer in SLURM.items():
        (commands / name).write_text(f"#!/bin/sh\n{answer}\n")
        (commands / name).chmod(0o755)
    return f"{commands}:{os.environ['PATH']}"


def planned(commands: Commands, folder: Path, slurm: str, *arguments: str) -> list[dict[str, Any]]:
    """Return the runs that irmas.train plans, flat."""
    own = ["data.root=data", "data.cache_dir=data/cache", "name=made", "hydra.launcher.submit=false"]
    done = commands.run("train", *arguments, *own, folder=folder, PATH=slurm)
    assert (done.code, done.stderr) == (0, "")
    plan = read_plan(folder / "outputs" / "made")
    return [flatten(asdict(plan.config_of(point))) for point in plan.runs]


def test_the_plan_of_a_production_run_is_the_winner_for_50_epochs(commands: Commands, folder: Path, slurm: str) -> None:
    (run,) = planned(commands, folder, slurm, "best=outputs/mine", "epochs=50")
    data = {"data.root": str(folder / "data"), "data.cache_dir": str(folder / "data" / "cache"), "name": "made"}
    assert run == flatten(asdict(replace(WINNER, epochs=50))) | data


def test_a_shipped_sweep_runs_around_a_winner(commands: Commands, folder: Path, slurm: str) -> None:
    runs = planned(commands, folder, slurm, "sweep=capacity", "best=outputs/mine")
    assert [run["seed"] for run in runs] == [0] * 4 + [1] * 4 + [2] * 4
    assert [run["model.filters"][-1] for run in runs] == [64, 128, 256, 512] * 3
    assert {(run["lr"], run["features.n_mels"], run["epochs"]) for run in runs} == {(0.0005, 64, 15)}


def test_groups_are_swept_around_a_winner(commands: Commands, folder: Path, slurm: str) -> None:
    runs = planned(commands, folder, slurm, "-m", "best=outputs/mine", "model=report,deep", "dropout=0.3,0.4")
    result = [(run["model.convs_per_block"], run["model.filters"][-1], run["dropout"]) for run in runs]
    assert result == [(1, 256, 0.3), (1, 256, 0.4), (2, 256, 0.3), (2, 256, 0.4)]
    assert {run["seed"] for run in runs} == {7}


def test_a_group_that_a_sweep_file_varies_is_not_the_winners(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sweep").mkdir()
    (folder / "sweep" / "nets.yaml").write_text("hydra: {sweeper: {params: {model: 'report,deep', lr: '0.1,0.2'}}}\n")
    monkeypatch.setattr(overrides, "CONF", folder)
    parsed = OverridesParser.create().parse_overrides(["sweep=nets", f"best={folder}/outputs/mine"])
    remaining = overrides._take_best({override.key_or_group: override for override in parsed})
    assert [override.input_line for override in remaining.values()] == ["sweep=nets", "best=given"]
    assert ConfigStore.instance().load("best/given.yaml").node.keys() == settings(WINNER).keys() - {"model"}


def test_a_list_of_partitions_or_nodes_is_no_sweep(commands: Commands, tmp_path: Path, slurm: str) -> None:
    own = (
        "name=made",
        "hydra.launcher.submit=false",
        "hydra.launcher.partition=gpu,long",
        "hydra.launcher.exclude=n1,n-2",
    )
    done = commands.run("train", "data=standin", "features=small", *own, folder=tmp_path, PATH=slurm)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.count("--partition=gpu,long") == 3
    assert "--exclude=n1,n-2" in done.stdout
    assert len(read_plan(tmp_path / "outputs" / "made").runs) == 1


def test_recipes_are_swept_and_overrides_take_precedence(commands: Commands, tmp_path: Path, slurm: str) -> None:
    standin = ("data=standin", "features=small")
    keys = ("schedule", "optimizer", "model.convs_per_block", "model.rolls", "augment.roll")
    runs = planned(commands, tmp_path, slurm, "-m", "recipe=report,strong", "seed=0,1", *standin)
    report, strong = ("constant", "adam", 1, 1, False), ("onecycle", "muon", 2, 2, True)
    assert [tuple(run[key] for key in keys) for run in runs] == [
        report,
        strong,
        report,
        strong,
    ]
    (tmp_path / "both").mkdir()
    runs = planned(commands, tmp_path / "both", slurm, "-m", "recipe=report,strong", "model=report,deep", *standin)
    assert [tuple(run[key] for key in ("schedule", "model.convs_per_block")) for run in runs] == [
        ("constant", 1),
        ("constant", 2),
        ("onecycle", 1),
        ("onecycle", 2),
    ]
    (tmp_path / "fixed").mkdir()
    changes = ("model=report", "lr=0.005", "augment=none")
    (run,) = planned(commands, tmp_path / "fixed", slurm, "recipe=strong", *changes, *standin)
    assert tuple(run[key] for key in (*keys, "lr")) == ("onecycle", "muon", 1, 2, False, 0.005)


def test_the_capacity_sweep_holds_the_reports_winner_as_its_third_run(
    commands: Commands, tmp_path: Path, slurm: str
) -> None:
    runs = planned(commands, tmp_path, slurm, "sweep=capacity", "data=standin")
    standin = {key: value for key, value in runs[2].items() if key.startswith("data.")}
    assert runs[2] == flatten(asdict(Config(name="made"))) | standin


# From a sweep to the command that trains its points again


def plan_of(commands: Commands, folder: Path, slurm: str, *words: str) -> Plan:
    """Return the plan that a command freezes."""
    name = next(word.removeprefix("name=") for word in words if word.startswith("name="))
    result = commands.run("train", *words, folder=folder, PATH=slurm)
    assert (result.code, result.stderr) == (0, "")
    return read_plan(folder / "outputs" / name)


STANDIN = "data=standin features=small name=made hydra.launcher.submit=false"
COMMANDS = [
    f"{STANDIN} -m dropout=0.3,0.4 lr=0.001,0.0001",
    f"{STANDIN} recipe=strong model.dense=64 -m 'model.filters=[8,16],[32]' seed=3",
    f"{STANDIN} lr=0.001 -m recipe=report,strong",
    f"{STANDIN} -m 'schedule=choice(constant,plateau)' epochs=5,10",
    f"{STANDIN} sweep=capacity",
    f"{STANDIN} search=random search.runs=3 'lr=tag(log,interval(1e-4,1e-2))' model=report,deep seed=0,1",
    f"{STANDIN} lr=0.01 'note=of this sweep, only'",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_trains_the_same_points_for_longer(
    command: str, commands: Commands, tmp_path: Path, slurm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_of(commands, tmp_path, slurm, *shlex.split(command))
    rising, analysis = ranked(REPORT, level, base=Config(epochs=5), pace=5.0)
    assert analysis.still_rising
    printed = best.next_step(replace(rising, sweep=Sweep.of(plan)), analysis).command
    again = plan_of(commands, tmp_path, slurm, *shlex.split(printed.removeprefix("python -m irmas.train ")))
    expected = [
        flatten(asdict(plan.config_of(point)))
        | {"name": again.name, "note": None, "epochs": 3 * plan.value(point, "epochs")}
        for point in plan.runs
    ]
    assert [flatten(asdict(again.config_of(point))) for point in again.runs] == expected


def test_a_second_seed_grows_the_sweep_that_is_there(
    commands: Commands, tmp_path: Path, slurm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_of(commands, tmp_path, slurm, *shlex.split(f"{STANDIN} recipe=strong -m dropout=0.3,0.4 data.fold=0,1"))
    cycle, analysis = ranked({"lr": [0.002, 0.001]}, by_lr, base=Config(schedule="onecycle"))
    command = best.next_step(replace(cycle, sweep=Sweep.of(plan)), analysis).command
    grown = plan_of(commands, tmp_path, slurm, *shlex.split(command.removeprefix("python -m irmas.train ")))
    assert [grown.config_of(point) for point in grown.runs[:4]] == [plan.config_of(point) for point in plan.runs]
    assert [grown.config_of(point) for point in grown.runs[4:]] == [
        replace(plan.config_of(point), seed=1) for point in plan.runs
    ]


def test_a_sweep_that_starts_from_a_best_yaml_names_it_again(commands: Commands, folder: Path, slurm: str) -> None:
    words = ["best=outputs/mine", "name=made", "data.fold=0,1", "hydra.launcher.submit=false", "data.root=standin"]
    assert plan_of(commands, folder, slurm, *words).command == words


WRONG: list[tuple[dict[Any, Any], str]] = [
    ({"dropout": 1.5}, "dropout=1.5: must be "),
    ({"dropout": "much"}, "dropout=much: must be "),
    ({"lr": None}, "lr"),
    ({"model": asdict(Model()) | {"filters": [32, "many"]}}, "model.filters"),
    (
        {"dropuot": 0.3},
        "holds dropuot, which is no setting of a best.yaml; to write it again: python -m irmas.rank outp",
    ),
    ({"name": "mine"}, "holds name"),
    ({"model": 3}, "model"),
    ({3: 4}, "3"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_setting_is_named(change: dict[Any, Any], message: str, commands: Commands, tmp_path: Path) -> None:
    keep(tmp_path, settings(WINNER) | change)
    refusal = commands.refuse("train", "best=outputs/mine", "hydra/launcher=local", folder=tmp_path)
    assert refusal.startswith("irmas.train: best=outputs/mine/best.yaml: ")
    assert message in refusal
    assert refusal.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty, or holds no settings; "),
        ("- 1\n", "is empty, or holds no settings"),
        ("dropout: 0.4\n", "is truncated: it lacks augment.freq_masks"),
        ("a: [", "is truncated or damaged (while parsing"),
        (b"\xff\xfe\x00", "is truncated or damaged ("),
        (
            "!!python/object/apply:os.system ['touch pwned']",
            "is truncated or damaged (could not determine a constructor",
        ),
    ],
)
def test_a_file_that_is_no_best_yaml_is_refused(
    content: str | bytes, message: str, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in commands.refuse("train", "best=x.yaml", "hydra/launcher=local", folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["best=outputs/other"], "best=outputs/other: no such file; python -m irmas.rank outputs/<name> writes it"),
        (["best=outputs"], "best=outputs/best.yaml: no such file"),
        (["best=3"], "best=3: must be the folder of one sweep, or its best.yaml"),
        (["best=null"], "best=null: must be the folder of one sweep"),
        (["-m", "best=outputs/mine,outputs/mine"], "must be the folder of one sweep"),
        (["best=outputs/mine", "best=outputs/mine"], "best is given twice"),
        (["best=outputs/mine", "recipe=strong"], "recipe=strong: best=outputs/mine has a recipe of its own"),
        (["+best=outputs/mine"], "none is added"),
        (["best=outputs/mine", "lr=-1"], "lr=-1"),
        (["bset=outputs/mine"], "did you mean best"),
    ],
)
def test_a_wrong_call_is_refused(arguments: list[str], message: str, commands: Commands, folder: Path) -> None:
    assert message in commands.refuse("train", *arguments, "hydra/launcher=local", folder=folder)


def test_prepare_knows_no_winner(commands: Commands, folder: Path) -> None:
    assert "there is no setting 'best'" in commands.refuse("prepare", "best=outputs/mine", folder=folder)


# From a sweep to its production run


def test_the_winner_of_a_sweep_is_trained_for_longer(
    data: Data, features: Features, tmp_path: Path, commands: Commands
) -> None:
    config = Config(epochs=1, seed=3, data=data, features=features, model=Model(filters=[4]), name="two")
    sweep = Sweep(tmp_path / "outputs" / "two", grid({"lr": [0.001, 0.01]}, config, "two")).write()[0]
    for number, accuracy in ((1, 0.5), (2, 0.75)):
        write_run(sweep, number, [(accuracy, 1.0)])
    result = ranking.rank(sweep)
    analysis = ranking.analyze(result)
    assert analysis
    sweep.best.write_text(best.text(result, analysis))

    done = commands.train("best=outputs/two", "epochs=2", "name=two-production", folder=tmp_path)
    assert done.code == 0, done.stderr
    production = Sweep.open(tmp_path / "outputs" / "two-production")
    (run,) = ranking.rank(production).runs
    assert (run.rank, run.epoch) == (1, 2)
    assert (run.train_excerpts, run.versions["irmas"]) == (132 - run.val_excerpts, irmas.__version__)
    (trained,) = production.runs.glob("*/config.yaml")
    expected = replace(config, lr=0.01, epochs=2, name="two-production")
    assert yaml.safe_load(trained.read_text()) == asdict(expected)
