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

import pytest
from commands import ENVIRONMENT, ROOT, start
from factories import REPORT, SEEDS, answer, grid, simulated, write_run
from forked_commands import Commands, contents
from left_behind import status
from rich.console import Console
from rich.table import Table

from irmas.config import Config, Data
from irmas.console import width
from irmas.results import ranking
from irmas.run.events import RANKED, VAL_ACCURACY, VAL_LOSS, event_files
from irmas.run.folder import COMPLETED, DIVERGED, FAILED, PENDING, PRUNED, RUNNING
from irmas.sweep.sweep import Sweep

LRS = (0.1, 0.2, 0.3, 0.4)


def planned(folder: Path, axes: Mapping[str, Sequence[Any]], base: Config | None = None) -> Sweep:
    """Return a sweep outputs/mine below this folder, with a plan and no run."""
    return Sweep(folder / "outputs" / "mine", grid(axes, base)).write()[0]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return planned(tmp_path, {"lr": LRS})


def test_runs_rank_by_accuracy_then_loss_then_number(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.5, 1.0)])
    write_run(sweep, 2, [(0.75, 1.0)])
    write_run(sweep, 3, [(0.5, 0.5)])
    write_run(sweep, 4, [(0.5, 1.0)])
    runs = ranking.rank(sweep).runs
    assert [(run.rank, run.id) for run in runs] == [(1, 2), (2, 3), (3, 1), (4, 4)]
    assert (runs[0].accuracy, runs[0].loss, runs[0].epoch, runs[0].val_excerpts) == (0.75, 1.0, 1, 64)


def test_seeds_are_ranked_by_their_mean(tmp_path: Path) -> None:
    sweep = planned(tmp_path, {"lr": (0.1, 0.2, 0.3), "seed": (1, 2)})
    for number, accuracy in ((1, 0.5), (2, 0.75), (3, 0.25), (4, 0.75), (5, 0.25)):
        write_run(sweep, number, [(accuracy, 1.0)])
    runs = ranking.rank(sweep).runs
    assert [(run.rank, run.id, run.point_accuracy) for run in runs] == [
        (1, 1, 0.625),
        (1, 4, 0.625),
        (2, 2, 0.5),
        (2, 5, 0.5),
        (3, 3, 0.25),
        (None, 6, None),
    ]


def analyzed(result: ranking.Ranking) -> list[int]:
    """Return the IDs of the runs from which conclusions are drawn."""
    analysis = ranking.analyze(result)
    return [run for point in analysis.points for run in point.runs] if analysis else []


def test_intervals_and_the_best_set_come_from_the_predictions(sweep: Sweep, commands: Commands) -> None:
    for number, correct in ((1, 60), (2, 59), (3, 8), (4, 7)):
        epochs = [((correct - epoch % 2) / 64, 1.0) for epoch in range(5)]
        answer(write_run(sweep, number, epochs), correct)
    done = commands.run("rank", "outputs/mine", folder=sweep.path.parent.parent)
    assert (done.code, done.stderr) == (0, "")
    entries = json.loads((sweep.path / "ranking.json").read_text())
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
    folder = sweep.run_folder(sweep.plan.runs[2])
    folder.predictions.write_bytes(folder.predictions.read_bytes()[:-1])
    done = commands.run("rank", "outputs/mine", folder=sweep.path.parent.parent)
    assert "could not be read: run 3: " in done.stdout
    assert "predictions.npz: is damaged" in done.stdout
    entries = json.loads((sweep.path / "ranking.json").read_text())
    assert [entry["in_best_set"] for entry in entries] == [True, True, None, False]


def test_files_are_written_although_nobody_reads_the_output(sweep: Sweep) -> None:
    for number, correct in ((1, 60), (2, 59)):
        answer(write_run(sweep, number, [(correct / 64, 1.0)]), correct)
    ranking = start("rank", "outputs/mine", cwd=sweep.path.parent.parent)
    assert ranking.stdout is not None
    assert ranking.stderr is not None
    ranking.stdout.close()
    assert (ranking.wait(60), ranking.stderr.read()) == (0, "")
    ranking.stderr.close()
    for name in ("ranking.csv", "ranking.json", "report.md", "report.html", "best.yaml", "plots/accuracy.png"):
        assert (sweep.path / name).is_file(), name


