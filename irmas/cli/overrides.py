"""The command line of irmas.train and irmas.prepare: parsed once, checked before anything is written, then Hydra's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from irmas.config import SWEEP_WIDE, Config, Prepare, check, flatten, rules
from irmas.errors import Parser, UserError, first_line, report_errors
from irmas.results.best import END
from irmas.sweep.settings import LAUNCHERS, PREFIX, RENAMED, Settings, cluster_files, read
from irmas.sweep.sweep import BEST

if TYPE_CHECKING:
    from hydra_plugins.irmas_launcher import IrmasLauncher

CONF = Path(__file__).parents[1] / "conf"
SLURM_FOLDER = Path("/etc/slurm")
HYDRAS = re.compile(r"hydra(?=[./]|$)")
TAKEN = re.compile(r"hydra/(launcher|sweeper)|hydra\.(launcher|sweeper)\.(?!_).+")
"""Hydra's own settings that irmas.train takes; others write files, load plugins or call functions."""
INFO = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]


@dataclass(frozen=True)
class Task:
    """The task function of a command, which Hydra hands to sweeper and launcher, with the command line in it."""

    function: Callable[[DictConfig], Any] | None
    """None where launchers start runs in processes of their own."""
    errors: Callable[..., AbstractContextManager[None]]
    typed: Sequence[str]
    """Overrides as they were typed."""
    overrides: Mapping[str, Override]
    """The overrides that Hydra takes in their place, by key."""
    files: Sequence[Path] = ()
    """Files with the cluster's settings, which are the defaults of those of the launcher."""

    @property
    def of_runs(self) -> dict[str, Override]:
        """All but Hydra's own, by key."""
        return {key: override for key, override in self.overrides.items() if not HYDRAS.match(key)}

    def __call__(self, config: DictConfig) -> None:
        assert self.function, "hydra.mode is MULTIRUN, so that every run goes through a launcher"
        with self.errors():  # here, since Hydra would print a line of its own first
            self.function(config)


def run(command: str, schema: type[Config | Prepare], function: Callable[[DictConfig], Any] | None = None) -> None:
    """Compose `conf/<command>.yaml` with the command line and pass it to `function` or, for a sweep, to the launcher.

    End the process with 2 after a mistake of the user's: one message on stderr, nothing written.
    """
    errors = partial(report_errors, f"irmas.{command}", "stopped; rerun the command to resume")
    # Otherwise Hydra reports errors itself, and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as orderly as Ctrl-C
    with errors(starting=True), explained():
        options, typed = _read_arguments(command, schema)
        overrides = parse(typed, schema)
        if "best" in overrides:
            overrides = _take_best(overrides)
        if schema is Config and "hydra/launcher" not in overrides:
            name = default_launcher(is_shown="-m" not in options)
            overrides |= parse([f"hydra/launcher={name}"], schema)
        # Without the --, --info would take the first override for what it is to show.
        sys.argv[1:] = [*options, "--", *(str(override.input_line) for override in overrides.values())]
        ConfigStore.instance().store(name="schema" if schema is Config else "prepare_schema", node=schema)
        is_on_slurm = schema is Config and overrides["hydra/launcher"].value() == "slurm"
        task = Task(function, errors, typed, overrides, _take_cluster_files() if is_on_slurm else ())
        hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name=command)(task)()


def default_launcher(*, is_shown: bool = False) -> str:
    """Return the launcher where none is given. Unless it `is_shown` only, raise UserError where sbatch seems hidden."""
    if shutil.which("sbatch"):
        return "slurm"
    traces = [f"SLURM_CONF={os.environ['SLURM_CONF']}"] if "SLURM_CONF" in os.environ else []
    traces += [f"{SLURM_FOLDER}"] if SLURM_FOLDER.exists() else []
    if traces and not is_shown:
        remedy = "add its folder to the PATH (module load slurm), or give hydra/launcher=local to train on this machine"
        raise UserError(f"sbatch is not on the PATH, but this machine has a Slurm ({traces[0]}): {remedy}")
    return "local"


