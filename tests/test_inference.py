"""A trained net at work: its file, the windows of a sound, and the front end of its training."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from test_trainer import settings, toy, train
from torch.testing import assert_close

from irmas.config import Features
from irmas.data.features import LogMel, encode, read_waveform
from irmas.errors import DataError, UserError
from irmas.files import with_digest
from irmas.inference.recognizer import Recognizer
from irmas.inference.timeline import read_windows
from irmas.learning.net import torch_net
from irmas.run import model_file, predictions
from irmas.run.checkpoint import read_numbers
from irmas.run.folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    train(folder.path, settings(), toy())
    return folder


def test_the_model_file_answers_as_its_run_did(trained: RunFolder) -> None:
    examples, file = toy(), model_file.read(trained.model)
    answered = predictions.read(trained.predictions)
    assert answered is not None
    probabilities = torch_net(file).probabilities(examples.decibels(examples.validation)[:, 0])
    assert_close(torch.from_numpy(probabilities).sum(1), torch.ones(len(examples.validation)))
    assert probabilities.argmax(1).tolist() == answered.predicted.tolist()
    assert file.classes == examples.classes
    assert not set(file.trained_on) & set(answered.excerpts)
    assert len(file.trained_on) == len(examples.train)
    assert file.metrics == trained.status().metrics


@pytest.mark.parametrize("place", [10, 2000, -1])
def test_a_changed_byte_of_a_model_file_is_refused(trained: RunFolder, tmp_path: Path, place: int) -> None:
    content = bytearray(trained.model.read_bytes())
    content[place] ^= 1
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pt: is damaged"):
        model_file.read(tmp_path / "model.pt")


def test_another_file_is_no_model(trained: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint\.pt: is no model file; a finished run has one, model\.pt"):
        model_file.read(trained.checkpoint)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/none.pt: No such file")):
        Recognizer.load([tmp_path / "none.pt"])


def test_a_model_file_of_a_later_version_is_refused_and_one_of_an_earlier_read(
    trained: RunFolder, tmp_path: Path
) -> None:
    content = read_numbers(trained.model)
    later = content | {"model": content["model"] | {"no_such": True}}
    earlier = content | {"features": {key: value for key, value in content["features"].items() if key != "n_fft"}}
    for name, changed in (("later.pt", later), ("earlier.pt", earlier)):
        buffer = io.BytesIO()
        torch.save(changed, buffer)
        (tmp_path / name).write_bytes(with_digest(buffer.getvalue()))
    with pytest.raises(UserError, match=r"later\.pt: was written by another version of irmas .*'no_such'"):
        model_file.read(tmp_path / "later.pt")
    assert model_file.read(tmp_path / "earlier.pt").features.n_fft == Features().n_fft


def test_nets_of_other_classes_are_not_averaged(trained: RunFolder) -> None:
    net = torch_net(model_file.read(trained.model))
    other = replace(net, classes=["a", "b", "c"])
    with pytest.raises(UserError, match=r"two: has the classes a b c, one has .+; only nets of the same classes"):
        Recognizer([net, other], ["one", "two"], 3.0, 1.5)


def test_a_window_that_is_too_short_to_be_pooled_is_refused(trained: RunFolder) -> None:
    net = replace(torch_net(model_file.read(trained.model)), pool=100)
    with pytest.raises(UserError, match=r"--window 0\.1: is too short for one: \d+ frames, it needs 100"):
        Recognizer([net], ["one"], 0.1, 0.1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("samples", "starts"), [(999, [0]), (1000, [0]), (1001, [0, 1]), (2300, [0, 400, 800, 1200, 1300])]
)
def test_windows_hold_every_sample(tmp_path: Path, samples: int, starts: list[int], channels: int) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (samples, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 1000, subtype="FLOAT")
    found = list(read_windows(tmp_path / "a.wav", length_s=1.0, hop_s=0.4))
    assert [window.start_s * 1000 for window in found] == starts
    for window, start in zip(found, starts, strict=True):
        np.testing.assert_array_equal(window.samples, sound.mean(1)[start : start + 1000])


def test_a_window_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    sound = np.zeros(3000, np.float32)
    sound[2500] = np.inf
    soundfile.write(tmp_path / "a.wav", sound, 1000, subtype="FLOAT")
    found = read_windows(tmp_path / "a.wav", length_s=1.0, hop_s=1.0)
    assert next(found).is_silent
    with pytest.raises(DataError, match=r"a\.wav: holds samples that are not finite"):
        list(found)


def test_waveforms_go_through_the_front_end_of_the_training(trained: RunFolder, tmp_path: Path) -> None:
    """Two nets with other front ends, averaged, against the steps one by one."""
    sound = np.random.default_rng(0).normal(0, 0.1, 33075).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 22050)
    waveform, rate = read_waveform(tmp_path / "a.wav")
    file = model_file.read(trained.model)
    nets, expected = [], []
    for features in (Features(n_mels=32, hop_length=512), Features(n_mels=24, sample_rate=16000, dtype="float16")):
        net = torch_net(replace(file, features=features, pool=2))
        log_mel = LogMel(replace(features, seconds=1.5))(waveform[None], rate)
        stored = torch.from_numpy(encode(log_mel, features)).float() * features.scale + features.offset
        expected.append(net.probabilities(torch.nn.functional.avg_pool2d(stored, 2)))
        nets.append(net)
    averaged = Recognizer(nets, ["one", "two"], 1.5, 1.5).probabilities(waveform[None], rate)
    np.testing.assert_allclose(averaged, np.mean(expected, axis=0), atol=2e-3)  # means are kept in half precision
