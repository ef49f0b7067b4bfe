"""Intervals of accuracies, of their differences and of ratios of speed.

Every interval is of 95 %. What it speaks of depends on what was run:

- **recipes**: with three seeds or more, what training again would give, and other test images. The
  paired t interval over the seeds' means; and where the images, which are the same for every seed,
  have a share of the noise that more seeds do not lessen and that does not show between the means,
  the interval for seeds and images, both random and crossed (Satterthwaite's degrees of freedom),
  if it is the wider. By simulation (tests/unit/test_coverage.py, eight worlds) the paired t alone
  holds the truth in 89 to 95 of a hundred experiments, both together in 94 to 96.
- **models**: with fewer seeds, just these trained models, on other test images (bootstrap over the
  images).

Sources: Satterthwaite 1946; Brennan, Generalizability Theory (2001), chapter 6, for the mean
squares of crossed random effects; Holm 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Answers01 = npt.NDArray[Any]
LEVEL = 0.95
LEAST_SEEDS = 3
"""From which on seeds speak of the recipe."""
LEAST_WINDOWS = 5
"""Of each of two runs, for an interval of their rates' ratio."""
RARE = 0.05
"""Seeds' means are taken to be no more alike than chance makes them this seldom."""
ROUNDING = 1e-9
"""Differences below this share of a figure are none."""
RESAMPLES = 9_999
SEED = 20_260_101
"""Of the bootstrap: the same results have the same intervals."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    """Mean, difference or ratio."""
    low: float | None
    """Lower end; None where there is no interval."""
    high: float | None
    """Upper end."""
    p: float | None
    """Two-sided, of the value being 0 (of a ratio, 1); None where there is no interval."""
    about: Literal["recipes", "models"]
    """What the interval speaks of."""
    seeds: int
    """Runs a side."""
    images: int
    """Test images; of a ratio, measured windows a side."""
    degrees: float | None = None
    """Of freedom, of its t interval; None: it is no t interval."""
    uncapped: float | None = None
    """Half of the interval, where its ends were cut off because nothing is beyond."""
    is_ratio: bool = False
    """Whether none is 1, and the interval one of logarithms."""

    @property
    def half_width(self) -> float | None:
        """Of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def accuracy(right: Answers01) -> Estimate:
    """Share of right answers.

    Args:
        right: (seeds, images), 0 or 1.
    """
    seeds, images = right.shape
    mean = float(right.mean())
    if seeds >= LEAST_SEEDS and right.std() > 0:
        found = _crossed(right.astype(np.float64))
        return Estimate(
            found.value, max(found.low or 0.0, 0.0), min(found.high or 1.0, 1.0), None,
            "recipes", seeds, images,
        )  # fmt: skip
    # Of two seeds, as if their answers were one model's: no narrower than is true.
    exact = stats.binomtest(round(mean * images), images).proportion_ci(LEVEL, "wilson")
    about: Literal["recipes", "models"] = "recipes" if seeds >= LEAST_SEEDS else "models"
    return Estimate(mean, float(exact.low), float(exact.high), None, about, seeds, images)


def difference(a: Answers01, b: Answers01) -> Estimate:
    """Mean of ``b - a``, image by image and seed by seed.

    Args:
        a: (seeds, images): right or wrong, or any figure of an image.
        b: The same images, seeds in the same order.

    Raises:
        ValueError: The shapes differ, or there is nothing in them.
    """
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"cannot pair {a.shape} with {b.shape}")
    apart = b.astype(np.float64) - a.astype(np.float64)
    if not apart.any():
        return _no_difference(apart)
    by_image = apart.mean(axis=0)
    if np.ptp(by_image) == 0.0:
        return _every_image_alike(float(by_image[0]), apart)
    if len(apart) < LEAST_SEEDS:
        return _bootstrap(apart.mean(axis=0), apart)
    found = _crossed(apart)
    if np.abs(apart).max() > 1.0 or found.low is None or found.high is None:
        return found
    # Of shares: they differ by all at most.
    low, high = max(found.low, -1.0), min(found.high, 1.0)
    return replace(found, low=low, high=high, uncapped=found.half_width)


def _no_difference(apart: Answers01) -> Estimate:
    """Not one image was judged otherwise: the share of such images may still be as large as would
    leave none among so many once in forty times (Clopper and Pearson)."""
    seeds, images = apart.shape
    most = most_unseen(images)
    about: Literal["recipes", "models"] = "recipes" if seeds >= LEAST_SEEDS else "models"
    return Estimate(0.0, -most, most, 1.0, about, seeds, images)


def most_unseen(images: int) -> float:
    """Upper end of the interval of a share of which none was seen among so many images."""
    return float(1.0 - ((1.0 - LEVEL) / 2) ** (1.0 / images))


