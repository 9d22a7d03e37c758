"""What the ranked runs answered, as `statistics` takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irmas.errors import DataError, in_words
from irmas.results.bootstrap import Answers
from irmas.results.ranking import Ranking, Row
from irmas.results.statistics import Outcome
from irmas.run import predictions
from irmas.run.predictions import Predictions
from irmas.sweep.plan import run_folder

Confusion = tuple[NDArray[np.integer], list[str]]
"""Counts, (classes, classes), rows true, columns predicted; and the classes."""


def read(sweep: Path, ranking: Ranking) -> tuple[list[Outcome], Confusion | None, list[str]]:
    """The finished runs' outcomes, in their order; the confusion matrix of the leader; and what could not be read.

    A run without predictions, or with damaged ones, keeps its accuracy alone. The matrix is the sum over the leader's
    seeds; None where it lacks the predictions of one, or they are of several data sets.
    """
    found, problems, leaders = list[Outcome](), list[str](), list[Predictions | None]()
    before = None
    for row in ranking.rows:
        if not row.is_finished:
            continue
        answers = None
        try:
            answers = predictions.read(run_folder(sweep, ranking.plan.points[row.id - 1]).predictions)
        except (DataError, OSError) as error:
            problems.append(f"run {row.id}: {in_words(error)}; it keeps its rank, and loses its interval")
        if answers and before and _are_alike(answers, before):
            # Of 10,000 runs the names alone would take 1.5 GB.
            answers = replace(answers, excerpts=before.excerpts, recordings=before.recordings)
        if row.rank == 1:
            leaders.append(answers)
        found.append(_outcome(row, answers))
        before = answers or before
    return found, _confusion(leaders), problems


def _confusion(leaders: list[Predictions | None]) -> Confusion | None:
    known = [answers for answers in leaders if answers]
    if not known or len(known) < len(leaders) or len({tuple(answers.classes) for answers in known}) > 1:
        return None
    return np.sum([answers.confusion for answers in known], axis=0), known[0].classes.tolist()


def _are_alike(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.excerpts, other.excerpts) and np.array_equal(one.recordings, other.recordings)


def _outcome(row: Row, answers: Predictions | None) -> Outcome:
    assert row.accuracy is not None
    judged = Answers(answers.correct, answers.excerpts, answers.recordings) if answers else None
    return Outcome(row.id, row.values, row.accuracy, row.loss, judged)
