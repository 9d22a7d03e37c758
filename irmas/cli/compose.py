"""Overrides -> typed, checked configurations; the plan and everything below it do not know Hydra."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from irmas.cli.overrides import explained
from irmas.config import FOLD, SWEEP_WIDE, Config, check, shown
from irmas.data.dataset import resolve
from irmas.errors import ConfigError, UserError
from irmas.sweep.plan import PlannedRun, expand

EARLY = ("data.", "features.", "model.builder", "model.args")
"""Settings by which data is made, and nets are checked, before any run starts."""


class Composer:
    """Composes the configurations of one command line.

    Of its `overrides`, by key and without Hydra's own, those that sweep no values are the same for every run. `origins`
    names the places in a file of overrides that stand there, for messages.
    """

    def __init__(
        self,
        loader: ConfigLoader,
        master: DictConfig,
        overrides: Mapping[str, Override],
        origins: Mapping[str, str] | None = None,
    ) -> None:
        self.loader, self.master, self.origins = loader, master, origins or {}
        self.parser = OverridesParser.create(config_loader=loader)
        self.fixed = {key: str(o.input_line) for key, o in overrides.items() if not o.is_sweep_override()}
        self.tree = self._compose([])
        self.base = self._to_config(self.tree, self.fixed)
        self.flat_base = self.base.flat()
        self.trees: dict[str, DictConfig] = {}

    def runs(self, job_overrides: Sequence[Sequence[str]]) -> list[PlannedRun]:
        """Return the runs. Raises ConfigError for a value that breaks its rule, UserError for one that is repeated."""
        swept = [self._swept(overrides) for overrides in job_overrides]
        runs = expand(self.base, swept, self._change)
        if self.base.search.method == "tpe":  # they are alike until each has chosen its point
            return runs
        seen: set[str] = set()
        for run, overrides in zip(runs, swept, strict=True):
            if str(run.changes) in seen:
                pairs = [f"{key}={text}" for key, text in overrides.items()]
                with self._located(pairs):
                    raise UserError(f"{' '.join(pairs)}: appears twice in the sweep; list each value once")
            seen.add(str(run.changes))
        return runs

    def options(self, values: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Return what runs that choose their points choose from, as `Plan.options` has it.

        Raises ConfigError for a value that breaks its rule, or that data or a source depends on.
        """
        swept = [self._swept([f"{key}={text}" for key, text in pairs.items()]) for pairs in values]
        options = expand(self.base, swept, self._change)
        for option in options:
            for name in option.changes:
                if name.startswith(EARLY):
                    key = next((key for key in option.overrides if name.startswith(key)), name)
                    reason = "is needed before a run starts, and search=tpe chooses then; search=random can draw it"
                    raise ConfigError(key, shown(option.overrides.get(key, option.changes[name])), reason)
        return [{"overrides": option.overrides, "changes": option.changes} for option in options]

    def _swept(self, overrides: Sequence[str]) -> dict[str, str]:
        pairs = (text.partition("=")[::2] for text in overrides)
        swept = {key: value for key, value in pairs if key not in self.fixed}
        for key in swept.keys() & SWEEP_WIDE:
            raise ConfigError(key, swept[key], "cannot be swept; it applies to the whole sweep")
        if FOLD in swept and self.base.halving is not None:
            raise ConfigError("halving", self.base.halving, f"would prune runs whose {FOLD} is harder; give one fold")
        return swept

    def _change(self, overrides: Mapping[str, str]) -> Mapping[str, Any]:
        """Return the flat settings that one setting, or all groups of a run together, change.

        Hydra composes groups; one setting is put in its place, which is 80 times faster.
        """
        pairs = [f"{key}={text}" for key, text in overrides.items()]
        with self._located(pairs):
            flat = self._composed(pairs, overrides).flat()
        return {name: value for name, value in flat.items() if name in overrides or value != self.flat_base[name]}

    def _composed(self, pairs: list[str], overrides: Collection[str]) -> Config:
        key = next(iter(overrides))
        if key in self.flat_base:
            if key not in self.trees:
                self.trees[key] = copy.deepcopy(self.tree)
            tree = self.trees[key]
            OmegaConf.update(tree, key, self.parser.parse_override(pairs[0]).value(), force_add=False)
        else:
            tree = self._compose(pairs)
        return self._to_config(tree, {*overrides, *self.fixed})

    @contextmanager
    def _located(self, pairs: Collection[str]) -> Iterator[None]:
        """Let errors of the block begin with the place in a file where one of these overrides stands, if one does."""
        places = {pair: self.origins[pair] for pair in pairs if pair in self.origins}
        if not places:
            yield
            return
        try:
            with explained():
                yield
        except UserError as error:
            named = next((pair for pair in places if str(error).startswith(pair)), next(iter(places)))
            raise UserError(f"{places[named]}: {error}") from None

    def _compose(self, swept: list[str]) -> DictConfig:
        tree = self.loader.load_sweep_config(self.master, [*self.fixed.values(), *swept])
        with open_dict(tree):
            del tree["hydra"]
        return tree

    def _to_config(self, tree: DictConfig, explicit: Collection[str]) -> Config:
        config = OmegaConf.to_object(tree)
        assert isinstance(config, Config)
        check(config)
        return resolve(config, explicit)
