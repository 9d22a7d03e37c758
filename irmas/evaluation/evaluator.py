"""An evaluation from its data to its files: results.json, scores.csv, classes.png, and the mixtures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irmas import provenance
from irmas.console import Progress, counted
from irmas.data.cache import FeatureCache
from irmas.errors import DataError, UserError
from irmas.evaluation import mixtures, protocol, testset
from irmas.evaluation.protocol import FIXED, ORACLE, TOP_SCORE, TUNED, Array, Metric, Rule, RuleMetrics, ScoredExcerpts
from irmas.evaluation.testset import EvaluationSet, LabeledExcerpt
from irmas.files import atomic_write
from irmas.inference.recognizer import Recognizer
from irmas.processes import cpu_count
from irmas.run.model_file import ModelFile

MIXED = "mixtures"
"""Folder of the mixtures, beside the results."""
DROP = "drop"
LISTED = 20
"""Files that a message lists at most: a wrong folder has thousands that cannot be used."""
ROWS = 32
"""Rows of a feature cache in a batch."""


@dataclass(frozen=True)
class Options:
    aggregate: str
    """`mean` or `max`."""
    threshold: float
    """Fixed threshold."""
    damaged: str
    """`refuse` to evaluate if files cannot be used, or `drop` them."""


@dataclass(frozen=True)
class Evaluation:
    recognizer: Recognizer
    data: EvaluationSet
    options: Options
    excerpts: list[LabeledExcerpt]
    """Excerpts that could be used."""
    scored: ScoredExcerpts
    ranking_precision: Metric
    rules: list[RuleMetrics]
    damaged: list[str]
    """One line per file that was left out."""
    no_mixtures: str
    """Reason why no threshold was tuned on mixtures, if one was needed."""

    @property
    def reported(self) -> RuleMetrics:
        """Metrics of the rule that does not know the test data, with the tuned threshold if there is one."""
        by_name = {metrics.rule.name: metrics for metrics in self.rules}
        return next(by_name[name] for name in (TUNED, FIXED, TOP_SCORE) if name in by_name)

    @property
    def sources(self) -> int:
        """Number of songs or recordings."""
        return len(set(self.scored.groups))

    @property
    def without_excerpts(self) -> list[str]:
        """Classes that no excerpt has."""
        return [metrics.label for metrics in self.reported.classes if not metrics.support]

    def remarks(self) -> list[str]:
        """Return what a reader must know to judge the metrics."""
        remarks = []
        if self.data.trained_on:
            remarks.append(f"left out: {len(self.data.trained_on)} excerpts that the model was trained on")
        if self.data.leaking:
            remarks.append(
                f"leak: {self.data.leaking} of {len(self.excerpts)} excerpts are of recordings that the model was "
                "trained on, and flatter it"
            )
        if self.damaged:
            files = counted(len(self.damaged), "file")
            remarks.append(f"left out: {files} that cannot be used{_listed(self.damaged)}")
        if self.without_excerpts:
            classes = " ".join(self.without_excerpts)
            remarks.append(f"no excerpt has {classes}: macro F1 is the mean of the other classes")
        if self.scored.draws is None:
            remarks.append(f"no intervals: all excerpts are of one {self.data.source}")
        if self.no_mixtures:
            remarks.append(f"no threshold is chosen on mixtures of the model's validation data: {self.no_mixtures}")
        return remarks


def evaluate(
    recognizer: Recognizer,
    files: Sequence[ModelFile],
    data: EvaluationSet,
    options: Options,
    folder: Path,
    progress: Progress,
) -> Evaluation:
    """Score all excerpts and measure the scores; where excerpts have several labels, write mixtures to `folder` first.

    Raises DataError, listing all of them, if files cannot be used and are not to be dropped.
    """
    _refuse_damaged(data.problems, data, options)
    tuned, no_mixtures = None, ""
    if data.is_multi_label:
        try:
            tuned = _tuned_threshold(recognizer, files, options, folder / MIXED, progress)
        except UserError as error:
            no_mixtures = str(error)
    progress.start("scoring", len(data.excerpts))
    excerpts, scored, problems = _score(recognizer, data, options.aggregate, progress)
    damaged = data.problems + problems
    _refuse_damaged(damaged, data, options)
    if not excerpts:
        raise DataError(f"{data}: no excerpt is left{_listed(damaged)}")
    if data.is_multi_label:
        rules = [Rule(FIXED, options.threshold)]
        rules += [Rule(TUNED, tuned)] if tuned is not None else []
        rules += [Rule(ORACLE, protocol.best_threshold(scored.truth, scored.scores))]
    else:
        rules = [Rule(TOP_SCORE)]
    measured = [protocol.measure(scored, rule) for rule in rules]
    lrap = protocol.ranking_precision(scored)
    return Evaluation(recognizer, data, options, excerpts, scored, lrap, measured, damaged, no_mixtures)


def _refuse_damaged(problems: Sequence[str], data: EvaluationSet, options: Options) -> None:
    if problems and options.damaged != DROP:
        files = counted(len(problems), "file")
        raise DataError(f"{data}: {files} cannot be used; --damaged drop leaves them out{_listed(problems)}")


def _listed(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return "".join(f"\n  {line}" for line in [*problems[:LISTED], *more])


def _tuned_threshold(
    recognizer: Recognizer, files: Sequence[ModelFile], options: Options, folder: Path, progress: Progress
) -> float:
    """Return the best threshold on mixtures. Raises UserError, with the reason, if there are none."""
    mixtures.make(folder, files, progress)
    mixed = testset.read([folder], files)
    progress.start("scoring mixtures", len(mixed.excerpts))
    _, scored, _ = _score(recognizer, mixed, options.aggregate, progress)
    return protocol.best_threshold(scored.truth, scored.scores)


def _score(
    recognizer: Recognizer, data: EvaluationSet, method: str, progress: Progress
) -> tuple[list[LabeledExcerpt], ScoredExcerpts, list[str]]:
    """Return the excerpts that can be used, their scores, and one line for each of the others."""
    excerpts = data.excerpts
    if data.features is not None:
        problems: list[str] = []
        scores = _cache_scores(recognizer, data.features, [excerpt.row for excerpt in excerpts], method, progress)
    else:
        scores, problems = file_scores(recognizer, excerpts, method, progress)
        rows = np.flatnonzero(~np.isnan(scores).any(axis=1))
        excerpts, scores = [excerpts[row] for row in rows], scores[rows]
    truth = np.array([[label in excerpt.labels for label in recognizer.classes] for excerpt in excerpts])
    groups = [excerpt.group for excerpt in excerpts]
    return excerpts, ScoredExcerpts(recognizer.classes, truth, scores, groups), problems


def file_scores(
    recognizer: Recognizer, excerpts: Sequence[LabeledExcerpt], method: str, progress: Progress
) -> tuple[Array, list[str]]:
    """Return the scores of sound files, (excerpts, classes), NaN if one cannot be used, and one line per such file.

    Each core has a thread with files of its own. torch's own threads would wait for each other, ten times as long as
    they work if another process is busy too.
    """
    scores = np.full((len(excerpts), len(recognizer.classes)), np.nan)
    problems = []
    score = partial(_file_score, recognizer, method)
    with ThreadPoolExecutor(cpu_count(), initializer=partial(torch.set_num_threads, 1)) as pool:
        try:
            for row, result in enumerate(pool.map(score, (excerpt.path for excerpt in excerpts))):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    scores[row] = result
                progress.advance(1)
        except BaseException:  # Ctrl-C need not wait for the rest
            pool.shutdown(cancel_futures=True)
            raise
    return scores, problems


def _file_score(recognizer: Recognizer, method: str, path: Path) -> Array | str:
    """Return a file's scores, (classes,), or why there are none."""
    try:
        timeline = recognizer.timeline(path)
    except DataError as error:
        return str(error)
    loud = timeline.probabilities[~timeline.is_silent]
    if not len(loud):
        return f"{path}: silent: the mean of its channels is zero throughout"
    return protocol.aggregate(loud.sum(axis=0, dtype=np.float64), len(loud), method)


