"""The report of made-up sweeps: what was planted is stated, what was not is not, and every page can be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up import REPORT, Values, rise, sweep
from scipy import stats

from irmas.config import Augment, Config, Data
from irmas.results import bootstrap, conclusions, deductions, page, report
from irmas.results.ranking import Ranking
from irmas.results.statistics import Analysis
from irmas.run.events import VAL_ACCURACY
from irmas.sweep.plan import Point

PICTURES = [f"{name}.png" for name in ("accuracy", "heatmap", "curves", "effects", "confusion")]
SEEDS = {"dropout": [0.3, 0.5], "lr": [0.001, 0.0001], "seed": [0, 1, 2]}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 400)


def flat(values: Values) -> float:
    return 0.75


def slow(values: Values) -> float:
    return 0.72 if values["lr"] == 0.0001 else 0.82


def over_regularised(values: Values) -> float:
    return 0.74 if values["dropout"] == 0.5 and values["l2"] == 0.001 else 0.82


def text(found: tuple[Ranking, Analysis | None], pictures: list[str] | None = None) -> str:
    return report.markdown(*found, None, pictures or [])


def section(of: str, title: str) -> str:
    """From its heading to the next one."""
    _, heading, rest = of.partition(f"# {title}\n")
    assert heading, f"there is no section {title}"
    return re.split(r"\n#+ ", rest)[0]


def tables(of: str) -> list[list[list[str]]]:
    """Every table's lines as cells, with its heads first and without the rule."""
    found = re.findall(r"(?:^\|.*\n)+", of, flags=re.MULTILINE)
    split = [[line.strip("| ").split(" | ") for line in table.splitlines()] for table in found]
    return [[lines[0], *lines[2:]] for lines in split]


# Regularisation


def test_a_baseline_that_is_worse_is_called_over_regularised() -> None:
    said = section(text(sweep(REPORT, over_regularised)), "Regularisation balance")
    assert "**The report's baseline, dropout 0.5 with l2 0.001, is worse than the leader's dropout" in said
    assert "It over-regularises." in said
    assert re.search(r"it is \d\.\d\d points behind \(95 % interval \d.\d\d to \d+\.\d\d; not in the set", said)


def test_a_baseline_that_is_as_good_is_not() -> None:
    said = section(text(sweep(REPORT, flat)), "Regularisation balance")
    assert "The data cannot tell whether the report's baseline, dropout 0.5 with l2 0.001, is worse" in said
    assert "**" not in said


def test_a_leader_that_is_regularised_more_does_not_make_the_baseline_over_regularised() -> None:
    axes = {"dropout": [0.4, 0.5, 0.6], "lr": [0.001, 0.0005, 0.0001], "l2": [0.001, 0.0001]}
    found = sweep(axes, lambda values: 0.72 + 0.1 * (values["dropout"] == 0.6), training_sd=0.001)
    said = section(text(found), "Regularisation balance")
    assert "**The report's baseline, dropout 0.5 with l2 0.001, is worse" in said
    assert "over-regularises" not in said


def test_without_training_noise_the_baseline_cannot_be_judged() -> None:
    found = sweep({"dropout": [0.3, 0.5]}, lambda values: 0.9 - values["dropout"] / 2, base=Config(l2=0.001))
    said = section(text(found), "Regularisation balance")
    assert "On other excerpts too the report's baseline" in said
    assert "training noise is not known, and the data cannot tell whether it is worse" in said
    assert "**" not in said


def test_an_interval_that_does_not_allow_for_the_leaders_choice_is_not_enough() -> None:
    ranking, analysis = sweep(REPORT, over_regularised)
    assert analysis
    every = [replace(point, holds=True, in_set=True) for point in analysis.points]
    said = section(text((ranking, replace(analysis, points=tuple(every)))), "Regularisation balance")
    assert "The data cannot tell whether the report's baseline" in said
    assert "The interval alone does not allow for the leader having been chosen from 18." in said


def test_the_baseline_is_compared_at_the_leaders_other_settings() -> None:
    def accuracy(values: Values) -> float:
        if values["lr"] == 0.0005:
            return 0.85 if values["dropout"] == 0.3 else 0.7
        return 0.75

    ranking, analysis = sweep(REPORT, accuracy)
    assert analysis
    point = deductions.baseline(ranking, analysis)
    assert point
    assert point.values == {"dropout": 0.5, "lr": 0.0005, "l2": 0.001}


