"""Metrics, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from bench.spec.result import REPORTED_FIELDS
from bench.training.metrics import METRICS, PARENT_METRICS, WORKER_METRICS, evaluate


def logits_and_labels(classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(200, classes)), random.integers(0, classes, 200)


def test_metrics_agree_with_scikit_learn() -> None:
    logits, labels = logits_and_labels()
    found, predicted = evaluate("test", logits, labels, METRICS), logits.argmax(1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["test_top1"] == accuracy_score(labels, predicted)
    assert found["test_loss"] == pytest.approx(log_loss(labels, probabilities))
    balanced = balanced_accuracy_score(labels, predicted)
    assert found["test_balanced_accuracy"] == pytest.approx(balanced)
    assert found["test_macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_each_metric_is_computed_once_and_reported() -> None:
    assert (*WORKER_METRICS, *PARENT_METRICS) == tuple(METRICS)
    assert REPORTED_FIELDS[: len(METRICS)] == tuple(f"test_{name}" for name in METRICS)


def test_a_value_that_is_not_finite_is_none() -> None:
    logits, labels = np.array([[0.0, np.inf]]), np.array([0])
    with np.errstate(invalid="ignore"):
        assert evaluate("val", logits, labels) == {"val_top1": 0.0, "val_loss": None}


def test_a_class_without_images_counts_nowhere() -> None:
    logits, labels = np.eye(3)[[0, 1, 2, 1]] * 9.0, np.array([0, 1, 0, 1])
    assert METRICS["balanced_accuracy"](logits, labels) == pytest.approx(0.75)


def test_calibration_by_hand() -> None:
    """Four images with confidence 0.8, three of them correct: a gap of 0.05; two with 0.55, none
    correct: a gap of 0.55; weighted by their images."""

    def logit(p: float) -> list[float]:
        return [np.log(p / (1 - p)), 0.0]

    logits = np.array([logit(0.8)] * 4 + [logit(0.55)] * 2)
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert METRICS["calibration_error"](logits, labels) == pytest.approx((4 * 0.05 + 2 * 0.55) / 6)
