"""The picture of a timeline: the file's spectrogram, and below it one lane per instrument."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from irmas.data.features import LogMel
from irmas.files import PNG, visible
from irmas.inference.timeline import SOUND_THRESHOLD, Timeline, clock, read_windows
from irmas.labels import INSTRUMENTS
from irmas.plot_style import BLUE, FAINT, as_file, drawable, new_figure, numbering, our_style, shortened

COLUMNS = 900
"""Columns of the spectrogram, about as many as the picture has pixels for."""
BLOCK_S, MARGIN_S = 12.0, 0.5
"""Length and overlap of the blocks that the spectrogram is computed from; a block's edge would show as a click."""
LANES = 20
LANE_HEIGHT, SPECTROGRAM_HEIGHT = 0.21, 1.5  # inches
TICKS_HZ = (300, 1000, 3000, 10_000)
TICKS, STEPS_S = 8, (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
LIGHT_BLUE = "#B8D7EA"


def draw(path: Path, timeline: Timeline, front_end: LogMel, format_: str = PNG) -> bytes:
    """Return a picture. The file is read again, block by block, for a spectrogram by the front end.

    Raises DataError, naming the file, if it has become unreadable.
    """
    log_mel_db = spectrogram(path, timeline.seconds, front_end)
    with our_style():
        return as_file(_figure(visible(path.name), timeline, log_mel_db, front_end), format_)


def spectrogram(path: Path, seconds: float, front_end: LogMel) -> NDArray[np.float32]:
    """Return (n_mels, columns), dB from -top_db to 0, the file's maximum; a column is the mean power of its frames."""
    features = front_end.features
    hop_s = features.hop_length / features.sample_rate
    columns = int(np.clip(seconds / hop_s / 2, 1, COLUMNS))
    total, number = np.zeros((columns, features.n_mels)), np.zeros(columns)
    begin_s = 0.0
    for block in read_windows(path, BLOCK_S, BLOCK_S - 2 * MARGIN_S):
        power = front_end.power(torch.from_numpy(block.samples)[None], block.rate)[0].numpy()
        end_s = seconds if block.end_s > seconds - 1 / block.rate else block.end_s - MARGIN_S
        times = block.start_s + hop_s * np.arange(power.shape[1])
        chosen = (times >= begin_s) & (times < end_s)
        places = (times[chosen] * columns / seconds).astype(int)
        np.add.at(total, places, power.T[chosen])
        np.add.at(number, places, 1)
        begin_s = end_s
    power = (total / np.maximum(number, 1)[:, None]).T
    loudest = max(float(power.max()), 1e-10)
    return np.maximum(10 * np.log10(np.maximum(power, 1e-10 * loudest) / loudest), -features.top_db)  # type: ignore[no-any-return]


def _figure(name: str, timeline: Timeline, log_mel_db: NDArray[np.float32], front_end: LogMel) -> Figure:
    overall, silence = timeline.overall, timeline.silence()
    mean = np.zeros(len(timeline.classes)) if overall is None else overall
    order = np.argsort(-mean, kind="stable")[:LANES]
    notes = [
        "Above: log-mel spectrogram, dB under the file's maximum.",
        "Below: each instrument's score from 0 to 1, the mean over the windows at that moment; "
        f"dark where it is {SOUND_THRESHOLD:g} or more; beside it the mean of all windows.",
        "Hatched: silent." if silence else "",
        f"The first {LANES} of {len(timeline.classes)} classes." if len(timeline.classes) > LANES else "",
        numbering(timeline.classes, "JSON"),
    ]
    heights = SPECTROGRAM_HEIGHT, LANE_HEIGHT * len(order)
    figure = new_figure(sum(heights) + 0.45, shortened(name, 50), notes)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    _draw_spectrogram(above, log_mel_db, timeline.seconds, front_end)
    edges, scores = timeline.moments()
    labels = [drawable(timeline.classes)[index] for index in order]
    for lane, index in enumerate(order):
        _draw_lane(below, lane, edges, scores[:, index])
    for begin, end in silence:
        below.axvspan(begin, end, facecolor="none", edgecolor=FAINT, hatch="////", linewidth=0, zorder=4)
    below.set_yticks(range(len(order)), [shortened(INSTRUMENTS.get(label, label), 24) for label in labels])
    means = below.secondary_yaxis("right")
    means.set_yticks(range(len(order)), ["-" if overall is None else f"{mean[index]:.2f}" for index in order])
    for axis in (below.yaxis, means.yaxis):
        axis.set_tick_params(length=0)
    means.spines["right"].set_visible(False)
    below.spines["left"].set_visible(False)
    below.set_ylim(len(order) - 0.45, -0.62)
    below.set_xlim(0, timeline.seconds)
    below.xaxis.set_major_locator(MultipleLocator(_tick_s(timeline.seconds)))
    below.xaxis.set_major_formatter(FuncFormatter(lambda time, _: clock(time)))
    below.set_xlabel("time in the file")
    return figure


def _tick_s(seconds: float) -> float:
    """Return a step of the clock that gives at most `TICKS` ticks."""
    return next((step for step in STEPS_S if seconds / step <= TICKS), 3600 * math.ceil(seconds / TICKS / 3600))


def _draw_spectrogram(axes: Axes, log_mel_db: NDArray[np.float32], seconds: float, front_end: LogMel) -> None:
    features = front_end.features
    extent = (0, seconds, -0.5, features.n_mels - 0.5)
    axes.imshow(log_mel_db, cmap="magma", vmin=-features.top_db, vmax=0, aspect="auto", origin="lower", extent=extent)
    filters = front_end.mel.mel_scale.fb.numpy()
    peaks_hz = filters.argmax(axis=0) * features.sample_rate / features.n_fft
    shown = [tick for tick in TICKS_HZ if peaks_hz[0] <= tick <= peaks_hz[-1]]
    labels = [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in shown]
    axes.set_yticks(np.interp(shown, peaks_hz, range(features.n_mels)), labels)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("Hz")


def _draw_lane(axes: Axes, lane: int, edges: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
    """Draw the score as an area over the lane's base line, dark where the instrument sounds."""
    base, height = lane + 0.45, 0.9
    axes.axhline(base, color=FAINT, linewidth=0.6, zorder=1)
    for color, heights in ((LIGHT_BLUE, scores), (BLUE, np.where(scores >= SOUND_THRESHOLD, scores, np.nan))):
        axes.stairs(base - height * heights, edges, baseline=base, fill=True, color=color, linewidth=0, zorder=2)
