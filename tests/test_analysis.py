"""Analyses of simulated sweeps with a known truth: rates of errors, and sweeps that lack something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from simulation import GRID, KEYS, NAMED, OWN_STREAMS, TRUTHS, Noise, Sweep

from irmas.results.analysis import Analysis, analyze
from irmas.results.runs import Run
from irmas.run.events import VAL_ACCURACY

SWEPT = [*KEYS, "seed"]
NULLS = 60
REMEDY = " Remove a run's folder and rerun the sweep command to train it again."


def sweep(truth: str, seeds: int, number: int = 0, noise: Noise = OWN_STREAMS) -> list[Run]:
    return Sweep(np.random.default_rng([number, seeds]), TRUTHS[truth], noise).grid(seeds)


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