def launcher(texts: Sequence[str], *, with_files: bool) -> IrmasLauncher:
    """Return the launcher of these overrides of hydra/launcher and hydra.launcher.*. Raise UserError.

    `with_files`, the defaults of its settings are those of the cluster's files.
    """
    ConfigStore.instance().store(name="schema", node=Config)
    with explained():
        overrides = parse(texts, Config)
        if swept := [override.input_line for override in overrides.values() if override.is_sweep_override()]:
            raise UserError(f"{swept[0]}: applies to the whole sweep and takes one value")
        if "hydra/launcher" not in overrides:
            overrides |= parse([f"hydra/launcher={default_launcher()}"], Config)
        is_on_slurm = overrides["hydra/launcher"].value() == "slurm"
        files = _take_cluster_files() if with_files and is_on_slurm else ()
        texts = [str(override.input_line) for override in overrides.values()]
        with hydra.initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            config = hydra.compose("train", list(texts), return_hydra_config=True)
            result: IrmasLauncher = instantiate(config.hydra.launcher)
    result.files = files
    return result


def _take_cluster_files() -> list[Path]:
    """Make the cluster's files the defaults of hydra/launcher=slurm, and return them.

    Raise UserError, naming the file, for a setting that does not exist or has a wrong value.
    """
    tree, files = OmegaConf.create({"hydra": {"launcher": OmegaConf.structured(Settings)}}), cluster_files()
    for path in files:
        try:
            values = OmegaConf.load(StringIO(path.read_text()))
            if not isinstance(values, DictConfig):
                raise UserError("must hold settings of hydra.launcher, as in partition: gpu")
            if "_target_" in values:
                raise UserError(f"{PREFIX}_target_: there is no such setting")
            for key, value in values.items_ex(resolve=False):
                OmegaConf.update(tree, PREFIX + str(key), value, merge=True)
            merged: Any = OmegaConf.to_container(tree.hydra.launcher, resolve=True)
            read(merged)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
        except (OmegaConfBaseException, UserError) as error:
            reason = str(error) if isinstance(error, UserError) else _explain(error)
            raise UserError(f"{path}: {reason}") from None
    for stage in (tree.hydra.launcher, tree.hydra.launcher.prepare, tree.hydra.launcher.rank):
        for options in filter(OmegaConf.is_dict, (stage.get(key) for key in ("sbatch", "srun"))):
            OmegaConf.set_struct(options, False)  # the command line may add an option
    Plugins.instance()  # makes the launchers known, with the defaults of their schemas
    ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=tree.hydra.launcher, provider="irmas")
    return files


def _read_arguments(command: str, schema: type[Config | Prepare]) -> tuple[list[str], list[str]]:
    """Return the options for Hydra, and the overrides, which it wants behind them.

    Options that bring other configurations along are not taken: --experimental-rerun would load a pickle.
    """
    parser = Parser(f"irmas.{command}", add_help=False)
    parser.add_argument("overrides", nargs="*")
    for names in ("-m --multirun", "-h --help", "--hydra-help", "--version", "--resolve"):
        parser.add_argument(*names.split(), action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=INFO)
    args = parser.parse_intermixed_args()
    if args.multirun and schema is Prepare:
        raise UserError("-m: one data set at a time is prepared; irmas.train prepares all that a sweep needs")
    if (args.resolve or args.package) and not args.cfg:
        raise UserError("--resolve and --package: are for --cfg job")
    overrides: list[str] = args.overrides
    options = [word for word in sys.argv[1:] if word not in (*overrides, "-m", "--multirun", "--")]
    # A run is a sweep of one. Without -m, a wrong setting of the launcher makes Hydra refuse commas instead.
    is_shown = args.cfg or args.info or args.help or args.hydra_help
    return ["-m", *options] if schema is Config and not is_shown else options, overrides


def parse(texts: Sequence[str], schema: type) -> dict[str, Override]:
    """Return overrides by key. Raise UserError for the first that is refused."""
    overrides: dict[str, Override] = {}
    for override in map(_with_list_as_text, OverridesParser.create().parse_overrides([*map(_with_note_quoted, texts)])):
        key = override.key_or_group
        if reason := f"{key} is given twice" if key in overrides else _refusal(override, schema):
            raise UserError(f"{override.input_line}: {reason}")
        overrides[key] = override
    return overrides


