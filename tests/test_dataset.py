"""The data group of a configuration: its features, and its part of a run's identity."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Recorder

from irmas.config import Config, Data, Features
from irmas.console import Progress
from irmas.data import cache, dataset
from irmas.data.cache import FeatureCache
from irmas.errors import ConfigError, DataError
from irmas.standin import corpus as standin_corpus


def of_cache(folder: Path, **data: object) -> Config:
    return Config(data=replace(Data(cache=str(folder)), **data))  # type: ignore[arg-type]


def write_csv(path: Path, *rows: tuple[str, str]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def test_a_caches_own_front_end_takes_the_place_of_the_features_group(
    corpus_cache: FeatureCache, features: Features
) -> None:
    assert dataset.resolve(of_cache(corpus_cache.folder)).features == features
    assert dataset.resolve(Config(data=Data(), features=features)).features == features


def test_only_a_value_given_explicitly_can_contradict_a_cache(corpus_cache: FeatureCache, features: Features) -> None:
    config = of_cache(corpus_cache.folder)
    assert dataset.resolve(config, ["dropout", "data.cache", "data.pool"]).features == features
    for explicit in ("features", "features.n_mels"):
        with pytest.raises(ConfigError, match=r"features\.") as caught:
            dataset.resolve(config, [explicit])
        assert "data.cache brings its own front end" in str(caught.value)
    with pytest.raises(ConfigError, match=r"^features\.n_mels=224: data\.cache brings its own front end, with 16$"):
        dataset.resolve(config, ["features.n_mels"])
    same = replace(config, features=replace(config.features, n_mels=16))
    assert dataset.resolve(same, ["features.n_mels"]).features == features
    assert dataset.resolve(replace(config, features=features), ["features"]).features == features


def test_a_cache_that_lacks_a_setting_or_is_absent_is_refused(corpus_cache: FeatureCache, tmp_path: Path) -> None:
    folder = shutil.copytree(corpus_cache.folder, tmp_path / "copy")
    settings = json.loads((folder / "features.json").read_text())
    del settings["sample_rate"]
    (folder / "features.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"copy: features\.json lacks sample_rate"):
        dataset.resolve(of_cache(folder))
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        dataset.resolve(of_cache(tmp_path / "nowhere"))


def test_pooling_must_leave_a_bin(corpus_cache: FeatureCache) -> None:
    assert dataset.resolve(of_cache(corpus_cache.folder, pool=16)).data.pool == 16
    with pytest.raises(ConfigError, match=r"data\.pool=17: a log-mel has 16 x 33 bins"):
        dataset.resolve(of_cache(corpus_cache.folder, pool=17))


def test_paths_become_absolute_and_words_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Data(source="folder", root="a", cache_dir="b", recordings="c.csv", split="d/e.csv")
    data = dataset.resolve(Config(data=relative)).data
    expected = {"root": "a", "cache_dir": "b", "recordings": "c.csv", "split": "d/e.csv"}
    assert {key: getattr(data, key) for key in expected} == {key: f"{tmp_path}/{at}" for key, at in expected.items()}
    assert dataset.resolve(Config()).data.split == "recording"
    assert dataset.resolve(Config()).data.cache is None
    assert dataset.resolve(Config(data=data)).data == data


def test_where_irmas_is_absent_the_ways_out_are_named(tmp_path: Path) -> None:
    data = Data(root=str(tmp_path / "IRMAS-TrainingData"))
    for act in (dataset.digest, dataset.excerpts, lambda data: dataset.load(data, Features(), Recorder())):
        with pytest.raises(DataError) as caught:
            act(data)
        assert str(tmp_path / "IRMAS-TrainingData") in str(caught.value)
        assert "`python -m irmas.prepare download=true`" in str(caught.value)
        assert "data=standin" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_digest_tells_the_data_wherever_it_lies(corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "copy")
    for path in copy.rglob("*.wav"):
        os.utime(path, (1, 1))
    before = dataset.digest(Data(root=str(corpus)))
    assert dataset.digest(Data(root=str(copy))) == before
    (wav, *_) = (copy / "voi").glob("*.wav")
    wav.write_bytes(wav.read_bytes()[:-4])
    changed = dataset.digest(Data(root=str(copy)))
    wav.unlink()
    assert len({before, changed, dataset.digest(Data(root=str(copy)))}) == 3


def test_the_digest_of_a_cache_tells_its_content(corpus_cache: FeatureCache, tmp_path: Path) -> None:
    before = dataset.digest(Data(cache=str(corpus_cache.folder)))
    copy = shutil.copytree(corpus_cache.folder, tmp_path / "copy")
    assert dataset.digest(Data(cache=str(copy))) == before
    stored = np.load(copy / "features.npy")
    np.save(copy / "features.npy", 255 - stored)
    assert dataset.digest(Data(cache=str(copy))) != before
    (copy / "clips.csv").unlink()
    with pytest.raises(DataError, match=r"clips\.csv"):
        dataset.digest(Data(cache=str(copy)))


def test_the_digest_of_a_stand_in_needs_no_rendering(tmp_path: Path) -> None:
    data = Data(source="standin", root=str(tmp_path), size=132, render_seed=0)
    digests = {
        dataset.digest(made)
        for made in (data, replace(data, root="x"), replace(data, size=133), replace(data, render_seed=1))
    }
    assert len(digests) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["split", "recordings"])
def test_the_digest_changes_with_the_lists_and_names_a_missing_one(key: str, corpus: Path, tmp_path: Path) -> None:
    data = replace(Data(source="folder", root=str(corpus)), **{key: str(tmp_path / "list.csv")})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"data\.{key}=.*list\.csv: No such file"):
        dataset.digest(data)
    names = [excerpt.name for excerpt in dataset.excerpts(Data(source="folder", root=str(corpus)))]
    write_csv(tmp_path / "list.csv", ("name", "recording"), *((name, "1") for name in names))
    one = dataset.digest(data)
    write_csv(tmp_path / "list.csv", ("name", "recording"), *((name, "2") for name in names))
    assert dataset.digest(data) != one


def test_features_are_computed_once_and_again_when_a_file_changes(
    corpus: Path, features: Features, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    for code in ("gac", "gel"):
        shutil.copytree(corpus / code, few / code)
    data = Data(source="folder", root=str(few), cache_dir=str(tmp_path / "cache"))
    total = len(dataset.excerpts(data))
    recorder = Recorder()
    opened = dataset.load(data, features, recorder)
    assert (recorder.begun, sum(recorder.advanced)) == ([("log-mels", total, "excerpts")], total)
    assert opened.classes == ["gac", "gel"]
    assert dataset.load(data, features, recorder).folder == opened.folder
    assert len(recorder.begun) == 1
    (wav, *_) = (few / "gac").iterdir()
    os.utime(wav, (1, 1))
    assert dataset.load(data, features, recorder).folder != opened.folder
    assert recorder.begun == 2 * [("log-mels", total, "excerpts")]


def test_a_stand_in_is_rendered_where_it_is_missing_and_never_twice(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = []

    def copy(root: Path, size: int, seed: int, progress: Progress) -> None:
        shutil.copytree(corpus, root)
        rendered.append((size, seed, progress))

    monkeypatch.setattr(standin_corpus, "render", copy)
    data = Data(source="standin", root=str(tmp_path / "new" / "standin"), size=132, render_seed=0)
    recorder = Recorder()
    source = dataset.locate(data, Features(), recorder)
    assert source.excerpts is not None
    assert len(source.excerpts) == 132
    assert source.folder == Path(data.cache_dir) / cache.key(source.excerpts, Features())
    dataset.locate(data, Features(), recorder)
    assert rendered == [(132, 0, recorder)]


def test_a_ready_made_cache_needs_no_wavs(corpus_cache: FeatureCache) -> None:
    recorder = Recorder()
    opened = dataset.load(Data(root="nowhere", cache=str(corpus_cache.folder)), Features(), recorder)
    assert opened.names == corpus_cache.names
    np.testing.assert_array_equal(opened.features, corpus_cache.features)
    assert recorder.begun == []


def of_folder(root: Path, tmp_path: Path, **data: object) -> Data:
    """The excerpts of two classes, copied."""
    for code in ("gac", "gel"):
        shutil.copytree(root / code, tmp_path / "few" / code)
    group = Data(source="folder", root=str(tmp_path / "few"), cache_dir=str(tmp_path / "cache"))
    return replace(group, **data)  # type: ignore[arg-type]


def test_a_cache_of_ours_counts_as_built_only_while_it_is_sound(
    corpus: Path, features: Features, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, recorder = of_folder(corpus, tmp_path), Recorder()
    assert not dataset.is_built(data, features)
    opened = dataset.load(data, features, recorder)
    assert dataset.is_built(data, features)
    os.truncate(opened.folder / "features.npy", 1000)
    assert not dataset.is_built(data, features)
    again = dataset.load(data, features, recorder)
    assert dataset.is_built(data, features)
    assert again.folder == opened.folder
    assert len(recorder.begun) == 2
    assert [message.endswith("; rebuilding it") for message in caplog.messages] == [True]


def test_a_cache_that_the_user_named_is_refused_where_it_is_damaged_and_never_written(
    corpus_cache: FeatureCache, tmp_path: Path
) -> None:
    folder = shutil.copytree(corpus_cache.folder, tmp_path / "theirs" / "cache")
    os.truncate(folder / "features.npy", 1000)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    data = of_cache(folder).data
    for act in (dataset.digest, lambda data: dataset.load(data, Features(), Recorder())):
        with pytest.raises(DataError, match=rf"^data\.cache={folder}: features\.npy cannot be read \(mmap length"):
            act(data)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_files_that_cannot_be_used_end_it_unless_they_are_to_be_left_out(
    corpus: Path, features: Features, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = of_folder(corpus, tmp_path)
    total = len(dataset.excerpts(data))
    broken = dataset.excerpts(data)[2]
    broken.path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        dataset.load(data, features, Recorder())
    message = f"1 of {total} excerpts cannot be used; data.damaged=drop leaves them out\n  {broken.path}: empty"
    assert str(caught.value) == message
    assert not dataset.is_built(data, features)
    dropping = replace(data, damaged="drop")
    for _ in range(2):  # built, then only opened
        caplog.clear()
        opened = dataset.load(dropping, features, Recorder())
        assert len(opened.names) == total - 1
        assert broken.name not in opened.names
        message = f"1 of {total} excerpts are left out (data.damaged=drop)\n  {broken.name}: empty"
        assert caplog.messages == [message]
    assert dataset.is_built(dropping, features)
    assert not dataset.is_built(data, features)


def test_a_stand_in_that_lost_a_file_is_refused(corpus: Path, tmp_path: Path) -> None:
    data = Data(source="standin", root=str(tmp_path), size=132, render_seed=0)
    folder = shutil.copytree(corpus, dataset.corpus_folder(data))
    next(folder.rglob("*.wav")).unlink()
    with pytest.raises(DataError, match=rf"{folder}: holds 131 excerpts of 132; remove the folder"):
        dataset.load(data, Features(), Recorder())
