"""Finished runs with their predictions, as `analysis` takes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from irmas.config import anneals
from irmas.errors import DataError, in_words
from irmas.results.analysis import Outcome
from irmas.results.comparison import Answers
from irmas.results.ranking import Ranking, Row
from irmas.run import predictions
from irmas.run.events import VAL_ACCURACY
from irmas.run.predictions import Predictions

Confusion = tuple[NDArray[np.integer], list[str]]
"""Counts, (classes, classes), rows true, columns predicted; and the classes."""


def read(ranking: Ranking) -> tuple[list[Outcome], Confusion | None, list[str]]:
    """Return the ranked runs in their order, the confusion matrix of the leader's first run, and what was unreadable.

    A run without predictions, or with damaged ones, keeps its accuracy alone.
    """
    found, problems, leading = list[Outcome](), list[str](), dict[int, Predictions]()
    before = None
    for row in ranking.rows:
        if not row.is_finished:
            continue
        made = None
        try:
            made = predictions.read(ranking.sweep.run_folder(ranking.plan.runs[row.id - 1]).predictions)
        except (DataError, OSError) as error:
            problems.append(f"run {row.id}: {in_words(error)}; it keeps its rank, and loses its interval")
        if made and before and _are_alike(made, before):
            # Of 10,000 runs the names alone would take 1.5 GB.
            made = replace(made, excerpts=before.excerpts, recordings=before.recordings)
        if made and row.rank == 1:
            leading[row.id] = made
        found.append(_outcome(ranking, row, made))
        before = made or before
    first = leading.get(min((row.id for row in ranking.rows if row.rank == 1), default=0))
    return found, (first.confusion, first.classes.tolist()) if first else None, problems


def _are_alike(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.excerpts, other.excerpts) and np.array_equal(one.recordings, other.recordings)


def _outcome(ranking: Ranking, row: Row, made: Predictions | None) -> Outcome:
    assert row.accuracy is not None
    answers = Answers(made.correct, made.excerpts, made.recordings) if made else None
    # A swept group, such as recipe, may set it.
    schedule = ranking.plan.runs[row.id - 1].changes.get("schedule", ranking.plan.config.schedule)
    curve = tuple(row.curves.get(VAL_ACCURACY, {}).values())
    return Outcome(row.id, row.values, row.accuracy, row.loss, answers, curve, anneals(schedule))
