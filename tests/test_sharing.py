"""A sweep in a folder that its user shares with a group: a colleague continues it, or learns what is missing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_commands import Commands
from left_behind import ranking, runs, status

OWNER = 65534
"""The user who made a sweep; the colleague is root without root's power, and in the sweep's group."""
GRID = ["data=standin", "data.size=132", "features=small", "epochs=1", "name=mine", "model.filters=[4,8]", "device=cpu"]


@pytest.fixture(scope="module")
def colleagues() -> Iterator[Commands]:
    """The commands of users whose umask keeps their group out."""
    before = os.umask(0o077)
    with Commands() as commands:
        os.umask(before)
        yield commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose outputs/ is shared."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs").chmod(0o2775)
    return tmp_path


def by_hand(commands: Commands, folder: Path) -> Path:
    """Plan a sweep for Slurm, whose commands are stand-ins; return its folder."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, answer in {"scontrol": "echo MaxArraySize = 1001", "squeue": "true"}.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{answer}\n")
        (folder / "bin" / name).chmod(0o755)
    words = [*GRID, "hydra/launcher=slurm", "hydra.launcher.submit=false"]
    done = commands.run("train", *words, folder=folder, PATH=f"{folder}/bin:{os.environ['PATH']}")
    assert done.code == 0, done.stderr
    return folder / "outputs" / "mine"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def give_to_owner(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files to another user")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OWNER, -1, follow_symlinks=False)


def test_the_group_may_write_a_shared_sweep_whatever_the_umask(colleagues: Commands, folder: Path) -> None:
    sweep = by_hand(colleagues, folder)
    assert (mode(sweep), mode(sweep / "slurm"), mode(sweep / "plan.yaml")) == (0o2770, 0o2770, 0o660)
    assert all(path.stat().st_mode & 0o060 == 0o060 for path in sweep.rglob("*"))


@pytest.mark.parametrize("permissions", [0o755, 0o775, 0o2755])
def test_a_folder_that_is_not_shared_stays_its_users(colleagues: Commands, folder: Path, permissions: int) -> None:
    (folder / "outputs").chmod(permissions)
    sweep = by_hand(colleagues, folder)
    assert mode(sweep / "plan.yaml") == 0o600
    assert mode(sweep / "slurm") & 0o777 == 0o700


def test_a_colleague_resumes_a_run_and_ranks(colleagues: Commands, folder: Path) -> None:
    made = colleagues.train(*GRID, "-m", "lr=0.001,0.01", folder=folder)
    assert made.code == 0, made.stderr
    sweep = folder / "outputs" / "mine"
    (runs(sweep)[0] / "status.json").unlink()
    give_to_owner(sweep)
    again = colleagues.train(*GRID, "-m", "lr=0.001,0.01,0.1", folder=folder)
    assert (again.code, again.stderr) == (0, ""), again
    assert [status(run)["state"] for run in runs(sweep)] == ["COMPLETED"] * 3
    assert len(ranking(sweep)) == 3
    assert colleagues.run("rank", "outputs/mine", folder=folder).code == 0
    ours = [path for path in sweep.rglob("*") if path.stat().st_uid != OWNER]
    assert len(ours) > 10
    assert all(path.stat().st_mode & 0o060 == 0o060 for path in ours), "the owner can go on, too"


@pytest.mark.parametrize("closed", ["slurm", "plan.yaml", "."])
def test_a_colleague_who_lacks_access_learns_what_is_needed(colleagues: Commands, folder: Path, closed: str) -> None:
    sweep = by_hand(colleagues, folder)
    (sweep / "slurm" / "1_1.out").touch(0o640)
    give_to_owner(sweep)
    by_hand(colleagues, folder)
    give_to_owner(sweep)  # also what the colleague has written
    (sweep / closed).chmod(mode(sweep / closed) & ~0o020)
    for command, words in (("train", [*GRID, "hydra/launcher=slurm"]), ("refine", ["outputs/mine"])):
        message = colleagues.refuse(command, *words, folder=folder)
        path = Path("outputs/mine", closed)
        assert message.startswith(f"irmas.{command}: outputs/mine: is another user's, and {path} cannot be read and")
        assert "chmod -R g+rwX outputs/mine && " in message
        assert message.count("\n") == 1
    assert "cannot be read and written" in colleagues.refuse("rank", "outputs/mine", folder=folder)
    shown = colleagues.run("rank", "outputs/mine", "--table", folder=folder)
    assert (shown.code, shown.stderr) == (1, ""), "nothing is ranked yet"
