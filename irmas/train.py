"""Trains one run or a sweep of runs: `python -m irmas.train --help`."""

from __future__ import annotations

from irmas.cli import overrides
from irmas.config import Config


def main() -> None:
    overrides.run("train", Config)


if __name__ == "__main__":
    main()
