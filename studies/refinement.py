"""What fresh seeds for the leaders are worth beside seeds for all: simulated sweeps of the report's 18 points.

    PYTHONPATH=tests python studies/refinement.py --sweeps 1000

`regret`: accuracy that the chosen point lacks to the best one; `too high`: its mean over runs beyond its true accuracy;
`honest figure`: the same of the ranking's estimate; `covers`: its interval holds the true accuracy; `best left out`: of
the best set at the end. Points of accuracy.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from simulation import GRID, KEYS, OWN_STREAMS, TRUTHS, Sweep

from irmas.processes import cpu_count
from irmas.results.analysis import Analysis, analyze

CANDIDATES, SEEDS, LOSS = 3, 3, 0.005


@dataclass(frozen=True)
class Design:
    seeds: int
    """Runs of each point at first."""
    rounds: int = 0
    """Rounds of refinement at most."""
    until_decided: bool = False


DESIGNS = {
    "18": Design(1),
    "18 + 9": Design(1, 1),
    "18 x 3": Design(3),
    "18 + 9 until decided, at most 36": Design(1, 4, until_decided=True),
}


def is_decided(found: Analysis) -> bool:
    losses = [point.expected_loss or 0.0 for point in found.best_set]
    return len(losses) == 1 or max(losses) <= LOSS


def judge(truth: str, design: Design, number: int) -> tuple[float, float, float, bool, bool, int]:
    """Return of one simulated sweep what a row of the table averages."""
    sweep = Sweep(np.random.default_rng([number, design.seeds, design.rounds]), TRUTHS[truth], OWN_STREAMS)
    runs = sweep.grid(design.seeds)
    keys = [*KEYS, "seed"]
    found = analyze(runs, keys)
    for done in range(1, design.rounds + 1):
        if design.until_decided and is_decided(found):
            break
        for point in found.candidates(CANDIDATES):
            fresh = range(SEEDS * done, SEEDS * (done + 1))
            for seed in fresh:
                runs.append(sweep.train(GRID.index(point.values), seed, len(runs) + 1))
        found = analyze(runs, keys, [run.values for run in runs], done)
    own, best = sweep.truths[GRID.index(found.points[0].values)], max(sweep.truths)
    kept = next(point.in_best_set for point in found.points if sweep.truths[GRID.index(point.values)] == best)
    assert found.leader is not None
    return (
        100 * (best - own),
        100 * (found.points[0].accuracy - own),
        100 * (found.leader.value - own),
        found.leader.low <= own <= found.leader.high,
        not kept,
        len(runs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=200, help="for each row")
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=[name for name in TRUTHS if name != "equal"])
    arguments = parser.parse_args()
    print("| truth | runs | mean | regret | too high | honest figure | covers, % | best left out, % |")  # noqa: T201
    print(f"| --- | --- |{' ---: |' * 6}")  # noqa: T201
    with ProcessPoolExecutor(cpu_count()) as pool:
        for truth in arguments.truths:
            for name, design in DESIGNS.items():
                work = partial(judge, truth, design)
                found = np.array(list(pool.map(work, range(arguments.sweeps), chunksize=10)), dtype=float).mean(axis=0)
                regret, high, honest, covers, out, runs = found
                print(  # noqa: T201
                    f"| {truth} | {name} | {runs:.1f} | {regret:.2f} | {high:.2f} | {honest:+.2f} | "
                    f"{100 * covers:.1f} | {100 * out:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
