"""An evaluation from its data to its files: results.json, scores.csv, classes.png, and the mixtures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from irmas import provenance
from irmas.console import Progress
from irmas.errors import DataError, UserError
from irmas.evaluation import mixtures, protocol, scoring, testset
from irmas.evaluation.protocol import FIXED, HIGHEST, MIXTURES, ORACLE, Array, Figure, Judgement, Rule, Scored
from irmas.evaluation.testset import EvaluationSet, LabelledExcerpt
from irmas.files import atomic_write
from irmas.inference.recognizer import Recognizer
from irmas.results.page import counted
from irmas.run.model_file import ModelFile

RESULTS, SCORES, PICTURE, MIXED = "results.json", "scores.csv", "classes.png", "mixtures"
DROP = "drop"
SHOWN = 20
"""Files that cannot be used, listed in a message: whoever names a wrong folder has thousands."""


@dataclass(frozen=True)
class Settings:
    hop_s: float
    aggregate: str
    """`mean` or `max`."""
    threshold: float
    """The fixed one."""
    damaged: str
    """`refuse` to go on where files cannot be used, or `drop` them."""


@dataclass(frozen=True)
class Evaluation:
    found: EvaluationSet
    excerpts: list[LabelledExcerpt]
    """Those that were heard."""
    scored: Scored
    ranking_precision: Figure
    judgements: list[Judgement]
    damaged: list[str]
    """A line a file that was left out."""
    no_mixtures: str
    """Why no threshold was chosen on mixtures, where one is of use."""

    @property
    def chief(self) -> Judgement:
        """That whose threshold, if it has one, was honestly chosen."""
        by_name = {judgement.rule.name: judgement for judgement in self.judgements}
        return next(by_name[name] for name in (MIXTURES, FIXED, HIGHEST) if name in by_name)

    @property
    def sources(self) -> int:
        """Songs or recordings."""
        return len(set(self.scored.groups))

    @property
    def without_excerpts(self) -> list[str]:
        """Classes without any excerpt."""
        return [of.label for of in self.chief.classes if not of.support]

    def remarks(self) -> list[str]:
        """What a reader must know of the figures."""
        found, said = self.found, []
        if found.trained_on:
            said.append(f"left out: {len(found.trained_on)} excerpts that the model was trained on")
        if found.leaking:
            said.append(
                f"leak: {found.leaking} of {len(self.excerpts)} excerpts are of recordings that the model was trained "
                "on, and flatter it"
            )
        if self.damaged:
            said.append(f"left out: {counted(len(self.damaged), 'file')} that cannot be used{_listed(self.damaged)}")
        if self.without_excerpts:
            said.append(f"no excerpt has {' '.join(self.without_excerpts)}: macro F1 is the mean of the other classes")
        if self.scored.draws is None:
            said.append(f"no intervals: all excerpts are of one {found.source}")
        if self.no_mixtures:
            said.append(f"no threshold is chosen on mixtures of the model's validation data: {self.no_mixtures}")
        return said


def evaluate(
    recognizer: Recognizer,
    files: Sequence[ModelFile],
    found: EvaluationSet,
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> Evaluation:
    """Hear everything; the mixtures first, which are written to `folder`.

    Raises DataError, listing all of them, where files cannot be used and are not to be dropped.
    """
    _refuse_damaged(found.problems, found, settings)
    chosen, reason = None, ""
    if found.is_multi_label:
        try:
            chosen = _threshold_of_mixtures(recognizer, files, settings, folder / MIXED, progress)
        except UserError as error:
            reason = str(error)
    progress.start("listening", len(found.excerpts))
    excerpts, scores, problems = _hear(recognizer, found, settings, progress.advance)
    damaged = found.problems + problems
    _refuse_damaged(damaged, found, settings)
    if not excerpts:
        raise DataError(f"{found}: no excerpt is left{_listed(damaged)}")
    scored = _scored(recognizer.classes, excerpts, scores)
    if found.is_multi_label:
        rules = [Rule(FIXED, settings.threshold)]
        rules += [Rule(MIXTURES, chosen)] if chosen is not None else []
        rules += [Rule(ORACLE, protocol.best_threshold(scored.truth, scored.scores))]
    else:
        rules = [Rule(HIGHEST)]
    judgements = [protocol.judge(scored, rule) for rule in rules]
    return Evaluation(found, excerpts, scored, protocol.ranking_precision(scored), judgements, damaged, reason)


def _refuse_damaged(problems: Sequence[str], found: EvaluationSet, settings: Settings) -> None:
    if problems and settings.damaged != DROP:
        said = f"{found}: {counted(len(problems), 'file')} cannot be used; --damaged drop leaves them out"
        raise DataError(said + _listed(problems))


def _listed(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "".join(f"\n  {line}" for line in [*problems[:SHOWN], *more])


def _threshold_of_mixtures(
    recognizer: Recognizer, files: Sequence[ModelFile], settings: Settings, folder: Path, progress: Progress
) -> float:
    """Raises UserError where there are none, with the reason."""
    mixtures.make(folder, files, progress)
    mixed = testset.read([folder], recognizer.classes, recognizer.nets, files)
    progress.start("listening to mixtures", len(mixed.excerpts))
    excerpts, scores, _ = _hear(recognizer, mixed, settings, progress.advance)
    scored = _scored(recognizer.classes, excerpts, scores)
    return protocol.best_threshold(scored.truth, scored.scores)


def _hear(
    recognizer: Recognizer, found: EvaluationSet, settings: Settings, on_excerpts: Callable[[int], None]
) -> tuple[list[LabelledExcerpt], Array, list[str]]:
    """Excerpts that could be heard, their scores, and a line for each of the others."""
    if found.features is not None:
        stored = [excerpt.row for excerpt in found.excerpts]
        scores = scoring.of_rows(recognizer, found.features, stored, settings.aggregate, on_excerpts)
        return found.excerpts, scores, []
    scores, problems = scoring.scores(recognizer, found.excerpts, settings.hop_s, settings.aggregate, on_excerpts)
    rows = np.flatnonzero(~np.isnan(scores).any(axis=1))
    return [found.excerpts[row] for row in rows], scores[rows], problems


def _scored(classes: list[str], excerpts: Sequence[LabelledExcerpt], scores: Array) -> Scored:
    truth = np.array([[label in excerpt.labels for label in classes] for excerpt in excerpts])
    return Scored(classes, truth, scores, [excerpt.group for excerpt in excerpts])


def write(folder: Path, result: Evaluation, recognizer: Recognizer, settings: Settings) -> list[Path]:
    """Results, scores and picture; their paths. Raises OSError, with the file's path."""
    from irmas.evaluation import class_plot  # here, since matplotlib takes a while to import

    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, str | bytes] = {
        RESULTS: json.dumps(_as_json(result, recognizer, settings), indent=1) + "\n",
        SCORES: _as_csv(result),
        PICTURE: class_plot.draw(result),
    }
    for name, content in contents.items():
        atomic_write(folder / name, content)
    return [folder / name for name in contents]


