"""SpecAugment: what is hidden, how much of it, and what is left alone."""

from __future__ import annotations

import torch
from torch import Tensor

from irmas.config import Augment
from irmas.learning.model import augmented

FILL_DB = -33.0


def hidden(augment: Augment, batch: int = 200, bands: int = 40, frames: int = 60, seed: int = 0) -> Tensor:
    """Return the bins of a random batch that are masked; every other bin was left as it is."""
    log_mel = torch.randn(batch, 1, bands, frames, generator=torch.Generator().manual_seed(1))
    before = log_mel.clone()
    torch.manual_seed(seed)
    masked = augmented(log_mel, augment, FILL_DB)
    assert torch.equal(log_mel, before)
    assert masked.shape == log_mel.shape
    where = masked == FILL_DB
    assert torch.equal(masked[~where], log_mel[~where])
    return where[:, 0]


def test_a_frequency_mask_hides_neighbouring_bands_up_to_its_width() -> None:
    where = hidden(Augment(freq_masks=1, freq_width=0.2, time_masks=0))
    assert torch.equal(where.any(2), where.all(2))
    bands = where.all(2)
    widths = bands.sum(1)
    assert (int(widths.min()), int(widths.max())) == (0, 8)  # 0.2 * 40
    starts = (bands[:, 1:] & ~bands[:, :-1]).sum(1) + bands[:, 0]
    assert int(starts.max()) == 1


def test_a_time_mask_hides_neighbouring_frames_up_to_its_width() -> None:
    where = hidden(Augment(freq_masks=0, time_masks=1, time_width=0.2))
    assert torch.equal(where.any(1), where.all(1))
    frames = where.all(1)
    assert (int(frames.sum(1).min()), int(frames.sum(1).max())) == (0, 12)  # 0.2 * 60
    starts = (frames[:, 1:] & ~frames[:, :-1]).sum(1) + frames[:, 0]
    assert int(starts.max()) == 1


def test_masks_reach_every_band_and_frame() -> None:
    assert hidden(Augment(freq_masks=1, freq_width=0.2, time_masks=0), batch=2000).any(0).all()
    assert hidden(Augment(freq_masks=0, time_masks=1, time_width=0.2), batch=2000).any(0).all()


def test_no_mask_reaches_beyond_the_axis() -> None:
    where = hidden(Augment(freq_masks=1, freq_width=0.5, time_masks=0), batch=2000, bands=2)
    assert 0.46 < float(where.flatten(1).any(1).float().mean()) < 0.54  # half of them hide 1 of the 2 bands


def test_each_excerpt_has_masks_of_its_own() -> None:
    assert len({excerpt.numpy().tobytes() for excerpt in hidden(Augment(), batch=50)}) > 45


def test_the_share_that_is_hidden_follows_from_the_widths() -> None:
    # Two masks each way hide a twentieth on average, less what overlaps take.
    assert 0.17 < float(hidden(Augment(), bands=100, frames=100, batch=1000).float().mean()) < 0.19


def test_without_masks_or_width_nothing_is_hidden() -> None:
    assert not hidden(Augment(freq_masks=0, freq_width=0.0, time_masks=0, time_width=0.0)).any()
    assert not hidden(Augment(freq_width=0.0, time_width=0.0)).any()


def test_the_global_generator_decides() -> None:
    assert torch.equal(hidden(Augment(), seed=5), hidden(Augment(), seed=5))
    assert not torch.equal(hidden(Augment(), seed=5), hidden(Augment(), seed=6))


def test_each_excerpt_is_rolled_around_its_frames_by_a_number_of_its_own() -> None:
    log_mel = torch.arange(200 * 3 * 7.0).view(200, 1, 3, 7)
    rolled = augmented(log_mel, Augment(freq_masks=0, time_masks=0, roll=True), FILL_DB)
    versions = torch.stack([log_mel.roll(-shift, 3) for shift in range(7)])
    shifts = [(version == rolled).all((1, 2, 3)) for version in versions]
    assert torch.stack(shifts).sum(0).tolist() == [1] * 200
    assert min(int(shift.sum()) for shift in shifts) > 10  # a seventh of 200 is 29


def test_masks_lie_on_rolled_excerpts_and_are_drawn_as_without_rolls() -> None:
    log_mel = torch.randn(50, 1, 40, 60)
    alone, both = Augment(freq_masks=0, time_masks=0, roll=True), Augment(roll=True)
    torch.manual_seed(0)
    rolled = augmented(log_mel, alone, FILL_DB)
    masked = augmented(rolled, Augment(), FILL_DB)
    torch.manual_seed(0)
    assert torch.equal(augmented(log_mel, both, FILL_DB), masked)
