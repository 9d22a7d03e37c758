"""Several sweeps beside each other: the settings that differ, and the paired test of their best points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import SEEDS, Values, answer, grid, renamed, simulated, write_run
from forked_commands import Commands, contents

from irmas.config import Config, Data
from irmas.results.side_by_side import Difference, Side, compared, draw, settings
from irmas.sweep.sweep import Sweep

PAIR: Mapping[str, Sequence[Any]] = {"dropout": (0.4, 0.5), "seed": (0, 1, 2)}


def side(
    accuracy: float | Callable[[Values], float], axes: Mapping[str, Sequence[Any]] = PAIR, name: str = "a", **more: Any
) -> Side:
    ranking, analysis = simulated(axes, accuracy if callable(accuracy) else lambda values: accuracy, **more)
    return Side(renamed(ranking, name=name), analysis)


def apart(first: Side, other: Side) -> Difference:
    found = compared(first, other)
    assert isinstance(found, Difference), found
    return found


def test_the_best_points_are_paired_by_recording() -> None:
    found = apart(side(0.6), side(0.7, name="b"))
    assert (found.excerpts, found.recordings) == (1200, 300)
    assert found.observed.value == pytest.approx(0.1, abs=0.01)
    assert found.observed.low < found.observed.value < found.observed.high
    assert found.expected is not None
    assert found.is_shown
    assert found.p < 0.001
    # On the same excerpts, a difference is known better than either accuracy.
    best = side(0.6).best
    assert best is not None
    assert best.estimate is not None
    assert found.observed.high - found.observed.low < best.estimate.high - best.estimate.low


def test_the_other_way_round_the_difference_changes_its_sign() -> None:
    there, back = apart(side(0.6), side(0.63, name="b")), apart(side(0.63, name="b"), side(0.6))
    assert there.observed.value == -back.observed.value
    assert there.observed.low == pytest.approx(-back.observed.high, abs=0.002)
    assert there.p == pytest.approx(back.p, abs=0.01)


def test_the_order_of_excerpts_changes_nothing() -> None:
    first, other = side(0.6), side(0.63, name="b")
    assert other.analysis is not None
    sample = other.analysis.group.sample  # type: ignore[union-attr]
    order = np.random.default_rng(0).permutation(len(sample.excerpts))
    shuffled = replace(sample, excerpts=sample.excerpts[order], recordings=sample.recordings[order])
    group = replace(other.analysis.group, sample=shuffled)  # type: ignore[type-var]
    assert apart(first, other) == apart(first, replace(other, analysis=replace(other.analysis, group=group)))


def test_equal_sweeps_show_no_difference() -> None:
    found = apart(side(0.6), side(0.6, name="b"))
    assert not found.is_shown
    assert found.p > 0.05


def test_the_luck_of_the_best_of_many_is_taken_off() -> None:
    """All points are equally good; the best of 18 looks better than the only one."""
    many = side(0.6, SEEDS, training_sd=0.02)
    one = side(0.6, {"seed": (0, 1, 2)}, name="b", training_sd=0.02)
    found = apart(many, one)
    assert many.luck is not None
    assert many.luck > 0.005
    assert found.expected is not None
    assert not found.is_shown
    assert found.expected.value - found.observed.value == pytest.approx(many.luck - (one.luck or 0.0))


def test_without_training_noise_nothing_is_shown() -> None:
    annealed = Config(schedule="onecycle")
    found = apart(side(0.5, {"dropout": (0.4, 0.5)}, base=annealed), side(0.7, name="b"))
    assert found.expected is None
    assert not found.is_shown


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base": Config(data=Data(fold=1))}, "data.fold=0 and 1"),
        ({"base": Config(data=Data(seed=7, conflicts="drop"))}, "data.seed=0 and 7, data.conflicts=keep and drop"),
    ],
)
def test_other_excerpts_are_refused_with_the_settings_that_differ(changes: dict[str, Any], reason: str) -> None:
    first, other = side(0.6), side(0.7, name="b", **changes)
    assert other.analysis is not None
    group = other.analysis.group
    assert group is not None
    sample = replace(group.sample, excerpts=np.char.add(group.sample.excerpts, "x"))
    other = replace(other, analysis=replace(other.analysis, group=replace(group, sample=sample)))
    assert compared(first, other) == f"validated on different excerpts: {reason}"


def test_other_recordings_of_the_same_excerpts_are_refused() -> None:
    first, other = side(0.6), side(0.7, name="b", base=Config(data=Data(recordings="list.csv")))
    assert other.analysis is not None
    group = other.analysis.group
    assert group is not None
    sample = replace(group.sample, recordings=group.sample.excerpts)
    other = replace(other, analysis=replace(other.analysis, group=replace(group, sample=sample)))
    found = compared(first, other)
    assert isinstance(found, str)
    assert found.startswith("validated on different excerpts: data.recordings=null and ")


def test_other_sounds_under_the_same_names_are_refused() -> None:
    first, edited = side(0.6), side(0.7, name="b")
    edited = replace(edited, ranking=renamed(edited.ranking, name="b", data="edited"))
    assert compared(first, edited) == "validated on different excerpts: digests of the data data and edited"
    rendered = [
        side(0.6, name="b", base=Config(data=Data(source="standin", size=330, render_seed=seed))) for seed in (0, 1)
    ]
    assert compared(*rendered) == "validated on different excerpts: data.render_seed=0 and 1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"failed": dict.fromkeys(range(1, 7), "FAILED: no")}, "no run of outputs/b has finished"),
        ({"predicted": False}, "lacks predictions"),
        ({"base": Config(data=Data(split="all"))}, "outputs/b trained on the validation excerpts (data.split=all)"),
    ],
)
def test_what_cannot_be_compared_says_why(changes: dict[str, Any], reason: str) -> None:
    other = side(0.7, name="b", **changes)
    for found in (compared(side(0.6), other), compared(other, side(0.6))):
        assert isinstance(found, str)
        assert reason in found


def test_settings_that_differ_are_listed_as_a_command_gives_them() -> None:
    few = side(0.6, base=Config(name="a", device="cpu"))
    many = side(0.6, {"dropout": [n / 10 for n in range(9)]}, name="b", base=Config(name="b", note="faster", lr=0.01))
    many = replace(many, ranking=renamed(many.ranking, source="other"))
    assert settings([few, many]) == {
        "dropout": ["0.4,0.5", "0.0, 0.1, ... 0.8 (9 values)"],
        "lr": ["0.001", "0.01"],
        "seed": ["0,1,2", "0"],
        "note": ["-", "faster"],
        "digest of the source": ["source", "other"],
    }
    assert settings([few, few]) == {}


def written(folder: Path, name: str, correct: Sequence[int], per_recording: int = 2, **base: Any) -> None:
    """Write a sweep whose points have so many of 64 right, with a finished run for each of two seeds."""
    axes = {"lr": [number / 10 for number in range(1, len(correct) + 1)], "seed": (0, 1)}
    sweep = Sweep(folder / "outputs" / name, grid(axes, Config(**base), name)).write()[0]
    for run in sweep.plan.runs:
        right = correct[(run.id - 1) % len(correct)] + run.changes.get("seed", 0)
        answer(write_run(sweep, run.id, [(right / 64, 1.0)] * 2), right, per_recording)


def test_the_command_prints_both_and_writes_a_picture_only(tmp_path: Path, commands: Commands) -> None:
    written(tmp_path, "a", [20, 24])
    written(tmp_path, "b", [50], dropout=0.1)
    before = contents(tmp_path)
    done = commands.run("compare", "outputs/a", "outputs/b", folder=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["dropout", "0.4", "0.1"] in lines
    assert ["lr", "0.1,0.2", "0.1"] in lines
    assert any(line[:4] == ["outputs/a", "lr=0.2", "2,4", "38.28%"] for line in lines)
    assert any(line[:4] == ["outputs/b", "lr=0.1", "1-2", "78.91%"] for line in lines)
    assert "outputs/b - outputs/a: +40.62 points (95 %: " in done.stdout
    assert "the best of 1 and of 2: +" in done.stdout
    assert done.stdout.rstrip().endswith("picture: outputs/compare-a-b.png")
    picture = tmp_path / "outputs" / "compare-a-b.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.unlink()
    after = contents(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} <= {"outputs"}


def test_too_few_recordings_are_mentioned_wherever_an_interval_is_shown(tmp_path: Path, commands: Commands) -> None:
    warning = "nly 4 recordings: intervals are unreliable below 10"
    for name, per_recording in {"few": 16, "enough": 6}.items():
        for sweep in (name, f"{name}2"):
            written(tmp_path, sweep, [20, 24], per_recording)
        ranked = commands.run("rank", f"outputs/{name}", folder=tmp_path)
        compared = commands.run("compare", f"outputs/{name}", f"outputs/{name}2", folder=tmp_path)
        folder = tmp_path / "outputs" / name
        shown = [ranked.stdout, compared.stdout, *((folder / file).read_text() for file in ("report.md", "best.yaml"))]
        assert ["95 %" in text and warning in " ".join(text.split()) for text in shown] == 4 * [name == "few"], shown
        assert "unreliable" not in "".join(shown) or name == "few"


def test_three_sweeps_one_of_which_has_other_excerpts(tmp_path: Path, commands: Commands) -> None:
    written(tmp_path, "a", [20])
    written(tmp_path, "b", [20])
    written(tmp_path, "c", [30], data=Data(source="standin", size=330, render_seed=1))
    call = ["outputs/a", "outputs/b", "outputs/c", "--picture", "mine.svg"]
    done = commands.run("compare", *call, folder=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert "outputs/b - outputs/a: +0.00 points" in done.stdout
    assert ", p = 1.000, paired on 64 excerpts of 32 recordings" in done.stdout
    assert "no difference is shown" in done.stdout
    reason = "data.source=irmas and standin, data.size=null and 330, data.render_seed=null and 1"
    assert f"outputs/c - outputs/a: not compared: validated on different excerpts: {reason}" in done.stdout
    assert "<svg" in (tmp_path / "mine.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["outputs/a"], "compares two sweeps or more"),
        (["outputs/a", "outputs/../outputs/a"], "each given once"),
        (["outputs/a", "outputs/other"], "outputs/other: no sweep is here"),
        (["outputs/a", "outputs/b", "--picture", "mine.jpg"], "must end with .png or .pdf or .svg"),
        (["outputs/a", "outputs/b", "--picture", "outputs/a/plan.yaml/x.png"], "plan.yaml is not a folder"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], message: str, tmp_path: Path, commands: Commands) -> None:
    for name in ("a", "b"):
        written(tmp_path, name, [20])
    assert message in commands.refuse("compare", *arguments, folder=tmp_path)


def test_the_same_sweeps_draw_the_same_picture() -> None:
    sides = [side(0.6), side(0.7, name="b")]
    assert draw(sides, [compared(*sides)]) == draw(sides, [compared(*sides)])
