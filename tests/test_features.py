"""The front end against laws, a mel scale written down independently, and real log-mels."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from irmas.config import Features
from irmas.data.features import LogMel, encode, read_waveform
from irmas.data.sound import Form, read_form
from irmas.errors import DataError

CONF = Path(__file__).parent.parent / "conf" / "features"
SMALL = Features(hop_length=1050, n_mels=64)


def sine(frequency: float, rate: int, seconds: float = 3.0, amplitude: float = 0.5) -> NDArray[np.float32]:
    return np.asarray(amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate), np.float32)


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def log_mel(waveform: NDArray[np.float32], rate: int, features: Features = SMALL) -> Tensor:
    return LogMel(features)(torch.from_numpy(waveform)[None], rate)[0]


def band_centres(features: Features) -> NDArray[np.float64]:
    """Hz. Slaney's scale (Auditory Toolbox, 1998): 200/3 Hz a mel up to 1 kHz, then 27 mels an octave of 6.4."""
    top = 15 + 27 * np.log(features.sample_rate / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, top, features.n_mels + 2)[1:-1]
    return np.asarray(np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27)))


@pytest.mark.parametrize(("name", "shape"), [("report", (224, 224)), ("small", (64, 64))])
def test_the_shipped_front_ends_have_the_geometry_they_promise(name: str, shape: tuple[int, int]) -> None:
    features = Features(**(yaml.safe_load((CONF / f"{name}.yaml").read_text()) or {}))
    assert (features.n_mels, features.n_frames) == shape
    for samples in (132_299, 132_300):
        assert log_mel(noise(samples), 44_100, features).shape == shape


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_a_sine_of_1_khz_is_loudest_in_the_band_around_it(rate: int) -> None:
    expected = int(np.abs(band_centres(SMALL) - 1000).argmin())
    decibels = log_mel(sine(1000, rate), rate)
    assert (decibels[:, 1:-1].argmax(0) == expected).all()
    assert decibels.max() == 0


@pytest.mark.parametrize("band", [3, 20, 40, 60])
def test_a_sine_at_a_bands_centre_is_loudest_there(band: int) -> None:
    decibels = log_mel(sine(float(band_centres(SMALL)[band]), 44_100), 44_100)
    assert (decibels[:, 1:-1].argmax(0) == band).all()


def test_resampling_leaves_no_alias() -> None:
    """15 kHz is above the half of 22.05 kHz: only silence is left, next to a tone that stays."""
    both = log_mel(sine(1000, 44_100) + sine(15_000, 44_100), 44_100)
    alone = log_mel(sine(1000, 44_100), 44_100)
    assert (both - alone)[:, 2:-2].abs().max() < 1


@pytest.mark.parametrize("gain", [1e-4, 0.1, 2.0])
def test_loudness_does_not_matter(gain: float) -> None:
    waveform = sine(440, 44_100)  # reaches down to the clip
    torch.testing.assert_close(
        log_mel(waveform * np.float32(gain), 44_100), log_mel(waveform, 44_100), atol=0.01, rtol=0
    )


def test_decibels_lie_between_the_clip_and_the_maximum() -> None:
    for top_db in (40.0, 80.0):
        features = Features(hop_length=1050, n_mels=64, top_db=top_db)
        decibels = log_mel(sine(1000, 44_100), 44_100, features)
        assert decibels.max() == 0
        assert decibels.min() == -top_db


def test_every_excerpt_of_a_batch_has_its_own_maximum() -> None:
    waveforms = torch.from_numpy(np.stack([noise(132_300), 0.01 * noise(132_300, 1), np.zeros(132_300, np.float32)]))
    together = LogMel(SMALL)(waveforms, 44_100)
    for row, waveform in zip(together, waveforms, strict=True):
        torch.testing.assert_close(row, LogMel(SMALL)(waveform[None], 44_100)[0], atol=1e-3, rtol=0)


def test_silence_is_the_lowest_value_everywhere() -> None:
    assert (log_mel(np.zeros(132_300, np.float32), 44_100) == -80).all()


