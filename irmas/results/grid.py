"""The report's tuning grid: what was swept, what all runs share, and which of them have no rank."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from irmas.config import Config
from irmas.results.deductions import finished
from irmas.results.page import code, counted, listed, plain, setting, table, whole_percent
from irmas.results.ranking import Ranking, Row
from irmas.results.statistics import Analysis
from irmas.sweep.halving import announced
from irmas.sweep.jobs import named_runs

SPLITS = {"recording": "by recording", "clip": "by excerpt", "all": "with all excerpts in training"}
SOURCES = {"irmas": "IRMAS", "standin": "a rendered stand-in for IRMAS", "folder": "a folder of recordings"}


def written(ranking: Ranking, analysis: Analysis | None) -> list[str]:
    blocks = ["## Tuning grid"]
    rows = sorted(ranking.rows, key=lambda row: row.id)
    values = {key: dict.fromkeys(plain(row.values[key]) for row in rows) for key in ranking.plan.swept}
    if values:
        blocks.append(table(["key", "values"], ([key, ", ".join(found)] for key, found in values.items()), left=2))
    config = ranking.plan.config
    about = [
        _states(rows),
        _training(config) + _varied(ranking, "epochs", "batch_size", "schedule", "class_weights"),
        *(f"Successive halving, {line}. Only finished runs are compared below." for line in announced(ranking.plan)),
        _model(config) + _varied(ranking, "model"),
        _augment(config) + _varied(ranking, "augment"),
        _front_end(config) + _varied(ranking, "features"),
        _data(ranking, analysis) + _varied(ranking, "data"),
    ]
    return [*blocks, "\n".join(f"- {line}" for line in about), *_unfinished(rows)]


def _states(rows: Iterable[Row]) -> str:
    states = Counter("finished" if row.is_finished else row.state for row in rows)
    return f"{counted(states.total(), 'run')}: {', '.join(f'{n} {state}' for state, n in sorted(states.items()))}."


def _varied(ranking: Ranking, *names: str) -> str:
    """Says of a line that is about the base configuration what the sweep varies of it."""
    keys = [key for key in ranking.plan.swept if key.partition(".")[0] in names]
    return f" Varied: {listed([f'{key}{_options(ranking, key)}' for key in keys])}." if keys else ""


def _options(ranking: Ranking, group: str) -> str:
    """What the options of a swept group change of the base configuration; empty for a single setting."""
    changed: dict[str, dict[str, None]] = {}
    for point in ranking.plan.points:
        changes = [setting(key, value) for key, value in point.changes.items() if key.startswith(f"{group}.")]
        if changes and group in point.overrides:
            changed.setdefault(str(point.overrides[group]), {}).update(dict.fromkeys(changes))
    return (
        f" ({'; '.join(f'{plain(name)} with {listed([*told])}' for name, told in changed.items())})" if changed else ""
    )


def _training(config: Config) -> str:
    return (
        f"Training: {counted(config.epochs, 'epoch')}, batch size {config.batch_size}, Adam, {config.schedule} "
        f"learning rate, {'' if config.class_weights else 'no '}class weights."
    )


def _model(config: Config) -> str:
    net = config.model
    return (
        f"Model: blocks of {'-'.join(map(str, net.filters))} filters, "
        f"{counted(net.convs_per_block, 'convolution')} a block, global {net.pooling} pooling, "
        f"a dense layer of {net.dense}."
    )


def _augment(config: Config) -> str:
    masks = config.augment
    if not masks.freq_masks + masks.time_masks:
        return "Augmentation: none."
    return (
        "Augmentation: SpecAugment, "
        f"{counted(masks.freq_masks, 'frequency mask')} of up to {whole_percent(masks.freq_width)}, "
        f"{counted(masks.time_masks, 'time mask')} of up to {whole_percent(masks.time_width)}."
    )


def _front_end(config: Config) -> str:
    made, pool = config.features, config.data.pool
    pooled = f"; the net sees means of {pool} x {pool} bins, {made.n_mels // pool} x {made.n_frames // pool}"
    return (
        f"Front end: log-mel spectrograms of {made.n_mels} bands x {made.n_frames} frames, "
        f"{made.seconds:g} s at {made.sample_rate} Hz{pooled if pool > 1 else ''}."
    )


def _data(ranking: Ranking, analysis: Analysis | None) -> str:
    data = ranking.plan.config.data
    source = "a feature cache" if data.cache is not None else SOURCES[data.source]
    split = SPLITS.get(data.split, "by a list")
    text = f"Data: {source}, split {split}"
    counts = sorted({row.val_excerpts for row in finished(ranking)})
    if counts:
        text += f"; validation on {' or '.join(map(str, counts))} excerpts"
    if analysis and analysis.recordings:
        text += f" of {counted(analysis.recordings, 'recording')}"
    return f"{text}."


def _unfinished(rows: Iterable[Row]) -> list[str]:
    """Those without a rank, with the reasons that they gave; runs that gave the same stand together."""
    reasons: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        if row.rank is None:
            reasons[row.state, row.error].append(row.id)
    lines = [
        f"- {named_runs(ids)} {state}{': ' + code(error) if error else ''}" for (state, error), ids in reasons.items()
    ]
    return ["Runs without a rank:", "\n".join(lines)] if lines else []
