"""Nets: the report's, for any number of bands and frames, and users' own; augmentation; batch-norm statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irmas.config import Augment, Model
from irmas.learning import own

NORM_SHARE = 1 / 8
"""Share of the training part: under 5 % of an epoch's time, as a forward pass costs a third of a step."""
NORM_AT_LEAST = 128
"""Minimum number of excerpts, if there are that many: fewer give statistics that differ visibly from those of all."""


def pooled(log_mel_db: Tensor, pool: int) -> Tensor:
    """Return (excerpts, bands, frames) averaged over blocks of pool x pool bins, in half precision; drop the rest."""
    return F.avg_pool2d(log_mel_db, pool).half()


def augmented(log_mel_db: Tensor, augment: Augment, fill_db: float) -> Tensor:
    """Return a copy of log-mels, (batch, 1, bands, frames), rolled if set, and with masked bins at `fill_db`.

    SpecAugment's masks (Park et al., Interspeech 2019) and the roll are drawn for each excerpt, from torch's global
    generator.
    """
    if augment.roll:
        log_mel_db = _rolled(log_mel_db)
    batch, _, bands, frames = log_mel_db.shape
    hidden_bands = _masks(batch, bands, augment.freq_masks, augment.freq_width, log_mel_db.device)
    hidden_frames = _masks(batch, frames, augment.time_masks, augment.time_width, log_mel_db.device)
    return log_mel_db.masked_fill(hidden_bands[:, None, :, None] | hidden_frames[:, None, None, :], fill_db)


def _rolled(log_mel_db: Tensor) -> Tensor:
    """Return log-mels, (batch, 1, bands, frames), each moved around its frames by a number of them of its own."""
    batch, _, bands, frames = log_mel_db.shape
    shifts = torch.randint(frames, (batch, 1, 1, 1), device=log_mel_db.device)
    sources = (torch.arange(frames, device=log_mel_db.device) + shifts) % frames
    return log_mel_db.gather(3, sources.expand(batch, 1, bands, frames))


def _masks(batch: int, length: int, masks: int, width: float, device: torch.device) -> Tensor:
    """Return (batch, length), true where a mask lies; each hides 0 to width * length bins anywhere on the axis.

    torchaudio's mask_along_axis_iid never hides an axis's last bin and copies the batch for every mask.
    """
    hides = torch.randint(round(width * length) + 1, (batch, masks, 1), device=device)
    start = (torch.rand((batch, masks, 1), device=device) * (length - hides + 1)).long()
    bins = torch.arange(length, device=device)
    return ((bins >= start) & (bins < start + hides)).any(1)


class LogMelNet(nn.Module):
    """A net from log-mels in dB, (batch, 1, bands, frames), to logits, (batch, classes)."""

    rolls: int

    def log_probabilities(self, log_mel_db: Tensor) -> Tensor:
        """Return the logarithms, (batch, classes), of the probabilities averaged over `rolls` versions of each excerpt.

        They are rolled along the frames by equal parts.
        """
        frames = log_mel_db.shape[3]
        shifts = [frames * version // self.rolls for version in range(self.rolls)]
        # Not roll: a shift that follows from a free number of frames is not exported to ONNX.
        versions = [torch.cat([log_mel_db[..., shift:], log_mel_db[..., :shift]], 3) for shift in shifts]
        scores = torch.stack([self(version).float().log_softmax(1) for version in versions])
        return scores.logsumexp(0) - math.log(self.rolls)


class Classifier(LogMelNet):
    """The net: log-mels in dB, (batch, 1, bands, frames), to logits, (batch, classes).

    The normalization is part of it, so that its weights keep the scale of the data that they were trained on.
    """

    mean_db: Tensor
    std_db: Tensor

    def __init__(self, model: Model, num_classes: int, dropout: float, mean_db: float, std_db: float) -> None:
        super().__init__()
        self.register_buffer("mean_db", torch.tensor(mean_db))
        self.register_buffer("std_db", torch.tensor(std_db))
        blocks: list[nn.Module] = []
        channels, kernel = 1, 5
        for filters in model.filters:
            for _ in range(model.convs_per_block):
                # Batch norm has the bias. Its ReLU overwrites: one activation less to keep for the backward pass.
                blocks += [
                    nn.Conv2d(channels, filters, kernel, padding="same", bias=False),
                    nn.BatchNorm2d(filters),
                    nn.ReLU(inplace=True),
                ]
                channels, kernel = filters, 3
            # Rounded up, so that an axis of any length survives any number of blocks.
            blocks.append(nn.MaxPool2d(2, ceil_mode=True))
        self.blocks = nn.Sequential(*blocks)
        self.pooling, self.rolls = model.pooling, model.rolls
        hidden = nn.Linear(channels, model.dense)
        self.head = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(dropout), nn.Linear(model.dense, num_classes))

    def forward(self, log_mel_db: Tensor) -> Tensor:
        x = self.blocks((log_mel_db - self.mean_db) / self.std_db)
        # Not AdaptivePool: its backward pass is not deterministic on CUDA.
        x = x.mean((2, 3)) if self.pooling == "average" else x.amax((2, 3))
        return self.head(x)  # type: ignore[no-any-return]


class OwnNet(LogMelNet):
    """A net that a builder of users' own made."""

    def __init__(self, net: nn.Module, rolls: int) -> None:
        super().__init__()
        self.net, self.rolls = net, rolls

    def forward(self, log_mel_db: Tensor) -> Tensor:
        return self.net(log_mel_db)  # type: ignore[no-any-return]


def make_net(model: Model, num_classes: int, dropout: float, mean_db: float, std_db: float) -> LogMelNet:
    """Return the net of these settings. Raise ConfigError where a builder of users' own does not make one."""
    if model.builder is None:
        return Classifier(model, num_classes, dropout, mean_db, std_db)
    return OwnNet(own.build(model, num_classes), model.rolls)


def draw_for_norms(train: Tensor) -> Tensor:
    """Return the rows of `train` to compute batch-norm statistics from, drawn at random from their number alone.

    All runs of a sweep thus share them, and no generator of the training moves.
    """
    size = min(max(round(len(train) * NORM_SHARE), NORM_AT_LEAST), len(train))
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:size])
    return train[torch.from_numpy(chosen).to(train.device)]


@torch.no_grad()
def recompute_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running mean and variance of each batch norm to those of its inputs over all `batches` together.

    The running statistics of a training lag behind the weights and belong to augmented batches; population statistics
    ("precise BN": Wu & Johnson 2021, arXiv 2105.07576) do neither. Each batch passes under its own statistics, as in
    training. Dropout is off, and the model is left in evaluation mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    parts: dict[nn.Module, list[tuple[int, Tensor, Tensor]]] = {norm: [] for norm in norms}

    def collect(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        mean, variance, _ = (statistic.to(torch.double, copy=True) for statistic in norm.buffers())
        parts[norm].append((inputs[0].numel() // len(mean), mean, variance))

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
        mean, variance, _ = norm.buffers()
        _pool(parts[norm], mean, variance)


def _pool(parts: list[tuple[int, Tensor, Tensor]], mean: Tensor, variance: Tensor) -> None:
    """Set mean and unbiased variance, (channels,), to those of all batches: (count, mean, unbiased variance) each."""
    total = sum(count for count, _, _ in parts)
    of_all = torch.stack([count * own for count, own, _ in parts]).sum(0) / total
    squares = [(count - 1) * within + count * (own - of_all).square() for count, own, within in parts]
    mean.copy_(of_all)
    variance.copy_(torch.stack(squares).sum(0) / (total - 1))
