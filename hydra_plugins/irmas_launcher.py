"""Our sweeper and our launchers, where Hydra finds them. They only pass runs on to `irmas.sweep`.

Hydra imports this module at each start of any Hydra program, so its imports stay light.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from irmas.config import check_rules
from irmas.errors import ConfigError, RunFailedError, interruptible
from irmas.sweep.settings import LAUNCHERS, PREFIX, LocalSettings, changed, read

if TYPE_CHECKING:
    from irmas.cli.overrides import Task
    from irmas.cli.space import Proposal
    from irmas.config import Search
    from irmas.run.folder import Status
    from irmas.sweep.cost import Places
    from irmas.sweep.plan import Plan, PlannedRun

for launcher_name, schema in LAUNCHERS.items():
    ConfigStore.instance().store(group="hydra/launcher", name=launcher_name, node=schema, provider="irmas")


class GridSweeper(Sweeper):
    """Every combination of the swept values, in one batch.

    Hydra's BasicSweeper composes each combination to check it (9 per second) and writes multirun.yaml first;
    here the launcher checks each swept value once, before anything is written.
    """

    def __init__(self, params: dict[str, str]) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.points = hydra_context.config_loader, config.points
        self.search = cast("Search", OmegaConf.to_object(config.search))
        self.task = cast("Task", task_function)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.grid_launcher = cast("IrmasLauncher", launcher)

    def sweep(self, arguments: list[str]) -> Any:
        """Launch the runs of `hydra.sweeper.params` and of the command line, of which `arguments` are the texts."""
        from irmas.cli.space import propose

        if not isinstance(self.params, Mapping):
            raise ConfigError("hydra.sweeper.params", self.params, "must be settings and their values")
        shipped = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in self.params.items()])
        overrides = {override.key_or_group: override for override in shipped} | self.task.of_runs
        located = {key: replace(override, config_loader=self.loader) for key, override in overrides.items()}
        proposal = propose(located, self.points, self.search)
        self.grid_launcher.proposal = proposal
        runs = [[f"{key}={text}" for key, text in run.items()] for run in proposal.runs]
        returns = self.grid_launcher.launch(runs, initial_job_idx=0)
        if any(job.status is JobStatus.FAILED for job in returns):
            raise SystemExit(1)
        return [returns]


class IrmasLauncher(Launcher):
    """Freezes the runs that a sweeper proposes into a plan, and trains it."""

    name: str | None = None
    files: Sequence[Path] = ()
    """Files with the cluster's settings, from which the launcher's were made."""
    refine_arguments: Sequence[str] = ()
    """Arguments of `irmas.refine`, where a ranking job is to submit the next round."""
    proposal: Proposal | None = None
    """Proposal of the command; None where another sweeper proposes the runs."""
    has_jobs = False
    """True where jobs train and rank, and submit the next round."""
    settings: Any
    """The launcher's settings, once they are checked."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config
        self.task = cast("Task", task_function)
        self.files = self.task.files

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Only a launch needs these modules.
        from irmas.cli.compose import Composer
        from irmas.cli.space import Proposal
        from irmas.sweep import data_job
        from irmas.sweep.plan import freeze
        from irmas.sweep.sweep import Sweep

        self.check()
        proposal = self.proposal or Proposal([])
        composer = Composer(self.loader, self.config, self.task.of_runs, proposal.origins)
        if self.proposal is None:  # another sweeper proposes the runs
            grid = {"points": composer.base.points, "search.runs": composer.base.search.runs}
            for key, value in (grid | {f"{PREFIX}pilot": "true" if self.settings.pilot else None}).items():
                if value is not None:
                    raise ConfigError(key, value, "only hydra/sweeper=grid takes it")
        plan = freeze(composer.base, composer.runs(job_overrides), self.name, self.task.typed, proposal.space)
        intervals = {key: asdict(interval) for key, interval in proposal.intervals.items()}
        plan = replace(plan, intervals=intervals, options=composer.options(proposal.options))
        # A sweeper that proposes runs in batches keeps to the name of its first.
        self.name = plan.name
        Sweep.of(plan).share()
        data_job.check(Sweep.of(plan))
        pilots = self._pilots(plan) if self.settings.pilot else []
        if pilots:
            job_overrides = [job_overrides[run.id - 1] for run in pilots]
            plan = replace(plan, runs=[replace(run, id=number) for number, run in enumerate(pilots, start=1)])
        with interruptible():
            # Append pilots, since the sweep may have its other runs already.
            statuses = self.train(plan, append=initial_job_idx > 0 or bool(pilots))
        if statuses is None:
            return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]
        # Runs that irmas.refine has added follow those of the command.
        by_run = [*job_overrides, *[()] * (len(statuses) - len(job_overrides))]
        return [_job_return(overrides, status) for overrides, status in zip(by_run, statuses, strict=True)]

    def _pilots(self, plan: Plan) -> list[PlannedRun]:
        """Return the runs that train first, whatever hours are allowed: one for each net that is not measured."""
        from irmas.sweep import cost

        if pilots := cost.unmeasured(plan, self.places(plan, len(plan.runs))):
            counts = f"pilot: {len(pilots)} of {len(plan.runs)} runs, one for each net without a measured epoch"
            print(f"{counts}; rerun the command for the rest once they have trained an epoch")  # noqa: T201
            self.settings = replace(self.settings, max_hours=None)
        return pilots

    @abstractmethod
    def places(self, plan: Plan, count: int) -> Places:
        """Return where `count` runs of `plan` train."""

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for the first of the launcher's settings that breaks its rule."""

    @abstractmethod
    def train(self, plan: Plan, *, append: bool) -> list[Status] | None:
        """Train the unfinished runs of `plan` and rank its sweep; `append` is that of `Sweep.write`.

        Return the status of each run of `plan` afterwards; None where jobs train them and nobody waits.
        """

    @property
    def kept_overrides(self) -> list[str]:
        """Overrides that a later submission of the same sweep takes too."""
        return []


