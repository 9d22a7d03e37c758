"""How often `irmas.compare` errs about the best points of two simulated sweeps of the report's grid.

    PYTHONPATH=tests python studies/two_sweeps.py --sweeps 300

A row is two sweeps: their points, of which the best is chosen, and seeds. `ahead`: points of accuracy by which all of
the second sweep's points lead. `observed`, `expected`: share of pairs whose interval excludes 0; `observed - true`,
`expected - true`: mean error of the difference, in points; `covers`: the expected interval holds the truth; per cent.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from factories import SEEDS, grid, ranking_of
from simulation import GRID, KEYS, NAMED, OWN_STREAMS, TRUTHS, Sweep

from irmas.processes import cpu_count
from irmas.results.analysis import analyze
from irmas.results.side_by_side import Side, difference

PLAN = grid(SEEDS)


@dataclass(frozen=True)
class Case:
    truth: str
    points: tuple[int, int]
    """Points of both sweeps: all of the grid, or one that is named beforehand."""
    seeds: tuple[int, int]
    ahead: float = 0.0
    """Accuracy by which all points of the second sweep are ahead."""


CASES = (
    Case("equal", (18, 1), (1, 1)),
    Case("equal", (18, 1), (1, 3)),
    Case("equal", (18, 1), (3, 3)),
    Case("equal", (18, 18), (3, 3)),
    Case("as recorded", (18, 1), (3, 3)),
    Case("as recorded", (18, 18), (3, 3), 0.03),
)


def judge(case: Case, number: int) -> tuple[bool, bool, float, float, bool]:
    """Return of one simulated pair what a row of the table averages."""
    sweep = Sweep(np.random.default_rng([number, *case.points, *case.seeds]), TRUTHS[case.truth], OWN_STREAMS)
    sides, truths = [], []
    for points, seeds, ahead in zip(case.points, case.seeds, (0.0, case.ahead), strict=True):
        sweep.truths = [TRUTHS[case.truth](values) + ahead for values in GRID]
        chosen = range(points) if points > 1 else [GRID.index(NAMED)]
        pairs = [(point, seed) for point in chosen for seed in range(seeds)]
        runs = [sweep.train(point, seed, run) for run, (point, seed) in enumerate(pairs, start=1)]
        side = Side(ranking_of(PLAN, runs), analyze(runs, [*KEYS, "seed"]))
        sides.append(side)
        assert side.best
        truths.append(sweep.truths[GRID.index(side.best.values)])
    found, lead = difference(*sides), truths[1] - truths[0]
    assert found.expected
    is_apart = found.observed.low > 0 or found.observed.high < 0
    observed, expected = (100 * (estimate.value - lead) for estimate in (found.observed, found.expected))
    return is_apart, found.is_shown, observed, expected, found.expected.low <= lead <= found.expected.high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=100, help="for each row")
    parser.add_argument("--processes", type=int, default=cpu_count())
    arguments = parser.parse_args()
    heads = "truth", "points", "seeds", "ahead", "observed", "expected", "observed - true", "expected - true", "covers"
    print(f"| {' | '.join(heads)} |\n| --- |{' ---: |' * (len(heads) - 1)}")  # noqa: T201
    with ProcessPoolExecutor(arguments.processes) as pool:
        for case in CASES:
            found = np.array(list(pool.map(partial(judge, case), range(arguments.sweeps), chunksize=5)), dtype=float)
            apart, shown, observed, expected, covers = found.mean(axis=0)
            cells = [case.truth, *(" / ".join(map(str, pair)) for pair in (case.points, case.seeds))]
            cells += [f"{100 * case.ahead:g}", f"{100 * apart:.1f}", f"{100 * shown:.1f}"]
            cells += [f"{observed:+.2f}", f"{expected:+.2f}", f"{100 * covers:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
