"""SpecAugment (Park et al., Interspeech 2019): bands and frames hidden, each excerpt under masks of its own."""

from __future__ import annotations

from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

from irmas.config import Augment


def spec_augment(log_mel_db: Tensor, augment: Augment, fill_db: float) -> Tensor:
    """(batch, 1, bands, frames) -> the same, with masked bins at `fill_db`. Draws from torch's global generator."""
    bands, frames = log_mel_db.shape[2:]
    for _ in range(augment.freq_masks):
        log_mel_db = mask_along_axis_iid(log_mel_db, round(augment.freq_width * bands), fill_db, axis=2)
    for _ in range(augment.time_masks):
        log_mel_db = mask_along_axis_iid(log_mel_db, round(augment.time_width * frames), fill_db, axis=3)
    return log_mel_db
