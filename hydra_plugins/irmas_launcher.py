"""What Hydra can find nowhere else: our sweeper and our launchers. They only hand on to `irmas.sweep`.

Hydra imports this module at each start of any Hydra program, so its imports stay light.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """Every combination of the swept values, in one batch.

    Hydra's BasicSweeper composes each combination to check it (9 a second) and writes multirun.yaml first;
    here the launcher checks each swept value once, before anything is written.
    """

    def __init__(self, params: dict[str, str]) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        axes: dict[str, list[str]] = {}
        for override in parser.parse_overrides([f"{key}={value}" for key, value in self.params.items()] + arguments):
            key = override.get_key_element()
            values = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_element_as_str()]
            axes[key] = [f"{key}={value}" for value in values]
        if "seed" in axes:  # varies slowest, so that more seeds append runs and renumber none
            axes = {"seed": axes["seed"], **axes}
        return [self.launcher.launch([list(point) for point in itertools.product(*axes.values())], initial_job_idx=0)]


class LocalLauncher(Launcher):
    """This machine as a cluster."""

    def __init__(self, processes: int | None) -> None:
        self.processes = processes
        self.name: str | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from irmas.compose import Composer
        from irmas.sweep import local
        from irmas.sweep.submit import freeze

        composer = Composer(self.loader, self.config)
        plan = freeze(composer.base, composer.points(job_overrides), self.name)
        # A sweeper that proposes points in batches keeps to the name of its first.
        self.name = plan.name
        accuracies = local.launch(plan, self.processes, append=initial_job_idx > 0)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=accuracy)
            for overrides, accuracy in zip(job_overrides, accuracies, strict=True)
        ]
