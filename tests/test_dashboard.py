"""A sweep on a real TensorBoard: runs by name, the HParams table, confusion matrices, and the ranking's pictures."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import wait_until
from factories import run_folder, write_plan
from PIL import Image
from tensorboard_server import Fetch, tensorboard

from irmas.config import Config
from irmas.results import dashboard
from irmas.run.events import CONFUSION, JUDGED, RANKED, VAL_ACCURACY, VAL_LOSS, VAL_MACRO_F1, EventWriter, event_files
from irmas.sweep.plan import Plan, PlannedRun

KEYS = ("dropout", "lr", "l2")
GRID = itertools.product((0.3, 0.4, 0.5), (0.001, 0.0005, 0.0001), (0.001, 0.0001))
VALUES = [dict(zip(KEYS, values, strict=True)) for values in GRID]
POINTS = [PlannedRun(number, values, values) for number, values in enumerate(VALUES, start=1)]


def metrics(point: PlannedRun, epoch: int) -> dict[str, float]:
    """What HParams shows of a run: the last epoch's own accuracy orders them the other way round."""
    share = epoch * point.id / 64
    return {RANKED: share, VAL_ACCURACY: 1 - share, VAL_LOSS: 4 - share, VAL_MACRO_F1: share / 2}


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (7, 5), grey).save(file, format="PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Board:
    """A running TensorBoard, and the sweep that it shows."""

    sweep: Path
    fetch: Fetch

    def tags(self, what: str) -> dict[str, set[str]]:
        """Of `scalars` or `images`, by run."""
        return {run: set(tags) for run, tags in json.loads(self.fetch(f"{what}/tags")).items() if tags}

    def greys(self, run: str, tag: str) -> list[int]:
        """The images' grey, by ascending step."""
        images = json.loads(self.fetch("images/images", run=run, tag=tag, sample=0))
        pictures = [self.fetch(f"images/individualImage?{image['query']}&") for image in images]
        return [int(np.asarray(Image.open(io.BytesIO(picture))).flat[0]) for picture in pictures]


@pytest.fixture(scope="module", params=["default", "--load_fast=false"])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """18 runs and two pictures, loaded by either of TensorBoard's two loaders."""
    sweep = tmp_path_factory.mktemp("outputs") / "made-up"
    write_plan(sweep, Plan("made-up", list(KEYS), "data", "source", "", Config(), POINTS))
    for point in POINTS:
        path = run_folder(sweep, point).path
        path.mkdir(parents=True)
        with EventWriter(path, purge_step=1) as writer:
            writer.hparams(point.overrides, JUDGED, path.name)
            for epoch in (1, 2):
                writer.scalars(epoch, metrics(point, epoch))
            writer.image(2, CONFUSION, np.full((5, 7, 3), point.id, np.uint8))
            writer.end(ok=True)
            writer.commit()
    dashboard.write(sweep, {"accuracy.png": png(10), "confusion.png": png(20)})
    with tensorboard(sweep, *([] if request.param == "default" else [request.param])) as fetch:
        board = Board(sweep, fetch)
        wait_until(lambda: len(board.tags("images")) == 19, "all runs are loaded", timeout_s=60)
        yield board


def test_every_run_has_its_curves_under_its_readable_name(board: Board) -> None:
    curves = board.tags("scalars")
    assert set(curves) == {f"runs/{point.folder_name}" for point in POINTS}
    assert curves["runs/008-dropout=0.4,lr=0.001,l2=0.0001"] == set(JUDGED)


def test_the_hparams_table_has_a_row_a_run_and_none_for_the_summary(board: Board) -> None:
    experiment = json.loads(board.fetch("hparams/experiment", {"experimentName": ""}))
    assert {info["name"] for info in experiment["hparamInfos"]} == set(KEYS)
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
    assert [row["hparams"] for row in rows] == [point.overrides for point in POINTS[::-1]]
    for row, point in zip(rows, POINTS[::-1], strict=True):
        assert [session["name"] for session in row["sessions"]] == [f"runs/{point.folder_name}"]
        assert {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]} == metrics(point, epoch=2)


def test_confusion_matrices_and_the_rankings_pictures_are_shown(board: Board) -> None:
    runs = {f"runs/{point.folder_name}": {CONFUSION} for point in POINTS}
    assert board.tags("images") == runs | {"summary": {"ranking/accuracy", "ranking/confusion"}}
    assert board.greys("runs/008-dropout=0.4,lr=0.001,l2=0.0001", CONFUSION) == [8]
    assert board.greys("summary", "ranking/accuracy") == [10]
    assert board.greys("summary", "ranking/confusion") == [20]


def test_a_running_tensorboard_takes_up_changed_pictures(board: Board) -> None:
    def show(pictures: dict[str, bytes], grey: int) -> None:
        dashboard.write(board.sweep, pictures)
        wait_until(lambda: board.greys("summary", "ranking/accuracy")[-1] == grey, f"grey {grey} is shown", 60)

    show({"accuracy.png": png(11), "confusion.png": png(21)}, 11)
    assert board.greys("summary", "ranking/confusion") == [20, 21]
    show({"accuracy.png": png(12)}, 12)
    assert board.tags("images")["summary"] == {"ranking/accuracy", "ranking/confusion"}


def test_the_summary_is_no_run(board: Board) -> None:
    assert {path.name for path in (board.sweep / "runs").iterdir()} == {point.folder_name for point in POINTS}


def contents(sweep: Path) -> list[tuple[str, int, bytes]]:
    return [(path.name, path.stat().st_mtime_ns, path.read_bytes()) for path in sorted((sweep / "summary").iterdir())]


def test_the_same_pictures_again_change_nothing(tmp_path: Path) -> None:
    pictures = {"accuracy.png": png(10), "curves.png": png(20)}
    dashboard.write(tmp_path, pictures)
    before = contents(tmp_path)
    dashboard.write(tmp_path, dict(reversed(pictures.items())))
    assert contents(tmp_path) == before


def test_however_often_they_change_two_files_are_left(tmp_path: Path) -> None:
    for grey in range(5):
        dashboard.write(tmp_path, {"accuracy.png": png(grey)})
    emptied, last = event_files(tmp_path / "summary")
    assert (emptied.stat().st_size, png(4) in last.read_bytes()) == (0, True)
    assert len(contents(tmp_path)) == 2


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    dashboard.write(tmp_path, {"accuracy.png": png(10)})
    (path,) = event_files(tmp_path / "summary")
    path.write_bytes(path.read_bytes()[:-1])
    dashboard.write(tmp_path, {"accuracy.png": png(10)})
    assert png(10) in event_files(tmp_path / "summary")[-1].read_bytes()
