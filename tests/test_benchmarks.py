"""That the benchmarks compare like with like."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from bare import Run
from bench import BEGIN, END, renewed
from rounds import HEAD, Row, in_turn

from irmas.config import Config, Model
from irmas.learning.trainer import Examples, Learner
from irmas.run import events


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
