"""Choosing among candidates by their answers to the same held-out images.

The best of several candidates looks better than it is, as chance had a part in the choice. Its
accuracy is estimated by drawing images with replacement, choosing by those drawn, and evaluating
the choice on the others (Tsamardinos et al. 2018, "Bootstrapping the out-of-sample predictions for
efficient and accurate cross-validation"). Which candidates cannot be told from the best is decided
by simultaneous intervals for the distance to the best of the others (Hsu 1984, "Constrained
simultaneous confidence intervals for multiple comparisons with the best").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]
DRAWS = 1000
LEVEL = 0.9
"""Level of the interval of an accuracy."""
TIE_LEVEL = 0.99
"""Level at which those that are as good as the best are kept among the best. A choice may be made
up to four times as folds are added, so that some 95 % of ties are called ties in the end."""


@dataclass(frozen=True)
class Choice:
    """The best of several candidates, and those that cannot be told from it."""

    best: int
    """Index of the candidate with the highest accuracy."""
    as_good: tuple[int, ...]
    """Indices of the candidates that cannot be told from the best, itself included."""
    expected_top1: float
    """Accuracy of a candidate that is chosen so, on images that took no part in the choice."""
    top1: Floats
    """(K,) accuracy of each candidate on the held-out images."""
    shortfall: Floats
    """(K,) mean accuracy by which a candidate is behind the best one of drawn images."""


def choose_best(
    right: npt.NDArray[np.bool_], random: np.random.Generator, groups: Groups | None = None
) -> Choice:
    """Choose among K candidates.

    Args:
        right: (K, N) True where a candidate classifies a held-out image correctly.
        groups: (N,) number of each image's group; images of a group are drawn together.
    """
    count, images = right.shape
    units = np.arange(images) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.zeros((count, int(units.max()) + 1))
    np.add.at(sums.T, units, right.T)
    sizes = np.bincount(units).astype(float)
    drawn = random.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), DRAWS).astype(float)
    top1 = right.mean(axis=1)
    in_bag = (drawn @ sums.T) / (drawn @ sizes)[:, None]  # (draws, K)
    left_out = (drawn == 0).astype(float)
    outside = (left_out @ sums.T) / np.maximum(left_out @ sizes, 1.0)[:, None]
    chosen = in_bag.argmax(axis=1)
    is_known = left_out.sum(axis=1) > 0
    tested = outside[np.arange(DRAWS), chosen][is_known]
    expected = float(tested.mean()) if len(tested) else float(top1.max())
    return Choice(
        best=int(top1.argmax()),
        as_good=_as_good(top1, in_bag),
        expected_top1=min(expected, float(top1.max())),
        top1=top1,
        shortfall=np.maximum(in_bag.max(axis=1)[:, None] - in_bag, 0.0).mean(axis=0),
    )


def _as_good(top1: Floats, in_bag: Floats) -> tuple[int, ...]:
    """Return the candidates whose accuracy may be the highest: the upper end of the simultaneous
    interval for their distance to each other candidate is not below 0."""
    count = len(top1)
    if count == 1:
        return (0,)
    error = in_bag - top1
    gaps = error[:, :, None] - error[:, None, :]  # (draws, i, j)
    deviation = np.sqrt(np.square(gaps).mean(axis=0))
    found = []
    for i in range(count):
        others = [j for j in range(count) if j != i]
        # Candidates with the same answers have no spread; nothing sets them apart.
        divisor = np.where(deviation[i, others] < 1e-12, 1.0, deviation[i, others])
        largest = (gaps[:, i, others] / divisor).max(axis=1)
        critical = float(np.quantile(largest, TIE_LEVEL))
        upper = top1[i] - top1[others] + critical * deviation[i, others]
        if bool((upper >= 0).all()):
            found.append(i)
    return tuple(found)


def accuracy_interval(top1: float, images: float, further_variance: float) -> tuple[float, float]:
    """Return the interval, at ``LEVEL``, for an accuracy that another sample would show.

    Args:
        top1: Expected accuracy, measured on ``images`` images.
        further_variance: Variance of the other sample's accuracy around the true one: its images,
            its seed.
    """
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    top1 = min(max(top1, 0.5 / (images + 1)), 1 - 0.5 / (images + 1))
    variance = top1 * (1 - top1) / images + further_variance
    effective = top1 * (1 - top1) / variance
    centre = (top1 + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * np.sqrt(
        top1 * (1 - top1) / effective + z**2 / (4 * effective**2)
    )  # fmt: skip
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))
