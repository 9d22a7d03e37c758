"""The settings of a run: one dataclass per group of `conf/`, each field with its default, its rule and its text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from math import inf
from operator import attrgetter
from typing import Annotated, Any, get_args, get_type_hints

from irmas.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """The values that a setting may have, in the annotation of its field: `Annotated[int, whole(1, 9)]`."""

    holds: Callable[[Any], bool]
    """Function that returns whether a value of the setting's type is allowed; for one of another type it may raise."""
    text: str
    """The allowed values, in words that follow "must be"."""

    def allows(self, value: object) -> bool:
        """Return whether the setting may have a value, of whatever type: lists take anything."""
        try:
            return self.holds(value)
        except (TypeError, AttributeError, ValueError, OverflowError, OSError):
            return False


def shown(value: object) -> str:
    """Return a value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{shown(entry)}" for key, entry in value.items()) + "}"
    return str(value)


def brief(value: object) -> str:
    """Return a value for a table or a picture: as `shown`, but fractions with four significant digits at most."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(brief, value)) + "]"
    return shown(float(f"{value:.4g}") if isinstance(value, float) else value)


def one_of(*allowed: str | bool) -> Rule:
    listed = ", ".join(map(shown, allowed))
    return Rule(lambda value: value in allowed, f"one of {listed}" if len(allowed) > 1 else listed)


def whole(low: int, high: float = inf) -> Rule:
    text = f"a whole number from {low}" + (f" to {high}" if high < inf else "")
    return Rule(lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high, text)


def number(low: float, high: float) -> Rule:
    return Rule(lambda value: low <= value <= high, f"a number from {low:g} to {high:g}")


def positive(high: float) -> Rule:
    return Rule(lambda value: 0 < value <= high, f"a number above 0, at most {high:g}")


def path(text: str, *, empty: bool = False) -> Rule:
    """An empty path would be the working directory, and ~ a folder of that name."""
    return Rule(
        lambda value: value.isprintable() and (value != "" or empty) and not value.startswith("~"),
        f"{text}, without line breaks or a leading ~ ($HOME/... is expanded by the shell)",
    )


