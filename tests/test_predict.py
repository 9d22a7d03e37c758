"""irmas.predict on sounds of every kind: table, JSON and picture."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from commands import irmas
from forked_commands import Commands
from numpy.typing import NDArray
from test_plots import is_cut, pixels, places

from irmas.config import Config, Features, Model
from irmas.console import Progress
from irmas.data.features import LogMel, read_waveform
from irmas.errors import DataError
from irmas.inference import timeline_plot
from irmas.inference.recognizer import BATCH_S, Recognizer
from irmas.inference.timeline import Timeline, clock
from irmas.labels import CODES
from irmas.learning.model import Classifier
from irmas.learning.net import with_self_test
from irmas.plot_style import BLUE, as_file, our_style
from irmas.run import model_file

RATE = 16000


def made_up_model(path: Path, features: Features, model: Model, seed: int = 0) -> Path:
    """Write a model that is not trained; its answers differ from sound to sound, and some are sure."""
    torch.manual_seed(seed)
    net = Classifier(model, len(CODES), dropout=0.0, mean_db=-40.0, std_db=20.0)
    with torch.no_grad():
        for weight in net.head.parameters():
            weight.mul_(20)
    file = model_file.make(net.state_dict(), list(CODES), Config(features=features, model=model), [], [], {})
    model_file.write(path, with_self_test(file))
    return path


@pytest.fixture(scope="session")
def model(features: Features, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_model(tmp_path_factory.mktemp("model") / "model.pt", features, Model([8, 16], dense=32))


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A folder with a model and a song of 12 s, of which the middle 6 are silent."""
    (tmp_path / "model.pt").symlink_to(model)
    song = noise(12.0)
    song[3 * RATE : 9 * RATE] = 0
    soundfile.write(tmp_path / "song.wav", song, RATE, subtype="FLOAT")
    return tmp_path


