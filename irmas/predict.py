"""Names the instruments of sound files, and when they sound: `python -m irmas.predict MODEL FILE...`."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from irmas.console import MANY_WINDOWS, ConsoleProgress, plain_console, print_table
from irmas.data.excerpts import AUDIO
from irmas.data.sound import SHORTER_S, read_form
from irmas.errors import DataError, UserError
from irmas.exit import Parser, report_errors
from irmas.files import atomic_write, errors_name, obstacle, visible
from irmas.inference.timeline import SOUNDS, Span, Timeline, clock, instrument
from irmas.inference.windows import LONGEST_WINDOW_S, SHORTEST_HOP_S, SHORTEST_WINDOW_S

if TYPE_CHECKING:
    from irmas.data.features import LogMel
    from irmas.inference.recognizer import Recognizer

STDOUT = Path("-")
PICTURE = ".png"
ROWS, SPANS = 3, 5
"""So many instruments are shown in any case; of one that comes and goes so many of the longest times."""


def main() -> None:
    parser = Parser("irmas.predict", "Name the instruments of sound files, and when they sound.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="model.pt or .onnx, a run, or a sweep: its winner")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound files, or folders of them")
    parser.add_argument(
        "--with", type=Path, action="append", default=[], dest="more", metavar="MODEL", help="average with this one too"
    )
    parser.add_argument("--window", type=float, metavar="S", help="seconds heard at once (default: as in training)")
    parser.add_argument("--hop", type=float, metavar="S", help="from one window to the next (default: half a window)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="a line of JSON for each file; - for stdout, alone")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="name.png, or a folder for a picture of each file")
    with report_errors("irmas.predict"):
        predict(parser.parse_args())


def predict(asked: Namespace) -> None:
    """Raises UserError before anything is heard or written; SystemExit with 1 where a file could not be answered."""
    sounds = _sounds(asked.files)
    _check(asked, sounds)
    pictures = _pictures(asked.picture, sounds)
    # Here, so that a wrong call is told at once: torch takes seconds to import.
    from irmas.data.features import LogMel
    from irmas.inference import models

    recognizer = models.load([asked.model, *asked.more], asked.window)
    hop_s = asked.hop or recognizer.window_s / 2
    if hop_s > recognizer.window_s:
        raise UserError(f"--hop {hop_s:g}: must be at most a window, {recognizer.window_s:g} s, or sound would be lost")
    front_end, problems = LogMel(recognizer.nets[0].features), []
    with _lines(asked.json) as lines:
        for file in sounds:
            try:
                timeline = _listen(file, recognizer, hop_s, asked.window)
                picture = _draw(file, timeline, front_end) if pictures else None
            except DataError as error:
                problems.append(str(error))
                continue
            if picture:
                pictures[file].parent.mkdir(parents=True, exist_ok=True)
                atomic_write(pictures[file], picture)
            if lines:
                with errors_name(asked.json):
                    lines.write(_as_json(file, timeline) + "\n")
                    lines.flush()
            if asked.json != STDOUT:
                _print(plain_console(), file, timeline, recognizer.window_s, hop_s)
    if problems:
        listed = "".join(f"\n  {visible(problem)}" for problem in problems)
        sys.stderr.write(f"irmas.predict: {len(problems)} of {len(sounds)} files could not be heard:{listed}\n")
        sys.exit(1)


def _check(asked: Namespace, sounds: Collection[Path]) -> None:
    """What can be told without the model."""
    low, high = SHORTEST_WINDOW_S, LONGEST_WINDOW_S
    if asked.window is not None and not low <= asked.window <= high:
        raise UserError(f"--window {asked.window:g}: must be from {low:g} to {high:g} seconds")
    if asked.hop is not None and not SHORTEST_HOP_S <= asked.hop < math.inf:
        raise UserError(f"--hop {asked.hop:g}: must be from {SHORTEST_HOP_S:g} seconds to the length of a window")
    if asked.json not in (None, STDOUT):
        if asked.json.is_dir():
            raise UserError(f"--json {asked.json}: is a folder")
        if asked.json.resolve() in {path.resolve() for path in (asked.model, *asked.more, *sounds)}:
            raise UserError(f"--json {asked.json}: would overwrite what is to be read")
        _refuse_unwritable("--json", asked.json)


def _refuse_unwritable(option: str, path: Path) -> None:
    if reason := obstacle(path.absolute().parent):
        raise UserError(f"{option} {path}: {reason}")


def _sounds(named: Sequence[Path]) -> dict[Path, Path]:
    """Sounds, those of folders at any depth, and how each is called there. Raises UserError where a folder has none."""
    sounds = {}
    for path in named:
        if not path.is_dir():
            sounds[path] = Path(path.name)
            continue
        inside = sorted(found for found in path.rglob("*") if found.suffix.lower() in AUDIO and found.is_file())
        if not inside:
            raise UserError(f"{path}: holds no sound files ({' '.join(sorted(AUDIO))})")
        sounds |= {found: found.relative_to(path) for found in inside}
    return sounds


def _pictures(asked: Path | None, sounds: Mapping[Path, Path]) -> dict[Path, Path]:
    """Sound -> its picture; empty where none is asked for. Raises UserError where one could not be written."""
    if asked is None:
        return {}
    is_file = asked.suffix.lower() == PICTURE and not asked.is_dir()
    if asked.suffix and not is_file and not asked.is_dir():
        raise UserError(f"--picture {asked}: pictures are {PICTURE}; a folder's name has no ending")
    if is_file and len(sounds) > 1:
        raise UserError(f"--picture {asked}: is one picture, and there are {len(sounds)} files: name a folder")
    of: dict[Path, Path] = {}
    for sound, name in sounds.items():
        picture = asked if is_file else asked / name.with_suffix(PICTURE)
        if picture in of:
            raise UserError(f"--picture {asked}: {of[picture]} and {sound} would both be {picture}")
        of[picture] = sound
        _refuse_unwritable("--picture", picture)
    return {sound: picture for picture, sound in of.items()}


@contextmanager
def _lines(path: Path | None) -> Iterator[IO[str] | None]:
    """A line is there as soon as its file is heard, whatever becomes of the files after it."""
    if path in (None, STDOUT):
        yield None if path is None else sys.stdout
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        yield file


def _listen(file: Path, recognizer: Recognizer, hop_s: float, asked_window_s: float | None) -> Timeline:
    from irmas.inference import streaming

    seconds = read_form(file).seconds
    if asked_window_s is not None and asked_window_s > seconds + SHORTER_S:
        raise DataError(f"{file}: is {seconds:.2f} s long, shorter than --window {asked_window_s:g}")
    expected = streaming.count(seconds, recognizer.window_s, hop_s)
    with closing(ConsoleProgress(plain_console(stderr=True), lines_from=MANY_WINDOWS)) as progress:
        progress.start(file.name, expected, "windows")
        return streaming.listen(file, recognizer, hop_s, progress.advance)


def _as_json(file: Path, timeline: Timeline) -> str:
    """Silent windows have null in place of probabilities, and so has the whole of a file that is silent throughout."""
    rows = zip(timeline.starts, timeline.ends, timeline.probabilities, timeline.is_silent, strict=True)
    windows = [
        {"start": float(start), "end": float(end), "probabilities": None if is_silent else _rounded(probabilities)}
        for start, end, probabilities, is_silent in rows
    ]
    overall = None if timeline.overall is None else _rounded(timeline.overall)
    about = {"path": str(file), "seconds": timeline.seconds, "classes": timeline.classes}
    return json.dumps(about | {"windows": windows, "overall": overall})


def _rounded(probabilities: NDArray[Any]) -> list[float]:
    return [round(float(probability), 6) for probability in probabilities]


def _print(console: Console, file: Path, timeline: Timeline, window_s: float, hop_s: float) -> None:
    overall = timeline.overall
    console.print(_heading(file, timeline, window_s, hop_s))
    if overall is None:
        console.print("  silent throughout: no instrument is named\n")
        return
    sounding = timeline.sounding()
    table = Table(box=None, pad_edge=True, padding=(0, 1), header_style="bold")
    for head in ("score", "class", "instrument", "for", f"when the score is {SOUNDS:g} or more"):
        table.add_column(head, justify="right" if head in ("score", "for") else "left")
    for rank, index in enumerate(np.argsort(-overall, kind="stable")):
        label, spans = timeline.classes[index], sounding[index]
        if spans or rank < ROWS:
            table.add_row(f"{overall[index]:.2f}", label, instrument(label), _total(spans), _when(spans))
    if silence := timeline.silence():
        table.add_row("-", "", "silence", _total(silence), _when(silence))
    print_table(console, table)
    console.print()


def _heading(file: Path, timeline: Timeline, window_s: float, hop_s: float) -> str:
    told, windows = f"{visible(file)}: {clock(timeline.seconds)}", len(timeline.starts)
    if timeline.seconds < window_s - SHORTER_S:
        return f"{told}, shorter than a window of {window_s:g} s: padded with silence"
    return f"{told}, {windows} windows of {window_s:g} s, one every {hop_s:g} s" if windows > 1 else f"{told}, 1 window"


def _total(spans: Sequence[Span]) -> str:
    return clock(sum(end - begin for begin, end in spans)) if spans else ""


def _when(spans: Sequence[Span]) -> str:
    longest = sorted(sorted(spans, key=lambda span: span[0] - span[1])[:SPANS])
    shorter = f" and {len(spans) - SPANS} more" if len(spans) > SPANS else ""
    return ", ".join(f"{clock(begin)}-{clock(end)}" for begin, end in longest) + shorter


def _draw(file: Path, timeline: Timeline, front_end: LogMel) -> bytes:
    from irmas.inference.timeline_plot import draw  # here, since it imports matplotlib

    return draw(file, timeline, front_end)


if __name__ == "__main__":
    main()
