"""The feature cache: built once, whatever happens meanwhile; opened by many; other people's are only read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import marked
from conftest import Recorder, SmallDisk

from irmas.config import Data, Features
from irmas.data import cache
from irmas.data.cache import FeatureCache, open_cache
from irmas.data.excerpts import Excerpt, scan
from irmas.data.features import LogMel, encode, read_waveform
from irmas.data.split import find_duplicates, load_or_make
from irmas.errors import DataError, UserError

ROOT = Path(__file__).parent.parent
BIG = Features(sample_rate=8000, n_fft=256, hop_length=1, n_mels=128, seconds=0.2)
FEATURES = 128 + 6 * 128 * 1601 + 4095
"""Bytes of six log-mels of BIG in whole blocks: 1.2 MB."""
TINY = Features(sample_rate=8000, n_fft=256, hop_length=400, n_mels=8, seconds=0.2)

BUILDER = """
import sys, time
from pathlib import Path
from irmas.config import Data, Features
from irmas.data import cache
from irmas.data.excerpts import scan

if __name__ == "__main__":
    root, folder, go, pause_s = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])

    class Pausing:
        def start(self, task, total, unit=""):
            pass

        def advance(self, count):
            print("computed", count, flush=True)
            time.sleep(pause_s)

    excerpts = scan(Data(), root)
    print("ready", flush=True)
    while not go.exists():
        time.sleep(0.01)
    try:
        cache.build(excerpts, Features(n_mels=8, hop_length=4000), folder, Pausing())
    except KeyboardInterrupt:
        sys.exit("interrupted")
    print("rows", len(cache.open_cache(folder).features), folder.stat().st_ino, flush=True)
"""


def write_noise(path: Path, seed: int, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 1600), 8000, subtype=subtype)


@pytest.fixture
def few(tmp_path: Path) -> list[Excerpt]:
    """Six excerpts of two classes."""
    for seed in range(6):
        write_noise(tmp_path / "few" / "ab"[seed % 2] / f"{seed}.wav", seed)
    return scan(Data(source="folder"), tmp_path / "few")


@pytest.fixture
def foreign(few: list[Excerpt], tmp_path: Path) -> Path:
    cache.build(few, TINY, tmp_path / "foreign")
    return tmp_path / "foreign"


Start = Callable[[float], subprocess.Popen[str]]


@pytest.fixture
def start_builder(corpus: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a process that waits for the file `go`, then builds cache/key, pausing so long after each chunk."""
    script, started = tmp_path / "builder.py", list[subprocess.Popen[str]]()
    script.write_text(BUILDER)

    def start(pause_s: float) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, script, corpus, tmp_path / "cache" / "key", tmp_path / "go", str(pause_s)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "IRMAS_TEST_MARK": str(tmp_path)},
                start_new_session=True,
                # A shell ignores SIGINT for what it starts in the background, this test run perhaps among it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_what_is_opened_is_what_the_front_end_computes(
    corpus_cache: FeatureCache, corpus: Path, features: Features
) -> None:
    front_end = LogMel(features)
    assert corpus_cache.features.shape == (132, features.n_mels, features.n_frames)
    for row in (0, 31, 32, 131):  # both sides of a worker's border
        waveform, rate = read_waveform(corpus / corpus_cache.labels[row] / f"{corpus_cache.names[row]}.wav")
        decibels = front_end(waveform[None], rate)[0]
        np.testing.assert_array_equal(corpus_cache.features[row], encode(decibels, features))
        decoded = corpus_cache.scale * corpus_cache.features[row].astype(float) + corpus_cache.offset
        assert np.abs(decoded - decibels.numpy()).max() <= 80 / 255 / 2 * 1.001


def test_rows_are_described_in_order(corpus_cache: FeatureCache, corpus: Path) -> None:
    scanned = scan(Data(), corpus)
    assert corpus_cache.names == [excerpt.name for excerpt in scanned]
    assert corpus_cache.labels == [excerpt.label for excerpt in scanned]
    assert corpus_cache.recordings == [excerpt.recording for excerpt in scanned]
    assert len(corpus_cache.classes) == 11


