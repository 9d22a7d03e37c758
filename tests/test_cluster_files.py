"""Files with a cluster's settings: the defaults of hydra/launcher=slurm, and what is kept of them for later rounds."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from forked_commands import Commands
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from test_sbatch import values

from irmas.cli import overrides
from irmas.errors import UserError
from irmas.sweep import settings
from irmas.sweep.settings import CLUSTER_FILE, Settings, changed, read

SLURM = ["hydra/launcher=slurm", "--cfg", "hydra", "-p", "hydra.launcher"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of the site, of the user and of the environment, none of which is there."""
    of_site, of_user, named = (tmp_path / name for name in ("etc/slurm.yaml", "home/irmas/slurm.yaml", "named.yaml"))
    for path in (of_site, of_user):
        path.parent.mkdir(parents=True)
    monkeypatch.setattr(settings, "SITE_FILE", of_site)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(CLUSTER_FILE)
    return [of_site, of_user, named]


def launched(*texts: str) -> Settings:
    """Return the settings of a launcher with the cluster's files."""
    launcher = overrides.launcher(["hydra/launcher=slurm", *texts], with_files=True)
    launcher.check()
    result: Settings = launcher.settings
    return result


def test_each_file_adds_to_the_one_before_and_the_command_line_to_all(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launched() == read(values())
    files[0].write_text("partition: gpu\naccount: site\nqos: site\nrank: {mem: 1G}\nsbatch: {nice: 5}\n")
    files[1].write_text("account: user\nqos: user\nrank.cpus: 2\n")
    files[2].write_text("qos: named\nsbatch: {reservation: course}\n")
    assert (launched().partition, launched().account, launched().qos) == ("gpu", "user", "user")
    assert (launched().rank.partition, launched().rank.mem, launched().rank.cpus) == ("gpu", "1G", 2)
    monkeypatch.setenv(CLUSTER_FILE, str(files[2]))
    assert (launched().qos, launched().sbatch) == ("named", {"nice": 5, "reservation": "course"})
    typed = launched("hydra.launcher.qos=typed", "hydra.launcher.sbatch={comment: x}", "hydra.launcher.account=null")
    assert (typed.qos, typed.account, typed.partition) == ("typed", None, "gpu")
    assert typed.sbatch == {"nice": 5, "reservation": "course", "comment": "x"}
    files[2].write_text("sbatch: {nice: null}\nsrun: {mpi: none, cpu_bind: none}\n")
    assert launched("hydra.launcher.srun.mpi=null").srun == {"mpi": None, "cpu_bind": "none"}
    assert launched().options()["nice"] is None
    monkeypatch.setenv(CLUSTER_FILE, "")
    assert launched() == read(values()), "no file is read"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partion: gpu", "hydra.launcher.partion: there is no such setting; settings: partition cpus"),
        ("processes: 2", "hydra.launcher.processes: was renamed; give hydra.launcher.runs_at_once"),
        ("rank: 5", "hydra.launcher.rank: has settings: partition cpus mem time sbatch"),
        ("rank: {gpus: 1}", "hydra.launcher.rank.gpus: there is no such setting"),
        ("time: soon", "hydra.launcher.time=soon: must be minutes"),
        ("time: 2", "hydra.launcher.time=2: must exceed hydra.launcher.warning=120"),
        ("sbatch: {array: 1-3}", "hydra.launcher.sbatch=.*: must be long options of sbatch"),
        ("_target_: os.system", "hydra.launcher._target_: there is no such setting"),
        ("- gpu", "must hold settings of hydra.launcher, as in partition: gpu"),
        ("a: [", "is no YAML .*line 1, column 5"),
        ("cpus: 1\ncpus: 2", "is no YAML .*duplicate key cpus"),
    ],
)
def test_a_mistake_is_named_with_its_file(files: list[Path], text: str, message: str) -> None:
    files[1].write_text(text)
    with pytest.raises(UserError, match=f"^{files[1]}: {message}"):
        launched()


def test_a_file_of_the_environment_must_be_there(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLUSTER_FILE, str(files[2]))
    with pytest.raises(UserError, match=rf"^{CLUSTER_FILE}={files[2]}: no such file; unset it"):
        launched()


def test_a_command_shows_the_files_uses_them_and_refuses_their_mistakes(commands: Commands, tmp_path: Path) -> None:
    folder, file, bin_ = tmp_path / "here", tmp_path / "slurm.yaml", tmp_path / "bin"
    folder.mkdir()
    bin_.mkdir()
    for name, answer in {"sbatch": "false", "scontrol": "echo MaxArraySize = 1001", "squeue": "true"}.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{answer}\n")
        (bin_ / name).chmod(0o755)
    environment = {CLUSTER_FILE: str(file), "PATH": f"{bin_}:{os.environ['PATH']}"}
    file.write_text("partition: gpu\n")
    shown = commands.run("train", *SLURM, "hydra.launcher.time=30", folder=folder, **environment)
    assert "partition: gpu\n" in shown.stdout, shown
    assert "time: 30\n" in shown.stdout
    small = ["data=standin", "features=small", "name=made", "hydra.launcher.submit=false"]
    made = commands.run("train", *small, folder=folder, **environment)
    assert f"cluster settings: {file}\n" in made.stdout, made
    assert made.stdout.count("--partition=gpu") == 3
    file.write_text("partion: gpu\n")
    assert f"{file}: hydra.launcher.partion" in commands.refuse("train", *small, folder=folder, **environment)
    local = commands.run("train", "hydra/launcher=local", *SLURM[1:], folder=folder, **environment)
    assert local.code == 0, "only the Slurm launcher reads the file"


# ---- what a later round takes


TEXTS = st.one_of(st.text("a'\\\" ${}", max_size=6), st.text(max_size=6)).filter(lambda text: "${" not in text)


@given(
    st.recursive(st.one_of(TEXTS, st.integers(), st.booleans(), st.none()), lambda inner: st.lists(inner), max_leaves=5)
)
def test_a_value_is_written_as_hydra_reads_it(value: Any) -> None:
    text = settings._quoted(value)
    if text.isprintable():
        assert OverridesParser.create().parse_override(f"key={text}").value() == value


def test_a_later_round_has_all_settings_of_the_first_without_its_files(files: list[Path]) -> None:
    files[0].write_text(
        "partition: gpu,long\nprefix: nice -n '1'\nsbatch: {comment: \"it's\", nice: 5}\nrank: {mem: null}\n"
        "exclude: n[1-3]\nmem: 16G\nthrottle: 6\n"
    )
    first = launched("hydra.launcher.cpus=4", "hydra.launcher.wait=true")
    for path in files[:1]:
        path.unlink()
    assert asdict(launched(*changed(first))) == {**asdict(first), "wait": False}
    assert changed(read(values(partition="gpu", prepare=values()["prepare"] | {"partition": "gpu"}))) == [
        "hydra.launcher.partition=gpu",
        "hydra.launcher.rank.partition=null",
    ]