def test_a_baseline_that_leads_or_is_not_there_is_said() -> None:
    leading = sweep(REPORT, lambda values: 0.7 + 0.1 * (values["dropout"] == 0.5) + 50 * values["l2"])
    assert "The leader is the report's baseline" in text(leading)
    absent = section(text(sweep({"dropout": [0.3, 0.4]}, flat)), "Regularisation balance")
    assert "it has no finished run" in absent
    assert "Not swept: l2." in absent


def test_main_effects_name_what_is_worse_and_what_cannot_be_told() -> None:
    found = sweep(REPORT, lambda values: 0.8 - {0.3: 0, 0.4: 0.001, 0.5: 0.06}[values["dropout"]])
    said = section(text(found), "Regularisation balance")
    best, other = ("0.3", "0.4") if "dropout 0.3 has" in said else ("0.4", "0.3")
    assert f"dropout {best} has the highest mean accuracy. **It is better than** 0.5 (by" in said
    assert f"Whether it is better than {other} (by" in said
    assert re.search(r"F\(2, 4\) = \d+, p < 0\.001 after Holm\.\n", said)
    assert re.search(r"- l2 0\.\d+ has the highest mean accuracy\. Whether it is better", said)


def test_an_interaction_is_told_with_the_effect_that_it_qualifies() -> None:
    found = sweep(REPORT, lambda values: 0.8 - 0.1 * (values["dropout"] == 0.5 and values["lr"] == 0.0001))
    said = section(text(found), "Regularisation balance")
    assert re.search(r"- dropout .* What it does depends on lr \(p [<=] 0\.00\d after Holm\)\.\n", said)
    assert "depends on" not in section(text(sweep(REPORT, flat)), "Regularisation balance")


# Learning rate


def pace(values: Values) -> float:
    return 12.0 if values["lr"] == 0.0001 else 2.0


def test_a_low_rate_that_is_worse_and_still_rises_is_too_slow() -> None:
    said = section(text(sweep(REPORT, slow, pace=pace)), "Learning rate")
    assert "**lr 0.0001 is too slow to converge within 15 epochs**: it ends" in said
    assert "The data cannot tell whether lr 0.0005 is too slow" in said or "lr 0.0005 has the highest" in said
    assert " is faster than** 0.0001 (by" in said


@pytest.mark.parametrize(
    ("accuracy", "its_pace", "reason"),
    [
        (slow, 2.0, "as it does not clearly rise more at the end:"),
        (flat, 12.0, "as it is not clearly worse:"),
        (flat, 2.0, "as it is not clearly worse and it does not clearly rise more at the end:"),
    ],
)
def test_a_low_rate_that_is_only_worse_or_only_rises_is_not_called_too_slow(
    accuracy: Any, its_pace: float, reason: str
) -> None:
    lowest_is_never_best = sweep(
        REPORT,
        lambda values: accuracy(values) - 0.004 * (values["lr"] == 0.0001),
        pace=lambda values: its_pace if values["lr"] == 0.0001 else 2.0,
    )
    said = section(text(lowest_is_never_best), "Learning rate")
    assert f"The data cannot tell whether lr 0.0001 is too slow to converge within 15 epochs, {reason} it ends" in said
    assert "epochs**" not in said


def test_the_best_rate_too_may_not_have_converged() -> None:
    rising = section(text(sweep(REPORT, flat, pace=lambda values: 12.0)), "Learning rate")
    assert re.search(r"\*\*lr 0\.\d+ has not converged itself\*\*: its slope is \d\.\d\d points an epoch in", rising)
    assert "has not converged" not in section(text(sweep(REPORT, flat, pace=lambda values: 1.0)), "Learning rate")


def test_a_high_rate_is_never_too_slow() -> None:
    found = sweep(
        {"lr": [0.01, 0.001], "dropout": [0.3, 0.4, 0.5], "batch_size": [16, 32]},
        lambda values: 0.82 - 0.1 * (values["lr"] == 0.01),
        pace=lambda values: 12.0 if values["lr"] == 0.01 else 2.0,
    )
    said = section(text(found), "Learning rate")
    assert "too slow" not in said
    assert "lr 0.001 has the highest mean accuracy. **It is better than** 0.01" in said


