"""The launchers' settings: what a sweep asks of this machine or of Slurm, each with its default, rule and text."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

from irmas.config import FLAG, Config, Rule, check_rules, positive, rules, shown, whole
from irmas.errors import ConfigError, UserError
from irmas.sweep import slurm

OURS = frozenset({"array", "chdir", "dependency", "error", "job-name", "kill-on-invalid-dep", "nodes", "ntasks"})
OURS |= {"ntasks-per-node", "open-mode", "output", "parsable", "signal", "test-only", "wait", "wrap"}
"""Options of sbatch on which a sweep relies: a task is one process, in the folder of the command."""
ONE = frozenset({"nodes", "ntasks", "ntasks-per-node"})
"""Those that may be given as 1, which some sites require."""
INSTEAD = {"mem": {"mem-per-cpu", "mem-per-gpu"}, "cpus-per-task": {"cpus-per-gpu"}}
"""Options of sbatch that take the place of one of the settings'."""
OF_POINTS = {"partition", "cpus", "mem", "time", "gpus", "constraint", "exclude", "qos", "account", "sbatch"}
OF_POINTS |= {"runs_at_once"}
"""Settings that points may have of their own."""
EXAMPLE = "{when: {model.convs_per_block: 2}, mem: 16G}"


def _is_line(value: object) -> bool:
    """Return whether a value can stand in a line `#SBATCH --key=value`, and be no more than the value."""
    return isinstance(value, bool | int | float | str) and str(value).isprintable() and str(value) != ""


def _are_options(value: object) -> bool:
    if not isinstance(value, Mapping):
        return value is None
    given = _options(value)
    is_long = all(re.fullmatch("[a-z][a-z-]+", name) for name in given)
    ours = {name for name in given if name in OURS and not (name in ONE and str(given[name]) == "1")}
    return is_long and not ours and all(text is None or _is_line(text) for text in given.values())


