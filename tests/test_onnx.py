"""Exported nets: the same answers without torch's net, and files that are none."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from forked_commands import Commands
from test_predict import made_up_model, noise

from irmas.config import Features, Model
from irmas.data.features import read_waveform
from irmas.errors import UserError
from irmas.inference import onnx_file
from irmas.inference.recognizer import Recognizer
from irmas.labels import CODES
from irmas.learning.net import torch_net
from irmas.run import model_file

ALIKE = 1e-4


@pytest.fixture(scope="module")
def folder(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its exported file."""
    folder = tmp_path_factory.mktemp("exported")
    features = Features(n_fft=1024, hop_length=800, n_mels=32)
    made_up_model(folder / "model.pt", features, Model([8, 16], dense=32))
    result = commands.run("export", "model.pt", "out/model.onnx", folder=folder)
    assert (result.code, result.stderr) == (0, ""), result
    assert result.stdout.startswith(
        "model.pt\nwritten: out/model.onnx; on noise its probabilities differ from torch's by "
    )
    return folder


def differences(folder: Path, wavs: Sequence[Path], seconds: float | None = None) -> list[float]:
    """Return the largest difference between the two files' probabilities for each wav."""
    one, other = (Recognizer.load([folder / name], seconds) for name in ("model.pt", "out/model.onnx"))
    found = []
    for wav in wavs:
        waveform, rate = read_waveform(wav)
        answers = [recognizer.probabilities(waveform[None], rate) for recognizer in (one, other)]
        found.append(float(np.abs(answers[0] - answers[1]).max()))
    return found


@pytest.mark.parametrize(("seconds", "every"), [(None, 3), (1.0, 12), (4.0, 12)])
def test_every_excerpt_is_answered_alike(folder: Path, corpus: Path, seconds: float | None, every: int) -> None:
    found = differences(folder, sorted(corpus.glob("*/*.wav"))[::every], seconds)
    assert len(found) == 132 // every
    assert max(found) < ALIKE


def test_every_real_excerpt_is_answered_alike(folder: Path, shared: Path) -> None:
    wavs = sorted((shared / "irmas_wav").rglob("*.wav"))
    found = differences(folder, wavs)
    assert len(found) > 30
    assert max(found) < ALIKE


def test_a_batch_is_answered_like_its_windows_one_by_one(folder: Path) -> None:
    exported = onnx_file.read_onnx(folder / "out" / "model.onnx")
    log_mel_db = -80 * torch.rand(5, 32, 40, generator=torch.Generator().manual_seed(0))
    alone = [exported.probabilities(window[None])[0] for window in log_mel_db]
    np.testing.assert_allclose(exported.probabilities(log_mel_db), alone, atol=1e-6)


def test_the_metadata_hold_what_another_program_needs(folder: Path) -> None:
    about = {entry.key: entry.value for entry in onnx.load(folder / "out" / "model.onnx").metadata_props}
    file = model_file.read(folder / "model.pt")
    assert json.loads(about["classes"]) == file.classes
    assert json.loads(about["features"]) == asdict(file.features)
    assert about["pool"] == "1"
    assert json.loads(about["versions"]) == file.versions
    onnx.checker.check_model(folder / "out" / "model.onnx")


def test_an_exported_file_answers_as_its_model(commands: Commands, folder: Path) -> None:

    soundfile.write(folder / "a.wav", noise(5.0), 16000, subtype="FLOAT")
    answers = []
    for named in (["model.pt"], ["out/model.onnx"], ["model.pt", "--with", "out/model.onnx"]):
        result = commands.run("predict", *named, "a.wav", "--json", "-", folder=folder)
        assert (result.code, result.stderr) == (0, "")
        answers.append(json.loads(result.stdout)["overall"])
    assert answers[1] == pytest.approx(answers[0], abs=ALIKE)
    assert answers[2] == pytest.approx(answers[0], abs=ALIKE)


def test_several_nets_become_their_average(features: Features, tmp_path: Path) -> None:
    deep = Model([4, 8, 8], convs_per_block=2, pooling="max", dense=16)
    files = [model_file.read(made_up_model(tmp_path / f"{seed}.pt", features, deep, seed)) for seed in (0, 1)]
    onnx_file.write_onnx(tmp_path / "both.onnx", files)
    assert onnx_file.difference(tmp_path / "both.onnx", files) < ALIKE
    assert onnx_file.difference(tmp_path / "both.onnx", files[:1]) > 100 * ALIKE