def test_a_rate_that_jumps_is_told_from_a_steady_one() -> None:
    ranking, analysis = sweep(REPORT, slow)
    rng = np.random.default_rng(1)
    rows = []
    for row in ranking.rows:
        curve = row.curves[VAL_ACCURACY]
        jumps = dict(zip(curve, 0.04 * rng.standard_normal(len(curve)), strict=True))
        noisy = {epoch: value + (row.values["lr"] == 0.0001) * jumps[epoch] for epoch, value in curve.items()}
        rows.append(replace(row, curves=row.curves | {VAL_ACCURACY: noisy}))
    said = section(text((replace(ranking, rows=rows), analysis)), "Learning rate")
    assert re.search(r"\*\*lr 0\.\d+ is steadier than\*\* 0\.0001 \(by \d\.\d\d points, 95 % interval \d", said)
    assert "steadier than** " not in section(text((ranking, analysis)), "Learning rate")


def test_what_the_best_rate_does_less_well_is_told_too() -> None:
    ranking, analysis = sweep(REPORT, slow)
    assert analysis
    best, *others = deductions.learning_rates(ranking, analysis)
    mean = deductions.Mean(-0.03, 0.01, bootstrap.Interval(-0.05, -0.02))
    said = conclusions._compared(
        best, [(others[0], None), (others[1], mean)], 100, "points", ("steadier", "less steady")
    )
    lr, values = best.level.value, [rate.level.value for rate in others]
    assert said == (
        f"**lr {lr} is less steady than** {values[1]} (by 3.00 points, 95 % interval 2.00 to 5.00). "
        f"Whether lr {lr} is steadier than {values[0]} (too few pairs) the data cannot tell."
    )


def test_who_reaches_80_per_cent_and_when() -> None:
    found = sweep(REPORT, lambda values: 0.84 - 0.1 * (values["lr"] == 0.0001), pace=pace)
    (levels, differences) = tables(section(text(found), "Learning rate"))
    assert levels[0][3] == "reach 80 %"
    assert [line[0] for line in levels[1:]] == ["0.001", "0.0005", "0.0001"]
    assert levels[1][3].startswith("6 of 6, epoch ")
    assert levels[3][3] == "0 of 6"
    assert [line[:2] for line in differences[1:]][-1] == ["0.0001", "3"]


def test_runs_that_differ_in_l2_alone_are_one_pair() -> None:
    ranking, analysis = sweep(REPORT, slow)
    assert analysis
    twins = {
        row.id: next(other for other in ranking.rows if other.id == row.id - (row.id + 1) % 2) for row in ranking.rows
    }
    copied = replace(ranking, rows=[replace(row, curves=twins[row.id].curves) for row in ranking.rows])
    without = replace(ranking, rows=[row for row in copied.rows if row.id % 2])
    for rate, alone in zip(*(deductions.learning_rates(found, analysis) for found in (copied, without)), strict=True):
        assert (rate.runs, alone.runs) == (6, 3)
        assert (rate.slope, rate.pairs) == (alone.slope, alone.pairs)
        assert rate.slope_difference == alone.slope_difference
        assert rate.delay == alone.delay
    few = text(sweep({"lr": [0.001, 0.0001], "l2": [0.001, 0.0001, 0.0]}, slow, pace=pace))
    assert "(too few pairs)" in section(few, "Learning rate")


def test_slope_and_fluctuation_are_of_the_last_third() -> None:
    straight = {epoch: 0.5 + 0.01 * epoch for epoch in range(1, 16)}
    jagged = straight | {epoch: straight[epoch] + 0.3 for epoch in range(1, 11)}
    for accuracies in (straight, jagged):
        curve = deductions._curve(accuracies, 0.6)
        assert curve.slope == pytest.approx(0.01)
        assert curve.fluctuation == pytest.approx(0, abs=1e-9)
    noisy = {epoch: value + (-1) ** epoch * 0.01 for epoch, value in straight.items()}
    expected = stats.linregress([*range(11, 16)], [noisy[epoch] for epoch in range(11, 16)])
    curve = deductions._curve(noisy, 0.6)
    assert curve.slope == pytest.approx(expected.slope)
    assert (curve.epochs, curve.close) == (15, 10)
    assert deductions._curve({1: 0.1, 2: 0.9}, 0.5) == deductions.Curve(2, 2, 2, None, None)


