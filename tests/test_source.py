"""Sweeps keep the package's source with which they train, while it is edited."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import copied_package, irmas, marked, start, wait_until
from factories import grid, read_plan, write_plan
from left_behind import bits, ranking, runs, scalars, status

from irmas.config import Config
from irmas.errors import UserError
from irmas.files import atomic_write
from irmas.provenance import source_digest
from irmas.run.folder import RUNNING
from irmas.sweep import source
from irmas.sweep.sbatch import SCRIPT
from irmas.sweep.sweep import Sweep

OLD = "0123456789ab"
"""Digest of a made-up earlier source."""
BROKEN = '\nraise RuntimeError("edited")\n'
EDITED = "\n# edited\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return copied_package(tmp_path / "package")


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> list[str]:
    """Settings of a small data set and a small net."""
    data = ["data=folder", f"data.root={corpus}", f"data.cache_dir={tmp_path}/cache", "features=small"]
    return ["-m", *data, "model.filters=[8,16]", "device=cpu", "hydra.launcher.runs_at_once=2"]


def edit(package: Path, text: str, name: str = "learning/learner.py") -> None:
    with (package / "irmas" / name).open("a") as file:
        file.write(text)


def sources(sweep: Path) -> list[str]:
    """Return the digests with which the runs were trained, by run."""
    return [json.loads((run / "provenance.json").read_text())["source"] for run in runs(sweep)]


def are_training(sweep: Path) -> bool:
    states = [status(run) for run in runs(sweep)]
    return len(states) == 2 and all(state["state"] == RUNNING and state["epoch"] for state in states)


def test_a_sweep_ends_with_the_source_that_it_began_with_bit_for_bit(
    settings: list[str], package: Path, tmp_path: Path
) -> None:
    """It is interrupted in its first command, edited, and killed in its second."""
    environment = {"PYTHONPATH": str(package), "IRMAS_TEST_MARK": str(tmp_path)}
    (package / "irmas" / ".#config.py").symlink_to("nobody@nowhere")  # as an editor leaves beside a file
    command, sweep = [*settings, "seed=1,2", "epochs=40"], tmp_path / "outputs" / "kept"
    whole = irmas("train", *command, "name=whole", cwd=tmp_path, **environment)
    assert whole.returncode == 0, whole.stderr

    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        process = start("train", *command, "name=kept", cwd=tmp_path, **environment)
        wait_until(lambda: are_training(sweep), "both runs train", 60)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == code
        wait_until(lambda: not marked(str(tmp_path)), "no process is left")
        assert {status(run)["state"] for run in runs(sweep)} == {"CANCELLED"}
        if number == signal.SIGINT:
            edit(package, BROKEN)
    again = irmas("train", *command, "name=kept", cwd=tmp_path, **environment)
    assert again.returncode == 0, again.stderr
    (digest,) = {*sources(tmp_path / "outputs" / "whole")}
    line = (
        f"outputs/kept: trains with the source of its submission, {digest}, not [0-9a-f]{{12}}; allow_code_change=true"
    )
    assert len(re.findall(line, again.stdout)) == 1
    assert sources(sweep) == [digest, digest]
    for kept, undisturbed in zip(runs(sweep), runs(tmp_path / "outputs" / "whole"), strict=True):
        assert scalars(kept) == scalars(undisturbed)
        ends = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (kept, undisturbed)]
        for end in ends:
            del end["config"]  # which has the name of the sweep
        assert bits(ends[0]) == bits(ends[1])
    # All is finished, so that nothing is trained with any source.
    assert "source of its submission" not in irmas("train", *command, "name=kept", cwd=tmp_path, **environment).stdout


def test_another_name_or_permission_takes_the_present_source_and_the_ranking_says_so(
    settings: list[str], package: Path, tmp_path: Path
) -> None:
    def train(*overrides: str) -> str:
        done = irmas("train", *settings, "epochs=1", *overrides, cwd=tmp_path, PYTHONPATH=str(package))
        assert done.returncode == 0, done.stderr
        assert "source of its submission" not in done.stdout
        return done.stdout

    old, new = tmp_path / "outputs" / "old", tmp_path / "outputs" / "new"
    train("seed=1", "name=old")
    edit(package, EDITED, "results/report.py")  # which trains nothing
    train("seed=1,2", "name=old")
    edit(package, EDITED)
    train("seed=1", "name=new")
    mixed = train("seed=1,2,3", "name=old", "allow_code_change=true")
    first, second = sources(old)[0], *sources(new)
    assert sources(old) == [first, first, second]
    assert f"mixed versions of the source: runs 1-2 by {first}, run 3 by {second}" in " ".join(mixed.split())
    assert [entry["source"] for entry in sorted(ranking(old), key=lambda entry: int(entry["id"]))] == [
        f"sha256:{digest}" for digest in (first, first, second)
    ]
    assert {path.name for path in (old / "code").iterdir()} == {first, second}


@pytest.fixture
def old(tmp_path: Path) -> Sweep:
    """A sweep of an earlier source, which has no setting label_smoothing and no optimizer but adam."""
    sweep = Sweep(tmp_path / "s", replace(grid({"lr": [0.1]}), source=OLD))
    sweep.write()
    head: dict[str, Any] = yaml.safe_load(sweep.plan_file.read_text())
    del head["config"]["label_smoothing"], head["rounds"]
    sweep.plan_file.write_text(yaml.safe_dump(head))
    source.keep(sweep.code / OLD)
    config = sweep.code / OLD / "irmas" / "config.py"
    text = config.read_text()
    assert text.count("    label_smoothing:") == text.count(', "muon"') == 1
    config.write_text(re.sub("    label_smoothing:.*\n", "", text).replace(', "muon"', ""))
    return sweep


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing=0.1: is a setting of another version"),
        ({"optimizer": "muon"}, "optimizer=muon: must be adam"),
    ],
)
def test_what_the_source_of_a_sweep_does_not_know_is_refused_by_name(
    values: dict[str, Any], message: str, old: Sweep
) -> None:
    before = old.plan_file.read_bytes()
    axes = {"lr": [0.1]} | {key: [getattr(Config(), key), value] for key, value in values.items()}
    grown, grown_runs = Sweep(old.path, grid(axes)).merged()
    assert grown.plan.source == OLD
    with pytest.raises(UserError, match=rf"^{message}.*{OLD}; allow_code_change=true or another name"):
        grown.copy_for("source", grown_runs)
    assert grown.copy_for("source", grown_runs[:1]) == old.code / OLD
    assert old.plan_file.read_bytes() == before
    assert (
        Sweep(
            old.path, replace(grown.plan, source="source", config=replace(Config(), allow_code_change=True))
        ).copy_for("source", grown_runs)
        is None
    )


def test_a_plan_that_keeps_its_source_has_no_key_that_this_one_lacks(old: Sweep) -> None:
    known = yaml.safe_load(old.plan_file.read_text())
    write_plan(old.path, grid({"lr": [0.1, 0.2]}))
    head = yaml.safe_load(old.plan_file.read_text())
    assert (head["source"], head["runs"], head.keys()) == (OLD, 2, known.keys())
    assert head["config"].keys() == known["config"].keys()
    write_plan(old.path, grid({"lr": [0.1, 0.2]}, replace(Config(), allow_code_change=True)))
    assert (read_plan(old.path).source, "label_smoothing" in old.plan_file.read_text()) == ("source", True)


def test_hidden_files_beside_the_source_are_no_source(package: Path, settings: list[str], tmp_path: Path) -> None:
    """An editor's lock is a dangling link; other file systems' and notebooks' files hold what they want."""
    command = ["seed=0,1", *settings, "epochs=1", "name=one"]
    assert irmas("train", *command, cwd=tmp_path, PYTHONPATH=str(package)).returncode == 0
    for name in ("irmas/config", "irmas/sweep/pool", "hydra_plugins/irmas_launcher", "conf/config", "conf/model/deep"):
        suffix = ".yaml" if "conf/" in name else ".py"
        path = (package / name).with_suffix(suffix)
        path.with_name(f".#{path.name}").symlink_to("me@host.1:2")
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    (package / "irmas" / ".ipynb_checkpoints").mkdir()
    (package / "irmas" / ".ipynb_checkpoints" / "config-checkpoint.py").write_text("edited")
    sweep = tmp_path / "outputs" / "one"
    (sweep / "plan.yaml").unlink()
    shutil.rmtree(runs(sweep)[1])
    (sweep / "runs" / ".DS_Store").touch()
    again = irmas("train", *command, cwd=tmp_path, PYTHONPATH=str(package))
    assert again.returncode == 0, again.stderr
    assert "2 of 2 runs finished" in again.stdout
    first, second = (json.loads(path.read_text())["source"] for path in (sweep / "runs").glob("*/provenance.json"))
    assert first == second