def _crossed(x: Answers01) -> Estimate:
    """Mean of (seeds, images), both random."""
    seeds, images = x.shape
    mean = float(x.sum()) / x.size
    by_seed, by_image = x.sum(axis=1) / images, x.sum(axis=0) / seeds
    of_seeds = images * _squares(by_seed - mean) / (seeds - 1)
    of_images = seeds * _squares(by_image - mean) / (images - 1) if images > 1 else 0.0
    rest = x - by_seed[:, None] - by_image[None, :] + mean
    own, freedom = float(seeds - 1), (seeds - 1) * max(images - 1, 1)
    of_rest = _squares(rest.ravel()) / freedom
    # The rest is in the seeds' means too. Of few seeds they may be alike by chance; an interval of
    # no width would follow from it.
    of_seeds = max(of_seeds, of_rest * 2.0 * float(special.gammaincinv(own / 2, RARE)) / own)
    found = [(*_t(mean, of_seeds, own, x.size), own)]
    if of_images > of_rest:  # the images have a share of their own
        total = of_seeds + of_images - of_rest
        terms = (of_seeds**2 / own, of_images**2 / (images - 1), of_rest**2 / freedom)
        degrees = max(total**2 / sum(terms), own)
        found.append((*_t(mean, total, degrees, x.size), degrees))
    half, _, degrees = max(found)
    p = max(p for _, p, _ in found)
    return Estimate(mean, mean - half, mean + half, p, "recipes", seeds, images, degrees)


def _squares(values: Answers01) -> float:
    """Their sum: ``var`` and ``mean`` of NumPy take many times as long, of so few."""
    return float(values @ values)


def _t(mean: float, square: float, degrees: float, values: int) -> tuple[float, float]:
    """Half-width of a t interval and its p value, from a mean square."""
    if square == 0.0:
        return 0.0, float(mean == 0.0)
    error = (square / values) ** 0.5
    # The functions behind scipy.stats.t, whose checks of its arguments take ten times as long.
    half = float(special.stdtrit(degrees, (1 + LEVEL) / 2)) * error
    return half, float(2 * special.stdtr(degrees, -abs(mean) / error))


def _bootstrap(by_image: Answers01, apart: Answers01) -> Estimate:
    """Mean over images: percentiles of its bootstrap.

    Differences have few values, so that to draw how often each comes is to draw the images.
    """
    seeds, images = apart.shape
    values, counts = np.unique(by_image, return_counts=True)
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(images, counts / images, size=RESAMPLES) @ values / images
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    mean, spread = float(by_image.mean()), float(drawn.std(ddof=1))
    # What never happened in so many draws is told by the normal law: many comparisons ask for less
    # than one in ten thousand.
    p = min(1.0, 2 * side / RESAMPLES) if side else float(2 * stats.norm.sf(abs(mean) / spread))
    return Estimate(mean, float(low), float(high), p, "models", seeds, images)


def _every_image_alike(value: float, apart: Answers01) -> Estimate:
    """Every image differs by the same: drawing them anew knows of nothing else, but the share of
    those that do may be as low as would leave no other once in forty times (Clopper and Pearson),
    and others may differ as far as any can. p is the sign test's. Of several seeds, no narrower
    than their own spread allows."""
    seeds, images = apart.shape
    least, most = ((1.0 - LEVEL) / 2) ** (1.0 / images), max(1.0, abs(value))
    low, high = least * value - (1.0 - least) * most, least * value + (1.0 - least) * most
    p = min(1.0, 2.0 * 0.5**images) if value else 1.0
    about: Literal["recipes", "models"] = "recipes" if seeds >= LEAST_SEEDS else "models"
    if seeds >= LEAST_SEEDS and np.ptp(apart) > 0.0:
        crossed = _crossed(apart)
        low, high = min(low, crossed.low or 0.0), max(high, crossed.high or 0.0)
        p = max(p, crossed.p or 0.0)
    return Estimate(value, max(low, -most), min(high, most), p, about, seeds, images)


