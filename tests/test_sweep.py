"""Sweeps on this machine as a user starts them, disturbs them and starts them again."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from commands import ROOT, irmas, start, wait_until
from forked_commands import Commands
from left_behind import ranking, runs, scalars, status

from irmas.config import Config, Data, Features, Model
from irmas.run import events
from irmas.run.events import event_files
from irmas.sweep import pool
from irmas.sweep.plan import PlannedRun, freeze


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a small stand-in, which the first sweep renders and the others share, and of a small net."""
    folder = tmp_path_factory.mktemp("data")
    data = ["data=standin", "data.size=132", f"data.root={folder}", f"data.cache_dir={folder}/cache"]
    return [*data, "features=small", "model.filters=[8,16]"]


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the train command in a session of its own, and end what is left of it."""
    processes: list[subprocess.Popen[str]] = []

    def start_train(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
        processes.append(start("train", *arguments, cwd=cwd))
        return processes[-1]

    yield start_train
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_reports_sweep_is_trained_ranked_and_left_alone_afterwards(
    standin: list[str], tmp_path: Path, commands: Commands
) -> None:
    command = ["sweep=report", *standin, "epochs=1", "name=report"]
    done = commands.train(*command, folder=tmp_path, PATH=str(tmp_path))
    assert done.code == 0, done.stderr
    where = r"^training here, [0-9]+ runs? at a time \(sbatch is not on the PATH\)$"
    assert re.search(where, done.stdout, re.MULTILINE)
    sweep = tmp_path / "outputs" / "report"
    entries = ranking(sweep)
    assert [entry["rank"] for entry in entries] == list(range(1, 19))
    assert {entry["state"] for entry in entries} == {"COMPLETED"}
    eighth = next(entry for entry in entries if entry["id"] == 8)
    assert (eighth["dropout"], eighth["lr"], eighth["l2"]) == (0.4, 0.001, 0.0001)
    assert [entry["val_accuracy"] for entry in entries] == sorted((e["val_accuracy"] for e in entries), reverse=True)
    assert "008-dropout=0.4,lr=0.001,l2=0.0001" in [run.name for run in runs(sweep)]
    assert "18 of 18 runs finished" in done.stdout
    assert "run  dropout      lr      l2  val_accuracy    last  95 % interval  best set   loss  state" in done.stdout

    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("*") if path.parent.parent.name == "runs"}
    again = commands.train(*command, folder=tmp_path)
    assert again.code == 0
    assert "18 runs, 18 finished before" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_leaves_all_that_is_needed_to_understand_it_and_needs_its_events(
    standin: list[str], tmp_path: Path, commands: Commands
) -> None:
    command = [*standin, "epochs=2", "lr=0.0005"]
    done = commands.train(*command, folder=tmp_path)
    assert done.code == 0, done.stderr
    (sweep,) = (tmp_path / "outputs").iterdir()
    assert sweep.name.startswith("single-")
    (run,) = runs(sweep)
    assert yaml.safe_load((run / "config.yaml").read_text())["lr"] == 0.0005
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["source"] == provenance["plan_source"]
    assert provenance["device"].startswith("cpu")
    assert len(provenance["commit"]) in (0, 40)
    assert provenance["dirty"] in (True, False)
    assert provenance["node"] == platform.node()
    assert {"torch", "torchaudio", "python"} <= set(provenance["versions"])
    assert status(run)["state"] == "COMPLETED"
    assert "epoch 2/2" in (run / "log.txt").read_text()
    for tag in (events.TRAIN_LOSS, events.TRAIN_ACCURACY, *events.JUDGED):
        assert list(scalars(run)[tag]) == [1, 2]
    assert scalars(run)[events.LR][1] == pytest.approx(0.0005)
    split = (sweep / "splits" / "standin-recording-seed0.csv").read_text().splitlines()
    assert len(split) == 133

    for file in event_files(run):
        file.unlink()
    rank = commands.run("rank", f"outputs/{sweep.name}", folder=tmp_path)
    for done in (commands.train(*command, folder=tmp_path), rank):
        assert (done.code, "Traceback" in done.stderr) == (1, False)
        assert "run 1: the event files lack epoch" in done.stdout


def test_swept_groups_lists_and_seeds_are_points_like_any_other(
    standin: list[str], tmp_path: Path, commands: Commands
) -> None:
    axes = ["model=report,deep", "seed=1,2", "model.filters=[8,16],[16,8]"]
    done = commands.train("-m", *standin[:-1], *axes, "data.fold=3", "epochs=1", "name=s", folder=tmp_path)
    assert done.code == 0, done.stderr
    sweep = tmp_path / "outputs" / "s"
    entries = sorted(ranking(sweep), key=lambda entry: entry["id"])
    assert [(e["seed"], e["model"], e["model.filters"]) for e in entries] == [
        (seed, model, filters) for seed in (1, 2) for model in ("report", "deep") for filters in ("[8,16]", "[16,8]")
    ]
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs(sweep)]
    assert [config["model"]["convs_per_block"] for config in configs] == [1, 1, 2, 2] * 2
    assert [config["model"]["filters"] for config in configs] == [[8, 16], [16, 8]] * 4
    assert len({entry["val_loss"] for entry in entries}) == 8
    with (sweep / "splits" / "standin-recording-seed0.csv").open() as file:
        assert sum(line.endswith(",3\n") for line in file) == entries[0]["val_excerpts"]


def test_a_file_of_points_is_frozen_and_a_longer_one_extends_the_sweep(
    standin: list[str], tmp_path: Path, commands: Commands
) -> None:
    file, command = tmp_path / "points.csv", ["points=points.csv", *standin, "epochs=1", "name=listed"]
    file.write_text("model,lr\ndeep,\n,0.01\n")
    assert commands.train(*command, folder=tmp_path).code == 0
    file.write_text("model,lr\n,0.02\ndeep,\n,0.01\n")
    done = commands.train(*command, "seed=0,1", folder=tmp_path)
    assert "6 runs, 2 finished before" in done.stdout
    assert [run.name for run in runs(tmp_path / "outputs" / "listed")] == [
        "001-model=deep",
        "002-lr=0.01",
        "003-lr=0.02,seed=0",
        "004-lr=0.02,seed=1",
        "005-model=deep,seed=1",
        "006-lr=0.01,seed=1",
    ]
    values = {entry["id"]: (entry["model"], entry["lr"]) for entry in ranking(tmp_path / "outputs" / "listed")}
    assert values[1] == values[5] == ("deep", 0.001)
    assert values[2] == ("-", 0.01)
    file.write_text("model,lr\n,0.02\n,0.01\n")
    assert "that sweep holds model=deep" in commands.refuse(
        "train", *command, "seed=0,1", "hydra/launcher=local", folder=tmp_path
    )


def test_a_run_that_fails_does_not_take_the_others_along(
    standin: list[str], tmp_path: Path, commands: Commands
) -> None:
    command = ["-m", *standin, "lr=0.001,0.003,0.002", "epochs=2", "name=mixed"]
    sweep = tmp_path / "outputs" / "mixed"
    broken = sweep / "runs" / "001-lr=0.001"
    broken.mkdir(parents=True)
    (broken / "config.yaml").write_text(yaml.safe_dump(asdict(Config(batch_size=16))))
    done = commands.train(*command, folder=tmp_path)
    assert done.code == 1, done.stderr
    states = {entry["id"]: (entry["rank"] is None, entry["state"]) for entry in ranking(sweep)}
    assert states == {1: (True, "FAILED"), 2: (False, "COMPLETED"), 3: (False, "COMPLETED")}
    assert "was trained with batch_size=16, this is batch_size=32" in done.stdout
    assert status(broken)["state"] == "FAILED"


def test_a_run_that_diverges_is_ranked_as_such_and_the_sweep_goes_on(
    data: Data, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config(epochs=2, data=data, features=features, model=Model(filters=[4]), device="cpu")
    points = [PlannedRun(number, {"lr": lr}, {"lr": lr}) for number, lr in ((1, 1e30), (2, 0.001))]
    assert [status.state for status in pool.launch(freeze(config, points, "d"), 1)] == ["DIVERGED", "COMPLETED"]
    done = commands.run("rank", "outputs/d", folder=tmp_path)
    assert "not finite in epoch 1; a smaller lr may help" in done.stdout
    entries = ranking(tmp_path / "outputs" / "d")
    assert [(entry["rank"], entry["id"], entry["state"]) for entry in entries] == [
        (1, 2, "COMPLETED"),
        (None, 1, "DIVERGED"),
    ]


def test_a_killed_run_is_reported_and_resumes_to_the_same_result(
    standin: list[str], tmp_path: Path, started: Callable[..., subprocess.Popen[str]], commands: Commands
) -> None:
    command = [*standin, "epochs=10", "name=one"]
    assert commands.train(*standin, "epochs=10", "name=whole", folder=tmp_path).code == 0
    run = tmp_path / "outputs" / "one" / "runs" / "001"
    process = started(*command, cwd=tmp_path)
    wait_until(lambda: status(run)["state"] == "RUNNING" and status(run)["epoch"] >= 2, "two epochs", 60)
    os.kill(status(run)["pid"], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "killed by signal 9" in output
    assert status(run)["state"] == "FAILED"
    assert [(entry["rank"], entry["state"]) for entry in ranking(run.parent.parent)] == [(None, "FAILED")]

    assert commands.train(*command, folder=tmp_path).code == 0
    assert len(event_files(run)) == 2
    assert scalars(run) == scalars(tmp_path / "outputs" / "whole" / "runs" / "001")


def test_ctrl_c_ends_every_child(
    standin: list[str], tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    command = ["-m", *standin, "seed=1,2,3", "epochs=1000", "name=c"]
    sweep = tmp_path / "outputs" / "c"
    process = started(*command, "hydra.launcher.runs_at_once=2", cwd=tmp_path)
    first = [sweep / "runs" / f"00{number}-seed={number}" for number in (1, 2)]
    wait_until(lambda: all(status(run)["epoch"] >= 1 for run in first), "an epoch of both", 60)
    children = [status(run)["pid"] for run in first]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.startswith("\nirmas.train: ")
    assert "Traceback" not in stderr
    for child in children:
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the end of a child", 10)  # noqa: B023
    assert [status(run)["state"] for run in first] == ["CANCELLED", "CANCELLED"]
    assert len(runs(sweep)) == 2


def test_children_do_not_outlive_a_killed_command(
    standin: list[str], tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    run = tmp_path / "outputs" / "k" / "runs" / "001"
    process = started(*standin, "epochs=9999", "name=k", cwd=tmp_path)
    wait_until(lambda: status(run)["epoch"] >= 1, "an epoch", 60)
    child = status(run)["pid"]
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "the end of the child", 15)
    assert status(run)["state"] == "CANCELLED"


def test_two_identical_commands_train_nothing_twice(
    standin: list[str], tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    command = ["-m", *standin, "seed=1,2", "epochs=3", "name=two"]
    both = [started(*command, cwd=tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    sweep = tmp_path / "outputs" / "two"
    assert [status(run)["state"] for run in runs(sweep)] == ["COMPLETED", "COMPLETED"]
    assert [len(event_files(run)) for run in runs(sweep)] == [1, 1]
    for process, output in zip(both, outputs, strict=True):
        assert process.returncode == 0 or "another process trains it" in output


def test_gpus_are_assigned_one_per_run(standin: list[str], tmp_path: Path, commands: Commands) -> None:
    """No GPU is here: the message of a failed run names the GPU that it was assigned."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    commands.train("-m", *standin, "seed=1,2,3", "epochs=1", "name=g", folder=tmp_path, CUDA_VISIBLE_DEVICES="2,5")

    def assigned() -> list[str]:
        messages = [status(run)["message"] for run in runs(tmp_path / "outputs" / "g")]
        return [message.partition(":")[0].removeprefix("CUDA_VISIBLE_DEVICES=") for message in messages]

    assert assigned() in (["2", "5", "2"], ["2", "5", "5"])  # the first that is free
    for options, line, expected in (
        (["--runs", "2,3"], "runs 2-3, 2 at once\n", ["2", "5"]),
        (["--runs-at-once", "1"], "runs 1-3\n", ["2", "2", "2"]),
        (["--runs-at-once", "3"], "runs 1-3, 3 at once\n", ["2", "5", "2"]),
    ):
        task = commands.run("sweep.array_task", "outputs/g", *options, folder=tmp_path, CUDA_VISIBLE_DEVICES="2,5")
        assert (task.code, line in task.stdout) == (1, True), task
        assert assigned()[-len(expected) :] == expected


