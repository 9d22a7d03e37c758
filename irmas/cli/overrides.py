"""The doors that take Hydra overrides: wrong ones are refused in one message, before anything is written."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from irmas.config import OF_THE_COMMAND, RULES, Config, Prepare, check, flatten, setting_names
from irmas.errors import UserError, first_line
from irmas.exit import Parser, report_errors
from irmas.results.best import SETTINGS
from irmas.sweep.sweep import BEST

if TYPE_CHECKING:
    from hydra_plugins.irmas_launcher import IrmasLauncher

CONF = Path(__file__).parents[1] / "conf"
typed: list[str] = []
"""Overrides of this process's command line, as they were typed: Hydra is given others in their place."""
HYDRAS_OWN = re.compile(r"hydra/(launcher|sweeper)|hydra\.(launcher|sweeper)\.(?!_).+")


def run(door: str, schema: type[Config | Prepare], task: Callable[[DictConfig], Any]) -> None:
    """Compose `conf/<door>.yaml` with the command line and hand it to `task` or, for a sweep, to the launcher.

    Ends the process with 2 after a mistake of the user's: one message on stderr, nothing written.
    """

    told = partial(report_errors, f"irmas.{door}", "stopped; the same command goes on")

    def guarded(config: DictConfig) -> None:
        with told():  # here, since Hydra would print a line of its own first
            task(config)

    ConfigStore.instance().store(name="schema" if schema is Config else "prepare_schema", node=schema)
    # Otherwise Hydra reports errors itself, and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as orderly as Ctrl-C
    with told():
        try:
            typed[:] = _read_command_line(schema)
            overrides = OverridesParser.create().parse_overrides(typed)
            _check_overrides(overrides, schema)
            given = {override.key_or_group: override for override in overrides}
            if "best" in given:
                _take_best(given)
            if schema is Config and "hydra/launcher" not in given:
                sys.argv.append(f"hydra/launcher={default_launcher()}")
            hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name=door)(guarded)()
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_in_our_words(error)) from error


def default_launcher() -> str:
    return "slurm" if shutil.which("sbatch") else "local"


def launcher(words: Sequence[str]) -> IrmasLauncher:
    """Return the launcher that `words` describe, overrides of hydra/launcher and of hydra.launcher.*, as `irmas.train`
    takes them. Raises UserError."""
    ConfigStore.instance().store(name="schema", node=Config)
    try:
        given = OverridesParser.create().parse_overrides(list(words))
        _check_overrides(given, Config)
        for override in given:
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: is one for the whole sweep")
        if all(override.key_or_group != "hydra/launcher" for override in given):
            words = [f"hydra/launcher={default_launcher()}", *words]
        with hydra.initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            config = hydra.compose("train", list(words), return_hydra_config=True)
            found: IrmasLauncher = instantiate(config.hydra.launcher)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_in_our_words(error)) from error
    found.words = list(words)
    return found


def _read_command_line(schema: type[Config | Prepare]) -> list[str]:
    """The overrides; what remains for Hydra to read has them behind the options, where it wants them.

    Hydra's options that bring other configurations along are not taken; one of them would load a pickle.
    """
    parser = get_args_parser()
    parser.prog = f"python -m irmas.{'train' if schema is Config else 'prepare'}"
    parser.error = Parser.error.__get__(parser)  # type: ignore[method-assign]
    arguments = parser.parse_intermixed_args()
    if arguments.multirun and schema is Prepare:
        raise UserError("-m: one data set at a time is prepared; irmas.train prepares all that a sweep needs")
    for option in ("config_path", "config_name", "config_dir", "experimental_rerun", "run", "shell_completion"):
        if getattr(arguments, option):
            raise UserError(f"--{option.replace('_', '-')}: is not taken here; settings are given as key=value")
    if (arguments.resolve or arguments.package) and not arguments.cfg:
        raise UserError("--resolve and --package: are for --cfg job")
    overrides: list[str] = arguments.overrides
    options = [word for word in sys.argv[1:] if word not in (*overrides, "-m", "--multirun", "--")]
    is_shown = arguments.cfg or arguments.info or arguments.help or arguments.hydra_help
    # A run is a sweep of one. Unless Hydra hears so, a wrong setting of the launcher makes it refuse commas instead.
    mode = ["-m"] if schema is Config and not is_shown else []
    # Without the --, --info would take the first override for what it is to show.
    sys.argv = [sys.argv[0], *mode, *options, "--", *overrides]
    return overrides


