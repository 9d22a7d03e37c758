"""What points are worth, given that the best-looking ones owe some of their accuracy to luck.

A hierarchical model: a point's accuracy is the sum of its main effects and a deviation of its own, all deviations
alike distributed, and is seen with noise. Its posterior pulls each point towards the main effects, by as much as noise
explains (empirical Bayes, with the deviations' size integrated out; Gelman et al., Bayesian Data Analysis, ch. 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from irmas.results.comparison import CONFIDENCE, MOST, SEED, Comparison, Estimate

Array = NDArray[np.float64]

DRAWS = 4000
SIZES = 32
"""Sizes of the deviations that are tried, from 0 to three times the points' spread."""
NOISES = 8
"""Training variances that are tried: quantiles of what the estimate allows."""


@dataclass(frozen=True)
class Posterior:
    leader: Estimate
    p_best: list[float]
    expected_loss: list[float]
    """Accuracy lost by choosing the point, on the average; both for the first points only, the leader first."""


def posterior(found: Comparison, design: Array, variance: float, df: float, first: int) -> Posterior:
    """Return the posterior of points whose first one leads; `design` is (points, columns), of full column rank.

    `variance` is that of one run's training, known with `df` degrees of freedom. The `first` points get probabilities.
    """
    rng = np.random.default_rng(SEED + 2)
    common, own = _excerpt_variances(found.by_excerpts)
    # (noises * sizes,), (noises * sizes, points): what is tried, and the variance that the points are then seen with.
    shares = (np.arange(NOISES) + 0.5) / NOISES
    trained = variance * df / np.array([chdtri(df, share) for share in shares]) if df else np.array([variance])
    spread = 3 * found.accuracies.std() + 1e-4
    noises, sizes = np.meshgrid(trained, np.linspace(0, spread, SIZES), indexing="ij")
    sizes = sizes.ravel()
    seen = own + noises.reshape(-1, 1) / found.runs + 1e-12
    weights, beta, covariance = _fit(found.accuracies, design, sizes[:, None] ** 2 + seen)

    kept = np.argsort(-found.accuracies, kind="stable")[:MOST]
    kept = np.concatenate([[0], kept[kept != 0]])
    y, rows = found.accuracies[kept], design[kept]
    wins, losses = np.zeros(len(kept)), np.zeros(len(kept))
    leading = []
    counts = rng.multinomial(DRAWS, weights)
    for tried in np.flatnonzero(counts):
        n, tau = counts[tried], sizes[tried] ** 2
        fit = rng.multivariate_normal(beta[tried], covariance[tried], n, method="eigh") @ rows.T
        pull = tau / (tau + seen[tried, kept])
        true = fit + pull * (y - fit) + np.sqrt(tau * (1 - pull)) * rng.standard_normal(fit.shape)
        best = true.max(axis=1)
        wins += np.bincount(true.argmax(axis=1), minlength=len(kept))
        losses += (best[:, None] - true).sum(axis=0)
        leading.append(true[:, 0])
    drawn = np.concatenate(leading)
    # What is common to all points moves none of them against another, but the leader's accuracy.
    ends = drawn + np.sqrt(common) * rng.standard_normal(DRAWS)
    low, high = np.quantile(ends, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).clip(0, 1).tolist()
    place = {int(point): number for number, point in enumerate(kept)}
    at = [place[point] for point in range(min(first, len(kept))) if point in place]
    return Posterior(
        Estimate(float(drawn.mean()), low, high),
        [float(wins[number] / DRAWS) for number in at],
        [float(losses[number] / DRAWS) for number in at],
    )


def _excerpt_variances(by_excerpts: Array) -> tuple[float, float]:
    """Return the points' mean covariance by the choice of recordings, and what their variances have beyond it."""
    n = len(by_excerpts)
    total = float(by_excerpts.var(axis=1).mean())
    if n == 1:
        return 0.0, total
    together = float(by_excerpts.sum(axis=0).var())
    common = max((together - n * total) / (n * (n - 1)), 0.0)
    return common, max(total - common, 0.0)


def _fit(y: Array, design: Array, variances: Array) -> tuple[Array, Array, Array]:
    """Fit the main effects by generalized least squares under each row of `variances`, (tried, points).

    Return the tried rows' probabilities (by restricted likelihood, all equal beforehand), coefficients and covariances.
    """
    precision = 1 / variances
    information = np.einsum("tp,pk,pl->tkl", precision, design, design, optimize=True)
    covariance = np.linalg.inv(information)
    beta = np.einsum("tkl,pl,tp->tk", covariance, design, precision * y, optimize=True)
    squares = (precision * (y - beta @ design.T) ** 2).sum(axis=1)
    likelihood = -0.5 * (np.log(variances).sum(axis=1) + np.linalg.slogdet(information)[1] + squares)
    weights = np.exp(likelihood - likelihood.max())
    return weights / weights.sum(), beta, covariance
