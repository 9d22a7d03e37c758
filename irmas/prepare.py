"""Verifies a data set and builds its feature cache: `python -m irmas.prepare --help`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import soundfile
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from irmas import overrides
from irmas.config import Config, Prepare, check
from irmas.data import cache, dataset
from irmas.data.cache import FeatureCache
from irmas.data.download import download
from irmas.data.excerpts import Excerpt
from irmas.data.split import Duplicates, find_duplicates
from irmas.errors import ConfigError
from irmas.labels import INSTRUMENTS
from irmas.progress import data_progress, download_progress, plain_console

SHOWN = 10
"""Duplicates listed by name; the rest is counted."""


def main() -> None:
    overrides.run("prepare", Prepare, _task)


def _task(config: DictConfig) -> None:
    asked = OmegaConf.to_object(config)
    assert isinstance(asked, Prepare)
    check(asked)
    console = plain_console()
    if asked.download:
        _download(asked, console)
    explicit = [override.partition("=")[0] for override in HydraConfig.get().overrides.task]
    resolved = dataset.resolve(Config(data=asked.data, features=asked.features), explicit)
    dataset.refuse_unwritable(resolved.data, resolved.features)
    progress = data_progress(console)
    source = dataset.locate(resolved.data, resolved.features, progress)
    if source.excerpts is not None:
        console.print(f"{dataset.corpus(resolved.data)}: {len(source.excerpts)} excerpts")
        _print_formats(console, source.excerpts)
        existed = source.folder.exists()
        cache.build(source.excerpts, resolved.features, source.folder, progress("log-mels", len(source.excerpts)))
        console.print(f"{source.folder}: {'up to date' if existed else 'built'}")
    opened = cache.open_cache(source.folder)
    duplicates = find_duplicates(opened)
    _print_classes(console, opened)
    _print_duplicates(console, opened, duplicates, resolved.data.conflicts)


def _download(asked: Prepare, console: Console) -> None:
    root = Path(asked.data.root)
    if asked.data.source != "irmas" or asked.data.cache is not None:
        raise ConfigError("download", "true", "only data=irmas without data.cache is fetched")
    if root.name != "IRMAS-TrainingData":
        raise ConfigError("data.root", root, "must end in IRMAS-TrainingData, the archive's own folder, to be fetched")
    for folder in download(root.parent, progress=download_progress(console)):
        console.print(f"{folder}: fetched and verified")


def _print_formats(console: Console, excerpts: Sequence[Excerpt]) -> None:
    """Files that are not audio are only counted: building the cache lists everything that is wrong."""
    formats: Counter[str] = Counter()
    for excerpt in excerpts:
        try:
            info = soundfile.info(excerpt.path)
        except soundfile.LibsndfileError:
            formats["cannot be read"] += 1
        else:
            formats[f"{info.samplerate} Hz, {info.channels} channels, {info.subtype}, {info.duration:.2f} s"] += 1
    for form, number in formats.most_common():
        console.print(f"  {number:5d} x {form}")


def _print_classes(console: Console, opened: FeatureCache) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("class", "instrument", "excerpts", "share", "recordings"):
        table.add_column(head, justify="left" if head in ("class", "instrument") else "right")
    for label, number in sorted(Counter(opened.labels).items()):
        recordings = {name for name, of in zip(opened.recordings, opened.labels, strict=True) if of == label}
        share = f"{number / len(opened.labels):.1%}"
        table.add_row(label, INSTRUMENTS.get(label, ""), str(number), share, str(len(recordings)))
    total = str(len(set(opened.recordings)))
    table.add_row("", "all", str(len(opened.labels)), "100.0%", total, style="bold")
    console.print()
    console.print(table)
    shape, size = opened.features.shape, opened.features.nbytes / 1e6
    console.print(f"\nlog-mels: {shape[1]} bands x {shape[2]} frames, {opened.features.dtype}, {size:.1f} MB")


def _print_duplicates(console: Console, opened: FeatureCache, duplicates: Duplicates, conflicts: str) -> None:
    pairs = duplicates.pairs_of_recordings
    names = ["/".join(pair) for pair in pairs[:SHOWN]] + (["..."] if len(pairs) > SHOWN else [])
    console.print(f"identical excerpts join {len(pairs)} groups of recordings: {' '.join(names) or 'none'}")
    rows = duplicates.conflicting
    console.print(f"identical excerpts with contradictory labels: {len(rows)}")
    for row in rows[:SHOWN]:
        console.print(f"  {opened.names[row]} ({opened.labels[row]})")
    if len(rows) > SHOWN:
        console.print("  ...")
    if len(rows) and conflicts == "keep":
        console.print("  they are kept, as in the report; data.conflicts=drop removes them")


if __name__ == "__main__":
    main()
