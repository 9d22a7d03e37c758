"""The shipped configurations, and the package where it is installed into another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from commands import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from irmas.cli.compose import Composer
from irmas.config import Config, check

CONF = ROOT / "conf"
OPTIONS = [
    f"{group.name}={path.stem}"
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name != "hydra"
    for path in sorted(group.glob("*.yaml"))
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_shipped_option_composes_into_a_sound_configuration(option: str) -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [option, "data.root=somewhere"] if option == "data=folder" else [option]
        config = OmegaConf.to_object(compose("train", overrides))
    assert isinstance(config, Config)
    check(config)


def test_an_option_resets_what_another_one_of_its_group_has_set() -> None:
    """The files of conf/ repeat no default, so that `report` is nothing but the dataclass."""
    options = product(("deep", "report"), ("small", "report"), ("strong", "report"))
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        master = compose("train", [], return_hydra_config=True)
        composer = Composer(GlobalHydra.instance().config_loader(), master, {})
        runs = composer.runs([[f"model={m}", f"features={f}", f"recipe={r}"] for m, f, r in options])
    deep = {"model.convs_per_block": 2}
    strong = {"optimizer": "muon", "schedule": "onecycle", "label_smoothing": 0.1}
    strong |= {"model.rolls": 2, "augment.roll": True}
    small = {"features.hop_length": 1050, "features.n_mels": 64}
    assert [run.changes for run in runs] == [
        changed | geometry | trained for changed, geometry, trained in product((deep, {}), (small, {}), (strong, {}))
    ]


def test_the_report_is_what_the_dataclasses_and_files_say() -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(compose("train", ["sweep=report"]))
    assert config == Config()
    assert (config.features.n_mels, config.features.n_frames, config.epochs) == (224, 224, 15)


def test_installed_into_another_folder_every_command_works(tmp_path: Path) -> None:
    site = tmp_path / "site"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # From a copy: a build leaves its traces beside the source.
    for name in ("irmas", "hydra_plugins", "conf", "slurm"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    install = "-m pip install -q --no-deps --no-build-isolation --no-compile --target site ./source"
    python(*install.split())
    environment["PYTHONPATH"] = str(site)

    assert python("-c", "import irmas; print(irmas.__file__)") == f"{site}/irmas/__init__.py\n"
    installed = site / "irmas" / "conf"
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == {
        path.relative_to(CONF) for path in CONF.rglob("*.yaml")
    }
    scripts = {path.name for path in (ROOT / "slurm").glob("*.sbatch")}
    assert {path.name for path in (site / "irmas" / "slurm").iterdir()} == scripts
    # The help names the command that lists the launcher's settings.
    listing = "python -m irmas.train hydra/launcher=slurm --cfg hydra -p hydra.launcher"
    assert f"({listing})" in python("-m", "irmas.train", "--help")
    assert "runs_per_task: null" in python(*listing.split()[1:])
    small = ["data=standin", "data.size=132", "features=small"]
    assert "1 of 1 runs finished" in python(
        "-m", "irmas.train", *small, "epochs=1", "name=there", "hydra/launcher=local"
    )
    assert "1 of 1 runs finished" in python("-m", "irmas.rank", "outputs/there")
    assert "outputs/there  1 COMPLETED" in python(f"{site}/bin/irmas", "status")
    assert "132 excerpts" in python("-m", "irmas.prepare", *small)
