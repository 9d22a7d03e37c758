"""What a command expects of its runs before it submits, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import grid
from forked_commands import Commands

from irmas.config import Config, Model
from irmas.errors import ConfigError
from irmas.run.events import EPOCH_S, EventWriter
from irmas.run.folder import COMPLETED, PROVENANCE, RUNNING, Status
from irmas.sweep import cost
from irmas.sweep.cost import Places
from irmas.sweep.settings import Settings
from irmas.sweep.sweep import Sweep

CPU, GPU = "cpu (2 threads)", "NVIDIA H100"
SIX = {"lr": [0.1, 0.2, 0.3], "dropout": [0.1, 0.2]}
ONE_AT_A_TIME = Places(1, True, "GPU", lambda run: 1)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a small net, and of a small stand-in outside the folder of the commands."""
    folder = tmp_path_factory.mktemp("data")
    data = ["data=standin", "data.size=132", f"data.root={folder}", f"data.cache_dir={folder}/cache"]
    return [*data, "features=small", "model.filters=[4,8]"]


def written(name: str, axes: Mapping[str, Sequence[Any]] = SIX, base: Config | None = None) -> Sweep:
    sweep, _ = Sweep.of(grid(axes, base, name)).write()
    return sweep


def trained(sweep: Sweep, number: int, *epochs: float, device: str = GPU, state: str = COMPLETED) -> None:
    """Write a run whose epochs took these seconds."""
    folder = sweep.run_folder(sweep.plan.runs[number - 1])
    folder.path.mkdir(parents=True)
    with EventWriter(folder.path, purge_step=1) as writer:
        for epoch, seconds in enumerate(epochs, start=1):
            writer.scalars(epoch, {EPOCH_S: seconds})
        writer.commit()
    (folder.path / PROVENANCE).write_text(json.dumps({"device": device}))
    folder.write_status(Status(state, epoch=len(epochs), epochs=15, metrics={EPOCH_S: epochs[-1]}))


def expected(
    capsys: pytest.CaptureFixture[str],
    sweep: Sweep,
    places: Places = ONE_AT_A_TIME,
    max_hours: float | None = None,
    done: Mapping[int, int] | None = None,
) -> str:
    cost.expect(sweep, sweep.plan.runs, done or {}, places, max_hours)
    return capsys.readouterr().out


def test_an_earlier_sweep_of_the_same_data_and_net_is_the_measure(capsys: pytest.CaptureFixture[str]) -> None:
    trained(written("old", {"seed": [0, 1, 2]}), 2, 90.0, 10.0, 10.5)
    line = expected(capsys, written("new"), Places(2, True, "GPU", lambda run: 2))
    assert line.startswith("expected: 6 runs x 15 epochs, 0.53 GPU hours, about 7 min 53 s with 2 at a time, ")
    assert line.endswith(" kB (from run 2 of outputs/old: 10.5 s per epoch on NVIDIA H100)\n")


def test_the_sweeps_own_runs_come_first_and_epochs_that_are_done_are_not_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = written("new")
    trained(written("old"), 1, 90.0)
    trained(mine, 5, 40.0, state=RUNNING)
    line = expected(capsys, mine, done={5: 1})
    assert line.startswith("expected: 6 runs, 89 epochs, 0.99 GPU hours, about 59 min with 1 at a time, ")
    assert "(from run 5 of outputs/new: 40 s per epoch on NVIDIA H100)" in line


@pytest.mark.parametrize("other", ["data", "device", "net", "started", "damaged"])
def test_a_run_that_shows_nothing_is_no_measure(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = Config(model=Model(filters=[4])) if other == "net" else Config()
    old = Sweep.of(replace(grid(SIX, base, "old"), data="others" if other == "data" else "data"))
    old.write()
    trained(old, 1, 9.0, device=CPU if other == "device" else GPU)
    status = old.run_folder(old.plan.runs[0]).path / "status.json"
    if other in ("started", "damaged"):
        status.write_text("{" if other == "damaged" else Status(RUNNING).to_json())
    assert expected(capsys, written("new")) == (
        "expected: no epoch of the net and data of 6 runs is measured on a GPU yet; "
        "hydra.launcher.pilot=true trains one run per net first\n"
    )


def test_nets_that_are_not_measured_are_named_and_are_what_a_pilot_trains(capsys: pytest.CaptureFixture[str]) -> None:
    nets = written("nets", {"batch_size": [32, 64, 128], "lr": [0.1, 0.2]})
    assert [run.id for run in cost.unmeasured(nets.plan, ONE_AT_A_TIME)] == [1, 3, 5]
    trained(nets, 4, 30.0)
    trained(nets, 5, 60.0)
    line = expected(capsys, nets)
    assert line.startswith("expected: 4 runs x 15 epochs, 0.75 GPU hours, ")
    assert "(from run 4 of outputs/nets and 1 more: 30 to 60 s per epoch on NVIDIA H100); " in line
    assert line.count("no epoch of the net and data of 2 runs is measured") == 1
    assert [run.id for run in cost.unmeasured(nets.plan, ONE_AT_A_TIME)] == [1]


def test_more_hours_than_allowed_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    mine = written("new")
    with pytest.raises(ConfigError, match=r"max_hours=9: no epoch .* measured on a GPU yet; hydra.launcher.pilot=true"):
        expected(capsys, mine, max_hours=9)
    trained(mine, 1, 60.0)
    assert "1.5 GPU hours" in expected(capsys, mine, max_hours=1.5)
    with pytest.raises(ConfigError, match=r"max_hours=1.4: 6 runs would take 1.5 GPU hours \(from run 1 of outputs"):
        expected(capsys, mine, max_hours=1.4)


def test_ten_thousand_runs_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"seed": range(10_000)}
    for number in range(3):
        written(f"other{number}", many)
    looks: list[str] = []
    monkeypatch.setattr(cost, "_measurement", lambda sweep, run, on_gpu: looks.append(f"{sweep} {run.id}"))
    plan = grid(many, name="new")
    assert len(cost.unmeasured(plan, ONE_AT_A_TIME)) == 1
    assert len(looks) == 3 * cost.LOOKS
    assert looks[0] == "outputs/other2 1"
    looks.clear()
    monkeypatch.setattr(cost, "LOOK_S", -1.0)
    cost.unmeasured(plan, ONE_AT_A_TIME)
    assert looks == []