class LocalLauncher(IrmasLauncher):
    """This machine as a cluster."""

    def __init__(self, **values: Any) -> None:
        self.settings = LocalSettings(**values)

    def check(self) -> None:
        check_rules(self.settings, PREFIX)

    def places(self, plan: Plan, count: int) -> Places:
        from irmas.sweep import cost

        return cost.here(plan, self.settings.runs_at_once, count)

    def train(self, plan: Plan, *, append: bool) -> list[Status]:
        from irmas import rank
        from irmas.results import ranking
        from irmas.sweep import cost, pool
        from irmas.sweep.sweep import Sweep

        sweep, runs = Sweep.of(plan).merged(append=append)
        if remaining := sweep.unfinished(runs):
            done = {run.id: sweep.status(run).epoch for run in remaining}
            cost.expect(sweep, remaining, done, self.places(plan, len(remaining)), self.settings.max_hours)
        statuses = pool.launch(plan, self.settings.runs_at_once, append=append)
        if ranking.unranked(rank.show(Sweep.of(plan).path)):
            raise SystemExit(1)
        return statuses


class SlurmLauncher(IrmasLauncher):
    """Job arrays. Returns at once, without accuracies; with `wait`, when the arrays have ended."""

    has_jobs = True

    def __init__(self, **values: Any) -> None:
        self.values: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True)

    @property
    def kept_overrides(self) -> list[str]:
        return changed(read(self.values))

    def check(self) -> None:
        self.settings = read(self.values)
        if self.refine_arguments and not self.settings.submit:
            raise ConfigError(f"{PREFIX}submit", "false", "prints the jobs of one round; leave out until=decided")

    def places(self, plan: Plan, count: int) -> Places:
        from irmas.sweep import cost

        return cost.on_slurm(plan, self.settings, count)

    def train(self, plan: Plan, *, append: bool) -> list[Status] | None:
        from irmas.sweep import jobs, submit
        from irmas.sweep.sweep import Sweep

        sweep, by_hand = Sweep.of(plan), not self.settings.submit
        refine, files = self.refine_arguments, self.files
        result = submit.launch(plan, self.settings, append=append, by_hand=by_hand, refine=refine, files=files)
        if result.requests:
            jobs.record_launcher(sweep, self.kept_overrides)
        is_over = not (result.queued or result.remaining)
        if by_hand or not (self.settings.wait or is_over):
            return None
        from irmas import rank, status

        try:
            if not is_over:
                status.watch(sweep.path)
        except KeyboardInterrupt:  # ends the display alone
            print(f"\ndetached: the jobs keep running; python -m irmas.status {sweep} --watch")  # noqa: T201
            raise SystemExit(130) from None
        rank.show(sweep.path)
        return [sweep.status(run) for run in result.runs]


def _job_return(overrides: Sequence[str], status: Status) -> JobReturn:
    """Return what sweepers read: the ranked validation accuracy, or the error that ended the run.

    The accuracy of a run of an earlier version is None, since it cannot be compared with those of this one.
    """
    from irmas.run.events import RANKED
    from irmas.run.folder import COMPLETED, PRUNED

    if status.state in (COMPLETED, PRUNED) and status.metrics:
        return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=status.metrics.get(RANKED))
    return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=RunFailedError(status.message))
