"""The points of a sweep as a csv: one row per point, one column per key; an empty cell leaves its key alone."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from irmas.cli.overrides import explained, parse, unknown
from irmas.config import SWEEP_WIDE, Config, rules
from irmas.errors import UserError

WHOLE = SWEEP_WIDE | {"best", "sweep"}
"""Keys that one row cannot set."""
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Row:
    """A line of the file, and its cells as values on the command line, by key."""

    line: int
    cells: dict[str, str]


def read(path: Path) -> list[Row]:
    """Return the rows of a file. Raise UserError, naming file, line and column, for the first that cannot be read."""
    rows, seen = list[Row](), dict[str, int]()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            keys = _header(path, next(reader, []))
            for cells in reader:
                if not cells:
                    continue
                row = Row(reader.line_num, _cells(path, reader.line_num, keys, cells))
                values = str(_parsed(path, row))
                if values in seen:
                    raise UserError(f"{path}: line {row.line} repeats line {seen[values]}")
                seen[values] = row.line
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no csv in UTF-8 ({error})") from None
    if not rows:
        raise UserError(f"{path}: must have one row per point below its header")
    return rows


def located(path: Path, line: int, key: str) -> str:
    """Return the words with which a message names a cell."""
    return f"{path}: line {line}, column {key}"


def origins(path: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Return where each override of the rows stands first."""
    first: dict[str, str] = {}
    for row in rows:
        for key, text in row.cells.items():
            first.setdefault(f"{key}={text}", located(path, row.line, key))
    return first


def _header(path: Path, names: Sequence[str]) -> list[str]:
    keys = [name.strip() for name in names]
    if not any(keys):
        raise UserError(f"{path}: must begin with a line of keys, as in lr,dropout,model")
    for number, key in enumerate(keys, start=1):
        reasons = {
            "stands above two columns": key in keys[: number - 1],
            "applies to the whole sweep; give it on the command line": key in WHOLE,
            unknown(key, Config): key not in WHOLE and bool(unknown(key, Config)),
        }
        if reason := next((reason for reason, applies in reasons.items() if applies), None):
            raise UserError(f"{located(path, 1, key or f'number {number}')}: {reason}")
    return keys


def _cells(path: Path, line: int, keys: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    if len(texts) != len(keys):
        counts = f"has {len(texts)} cells, and the header {len(keys)}"
        raise UserError(f'{path}: line {line} {counts}; a value with commas is quoted, as in "[32,64]"')
    cells = {key: text.strip() for key, text in zip(keys, texts, strict=True)}
    return {key: text for key, text in cells.items() if text}


def _parsed(path: Path, row: Row) -> dict[str, object]:
    """Return the values of a row. Raise UserError for a cell that is no single value."""
    values = dict[str, object]()
    for key, text in row.cells.items():
        try:
            values[key] = _value(key, text)
        except UserError as error:
            raise UserError(f"{located(path, row.line, key)}: {error}") from None
    return values


@cache
def _value(key: str, text: str) -> object:
    if NUMBER.fullmatch(text) and key in rules(Config):
        return float(text)  # Hydra's parser takes a millisecond
    with explained():
        override = parse([f"{key}={text}"], Config)[key]
        if override.is_sweep_override():
            raise UserError(f"{key}={text}: a cell holds one value; give each value a row of its own")
        return override.value()
