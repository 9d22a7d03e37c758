"""The ranking's pictures: what is drawn, what is left out, and that no sweep is too small, large or odd for them."""

from __future__ import annotations

import io
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from commands import ROOT
from factories import REPORT, answers, grid, ranking_of
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from irmas import plot_style
from irmas.files import PNG, VECTOR
from irmas.labels import CODES
from irmas.results import plots
from irmas.results.analysis import Analysis, analyze
from irmas.results.ranking import Ranking
from irmas.results.runs import Confusion, Run
from irmas.run.events import VAL_ACCURACY, VAL_LOSS
from irmas.run.folder import DIVERGED


def combinations(levels: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(levels, values, strict=True)) for values in itertools.product(*levels.values())]


def sweep(
    values: Sequence[dict[str, Any]], *, epochs: int = 5, excerpts: int = 60, paired: bool = True, loss: float = 2.4
) -> tuple[Ranking, Analysis]:
    """Return finished runs 1, 2, ..., the later the better, and one that diverged; with predictions if `paired`."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(excerpts)
    runs = []
    for number, settings in enumerate(values, start=1):
        skill = 0.2 + 0.6 * number / len(values)
        correct = (0.7 * difficulty + 0.3 * rng.random(excerpts) < skill).astype(float)
        accuracy = float(correct.mean())
        curves = {
            VAL_ACCURACY: {epoch: accuracy * (1 - 0.6**epoch) for epoch in range(1, epochs)} | {epochs: accuracy},
            VAL_LOSS: {epoch: loss - accuracy * (1 - 0.6**epoch) for epoch in range(1, epochs + 1)},
        }
        own = answers(correct, per_recording=2) if paired else None
        runs.append(Run(number, settings, accuracy=accuracy, curves=curves, val_excerpts=excerpts, answers=own))
    lost = {VAL_ACCURACY: {1: 0.1, 2: 0.1}, VAL_LOSS: {1: 5.0, 2: math.nan}}
    diverged = Run(len(runs) + 1, values[0], DIVERGED, accuracy=0.1, curves=lost, val_excerpts=excerpts)
    plan = replace(grid({}), swept=list(values[0]))
    return ranking_of(plan, [*runs, diverged]), analyze(runs, list(values[0]))


def drawn(values: Sequence[dict[str, Any]], matrix: Confusion | None = None, **options: Any) -> dict[str, bytes]:
    """Return the pictures of a sweep with the leader's confusion matrix."""
    ranking, analysis = sweep(values, **options)
    return plots.draw(ranking, replace(analysis, confusion=matrix))


def confusion(classes: Sequence[str] = CODES) -> Confusion:
    counts = np.random.default_rng(0).integers(0, 9, (len(classes), len(classes)))
    return Confusion(counts + 20 * np.eye(len(classes), dtype=np.int64), list(classes), (1,))


FOUR = ["accuracy.png", "heatmap.png", "curves.png", "confusion.png"]
Picture = NDArray[np.uint8]


def pixels(png: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def places(picture: Picture, color: str) -> NDArray[np.intp]:
    """Return (row, column) of every pixel of a color."""
    return np.argwhere((picture == tuple(bytes.fromhex(color.removeprefix("#")))).all(axis=-1))


def is_cut(picture: Picture) -> bool:
    """Return whether something reaches over an edge."""
    return any((edge < 255).any() for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]))


@pytest.fixture(scope="module")
def report() -> dict[str, bytes]:
    return drawn(combinations(REPORT), confusion())


def test_the_reports_grid_has_every_picture_at_print_size(report: dict[str, bytes]) -> None:
    assert list(report) == FOUR
    for name, png in report.items():
        picture = pixels(png)
        assert picture.shape[1] == int(15 / 2.54 * plot_style.DPI), name
        assert picture.shape[0] < 23 / 2.54 * plot_style.DPI, name
        assert not is_cut(picture), name


def test_the_same_ranking_gives_the_same_bytes_with_any_matplotlibrc() -> None:
    values = combinations({"lr": (0.1, 0.2)})
    pictures = drawn(values)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 50}):
        before = dict(matplotlib.rcParams)
        assert drawn(values) == pictures
        assert dict(matplotlib.rcParams) == before


def test_grey_curves_are_named_where_there_are_any() -> None:
    ranking, analysis = sweep(combinations({"lr": (0.1, 0.2)}))
    for runs, is_named in ((ranking.runs, True), (ranking.runs[:-1], False)):
        figure = plots._curves(replace(ranking, runs=runs), analysis)
        assert ("grey: all others" in " ".join(text.get_text() for text in figure.texts)) == is_named


