"""The data group of a configuration, turned into an open feature cache: IRMAS, stand-in, folder or ready-made cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from irmas.config import Config, Data, Features, shown
from irmas.console import Progress
from irmas.data import cache
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import Excerpt, listing_digest, passed_over, scan
from irmas.errors import ConfigError, DataError
from irmas.files import obstacle
from irmas.standin import corpus

log = logging.getLogger(__name__)


def resolve(config: Config, explicit: Collection[str] = ()) -> Config:
    """Make paths absolute, and replace the features group by a named cache's own front end.

    `explicit` are the keys that the user set. Raise ConfigError if one of them contradicts the cache.
    """
    data, features = config.data, config.features
    keys = ["root", "cache", "cache_dir", "recordings"] + (["split"] if data.split.endswith(".csv") else [])
    paths: dict[str, Any] = {key: str(Path(getattr(data, key)).absolute()) for key in keys if getattr(data, key)}
    data = replace(data, **paths)
    if data.cache is not None:
        own = cache.front_end(Path(data.cache), features)
        for name, value in asdict(own).items():
            setting = getattr(features, name)
            if value != setting and {"features", f"features.{name}"} & set(explicit):
                reason = f"data.cache brings its own front end, with {shown(value)}"
                raise ConfigError(f"features.{name}", shown(setting), reason)
        features = own
    if data.pool > min(features.n_mels, features.n_frames):
        raise ConfigError("data.pool", data.pool, f"a log-mel has {features.n_mels} x {features.n_frames} bins")
    return replace(config, data=data, features=features)


def digest(data: Data) -> str:
    """Return the digest of the data set's content, wherever it lies.

    Raise DataError if the data is absent and cannot be rendered.
    """
    state = hashlib.sha256()
    lists = {"data.recordings": data.recordings, "data.split": data.split if data.split.endswith(".csv") else None}
    for key, path in lists.items():
        try:
            state.update(Path(path).read_bytes() if path is not None else b"")
        except OSError as error:
            raise DataError(f"{key}={path}: {error.strerror}") from None
    if data.cache is not None:
        cache.open_cache(Path(data.cache), "data.cache")
        state.update(cache.digest(Path(data.cache)).encode())
    elif data.source == "standin":
        state.update(f"standin {corpus.VERSION} {data.size} {data.render_seed}".encode())
    else:
        state.update(listing_digest(excerpts(data), times=False).encode())
    return state.hexdigest()[:12]


def excerpts(data: Data) -> list[Excerpt]:
    """Return the excerpts on disk. Raise DataError if there are none, saying how to get them."""
    if not data.root:
        raise ConfigError("data.root", "", "must be a folder with a subfolder for each class")
    folder = corpus_folder(data)
    if data.source == "irmas" and not folder.is_dir():
        remedy = "point data.root=... to it, or try things out with data=standin"
        fetch = "Fetch it with `python -m irmas.prepare download=true`"
        raise DataError(f"data.root={data.root}: IRMAS is not there. {fetch}, {remedy}")
    scanned = scan(data, folder)
    if data.source == "standin" and len(scanned) != data.size:
        raise DataError(f"{folder}: holds {len(scanned)} excerpts of {data.size}; remove the folder to render it again")
    return scanned


def corpus_folder(data: Data) -> Path:
    """Return the folder with one subfolder per class."""
    rendered = f"v{corpus.VERSION}-{data.size}-seed{data.render_seed}" if data.source == "standin" else ""
    return Path(data.root, rendered)


@dataclass(frozen=True)
class Source:
    """The cache that a run reads, and the excerpts that it is made of."""

    folder: Path
    excerpts: list[Excerpt] | None
    """None for a ready-made cache."""


def locate(data: Data, features: Features, progress: Progress) -> Source:
    """Return the cache to open; render the stand-in first if it is missing. Raise DataError."""
    if _must_render(data):
        assert data.size is not None
        assert data.render_seed is not None
        corpus.render(corpus_folder(data), data.size, data.render_seed, progress)
    return _source(data, features)


def _must_render(data: Data) -> bool:
    return data.cache is None and data.source == "standin" and not corpus_folder(data).is_dir()


def _source(data: Data, features: Features) -> Source:
    if data.cache is not None:
        return Source(Path(data.cache), None)
    own = excerpts(data)
    return Source(Path(data.cache_dir) / cache.key(own, features, data.damaged), own)


def refuse_unwritable(data: Data, features: Features) -> None:
    """Raise ConfigError if missing data would be written to a folder that cannot be written."""
    if _must_render(data) and (reason := obstacle(Path(data.root))):
        raise ConfigError("data.root", data.root, reason)
    if (reason := obstacle(Path(data.cache_dir))) and not is_built(data, features):
        raise ConfigError("data.cache_dir", data.cache_dir, reason)


def is_built(data: Data, features: Features) -> bool:
    """Return whether `load` would only open a cache."""
    if _must_render(data):
        return False
    source = _source(data, features)
    return source.excerpts is None or cache.flaw(source.folder, source.excerpts, features) is None


def open_source(source: Source) -> FeatureCache:
    """Open the cache, and log which excerpts it leaves out. Raise DataError if it is not sound."""
    if source.excerpts is None:
        return cache.open_cache(source.folder, "data.cache")
    opened = cache.open_cache(source.folder)
    if opened.left_out:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in opened.left_out.items())
        count = f"{len(opened.left_out)} of {len(source.excerpts)}"
        log.warning("%s excerpts are left out (data.damaged=drop)%s", count, listed)
    return opened


def load(data: Data, features: Features, progress: Progress) -> FeatureCache:
    """Open the features of a configuration, after rendering and computing what is missing. Raise DataError."""
    source = locate(data, features, progress)
    if source.excerpts and cache.build(source.excerpts, features, source.folder, progress, data.damaged):
        for line in passed_over(corpus_folder(data)):
            log.warning(line)
    return open_source(source)
