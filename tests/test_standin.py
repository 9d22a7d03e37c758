"""The stand-in corpus has IRMAS's names, proportions and quirks, and the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import ENVIRONMENT, marked, wait_until
from conftest import Recorder, SmallDisk

from irmas.data.sound import read_form
from irmas.errors import DataError
from irmas.labels import CODES
from irmas.standin import corpus as standin

NAME = re.compile(r"^(?:(\d{3})__)?\[([a-z]{3})\](?:\[(dru|nod|---)\])?\[([a-z_]+)\](\d{4})__([123])$")
GENRES = {"cou_fol", "cla", "pop_roc", "lat_sou", "jaz_blu"}
SIZE = 132
RENDER = """
import sys
from pathlib import Path
from irmas.standin import corpus as standin

if __name__ == "__main__":
    standin.render(Path(sys.argv[1]), 660, seed=0)
"""


def digests(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.wav")}


def parsed(name: str) -> re.Match[str]:
    match = NAME.match(name)
    assert match is not None, name
    return match


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("standin") / "corpus"
    standin.render(root, SIZE, seed=0)
    return root


@pytest.fixture(scope="module")
def recordings(corpus: Path) -> dict[str, list[Path]]:
    paths_of = defaultdict(list)
    for path in sorted(corpus.rglob("*.wav")):
        paths_of[parsed(path.stem)[5]].append(path)
    return paths_of


def test_every_name_follows_the_grammar_and_lies_in_its_label_s_folder(corpus: Path) -> None:
    paths = list(corpus.rglob("*.wav"))
    assert len(paths) == SIZE
    assert {path.name for path in corpus.iterdir()} == set(CODES)
    for path in paths:
        match = parsed(path.stem)
        assert match[2] == path.parent.name
        assert match[4] in GENRES
        assert (match[1] is None) == (match[3] is None)


@pytest.mark.parametrize("size", [33, 34, 66, 132, 1320, 6705, standin.LARGEST])
def test_classes_have_irmas_s_proportions_at_every_size(size: int) -> None:
    recordings = standin.plan(size, seed=1)
    counts = Counter(name[:3] for r in recordings for name in [r.code] * r.excerpts)
    for code, of_irmas in zip(CODES, standin.IRMAS_EXCERPTS, strict=True):
        assert abs(counts[code] - size * of_irmas / 6705) < 1
    names = [name for recording in recordings for name in recording.names()]
    assert len(set(names)) == len(names) == size
    assert all(parsed(name) for name in names)


def test_the_full_size_has_irmas_s_own_figures() -> None:
    recordings = standin.plan(6705, seed=0)
    sizes = Counter(recording.code for recording in recordings for _ in range(recording.excerpts))
    assert [sizes[code] for code in CODES] == [388, 505, 451, 637, 760, 682, 721, 626, 577, 580, 778]
    assert abs(len(recordings) - 2261) <= len(CODES)
    twins = [r for r in recordings if r.stream != r.number]
    assert len(twins) == 19
    assert sum(r.lead != r.code for r in twins) == 3
    tagged = sum(name[0] != "[" for r in recordings for name in r.names())
    assert 0.2 < tagged / 6705 < 0.35


@pytest.mark.parametrize("size", [32, standin.LARGEST + 1])
def test_a_size_out_of_range_is_refused_with_the_range(size: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"33 to {standin.LARGEST}"):
        standin.render(tmp_path / "corpus", size, seed=0)


def test_a_recording_belongs_to_one_class_and_has_up_to_three_excerpts(
    recordings: dict[str, list[Path]],
) -> None:
    for paths in recordings.values():
        assert len({path.parent.name for path in paths}) == 1
        assert 1 <= len(paths) <= 3


def test_small_corpora_have_every_tag_and_recordings_with_and_without_prefix(
    recordings: dict[str, list[Path]],
) -> None:
    tags = Counter(parsed(path.stem)[3] for paths in recordings.values() for path in paths)
    assert set(tags) == {None, "dru", "nod", "---"}
    assert tags[None] > SIZE / 2
    mixed = [paths for paths in recordings.values() if len({path.name[0] == "[" for path in paths}) == 2]
    assert len(mixed) >= 2


def test_duplicates_are_bit_identical_and_some_contradict_each_other(corpus: Path) -> None:
    same = defaultdict(list)
    for name, digest in digests(corpus).items():
        same[digest].append(name)
    pairs = {
        tuple(sorted((parsed(Path(name).stem)[2], parsed(Path(name).stem)[5]) for name in names))
        for names in same.values()
        if len(names) > 1
    }
    labels = [{code for code, _ in pair} for pair in pairs]
    assert all(len(pair) == 2 for pair in pairs)
    assert sum(len(label) == 1 for label in labels) >= 2
    assert [label for label in labels if len(label) > 1] == [{"gac", "gel"}]


def test_files_are_three_seconds_of_stereo_cd_audio_neither_silent_nor_clipped(corpus: Path) -> None:
    for path in corpus.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (44_100, 2, "PCM_16", 132_300)
        assert read_form(path).remarks(3.0, of_irmas=True) == []
        sound, _ = soundfile.read(path)
        assert -45 < 20 * np.log10(np.sqrt(np.mean(sound**2))) < -10
        assert np.mean(np.abs(sound) > 0.999) < 1e-3


def test_excerpts_of_one_recording_resemble_each_other_more_than_others_of_their_class(
    recordings: dict[str, list[Path]],
) -> None:
    spectra, labels, groups = [], [], []
    for number, paths in recordings.items():
        for path in paths:
            power = np.abs(np.fft.rfft(soundfile.read(path)[0].mean(axis=1))) ** 2
            edges = np.geomspace(50, len(power) - 1, 61).astype(int)
            spectra.append(np.log10(np.add.reduceat(power, edges)[:-1] / np.diff(edges)))
            labels.append(path.parent.name)
            groups.append(number)
    alike = np.corrcoef(spectra)
    label, group = np.array(labels), np.array(groups)
    same_group = (group[:, None] == group) & ~np.eye(len(group), dtype=bool)
    same_label = (label[:, None] == label) & (group[:, None] != group)
    assert alike[same_group].mean() > alike[same_label].mean() + 0.05


def test_bytes_follow_from_size_and_seed_not_from_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    standin.render(tmp_path / "one", 33, seed=5, progress=recorder)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    standin.render(tmp_path / "three", 33, seed=5)
    standin.render(tmp_path / "other", 33, seed=6)
    assert (recorder.begun, sum(recorder.advanced)) == ([("rendering", 33, "excerpts")], 33)
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    assert not set(digests(tmp_path / "one").values()) & set(digests(tmp_path / "other").values())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    standin.render(tmp_path / "corpus", 33, seed=0)
    assert list((tmp_path / "corpus").iterdir()) == []


def test_an_interrupted_rendering_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted(Recorder):
        def advance(self, count: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        standin.render(tmp_path / "corpus", 33, seed=0, progress=Interrupted())
    assert list(tmp_path.iterdir()) == [tmp_path / "corpus.lock"]


def test_a_full_disk_is_reported_with_path_and_reason_and_gets_its_space_back(small_disk: SmallDisk) -> None:
    root = small_disk.path / "corpus"
    before = shutil.disk_usage(small_disk.path).free
    with pytest.raises(DataError, match=rf"^{root}\.part/\w{{3}}/.*\.wav: .*No space left on device"):
        standin.render(root, 33, seed=0)  # 17.5 MB
    assert shutil.disk_usage(small_disk.path).free == before
    assert list(small_disk.path.iterdir()) == [small_disk.path / "corpus.lock"]


def test_a_killed_rendering_leaves_no_process_and_the_next_removes_its_files(tmp_path: Path) -> None:
    script = tmp_path / "render.py"
    script.write_text(RENDER)
    root = tmp_path / "data" / "corpus"
    process = subprocess.Popen(
        [sys.executable, script, root], env=ENVIRONMENT | {"IRMAS_TEST_MARK": str(tmp_path)}, start_new_session=True
    )
    wait_until(lambda: any(root.with_name("corpus.part").rglob("*.wav")), "the first excerpt is rendered")
    process.kill()
    process.wait()
    wait_until(lambda: not marked(str(tmp_path)), "the workers have ended")
    assert not root.exists()
    standin.render(root, 33, seed=0)
    assert sorted(root.parent.iterdir()) == [root, root.with_name("corpus.lock")]
    assert len(list(root.rglob("*.wav"))) == 33