def _as_json(result: Evaluation, recognizer: Recognizer, settings: Settings) -> dict[str, Any]:
    found = result.found
    return {
        "data": {
            "paths": [str(path.absolute()) for path in found.paths],
            "labels": "several an excerpt" if found.is_multi_label else "one an excerpt",
            "excerpts": len(result.excerpts),
            f"{found.source}s": result.sources,
            "left_out": {"trained_on": found.trained_on, "damaged": result.damaged},
            "leaking": found.leaking,
        },
        "nets": list(map(str, recognizer.names)),
        "classes": recognizer.classes,
        "settings": {"window_s": recognizer.window_s} | asdict(settings),
        "lrap": asdict(result.ranking_precision),
        "thresholds": [asdict(judgement) for judgement in result.judgements],
        "remarks": result.remarks(),
        "source": provenance.source_digest(),
        "commit": provenance.git_commit(),
        "versions": provenance.versions() | {"scikit-learn": metadata.version("scikit-learn")},
    }


def _as_csv(result: Evaluation) -> str:
    """A line an excerpt: name, song or recording, labels, and the score of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", result.found.source, "labels", *result.scored.classes])
    for excerpt, scores in zip(result.excerpts, result.scored.scores, strict=True):
        writer.writerow([excerpt.name, excerpt.group, " ".join(excerpt.labels), *(f"{score:.6f}" for score in scores)])
    return text.getvalue()
