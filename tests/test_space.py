"""Swept values of a command line, and the runs that follow from them."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from irmas.cli.space import propose


def proposed(*overrides: str) -> list[dict[str, str]]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return propose({override.key_or_group: override for override in parsed})


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
