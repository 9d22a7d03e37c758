"""What Hydra can find nowhere else: our sweeper and our launchers. They only hand on to `irmas.sweep`.

Hydra imports this module at each start of any Hydra program, so its imports stay light.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from irmas.errors import ConfigError, RunFailedError, UserError

if TYPE_CHECKING:
    from irmas.run.folder import Status
    from irmas.sweep.plan import Plan
    from irmas.sweep.sweep import Sweep


class GridSweeper(Sweeper):
    """Every combination of the swept values, in one batch.

    Hydra's BasicSweeper composes each combination to check it (9 a second) and writes multirun.yaml first;
    here the launcher checks each swept value once, before anything is written.
    """

    def __init__(self, params: dict[str, str]) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.grid_launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        parser = OverridesParser.create(config_loader=self.loader)
        if not isinstance(self.params, Mapping):
            raise ConfigError("hydra.sweeper.params", self.params, "must be settings and their values")
        shipped = [f"{key}={values}" for key, values in self.params.items()]
        axes = {o.get_key_element(): _values(o) for o in parser.parse_overrides(shipped + arguments)}
        # The seed varies slowest, so that more seeds append runs and renumber none.
        slowest_first = sorted(axes, key=lambda key: key != "seed")
        values = product(*(axes[key] for key in slowest_first))
        by_key = (dict(zip(slowest_first, point, strict=True)) for point in values)
        points = [[f"{key}={point[key]}" for key in axes] for point in by_key]
        returns = self.grid_launcher.launch(points, initial_job_idx=0)
        if any(job.status is JobStatus.FAILED for job in returns):
            raise SystemExit(1)
        return [returns]


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: a grid needs values, as in {override.get_key_element()}=0.1,0.2")
    if not (values := list(override.sweep_string_iterator())):
        raise UserError(f"{override.input_line}: holds no value to sweep")
    return values


class IrmasLauncher(Launcher):
    """Freezes the points that a sweeper proposes into a plan, and trains it."""

    name: str | None = None
    words: Sequence[str] = ()
    """Overrides that it was made from."""
    refine: Sequence[str] = ()
    """Arguments of `irmas.refine`, where a ranking job is to submit the next round."""
    has_jobs = False
    """Jobs train and rank, and do what follows."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.config = config
        self.words = list(config.hydra.overrides.hydra)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        self.check()
        statuses = self.train(self._freeze(job_overrides), append=initial_job_idx > 0)
        if statuses is None:
            return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]
        # Runs that irmas.refine has added stand behind those of the command.
        of_runs = [*job_overrides, *[()] * (len(statuses) - len(job_overrides))]
        return [_returned(overrides, status) for overrides, status in zip(of_runs, statuses, strict=True)]

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for the first of its settings that breaks its rule."""

    @abstractmethod
    def train(self, plan: Plan, *, append: bool) -> list[Status] | None:
        """Train what is unfinished of `plan` and rank its sweep; `append` is that of `Sweep.write`.

        Returns how each run of `plan` then stands; None where jobs do the work, and nobody waits for them.
        """

    @property
    def kept_words(self) -> list[str]:
        """Overrides that a later submission of the same sweep takes too."""
        own = ("hydra.launcher.submit=", "hydra.launcher.wait=")
        return [word for word in self.words if word.startswith("hydra.launcher.") and not word.startswith(own)]

    def _freeze(self, job_overrides: Sequence[Sequence[str]]) -> Plan:
        # Hydra imports this module at each start: what only a launch needs is imported when it is needed.
        from irmas.cli import overrides
        from irmas.cli.compose import Composer
        from irmas.sweep import data_job
        from irmas.sweep.plan import freeze
        from irmas.sweep.sweep import Sweep

        composer = Composer(self.loader, self.config)
        plan = freeze(composer.base, composer.runs(job_overrides), self.name, overrides.typed)
        # A sweeper that proposes points in batches keeps to the name of its first.
        self.name = plan.name
        data_job.check(Sweep.of(plan))
        return plan


class LocalLauncher(IrmasLauncher):
    """This machine as a cluster."""

    def __init__(self, processes: int | None) -> None:
        self.processes = processes

    def check(self) -> None:
        if not (self.processes is None or (isinstance(self.processes, int) and self.processes >= 1)):
            raise ConfigError("hydra.launcher.processes", self.processes, "must be a whole number from 1, or null")

    def train(self, plan: Plan, *, append: bool) -> list[Status]:
        from irmas import rank
        from irmas.results import ranking
        from irmas.sweep import pool
        from irmas.sweep.sweep import Sweep

        statuses = pool.launch(plan, self.processes, append=append)
        if ranking.unranked(rank.show(Sweep.of(plan).path)):
            raise SystemExit(1)
        return statuses


class SlurmLauncher(IrmasLauncher):
    """Job arrays. Returns at once, without accuracies; with `wait`, when the arrays have ended."""

    has_jobs = True

    def __init__(self, *, submit: bool, wait: bool, **settings: Any) -> None:
        self.submit, self.wait, self.settings = submit, wait, settings

    def check(self) -> None:
        from irmas.sweep import settings

        for key in ("submit", "wait"):
            if not isinstance(getattr(self, key), bool):
                raise ConfigError(f"hydra.launcher.{key}", getattr(self, key), "must be true or false")
        if self.refine and not self.submit:
            raise ConfigError("hydra.launcher.submit", "false", "prints the jobs of one round; leave out until=decided")
        values: Any = OmegaConf.to_container(OmegaConf.create(self.settings), resolve=True)
        self.asked = settings.read(values)

    def train(self, plan: Plan, *, append: bool) -> list[Status] | None:
        from irmas.sweep import jobs, submit
        from irmas.sweep.sweep import Sweep

        sweep = Sweep.of(plan)
        done = submit.launch(plan, self.asked, append=append, by_hand=not self.submit, refine=self.refine)
        if done.requests:
            jobs.record_launcher(sweep, self.kept_words)
        if not self.submit or not (self.wait or done.is_over):
            return None
        _end(sweep, is_over=done.is_over)
        return [sweep.status(run) for run in done.runs]


def _end(sweep: Sweep, is_over: bool) -> None:
    """Stay until nothing of the sweep is in the queue, and rank it. Ctrl-C only stops looking."""
    from irmas import rank, status
    from irmas.console import plain_console

    try:
        if not is_over:
            status.watch(sweep.path)
    except KeyboardInterrupt:
        plain_console().print(f"\ndetached: the jobs go on; python -m irmas.status {sweep} --watch")
        raise SystemExit(130) from None
    rank.show(sweep.path)


def _returned(overrides: Sequence[str], status: Status) -> JobReturn:
    """Return what sweepers read: the ranked validation accuracy, or the error that ended the run.

    None for a run of an earlier version, whose accuracy cannot be compared with those of this one.
    """
    from irmas.run.events import RANKED
    from irmas.run.folder import COMPLETED, PRUNED

    if status.state in (COMPLETED, PRUNED) and status.metrics:
        return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=status.metrics.get(RANKED))
    return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=RunFailedError(status.message))
