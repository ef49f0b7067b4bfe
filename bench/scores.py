"""Accuracy and loss of logits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from bench.blueprint import Array


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
