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
from forked_commands import Commands

COMMAND = [sys.executable, "-W", "error", "-m", "irmas.prepare"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def write_noise(path: Path, seed: int, rate: int = 44_100, channels: int = 2, seconds: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * rate), channels))
    soundfile.write(path, sound, rate)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("prepare")
    command = [*COMMAND, "data=standin", "data.size=132", "features=small"]
    return folder, subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_stand_in_is_rendered_verified_and_cached(made: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = made
    assert (done.returncode, done.stderr) == (0, "")
    stdout = done.stdout
    assert "rendering: 132/132 excerpts" in stdout
    assert "data/standin/v1-132-seed0: 132 excerpts\n    132 x 44100 Hz, 2 channels, PCM_16, 3.00 s\n" in stdout
    assert "noticed" not in stdout
    assert "log-mels: 132/132 excerpts" in stdout
    (built,) = re.findall(r"^(\S+): built$", stdout, re.MULTILINE)
    assert sorted(path.name for path in Path(built).iterdir()) == ["clips.csv", "features.json", "features.npy"]
    assert re.search(r"^gac +acoustic guitar +13 +9.8% +5$", stdout, re.MULTILINE)
    assert re.search(r"^ +all +132 +100.0% +51$", stdout, re.MULTILINE)
    assert "log-mels: 64 bands x 64 frames, uint8, 0.5 MB" in stdout
    assert re.search(r"identical excerpts join 3 groups of recordings: (\d{4}/\d{4} ?){3}", stdout)
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


def test_the_second_time_all_is_up_to_date(
    made: tuple[Path, subprocess.CompletedProcess[str]], commands: Commands
) -> None:
    folder, done = made
    again = commands.run(
        "prepare", "data=standin", "data.size=132", "features=small", "data.conflicts=drop", folder=folder
    )
    assert (again.code, again.stderr) == (0, "")
    (built,) = re.findall(r"^(\S+): built$", done.stdout, re.MULTILINE)
    assert f"{built}: up to date\n" in again.stdout
    assert "rendering" not in again.stdout
    assert "/132 excerpts" not in again.stdout
    assert "they are kept" in done.stdout
    assert "they are kept" not in again.stdout


def test_any_folder_is_described(tmp_path: Path, commands: Commands) -> None:
    for seed in range(10):
        write_noise(tmp_path / "music" / ("[solo] a" if seed % 2 else "b") / f"[{seed}].wav", seed)
    write_noise(tmp_path / "music" / "b" / "6.flac", 6, rate=8000, channels=1)
    (tmp_path / "music" / "b" / "[77].wav").write_bytes((tmp_path / "music" / "[solo] a" / "[1].wav").read_bytes())
    done = commands.run("prepare", "data=folder", "data.root=music", "features=small", folder=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert (
        f"{tmp_path}/music: 12 excerpts\n     11 x 44100 Hz, 2 channels, PCM_16, 0.10 s\n      1 x 8000 Hz"
        in done.stdout
    )
    assert re.search(r"^\[solo\] a +5 +41.7% +5$", done.stdout, re.MULTILINE)
    assert "noticed: shorter than 3 s, padded with silence: all\n" in done.stdout
    assert "identical excerpts join 1 groups of recordings: [1]/[77]\n" in done.stdout
    assert "  [solo] a/[1] ([solo] a)\n  b/[77] (b)\n" in done.stdout


def test_what_is_left_out_is_listed_and_what_training_would_refuse_is_refused(
    tmp_path: Path, commands: Commands
) -> None:
    for seed in range(11):
        write_noise(tmp_path / "music" / ("a" if seed < 5 else "b") / f"{seed}.wav", seed)
    (tmp_path / "music" / "notes.txt").touch()
    (tmp_path / "music" / "c").mkdir()
    options = ["data=folder", "data.root=music", "features=small"]
    warning = "left out: 1 file beside the class folders: notes.txt\nleft out: 1 class folder without sound files: c\n"
    trained = commands.train(*options, "epochs=1", folder=tmp_path)
    assert (trained.code, warning in trained.stderr) == (0, True)
    done = commands.run("prepare", *options, folder=tmp_path)
    assert (done.code, done.stderr, warning in done.stdout) == (0, "", True)

    (tmp_path / "music" / "a" / "0.wav").rename(tmp_path / "music" / "c" / "0.wav")
    root = tmp_path / "music"
    few = f"data.root={root}: a has 4 excerpts ({root}/a), c has 1 excerpt ({root}/c); five folds need 5\n"
    done = commands.run("prepare", *options, folder=tmp_path)
    assert (done.code, done.stderr) == (2, f"irmas.prepare: {few}")
    assert re.search(r"^c +1 +9.1% +1$", done.stdout, re.MULTILINE)
    trained = commands.train(*options, "epochs=1", folder=tmp_path)
    assert (trained.code, trained.stderr) == (2, f"irmas.train: {few}")


def write_irmas(folder: Path, *odd: str) -> Path:
    """Fifteen excerpts as IRMAS has them, and one for each oddity: recording 1, 2, ... of the cello."""
    root = folder / "IRMAS-TrainingData"
    for seed, code in enumerate(5 * ["cel", "flu", "voi"], start=91):
        write_noise(root / code / f"[{code}][cla]{seed:04d}__1.wav", seed, seconds=3.0)
    for number, oddity in enumerate(odd, start=1):
        path = root / "cel" / f"[cel][cla]{number:04d}__1.wav"
        write_noise(path, number, seconds=3.0)
        sound, rate = soundfile.read(path)
        match oddity:
            case "empty":
                path.write_bytes(b"")
            case "text":
                path.write_text("no sound")
            case "header":
                soundfile.write(path, sound[:0], rate)
            case "cut":
                os.truncate(path, 100_000)
            case "nan":
                soundfile.write(path, np.array([0.5, np.nan]), rate, subtype="FLOAT")
            case "silent":
                soundfile.write(path, 0 * sound, rate)
            case "late":
                soundfile.write(path, np.concatenate([0 * sound, sound]), rate)
            case "link":
                path.unlink()
                path.symlink_to("elsewhere.wav")
            case "rate":
                soundfile.write(path, sound[:66_150], 22_050)
            case "mono":
                soundfile.write(path, sound[:, 0], rate)
            case "24 bit":
                soundfile.write(path, sound, rate, subtype="PCM_24")
            case "1 s":
                soundfile.write(path, sound[:rate], rate)
    return root


def write_test_part(folder: Path, **labels: str) -> Path:
    part = folder / "IRMAS-TestingData-Part2" / "IRTestingData-Part2"
    for name, text in labels.items():
        write_noise(part / f"{name}.wav", 0)
        (part / f"{name}.txt").write_text(text)
    return part


BROKEN = {
    "empty": "empty",
    "text": "Format not recognised.",
    "header": "holds no samples",
    "cut": "truncated: the header says 529200 bytes of audio, the file has 99956",
    "nan": "holds samples that are not finite numbers",
    "silent": "silent: the mean of its channels is zero throughout",
    "late": "silent in the first 3 s",
    "link": "No such file or directory",
}


def test_everything_that_cannot_be_used_is_listed_with_its_reason_in_one_pass(
    tmp_path: Path, commands: Commands
) -> None:
    root = write_irmas(tmp_path, *BROKEN, "rate")
    part = write_test_part(tmp_path, one="voi\nbanjo\n", two="gel\t\n")
    (part / "three.txt").write_text("voi")
    done = commands.run("prepare", f"data.root={root}", "features=small", folder=tmp_path)
    assert done.code == 2
    assert done.stderr.splitlines() == [
        "irmas.prepare: 8 of 24 excerpts cannot be used; data.damaged=drop leaves them out",
        *(f"  {root}/cel/[cel][cla]{number:04d}__1.wav: {why}" for number, why in enumerate(BROKEN.values(), start=1)),
        f"{part.parent}: 2 files cannot be used",
        f"  {part}/one.txt: unknown label 'banjo'; must be one of: cel cla flu gac gel org pia sax tru vio voi",
        f"  {part}/three.txt: has no wav",
    ]
    assert f"{part.parent}: 1 test excerpts, 1 labels: gel 1\n" in done.stdout
    assert "\n      5 x cannot be opened\n" in done.stdout
    assert "\nnoticed: longer than 3 s, used up to there: 1\n  cel/[cel][cla]0007__1.wav\n" in done.stdout
    assert "\nnoticed: 22050 Hz, resampled: 1\n  cel/[cel][cla]0009__1.wav\n" in done.stdout
    assert not [path for path in (tmp_path / "data" / "cache").iterdir() if path.suffix != ".lock"]


def test_on_request_what_cannot_be_used_is_left_out_and_listed(tmp_path: Path, commands: Commands) -> None:
    root = write_irmas(tmp_path, *BROKEN)
    part = write_test_part(tmp_path, one="voi\nbanjo\n", two="gel\t\n")
    for state in ("built", "up to date"):
        done = commands.run("prepare", f"data.root={root}", "features=small", "data.damaged=drop", folder=tmp_path)
        assert done.code == 0
        assert done.stderr.splitlines() == [
            "8 of 23 excerpts are left out (data.damaged=drop)",
            *(f"  [cel][cla]{number:04d}__1: {why}" for number, why in enumerate(BROKEN.values(), start=1)),
        ]
        assert re.search(rf": {state}$", done.stdout, re.MULTILINE)
        assert re.search(r"^ +all +15 +100.0% +15$", done.stdout, re.MULTILINE)
        assert f"{part.parent}: 1 file cannot be used\n  {part}/one.txt: unknown label 'banjo'" in done.stdout


def test_what_is_used_all_the_same_is_listed_by_reason(tmp_path: Path, commands: Commands) -> None:
    root = write_irmas(tmp_path, "rate", "mono", "24 bit", "1 s", "mono")
    done = commands.run("prepare", f"data.root={root}", "features=small", folder=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    name = "  cel/[cel][cla]000{}__1.wav\n".format
    numbers_of = {
        "22050 Hz, resampled": (1,),
        "1 channel": (2, 5),
        "PCM_24": (3,),
        "shorter than 3 s, padded with silence": (4,),
    }
    listed = [f"noticed: {why}: {len(which)}\n{''.join(map(name, which))}" for why, which in numbers_of.items()]
    assert "".join(listed) in done.stdout
    assert done.stdout.count("noticed") == 4
    assert "20 excerpts of IRMAS's 6705\n     16 x 44100 Hz, 2 channels, PCM_16, 1.00 to 3.00 s\n" in done.stdout
    assert re.search(r": built$", done.stdout, re.MULTILINE)


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
        (["data.damaged=keep"], "data\\.damaged=keep: must be one of refuse, drop"),
        (["data.cache=x", "data.damaged=drop"], "data\\.damaged=drop: data\\.cache=... is used as it is"),
    ],
)
def test_a_mistake_is_explained_in_one_message_and_nothing_is_written(
    overrides: list[str], reason: str, tmp_path: Path, commands: Commands
) -> None:
    done = commands.run("prepare", *overrides, folder=tmp_path)
    assert done.code == 2
    assert re.match(f"irmas.prepare: .*{reason}", done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_ready_made_cache_is_described(shared: Path, tmp_path: Path, commands: Commands) -> None:
    done = commands.run("prepare", f"data.cache={shared / 'irmas_logmel'}", folder=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert re.search(r"^ +all +5373 +100.0% +\d+$", done.stdout, re.MULTILINE)
    assert "log-mels: 128 bands x 94 frames, uint8, 64.6 MB" in done.stdout
    assert "identical excerpts join 15 groups of recordings" in done.stdout
    assert "identical excerpts with contradictory labels: 12\n" in done.stdout
    assert done.stdout.count(" (gac)\n") + done.stdout.count(" (gel)\n") == 10
    assert "\n  and 2 more\n" in done.stdout
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
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "\nirmas.prepare: stopped; rerun the command to resume\n"
