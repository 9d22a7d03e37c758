"""A disk that is full, and then has space again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SmallDisk
from factories import write_plan
from forked_commands import Commands
from left_behind import scalars

from irmas.config import Config, Data, Features, Model
from irmas.console import plain_console
from irmas.errors import in_words
from irmas.files import atomic_write
from irmas.results import ranking
from irmas.run.events import CONFUSION, RANKED, VAL_ACCURACY, EventWriter, event_files, read_scalars
from irmas.run.folder import COMPLETED, FAILED, RunFolder, Status
from irmas.sweep import pool
from irmas.sweep.plan import Plan, PlannedRun, freeze
from irmas.sweep.pool import SweepProgress
from irmas.sweep.sweep import Sweep

RUN = Path("outputs/one/runs/001")


@pytest.fixture
def here(small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    monkeypatch.chdir(small_disk.path)
    return small_disk


@pytest.fixture
def plan(data: Data, features: Features) -> Plan:
    """Its checkpoints have 0.5 MB, everything else in its folder less than 0.2."""
    config = Config(epochs=3, data=data, features=features, model=Model(filters=[8], dense=4096), device="cpu")
    return freeze(config, [PlannedRun(1, {}, {})], "one")


def test_an_old_file_stays_and_the_path_is_named(small_disk: SmallDisk) -> None:
    path = small_disk.path / "checkpoint.pt"
    atomic_write(path, b"old" * 100_000)
    small_disk.fill(free=200_000)
    with pytest.raises(OSError, match="No space left") as raised:
        atomic_write(path, b"new" * 100_000, keep=small_disk.path / "before.pt")
    assert in_words(raised.value) == f"{path}: No space left on device"
    assert path.read_bytes() == b"old" * 100_000
    assert sorted(file.name for file in small_disk.path.iterdir()) == ["checkpoint.pt", "filler"]


def test_an_event_file_keeps_what_was_committed_and_takes_the_rest_later(small_disk: SmallDisk) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    with EventWriter(small_disk.path, 1) as writer:
        writer.scalars(1, {VAL_ACCURACY: 0.5})
        writer.commit()
        (path,) = event_files(small_disk.path)
        committed = path.read_bytes()
        small_disk.fill(free=50_000)
        writer.image(1, CONFUSION, noise)
        writer.scalars(2, {VAL_ACCURACY: 0.75})
        with pytest.raises(OSError, match="No space left") as raised:
            writer.commit()
        assert raised.value.filename == str(path)
        assert path.read_bytes() == committed
        small_disk.free()
        writer.commit()
    assert read_scalars(small_disk.path).values == {VAL_ACCURACY: {1: 0.5, 2: 0.75}}
    assert read_scalars(small_disk.path).problems == []


def test_an_event_file_that_cannot_be_begun_is_not_left_behind(small_disk: SmallDisk) -> None:
    small_disk.fill(free=0)
    with pytest.raises(OSError, match="No space left"):
        EventWriter(small_disk.path, 1)
    assert event_files(small_disk.path) == []


def test_a_run_fails_with_path_and_reason_and_goes_on_when_there_is_room(
    here: SmallDisk, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        (whole,) = pool.launch(plan, 1)
    write_plan(Path("outputs/one"), plan)
    here.fill(free=400_000)
    (status,) = pool.launch(plan, 1)
    assert (status.state, status.epoch) == (FAILED, 0)
    assert RunFolder(RUN).status() == status
    assert status.message == "outputs/one/runs/001/checkpoint.pt: No space left on device"
    assert status.message in capsys.readouterr().out.replace("\n", "")

    here.free()
    (status,) = pool.launch(plan, 1)
    assert (status.state, status.metrics and status.metrics[RANKED]) == (
        COMPLETED,
        whole.metrics and whole.metrics[RANKED],
    )
    assert scalars(RUN) == scalars(tmp_path / RUN)
    assert read_scalars(RUN).problems == []


def test_where_not_even_the_status_can_be_written_the_parent_still_says_why(
    here: SmallDisk, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Path("outputs/one")
    write_plan(sweep, plan)
    RUN.mkdir(parents=True)
    RunFolder(RUN).amend_status(Status(FAILED, message="long ago"))
    here.fill(free=0)
    with SweepProgress(plain_console(), plan.runs, 0) as progress:
        pool.train(Sweep(sweep, plan), plan.runs, 1, progress)
    output = capsys.readouterr().out.replace("\n", "")
    assert re.search(r"FAILED +outputs/one/runs/001/\.lock\.\S+: No space left on device", output), output
    assert RunFolder(RUN).recorded().message == "long ago"

    here.free()
    (status,) = pool.launch(plan, 1)
    assert (status.state, status.message) == (COMPLETED, "")


def test_a_plan_and_a_ranking_stay_as_they_were(here: SmallDisk, plan: Plan, commands: Commands) -> None:
    sweep = Path("outputs/one")
    write_plan(sweep, plan)
    ranking.write(ranking.rank(Sweep.open(sweep)))
    files = [sweep / name for name in ("plan.yaml", "points.jsonl", "ranking.csv", "ranking.json")]
    before = [path.read_bytes() for path in files]
    here.fill(free=0)
    with pytest.raises(OSError, match="No space left") as raised:
        write_plan(sweep, replace(plan, runs=[*plan.runs, PlannedRun(2, {"lr": 0.5}, {"lr": 0.5})]))
    assert raised.value.filename == str(sweep / "points.jsonl")
    done = commands.run("rank", "outputs/one", folder=here.path)
    assert (done.code, "Traceback" in done.stderr) == (2, False)
    assert "No space left on device" in done.stderr
    assert "outputs/one" in done.stderr
    assert [path.read_bytes() for path in files] == before
    assert list(sweep.glob(".*")) == [sweep / ".lock"]
