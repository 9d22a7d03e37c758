"""Names the instruments of sound files, and when they sound: `python -m irmas.predict MODEL FILE...`."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from rich.console import Console

from irmas.console import MANY_WINDOWS, ConsoleProgress, plain_console, plain_table, print_table
from irmas.data.excerpts import AUDIO
from irmas.data.sound import SHORTER_S, read_form
from irmas.errors import DataError, Parser, UserError, report_errors
from irmas.files import PICTURES, atomic_write, errors_name, obstacle, visible
from irmas.inference.timeline import HOPS_S, SOUND_THRESHOLD, WINDOWS_S, Span, Timeline, clock
from irmas.labels import INSTRUMENTS

if TYPE_CHECKING:
    from irmas.inference.recognizer import Recognizer

STDOUT = Path("-")
ROWS, SPANS = 3, 5
"""Instruments that are shown in any case; and the most times that are shown of one, the longest."""


def model_parser(command: str, description: str) -> Parser:
    """Return the parser of a command that applies nets, with the arguments MODEL, --with, --window and --hop."""
    parser = Parser(command, description)
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a sweep (its winner), a run, a model.pt or an .onnx")
    more = "average with this model too; may be repeated"
    add("--with", dest="others", type=Path, action="append", default=[], metavar="MODEL", help=more)
    add("--window", type=number(*WINDOWS_S), metavar="S", help="seconds in a window (default: as in training)")
    add("--hop", type=number(*HOPS_S), metavar="S", help="seconds from one window to the next (default: half a window)")
    return parser


def number(low: float, high: float) -> Callable[[str], float]:
    """Return the type of an option's value, a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ArgumentTypeError(f"{text}: must be a number from {low:g} to {high:g}")
        return value

    return parse


def main() -> None:
    parser = model_parser("irmas.predict", "Name the instruments of sound files, and when they sound.")
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="sound files, or folders of them")
    add("--json", type=Path, metavar="PATH", help="one line of JSON per file; - for stdout, alone")
    add("--picture", type=Path, metavar="PATH", help="name.png, .pdf or .svg, or a folder for one PNG per file")
    with report_errors("irmas.predict"):
        predict(parser.parse_args())


def predict(args: Namespace) -> None:
    """Print or write the timeline of each file.

    Raises UserError before anything is read or written; SystemExit with 1 if some files could not be read.
    """
    sounds = _sound_files(args.files)
    is_file = args.json not in (None, STDOUT)
    if is_file:
        _check_json(args, sounds)
    pictures = _picture_paths(args.picture, sounds) if args.picture else {}
    from irmas.inference.recognizer import (
        Recognizer,  # here, so that a wrong call is refused at once: torch takes seconds to import
    )

    recognizer = Recognizer.load([args.model, *args.others], args.window, args.hop)
    problems = []
    if is_file:
        args.json.parent.mkdir(parents=True, exist_ok=True)
    with args.json.open("w") if is_file else nullcontext(sys.stdout) as output:
        for file in sounds:
            try:
                _predict_file(file, recognizer, args, output, pictures.get(file))
            except DataError as error:
                problems.append(f"\n  {visible(str(error))}")
    if problems:
        listed = "".join(problems)
        sys.stderr.write(f"irmas.predict: {len(problems)} of {len(sounds)} files could not be used:{listed}\n")
        sys.exit(1)


def _sound_files(paths: Sequence[Path]) -> dict[Path, Path]:
    """Return all sound files, those of folders at any depth, and their paths within the folder that the user named.

    Raises UserError if a folder has none.
    """
    sounds = {}
    for path in paths:
        if not path.is_dir():
            sounds[path] = Path(path.name)
            continue
        inside = sorted(file for file in path.rglob("[!.]*") if file.suffix.lower() in AUDIO and file.is_file())
        if not inside:
            raise UserError(f"{path}: holds no sound files")
        sounds |= {file: file.relative_to(path) for file in inside}
    return sounds


def _check_json(args: Namespace, sounds: Collection[Path]) -> None:
    """Raise UserError if --json cannot be written or is a file that is to be read."""
    if args.json.is_dir():
        raise UserError(f"--json {args.json}: is a folder")
    if args.json.resolve() in {path.resolve() for path in (args.model, *args.others, *sounds)}:
        raise UserError(f"--json {args.json}: would overwrite what is to be read")
    _refuse_unwritable("--json", args.json)


