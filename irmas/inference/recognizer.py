"""Trained nets, alone or averaged: a waveform, a log-mel or a whole file -> probabilities of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irmas.console import SILENT, Progress
from irmas.data.features import LogMel
from irmas.data.sound import read_form
from irmas.errors import DataError, UserError
from irmas.inference.onnx_file import SUFFIX, read_onnx
from irmas.inference.timeline import Timeline, count_windows, read_windows
from irmas.learning.net import Net, Probabilities, read_net
from irmas.results import ranking
from irmas.run.folder import COMPLETED, CONFIG, RunFolder
from irmas.sweep.sweep import Sweep

BATCH_S = 96.0
"""Seconds of sound in a batch, whatever the length of its windows: memory grows with it."""


@dataclass(frozen=True)
class Recognizer:
    """One net, or several whose probabilities are averaged, each with the front end that it was trained with.

    Raises UserError if their classes differ, if a window is too short for a net, or if the hop is longer than a window.
    """

    nets: Sequence[Net]
    names: Sequence[str]
    """Path of each net's file."""
    window_s: float
    hop_s: float
    """Seconds from one window of a file to the next."""

    def __post_init__(self) -> None:
        if self.hop_s > self.window_s:
            raise UserError(f"--hop {self.hop_s:g}: must be at most as long as a window, {self.window_s:g} s")
        for name, net, front_end in zip(self.names, self.nets, self.front_ends, strict=True):
            if net.classes != self.classes:
                difference = f"{' '.join(net.classes)}, {self.names[0]} has {' '.join(self.classes)}"
                raise UserError(f"{name}: has the classes {difference}; only nets of the same classes are averaged")
            if (frames := front_end.features.n_frames) < net.pool:
                option = f"--window {self.window_s:g}"
                raise UserError(f"{option}: is too short for {name}: {frames} frames, it needs {net.pool}")

    @classmethod
    def load(cls, paths: Sequence[Path], window_s: float | None = None, hop_s: float | None = None) -> Recognizer:
        """Return the average of all nets that the paths name.

        A window is as long as the excerpts of the training unless `window_s` is given, a hop half as long as a window.
        Raises UserError, naming the path, if there is no model, or if the nets cannot be averaged.
        """
        files = [file for path in paths for file in model_files(path)]
        nets = [read_onnx(f) if f.suffix == SUFFIX else read_net(f) for f in files]
        window_s = window_s or nets[0].features.seconds
        return cls(nets, [str(file) for file in files], window_s, hop_s or window_s / 2)

    @property
    def classes(self) -> list[str]:
        return self.nets[0].classes

    @cached_property
    def front_ends(self) -> list[LogMel]:
        """Front end of each net, for windows of `window_s`."""
        return [LogMel(replace(net.features, seconds=self.window_s)) for net in self.nets]

    def probabilities(self, waveforms: Tensor, rate: int) -> Probabilities:
        """Classify windows, (windows, samples at `rate`); leave out silent ones, for which the result means nothing.

        Raises DataError for a rate that cannot be resampled.
        """
        answers = []
        for net, front_end in zip(self.nets, self.front_ends, strict=True):
            answers.append(net.hear(front_end, waveforms, rate))
        return np.mean(answers, axis=0, dtype=np.float32)  # type: ignore[no-any-return]

    def timeline(self, path: Path, progress: Progress = SILENT) -> Timeline:
        """Classify the windows of a file, a batch at a time; memory holds one batch.

        Raises DataError, naming the file, if it is empty, truncated or no sound, if its samples are not finite, or if
        its rate cannot be resampled.
        """
        progress.start(path.name, count_windows(read_form(path).seconds, self.window_s, self.hop_s), "windows")
        remaining = read_windows(path, self.window_s, self.hop_s)
        starts, ends, probabilities = [], [], []
        while batch := list(islice(remaining, max(1, int(BATCH_S / self.window_s)))):
            answers = np.full((len(batch), len(self.classes)), np.nan, np.float32)
            loud = [row for row, window in enumerate(batch) if not window.is_silent]
            if loud:
                samples = torch.from_numpy(np.stack([batch[row].samples for row in loud]))
                try:
                    answers[loud] = self.probabilities(samples, batch[0].rate)
                except DataError as error:
                    raise DataError(f"{path}: {error}") from None
            probabilities.append(answers)
            starts += [window.start_s for window in batch]
            ends += [window.end_s for window in batch]
            progress.advance(len(batch))
        # Rounded, so that a window's end and the start of another at the same sample are the same number.
        starts_s, ends_s = np.round(starts, 6), np.round(ends, 6)
        return Timeline(round(ends[-1], 6), self.classes, starts_s, ends_s, np.concatenate(probabilities))


def model_files(path: Path) -> list[Path]:
    """Return a file itself, a run's model file, or those of a sweep's winner, one for each of its runs.

    Raises UserError if there is none.
    """
    if not path.is_dir():
        return [path]
    if (path / CONFIG).exists():
        folders = [RunFolder(path)]
    else:
        ranked = ranking.rank(Sweep.open(path))
        best = {row.id for row in ranked.runs if row.rank == 1 and row.state == COMPLETED}
        folders = [ranked.sweep.run_folder(run) for run in ranked.plan.runs if run.id in best]
        if not folders:
            raise UserError(f"{path}: has no finished run; python -m irmas.status {path} lists their states")
    for folder in folders:
        if not folder.model.exists():
            state = folder.status().state
            raise UserError(f"{folder.path}: has no {folder.model.name}, because the run is {state}, not {COMPLETED}")
    return sorted(folder.model for folder in folders)
