"""Names the instruments of sound files, and when they sound: `python -m irmas.predict MODEL FILE...`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from irmas.console import MANY_WINDOWS, ConsoleProgress, plain_console, print_table
from irmas.data.excerpts import AUDIO
from irmas.data.sound import SHORTER_S, read_form
from irmas.errors import DataError, UserError
from irmas.exit import Parser, number, report_errors
from irmas.files import atomic_write, errors_name, obstacle, visible
from irmas.inference.timeline import SOUND_THRESHOLD, Span, Timeline, clock, instrument
from irmas.inference.windows import LONGEST_WINDOW_S, SHORTEST_HOP_S, SHORTEST_WINDOW_S

if TYPE_CHECKING:
    from irmas.inference.recognizer import Recognizer

STDOUT = Path("-")
PICTURE = ".png"
ROWS, SPANS = 3, 5
"""Instruments that are shown in any case; and the most times that are shown of one, the longest."""


def main() -> None:
    parser = Parser("irmas.predict", "Name the instruments of sound files, and when they sound.")
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="model.pt or .onnx, a run, or a sweep: its winner")
    add("files", type=Path, nargs="+", metavar="FILE", help="sound files, or folders of them")
    more = "average with this one too"
    add("--with", dest="others", type=Path, action="append", default=[], metavar="MODEL", help=more)
    window, hop = number(SHORTEST_WINDOW_S, LONGEST_WINDOW_S), number(SHORTEST_HOP_S, LONGEST_WINDOW_S)
    add("--window", type=window, metavar="S", help="length of a window in seconds (default: as in training)")
    add("--hop", type=hop, metavar="S", help="seconds from one window to the next (default: half a window)")
    add("--json", type=Path, metavar="PATH", help="one line of JSON per file; - for stdout, alone")
    add("--picture", type=Path, metavar="PATH", help="name.png, or a folder for one picture per file")
    with report_errors("irmas.predict"):
        predict(parser.parse_args())


def predict(args: Namespace) -> None:
    """Print or write the timeline of each file.

    Raises UserError before anything is read or written; SystemExit with 1 if some files could not be read.
    """
    sounds = _sound_files(args.files)
    _check_json(args, sounds)
    pictures = _picture_paths(args.picture, sounds)
    from irmas.inference import models  # here, so that a wrong call is refused at once: torch takes seconds to import

    recognizer = models.load([args.model, *args.others], args.window, args.hop)
    problems = []
    with _json_output(args.json) as output:
        for file in sounds:
            try:
                _predict_file(file, recognizer, args, output, pictures.get(file))
            except DataError as error:
                problems.append(str(error))
    if problems:
        listed = "".join(f"\n  {visible(problem)}" for problem in problems)
        sys.stderr.write(f"irmas.predict: {len(problems)} of {len(sounds)} files could not be used:{listed}\n")
        sys.exit(1)


def _sound_files(paths: Sequence[Path]) -> dict[Path, Path]:
    """Return all sound files, those of folders at any depth, and their paths within the folder that was given.

    Raises UserError if a folder has none.
    """
    sounds = {}
    for path in paths:
        if not path.is_dir():
            sounds[path] = Path(path.name)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO and file.is_file())
        if not inside:
            raise UserError(f"{path}: holds no sound files ({' '.join(sorted(AUDIO))})")
        sounds |= {file: file.relative_to(path) for file in inside}
    return sounds


def _check_json(args: Namespace, sounds: Collection[Path]) -> None:
    """Raise UserError if --json cannot be written or is a file that is to be read."""
    if args.json in (None, STDOUT):
        return
    if args.json.is_dir():
        raise UserError(f"--json {args.json}: is a folder")
    if args.json.resolve() in {path.resolve() for path in (args.model, *args.others, *sounds)}:
        raise UserError(f"--json {args.json}: would overwrite what is to be read")
    _refuse_unwritable("--json", args.json)


def _refuse_unwritable(option: str, path: Path) -> None:
    if reason := obstacle(path.absolute().parent):
        raise UserError(f"{option} {path}: {reason}")


def _picture_paths(option: Path | None, sounds: Mapping[Path, Path]) -> dict[Path, Path]:
    """Return the path of each sound file's picture; none without the option. Raises UserError if one is unusable."""
    if option is None:
        return {}
    is_file = option.suffix.lower() == PICTURE and not option.is_dir()
    if option.suffix and not is_file and not option.is_dir():
        raise UserError(f"--picture {option}: pictures are {PICTURE}; a folder's name has no ending")
    if is_file and len(sounds) > 1:
        raise UserError(f"--picture {option}: is one picture, and there are {len(sounds)} files: name a folder")
    pictures = {sound: option if is_file else option / name.with_suffix(PICTURE) for sound, name in sounds.items()}
    sources: dict[Path, Path] = {}
    for sound, picture in pictures.items():
        if picture in sources:
            raise UserError(f"--picture {option}: {sources[picture]} and {sound} would both be {picture}")
        sources[picture] = sound
        _refuse_unwritable("--picture", picture)
    return pictures


