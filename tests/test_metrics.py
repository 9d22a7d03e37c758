"""Metrics against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from irmas.learning.learner import accuracy, class_weights, macro_f1
from irmas.run.predictions import Predictions

CLASSES = 4
pairs = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=60)


@given(pairs)
def test_confusion_accuracy_and_macro_f1_are_scikit_learns(drawn: list[tuple[int, int]]) -> None:
    true, predicted = (np.array(column) for column in zip(*drawn, strict=True))
    names = np.array(["same"] * len(true))
    answers = Predictions(np.arange(CLASSES).astype(str), names, names, true, predicted, true == predicted)
    counts = torch.from_numpy(answers.confusion)
    labels = range(CLASSES)
    assert counts.tolist() == confusion_matrix(true, predicted, labels=labels).tolist()
    assert accuracy(counts) == pytest.approx(accuracy_score(true, predicted), rel=1e-12)
    expected = f1_score(true, predicted, labels=labels, average="macro", zero_division=0.0)
    assert macro_f1(counts) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=60))
def test_class_weights_are_inverse_frequencies_that_average_to_1(drawn: list[int]) -> None:
    targets = torch.tensor(drawn)
    weights = class_weights(targets, CLASSES)
    assert float(weights[targets].mean()) == pytest.approx(1, rel=1e-12)
    shares = [float(weights[label]) * drawn.count(label) for label in set(drawn)]
    assert shares == pytest.approx([shares[0]] * len(shares))
