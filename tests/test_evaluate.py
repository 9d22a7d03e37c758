"""irmas.evaluate on a model that irmas.train trained: metrics, files, and refusals."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from forked_commands import Commands
from sklearn.metrics import f1_score, label_ranking_average_precision_score

from irmas.config import Data, Features
from irmas.console import SILENT
from irmas.data import cache, dataset
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import read_test_part, scan
from irmas.evaluation import evaluator, testset
from irmas.evaluation.testset import LabeledExcerpt
from irmas.inference import onnx_file
from irmas.inference.recognizer import Recognizer
from irmas.run import model_file, predictions

FRONT_END = ["features.sample_rate=16000", "features.n_fft=1024", "features.hop_length=1500", "features.n_mels=16"]
SMALL = [*FRONT_END, "model.filters=[4,8]", "model.dense=8", "epochs=1", "batch_size=8", "lr=0.01"]


@pytest.fixture(scope="module")
def home(commands: Commands, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with two seeds of a model of the corpus."""
    folder = tmp_path_factory.mktemp("home")
    trained = commands.train("-m", f"data.root={corpus}", "seed=0,1", "name=two", *SMALL, folder=folder)
    assert trained.code == 0, trained.stderr
    return folder


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    (found,) = (home / "outputs" / "two" / "runs").glob("*1-*")
    return found


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def read_scores(folder: Path, classes: list[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return truth and scores, (excerpts, classes)."""
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = np.array([[label in row["labels"].split() for label in classes] for row in rows])
    return truth, np.array([[float(row[label]) for label in classes] for row in rows])


def test_a_sweeps_winner_on_a_test_part(commands: Commands, home: Path, part: Path) -> None:
    result = commands.run("evaluate", "outputs/two", str(part), "--figures", "pdf", folder=home)
    assert (result.code, result.stderr) == (0, ""), result
    folder = home / "outputs" / "two" / "evaluation" / part.name
    assert f"written: {folder.relative_to(home)}/results.json" in result.stdout
    found = results(folder)
    assert len(found["nets"]) == 2
    assert found["settings"] == {
        "window_s": 3.0,
        "hop_s": 1.5,
        "aggregate": "mean",
        "threshold": 0.5,
        "damaged": "refuse",
    }
    assert [judged["rule"]["name"] for judged in found["thresholds"]] == ["fixed", "chosen on mixtures", "oracle"]
    truth, scores = read_scores(folder, found["classes"])
    assert found["data"]["excerpts"] == len(truth) == len(list(part.rglob("*.wav")))
    assert found["data"]["songs"] == 3
    assert "\nonly 3 songs: intervals are unreliable below 10\n" in result.stdout
    assert found["lrap"]["value"] == pytest.approx(label_ranking_average_precision_score(truth, scores), abs=1e-3)
    for judged in found["thresholds"]:
        answers = scores >= judged["rule"]["threshold"]
        expected = f1_score(truth, answers, average="micro", zero_division=0)
        assert judged["micro_f1"]["value"] == pytest.approx(expected, abs=1e-3)
        assert re.search(rf"{judged['rule']['threshold']:.3f} +{judged['micro_f1']['value']:.3f} ", result.stdout)
    assert "oracle (chosen on this very data: optimistic)" in result.stdout
    assert read_test_part(folder / "mixtures")[1] == []
    assert (folder / "classes.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "classes.pdf").read_bytes().startswith(b"%PDF")


def test_a_run_on_its_own_corpus_is_judged_by_what_validated(
    commands: Commands, home: Path, run: Path, corpus: Path, corpus_cache: FeatureCache, tmp_path: Path
) -> None:
    answered = predictions.read(run / "predictions.npz")
    assert answered is not None
    for data in (corpus, corpus_cache.folder):
        result = commands.run("evaluate", str(run), str(data), "--out", str(tmp_path / data.name), folder=home)
        assert (result.code, result.stderr) == (0, ""), result
        found = results(tmp_path / data.name)
        (judged,) = found["thresholds"]
        assert judged["rule"] == {"name": "highest score", "threshold": None}
        assert judged["micro_f1"]["value"] == pytest.approx(answered.correct.mean())
        assert found["data"]["excerpts"] == len(answered.excerpts)
        assert len(found["data"]["left_out"]["trained_on"]) == 132 - len(answered.excerpts)
        assert f"left out: {132 - len(answered.excerpts)} excerpts that the model was trained on" in result.stdout
        assert "leak" not in result.stdout
        assert "unreliable" not in result.stdout


def test_a_cache_of_a_stand_in_leaves_out_what_was_trained_on(
    run: Path, corpus: Path, corpus_cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model_file.read(run / "model.pt")
    monkeypatch.setattr(dataset, "corpus_folder", lambda data: corpus)
    found = testset.read([corpus_cache.folder], [replace(file, config=file.config | {"data.source": "standin"})])
    assert set(found.trained_on) == set(file.trained_on)


def test_other_excerpts_of_a_training_recording_are_a_leak(
    commands: Commands, home: Path, run: Path, corpus: Path, tmp_path: Path
) -> None:
    file = model_file.read(run / "model.pt")
    siblings = [name for name in file.trained_on if name.endswith("__2")][:5]
    model_file.write(tmp_path / "model.pt", replace(file, trained_on=sorted({*file.trained_on} - {*siblings})))
    result = commands.run("evaluate", str(tmp_path / "model.pt"), str(corpus), folder=home)
    assert result.code == 0, result
    assert re.search(
        r"leak: 5 of \d+ excerpts are of recordings that the model was trained on, and flatter it", result.stdout
    )


def test_other_sounds_of_the_same_names_were_not_trained_on(run: Path, corpus: Path, tmp_path: Path) -> None:
    files = [model_file.read(run / "model.pt")]
    for wav in corpus.rglob("*.wav"):
        copy = tmp_path / "other" / wav.relative_to(corpus)
        copy.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(copy, np.full(100, 0.1), 44_100)
    found = testset.read([tmp_path / "other"], files)
    assert (len(found.excerpts), found.trained_on, found.leaking) == (132, [], 0)
    shutil.copytree(corpus, tmp_path / "copy")
    found = testset.read([tmp_path / "copy"], files)
    assert set(found.trained_on) == set(files[0].trained_on)


def test_a_model_of_a_feature_cache_has_no_threshold_of_mixtures(
    commands: Commands, home: Path, run: Path, part: Path, tmp_path: Path
) -> None:
    file = model_file.read(run / "model.pt")
    model_file.write(tmp_path / "model.pt", replace(file, config=file.config | {"data.cache": "somewhere"}))
    options = ["--aggregate", "max", "--threshold", "0.7"]
    result = commands.run("evaluate", str(tmp_path / "model.pt"), str(part), *options, folder=home)
    assert (result.code, result.stderr) == (0, ""), result
    folder = tmp_path / "evaluation" / f"{part.name},threshold=0.7,max"
    found = results(folder)
    assert [judged["rule"]["name"] for judged in found["thresholds"]] == ["fixed", "oracle"]
    assert found["thresholds"][0]["rule"]["threshold"] == 0.7
    assert "mixtures of the model's validation data: it was trained on a ready-made feature cache" in result.stdout
    _, scores = read_scores(folder, found["classes"])
    assert scores.max(axis=1).tolist() == [1.0] * len(scores)


@pytest.fixture
def broken(home: Path, part: Path, tmp_path: Path) -> Path:
    """A part with three files that cannot be used; only reading the samples shows that one is silent."""
    folder = tmp_path / "broken"
    shutil.copytree(part / "Part1", folder)
    soundfile.write(folder / "silent-1.wav", np.zeros(44_100), 44_100)
    (folder / "silent-1.txt").write_text("voi\n")
    wavs = sorted(folder.glob("0*.wav"))
    wavs[0].write_bytes(wavs[0].read_bytes()[:-4000])
    wavs[1].with_suffix(".txt").write_text("banjo\n")
    return folder


def test_files_that_cannot_be_used_are_refused_or_dropped(
    commands: Commands, home: Path, run: Path, broken: Path, tmp_path: Path
) -> None:
    message = commands.refuse("evaluate", str(run), str(broken), folder=home)
    assert "broken: 2 files cannot be used; --damaged drop leaves them out\n" in message
    assert re.search("truncated: the header says", message)
    assert "unknown label 'banjo'; must be one of: cel cla flu gac gel org pia sax tru vio voi" in message
    result = commands.run(
        "evaluate", str(run), str(broken), "--damaged", "drop", "--out", str(tmp_path / "out"), folder=home
    )
    assert (result.code, result.stderr) == (0, ""), result
    found = results(tmp_path / "out")
    assert len(found["data"]["left_out"]["damaged"]) == 3
    assert found["data"]["excerpts"] == len(list(broken.glob("*.wav"))) - 3
    assert "left out: 3 files that cannot be used" in result.stdout
    assert "silent-1.wav: silent" in result.stdout


def test_what_does_not_go_together_is_refused(
    commands: Commands, home: Path, run: Path, part: Path, corpus: Path, corpus_cache: FeatureCache, tmp_path: Path
) -> None:
    def refusal(*arguments: str) -> str:
        return commands.refuse("evaluate", str(run), *arguments, folder=home)

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    other = tmp_path / "other"
    cache.build(scan(Data(), corpus), Features(sample_rate=16000, n_mels=8), other, SILENT)
    (tmp_path / "banjo" / "banjo").mkdir(parents=True)
    shutil.copytree(corpus / "cel", tmp_path / "banjo" / "cel")
    shutil.copy(next(corpus.glob("cel/*.wav")), tmp_path / "banjo" / "banjo" / "x.wav")
    assert refusal(f"{tmp_path}/none") == f"irmas.evaluate: {tmp_path}/none: there is no such folder\n"
    assert f"{tmp_path}/file: is no folder" in refusal(f"{tmp_path}/file")
    assert f"{tmp_path}/empty: holds no wav" in refusal(f"{tmp_path}/empty")
    assert "banjo: has unknown classes banjo; the model has cel" in refusal(f"{tmp_path}/banjo")
    assert "other: was computed with n_fft=2048, the model needs n_fft=1024" in refusal(str(other))
    assert "--hop 2: must be at most as long as a window, 1 s" in refusal(str(part), "--window", "1", "--hop", "2")
    assert "--window: " in refusal(str(corpus_cache.folder), "--window", "1")
    assert "argument --hop: 1e-9: must be a number from 0.01 to 600" in refusal(str(part), "--hop", "1e-9")
    assert f"{tmp_path}/file is not a folder" in refusal(str(part), "--out", f"{tmp_path}/file/out")
    assert "none.pt: No such file" in refusal(str(part), "--with", "none.pt")


def test_an_exported_net_is_refused(commands: Commands, home: Path, run: Path, part: Path, tmp_path: Path) -> None:
    onnx_file.write_onnx(tmp_path / "model.onnx", [model_file.read(run / "model.pt")])
    result = commands.refuse("evaluate", str(tmp_path / "model.onnx"), str(part), folder=home)
    assert "an exported net does not record what it was trained on: evaluate the model.pt that it is of" in result


def test_scores_are_the_mean_of_the_windows_that_sound(run: Path, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
    sound[32_000:48_000] = 0
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    recognizer = Recognizer.load([run], 1.0, 1.0)
    answers = [
        recognizer.probabilities(torch.from_numpy(sound[None, start : start + 16_000]), 16_000)
        for start in (0, 16_000, 48_000, 64_000)
    ]
    excerpt = LabeledExcerpt("a", ["cel"], "a", tmp_path / "a.wav")
    found, problems = evaluator.file_scores(recognizer, [excerpt], "mean", SILENT)
    assert problems == []
    np.testing.assert_allclose(found, np.mean(answers, axis=0), atol=1e-6)