FLAG = one_of(True, False)
SEED = whole(0, 2**31 - 1)
SHARE = Rule(lambda value: 0 <= value < 1, "at least 0 and less than 1")
NAME = Rule(
    lambda value: bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=,-]{0,99}", value)),
    "up to 100 letters, digits and . _ + = , - that begin with a letter or digit",
)
NOTE = Rule(lambda value: len(value) <= 200 and value.isprintable(), "one line of up to 200 characters")
SPLIT = Rule(
    lambda value: value in ("recording", "clip", "all") or (value.endswith(".csv") and value.isprintable()),
    "recording, clip, all, or the path of a .csv with the columns name and part",
)
FILTERS = Rule(
    lambda value: 1 <= len(value) <= 12 and all(1 <= filters <= 4096 for filters in value),
    "a list of 1 to 12 whole numbers from 1 to 4096, as in [32,64,128,256]",
)
BUILDER = Rule(
    lambda value: bool(re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", value)),
    "the name of a function as in mylab.nets:build",
)
ARGUMENTS = Rule(
    lambda value: value is None or (isinstance(value, Mapping) and all(str(key).isidentifier() for key in value)),
    "arguments by name, as in {width: 32}, or null",
)


@dataclass
class Data:
    """The excerpts, and those of them that validate."""

    source: Annotated[str, one_of("irmas", "standin", "folder")] = "irmas"
    """`irmas` (its own layout and names), `standin` (rendered in that layout) or `folder` (one subfolder per class)."""
    root: Annotated[str, path("a folder with a subfolder for each class", empty=True)] = "data/IRMAS-TrainingData"
    """The folder with one subfolder per class; for the stand-in, the folder of its corpora."""
    cache: Annotated[str | None, path("the folder of a feature cache")] = None
    """A ready-made feature cache, read-only; its features.json replaces the features group."""
    cache_dir: Annotated[str, path("a folder")] = "data/cache"
    """The folder of the feature caches that irmas builds."""
    split: Annotated[str, SPLIT] = "recording"
    """`recording`, `clip` (leaks), `all` (the validation excerpts are trained on too), or a csv with the columns name
    and part (train or validation)."""
    fold: Annotated[int, whole(0, 4)] = 0
    """The fold of five that validates. Several values are repetitions of a point, like several seeds."""
    seed: Annotated[int, SEED] = 0
    """Seed for assigning recordings to folds."""
    conflicts: Annotated[str, one_of("keep", "drop")] = "keep"
    """`keep` or `drop` excerpts whose identical twin has another label."""
    damaged: Annotated[str, one_of("refuse", "drop")] = "refuse"
    """`refuse` data with files that cannot be used (empty, truncated, silent, no sound), or `drop` these files."""
    pool: Annotated[int, whole(1, 64)] = 1
    """Side of the square blocks of bins that are averaged."""
    recordings: Annotated[str | None, path("the path of a csv with the columns name and recording")] = None
    """data=folder only: a csv with the columns name and recording; without it a file's stem is its recording."""
    size: Annotated[int | None, whole(33, 20_000)] = None
    """data=standin only: number of excerpts to render."""
    render_seed: Annotated[int | None, SEED] = None
    """data=standin only: seed of the music."""


@dataclass
class Features:
    """The front end: waveform -> log-mel spectrogram in dB under the excerpt's own maximum."""

    sample_rate: Annotated[int, whole(1_000, 192_000)] = 22050
    """Sample rate in Hz; files of another rate are resampled."""
    n_fft: Annotated[int, whole(16, 65_536)] = 2048
    """Samples in the window of a frame."""
    hop_length: Annotated[int, whole(1, 65_536)] = 296
    """Samples between frames; 296 gives 224 frames in three seconds."""
    n_mels: Annotated[int, whole(1, 1_024)] = 224
    """Number of mel bands."""
    seconds: Annotated[float, positive(600)] = 3.0
    """Length of an excerpt; longer files are cut, shorter ones padded with silence."""
    mel_scale: Annotated[str, one_of("slaney", "htk")] = "slaney"
    """Scale of the bands' centers."""
    mel_norm: Annotated[str | None, one_of("slaney")] = "slaney"
    """`slaney`: each band's filter has unit area."""
    top_db: Annotated[float, number(1, 200)] = 80.0
    """Dynamic range in dB; everything further below the maximum is clipped."""
    resampling: Annotated[str | None, one_of("kaiser_best", "hann")] = "kaiser_best"
    """`kaiser_best` (close to librosa's) or `hann` (torchaudio's default, faster); null where a cache does not say."""
    dtype: Annotated[str, one_of("uint8", "float16")] = "uint8"
    """Type of a bin in the cache: `uint8` (steps of top_db / 255) or `float16`."""

    @property
    def n_samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def n_frames(self) -> int:
        """Frames of a centered transform."""
        return 1 + self.n_samples // self.hop_length

    @property
    def scale(self) -> float:
        """Factor in dB = scale * stored + offset."""
        return self.top_db / 255 if self.dtype == "uint8" else 1.0

    @property
    def offset(self) -> float:
        return -self.top_db if self.dtype == "uint8" else 0.0


@dataclass
class Model:
    """VGG-like: blocks of convolution, batch norm, ReLU and max pool; global pooling; dense; dropout; classes."""

    filters: Annotated[list[int], FILTERS] = field(default_factory=lambda: [32, 64, 128, 256])
    """Filters of each block."""
    convs_per_block: Annotated[int, whole(1, 8)] = 1
    """Convolutions in each block; the net's first one is 5 x 5, all others are 3 x 3."""
    pooling: Annotated[str, one_of("average", "max")] = "average"
    """Global `average` or `max` pooling."""
    dense: Annotated[int, whole(1, 65_536)] = 256
    """Units of the hidden layer."""
    rolls: Annotated[int, whole(1, 64)] = 1
    """Versions of an excerpt, rolled along its frames by equal parts, whose probabilities are averaged when validating,
    evaluating and predicting."""
    builder: Annotated[str | None, BUILDER] = None
    """A net of one's own in place of this one: the function that makes it, found on PYTHONPATH. Of the other settings
    of the net, and of dropout, only rolls applies to it."""
    # Untyped, because Hydra adds no keys to a dictionary.
    args: Annotated[Any, ARGUMENTS] = None
    """Arguments of the builder, as in `'model.args={width: 32}'`."""


@dataclass
class Augment:
    """SpecAugment, whose widths are the largest share of the axis that one mask hides, and rolled frames."""

    freq_masks: Annotated[int, whole(0, 20)] = 2
    """Masks over bands, drawn for each excerpt."""
    freq_width: Annotated[float, SHARE] = 0.1
    """Largest share of the bands that one mask hides."""
    time_masks: Annotated[int, whole(0, 20)] = 2
    """Masks over frames, drawn for each excerpt."""
    time_width: Annotated[float, SHARE] = 0.1
    """Largest share of the frames that one mask hides."""
    roll: Annotated[bool, FLAG] = False
    """Rolling of each excerpt along its frames, in a circle, by a random number of them."""


@dataclass
class Search:
    """The points that a sweep trains: every combination of its values, or as many as are drawn."""

    method: Annotated[str, one_of("none", "random", "tpe")] = "none"
    """`none` (every combination), `random` (a scrambled Sobol sequence, which fills the space evenly) or `tpe` (each
    run chooses its point when it starts, by Optuna's TPE from the results so far)."""
    runs: Annotated[int | None, whole(1, 10_000)] = None
    """search=random and search=tpe only: number of points, each of which all swept seeds and folds repeat (random); a
    larger number extends the sweep."""
    seed: Annotated[int | None, SEED] = None
    """search=random and search=tpe only: seed of the points."""


@dataclass
class Config:
    """One training run."""

    dropout: Annotated[float, SHARE] = 0.4
    """Dropout before the last layer."""
    lr: Annotated[float, positive(10)] = 0.001
    """Adam's learning rate; the highest one where schedule=onecycle. Muon's is 50 times as high."""
    l2: Annotated[float, number(0, 10)] = 0.0001
    """Weight of the penalty l2 * sum(w^2) over the kernels that Adam trains, added to the loss as Keras does."""
    epochs: Annotated[int, whole(1, 100_000)] = 15
    """Passes over the training part."""
    batch_size: Annotated[int, whole(2, 65_536)] = 32
    """Excerpts per step; the batches of an epoch differ by one excerpt at most."""
    seed: Annotated[int, SEED] = 0
    """Seed of the initial weights, the order of excerpts, dropout and masks, together with the run's own settings: two
    runs with the same seed share none of them."""
    name: Annotated[str | None, NAME] = None
    """Name of the sweep, in `outputs/<name>`; null makes one from the swept keys and a digest of plan and data."""
    note: Annotated[str | None, NOTE] = None
    """A line about the sweep, shown wherever it is listed; a rerun with another note replaces it, without one keeps it.
    """
    device: Annotated[str, one_of("auto", "cuda", "cpu")] = "auto"
    """`auto`: a GPU where there is one. A run that was allocated a GPU and does not see it fails."""
    allow_code_change: Annotated[bool, FLAG] = False
    """Permission to train the rest of a sweep with the present source of the package, in place of the sweep's copy."""
    schedule: Annotated[str, one_of("constant", "plateau", "onecycle")] = "constant"
    """Learning-rate schedule: `plateau` halves the rate after every third epoch without a new lowest val/loss;
    `onecycle` rises to lr and falls to nearly zero, step by step."""
    optimizer: Annotated[str, one_of("adam", "muon")] = "adam"
    """`muon` trains the kernels of the convolutions, but for the first one, by Muon, and the rest by Adam."""
    class_weights: Annotated[bool, FLAG] = True
    """Weighting of the loss by inverse class frequencies."""
    label_smoothing: Annotated[float, SHARE] = 0.0
    """Share of each target that is spread evenly over all classes, in train/loss too."""
    points: Annotated[str | None, path("the path of a csv with one row per point, whose columns are settings")] = None
    """A csv of points to train: one row per point, its columns are settings or groups; an empty cell leaves its key
    alone."""
    halving: Annotated[int | None, whole(2, 100)] = None
    """Successive halving (ASHA): a run passes a rung only if it is among the best 1 / halving so far."""
    data: Data = field(default_factory=Data)
    features: Features = field(default_factory=Features)
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    search: Search = field(default_factory=Search)

    def flat(self) -> dict[str, Any]:
        """Return all settings by dotted key, the inverse of `from_flat`."""
        return flatten(asdict(self))


@dataclass
class Prepare:
    """The settings of `python -m irmas.prepare`."""

    download: Annotated[bool, FLAG] = False
    """Download of IRMAS before it is verified."""
    data: Data = field(default_factory=Data)
    features: Features = field(default_factory=Features)


SEARCH = frozenset({"points", "search.method", "search.runs", "search.seed"})
"""Settings that say which runs a sweep has."""
SWEEP_WIDE = SEARCH | {"name", "note", "device", "allow_code_change", "halving", "search"}
"""Settings that are one for the whole sweep, and belong neither to a point nor to a winner."""
FOLD = "data.fold"
REPETITIONS = ("seed", FOLD)
"""Settings whose values repeat a point: runs that differ in them alone belong to the same one."""
WITHOUT_EFFECT = SEARCH | {"name", "note", "device", "allow_code_change", "data.root", "data.cache", "data.cache_dir"}
"""Settings that change no run's result (a digest identifies the data's content), and are not part of its identity."""


@cache
def rules(schema: type) -> Mapping[str, Rule]:
    """Return the rule of each setting of a dataclass, by dotted key; null is allowed where the type has None."""
    collected: dict[str, Rule] = {}
    for name, hint in get_type_hints(schema, include_extras=True).items():
        if hasattr(hint, "__dataclass_fields__"):
            collected |= {f"{name}.{key}": rule for key, rule in rules(hint).items()}
        for rule in getattr(hint, "__metadata__", ()):
            collected[name] = _or_null(rule) if type(None) in get_args(hint.__origin__) else rule
    return collected


def _or_null(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.allows(value), f"{rule.text}, or null")


def rule(key: str) -> Rule:
    """Return the rule of a run's setting."""
    return rules(Config)[key]


def check_rules(settings: Any, prefix: str = "") -> None:
    """Raise ConfigError for the first value in a dataclass that breaks its rule; `prefix` stands before its key."""
    schema: type = type(settings)
    for key, rule in rules(schema).items():
        value = attrgetter(key)(settings)
        if not rule.allows(value):
            raise ConfigError(f"{prefix}{key}", shown(value), f"must be {rule.text}")


def check(config: Config | Prepare) -> None:
    """Raise ConfigError for the first value that breaks its rule, or that does not go with another one."""
    check_rules(config)
    data, features = config.data, config.features
    if isinstance(config, Config) and config.halving is not None and config.halving > config.epochs:
        raise ConfigError("halving", config.halving, f"must be at most epochs={config.epochs}")
    if isinstance(config, Config):
        check_search(config.search)
    for key, source in {"size": "standin", "render_seed": "standin", "recordings": "folder"}.items():
        if getattr(data, key) is not None and data.source != source:
            raise ConfigError(f"data.{key}", getattr(data, key), f"only data={source} takes it")
    if data.source == "standin" and None in (data.size, data.render_seed):
        raise ConfigError("data.size", "null", "data=standin needs data.size and data.render_seed")
    if data.source == "standin" and not data.root:
        raise ConfigError("data.root", "", "must be a folder")
    if isinstance(config, Config) and config.model.args is not None and config.model.builder is None:
        raise ConfigError("model.args", shown(config.model.args), "only a net of model.builder=... takes arguments")
    if data.split.endswith(".csv") and data.fold:
        raise ConfigError("data.fold", data.fold, "a split from a csv has no folds")
    if data.cache is not None and data.damaged == "drop":
        raise ConfigError("data.damaged", "drop", "data.cache=... is used as it is")
    if features.n_samples < 1 or features.n_frames > 65_536:
        raise ConfigError("features.seconds", features.seconds, "must give 1 to 65536 frames, see hop_length")
    if data.cache is None and features.resampling is None:
        raise ConfigError("features.resampling", "null", "must be kaiser_best or hann")


def check_search(search: Search) -> None:
    """Raise ConfigError for the first value that breaks its rule, or that does not go with the method."""
    check_rules(search, "search.")
    for key in ("runs", "seed"):
        value = getattr(search, key)
        if value is not None and search.method == "none":
            raise ConfigError(f"search.{key}", value, "only search=random and search=tpe take it")
        if value is None and search.method != "none":
            raise ConfigError(f"search.{key}", "null", f"search={search.method} needs it")


def first_difference(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Return the first key, in alphabetical order, by which two flat configurations train another run.

    A setting that one of them lacks has its default there, as in `from_flat`.
    """
    default = Config().flat()
    keys = sorted((saved.keys() | current.keys()) - WITHOUT_EFFECT)
    return next((key for key in keys if saved.get(key, default.get(key)) != current.get(key, default.get(key))), None)


def run_digest(config: Config) -> str:
    """Return the digest, 16 hexadecimal digits, of the settings that change a run's result, without its seed.

    Only settings that differ from their defaults enter, so that a setting that is added later changes no digest.
    Neither path nor content of a split or a list of recordings enters.
    """
    defaults = Config().flat()
    unused = WITHOUT_EFFECT | {"seed", "halving", "data.recordings"}
    changed = {key: value for key, value in config.flat().items() if value != defaults[key] and key not in unused}
    if changed.get("data.split", "").endswith(".csv"):
        changed["data.split"] = "csv"
    return hashlib.sha256(json.dumps(sorted(changed.items())).encode()).hexdigest()[:16]


def anneals(schedule: str) -> bool:
    """Return whether the learning rate ends near zero."""
    return schedule == "onecycle"


def averaged_epochs(schedule: str, epoch: int) -> int:
    """Return the number of epochs, up to `epoch`, over which the ranked validation accuracy is averaged.

    A third of them, rounded up, at most five; only the last one where the learning rate ends near zero, since the
    epochs before it are worse by training less.
    """
    return 1 if anneals(schedule) else min(-(-epoch // 3), 5)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted keys; lists and the arguments of a builder stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        is_group = isinstance(value, Mapping) and f"{prefix}{key}" != "model.args"
        flat |= flatten(value, f"{prefix}{key}.") if is_group else {f"{prefix}{key}": value}
    return flat


def from_flat(flat: Mapping[str, Any]) -> Config:
    """Return the configuration with these settings, the inverse of `Config.flat`.

    A setting that an earlier version did not have takes its default, which must therefore be the earlier behavior.
    Raises ConfigError for a key that this version does not have.
    """
    config = Config()
    for key in sorted(flat.keys() - config.flat().keys()):
        raise ConfigError(key, shown(flat[key]), "is a setting of another version of irmas")
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        setattr(getattr(config, group) if group else config, name, value)
    return config
