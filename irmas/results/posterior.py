"""True accuracies of points: those that look best owe some of it to luck.

A hierarchical model: a point's accuracy is the sum of its levels' effects and a deviation of its own, and is observed
with noise. The points themselves determine how large the effects of a key and the deviations are: where nothing stands
out, all points are pulled to the mean; a point that does stand out stays where it is. Deviations come from a mixture of
normal distributions (adaptive shrinkage: Stephens 2017, Biostatistics 18). Gibbs sampling, many short chains side by
side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import chdtri

from irmas.results.comparison import CONFIDENCE, SEED, Comparison, Estimate
from irmas.results.effects import Grid

Array = NDArray[np.float64]

SIZES = np.array([0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
"""Standard deviations, in accuracy, of the components of the deviations."""
PRIOR = np.array([10.0, 1, 1, 1, 1, 1, 1])
"""Prior counts of points in each component; the first one as in Stephens 2017."""
EFFECT_SIZES = np.array([0.0025, *SIZES[1:]])
"""Standard deviations of the effects of a key's levels, with equal prior probabilities."""
CHAINS, WARM_UP, STEPS = 100, 20, 40
CELLS = 100_000
"""Most chains times points: large sweeps get fewer draws, so that they take seconds."""


@dataclass(frozen=True)
class Posterior:
    """The leader's true accuracy; each point's probability of being the best and the mean loss by choosing it."""

    leader: Estimate
    p_best: list[float]
    expected_loss: list[float]


def posterior(compared: Comparison, grid: Grid) -> Posterior:
    """Return the posterior of the points of `grid`, the first of which leads."""
    rng = np.random.default_rng(SEED + 2)
    variance, n = compared.variance, len(compared.accuracies)
    chains = min(CHAINS, max(CELLS // n, 4))
    common, own = _excerpt_variances(compared.by_excerpts)
    # Each chain has a training variance that the estimate allows.
    shares = (np.arange(chains) + 0.5) / chains
    trained = variance.from_chi_square(chdtri(variance.df, shares)) if variance.df else np.zeros(chains)
    noise = own + trained[:, None] / compared.runs + 1e-12
    wins, losses, leading = np.zeros(n), np.zeros(n), []
    for true in _draws(rng, compared.accuracies, grid, noise):
        wins += np.bincount(true.argmax(axis=1), minlength=n)
        losses += (true.max(axis=1)[:, None] - true).sum(axis=0)
        leading.append(true[:, 0])
    drawn = np.concatenate(leading)
    # The effect of the recordings on all points alike changes no comparison, but the leader's accuracy.
    ends = drawn + np.sqrt(common) * rng.standard_normal(len(drawn))
    low, high = np.quantile(ends, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).clip(0, 1).tolist()
    leader = Estimate(float(drawn.mean()), low, high)
    return Posterior(leader, (wins / len(drawn)).tolist(), (losses / len(drawn)).tolist())


def _draws(rng: np.random.Generator, y: Array, grid: Grid, noise: Array) -> list[Array]:
    """Draw true accuracies, (chains, points) in each step, where y has noise of variances `noise`, (chains, points)."""
    design, keys = grid.design(), grid.keys()
    products = _products(grid, design.shape[1])
    chains, n = noise.shape
    chosen = rng.integers(len(SIZES), size=(chains, n))
    sizes = rng.choice(EFFECT_SIZES, (chains, len(grid.levels)))
    draws = []
    for step in range(WARM_UP + STEPS):
        deviation = SIZES[chosen] ** 2
        prior = np.hstack([np.zeros((chains, 1)), 1 / sizes[:, keys] ** 2])
        effects = _effects(rng, y, design, products, 1 / (deviation + noise), prior)
        fit = effects @ design.T
        residual = y - fit
        if step >= WARM_UP:
            pull = deviation / (deviation + noise)
            draws.append(fit + pull * residual + np.sqrt(pull * noise) * rng.standard_normal(noise.shape))
        counts = (chosen[:, :, None] == np.arange(len(SIZES))).sum(axis=1)
        weights = np.log(rng.gamma(PRIOR + counts))  # Dirichlet, up to a factor
        total = SIZES**2 + noise[:, :, None]
        chosen = _choose(rng, weights[:, None] - 0.5 * (np.log(total) + residual[:, :, None] ** 2 / total))
        for key in range(len(grid.levels)):
            own = effects[:, 1:][:, keys == key]
            squares = (own**2).sum(axis=1)[:, None]
            likelihood = -own.shape[1] * np.log(EFFECT_SIZES) - 0.5 * squares / EFFECT_SIZES**2
            sizes[:, key] = EFFECT_SIZES[_choose(rng, likelihood)]
    return draws


def _products(grid: Grid, width: int) -> csr_array:
    """Return each point's products of two columns of the design, (points, width²).

    A point has one level of each key, so that nearly all products are 0.
    """
    starts = np.searchsorted(grid.keys(), np.arange(len(grid.levels))) + 1
    ones = np.vstack([np.zeros((1, grid.codes.shape[1]), dtype=np.intp), grid.codes + starts[:, None]])
    places = (ones[:, None] * width + ones).reshape(-1, ones.shape[1])
    points = np.broadcast_to(np.arange(ones.shape[1]), places.shape)
    return csr_array((np.ones(places.size), (points.ravel(), places.ravel())), shape=(ones.shape[1], width**2))


def _effects(
    rng: np.random.Generator, y: Array, design: Array, products: csr_array, precision: Array, prior: Array
) -> Array:
    """Draw the coefficients, (chains, columns), given the precision of each point and that of each coefficient."""
    information = (precision @ products).reshape(len(precision), design.shape[1], design.shape[1])
    diagonal = np.arange(design.shape[1])
    information[:, diagonal, diagonal] += prior
    factor = np.linalg.cholesky(information)
    right = ((precision * y) @ design)[:, :, None]
    # With information = L L', the mean plus L'^-1 times noise has the inverse of information for a covariance.
    half = np.linalg.solve(factor, right) + rng.standard_normal(right.shape)
    return np.asarray(np.linalg.solve(factor.transpose(0, 2, 1), half)[:, :, 0])


def _choose(rng: np.random.Generator, log_weights: Array) -> NDArray[np.intp]:
    """Draw from the last axis, with probabilities proportional to the exponentials."""
    below = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True)).cumsum(axis=-1)
    return np.asarray((below < rng.random((*below.shape[:-1], 1)) * below[..., -1:]).sum(axis=-1))


def _excerpt_variances(by_excerpts: Array) -> tuple[float, float]:
    """Return the points' mean covariance by the choice of recordings, and the rest of their mean variance."""
    n = len(by_excerpts)
    total = float(by_excerpts.var(axis=1).mean())
    if n == 1:
        return 0.0, total
    together = float(by_excerpts.sum(axis=0).var())
    common = max((together - n * total) / (n * (n - 1)), 0.0)
    return common, max(total - common, 0.0)
