"""Swept values of a command line, and the runs that follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from irmas.cli.space import propose
from irmas.errors import UserError


def proposed(*overrides: str, listed: str | None = None) -> list[dict[str, str]]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return propose({override.key_or_group: override for override in parsed}, listed).runs


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
        ("lr,model\n1,3\n", "line 2, column model: model=3: must be one of deep, report"),
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
