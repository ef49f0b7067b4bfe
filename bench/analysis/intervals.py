"""Estimates with 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from scipy import special, stats

from bench.analysis.scores import Scores

LEVEL = 0.95
SIGNIFICANT = 1.0 - LEVEL
ROUNDING = 1e-9
"""Relative difference below which figures are equal."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval; the ends are None if there is none."""

    value: float
    """Mean, difference or ratio."""
    low: float | None = None
    high: float | None = None
    error: float | None = None
    """Standard error; of a ratio, that of its logarithm. None without a t interval."""
    degrees: float = np.inf
    """Degrees of freedom of the t interval."""
    is_ratio: bool = False

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def neutral(self) -> float:
        """Value of no difference."""
        return 1.0 if self.is_ratio else 0.0

    @property
    def excludes_neutral(self) -> bool:
        """True if there is an interval, and the value of no difference lies outside."""
        return (
            self.low is not None
            and self.high is not None
            and not self.low <= self.neutral <= self.high
        )

    @property
    def reversed(self) -> Estimate:
        """The difference or ratio in the other direction."""
        if self.is_ratio:
            ends = (None if end is None else 1.0 / end for end in (self.high, self.low))
            return replace(self, value=1.0 / self.value, low=next(ends), high=next(ends))
        ends = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, value=-self.value, low=next(ends), high=next(ends))

    @property
    def p(self) -> float | None:
        """Two-sided p value of no difference; None without a t interval."""
        if self.error is None:
            return None
        gap = abs(np.log(self.value) if self.is_ratio else self.value)
        if self.error == 0.0:
            return float(gap < ROUNDING)
        return float(2 * special.stdtr(self.degrees, -gap / self.error))

    def is_within(self, margin: float) -> bool:
        """Return True if the true difference is shown to be at most ``margin``, or the logarithm of
        the true ratio: two one-sided tests (Schuirmann 1987), the 90 % interval inside."""
        if self.error is None:
            return False
        gap = abs(float(np.log(self.value)) if self.is_ratio else self.value)
        return gap + float(special.stdtrit(self.degrees, LEVEL)) * self.error <= margin


def t_interval(value: float, variance: float, degrees: float) -> Estimate:
    """Return an estimate with its t interval."""
    error = float(np.sqrt(variance))
    half = quantile(degrees) * error
    return Estimate(value, value - half, value + half, error, degrees)


def quantile(degrees: float) -> float:
    """Return the two-sided 95 % quantile of t."""
    return float(special.stdtrit(degrees, (1.0 + LEVEL) / 2))


def accuracy(scores: Scores, seeds: float, images: float, degrees: float) -> Estimate:
    """Return an accuracy with Wilson's interval at the effective number of images, which has the
    variance of seeds and images together (Korn and Graubard 1998, for samples that are clustered).

    Args:
        seeds: Variance of the accuracy that is due to the seeds.
        images: Variance that is due to the test images.
        degrees: Degrees of freedom of both together.
    """
    variance = max(seeds + images, ROUNDING)
    count = min(scores.slope / variance, float(scores.images))
    z = quantile(degrees)
    centre = (scores.mean + z**2 / (2 * count)) / (1 + z**2 / count)
    half = (
        z
        / (1 + z**2 / count)
        * np.sqrt(scores.mean * (1 - scores.mean) / count + z**2 / (4 * count**2))
    )
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    low, high = min(low, scores.mean), max(high, scores.mean)  # rounding at 0 and 1
    return Estimate(scores.mean, float(low), float(high))


def exponential(e: Estimate) -> Estimate:
    """Return the estimate of a ratio or rate from that of its logarithm."""
    low, high = (None if end is None else float(np.exp(end)) for end in (e.low, e.high))
    return replace(e, value=float(np.exp(e.value)), low=low, high=high, is_ratio=True)


def median_of_pairs(x: Sequence[float]) -> Estimate:
    """Return the Hodges–Lehmann estimate of the centre of differences with the interval of
    Wilcoxon's signed ranks, by the normal approximation with its correction for continuity; robust
    to a few disturbed runs."""
    values = np.sort(np.asarray(x, dtype=np.float64))
    n = len(values)
    first, second = np.triu_indices(n)
    walsh = np.sort((values[first] + values[second]) / 2)
    mean, sd = len(walsh) / 2, np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    rank = max(int(np.floor(mean - 0.5 - stats.norm.ppf((1 + LEVEL) / 2) * sd)), 0)
    low, high = float(walsh[rank]), float(walsh[-1 - rank])
    error = (high - low) / 2 / quantile(np.inf)
    return Estimate(float(np.median(walsh)), low, high, error)


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


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of values above 0."""
    return math.exp(fmean(map(math.log, values)))
