"""Slurm's words: pure parsers of what its commands print, and the few commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def ranges(numbers: Iterable[int]) -> str:
    """`1-3,7` for 1, 2, 3 and 7, as in `sbatch --array`."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)


def expand_ranges(text: str) -> list[int]:
    """The inverse of `ranges`. Raises ValueError for text of another form."""
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{text!r} is no list of numbers and ranges such as 1-3,7")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers
