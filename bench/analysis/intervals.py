"""95 % confidence intervals of accuracies, of their differences and of ratios of speed.

What an interval covers depends on the number of seeds:

- **recipes**, from three seeds on: training again, on other test images. The paired t interval over
  the seeds' means; and if the images, which are the same for every seed, have variance of their own
  that more seeds do not average out, the interval for crossed random seeds and images
  (Satterthwaite's degrees of freedom) where it is the wider. In simulations
  (tests/unit/test_coverage.py, eight worlds) the paired t interval alone covers the truth in 89 to
  95 % of the experiments, both together in 94 to 96 %.
- **models**, with fewer seeds: these trained models, on other test images (bootstrap over images).

Sources: Satterthwaite 1946; Brennan, Generalizability Theory (2001), chapter 6, for the mean
squares of crossed random effects; Holm 1979.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Floats = npt.NDArray[Any]
Scope = Literal["recipes", "models"]
LEVEL = 0.95
SIGNIFICANT = 1.0 - LEVEL
TAILS = ((1.0 - LEVEL) / 2, (1.0 + LEVEL) / 2)
LEAST_SEEDS = 3
"""Number of seeds from which on an interval covers the recipe."""
INTERVAL_WINDOWS = 5
"""Fewest measured windows a run for an interval of a rate."""
RARE = 0.05
"""Quantile that bounds the variance between seeds from below, so that seeds which agree by luck
give no interval of zero width."""
ROUNDING = 1e-9
"""Relative difference below which figures are equal."""
RESAMPLES, WINDOW_RESAMPLES = 9_999, 999
SEED = 20_260_101
"""Seed of the bootstraps, so that the same results have the same intervals."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval; its ends and p are None if there is no interval."""

    value: float
    """Mean, difference or ratio."""
    low: float | None
    high: float | None
    p: float | None
    """Two-sided p value of no difference (0, or a ratio of 1)."""
    about: Scope
    seeds: int
    """Runs a side."""
    images: int
    """Test images; for a ratio, measured windows a side."""
    degrees: float | None = None
    """Degrees of freedom of a t interval; None for any other interval."""
    uncapped: float | None = None
    """Half-width before the ends were capped to possible values; None if they were not."""
    is_ratio: bool = False
    """True for a ratio, whose interval is one of logarithms."""

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def neutral(self) -> float:
        """Value of no difference."""
        return 1.0 if self.is_ratio else 0.0

    @property
    def holds_neutral(self) -> bool:
        """True if the interval contains the value of no difference, or there is no interval."""
        return self.low is None or self.high is None or self.low <= self.neutral <= self.high

    def is_real(self, p: float | None) -> bool:
        """Return True if the difference is significant, given its corrected p value."""
        return p is not None and p < SIGNIFICANT and not self.holds_neutral


def _scope(seeds: int) -> Scope:
    return "recipes" if seeds >= LEAST_SEEDS else "models"


def accuracy(right: Floats) -> Estimate:
    """Return the share of right answers, of (seeds, images), 0 or 1."""
    seeds, images = right.shape
    mean = float(right.mean())
    if seeds >= LEAST_SEEDS and right.std() > 0:
        return replace(_capped(_crossed(right.astype(np.float64)), 0.0), p=None, degrees=None)
    # Two seeds count as one model's answers: wide enough in any case.
    wilson = stats.binomtest(round(mean * images), images).proportion_ci(LEVEL, "wilson")
    return Estimate(mean, float(wilson.low), float(wilson.high), None, _scope(seeds), seeds, images)


def difference(a: Floats, b: Floats) -> Estimate:
    """Return the mean of ``b - a``, both of shape (seeds, images) and in the same order. A value is
    1 or 0 for a right or wrong answer, or any other number for an image. Raise ValueError if the
    shapes differ or are empty."""
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"cannot pair {a.shape} with {b.shape}")
    delta = b.astype(np.float64) - a.astype(np.float64)
    if not delta.any():
        seeds, images = delta.shape
        most = most_unseen(images)
        return Estimate(0.0, -most, most, 1.0, _scope(seeds), seeds, images)
    by_image = delta.mean(axis=0)
    if np.ptp(by_image) == 0.0:
        return _same_on_every_image(float(by_image[0]), delta)
    if len(delta) < LEAST_SEEDS:
        return _bootstrap(by_image, len(delta))
    found = _crossed(delta)
    if np.abs(delta).max() > 1.0:
        return found
    # Shares differ by 1 at most.
    return replace(_capped(found, -1.0), uncapped=found.half_width)


def _capped(e: Estimate, least: float) -> Estimate:
    """Return an estimate whose interval ends at ``least`` and 1, the possible values."""
    if e.low is None or e.high is None:
        return e
    return replace(e, low=max(e.low, least), high=min(e.high, 1.0))


@lru_cache
def most_unseen(images: int) -> float:
    """Return the upper Clopper-Pearson bound of a share of which none was seen among the images."""
    return float(stats.binomtest(0, images).proportion_ci(LEVEL).high)


def _crossed(x: Floats) -> Estimate:
    """Return the mean of (seeds, images) with both as crossed random effects."""
    seeds, images = x.shape
    mean = float(x.sum()) / x.size
    by_seed, by_image = x.sum(axis=1) / images, x.sum(axis=0) / seeds
    of_seeds = images * _sum_of_squares(by_seed - mean) / (seeds - 1)
    of_images = seeds * _sum_of_squares(by_image - mean) / (images - 1) if images > 1 else 0.0
    rest = x - by_seed[:, None] - by_image[None, :] + mean
    own, freedom = float(seeds - 1), (seeds - 1) * max(images - 1, 1)
    of_rest = _sum_of_squares(rest.ravel()) / freedom
    # The seeds' means contain the rest, too: few of them may agree by chance, which would give an
    # interval of zero width. The bound is a chi-square quantile.
    of_seeds = max(of_seeds, of_rest * float(special.chdtri(own, 1.0 - RARE)) / own)
    found = [(*_t(mean, of_seeds, own, x.size), own)]
    if of_images > of_rest:  # the images have variance of their own
        total = of_seeds + of_images - of_rest
        terms = (of_seeds**2 / own, of_images**2 / (images - 1), of_rest**2 / freedom)
        degrees = max(total**2 / sum(terms), own)
        found.append((*_t(mean, total, degrees, x.size), degrees))
    half, _, degrees = max(found)
    p = max(p for _, p, _ in found)
    return Estimate(mean, mean - half, mean + half, p, "recipes", seeds, images, degrees)


def _sum_of_squares(values: Floats) -> float:
    """Return the sum of squares; NumPy's ``var`` takes many times as long for so few values."""
    return float(values @ values)


def _t(mean: float, square: float, degrees: float, values: int) -> tuple[float, float]:
    """Return the half-width of a t interval and its p value, from a mean square."""
    if square == 0.0:
        return 0.0, float(mean == 0.0)
    error = (square / values) ** 0.5
    # The functions behind scipy.stats.t, whose argument checks take ten times as long.
    half = float(special.stdtrit(degrees, TAILS[1])) * error
    return half, float(2 * special.stdtr(degrees, -abs(mean) / error))


def _bootstrap(by_image: Floats, seeds: int) -> Estimate:
    """Return the mean over images with percentiles of its bootstrap.

    Differences take few values, so drawing how often each occurs equals drawing the images, and
    takes a fraction of the time and memory of ``scipy.stats.bootstrap``.
    """
    images = len(by_image)
    values, counts = np.unique(by_image, return_counts=True)
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(images, counts / images, size=RESAMPLES) @ values / images
    low, high = np.quantile(drawn, TAILS)
    side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    mean, spread = float(by_image.mean()), float(drawn.std(ddof=1))
    # If no draw lies on the other side, by the normal law: correction for many comparisons asks
    # for p values below one in ten thousand.
    p = min(1.0, 2 * side / RESAMPLES) if side else float(2 * stats.norm.sf(abs(mean) / spread))
    return Estimate(mean, float(low), float(high), p, "models", seeds, images)


def _same_on_every_image(value: float, delta: Floats) -> Estimate:
    """Return an estimate where every image differs by the same value, so that resampling them shows
    no spread.

    The share of such images may be as low as its Clopper-Pearson bound, and the others may differ
    by the possible maximum. p is the sign test's. With several seeds, the interval is no narrower
    than their own spread.
    """
    seeds, images = delta.shape
    test = stats.binomtest(images, images)
    least, most = float(test.proportion_ci(LEVEL).low), max(1.0, abs(value))
    low, high = least * value - (1.0 - least) * most, least * value + (1.0 - least) * most
    p = float(test.pvalue) if value else 1.0
    if seeds >= LEAST_SEEDS and np.ptp(delta) > 0.0:
        crossed = _crossed(delta)
        low, high = min(low, crossed.low or 0.0), max(high, crossed.high or 0.0)
        p = max(p, crossed.p or 0.0)
    return Estimate(value, max(low, -most), min(high, most), p, _scope(seeds), seeds, images)


