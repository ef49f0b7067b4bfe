"""Signs that a data set cannot support advice: wrong labels, too few images, copies, shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import stats

from bench.advise.images import Development, stratified_order
from bench.advise.probes import Probe, pixel_features, probe
from bench.data.image_files import FileSource
from bench.data.model import Pixels, SplitName
from bench.data.resplit import Indices
from bench.network.blueprint import Array

LEAST_OF_A_CLASS = 4
"""Fewest images of a class, apart from the test."""
LEAST_IMAGES = 20
DOMINANT = 0.85
"""Share of the images in one class from which on accuracy says little."""
COPY = 0.995
"""Correlation of two reduced images from which on one is taken for a copy of the other, saved anew
or resized."""
MOST_COPIES = 0.05
"""Share of the test images with a copy among the training images, that is too much."""
SESSION = 0.93
"""Mean correlation of the images of a class, as of frames of one video. Among the classes of the
embedded sets the largest is 0.8, of generated pages of one kind."""
APART = 0.2
"""Correlation by which images of a session must be more alike than images of different classes."""
SHORTCUT = 0.98
"""Accuracy of a probe that sees no content, from which on it is a shortcut."""
BEHIND = 0.02
"""Accuracy by which such a probe may be behind that of a network."""
CHANCE_LEVEL = 0.01
"""Probability of an accuracy by chance, above which labels are taken to say nothing."""
WRONG = 0.5
"""Share of wrong labels that is too much."""
SURE, WRONG_DRAWS = 0.9, 40
"""Share of draws of the images in which it must be, and their number."""
FEW = 2.0
"""Number of images that a typical pair of classes would confuse if all labels were random. Below
it the share of wrong labels is estimated from how many pairs are never confused."""
FLAT = 2.0
"""Standard deviation of the pixels of a border (0 to 255) below which it is one colour."""
COMPARED = 2000
"""Most images that are compared with each other."""
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
    return [*_chance(data, best), *_shortcuts(data, best)]


def _too_few(data: Development) -> list[Suspicion]:
    classes, labels = data.dataset.classes, data.pool.labels
    counts = data.whole_counts
    if counts is None:
        counts = np.bincount(labels, minlength=len(classes))
    small = [f"'{classes[i]}' ({counts[i]})" for i in np.flatnonzero(counts < LEAST_OF_A_CLASS)]
    if small:
        more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
        return [
            Suspicion(
                "too_few",
                f"fewer than {LEAST_OF_A_CLASS} images for training and validation: "
                f"{', '.join(small[:NAMED])}{more}",
            )
        ]
    if len(labels) < LEAST_IMAGES:
        return [
            Suspicion(
                "too_few",
                f"{len(labels)} images for training and validation are too few: {LEAST_IMAGES} are "
                "the least from which anything can be said",
            )
        ]
    return []


def _dominant(data: Development) -> list[Suspicion]:
    counts = np.bincount(data.pool.labels)
    share = counts.max() / counts.sum()
    if share < DOMINANT:
        return []
    name = data.dataset.classes[int(counts.argmax())]
    said = f"{share:.0%} of the images are of class '{name}': naming it always is nearly as good"
    return [Suspicion("dominant_class", said)]


def _copies(data: Development) -> list[Suspicion]:
    """Compare held-out and test images with those for training."""
    fit = reduced_vectors(data.packed.train.images)
    found = []
    parts: tuple[tuple[SplitName, str], ...] = (("test", "test"), ("val", "validation"))
    for split, words in parts:
        part = getattr(data.packed, split)
        if not len(part.labels) or not len(fit):
            continue
        nearest, where = _nearest(reduced_vectors(part.images), fit)
        twins = np.flatnonzero(nearest > COPY)
        if len(twins) <= MOST_COPIES * len(nearest):
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
        found.append(Suspicion("copies", message, tuple(files)))
    return found


def _sessions(data: Development) -> list[Suspicion]:
    """Find classes whose images are nearly the same picture, while those of different classes are
    not: aligned pictures, as of parts on a belt, are alike in all classes."""
    pool = data.pool
    some = reduced_vectors(pool.images[stratified_order(pool.labels)[:COMPARED]])
    everywhere = float(np.square(some.sum(axis=0)).sum() - len(some)) / (
        len(some) * (len(some) - 1)
    )
    typical, files = [], []
    for label in range(len(data.dataset.classes)):
        own = np.flatnonzero(pool.labels == label)[:COMPARED]
        reduced = reduced_vectors(pool.images[own])
        count = len(own)
        alike = float(np.square(reduced.sum(axis=0)).sum()) - float(np.square(reduced).sum())
        typical.append(alike / (count * (count - 1)) if count > 1 else 0.0)
        files.append(pool.names[own[0]] if len(own) else "")
    same = [i for i, value in enumerate(typical) if value > max(SESSION, everywhere + APART)]
    if not same:
        return []
    names = ", ".join(f"'{data.dataset.classes[i]}'" for i in same[:NAMED])
    message = (
        f"the images of {names} are nearly one picture, as from one photo session or video: a "
        "network may know the session and not the class"
    )
    return [Suspicion("shortcut", message, tuple(files[i] for i in same[:NAMED]))]


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
    return tuple(data.pool.names[i] for i in data.held_out[~best.right][:NAMED])


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
    order = np.argsort(counts / means)[: len(counts) // 2]
    observed = float(counts[order].sum() / means[order].sum())
    # The lower half of Poisson counts has a smaller mean than all: compare with draws.
    random = np.random.default_rng(0)
    lower = [_lower_half(random.poisson(share * means, (50, len(means))), means) for share in tried]
    return float(np.interp(observed, np.maximum.accumulate(lower), tried))


def _lower_half(counts: Array, means: Array) -> float:
    """Return the mean, over draws (D, C), of the less frequent half of counts over their means."""
    half = np.sort(counts / means, axis=1)[:, : counts.shape[1] // 2]
    return float(half.mean())


def _shortcuts(data: Development, best: Probe) -> list[Suspicion]:
    """Find properties that give the class away without showing it."""
    labels, found = data.pool.labels, []
    for words, features_of in _CONTENTLESS.items():
        features = features_of(data)
        if features is None or not features.std(axis=0).any():
            continue
        (own,) = probe(words, features, labels, data.fold_of, ("neighbours",))
        if own.top1 >= max(SHORTCUT, best.top1 - BEHIND):
            examples = [data.pool.names[np.flatnonzero(labels == c)[0]] for c in np.unique(labels)]
            message = (
                f"{words} alone gives the class of {own.top1:.0%} of the held-out images: a "
                "network may learn that and nothing of what the images show"
            )
            found.append(Suspicion("shortcut", message, tuple(examples[:NAMED])))
    return found


def _file_facts(data: Development) -> Array | None:
    """Return (N, 4) width, height, their ratio and format of each file; None for embedded data."""
    source = data.dataset.source
    if not isinstance(source, FileSource):
        return None
    rows, formats = [], dict[str, int]()
    for split in ("train", "val"):
        for file in source.images[split]:
            with Image.open(file.path) as image:
                width, height = image.size
                kind = formats.setdefault(image.format or "", len(formats))
            rows.append((np.log(width), np.log(height), np.log(width / height), float(kind)))
    return np.array(rows, np.float64)


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


_CONTENTLESS: dict[str, Callable[[Development], Array | None]] = {
    "the size or format of the file": _file_facts,
    "the colour of the border": _borders,
    "the mean colour": _tints,
}
"""Words for a property that shows no content → its values."""


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