def test_output_to_a_full_disk_is_one_message(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.5, 1.0)])
    command = [sys.executable, "-m", "irmas.rank", "outputs/mine"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            cwd=sweep.path.parent.parent,
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "irmas.rank: the output cannot be written: no space left on device"
    assert "Traceback" not in done.stderr
    assert (sweep.path / "report.md").is_file()


def test_the_confusion_matrix_is_of_the_leaders_first_run(tmp_path: Path) -> None:
    sweep = planned(tmp_path, {"lr": (0.1, 0.2), "seed": (1, 2)})
    runs = [write_run(sweep, number, [(correct / 64, 1.0)]) for number, correct in ((1, 60), (2, 8), (3, 50), (4, 8))]
    for run, correct in zip(runs, (60, 8, 50, 8), strict=True):
        answer(run, correct)
    analysis = ranking.analyze(ranking.rank(sweep))
    assert analysis
    assert analysis.confusion
    assert analysis.confusion.counts.tolist() == [[60, 4], [0, 0]]
    for run in (runs[0], runs[2]):
        run.predictions.unlink()
    without = ranking.analyze(ranking.rank(sweep))
    assert without
    assert without.confusion is None


def test_the_table_alone_writes_nothing(tmp_path: Path, commands: Commands) -> None:
    sweep = planned(tmp_path, {"lr": LRS}, Config(note="[bold] steps"))
    write_run(sweep, 1, [(0.5, 1.0)])
    before = contents(sweep.path)
    done = commands.run("rank", "outputs/mine", "--table", folder=sweep.path.parent.parent)
    assert (done.code, done.stderr) == (0, "")
    assert "50.00%" in done.stdout
    assert "\nnote: [bold] steps\n" in done.stdout
    assert contents(sweep.path) == before


def test_watch_prints_the_table_whenever_a_run_has_ended(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.5, 1.0)])
    second = write_run(sweep, 2, [(0.25, 1.0)], RUNNING)
    second.write_status(replace(second.status(), state=RUNNING))
    (second.path / "status.json").write_text(json.dumps(status(second.path) | {"node": "elsewhere"}))
    watching = start("rank", "outputs/mine", "--watch", cwd=sweep.path.parent.parent)
    assert watching.stdout is not None
    while "50.00%" not in (line := watching.stdout.readline()):
        assert watching.poll() is None, line
    second.write_status(replace(second.status(), state=COMPLETED))
    output, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert output.count("2 of 4 runs finished") == 2  # while watching, and at the end
    assert "nothing is running" not in output
    assert (sweep.path / "ranking.csv").exists()


def test_watch_of_a_sweep_that_nothing_trains_names_the_remedy(sweep: Sweep, commands: Commands) -> None:
    write_run(sweep, 1, [(0.5, 1.0)])
    done = commands.run("rank", "outputs/mine", "--watch", folder=sweep.path.parent.parent)
    assert done.code == 0
    remedy = "outputs/mine: nothing is running or queued; rerun the sweep command to train the remaining runs\n"
    assert done.stdout.count(remedy) == 1


def test_the_last_epoch_counts(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.75, 0.5), (0.25, 2.0)])
    write_run(sweep, 2, [(0.25, 1.0), (0.5, 1.0)])
    last = ranking.rank(sweep)
    assert [(run.id, run.epoch, run.accuracy) for run in last.runs[:2]] == [(2, 2, 0.5), (1, 2, 0.25)]


def test_the_ranked_figure_decides_and_the_last_epochs_own_stands_beside_it(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.25, 1.0), (0.75, 1.0)], ranked=[0.25, 0.5])
    write_run(sweep, 2, [(0.25, 1.0), (0.5, 1.0)], ranked=[0.25, 0.625])
    result = ranking.rank(sweep)
    figures = [(run.id, run.accuracy, run.last_accuracy, run.point_accuracy) for run in result.runs[:2]]
    assert figures == [(2, 0.625, 0.5, 0.625), (1, 0.5, 0.75, 0.5)]
    assert not ranking.warnings(result)
    ranking.write(result)
    entries = json.loads((sweep.path / "ranking.json").read_text())
    assert [(entry["val_accuracy"], entry["last_val_accuracy"]) for entry in entries[:2]] == [(0.625, 0.5), (0.5, 0.75)]


