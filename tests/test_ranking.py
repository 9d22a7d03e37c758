"""The ranking of made-up runs: order, what is listed without a rank, and what is written."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from commands import ENVIRONMENT, ROOT, start
from doors import Doors, contents
from made_up import REPORT, SEEDS
from rich.console import Console
from rich.table import Table

from irmas.config import Config, Data
from irmas.console import width
from irmas.results import outcomes, ranking
from irmas.run import predictions
from irmas.run.events import RANKED, VAL_ACCURACY, VAL_LOSS, EventWriter, event_files
from irmas.run.folder import COMPLETED, DIVERGED, FAILED, PENDING, PRUNED, RUNNING, RunFolder, Status
from irmas.run.predictions import Predictions
from irmas.sweep import plan as plans
from irmas.sweep.plan import Plan, Point, run_folder

LRS = (0.1, 0.2, 0.3, 0.4)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "mine"
    points = [Point(number, {"lr": lr}, {"lr": lr}) for number, lr in enumerate(LRS, start=1)]
    plans.write(folder, Plan("mine", ["lr"], "data", "source", "", Config(), points))
    return folder


def train(
    sweep: Path,
    number: int,
    epochs: Sequence[tuple[float, float]],
    state: str = COMPLETED,
    error: str = "",
    ranked: Sequence[float] | None = None,
) -> RunFolder:
    """A run with these (accuracy, loss) an epoch, in float32-exact numbers.

    `ranked` is the figure that is ranked, an epoch each, where it is another one; empty for a run that has none.
    """
    folder = run_folder(sweep, plans.read(sweep, [number]).points[0])
    folder.path.mkdir(parents=True)
    with EventWriter(folder.path, purge_step=1) as writer:
        for epoch, (accuracy, loss) in enumerate(epochs, start=1):
            figures = {VAL_ACCURACY: accuracy, VAL_LOSS: loss}
            if ranked is None or len(ranked):
                figures[RANKED] = accuracy if ranked is None else ranked[epoch - 1]
            writer.scalars(epoch, figures)
        writer.commit()
    folder.write_status(Status(state, epoch=len(epochs), epochs=2, val_excerpts=64, message=error))
    return folder


def test_runs_rank_by_accuracy_then_loss_then_number(sweep: Path) -> None:
    train(sweep, 1, [(0.5, 1.0)])
    train(sweep, 2, [(0.75, 1.0)])
    train(sweep, 3, [(0.5, 0.5)])
    train(sweep, 4, [(0.5, 1.0)])
    rows = ranking.rank(sweep).rows
    assert [(row.rank, row.id) for row in rows] == [(1, 2), (2, 3), (3, 1), (4, 4)]
    assert (rows[0].accuracy, rows[0].loss, rows[0].epoch, rows[0].val_excerpts) == (0.75, 1.0, 1, 64)


def test_seeds_are_ranked_by_their_mean(tmp_path: Path) -> None:
    swept = [{"lr": lr, "seed": seed} for seed in (1, 2) for lr in (0.1, 0.2, 0.3)]
    points = [Point(number, values, values) for number, values in enumerate(swept, start=1)]
    plans.write(tmp_path, Plan("mine", ["lr", "seed"], "data", "source", "", Config(), points))
    for number, accuracy in ((1, 0.5), (2, 0.75), (3, 0.25), (4, 0.75), (5, 0.25)):
        train(tmp_path, number, [(accuracy, 1.0)])
    rows = ranking.rank(tmp_path).rows
    assert [(row.rank, row.id, row.point_accuracy) for row in rows] == [
        (1, 1, 0.625),
        (1, 4, 0.625),
        (2, 2, 0.5),
        (2, 5, 0.5),
        (3, 3, 0.25),
        (None, 6, None),
    ]


def answer(folder: RunFolder, correct: int) -> None:
    """Predictions of which so many of 64 are right, two excerpts a recording."""
    names = np.array([f"{row:02d}" for row in range(64)])
    targets = np.zeros(64, dtype=int)
    predicted = (np.arange(64) >= correct).astype(int)
    recordings = np.array([f"{row // 2}" for row in range(64)])
    answers = Predictions(np.array(["cel", "flu"]), names, recordings, targets, predicted, 1.0 - predicted)
    predictions.write(folder.predictions, answers)


def test_intervals_and_the_best_set_come_from_the_predictions(sweep: Path, doors: Doors) -> None:
    for number, correct in ((1, 60), (2, 59), (3, 8), (4, 7)):
        epochs = [((correct - epoch % 2) / 64, 1.0) for epoch in range(5)]
        answer(train(sweep, number, epochs), correct)
    done = doors.open("rank", "outputs/mine", folder=sweep.parent.parent)
    assert (done.code, done.stderr) == (0, "")
    entries = json.loads((sweep / "ranking.json").read_text())
    assert [entry["in_best_set"] for entry in entries] == [True, True, False, False]
    assert sum(entry["p_best"] for entry in entries) == pytest.approx(1, abs=0.01)
    assert [entry["expected_loss"] > 0.5 for entry in entries] == [False, False, True, True]
    for entry in entries:
        assert entry["point_low"] < entry["val_accuracy"] == entry["point_accuracy"] < entry["point_high"]
    shown = re.search(r"93\.75% +93\.75% +(\S+) - (\S+)% +yes ", done.stdout)
    assert shown is not None
    assert [float(end) / 100 for end in shown.groups()] == pytest.approx(
        [entries[0]["point_low"], entries[0]["point_high"]], abs=0.0006
    )
    folder = run_folder(sweep, plans.read(sweep).points[2])
    folder.predictions.write_bytes(folder.predictions.read_bytes()[:-1])
    done = doors.open("rank", "outputs/mine", folder=sweep.parent.parent)
    assert "could not be read: run 3: " in done.stdout
    assert "predictions.npz: is damaged" in done.stdout
    entries = json.loads((sweep / "ranking.json").read_text())
    assert [entry["in_best_set"] for entry in entries] == [True, True, None, False]


def test_who_reads_no_further_loses_no_file(sweep: Path) -> None:
    for number, correct in ((1, 60), (2, 59)):
        answer(train(sweep, number, [(correct / 64, 1.0)]), correct)
    ranking = start("rank", "outputs/mine", cwd=sweep.parent.parent)
    assert ranking.stdout is not None
    assert ranking.stderr is not None
    ranking.stdout.close()
    assert (ranking.wait(60), ranking.stderr.read()) == (0, "")
    ranking.stderr.close()
    for name in ("ranking.csv", "ranking.json", "report.md", "report.html", "best.yaml", "plots/accuracy.png"):
        assert (sweep / name).is_file(), name


def test_where_the_output_finds_a_full_disk_it_says_so(sweep: Path) -> None:
    train(sweep, 1, [(0.5, 1.0)])
    command = [sys.executable, "-m", "irmas.rank", "outputs/mine"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            cwd=sweep.parent.parent,
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "irmas.rank: what it prints cannot be written: no space left on device"
    assert "Traceback" not in done.stderr
    assert (sweep / "report.md").is_file()


def test_the_confusion_matrix_is_of_the_leaders_first_run(tmp_path: Path) -> None:
    swept = [{"lr": lr, "seed": seed} for seed in (1, 2) for lr in (0.1, 0.2)]
    points = [Point(number, values, values) for number, values in enumerate(swept, start=1)]
    plans.write(tmp_path, Plan("mine", ["lr", "seed"], "data", "source", "", Config(), points))
    runs = [train(tmp_path, number, [(correct / 64, 1.0)]) for number, correct in ((1, 60), (2, 8), (3, 50), (4, 8))]
    for run, correct in zip(runs, (60, 8, 50, 8), strict=True):
        answer(run, correct)
    _, confusion, _ = outcomes.read(tmp_path, ranking.rank(tmp_path))
    assert confusion is not None
    assert confusion[0].tolist() == [[60, 4], [0, 0]]
    for run in (runs[0], runs[2]):
        run.predictions.unlink()
    assert outcomes.read(tmp_path, ranking.rank(tmp_path))[1] is None


def test_the_table_alone_writes_nothing(sweep: Path, doors: Doors) -> None:
    train(sweep, 1, [(0.5, 1.0)])
    before = contents(sweep)
    done = doors.open("rank", "outputs/mine", "--table", folder=sweep.parent.parent)
    assert (done.code, done.stderr) == (0, "")
    assert "50.00%" in done.stdout
    assert contents(sweep) == before


def test_who_watches_sees_each_run_that_ends(sweep: Path) -> None:
    train(sweep, 1, [(0.5, 1.0)])
    second = train(sweep, 2, [(0.25, 1.0)], RUNNING)
    second.write_status(replace(second.recorded(), state=RUNNING))
    told = json.loads((second.path / "status.json").read_text())
    (second.path / "status.json").write_text(json.dumps(told | {"node": "elsewhere"}))
    watching = start("rank", "outputs/mine", "--watch", cwd=sweep.parent.parent)
    assert watching.stdout is not None
    while "50.00%" not in (line := watching.stdout.readline()):
        assert watching.poll() is None, line
    second.write_status(replace(second.recorded(), state=COMPLETED))
    said, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert said.count("2 of 4 runs finished") == 2  # as it was seen, and the last word
    assert "nothing of it trains" not in said
    assert (sweep / "ranking.csv").exists()


def test_who_watches_what_nobody_trains_is_told(sweep: Path, doors: Doors) -> None:
    train(sweep, 1, [(0.5, 1.0)])
    said = doors.open("rank", "outputs/mine", "--watch", folder=sweep.parent.parent)
    assert said.code == 0
    told = "outputs/mine: nothing of it trains or waits; the sweep's command, given again, trains what is left\n"
    assert said.stdout.count(told) == 1


def test_the_last_epoch_counts(sweep: Path) -> None:
    train(sweep, 1, [(0.75, 0.5), (0.25, 2.0)])
    train(sweep, 2, [(0.25, 1.0), (0.5, 1.0)])
    last = ranking.rank(sweep)
    assert [(row.id, row.epoch, row.accuracy) for row in last.rows[:2]] == [(2, 2, 0.5), (1, 2, 0.25)]


def test_the_ranked_figure_decides_and_the_last_epochs_own_stands_beside_it(sweep: Path) -> None:
    train(sweep, 1, [(0.25, 1.0), (0.75, 1.0)], ranked=[0.25, 0.5])
    train(sweep, 2, [(0.25, 1.0), (0.5, 1.0)], ranked=[0.25, 0.625])
    result = ranking.rank(sweep)
    figures = [(row.id, row.accuracy, row.last_accuracy, row.point_accuracy) for row in result.rows[:2]]
    assert figures == [(2, 0.625, 0.5, 0.625), (1, 0.5, 0.75, 0.5)]
    assert not ranking.old_runs(result)
    ranking.write(sweep, result)
    entries = json.loads((sweep / "ranking.json").read_text())
    assert [(entry["val_accuracy"], entry["last_val_accuracy"]) for entry in entries[:2]] == [(0.625, 0.5), (0.5, 0.75)]


def test_runs_of_an_earlier_version_have_no_rank_beside_new_ones(sweep: Path, doors: Doors) -> None:
    train(sweep, 1, [(0.25, 1.0), (0.75, 1.0)], ranked=[])
    train(sweep, 2, [(0.5, 1.0)])
    train(sweep, 3, [(0.75, 1.0)], PRUNED, ranked=[])
    result = ranking.rank(sweep)
    assert [(row.rank, row.id, row.accuracy, row.last_accuracy) for row in result.rows] == [
        (1, 2, 0.5, 0.5),
        (None, 1, None, 0.75),
        (None, 3, None, 0.75),
        (None, 4, None, None),
    ]
    assert [outcome.id for outcome in outcomes.read(sweep, result)[0]] == [2]
    done = doors.open("rank", "outputs/mine", "--table", folder=sweep.parent.parent)
    said = " ".join(done.stdout.split())
    assert done.code == 1
    assert "runs 1,3: trained by an earlier version and validated with batch norm's running statistics, " in said
    assert "without a rank; remove their folders in runs/ and rerun the sweep command, or train all runs under" in said


def test_a_sweep_of_an_earlier_version_is_ranked_by_its_last_epochs_and_told(sweep: Path, doors: Doors) -> None:
    train(sweep, 1, [(0.75, 1.0), (0.25, 1.0)], ranked=[])
    train(sweep, 2, [(0.25, 1.0), (0.5, 1.0)], ranked=[])
    assert [(row.rank, row.id, row.accuracy) for row in ranking.rank(sweep).rows[:2]] == [(1, 2, 0.5), (2, 1, 0.25)]
    done = doors.open("rank", "outputs/mine", "--table", folder=sweep.parent.parent)
    said = " ".join(done.stdout.split())
    assert done.code == 0
    assert "all runs were trained by an earlier version" in said
    assert "train the sweep again under another name=..." in said


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        ((6, 6, 6), "for runs 1,3, whose learning rate ends near zero, and the mean over the last 2 epochs for"),
        ((3, 6, 13), "for runs 1,3, whose learning rate ends near zero, and the mean over the last 2 epochs for"),
        ((6, 3, 6), ""),  # a mean over one epoch
        ((6, 0, 6), ""),
    ],
)
def test_a_sweep_that_mixes_means_with_last_epochs_says_so(
    tmp_path: Path, doors: Doors, epochs: tuple[int, ...], said: str
) -> None:
    sweep = tmp_path / "outputs" / "mine"
    kinds = enumerate(("onecycle", "constant", "onecycle"), start=1)
    points = [
        Point(number, {"schedule": kind}, {"schedule": kind} if kind == "onecycle" else {}) for number, kind in kinds
    ]
    plans.write(sweep, Plan("mine", ["schedule"], "data", "source", "", Config(), points))
    for number, count in enumerate(epochs, start=1):
        if count:
            train(sweep, number, [(0.5, 1.0)] * count)
    assert said in ranking.mixed_schedules(ranking.rank(sweep))
    shown = doors.open("rank", "outputs/mine", "--table", folder=tmp_path).stdout
    assert ("val_accuracy is the last epoch's" in shown) == bool(said)


def test_unfinished_failed_and_diverged_runs_are_listed_without_a_rank(sweep: Path) -> None:
    train(sweep, 2, [(0.9, 0.1)], FAILED, "Traceback ...\nRuntimeError: no more")
    train(sweep, 3, [(0.25, math.nan)], DIVERGED, "the loss is not finite in epoch 1")
    train(sweep, 4, [(0.5, 1.0)])
    rows = ranking.rank(sweep).rows
    assert [(row.rank, row.id, row.state, row.epoch) for row in rows] == [
        (1, 4, COMPLETED, 1),
        (None, 1, PENDING, 0),
        (None, 2, FAILED, 1),
        (None, 3, DIVERGED, 1),
    ]
    assert rows[2].error == "RuntimeError: no more"
    assert rows[3].loss is None


def test_stopped_runs_rank_behind_the_finished_ones_by_the_epoch_that_they_came_to(sweep: Path) -> None:
    train(sweep, 1, [(0.75, 1.0)], PRUNED, "number 2 of 2")
    train(sweep, 2, [(0.25, 1.0), (0.5, 1.0)], PRUNED, "number 2 of 2")
    train(sweep, 3, [(0.25, 1.0), (0.25, 1.0), (0.25, 1.0)])
    train(sweep, 4, [(0.75, 0.9)], PRUNED, "number 2 of 2")
    result = ranking.rank(sweep)
    assert [(row.rank, row.id, row.state, row.epoch, row.point_accuracy) for row in result.rows] == [
        (1, 3, COMPLETED, 3, 0.25),
        (2, 2, PRUNED, 2, None),
        (3, 4, PRUNED, 1, None),
        (4, 1, PRUNED, 1, None),
    ]
    found, _, _ = outcomes.read(sweep, result)
    assert [outcome.id for outcome in found] == [3]


def test_what_is_written_can_be_read_by_others(sweep: Path) -> None:
    train(sweep, 1, [(0.5, 1.0)])
    train(sweep, 3, [(0.25, math.nan)], DIVERGED)
    ranking.write(sweep, ranking.rank(sweep))
    entries = json.loads(
        (sweep / "ranking.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    assert entries[0] == {
        "rank": 1,
        "id": 1,
        "lr": 0.1,
        "val_accuracy": 0.5,
        "last_val_accuracy": 0.5,
        "val_loss": 1.0,
        "epoch": 1,
        "state": "COMPLETED",
        "val_excerpts": 64,
        "point_accuracy": 0.5,
        "point_low": None,
        "point_high": None,
        "in_best_set": None,
        "p_best": None,
        "expected_loss": None,
        "source": "",
    }
    assert [entry["id"] for entry in entries] == [1, 2, 3, 4]
    with (sweep / "ranking.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == ["1", "2", "3", "4"]
    assert float(lines[0]["val_accuracy"]) == 0.5


def test_damage_is_named_and_the_sound_rest_is_used(sweep: Path) -> None:
    folder = train(sweep, 1, [(0.5, 1.0), (0.75, 0.5)])
    (path,) = event_files(folder.path)
    path.write_bytes(path.read_bytes()[:-3])
    result = ranking.rank(sweep)
    assert (result.rows[0].epoch, result.rows[0].accuracy) == (1, 0.5)
    assert any("run 1" in problem and path.name in problem for problem in result.problems)
    assert any("lack epoch 2" in problem for problem in result.problems)


def test_a_damaged_status_file_costs_its_own_run_alone(sweep: Path) -> None:
    train(sweep, 1, [(0.5, 1.0)])
    (train(sweep, 2, [(0.5, 1.0)]).path / "status.json").write_text("{")
    rows = ranking.rank(sweep).rows
    assert [(row.rank, row.id, row.state) for row in rows[:3]] == [
        (1, 1, COMPLETED),
        (None, 2, FAILED),
        (None, 3, PENDING),
    ]
    assert "status.json" in rows[1].error


def test_the_command_prints_every_column_and_reason(sweep: Path, doors: Doors) -> None:
    train(sweep, 1, [(0.5, 1.25)], ranked=[0.75])
    train(sweep, 2, [(0.5, 1.0)], FAILED, "RuntimeError: [no] more")
    done = doors.open("rank", "outputs/mine", folder=sweep.parent.parent)
    assert done.code == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert "rank run lr val_accuracy last 95 % interval best set loss state" in map(" ".join, lines)
    assert ["1", "1", "0.1", "75.00%", "50.00%", "-", "-", "1.250", "COMPLETED"] in lines
    assert "run 2 FAILED: RuntimeError: [no] more" in done.stdout


def test_the_last_lines_are_the_next_command_and_why(sweep: Path, doors: Doors) -> None:
    train(sweep, 1, [(0.5, 1.25)])
    done = doors.open("rank", "outputs/mine", folder=sweep.parent.parent)
    assert done.stdout.splitlines()[-2:] == [
        "next:    python -m irmas.train best=outputs/mine epochs=50 name=mine-production",
        "why:     one point has finished, so that there is nothing to compare it with",
    ]


def cells(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True)]


@pytest.mark.parametrize("axes", [REPORT, SEEDS], ids=["one seed", "three seeds"])
def test_the_table_of_the_reports_grid_fits_100_columns(axes: Mapping[str, Sequence[Any]]) -> None:
    table = ranking.table(*made_up.sweep(axes, lambda values: 0.8 - values["lr"], training_sd=0.02))
    file = io.StringIO()
    console = Console(file=file, width=100)
    assert width(console, table) <= 100
    console.print(table)
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert len(lines) == 19
    interval = 2  # words that its dash adds
    assert {len(line) for line in lines[1:]} == {len(table.columns) + interval}
    assert "…" not in file.getvalue()


def test_a_point_with_seeds_has_one_row_and_every_run_its_own_on_request(tmp_path: Path, doors: Doors) -> None:
    folder = tmp_path / "outputs" / "mine"
    swept = [{"lr": lr, "seed": seed} for seed in (1, 2) for lr in (0.1, 0.2, 0.3)]
    points = [Point(number, values, values) for number, values in enumerate(swept, start=1)]
    plans.write(folder, Plan("mine", ["lr", "seed"], "data", "source", "", Config(), points))
    for number, accuracy in ((1, 0.5), (2, 0.75), (4, 0.75)):
        train(folder, number, [(accuracy, accuracy)])
    train(folder, 5, [(0.25, 9.0)], RUNNING)
    result = ranking.rank(folder)
    assert cells(ranking.table(result)) == [
        ["1", "2,5", "0.2", "75.00%", "75.00%", "0.750", "1/2"],
        ["2", "1,4", "0.1", "62.50%", "62.50%", "0.625", "2/2"],
        ["-", "3,6", "0.3", "-", "-", "-", "0/2"],
    ]
    by_run = cells(ranking.table(result, by_run=True))
    assert [row[:5] for row in by_run[:3]] == [
        ["1", "2", "0.2", "1", "75.00%"],
        ["2", "1", "0.1", "1", "50.00%"],
        ["2", "4", "0.1", "2", "75.00%"],
    ]
    assert len(by_run) == 6
    told = doors.open("rank", "outputs/mine", "--table", "--runs", folder=tmp_path)
    assert [line for line in told.stdout.splitlines() if line.split()[:4] == ["2", "4", "0.1", "2"]]


def test_who_trained_on_what_validates_is_told_wherever_the_accuracy_stands(tmp_path: Path, doors: Doors) -> None:
    folder = tmp_path / "outputs" / "mine"
    config = Config(data=Data(split="all"))
    plans.write(folder, Plan("mine", [], "data", "source", "", config, [Point(1, {}, {})]))
    train(folder, 1, [(0.5, 1.0)])
    done = doors.open("rank", "outputs/mine", folder=tmp_path)
    assert "data.split=all: the validation excerpts were trained on, so that it tells nothing" in done.stdout
    assert "**These accuracies tell nothing:**" in (folder / "report.md").read_text()
    assert "val_accuracy 50.00 % after 15 epochs, which tells nothing" in (folder / "best.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "is_folder"), [("ranking.csv", True), ("plots", False), ("summary", False), ("best.yaml", True)]
)
def test_a_sweep_that_cannot_be_written_is_shown_all_the_same(
    sweep: Path, name: str, is_folder: bool, doors: Doors
) -> None:
    for number in (1, 2):
        train(sweep, number, [(0.5, 1.0)])
    if is_folder:
        (sweep / name).mkdir()
    else:
        (sweep / name).touch()
    done = doors.open("rank", "outputs/mine", folder=sweep.parent.parent)
    assert (done.code, "Traceback" in done.stderr) == (2, False)
    assert "50.00%" in done.stdout
    assert done.stderr.startswith(f"irmas.rank: outputs/mine/{name}")
    assert done.stderr.endswith("; it is in the way of what the ranking writes: move it elsewhere, and rank again\n")


def test_runs_of_several_versions_are_told_apart(sweep: Path, doors: Doors) -> None:
    for number in (1, 2):
        train(sweep, number, [(0.5, 1.0)]).write_provenance({"source": "aaa"})
    train(sweep, 3, [(0.5, 1.0)]).write_provenance({"source": "bbb", "earlier_sources": ["aaa"]})
    done = doors.open("rank", "outputs/mine", folder=sweep.parent.parent)
    assert "mixed versions of the source: runs 1-2 by aaa, run 3 by aaa then bbb\n" in done.stdout
    assert [entry["source"] for entry in json.loads((sweep / "ranking.json").read_text())] == [
        "sha256:aaa",
        "sha256:aaa",
        "sha256:aaa sha256:bbb",
        "",
    ]


def test_runs_of_one_version_need_no_word_on_it(sweep: Path) -> None:
    train(sweep, 1, [(0.5, 1.0)]).write_provenance({"source": "aaa"})
    train(sweep, 2, [(0.5, 1.0)]).write_provenance({"source": "aaa", "earlier_sources": []})
    assert ranking.mixed_sources(ranking.rank(sweep)) == ""


def test_the_door_writes_down_how_a_dead_run_ended(sweep: Path, doors: Doors) -> None:
    folder = train(sweep, 1, [(0.5, 1.0)], RUNNING)
    pid = folder.recorded().pid
    done = doors.open("rank", "outputs/mine", folder=sweep.parent.parent)
    assert "run 1 FAILED: the process died without reporting an error" in done.stdout
    assert (folder.recorded().state, folder.recorded().pid, folder.recorded().epoch) == (FAILED, pid, 1)


def test_the_ranking_loads_without_torch() -> None:
    code = "import sys, irmas.rank; print(sorted({'torch', 'hydra', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
