"""Find the policies that may be the best: by differences with intervals, a range test, chances.

All figures follow from the means of the policies and from two covariance matrices: that over seeds,
moderated by earlier experience (``bench.analysis.seed_spread``), and that over test images. Images
and seeds are crossed random effects, so both variances add; images that belong together count as
one draw.

- **Difference**: a t interval with Satterthwaite's degrees of freedom (1946).
- **Ruled out**: a step-down range test. In a set of policies that may all be best, the largest t of
  all pairs is compared with the studentised range; beyond it, the lower policy leaves the set.
  In simulations, one of several equal policies was ruled out in about one of twenty questions or
  fewer.
- **Chance** to be within a margin of the best: draws of the true accuracies, given the results.

docs/statistics.md has the simulations.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import special

from bench.analysis.intervals import LEVEL, Estimate, t_interval
from bench.analysis.rows import grouped
from bench.analysis.scores import Floats, Scores, variances_of_differences
from bench.analysis.seed_spread import DEGREES, USUAL, SeedSpread, experience

LEAST_IMAGES = 1.5
"""Least standard deviation of a difference, in test images: two policies that agree on every image
may differ on others."""
MARGIN = 0.01
"""Equivalence margin unless the user names one: largest difference in accuracy (fraction of 1) that
counts as equal."""
PRIOR_SD = 0.02
"""Standard deviation of the accuracies of policies that start from pretrained weights."""
FLAT = 1e6
"""Variance of a flat prior."""
OUTER, INNER = 100, 50
"""Draws of the variances over seeds, and of the accuracies for each."""
RANDOM_SEED = 20_260_101
"""Seed of the draws, so that the same results have the same chances."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Policies on the same test images, or on average over several questions."""

    means: Floats
    """(K,) accuracies, as fractions of 1."""
    seed_pairs: Floats
    """(K, K) variance of a difference that is due to the seeds."""
    seed_degrees: Floats
    """(K, K) its degrees of freedom."""
    image_pairs: Floats
    """(K, K) variance of a difference that is due to the test images."""
    image_degrees: float
    seed_own: Floats
    """(K,) variance of an accuracy that is due to the seeds."""
    seed_own_degrees: Floats
    """(K,) its degrees of freedom."""
    image_covariance: Floats
    """(K, K) covariance of the accuracies over test images."""
    starts_pretrained: Floats
    """(K,) False for policies that start from random weights."""

    def difference(self, a: int, b: int) -> Estimate:
        """Return the accuracy of policy ``b`` − that of policy ``a``."""
        variance, degrees = self._pair(a, b)
        return t_interval(float(self.means[b] - self.means[a]), variance, degrees)

    def _pair(self, a: int, b: int) -> tuple[float, float]:
        """Return the variance of a difference and its degrees of freedom."""
        return float(self._variances[a, b]), float(self._degrees[a, b])

    @cached_property
    def _variances(self) -> Floats:
        return self.seed_pairs + self.image_pairs

    @cached_property
    def _degrees(self) -> Floats:
        terms = self.seed_pairs**2 / self.seed_degrees + self.image_pairs**2 / self.image_degrees
        with np.errstate(invalid="ignore"):
            return np.where(terms > 0, self._variances**2 / np.where(terms > 0, terms, 1.0), np.inf)

    @cached_property
    def ruled_out(self) -> list[bool]:
        """True for each policy that is shown not to be the best."""
        left = list(range(len(self.means)))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (self.means[:, None] - self.means[None, :]) / np.sqrt(self._variances)
        while len(left) > 1:
            inside = np.ix_(left, left)
            excess = np.nan_to_num(t[inside], nan=0.0) - critical(len(left), self._degrees[inside])
            np.fill_diagonal(excess, -np.inf)
            _, loser = np.unravel_index(int(np.argmax(excess)), excess.shape)
            if excess.max() <= 0.0:
                break
            del left[int(loser)]
        return [place not in left for place in range(len(self.means))]

    def chances(self, margin: float = MARGIN) -> Floats:
        """Return (K,) the chance of each policy to be within ``margin`` of the best.

        Prior of the policies that start from pretrained weights: normal about an unknown common
        mean. Variances over seeds are drawn too, with their degrees of freedom.
        """
        count, alike = len(self.means), self.starts_pretrained.astype(np.float64)
        random, eye = np.random.default_rng(RANDOM_SEED), np.eye(count)
        drawn = random.chisquare(self.seed_own_degrees, (OUTER, count))
        seeds = self.seed_own * self.seed_own_degrees / drawn  # (OUTER, K)
        known = self._centred_images + seeds[:, :, None] * eye
        weak = np.diag(np.where(self.starts_pretrained, PRIOR_SD**2, FLAT))
        inverse = np.linalg.inv(known + weak)
        weights = inverse @ alike  # (OUTER, K)
        precision = np.maximum(weights @ alike, 1e-12)[:, None]
        common = (weights @ self.means)[:, None] / precision
        # The truth is gain · means + rest · prior mean + a normal draw with the covariance of root.
        gain = weak @ inverse
        rest = eye - gain
        pull = rest @ alike  # of the common mean
        base = gain @ self.means + rest @ (self.means * (1.0 - alike)) + common * pull
        root = np.linalg.cholesky(known - known @ inverse @ known + 1e-14 * eye)
        spread = np.concatenate(
            [(pull / np.sqrt(precision))[:, None, :], root.transpose(0, 2, 1)], axis=1
        )
        truths = base[:, None, :] + _normal_draws(count + 1) @ spread  # (OUTER, INNER, K)
        truths = np.ascontiguousarray(truths.reshape(-1, count).T)
        return np.asarray((truths >= truths.max(axis=0) - margin).mean(axis=1))

    @property
    def _centred_images(self) -> Floats:
        """(K, K) covariance over images without what is common to all policies, which decides
        nothing; and never 0."""
        count = len(self.means)
        centre = np.eye(count) - 1.0 / count
        values, vectors = np.linalg.eigh(centre @ self.image_covariance @ centre)
        floor = np.eye(count) * 1e-8
        return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T + floor)