def test_a_short_excerpt_is_padded_with_silence() -> None:
    decibels = log_mel(sine(1000, 44_100, seconds=1.0), 44_100)
    assert decibels.shape == (64, 64)
    assert (decibels[:, 24:] == -80).all()
    assert (decibels[:, 1:20].amax(0) > -1).all()


def test_a_single_sample_is_an_excerpt() -> None:
    assert torch.isfinite(log_mel(np.ones(1, np.float32), 44_100)).all()


def test_of_a_long_excerpt_the_beginning_counts() -> None:
    waveform = noise(44_100 * 5)
    torch.testing.assert_close(log_mel(waveform, 44_100), log_mel(waveform[:132_300], 44_100), atol=0, rtol=0)


def test_stereo_is_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = noise(1000, 1), noise(1000, 2)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], 1), 32_000, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", left, 32_000, subtype="FLOAT")
    stereo, rate = read_waveform(tmp_path / "stereo.wav")
    assert rate == 32_000
    np.testing.assert_allclose(stereo.numpy(), (left + right) / 2, atol=1e-7)
    np.testing.assert_array_equal(read_waveform(tmp_path / "mono.wav")[0].numpy(), left)


@pytest.mark.parametrize(
    ("ending", "subtype", "step"),
    [("wav", "PCM_16", 2**-15), ("wav", "PCM_24", 2**-23), ("wav", "FLOAT", 0), ("flac", "PCM_16", 2**-15)],
)
def test_every_usual_format_is_read(tmp_path: Path, ending: str, subtype: str, step: float) -> None:
    written = noise(2000)
    soundfile.write(tmp_path / f"x.{ending}", written, 44_100, subtype=subtype)
    read, rate = read_waveform(tmp_path / f"x.{ending}")
    assert rate == 44_100
    np.testing.assert_allclose(read.numpy(), written, atol=step)


