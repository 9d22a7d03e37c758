"""Building the feature cache, beside librosa in a pool of as many processes, and soundfile and torchaudio in a loop.

    python benchmarks/front_end.py [--rounds 3] [--excerpts 1320]

Ours starts its processes each time and writes the cache as a sweep does; librosa's pool is warm, and the loop is
one process with torch's threads.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import BENCHMARKS, ROOT, Peer, Row, in_turn, medians, parser, ratios, show, timed
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram, Resample

from irmas.config import Data, Features
from irmas.console import SILENT
from irmas.data import cache, dataset
from irmas.data.excerpts import Excerpt
from irmas.data.features import KAISER_BEST


class Loop:
    """What the tutorials do."""

    def __init__(self, features: Features, out: Path) -> None:
        self.features, self.out = features, out
        quality: dict[str, Any] = KAISER_BEST if features.resampling == "kaiser_best" else {}
        self.resample = Resample(44_100, features.sample_rate, **quality)
        rate, hop, bands = features.sample_rate, features.hop_length, features.n_mels
        self.mel = MelSpectrogram(rate, features.n_fft, hop_length=hop, n_mels=bands, mel_scale="slaney", norm="slaney")
        self.decibels = AmplitudeToDB(top_db=features.top_db)

    def __call__(self, excerpts: list[Excerpt]) -> None:
        import soundfile

        rows = []
        for excerpt in excerpts:
            samples, _ = soundfile.read(excerpt.path, dtype="float32")
            waveform = self.resample(torch.from_numpy(samples.mean(1)))
            rows.append(self.decibels(self.mel(waveform / waveform.abs().max()))[:, : self.features.n_frames])
        np.save(self.out, torch.stack(rows).half().numpy())


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--excerpts", type=int, default=1320, help="of the stand-in, at 224 x 224")
    given = options.parse_args()
    data = Data("standin", str(ROOT / "data" / "standin"), size=given.excerpts, render_seed=0)
    dataset.locate(data, Features(), SILENT)
    excerpts = dataset.excerpts(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def built(resampling: str) -> None:
            made = Path(tempfile.mkdtemp(dir=folder)) / "cache"
            cache.build(excerpts, Features(resampling=resampling), made)

        loops = {kind: Loop(Features(resampling=kind), folder / f"{kind}.npy") for kind in ("hann", "kaiser_best")}
        with Peer(BENCHMARKS / "librosa_pool.py", dataset.corpus_folder(data), folder / "librosa.npy") as librosa:
            sides: dict[str, Callable[[], float]] = {
                "ours, hann": timed(lambda: built("hann")),
                "ours, kaiser_best": timed(lambda: built("kaiser_best")),
                "librosa": librosa,
                "loop, hann": timed(lambda: loops["hann"](excerpts)),
                "loop, kaiser_best": timed(lambda: loops["kaiser_best"](excerpts)),
            }
            in_turn(sides, 1)  # the fork server's imports, numba's compilation, files into the page cache
            taken = in_turn(sides, given.rounds)
    show(_rows(taken, given.excerpts), given.record)


def _rows(taken: dict[str, list[float]], excerpts: int) -> list[Row]:
    rates = ", ".join(f"{name} {excerpts / np.median(times):.0f} a second" for name, times in taken.items())
    sys.stderr.write(f"{rates}\n")
    rows = []
    goals = {("librosa", "hann"): ">= 1.3", ("loop, hann", "hann"): ">= 1.5"}
    for peer, kind in (*goals, ("librosa", "kaiser_best"), ("loop, kaiser_best", "kaiser_best")):
        sides = {name: taken[name] for name in (f"ours, {kind}", peer)}
        goal = goals.get((peer, kind), "")
        values = ratios(taken[peer], taken[f"ours, {kind}"])
        what = f"feature cache, {excerpts} excerpts, 224 x 224, {kind}"
        rows.append(Row(what, f"{peer} / ours", values, goal, medians(sides)))
    return rows


if __name__ == "__main__":
    main()
