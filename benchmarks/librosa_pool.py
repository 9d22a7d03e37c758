"""The peer of front_end.py, in its own interpreter: librosa's log-mels of a folder, by as many processes as cores.

python librosa_pool.py CORPUS OUT.npy
"""

from __future__ import annotations

import os
import sys
from multiprocessing import get_context
from pathlib import Path

import librosa
import numpy as np
from numpy.typing import NDArray
from rounds import serve


def log_mel(path: Path) -> NDArray[np.float16]:
    samples, rate = librosa.load(path, sr=22_050)
    samples = librosa.util.fix_length(samples, size=3 * int(rate))
    power = librosa.feature.melspectrogram(
        y=samples / np.abs(samples).max(), sr=rate, n_fft=2048, hop_length=296, n_mels=224
    )
    decibels: NDArray[np.float16] = librosa.power_to_db(power, ref=np.max, top_db=80).astype(np.float16)
    return decibels


def main() -> None:
    corpus, out = map(Path, sys.argv[1:])
    paths = sorted(corpus.rglob("*.wav"))
    cores = len(os.sched_getaffinity(0))
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[threads] = "1"
    with get_context("spawn").Pool(cores) as pool:
        serve(lambda: np.save(out, np.stack(list(pool.imap(log_mel, paths, chunksize=32)))))


if __name__ == "__main__":
    main()