@pytest.mark.parametrize(
    ("levels", "left_out"),
    [
        ({"dropout": (0.3, 0.4), "lr": (0.1, 0.2)}, {"confusion.png"}),
        ({"lr": (0.1, 0.2)}, {"confusion.png", "heatmap.png"}),
        ({}, {"confusion.png", "heatmap.png", "accuracy.png"}),
    ],
)
def test_pictures_without_data_are_left_out(levels: dict[str, Any], left_out: set[str]) -> None:
    pictures = drawn(combinations(levels), epochs=1)
    assert pictures.keys() == set(FOUR) - left_out
    assert not any(is_cut(pixels(png)) for png in pictures.values())


def test_the_best_set_is_blue_and_what_is_behind_vermillion_below(report: dict[str, bytes]) -> None:
    accuracy = pixels(report["accuracy.png"])[200:]  # without the legend
    best_set, behind = places(accuracy, plot_style.BLUE), places(accuracy, plot_style.VERMILLION)
    assert best_set[:, 0].max() < behind[:, 0].min()
    assert best_set[:, 1].mean() > behind[:, 1].mean()  # the better, the further to the right


def test_without_predictions_no_point_is_in_the_best_set_or_behind() -> None:
    accuracy = pixels(drawn(combinations({"lr": (0.1, 0.2)}), paired=False)["accuracy.png"])
    assert not len(places(accuracy, plot_style.BLUE)) + len(places(accuracy, plot_style.VERMILLION))


def test_the_leaders_cell_is_framed_where_its_levels_meet(report: dict[str, bytes]) -> None:
    heatmap = pixels(report["heatmap.png"])
    frame = places(heatmap, plot_style.VERMILLION)
    (top, left), (bottom, right) = frame.min(axis=0), frame.max(axis=0)
    brightest = heatmap[(top + bottom) // 2, left + 10]
    # The leader has the last dropout, the smallest lr and the smallest l2: below, and on the left of the left panel.
    assert top > 0.5 * len(heatmap)
    assert right < 0.3 * heatmap.shape[1]
    assert brightest.tolist() == [253, 231, 55]


def test_cells_without_a_finished_run_are_hatched(report: dict[str, bytes]) -> None:
    values = combinations({"dropout": (0.3, 0.4), "lr": (0.1, 0.2)})[1:]
    hatched = places(pixels(drawn(values)["heatmap.png"]), plot_style.FAINT)
    assert len(hatched) > 200
    assert not len(places(pixels(report["heatmap.png"]), plot_style.FAINT))


def test_a_point_with_seeds_has_its_mean_and_the_band_of_its_runs() -> None:
    ranking, analysis = sweep(combinations({"lr": (0.1, 0.2), "seed": (1, 2, 3)}))
    curves = {run.id: run.curves[VAL_ACCURACY] for run in ranking.runs}
    leader = analysis.points[0]
    assert leader.runs == (4, 5, 6)
    axes = plots._curves(ranking, analysis).axes[0]
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith("runs 4-6")]
    assert np.asarray(line.get_ydata())[4] == pytest.approx(100 * np.mean([curves[run][5] for run in leader.runs]))
    bands = [np.asarray(band.get_paths()[0].vertices) for band in axes.collections]
    assert len(bands) == 2
    last = bands[0][bands[0][:, 0] == 5][:, 1]
    expected = [100 * curves[run][5] for run in leader.runs]
    assert (last.min(), last.max()) == (pytest.approx(min(expected)), pytest.approx(max(expected)))
    one_seed = plots._curves(*sweep(combinations({"lr": (0.1, 0.2)})))
    assert not one_seed.axes[0].collections
    assert "bands" not in " ".join(text.get_text() for text in one_seed.texts)


def test_the_confusion_matrix_names_its_run_and_its_own_n() -> None:
    def title(levels: dict[str, Any], shown: int = 1) -> str:
        _, analysis = sweep(combinations(levels))
        matrix = Confusion(np.array([[3, 1], [0, 5]]), ["a", "b"], analysis.points[0].runs[:shown])
        return plots._confusion(analysis, matrix).texts[0].get_text()

    assert title({"lr": (0.1, 0.2)}) == "Confusion matrix of run 2, the leader, n = 9 excerpts"
    seeds = title({"lr": (0.1, 0.2), "seed": (1, 2, 3)})
    assert seeds == "Confusion matrix of run 4, the first of the leader's 3, n = 9 excerpts"
    folds = title({"lr": (0.1, 0.2), "data.fold": (0, 1, 2)}, shown=3)
    assert folds == "Confusion matrix of runs 4-6, the leader, n = 9 excerpts"
    assert title({}) == "Confusion matrix of run 1, n = 9 excerpts"
    assert title({"seed": (1, 2, 3)}) == "Confusion matrix of run 1, the first of 3, n = 9 excerpts"


