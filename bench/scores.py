"""What logits say of the images of a split."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

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
