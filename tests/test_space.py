"""Swept values of a command line, files of points and searches, and the runs that follow from them."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from irmas.cli.space import propose
from irmas.config import Search
from irmas.errors import ConfigError, UserError

NONE, RANDOM = Search(), Search("random", 64, 0)
SPACE = (
    "lr=tag(log,interval(1e-4,1e-2))",
    "dropout=interval(0.1,0.6)",
    "model.dense=interval(64,2048)",
    "model=report,deep",
)


def proposed(*overrides: str, listed: str | None = None, search: Search = NONE) -> list[dict[str, str]]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return propose({override.key_or_group: override for override in parsed}, listed, search).runs


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("range(0.1,0.5,0.2)", ["0.1", "0.3"]),
        ("range(0,0.9,0.3)", ["0.0", "0.3", "0.6"]),  # in binary, 3 * 0.3 lies below 0.9
        ("range(0.5,0.2,-0.1)", ["0.5", "0.4", "0.3"]),
        ("range(1e-5,4e-5,1e-5)", ["1e-05", "2e-05", "3e-05"]),
        ("float(range(1,3))", ["1.0", "2.0"]),
        ("range(3)", ["0", "1", "2"]),
    ],
)
def test_a_range_counts_in_the_decimals_that_were_typed(values: str, expected: list[str]) -> None:
    assert [run["l2"] for run in proposed(f"l2={values}")] == expected


def test_the_seed_varies_slowest_and_keys_keep_their_order() -> None:
    runs = proposed("seed=0,1", "lr=0.1", "model=report,deep")
    assert runs[:2] == [{"seed": "0", "lr": "0.1", "model": "report"}, {"seed": "0", "lr": "0.1", "model": "deep"}]
    assert [list(run) for run in runs] == [["seed", "lr", "model"]] * 4


def test_each_row_of_a_file_is_a_point_and_an_empty_cell_sets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text('recipe, lr ,model.filters\nreport,0.1,"[8,16]"\n\nstrong,,\n,1e-2,\n')
    assert proposed("epochs=2", listed=str(file)) == [
        {"recipe": "report", "lr": "0.1", "model.filters": "[8,16]", "epochs": "2"},
        {"recipe": "strong", "epochs": "2"},
        {"lr": "1e-2", "epochs": "2"},
    ]
    repeated = proposed("seed=0,1", "l2=0,0.1", listed=str(file))
    assert [(run["seed"], run.get("recipe"), run["l2"]) for run in repeated[:8]] == [
        *[("0", recipe, l2) for recipe in ("report", "strong", None) for l2 in ("0", "0.1")],
        ("1", "report", "0"),
        ("1", "report", "0.1"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a line of keys"),
        ("lr\n", "must have one row per point"),
        ("lr,drpout\n0.1,0\n", "line 1, column drpout: there is no setting 'drpout'; did you mean dropout?"),
        ("lr,lr\n1,2\n", "line 1, column lr: stands above two columns"),
        ("lr,\n1,2\n", "line 1, column number 2: there is no setting ''"),
        ("name\nmine\n", "line 1, column name: applies to the whole sweep"),
        ("best\noutputs/x\n", "line 1, column best: applies to the whole sweep"),
        ("lr,l2\n1,2\n1\n", "line 3 has 1 cells, and the header 2"),
        ("lr,l2\n1,2\n1.0,2.0\n", "line 3 repeats line 2"),
        ('lr,model\n1,report\n2,"report,deep"\n', "line 3, column model: model=report,deep: a cell holds one value"),
        ("lr,model\n1,3\n", "line 2, column model: model=3: must be one of deep, own, report"),
        ("lr\nü\n", "line 2, column lr: lr=ü: cannot be read as key=value"),
        ('lr\n"1\n', "is no csv in UTF-8 (unexpected end of data)"),
    ],
)
def test_a_message_names_line_and_column_of_a_file_of_points(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        proposed(listed=str(file))
    assert str(refused.value).startswith(f"{file}: {message}")


def test_a_key_is_either_a_column_or_an_override(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("lr,l2\n,1\n0.1,2\n")
    with pytest.raises(UserError, match=r"^lr=0\.2: .*points\.csv has a column lr \(line 3\); give it in one"):
        proposed("lr=0.2", listed=str(file))


def test_the_points_of_a_search_follow_from_its_seed_and_a_larger_one_extends_it() -> None:
    points = proposed(*SPACE, search=RANDOM)
    assert proposed(*SPACE, search=RANDOM) == points
    assert proposed(*SPACE, search=Search("random", 200, 0))[:64] == points
    assert proposed(*SPACE, search=Search("random", 5, 0)) == points[:5]
    assert all(point not in points for point in proposed(*SPACE, search=Search("random", 64, 1)))
    assert [dict(sorted(run.items())) for run in proposed(*SPACE[::-1], search=RANDOM)] == [
        dict(sorted(run.items())) for run in points
    ]


def test_a_search_fills_the_space_evenly_with_numbers_as_a_person_writes_them() -> None:
    points = proposed(*SPACE, search=RANDOM)
    assert Counter(int(4 * math.log10(float(point["lr"]) / 1e-4)) for point in points) == dict.fromkeys(range(8), 8)
    assert Counter(int((float(point["dropout"]) - 0.1) / 0.125) for point in points) == dict.fromkeys(range(4), 16)
    assert Counter(point["model"] for point in points) == {"report": 32, "deep": 32}
    for point in points:
        assert len(point["lr"].lstrip("0.").replace(".", "")) <= 3
        assert len(point["dropout"].lstrip("0.")) <= 3
        assert 64 <= int(point["model.dense"]) <= 2048


@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("lr=range(0.1,0.5,0.2)", 2),
        ("batch_size=interval(2,9)", 8),
        ("model=report,deep", 2),
    ],
)
def test_a_search_repeats_no_point_and_exhausts_a_small_space(override: str, runs: int) -> None:
    points = proposed(override, search=Search("random", runs, 0))
    assert len({str(point) for point in points}) == runs
    with pytest.raises(ConfigError, match=f"must be at most {runs}, which is all"):
        proposed(override, search=Search("random", runs + 1, 0))


def test_seeds_and_folds_repeat_the_points_of_a_search() -> None:
    runs = proposed("lr=interval(0.1,1)", "data.fold=range(2)", "seed=0,1", search=Search("random", 3, 0))
    lrs = [run["lr"] for run in proposed("lr=interval(0.1,1)", search=Search("random", 3, 0))]
    order = [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    assert runs == [{"lr": lr, "data.fold": fold, "seed": seed} for seed, fold in order for lr in lrs]


def test_more_digits_keep_crowded_points_apart() -> None:
    points = [run["lr"] for run in proposed("lr=interval(0.1,0.1009)", search=Search("random", 40, 0))]
    assert len({*points}) == 40
    assert points[0] == "0.1"
    assert max(map(len, points[:10])) <= len("0.10002")
    assert all(0.1 <= float(point) <= 0.1009 for point in points)


def test_both_ends_of_whole_numbers_are_as_likely_as_the_others() -> None:
    drawn = Counter(run["batch_size"] for run in proposed("batch_size=interval(2,5)", SPACE[0], search=RANDOM))
    assert drawn == dict.fromkeys(("2", "3", "4", "5"), 16)


def test_runs_that_choose_their_points_are_alike_and_groups_are_composed_together() -> None:
    parsed = OverridesParser.create().parse_overrides(["lr=interval(0.1,1)", "model=report,deep", "epochs=2", "l2=0,1"])
    overrides = {override.key_or_group: override for override in parsed}
    proposal = propose(overrides, None, Search("tpe", 3, 0))
    assert proposal.runs == [{"epochs": "2"}] * 3
    assert proposal.space == {"lr": "interval(0.1,1)", "model": "report,deep", "l2": "0,1"}
    assert [*proposal.intervals] == ["lr"]
    groups = [{"epochs": "2", "model": model} for model in ("report", "deep")]
    assert proposal.options == [*groups, {"l2": "0"}, {"l2": "1"}, {"lr": "0.1"}, {"lr": "1.0"}]


def test_without_optuna_one_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"^search=tpe: needs Optuna: pip install 'irmas\[search\]'$"):
        proposed("lr=interval(0.1,1)", search=Search("tpe", 3, 0))
