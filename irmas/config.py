"""What a run is made of: one dataclass per group of `conf/`, and the rules their values must keep."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from irmas.errors import ConfigError


@dataclass
class Data:
    """Which excerpts, and which of them validate."""

    source: str = "irmas"
    """`irmas` (its own layout and names), `standin` (rendered in that layout), `folder` (a subfolder a class)."""
    root: str = "data/IRMAS-TrainingData"
    """The folder that holds a subfolder for each class; for the stand-in, the folder that holds its corpora."""
    cache: str | None = None
    """A ready-made feature cache, read-only; its features.json takes the place of the features group."""
    cache_dir: str = "data/cache"
    """Where the caches that are made here are kept."""
    split: str = "recording"
    """`recording`, `clip` (leaks), `all` (what validates trains too), or a csv with the columns name and part (train or
    validation)."""
    fold: int = 0
    """Which of the five folds validates."""
    seed: int = 0
    """Deals the folds; nothing else depends on it."""
    conflicts: str = "keep"
    """`keep` or `drop` excerpts whose identical twin carries another label."""
    damaged: str = "refuse"
    """`refuse` to go on, or `drop`, where files cannot be used: empty, cut, silent, no sound."""
    pool: int = 1
    """Averages blocks of pool x pool bins."""
    recordings: str | None = None
    """data=folder only: a csv with the columns name and recording; without it a file's stem is its recording."""
    size: int | None = None
    """data=standin only: how many excerpts to render."""
    render_seed: int | None = None
    """data=standin only."""


@dataclass
class Features:
    """The front end: waveform -> log-mel spectrogram in dB under the excerpt's own maximum."""

    sample_rate: int = 22050
    """In Hz: files of another rate are resampled."""
    n_fft: int = 2048
    """Samples of a frame's window."""
    hop_length: int = 296
    """Samples from frame to frame: 224 frames in three seconds."""
    n_mels: int = 224
    """Bands."""
    seconds: float = 3.0
    """Of each excerpt: longer files are cut, shorter ones padded with silence."""
    mel_scale: str = "slaney"
    """Of the bands' centres."""
    mel_norm: str | None = "slaney"
    """Whether a band's filter has unit area."""
    top_db: float = 80.0
    """Everything further under the maximum is clipped."""
    resampling: str | None = "kaiser_best"
    """`kaiser_best` (close to librosa's) or `hann` (torchaudio's default, faster); null where a cache does not say."""
    dtype: str = "uint8"
    """How the cache stores a bin: `uint8` (steps of top_db / 255) or `float16`."""

    @property
    def n_samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def n_frames(self) -> int:
        """Frames of a centred transform."""
        return 1 + self.n_samples // self.hop_length

    @property
    def scale(self) -> float:
        """dB = scale * stored + offset."""
        return self.top_db / 255 if self.dtype == "uint8" else 1.0

    @property
    def offset(self) -> float:
        return -self.top_db if self.dtype == "uint8" else 0.0


@dataclass
class Model:
    """VGG-like: blocks of convolution, batch norm, ReLU and max pool; global pooling; dense; dropout; classes."""

    filters: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    """One block each."""
    convs_per_block: int = 1
    """Convolutions; the net's first one is 5 x 5, all others are 3 x 3."""
    pooling: str = "average"
    """Global `average` or `max` pooling."""
    dense: int = 256
    """Units of the hidden layer."""


@dataclass
class Augment:
    """SpecAugment; widths are the largest share of the axis that one mask hides."""

    freq_masks: int = 2
    """Of bands, each excerpt's own."""
    freq_width: float = 0.1
    time_masks: int = 2
    """Of frames."""
    time_width: float = 0.1


@dataclass
class Config:
    """One training run."""

    dropout: float = 0.4
    """Before the last layer."""
    lr: float = 0.001
    """Adam's; the highest one where schedule=onecycle."""
    l2: float = 0.0001
    """Adds l2 * sum(w^2) over the kernels to the loss, as Keras does."""
    epochs: int = 15
    """Passes over the training part."""
    batch_size: int = 32
    """Excerpts a step; the batches of an epoch differ by one excerpt at most."""
    seed: int = 0
    """Seed of initial weights, order of excerpts, dropout and masks, together with the run's own settings: two runs of
    one seed share none of them."""
    name: str | None = None
    """The sweep lies in `outputs/<name>`; null makes a name from the swept keys and a digest of plan and data."""
    device: str = "auto"
    """`auto`: a GPU where there is one. A run that was given a GPU and does not see it fails."""
    allow_code_change: bool = False
    """Goes on with a sweep that another source of the package began."""
    schedule: str = "constant"
    """Of the learning rate: `plateau` halves it by each third epoch without a new lowest val/loss; `onecycle` rises to
    lr and falls to nearly zero, step by step."""
    class_weights: bool = True
    """Weights the loss by inverse class frequencies."""
    halving: int | None = None
    """Successive halving (ASHA): a run goes on from a rung only if it is among the best 1 / halving so far."""
    data: Data = field(default_factory=Data)
    features: Features = field(default_factory=Features)
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)