def _cache_scores(
    recognizer: Recognizer, cache: FeatureCache, rows: Sequence[int], method: str, progress: Progress
) -> Array:
    """Return the scores of rows of a feature cache, (rows, classes); each is one window."""
    scores = []
    for start in range(0, len(rows), ROWS):
        batch = list(rows[start : start + ROWS])
        log_mel_db = torch.from_numpy(cache.features[batch]).float() * cache.scale + cache.offset
        answers = [net.classify(log_mel_db) for net in recognizer.nets]
        mean = np.asarray(np.mean(answers, axis=0, dtype=np.float64))
        scores += [protocol.aggregate(row, 1, method) for row in mean]
        progress.advance(len(batch))
    return np.array(scores)


def write(folder: Path, result: Evaluation) -> list[Path]:
    """Write results, scores and picture; return their paths. Raises OSError, with the file's path."""
    from irmas.evaluation import class_plot  # here, because matplotlib takes a while to import

    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, str | bytes] = {
        "results.json": json.dumps(_as_json(result), indent=1) + "\n",
        "scores.csv": _as_csv(result),
        "classes.png": class_plot.draw(result),
    }
    for name, content in contents.items():
        atomic_write(folder / name, content)
    return [folder / name for name in contents]


def _as_json(result: Evaluation) -> dict[str, Any]:
    recognizer, data = result.recognizer, result.data
    return {
        "data": {
            "paths": [str(path.absolute()) for path in data.paths],
            "labels": "several an excerpt" if data.is_multi_label else "one an excerpt",
            "excerpts": len(result.excerpts),
            f"{data.source}s": result.sources,
            "left_out": {"trained_on": data.trained_on, "damaged": result.damaged},
            "leaking": data.leaking,
        },
        "nets": list(recognizer.names),
        "classes": recognizer.classes,
        "settings": {"window_s": recognizer.window_s, "hop_s": recognizer.hop_s} | asdict(result.options),
        "lrap": asdict(result.ranking_precision),
        "thresholds": [asdict(metrics) for metrics in result.rules],
        "remarks": result.remarks(),
        "source": provenance.source_digest(),
        "commit": provenance.git_commit(),
        "versions": provenance.versions() | {"scikit-learn": metadata.version("scikit-learn")},
    }


def _as_csv(result: Evaluation) -> str:
    """Return one row per excerpt: name, song or recording, labels, and the score of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", result.data.source, "labels", *result.scored.classes])
    for excerpt, scores in zip(result.excerpts, result.scored.scores, strict=True):
        writer.writerow([excerpt.name, excerpt.group, " ".join(excerpt.labels), *(f"{score:.6f}" for score in scores)])
    return text.getvalue()
