"""The style of all pictures: PNG, PDF or SVG for print at 15 cm width, readable without color too."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from irmas.files import PNG

WIDTH = 15 / 2.54  # inches, as all lengths below
DPI = 200
CHARACTER, LINE, TITLE = 0.07, 0.155, 0.32
"""Sizes of text of 8 pt; height of a picture's title, with the distance below it."""

# Okabe and Ito's colors, which color-blind readers can distinguish; each has a shape or a dash of its own.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GREY, FAINT = "#262C38", "#68707E", "#C4C9D1"
DASHES = (0, (4, 3))
FONT = "DejaVu Sans"
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 8,
    "axes.titlesize": 8,
    "text.parse_math": False,  # a $ in a setting is a $
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "svg.hashsalt": "irmas",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EC",
    "legend.frameon": False,
    "legend.fontsize": 8,
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "text.color", "axes.labelcolor"), INK),
}


@contextmanager
def our_style() -> Iterator[None]:
    """Draw in the project's style, whatever the user's matplotlibrc sets."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph")  # a class may be named in letters that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


WITHOUT = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
"""Entries without which the same figure gives the same bytes."""


def as_files(figures: Mapping[str, Figure | None], formats: Iterable[str]) -> dict[str, bytes]:
    """Return the files of the figures that there are, `name.format`."""
    wanted = [PNG, *formats]
    drawn = [(name, figure) for name, figure in figures.items() if figure]
    return {f"{name}.{format_}": as_file(figure, format_) for name, figure in drawn for format_ in wanted}


def as_file(figure: Figure, format_: str = PNG) -> bytes:
    """Return a picture's file; the same figure gives the same bytes."""
    file = io.BytesIO()
    # Laid out here: savefig would draw everything once more for it.
    layout = figure.get_layout_engine()
    assert layout
    layout.execute(figure)
    figure.set_layout_engine("none")
    figure.savefig(file, format=format_, metadata=WITHOUT[format_])
    return file.getvalue()


def new_figure(height: float, title: str, notes: Sequence[str], legend_lines: int = 0) -> Figure:
    """Return a figure with `height` for the axes, a title and space for a legend above them, and notes below.

    The places are fixed: matplotlib's automatic layout would let legend and title overlap.
    """
    lines = textwrap.wrap(" ".join(filter(None, notes)), 98)
    above, below = TITLE + LINE * legend_lines, 0.08 + LINE * len(lines)
    total = above + height + below
    middle = ConstrainedLayoutEngine(rect=(0, below / total, 0.99, height / total))
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, layout=middle)
    figure.text(0.01, 1 - 0.08 / total, title, verticalalignment="top", fontweight="bold", fontsize=9.5)
    figure.text(0.01, 0.06 / total, "\n".join(lines), verticalalignment="bottom", color=GREY)
    return figure


def add_legend(figure: Figure, handles: Sequence[Artist], columns: int = 1) -> None:
    corner = 0, 1 - TITLE / figure.get_figheight()
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": corner, "borderaxespad": 0, "ncols": columns}
    legend = figure.legend(handles=handles, labelspacing=0.35, **place)
    legend.set_in_layout(False)


def without_glyphs(names: Sequence[str]) -> dict[str, str]:
    """Return names that the font cannot draw, by the text that replaces them: `#3` for the third."""
    font = get_font(findfont(FONT))
    marked = {f"#{place}": name for place, name in enumerate(names, start=1)}
    return {mark: name for mark, name in marked.items() if not all(font.get_char_index(ord(letter)) for letter in name)}


def drawable(names: Sequence[str]) -> list[str]:
    """Return the names as pictures show them."""
    marks = {name: mark for mark, name in without_glyphs(names).items()}
    return [marks.get(name, name) for name in names]


def numbering(names: Sequence[str], file: str) -> str:
    """Return the note on names that the font cannot draw, which `file` lists in this order; empty without such."""
    return f"#1: the first of the classes in {file}, and so on." if without_glyphs(names) else ""


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def name_ticks(axis: Axis, names: Sequence[str], space: float) -> None:
    """Name the ticks at 0, 1, ..., which are `space` inches apart; on the x-axis turned where names are wider."""
    every = math.ceil(0.85 * LINE / space)
    is_turned = isinstance(axis, XAxis) and turned_height(names, space) > 0
    axis.set_ticks(range(0, len(names), every), names[::every], rotation=90 if is_turned else 0)
    axis.set_tick_params(length=0)


def turned_height(names: Sequence[str], space: float) -> float:
    """Return the height, in inches, that names of the x-axis need beyond a line: they turn if wider than `space`."""
    widest = max(map(len, names), default=0) * CHARACTER
    return widest if widest > 0.95 * space else 0.0
