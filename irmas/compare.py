"""Compare the best points of several sweeps: `python -m irmas.compare outputs/a outputs/b`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from irmas.config import shown
from irmas.console import counted, plain_console, plain_table, print_json, print_table
from irmas.errors import Parser, UserError, report_errors
from irmas.files import PICTURES, atomic_write, obstacle
from irmas.sweep.slurm import ranges
from irmas.sweep.sweep import Sweep

if TYPE_CHECKING:  # scipy and matplotlib take a second to import, and a wrong call is refused before
    from irmas.results.comparison import Estimate
    from irmas.results.side_by_side import Difference, Side


def main() -> None:
    parser = Parser("irmas.compare", "Compare the settings and the best points of several sweeps.")
    add, default = parser.add_argument, "compare-<names>.png beside the first sweep"
    add("sweeps", type=Path, nargs="+", metavar="outputs/<name>", help="two or more; the first is the baseline")
    add("--picture", type=Path, metavar="name.png", help=f"or .pdf or .svg; default: {default}")
    add("--json", action="store_true", help="as JSON (docs/json.md)")
    with report_errors("irmas.compare"):
        args = parser.parse_args()
        if not 2 <= len(args.sweeps) == len({path.resolve() for path in args.sweeps}):
            raise UserError("compares two sweeps or more, each given once: python -m irmas.compare outputs/a outputs/b")
        picture = args.picture or default_picture(args.sweeps)
        if picture.suffix not in PICTURES:
            raise UserError(f"--picture {picture}: must end with {' or '.join(PICTURES)}")
        if reason := obstacle(picture.parent):
            raise UserError(f"--picture {picture}: {reason}")
        compare([Sweep.open(path) for path in args.sweeps], picture, as_json=args.json)


def default_picture(sweeps: Sequence[Path]) -> Path:
    names = "-".join(path.resolve().name for path in sweeps)
    return sweeps[0].parent / f"compare-{names[:200]}.png"


def compare(sweeps: Sequence[Sweep], picture: Path, *, as_json: bool = False) -> None:
    """Print what differs and how far the best points are apart, and draw it. Raises OSError."""
    from irmas.results import side_by_side

    sides = [side_by_side.Side.read(sweep) for sweep in sweeps]
    found = [side_by_side.compared(sides[0], other) for other in sides[1:]]
    picture.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(picture, side_by_side.draw(sides, found, picture.suffix[1:]))
    if as_json:
        print_json(side_by_side.as_json(sides, found) | {"picture": str(picture)})
    else:
        _print(sides, found)
        plain_console().print(f"\npicture: {picture}")


def _print(sides: Sequence[Side], found: Sequence[Difference | str]) -> None:
    from irmas.results.side_by_side import settings

    console = plain_console()
    rows = [[key, *values] for key, values in settings(sides).items()]
    heads = ["setting", *(side.name for side in sides)]
    if rows:
        print_table(console, plain_table(heads, rows, left=heads))
    else:
        console.print("the settings are the same")
    console.print()
    print_table(console, best_points(sides))
    for other, difference in zip(sides[1:], found, strict=True):
        console.print()
        for line in sentences(sides[0], other, difference):
            console.print(line)
    for text in dict.fromkeys(note for side in sides for note in side.notes):
        console.print(text, style="yellow")


def best_points(sides: Sequence[Side]) -> Table:
    """Return one row per sweep, with its best point."""
    heads = ["sweep", "best point", "runs", "val_accuracy", "95 % interval", "expected", "points", "best set"]
    rows = []
    for side in sides:
        best, analysis = side.best, side.analysis
        if best is None or analysis is None:
            rows.append([side.name, *["-"] * (len(heads) - 1)])
            continue
        interval = f"{100 * best.estimate.low:.1f} - {best.estimate.high:.1%}" if best.estimate else "-"
        expected = f"{analysis.leader.value:.2%}" if analysis.leader else "-"
        values = " ".join(f"{key}={shown(value)}" for key, value in best.values.items()) or "-"
        row = [side.name, values, ranges(best.runs), f"{best.accuracy:.2%}", interval, expected]
        rows.append([*row, str(len(analysis.points)), str(len(analysis.best_set)) if analysis.noise else "-"])
    return plain_table(heads, rows, left=("sweep", "best point", "runs"))


def sentences(first: Side, other: Side, found: Difference | str) -> list[str]:
    """Return what the difference of two best points says; `found` is why there is none, or the difference."""
    pair = f"{other.name} - {first.name}"
    if isinstance(found, str):
        return [f"{pair}: not compared: {found}"]
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    paired = f"paired on {counted(found.excerpts, 'excerpt')} of {counted(found.recordings, 'recording')}"
    lines = [f"{pair}: {_points(found.observed)}, {p}, {paired}"]
    if found.expected is None:
        reason = "the interval covers other recordings alone, and decides nothing"
        return [*lines, f"the training noise is unknown: {reason}"]
    better = other.name if found.expected.value > 0 else first.name
    verdict = f"{better} is better" if found.is_shown else "no difference is shown"
    chosen = " and of ".join(str(len(side.analysis.points)) for side in (other, first) if side.analysis)
    lines += [f"expected, without the luck of having been the best of {chosen}: {_points(found.expected)}: {verdict}"]
    return lines


def _points(difference: Estimate) -> str:
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.value:+.2f} points (95 %: {low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    main()