def test_runs_of_an_earlier_version_have_no_rank_beside_new_ones(sweep: Sweep, commands: Commands) -> None:
    write_run(sweep, 1, [(0.25, 1.0), (0.75, 1.0)], ranked=[])
    write_run(sweep, 2, [(0.5, 1.0)])
    write_run(sweep, 3, [(0.75, 1.0)], PRUNED, ranked=[])
    result = ranking.rank(sweep)
    assert [(run.rank, run.id, run.accuracy, run.last_accuracy) for run in result.runs] == [
        (1, 2, 0.5, 0.5),
        (None, 1, None, 0.75),
        (None, 3, None, 0.75),
        (None, 4, None, None),
    ]
    assert analyzed(result) == [2]
    done = commands.run("rank", "outputs/mine", "--table", folder=sweep.path.parent.parent)
    output = " ".join(done.stdout.split())
    assert done.code == 1
    assert "runs 1,3 were trained by an earlier version and validated with batch norm's running statistics: " in output
    assert "no rank; remove their folders in runs/ and rerun the sweep command, or train all runs under" in output


def test_a_sweep_of_an_earlier_version_is_ranked_by_its_last_epochs_with_a_warning(
    sweep: Sweep, commands: Commands
) -> None:
    write_run(sweep, 1, [(0.75, 1.0), (0.25, 1.0)], ranked=[])
    write_run(sweep, 2, [(0.25, 1.0), (0.5, 1.0)], ranked=[])
    assert [(run.rank, run.id, run.accuracy) for run in ranking.rank(sweep).runs[:2]] == [(1, 2, 0.5), (2, 1, 0.25)]
    done = commands.run("rank", "outputs/mine", "--table", folder=sweep.path.parent.parent)
    output = " ".join(done.stdout.split())
    assert done.code == 0
    assert "all runs were trained by an earlier version" in output
    assert "train the sweep again under another name=..." in output


@pytest.mark.parametrize(
    ("epochs", "warning"),
    [
        ((6, 6, 6), "for runs 1,3, whose learning rate ends near zero, and the mean over the last 2 epochs for"),
        ((3, 6, 13), "for runs 1,3, whose learning rate ends near zero, and the mean over the last 2 epochs for"),
        ((6, 3, 6), ""),  # a mean over one epoch
        ((6, 0, 6), ""),
    ],
)
def test_a_mix_of_means_and_last_epochs_is_a_warning(
    tmp_path: Path, commands: Commands, epochs: tuple[int, ...], warning: str
) -> None:
    sweep = planned(tmp_path, {"schedule": ("onecycle", "constant", "onecycle")})
    for number, count in enumerate(epochs, start=1):
        if count:
            write_run(sweep, number, [(0.5, 1.0)] * count)
    assert warning in " ".join(ranking.warnings(ranking.rank(sweep)))
    shown = commands.run("rank", "outputs/mine", "--table", folder=tmp_path).stdout
    assert ("val_accuracy is the last epoch's" in shown) == bool(warning)


def test_unfinished_failed_and_diverged_runs_are_listed_without_a_rank(sweep: Sweep) -> None:
    write_run(sweep, 2, [(0.9, 0.1)], FAILED, "Traceback ...\nRuntimeError: no more")
    write_run(sweep, 3, [(0.25, math.nan)], DIVERGED, "the loss is not finite in epoch 1")
    write_run(sweep, 4, [(0.5, 1.0)])
    runs = ranking.rank(sweep).runs
    assert [(run.rank, run.id, run.state, run.epoch) for run in runs] == [
        (1, 4, COMPLETED, 1),
        (None, 1, PENDING, 0),
        (None, 2, FAILED, 1),
        (None, 3, DIVERGED, 1),
    ]
    assert runs[2].message == "RuntimeError: no more"
    assert runs[3].loss is None


