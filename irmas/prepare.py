"""Verify a data set and build its feature cache: `python -m irmas.prepare --help`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from irmas.cli import overrides
from irmas.config import Config, Data, Prepare, check
from irmas.console import ConsoleProgress, Progress, counted, plain_console, plain_table, print_table
from irmas.data import cache, dataset
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import Excerpt, find_test_parts, passed_over, read_test_part
from irmas.data.sound import read_form
from irmas.data.split import Duplicates, assign_folds, find_duplicates
from irmas.errors import ConfigError, DataError
from irmas.labels import INSTRUMENTS
from irmas.standin.corpus import IRMAS_SIZE

SHOWN = 10
"""Files and duplicates listed by name; the rest is counted."""


def main() -> None:
    overrides.run("prepare", Prepare, _task)


def _task(config: DictConfig) -> None:
    args = OmegaConf.to_object(config)
    assert isinstance(args, Prepare)
    check(args)
    console = plain_console()
    progress = ConsoleProgress(console)
    if args.download:
        _download(args, console, progress)
    explicit = [override.partition("=")[0] for override in HydraConfig.get().overrides.task]
    resolved = dataset.resolve(Config(data=args.data, features=args.features), explicit)
    data, features = resolved.data, resolved.features
    dataset.refuse_unwritable(data, features)
    source = dataset.locate(data, features, progress)
    if source.excerpts is not None:
        lacking = data.source == "irmas" and len(source.excerpts) != IRMAS_SIZE
        whole = f" of IRMAS's {IRMAS_SIZE}" if lacking else ""
        console.print(f"{dataset.corpus_folder(data)}: {len(source.excerpts)} excerpts{whole}")
        _print_forms(console, source.excerpts, features.seconds, of_irmas=data.source != "folder")
        for line in passed_over(dataset.corpus_folder(data)):
            console.print(line)
        unusable = _print_test_parts(console, data)
        try:
            built = cache.build(source.excerpts, features, source.folder, progress, data.damaged)
        except DataError as error:
            raise DataError("\n".join([str(error), *unusable])) from None
        if unusable and data.damaged != "drop":
            raise DataError("\n".join(unusable))
        console.print(f"{source.folder}: {'built' if built else 'up to date'}")
    opened = dataset.open_source(source)
    _print_classes(console, opened)
    duplicates = find_duplicates(opened)
    _print_duplicates(console, opened, duplicates, data.conflicts)
    assign_folds(data, opened, duplicates)  # what irmas.train would refuse is refused here


def _download(args: Prepare, console: Console, progress: Progress) -> None:
    from irmas.data.download import download  # here, since it imports pooch

    root = Path(args.data.root)
    if args.data.source != "irmas" or args.data.cache is not None:
        raise ConfigError("download", "true", "only data=irmas without data.cache is fetched")
    if root.name != "IRMAS-TrainingData":
        raise ConfigError("data.root", root, "must end in IRMAS-TrainingData, the archive's own folder, to be fetched")
    for folder in download(root.parent, progress=progress):
        console.print(f"{folder}: fetched and verified")


def _print_forms(console: Console, excerpts: Sequence[Excerpt], seconds: float, *, of_irmas: bool) -> None:
    """Print which formats occur and what is odd. Unreadable files are counted: building the cache lists them."""
    lengths_of: dict[str, list[float]] = defaultdict(list)
    names_of: dict[str, list[str]] = defaultdict(list)
    unusable = 0
    for excerpt in excerpts:
        try:
            form = read_form(excerpt.path)
        except DataError:
            unusable += 1
            continue
        lengths_of[form.kind].append(form.seconds)
        for remark in form.remarks(seconds, of_irmas=of_irmas):
            names_of[remark].append(f"{excerpt.path.parent.name}/{excerpt.path.name}")
    for kind, lengths in sorted(lengths_of.items(), key=lambda item: -len(item[1])):
        shortest, longest = (f"{length:.2f}" for length in (min(lengths), max(lengths)))
        span = shortest if shortest == longest else f"{shortest} to {longest}"
        console.print(f"  {len(lengths):5d} x {kind}, {span} s")
    if unusable:
        console.print(f"  {unusable:5d} x cannot be opened")
    for remark, names in names_of.items():
        is_of_all = len(names) == len(excerpts)
        console.print(f"noticed: {remark}: {'all' if is_of_all else len(names)}")
        if not is_of_all:
            _print_first(console, names)


def _print_first(console: Console, names: Sequence[str]) -> None:
    for name in names[:SHOWN]:
        console.print(f"  {name}")
    if len(names) > SHOWN:
        console.print(f"  and {len(names) - SHOWN} more")


def _print_test_parts(console: Console, data: Data) -> list[str]:
    """Print what IRMAS's test set beside the training set holds; return a message per part with unusable files."""
    unusable = []
    for folder in find_test_parts(Path(data.root)) if data.source == "irmas" else []:
        excerpts, problems = read_test_part(folder)
        labels = Counter(label for excerpt in excerpts for label in excerpt.labels)
        listed = " ".join(f"{label} {labels[label]}" for label in INSTRUMENTS if labels[label])
        console.print(f"{folder}: {len(excerpts)} test excerpts, {labels.total()} labels: {listed or 'none'}")
        if problems:
            listed = "".join(f"\n  {problem}" for problem in problems)
            unusable.append(f"{folder}: {counted(len(problems), 'file')} cannot be used{listed}")
            if data.damaged == "drop":
                console.print(unusable[-1])
    return unusable


def _print_classes(console: Console, opened: FeatureCache) -> None:
    total = len(opened.labels)
    recordings = Counter(label for label, _ in {*zip(opened.labels, opened.recordings, strict=True)})
    rows = [
        (label, INSTRUMENTS.get(label, ""), str(count), f"{count / total:.1%}", str(recordings[label]))
        for label, count in sorted(Counter(opened.labels).items())
    ]
    table = plain_table(("class", "instrument", "excerpts", "share", "recordings"), rows, ("class", "instrument"))
    table.add_row("", "all", str(total), "100.0%", str(len(set(opened.recordings))), style="bold")
    console.print()
    print_table(console, table)
    shape, size = opened.features.shape, opened.features.nbytes / 1e6
    console.print(f"\nlog-mels: {shape[1]} bands x {shape[2]} frames, {opened.features.dtype}, {size:.1f} MB")


def _print_duplicates(console: Console, opened: FeatureCache, duplicates: Duplicates, conflicts: str) -> None:
    joined = duplicates.joined_recordings
    names = ["/".join(recordings) for recordings in joined[:SHOWN]] + (["..."] if len(joined) > SHOWN else [])
    console.print(f"identical excerpts join {len(joined)} groups of recordings: {' '.join(names) or 'none'}")
    rows = duplicates.conflicting
    console.print(f"identical excerpts with contradictory labels: {len(rows)}")
    _print_first(console, [f"{opened.names[row]} ({opened.labels[row]})" for row in rows])
    if len(rows) and conflicts == "keep":
        console.print("  they are kept, as in the report; data.conflicts=drop removes them")


if __name__ == "__main__":
    main()
