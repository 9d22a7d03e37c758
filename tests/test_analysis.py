"""Analyses of simulated sweeps with a known truth: rates of errors, and sweeps that lack something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulation import GRID, KEYS, NAMED, OWN_STREAMS, TRUTHS, Noise, Sweep

from irmas.data.split import FOLDS
from irmas.results.analysis import Analysis, analyze
from irmas.results.runs import Run
from irmas.run.events import VAL_ACCURACY

SWEPT = [*KEYS, "seed", "data.fold"]
HARD = replace(OWN_STREAMS, hard_fold=0.1)
"""Noise under which fold 0 is harder than the others by ten percentage points."""
NULLS = 60
REMEDY = " Remove a run's folder and rerun the sweep command to train it again."


def sweep(truth: str, seeds: int, number: int = 0, noise: Noise = OWN_STREAMS) -> list[Run]:
    return Sweep(np.random.default_rng([number, seeds]), TRUTHS[truth], noise).grid(seeds)


def on_folds(truth: str, number: int = 0, noise: Noise = HARD, seeds: int = 1) -> list[Run]:
    """Return a sweep on five folds of 270 excerpts, which together are as many as those of other sweeps."""
    return Sweep(np.random.default_rng([number, 5]), TRUTHS[truth], noise, 270, FOLDS).grid(seeds)


def without(runs: Sequence[Run], values: dict[str, Any], *folds: int) -> list[Run]:
    """Return all runs but those of one point on these folds."""
    return [run for run in runs if run.fold not in folds or values.items() - run.values.items()]


def names_a_worse_level(result: Analysis) -> bool:
    return any(level.is_behind for effect in result.effects for level in effect.levels)


@pytest.mark.parametrize("seeds", [1, 2])
def test_equal_points_are_rarely_called_unequal(seeds: int) -> None:
    """`studies/error_rates.py` shows the rates to a point; here three standard errors above 6 % fail."""
    result = [analyze(sweep("equal", seeds, number), SWEPT) for number in range(NULLS)]
    named = [next(point for point in one.points if point.values == NAMED) for one in result]
    truth = TRUTHS["equal"](NAMED)
    assert sum(not point.in_best_set for point in named) <= 9
    assert sum(map(names_a_worse_level, result)) <= 9
    assert sum(one.leader is not None and one.leader.low <= truth <= one.leader.high for one in result) >= 51
    raw = np.mean([one.points[0].accuracy for one in result])
    assert np.mean([one.leader.value for one in result if one.leader]) - truth < 0.6 * (raw - truth)


def test_folds_are_one_point_whose_errors_are_as_rare_however_hard_a_fold_is() -> None:
    """As above, where each fold has noise of its own and one is ten percentage points harder for all points."""
    result = [analyze(on_folds("equal", number), SWEPT) for number in range(NULLS)]
    assert {len(one.points) for one in result} == {len(GRID)}
    assert {(one.folds, one.excerpts, one.recordings) for one in result} == {(FOLDS, 1350, 450)}
    assert {(one.noise.source, one.noise.df) for one in result if one.noise} == {("folds", 68)}
    named = [next(point for point in one.points if point.values == NAMED) for one in result]
    truth = TRUTHS["equal"](NAMED)
    assert sum(not point.in_best_set for point in named) <= 9
    assert sum(map(names_a_worse_level, result)) <= 9
    assert sum(one.leader is not None and one.leader.low <= truth <= one.leader.high for one in result) >= 51
    own = [point.estimate for point in named if point.estimate]
    assert sum(estimate.low <= truth <= estimate.high for estimate in own) >= 51
    spread = np.std([point.accuracy for point in named])
    assert np.mean([estimate.high - estimate.low for estimate in own]) / 3.92 == pytest.approx(spread, rel=0.3)
    # The hard fold widens nothing: it is the same for all points, and no other recordings would make it.
    even = analyze(on_folds("equal", noise=OWN_STREAMS), SWEPT).points[0].estimate
    hard = analyze(on_folds("equal"), SWEPT).points[0].estimate
    assert even is not None
    assert hard is not None
    assert hard.high - hard.low == pytest.approx(even.high - even.low, rel=0.1)


def test_what_a_training_set_does_to_one_point_alone_is_noise_that_its_seeds_share() -> None:
    noise = Noise(run=0.003, epoch=0.003, fold_point=0.02)
    result = [analyze(on_folds("equal", number, noise, seeds=3), SWEPT) for number in range(NULLS // 2)]
    assert {(one.noise.source, one.noise.df) for one in result if one.noise} == {("folds", 68)}
    named = [next(point for point in one.points if point.values == NAMED) for one in result]
    assert sum(not point.in_best_set for point in named) <= 5
    assert sum(map(names_a_worse_level, result)) <= 5


def test_seeds_show_training_noise_where_too_few_points_have_folds() -> None:
    runs = [
        replace(run, schedule="onecycle") for run in on_folds("equal", seeds=2) if NAMED.items() <= run.values.items()
    ]
    result = analyze(runs, SWEPT)
    assert result.noise is not None
    assert (len(result.points), result.noise.source, result.noise.df) == (1, "seeds", FOLDS)


def test_the_best_point_of_several_folds_is_kept_and_found() -> None:
    for number in range(5):
        result = analyze(on_folds("one point 5 ahead", number), SWEPT)
        assert result.points[0].values == NAMED
        assert result.points[0].in_best_set
        assert len(result.best_set) < 16


@pytest.mark.parametrize(("lacks", "leads"), [(0, "equal"), (1, "one point 5 ahead")])
def test_a_point_that_lacks_a_fold_neither_wins_nor_loses_by_it(lacks: int, leads: str) -> None:
    """Without the hard fold its mean is two percentage points too high, without another one half a point too low."""
    for number in range(5):
        whole = on_folds(leads, number)
        result = analyze(without(whole, NAMED, lacks), SWEPT, [run.values for run in whole])
        last = result.points[-1]
        assert (last.values, last.has_all_folds, last.in_best_set, last.p_best) == (NAMED, False, None, None)
        assert last.estimate is not None
        assert all(point.in_best_set is not None for point in result.points[:-1])
        assert result.unpaired == (
            "Of 89 runs, 4 of points that lack a fold cannot be compared with the leader."
            " Rerun the sweep command to train what is missing."
        )
        assert not result.is_decided
        # The other points are compared as if it did not exist.
        alone = analyze(without(whole, NAMED, *range(FOLDS)), SWEPT)
        assert [point.runs for point in alone.points] == [point.runs for point in result.points[:-1]]
        assert [effect.key for effect in result.effects] == KEYS
        for mine, other in zip(result.effects, alone.effects, strict=True):
            assert [level.accuracy for level in mine.levels] == pytest.approx([one.accuracy for one in other.levels])
            assert all(level.lead for level in mine.levels if level is not mine.best)


def test_points_that_lack_different_folds_are_not_compared_with_each_other() -> None:
    runs = on_folds("equal")
    for values, fold in zip(GRID, range(len(GRID)), strict=True):
        runs = without(runs, values, fold % FOLDS)
    result = analyze(runs, SWEPT)
    whole = [point for point in result.points if point.has_all_folds]
    assert result.points[: len(whole)] == tuple(whole)
    lacking = [{*range(FOLDS)} - {run.fold for run in runs if run.id in point.runs} for point in whole]
    assert all(folds == lacking[0] for folds in lacking)
    assert {point.in_best_set for point in result.points if not point.has_all_folds} == {None}


def test_a_seed_that_is_missing_on_one_fold_does_not_move_the_point() -> None:
    runs = on_folds("equal", seeds=2)
    lost = next(run for run in runs if run.fold == 0)
    result = analyze([run for run in runs if run is not lost], SWEPT)
    point = next(point for point in result.points if len(point.runs) == 2 * FOLDS - 1)
    own = [run for run in runs if run.id in point.runs]
    folds = [np.mean([run.accuracy or 0.0 for run in own if run.fold == fold]) for fold in range(FOLDS)]
    assert point.accuracy == pytest.approx(np.mean(folds))
    assert np.mean([run.accuracy or 0.0 for run in own]) > point.accuracy + 0.005  # fold 0 is hard
    assert point.in_best_set is not None


def test_runs_that_share_a_stream_would_break_it() -> None:
    """The error rates do not hold with noise that the runs of a seed and learning rate share."""
    shared = Noise(run=0.004, seed_lr=0.02, epoch=0.004)
    assert sum(names_a_worse_level(analyze(sweep("equal", 2, number, shared), SWEPT)) for number in range(20)) >= 8


def test_the_best_of_unequal_points_is_kept_and_the_worst_are_not() -> None:
    for number in range(10):
        result = analyze(sweep("one point 5 ahead", 3, number), SWEPT)
        assert result.points[0].values == NAMED
        assert result.points[0].in_best_set
        assert len(result.best_set) < 14
        assert (result.points[0].p_best or 0) > 0.5
    settled = analyze(sweep("one point 5 ahead", 5, 1, Noise(run=0.002, epoch=0.002)), SWEPT)
    assert settled.is_decided
    assert settled.leader is not None
    assert settled.leader.value == pytest.approx(0.60, abs=0.02)


def test_too_slow_a_learning_rate_is_found_with_one_seed() -> None:
    result = analyze(sweep("as recorded", 1), KEYS)
    lr = next(effect for effect in result.effects if effect.key == "lr")
    assert next(level.value for level in lr.levels if level.is_behind) == 0.0001
    assert (lr.p or 1) < 0.01
    assert result.noise is not None
    assert result.noise.source == "epochs"
    assert result.noise.sd == pytest.approx(OWN_STREAMS.epoch, rel=0.25)


def test_training_noise_comes_from_seeds_where_there_are_several() -> None:
    noise = analyze(sweep("equal", 3), SWEPT).noise
    assert noise is not None
    assert (noise.source, noise.df) == ("seeds", 36)
    two_points = [run for run in sweep("equal", 2) if run.values["seed"] == 0 or run.values == NAMED | {"seed": 1}]
    few = analyze(two_points, SWEPT).noise
    assert few is not None
    assert few.source == "epochs"  # one point with two seeds says less


def test_an_annealed_rate_with_one_seed_shows_no_noise() -> None:
    result = analyze([replace(run, schedule="onecycle") for run in sweep("as recorded", 1)], KEYS)
    assert result.noise is None
    assert result.leader is None
    assert result.rise is None
    assert {point.in_best_set for point in result.points} == {None}
    assert not result.is_decided
    assert [point.runs for point in result.best_set] == [result.points[0].runs]
    assert all(level.lead is None for effect in result.effects for level in effect.levels)
    assert result.points[0].estimate is not None  # of this net


def test_a_failed_run_neither_takes_conclusions_away_nor_narrows_the_set() -> None:
    whole, dropped = sweep("as recorded", 1), []
    before = {point.runs for point in analyze(whole, KEYS).best_set}
    for failed in whole:
        result = analyze([run for run in whole if run is not failed], KEYS)
        assert next(effect for effect in result.effects if effect.key == "lr").levels[0].is_behind
        assert result.leader is not None
        after = {point.runs for point in result.best_set}
        dropped.append(len(before - after - {(failed.id,)}))
    assert np.mean(dropped) <= 0.5


def test_runs_without_predictions_or_on_other_excerpts_are_not_compared() -> None:
    runs = sweep("as recorded", 1)
    worst = min(runs, key=lambda run: run.accuracy or 0.0).id
    lacking = [replace(run, answers=None) if run.id == worst else run for run in runs]
    result = analyze(lacking, KEYS)
    assert result.unpaired == ("Of 18 runs, 1 without predictions cannot be compared with the leader." + REMEDY)
    assert [point.in_best_set for point in result.points if point.runs == (worst,)] == [None]
    assert all(level.lead is None for effect in result.effects for level in effect.levels)
    nothing = analyze([replace(run, answers=None) for run in runs], KEYS)
    assert (
        nothing.unpaired
        == f"The leader (run {nothing.points[0].runs[0]}) lacks predictions: nothing can be compared with it.{REMEDY}"
    )
    assert (nothing.leader, nothing.excerpts, nothing.points[0].estimate) == (None, 0, None)


def with_curve(run: Run, curve: Sequence[float]) -> Run:
    return replace(run, curves={VAL_ACCURACY: dict(enumerate(curve, start=1))})


def test_still_rising_needs_nearly_all_runs() -> None:
    def climbing(by: float) -> Analysis:
        runs = sweep("equal", 1, noise=Noise(run=0.01, epoch=0.001))
        return analyze([with_curve(run, [a + by * e for e, a in enumerate(run.curve)]) for run in runs], KEYS)

    assert climbing(0.03).still_rising
    assert not climbing(0.0).still_rising
    rise = climbing(0.03).rise
    assert rise is not None
    assert rise.low < 0.03 < rise.high
    short = analyze([with_curve(run, run.curve[:2]) for run in sweep("equal", 1)], KEYS)
    assert (short.rise, short.still_rising, short.noise) == (None, False, None)


def test_each_round_spends_half_of_the_error_rate_before() -> None:
    runs = sweep("as recorded", 2)
    looks = [analyze(runs, SWEPT, rounds=rounds) for rounds in range(3)]
    assert [look.confidence for look in looks] == pytest.approx([0.95, 0.975, 0.9875])
    assert len(looks[0].best_set) <= len(looks[1].best_set) <= len(looks[2].best_set)


def test_points_that_were_trained_again_come_first_and_are_the_candidates_again() -> None:
    simulated = Sweep(np.random.default_rng(5), TRUTHS["as recorded"], OWN_STREAMS)
    runs = simulated.grid(1)
    chosen = analyze(runs, SWEPT).candidates(3)
    assert chosen[0].runs == analyze(runs, SWEPT).points[0].runs
    assert len(chosen) == 3
    for point in chosen:
        runs += [simulated.train(GRID.index(point.values), seed, 100 + len(runs)) for seed in (1, 2, 3)]
    result = analyze(runs, SWEPT, [run.values for run in runs], rounds=1)
    assert {str(point.values) for point in result.points[:3]} == {str(point.values) for point in chosen}
    assert {len(point.runs) for point in result.points} == {1, 4}


def test_a_single_run_and_the_same_runs_again() -> None:
    one = analyze(sweep("equal", 1)[:1], KEYS)
    assert one.points[0].estimate is not None
    assert one.leader is not None
    assert one.leader.value == pytest.approx(one.points[0].accuracy, abs=0.001)
    assert one.effects == ()
    assert analyze(sweep("as recorded", 1), KEYS) == analyze(sweep("as recorded", 1), KEYS)