def test_float16_and_any_name_survive(tmp_path: Path) -> None:
    names = ['comma, "quote"', "Gitarre Öl", "[x] y"]
    for seed, name in enumerate(names):
        write_noise(tmp_path / "data" / f"class {seed % 2}, odd" / f"{name}.wav", seed)
    features = replace(TINY, dtype="float16")
    scanned = scan(Data(source="folder"), tmp_path / "data")
    cache.build(scanned, features, tmp_path / "cache")
    opened = open_cache(tmp_path / "cache")
    assert opened.names == [excerpt.name for excerpt in scanned]
    assert set(opened.classes) == {"class 0, odd", "class 1, odd"}
    assert opened.features.dtype == np.float16
    assert (opened.scale, opened.offset) == (1, 0)
    assert -80 <= opened.features.min() < opened.features.max() == 0


def test_progress_counts_every_excerpt_once(few: list[Excerpt], tmp_path: Path) -> None:
    recorder = Recorder()
    assert cache.build(few, TINY, tmp_path / "new" / "cache", recorder)
    assert not cache.build(few, TINY, tmp_path / "new" / "cache", recorder)
    assert (recorder.begun, sum(recorder.advanced)) == ([("log-mels", 6, "excerpts")], 6)


def test_the_key_changes_with_settings_and_files_and_with_nothing_else(few: list[Excerpt]) -> None:
    keys = [cache.key(few, TINY)]
    assert cache.key(list(few), replace(TINY)) == keys[0]
    for change in (
        {"sample_rate": 8001},
        {"n_fft": 257},
        {"hop_length": 401},
        {"n_mels": 9},
        {"seconds": 0.3},
        {"mel_scale": "htk"},
        {"mel_norm": None},
        {"top_db": 70.0},
        {"resampling": "hann"},
        {"dtype": "float16"},
    ):
        keys.append(cache.key(few, replace(TINY, **change)))
    keys.append(cache.key(few, TINY, "drop"))
    os.utime(few[0].path, (1, 1))
    keys.append(cache.key(few, TINY))
    few[0].path.write_bytes(few[0].path.read_bytes() + b"more")
    os.utime(few[0].path, (1, 1))
    keys.append(cache.key(few, TINY))
    keys.append(cache.key(few[1:], TINY))
    keys.append(cache.key([replace(few[0], recording="another"), *few[1:]], TINY))
    assert max(Counter(keys).values()) == 1


@pytest.mark.parametrize(("processes", "damaged"), [(18, False), (5, True)])
def test_processes_that_start_at_once_build_once(
    start_builder: Start, tmp_path: Path, processes: int, damaged: bool
) -> None:
    folder = tmp_path / "cache" / "key"
    if damaged:
        folder.mkdir(parents=True)
    builders = [start_builder(0) for _ in range(processes)]
    assert [next_line(builder) for builder in builders] == ["ready\n"] * processes
    (tmp_path / "go").touch()
    outputs = [builder.communicate(timeout=100) for builder in builders]
    assert [builder.returncode for builder in builders] == [0] * processes, outputs
    assert sum("computed" in out for out, _ in outputs) == 1
    assert sum("; rebuilding it" in err for _, err in outputs) == damaged
    assert {out.splitlines()[-1] for out, _ in outputs} == {f"rows 132 {folder.stat().st_ino}"}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["key", "key.lock"]


def test_ctrl_c_ends_a_build_without_a_word_from_the_workers(start_builder: Start, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    builder = start_builder(60)
    assert [next_line(builder), next_line(builder)] == ["ready\n", "computed 32\n"]
    time.sleep(1)  # all is computed, the workers wait
    os.killpg(builder.pid, signal.SIGINT)  # as a terminal does: to every process
    assert builder.communicate(timeout=30)[1] == "interrupted\n"
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix not in (".lock", ".part")] == []