def _words(text: str) -> list[str]:
    """Return the words of a command, none if its quotes do not match."""
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _options(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return options by their names on a command line."""
    return {str(key).replace("_", "-"): value for key, value in (values or {}).items()}


WORD = Rule(
    lambda value: bool(_is_line(value) and re.fullmatch(r"[^\s'\"]+", str(value))), "one word as sbatch takes it"
)
CLUSTER = Rule(
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"(?!all$)[\w.-]+", value)), "the name of one cluster"
)
MEMORY = Rule(lambda value: bool(re.fullmatch(r"\d+[KMGT]?B?", str(value))), "a number with K, M, G or T, as in 8G")
TIME = Rule(
    lambda value: bool(slurm.TIME.fullmatch(str(value))) or value == "UNLIMITED",
    "minutes, or a time as Slurm writes it, as in 1-12:00:00",
)
GPUS = Rule(
    lambda value: whole(0).allows(value) or bool(re.fullmatch(r"[\w.-]+:\d+", str(value))),
    "a whole number from 0, or a type and a number as in a100:1",
)
HOURS = positive(1_000_000)
SCRIPT = Rule(
    lambda value: isinstance(value, str) and _is_line(value) and Path(value).is_file() and os.access(value, os.R_OK),
    "the path of a shell script that can be read here",
)
COMMAND = Rule(lambda value: _is_line(value) and bool(_words(value)), "a command, quoted as for the shell")
SRUN = Rule(
    lambda value: (
        isinstance(value, Mapping | None) and all(item is None or _is_line(item) for item in (value or {}).values())
    ),
    "long options of srun, as in {mpi: none}, or null",
)
WORDS = Rule(
    lambda value: bool(value) and all(map(_is_line, value)),
    "a program and its arguments, one line each, as in [program]",
)
OPTIONS = Rule(
    _are_options,
    f"long options of sbatch, one line each, other than {', '.join(sorted(OURS))}, as in {{nice: 100}}, or null",
)


RULES = Rule(
    lambda value: value is None or isinstance(value, list),
    f"a list of settings and the points that have them, as in [{EXAMPLE}], or null",
)


def flags(options: Mapping[str, Any]) -> list[str]:
    """Return options as command-line arguments; True stands for one without a value, None for one that is not given."""
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items() if value is not None]


@dataclass
class Stage:
    """Resources of one job, as sbatch takes them."""

    partition: Annotated[str | None, WORD] = None
    """Partition; null: SBATCH_PARTITION, or the site's. The jobs before and after the array take that of the tasks."""
    cpus: Annotated[int | None, whole(1)] = 2
    """CPU cores per task; null: as the site gives them."""
    mem: Annotated[int | str | None, MEMORY] = "8G"
    """Memory; null: as the site gives it, or as `sbatch` says, as in `{mem_per_cpu: 4G}`."""
    time: Annotated[int | str, TIME] = 120
    """Time limit: minutes, or a time as in 1-12:00:00."""
    # None and untyped, because Hydra adds no keys to a dictionary and OmegaConf cannot merge into an optional one.
    sbatch: Annotated[Any, OPTIONS] = None
    """Further long options, as in `hydra.launcher.sbatch='{reservation: course, nice: 100}'`."""

    def options(self) -> dict[str, Any]:
        own = {"partition": self.partition, "cpus-per-task": self.cpus, "mem": self.mem, "time": self.time}
        given = _options(self.sbatch)
        return {key: value for key, value in own.items() if not INSTEAD.get(key, set()) & given.keys()} | given


@dataclass
class Settings(Stage):
    """A job array, and the jobs before and after it. The default where sbatch is found."""

    submit: Annotated[bool, FLAG] = True
    """`false`: write the plan and print the sbatch lines."""
    wait: Annotated[bool, FLAG] = False
    """`true`: stay, show the table, and return each run's validation accuracy."""
    max_hours: Annotated[float | None, HOURS] = None
    """Most GPU hours, or core hours where no GPU is requested, that the remaining runs may be expected to take."""
    pilot: Annotated[bool, FLAG] = False
    """`true`: submit only one run of each net without a measured epoch, where there are such nets."""
    runs_at_once: Annotated[int | None, whole(1)] = None
    """Runs that a task trains at the same time, sharing its GPUs, cores and memory; null: one per GPU, or one."""
    runs_per_task: Annotated[int | None, whole(1)] = None
    """Runs that a task trains in all; null: as many as at the same time."""
    throttle: Annotated[int | None, whole(1)] = None
    """Largest number of tasks that run at the same time."""
    requeues: Annotated[int, whole(0)] = 10
    """Restarts of a task after preemption, time limit or node failure."""
    setup: Annotated[str | None, SCRIPT] = None
    """Shell script that every job sources first: modules, environment."""
    prefix: Annotated[str | None, COMMAND] = None
    """Command that starts the `python` of every job, as in `hydra.launcher.prefix='apptainer exec --nv image.sif'`."""
    # Untyped, as `sbatch` is.
    srun: Annotated[Any, SRUN] = None
    """Long options of the srun inside every job, as in `hydra.launcher.srun='{mpi: none, cpu_bind: none}'`."""
    cluster: Annotated[str | None, CLUSTER] = None
    """Cluster of all jobs, where Slurm has several; null: that of SLURM_CLUSTERS, of the sweep, or of this machine."""
    account: Annotated[str | None, WORD] = None
    """Account of all jobs; null: that of SBATCH_ACCOUNT, or the user's own."""
    qos: Annotated[str | None, WORD] = None
    """Quality of service of all jobs; null: that of SBATCH_QOS, or the account's."""
    constraint: Annotated[str | None, WORD] = None
    """Node features that a task needs."""
    exclude: Annotated[str | None, WORD] = None
    """Nodes that no task runs on."""
    gpus: Annotated[int | str, GPUS] = 1
    """GPUs per task, also with a type as in a100:1."""
    mail: Annotated[str | None, WORD] = None
    """Address to which Slurm mails the end of the ranking job."""
    at_end: Annotated[list[str] | None, WORDS] = None
    """Program, and its arguments, to which the ranking job hands a summary on stdin, as in `[/apps/bin/chat,lab]`."""
    # Untyped, as `sbatch` is.
    rules: Annotated[Any, RULES] = None
    """Settings of some points alone: every rule that matches a point applies, and later ones win."""
    warning: Annotated[int, whole(1)] = 120
    """Seconds ahead of the time limit at which a task stops and is requeued."""
    prepare: Stage = field(default_factory=lambda: Stage("${..partition}"))
    """Resources of the job before the array, which builds a missing feature cache."""
    rank: Stage = field(default_factory=lambda: Stage("${..partition}", cpus=1, mem="2G", time=30))
    """Resources of the job after the array, which ranks whatever finished."""
    _target_: str = "hydra_plugins.irmas_launcher.SlurmLauncher"

    def options(self) -> dict[str, Any]:
        gres = f"gpu:{self.gpus}" if self.gpus else None
        return {"gres": gres, "constraint": self.constraint, "exclude": self.exclude} | super().options()

    def script_options(self) -> list[str]:
        """Return the options of slurm/irmas.sbatch, which stand before the stage."""
        setup = [] if self.setup is None else [f"--setup={Path(self.setup).absolute()}"]
        # A prefix starts the interpreter of its container or environment, which is not this one.
        python = [f"--python={sys.executable}"] if self.prefix is None else []
        prefix = [f"--prefix={word}" for word in _words(self.prefix or "")]
        return [*python, *setup, *prefix, *(f"--srun={option}" for option in flags(_options(self.srun)))]

    @property
    def gpu_count(self) -> int:
        return int(str(self.gpus).rpartition(":")[2])

    def at_once(self, device: str) -> int:
        """Return how many runs of this `device` a task trains at the same time."""
        return self.runs_at_once or (self.gpu_count if device != "cpu" else 0) or 1

    def per_task(self, device: str) -> int:
        """Return how many runs of this `device` a task trains in all."""
        return self.runs_per_task or self.at_once(device)

    def of_point(self, config: Mapping[str, Any]) -> Settings:
        """Return the settings for the runs of a point with this flat configuration.

        Raises ConfigError where rules that match it do not go together.
        """
        own = self
        for rule in self.rules or ():
            if all(_is_wanted(config[key], wanted) for key, wanted in rule["when"].items()):
                changes = {key: value for key, value in rule.items() if key != "when"}
                if changes.get("sbatch"):
                    changes["sbatch"] = _options(own.sbatch) | _options(changes["sbatch"])
                own = replace(own, **changes)
        if own is not self:
            _check_together(own)
        return own


def _is_wanted(value: object, wanted: object) -> bool:
    return value == wanted or (isinstance(wanted, list) and value in wanted)


@dataclass
class LocalSettings:
    """This machine as a cluster: a bounded pool of processes, one run each."""

    runs_at_once: Annotated[int | None, whole(1)] = None
    """Runs that train at the same time; null: one per GPU, or one per CPU core."""
    max_hours: Annotated[float | None, HOURS] = None
    """Most GPU hours, or core hours where no GPU is requested, that the remaining runs may be expected to take."""
    pilot: Annotated[bool, FLAG] = False
    """`true`: train only one run of each net without a measured epoch, where there are such nets."""
    _target_: str = "hydra_plugins.irmas_launcher.LocalLauncher"


LAUNCHERS: dict[str, type] = {"local": LocalSettings, "slurm": Settings}
"""Schemas by the name in `hydra/launcher=<name>`."""
ONE_COMMAND = frozenset({"submit", "wait", "pilot"})
"""Settings that no later submission of the same sweep takes."""
PREFIX = "hydra.launcher."
RENAMED = {"processes": "runs_at_once", "points_per_task": "runs_per_task"}
"""Names that settings had in earlier versions, and have now."""
SITE_FILE = Path("/etc/irmas/slurm.yaml")
CLUSTER_FILE = "IRMAS_SLURM_CONFIG"
"""Variable that names a file with settings of a cluster; empty: no such file is read."""


def cluster_files() -> list[Path]:
    """Return the files with a cluster's settings: of the site, of the user, of the environment; later ones win.

    Raises UserError where the environment names one that is not there.
    """
    named = os.environ.get(CLUSTER_FILE)
    if named == "":
        return []
    of_user = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    files = [path for path in (SITE_FILE, of_user / "irmas" / SITE_FILE.name) if os.path.lexists(path)]
    if named is not None and not Path(named).is_file():
        raise UserError(
            f"{CLUSTER_FILE}={named}: no such file; unset it, or leave it empty to read no file of settings"
        )
    return [*files, *([] if named is None else [Path(named)])]


def changed(settings: Settings) -> list[str]:
    """Return the overrides that make these settings of the defaults, without those that concern one command alone."""
    # A stage without a partition of its own has that of the tasks.
    stages = {name: replace(getattr(Settings(), name), partition=settings.partition) for name in ("prepare", "rank")}
    default = replace(Settings(), **stages)
    pairs = ((key, attrgetter(key)(settings), attrgetter(key)(default)) for key in rules(Settings))
    return [f"{PREFIX}{key}={_quoted(own)}" for key, own, other in pairs if own != other and key not in ONE_COMMAND]


def _quoted(value: Any) -> str:
    """Return a value as Hydra reads it on a command line."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_quoted, value)) + "]"
    if not isinstance(value, str) or re.fullmatch(
        r"[0-9]+[KMGT]|(?ai:(?!null$|true$|false$|nan$|inf$)[a-z][a-z0-9_./-]*)", value
    ):
        return shown(value)
    # A backslash is one, except in front of a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value) + "'"


def read(values: Mapping[str, Any]) -> Settings:
    """Return the settings with these values. Raise ConfigError for the first that breaks its rule."""
    stages = {}
    for name in ("prepare", "rank"):
        if not isinstance(values[name], Mapping):
            names = " ".join(stage.name for stage in fields(Stage))
            raise ConfigError(f"{PREFIX}{name}", shown(values[name]), f"has settings: {names}")
        stages[name] = Stage(**values[name])
    settings = Settings(**{**values, **stages})
    check_rules(settings, PREFIX)
    for entry in settings.rules or ():
        _check_entry(settings, entry)
    _check_together(settings)
    return settings


def _check_entry(settings: Settings, entry: Any) -> None:
    """Raise ConfigError where an entry of `rules` is no rule, or sets what no point may have."""
    key = f"{PREFIX}rules"
    when = entry.get("when") if isinstance(entry, Mapping) else None
    if not (isinstance(when, Mapping) and when and len(entry) > 1):
        raise ConfigError(key, shown(entry), f"must be settings and the points that have them, as in {EXAMPLE}")
    for name, wanted in when.items():
        if name not in rules(Config):
            guesses = get_close_matches(str(name), rules(Config), n=1)
            hint = f"; did you mean {guesses[0]}?" if guesses else ""
            raise ConfigError(key, shown(entry), f"a run has no setting {name!r}{hint}")
        is_value = rules(Config)[name].allows
        if not (is_value(wanted) or (isinstance(wanted, list) and wanted and all(map(is_value, wanted)))):
            raise ConfigError(f"{key}: {name}", shown(wanted), f"must be {rules(Config)[name].text}, or a list of such")
    changes = {name: value for name, value in entry.items() if name != "when"}
    for name, value in changes.items():
        if name not in OF_POINTS:
            raise ConfigError(
                key, shown(entry), f"a point has no {name!r} of its own; settings: {' '.join(sorted(OF_POINTS))}"
            )
        if not rules(Settings)[name].allows(value):
            raise ConfigError(f"{key}: {name}", shown(value), f"must be {rules(Settings)[name].text}")
    _check_together(replace(settings, **changes), f"{key}: ")


def _check_together(settings: Settings, prefix: str = PREFIX) -> None:
    """Raise ConfigError for the first value that does not go with another one."""
    for name, stage in {"": settings, "prepare.": settings.prepare, "rank.": settings.rank}.items():
        if {"cluster", "clusters"} & {*(stage.sbatch or {})}:
            rule = f"must not have clusters: {PREFIX}cluster is that of all jobs, and of all of Slurm's commands"
            raise ConfigError(f"{prefix}{name}sbatch", shown(stage.sbatch), rule)
    if settings.time != "UNLIMITED" and slurm.seconds(str(settings.time)) <= settings.warning + 30:
        rule = f"must exceed {PREFIX}warning={settings.warning} (seconds) by more than the 30 s between Slurm's checks"
        raise ConfigError(f"{prefix}time", settings.time, rule)
    key, at_once = ("runs_at_once", settings.runs_at_once) if settings.runs_at_once else ("gpus", settings.gpu_count)
    if settings.runs_per_task and settings.runs_per_task < at_once:
        rule = f"must be at most {PREFIX}runs_per_task={settings.runs_per_task}, the runs of a task, one per GPU"
        raise ConfigError(f"{prefix}{key}", getattr(settings, key), rule)