def test_a_copy_is_whole_or_absent_and_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(tmp_path / "s", replace(grid({"lr": [0.1]}), source=source_digest()))

    def fill_the_disk(path: Path, data: bytes) -> None:
        if path.name == "learner.py":
            raise OSError(28, "No space left on device", str(path))
        atomic_write(path, data)

    monkeypatch.setattr("irmas.sweep.source.atomic_write", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        sweep.write()
    assert [path.name for path in sweep.path.rglob("*") if not path.name.startswith(".")] == ["code"]
    monkeypatch.setattr("irmas.sweep.source.atomic_write", atomic_write)
    sweep.write()
    assert sweep.copy == sweep.code / source_digest()
    monkeypatch.setattr("irmas.sweep.source.atomic_write", fill_the_disk)
    sweep.write()


@pytest.mark.parametrize(("stage", "is_of_copy"), [("data", True), ("train", True), ("rank", False), ("refine", False)])
@pytest.mark.parametrize("digest", [OLD, "123456789012"])  # the second is quoted in YAML
def test_the_script_starts_tasks_with_the_copy_and_the_ranking_without(
    stage: str, is_of_copy: bool, digest: str, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "my sweep", replace(grid({"lr": [0.1]}), source=digest))
    sweep.write()
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "srun").write_text('#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done; exec "$@"\n')
    (commands / "python").write_text('#!/bin/bash\necho "$PYTHONPATH" $PYTHONSAFEPATH $SLURM_JOB_ID\n')
    for command in commands.iterdir():
        command.chmod(0o755)
    inside = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", "PATH": f"{commands}:{os.environ['PATH']}"}

    def started(*prefix: str, **environment: str) -> str:
        options = [f"--prefix={word}" for word in prefix]
        command = ["bash", str(SCRIPT), *options, stage, "my sweep", "--runs", "1"]
        return subprocess.check_output(command, env=inside | environment, cwd=tmp_path, text=True).strip()

    assert started() == "7"  # it has no copy
    (sweep.code / digest / "irmas").mkdir(parents=True)
    copy = str(sweep.code / digest)
    assert started() == (f"{copy} 1 7" if is_of_copy else "7")
    assert started(PYTHONPATH="/mine") == (f"{copy}:/mine 1 7" if is_of_copy else "/mine 7")
    clean = ("env", "-i", f"PATH={inside['PATH']}", "PYTHONPATH=/images")
    assert started(*clean, PYTHONPATH="/mine") == (f"{copy}:/images 1 7" if is_of_copy else "/images 7")