def test_pruned_runs_rank_behind_finished_ones_by_the_epoch_that_they_reached(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.75, 1.0)], PRUNED, "number 2 of 2")
    write_run(sweep, 2, [(0.25, 1.0), (0.5, 1.0)], PRUNED, "number 2 of 2")
    write_run(sweep, 3, [(0.25, 1.0), (0.25, 1.0), (0.25, 1.0)])
    write_run(sweep, 4, [(0.75, 0.9)], PRUNED, "number 2 of 2")
    result = ranking.rank(sweep)
    assert [(run.rank, run.id, run.state, run.epoch, run.point_accuracy) for run in result.runs] == [
        (1, 3, COMPLETED, 3, 0.25),
        (2, 2, PRUNED, 2, None),
        (3, 4, PRUNED, 1, None),
        (4, 1, PRUNED, 1, None),
    ]
    assert analyzed(result) == [3]


def test_json_and_csv_can_be_read_back(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.5, 1.0)])
    write_run(sweep, 3, [(0.25, math.nan)], DIVERGED)
    ranking.write(ranking.rank(sweep))
    entries = json.loads(
        (sweep.path / "ranking.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
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
    with (sweep.path / "ranking.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == ["1", "2", "3", "4"]
    assert float(lines[0]["val_accuracy"]) == 0.5


def test_the_curves_have_one_row_per_scalar(tmp_path: Path) -> None:
    sweep = planned(tmp_path, {"lr": (0.1, 0.2), "model.filters": ([8, 16],)})
    write_run(sweep, 1, [(0.5, 1.5), (0.75, 1.0)])
    write_run(sweep, 2, [(0.25, math.nan)], DIVERGED)
    paths = ranking.write(ranking.rank(sweep))
    assert paths[-1] == sweep.path / "curves.csv"
    with paths[-1].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["id", "lr", "model.filters", "epoch", "tag", "value"]
    known = {(line["id"], line["tag"], line["epoch"]): float(line["value"]) for line in lines}
    assert len(known) == len(lines) == 9
    assert known["1", VAL_ACCURACY, "2"] == known["1", RANKED, "2"] == 0.75
    assert math.isnan(known["2", VAL_LOSS, "1"])
    assert {(line["id"], line["lr"], line["model.filters"]) for line in lines} == {
        ("1", "0.1", "[8,16]"),
        ("2", "0.2", "[8,16]"),
    }


def test_damage_is_named_and_the_sound_rest_is_used(sweep: Sweep) -> None:
    folder = write_run(sweep, 1, [(0.5, 1.0), (0.75, 0.5)])
    (path,) = event_files(folder.path)
    path.write_bytes(path.read_bytes()[:-3])
    result = ranking.rank(sweep)
    assert (result.runs[0].epoch, result.runs[0].accuracy) == (1, 0.5)
    assert any("run 1" in problem and path.name in problem for problem in result.problems)
    assert any("lack epoch 2" in problem for problem in result.problems)


def test_a_damaged_status_file_affects_only_its_run(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.5, 1.0)])
    (write_run(sweep, 2, [(0.5, 1.0)]).path / "status.json").write_text("{")
    runs = ranking.rank(sweep).runs
    assert [(run.rank, run.id, run.state) for run in runs[:3]] == [
        (1, 1, COMPLETED),
        (None, 2, FAILED),
        (None, 3, PENDING),
    ]
    assert "status.json" in runs[1].message


def test_the_command_prints_every_column_reason_and_the_next_command(sweep: Sweep, commands: Commands) -> None:
    write_run(sweep, 1, [(0.5, 1.25)], ranked=[0.75])
    write_run(sweep, 2, [(0.5, 1.0)], FAILED, "RuntimeError: [no] more")
    done = commands.run("rank", "outputs/mine", folder=sweep.path.parent.parent)
    assert done.code == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert "rank run lr val_accuracy last 95 % interval best set loss state" in map(" ".join, lines)
    assert ["1", "1", "0.1", "75.00%", "50.00%", "-", "-", "1.250", "COMPLETED"] in lines
    assert "run 2 FAILED: RuntimeError: [no] more" in done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "next:    python -m irmas.train best=outputs/mine epochs=50 name=mine-production",
        "why:     one point has finished, and no other to compare it with",
    ]