def ratio(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Estimate:
    """How many times the rate of ``a`` that of ``b`` is; of times, the other way round.

    With three pairs of runs or more, the t interval of the logarithms of their medians' ratios;
    with fewer, the bootstrap over the windows of each run, where there are enough.

    Args:
        a: For each run its windows' rates, all above 0.
        b: The runs that are their pairs, in the same order.

    Raises:
        ValueError: Not as many runs, or one without a window.
    """
    if len(a) != len(b) or not a or not all(len(run) for run in (*a, *b)):
        raise ValueError("a ratio needs pairs of runs with windows")
    logs = np.log([np.median(y) / np.median(x) for x, y in zip(a, b, strict=True)])
    value, seeds = float(np.exp(logs.mean())), len(a)
    windows = min(min(map(len, a)), min(map(len, b)))
    if seeds >= LEAST_SEEDS:
        if _alike(logs, 1.0):
            same = float(abs(logs.mean()) < ROUNDING)
            return Estimate(value, value, value, same, "recipes", seeds, windows, None, True)
        middle = float(logs.mean())
        half, p = _t(middle, float(logs.var(ddof=1)), seeds - 1.0, seeds)
        low, high = float(np.exp(middle - half)), float(np.exp(middle + half))
        return Estimate(value, low, high, p, "recipes", seeds, windows, seeds - 1.0, True)
    if windows < LEAST_WINDOWS:
        return Estimate(value, None, None, None, "models", seeds, windows, None, True)
    random = np.random.default_rng(SEED)
    drawn = np.mean(
        [_log_medians(y, random) - _log_medians(x, random) for x, y in zip(a, b, strict=True)],
        axis=0,
    )
    low, high = np.exp(np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    # By the normal law, for counted draws could never be as rare as many comparisons ask for.
    spread = max(float(drawn.std(ddof=1)), ROUNDING)
    p = float(2 * stats.norm.sf(abs(logs.mean()) / spread))
    return Estimate(value, float(low), float(high), p, "models", seeds, windows, None, True)


def _log_medians(windows: Sequence[float], random: np.random.Generator) -> Answers01:
    """(999,) logarithms of medians of windows drawn anew."""
    rates = np.asarray(windows)
    drawn = rates[random.integers(0, len(rates), (999, len(rates)))]
    logs: Answers01 = np.log(np.median(drawn, axis=1))
    return logs


def rate_of_windows(runs: Sequence[Sequence[float]]) -> Estimate:
    """Geometric mean of the median rates of one or two runs: bootstrap over the windows of each,
    where there are enough.

    Args:
        runs: For each its windows' rates, all above 0.
    """
    value = float(np.exp(np.mean([np.log(np.median(windows)) for windows in runs])))
    least = min(map(len, runs))
    if least < LEAST_WINDOWS:
        return Estimate(value, None, None, None, "models", len(runs), least)
    random = np.random.default_rng(SEED)
    drawn = np.exp(np.mean([_log_medians(windows, random) for windows in runs], axis=0))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), None, "models", len(runs), least)


def mean_share(values: Sequence[float]) -> Estimate:
    """Mean of one share a run, t interval with three runs or more, within 0 and 1."""
    found = _of_runs(np.asarray(values, dtype=np.float64))
    low, high = (None if e is None else min(max(e, 0.0), 1.0) for e in (found.low, found.high))
    return replace(found, low=low, high=high)


def mean_rate(values: Sequence[float]) -> Estimate:
    """Geometric mean of one rate or time a run, so that the ratio of two of them is what ``ratio``
    gives. With three runs or more, the t interval of the logarithms: no rate is below 0.

    Raises:
        ValueError: One is not above 0.
    """
    if min(values) <= 0.0:
        raise ValueError("a rate is above 0")
    found = _of_runs(np.log(np.asarray(values, dtype=np.float64)))
    low, high = (None if e is None else float(np.exp(e)) for e in (found.low, found.high))
    return replace(found, value=float(np.exp(found.value)), low=low, high=high)


def _of_runs(x: Answers01) -> Estimate:
    seeds, mean = len(x), float(x.mean())
    if seeds < LEAST_SEEDS:
        return Estimate(mean, None, None, None, "models", seeds, 0)
    if _alike(x, max(float(np.abs(x).max()), 1.0)):
        return Estimate(mean, mean, mean, None, "recipes", seeds, 0)
    half, _ = _t(mean, float(x.var(ddof=1)), seeds - 1.0, seeds)
    return Estimate(mean, mean - half, mean + half, None, "recipes", seeds, 0)


def _alike(values: Answers01, scale: float) -> bool:
    """Whether what differs is rounding, of which SciPy warns."""
    return float(np.ptp(values)) <= ROUNDING * scale


def detectable(e: Estimate, comparisons: int) -> float | None:
    """Least difference that would have been told apart from none, with the spread of this one and
    as the first of so many comparisons (Holm's first step)."""
    half = e.uncapped or e.half_width
    return half * _wider(e, comparisons) if half else None


def widened(e: Estimate, comparisons: int) -> Estimate:
    """An interval that holds together with those of so many others (Bonferroni); of a ratio, as
    wide again in its logarithm."""
    if e.low is None or e.high is None or comparisons < 2:
        return e
    by = _wider(e, comparisons)
    if e.is_ratio:
        return replace(e, low=e.value * (e.low / e.value) ** by,
                       high=e.value * (e.high / e.value) ** by)  # fmt: skip
    below, above = e.uncapped or e.value - e.low, e.uncapped or e.high - e.value
    return replace(e, low=e.value - below * by, high=e.value + above * by)


def _wider(e: Estimate, comparisons: int) -> float:
    """How much wider an interval is at the level of the first of so many comparisons."""
    of = e.degrees or np.inf
    level = 1.0 - (1.0 - LEVEL) / comparisons / 2
    return float(special.stdtrit(of, level) / special.stdtrit(of, (1 + LEVEL) / 2))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in the same order."""
    order = np.argsort(ps)
    count, most = len(ps), 0.0
    found = [1.0] * count
    for place, index in enumerate(order):
        most = max(most, min(1.0, (count - place) * ps[index]))
        found[index] = most
    return found
