"""Right and wrong answers of runs to their test images."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.model import Labels
from bench.spec.result import COUNT
from bench.storage.arrays import BoundedArchive
from bench.storage.results import StoredRun
from bench.training.predictions import (
    UNREADABLE,
    labels_sha256,
    open_predictions,
    per_image,
    unpacked_groups,
)


@dataclass(frozen=True)
class Answers:
    """A run's answers to its test images."""

    labels_sha256: str
    """Hash of the true classes: equal for the same test images."""
    right: npt.NDArray[np.bool_]
    """(images,)."""
    groups: Labels | None = None
    """(images,) number of each image's group, where images belong together."""


def answers_of(run: StoredRun) -> Answers | None:
    """Return a run's answers, from its result or an earlier version's predictions; None if they
    cannot be read."""
    kept = run.result.test_answers
    try:
        if kept is not None:
            bits = np.frombuffer(base64.b64decode(kept.right_bits, validate=True), np.uint8)
            if len(bits) != -(-kept.images // 8):
                return None
            kept_right = np.unpackbits(bits, count=kept.images).astype(np.bool_)
            groups = None if kept.groups is None else unpacked_groups(kept.groups, kept.images)
            return Answers(kept.labels_sha256, kept_right, groups)
        with open_predictions(run.folder) as arrays:
            labels = arrays["labels"]
            # The logits are most of the file, and not always needed.
            right = (arrays["correct"] if "correct" in arrays
                     else per_image(arrays["logits"], labels)[0])  # fmt: skip
            groups = arrays["groups"] if "groups" in arrays else None  # noqa: SIM401
        if labels.shape != right.shape or labels.ndim != 1 or not labels.size:
            return None
        if groups is not None and (groups.shape != labels.shape or groups.dtype.kind not in "iu"):
            return None
        return Answers(labels_sha256(labels), right.astype(np.bool_), groups)
    except UNREADABLE:
        return None


def confusion(folder: Path, classes: int) -> list[list[int]] | None:
    """Return the (classes, classes) numbers of images by true and predicted class; None if the
    predictions cannot be read."""
    try:
        with open_predictions(folder) as arrays:
            labels, predicted = _classes(arrays, classes)
            counted = np.bincount(labels * classes + predicted, minlength=classes * classes)
            counts: list[list[int]] = counted.reshape(classes, classes).tolist()
    except UNREADABLE:
        return None
    return counts


def _classes(arrays: BoundedArchive, classes: int) -> tuple[Labels, Labels]:
    """Return the true and the predicted class of each image; raise ValueError if a class is not
    below ``classes``."""
    labels, predicted = arrays["labels"], np.argmax(arrays["logits"], axis=1)
    if labels.dtype.kind not in "iu" or labels.shape != predicted.shape:
        raise ValueError("labels and logits do not fit")
    for found in (labels, predicted):
        if found.size and not 0 <= int(found.min()) <= int(found.max()) < classes:
            raise ValueError("there are labels of no class")
    return labels.astype(np.int64), predicted


def largest_confusions(folder: Path, most: int = 20) -> dict[str, Any] | None:
    """Return the most frequent confusions, for more classes than a matrix can show; ``kinds``: how
    many there are; ``largest``: true class, predicted class and number of images of the most
    frequent, in descending order. None if the predictions cannot be read."""
    try:
        with open_predictions(folder) as arrays:
            labels, predicted = _classes(arrays, COUNT)
            pairs = np.stack([labels, predicted], axis=1)[labels != predicted]
    except UNREADABLE:
        return None
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    largest = [[*map(int, kinds[place]), int(counts[place])] for place in order]
    return {"kinds": len(kinds), "largest": largest}
