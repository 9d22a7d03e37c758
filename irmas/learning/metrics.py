"""Metrics that follow from a confusion matrix, and the weights of the classes."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(counts: Tensor) -> float:
    """Counts are (classes, classes): rows true, columns predicted."""
    return int(counts.diagonal().sum()) / int(counts.sum())


def macro_f1(counts: Tensor) -> float:
    """The mean of the classes' F1; a class that is neither there nor predicted counts as 0, as in scikit-learn."""
    true_positives = counts.diagonal().double()
    return float((2 * true_positives / (counts.sum(0) + counts.sum(1)).clamp_min(1)).mean())


def class_weights(targets: Tensor, num_classes: int) -> Tensor:
    """Inverse class frequencies, in double precision; they average to 1 over the targets."""
    counts = torch.bincount(targets, minlength=num_classes)
    return len(targets) / ((counts > 0).sum() * counts.clamp_min(1).double())