def test_means_have_students_intervals_for_all_levels_together() -> None:
    values = [0.1, 0.2, 0.15, 0.4, 0.3, 0.2]
    mean = deductions._mean(values, tests=2)
    assert mean
    found = stats.ttest_1samp(values, 0).confidence_interval(0.975)
    assert (mean.interval.low, mean.interval.high) == pytest.approx((found.low, found.high))
    assert mean.error == pytest.approx(stats.sem(values))
    assert deductions._mean(values[:2], tests=1) is None


def test_three_pairs_that_agree_to_the_epoch_do_not_leave_no_doubt() -> None:
    ranking, analysis = sweep({"lr": [0.001, 0.0001], "dropout": [0.3, 0.4, 0.5]}, slow)
    assert analysis
    rows = []
    for row in ranking.rows:
        start = 3 if row.values["lr"] == 0.001 else 4
        steps = {epoch: 0.8 * (epoch >= start) for epoch in range(1, 16)}
        rows.append(replace(row, curves=row.curves | {VAL_ACCURACY: steps}))
    best, other = deductions.learning_rates(replace(ranking, rows=rows), analysis)
    assert (best.level.value, best.close, other.close) == (0.001, (3, 3), (3, 4))
    assert other.delay
    assert other.delay.value == 1
    assert other.delay.interval.low < 0 < other.delay.interval.high


# Capacity


