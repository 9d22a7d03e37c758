"""How often the ranking calls equal points unequal: simulated sweeps of the report's 18 points without any effect.

    PYTHONPATH=tests python benchmarks/error_rates.py --sweeps 1000 --seeds 3 --excerpts 1350 --noise 1

Prints the share of sweeps in which a point was out of the set of the best, a level of a key was behind another, or
an effect was clear after Holm's correction; each may be at most 5 %, plus or minus the simulation's own error.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from test_statistics import KEYS, simulate

from irmas.results.statistics import analyse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1, help="runs a point")
    parser.add_argument("--excerpts", type=int, default=300, help="three to a recording")
    parser.add_argument("--noise", type=float, default=1.0, help="standard deviation of training, points of accuracy")
    parser.add_argument("--alike", type=float, default=0.0, help="and of what a seed does to all points alike")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    claims = []
    for _ in range(arguments.sweeps):
        found = analyse(
            simulate(
                rng,
                seeds=arguments.seeds,
                excerpts=arguments.excerpts,
                training_sd=arguments.noise / 100,
                seed_sd=arguments.alike / 100,
            ),
            KEYS,
        )
        claims.append(
            (
                any(not point.in_set for point in found.points),
                any(level.holds for margin in found.margins for level in margin.levels),
                any((effect.p_holm or 1) < 0.05 for effect in found.anova.effects),
            )
        )
    error = math.sqrt(0.05 * 0.95 / arguments.sweeps)
    for what, share in zip(
        ("point out of the set", "level behind", "effect clear"), np.mean(claims, axis=0), strict=True
    ):
        print(f"{what:22} {share:6.1%}")  # noqa: T201
    print(f"{arguments.sweeps} sweeps: the standard error of 5 % is {error:.1%}")  # noqa: T201


if __name__ == "__main__":
    main()
