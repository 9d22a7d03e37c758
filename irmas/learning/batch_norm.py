"""Batch-norm statistics of clean training excerpts, recomputed before each validation.

The running statistics lag behind the weights and belong to augmented batches. Population statistics ("precise BN":
Wu & Johnson 2021, arXiv 2105.07576) do neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

SHARE = 1 / 8
"""Share of the training part: under 5 % of an epoch's time, as a forward pass costs a third of a step."""
AT_LEAST = 128
"""Minimum number of excerpts, if there are that many: fewer give statistics that differ visibly from those of all."""


def draw(train: Tensor) -> Tensor:
    """Return the rows of `train` to compute statistics from, drawn at random from their number alone.

    All runs of a sweep thus share them, and no generator of the training moves.
    """
    size = min(max(round(len(train) * SHARE), AT_LEAST), len(train))
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:size])
    return train[torch.from_numpy(chosen).to(train.device)]


@torch.no_grad()
def recompute(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running mean and variance of each batch norm to those of its inputs over all `batches` together.

    Each batch passes under its own statistics, as in training. Variances are pooled: those within the batches and
    that of the batches' means. Dropout is off, and the model is left in evaluation mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    parts: dict[nn.Module, list[tuple[int, Tensor, Tensor]]] = defaultdict(list)

    def collect(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        mean, variance = (statistic.to(torch.double, copy=True) for statistic in _running(norm))
        parts[norm].append((inputs[0].numel() // norm.num_features, mean, variance))

    model.eval()
    momenta = [norm.momentum for norm in norms]
    handles = [norm.register_forward_hook(collect) for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.reset_running_stats()  # NaN of an earlier epoch would outlive a factor of 0
            norm.momentum = 1.0  # the running statistics are then those of the last batch alone
        for batch in batches:
            model(batch)
    finally:
        for handle, norm, momentum in zip(handles, norms, momenta, strict=True):
            handle.remove()
            norm.momentum = momentum
            norm.eval()
    for norm in norms:
        for running, pooled in zip(_running(norm), _pooled(parts[norm]), strict=True):
            running.copy_(pooled)


def _running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def _pooled(parts: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased variance, (channels,), of batches given as (count, mean, unbiased variance)."""
    total = sum(count for count, _, _ in parts)
    mean = torch.stack([count * mean for count, mean, _ in parts]).sum(0) / total
    squares = [(count - 1) * variance + count * (own - mean).square() for count, own, variance in parts]
    return mean, torch.stack(squares).sum(0) / (total - 1)
