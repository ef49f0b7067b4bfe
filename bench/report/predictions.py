"""What runs said of each test image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.grades import UNREADABLE, opened
from bench.scores import of_each_image


@dataclass(frozen=True)
class Answers:
    """Of one run."""

    labels: npt.NDArray[np.int64]
    """(N,)."""
    right: npt.NDArray[np.bool_]
    """(N,)."""
    probability: npt.NDArray[np.float32]
    """(N,) of the true class."""


def answers_of(folder: Path) -> Answers | None:
    """Of a run's folder; None where there are none that can be read."""
    try:
        with opened(folder) as arrays:
            labels = arrays["labels"]
            if "correct" in arrays and "true_probability" in arrays:
                found = Answers(labels, arrays["correct"], arrays["true_probability"])
            else:  # of an earlier Thawbench
                found = Answers(labels, *of_each_image(arrays["logits"], labels))
    except UNREADABLE:
        return None
    shapes = {found.labels.shape, found.right.shape, found.probability.shape}
    return found if len(shapes) == 1 and found.labels.ndim == 1 and found.labels.size else None


def confusion(folder: Path, classes: int) -> list[list[int]] | None:
    """(classes, classes) images by true class and said class; None where nothing can be read."""
    from sklearn.metrics import confusion_matrix

    try:
        with opened(folder) as arrays:
            said = np.argmax(arrays["logits"], axis=1)
            matrix: Any = confusion_matrix(arrays["labels"], said, labels=list(range(classes)))
    except UNREADABLE:
        return None
    counts: list[list[int]] = matrix.tolist()
    return counts
