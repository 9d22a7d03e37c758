"""Images for TensorBoard: what lies where, and that nothing is cut off or overflows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irmas.labels import CODES, INSTRUMENTS
from irmas.run.images import confusion_matrix, spectrograms

RGB = np.ndarray[Any, np.dtype[np.uint8]]


def places(picture: RGB, color: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """(row, column) of every pixel of a color."""
    return np.argwhere((picture == color).all(axis=-1))


def margins_are_white(picture: RGB) -> bool:
    return all((edge == 255).all() for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]))


def cells(counts: list[list[int]]) -> dict[tuple[int, int], RGB]:
    """The nine cells of a 3 x 3 confusion matrix, without their edges, by (row, column)."""
    empty = places(confusion_matrix(np.zeros((3, 3), np.int64), ["a", "b", "c"]), (247, 250, 253))
    (top, left), (bottom, right) = empty.min(axis=0), empty.max(axis=0) + 1
    matrix = confusion_matrix(np.array(counts), ["a", "b", "c"])[top:bottom, left:right]
    rows = [np.array_split(row, 3, axis=1) for row in np.array_split(matrix, 3)]
    return {(row, column): rows[row][column][3:-3, 3:-3] for row in range(3) for column in range(3)}


def darkest_cells(counts: list[list[int]]) -> list[tuple[int, int]]:
    return [place for place, cell in cells(counts).items() if tuple(cell[0, 0]) == (8, 48, 107)]


def test_rows_are_true_and_columns_predicted() -> None:
    assert darkest_cells([[0, 0, 7], [3, 0, 0], [0, 1, 0]]) == [(0, 2), (1, 0), (2, 1)]


def test_color_is_the_share_of_the_row_not_the_count() -> None:
    assert darkest_cells([[900, 900, 900], [0, 2, 0], [0, 0, 0]]) == [(1, 1)]


def test_every_cell_with_a_count_has_its_number() -> None:
    counts = [[99, 1, 0], [0, 600, 1], [0, 0, 0]]
    numbered = [place for place, cell in cells(counts).items() if (cell != cell[0, 0]).any()]
    assert numbered == [(0, 0), (0, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize("number", [2, 11, 40])
def test_a_confusion_matrix_of_any_size_keeps_its_labels_inside(number: int) -> None:
    counts = np.random.default_rng(0).integers(0, 2000, (number, number))
    for names in ([f"c{index:02d}" for index in range(number)], ["electric guitar"] * number):
        picture = confusion_matrix(counts, names)
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert max(picture.shape) < 1200
        assert margins_are_white(picture)


def test_long_names_make_the_picture_larger_and_leave_the_cells_alone() -> None:
    counts = np.eye(11, dtype=np.int64)
    codes, words = confusion_matrix(counts, CODES), confusion_matrix(counts, list(INSTRUMENTS.values()))
    assert words.shape[0] > codes.shape[0]
    assert len(places(words, (8, 48, 107))) == len(places(codes, (8, 48, 107)))


def test_low_frequencies_lie_at_the_bottom() -> None:
    tone = np.full((1, 64, 47), -80.0, np.float32)
    tone[:, :8] = 0.0
    picture = spectrograms(tone, ["low"], -80.0, 0.0)
    bright, dark = places(picture[:-24], (252, 255, 164)), places(picture[:-24], (4, 4, 18))
    assert bright[:, 0].min() > dark[:, 0].max()
    assert len(dark) == 7 * len(bright) > 0


def test_panels_stand_in_a_row_in_order() -> None:
    log_mels = np.full((4, 64, 47), -80.0, np.float32)
    log_mels[1] = 0.0
    picture = spectrograms(log_mels, list("abcd"), -80.0, 0.0)
    bright, width = places(picture[:-24], (252, 255, 164)), picture.shape[1]
    assert 0.25 * width - 10 < bright[:, 1].min() < bright[:, 1].max() < 0.5 * width + 10
    assert margins_are_white(picture)


def test_levels_beyond_the_range_are_clipped() -> None:
    beyond = np.stack([np.full((64, 47), -500.0), np.full((64, 47), 500.0)]).astype(np.float32)
    within = np.clip(beyond, -80.0, 0.0)
    assert np.array_equal(spectrograms(beyond, "ab", -80.0, 0.0), spectrograms(within, "ab", -80.0, 0.0))


def test_a_long_title_stays_over_its_panel() -> None:
    log_mels = np.zeros((2, 128, 94), np.float32)
    long, short = (spectrograms(log_mels, [title, ""], -80.0, 0.0) for title in ("gac " * 30, "gac"))
    half = long.shape[1] // 2
    assert np.array_equal(long[:, half:], short[:, half:])
    assert not np.array_equal(long[:, :half], short[:, :half])


def test_a_class_that_the_font_cannot_name_is_a_number() -> None:
    counts = np.eye(3, dtype=np.int64)
    chinese, numbers = ["cello", "小提琴", "oboe"], ["cello", "#2", "oboe"]
    assert np.array_equal(confusion_matrix(counts, chinese), confusion_matrix(counts, numbers))
    for latin in ("flute", "a & b", "Bass_2"):
        assert not np.array_equal(
            confusion_matrix(counts, [latin, "oboe", "x"]), confusion_matrix(counts, ["#1", "oboe", "x"])
        )
