"""Waveform -> log-mel spectrogram: the one definition of the front end."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.transforms import MelSpectrogram, Resample

from irmas.config import Features
from irmas.data import sound
from irmas.errors import DataError

KAISER_BEST = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
"""The filter that librosa and resampy call kaiser_best, from torchaudio's resampling tutorial."""
LARGEST_FILTER = 1 << 24
"""Coefficients that a resampling filter may have; two rates without a common factor need billions."""


def read_waveform(path: Path) -> tuple[Tensor, int]:
    """Return mono samples and the sample rate in Hz. Raise DataError for a file that cannot be used."""
    samples, rate = sound.read_mono(path)
    return torch.from_numpy(samples), rate


class LogMel:
    """The front end for one set of settings; filters are computed once per sample rate."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.mel = MelSpectrogram(
            sample_rate=features.sample_rate,
            n_fft=features.n_fft,
            hop_length=features.hop_length,
            n_mels=features.n_mels,
            mel_scale=features.mel_scale,
            norm=features.mel_norm,
            pad_mode="constant",  # as librosa pads
        )
        self._resample = lru_cache(maxsize=8)(self._make_resample)

    def _make_resample(self, rate: int) -> Resample:
        target = self.features.sample_rate
        if rate * target // math.gcd(rate, target) ** 2 > LARGEST_FILTER:
            factor = f"has too small a factor in common with features.sample_rate={target}"
            raise DataError(f"{rate} Hz: {factor}; resample the file")
        return Resample(rate, target, **(KAISER_BEST if self.features.resampling == "kaiser_best" else {}))

    def _resampled(self, waveforms: Tensor, rate: int) -> Tensor:
        return waveforms if rate == self.features.sample_rate else self._resample(rate)(waveforms)

    def power(self, waveforms: Tensor, rate: int) -> Tensor:
        """Return mel power: (excerpts, samples at `rate`) of any length -> (excerpts, n_mels, frames).

        Raise DataError for a rate that cannot be resampled.
        """
        return self.mel(self._resampled(waveforms, rate))  # type: ignore[no-any-return]

    def __call__(self, waveforms: Tensor, rate: int) -> Tensor:
        """Return log-mels: (excerpts, samples at `rate`) -> (excerpts, n_mels, n_frames).

        They are in dB from -top_db to 0, the excerpt's maximum; silence is -top_db everywhere. Longer excerpts are cut
        to `seconds`, shorter ones padded with silence. Raise DataError for a rate that cannot be resampled.
        """
        features = self.features
        waveforms = self._resampled(waveforms[:, : int(np.ceil(features.seconds * rate))], rate)
        waveforms = waveforms[:, : features.n_samples]
        waveforms = torch.nn.functional.pad(waveforms, (0, features.n_samples - waveforms.shape[1]))
        peak = waveforms.abs().amax(1, keepdim=True)
        power = self.mel(waveforms / peak.clamp_min(1e-12))
        maximum = power.amax((1, 2), keepdim=True).clamp_min(1e-10)
        decibels = 10 * (power.clamp_min(1e-10).log10() - maximum.log10())
        return torch.where(peak[:, :, None] > 0, decibels, -features.top_db).clamp_min(-features.top_db)


def encode(decibels: Tensor, features: Features) -> NDArray[np.uint8] | NDArray[np.float16]:
    """Convert dB to the values that the cache stores."""
    if features.dtype == "float16":
        return decibels.numpy().astype(np.float16)
    return ((decibels - features.offset) / features.scale).round().clamp(0, 255).to(torch.uint8).numpy()


def decode(stored: NDArray[np.uint8] | NDArray[np.float16], features: Features) -> Tensor:
    """Convert stored values to dB."""
    return torch.from_numpy(stored).float() * features.scale + features.offset
