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


def answers_of(folder: Path) -> Answers | None:
    """Of a run's folder; None where there are none that can be read."""
    try:
        with opened(folder) as arrays:
            labels = arrays["labels"]
            if "correct" in arrays:  # without the logits: they are most of the file
                found = Answers(labels, arrays["correct"])
            else:  # of an earlier Thawbench
                found = Answers(labels, of_each_image(arrays["logits"], labels)[0])
    except UNREADABLE:
        return None
    alike = found.labels.shape == found.right.shape
    return found if alike and found.labels.ndim == 1 and found.labels.size else None


def confusion(folder: Path, classes: int) -> list[list[int]] | None:
    """(classes, classes) images by true class and said class; None where nothing can be read."""
    try:
        with opened(folder) as arrays:
            labels, said = arrays["labels"], np.argmax(arrays["logits"], axis=1)
            counted = np.bincount(labels * classes + said, minlength=classes * classes)
            counts: list[list[int]] = counted.reshape(classes, classes).tolist()
    except UNREADABLE:
        return None
    return counts