@pytest.mark.parametrize(("successes", "n"), [(0, 18), (10, 18), (18, 18), (1, 1)])
def test_wilsons_interval_is_scipys(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = deductions.wilson(successes, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_architecture_says_nothing_of_capacity() -> None:
    said = section(text(sweep(REPORT, over_regularised)), "Capacity")
    assert re.match(r"\n\d+ of 18 finished runs end at 80 % or above \(95 % interval by Wilson's score, \d+ to", said)
    assert "this grid cannot tell: it has one architecture" in said


def test_of_several_architectures_the_better_one_is_named() -> None:
    widths = [[8, 16], [32, 64]]
    found = sweep(
        {"model.filters": widths, "seed": [0, 1, 2]}, lambda values: 0.7 + 0.12 * (values["model.filters"][0] == 32)
    )
    said = section(text(found), "Capacity")
    assert "model.filters [32,64] has the highest mean accuracy. **It is better than** [8,16] (by" in said
    assert [line[:2] for line in tables(said)[0][1:]] == [["[8,16]", "0 of 3"], ["[32,64]", "3 of 3"]]
    assert "one architecture" not in said
    assert "**" not in section(text(sweep({"model.filters": widths, "seed": [0, 1, 2]}, flat)), "Capacity")


# The whole


SWEEPS: Mapping[str, Any] = {
    "report": (REPORT, {}),
    "seeds": (SEEDS, {}),
    "incomplete": (
        REPORT,
        {"failed": {3: "FAILED: RuntimeError: out of memory", 7: "DIVERGED: the loss", 9: "PENDING"}},
    ),
    "no predictions": (REPORT, {"predicted": False}),
    "single": ({}, {}),
    "two": ({"lr": [0.001, 0.0001]}, {}),
    "one of two": ({"lr": [0.001, 0.0001]}, {"failed": {1: "FAILED: x"}}),
    "none of two": ({"lr": [0.001, 0.0001]}, {"failed": {1: "FAILED: x", 2: "RUNNING"}}),
    "only seeds": ({"seed": [0, 1, 2]}, {}),
    "groups": ({"model": ["report", "deep"], "data.fold": [0, 1], "augment": ["none", "specaugment"]}, {}),
    "strings": ({"schedule": ["constant", "onecycle"], "class_weights": [True, False], "data.pool": [1, 2]}, {}),
    "epochs": ({"epochs": [5, 15], "lr": [0.001, 0.0001]}, {}),
    "three epochs": (REPORT, {"base": Config(epochs=3)}),
    "one epoch": (REPORT, {"base": Config(epochs=1)}),
    "all right": (REPORT, {"accuracy": lambda values: 1.0, "training_sd": 0.0}),
    "all wrong": (REPORT, {"accuracy": lambda values: 0.0, "training_sd": 0.0}),
}


def made(name: str) -> tuple[Ranking, Analysis | None]:
    axes, options = SWEEPS[name]
    return sweep(axes, **{"accuracy": flat} | options)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_a_report_whose_tables_are_whole(name: str) -> None:
    ranking, analysis = made(name)
    before = (repr(ranking), repr(analysis))
    said = text((ranking, analysis), PICTURES)
    assert said == text((ranking, analysis), PICTURES)
    assert (repr(ranking), repr(analysis)) == before
    assert tables(said)
    for lines in tables(said):
        assert len(lines) > 1
        assert {len(line) for line in lines} == {len(lines[0])}
        assert all(cell.strip() for line in lines for cell in line)
    shown = [name for name in PICTURES if f"](plots/{name})" in said]
    web = page.html(said, dict.fromkeys(shown, b"png"))
    assert web.count("<table>") == len(tables(said))
    assert web.count("<img ") == len(shown)
    assert not re.search(r"\b(nan|inf|None(?! of)|-0\.00)\b", said)
    headings = ["Objective", "Tuning grid", "Notes"] if analysis is None else ["Top performers", "Key deductions"]
    assert all(f"\n## {heading}\n" in said for heading in headings)


def test_without_a_finished_run_the_report_is_short() -> None:
    said = text(made("none of two"))
    assert "None of 2 runs has finished" in said
    assert "- run 1 FAILED: `x`\n- run 2 RUNNING" in said
    assert "Key deductions" not in said


def test_points_are_listed_with_gap_interval_and_whether_they_may_be_the_best() -> None:
    ranking, analysis = sweep(REPORT, slow)
    assert analysis
    said = section(text((ranking, analysis)), "Top performers")
    (top,) = tables(said)
    assert top[0][:5] == ["rank", "run ID", "dropout", "lr", "l2"]
    assert [line[1] for line in top[1:]] == [str(row.id) for row in ranking.rows[:10]]
    assert top[1][-2:] == ["-", "yes"]
    second = analysis.points[1]
    assert second.gap_interval
    assert top[2][-2] == page.in_cell(second.gap, second.gap_interval)
    equal = sum(point.in_set is True for point in analysis.points) - 1
    assert equal == 11
    assert f"**{equal} of the other 17 combinations cannot be told from the leader.**" in said
    assert "best of 18" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("report", "Each combination was trained once: the intervals of accuracies do not hold training noise."),
        ("seeds", "Training noise, from the seeds:"),
        ("two", "Training noise is not known, and no interval holds it"),
    ],
)
def test_it_says_whether_intervals_hold_training_noise(name: str, words: str) -> None:
    assert words in section(text(made(name)), "Top performers")


def test_a_leader_stands_apart_only_among_these_nets_where_training_noise_is_not_known() -> None:
    alone = text(sweep({"lr": [0.001, 0.0001]}, slow))
    assert "**The leader stands apart from the other. That is of these trained nets: training noise is not" in alone
    seeds = text(sweep({"lr": [0.001, 0.0001], "seed": [0, 1, 2]}, slow))
    assert "**The leader stands apart from the other.**" in seeds


def test_of_several_seeds_a_point_has_all_its_runs() -> None:
    (top,) = tables(section(text(made("seeds")), "Top performers"))
    assert {line[1] for line in top[1:]} == {"1, 2, 3", "4, 5, 6", "7, 8, 9", "10, 11, 12"}
    assert "seed" not in top[0]


def test_an_incomplete_grid_gives_means_and_no_analysis() -> None:
    said = text(made("incomplete"))
    assert "The grid is incomplete: 15 of 18 combinations have a finished run." in said
    assert "Analysis of variance" not in said
    assert "| yes |" not in section(said, "What the grid explains")
    assert "**" not in section(said, "Regularisation balance") + section(said, "Learning rate")
    assert "- run 3 FAILED: `RuntimeError: out of memory`\n- run 7 DIVERGED: `the loss`\n- run 9 PENDING" in said
    assert "- 18 runs: 1 DIVERGED, 1 FAILED, 1 PENDING, 15 finished." in said


