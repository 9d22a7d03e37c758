"""A run's images for TensorBoard, as RGB arrays: confusion matrix and spectrograms.

Pillow draws them in 0.05 s of CPU time; matplotlib needs 0.5 s, which is noticeable in a run of a few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_INK = (38, 44, 56)
_FAINT = (104, 112, 126)
# Lightness rises or falls throughout each ramp, so that its order holds for color-blind eyes and in gray.
_WHITE_TO_BLUE = ((247, 250, 253), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))
_BLACK_TO_YELLOW = ((4, 4, 18), (84, 15, 109), (187, 55, 84), (249, 142, 9), (252, 255, 164))

_PANEL = 256  # approximate pixels of a spectrogram's longer side
_GAP = 14


def confusion_matrix(counts: NDArray[np.integer], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw counts, (true, predicted), as an image, (height, width, 3).

    Color and number of a cell are its percentage of the row, so that the diagonal shows each class's recall; a cell
    without a count stays empty. The last column gives each row's number of examples. A class whose name the font lacks
    is a number: `#3` is the third.
    """
    cell = int(np.clip(520 // len(classes), 22, 46))
    font = _font(max(10.0, cell / 3))
    names = _drawable(classes, font)
    totals = counts.sum(axis=1)
    share = counts / np.maximum(totals, 1)[:, None]
    side = cell * len(classes)
    line = int(font.size) + 12
    longest = int(max(font.getlength(name) for name in names)) + 8
    upright = longest <= cell + 6
    below = cell * 3 // 4 if upright else longest
    beside = int(max(font.getlength(f"{total:,}") for total in totals)) + 16

    left, top = line + longest + 4, 10
    canvas = Image.new("RGB", (left + side + beside, top + side + below + line + 4), "white")
    draw = ImageDraw.Draw(canvas)
    cells = _colors(share, _WHITE_TO_BLUE).repeat(cell, axis=0).repeat(cell, axis=1)
    cells[::cell] = cells[:, ::cell] = 255
    canvas.paste(Image.fromarray(cells), (left, top))
    for row, column in np.argwhere(counts):
        text = f"{100 * share[row, column]:.0f}"
        center = (left + (column + 0.5) * cell, top + (row + 0.5) * cell)
        ink = "white" if share[row, column] > 0.5 else _INK
        draw.text(center, "<1" if text == "0" else text, ink, font, anchor="mm")

    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        draw.text((left - 6, top + middle), name, _INK, font, anchor="rm")
        if upright:
            draw.text((left + middle, top + side + cell * 3 / 8), name, _INK, font, anchor="mm")
        else:
            _write_upwards(canvas, (int(left + middle), top + side + 4), name, font, _INK)
    for row, total in enumerate(totals):
        draw.text((left + side + 8, top + (row + 0.5) * cell), f"{total:,}", _FAINT, font, anchor="lm")
    draw.text((left + side + 8, top + side + cell * 3 / 8), "n", _FAINT, font, anchor="lm")
    title = (left + side / 2, top + side + below + line / 2)
    draw.text(title, "predicted, % of row", _FAINT, font, anchor="mm")
    _write_upwards(canvas, (line // 2 + 2, top + side // 2 - line), "true", font, _FAINT)
    return np.asarray(canvas)


def spectrograms(
    log_mel_db: NDArray[np.float32], titles: Sequence[str], vmin_db: float, vmax_db: float
) -> NDArray[np.uint8]:
    """Draw log-mels, (excerpts, bands, frames) in dB, as a row of titled panels, low frequencies at the bottom.

    Colors run from `vmin_db` to `vmax_db` and are clipped there; the bar below names both. Titles are cut to their
    panel's width; the font has Latin letters and no arrows.
    """
    count, bands, frames = log_mel_db.shape
    zoom = max(1, round(_PANEL / max(bands, frames)))
    width, height, head = frames * zoom, bands * zoom, 24
    size = (max(230, _GAP + count * (width + _GAP)), head + height + _GAP + head)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    font, small = _font(14.0), _font(12.0)

    level = np.clip((log_mel_db[:, ::-1] - vmin_db) / (vmax_db - vmin_db), 0.0, 1.0)
    panels = _colors(level, _BLACK_TO_YELLOW).repeat(zoom, axis=1).repeat(zoom, axis=2)
    for index, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = _GAP + index * (width + _GAP)
        draw.text((left, head / 2 + 1), _shortened(title, font, width), _INK, font, anchor="lm")
        canvas.paste(Image.fromarray(panel), (left, head))

    low, middle = f"{vmin_db:g} dB", size[1] - head // 2 - 3
    bar = _colors(np.broadcast_to(np.linspace(0.0, 1.0, 96), (10, 96)), _BLACK_TO_YELLOW)
    bar_left = _GAP + int(small.getlength(low)) + 6
    canvas.paste(Image.fromarray(bar), (bar_left, middle - 5))
    draw.text((_GAP, middle), low, _FAINT, small, anchor="lm")
    draw.text((bar_left + 102, middle), f"{vmax_db:g} dB", _FAINT, small, anchor="lm")
    return np.asarray(canvas)


def _colors(level: NDArray[np.floating], ramp: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Return RGB, on a last axis of 3, for levels from 0 to 1 along the ramp's evenly spaced colors."""
    points = np.linspace(0, 255, len(ramp))
    channels = [np.interp(np.arange(256), points, channel) for channel in zip(*ramp, strict=True)]
    table = np.stack(channels, axis=-1).round().astype(np.uint8)
    return table[(level * 255).round().astype(np.uint8)]


def _drawable(names: Sequence[str], font: ImageFont.FreeTypeFont) -> list[str]:
    """Return the names, and numbers in place of those with a letter that the font lacks."""
    missing = bytes(font.getmask("\uffff"))
    lacking = {letter for letter in {*"".join(names)} if bytes(font.getmask(letter)) == missing}
    return [f"#{place}" if lacking & {*name} else name for place, name in enumerate(names, start=1)]


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _write_upwards(
    canvas: Image.Image, top: tuple[int, int], text: str, font: ImageFont.FreeTypeFont, ink: tuple[int, int, int]
) -> None:
    """Write text that reads upwards, centered on a column that begins at `top`."""
    length, height = int(font.getlength(text)) + 2, int(font.size) + 4
    label = Image.new("RGB", (length, height), "white")
    ImageDraw.Draw(label).text((length / 2, height / 2), text, ink, font, anchor="mm")
    canvas.paste(label.transpose(Image.Transpose.ROTATE_90), (top[0] - height // 2, top[1]))


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return `text`, cut to `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
