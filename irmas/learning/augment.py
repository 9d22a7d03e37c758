"""SpecAugment (Park et al., Interspeech 2019): hide bands and frames, under masks of each excerpt's own."""

from __future__ import annotations

import torch
from torch import Tensor

from irmas.config import Augment


def spec_augment(log_mel_db: Tensor, augment: Augment, fill_db: float) -> Tensor:
    """Return a copy of log-mels, (batch, 1, bands, frames), with masked bins at `fill_db`.

    Draws from torch's global generator.
    """
    batch, _, bands, frames = log_mel_db.shape
    hidden_bands = _masks(batch, bands, augment.freq_masks, augment.freq_width, log_mel_db.device)
    hidden_frames = _masks(batch, frames, augment.time_masks, augment.time_width, log_mel_db.device)
    return log_mel_db.masked_fill(hidden_bands[:, None, :, None] | hidden_frames[:, None, None, :], fill_db)


def _masks(batch: int, length: int, masks: int, width: float, device: torch.device) -> Tensor:
    """Return (batch, length), true where a mask lies; each hides 0 to width * length bins anywhere on the axis.

    torchaudio's mask_along_axis_iid never hides an axis's last bin and copies the batch for every mask.
    """
    hides = torch.randint(round(width * length) + 1, (batch, masks, 1), device=device)
    start = (torch.rand((batch, masks, 1), device=device) * (length - hides + 1)).long()
    bins = torch.arange(length, device=device)
    return ((bins >= start) & (bins < start + hides)).any(1)