def test_a_killed_builder_leaves_nothing_that_looks_finished_and_no_process(
    start_builder: Start, corpus: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "key"
    (tmp_path / "go").touch()
    builder = start_builder(60)
    assert [next_line(builder), next_line(builder)] == ["ready\n", "computed 32\n"]
    assert len(marked(str(tmp_path))) > 1
    builder.kill()
    builder.communicate()
    deadline = time.monotonic() + 20
    while marked(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked(str(tmp_path)) == []
    assert not folder.exists()
    assert (tmp_path / "cache" / "key.part").exists()
    cache.build(scan(Data(), corpus), TINY, folder)
    assert open_cache(folder).features.any(axis=(1, 2)).all()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["key", "key.lock"]


def test_everything_that_cannot_be_used_is_listed_at_once(tmp_path: Path) -> None:
    for seed in range(70):  # for three workers' turns
        write_noise(tmp_path / "many" / "ab"[seed % 2] / f"{seed}.wav", seed)
    many = scan(Data(source="folder"), tmp_path / "many")
    broken = (0, 33, 69)
    many[0].path.write_bytes(b"")
    many[33].path.write_text("no sound")
    soundfile.write(many[69].path, np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(DataError) as caught:
        cache.build(many, TINY, tmp_path / "cache" / "key")
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 70 excerpts cannot be used; data.damaged=drop leaves them out"
    assert [line.strip().split(": ")[0] for line in lines[1:]] == [str(many[row].path) for row in broken]
    assert "not finite" in lines[3]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key.lock"]
    for row in broken:
        write_noise(many[row].path, row)
    cache.build(many, TINY, tmp_path / "cache" / "key")
    assert len(open_cache(tmp_path / "cache" / "key").names) == 70


def test_damaged_drop_leaves_out_unusable_files_and_lists_them(few: list[Excerpt], tmp_path: Path) -> None:
    cache.build(few, TINY, tmp_path / "whole")
    few[0].path.write_bytes(b"")
    os.truncate(few[3].path, 2000)
    cache.build(few, TINY, tmp_path / "key", damaged="drop")
    opened, whole = open_cache(tmp_path / "key"), open_cache(tmp_path / "whole")
    kept = [1, 2, 4, 5]
    assert opened.names == [few[row].name for row in kept]
    np.testing.assert_array_equal(opened.features, whole.features[kept])
    plain = tmp_path / "plain.npy"  # as numpy writes it
    np.save(plain, whole.features[kept])
    assert (tmp_path / "key" / "features.npy").read_bytes() == plain.read_bytes()
    assert list(opened.left_out) == [few[0].name, few[3].name]
    assert opened.left_out[few[0].name] == "empty"
    assert opened.left_out[few[3].name].startswith("truncated: the header says 3200 bytes of audio")
    assert cache.flaw(tmp_path / "key", few, TINY) is None
    (tmp_path / "key" / "left_out.csv").unlink()  # now it looks as if rows were missing
    assert "names other excerpts" in str(cache.flaw(tmp_path / "key", few, TINY))


def test_what_would_leave_fewer_than_two_classes_is_not_left_out(few: list[Excerpt], tmp_path: Path) -> None:
    for excerpt in few[:3]:
        excerpt.path.write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 6 excerpts cannot be used, and the remaining .*\n  .*: empty"):
        cache.build(few, TINY, tmp_path / "cache" / "key", damaged="drop")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key.lock"]


@pytest.mark.parametrize(
    ("fits", "missing"), [((100_000,), "features.npy"), ((FEATURES,), "clips.csv"), ((FEATURES, 4096), "features.json")]
)
def test_a_full_disk_is_reported_with_path_and_reason_and_gets_its_space_back(
    few: list[Excerpt], small_disk: SmallDisk, fits: tuple[int, ...], missing: str
) -> None:
    folder = small_disk.path / "cache" / "key"
    (folder.parent).mkdir()
    folder.with_name("key.lock").touch()
    small_disk.fill(free=sum(fits))
    before = shutil.disk_usage(small_disk.path).free
    with pytest.raises(DataError, match=rf"^{folder}\.part/{missing}: .*No space left on device"):
        cache.build(few, BIG, folder)
    assert shutil.disk_usage(small_disk.path).free == before
    assert [path.name for path in folder.parent.iterdir()] == ["key.lock"]
    small_disk.free()
    cache.build(few, BIG, folder)
    assert len(open_cache(folder).names) == 6


def test_a_worker_that_is_killed_ends_the_build_with_a_message(start_builder: Start, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    builder = start_builder(3)
    assert [next_line(builder), next_line(builder)] == ["ready\n", "computed 32\n"]
    for pid in set(marked(str(tmp_path))) - {builder.pid}:
        os.kill(pid, signal.SIGKILL)
    _, stderr = builder.communicate(timeout=30)
    assert "DataError" in stderr
    assert "a process that computes it was killed; was there too little memory?" in stderr
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key.lock"]


def test_a_folder_that_cannot_be_made_is_refused(few: list[Excerpt], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(File exists\)"):
        cache.build(few, TINY, tmp_path / "file" / "key")


def change_settings(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "features.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def lacking(key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        settings = json.loads((folder / "features.json").read_text())
        del settings[key]
        (folder / "features.json").write_text(json.dumps(settings))

    return change


def cut(name: str, size: int) -> Callable[[Path], None]:
    """Cut a file to `size` bytes, or by -`size` bytes where it is negative."""
    return lambda folder: os.truncate(folder / name, size if size >= 0 else (folder / name).stat().st_size + size)


def replace_text(path: Path, old: str, new: str) -> None:
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def drop_row(folder: Path) -> None:
    lines = (folder / "clips.csv").read_text().splitlines()
    (folder / "clips.csv").write_text("\n".join(lines[:-1]) + "\n")


def put_archive(folder: Path) -> None:
    with (folder / "features.npy").open("wb") as file:
        np.savez(file, np.zeros(3))


def text(name: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(content)

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "there is no such folder"),
        (lambda folder: (folder / "features.npy").unlink(), "features.npy cannot be read"),
        (lambda folder: (folder / "clips.csv").unlink(), "clips.csv: .*No such file"),
        (lambda folder: (folder / "features.json").unlink(), "features.json cannot be read"),
        (text("features.json", "{"), "features.json cannot be read"),
        (text("features.json", "[1]"), "features.json holds no settings"),
        (change_settings(n_mels="8"), "features.json says n_mels=8, which is not a number"),
        (lacking("scale"), "features.json lacks scale"),
        (lacking("hop_length"), "features.json lacks hop_length"),
        (change_settings(dtype="float16"), r"features.npy is uint8 \(6, 8, 5\), features.json says float16"),
        (change_settings(n_mels=9), "features.json says uint8 with 9 bands"),
        (drop_row, "features.npy has 6 rows, clips.csv describes 5"),
        (text("clips.csv", "name,label\na,b\n"), "clips.csv: column recording is missing"),
        (text("clips.csv", "name,label,recording\na,b\n"), "clips.csv: line 2 has fewer values"),
        (cut("features.npy", 0), "features.npy cannot be read"),
        (cut("features.npy", 200), "features.npy cannot be read"),
        (text("features.npy", "no array"), "features.npy cannot be read"),
        (put_archive, "features.npy cannot be read"),
        (
            lambda folder: np.save(folder / "features.npy", np.zeros((6, 8), np.uint8)),
            r"features.npy is uint8 \(6, 8\)",
        ),
    ],
)
def test_a_damaged_cache_is_refused_with_the_reason(foreign: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(foreign)
    with pytest.raises(DataError, match=reason) as caught:
        open_cache(foreign)
    assert str(foreign) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "features.npy").unlink(), "features.npy cannot be read"),
        (cut("features.npy", -1), "features.npy cannot be read"),
        (cut("features.npy", 0), "features.npy cannot be read"),
        (lambda folder: (folder / "features.json").unlink(), "features.json cannot be read"),
        (text("features.json", ""), "features.json cannot be read"),
        (change_settings(hop_length=401), "was computed with other settings"),
        (change_settings(scale="much"), "features.json says scale=much, which is not a number"),
        (drop_row, "clips.csv describes 5"),
        (text("clips.csv", ""), "clips.csv: column"),
        (lambda folder: replace_text(folder / "clips.csv", "b/1,b,1", "b/1,b,7"), "clips.csv names other excerpts"),
        (lambda folder: replace_text(folder / "clips.csv", "b/1,b,1\nb/3,b,3", "b/3,b,3\nb/1,b,1"), "other excerpts"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "features.json cannot be read"),
    ],
)
def test_a_damaged_cache_of_ours_is_rebuilt_and_logged(
    few: list[Excerpt], foreign: Path, damage: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    sound = {path.name: path.read_bytes() for path in foreign.iterdir()}
    damage(foreign)
    for _ in range(2):  # the second time all is well
        cache.build(few, TINY, foreign)
        assert {path.name: path.read_bytes() for path in foreign.iterdir()} == sound
    (message,) = caplog.messages
    assert reason in message
    assert message.startswith(str(foreign))
    assert message.endswith("; rebuilding it")
    assert not list(foreign.parent.glob("foreign.[op]*"))


def test_a_replaced_cache_stays_readable_for_processes_that_have_it_open(few: list[Excerpt], foreign: Path) -> None:
    sound = np.load(foreign / "features.npy")
    np.save(foreign / "features.npy", 255 - sound)
    drop_row(foreign)
    reader = np.load(foreign / "features.npy", mmap_mode="c")
    cache.build(few, TINY, foreign)
    np.testing.assert_array_equal(reader, 255 - sound)
    np.testing.assert_array_equal(open_cache(foreign).features, sound)


def test_an_opened_cache_is_never_written(foreign: Path) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in foreign.iterdir()}
    for path in foreign.iterdir():
        path.chmod(0o444)
    foreign.chmod(0o555)
    opened = open_cache(foreign)
    opened.features[0] = 0
    assert len(find_duplicates(opened).groups) == len(opened.names)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in foreign.iterdir()} == before
    foreign.chmod(0o755)


