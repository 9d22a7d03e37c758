"""What the doors that take Hydra overrides share: refusing wrong ones in one message, before anything is written."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from irmas.config import RULES, Config, Prepare, setting_names
from irmas.errors import UserError

CONF = Path(__file__).parent / "conf"


def run(door: str, schema: type[Config | Prepare], task: Callable[[DictConfig], Any]) -> None:
    """Compose `conf/<door>.yaml` with the command line and hand it to `task` or, for a sweep, to the launcher.

    Ends the process with 2 after a mistake of the user's: one message on stderr, nothing written.
    """

    def guarded(config: DictConfig) -> None:
        try:
            task(config)
        except UserError as error:  # here, since Hydra would print a line of its own first
            refuse(f"irmas.{door}", error)

    ConfigStore.instance().store(name="schema" if schema is Config else "prepare_schema", node=schema)
    # Otherwise Hydra reports errors itself, and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as orderly as Ctrl-C
    try:
        arguments = get_args_parser().parse_args()
        if arguments.multirun and schema is Prepare:
            raise UserError("-m: one data set at a time is prepared; irmas.train prepares all that a sweep needs")
        _check_overrides(arguments.overrides, schema)
        if schema is Config and shutil.which("sbatch") and not _names_a_launcher(arguments.overrides):
            sys.argv.append("hydra/launcher=slurm")
        hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name=door)(guarded)()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        refuse(f"irmas.{door}", error)
    except KeyboardInterrupt:
        print(f"\nirmas.{door}: stopped; the same command goes on", file=sys.stderr)  # noqa: T201
        raise SystemExit(130) from None


def _names_a_launcher(overrides: Iterable[str]) -> bool:
    return any(override.startswith("hydra/launcher=") for override in overrides)


def refuse(door: str, error: Exception) -> NoReturn:
    """Print a user's mistake without a traceback, and exit with 2."""
    message = str(error) if isinstance(error, UserError) else _in_our_words(error)
    print(f"{door}: {message}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


def _check_overrides(overrides: Iterable[str], schema: type[Config | Prepare]) -> None:
    """Raise UserError for a key that is neither a setting nor a group, or that would be added or deleted.

    Hydra itself advises `+key=value` for a wrong key, and then runs with the default value.
    """
    groups = {path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"}
    if schema is Prepare:
        groups -= {"model", "augment", "sweep"}
    settings = set(setting_names(schema)) - groups
    launchers = sorted(path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml"))
    given: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if key in given:
            raise UserError(f"{override.input_line}: {key} is given twice")
        given.add(key)
        if key == "hydra/sweeper" and override.value() == "basic":
            raise UserError(f"{override.input_line}: hydra/sweeper=grid does the same, and checks before it writes")
        if key == "hydra/launcher" and override.value() not in launchers:
            raise UserError(f"{override.input_line}: must be one of {', '.join(launchers)}")
        if key.startswith(("hydra.", "hydra/")):
            continue
        if key not in settings | groups:
            guesses = get_close_matches(key, settings | groups, n=2)
            hint = f"did you mean {' or '.join(guesses)}? " if guesses else ""
            raise UserError(
                f"{override.input_line}: there is no setting {key!r}; {hint}\n"
                f"  settings: {' '.join(sorted(settings))}\n  groups: {' '.join(sorted(groups))}"
            )
        if override.is_add() or override.is_force_add() or override.is_delete() or override.package:
            raise UserError(
                f"{override.input_line}: settings are only given a value, as in {key}=...; "
                "none is added, deleted or moved with + ++ ~ @"
            )


def _in_our_words(error: Exception) -> str:
    """What Hydra or OmegaConf refused -> key, value and what is allowed, in one message."""
    cause = error.__cause__ or error
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value ({str(error).splitlines()[0]})"
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