@lru_cache(maxsize=16)
def _normal_draws(count: int) -> Floats:
    """Return standard normal draws (OUTER, INNER, count), the same each time: hundreds of rankings
    use them."""
    return np.random.default_rng(RANDOM_SEED + 1).standard_normal((OUTER, INNER, count))


def rank(policies: Sequence[Scores], spread: SeedSpread = USUAL) -> Ranking:
    """Return the ranking of policies on the same test images, in their order. Raise ValueError if
    the number of images or their groups differ."""
    images, groups = policies[0].images, policies[0].groups
    if any(p.images != images for p in policies):
        raise ValueError("the test images differ")
    own, own_degrees, expected = _over_seeds(policies, spread)
    seed_pairs = own[:, None] + own[None, :]
    squares = own**2 / own_degrees
    seed_degrees = seed_pairs**2 / (squares[:, None] + squares[None, :])  # Welch
    for seeds, places in grouped(range(len(policies)), lambda n: policies[n].seeds).items():
        inside, count, usual = np.ix_(places, places), len(seeds), expected[places]
        gaps = variances_of_differences([policies[n] for n in places])  # paired by seed
        pooled = DEGREES * (usual[:, None] + usual[None, :]) + (count - 1) * gaps
        seed_degrees[inside] = DEGREES + count - 1
        seed_pairs[inside] = pooled / (DEGREES + count - 1) / count
    covariance, image_degrees = _image_covariance(policies, groups)
    diagonal = np.diag(covariance)
    image_pairs = diagonal[:, None] + diagonal[None, :] - 2.0 * covariance
    image_pairs = np.maximum(image_pairs, 0.0)
    image_pairs = np.maximum(image_pairs, (LEAST_IMAGES / images) ** 2 - seed_pairs)
    return Ranking(
        np.array([p.mean for p in policies]), seed_pairs, seed_degrees, image_pairs, image_degrees,
        own, own_degrees, covariance, np.array([p.kind != "scratch" for p in policies]),
    )  # fmt: skip


def own_variances(scores: Scores, spread: SeedSpread = USUAL) -> tuple[float, float, float]:
    """Return the variances of one accuracy that are due to the seeds and to the test images, and
    Satterthwaite's degrees of freedom of both together."""
    own, own_degrees, _ = _over_seeds([scores], spread)
    covariance, image_degrees = _image_covariance([scores], scores.groups)
    seeds, images = float(own[0]), max(float(covariance[0, 0]), 0.0)
    terms = seeds**2 / float(own_degrees[0]) + images**2 / image_degrees
    return seeds, images, (seeds + images) ** 2 / terms if terms > 0 else np.inf


def _over_seeds(policies: Sequence[Scores], spread: SeedSpread) -> tuple[Floats, Floats, Floats]:
    """Return (K,) variances of the accuracies that are due to the seeds, their degrees of freedom,
    and the expected variances of one seed."""
    expected = np.array([spread.of(p) for p in policies])
    counts = np.array([len(p.seeds) for p in policies], dtype=np.float64)
    degrees = DEGREES + counts - 1
    measured = (counts - 1) * [p.seed_variance for p in policies]
    return (DEGREES * expected + measured) / degrees / counts, degrees, expected