@pytest.mark.parametrize(
    ("settings", "device", "places"),
    [
        (Settings(), "auto", (6, True, "GPU", 1.0)),
        (Settings(throttle=4), "auto", (4, True, "GPU", 1.0)),
        (Settings(throttle=2, gpus="a100:2", runs_at_once=4), "auto", (6, True, "GPU", 0.5)),
        (Settings(runs_per_task=3), "auto", (2, True, "GPU", 1.0)),
        (Settings(gpus=0, sbatch={"gpus": 1}), "auto", (6, True, "GPU", 1.0)),
        (Settings(), "cpu", (6, False, "GPU", 1.0)),
        (Settings(gpus=0, cpus=4, runs_at_once=2), "cpu", (6, False, "core", 2.0)),
        (Settings(gpus=0, cpus=None), "auto", (6, False, "core", 1.0)),
        (Settings(rules=[{"when": {"lr": 0.1}, "gpus": 4, "runs_at_once": 1}]), "auto", (6, True, "GPU", 4.0)),
    ],
)
def test_what_a_run_occupies_on_slurm(settings: Settings, device: str, places: tuple[int, bool, str, float]) -> None:
    plan = grid(SIX, Config(device=device))
    found = cost.on_slurm(plan, settings, 6)
    assert (found.at_once, found.on_gpu, found.unit, found.share(plan.runs[0])) == places
    assert cost.on_slurm(plan, settings, 0).at_once == 1


def test_what_a_run_occupies_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "cpu_count", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    plan = grid(SIX)
    on_cpu = cost.here(plan, 4, 6)
    assert (on_cpu.at_once, on_cpu.unit, on_cpu.share(plan.runs[0])) == (4, "core", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for at_once, share in {None: 1, 4: 0.5, 1: 1}.items():
        on_gpu = cost.here(plan, at_once, 6)
        assert (on_gpu.unit, on_gpu.share(plan.runs[0])) == ("GPU", share)


def test_a_pilot_goes_ahead_of_the_sweep_and_its_epochs_are_the_measure(
    settings: list[str], tmp_path: Path, commands: Commands
) -> None:
    command = ["lr=0.1,0.01", "batch_size=16,32", *settings, "epochs=1", "name=mine", "hydra.launcher.max_hours=9"]
    refused = commands.train(*command, folder=tmp_path)
    assert (refused.code, list(tmp_path.iterdir())) == (2, [])
    assert "hydra.launcher.max_hours=9.0: no epoch of the net and data of 4 runs is measured" in refused.stderr
    pilot = commands.train(*command, "hydra.launcher.pilot=true", folder=tmp_path)
    assert pilot.code == 0, pilot.stderr
    assert "pilot: 2 of 4 runs, one for each net without a measured epoch; rerun the command" in pilot.stdout
    assert "\nexpected: no epoch of the net and data of 2 runs is measured on the CPU yet\n" in pilot.stdout
    assert "outputs/mine: 2 runs, 0 finished before" in pilot.stdout
    assert "\nused:    " in pilot.stdout
    rest = commands.train(*command, "hydra.launcher.pilot=true", folder=tmp_path)
    assert rest.stdout.startswith("expected: 2 runs x 1 epoch, "), rest.stderr
    assert "(from run 1 of outputs/mine and 1 more: " in rest.stdout
    assert "outputs/mine: 4 runs, 2 finished before" in rest.stdout
    sweep = Sweep.open(tmp_path / "outputs" / "mine")
    assert [tuple(run.overrides.values()) for run in sweep.plan.runs] == [(0.1, 16), (0.1, 32), (0.01, 16), (0.01, 32)]