@dataclass
class Prepare:
    """What `python -m irmas.prepare` takes."""

    download: bool = False
    data: Data = field(default_factory=Data)
    features: Features = field(default_factory=Features)


def shown(value: object) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    return str(value)


OF_THE_COMMAND = frozenset({"name", "device", "allow_code_change", "halving"})
"""Settings that are one for the whole sweep, and belong neither to a point nor to a winner."""
NEUTRAL = frozenset({"name", "device", "allow_code_change", "data.root", "data.cache", "data.cache_dir"})
"""Settings that do not change a run's result (the data's content is told by its digest): not part of its identity."""


def _one_of(*allowed: str | bool | None) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in allowed), "one of " + ", ".join(map(shown, allowed))


def _whole(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: low <= value <= high), f"a whole number from {low} to {high}"


def _share(high: float) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: 0 <= value < high), f"a number from 0 up to, not including, {high:g}"


def _path(allowed: str, *, empty: bool = False) -> tuple[Callable[[Any], bool], str]:
    """An empty path would be the working directory."""

    def keeps(value: str | None) -> bool:
        return value is None or (value.isprintable() and (value != "" or empty))

    return keeps, f"{allowed}, without line breaks"


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]{0,99}")

RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dropout": _share(1),
    "lr": (lambda value: 0 < value <= 10, "a number above 0, at most 10"),
    "l2": (lambda value: 0 <= value <= 10, "a number from 0 to 10"),
    "epochs": _whole(1, 100_000),
    "batch_size": _whole(2, 65_536),
    "seed": _whole(0, 2**31 - 1),
    "name": (
        lambda value: value is None or bool(NAME.fullmatch(value)),
        "up to 100 letters, digits and . _ + = , - that begin with a letter or digit",
    ),
    "device": _one_of("auto", "cuda", "cpu"),
    "allow_code_change": _one_of(True, False),
    "class_weights": _one_of(True, False),
    "schedule": _one_of("constant", "plateau", "onecycle"),
    "halving": (lambda value: value is None or 2 <= value <= 100, "a whole number from 2 to 100, or null"),
    "data.source": _one_of("irmas", "standin", "folder"),
    "data.root": _path("a folder with a subfolder for each class", empty=True),
    "data.cache": _path("the folder of a feature cache, or null"),
    "data.cache_dir": _path("a folder"),
    "data.recordings": _path("the path of a csv with the columns name and recording, or null"),
    "data.split": (
        lambda value: value in ("recording", "clip", "all") or (value.endswith(".csv") and value.isprintable()),
        "recording, clip, all, or the path of a .csv with the columns name and part",
    ),
    "data.fold": _whole(0, 4),
    "data.seed": _whole(0, 2**31 - 1),
    "data.conflicts": _one_of("keep", "drop"),
    "data.damaged": _one_of("refuse", "drop"),
    "data.pool": _whole(1, 64),
    "data.size": (lambda value: value is None or 33 <= value <= 20_000, "a whole number from 33 to 20000"),
    "data.render_seed": (
        lambda value: value is None or 0 <= value < 2**31,
        "a whole number from 0 to 2147483647",
    ),
    "features.sample_rate": _whole(1_000, 192_000),
    "features.n_fft": _whole(16, 65_536),
    "features.hop_length": _whole(1, 65_536),
    "features.n_mels": _whole(1, 1_024),
    "features.seconds": (lambda value: 0 < value <= 600, "a number above 0, at most 600"),
    "features.mel_scale": _one_of("slaney", "htk"),
    "features.mel_norm": _one_of("slaney", None),
    "features.top_db": (lambda value: 1 <= value <= 200, "a number from 1 to 200"),
    "features.resampling": _one_of("kaiser_best", "hann", None),
    "features.dtype": _one_of("uint8", "float16"),
    "model.filters": (
        lambda value: 1 <= len(value) <= 12 and all(1 <= filters <= 4096 for filters in value),
        "a list of 1 to 12 whole numbers from 1 to 4096, as in [32,64,128,256]",
    ),
    "model.convs_per_block": _whole(1, 8),
    "model.pooling": _one_of("average", "max"),
    "model.dense": _whole(1, 65_536),
    "augment.freq_masks": _whole(0, 20),
    "augment.freq_width": _share(1),
    "augment.time_masks": _whole(0, 20),
    "augment.time_width": _share(1),
}


