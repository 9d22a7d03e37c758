"""That the benchmarks compare like with like."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from commands import ROOT

sys.path += [str(ROOT / "benchmarks"), str(ROOT / "studies")]
import factories
import halving
from bare import Run
from bench import BEGIN, END, renewed
from factories import write_run
from rounds import HEAD, Row, in_turn

from irmas.config import Config, Model
from irmas.learning.learner import Examples, Learner
from irmas.run import events
from irmas.sweep.plan import PlannedRun
from irmas.sweep.pruning import WARNING
from irmas.sweep.sweep import Sweep


def test_what_is_not_measured_anew_stays_in_the_table() -> None:
    old, other, new = (str(Row(what, "a / b", [value])) for what, value in (("x", 1.0), ("y", 2.0), ("x", 3.0)))
    before = f"Head\n{BEGIN}\nthen\n\n{HEAD}\n{old}\n{other}\n\n{END}Tail\n"
    after = renewed(before, [new], "now")
    assert after == f"Head\n{BEGIN}\nnow\n\n{HEAD}\n{new}\n{other}\n\n{END}Tail\n"


def test_the_bare_loop_does_the_same_computation() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(256, (75, 16, 16), dtype=torch.uint8, generator=generator)
    targets, rows = torch.arange(75) % 3, torch.arange(75)
    names = np.array(["name"])
    examples = Examples(
        features, targets, ["a", "b", "c"], rows[:60], rows[60:], 80 / 255, -80.0, names.repeat(75), names.repeat(75)
    )
    config = Config(model=Model(filters=[4, 8], dense=8), l2=0.01)
    learner, run = Learner(config, examples, torch.device("cpu")), Run(features, targets, rows[:60], config)

    for epoch in (1, 2):
        learner.train_epoch(epoch, lambda step: None)
        run.train_epoch(epoch)
        assert learner.validate(epoch)[0][events.VAL_ACCURACY] == run.validate(rows[60:])
    for ours, theirs in zip(learner.model.state_dict().values(), run.model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_every_side_runs_once_a_round_and_begins_in_turn() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    taken = in_turn({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=2)
    assert order == ["a", "b", "b", "a"]
    assert taken == {"a": [1, 4], "b": [2, 3]}


@pytest.mark.parametrize(
    ("goal", "met"), [(">= 2", "yes"), (">= 2.1", "NO"), ("<= 2", "yes"), ("<= 1.9", "NO"), ("", "")]
)
def test_a_goal_is_held_against_the_median(goal: str, met: str) -> None:
    assert (
        str(Row("what", "a / b", [1.0, 2.0, 9.0], goal)) == f"| what | a / b | 2.00 (1.00 - 9.00) | {goal} | {met} |  |"
    )


def grid(folder: Path, config: Config) -> Sweep:
    """Write a full grid of two points and two seeds, of 6 epochs."""
    sweep = Sweep(folder, factories.grid({"lr": (0.1, 0.2), "seed": (0, 1)}, config)).write()[0]
    for number in range(1, 5):
        write_run(sweep, number, [(number / 8 + epoch / 64, 1.0) for epoch in range(6)])
    return sweep


def test_grids_of_each_seed_are_recorded_in_place_of_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "curves.csv").write_text("sweep,run,settings,val_accuracy\nold,1,lr=0.1,0.5\n")
    halving.record([grid(tmp_path / "full", Config(epochs=6)).path], tmp_path / "curves.csv")
    grids = halving.read_curves(tmp_path / "curves.csv")
    assert {name: [(run.id, run.settings) for run in runs] for name, runs in grids.items()} == {
        "full-0": [(1, "lr=0.1"), (2, "lr=0.2")],
        "full-1": [(3, "lr=0.1"), (4, "lr=0.2")],
    }
    curve = grids["full-1"][1].curve
    assert curve == pytest.approx([0.5 + epoch / 64 for epoch in range(6)], abs=1e-4)
    assert grids["full-1"][1].final == fmean(curve[-2:])


@pytest.mark.parametrize(
    ("config", "message"),
    [(Config(epochs=6, halving=2), "was halved"), (Config(epochs=6, schedule="onecycle"), "must be constant")],
)
def test_what_is_no_full_grid_is_not_recorded(tmp_path: Path, config: Config, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        halving.full_grids(grid(tmp_path / "grid", config).path)
    complete = grid(tmp_path / "more", Config(epochs=6))
    more = [*complete.plan.runs, PlannedRun(5, {"lr": 0.3}, {"lr": 0.3})]
    grown, _ = replace(complete, plan=replace(complete.plan, runs=more)).write()
    with pytest.raises(SystemExit, match="run 5 is PENDING"):
        halving.full_grids(grown.path)


def test_a_replay_judges_by_the_mean_over_the_last_epochs() -> None:
    # 12 epochs have rungs after 2, 3 and 6. After 6 the second run has the higher last epoch and the lower mean.
    first = halving.Run(1, "", (0.1, 0.2, 0.2, 0.2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5))
    second = halving.Run(2, "", (0.1, 0.3, 0.3, 0.2, 0.2, 0.6, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9))
    outcome = halving.replay([first, second], factor=2)
    assert outcome.spent == (12 + 6) / 24
    assert outcome.lost == pytest.approx(40)
    assert not outcome.leader
    assert halving.replay([second, first], factor=2).leader


def test_what_is_said_of_halving_is_what_the_recorded_curves_give() -> None:
    kept = fmean(outcome.leader for outcome in halving.replays(3, 1000)[halving.ALL_SHUFFLED])
    assert re.findall(r"(\d+) %", WARNING) == [f"{100 * kept:.0f}"]
    assert f"leader in {100 * kept:.0f} % of the orders" in (ROOT / "docs" / "halving.md").read_text()
