"""Signs of wrong labels: accuracy at chance, and mistakes that are spread evenly."""

from __future__ import annotations

import numpy as np
from scipy import stats

from bench.advise.advice import Sign
from bench.advise.images import Development
from bench.advise.probes import Probe
from bench.advise.signs.files import files_of
from bench.data.resplit import Indices
from bench.network.blueprint import Array

CHANCE_LEVEL = 0.01
"""Probability of an accuracy by chance, above which labels are taken to say nothing."""
PERMUTATIONS = 2000
FREQUENT = 0.5
"""Share of one class from which on a network need not be ahead of always naming that class."""
WRONG = 0.5
"""Largest accepted share of labels that look as if they were drawn at random."""
SURE, WRONG_DRAWS = 0.9, 40
"""Share of bootstrap resamples of the images in which the estimate must exceed ``WRONG``, and their
number."""
FEW = 2.0
"""Number of images that a typical pair of classes would confuse if all labels were random. Below
it the share of wrong labels is estimated from how many pairs are never confused."""


def wrong_labels(data: Development, best: Probe) -> list[Sign]:
    """Test the labels: the best probe must be right more often than it would be for shuffled
    labels, and than the most frequent class is, unless that has half of the images; and its
    mistakes must not be spread as evenly as wrong labels are."""
    labels = data.pool.labels[data.held_out]
    counts = np.bincount(labels)
    images, right = len(labels), int(best.right.sum())
    share = counts.max() / images
    if float(stats.binom.sf(images - 1, images, share)) > CHANCE_LEVEL:
        return []  # so few that even all of them might be right by chance
    is_behind = float(stats.binom.sf(right - 1, images, share)) > CHANCE_LEVEL and share < FREQUENT
    if is_behind or chance_of(labels, best.predicted) > CHANCE_LEVEL:
        message = (
            f"no network that was probed finds the classes: {right} of {images} held-out images "
            f"are right, and always naming the most frequent class gives {counts.max()}; the "
            "labels may be shuffled or wrong, or the images do not show the classes"
        )
        return [Sign(kind="labels", message=message, files=_wrong_files(data, best))]
    wrong = wrong_share(labels, best.predicted, len(data.dataset.classes))
    if wrong > WRONG and _is_surely_wrong(labels, best.predicted, len(data.dataset.classes)):
        message = (
            f"some {wrong:.0%} of the labels look as if they were drawn at random: the network's "
            "mistakes are spread over all classes, also over those that are least alike"
        )
        return [Sign(kind="labels", message=message, files=_wrong_files(data, best))]
    return []


def chance_of(given: Indices, predicted: Indices) -> float:
    """Return the probability that as many predictions are right for shuffled labels: by
    permutations, as accuracy alone says little where one class is frequent.

    Args:
        given: (N,) labels.
        predicted: (N,) classes that a network gives the same images.
    """
    random, right = np.random.default_rng(0), int((given == predicted).sum())
    as_many = sum(
        int((random.permutation(given) == predicted).sum()) >= right for _ in range(PERMUTATIONS)
    )
    return (as_many + 1) / (PERMUTATIONS + 1)


def _is_surely_wrong(given: Indices, predicted: Indices, classes: int) -> bool:
    """Return True if the share of random labels is too much in nearly all draws of the images."""
    random, shares = np.random.default_rng(0), []
    for _ in range(WRONG_DRAWS):
        drawn = random.integers(0, len(given), len(given))
        shares.append(wrong_share(given[drawn], predicted[drawn], classes))
    return float(np.quantile(shares, 1 - SURE)) > WRONG


def _wrong_files(data: Development, best: Probe) -> tuple[str, ...]:
    """Return the names of some images whose label the probe does not find."""
    return files_of(data, data.held_out[~best.right])


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
