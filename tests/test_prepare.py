"""`python -m irmas.prepare` as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import ROOT, start

COMMAND = [sys.executable, "-W", "error", "-m", "irmas.prepare"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def prepare(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *overrides], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )


def write_noise(path: Path, seed: int, rate: int = 44_100, channels: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(seed).uniform(-0.5, 0.5, (rate // 10, channels))
    soundfile.write(path, sound, rate)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("prepare")
    return folder, prepare(folder, "data=standin", "data.size=132", "features=small")


def test_the_stand_in_is_rendered_verified_and_cached(made: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = made
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert "rendering: 132/132 excerpts" in said
    assert "data/standin/v1-132-seed0: 132 excerpts\n    132 x 44100 Hz, 2 channels, PCM_16, 3.00 s\n" in said
    assert "log-mels: 132/132 excerpts" in said
    (built,) = re.findall(r"^(\S+): built$", said, re.MULTILINE)
    assert sorted(path.name for path in Path(built).iterdir()) == ["clips.csv", "features.json", "features.npy"]
    assert re.search(r"^gac +acoustic guitar +13 +9.8% +5$", said, re.MULTILINE)
    assert re.search(r"^ +all +132 +100.0% +51$", said, re.MULTILINE)
    assert "log-mels: 64 bands x 64 frames, uint8, 0.5 MB" in said
    assert re.search(r"identical excerpts join 3 groups of recordings: (\d{4}/\d{4} ?){3}", said)
    assert sorted(path.name for path in folder.iterdir()) == ["data"]


def test_contradictory_excerpts_are_listed_by_their_whole_names(
    made: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = made
    (number,) = re.findall(r"identical excerpts with contradictory labels: (\d+)", done.stdout)
    listed = re.findall(r"^  (\S*\[.*) \((gac|gel)\)$", done.stdout, re.MULTILINE)
    assert len(listed) == int(number) > 0
    for name, label in listed:
        assert (folder / "data/standin/v1-132-seed0" / label / f"{name}.wav").is_file()


def test_the_second_time_all_is_up_to_date(made: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = made
    again = prepare(folder, "data=standin", "data.size=132", "features=small", "data.conflicts=drop")
    assert (again.returncode, again.stderr) == (0, "")
    (built,) = re.findall(r"^(\S+): built$", done.stdout, re.MULTILINE)
    assert f"{built}: up to date\n" in again.stdout
    assert "rendering" not in again.stdout
    assert "/132 excerpts" not in again.stdout
    assert "they are kept" in done.stdout
    assert "they are kept" not in again.stdout


def test_any_folder_is_described(tmp_path: Path) -> None:
    for seed in range(6):
        write_noise(tmp_path / "music" / ("[solo] a" if seed % 2 else "b") / f"[{seed}].wav", seed)
    write_noise(tmp_path / "music" / "b" / "6.flac", 6, rate=8000, channels=1)
    (tmp_path / "music" / "b" / "[7].wav").write_bytes((tmp_path / "music" / "[solo] a" / "[1].wav").read_bytes())
    done = prepare(tmp_path, "data=folder", "data.root=music", "features=small")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        f"{tmp_path}/music: 8 excerpts\n      7 x 44100 Hz, 2 channels, PCM_16, 0.10 s\n      1 x 8000 Hz"
        in done.stdout
    )
    assert re.search(r"^\[solo\] a +3 +37.5% +3$", done.stdout, re.MULTILINE)
    assert "identical excerpts join 1 groups of recordings: [1]/[7]\n" in done.stdout
    assert "  [solo] a/[1] ([solo] a)\n  b/[7] (b)\n" in done.stdout


def test_every_broken_wav_is_listed_at_once(tmp_path: Path) -> None:
    root = tmp_path / "IRMAS-TrainingData"
    for seed, code in enumerate(["cel", "cel", "cel", "flu", "flu"], start=1):
        write_noise(root / code / f"[{code}][cla]{seed:04d}__1.wav", seed)
    (root / "cel" / "[cel][cla]0001__1.wav").write_bytes(b"")
    (root / "cel" / "[cel][cla]0002__1.wav").write_text("no sound")
    soundfile.write(root / "flu" / "[flu][cla]0004__1.wav", np.array([np.nan]), 44_100, subtype="FLOAT")
    done = prepare(tmp_path, f"data.root={root}", "features=small")
    assert done.returncode == 2
    assert done.stderr.startswith("irmas.prepare: 3 of 5 excerpts cannot be used; data.damaged=drop leaves them out\n")
    for name in ("cel/[cel][cla]0001__1.wav", "cel/[cel][cla]0002__1.wav", "flu/[flu][cla]0004__1.wav"):
        assert f"{root}/{name}: " in done.stderr
    assert len(done.stderr.splitlines()) == 4
    assert "Traceback" not in done.stdout + done.stderr
    assert "2 x cannot be used" in done.stdout
    assert not list((tmp_path / "data" / "cache").glob("*.part"))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([], r"IRMAS is not there\. Fetch it with `python -m irmas.prepare download=true`.*data=standin"),
        (["data=folder", "data.root=nowhere"], r"data\.root=.*nowhere: there is no such folder"),
        (["data.cache=nowhere"], "nowhere: there is no such folder"),
        (["data=standin", "data.size=7"], r"data\.size=7: must be a whole number from 33"),
        (["features.n_mels=0"], r"features\.n_mels=0: must be a whole number from 1"),
        (["dropout=0.3"], "there is no setting 'dropout'"),
        (["data=standin", "download=true"], "download=true: only data=irmas"),
    ],
)
def test_a_mistake_is_told_in_one_message_and_nothing_is_written(
    overrides: list[str], reason: str, tmp_path: Path
) -> None:
    done = prepare(tmp_path, *overrides)
    assert done.returncode == 2
    assert re.match(f"irmas.prepare: .*{reason}", done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_ready_made_cache_is_described(shared: Path, tmp_path: Path) -> None:
    done = prepare(tmp_path, f"data.cache={shared / 'irmas_logmel'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ +all +5373 +100.0% +\d+$", done.stdout, re.MULTILINE)
    assert "log-mels: 128 bands x 94 frames, uint8, 64.6 MB" in done.stdout
    assert "identical excerpts join 15 groups of recordings" in done.stdout
    assert "identical excerpts with contradictory labels: 12\n" in done.stdout
    assert done.stdout.count(" (gac)\n") + done.stdout.count(" (gel)\n") == 10
    assert "\n  ...\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("after_s", [0.3, 1.0])
def test_ctrl_c_while_workers_start_is_answered_soon_and_without_a_traceback(
    made: tuple[Path, subprocess.CompletedProcess[str]], after_s: float
) -> None:
    overrides = ["data=standin", "data.size=132", "features=small", "data.cache_dir=another"]
    process = start("prepare", *overrides, cwd=made[0])
    assert process.stdout is not None
    process.stdout.readline()  # now it reads the formats, and then starts the workers
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "\nirmas.prepare: stopped; the same command goes on\n"
