"""From the data group of a configuration to an open feature cache: the one place that knows the three sources."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from irmas.config import Config, Data, Features, shown
from irmas.console import Progress
from irmas.data import cache
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import Excerpt, listing_digest, scan
from irmas.errors import ConfigError, DataError
from irmas.files import locked, obstacle
from irmas.standin import corpus

log = logging.getLogger(__name__)


def resolve(config: Config, explicit: Collection[str] = ()) -> Config:
    """Make paths absolute, and let a named cache's own front end take the place of the features group.

    `explicit` are the keys that the user gave. Raises ConfigError where one of them contradicts the cache.
    """
    data, features = _absolute(config.data), config.features
    if data.cache is not None:
        own = cache.front_end(Path(data.cache), features)
        for name, value in asdict(own).items():
            asked = getattr(features, name)
            if value != asked and {"features", f"features.{name}"} & set(explicit):
                raise ConfigError(
                    f"features.{name}",
                    shown(asked),
                    f"data.cache brings its own front end, with {shown(value)}",
                )
        features = own
    if data.pool > min(features.n_mels, features.n_frames):
        raise ConfigError("data.pool", data.pool, f"a log-mel has {features.n_mels} x {features.n_frames} bins")
    return replace(config, data=data, features=features)


def _absolute(data: Data) -> Data:
    return replace(
        data,
        root=data.root and _path(data.root),
        cache=data.cache and _path(data.cache),
        cache_dir=_path(data.cache_dir),
        recordings=data.recordings and _path(data.recordings),
        split=_path(data.split) if data.split.endswith(".csv") else data.split,
    )


def _path(path: str) -> str:
    return str(Path(path).absolute())


def digest(data: Data) -> str:
    """Of the data set's content, wherever it lies. Raises DataError where it is absent and cannot be rendered."""
    state = hashlib.sha256()
    lists = {"data.recordings": data.recordings, "data.split": data.split if data.split.endswith(".csv") else None}
    for key, path in lists.items():
        try:
            state.update(Path(path).read_bytes() if path is not None else b"")
        except OSError as error:
            raise DataError(f"{key}={path}: {error.strerror}") from None
    if data.cache is not None:
        cache.open_named(Path(data.cache))
        state.update(cache.digest(Path(data.cache)).encode())
    elif data.source == "standin":
        state.update(f"standin {corpus.VERSION} {data.size} {data.render_seed}".encode())
    else:
        state.update(listing_digest(excerpts(data), times=False).encode())
    return state.hexdigest()[:12]


def excerpts(data: Data) -> list[Excerpt]:
    """Raises DataError where there are none, saying how to get them."""
    if not data.root:
        raise ConfigError("data.root", "", "must be a folder with a subfolder for each class")
    if data.source == "irmas" and not corpus_folder(data).is_dir():
        raise DataError(
            f"data.root={data.root}: IRMAS is not there. Fetch it with `python -m irmas.prepare download=true`, "
            "point data.root=... to it, or try things out with data=standin"
        )
    found = scan(data, corpus_folder(data))
    if data.source == "standin" and len(found) != data.size:
        raise DataError(
            f"{corpus_folder(data)}: holds {len(found)} excerpts of {data.size}; remove the folder to render it again"
        )
    return found


def corpus_folder(data: Data) -> Path:
    """The folder with a subfolder a class."""
    if data.source == "standin":
        return Path(data.root) / f"v{corpus.VERSION}-{data.size}-seed{data.render_seed}"
    return Path(data.root)


@dataclass(frozen=True)
class Source:
    """Where a run's features come from, once the data is there."""

    folder: Path
    excerpts: list[Excerpt] | None
    """None for a ready-made cache."""


def locate(data: Data, features: Features, progress: Progress) -> Source:
    """The cache to open; renders the stand-in where it is missing."""
    if data.cache is not None:
        return Source(Path(data.cache), None)
    if data.source == "standin":
        _render(data, progress)
    return _own_cache(data, features)


def refuse_unwritable(data: Data, features: Features) -> None:
    """Raise ConfigError where what is missing would be made in a folder that cannot be written."""
    if data.cache is not None:
        return
    if data.source == "standin" and not corpus_folder(data).is_dir() and (reason := obstacle(Path(data.root))):
        raise ConfigError("data.root", data.root, reason)
    if (reason := obstacle(Path(data.cache_dir))) and not is_built(data, features):
        raise ConfigError("data.cache_dir", data.cache_dir, reason)


def is_built(data: Data, features: Features) -> bool:
    """Whether `load` would only open a cache."""
    if data.cache is not None:
        return True
    if data.source == "standin" and not corpus_folder(data).is_dir():
        return False
    return not _lacks(_own_cache(data, features), features)


def _own_cache(data: Data, features: Features) -> Source:
    found = excerpts(data)
    return Source(Path(data.cache_dir) / cache.key(found, features, data.damaged), found)


def _lacks(source: Source, features: Features) -> bool:
    return source.excerpts is not None and cache.flaw(source.folder, source.excerpts, features) is not None


def _render(data: Data, progress: Progress) -> None:
    folder = corpus_folder(data)
    if folder.is_dir():
        return
    assert data.size is not None
    assert data.render_seed is not None
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            progress.start("rendering", data.size)
            corpus.render(folder, data.size, data.render_seed, progress.advance)


def make(source: Source, data: Data, features: Features, progress: Progress) -> bool:
    """Compute a source's cache where it is missing or damaged; whether it was. Raises DataError."""
    if source.excerpts is None or not _lacks(source, features):
        return False
    progress.start("log-mels", len(source.excerpts))
    cache.build(source.excerpts, features, source.folder, progress.advance, data.damaged)
    return True


def open_source(source: Source) -> FeatureCache:
    """Raises DataError where the cache is not sound. Which excerpts it leaves out is said every time."""
    if source.excerpts is None:
        return cache.open_named(source.folder)
    opened = cache.open_cache(source.folder)
    if opened.left_out:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in opened.left_out.items())
        said = f"{len(opened.left_out)} of {len(source.excerpts)} excerpts are left out (data.damaged=drop)"
        log.warning("%s%s", said, listed)
    return opened


def load(data: Data, features: Features, progress: Progress) -> FeatureCache:
    """Open the features of a configuration, after rendering and computing what is missing. Raises DataError."""
    source = locate(data, features, progress)
    make(source, data, features, progress)
    return open_source(source)
