"""A run's predictions of the test images: the file, and the result's fields computed from it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from bench.data.model import Labels
from bench.network.blueprint import Array
from bench.spec.result import ImageAnswers
from bench.storage.arrays import BoundedArchive, open_archive
from bench.training.metrics import PARENT_METRICS, evaluate

FILE = "predictions.npz"
UNREADABLE = (OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError,
              MemoryError, zipfile.BadZipFile, zlib.error)  # fmt: skip
"""Exceptions that reading a damaged or foreign file of arrays may raise."""


@contextmanager
def open_predictions(folder: Path) -> Iterator[BoundedArchive]:
    """Open the arrays of a run's predictions by name; raise one of ``UNREADABLE`` if the file is
    missing or damaged."""
    with open_archive(folder / FILE) as arrays:
        yield arrays


def per_image(
    logits: Array, labels: Labels
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Return (N,) True where the top class of logits (N, classes) is the true one, and (N,) the
    probability of the true class."""
    is_right = np.argmax(logits, axis=1) == labels
    chosen = softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return is_right, chosen.astype(np.float32)


def save_predictions(
    folder: Path, logits: Array, labels: Labels, groups: Labels | None = None
) -> None:
    """Write the predictions for N test images: logits (N, classes), labels, correctness and
    probability of the true class, each (N,), and the images' groups (N,) if there are any."""
    correct, probability = per_image(logits, labels)
    arrays: dict[str, Any] = {
        "logits": logits.astype(np.float32), "labels": labels, "correct": correct,
        "true_probability": probability,
    }  # fmt: skip
    if groups is not None:
        arrays["groups"] = groups
    np.savez_compressed(folder / FILE, **arrays)


def labels_sha256(labels: npt.NDArray[np.integer[Any]]) -> str:
    """Hash (N,) class numbers, whatever their dtype (hex)."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def image_answers(logits: Array, labels: Labels, groups: Labels | None = None) -> ImageAnswers:
    """Build the field ``test_answers`` of ``RunResult`` from logits (N, classes), labels (N,) and
    the images' groups (N,), if there are any."""
    bits = base64.b64encode(np.packbits(per_image(logits, labels)[0]).tobytes()).decode()
    packed = None if groups is None else _packed_groups(groups)
    return ImageAnswers(
        images=len(labels), labels_sha256=labels_sha256(labels), right_bits=bits, groups=packed
    )


def _packed_groups(groups: Labels) -> str:
    return base64.b64encode(zlib.compress(groups.astype("<i4").tobytes(), 9)).decode()


def unpacked_groups(text: str, images: int) -> Labels:
    """Return the groups (N,) of ``ImageAnswers.groups``; raise ValueError if they are not those of
    so many images."""
    most = 4 * images + 1  # a damaged or foreign text may unpack to gigabytes
    data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), most)
    groups = np.frombuffer(data, "<i4").astype(np.int64)
    if len(groups) != images or (images and int(groups.min()) < 0):
        raise ValueError("the groups are not those of the images")
    return groups


def prediction_fields(folder: Path) -> dict[str, Any]:
    """Compute the fields of ``RunResult`` that come from a run's saved predictions, none where
    those are missing or cannot be read."""
    try:
        with open_predictions(folder) as arrays:
            logits, labels = arrays["logits"], arrays["labels"]
            groups = arrays["groups"] if "groups" in arrays else None  # noqa: SIM401
            fields = evaluate("test", logits, labels, PARENT_METRICS)
            return {**fields, "test_answers": image_answers(logits, labels, groups)}
    except UNREADABLE:
        return {}
