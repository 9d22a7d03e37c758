"""Analysis of variance of a complete grid, in closed form: means, and means of what they leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

Array = NDArray[np.float64]

Squares = tuple[float, int]
"""A sum of squares and its degrees of freedom."""

ROUNDING = 1e-9
"""Accuracies that differ by less are equal."""


@dataclass(frozen=True)
class Variation:
    sum_of_squares: float
    df: int
    share: float
    """Of the total sum of squares, 0 to 1."""

    @property
    def mean_square(self) -> float:
        return self.sum_of_squares / self.df


@dataclass(frozen=True)
class Effect:
    """A main effect (one key) or a two-way interaction (two)."""

    keys: tuple[str, ...]
    variation: Variation
    f: float | None
    """None, like the two below, where there is nothing to test against."""
    p: float | None
    p_holm: float | None
    """Adjusted for all effects of the table."""


@dataclass(frozen=True)
class Anova:
    """Of accuracies on one set of excerpts. F asks whether training noise alone makes such an effect there; that some
    recordings suit one level better than another is no noise to it, as it is to intervals by resampling.
    """

    is_complete: bool
    """Every combination of levels has a run; otherwise there are neither effects nor a residual."""
    effects: tuple[Effect, ...]
    """Main effects, then interactions, in the order of the keys."""
    residual: Variation | None
    """Interactions of three and more keys; with one seed a point also all noise."""
    blocks: Variation | None
    """What seeds do to all points alike; None where not all points have the same seeds."""
    seeds: Variation | None
    """The rest among the runs of a point; None where each has one."""
    error: str
    """What F divides by: `seeds`, `residual`, or empty."""


def decompose(grid: Array, n_keys: int) -> tuple[dict[tuple[int, ...], Array], Array]:
    """Main effects and two-way interactions of the first `n_keys` axes, and the residual, (levels, ..., levels, ...).

    In a balanced grid the effects are orthogonal, so that each is a mean of what those before it leave.
    """
    axes = tuple(range(n_keys))
    residual = grid - grid.mean(axis=axes, keepdims=True)
    effects = {}
    for effect in [*combinations(axes, 1), *combinations(axes, 2)]:
        effects[effect] = residual.mean(axis=tuple(axis for axis in axes if axis not in effect), keepdims=True)
        residual = residual - effects[effect]
    return effects, residual


def incomplete(total: float, blocks: Squares, within: Squares) -> Anova:
    return Anova(False, (), None, _variation(blocks, total), _variation(within, total), "")


def complete(keys: Sequence[str], means: Array, runs: float, blocks: Squares, within: Squares) -> Anova:
    """From `means`, (levels of the first key, ..., of the last), each over `runs` runs, and from what varies within
    points: what seeds do to all of them alike, `blocks`, and the rest, `within`.

    With different numbers of runs give their harmonic mean: the analysis of unweighted means (Searle 1971), an
    approximation.
    """
    found, rest = decompose(means, len(keys))
    effects = [
        (axes, runs * means.size / effect.size * float((effect**2).sum()), _df(axes, means.shape))
        for axes, effect in found.items()
    ]
    residual = runs * float((rest**2).sum()), means.size - 1 - sum(df for _, _, df in effects)
    total = sum(squares for _, squares, _ in effects) + residual[0] + blocks[0] + within[0]
    error, error_df = within if within[1] else residual
    fs: list[float | None] = [None] * len(effects)
    ps, adjusted = fs, fs
    if error_df and error / error_df > ROUNDING**2:
        ratios = [squares / df / (error / error_df) for _, squares, df in effects]
        tails = [float(fdtrc(df, error_df, f)) for (_, _, df), f in zip(effects, ratios, strict=True)]
        fs, ps, adjusted = [*ratios], [*tails], [*holm(tails)]
    return Anova(
        True,
        tuple(
            Effect(tuple(keys[axis] for axis in axes), Variation(squares, df, squares / total if total else 0.0), *test)
            for (axes, squares, df), *test in zip(effects, fs, ps, adjusted, strict=True)
        ),
        Variation(*residual, residual[0] / total if total else 0.0),
        _variation(blocks, total),
        _variation(within, total),
        "seeds" if within[1] else "residual" if residual[1] else "",
    )


def _variation(found: Squares, total: float) -> Variation | None:
    squares, df = found
    return Variation(squares, df, squares / total if total else 0.0) if df else None


def _df(axes: tuple[int, ...], shape: tuple[int, ...]) -> int:
    return math.prod(shape[axis] - 1 for axis in axes)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm 1979: adjusted so that the chance of any false effect stays below the level."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for place, number in enumerate(sorted(range(len(ps)), key=lambda number: ps[number])):
        largest = max(largest, min(1.0, ps[number] * (len(ps) - place)))
        adjusted[number] = largest
    return adjusted
