"""Trains one run or a sweep of runs: `python -m irmas.train --help`."""

from __future__ import annotations

from omegaconf import DictConfig

from irmas.cli import overrides
from irmas.config import Config


def _task(config: DictConfig) -> None:
    """Stand in for the task that Hydra wants: launchers start runs in processes of their own."""
    raise AssertionError("hydra.mode is MULTIRUN, so that every run goes through a launcher")


def main() -> None:
    overrides.run("train", Config, _task)


if __name__ == "__main__":
    main()
