"""A model file never answers with another net than the one that was written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from commands import copied_package, irmas
from test_predict import made_up_model

from irmas.config import Features, Model
from irmas.errors import UserError
from irmas.learning.net import TOLERANCE, read_net, with_self_test
from irmas.run import model_file

RUN = "outputs/kept/runs"
EDITS = {
    "learning/model.py": ("nn.ReLU(inplace=True)", "nn.GELU()"),
    "data/features.py": ('pad_mode="constant"', 'pad_mode="reflect"'),
}


@pytest.fixture(scope="module")
def home(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package, and a sweep of one run that it trained and exported."""
    home = tmp_path_factory.mktemp("home")
    package = copied_package(home / "package")
    data = ["data=folder", f"data.root={corpus}", "features=small", "features.n_fft=1024"]
    small = ["model.filters=[8]", "epochs=2", "device=cpu", "hydra/launcher=local", "name=kept"]
    trained = irmas("train", "-m", *data, *small, cwd=home, PYTHONPATH=str(package))
    assert trained.returncode == 0, trained.stderr
    exported = irmas("export", "outputs/kept", "model.onnx", cwd=home, PYTHONPATH=str(package))
    assert exported.returncode == 0, exported.stderr
    return home


def edited(home: Path, folder: Path, name: str, old: str, new: str) -> Path:
    """Return a package in which a text of a file is another one."""
    package = copied_package(folder / "edited")
    path = package / "irmas" / name
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new))
    return package


def predict(home: Path, package: Path, *models: str, corpus: Path) -> CompletedProcess[str]:
    sound = next(corpus.rglob("*.wav"))
    return irmas("predict", *models, str(sound), "--json", "-", cwd=home, PYTHONPATH=str(package))


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_net_or_front_end_is_refused_by_every_command_that_loads_the_file(
    home: Path, corpus: Path, tmp_path: Path, name: str
) -> None:
    before = predict(home, home / "package", "outputs/kept", corpus=corpus)
    package = edited(home, tmp_path, name, *EDITS[name])
    (run,) = (home / RUN).iterdir()
    path, model = run.relative_to(home) / "model.pt", str(run.relative_to(home))
    digest = next((home / "outputs" / "kept" / "code").iterdir()).name
    for result in (
        predict(home, package, model, corpus=corpus),
        predict(home, package, "model.onnx", "--with", model, corpus=corpus),
        irmas("evaluate", model, str(corpus), cwd=home, PYTHONPATH=str(package)),
        irmas("export", model, "again.onnx", cwd=home, PYTHONPATH=str(package)),
    ):
        assert result.returncode == 2, result
        assert "is another net than when it was written: its self-test gives probabilities that differ" in result.stderr
        if "model.onnx: is another" not in result.stderr:
            assert f"{path}: is another" in result.stderr
            assert f"changed since: irmas/{name}; to use the source that trained it" in result.stderr
            assert f"begin the command with PYTHONPATH=outputs/kept/code/{digest} python -P -m" in result.stderr
    assert not (home / "again.onnx").exists()
    # As the message says; -P leaves out the current folder alone.
    again = predict(home, home / "outputs" / "kept" / "code" / digest, "outputs/kept", corpus=corpus)
    assert (again.returncode, again.stdout) == (before.returncode, before.stdout)


def test_an_exported_net_is_tested_with_the_present_front_end(home: Path, corpus: Path, tmp_path: Path) -> None:
    package = edited(home, tmp_path, "learning/model.py", *EDITS["learning/model.py"])
    assert predict(home, package, "model.onnx", corpus=corpus).returncode == 0  # it holds the net itself
    package = edited(home, tmp_path / "front", "data/features.py", *EDITS["data/features.py"])
    refused = predict(home, package, "model.onnx", corpus=corpus)
    assert refused.returncode == 2
    assert refused.stderr.startswith("irmas.predict: model.onnx: is another net than when it was written")
    assert refused.stderr.endswith("; export the net again\n")


def test_an_edited_comment_is_not_refused(home: Path, corpus: Path, tmp_path: Path) -> None:
    package = edited(home, tmp_path, "learning/model.py", "from __future__", "# edited\nfrom __future__")
    before, after = (predict(home, source, "outputs/kept", corpus=corpus) for source in (home / "package", package))
    assert (after.returncode, after.stdout) == (0, before.stdout)


def test_a_net_of_other_layers_is_one_message(home: Path, corpus: Path, tmp_path: Path) -> None:
    package = edited(home, tmp_path, "learning/model.py", "nn.Linear(channels, model.dense)", "nn.Linear(channels, 7)")
    refused = predict(home, package, "outputs/kept", corpus=corpus)
    assert refused.returncode == 2
    assert "model.pt: its weights do not fit the net of this source; changed since: irmas/learning/model.py" in (
        refused.stderr
    )
    assert len(refused.stderr.splitlines()) == 1


def test_what_another_processor_changes_passes_and_a_hundredth_does_not(tmp_path: Path) -> None:
    """Every weight differs by a share of itself: as much as rounding, then by a hundredth."""
    path = made_up_model(tmp_path / "model.pt", Features(n_fft=1024, hop_length=800, n_mels=32), Model([8], dense=16))
    file = model_file.read(path)
    weights = {name: weight / 10 if name.startswith("head") else weight for name, weight in file.weights.items()}
    file = with_self_test(replace(file, weights=weights))  # no probability is 0 or 1
    torch.manual_seed(0)
    noise = {name: torch.randn_like(weight.float()) for name, weight in file.weights.items()}
    for share, is_refused in ((1e-6, False), (1e-2, True)):
        changed = {name: weight * (1 + share * noise[name]) for name, weight in file.weights.items()}
        model_file.write(path, replace(file, weights=changed))
        if is_refused:
            with pytest.raises(UserError, match="changed since: nothing that it records; use the source"):
                read_net(path)
        else:
            read_net(path)
    assert TOLERANCE < 0.01


def test_a_file_of_an_earlier_version_has_no_self_test_and_is_read(tmp_path: Path) -> None:
    path = made_up_model(tmp_path / "model.pt", Features(n_fft=1024, hop_length=800, n_mels=32), Model([8], dense=16))
    file = model_file.read(path)
    model_file.write(path, replace(file, self_test=[], source="", source_files={}))
    shutil.copy(path, tmp_path / "copy.pt")
    assert read_net(tmp_path / "copy.pt").classes == file.classes
