"""An evaluation from its data to its files: results.json, scores.csv, classes.png, and the mixtures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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
from irmas.evaluation import protocol, testset
from irmas.evaluation.protocol import FIXED, ORACLE, TOP_SCORE, TUNED, Array, Metric, Rule, RuleMetrics, ScoredExcerpts
from irmas.evaluation.testset import EvaluationSet, LabeledExcerpt
from irmas.files import atomic_write, write_csv
from irmas.inference.recognizer import Recognizer
from irmas.processes import cpu_count
from irmas.results.comparison import few
from irmas.run.model_file import ModelFile

MIXED = "mixtures"
"""Folder of the mixtures, beside the results."""
DROP = "drop"
LISTED = 20
"""Files that a message lists at most: a wrong folder has thousands that cannot be used."""


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
        data, damaged, absent = self.data, self.damaged, " ".join(self.without_excerpts)
        remarks = {
            f"left out: {len(data.trained_on)} excerpts that the model was trained on": data.trained_on,
            f"leak: {data.leaking} of {len(self.excerpts)} excerpts are of recordings that the model was trained on, "
            "and flatter it": data.leaking,
            f"left out: {counted(len(damaged), 'file')} that cannot be used{_listed(damaged)}": damaged,
            f"no excerpt has {absent}: macro F1 is the mean of the other classes": absent,
            few(self.sources, data.source): self.scored.draws is not None,
            f"no intervals: all excerpts are of one {data.source}": self.scored.draws is None,
            f"no threshold is chosen on mixtures of the model's validation data: {self.no_mixtures}": self.no_mixtures,
        }
        return [text for text, applies in remarks.items() if text and applies]


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
    rules, no_mixtures = [Rule(TOP_SCORE)], ""
    if data.is_multi_label:
        rules = [Rule(FIXED, options.threshold)]
        try:
            testset.write_mixtures(folder / MIXED, files, progress)
            mixed = testset.read([folder / MIXED], files)
            _, scored, _ = _score(recognizer, mixed, options, progress, "scoring mixtures")
            rules.append(Rule(TUNED, protocol.best_threshold(scored.truth, scored.scores)))
        except UserError as error:
            no_mixtures = str(error)
    excerpts, scored, problems = _score(recognizer, data, options, progress, "scoring")
    damaged = data.problems + problems
    _refuse_damaged(damaged, data, options)
    if not excerpts:
        raise DataError(f"{data}: no excerpt is left{_listed(damaged)}")
    if data.is_multi_label:
        rules.append(Rule(ORACLE, protocol.best_threshold(scored.truth, scored.scores)))
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


def _score(
    recognizer: Recognizer, data: EvaluationSet, options: Options, progress: Progress, task: str
) -> tuple[list[LabeledExcerpt], ScoredExcerpts, list[str]]:
    """Return the excerpts that can be used, their scores, and one line for each of the others."""
    progress.start(task, len(data.excerpts))
    excerpts, problems = data.excerpts, list[str]()
    if data.features is not None:
        rows = [excerpt.row for excerpt in excerpts]
        scores = _cache_scores(recognizer, data.features, rows, options.aggregate, progress)
    else:
        scores, problems = file_scores(recognizer, excerpts, options.aggregate, progress)
        usable = np.flatnonzero(~np.isnan(scores).any(axis=1))
        excerpts, scores = [excerpts[row] for row in usable], scores[usable]
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
    scores, size = [], 32
    for start in range(0, len(rows), size):
        batch = list(rows[start : start + size])
        log_mel_db = torch.from_numpy(cache.features[batch]).float() * cache.scale + cache.offset
        mean = np.asarray(np.mean([net.classify(log_mel_db) for net in recognizer.nets], axis=0, dtype=np.float64))
        scores += [protocol.aggregate(row, 1, method) for row in mean]
        progress.advance(len(batch))
    return np.array(scores)


def write(folder: Path, result: Evaluation, formats: Iterable[str] = ()) -> list[Path]:
    """Write results, scores and the picture, as PNG and in other formats; return their paths.

    Raises OSError, with the file's path.
    """
    from irmas.evaluation import class_plot  # here, because matplotlib takes a while to import

    folder.mkdir(parents=True, exist_ok=True)
    results, table = written = [folder / name for name in ("results.json", "scores.csv")]
    atomic_write(results, json.dumps(_as_json(result), indent=1) + "\n")
    rows = (
        [excerpt.name, excerpt.group, " ".join(excerpt.labels), *(f"{score:.6f}" for score in scores)]
        for excerpt, scores in zip(result.excerpts, result.scored.scores, strict=True)
    )
    write_csv(table, ["name", result.data.source, "labels", *result.scored.classes], rows)
    for name, picture in class_plot.draw(result, formats).items():
        atomic_write(folder / name, picture)
        written.append(folder / name)
    return written


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