def test_the_digest_of_a_cache_changes_with_each_file_and_not_with_the_place(foreign: Path, tmp_path: Path) -> None:
    digests = [cache.digest(foreign)]
    assert cache.digest(shutil.copytree(foreign, tmp_path / "elsewhere")) == digests[0]
    stored = np.load(foreign / "features.npy")
    stored[3, 4, 2] ^= 1
    np.save(foreign / "features.npy", stored)
    digests.append(cache.digest(foreign))
    (foreign / "clips.csv").write_text((foreign / "clips.csv").read_text().replace("b/1,b,1", "b/1,b,3"))
    digests.append(cache.digest(foreign))
    change_settings(n_fft=128)(foreign)
    digests.append(cache.digest(foreign))
    assert len(set(digests)) == 4


def test_the_front_end_of_a_ready_made_cache_is_read_from_its_settings(foreign: Path) -> None:
    assert cache.front_end(foreign, Features()) == TINY
    for key in ("resampling", "top_db", "seconds"):
        lacking(key)(foreign)
    change_settings(offset=-60.0)(foreign)
    front_end = cache.front_end(foreign, Features(seconds=7.0))
    assert front_end == replace(TINY, resampling=None, top_db=60.0, seconds=7.0)


def test_real_log_mels_are_a_cache(shared: Path, tmp_path: Path) -> None:
    opened = open_cache(shared / "irmas_logmel")
    assert opened.features.shape == (5373, 128, 94)
    assert len(opened.classes) == 11
    duplicates = find_duplicates(opened)
    assert len(duplicates.joined_recordings) == 15
    assert len(duplicates.conflicting) == 12
    assert {opened.labels[row] for row in duplicates.conflicting} == {"gac", "gel"}
    data = Data(cache=str(opened.folder))
    sizes = []
    for fold in range(5):
        made = load_or_make(replace(data, fold=fold), opened, tmp_path)
        sizes.append(len(made.validation))
        assert made.leaking == 0
        for of in (opened.recordings, duplicates.groups):
            assert not {of[row] for row in made.train} & {of[row] for row in made.validation}
    assert sum(sizes) == 5373
    assert max(abs(size / 5373 - 0.2) for size in sizes) < 0.01