def ratio(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Estimate:
    """Return the geometric mean of the paired runs' ratios ``b / a`` of median rates, given the
    rates of each run's windows, all above 0.

    From three pairs on, the t interval of the logarithms; with fewer, the bootstrap over the
    windows of each run, if there are enough. Raise ValueError if the numbers of runs differ, or a
    run has no window.
    """
    if len(a) != len(b) or not a or not all(len(run) for run in (*a, *b)):
        raise ValueError("a ratio needs pairs of runs with windows")
    logs = np.log([np.median(y) / np.median(x) for x, y in zip(a, b, strict=True)])
    windows = min(map(len, (*a, *b)))
    found = replace(_mean_of_runs(logs), images=windows, is_ratio=True)
    if len(a) >= LEAST_SEEDS or windows < INTERVAL_WINDOWS:
        return _exp(found)
    pairs = [side for x, y in zip(a, b, strict=True) for side in (y, x)]
    low, high, spread = _bootstrap_windows(
        pairs, lambda logs: np.mean(logs[0::2] - logs[1::2], axis=0)
    )
    # By the normal law: counted draws are never as rare as correction for many comparisons asks.
    p = float(2 * stats.norm.sf(abs(found.value) / max(spread, ROUNDING)))
    return _exp(replace(found, low=low, high=high, p=p))


def rate_of_windows(runs: Sequence[Sequence[float]]) -> Estimate:
    """Return the geometric mean of the median rates of one or two runs, with the bootstrap over the
    windows of each, if there are enough. All rates are above 0."""
    value = float(np.exp(np.mean([np.log(np.median(windows)) for windows in runs])))
    least = min(map(len, runs))
    low, high = None, None
    if least >= INTERVAL_WINDOWS:
        low, high, _ = _bootstrap_windows(runs, lambda logs: np.exp(np.mean(logs, axis=0)))
    return Estimate(value, low, high, None, "models", len(runs), least)


def _bootstrap_windows(
    runs: Sequence[Sequence[float]], statistic_of: Callable[[Floats], Any]
) -> tuple[float, float, float]:
    """Return the percentile interval and the standard error of a statistic of the logarithms of
    several runs' median rates, (runs, resamples)."""

    def statistic(*resampled: Floats, axis: int) -> Any:
        return statistic_of(np.log([np.median(run, axis=axis) for run in resampled]))

    found = stats.bootstrap(
        [np.asarray(run, dtype=np.float64) for run in runs], statistic, vectorized=True,
        n_resamples=WINDOW_RESAMPLES, confidence_level=LEVEL, method="percentile",
        rng=np.random.default_rng(SEED),
    )  # fmt: skip
    interval = found.confidence_interval
    return float(interval.low), float(interval.high), float(found.standard_error)


def mean_share(values: Sequence[float]) -> Estimate:
    """Return the mean of one share a run, with a t interval from three runs on, within 0 and 1."""
    found = _capped(_mean_of_runs(np.asarray(values, dtype=np.float64)), 0.0)
    return replace(found, p=None, degrees=None)


def mean_rate(values: Sequence[float]) -> Estimate:
    """Return the geometric mean of one rate or time a run, so that two of them have the ratio that
    ``ratio`` gives; from three runs on, with the t interval of the logarithms. Raise ValueError if
    a value is not above 0."""
    if min(values) <= 0.0:
        raise ValueError("a rate is above 0")
    found = _mean_of_runs(np.log(np.asarray(values, dtype=np.float64)))
    return replace(_exp(found), p=None, degrees=None)


def _mean_of_runs(x: Floats) -> Estimate:
    """Return the mean of one figure a run; from three runs on, with a t interval."""
    seeds, mean = len(x), float(x.mean())
    if seeds < LEAST_SEEDS:
        return Estimate(mean, None, None, None, "models", seeds, 0)
    if np.ptp(x) <= ROUNDING * max(float(np.abs(x).max()), 1.0):
        return Estimate(mean, mean, mean, float(abs(mean) < ROUNDING), "recipes", seeds, 0)
    half, p = _t(mean, float(x.var(ddof=1)), seeds - 1.0, seeds)
    return Estimate(mean, mean - half, mean + half, p, "recipes", seeds, 0, seeds - 1.0)


def _exp(e: Estimate) -> Estimate:
    """Return the estimate of a figure from that of its logarithm."""
    low, high = (None if end is None else float(np.exp(end)) for end in (e.low, e.high))
    return replace(e, value=float(np.exp(e.value)), low=low, high=high)


def detectable(e: Estimate, comparisons: int) -> float | None:
    """Return the smallest difference that would be significant with this estimate's spread, as the
    first of so many comparisons (Holm's first step); None without an interval."""
    half = e.uncapped or e.half_width
    return half * _widening(e, comparisons) if half else None


def widened(e: Estimate, comparisons: int) -> Estimate:
    """Return an estimate whose interval holds jointly with those of so many others (Bonferroni); a
    ratio's is widened in its logarithm."""
    if e.low is None or e.high is None or comparisons < 2:
        return e
    by = _widening(e, comparisons)
    if e.is_ratio:
        low, high = (e.value * (end / e.value) ** by for end in (e.low, e.high))
        return replace(e, low=low, high=high)
    below, above = e.uncapped or e.value - e.low, e.uncapped or e.high - e.value
    return replace(e, low=e.value - below * by, high=e.value + above * by)


def _widening(e: Estimate, comparisons: int) -> float:
    """Return the factor by which an interval widens at the level of so many comparisons."""
    degrees = e.degrees or np.inf
    level = 1.0 - (1.0 - LEVEL) / comparisons / 2
    return float(special.stdtrit(degrees, level) / special.stdtrit(degrees, TAILS[1]))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the same order."""
    order, found = np.argsort(ps), np.ones(len(ps))
    steps = np.arange(len(ps), 0, -1) * np.asarray(ps)[order]
    found[order] = np.maximum.accumulate(np.minimum(steps, 1.0))
    return list(map(float, found))


def corrected(estimates: Sequence[Estimate | None]) -> list[float | None]:
    """Return the p value of each estimate, corrected for the number of those that have one."""
    ps = [None if e is None else e.p for e in estimates]
    found = iter(holm([p for p in ps if p is not None]))
    return [None if p is None else next(found) for p in ps]
