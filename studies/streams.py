"""Own random streams for runs beside streams that the runs of a seed share: components of variance, errors and power.

    python studies/streams.py                        # from the recorded grids
    python studies/streams.py --record outputs/grid  # a grid of shared streams in the place of the recorded one

Own streams are in curves.csv (`studies/halving.py --record` writes it), shared ones in shared_streams.csv.
The grids are the report's, 18 points times seeds. Components are standard deviations in points of accuracy, by the
method of moments from the mean squares of effect x seed; `epoch` is the fluctuation about a line through each run's
last five epochs. Errors and power are of sweeps drawn with these components: how often a test at 5 % calls lr's levels
unequal where they are equal, and where 0.0001 is 1 point behind. `pooled` tests against the spread among the runs of a
point, as the ranking does; `effect x seed` against lr x seed, as repeated measures ask for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import halving
import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from irmas.config import averaged_epochs

SHARED = Path(__file__).with_name("shared_streams.csv")
SHAPE = (3, 3, 2)
"""Levels of dropout, lr and l2."""
SWEEPS, BEHIND, ALPHA = 4000, 0.01, 0.05

Array = NDArray[np.float64]


def read(path: Path) -> Array:
    """Return the curves of a grid, (seeds, dropout, lr, l2, epochs), levels in the report's order."""
    seeds = halving.read_curves(path).values()
    return np.array([[run.curve for run in runs] for runs in seeds]).reshape(len(seeds), *SHAPE, -1)


def effect(values: Array, axes: tuple[int, ...]) -> Array:
    """Return the mean over all axes but these, as it would stand in the whole array."""
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    return np.asarray(values.mean(axis=others, keepdims=True))


def components(figures: Array) -> dict[str, float]:
    """Return standard deviations from figures, (seeds, dropout, lr, l2); negative variances are 0."""
    left = figures - figures.mean(axis=0)
    df = len(figures) - 1
    parts = {"seed": (0,), "seed x dropout": (0, 1), "seed x lr": (0, 2), "seed x dropout x lr": (0, 1, 2)}
    dfs = {"seed": 1, "seed x dropout": 2, "seed x lr": 2, "seed x dropout x lr": 4}
    squares = {}
    for name, axes in parts.items():
        of = effect(left, axes)
        squares[name] = left.size / of.size * float((of**2).sum()) / (df * dfs[name])
        left = left - of
    rest = float((left**2).sum()) / (df * 8)
    twins = (squares["seed x dropout x lr"] - rest) / 2
    lr = (squares["seed x lr"] - rest - 2 * twins) / 6
    dropout = (squares["seed x dropout"] - rest - 2 * twins) / 6
    seed = (squares["seed"] - rest - 2 * twins - 6 * lr - 6 * dropout) / 18
    variances = {"seed": seed, "seed x lr": lr, "seed x dropout": dropout, "l2 twins": twins, "rest": rest}
    return {name: float(np.sqrt(max(variance, 0))) for name, variance in variances.items()}


def fluctuation(curves: Array) -> float:
    """Return the standard deviation of an epoch about a line through the last five."""
    tail = curves[..., -5:].reshape(-1, 5).T
    epochs = np.arange(5)
    slope, start = np.polyfit(epochs, tail, 1)
    return float(np.sqrt(((tail - start - slope * epochs[:, None]) ** 2).sum() / (3 * tail.shape[1])))


def rejects(parts: dict[str, float], seeds: int, behind: float) -> tuple[float, float]:
    """Return how often both tests call lr's levels unequal: pooled, and against lr x seed."""
    rng = np.random.default_rng(seeds)
    shapes = {
        "seed": (1, 1, 1),
        "seed x lr": (1, 3, 1),
        "seed x dropout": (3, 1, 1),
        "l2 twins": (3, 3, 1),
        "rest": SHAPE,
    }
    figures = sum(
        parts[name] * rng.standard_normal((SWEEPS, seeds, *shape)) for name, shape in shapes.items()
    ) - behind * np.array([0.0, 0.0, 1.0]).reshape(1, 1, 1, 3, 1)
    by_lr = figures.mean(axis=(1, 2, 4))
    square = 6 * seeds * by_lr.var(axis=1, ddof=1)
    within = figures.var(axis=1, ddof=1).mean(axis=(1, 2, 3))
    per_seed = figures.mean(axis=(2, 4))  # (sweeps, seeds, lr)
    left = per_seed - per_seed.mean(axis=1, keepdims=True) - per_seed.mean(axis=2, keepdims=True)
    left = left + per_seed.mean(axis=(1, 2), keepdims=True)
    by_seed = 6 * (left**2).sum(axis=(1, 2)) / (2 * (seeds - 1))
    pooled = fdtrc(2, 18 * (seeds - 1), square / within) < ALPHA
    repeated = fdtrc(2, 2 * (seeds - 1), square / by_seed) < ALPHA
    return float(pooled.mean()), float(repeated.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="SWEEP")
    if sweep := parser.parse_args().record:
        halving.record([sweep], SHARED)
    heads = "streams", "figure", "seed", "seed x lr", "seed x dropout", "l2 twins", "rest", "epoch"
    print(f"| {' | '.join(heads)} |\n| --- | --- |{' ---: |' * 6}")  # noqa: T201
    found = {}
    for name, path in (("own", halving.CURVES), ("shared", SHARED)):
        curves = read(path)
        window = averaged_epochs(halving.SCHEDULE, curves.shape[-1])
        for figure, epochs in (("last epoch", 1), (f"mean of {window}", window)):
            found[name] = components(curves[..., -epochs:].mean(axis=-1))
            cells = [*found[name].values(), fluctuation(curves)]
            print(f"| {name} | {figure} | {' | '.join(f'{100 * value:.2f}' for value in cells)} |")  # noqa: T201
    print("\n| streams | test | seeds | false, % | finds 1 point, % |\n| --- | --- | ---: | ---: | ---: |")  # noqa: T201
    for name, parts in found.items():
        for seeds in (2, 3, 5):
            rates = zip(rejects(parts, seeds, 0.0), rejects(parts, seeds, BEHIND), strict=True)
            for test, (false, power) in zip(("pooled", "effect x seed"), rates, strict=True):
                print(f"| {name} | {test} | {seeds} | {100 * false:.1f} | {100 * power:.1f} |")  # noqa: T201


if __name__ == "__main__":
    main()
