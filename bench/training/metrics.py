"""Metrics of logits and true classes, each in one place: validation, test and search use them.

To add a metric, add it to ``METRICS`` and its field ``test_<name>`` to ``RunResult``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from bench.data.model import Labels
from bench.network.blueprint import Array

Metric = Callable[[Array, Labels], float]
"""(logits (N, classes), labels) → value."""
BINS = 15
"""Confidence bins of the calibration error, as in Guo et al. 2017, "On Calibration of Modern Neural
Networks"."""


def top1(logits: Array, labels: Labels) -> float:
    """Return the share of images whose greatest logit is that of their class."""
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def cross_entropy(logits: Array, labels: Labels) -> float:
    """Return the mean of ``-log softmax(logits)[label]``, computed in float64."""
    chosen = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return float(-np.mean(chosen))


def balanced_accuracy(logits: Array, labels: Labels) -> float:
    """Return the mean recall over the classes that have images."""
    from sklearn.metrics import recall_score

    # balanced_accuracy_score gives the same, but warns of predicted classes without images.
    return _class_mean(recall_score, logits, labels)


def macro_f1(logits: Array, labels: Labels) -> float:
    """Return the mean F1 score over the classes that have images."""
    from sklearn.metrics import f1_score

    return _class_mean(f1_score, logits, labels)


def _class_mean(score: Callable[..., Any], logits: Array, labels: Labels) -> float:
    chosen, classes = np.argmax(logits, axis=1), np.unique(labels)
    return float(score(labels, chosen, labels=classes, average="macro", zero_division=0.0))


def calibration_error(logits: Array, labels: Labels) -> float:
    """Return the expected calibration error over ``BINS`` bins of equal width (Guo et al. 2017)."""
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    # A bin's |sum of (right - confidence)| is its images times the distance of its two means.
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


METRICS: dict[str, Metric] = {
    "top1": top1,
    "loss": cross_entropy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "calibration_error": calibration_error,
}
"""Name → function; ``RunResult`` holds the value on the test split as ``test_<name>``."""
WORKER_METRICS = ("top1", "loss")
"""Metrics that a worker computes, of validation and of test images."""
PARENT_METRICS = tuple(name for name in METRICS if name not in WORKER_METRICS)
"""Metrics that the parent computes from the saved logits of the test images, as they may need
scikit-learn."""


def evaluate(
    split: str, logits: Array, labels: Labels, names: Iterable[str] = WORKER_METRICS
) -> dict[str, float | None]:
    """Return ``<split>_<metric>`` → value of logits (N, classes), None where it is not finite."""
    values = {name: METRICS[name](logits, labels) for name in names}
    return {f"{split}_{n}": v if math.isfinite(v) else None for n, v in values.items()}
