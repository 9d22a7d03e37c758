"""How often the ranking is wrong: simulated sweeps of the report's 18 points, under noise as recorded sweeps have it.

    PYTHONPATH=tests python studies/error_rates.py --sweeps 1000
    PYTHONPATH=tests python studies/error_rates.py --sweeps 1000 --shared     # runs of a seed share a random stream
    PYTHONPATH=tests python studies/error_rates.py --sweeps 1000 --seeds 1 3 --folds 5 --hard 10 --other 0.5
    PYTHONPATH=tests python studies/error_rates.py --sweeps 1000 --seeds 1 --folds 5 --hard 10 --lost

A row is a truth and a number of seeds. With `--folds` each seed is trained on five folds: fold 0 is harder by `--hard`
percentage points for all points, what a training set does to one point alone has a standard deviation of `--other`
points, and with `--lost` the first point lacks its run on fold 0.

`named out`: a point named beforehand is left out of the best set though nothing is better; `best kept`: the best of
unequal points is in the set; `behind`: a level is called behind though no key has an effect; `covers`: the leader's
interval holds the true accuracy of its settings; each rate with its standard error. `set`: points in it; `too high`,
`honest figure`: the leader's mean and its estimate, minus the truth; `regret`: what the leader lacks to the best point;
in points of accuracy.
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from simulation import GRID, KEYS, NAMED, OWN_STREAMS, SHARED_STREAMS, TRUTHS, Noise, Sweep

from irmas.config import REPETITIONS
from irmas.processes import cpu_count
from irmas.results.analysis import analyze


def judge(
    truth: str, seeds: int, folds: int, noise: Noise, lost: bool, number: int
) -> tuple[bool, int, bool, bool, float, float, float]:
    """Return of one simulated sweep what a row of the table averages."""
    sweep = Sweep(np.random.default_rng([number, seeds]), TRUTHS[truth], noise, folds=folds)
    runs = sweep.grid(seeds)
    kept = [run for run in runs if not (lost and run.fold == 0 and GRID[0].items() <= run.values.items())]
    found = analyze(kept, [*KEYS, *REPETITIONS], [run.values for run in runs])
    true = {str(values): accuracy for values, accuracy in zip(GRID, sweep.truths, strict=True)}
    best = max(sweep.truths)
    judged = NAMED if truth == "equal" else GRID[sweep.truths.index(best)]
    is_kept = next(point.in_best_set for point in found.points if point.values == judged)
    leader, own = found.points[0], true[str(found.points[0].values)]
    assert found.leader is not None
    return (
        bool(is_kept),
        len(found.best_set),
        any(level.is_behind for effect in found.effects for level in effect.levels),
        found.leader.low <= own <= found.leader.high,
        100 * (leader.accuracy - own),
        100 * (found.leader.value - own),
        100 * (best - own),
    )


def rate(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    share = float(values.mean())
    return f"{100 * share:5.1f} ± {100 * math.sqrt(share * (1 - share) / len(values)):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=200, help="for each row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=list(TRUTHS))
    parser.add_argument("--shared", action="store_true", help="noise of runs that share the stream of their seed")
    parser.add_argument("--folds", type=int, default=1, choices=[1, 5])
    parser.add_argument("--hard", type=float, default=0.0, help="percentage points")
    parser.add_argument("--other", type=float, default=0.0, help="percentage points")
    parser.add_argument("--lost", action="store_true", help="the first point lacks its run on fold 0")
    arguments = parser.parse_args()
    noise = SHARED_STREAMS if arguments.shared else OWN_STREAMS
    noise = replace(noise, hard_fold=arguments.hard / 100, fold_point=arguments.other / 100)
    heads = "named out, %", "best kept, %", "behind, %", "covers, %", "set", "too high", "honest figure", "regret"
    print(f"| truth | seeds | {' | '.join(heads)} |\n| --- |{' ---: |' * (len(heads) + 1)}")  # noqa: T201
    with ProcessPoolExecutor(cpu_count()) as pool:
        for truth in arguments.truths:
            for seeds in arguments.seeds:
                work = partial(judge, truth, seeds, arguments.folds, noise, arguments.lost)
                found = np.array(list(pool.map(work, range(arguments.sweeps), chunksize=10)), dtype=float).T
                kept, size, behind, covers, high, honest, regret = found
                null = truth == "equal"
                cells = (
                    rate(1 - kept) if null else "",
                    "" if null else rate(kept),
                    rate(behind) if null else "",
                    rate(covers),
                    f"{size.mean():.1f}",
                    f"{high.mean():.2f}",
                    f"{honest.mean():+.2f}",
                    f"{regret.mean():.2f}",
                )
                print(f"| {truth} | {seeds} | {' | '.join(cells)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