def _with_note_quoted(text: str) -> str:
    """Quote a note for Hydra, which would read commas, brackets and ${} in it; one that is quoted already stays."""
    key, _, note = text.partition("=")
    if key != "note" or note in ("", "null") or note[0] in "'\"":
        return text
    escaped = re.sub(r"(\\*)('|\$\{|$)", lambda match: 2 * match[1] + ("\\" + match[2] if match[2] else ""), note)
    return f"note='{escaped}'"


def _with_list_as_text(override: Override) -> Override:
    """Take what would be swept for text, as in hydra.launcher.partition=gpu,long: no sweep varies its launcher."""
    text = override.input_line or ""
    key, _, value = text.partition("=")
    if not (key.startswith(PREFIX) and override.is_choice_sweep() and re.fullmatch(r"[\w.,-]+", value)):
        return override
    return OverridesParser.create().parse_override(f"{key}='{value}'")


def _refusal(override: Override, schema: type) -> str | None:
    """Return why an override is refused, before Hydra composes anything; None if it is not.

    Hydra itself advises `+key=value` for a key that does not exist, and then runs with the default value.
    """
    key, value, groups = override.key_or_group, override.value(), _groups(schema)
    options = sorted(path.stem for path in (CONF / key).glob("[!.]*.yaml")) if key in groups else []
    is_hydras = bool(HYDRAS.match(key))
    is_plain = not (override.is_add() or override.is_force_add() or override.is_delete() or override.package)
    refusals = {
        "hydra/sweeper=grid does the same, and checks before it writes": key == "hydra/sweeper" and value == "basic",
        f"must be one of {', '.join(LAUNCHERS)}": key == "hydra/launcher" and value not in [*LAUNCHERS],
        f"must be the folder of one sweep, or its {BEST}": key == "best" and not (isinstance(value, str) and value),
        f"must be one of {', '.join(options)}": key in groups
        and not all(isinstance(option, str | QuotedString | Glob) for option in _values(override)),
        "of Hydra's own settings only hydra/launcher, hydra/sweeper and theirs, as in hydra.launcher.partition=gpu, "
        "are taken, and those by irmas.train alone": is_hydras and (schema is Prepare or not TAKEN.fullmatch(key)),
        unknown(key, schema): not is_hydras and bool(unknown(key, schema)),
        # Sweepers of others may want settings added.
        f"settings are only given a value, as in {key}=...; none is added, deleted or moved with + ++ ~ @": (
            not is_plain and not key.startswith("hydra.sweeper.")
        ),
    }
    return next((reason for reason, applies in refusals.items() if applies), None)


def unknown(key: str, schema: type) -> str:
    """Return why a key is neither a setting nor a group; empty if it is one."""
    settings, groups = rules(schema).keys(), _groups(schema)
    if key in settings | groups:
        return ""
    guesses = get_close_matches(key, settings | groups, n=2)
    hint = f"; did you mean {' or '.join(guesses)}?" if guesses else ""
    listed = f"\n  settings: {' '.join(sorted(settings))}\n  groups: {' '.join(sorted(groups))}"
    return f"there is no setting {key!r}{hint}{listed}"


