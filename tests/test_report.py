"""The report of made-up sweeps: what was planted is stated, what was not is not, and every page can be read."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import REPORT, SEEDS, Values, renamed, simulated

from irmas.config import Augment, Config, Data
from irmas.results import plots, report
from irmas.results.analysis import Analysis
from irmas.results.comparison import Estimate, TrainingNoise
from irmas.results.ranking import Ranking
from irmas.results.runs import Confusion
from irmas.sweep.plan import PlannedRun

PICTURES = [f"{name}.png" for name in ("accuracy", "heatmap", "curves", "confusion")]
ONE_CYCLE = Config(schedule="onecycle")
Result = tuple[Ranking, Analysis | None]


def flat(values: Values) -> float:
    return 0.75


def slow(values: Values) -> float:
    return 0.72 if values["lr"] == 0.0001 else 0.82


def over_regularized(values: Values) -> float:
    return 0.7 if values["dropout"] == 0.5 and values["l2"] == 0.001 else 0.82


def text(result: Result, pictures: list[str] | None = None) -> str:
    return report.markdown(*result, pictures or [])


def section(text: str, title: str) -> str:
    """Return a section from its heading to the next one."""
    _, heading, rest = text.partition(f"# {title}\n")
    assert heading, f"there is no section {title}"
    return re.split(r"\n#+ ", rest)[0]


def tables(text: str) -> list[list[list[str]]]:
    """Return the lines of every table as cells, with its heads first and without the rule."""
    output = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    split = [[line.strip("| ").split(" | ") for line in table.splitlines()] for table in output]
    return [[lines[0], *lines[2:]] for lines in split]


def words(text: str) -> int:
    """Count the words beside tables, pictures and commands."""
    prose = re.sub(r"(?s:```.*?```)|^\|.*$|^!\[.*$", "", text, flags=re.MULTILINE)
    return len([word for word in prose.split() if re.search(r"\w", word)])


@cache
def example(name: str) -> Result:
    axes, options = SWEEPS[name]
    return simulated(axes, **{"accuracy": flat} | options)


FOLDED = {"lr": [0.001, 0.0001], "dropout": [0.3, 0.4], "data.fold": [0, 1, 2, 3, 4]}
SWEEPS: Mapping[str, Any] = {
    "report": (REPORT, {"accuracy": slow, "training_sd": 0.015}),
    "seeds": (SEEDS, {"accuracy": slow, "training_sd": 0.015}),
    "incomplete": (
        REPORT,
        {"failed": {3: "FAILED: RuntimeError: out of memory", 7: "DIVERGED: the loss", 9: "PENDING"}},
    ),
    "no predictions": (REPORT, {"predicted": False}),
    "single": ({}, {}),
    "two": ({"lr": [0.001, 0.0001]}, {"training_sd": 0.015}),
    "one of two": ({"lr": [0.001, 0.0001]}, {"failed": {1: "FAILED: x"}}),
    "none of two": ({"lr": [0.001, 0.0001]}, {"failed": {1: "FAILED: x", 2: "RUNNING"}}),
    "folds": (FOLDED, {"accuracy": slow, "training_sd": 0.015}),
    "a fold is missing": (FOLDED, {"accuracy": slow, "training_sd": 0.015, "failed": {2: "FAILED: x"}}),
    "folds of one cycle": (FOLDED, {"accuracy": slow, "training_sd": 0.015, "base": ONE_CYCLE}),
    "only seeds": ({"seed": [0, 1, 2]}, {}),
    "groups": ({"model": ["report", "deep"], "data.fold": [0, 1], "augment": ["none", "specaugment"]}, {}),
    "strings": ({"schedule": ["constant", "onecycle"], "class_weights": [True, False], "data.pool": [1, 2]}, {}),
    "epochs": ({"epochs": [5, 15], "lr": [0.001, 0.0001]}, {}),
    "rising": (REPORT, {"base": Config(epochs=5), "pace": 5.0}),
    "one epoch": (REPORT, {"base": Config(epochs=1)}),
    "one cycle": (REPORT, {"base": ONE_CYCLE}),
    "all right": (REPORT, {"accuracy": lambda values: 1.0, "training_sd": 0.0}),
    "all wrong": (REPORT, {"accuracy": lambda values: 0.0, "training_sd": 0.0}),
    "five keys": (
        {"dropout": [0.3, 0.4], "lr": [0.1, 0.2], "l2": [0.1, 0.2], "batch_size": [16, 32], "model.dense": [64, 128]},
        {"training_sd": 0.015},
    ),
    "random": ({"lr": [number / 1000 for number in range(1, 41)]}, {"training_sd": 0.015}),
    "many values": ({"lr": [number / 1000 for number in range(1, 21)]}, {"training_sd": 0.015}),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_a_report_whose_tables_are_whole(name: str) -> None:
    ranking, analysis = example(name)
    before = (repr(ranking), repr(analysis))
    output = text((ranking, analysis), PICTURES)
    assert output == text((ranking, analysis), PICTURES)
    assert (repr(ranking), repr(analysis)) == before
    assert tables(output)
    for lines in tables(output):
        assert len(lines) > 1
        assert {len(line) for line in lines} == {len(lines[0])}
        assert all(cell.strip() for line in lines for cell in line)
    shown = [name for name in PICTURES if f"](plots/{name})" in output]
    web = report.html(output, dict.fromkeys(shown, b"png"))
    assert web.count("<table>") == len(tables(output))
    assert web.count("<img ") == len(shown)
    assert web.count("<li>") == len(re.findall("^- ", output, re.MULTILINE))
    assert not re.search(r"\b(nan|inf|None(?! of)|-0\.0+)\b|\n\n\n|[^\n]\n(Training noise|Next:|#)", output)
    assert ("\n## Top " in output) == (analysis is not None and len(analysis.points) > 1)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_summary_has_at_most_150_words_and_a_report_600(name: str) -> None:
    output = text(example(name), PICTURES)
    assert len(re.findall(r"\S*\w\S*", section(output, "Summary"))) <= 150
    assert words(output) <= 600


def test_the_code_holds_no_sentences() -> None:
    tree = ast.parse(Path(report.__file__).read_text())
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    strings = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]
    assert len(strings) > 50
    assert [output for output in strings if len(output.split()) > 3] == []


# The summary


def test_runs_that_still_rise_are_too_early_to_choose_from() -> None:
    output = section(text(example("rising")), "Summary")
    assert "**Too early to choose.** " in output
    assert "Next: accuracy still rises by 12.0 percentage points per epoch, and more epochs come first." in output
    assert " epochs=15 " in output
    assert "Too early" not in text(example("report"))


def test_points_that_cannot_be_distinguished_share_the_best_set() -> None:
    ranking, analysis = example("seeds")
    assert analysis
    assert len(analysis.best_set) == 12
    output = section(text((ranking, analysis)), "Summary")
    assert "**12 of 18 points are in the best set** (ranks 1-12): the best is among them (95 % confidence)" in output
    assert "Next: 12 of 18 points are in the best set" in output
    refined = section(text((ranking, replace(analysis, confidence=0.975))), "Summary")
    assert "97.5 % confidence" in refined


def test_one_point_ahead_of_all_decides() -> None:
    output = section(text(simulated({"lr": [0.001, 0.0001], "seed": [0, 1, 2]}, slow)), "Summary")
    assert "**Decided.** One point is better than the other one (95 % confidence)." in output
    assert "\npython -m irmas.train best=outputs/made-up epochs=50 name=made-up-production\n" in output


def test_without_predictions_nothing_is_decided() -> None:
    output = text(example("no predictions"))
    assert "**Undecided:** 17 of 18 points cannot be compared with the leader." in output
    assert "- dropout: 0." in section(output, "Summary")
    assert "untested" in section(output, "Summary")
    assert "nothing can be compared with it." in section(output, "Notes")
    assert "best set" not in output


def test_the_leaders_expected_accuracy_is_beside_the_observed_one() -> None:
    ranking, analysis = example("seeds")
    assert analysis
    changed = replace(analysis, leader=Estimate(0.612, 0.5813, 0.64))
    output = section(text((ranking, changed)), "Summary")
    observed = f"{100 * analysis.points[0].accuracy:.1f} % observed"
    assert (
        f"{observed}. Expect **61.2 %** (95 %: 58.1 to 64.0) when trained again and validated on other recordings"
        in output
    )
    assert "looks better than it is; by how much is unknown" in text((ranking, replace(analysis, leader=None)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("report", "percentage points per run, from the fluctuation of the last epochs, since there is one seed."),
        ("seeds", "percentage points per run, from the seeds."),
        ("folds", "percentage points per run, from the folds, other excerpts included."),
        ("one cycle", "one seed and an annealed learning rate cannot show it; a second seed is needed."),
        ("one epoch", "one seed and so few epochs cannot show it; a second seed is needed."),
    ],
)
def test_the_source_of_the_training_noise_is_named(name: str, words: str) -> None:
    output = section(text(example(name)), "Summary")
    assert words in output
    assert output.count("Training noise") == 1
    n, folds = (6000, ", in 5 folds") if name == "folds" else (1200, "")
    assert f"{n} excerpts of {n // 4} recordings validate{folds}." in output


def test_folds_show_training_noise_where_one_seed_does_not() -> None:
    ranking, analysis = example("folds of one cycle")
    assert analysis
    assert (len(analysis.points), analysis.noise and analysis.noise.source) == (4, "folds")
    assert "**Undecided:**" not in text((ranking, analysis))


def test_a_missing_fold_is_named_and_its_point_is_no_cell_of_the_grid() -> None:
    ranking, analysis = example("a fold is missing")
    assert analysis
    assert "- Of 19 runs, 4 of points that lack a fold cannot be compared with the leader. Rerun" in text(
        (ranking, analysis)
    )
    heatmap = plots._heatmap(ranking, analysis)
    assert heatmap
    assert len(heatmap.axes[0].texts) == 3
    assert "a fold is missing" in " ".join(note.get_text() for note in heatmap.texts)


def test_noise_of_epochs_in_spite_of_seeds_is_explained() -> None:
    ranking, analysis = example("seeds")
    assert analysis
    output = text((ranking, replace(analysis, noise=TrainingNoise(0.02, 30, "epochs"))))
    assert "2.0 percentage points per run, from the fluctuation of the last epochs, since few points have" in output


def test_unknown_training_noise_asks_for_a_second_seed() -> None:
    output = text(example("one cycle"))
    assert "**Undecided:** how much trainings of one point differ is unknown." in output
    assert " seed=0,1 name=made-up\n" in output
    assert "Intervals: other recordings; without" in output
    assert "Intervals: other recordings and other trainings; without" in text(example("report"))


def test_each_key_has_a_line_and_what_holds_comes_first() -> None:
    ranking, analysis = example("seeds")
    assert analysis
    (effect,) = [effect for effect in analysis.effects if effect.key == "lr"]
    behind = effect.levels[0]
    assert behind.lead
    half = 100 * (behind.lead.high - behind.lead.value)
    lines = re.findall("^- .*$", section(text((ranking, analysis)), "Summary"), re.MULTILINE)
    assert lines[0] == f"- lr: {effect.best.value}, by {100 * behind.lead.value:.1f} ± {half:.1f} over 0.0001"
    assert len(lines) == 3
    assert all(re.search(r": \S+, by \d\.\d ± \d\.\d \(not reliable\)$", line) for line in lines[1:])


def test_of_many_keys_four_are_in_the_summary_and_all_in_the_table() -> None:
    output = text(example("five keys"))
    assert len(re.findall("^- ", section(output, "Summary"), re.MULTILINE)) == 4
    assert len(tables(section(output, "Keys"))[0]) == 6


def test_the_note_is_below_the_title() -> None:
    result = simulated(REPORT, flat, base=Config(note="as *discussed*"))
    assert text(result).startswith("# Tuning report: made-up\n\nas &#42;discussed&#42;\n\n## Summary\n")
    assert text(simulated(REPORT, flat)).startswith("# Tuning report: made-up\n\n## Summary\n")


def test_without_a_finished_run_the_report_is_short() -> None:
    output = text(example("none of two"))
    assert "None of 2 runs has finished" in output
    assert "- run 1 FAILED: `x`\n- run 2 RUNNING" in output
    assert "Next:" not in output


def test_one_point_is_no_leader() -> None:
    for name, runs in (("single", "run 1"), ("only seeds", "runs 1-3")):
        output = text(example(name))
        assert f"**One point:** {runs}, 7" in output
        assert "eader" not in output
        assert "best set" not in output


# Tables


def test_the_first_five_have_probability_and_expected_loss() -> None:
    ranking, analysis = example("seeds")
    assert analysis
    output = section(text((ranking, analysis)), "Top 5")
    (top,) = tables(output)
    assert top[0] == [
        *("rank", "run ID", "dropout", "lr", "l2", "val_accuracy, %", "last epoch, %", "95 % interval"),
        *("P(best)", "expected loss", "best set"),
    ]
    assert len(top) == 6
    second = analysis.points[1]
    assert second.estimate
    assert second.p_best is not None
    assert second.expected_loss is not None
    assert top[2][0] == "2"
    assert top[2][1] == ",".join(map(str, second.runs))
    assert top[2][5] == f"{100 * second.accuracy:.2f}"
    assert top[2][7] == f"{100 * second.estimate.low:.1f} to {100 * second.estimate.high:.1f}"
    assert top[2][8:] == [f"{second.p_best:.2f}", f"{100 * second.expected_loss:.2f}", "yes"]
    last = [run.curves["val/accuracy"][15] for run in ranking.runs if run.id in second.runs]
    assert top[2][6] == f"{100 * np.mean(last):.2f}"
    assert "are approximate" in output
    assert "mean over the last 5 epochs" in output


def test_mixed_schedules_are_noted() -> None:
    output = text(example("strings"))
    assert "mean over the last 1 to 5 epochs, by a run's schedule and length." in output
    assert "- val_accuracy is the last epoch's for runs " in section(output, "Notes")
    assert "is the validation accuracy of the last epoch." in text(example("one cycle"))


def test_a_key_has_a_row_with_its_lead_over_each_value() -> None:
    ranking, analysis = example("seeds")
    assert analysis
    (rows,) = tables(section(text((ranking, analysis)), "Keys"))
    assert rows[0][:4] == ["key", "best value", "lead over the other values, percentage points", "p"]
    row = next(row for row in rows if row[0] == "lr")
    assert re.fullmatch(r"0\.0001: \*\*\d+\.\d ± \d\.\d\*\*, 0\.\d+: \d\.\d ± \d\.\d", row[2])
    assert row[3] == "< 0.001"
    many = text(example("many values"))
    assert "0.024, 16 more |" in text(example("random"))
    assert re.search(r"\| lr \| .*(: \d\.\d ± \d\.\d,?){1} and 13 more \|", many)


def test_a_value_beyond_the_grid_is_named_where_accuracy_rises_towards_it() -> None:
    rising = text(simulated(SEEDS, lambda values: 0.7 + 100 * values["lr"], training_sd=0.002))
    assert "| lr=0.002 |" in section(rising, "Keys")
    assert "Try next: accuracy rises" in rising
    hill = text(
        simulated({"lr": [0.001, 0.0005, 0.0001]}, lambda v: 0.7 + 0.1 * (v["lr"] == 0.0005), training_sd=0.002)
    )
    assert "try next" not in hill


def test_runs_without_a_rank_are_listed_with_their_reasons() -> None:
    output = text(example("incomplete"))
    assert "- run 3 FAILED: `RuntimeError: out of memory`\n- run 7 DIVERGED: `the loss`\n- run 9 PENDING" in output
    assert "| runs | 1 DIVERGED, 1 FAILED, 1 PENDING, 15 finished |" in output
    failed = {number: f"FAILED: reason {number}" for number in range(1, 18)}
    assert "- 9 more reasons: `python -m irmas.status outputs/made-up`" in text(simulated(REPORT, flat, failed=failed))


def test_the_settings_that_a_swept_group_changes_are_listed() -> None:
    ranking, analysis = simulated({"model": ["report", "deep"]}, flat)
    points = [PlannedRun(1, {"model": "report"}, {}), PlannedRun(2, {"model": "deep"}, {"model.convs_per_block": 2})]
    output = text((renamed(ranking, runs=points), analysis))
    assert "| model | report, deep (model.convs_per_block 2) |" in output
    assert "dense layer of 256 (model: see above)" in output


# Deductions


DEDUCTIONS = "Deductions of the report that the suite reproduces"


def test_deductions_are_drawn_for_the_reports_own_grid_alone() -> None:
    assert DEDUCTIONS in text(example("report"))
    assert DEDUCTIONS in text(example("seeds"))
    for axes in ({"l2": [0.001]}, {"lr": [0.001, 0.0001]}, {"batch_size": [16, 32]}):
        assert DEDUCTIONS not in text(simulated({**REPORT, **axes}, flat))


def test_a_baseline_behind_a_leader_that_regularizes_less_over_regularizes() -> None:
    output = section(text(simulated(SEEDS, over_regularized)), DEDUCTIONS)
    assert "over-regularizes:* **confirmed**; its point at the leader's learning rate (runs " in output
    assert re.search(r"is 1\d\.\d percentage points behind the leader and not in the best set\.", output)


def test_a_baseline_that_may_be_the_best_is_undecided() -> None:
    assert "over-regularizes:* **undecided**" in section(text(simulated(SEEDS, flat)), DEDUCTIONS)


def test_a_baseline_that_is_the_best_refutes() -> None:
    ranking, analysis = simulated(
        SEEDS, lambda v: 0.7 + 0.1 * (v["dropout"] == 0.5 and v["l2"] == 0.001 and v["lr"] == 0.001)
    )
    output = section(text((ranking, analysis)), DEDUCTIONS)
    assert re.search(r"over-regularizes:\* \*\*refuted\*\*; .* leads\.", output)


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (slow, r"\*\*confirmed\*\*; it ends \d+\.\d percentage points \(\d.* to .*\) behind 0\.\d+, p < 0\.001\."),
        (flat, r"\*\*undecided\*\*; it ends .*, p = \d"),
        (lambda values: 0.7 + 0.1 * (values["lr"] == 0.0001), r"\*\*refuted\*\*; it ends first, p < 0\.001\."),
    ],
)
def test_a_low_rate_is_too_slow_if_it_ends_behind(accuracy: Any, verdict: str) -> None:
    assert re.search(rf"within 15 epochs:\* {verdict}", section(text(simulated(SEEDS, accuracy)), DEDUCTIONS))


def test_a_rate_without_a_test_ends_behind_and_is_undecided() -> None:
    output = section(text(simulated(REPORT, slow, predicted=False)), DEDUCTIONS)
    assert re.search(r"\*\*undecided\*\*; it ends \d+\.\d percentage points behind 0\.\d+\.", output)


def test_one_architecture_shows_nothing_about_capacity() -> None:
    output = section(text(simulated(REPORT, slow, training_sd=0.001)), DEDUCTIONS)
    assert "**not testable**; a grid over one architecture cannot show it, and 12 of 18 points reach 80 %." in output


# Notes


@pytest.mark.parametrize(
    ("data", "words"),
    [(Data(split="clip"), "all accuracies are too high"), (Data(source="standin"), "say nothing about IRMAS")],
)
def test_limits_of_the_accuracies_are_noted(data: Data, words: str) -> None:
    assert words in section(text(simulated({"lr": [0.001, 0.0001]}, flat, base=Config(data=data))), "Notes")
    assert words not in text(example("two"))


def test_accuracies_on_training_data_mean_nothing() -> None:
    output = section(text(simulated(REPORT, flat, base=Config(data=Data(split="all")))), "Summary")
    assert output.strip().startswith("**These accuracies mean nothing:**")
    assert "mean nothing" not in text(example("report"))


def test_unreadable_files_and_mixed_sources_are_noted() -> None:
    ranking, analysis = example("two")
    runs = [replace(run, source=f"source{run.id}") for run in ranking.runs]
    problem = "run 1: remove /home/me/outputs/made-up/runs/001-lr=0.001 to train it again"
    output = section(text((replace(ranking, runs=runs, problems=[problem]), analysis)), "Notes")
    assert "- Not readable: `run 1: remove runs/001-lr=0.001 to train it again`." in output
    assert "- mixed versions of the source: run 1 by source1, run 2 by source2." in output


def test_classes_that_nothing_validates_are_named() -> None:
    ranking, analysis = example("two")
    assert analysis
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 5]])
    output = text((ranking, replace(analysis, confusion=Confusion(counts, ["cello", "a|b", "flute"], (1,)))))
    assert "- No excerpt of a&#124;b validates the leader." in section(output, "Notes")
    assert "No excerpt of" not in text(
        (ranking, replace(analysis, confusion=Confusion(counts[::2, ::2], ["cello", "flute"], (1,))))
    )


def test_paths_of_the_machine_appear_only_in_a_command_that_needs_them() -> None:
    data = Data(root="/home/me/IRMAS", cache_dir="/scratch/cache", split="/home/me/split.csv")
    assert "/home" not in text(simulated(REPORT, flat, base=Config(data=data)))
    ranking, analysis = simulated(REPORT, flat, base=Config(data=data, epochs=5), pace=5.0)
    command = [*ranking.plan.command, "data.root=/home/me/IRMAS"]
    longer = text((renamed(ranking, command=command), analysis))
    assert " data.root=/home/me/IRMAS epochs=15 " in longer
    assert longer.count("/home") == 1


def test_the_augmentation_of_all_runs_is_listed() -> None:
    plain = simulated(REPORT, flat, base=Config(augment=Augment(0, 0.0, 0, 0.0)))
    assert "| augmentation | none |" in text(plain)
    assert "| augmentation | SpecAugment, 2 frequency masks of up to 10 %" in text(example("report"))


# The page


def test_the_page_needs_nothing_else() -> None:
    output = text(example("report"), PICTURES)
    web = report.html(output, dict.fromkeys(PICTURES, b"\x89PNG"))
    assert re.findall(r'src="([^"]*)"', web) == ["data:image/png;base64,iVBORw=="] * 4
    assert not re.search(r"https?://|@import|url\(|<script|<link|href=", web)
    assert "<title>Tuning report: made-up</title>" in web
    with pytest.raises(KeyError, match=r"accuracy\.png"):
        report.html(output, {})


def test_only_pictures_that_exist_are_shown() -> None:
    output = text(example("report"), ["curves.png"])
    assert re.findall(r"\]\((.*?)\)", output) == ["plots/curves.png"]


HOSTILE = '<script src="http://e.vil">`*_|&amp;</script> ![x](http://e.vil/x.png)\n# [a](javascript:b) \\ {{ 1 }}'


def test_foreign_text_stays_text() -> None:
    base = Config(data=Data(source="folder"))
    axes: dict[str, list[Any]] = {"data.root": [HOSTILE.replace("\n", " "), "plain"], "lr": [0.001, 0.0001]}
    ranking, analysis = simulated(axes, flat, failed={4: f"FAILED: {HOSTILE}"}, base=base)
    output = text((replace(ranking, problems=[HOSTILE]), analysis))
    web = report.html(output, {})
    assert not re.search(r"<(script|img|a|em|h1>[^T])", web.partition("<body>")[2])
    assert web.count("&lt;script") == 2  # the error and the problem
    assert web.count("&#60;script") >= 2  # the value, in the grid and among the best
    for lines in tables(output):
        assert {len(line) for line in lines} == {len(lines[0])}