def test_rows_of_the_confusion_matrix_are_true_and_columns_predicted() -> None:
    counts = np.array([[0, 0, 7], [5, 0, 0], [0, 5, 0]])
    picture = pixels(drawn(combinations({}), Confusion(counts, ["a", "b", "c"], (1,)))["confusion.png"])
    dark = places(picture, "#08306B")  # all of a row
    cells = (dark - dark.min(axis=0)) * 3 // (np.ptp(dark, axis=0) + 1)
    assert {tuple(cell) for cell in cells.tolist()} == {(0, 2), (1, 0), (2, 1)}


def test_classes_whose_names_the_font_lacks_are_numbers() -> None:
    names = ["小提琴", "cello", "Flöte", "орган", "गिटार"]
    assert plot_style.without_glyphs(names) == {"#1": "小提琴", "#5": "गिटार"}
    assert plot_style.drawable(names) == ["#1", "cello", "Flöte", "орган", "#5"]
    _, analysis = sweep(combinations({}))
    figure = plots._confusion(analysis, confusion(names))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == plot_style.drawable(names)
    assert "The report names the classes with #." in figure.texts[1].get_text().replace("\n", " ")


def test_figures_are_vectors_on_request_the_same_bytes_again() -> None:
    ranking, analysis = sweep(combinations({"lr": (0.1, 0.2)}))
    files = plots.draw(ranking, analysis, VECTOR)
    assert files == plots.draw(ranking, analysis, VECTOR)
    assert {*files} == {f"{name}.{ending}" for name in ("accuracy", "curves") for ending in (PNG, *VECTOR)}
    assert files["curves.png"] == plots.draw(ranking, analysis)["curves.png"]
    assert files["curves.pdf"].startswith(b"%PDF")
    assert b"/Type3" not in files["curves.pdf"]
    assert ElementTree.fromstring(files["curves.svg"]).tag.endswith("svg")  # noqa: S314  matplotlib's own


def test_pictures_need_no_color() -> None:
    styles = [*plots.LINES, *((mark["color"], None, mark["marker"]) for *_, mark in plots.MARKS)]
    assert len({dash for _, dash, _ in plots.LINES}) == len({shape for *_, shape in plots.LINES}) == len(plots.LINES)
    assert len({mark["marker"] for *_, mark in plots.MARKS}) == len(plots.MARKS)
    assert all(lightness(to_rgb(color)) < 75 for color, *_ in styles)  # on white
    for name in ("cividis", "Blues"):
        shades = np.array([lightness(color[:3]) for color in matplotlib.colormaps[name](np.linspace(0, 1, 11))])
        steps = np.diff(shades)
        assert (np.sign(steps) == np.sign(steps[0])).all()
        assert abs(steps).min() > 3


def lightness(color: Sequence[float]) -> float:
    """Return L* of a color, 0 to 100: what a grayscale print keeps."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


ODD = {
    "model.filters": ([32, 64, 128, 256], [8, 16]),
    "data.root": ("/a/folder/with/quite/a/long/name/for/its/data", "$a^^$ and 50 %", None),
    "augment.freq_width": (0.1, 0.123456789),
    "seed": (1, 2),
}


@pytest.mark.parametrize(
    ("values", "options", "classes"),
    [
        ([{"lr": 0.1}], {"epochs": 1, "excerpts": 1}, ["the only class"]),
        (combinations({"lr": (0.1, 0.2)}), {"loss": math.nan}, ["小提琴", "a class with quite a long name"]),
        (combinations({"lr": (0.1, 0.2), "seed": (1, 2, 3)}), {}, [f"class {number}" for number in range(50)]),
        (combinations(ODD)[3:], {}, CODES),
        ([{"lr": number / 7, "dropout": number % 9 / 10} for number in range(60)], {"loss": math.inf}, CODES),
    ],
    ids=["one run", "two runs", "three seeds", "odd values", "60 values"],
)
def test_no_sweep_is_too_small_large_or_odd(
    values: list[dict[str, Any]], options: dict[str, Any], classes: Sequence[str]
) -> None:
    pictures = drawn(values, confusion(classes), **options)
    assert {"curves.png", "confusion.png"} <= pictures.keys()
    for name, png in pictures.items():
        assert not is_cut(pixels(png)), name


def test_nothing_is_printed_where_home_cannot_be_written() -> None:
    environment = os.environ | {"HOME": "/proc/none"}
    environment.pop("MPLCONFIGDIR", None)
    program = "from irmas.errors import report_errors\nwith report_errors('rank'): import irmas.results.plots"
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
