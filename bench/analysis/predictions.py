"""What runs said of each test image."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.spec.result import ImageAnswers
from bench.storage.results import StoredRun
from bench.training.metrics import UNREADABLE, labels_sha256, of_each_image, opened


@dataclass(frozen=True)
class Answers:
    """Of one run."""

    labels_sha256: str
    """Of the true classes: runs with the same one answered the same images."""
    right: npt.NDArray[np.bool_]
    """(N,)."""


def answers_of(run: StoredRun) -> Answers | None:
    """None where there are none that can be read.

    They lie beside the result; of an earlier Thawbench's run, in its predictions.
    """
    kept = run.result.test_answers
    return _from_file(run.folder) if kept is None else _unpacked(kept)


def _unpacked(kept: ImageAnswers) -> Answers | None:
    try:
        bits = np.frombuffer(base64.b64decode(kept.right_bits, validate=True), np.uint8)
    except ValueError:
        return None
    if len(bits) != -(-kept.images // 8):
        return None
    return Answers(kept.labels_sha256, np.unpackbits(bits, count=kept.images).astype(np.bool_))


def _from_file(folder: Path) -> Answers | None:
    try:
        with opened(folder) as arrays:
            labels = arrays["labels"]
            if "correct" in arrays:  # without the logits: they are most of the file
                right = arrays["correct"]
            else:
                right = of_each_image(arrays["logits"], labels)[0]
        if labels.shape != right.shape or labels.ndim != 1 or not labels.size:
            return None
        return Answers(labels_sha256(labels), right.astype(np.bool_))
    except UNREADABLE:
        return None


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


def largest_confusions(folder: Path, most: int = 20) -> dict[str, Any] | None:
    """What is most often taken for what, where there are too many classes for a matrix.

    Returns:
        ``kinds``: how many there are; ``largest``: the true class, the said one and the number of
        images of the most frequent, most first. None where nothing can be read.
    """
    try:
        with opened(folder) as arrays:
            labels, said = arrays["labels"], np.argmax(arrays["logits"], axis=1)
            pairs = np.stack([labels, said], axis=1)[labels != said]
    except UNREADABLE:
        return None
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    largest = [[*map(int, kinds[place]), int(counts[place])] for place in order]
    return {"kinds": len(kinds), "largest": largest}