def check(config: Config | Prepare) -> None:
    """Raise ConfigError for the first value that breaks its rule, or that its data source would ignore."""
    values = flatten(asdict(config))
    for key, (keeps, allowed) in RULES.items():
        if key in values and not keeps(values[key]):
            raise ConfigError(key, shown(values[key]), f"must be {allowed}")
    if isinstance(config, Config) and config.halving is not None and config.halving > config.epochs:
        raise ConfigError("halving", config.halving, f"must be at most epochs={config.epochs}")
    owners = {"data.size": "standin", "data.render_seed": "standin", "data.recordings": "folder"}
    for key, source in owners.items():
        if values[key] is not None and config.data.source != source:
            raise ConfigError(key, values[key], f"only data={source} takes it")
    if config.data.source == "standin" and (config.data.size is None or config.data.render_seed is None):
        raise ConfigError("data.size", "null", "data=standin needs data.size and data.render_seed")
    if config.data.source == "standin" and not config.data.root:
        raise ConfigError("data.root", "", "must be a folder")
    if config.data.split.endswith(".csv") and config.data.fold:
        raise ConfigError("data.fold", config.data.fold, "a split from a csv has no folds")
    if config.data.cache is not None and config.data.damaged == "drop":
        raise ConfigError("data.damaged", "drop", "data.cache=... is taken as it is")
    if config.features.n_samples < 1 or config.features.n_frames > 65_536:
        raise ConfigError("features.seconds", config.features.seconds, "must give 1 to 65536 frames, see hop_length")
    if config.data.cache is None and config.features.resampling is None:
        raise ConfigError("features.resampling", "null", "must be kaiser_best or hann")


def differing_key(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """The first key, in alphabetical order, by which two flat configurations train another run.

    What one of them does not tell is the default, as in `from_flat`.
    """
    defaults = flatten(asdict(Config()))
    keys = sorted((there.keys() | here.keys()) - NEUTRAL)
    return next((key for key in keys if there.get(key, defaults.get(key)) != here.get(key, defaults.get(key))), None)


def run_digest(config: Config) -> str:
    """Return the digest, 16 hexadecimal digits, of the settings that change a run's result, without its seed.

    Only settings that differ from their defaults enter, so that a setting that is added later changes no digest. Of a
    split or a list of recordings in a file, neither the path nor the content enters.
    """
    defaults = flatten(asdict(Config()))
    unused = NEUTRAL | {"seed", "halving", "data.recordings"}
    changed = {key: value for key, value in flatten(asdict(config)).items() if value != defaults[key]}
    if changed.get("data.split", "").endswith(".csv"):
        changed["data.split"] = "csv"
    entries = sorted((key, value) for key, value in changed.items() if key not in unused)
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]


def anneals(schedule: str) -> bool:
    """Return whether the learning rate ends near zero."""
    return schedule == "onecycle"


def averaged_epochs(schedule: str, epoch: int) -> int:
    """Return over how many epochs, up to `epoch`, the validation accuracy is averaged to the figure that is ranked.

    A third of them, rounded up, at most five; the last one alone where the learning rate ends near zero, since its
    neighbors are worse by training less.
    """
    return 1 if anneals(schedule) else min(-(-epoch // 3), 5)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> one mapping with dotted keys; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def from_flat(flat: Mapping[str, Any]) -> Config:
    """The inverse of `flatten(asdict(config))`.

    What an earlier version did not know takes its default, which is what it did without: a new setting's default must
    be that. Raises ConfigError for a key that this version does not know.
    """
    config = Config()
    for key in sorted(flat.keys() - flatten(asdict(config)).keys()):
        raise ConfigError(key, shown(flat[key]), "is a setting of another version of irmas")
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        setattr(getattr(config, group) if group else config, name, value)
    return config


def setting_names(schema: type = Config) -> Iterator[str]:
    """Every dotted key of a schema, groups included."""
    for entry in fields(schema):
        yield entry.name
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        if is_dataclass(default) and not isinstance(default, type):
            yield from (f"{entry.name}.{name}" for name in setting_names(type(default)))