def test_one_configuration_has_every_figure_and_in_the_formats_that_are_named(
    tmp_path: Path, commands: Commands
) -> None:
    sweep = planned(tmp_path, {"seed": (1, 2)})
    for number in (1, 2):
        answer(write_run(sweep, number, [(0.25, 1.0), (0.75, 0.5)]), 48 - number)
    folder = sweep.path.parent.parent
    for figures, endings in (("pdf svg", ("pdf", "png", "svg")), ("svg", ("png", "svg")), ("", ("png",))):
        done = commands.run(
            "rank", "outputs/mine", *(["--figures", *figures.split()] if figures else []), folder=folder
        )
        assert (done.code, done.stderr) == (0, "")
        names = [f"{name}.{ending}" for name in ("confusion", "curves") for ending in endings]
        assert sorted(path.name for path in sweep.plots.iterdir()) == names
    page = sweep.page.read_text()
    assert page.count('src="data:image/png') == 2
    assert re.search(r"<strong>One point:</strong> runs 1-2, 75\.0&nbsp;% observed\..* 95&nbsp;%: [\d.]+ to", page)
    assert [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()[-4:-1]] == [
        "python -m irmas.evaluate outputs/mine data/IRMAS-TestingData-Part*",
        "python -m irmas.predict outputs/mine song.mp3",
        "python -m irmas.export outputs/mine model.onnx",
    ]
    assert "--table writes nothing" in commands.refuse(
        "rank", "outputs/mine", "--table", "--figures", "pdf", folder=folder
    )
    assert "invalid choice: 'jpg'" in commands.refuse("rank", "outputs/mine", "--figures", "jpg", folder=folder)


def cells(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True)]


@pytest.mark.parametrize("axes", [REPORT, SEEDS], ids=["one seed", "three seeds"])
def test_the_table_of_the_reports_grid_fits_100_columns(axes: Mapping[str, Sequence[Any]]) -> None:
    table = ranking.table(*simulated(axes, lambda values: 0.8 - values["lr"], training_sd=0.02))
    file = io.StringIO()
    console = Console(file=file, width=100)
    assert width(console, table) <= 100
    console.print(table)
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert len(lines) == 19
    interval = 2  # words that its dash adds
    assert {len(line) for line in lines[1:]} == {len(table.columns) + interval}
    assert "…" not in file.getvalue()


def test_a_point_with_seeds_has_one_row_and_every_run_its_own_on_request(tmp_path: Path, commands: Commands) -> None:
    sweep = planned(tmp_path, {"lr": (0.1, 0.2, 0.3), "seed": (1, 2)})
    for number, accuracy in ((1, 0.5), (2, 0.75), (4, 0.75)):
        write_run(sweep, number, [(accuracy, accuracy)])
    write_run(sweep, 5, [(0.25, 9.0)], RUNNING)
    result = ranking.rank(sweep)
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
    done = commands.run("rank", "outputs/mine", "--table", "--runs", folder=tmp_path)
    assert [line for line in done.stdout.splitlines() if line.split()[:4] == ["2", "4", "0.1", "2"]]