def _check_overrides(overrides: Iterable[Override], schema: type[Config | Prepare]) -> None:
    """Raise UserError for a key that is neither a setting nor a group, or that would be added or deleted.

    Hydra itself advises `+key=value` for a wrong key, and then runs with the default value. Of its own settings
    the launcher's and the sweeper's are taken; others write files, load plugins or call functions.
    """
    groups = {path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"} | {"best"}
    if schema is Prepare:
        groups -= {"model", "augment", "recipe", "sweep", "best"}
    settings = set(setting_names(schema)) - groups
    launchers = sorted(path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml"))
    given: set[str] = set()
    for override in overrides:
        key = override.key_or_group
        if key in given:
            raise UserError(f"{override.input_line}: {key} is given twice")
        given.add(key)
        if key == "hydra/sweeper" and override.value() == "basic":
            raise UserError(f"{override.input_line}: hydra/sweeper=grid does the same, and checks before it writes")
        if key == "hydra/launcher" and override.value() not in launchers:
            raise UserError(f"{override.input_line}: must be one of {', '.join(launchers)}")
        if key == "best" and not (isinstance(override.value(), str) and override.value()):
            raise UserError(f"{override.input_line}: must be the folder of one sweep, or its {BEST}")
        if key in groups and None in _values(override):
            options = sorted(path.stem for path in (CONF / key).glob("*.yaml"))
            raise UserError(f"{override.input_line}: must be one of {', '.join(options)}")
        if key.partition(".")[0].partition("/")[0] == "hydra":
            if schema is Prepare or not HYDRAS_OWN.fullmatch(key):
                raise UserError(
                    f"{override.input_line}: of Hydra's own settings only hydra/launcher, hydra/sweeper and theirs, as "
                    "in hydra.launcher.partition=..., are taken, and those by irmas.train alone"
                )
            if key.startswith("hydra.sweeper."):
                continue  # a sweeper of others may want its own added
        elif key not in settings | groups:
            guesses = get_close_matches(key, settings | groups, n=2)
            hint = f"; did you mean {' or '.join(guesses)}?" if guesses else ""
            raise UserError(
                f"{override.input_line}: there is no setting {key!r}{hint}\n"
                f"  settings: {' '.join(sorted(settings))}\n  groups: {' '.join(sorted(groups))}"
            )
        if override.is_add() or override.is_force_add() or override.is_delete() or override.package:
            raise UserError(
                f"{override.input_line}: settings are only given a value, as in {key}=...; "
                "none is added, deleted or moved with + ++ ~ @"
            )


def _take_best(given: Mapping[str, Override]) -> None:
    """Let Hydra find what `best=<path>` names, below the settings of `sweep=` and of the command line.

    Its settings of a group whose option is chosen or swept give way as a whole.
    Raises UserError for a file that cannot be read or is not sound.
    """
    if "recipe" in given:
        raise UserError(
            f"{given['recipe'].input_line}: best={given['best'].value()} brings a recipe of its own; "
            "what is to differ from it is given one by one, as in lr=0.002 schedule=onecycle model=deep"
        )
    chosen, path = set(given), given["best"].value()
    assert isinstance(path, str)
    if "sweep" in given:
        for option in _values(given["sweep"]):
            file = CONF / "sweep" / f"{option}.yaml"
            sweep = OmegaConf.load(file) if file.exists() else OmegaConf.create()
            chosen |= set(OmegaConf.select(sweep, "hydra.sweeper.params", default={}))
    settings = _read_best(Path(path))
    node = {key: value for key, value in settings.items() if not (isinstance(value, dict) and key in chosen)}
    ConfigStore.instance().store(group="best", name="given", package="_global_", node=node)
    sys.argv = ["best=given" if argument == given["best"].input_line else argument for argument in sys.argv]


def _read_best(path: Path) -> dict[str, Any]:
    path = path / BEST if path.is_dir() else path
    anew = f"python -m irmas.rank {path.parent} writes it anew" if path.name == BEST else f"it must be a whole {BEST}"
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"best={path}: is not there; python -m irmas.rank outputs/<name> writes it, once a run has finished"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"best={path}: is cut or damaged ({first_line(error)}); {anew}") from None
    names = flatten(found).keys() if isinstance(found, dict) else set()
    if strange := sorted(names - set(SETTINGS)):
        raise UserError(f"best={path}: holds {strange[0]}, which is no setting of a {BEST}; {anew}")
    if missing := sorted(set(SETTINGS) - names):
        what = f"is cut or of an earlier version: it lacks {missing[0]}" if names else "is empty, or holds no settings"
        raise UserError(f"best={path}: {what}; {anew}")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), found))
        assert isinstance(config, Config)
        check(config)
    except (OmegaConfBaseException, UserError) as error:
        reason = str(error) if isinstance(error, UserError) else _in_our_words(error)
        raise UserError(f"best={path}: {reason}") from None
    return {key: value for key, value in asdict(config).items() if key not in OF_THE_COMMAND}


def _values(override: Override) -> list[Any]:
    value = override.value()
    return value.list if isinstance(value, ChoiceSweep) else [value]


def _in_our_words(error: Exception) -> str:
    """What Hydra or OmegaConf refused -> key, value and what is allowed, in one message."""
    cause = error.__cause__ or error
    if isinstance(error, OverrideParseException):
        said = str(error).splitlines()[0].partition(" expecting ")[0]
        return (
            f"{error.override}: cannot be read as key=value ({said}); commas without spaces separate the values of a "
            "sweep, special characters are quoted for the shell and once more, as in 'data.root=\"my clips\"'"
        )
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={option}: must be one of {', '.join(sorted(error.options))}"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return _typed(cause, str(cause.full_key), str(cause).splitlines()[0])
    lines = [line.strip() for text in (str(error), str(error.__cause__ or "")) for line in text.splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("object_type"))


def _typed(error: OmegaConfBaseException, key: str, reason: str) -> str:
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and error.parent_node is not None:
        names = [str(name) for name in error.parent_node if name != "_target_"]
        return f"{key}: there is no such setting; settings: {' '.join(names)}"
    value = re.match("Value '(.*)' (?:of type|is not a valid)", reason)
    given = f"={value[1]}" if value else ""
    rule = RULES.get(re.sub(r"\[\d+\]$", "", key))
    return f"{key}{given}: must be {rule[1]}" if rule else f"{key}{given}: {reason}"
