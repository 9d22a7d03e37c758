"""A sweep on a real TensorBoard: runs by name, the HParams table, confusion matrices, and the ranking's pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import wait_until
from factories import REPORT, grid
from PIL import Image
from tensorboard_server import Fetch, tensorboard

from irmas.results.report import show_on_tensorboard
from irmas.run.events import CONFUSION, JUDGED, RANKED, VAL_ACCURACY, VAL_LOSS, VAL_MACRO_F1, EventWriter, event_files
from irmas.sweep.plan import PlannedRun
from irmas.sweep.sweep import Sweep

PLAN = grid(REPORT, name="made-up")
RUNS = PLAN.runs


def metrics(run: PlannedRun, epoch: int) -> dict[str, float]:
    """Return the metrics of a run; the last epoch's own accuracy orders runs the other way round."""
    share = epoch * run.id / 64
    return {RANKED: share, VAL_ACCURACY: 1 - share, VAL_LOSS: 4 - share, VAL_MACRO_F1: share / 2}


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (7, 5), grey).save(file, format="PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Board:
    """A running TensorBoard, and the sweep that it shows."""

    sweep: Sweep
    fetch: Fetch

    def tags(self, kind: str) -> dict[str, set[str]]:
        """Return the tags of `scalars` or `images`, by run."""
        return {run: set(tags) for run, tags in json.loads(self.fetch(f"{kind}/tags")).items() if tags}

    def greys(self, run: str, tag: str) -> list[int]:
        """Return the images' grey, by ascending step."""
        images = json.loads(self.fetch("images/images", run=run, tag=tag, sample=0))
        pictures = [self.fetch(f"images/individualImage?{image['query']}&") for image in images]
        return [int(np.asarray(Image.open(io.BytesIO(picture))).flat[0]) for picture in pictures]


@pytest.fixture(scope="module", params=["default", "--load_fast=false"])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """Return 18 runs and two pictures, loaded by either of TensorBoard's two loaders."""
    sweep = Sweep(tmp_path_factory.mktemp("outputs") / "made-up", PLAN).write()[0]
    for run in RUNS:
        path = sweep.run_folder(run).path
        path.mkdir(parents=True)
        with EventWriter(path, purge_step=1) as writer:
            writer.hparams(run.overrides, JUDGED, path.name)
            for epoch in (1, 2):
                writer.scalars(epoch, metrics(run, epoch))
            writer.image(2, CONFUSION, np.full((5, 7, 3), run.id, np.uint8))
            writer.end(ok=True)
            writer.commit()
    show_on_tensorboard(sweep, {"accuracy.png": png(10), "confusion.png": png(20)})
    with tensorboard(sweep.path, *([] if request.param == "default" else [request.param])) as fetch:
        board = Board(sweep, fetch)
        wait_until(lambda: len(board.tags("images")) == 19, "all runs are loaded", timeout_s=60)
        yield board


def test_every_run_has_its_curves_under_its_readable_name(board: Board) -> None:
    curves = board.tags("scalars")
    assert set(curves) == {f"runs/{run.folder_name}" for run in RUNS}
    assert curves["runs/008-dropout=0.4,lr=0.001,l2=0.0001"] == set(JUDGED)


def test_the_hparams_table_has_one_row_per_run_and_none_for_the_summary(board: Board) -> None:
    experiment = json.loads(board.fetch("hparams/experiment", {"experimentName": ""}))
    assert {info["name"] for info in experiment["hparamInfos"]} == set(PLAN.swept)
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == list(JUDGED)
    assert JUDGED[0] == RANKED == "val_accuracy"

    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [
            {"metric": {"tag": RANKED}, "order": "ORDER_DESC"},
            *({"metric": {"tag": tag}} for tag in JUDGED[1:]),
        ],
        "startIndex": 0,
        "sliceSize": 100,
    }
    rows = json.loads(board.fetch("hparams/session_groups", body))["sessionGroups"]
    assert [row["hparams"] for row in rows] == [run.overrides for run in RUNS[::-1]]
    for row, run in zip(rows, RUNS[::-1], strict=True):
        assert [session["name"] for session in row["sessions"]] == [f"runs/{run.folder_name}"]
        assert {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]} == metrics(run, epoch=2)


def test_confusion_matrices_and_the_rankings_pictures_are_shown(board: Board) -> None:
    runs = {f"runs/{run.folder_name}": {CONFUSION} for run in RUNS}
    assert board.tags("images") == runs | {"summary": {"ranking/accuracy", "ranking/confusion"}}
    assert board.greys("runs/008-dropout=0.4,lr=0.001,l2=0.0001", CONFUSION) == [8]
    assert board.greys("summary", "ranking/accuracy") == [10]
    assert board.greys("summary", "ranking/confusion") == [20]


def test_a_running_tensorboard_takes_up_changed_pictures(board: Board) -> None:
    def show(pictures: dict[str, bytes], grey: int) -> None:
        show_on_tensorboard(board.sweep, pictures)
        wait_until(lambda: board.greys("summary", "ranking/accuracy")[-1] == grey, f"grey {grey} is shown", 60)

    show({"accuracy.png": png(11), "confusion.png": png(21)}, 11)
    assert board.greys("summary", "ranking/confusion") == [20, 21]
    show({"accuracy.png": png(12)}, 12)
    assert board.tags("images")["summary"] == {"ranking/accuracy", "ranking/confusion"}


def test_the_summary_is_no_run(board: Board) -> None:
    assert {path.name for path in board.sweep.runs.iterdir()} == {run.folder_name for run in RUNS}


def contents(folder: Path) -> list[tuple[str, int, bytes]]:
    return [(path.name, path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())]


def test_the_same_pictures_again_change_nothing(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, PLAN)
    pictures = {"accuracy.png": png(10), "curves.png": png(20)}
    show_on_tensorboard(sweep, pictures)
    before = contents(sweep.summary)
    show_on_tensorboard(sweep, dict(reversed(pictures.items())))
    assert contents(sweep.summary) == before


def test_however_often_they_change_two_files_are_left(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, PLAN)
    for grey in range(5):
        show_on_tensorboard(sweep, {"accuracy.png": png(grey)})
    emptied, last = event_files(sweep.summary)
    assert (emptied.stat().st_size, png(4) in last.read_bytes()) == (0, True)
    assert len(contents(sweep.summary)) == 2


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, PLAN)
    show_on_tensorboard(sweep, {"accuracy.png": png(10)})
    (path,) = event_files(sweep.summary)
    path.write_bytes(path.read_bytes()[:-1])
    show_on_tensorboard(sweep, {"accuracy.png": png(10)})
    assert png(10) in event_files(sweep.summary)[-1].read_bytes()
