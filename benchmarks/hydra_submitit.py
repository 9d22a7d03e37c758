"""The peer of submitting.py, in its own interpreter: Hydra's own sweep of conf/train.yaml, to sbatch's return.

Prints the seconds from the sweeper's start, and ends: the launcher would wait for the jobs.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import hydra
import submitit
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig
from rounds import ROOT

from irmas.config import Config

ConfigStore.instance().store(name="schema", node=Config)
Plugins.instance()  # imports all plugins again: what is patched before is not what runs
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402

sweep, map_array = BasicSweeper.sweep, submitit.AutoExecutor.map_array


def timed_sweep(self: BasicSweeper, arguments: list[str]) -> Any:
    began = time.perf_counter()

    def timed_map_array(executor: submitit.AutoExecutor, *jobs: Any) -> None:
        map_array(executor, *jobs)
        sys.stdout.write(f"{time.perf_counter() - began}\n")
        sys.stdout.flush()
        os._exit(0)

    submitit.AutoExecutor.map_array = timed_map_array  # type: ignore[method-assign, assignment]
    return sweep(self, arguments)


@hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="train")
def main(config: DictConfig) -> None:
    raise AssertionError("its jobs are on hold")


if __name__ == "__main__":
    BasicSweeper.sweep = timed_sweep  # type: ignore[method-assign]
    main()
