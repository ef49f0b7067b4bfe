"""Signs that a data set cannot support advice: wrong labels, too few images, copies, shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.advise.images import Development, stratified_order
from bench.advise.probes import Probe, pixel_features, probe
from bench.data.decode import image_headers
from bench.data.image_files import FileSource, first_of
from bench.data.model import SPLITS, Pixels, SplitName
from bench.data.resplit import Indices
from bench.network.blueprint import Array

LEAST_OF_A_CLASS = 4
"""Fewest images of a class, apart from the test."""
LEAST_IMAGES = 20
LEAST_HELD_OUT = 10
"""Fewest held-out images on which strategies are compared."""
DOMINANT = 0.85
"""Share of the images in one class from which on accuracy says little."""
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
SHORTCUT = 0.98
"""Accuracy of a probe that sees no content, from which on it is a shortcut."""
CHANCE_LEVEL = 0.01
"""Probability of an accuracy by chance, above which labels are taken to say nothing."""
WRONG = 0.5
"""Largest accepted share of labels that look as if they were drawn at random."""
SURE, WRONG_DRAWS = 0.9, 40
"""Share of bootstrap resamples of the images in which the estimate must exceed ``WRONG``, and their
number."""
FEW = 2.0
"""Number of images that a typical pair of classes would confuse if all labels were random. Below
it the share of wrong labels is estimated from how many pairs are never confused."""
LEAST_OF_A_SHORTCUT = 5
"""Fewest held-out images of a class for a shortcut to this class alone: a property must find all of
them, and no other image."""
FLAT = 2.0
"""Standard deviation of the pixels of a border (0 to 255) below which it is one colour."""
COMPARED = 2000
"""Most images that are compared at once, and in all when sessions are looked for."""
NAMED = 3
"""Files named for each sign."""


@dataclass(frozen=True)
class Suspicion:
    """A reason why advice on these images would mislead."""

    kind: str
    """Word for programs: 'labels', 'too_few', 'copies', 'dominant_class', 'shortcut'."""
    message: str
    """Sentence on what was found."""
    files: tuple[str, ...] = ()
    """Files that show it."""


def before_probes(data: Development) -> list[Suspicion]:
    """Return what the images alone show."""
    return [*_too_few(data), *_dominant(data), *_copies(data), *_sessions(data)]


def after_probes(data: Development, best: Probe) -> list[Suspicion]:
    """Return what the best probe shows in comparison."""
    return [*_chance(data, best), *_shortcuts(data)]


def _too_few(data: Development) -> list[Suspicion]:
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
        Suspicion("too_few", message, _files_of(data, positions))
        for is_found, positions, message in found
        if is_found and positions is not None
    ][:1]


def _dominant(data: Development) -> list[Suspicion]:
    counts = np.bincount(data.pool.labels)
    share = counts.max() / counts.sum()
    if share < DOMINANT:
        return []
    dominant = int(counts.argmax())
    name = data.dataset.classes[dominant]
    said = (
        f"{share:.0%} of the images are of class '{name}', so that always answering '{name}' is "
        "nearly as accurate as any network"
    )
    files = _files_of(data, np.flatnonzero(data.pool.labels == dominant))
    return [Suspicion("dominant_class", said, files)]


def _files_of(data: Development, positions: Indices) -> tuple[str, ...]:
    """Return the names of the first few images among ``positions``."""
    return tuple(data.pool.names[i] for i in positions[:NAMED])


def _copies(data: Development) -> list[Suspicion]:
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
        found.append(Suspicion("copies", message, tuple(files)))
    return found


def _sessions(data: Development) -> list[Suspicion]:
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
    return [Suspicion("shortcut", message, tuple(files[i] for i in same[:NAMED]))]


def _pair_sum(vectors: Array) -> tuple[float, int]:
    """Return the sum of the products of all pairs of different vectors (N, C), each pair twice, and
    the number of these products."""
    total = float(np.square(vectors.sum(axis=0)).sum()) - float(np.square(vectors).sum())
    return total, len(vectors) * (len(vectors) - 1)


def _chance(data: Development, best: Probe) -> list[Suspicion]:
    """Test the labels: the best probe must beat the most frequent class, and its mistakes must not
    be spread as evenly as wrong labels are."""
    labels = data.pool.labels[data.held_out]
    counts = np.bincount(labels)
    images, right = len(labels), int(best.right.sum())
    by_chance = float(stats.binom.sf(right - 1, images, counts.max() / images))
    if float(stats.binom.sf(images - 1, images, counts.max() / images)) > CHANCE_LEVEL:
        return []  # so few that even all of them might be right by chance
    if by_chance > CHANCE_LEVEL:
        return [
            Suspicion(
                "labels",
                f"no network finds the classes: {right} of {images} held-out images are right, and "
                f"always naming the most frequent class gives {counts.max()}; the labels may be "
                "shuffled or wrong, or the images do not show the classes",
                _wrong(data, best),
            )
        ]
    share = wrong_share(labels, best.predicted, len(data.dataset.classes))
    if share > WRONG and _is_surely_wrong(labels, best.predicted, len(data.dataset.classes)):
        message = (
            f"some {share:.0%} of the labels look as if they were drawn at random: the network's "
            "mistakes are spread over all classes, also over those that are least alike"
        )
        return [Suspicion("labels", message, _wrong(data, best))]
    return []


def _is_surely_wrong(given: Indices, predicted: Indices, classes: int) -> bool:
    """Return True if the share of random labels is too much in nearly all draws of the images."""
    random, shares = np.random.default_rng(0), []
    for _ in range(WRONG_DRAWS):
        drawn = random.integers(0, len(given), len(given))
        shares.append(wrong_share(given[drawn], predicted[drawn], classes))
    return float(np.quantile(shares, 1 - SURE)) > WRONG


def _wrong(data: Development, best: Probe) -> tuple[str, ...]:
    """Return the names of some images whose label the probe does not find."""
    return _files_of(data, data.held_out[~best.right])


def wrong_share(given: Indices, predicted: Indices, classes: int) -> float:
    """Estimate the share of labels that were drawn at random, from the (N,) given and predicted
    classes of held-out images.

    Mistakes of a network gather on similar classes, and leave other confusions at zero; random
    labels are spread over all. So the confusions that never happen measure them, or the less
    frequent half where all of them happen.
    """
    if classes < 4:
        return 0.0  # nearly every confusion is between similar classes
    table = np.zeros((classes, classes))
    np.add.at(table, (predicted, given), 1)
    shares = np.bincount(given, minlength=classes) / len(given)
    expected = table.sum(axis=1)[:, None] * shares[None]  # if all labels were random
    off = ~np.eye(classes, dtype=bool) & (expected > 0)
    if not off.any():
        return 0.0
    counts, means, tried = table[off], expected[off], np.linspace(0.0, 1.0, 101)
    if float(np.median(means)) < FEW:
        absent = np.array([np.exp(-share * means).mean() for share in tried])
        return float(np.interp(-float((counts == 0).mean()), -absent, tried))
    observed = _lower_half(counts[None], means)
    # The lower half of Poisson counts has a smaller mean than all: compare with draws.
    random, draws = np.random.default_rng(0), min(50, 20_000 // len(means) + 1)
    lower = [
        _lower_half(random.poisson(share * means, (draws, len(means))), means) for share in tried
    ]
    return float(np.interp(observed, np.maximum.accumulate(lower), tried))


def _lower_half(counts: Array, means: Array) -> float:
    """Return the sum of the half of the counts that are fewest for their means, over the sum of
    these means; a mean over draws.

    Args:
        counts: (D, C), C for each draw.
        means: (C,).
    """
    order = np.argsort(counts / means, axis=1)[:, : counts.shape[1] // 2]
    fewest = np.take_along_axis(counts, order, axis=1).sum(axis=1)
    return float((fewest / means[order].sum(axis=1)).mean())


def _shortcuts(data: Development) -> list[Suspicion]:
    """Find properties that give the class away without showing it: that of nearly all images, or,
    where a natural class would hardly have such a property, that of all images of one class."""
    labels, found = data.pool.labels, []
    for property_ in _CONTENTLESS:
        features = property_.values(data)
        if features is None or not features.std(axis=0).any():
            continue
        (own,) = probe(property_.words, features, labels, data.fold_of, ("neighbours",))
        if own.top1 >= SHORTCUT:
            examples = [np.flatnonzero(labels == c)[0] for c in np.unique(labels)]
            message = (
                f"{property_.words} alone gives the class of {own.top1:.0%} of the held-out "
                "images: a network may learn that and nothing of what the images show"
            )
            found.append(Suspicion("shortcut", message, _files_of(data, np.array(examples))))
        elif property_.marks_a_class and (marked := _marked_class(data, own)) is not None:
            message = (
                f"{property_.words} alone tells '{data.dataset.classes[marked]}' from all other "
                "classes: a network may learn that and nothing of what these images show"
            )
            files = _files_of(data, np.flatnonzero(labels == marked))
            found.append(Suspicion("shortcut", message, files))
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
    marks_a_class: bool
    """True if no natural class has it alone: oranges have a mean colour, but no border."""


_CONTENTLESS = (
    _Property("the size or format of the file", _file_facts, marks_a_class=True),
    _Property("the colour of the border", _borders, marks_a_class=True),
    _Property("the mean colour", _tints, marks_a_class=False),
)


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
