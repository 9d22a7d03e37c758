"""Mixtures of what a model was not trained on: each recording is a tone of its own, which a mixture shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from irmas.config import Config, Data, Features, Model
from irmas.console import SILENT
from irmas.data.excerpts import read_test_part
from irmas.errors import UserError
from irmas.evaluation import testset
from irmas.learning.model import Classifier
from irmas.run import model_file
from irmas.run.model_file import ModelFile

RATE = 8000
CLASSES = ["bell", "horn", "reed"]
TONES = {f"{label}/r{number}": 200 + 100 * number + 30 * k for k, label in enumerate(CLASSES) for number in range(6)}
"""Hz."""


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    """Trained on the even recordings."""
    for name, tone in TONES.items():
        path = tmp_path / "tones" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * tone * np.arange(RATE) / RATE), RATE)
    config = Config(data=Data(source="folder", root=str(tmp_path / "tones"), cache_dir=str(tmp_path / "cache")))
    config = replace(config, features=Features(sample_rate=RATE, n_mels=16, seconds=1.0), model=Model(filters=[4]))
    weights = Classifier(config.model, 3, 0.0, 0.0, 1.0).state_dict()
    trained_on = [name for name in TONES if int(name[-1]) % 2 == 0]
    return model_file.make(weights, CLASSES, config, trained_on, [name.split("/")[1] for name in trained_on], {})


def tones(path: Path) -> set[str]:
    """The recordings in a mixture."""
    samples, rate = soundfile.read(path)
    assert (rate, len(samples)) == (RATE, RATE)
    heights = np.abs(np.fft.rfft(samples))
    return {name for name, tone in TONES.items() if heights[tone] > 0.1 * heights.max()}


def test_mixtures_hold_nothing_that_was_trained_on_and_say_what_they_hold(file: ModelFile, tmp_path: Path) -> None:
    testset.write_mixtures(tmp_path / "mixed", [file], SILENT)
    excerpts, problems = read_test_part(tmp_path / "mixed", CLASSES)
    assert problems == []
    assert len(excerpts) == testset.NUM_MIXTURES
    mixed = [tones(excerpt.path) for excerpt in excerpts]
    assert set.union(*mixed) == set(TONES) - set(file.trained_on)
    assert {len(names) for names in mixed} == {2, 3}
    for excerpt, names in zip(excerpts, mixed, strict=True):
        assert {name.split("/")[0] for name in names} == set(excerpt.labels)


def test_the_same_model_gives_the_same_bytes(file: ModelFile, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        testset.write_mixtures(tmp_path / folder, [file], SILENT)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("one", "two"))
    assert len(one) == 2 * testset.NUM_MIXTURES
    assert one == two


def test_a_recording_that_any_of_the_nets_was_trained_on_is_left_out(file: ModelFile, tmp_path: Path) -> None:
    other = replace(file, trained_on=["bell/r1"], recordings=["r1", "r3"])
    testset.write_mixtures(tmp_path / "mixed", [file, other], SILENT)
    mixed = set.union(*(tones(path) for path in (tmp_path / "mixed").glob("*.wav")))
    assert mixed == {"bell/r5", "horn/r5", "reed/r5"}


def test_the_reason_is_given_if_there_are_none(file: ModelFile, tmp_path: Path) -> None:
    def reason(*files: ModelFile) -> str:
        with pytest.raises(UserError) as raised:
            testset.write_mixtures(tmp_path / "mixed", files, SILENT)
        return str(raised.value)

    everything = replace(file, trained_on=list(TONES))
    assert reason(everything) == "0 excerpts are of recordings that it was not trained on, too few to mix"
    from_cache = replace(file, config=file.config | {"data.cache": "somewhere"})
    assert reason(from_cache) == "it was trained on a ready-made feature cache, and its sounds are not known"
    gone = replace(file, config=file.config | {"data.root": f"{tmp_path}/gone"})
    assert reason(gone) == f"data.root={tmp_path}/gone: there is no such folder"
    assert not (tmp_path / "mixed").exists()
