"""Signs of shortcuts: a border, a tint or a file size that gives the class away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.advise.advice import Sign
from bench.advise.images import Development
from bench.advise.probes import Probe, probe
from bench.advise.signs.files import files_of
from bench.data.decode import image_headers
from bench.data.image_files import FileSource
from bench.data.model import SPLITS
from bench.network.blueprint import Array

SHORTCUT = 0.98
"""Accuracy of a probe that sees no content, from which on it is a shortcut."""
LEAST_OF_A_SHORTCUT = 5
"""Fewest held-out images of a class for a shortcut to this class alone: a property must find all of
them, and no other image."""
LEAST_CLASSES = 3
"""Fewest classes whose mean colour may be a shortcut: two, such as lemons and cherries, often have
colours of their own."""
FLAT = 2.0
"""Standard deviation of the pixels of a border (0 to 255) below which it is one colour."""


def shortcuts(data: Development) -> list[Sign]:
    """Find properties that give the class away without showing it: that of nearly all images, or,
    where a natural class would hardly have such a property, that of all images of one class."""
    labels, found = data.pool.labels, []
    for property_ in _CONTENTLESS:
        features = property_.values(data)
        if features is None or not features.std(axis=0).any():
            continue
        if property_.is_natural and len(np.unique(labels)) < LEAST_CLASSES:
            continue
        (own,) = probe(property_.words, features, labels, data.fold_of, ("neighbours",))
        if own.top1 >= SHORTCUT:
            first = np.array([np.flatnonzero(labels == c)[0] for c in np.unique(labels)])
            message = (
                f"{property_.words} alone gives the class of {own.top1:.0%} of the held-out "
                "images: a network may learn that and nothing of what the images show"
            )
            found.append(Sign(kind="shortcut", message=message, files=files_of(data, first)))
        elif not property_.is_natural and (marked := _marked_class(data, own)) is not None:
            message = (
                f"{property_.words} alone distinguishes '{data.dataset.classes[marked]}' from all "
                "others: a network may learn that and nothing of what these images show"
            )
            files = files_of(data, np.flatnonzero(labels == marked))
            found.append(Sign(kind="shortcut", message=message, files=files))
    return found


def _marked_class(data: Development, own: Probe) -> int | None:
    """Return the first class whose held-out images a probe finds all, without taking any other
    image for one of them; None if there is none with enough images."""
    labels = data.pool.labels[data.held_out]
    for label in range(len(data.dataset.classes)):
        is_own = labels == label
        if is_own.sum() >= LEAST_OF_A_SHORTCUT and ((own.predicted == label) == is_own).all():
            return label
    return None


def _file_facts(data: Development) -> Array | None:
    """Return (N, 4) width, height, their ratio and format of each file; None for embedded data."""
    source = data.dataset.source
    if not isinstance(source, FileSource):
        return None
    headers = image_headers(
        file.path for split in SPLITS if split != "test" for file in source.images[split]
    )
    width, height = (np.array([getattr(one, side) for one in headers], float)
                     for side in ("width", "height"))  # fmt: skip
    kinds = np.unique([one.format for one in headers], return_inverse=True)[1]
    return np.stack([np.log(width), np.log(height), np.log(width / height), kinds], axis=1)


def _borders(data: Development) -> Array | None:
    """Return (N, 4): whether the border of each image is of one colour, and that colour."""
    images = data.pool.images
    width = max(1, images.shape[1] // 48)
    edges = np.concatenate(
        [
            images[:, :width].reshape(len(images), -1, 3),
            images[:, -width:].reshape(len(images), -1, 3),
            images[:, :, :width].reshape(len(images), -1, 3),
            images[:, :, -width:].reshape(len(images), -1, 3),
        ],
        axis=1,
    )
    is_flat = (edges.std(axis=1).max(axis=1) < FLAT)[:, None]
    colours = edges.mean(axis=1) / 255.0
    return np.hstack([is_flat, colours * is_flat]).astype(np.float64)


def _tints(data: Development) -> Array | None:
    """Return (N, 3) the mean of each colour."""
    means: Array = data.pool.images.mean(axis=(1, 2)) / 255.0
    return means


@dataclass(frozen=True)
class _Property:
    """A property of images that shows no content."""

    words: str
    values: Callable[[Development], Array | None]
    """Return (N, C) values; None where there are none."""
    is_natural: bool
    """True if a natural class may have it alone: oranges have a mean colour, but no border. It is a
    shortcut only if it distinguishes ``LEAST_CLASSES`` classes or more."""


_CONTENTLESS = (
    _Property("the size or format of the file", _file_facts, is_natural=False),
    _Property("the colour of the border", _borders, is_natural=False),
    _Property("the mean colour", _tints, is_natural=True),
)