def test_an_assigned_gpu_that_torch_does_not_see_fails_at_once(
    standin: list[str], tmp_path: Path, commands: Commands
) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    done = commands.train(*standin, "epochs=1", "name=gpu", folder=tmp_path, CUDA_VISIBLE_DEVICES="0")
    assert done.code == 1
    run = tmp_path / "outputs" / "gpu" / "runs" / "001"
    assert status(run)["state"] == "FAILED"
    assert "CUDA_VISIBLE_DEVICES=0" in status(run)["message"]
    assert status(run)["epoch"] == 0
    assert commands.train(*standin, "epochs=1", "name=gpu", "device=cpu", folder=tmp_path).code == 0


def test_a_mistake_in_the_data_leaves_no_sweep_and_its_repair_goes_on(
    corpus: Path, tmp_path: Path, commands: Commands
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(corpus, folder)
    broken = next(folder.rglob("*.wav"))
    sound = broken.read_bytes()
    broken.write_bytes(b"not a wav")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.wav")]
    lines = [f"{name},{'validation' if number % 5 else 'train'}" for number, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("\n".join(["name,part", *lines[1:]]))
    command = ["data=folder", f"data.root={folder}", "data.split=list.csv", "features=small", "epochs=1", "name=n"]

    done = commands.train(*command, folder=tmp_path)
    assert (done.code, "Traceback" in done.stderr) == (2, False)
    assert broken.name in done.stderr
    assert not (tmp_path / "outputs").exists()

    broken.write_bytes(sound)
    done = commands.train(*command, folder=tmp_path)
    assert done.code == 2
    assert "1 excerpt is not in it" in done.stderr
    assert not (tmp_path / "outputs" / "n" / "plan.yaml").exists()

    (tmp_path / "list.csv").write_text("\n".join(["name,part", *lines]))
    assert commands.train(*command, folder=tmp_path).code == 0


def test_folders_can_be_swept(corpus: Path, tmp_path: Path, commands: Commands) -> None:
    (tmp_path / "a").symlink_to(corpus)
    (tmp_path / "b").symlink_to(corpus)
    done = commands.train("-m", "data=folder", "data.root=a,b", "features=small", "epochs=1", "name=f", folder=tmp_path)
    assert done.code == 0, done.stderr
    first, second = ranking(tmp_path / "outputs" / "f")
    assert first["val_loss"] == second["val_loss"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_flock_is_named_and_what_is_there_is_read(
    number: int, standin: list[str], tmp_path: Path, commands: Commands
) -> None:
    """As Lustre without `-o flock` and NFS without lockd."""
    shim = tmp_path / "shim"
    shim.mkdir()
    refusal = f"raise OSError({number}, os.strerror({number}))"
    (shim / "sitecustomize.py").write_text(f"import fcntl, os\ndef flock(*_): {refusal}\nfcntl.flock = flock\n")

    def run(command: str, *args: str) -> subprocess.CompletedProcess[str]:
        done = irmas(command, *args, cwd=tmp_path, PYTHONPATH=f"{shim}:{ROOT}")
        assert "Traceback" not in done.stdout + done.stderr
        return done

    command = ["-m", "seed=1,2", *standin, "epochs=1", "device=cpu", "name=one"]
    refused = run("train", *command)
    reason = f"/: this file system has no flock ({os.strerror(number)}); mount it with flock (Lustre: -o flock)"
    reason = reason.removeprefix("/")  # the mount point
    assert (refused.returncode, refused.stderr.count("\n"), reason in refused.stderr) == (2, 1, True)
    task = run("sweep.array_task", "outputs/one")
    assert (task.returncode, reason in task.stdout) == (1, True)
    shown = run("status", "outputs/one")
    assert (shown.returncode, shown.stdout.count(reason), "2 FAILED" in shown.stdout) == (0, 1, True)
    assert commands.train(*command, folder=tmp_path).code == 0
    assert "2 COMPLETED" in run("status", "outputs/one").stdout
    assert run("rank", "outputs/one").returncode == 0