def test_the_analysis_of_variance_names_what_is_clear() -> None:
    said = section(text(sweep(REPORT, slow)), "What the grid explains")
    assert "Clear: lr." in said
    assert "No effect is clear." in section(text(sweep(REPORT, flat)), "What the grid explains")
    effects = tables(said)[0]
    assert [line[0] for line in effects[1:4]] == ["dropout", "lr", "l2"]
    assert sum(float(line[1]) for line in effects[1:]) == pytest.approx(100, abs=0.5)


def test_what_a_seed_does_to_all_combinations_alike_has_a_row_of_its_own() -> None:
    ranking, analysis = sweep(
        {"lr": [0.001, 0.0005, 0.0001], "seed": [0, 1, 2]}, lambda values: 0.7 + 0.05 * values["seed"]
    )
    said = text((ranking, analysis))
    (line,) = [line for line in tables(section(said, "What the grid explains"))[0] if line[0] == "seed"]
    assert float(line[1]) > 90
    assert line[2:] == ["2", "-", "-", "-"]
    assert "without what a seed does to all combinations alike" in section(said, "Top performers")
    single = text(made("report"))
    assert "| seed |" not in single
    assert "to all combinations alike" not in single


def test_an_effect_that_is_one_of_many_tested_is_not_clear() -> None:
    ranking, analysis = sweep(REPORT, flat)
    assert analysis
    effects = tuple(replace(effect, p=0.02, p_holm=0.12) for effect in analysis.anova.effects)
    changed = replace(analysis, anova=replace(analysis.anova, effects=effects))
    assert "No effect is clear." in text((ranking, changed))


def test_edges_come_with_the_value_to_add() -> None:
    ranking, analysis = sweep(REPORT, lambda values: 0.7 + 50 * values["lr"] + 0.03 * (values["dropout"] == 0.4))
    said = section(text((ranking, analysis)), "Optimised configuration")
    assert "- lr 0.001 is the largest of 3 values; add lr=0.002." in said
    assert "- dropout" not in said
    assert "python -m irmas.train best=outputs/made-up epochs=50 name=made-up-production" in said


def test_what_was_not_read_and_who_trained_is_noted() -> None:
    ranking, analysis = sweep({"lr": [0.001, 0.0001]}, flat)
    rows = [replace(row, source=f"source{row.id}") for row in ranking.rows]
    problem = "run 1: remove /home/me/outputs/made-up/runs/001-lr=0.001 to train it anew"
    said = section(text((replace(ranking, rows=rows, problems=[problem]), analysis)), "Notes")
    assert "- Could not be read: `run 1: remove runs/001-lr=0.001 to train it anew`." in said
    assert "- Mixed versions of the source: run 1 by source1, run 2 by source2." in said


def test_what_the_options_of_a_swept_group_change_is_told() -> None:
    ranking, analysis = sweep({"model": ["report", "deep"]}, lambda values: 0.5)
    points = [Point(1, {"model": "report"}, {}), Point(2, {"model": "deep"}, {"model.convs_per_block": 2})]
    told = report.markdown(replace(ranking, plan=replace(ranking.plan, points=points)), analysis, None, [])
    assert "1 convolution a block, global average pooling, a dense layer of 256. Varied: model (deep with " in told
    assert "convs_per_block 2)." in told


def test_runs_without_predictions_are_not_compared() -> None:
    said = text(made("no predictions"))
    assert "nothing can be paired with it. Which combinations may be the best is not known." in said
    assert "standard error" not in section(said, "Notes")
    assert "**" not in said.partition("## Key deductions")[2]


@pytest.mark.parametrize(
    ("data", "words"),
    [(Data(split="clip"), "all accuracies are too high"), (Data(source="standin"), "say nothing about IRMAS")],
)
def test_what_makes_accuracies_mean_less_is_noted(data: Data, words: str) -> None:
    assert words in section(text(sweep({"lr": [0.001, 0.0001]}, flat, base=Config(data=data))), "Notes")
    assert words not in text(made("two"))