def _groups(schema: type) -> set[str]:
    groups = {path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"} | {"best"}
    return groups & {"data", "features"} if schema is Prepare else groups


def _values(override: Override) -> list[Any]:
    value = override.value()
    return value.list if isinstance(value, ChoiceSweep) else [value]


def _take_best(overrides: Mapping[str, Override]) -> dict[str, Override]:
    """Let Hydra find what `best=<path>` names, below the settings of `sweep=` and of the command line.

    Its settings of a group whose option is chosen or swept give way as a whole.
    Raises UserError for a file that cannot be read or is not sound.
    """
    if "recipe" in overrides:
        raise UserError(
            f"{overrides['recipe'].input_line}: best={overrides['best'].value()} has a recipe of its own; "
            "give what is to differ from it one by one, as in lr=0.002 schedule=onecycle model=deep"
        )
    chosen = set(overrides)
    for option in _values(overrides["sweep"]) if "sweep" in overrides else []:
        file = CONF / "sweep" / f"{option}.yaml"
        sweep = OmegaConf.load(file) if file.exists() else OmegaConf.create()
        chosen |= set(OmegaConf.select(sweep, "hydra.sweeper.params", default={}))
    settings = _read_best(Path(str(overrides["best"].value())))
    node = {key: value for key, value in settings.items() if not (isinstance(value, dict) and key in chosen)}
    ConfigStore.instance().store(group="best", name="given", package="_global_", node=node)
    return {**overrides, "best": OverridesParser.create().parse_override("best=given")}


def _read_best(path: Path) -> dict[str, Any]:
    """Return the settings of a best.yaml, by default those of this version where an earlier one did not have them."""
    path = path / BEST if path.is_dir() else path
    remedy = f"to write it again: python -m irmas.rank {path.parent}" if path.name == BEST else f"give a whole {BEST}"
    try:
        text = path.read_text()
        content = yaml.safe_load(text)
    except FileNotFoundError:
        remedy = "python -m irmas.rank outputs/<name> writes it, once a run has finished"
        raise UserError(f"best={path}: no such file; {remedy}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"best={path}: is truncated or damaged ({first_line(error)}); {remedy}") from None
    names = flatten(content).keys() if isinstance(content, dict) else set()
    own = Config().flat().keys() - SWEEP_WIDE
    if strange := sorted(names - own):
        raise UserError(f"best={path}: holds {strange[0]}, which is no setting of a {BEST}; {remedy}")
    missing = sorted(own - names)
    if missing and not text.endswith(END.format(len(names))):
        reason = f"is truncated: it lacks {missing[0]}" if names else "is empty, or holds no settings"
        raise UserError(f"best={path}: {reason}; {remedy}")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), content))
        assert isinstance(config, Config)
        check(config)
    except (OmegaConfBaseException, UserError) as error:
        reason = str(error) if isinstance(error, UserError) else _explain(error)
        raise UserError(f"best={path}: {reason}") from None
    return {key: value for key, value in asdict(config).items() if key not in SWEEP_WIDE}


@contextmanager
def explained() -> Iterator[None]:
    """Raise UserError, in one message, for what Hydra or OmegaConf refuses in the block."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error


def _explain(error: Exception) -> str:
    """Return key, value and what is allowed, in one message, of what Hydra or OmegaConf refused."""
    cause = error.__cause__ or error
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0].partition(" expecting ")[0]
        return (
            f"{error.override}: cannot be read as key=value ({reason}); commas without spaces separate the values of a "
            "sweep, special characters are quoted for the shell and once more, as in 'data.root=\"my clips\"'; "
            "$HOME stands for your folder, ~ does not"
        )
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={option}: must be one of {', '.join(sorted(error.options))}"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return _explain_value(cause, str(cause.full_key), str(cause).splitlines()[0])
    lines = [line.strip() for text in (str(error), str(error.__cause__ or "")) for line in text.splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("object_type"))


def _explain_value(error: OmegaConfBaseException, key: str, reason: str) -> str:
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and error.parent_node is not None:
        names = [str(name) for name in error.parent_node if name != "_target_"]
        setting = key.removeprefix(PREFIX)
        if key.startswith(PREFIX) and setting in RENAMED:
            return f"{key}: was renamed; give {PREFIX}{RENAMED[setting]}"
        owners = [name for name, schema in LAUNCHERS.items() if setting in rules(schema)]
        reason = f"only hydra/launcher={owners[0]} takes it" if owners else "there is no such setting"
        return f"{key}: {reason}; settings: {' '.join(names)}"
    allowed = {key: rule for schema in (Config, Prepare) for key, rule in rules(schema).items()}
    allowed |= {f"{PREFIX}{key}": rule for schema in LAUNCHERS.values() for key, rule in rules(schema).items()}
    if names := [name.removeprefix(f"{key}.") for name in allowed if name.startswith(f"{key}.")]:
        return f"{key}: has settings: {' '.join(names)}"
    value = re.match("Value '(.*)' (?:of type|is not a valid)", reason)
    rule = allowed.get(re.sub(r"\[\d+\]$", "", key))
    return f"{key}{f'={value[1]}' if value else ''}: {f'must be {rule.text}' if rule else reason}"