def noise(seconds: float, *channels: int) -> NDArray[np.float32]:
    """Return noise with another spectrum at every second."""
    rng, samples = np.random.default_rng(0), int(seconds * RATE)
    white = rng.normal(0, 0.05, (samples, *channels)).astype(np.float32)
    smoothed = np.cumsum(white, axis=0) / 20
    is_odd = (np.arange(samples) // RATE % 2).reshape(-1, *[1] * len(channels))
    return np.where(is_odd, smoothed - smoothed.mean(axis=0), white).astype(np.float32).clip(-1, 1)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# The command


def test_a_song_is_answered_as_table_json_and_picture(commands: Commands, folder: Path) -> None:
    result = commands.run("predict", "model.pt", "song.wav", "--json", "out/a.jsonl", "--picture", "out", folder=folder)
    assert (result.code, result.stderr) == (0, "")
    (answer,) = lines((folder / "out" / "a.jsonl").read_text())
    recognizer = Recognizer.load([folder / "model.pt"])
    waveform, rate = read_waveform(folder / "song.wav")
    spans = [(start, start + 3.0) for start in np.arange(0, 9.1, 1.5)]
    assert [(window["start"], window["end"]) for window in answer["windows"]] == spans
    loud = []
    for window in answer["windows"]:
        samples = waveform[int(window["start"] * rate) : int(window["end"] * rate)]
        if window["start"] in (3.0, 4.5, 6.0):
            assert window["probabilities"] is None
        else:
            loud.append(window["probabilities"])
            np.testing.assert_allclose(loud[-1], recognizer.probabilities(samples[None], rate)[0], atol=2e-6)
    np.testing.assert_allclose(answer["overall"], np.mean(loud, axis=0), atol=2e-6)
    assert (answer["path"], answer["seconds"], answer["classes"]) == ("song.wav", 12.0, list(CODES))

    head, _, *rows = result.stdout.rstrip().splitlines()
    assert head == "song.wav: 0:12, 7 windows of 3 s, one every 1.5 s"
    best = int(np.argmax(answer["overall"]))
    assert rows[0].split()[:2] == [f"{answer['overall'][best]:.2f}", CODES[best]]
    assert rows[-1].split() == ["-", "silence", "0:06", "0:03-0:09"]
    drawn = pixels((folder / "out" / "song.png").read_bytes())
    assert not is_cut(drawn)
    assert len(places(drawn, BLUE))


def test_some_files_are_answered_and_others_named(commands: Commands, folder: Path) -> None:
    (folder / "more" / "deep").mkdir(parents=True)
    soundfile.write(folder / "more" / "deep" / "b.flac", noise(4.0, 2), RATE)
    soundfile.write(folder / "more" / "a.wav", np.zeros(4 * RATE), RATE)
    (folder / "more" / "text.wav").write_text("no sound")
    (folder / "more" / "notes.txt").write_text("no sound file")
    result = commands.run("predict", "model.pt", "song.wav", "more", "none.wav", "--json", "-", folder=folder)
    assert result.code == 1
    answers = lines(result.stdout)
    assert [answer["path"] for answer in answers] == ["song.wav", "more/a.wav", "more/deep/b.flac"]
    assert answers[1]["overall"] is None
    assert [window["probabilities"] for window in answers[1]["windows"]] == [None, None]
    first, *named = result.stderr.splitlines()
    assert first == "irmas.predict: 2 of 5 files could not be used:"
    assert [line.split(":")[0] for line in named] == ["  more/text.wav", "  none.wav"]


def test_a_name_that_is_no_text_or_moves_the_cursor_is_printed_as_escapes(commands: Commands, folder: Path) -> None:
    sounds = folder / "names"
    sounds.mkdir()
    for name in (b"lat\xe9.wav", b"\x1b[31mred.wav"):
        shutil.copy(folder / "song.wav", sounds / os.fsdecode(name))
    (sounds / "cut\n.wav").write_bytes(b"RIFF")
    (sounds / "._red.wav").write_bytes(b"\0\5\26\7")  # a file manager's, and no sound
    result = commands.run("predict", "model.pt", "names", "--picture", "drawn", folder=folder)
    assert result.code == 1
    heads = [line.partition(":")[0] for line in result.stdout.splitlines() if line.startswith("names/")]
    assert heads == ["names/\\x1b[31mred.wav", "names/lat\\udce9.wav"]
    assert "  names/cut\\n.wav: " in result.stderr
    assert "._red" not in result.stderr
    assert len(list((folder / "drawn").iterdir())) == 2


def test_a_silent_file_is_answered_as_such(commands: Commands, folder: Path) -> None:
    soundfile.write(folder / "a.wav", np.zeros(RATE), RATE)
    result = commands.run("predict", "model.pt", "a.wav", "--picture", "a.png", folder=folder)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith(
        "a.wav: 0:01, shorter than a window of 3 s: padded with silence\n  silent throughout"
    )
    assert not is_cut(pixels((folder / "a.png").read_bytes()))


def test_all_models_are_averaged(commands: Commands, folder: Path, features: Features) -> None:
    made_up_model(folder / "other.pt", features, Model([4], pooling="max"), seed=1)
    overall = []
    for named in (["model.pt"], ["other.pt"], ["model.pt", "--with", "other.pt"]):
        result = commands.run(
            "predict", *named, "song.wav", "--json", "-", "--window", "2", "--hop", "2", folder=folder
        )
        assert result.code == 0, result.stderr
        (answer,) = lines(result.stdout)
        assert [window["start"] for window in answer["windows"]] == [0, 2, 4, 6, 8, 10]
        overall.append(answer["overall"])
    np.testing.assert_allclose(overall[2], np.mean(overall[:2], axis=0), atol=2e-6)
    assert not np.allclose(overall[0], overall[1], atol=0.01)


MISTAKES = [
    (["model.pt"], "the following arguments are required: FILE; python -m irmas.predict --help"),
    (["none.pt", "song.wav"], "none.pt: No such file or directory"),
    (["song.wav", "song.wav"], "song.wav: is damaged (its digest differs), or is no model file"),
    ([".", "song.wav"], ".: no sweep is here (plan.yaml is missing)"),
    (["model.pt", "song.wav", "--window", "0"], "argument --window: 0: must be a number from 0.1 to 600"),
    (["model.pt", "song.wav", "--window", "nan"], "argument --window: nan: must be a number from 0.1 to 600"),
    (["model.pt", "song.wav", "--hop", "0"], "argument --hop: 0: must be a number from 0.01 to 600"),
    (["model.pt", "song.wav", "--hop", "3.5"], "--hop 3.5: must be at most as long as a window, 3 s"),
    (["model.pt", "empty"], "empty: holds no sound files"),
    (["model.pt", "song.wav", "--json", "empty"], "--json empty: is a folder"),
    (["model.pt", "song.wav", "--json", "song.wav"], "--json song.wav: would overwrite what is to be read"),
    (["model.pt", "song.wav", "--json", "empty/../model.pt"], "model.pt: would overwrite what is to be read"),
    (["model.pt", "song.wav", "--json", "locked/a/b"], "--json locked/a/b: "),
    (["model.pt", "song.wav", "--picture", "locked/a.png"], "--picture locked/a.png: "),
    (["model.pt", "song.wav", "--picture", "song.wav"], "--picture song.wav: pictures are .png"),
    (["model.pt", "song.wav", "--picture", "a.jpg"], "--picture a.jpg: pictures are .png"),
    (["model.pt", "song.wav", "empty/../song.wav", "--picture", "a.png"], "--picture a.png: is one picture"),
    (["model.pt", "song.wav", "empty/../song.wav", "--picture", "a"], "would both be a/song.png"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda value: " ".join(value)[:50])
def test_a_mistake_is_one_message_and_writes_nothing(
    arguments: list[str], message: str, commands: Commands, folder: Path
) -> None:
    (folder / "empty").mkdir()
    (folder / "locked").mkdir(mode=0o555)
    assert message in commands.refuse("predict", *arguments, folder=folder)


def test_a_file_shorter_than_the_window_option_is_named(commands: Commands, folder: Path) -> None:
    result = commands.run("predict", "model.pt", "song.wav", "--window", "12.5", folder=folder)
    assert (result.code, result.stdout) == (1, "")
    assert "song.wav: is 12.00 s long, shorter than --window 12.5" in result.stderr


def test_help_says_how_to_call_it(tmp_path: Path) -> None:
    result = irmas("predict", "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "--picture" in result.stdout


# A sound file


class Counting(Progress):
    """Progress that is counted."""

    total = done = 0

    def start(self, task: str, total: int, unit: str = "excerpts") -> None:
        self.total = total

    def advance(self, count: int) -> None:
        self.done += count


@pytest.mark.parametrize(
    ("name", "seconds", "rate", "channels"),
    [
        ("telephone.wav", 4.0, 8000, (1,)),
        ("studio.flac", 4.0, 96000, (2,)),
        ("short.wav", 0.2, 44100, (2,)),
        ("around.wav", 4.0, 48000, (6,)),
        ("song.mp3", 4.0, 44100, (2,)),
        ("song.ogg", 4.0, 32000, (2,)),
    ],
)
def test_a_sound_of_any_form_is_classified_and_drawn(
    name: str, seconds: float, rate: int, channels: tuple[int], model: Path, tmp_path: Path
) -> None:
    file = tmp_path / name
    soundfile.write(file, noise(seconds * rate / RATE, *channels), rate)
    recognizer, progress = Recognizer.load([model]), Counting()
    found = recognizer.timeline(file, progress)
    assert found.seconds == pytest.approx(seconds, abs=0.06)  # an mp3 holds whole frames
    assert not found.is_silent.any()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert progress.total == progress.done == len(found.starts)
    drawn = timeline_plot.draw(file, found, LogMel(recognizer.nets[0].features))
    assert not is_cut(pixels(drawn))
    assert timeline_plot.draw(file, found, LogMel(recognizer.nets[0].features), "pdf").startswith(b"%PDF")


def test_a_rate_that_cannot_be_resampled_names_its_file(model: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(4.0), 44101)
    with pytest.raises(DataError, match=r"a\.wav: 44101 Hz"):
        Recognizer.load([model]).timeline(tmp_path / "a.wav")


def test_only_a_batch_of_a_long_file_is_in_memory(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile(noise(10.0)[::8], 60), 2000)
    batches = []

    def probabilities(self: Recognizer, waveforms: torch.Tensor, rate: int) -> NDArray[np.float32]:
        batches.append(waveforms.shape[0] * waveforms.shape[1] / rate)
        return np.full((len(waveforms), len(CODES)), 1 / len(CODES), np.float32)

    monkeypatch.setattr(Recognizer, "probabilities", probabilities)
    found = Recognizer.load([model]).timeline(tmp_path / "a.wav")
    assert found.seconds == 600
    assert max(batches) == BATCH_S
    assert sum(batches) == 3.0 * len(found.starts) == 3.0 * 399


# What follows from windows

NAN = [np.nan, np.nan]


def timeline(starts: list[float], probabilities: list[list[float]]) -> Timeline:
    begins = np.array(starts)
    return Timeline(begins[-1] + 2, ["a", "b"], begins, begins + 2, np.array(probabilities, np.float32))


def test_a_moments_score_is_the_mean_over_its_windows() -> None:
    found = timeline([0, 1, 2], [[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    edges, scores = found.moments()
    assert edges.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(scores[:, 0], [0.9, 0.7, 0.3, 0.1], atol=1e-6)
    assert found.sounding()[1] == [(1, 4)]
    assert found.overall == pytest.approx([0.5, 0.5])


def test_a_moment_of_a_silent_window_is_silent() -> None:
    found = timeline([0, 1, 2, 4], [[0.9, 0.1], NAN, [0.8, 0.2], [0.7, 0.3]])
    assert found.silence() == [(1, 3)]
    assert found.sounding()[0] == [(0, 1), (3, 6)]
    assert found.overall == pytest.approx([0.8, 0.2])
    assert timeline([0], [NAN]).overall is None


def test_times_are_written_as_on_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 4.5, 59.96, 61, 3600, 3725.25)] == [
        "0:00",
        "0:04.5",
        "1:00",
        "1:01",
        "1:00:00",
        "1:02:05.2",
    ]


def test_a_steady_tone_is_drawn_as_a_line(tmp_path: Path, features: Features) -> None:
    """A block's edge, or a column without a frame, would show as another color."""
    seconds, tone_hz = 40.0, 1000
    samples = np.sin(2 * np.pi * tone_hz * np.arange(int(seconds * 44100)) / 44100)
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    log_mel_db = timeline_plot.spectrogram(tmp_path / "a.wav", seconds, LogMel(features))
    inner = log_mel_db[:, 2:-2]
    assert inner.shape[1] > 200
    assert np.ptp(inner, axis=1).max() < 1.0
    assert inner.max(axis=0).min() > -1.0
    assert np.median(inner) < -60


def test_a_long_file_is_drawn_in_the_columns_of_the_picture(tmp_path: Path, features: Features) -> None:
    halves = np.concatenate([np.sin(np.arange(150 * RATE) * 2 * np.pi * hz / RATE) for hz in (500, 3000)])
    soundfile.write(tmp_path / "a.wav", halves, RATE)
    log_mel_db = timeline_plot.spectrogram(tmp_path / "a.wav", 300.0, LogMel(features))
    assert log_mel_db.shape == (features.n_mels, timeline_plot.COLUMNS)
    loudest = log_mel_db.argmax(axis=0)
    assert len(set(loudest[:440])) == len(set(loudest[460:])) == 1
    assert loudest[0] < loudest[-1]


def test_many_classes_and_long_names_fit(features: Features) -> None:
    names = [f"an instrument of quite a long name, {number}" for number in range(40)]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(40), 3).astype(np.float32)
    found = Timeline(6.0, names, np.array([0.0, 2, 4]), np.array([2.0, 4, 6]), probabilities)
    log_mel_db = np.full((features.n_mels, 50), -40, np.float32)
    with our_style():
        png = as_file(timeline_plot._figure("$x^2$ " * 30 + ".wav", found, log_mel_db, LogMel(features)))
    assert not is_cut(pixels(png))