def test_classes_that_nothing_validates_are_named() -> None:
    ranking, analysis = made("two")
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 5]])
    said = report.markdown(ranking, analysis, (counts, ["cello", "a|b", "flute"]), [])
    assert "- No excerpt of a&#124;b is among those that validate the leader." in section(said, "Notes")
    assert "No excerpt of" not in report.markdown(ranking, analysis, (counts[::2, ::2], ["cello", "flute"]), [])


def test_too_few_excerpts_exclude_nothing() -> None:
    ranking, analysis = made("report")
    assert analysis
    said = text((ranking, replace(analysis, threshold=analysis.points[0].accuracy)))
    assert "There are too few excerpts or seeds to exclude any" in section(said, "Top performers")
    assert "is out of the set of the best only if" not in said
    assert "too few excerpts" not in text((ranking, analysis))


def test_one_configuration_is_neither_a_leader_nor_deduced_from() -> None:
    for name, runs in (("single", "run 1"), ("only seeds", "runs 1-3")):
        said = text(made(name))
        assert f"The validation accuracy of {runs} is 7" in said
        assert "leader," not in tables(section(said, "Top performers"))[0][0]
        assert "Nothing was varied" in section(said, "Key deductions")
        assert "chosen the leader" not in said


def test_augmentation_alone_is_a_deduction_of_its_own() -> None:
    said = text(
        sweep({"augment": ["none", "specaugment"], "seed": [0, 1, 2]}, lambda v: 0.7 + 0.1 * (v["augment"] == "none"))
    )
    assert "augment=none has the highest mean accuracy. **It is better than** specaugment" in said
    assert "SpecAugment |" not in section(said, "Optimised configuration")


def test_no_path_of_the_machine_is_told() -> None:
    data = Data(root="/home/me/IRMAS", cache_dir="/scratch/cache", split="/home/me/split.csv")
    assert "/home" not in text(sweep(REPORT, flat, base=Config(data=data)))


def test_the_leaders_augmentation_is_told() -> None:
    plain = sweep(REPORT, flat, base=Config(augment=Augment(0, 0.0, 0, 0.0)))
    assert "| SpecAugment | no |" in text(plain)
    assert "No run has SpecAugment" in text(plain)
    assert "| SpecAugment | yes |" in text(made("report"))


# The page


def test_the_page_needs_nothing_else() -> None:
    said = text(made("report"), PICTURES)
    web = page.html(said, dict.fromkeys(PICTURES, b"\x89PNG"))
    assert re.findall(r'src="([^"]*)"', web) == ["data:image/png;base64,iVBORw=="] * 5
    assert not re.search(r"https?://|@import|url\(|<script|<link|href=", web)
    assert "<title>Tuning report: made-up</title>" in web
    with pytest.raises(KeyError, match=r"accuracy\.png"):
        page.html(said, {})


def test_only_pictures_that_exist_are_shown() -> None:
    said = text(made("report"), ["curves.png"])
    assert re.findall(r"\]\((.*?)\)", said) == ["plots/curves.png"]


HOSTILE = '<script src="http://e.vil">`*_|&amp;</script> ![x](http://e.vil/x.png)\n# [a](javascript:b) \\'


def test_foreign_text_stays_text() -> None:
    base = Config(data=Data(source="folder"))
    axes: dict[str, list[Any]] = {"data.root": [HOSTILE.replace("\n", " "), "plain"], "lr": [0.001, 0.0001]}
    ranking, analysis = sweep(axes, flat, failed={4: f"FAILED: {HOSTILE}"}, base=base)
    said = text((replace(ranking, problems=[HOSTILE]), analysis))
    web = page.html(said, {})
    assert not re.search(r"<(script|img|a|em|h1>[^T])", web.partition("<body>")[2])
    assert web.count("&lt;script") == 2  # the error and the problem
    assert web.count("&#60;script") >= 2  # the value, in the grid and among the best
    for lines in tables(said):
        assert {len(line) for line in lines} == {len(lines[0])}


def test_a_curve_that_is_made_up_ends_where_it_should() -> None:
    curve = rise(0.8, 15, 2.0, [0.0] * 15)
    assert len(curve) == 15
    assert curve[15] == pytest.approx(0.8)
    assert curve[1] < curve[5] < curve[15]
