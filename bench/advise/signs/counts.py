"""Signs in the numbers of images: too few, or nearly all of one class."""

from __future__ import annotations

import numpy as np

from bench.advise.advice import Sign
from bench.advise.images import Development
from bench.advise.signs.files import NAMED, files_of
from bench.data.image_files import first_of

LEAST_OF_A_CLASS = 4
"""Fewest images of a class, apart from the test."""
LEAST_IMAGES = 20
LEAST_HELD_OUT = 10
"""Fewest held-out images on which strategies are compared."""
DOMINANT = 0.85
"""Share of the images in one class from which on accuracy says little."""


def too_few(data: Development) -> list[Sign]:
    """Find the first kind of images of which there are too few."""
    classes, labels = data.dataset.classes, data.pool.labels
    counts = data.whole_counts
    if counts is None:
        counts = np.bincount(labels, minlength=len(classes))
    few = np.flatnonzero(counts < LEAST_OF_A_CLASS)
    own = [f"'{classes[i]}' ({counts[i]})" for i in few]
    fit = [data.fit_images(fold) for fold in range(data.folds)]
    is_split_own = bool((data.fold_of < 0).any())
    untaught = np.setdiff1d(labels, labels[fit[0]]) if is_split_own else np.array([], np.int64)
    without = [f"'{classes[i]}'" for i in untaught]
    lone = next((part for part in fit if len(np.unique(labels[part])) < 2), None)
    held_out = data.held_out
    found = (
        (len(few) > 0, np.flatnonzero(np.isin(labels, few)),
         f"there are fewer than {LEAST_OF_A_CLASS} images for training and validation of the "
         f"classes {first_of(own, NAMED)}"),
        (len(untaught) > 0, np.flatnonzero(np.isin(labels, untaught)),
         f"there is no training image of the classes {first_of(without, NAMED)}"),
        (lone is not None, lone, "the training images apart from those held out are of one class "
         "alone"),
        (len(labels) < LEAST_IMAGES, np.arange(len(labels)),
         f"{len(labels)} images for training and validation are too few: nothing can be said from "
         f"fewer than {LEAST_IMAGES}"),
        (len(held_out) < LEAST_HELD_OUT, held_out,
         f"{len(held_out)} validation images are too few to compare strategies: {LEAST_HELD_OUT} "
         "are the least"),
    )  # fmt: skip
    return [
        Sign(kind="too_few", message=message, files=files_of(data, positions))
        for is_found, positions, message in found
        if is_found and positions is not None
    ][:1]


def dominant_class(data: Development) -> list[Sign]:
    """Find a class with nearly all images."""
    counts = np.bincount(data.pool.labels)
    share = counts.max() / counts.sum()
    if share < DOMINANT:
        return []
    dominant = int(counts.argmax())
    name = data.dataset.classes[dominant]
    said = (
        f"{share:.0%} of the images are of class '{name}', so that always answering '{name}' is "
        f"right as often; from {DOMINANT:.0%} on, accuracy says too little about a strategy"
    )
    files = files_of(data, np.flatnonzero(data.pool.labels == dominant))
    return [Sign(kind="dominant_class", message=said, files=files)]