def test_what_is_not_audio_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is no sound")
    soundfile.write(tmp_path / "header.wav", np.zeros(0, np.float32), 44_100)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan], np.float32), 44_100, subtype="FLOAT")
    soundfile.write(tmp_path / "inf.wav", np.array([0, np.inf], np.float32), 44_100, subtype="FLOAT")
    soundfile.write(tmp_path / "silent.wav", np.zeros(100, np.float32), 44_100)
    soundfile.write(tmp_path / "cancelled.wav", np.array([[0.5, -0.5]] * 100), 44_100)
    for name, reason in (
        ("empty", "empty"),
        ("text", "Format not recognised"),
        ("missing", "No such file"),
        ("silent", "silent"),
        ("cancelled", "silent: the mean of its channels"),
        ("header", "holds no samples"),
        ("nan", "not finite"),
        ("inf", "not finite"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.wav: .*{reason}"):
            read_waveform(tmp_path / f"{name}.wav")


def lied_about(path: Path, mark: bytes, size: int, order: str = "<") -> None:
    """The chunk `mark` says that it has so many bytes."""
    data = path.read_bytes()
    at = data.index(mark) + 4
    path.write_bytes(data[:at] + struct.pack(f"{order}I", size) + data[at + 4 :])


@pytest.mark.parametrize(
    ("ending", "form", "subtype"),
    [
        ("wav", "WAV", "PCM_16"),
        ("wav", "WAVEX", "PCM_24"),
        ("wav", "WAV", "IMA_ADPCM"),
        ("aiff", "AIFF", "PCM_16"),
        ("flac", "FLAC", "PCM_16"),
        ("mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
def test_a_cut_file_is_refused_and_a_whole_one_is_not(tmp_path: Path, ending: str, form: str, subtype: str) -> None:
    path = tmp_path / f"x.{ending}"
    soundfile.write(path, noise(44_100), 44_100, format=form, subtype=subtype)
    assert len(read_waveform(path)[0]) >= 44_100
    whole = path.read_bytes()
    for share in (0.99, 0.5) if ending != "mp3" else (0.9, 0.5):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=rf"x\.{ending}: (truncated: the header|Error : flac decoder lost sync)"):
            read_waveform(path)


def test_a_cut_wav_with_another_chunk_ahead_of_its_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(1000), 44_100, subtype="PCM_16")
    plain = path.read_bytes()
    chunk = b"LIST\x05\0\0\0INFOx\0"  # of an odd length, and so followed by an empty byte
    path.write_bytes(plain[:36] + chunk + plain[36:])
    assert read_form(path).frames == 1000
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"x\.wav: truncated: the header says 2000 bytes of audio, the file has 1998"):
        read_form(path)


@pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_wav_that_was_written_to_a_pipe_is_not_cut(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(1000), 44_100, subtype="PCM_16")
    lied_about(path, b"data", size)
    lied_about(path, b"RIFF", 0xFFFFFFFF)
    assert len(read_waveform(path)[0]) == 1000


def test_a_flac_that_was_written_to_a_pipe_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    soundfile.write(path, noise(1000), 44_100)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's 36 bits for the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"unknown length .*; re-encode the file"):
        read_waveform(path)


def test_a_rate_that_shares_no_factor_is_refused_before_memory_runs_out() -> None:
    with pytest.raises(DataError, match=r"^22255 Hz: has too small a factor in common with .*sample_rate=22050"):
        log_mel(noise(100), 22_255)  # 1.5 GB; 44101 Hz needs 10


def test_remarks_name_what_is_odd_about_a_usable_file() -> None:
    of_irmas, three = Form(44_100, 2, "PCM_16", 132_299), 3.0
    assert of_irmas.remarks(three, of_irmas=True) == []
    assert Form(44_100, 2, "PCM_16", 132_300 - 441).remarks(three, of_irmas=True) == []
    odd = Form(22_050, 1, "PCM_24", 22_050)
    short = "shorter than 3 s, padded with silence"
    assert odd.remarks(three, of_irmas=True) == ["22050 Hz, resampled", "1 channel", "PCM_24", short]
    assert odd.remarks(three, of_irmas=False) == [short]
    assert odd.remarks(1.0, of_irmas=False) == []
    assert (odd.kind, odd.seconds) == ("22050 Hz, 1 channel, PCM_24", 1)


@pytest.mark.parametrize(("dtype", "half_step"), [("uint8", 80 / 255 / 2), ("float16", 2**-5)])
def test_what_is_stored_lies_within_half_a_step(dtype: str, half_step: float) -> None:
    features = Features(dtype=dtype)
    decibels = torch.linspace(-80, 0, 9999).reshape(9, 1111)
    stored = encode(decibels, features)
    assert stored.dtype == dtype
    back = features.scale * stored.astype(np.float64) + features.offset
    assert np.abs(back - decibels.numpy()).max() <= half_step * (1 + 1e-4)


def test_log_mels_of_real_excerpts_are_as_close_to_librosas_as_they_can_be(shared: Path) -> None:
    """librosa's own log-mels lie within two 8-bit steps everywhere; torchaudio's top bands differ a little."""
    features = Features(sample_rate=16_000, n_fft=2048, hop_length=512, n_mels=128)
    settings = json.loads((shared / "irmas_logmel" / "features.json").read_text())
    assert (settings["scale"], settings["offset"]) == (features.scale, features.offset)
    with (shared / "irmas_logmel" / "clips.csv").open(newline="") as file:
        row_of = {clip["name"]: row for row, clip in enumerate(csv.DictReader(file))}
    stored = np.load(shared / "irmas_logmel" / "features.npy", mmap_mode="r")
    front_end = LogMel(features)
    wavs = [path for path in sorted(shared.glob("irmas_wav/IRMAS-TrainingData/*/*.wav")) if path.stem in row_of]
    assert len(wavs) >= 20
    for path in wavs:
        waveform, rate = read_waveform(path)
        computed = encode(front_end(waveform[None], rate)[0], features).astype(int)
        expected = stored[row_of[path.stem]].astype(int)
        assert computed.shape == expected.shape
        assert np.mean(np.abs(computed - expected) <= 2) >= 0.97, path.name
        assert np.corrcoef(computed.ravel(), expected.ravel())[0, 1] > 0.999, path.name
