"""Mistakes on the command line: one message, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import irmas

MISTAKES = [
    (["dropuot=0.3"], ["dropuot", "did you mean dropout", "settings:", "groups:"]),
    (["+dropout=0.3"], ["+dropout=0.3", "dropout=..."]),
    (["+dropuot=0.3"], ["dropuot", "did you mean dropout"]),
    (["++lr=0.1"], ["++lr=0.1", "lr=..."]),
    (["~augment"], ["~augment"]),
    (["data.siez=3"], ["data.siez", "data.size"]),
    (["dropout=1.5"], ["dropout=1.5", "from 0 up to, not including, 1"]),
    (["dropout=nan"], ["dropout=nan", "from 0"]),
    (["lr=-1"], ["lr=-1", "above 0"]),
    (["lr=nan"], ["lr=nan", "above 0"]),
    (["lr=inf"], ["lr=inf", "above 0"]),
    (["lr=null"], ["lr", "above 0"]),
    (["epochs=0"], ["epochs=0", "from 1"]),
    (["epochs=many"], ["epochs=many", "a whole number from 1"]),
    (["epochs=1.5"], ["epochs=1.5", "a whole number from 1"]),
    (["class_weights=maybe"], ["class_weights=maybe", "true, false"]),
    (["device=gpu"], ["device=gpu", "auto, cuda, cpu"]),
    (["schedule=cosine"], ["schedule=cosine", "constant, plateau, onecycle"]),
    (["model.filters=[32,many]"], ["model.filters", "[32,64,128,256]"]),
    (["data=irmaz"], ["data=irmaz", "folder, irmas, standin"]),
    (["sweep=reprot"], ["sweep=reprot", "none, report"]),
    (["hydra/launcher=basic"], ["hydra/launcher=basic", "local"]),
    (["hydra/sweeper=basic"], ["hydra/sweeper=basic", "grid"]),
    (["dropout=0.3", "dropout=0.4"], ["dropout is given twice"]),
    (["-m", "features=small", "features=small,report"], ["features is given twice"]),
    (["hydra.launcher.procs=2"], ["hydra.launcher.procs", "processes"]),
    (["hydra.launcher.processes=0", "data=standin"], ["hydra.launcher.processes=0", "from 1"]),
    (["dropout=0.3,"], ["dropout=0.3,"]),
    (["name=../elsewhere"], ["name=../elsewhere", "letters"]),
    (["name=" + "x" * 101], ["name=", "up to 100"]),
    (["-m", "name=a,b"], ["name=a", "whole sweep"]),
    (["-m", "data=standin", "dropout=0.3,1.5"], ["dropout=1.5", "not including, 1"]),
    (["-m", "data=standin", "dropout=0.3,0.30"], ["dropout=0.3", "twice"]),
    (["-m", "data=standin", "lr=interval(0.1,1)"], ["lr=interval(0.1,1)", "a grid needs values"]),
    (["-m", "data=standin", "model=report,depp"], ["model=depp", "deep, report"]),
    (["data.size=200"], ["data.size=200", "only data=standin"]),
    (["data=folder"], ["data.root=", "must be a folder"]),
    (["data=folder", "data.root=nowhere"], ["data.root", "nowhere", "no such folder"]),
    (["data.cache=nowhere"], ["data.cache", "nowhere", "no such folder"]),
    ([], ["data.root", "python -m irmas.prepare download=true", "data=standin"]),
]


@pytest.mark.parametrize(("arguments", "wanted"), MISTAKES, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_is_one_message_and_writes_nothing(arguments: list[str], wanted: list[str], tmp_path: Path) -> None:
    done = irmas("train", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("irmas.train: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for text in wanted:
        assert text in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_prepare_takes_only_its_own_settings(tmp_path: Path) -> None:
    done = irmas("prepare", "dropout=0.3", cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "'dropout'" in done.stderr
    assert "Traceback" not in done.stderr


def test_prepare_takes_no_sweep(tmp_path: Path) -> None:
    done = irmas("prepare", "-m", "data=standin", "features=small,report", cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "Traceback" not in done.stderr


def test_rank_names_the_sweeps_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    (tmp_path / "outputs" / "mine" / "plan.yaml").touch()
    done = irmas("rank", "outputs/other", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "irmas.rank: outputs/other: no sweep is here (plan.yaml is missing); sweeps: outputs/mine\n"


@pytest.mark.parametrize("door", ["train", "prepare", "rank"])
def test_help_shows_how_to_call_the_door(door: str, tmp_path: Path) -> None:
    done = irmas(door, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m irmas.{door}" in done.stdout
    assert list(tmp_path.iterdir()) == []