def _refuse_unwritable(option: str, path: Path) -> None:
    if reason := obstacle(path.absolute().parent):
        raise UserError(f"{option} {path}: {reason}")


def _picture_paths(option: Path, sounds: Mapping[Path, Path]) -> dict[Path, Path]:
    """Return the path of each sound file's picture. Raises UserError if one is unusable."""
    is_file = option.suffix.lower() in PICTURES and not option.is_dir()
    if option.suffix and not is_file and not option.is_dir():
        raise UserError(f"--picture {option}: pictures are {', '.join(PICTURES)}; a folder's name has no ending")
    if is_file and len(sounds) > 1:
        raise UserError(f"--picture {option}: is one picture, and there are {len(sounds)} files: name a folder")
    pictures = {sound: option if is_file else option / name.with_suffix(PICTURES[0]) for sound, name in sounds.items()}
    sources: dict[Path, Path] = {}
    for sound, picture in pictures.items():
        if sources.setdefault(picture, sound) != sound:
            raise UserError(f"--picture {option}: {sources[picture]} and {sound} would both be {picture}")
        _refuse_unwritable("--picture", picture)
    return pictures


def _predict_file(file: Path, recognizer: Recognizer, args: Namespace, output: IO[str], picture: Path | None) -> None:
    """Write a file's picture and its line of JSON, and print its table. Raises DataError before if it is unusable."""
    seconds = read_form(file).seconds
    if args.window is not None and args.window > seconds + SHORTER_S:
        raise DataError(f"{file}: is {seconds:.2f} s long, shorter than --window {args.window:g}")
    with closing(ConsoleProgress(plain_console(stderr=True), lines_from=MANY_WINDOWS)) as progress:
        timeline = recognizer.timeline(file, progress)
    if picture:
        from irmas.inference import timeline_plot  # here, because it imports matplotlib

        content = timeline_plot.draw(file, timeline, recognizer.front_ends[0], picture.suffix[1:].lower())
        picture.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(picture, content)
    if args.json:
        with errors_name(args.json):
            output.write(_as_json(file, timeline) + "\n")
            output.flush()  # the line stays, whatever becomes of the files after it
    if args.json != STDOUT:
        _print(plain_console(), file, timeline, recognizer)


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
    length, count, window_s = clock(timeline.seconds), len(timeline.starts), recognizer.window_s
    if timeline.seconds < window_s - SHORTER_S:
        form = f"shorter than a window of {window_s:g} s: padded with silence"
    else:
        form = f"{count} windows of {window_s:g} s, one every {recognizer.hop_s:g} s" if count > 1 else "1 window"
    console.print(f"{visible(file)}: {length}, {form}")
    if timeline.overall is None:
        console.print("  silent throughout: no instrument is named\n")
        return
    sounding, rows = timeline.sounding(), []
    for rank, index in enumerate(np.argsort(-timeline.overall, kind="stable")):
        label, spans = timeline.classes[index], sounding[index]
        if spans or rank < ROWS:
            rows.append([f"{timeline.overall[index]:.2f}", label, INSTRUMENTS.get(label, label), *_span_cells(spans)])
    if silence := timeline.silence():
        rows.append(["-", "", "silence", *_span_cells(silence)])
    headings = ["score", "class", "instrument", "for", f"when the score is {SOUND_THRESHOLD:g} or more"]
    print_table(console, plain_table(headings, rows, left={*headings} - {"score", "for"}))
    console.print()


def _span_cells(spans: Sequence[Span]) -> tuple[str, str]:
    """Return how long the spans are together, and when the longest of them are."""
    total = clock(sum(end - begin for begin, end in spans)) if spans else ""
    longest = sorted(sorted(spans, key=lambda span: span[0] - span[1])[:SPANS])
    times = ", ".join(f"{clock(begin)}-{clock(end)}" for begin, end in longest)
    return total, f"{times} and {len(spans) - SPANS} more" if len(spans) > SPANS else times


if __name__ == "__main__":
    main()