def test_folds_and_seeds_are_one_row_and_a_point_that_lacks_a_fold_comes_last(tmp_path: Path) -> None:
    sweep = planned(tmp_path, {"lr": (0.1, 0.2, 0.3), "data.fold": (0, 1), "seed": (1, 2)})
    by_run = {
        (run.overrides["lr"], run.overrides["data.fold"], run.overrides["seed"]): run.id for run in sweep.plan.runs
    }
    accuracies = {(0.1, 0): 0.5, (0.1, 1): 0.75, (0.2, 0): 0.25, (0.2, 1): 0.75, (0.3, 1): 0.75}  # fold 0 is hard
    for (lr, fold, seed), number in by_run.items():
        if (lr, fold) in accuracies and (lr, fold, seed) != (0.1, 0, 2):
            write_run(sweep, number, [(accuracies[lr, fold], 1.0)])
    result = ranking.rank(sweep)
    table = ranking.table(result)
    assert [column.header for column in table.columns][-2:] == ["loss", "seeds x folds"]
    # The mean over folds: the harder one counts as much as the other, though it lacks a seed.
    assert [(row[0], row[2], row[3], row[-1]) for row in cells(table)] == [
        ("1", "0.1", "62.50%", "3/4"),
        ("2", "0.2", "50.00%", "4/4"),
        ("3", "0.3", "75.00%", "2/4"),
    ]
    ranking.write(result)
    with (sweep.path / "ranking.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    assert next((line["rank"], line["point_accuracy"]) for line in lines if line["lr"] == "0.1") == ("1", "0.625")
    assert sorted(row[3] for row in cells(ranking.table(result, by_run=True))[:3]) == ["0", "1", "1"]


def test_the_confusion_matrix_of_the_leader_holds_each_fold_once(tmp_path: Path) -> None:
    sweep = planned(tmp_path, {"data.fold": (0, 1), "seed": (1, 2)})
    for run in sweep.plan.runs:
        answer(write_run(sweep, run.id, [(0.5, 1.0)]), 32)
    result = ranking.analyze(ranking.rank(sweep))
    assert result
    assert result.confusion
    firsts = [min(run.id for run in sweep.plan.runs if run.overrides["data.fold"] == fold) for fold in (0, 1)]
    assert (result.confusion.runs, result.confusion.counts.sum()) == (tuple(firsts), 128)


def test_accuracy_on_training_data_carries_a_warning_in_every_output(tmp_path: Path, commands: Commands) -> None:
    sweep = planned(tmp_path, {}, Config(data=Data(split="all")))
    write_run(sweep, 1, [(0.5, 1.0)])
    done = commands.run("rank", "outputs/mine", folder=tmp_path)
    assert "data.split=all: val_accuracy means nothing: the validation excerpts were trained on" in done.stdout
    assert "**These accuracies mean nothing:**" in (sweep.path / "report.md").read_text()
    assert "val_accuracy 50.00 % after 15 epochs, which means nothing" in (sweep.path / "best.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [("ranking.csv", True), ("curves.csv", True), ("plots", False), ("summary", False), ("best.yaml", True)],
)
def test_a_ranking_that_cannot_be_written_is_still_printed(
    sweep: Sweep, name: str, is_folder: bool, commands: Commands
) -> None:
    for number in (1, 2):
        write_run(sweep, number, [(0.5, 1.0)])
    if is_folder:
        (sweep.path / name).mkdir()
    else:
        (sweep.path / name).touch()
    done = commands.run("rank", "outputs/mine", folder=sweep.path.parent.parent)
    assert (done.code, "Traceback" in done.stderr) == (2, False)
    assert "50.00%" in done.stdout
    assert done.stderr.startswith(f"irmas.rank: outputs/mine/{name}")
    assert done.stderr.endswith("; blocks a file of the ranking: move it away, and rank again\n")


def test_mixed_versions_of_the_source_are_named(sweep: Sweep, commands: Commands) -> None:
    for number in (1, 2):
        write_run(sweep, number, [(0.5, 1.0)]).write_provenance({"source": "aaa"})
    write_run(sweep, 3, [(0.5, 1.0)]).write_provenance({"source": "bbb", "earlier_sources": ["aaa"]})
    done = commands.run("rank", "outputs/mine", folder=sweep.path.parent.parent)
    assert "mixed versions of the source: runs 1-2 by aaa, run 3 by aaa then bbb\n" in done.stdout
    assert [entry["source"] for entry in json.loads((sweep.path / "ranking.json").read_text())] == [
        "sha256:aaa",
        "sha256:aaa",
        "sha256:aaa sha256:bbb",
        "",
    ]


def test_a_single_version_of_the_source_needs_no_warning(sweep: Sweep) -> None:
    write_run(sweep, 1, [(0.5, 1.0)]).write_provenance({"source": "aaa"})
    write_run(sweep, 2, [(0.5, 1.0)]).write_provenance({"source": "aaa", "earlier_sources": []})
    assert ranking.warnings(ranking.rank(sweep)) == []


def test_the_final_state_of_a_dead_run_is_recorded(sweep: Sweep, commands: Commands) -> None:
    folder = write_run(sweep, 1, [(0.5, 1.0)], RUNNING)
    before = status(folder.path)
    done = commands.run("rank", "outputs/mine", folder=sweep.path.parent.parent)
    after = status(folder.path)
    assert f"run 1 FAILED: {after['message']}\n" in done.stdout
    assert (before["state"], after["state"]) == (RUNNING, FAILED)
    assert (after["pid"], after["epoch"]) == (before["pid"], 1)


def test_the_ranking_loads_without_torch() -> None:
    code = "import sys, irmas.rank; print(sorted({'torch', 'hydra', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