def _json_output(path: Path | None) -> AbstractContextManager[IO[str] | None]:
    if path in (None, STDOUT):
        return nullcontext(None if path is None else sys.stdout)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")


def _predict_file(
    file: Path, recognizer: Recognizer, args: Namespace, output: IO[str] | None, picture: Path | None
) -> None:
    """Write a file's picture and its line of JSON, and print its table. Raises DataError before if it is unusable."""
    timeline = _timeline(file, recognizer, args.window)
    if picture:
        from irmas.inference import timeline_plot  # here, because it imports matplotlib

        png = timeline_plot.draw(file, timeline, recognizer.front_ends[0])
        picture.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(picture, png)
    if output:
        with errors_name(args.json):
            output.write(_as_json(file, timeline) + "\n")
            output.flush()  # the line stays, whatever becomes of the files after it
    if args.json != STDOUT:
        _print(plain_console(), file, timeline, recognizer)


def _timeline(file: Path, recognizer: Recognizer, window_s: float | None) -> Timeline:
    seconds = read_form(file).seconds
    if window_s is not None and window_s > seconds + SHORTER_S:
        raise DataError(f"{file}: is {seconds:.2f} s long, shorter than --window {window_s:g}")
    with closing(ConsoleProgress(plain_console(stderr=True), lines_from=MANY_WINDOWS)) as progress:
        return recognizer.timeline(file, progress)


def _as_json(file: Path, timeline: Timeline) -> str:
    """Return a line of JSON. A silent window has null in place of probabilities; so has a file that is all silent."""
    rows = zip(timeline.starts, timeline.ends, timeline.probabilities, timeline.is_silent, strict=True)
    windows = [
        {"start": float(start), "end": float(end), "probabilities": None if is_silent else _rounded(probabilities)}
        for start, end, probabilities, is_silent in rows
    ]
    overall = None if timeline.overall is None else _rounded(timeline.overall)
    head = {"path": str(file), "seconds": timeline.seconds, "classes": timeline.classes}
    return json.dumps(head | {"windows": windows, "overall": overall})


def _rounded(probabilities: Iterable[np.floating]) -> list[float]:
    return [round(float(probability), 6) for probability in probabilities]


def _print(console: Console, file: Path, timeline: Timeline, recognizer: Recognizer) -> None:
    overall = timeline.overall
    console.print(_heading(file, timeline, recognizer))
    if overall is None:
        console.print("  silent throughout: no instrument is named\n")
        return
    sounding = timeline.sounding()
    table = Table(box=None, pad_edge=True, padding=(0, 1), header_style="bold")
    for heading in ("score", "class", "instrument", "for", f"when the score is {SOUND_THRESHOLD:g} or more"):
        table.add_column(heading, justify="right" if heading in ("score", "for") else "left")
    for rank, index in enumerate(np.argsort(-overall, kind="stable")):
        label, spans = timeline.classes[index], sounding[index]
        if spans or rank < ROWS:
            table.add_row(f"{overall[index]:.2f}", label, instrument(label), *_span_cells(spans))
    if silence := timeline.silence():
        table.add_row("-", "", "silence", *_span_cells(silence))
    print_table(console, table)
    console.print()


def _heading(file: Path, timeline: Timeline, recognizer: Recognizer) -> str:
    length, number, window_s = clock(timeline.seconds), len(timeline.starts), recognizer.window_s
    if timeline.seconds < window_s - SHORTER_S:
        return f"{visible(file)}: {length}, shorter than a window of {window_s:g} s: padded with silence"
    windows = f"{number} windows of {window_s:g} s, one every {recognizer.hop_s:g} s" if number > 1 else "1 window"
    return f"{visible(file)}: {length}, {windows}"


def _span_cells(spans: Sequence[Span]) -> tuple[str, str]:
    """Return how long the spans are together, and when the longest of them are."""
    total = clock(sum(end - begin for begin, end in spans)) if spans else ""
    longest = sorted(sorted(spans, key=lambda span: span[0] - span[1])[:SPANS])
    times = ", ".join(f"{clock(begin)}-{clock(end)}" for begin, end in longest)
    return total, f"{times} and {len(spans) - SPANS} more" if len(spans) > SPANS else times


if __name__ == "__main__":
    main()
