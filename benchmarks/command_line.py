"""Time that commands take until they have answered, beside Python's own start.

    python benchmarks/command_line.py [--rounds 7]

The goals are seconds, on a machine that does nothing else; the ratios hold on any.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from made import finished
from rounds import Row, in_turn, parser, ratios, run, show

COMMANDS = {
    "rank --table, 18 runs": (1.5, ["rank", "outputs/made", "--table"], 0),
    "status, 18 runs": (0.7, ["status", "outputs/made"], 0),
    "train --help": (1.5, ["train", "--help"], 0),
    "train with a refused key": (1.5, ["train", "dropuot=0.3"], 2),
}
"""Goal in seconds, arguments, and exit code."""


def main() -> None:
    given = parser(__doc__, rounds=7).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finished(folder, 18)
        # Without Slurm's commands, whose answer is not ours to hasten.
        path = f"{Path(sys.executable).parent}:/nowhere"

        def side(arguments: list[str], code: int) -> Callable[[], float]:
            command = [sys.executable, "-m", f"irmas.{arguments[0]}", *arguments[1:]]
            return lambda: run(command, folder, code=code, PATH=path)

        python = {"python -c pass": lambda: run([sys.executable, "-c", "pass"], folder, PATH=os.defpath)}
        sides = python | {what: side(arguments, code) for what, (_, arguments, code) in COMMANDS.items()}
        in_turn(sides, 1)  # byte code and page cache
        taken = in_turn(sides, given.rounds)
    rows = []
    for what, (goal, _, _) in COMMANDS.items():
        rows.append(Row(what, "s", taken[what], f"<= {goal}"))
        rows.append(Row(what, "ours / python -c pass", ratios(taken[what], taken["python -c pass"])))
    show(rows, given.record)


if __name__ == "__main__":
    main()