def test_an_exported_net_averages_rolled_versions_of_any_length(features: Features, tmp_path: Path) -> None:
    file = model_file.read(made_up_model(tmp_path / "a.pt", features, Model([4, 8], dense=16, rolls=3)))
    unsure = {name: value / 20 if name.startswith("head") else value for name, value in file.weights.items()}
    file = replace(file, weights=unsure)
    onnx_file.write_onnx(tmp_path / "a.onnx", [file])
    assert onnx_file.difference(tmp_path / "a.onnx", [file]) < ALIKE
    exported, rolled = onnx_file.read_onnx(tmp_path / "a.onnx"), torch_net(file)
    plain = torch_net(replace(file, model=replace(file.model, rolls=1)))
    torch.manual_seed(0)
    for frames in (2, 31, 97):
        log_mel_db = torch.linspace(-80, 0, frames) * torch.rand(50, features.n_mels, 1)
        answers = exported.probabilities(log_mel_db)
        np.testing.assert_allclose(answers, rolled.probabilities(log_mel_db), atol=ALIKE / 10)
    assert float(np.abs(answers - plain.probabilities(log_mel_db)).max()) > ALIKE


def test_nets_of_other_front_ends_do_not_become_one(features: Features, tmp_path: Path) -> None:
    first = model_file.read(made_up_model(tmp_path / "a.pt", features, Model([4])))
    other = model_file.read(made_up_model(tmp_path / "b.pt", Features(), Model([4])))
    with pytest.raises(UserError, match="only nets of the same front end"):
        onnx_file.write_onnx(tmp_path / "both.onnx", [first, other])


@pytest.mark.parametrize("place", [10, 2000, -100, -10, -1])
def test_a_changed_byte_is_refused(folder: Path, tmp_path: Path, place: int) -> None:
    content = bytearray((folder / "out" / "model.onnx").read_bytes())
    content[place] ^= 1
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.onnx: is damaged, or was not written by python -m irmas\.export"):
        Recognizer.load([tmp_path / "a.onnx"])


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(folder: Path) -> None:
    content = (folder / "out" / "model.onnx").read_bytes()
    about = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    digest = about["sha256"].encode()
    assert content.count(digest) == 1
    assert hashlib.sha256(content.replace(digest, b"0" * 64)).hexdigest().encode() == digest


def test_a_file_of_irmas_0_1_is_read_and_its_changed_bytes_are_refused(folder: Path, tmp_path: Path) -> None:
    """Its digest is the last metadata entry, over all bytes before it."""
    model = onnx.load(folder / "out" / "model.onnx")
    entries = [entry for entry in model.metadata_props if entry.key != "sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    content = model.SerializeToString()
    entry = b"\x0a\x06sha256\x12\x40" + hashlib.sha256(content).hexdigest().encode()
    (tmp_path / "a.onnx").write_bytes(content + b"\x72\x4a" + entry)
    assert onnx_file.read_onnx(tmp_path / "a.onnx").classes == list(CODES)
    (tmp_path / "a.onnx").write_bytes(content[:-1] + b"x" + b"\x72\x4a" + entry)
    with pytest.raises(UserError, match=r"a\.onnx: is damaged"):
        onnx_file.read_onnx(tmp_path / "a.onnx")


def test_another_file_is_no_net(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "out" / "model.onnx")
    for content in (b"", b"no net", model.SerializeToString()[:-1000], onnx.ModelProto().SerializeToString()):
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.onnx: is damaged, or was not written by"):
            Recognizer.load([tmp_path / "a.onnx"])
    with pytest.raises(UserError, match=r"none\.onnx: No such file"):
        Recognizer.load([tmp_path / "none.onnx"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.pt"], "the following arguments are required: model.onnx"),
        (["model.pt", "model.txt"], "model.txt: must end in .onnx"),
        (["model.pt", "made.onnx"], "made.onnx: is a folder"),
        (["model.pt", "locked/model.onnx"], "locked cannot be written"),
        (["none.pt", "model.onnx"], "none.pt: No such file"),
        (["text.pt", "model.onnx"], "text.pt: is damaged (its digest differs), or is no model file"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], message: str, commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "made.onnx").mkdir()
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "text.pt").write_text("no model")
    assert message in commands.refuse("export", *arguments, folder=tmp_path)


def test_missing_packages_are_named_with_the_command_that_installs_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
    message = r"pip install onnx onnxruntime onnxscript; .* pip install -c constraints\.txt -e '\.\[onnx\]'"
    with pytest.raises(UserError, match=message):
        Recognizer.load([folder / "out" / "model.onnx"])
    with pytest.raises(UserError, match=message):
        onnx_file.write_onnx(tmp_path / "a.onnx", [model_file.read(folder / "model.pt")])
