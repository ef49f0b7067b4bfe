"""What a run's predictions are worth besides top-1: by scikit-learn, in the parent process.

What logits say of the images of a split."""

from __future__ import annotations

import base64
import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from bench.network.blueprint import Array
from bench.spec.result import ImageAnswers

BINS = 15
"""Of confidence: Guo et al. 2017, "On Calibration of Modern Neural Networks"."""
FILE = "predictions.npz"
UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a damaged or foreign file of arrays may raise."""


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """The arrays of a run's predictions by name.

    Raises:
        UNREADABLE: They are missing or damaged.
    """
    # NumPy leaves a file open that turns out to be none of its own.
    with (folder / FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


def grades(logits: Array, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Fields of ``RunResult``.

    Args:
        logits: (N, classes).
        labels: (N,) class numbers. A class without images counts nowhere.
    """
    from sklearn.metrics import f1_score, recall_score

    said, there = np.argmax(logits, axis=1), np.unique(labels)
    return {
        # balanced_accuracy_score warns of classes that are said and not there; this is the same.
        "test_balanced_accuracy": float(
            recall_score(labels, said, labels=there, average="macro", zero_division=0.0)
        ),
        "test_macro_f1": float(
            f1_score(labels, said, labels=there, average="macro", zero_division=0.0)
        ),
        "test_calibration_error": calibration_error(logits, labels),
    }


def calibration_error(logits: Array, labels: npt.NDArray[np.int64]) -> float:
    """Expected calibration error over ``BINS`` bins of equal width (Guo et al. 2017, 3).

    Args:
        logits: (N, classes).
        labels: (N,) class numbers.
    """
    shares = softmax(logits.astype(np.float64), axis=1)
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    # |sum of (right - confidence)| of a bin is its images times the distance of its means.
    apart = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(apart).sum() / len(labels))


def labels_sha256(labels: npt.NDArray[np.integer[Any]]) -> str:
    """Of (N,) class numbers."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def answers(logits: Array, labels: npt.NDArray[np.int64]) -> ImageAnswers:
    """Field ``test_answers`` of ``RunResult``.

    Args:
        logits: (N, classes).
        labels: (N,) class numbers.
    """
    right = of_each_image(logits, labels)[0]
    bits = base64.b64encode(np.packbits(right).tobytes()).decode()
    return ImageAnswers(images=len(labels), labels_sha256=labels_sha256(labels), right_bits=bits)


def grades_of(folder: Path) -> dict[str, Any]:
    """Fields of ``RunResult`` that a run's predictions give; nothing where there are none, or none
    that can be read."""
    try:
        with opened(folder) as arrays:
            logits, labels = arrays["logits"], arrays["labels"]
            return {**grades(logits, labels), "test_answers": answers(logits, labels)}
    except UNREADABLE:
        return {}


def score(logits: Array, labels: npt.NDArray[np.int64]) -> tuple[float, float | None]:
    """Top-1 accuracy and mean cross-entropy.

    Args:
        logits: (N, classes).
        labels: (N,) class numbers.

    Returns:
        Share of right answers; mean of ``-log softmax(logits)[label]``, None if not finite.
    """
    top1 = float(np.mean(np.argmax(logits, axis=1) == labels))
    chosen = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    loss = float(-np.mean(chosen))
    return top1, loss if math.isfinite(loss) else None


def of_each_image(
    logits: Array, labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """What two models are compared by, image by image.

    Args:
        logits: (N, classes).
        labels: (N,) class numbers.

    Returns:
        (N,) whether the greatest logit is the true class's; (N,) the true class's probability.
    """
    right = np.argmax(logits, axis=1) == labels
    chosen = softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return right, chosen.astype(np.float32)
