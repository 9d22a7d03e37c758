"""What the ranked runs answered, as `statistics` takes it."""

from __future__ import annotations

from pathlib import Path

from irmas.errors import DataError, in_words
from irmas.results.ranking import Ranking, Row
from irmas.results.statistics import Outcome
from irmas.run import predictions
from irmas.run.predictions import Predictions
from irmas.sweep.plan import run_folder


def read(sweep: Path, ranking: Ranking) -> tuple[list[Outcome], Predictions | None, list[str]]:
    """The ranked runs' outcomes, in their order; the predictions of the first; and what could not be read.

    A run without predictions, or with damaged ones, keeps its accuracy alone.
    """
    ranked = [row for row in ranking.rows if row.rank is not None]
    answers, problems = [], []
    for row in ranked:
        try:
            answers.append(predictions.read(run_folder(sweep, ranking.plan.points[row.id - 1]).predictions))
        except (DataError, OSError) as error:
            answers.append(None)
            problems.append(f"run {row.id}: {in_words(error)}")
    found = [_outcome(row, answer) for row, answer in zip(ranked, answers, strict=True)]
    return found, answers[0] if answers else None, problems


def _outcome(row: Row, answer: Predictions | None) -> Outcome:
    assert row.val_accuracy is not None
    arrays = (answer.correct, answer.excerpts, answer.recordings) if answer else (None, None, None)
    return Outcome(row.id, row.values, row.val_accuracy, *arrays)
