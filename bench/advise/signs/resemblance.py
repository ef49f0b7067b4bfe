"""Signs in images that resemble each other: copies of training images, and photo sessions."""

from __future__ import annotations

import numpy as np

from bench.advise.advice import Sign
from bench.advise.images import Development, stratified_order
from bench.advise.probes import pixel_features
from bench.advise.signs.files import NAMED
from bench.data.model import Pixels, SplitName
from bench.data.resplit import Indices
from bench.network.blueprint import Array

COPY = 0.995
"""Correlation of two reduced images from which on one is taken for a copy of the other, saved anew
or resized."""
MOST_COPIES = 0.05
"""Share of the test images with a copy among the training images, that is too much."""
LEAST_TWINS = 10
"""Most images that may look like copies by chance, where a part of the training images is looked
at: of 1,000 test images of Fashion-MNIST 3 do."""
SESSION = 0.93
"""Mean correlation of the images of a class, as of frames of one video. Among the classes of the
embedded sets the largest is 0.8, of generated pages of one kind."""
APART = 0.2
"""Correlation by which images of a session must be more alike than images of different classes."""
COMPARED = 2000
"""Most images that are compared at once, and in all when sessions are looked for."""


def copies(data: Development) -> list[Sign]:
    """Find test and validation images that are copies of training images. Where only
    a part of the training images is looked at, the bound is that part of the usual one, as copies
    of the others do not show."""
    fit = reduced_vectors(data.packed.train.images)
    looked_at = min(1.0, len(data.pool.labels) / max(data.whole_images, 1))
    found = []
    parts: tuple[tuple[SplitName, str], ...] = (("test", "test"), ("val", "validation"))
    for split, words in parts:
        part = getattr(data.packed, split)
        if not len(part.labels) or not len(fit):
            continue
        nearest, where = _nearest(reduced_vectors(part.images), fit)
        twins = np.flatnonzero(nearest > COPY)
        least = LEAST_TWINS if looked_at < 1 else 0
        if len(twins) <= max(MOST_COPIES * looked_at * len(nearest), least):
            continue
        source = data.dataset.source
        files = [
            f"{source.where(split, int(i))} = {source.where('train', int(where[i]))}"
            for i in twins[:NAMED]
        ]
        message = (
            f"{len(twins)} of {len(nearest)} {words} images are copies of training images, saved "
            "anew or resized"
        )
        if looked_at < 1:
            message += f"; only {len(fit):,} training images were looked at"
        found.append(Sign(kind="copies", message=message, files=tuple(files)))
    return found


def sessions(data: Development) -> list[Sign]:
    """Find classes whose images are nearly the same picture, while those of different classes are
    not: aligned pictures, as of parts on a belt, are alike in all classes."""
    pool = data.pool
    chosen = stratified_order(pool.labels)[:COMPARED]
    some, labels = reduced_vectors(pool.images[chosen]), pool.labels[chosen]
    sums = [_pair_sum(some[labels == label]) for label in np.unique(labels)]
    within, pairs_within = (sum(part) for part in zip(*sums, strict=True))
    every, pairs = _pair_sum(some)
    between = (every - within) / max(pairs - pairs_within, 1)
    typical, files = [], []
    for label in range(len(data.dataset.classes)):
        own = np.flatnonzero(pool.labels == label)[:COMPARED]
        alike, count = _pair_sum(reduced_vectors(pool.images[own]))
        typical.append(alike / max(count, 1))
        files.append(pool.names[own[0]] if len(own) else "")
    same = [i for i, value in enumerate(typical) if value > max(SESSION, between + APART)]
    if not same:
        return []
    names = ", ".join(f"'{data.dataset.classes[i]}'" for i in same[:NAMED])
    message = (
        f"the images of {names} are nearly one picture, as from one photo session or video: a "
        "network may know the session and not the class"
    )
    return [Sign(kind="shortcut", message=message, files=tuple(files[i] for i in same[:NAMED]))]


def _pair_sum(vectors: Array) -> tuple[float, int]:
    """Return the sum of the products of all pairs of different vectors (N, C), each pair twice, and
    the number of these products."""
    total = float(np.square(vectors.sum(axis=0)).sum()) - float(np.square(vectors).sum())
    return total, len(vectors) * (len(vectors) - 1)


def reduced_vectors(images: Pixels) -> Array:
    """Return images as (N, C) vectors of length 1, without the mean of each colour, so that
    products are correlations of what is in the images, and not of their tints."""
    vectors = pixel_features(np.asarray(images)).astype(np.float32)
    colours = vectors.reshape(len(vectors), vectors.shape[1] // 3, 3)
    vectors = (colours - colours.mean(axis=1, keepdims=True)).reshape(vectors.shape)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[norms[:, 0] < 1e-3] = 0.0  # plain images are copies of none
    reduced: Array = vectors / np.maximum(norms, 1e-3)
    return reduced


def _nearest(images: Array, others: Array) -> tuple[Array, Indices]:
    """Return the largest correlation of each image with the others, and which that is."""
    best = np.full(len(images), -1.0, np.float32)
    where = np.zeros(len(images), np.int64)
    for first in range(0, len(images), COMPARED):
        product = images[first : first + COMPARED] @ others.T
        best[first : first + COMPARED] = product.max(axis=1)
        where[first : first + COMPARED] = product.argmax(axis=1)
    return best, where
