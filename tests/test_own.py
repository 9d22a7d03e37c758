"""Nets of users' own: from a function on PYTHONPATH to a ranking, a prediction and an exported net."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from commands import ROOT, irmas
from forked_commands import Commands
from left_behind import runs, scalars

from irmas.config import Config, Model
from irmas.errors import ConfigError
from irmas.learning.own import check
from irmas.provenance import built_source

NETS = """
from torch import nn


def build(classes, width=8):
    from .layers import block  # as late as a function may import

    return nn.Sequential(block(1, width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def square(classes):
    return nn.Flatten()


def frozen(classes):
    return nn.ReLU()


def fails(classes):
    raise ValueError("no such width")


def wrong(classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, classes + 1))


def picky(classes):
    return nn.Linear(5, classes)


def text(classes):
    return "net"


number = 3
"""
LAYERS = """
from torch import nn


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3), nn.BatchNorm2d(after), nn.ReLU())
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PYTHONPATH with the package mylab."""
    package = tmp_path / "lab" / "mylab"
    package.mkdir(parents=True)
    for name, text in {"__init__": "", "nets": NETS, "layers": LAYERS, "unused": "raise RuntimeError"}.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(str(package.parent))
    for name in ("mylab", "mylab.nets", "mylab.layers"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return package.parent


def test_the_source_of_a_net_is_its_file_and_what_it_imports_from_the_same_folder(lab: Path) -> None:
    assert list(built_source(["mylab.nets:build"])) == ["mylab/__init__.py", "mylab/layers.py", "mylab/nets.py"]
    (lab / "alone.py").write_text("import os, torch\nfrom mylab import layers\nimport beside\n")
    (lab / "beside.py").write_text("import alone\n")
    found = built_source(["alone:build", "mylab.nets:build"])
    assert list(found) == ["alone.py", "beside.py", "mylab/__init__.py", "mylab/layers.py", "mylab/nets.py"]
    assert found["beside.py"] == b"import alone\n"
    assert not built_source(["json.decoder:JSONDecoder", "torch.nn:Linear"])  # installed, where nobody edits


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        ("nowhere.nets:build", r"cannot be imported \(No module named 'nowhere'\)"),
        ("mylab.nothing:build", "PYTHONPATH leads to no file of mylab.nothing"),
        ("json.decoder:none", r"\.py has no function none"),
        ("mylab.nets:number", "has no function number"),
        ("mylab.unused:build", r"mylab.unused cannot be imported \(RuntimeError"),
        ("mylab.nets:fails", r"it fails \(ValueError: no such width\)"),
        ("mylab.nets:text", "it returns str, no torch.nn.Module"),
        ("mylab.nets:frozen", "its net has no parameters to train"),
        ("mylab.nets:square", "its net has no parameters to train"),
        ("mylab.nets:picky", r"its net fails on log-mels of shape \(2, 1, 224, 224\) \(RuntimeError: "),
        ("mylab.nets:wrong", r"its net gives \(2, 12\) for 2 excerpts and 11 classes, not \(2, 11\)"),
    ],
)
def test_what_is_no_net_is_refused_with_the_reason(lab: Path, builder: str, reason: str) -> None:
    def plan(config: Config) -> None:
        built_source([builder])
        check(config)

    with pytest.raises(ConfigError, match=rf"model.builder={builder}: .*{reason}"):
        plan(Config(model=Model(builder=builder)))


def test_arguments_reach_the_builder(lab: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.args=\{depth:2\}: it fails \(TypeError: .*'depth'"):
        check(Config(model=Model(builder="mylab.nets:build", args={"depth": 2})))
    check(Config(model=Model(builder="mylab.nets:build", args={"width": 2})))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=own"], "model.builder=module:function: PYTHONPATH leads to no file of module"),
        (["model.builder=nets"], "model.builder=nets: must be the name of a function as in mylab.nets:build, or null"),
        (["model.args={width: 3}"], "model.args={width:3}: only a net of model.builder=... takes arguments"),
        (["model.builder=json:dumps", "model.args=3"], "model.args=3: must be arguments by name, as in {width: 32}"),
    ],
)
def test_a_mistake_is_one_message(
    commands: Commands, corpus: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    data = ["data=folder", f"data.root={corpus}", "features=small"]
    assert message in commands.refuse("train", *data, *overrides, folder=tmp_path)


def test_a_net_of_ones_own_is_trained_ranked_predicted_exported_and_kept(
    lab: Path, corpus: Path, tmp_path: Path
) -> None:
    def call(command: str, *args: str, path: Path = lab) -> CompletedProcess[str]:
        return irmas(command, *args, cwd=tmp_path, PYTHONPATH=f"{path}:{ROOT}")

    data = ["data=folder", f"data.root={corpus}", f"data.cache_dir={tmp_path}/cache", "features=small"]
    net = ["model=own", "model.builder=mylab.nets:build", "model.args={width: 2},{width: 4}"]
    command = ["-m", *data, *net, "epochs=2", "device=cpu", "seed=1"]
    first = call("train", *command, "name=own")
    assert first.returncode == 0, first.stderr
    assert "model.args={width:4}" in first.stdout
    sweep = tmp_path / "outputs" / "own"
    (copy,) = (sweep / "code").iterdir()
    assert sorted(path.name for path in (copy / "mylab").iterdir()) == ["__init__.py", "layers.py", "nets.py"]
    sound = str(next(corpus.rglob("*.wav")))
    before = call("predict", "outputs/own", sound, "--json", "-")
    assert before.returncode == 0, before.stderr
    exported = call("export", "outputs/own", "own.onnx")
    assert exported.returncode == 0, exported.stderr

    (lab / "mylab" / "layers.py").write_text(LAYERS.replace("ReLU", "Tanh"))
    again = call("train", *command[:-1], "seed=1,2", "name=own")
    assert again.returncode == 0, again.stderr
    assert f"outputs/own: trains with the source of its submission, {copy.name}, not" in again.stdout
    whole = call("train", *command[:-1], "seed=1,2", "name=edited")
    assert whole.returncode == 0, whole.stderr
    sources = [json.loads((run / "provenance.json").read_text())["source"] for run in runs(sweep)]
    assert sources == [copy.name] * 4
    kept, edited = (scalars(runs(tmp_path / "outputs" / name)[2]) for name in ("own", "edited"))
    assert kept != edited

    refused = call("predict", "outputs/own", sound)
    assert refused.returncode == 2
    assert "changed since: mylab/layers.py; to use the source that trained it" in refused.stderr
    assert call("predict", "outputs/own", sound, path=copy).returncode == 0
    missing = call("predict", "outputs/own", sound, path=tmp_path)
    assert missing.returncode == 2
    assert "model.builder=mylab.nets:build" in missing.stderr
    for command_ in ("status", "rank"):  # neither imports the net
        assert call(command_, "outputs/own", path=tmp_path).returncode == 0
