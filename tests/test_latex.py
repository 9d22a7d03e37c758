"""Tables and paragraph for a paper: no character of a setting has a meaning in LaTeX, and braces are balanced."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import ROOT
from factories import REPORT, simulated

import irmas
from irmas.config import Config, Data
from irmas.results import latex, report
from irmas.results.analysis import Analysis
from irmas.results.ranking import Ranking
from irmas.results.runs import Confusion
from irmas.sweep.sweep import Sweep

HOSTILE = r"""\input{/etc/passwd} [a]_b^c & 50 % of $x$ #1 ~ "ü" <b> | {} `é` 小"""
UNESCAPED = re.compile(r"(?<!\\)[&%$#_]|[~^<>|\"`](?!})")


def written(axes: dict[str, Any], folder: Path, classes: list[str] | None = None, **options: Any) -> tuple[str, str]:
    """Return ranking.tex and results.tex of a made-up sweep of `axes`."""
    ranking, analysis = simulated(axes, lambda values: 0.75, training_sd=0.015, **options)
    return written_of(ranking, analysis, folder, classes)


def written_of(
    ranking: Ranking, analysis: Analysis | None, folder: Path, classes: list[str] | None = None
) -> tuple[str, str]:
    assert analysis
    if classes:
        matrix = Confusion(np.eye(len(classes), dtype=int), classes, analysis.points[0].runs[:1])
        analysis = replace(analysis, confusion=matrix)
    sweep = Sweep(folder, ranking.plan)
    report.write(replace(ranking, sweep=sweep), analysis)
    return sweep.ranking_tex.read_text(), sweep.results_tex.read_text()


def bodies(text: str) -> list[list[list[str]]]:
    """Return the cells of every table, its head first."""
    found = re.findall(r"\\toprule\n(.*?)    \\bottomrule", text, re.DOTALL)
    lines = [[line.strip() for line in body.splitlines() if "rule" not in line] for body in found]
    assert all(line.endswith(r" \\") for body in lines for line in body)
    return [[re.split(r" (?<!\\)& ", line.removesuffix(r" \\")) for line in body] for body in lines]


def plain(cell: str) -> str:
    """Return what LaTeX shows of a cell."""
    back = {value: key for key, value in latex.SPECIAL.items()}
    pattern = "|".join(map(re.escape, sorted(back, key=len, reverse=True)))
    return re.sub(pattern, lambda match: back[match[0]], cell)


def test_what_is_special_in_latex_is_escaped_and_can_be_read_back() -> None:
    cell = latex.escaped(HOSTILE)
    assert plain(cell) == HOSTILE
    assert not UNESCAPED.search(cell.replace("{[}", "["))
    assert cell.count("{") - cell.count(r"\{") == cell.count("}") - cell.count(r"\}")


def test_markdown_becomes_commands_around_escaped_text() -> None:
    assert latex.inline("**1.5 ± 0.2**, `a_b` at 95 % &#42;&#95;") == (
        r"\textbf{1.5 $\pm$ 0.2}, \texttt{a\_b} at 95~\% *\_"
    )


def test_the_ranking_is_a_table_of_all_points(tmp_path: Path) -> None:
    ranked, results = written(dict(REPORT), tmp_path)
    ((head, *rows),) = bodies(ranked)
    assert head[:6] == ["rank", "run ID", "dropout", "lr", "l2", r"val\_accuracy, \%"]
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 19)]
    assert ranked.count("{rlrrrrrrrrl}") == 1
    assert r"\caption{Top 18 of the sweep made-up. \texttt{val\_accuracy} is the" in ranked
    assert r"\label{tab:made-up-keys}" in results
    assert [body[0][0] for body in bodies(results)] == ["key", "setting"]


def test_no_setting_or_class_breaks_a_table(tmp_path: Path) -> None:
    axes = {"data.root": [HOSTILE, "plain"], "lr": [0.001, 0.0001], "model.filters": [[8, 16], [32]]}
    names = [HOSTILE, "cello", "小_提&琴"]
    for text in written(axes, tmp_path, names, base=Config(data=Data(source="folder"))):
        for body in bodies(text):
            assert {len(row) for row in body} == {len(body[0])}
            for cell in (cell for row in body for cell in row):
                assert not re.search(r"(?<!\\)[&%#_]|(?<!\{)\[", cell), cell
    assert (tmp_path / "results.tex").read_text().count(r"小\_提\&琴") == 1


def test_how_it_was_measured_is_the_reports_paragraph_with_the_sweeps_numbers(tmp_path: Path) -> None:
    axes: dict[str, list[Any]] = {"lr": [0.001, 0.0001], "seed": [3, 4, 5]}
    ranking, analysis = simulated(axes, lambda values: 0.75, training_sd=0.015, base=Config(epochs=9))
    assert analysis
    assert analysis.noise
    runs = [replace(run, train_excerpts=4298, versions={"irmas": "0.1.0", "torch": "2.6.0"}) for run in ranking.runs]
    _, results = written_of(replace(ranking, runs=runs), analysis, tmp_path)
    noise = f"{100 * analysis.noise.sd:.1f}"
    start = results.partition("\n\n")[0].splitlines()
    assert start == [
        r"\paragraph{How this was measured}",
        "6 runs of 2 points (seeds 3, 4 and 5) trained for 9 epochs on IRMAS, split by recording: "
        "4298 excerpts trained and 1200 excerpts of 300 recordings validated.",
        "The accuracy is the validation accuracy, mean over the last 3 epochs, and over the runs of a point.",
        r"Intervals (95~\%) are from 2000 bootstrap samples of the validation recordings, each with all its excerpts, "
        f"and from a training noise of {noise} percentage points per run, estimated from the spread among seeds.",
        r"Points are compared with the best (Hsu 1981), paired by recording, at 95~\% confidence. "
        "The leader's expected accuracy allows for its having been chosen among 2 points.",
        "Versions: irmas 0.1.0, PyTorch 2.6.0.",
        "Digests: data data, source source, commit commit.",
    ]
    page = (tmp_path / "report.md").read_text()
    assert "\n".join(start[1:]).replace(r"~\%", " %") in page


@pytest.mark.parametrize(
    ("axes", "options", "words"),
    [
        ({}, {"base": Config(epochs=1)}, "1 run of 1 point (seed 0) trained for 1 epoch on IRMAS"),
        ({}, {"base": Config(epochs=1)}, "they leave out the training noise, which is unknown."),
        ({"data.fold": [0, 1], "lr": [0.1, 0.2]}, {}, ": 2400 excerpts of 600 recordings validated, over 2 folds."),
        ({"lr": [0.1, 0.2]}, {"predicted": False}, "on IRMAS, split by recording.\n"),
        ({"epochs": [5, 15]}, {}, "trained for 5 and 15 epochs"),
    ],
)
def test_what_is_unknown_is_not_claimed(axes: dict[str, Any], options: Any, words: str, tmp_path: Path) -> None:
    _, results = written(axes, tmp_path, **options)
    assert words in results
    assert "Versions" not in results


def test_the_citation_is_of_this_version_under_its_license() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == irmas.__version__
    license_text = (ROOT / "LICENSE").read_text()
    assert license_text.startswith(f"{citation['license']} License")
    assert f"{citation['authors'][0]['name']}\n" in license_text
