"""What runs said of each test image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    said: npt.NDArray[np.int64]
    """(N,) class with the greatest logit."""

    def confusion(self, classes: int) -> list[list[int]]:
        """(classes, classes) images by true class and said class."""
        counted = np.bincount(self.labels * classes + self.said, minlength=classes * classes)
        counts: list[list[int]] = counted.reshape(classes, classes).tolist()
        return counts


def answers_of(folder: Path) -> Answers | None:
    """Of a run's folder; None where there are none that can be read."""
    try:
        with opened(folder) as arrays:
            labels = arrays["labels"]
            if "correct" in arrays and "true_probability" in arrays:
                each = arrays["correct"], arrays["true_probability"]
            else:  # of an earlier Thawbench
                each = of_each_image(arrays["logits"], labels)
            found = Answers(labels, *each, np.argmax(arrays["logits"], axis=1))
    except UNREADABLE:
        return None
    shapes = {found.labels.shape, found.right.shape, found.probability.shape, found.said.shape}
    return found if len(shapes) == 1 and found.labels.ndim == 1 and found.labels.size else None
