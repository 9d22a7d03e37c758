"""Folders that are files, what may not be read or written, damaged plans: one message, exit code 2, nothing written.

The commands run without root's power to pass over permissions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from commands import ENVIRONMENT
from factories import run_folder, write_plan
from forked_commands import Commands, contents

from irmas.config import Config, Data, Features
from irmas.run.events import VAL_ACCURACY, EventWriter
from irmas.run.folder import COMPLETED, Status
from irmas.run.lease import Writer
from irmas.sweep.plan import Plan, PlannedRun

Arrange = Callable[[Path], None]
SMALL = ["data=standin", "data.size=132", "features=small", "epochs=1", "name=mine"]
LOCAL, SLURM = "hydra/launcher=local", "hydra/launcher=slurm"
ANSWERS = {"scontrol": "echo MaxArraySize = 1001", "squeue": "true", "sacct": "true", "sbatch": "touch submitted"}
"""Commands of a Slurm without jobs; the real one is in tests/cluster."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The working directory; what is locked is opened again, so that it can be removed."""
    (tmp_path / "here").mkdir()
    yield tmp_path / "here"
    subprocess.run(["chmod", "-R", "u+rwX", str(tmp_path)], check=True)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with the commands of a Slurm."""
    commands = tmp_path_factory.mktemp("slurm")
    for name, answer in ANSWERS.items():
        (commands / name).write_text(f"#!/bin/sh\n{answer}\n")
        (commands / name).chmod(0o755)
    return f"{commands}:{os.environ['PATH']}"


def file(name: str, text: str | bytes = "x", mode: int = 0o644) -> Arrange:
    def arrange(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)

    return arrange


def made(name: str, mode: int = 0o755) -> Arrange:
    def arrange(folder: Path) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name).chmod(mode)

    return arrange


def sweep(folder: Path) -> Path:
    """Two runs, of which the first is finished."""
    plan = Plan("mine", ["lr"], "d", "s", "", Config(), [PlannedRun(i, {"lr": i / 10}, {"lr": i / 10}) for i in (1, 2)])
    write_plan(folder / "outputs" / "mine", plan)
    run = run_folder(folder / "outputs" / "mine", plan.runs[0])
    run.amend_status(Status(COMPLETED, epoch=1, epochs=1, writer=Writer(pid=4)))
    with EventWriter(run.path, purge_step=1) as writer:
        writer.scalars(1, {VAL_ACCURACY: 0.5})
        writer.commit()
    return folder / "outputs" / "mine"


TRAIN = [
    (file("data"), [], "data.root="),
    (file("f"), ["data.root=f"], "f is not a folder"),
    (made("d", 0o555), ["data.root=d"], "d cannot be written"),
    (file("f"), ["data.cache_dir=f"], "f is not a folder"),
    (file("f"), ["data.cache_dir=f/g/h"], "f is not a folder"),
    (made("d", 0o555), ["data.cache_dir=d"], "d cannot be written"),
    (made("d", 0), ["data.cache_dir=d/e"], "d cannot be written"),
    (file("f"), ["data.cache=f"], "no such folder"),
    (made("d", 0), ["data.cache=d"], "Permission denied"),
    (made("d"), ["data.split=missing.csv"], "data.split="),
    (made("d.csv"), ["data.split=d.csv"], "Is a directory"),
    (file("b.csv", b"\xff\xfe\x00"), ["data.split=b.csv"], "b.csv"),
    (file("b.csv", "name,part\na,both\n"), ["data.split=b.csv"], "part is both"),
    (file("b.csv", mode=0), ["data.split=b.csv"], "Permission denied"),
    (file("outputs"), [], "outputs is not a folder"),
    (file("outputs/mine"), [], "outputs/mine is not a folder"),
    (file("outputs/mine/runs"), [], "outputs/mine/runs is not a folder"),
    (file("outputs/mine/splits"), [], "outputs/mine/splits is not a folder"),
    (file("outputs/mine/slurm"), [], "outputs/mine/slurm is not a folder"),
    (made("outputs", 0o555), [], "outputs cannot be written"),
    (made("outputs", 0), [], "outputs cannot be written"),
    (made("outputs/mine", 0o555), [], "outputs/mine cannot be written"),
    (made("outputs/mine", 0), [], "outputs/mine cannot be written"),
    (lambda folder: folder.chmod(0o555), [], "cannot be written"),
    (made("outputs/mine/plan.yaml"), [], "outputs/mine/plan.yaml: Is a directory"),
    (file("outputs/mine/plan.yaml", mode=0), [], "outputs/mine/plan.yaml: Permission denied"),
    (file("outputs/mine/plan.yaml", ""), [], "plan.yaml: is damaged"),
]


@pytest.mark.parametrize(
    ("arrange", "arguments", "message", "launcher"),
    [(*case, LOCAL) for case in TRAIN] + [(*case, SLURM) for case in TRAIN if not case[1]],
)
def test_training_is_refused_before_anything_is_made(
    arrange: Arrange, arguments: list[str], message: str, launcher: str, commands: Commands, folder: Path, slurm: str
) -> None:
    arrange(folder)
    assert message in commands.refuse("train", *SMALL, *arguments, launcher, folder=folder, PATH=slurm)


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (made("d", 0), "/d: Permission denied"),
        (made("d/a", 0), "/d/a: Permission denied"),
        (file("d"), "no such folder"),
        (file("d/a.wav"), "fewer than two classes"),
    ],
)
@pytest.mark.parametrize("command", ["train", "prepare"])
def test_a_folder_of_music_that_is_none(
    command: str, arrange: Arrange, message: str, commands: Commands, folder: Path
) -> None:
    arrange(folder)
    launcher = [LOCAL] if command == "train" else []
    assert message in commands.refuse(command, "data=folder", "data.root=d", *launcher, folder=folder)


@pytest.mark.parametrize(
    ("arrange", "arguments", "message"),
    [
        (file("data"), ["data=standin"], "is not a folder"),
        (file("f"), ["data=standin", "data.cache_dir=f"], "f is not a folder"),
        (made("d", 0o555), ["data=standin", "data.cache_dir=d/e"], "d cannot be written"),
        (file("f"), ["data.root=f"], "IRMAS is not there"),
        (made("IRMAS-TrainingData/cel", 0), ["data.root=IRMAS-TrainingData"], "Permission denied"),
        (made("."), ["hydra.run.dir=x"], "only hydra/launcher"),
    ],
)
def test_preparing_is_refused_before_anything_is_made(
    arrange: Arrange, arguments: list[str], message: str, commands: Commands, folder: Path
) -> None:
    arrange(folder)
    assert message in commands.refuse("prepare", *arguments, folder=folder)


READERS = ["rank", "refine", "status", "clean", "sweep.array_task", "sweep.data_job"]


def test_a_cache_that_is_there_needs_no_folder_that_can_be_written(
    commands: Commands, folder: Path, data: Data, features: Features
) -> None:
    shutil.copytree(data.cache_dir, folder / "cache")
    (folder / "cache").chmod(0o555)
    settings = [f"features.{key}={getattr(features, key)}" for key in ("sample_rate", "n_fft", "hop_length", "n_mels")]
    group = ["data=folder", f"data.root={data.root}", "data.cache_dir=cache"]
    result = commands.run("prepare", *group, *settings, folder=folder)
    assert (result.code, result.stderr) == (0, "")
    assert "up to date" in result.stdout


@pytest.mark.parametrize("command", ["status", "sweep.array_task"])
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("plan.yaml", lambda path: path.chmod(0), "plan.yaml: Permission denied"),
        ("plan.yaml", lambda path: path.write_text(""), "plan.yaml: is damaged"),
        ("plan.yaml", lambda path: path.write_bytes(b"\0\xff"), "plan.yaml: is damaged"),
        ("plan.yaml", lambda path: path.write_text("- 1"), "plan.yaml: is damaged"),
        ("plan.yaml", lambda path: path.write_text(path.read_text()[:200]), "plan.yaml: is damaged"),
        ("plan.yaml", lambda path: path.write_text(path.read_text().partition("runs:")[0]), "has no 'runs'"),
        ("points.jsonl", lambda path: path.chmod(0), "points.jsonl: Permission denied"),
        ("points.jsonl", lambda path: path.write_text(path.read_text()[:-9]), "points.jsonl: is damaged"),
        ("points.jsonl", lambda path: path.write_text(""), "lacks runs, plan.yaml has 2"),
        ("points.jsonl", lambda path: path.write_text(path.read_text().partition("\n")[2]), "lacks runs"),
        ("points.jsonl", lambda path: path.write_text(path.read_text().partition("\n")[0] + "\n"), "lacks runs"),
        ("points.jsonl", lambda path: (path.unlink(), path.mkdir()), "points.jsonl: Is a directory"),
        (".", lambda path: path.chmod(0), "Permission denied"),
    ],
)
def test_a_plan_that_cannot_be_read(
    command: str, name: str, damage: Callable[[Path], object], message: str, commands: Commands, folder: Path
) -> None:
    damage(sweep(folder) / name)
    assert message in commands.refuse(command, "outputs/mine", folder=folder)


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("name", ["nowhere", "file/below", "x" * 300, "a\n'b\" $(c)", ".."])
def test_a_folder_that_holds_no_sweep(command: str, name: str, commands: Commands, folder: Path) -> None:
    file("file")(folder)
    result = commands.refuse(command, name, folder=folder)
    assert "no sweep is here" in result or "File name too long" in result


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (command, arguments)
        for command, arguments in product(READERS, [[], ["a", "b"], ["--nope", "a"]])
        if arguments or command != "status"  # which lists all sweeps
    ],
)
def test_a_wrong_call(command: str, arguments: list[str], commands: Commands, folder: Path) -> None:
    assert f"python -m irmas.{command} --help" in commands.refuse(command, *arguments, folder=folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "1-"], "no list of numbers"),
        (["--runs", "3"], "has no run 3"),
        (["--runs-per-task", "0"], "from 1"),
        (["--runs-at-once", "0"], "from 1"),
        (["--points-per-task=6"], "--points-per-task=6: was renamed; give --runs-per-task;"),
        (["--requeues", "many"], "invalid int"),
    ],
)
def test_a_task_refuses_runs_that_the_plan_does_not_have(
    arguments: list[str], message: str, commands: Commands, folder: Path
) -> None:
    sweep(folder)
    assert message in commands.refuse("sweep.array_task", "outputs/mine", *arguments, folder=folder)


@pytest.mark.parametrize("command", ["rank", "status"])
@pytest.mark.parametrize("name", [".", "status.json", "provenance.json", "log.txt"])
def test_a_run_that_cannot_be_read_costs_only_itself(command: str, name: str, commands: Commands, folder: Path) -> None:
    first = next((sweep(folder) / "runs").iterdir())
    for kept in ("provenance.json", "log.txt"):
        (first / kept).write_text('{"source": "s"}')
    (first / name).chmod(0)
    result = commands.run(command, "outputs/mine", folder=folder)
    is_ranked = name not in (".", "status.json")  # the other runs have not begun
    assert (result.code, result.stderr) == (int(command == "rank" and not is_ranked), "")
    assert "PENDING" in result.stdout
    assert ("Permission denied" in result.stdout) == (
        name in (".", "status.json") or (command, name[0]) == ("rank", "p")
    )


def test_without_access_to_the_jobs_states_are_those_of_the_runs(commands: Commands, folder: Path) -> None:
    made("slurm", 0)(sweep(folder))
    result = commands.run("status", "outputs/mine", folder=folder)
    assert result.code == 0
    assert "outputs/mine/slurm: cannot be read: states are those that the runs last recorded" in result.stdout
    assert "1 COMPLETED" in result.stdout


def test_a_ranking_that_cannot_be_written_is_shown_all_the_same(commands: Commands, folder: Path) -> None:
    sweep(folder).chmod(0o555)
    before = contents(folder)
    result = commands.run("rank", "outputs/mine", folder=folder)
    assert result.code == 2
    assert result.stderr == "irmas.rank: outputs/mine/ranking.csv: Permission denied\n"
    assert "PENDING" in result.stdout
    assert contents(folder) == before


def test_why_the_data_job_failed_is_printed_and_recorded(commands: Commands, folder: Path) -> None:
    plan = Plan(
        "gone", [], "d", "s", "", Config(data=Data(source="folder", root=str(folder / "d"))), [PlannedRun(1, {}, {})]
    )
    write_plan(folder / "outputs" / "gone", plan)
    made("d", 0)(folder)
    result = commands.run("sweep.data_job", "outputs/gone", folder=folder)
    assert (result.code, result.stderr) == (2, f"irmas.sweep.data_job: {folder}/d: Permission denied\n")
    assert f"{folder}/d: Permission denied" in (folder / "outputs/gone/slurm/data.json").read_text()


@pytest.mark.parametrize("command", ["train", "rank", "status"])
def test_a_working_directory_that_is_gone(command: str, tmp_path: Path) -> None:
    script = 'cd "$1" && rmdir "$1" && exec "$2" -m "irmas.$3" outputs/mine'
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = ["bash", "-c", script, "-", str(gone), sys.executable, command]
    done = subprocess.run(shell, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"irmas.{command}: the current directory no longer exists; cd to another\n"


def test_a_file_that_cannot_grow_is_named(folder: Path) -> None:
    """The system names no file, as on a full disk."""
    sweep(folder)
    command = ["bash", "-c", 'ulimit -f 0 && exec "$0" -m irmas.rank outputs/mine', sys.executable]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "irmas.rank: outputs/mine/ranking.csv: File too large\n")
    assert not list((folder / "outputs" / "mine").glob("*ranking*"))
