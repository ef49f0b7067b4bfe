"""The statistics of paired blocks: t-tests on log ratios, Holm's correction, and power.

A block gives one log ratio for each benchmark: the mean log time of its launches of B minus that of
its launches of A. Under the hypothesis that nothing changed, its distribution is symmetrical about
zero, because the order was drawn at random. The t-test on few such blocks keeps its level for
symmetrical distributions with heavier tails (it becomes conservative: Benjamini 1983, JASA 78).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Floats = npt.NDArray[np.float64]
GRID = 400
"""Points of the distribution of the standard deviation in ``power_of``."""
MOST_BLOCKS = 2000
"""Largest number of blocks that is recommended."""


class Estimate(NamedTuple):
    """A mean log ratio with its uncertainty."""

    mean: float
    """Mean of the log ratios: 0 where nothing changed."""
    standard_error: float
    """Standard error of the mean."""
    degrees_of_freedom: float
    """Degrees of freedom of the error; infinite if it is known."""

    def p_value(self) -> float:
        """Return the two-sided p-value against a ratio of 1."""
        if self.standard_error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.mean) / self.standard_error, self.degrees_of_freedom))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval of the ratio that misses the truth with probability ``level``."""
        half = 0.0
        if self.standard_error > 0:
            half = float(stats.t.isf(level / 2, self.degrees_of_freedom)) * self.standard_error
        return _exp(self.mean - half), _exp(self.mean + half)

    @property
    def ratio(self) -> float:
        """The ratio of times, B over A."""
        return _exp(self.mean)


def _exp(value: float) -> float:
    """Return the exponential, kept finite for hopeless estimates."""
    return math.exp(min(max(value, -700.0), 700.0))


def paired(log_ratios: Sequence[float] | Floats) -> Estimate:
    """Return the estimate of blocks, at least two."""
    values = np.asarray(log_ratios, np.float64)
    deviation = float(values.std(ddof=1))
    return Estimate(float(values.mean()), deviation / math.sqrt(len(values)), len(values) - 1)


def unpaired(before: Sequence[float], now: Sequence[float]) -> Estimate:
    """Return the estimate of launches of two sessions, at least two of each, as logs of times
    (Welch 1947, Biometrika 34: unequal variances)."""
    a, b = np.asarray(before, np.float64), np.asarray(now, np.float64)
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    variance = float(sum(parts))
    freedom = math.inf
    if variance > 0:
        freedom = variance**2 / float(parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    return Estimate(float(b.mean() - a.mean()), math.sqrt(variance), freedom)


def holm(p_values: Mapping[str, float], level: float) -> set[str]:
    """Return the hypotheses that are rejected while the chance of any false rejection is at most
    ``level`` (Holm 1979, Scandinavian Journal of Statistics 6)."""
    rejected = set[str]()
    for done, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p_value > level / (len(p_values) - done):
            break
        rejected.add(name)
    return rejected


def power_of(
    slowdown: float, blocks: int, spread: float, level: float, margin: float,
    confirm_level: float | None = None,
) -> float:  # fmt: skip
    """Return the chance that a look finds a slowdown: that its p-value is at most ``level`` and its
    estimate is past the margin, integrated over the distribution of the standard deviation.

    Args:
        slowdown: True slowdown, as a fraction.
        blocks: Number of blocks at the look.
        spread: Standard deviation of a block's log ratio, of normal distribution.
        level: Two-sided level of the test.
        margin: Slowdown that does not matter, as a fraction.
        confirm_level: One-sided level at which as many new blocks must confirm it; None if they
            need not.
    """
    true, least = math.log1p(slowdown), math.log1p(margin)
    error, freedom = spread / math.sqrt(blocks), blocks - 1
    if error == 0:
        return float(true > least)
    shares = (np.arange(GRID) + 0.5) / GRID
    estimated = error * np.sqrt(stats.chi2.ppf(shares, freedom) / freedom)
    needed = np.maximum(least, stats.t.isf(level / 2, freedom) * estimated)
    found = float(stats.norm.sf((needed - true) / error).mean())
    if confirm_level is None:
        return found
    again = stats.t.isf(confirm_level, freedom) * estimated
    return found * float(stats.norm.sf((again - true) / error).mean())


def smallest_found(
    blocks: int, spread: float, level: float, margin: float, power: float,
    confirm_level: float | None = None,
) -> float | None:  # fmt: skip
    """Return the smallest slowdown, as a fraction, that a look finds with the given power; None if
    even 100 times the time would not be found. See ``power_of`` for the other arguments."""
    reach = 99.0

    def lack(slowdown: float) -> float:
        return power_of(slowdown, blocks, spread, level, margin, confirm_level) - power

    if blocks < 2 or lack(reach) < 0:
        return None
    if lack(margin) >= 0:
        return margin
    return float(optimize.brentq(lack, margin, reach, xtol=1e-5))


def blocks_to_settle(
    estimate: float, spread: float, level: float, margin: float, done: int = 1
) -> int | None:
    """Return the number of blocks after which an interval about the same estimate would lie within
    the margin, or the estimate be past it and the interval leave out 1; None if too many.

    Args:
        estimate: Mean log ratio so far.
        spread: Standard deviation of a block's log ratio.
        level: Two-sided level of a look.
        margin: As a fraction.
        done: Number of blocks that did not settle it.
    """
    edge = math.log1p(margin)
    room = abs(estimate) if abs(estimate) > edge else edge - abs(estimate)
    for blocks in range(done + 1, MOST_BLOCKS):
        if stats.t.isf(level / 2, blocks - 1) * spread / math.sqrt(blocks) < room:
            return blocks
    return None
