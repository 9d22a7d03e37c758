"""Successive halving: which runs continue at a rung, what the others leave behind, and that a rerun resumes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forked_commands import Commands
from left_behind import ranking, runs, status

from irmas.config import Config
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.pruning import WARNING, Halving, describe, rank, rungs, survives
from irmas.sweep.sweep import Sweep


def halving(path: Path, run: int) -> Halving:
    return Halving(Sweep(path, Plan("mine", [], "data", "source", "", Config())), run, factor=3, epochs=15)


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


def test_each_number_of_epochs_has_its_rungs_lines() -> None:
    config = Config(halving=3, epochs=15)
    points = [
        PlannedRun(number, {"epochs": epochs}, {"epochs": epochs}) for number, epochs in enumerate((9, 32), start=1)
    ]
    lines = describe(Plan("mine", ["epochs"], "data", "source", "", config, points))
    assert [line.partition(" epochs")[0] for line in lines[:-1]] == [
        "halving=3: after 1 and 3 of 9",
        "halving=3: after 2 and 4 and 11 of 32",
    ]
    assert lines[-1] == WARNING


def test_the_best_third_so_far_continues() -> None:
    entered: list[float] = []
    continued = []
    for accuracy in [0.3, 0.2, 0.4, 0.35, 0.1, 0.39, 0.5]:
        continued.append(survives(rank(accuracy, entered), len(entered) + 1, 3))
        entered.append(accuracy)
    # Ranks 1 of 1, 2 of 2, 1 of 3, 2 of 4, 5 of 5, 2 of 6, 1 of 7.
    assert continued == [True, False, True, True, False, True, True]


def test_equal_runs_share_the_better_rank() -> None:
    assert rank(0.5, [0.5, 0.5, 0.4]) == 1


def test_a_reason_is_by_the_files_of_the_sweep(tmp_path: Path) -> None:
    def reason(run: int, epoch: int, accuracy: float) -> str:
        return halving(tmp_path, run).reason_to_stop(epoch, accuracy)

    assert not reason(1, 1, 0.0)  # no rung
    assert not (tmp_path / "rungs").exists()
    assert not reason(1, 2, 0.3)
    assert reason(2, 2, 0.25) == "rank 2 of 2 at epoch 2, where the best 1 continue"
    assert not reason(3, 2, 0.5)
    assert not reason(3, 5, 0.1)  # the first at its rung, whatever it was before
    assert reason(1, 5, 0.05).startswith("rank 2 of 2 at epoch 5")


def test_what_is_no_entry_of_a_rung_counts_for_nothing(tmp_path: Path) -> None:
    rung = tmp_path / "rungs" / "2"
    rung.mkdir(parents=True)
    for name in ("3-0.9", "junk", ".nfs0001", "20-", "-0.5", "21-nan", "22-0.1.part", "23-0.1-2"):
        (rung / name).touch()
    assert halving(tmp_path, 1).reason_to_stop(2, 1e-05).startswith("rank 2 of 2 ")
    assert halving(tmp_path, 2).reason_to_stop(2, 0.0).startswith("rank 3 of 3 ")


def test_a_run_that_enters_again_is_compared_again_and_counted_once(tmp_path: Path) -> None:
    def reason(run: int, accuracy: float) -> str:
        return halving(tmp_path, run).reason_to_stop(2, accuracy)

    assert not reason(1, 0.3)
    assert not reason(1, 0.3)
    assert not reason(1, 0.31)  # on a GPU a second training of the same epoch may differ
    assert reason(2, 0.2).startswith("rank 2 of 2 ")
    assert not reason(12, 0.4)
    assert reason(1, 0.3).startswith("rank 2 of 3 ")


def test_runs_that_come_at_once_see_each_other(tmp_path: Path) -> None:
    """The best one always continues, and no entry is lost."""
    accuracies = random.Random(0).sample(range(1000), 90)
    with ThreadPoolExecutor(16) as pool:
        reasons = pool.map(lambda run: halving(tmp_path, run).reason_to_stop(5, accuracies[run] / 1000), range(90))
        continued = {accuracies[run] for run, reason in enumerate(reasons) if not reason}
    assert max(accuracies) in continued
    assert len(list((tmp_path / "rungs" / "5").iterdir())) == 90


def test_a_sweep_is_halved_and_a_rerun_trains_nothing(commands: Commands, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "half"
    (sweep / "rungs" / "1").mkdir(parents=True)
    (sweep / "rungs" / "1" / "99-0.99").touch()  # as if a better run had come first
    data = ["data=standin", "data.size=132", "features=small", "data.pool=2", "model.filters=[8,16]"]
    # The first run learns nothing, so that the second is ahead of it after one epoch.
    command = [*data, "-m", "lr=1e-9,0.003", "epochs=4", "halving=2", "name=half", "hydra.launcher.runs_at_once=1"]
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
    assert first["message"] == "rank 2 of 2 at epoch 1, where the best 1 continue"
    assert not second["message"]
    again = commands.train(*command, folder=tmp_path)
    assert again.code == 0
    assert "2 runs, 2 finished before" in again.stdout
    assert "halving" not in (sweep / "best.yaml").read_text()


def test_halving_is_one_for_the_whole_sweep_and_needs_a_rung(commands: Commands, tmp_path: Path) -> None:
    refused = commands.refuse("train", "-m", "halving=2,3", folder=tmp_path)
    assert "halving=2: cannot be swept" in refused
    refused = commands.refuse("train", "-m", "halving=2", "data.fold=0,1", folder=tmp_path)
    assert "halving=2: would prune runs whose data.fold is harder; give one fold" in refused
    assert "halving=5: must be at most epochs=4" in commands.refuse("train", "halving=5", "epochs=4", folder=tmp_path)
    assert "halving=1: must be a whole number from 2 to 100, or null" in commands.refuse(
        "train", "halving=1", folder=tmp_path
    )