def _image_covariance(policies: Sequence[Scores], groups: Floats | None) -> tuple[Floats, float]:
    """Return the (K, K) covariance of the accuracies over test images, without what the seeds do to
    single images, and its degrees of freedom."""
    images = policies[0].images
    known = [p.by_image for p in policies if p.by_image is not None]
    if len(known) < len(policies):
        share = experience().image_share
        return np.diag([share * p.slope / images for p in policies]), float(max(images - 1, 1))
    x = np.stack(known)
    x = x - x.mean(axis=1, keepdims=True)
    if groups is None:
        number = images
        found = x @ x.T / (images * max(images - 1, 1))
    else:
        number = int(groups.max()) + 1
        sums = np.stack([np.bincount(groups, row, number) for row in x])
        found = sums @ sums.T / images**2 * number / max(number - 1, 1)
    rest = np.array([(p.rest or 0.0) / len(p.seeds) / images for p in policies])
    return found - np.diag(rest), float(max(number - 1, 1))


def average(rankings: Sequence[Ranking], test_sets: Sequence[Hashable]) -> Ranking:
    """Return the ranking by the mean accuracy over several questions with the same policies in the
    same order. ``test_sets`` name the test images of each: questions on the same ones count as
    fully dependent."""
    count, sets = len(rankings), list(dict.fromkeys(test_sets))
    places = [[n for n, name in enumerate(test_sets) if name == each] for each in sets]

    def mean_variance(name: str, degrees: str) -> tuple[Floats, Floats]:
        """Return the variance of a mean over independent questions, and Satterthwaite's degrees."""
        variances = np.stack([getattr(r, name) for r in rankings])
        freedom = np.stack([getattr(r, degrees) for r in rankings])
        total = variances.sum(axis=0)
        squares = np.maximum((variances**2 / freedom).sum(axis=0), 1e-300)
        return total / count**2, np.maximum(total**2 / squares, DEGREES)

    seed_pairs, seed_degrees = mean_variance("seed_pairs", "seed_degrees")
    seed_own, seed_own_degrees = mean_variance("seed_own", "seed_own_degrees")
    roots = [sum(np.sqrt(rankings[n].image_pairs) for n in same) for same in places]
    covariance = sum(len(same) * rankings[n].image_covariance for same in places for n in same)
    return Ranking(
        np.mean([r.means for r in rankings], axis=0), seed_pairs, seed_degrees,
        np.asarray(sum(root**2 for root in roots)) / count**2,
        min(r.image_degrees for r in rankings),
        seed_own, seed_own_degrees, np.asarray(covariance) / count**2,
        rankings[0].starts_pretrained,
    )  # fmt: skip


NODES = (3, 4, 5, 6, 8, 10, 15, 30, 100_000)
"""Degrees of freedom of the columns of ``RANGE``."""
RANGE = {
    2: (3.182, 2.776, 2.571, 2.447, 2.306, 2.228, 2.131, 2.042, 1.960),
    3: (4.175, 3.559, 3.250, 3.065, 2.855, 2.740, 2.596, 2.465, 2.344),
    4: (4.827, 4.072, 3.691, 3.462, 3.203, 3.060, 2.882, 2.719, 2.569),
    5: (5.307, 4.447, 4.013, 3.752, 3.456, 3.292, 3.088, 2.901, 2.728),
    6: (5.685, 4.744, 4.267, 3.981, 3.655, 3.474, 3.249, 3.041, 2.850),
    7: (5.996, 4.988, 4.477, 4.170, 3.819, 3.624, 3.381, 3.157, 2.948),
    8: (6.260, 5.196, 4.655, 4.330, 3.958, 3.751, 3.493, 3.254, 3.031),
    9: (6.489, 5.376, 4.810, 4.469, 4.078, 3.861, 3.590, 3.337, 3.102),
    10: (6.690, 5.534, 4.946, 4.591, 4.185, 3.959, 3.676, 3.411, 3.164),
}  # fmt: skip
"""Number of policies → 95 % quantiles of the studentised range over √2, the largest t of all pairs.
``scipy.stats.studentized_range`` takes a quarter of a second for each."""


def critical(count: int, degrees: Floats | float) -> Floats:
    """Return the largest t that ``count`` alike policies have in 95 % of questions, for each number
    of degrees of freedom; interpolated in 1 / degrees (to 0.3 %), and for more than ten policies by
    Bonferroni's bound."""
    freedom = np.maximum(np.asarray(degrees, dtype=np.float64), 1.0)
    if count == 2 or count not in RANGE:
        return np.asarray(special.stdtrit(freedom, 1.0 - (1.0 - LEVEL) / (count * (count - 1))))
    at = 1.0 / np.array(NODES, dtype=np.float64)
    values = np.array(RANGE[count])
    found = np.interp(1.0 / np.maximum(freedom, NODES[0]), at[::-1], values[::-1])
    few = special.stdtrit(freedom, 1.0 - (1.0 - LEVEL) / (count * (count - 1)))
    return np.asarray(np.where(freedom < NODES[0], few, found))
