"""All commands under one name: `irmas status outputs/<name>` is `python -m irmas.status outputs/<name>`."""

from __future__ import annotations

import sys
from importlib import import_module

from irmas.errors import Parser, report_errors

COMMANDS = {
    "train": "train one run or a sweep of runs",
    "prepare": "download, verify and cache a data set",
    "status": "the runs of a sweep, or all sweeps in outputs/",
    "rank": "rank a sweep, and write its report",
    "refine": "train fresh seeds of a sweep's best points",
    "compare": "settings and best points of several sweeps",
    "evaluate": "score a net by IRMAS's test protocol",
    "predict": "which instruments sound in a file, and when",
    "export": "write a net for programs without torch",
    "clean": "free the checkpoints of a finished sweep",
}


def main() -> None:
    listed = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
    parser = Parser("irmas", "Tune a net that recognizes instruments.", f"commands:\n{listed}")
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="with its own --help")
    with report_errors("irmas"):
        command = parser.parse_args(sys.argv[1:2]).command
    sys.argv = [f"irmas.{command}", *sys.argv[2:]]
    # Only now, since torch and scipy take seconds to import.
    import_module(f"irmas.{command}").main()


if __name__ == "__main__":
    main()
