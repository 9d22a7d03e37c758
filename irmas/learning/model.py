"""The report's net, for any number of bands and frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irmas.config import Model


def pooled(log_mel_db: Tensor, pool: int) -> Tensor:
    """Return (excerpts, bands, frames) averaged over blocks of pool x pool bins, in half precision; drop the rest."""
    return F.avg_pool2d(log_mel_db, pool).half()


class Classifier(nn.Module):
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
        channels = 1
        for index, filters in enumerate(model.filters):
            blocks += _block(channels, filters, model.convs_per_block, first_kernel=5 if index == 0 else 3)
            channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.pooling = model.pooling
        self.head = nn.Sequential(
            nn.Linear(channels, model.dense),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(model.dense, num_classes),
        )

    def forward(self, log_mel_db: Tensor) -> Tensor:
        x = self.blocks((log_mel_db - self.mean_db) / self.std_db)
        # Not AdaptivePool: its backward pass is not deterministic on CUDA.
        pooled = x.mean((2, 3)) if self.pooling == "average" else x.amax((2, 3))
        return self.head(pooled)  # type: ignore[no-any-return]


def _block(channels: int, filters: int, convs: int, first_kernel: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for index in range(convs):
        kernel = first_kernel if index == 0 else 3
        # Batch norm has the bias. Its ReLU overwrites: one activation less to keep for the backward pass.
        layers += [
            nn.Conv2d(channels if index == 0 else filters, filters, kernel, padding="same", bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(inplace=True),
        ]
    # Rounded up, so that an axis of any length survives any number of blocks.
    return [*layers, nn.MaxPool2d(2, ceil_mode=True)]
