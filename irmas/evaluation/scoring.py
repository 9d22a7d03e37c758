"""Excerpts -> their scores: a file at a time, its windows in batches, so that memory does not grow with either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from irmas.data.cache import FeatureCache
from irmas.errors import DataError
from irmas.evaluation.protocol import Array, aggregate
from irmas.evaluation.testset import LabelledExcerpt
from irmas.inference import streaming
from irmas.inference.recognizer import Recognizer, as_trained
from irmas.processes import cpu_count

ROWS = 32
"""Of a feature cache heard at once."""


def scores(
    recognizer: Recognizer,
    excerpts: Sequence[LabelledExcerpt],
    hop_s: float,
    how: str,
    on_excerpts: Callable[[int], None],
) -> tuple[Array, list[str]]:
    """Of sound files: (excerpts, classes), NaN for those that cannot be used; and a line for each of these, why.

    A thread a core, each with a file of its own: torch's own threads wait for each other, ten times as long as they
    work where another process is busy too.
    """
    found = np.full((len(excerpts), len(recognizer.classes)), np.nan)
    problems = []
    score = partial(_score, recognizer, hop_s, how)
    with ThreadPoolExecutor(cpu_count(), initializer=partial(torch.set_num_threads, 1)) as pool:
        try:
            for row, result in enumerate(pool.map(score, (excerpt.path for excerpt in excerpts))):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    found[row] = result
                on_excerpts(1)
        except BaseException:  # Ctrl-C need not wait for the rest
            pool.shutdown(cancel_futures=True)
            raise
    return found, problems


def _score(recognizer: Recognizer, hop_s: float, how: str, path: Path) -> Array | str:
    """(classes,), or why there are none."""
    try:
        timeline = streaming.listen(path, recognizer, hop_s, lambda heard: None)
    except DataError as error:
        return str(error)
    loud = timeline.probabilities[~timeline.is_silent]
    if not len(loud):
        return f"{path}: silent: the mean of its channels is zero throughout"
    return aggregate(loud.sum(axis=0, dtype=np.float64), len(loud), how)


def of_rows(
    recognizer: Recognizer,
    features: FeatureCache,
    rows: Sequence[int],
    how: str,
    on_excerpts: Callable[[int], None],
) -> Array:
    """Of a feature cache, where each excerpt is one window: (excerpts, classes)."""
    found = []
    for batch in _batches(rows):
        stored = torch.from_numpy(features.features[batch])
        decibels = stored.float() * features.scale + features.offset
        heard = [net.probabilities(as_trained(decibels, net.pool)) for net in recognizer.nets]
        sums = np.asarray(np.mean(heard, axis=0, dtype=np.float64))
        found += [aggregate(row, 1, how) for row in sums]
        on_excerpts(len(batch))
    return np.array(found)


def _batches(rows: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(rows), ROWS):
        yield list(rows[start : start + ROWS])
