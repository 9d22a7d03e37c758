"""The predictions of a run on disk."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from irmas.errors import DataError
from irmas.files import with_digest
from irmas.run import predictions
from irmas.run.predictions import Predictions

NAMES = np.array([f"{row:03d}" for row in range(50)])
SHARES = np.arange(50) % 4 / 3
SOUND = Predictions(np.array(["cel", "flu"]), NAMES, NAMES, np.arange(50) % 2, np.arange(50) % 3 % 2, SHARES)


def test_what_is_written_is_read_and_the_same_every_time(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    assert predictions.read(path) is None
    predictions.write(path, SOUND)
    once = path.read_bytes()
    stored = predictions.read(path)
    assert stored is not None
    assert stored.excerpts.tolist() == NAMES.tolist()
    assert stored.confusion.tolist() == SOUND.confusion.tolist() == [[17, 8], [16, 9]]
    assert stored.correct.tolist() == SHARES.tolist()
    predictions.write(path, SOUND)
    assert path.read_bytes() == once
    with np.load(path) as opened:  # as anybody would
        assert opened["targets"].tolist() == SOUND.targets.tolist()


def test_a_file_of_an_earlier_version_is_of_its_last_epoch(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: value for key, value in asdict(SOUND).items() if key != "correct"})
    path.write_bytes(with_digest(buffer.getvalue()))
    stored = predictions.read(path)
    assert stored is not None
    assert stored.correct.dtype == np.float64
    assert stored.correct.tolist() == (SOUND.targets == SOUND.predicted).tolist()


def test_any_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    predictions.write(path, SOUND)
    sound = path.read_bytes()
    for position in range(0, len(sound), 5):
        for damaged in (sound[:position], sound[:position] + bytes([sound[position] ^ 0x55]) + sound[position + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=r"predictions\.npz: is damaged"):
                predictions.read(path)
