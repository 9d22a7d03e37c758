"""Successive halving: who goes on at a rung, what the others leave behind, and that all of it can be taken up again."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forked_commands import Commands
from left_behind import ranking, runs, status

from irmas.config import Config
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.pruning import WARNING, Halving, announced, goes_on, place, rungs


@pytest.mark.parametrize(
    ("epochs", "factor", "expected"),
    [
        (15, 3, [2, 5]),
        (50, 3, [2, 6, 17]),
        (9, 3, [1, 3]),
        (16, 2, [1, 2, 4, 8]),
        (5, 5, [1]),
        (1, 2, []),
        (81, 3, [1, 3, 9, 27]),
        (2, 2, [1]),
    ],
)
def test_the_rungs(epochs: int, factor: int, expected: list[int]) -> None:
    assert rungs(epochs, factor) == expected


def test_each_number_of_epochs_has_its_rungs_told() -> None:
    config = Config(halving=3, epochs=15)
    points = [
        PlannedRun(number, {"epochs": epochs}, {"epochs": epochs}) for number, epochs in enumerate((9, 32), start=1)
    ]
    told = announced(Plan("mine", ["epochs"], "data", "source", "", config, points))
    assert [line.partition(" epochs")[0] for line in told[:-1]] == [
        "halving=3: after 1 and 3 of 9",
        "halving=3: after 2 and 4 and 11 of 32",
    ]
    assert told[-1] == WARNING


def test_the_best_third_so_far_goes_on() -> None:
    entered: list[float] = []
    went_on = []
    for accuracy in [0.3, 0.2, 0.4, 0.35, 0.1, 0.39, 0.5]:
        went_on.append(goes_on(place(accuracy, entered), len(entered) + 1, 3))
        entered.append(accuracy)
    # Places 1 of 1, 2 of 2, 1 of 3, 2 of 4, 5 of 5, 2 of 6, 1 of 7.
    assert went_on == [True, False, True, True, False, True, True]


def test_equal_runs_share_the_better_place() -> None:
    assert place(0.5, [0.5, 0.5, 0.4]) == 1


def test_a_verdict_is_by_the_files_of_the_sweep(tmp_path: Path) -> None:
    def verdict(run: int, epoch: int, accuracy: float) -> str:
        return Halving(tmp_path, run, 3, 15).verdict(epoch, accuracy)

    assert not verdict(1, 1, 0.0)  # no rung
    assert not (tmp_path / "rungs").exists()
    assert not verdict(1, 2, 0.3)
    assert verdict(2, 2, 0.25) == "number 2 of 2 at epoch 2, where the best 1 go on"
    assert not verdict(3, 2, 0.5)
    assert not verdict(3, 5, 0.1)  # the first at its rung, whatever it was before
    assert verdict(1, 5, 0.05).startswith("number 2 of 2 at epoch 5")


def test_what_is_no_entry_of_a_rung_counts_for_nothing(tmp_path: Path) -> None:
    rung = tmp_path / "rungs" / "2"
    rung.mkdir(parents=True)
    for name in ("3-0.9", "junk", ".nfs0001", "20-", "-0.5", "21-nan", "22-0.1.part", "23-0.1-2"):
        (rung / name).touch()
    assert Halving(tmp_path, 1, 3, 15).verdict(2, 1e-05).startswith("number 2 of 2 ")
    assert Halving(tmp_path, 2, 3, 15).verdict(2, 0.0).startswith("number 3 of 3 ")


def test_a_run_that_comes_again_is_judged_once_more_and_counted_once(tmp_path: Path) -> None:
    def verdict(run: int, accuracy: float) -> str:
        return Halving(tmp_path, run, 3, 15).verdict(2, accuracy)

    assert not verdict(1, 0.3)
    assert not verdict(1, 0.3)
    assert not verdict(1, 0.31)  # on a GPU a second training of the same epoch may differ
    assert verdict(2, 0.2).startswith("number 2 of 2 ")
    assert not verdict(12, 0.4)
    assert verdict(1, 0.3).startswith("number 2 of 3 ")


def test_runs_that_come_at_once_see_each_other(tmp_path: Path) -> None:
    """The best one always goes on; nobody is lost."""
    accuracies = random.Random(0).sample(range(1000), 90)
    with ThreadPoolExecutor(16) as pool:
        verdicts = pool.map(lambda run: Halving(tmp_path, run, 3, 15).verdict(5, accuracies[run] / 1000), range(90))
        went_on = {accuracies[run] for run, verdict in enumerate(verdicts) if not verdict}
    assert max(accuracies) in went_on
    assert len(list((tmp_path / "rungs" / "5").iterdir())) == 90


def test_a_sweep_is_halved_and_not_taken_up_again(commands: Commands, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "half"
    (sweep / "rungs" / "1").mkdir(parents=True)
    (sweep / "rungs" / "1" / "99-0.99").touch()  # as if a better run had come first
    data = ["data=standin", "data.size=132", "features=small", "data.pool=2", "model.filters=[8,16]"]
    # The first run learns nothing, so that the second is ahead of it after one epoch.
    command = [*data, "-m", "lr=1e-9,0.003", "epochs=4", "halving=2", "name=half", "hydra.launcher.processes=1"]
    done = commands.train(*command, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "halving=2: after 1 and 2 of 4 epochs a run stops, unless" in done.stdout
    assert "1 of 2 runs finished, 1 stopped early" in done.stdout
    assert (
        "\nnext:    python -m irmas.train best=outputs/half epochs=50 name=half-production hydra/launcher=local\n"
        in done.stdout
    )
    entries = [(entry["rank"], entry["id"], entry["state"], entry["epoch"]) for entry in ranking(sweep)]
    assert entries == [(1, 2, "COMPLETED", 4), (2, 1, "PRUNED", 1)]
    first, second = map(status, runs(sweep))
    assert first["message"] == "number 2 of 2 at epoch 1, where the best 1 go on"
    assert not second["message"]
    again = commands.train(*command, folder=tmp_path)
    assert again.code == 0
    assert "2 runs, 2 finished before" in again.stdout
    assert "halving" not in (sweep / "best.yaml").read_text()


def test_halving_is_one_for_the_whole_sweep_and_needs_a_rung(commands: Commands, tmp_path: Path) -> None:
    refused = commands.refuse("train", "-m", "halving=2,3", folder=tmp_path)
    assert "halving=2: is one for the whole sweep" in refused
    assert "halving=5: must be at most epochs=4" in commands.refuse("train", "halving=5", "epochs=4", folder=tmp_path)
    assert "halving=1: must be a whole number from 2 to 100, or null" in commands.refuse(
        "train", "halving=1", folder=tmp_path
    )
