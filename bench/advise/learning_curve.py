"""Learning curves: the error over the number of training images, and what more images would bring.

A power law, ``log error = a + b log n``, that is fitted to few images asks for many times too many,
as the error falls slowly at first (Jain et al. 2023, "A Meta-Learning Approach to Predicting
Performance and Data Requirements"). Their piecewise power law bends with ``c log² n`` up to a size
and is straight in logarithms after it. Here the bend ends at the largest measured size. The log
odds of the error, ``log(e / (1 − e))``, take the place of its logarithm: they are the same where
the error is small, and straighter where it is near chance. In the record their slopes lie between
−0.4 and −1.9 for seven kinds of data, those of the logarithms between −0.1 and −1.7. The fit is
weighted by the errors of the measurements, of which many are drawn to give intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear
from scipy.special import expit, logit

from bench.advise.advice import LEVEL

Floats = npt.NDArray[np.float64]
DRAWS = 400
LEAST_ERROR = 1e-3
"""Smallest error, and smallest accuracy, whose log odds are taken; nearer to 0 they grow without
bound."""
BEND_PRIOR = 0.15
"""Standard deviation, before any data, of the bend c: curves change their slope by a few tenths
over a tenfold number of images."""
SLOPE_PRIOR = (-0.35, 0.25)
"""Mean and standard deviation, before any data, of the slope at the largest size, where experience
(``Experience.probe_slope``, ``whole_slope``) gives none. Hestness et al. 2017, "Deep Learning
Scaling is Predictable, Empirically", find slopes from −0.07 to −0.35 for images; features of
pretrained networks begin steeper."""
STEEPEST = -1.5
"""Steepest slope: an error of a third falls no faster than 1 / n."""
Slope = tuple[float, float]
"""Mean and standard deviation of a slope, in log odds for each unit of log images."""
FAR = 16.0
"""``images_for`` and ``crossing`` search up to this multiple of the largest measured number of
images; ``gain`` and ``error`` have no limit."""


class Point(NamedTuple):
    """A measured error."""

    images: int
    """Number of training images."""
    error: float
    """1 − accuracy."""
    standard_error: float


class Forecast(NamedTuple):
    """A predicted value with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """A fitted curve, with draws of what it could be."""

    largest: int
    """Largest measured number of training images."""
    coefficients: Floats
    """(3,) log odds of the error at the largest size, slope there, bend."""
    draws: Floats
    """(D, 3) the same, refitted to drawn measurements."""

    def error(self, images: float) -> Forecast:
        """Predict the error with so many training images."""
        return _forecast(self.value(images), _errors(self.draws, images, self.largest))

    def gain(self, images: float, more: float) -> Forecast:
        """Predict by how much the accuracy rises with ``more`` images beside ``images``."""
        value = self.error(images).value - self.error(images + more).value
        before = _errors(self.draws, images, self.largest)
        return _forecast(value, before - _errors(self.draws, images + more, self.largest))

    def value(self, images: float) -> float:
        """Predict the error with so many training images, without an interval."""
        return float(_errors(self.coefficients[None], images, self.largest)[0])

    def images_for(self, error: float, present: float = 0.0) -> float | None:
        """Return the number of training images for an error; None if it takes more than ``FAR``
        times the largest measured number or, if that is larger, the ``present`` one."""
        sizes = np.geomspace(2.0, max(self.largest, present) * FAR, 500)
        is_short = np.array([self.value(size) > error for size in sizes])
        if is_short[-1]:
            return None
        # A bent curve may fall again below the measured sizes, where it says nothing.
        return float(sizes[np.flatnonzero(is_short)[-1] + 1]) if is_short.any() else 2.0


def crossing(before: LearningCurve, after: LearningCurve) -> float | None:
    """Return the number of training images from which on ``after`` has the smaller error; None if
    it has at all sizes, or at none up to ``FAR`` times the largest measured one."""
    largest = min(before.largest, after.largest)
    sizes = np.geomspace(2.0, largest * FAR, 500)
    is_ahead = np.array([after.value(n) < before.value(n) for n in sizes])
    if is_ahead.all() or not is_ahead[-1]:
        return None
    return float(sizes[np.flatnonzero(~is_ahead)[-1] + 1])


def slope_between(before: Point, after: Point) -> float:
    """Return the slope of a curve between two sizes."""
    rise = float(_log_odds(after.error) - _log_odds(before.error))
    return rise / float(np.log(after.images / before.images))


def _log_odds(error: npt.ArrayLike) -> Floats:
    odds: Floats = logit(np.clip(error, LEAST_ERROR, 1 - LEAST_ERROR))
    return odds


def fit_curve(
    points: Sequence[Point], random: np.random.Generator, slope: Slope = SLOPE_PRIOR
) -> LearningCurve:
    """Fit a curve to measured errors, at two sizes or more; raise ValueError for fewer.

    Args:
        slope: Of the slope at the largest size, before any data.
    """
    if len({point.images for point in points}) < 2:
        raise ValueError("a learning curve needs two sizes")
    sizes = np.array([point.images for point in points], float)
    errors = np.clip([point.error for point in points], LEAST_ERROR, 1.0)
    spread = np.maximum([point.standard_error for point in points], LEAST_ERROR)
    largest = float(sizes.max())
    best = _fit(sizes, errors, spread, slope)
    drawn = np.clip(errors + spread * random.standard_normal((DRAWS, len(sizes))), LEAST_ERROR, 1.0)
    # The prior is drawn, too, or its draws would be narrower than what is known.
    priors = random.standard_normal((DRAWS, 2))
    draws = np.array([
        _fit(sizes, row, spread, slope, shift) for row, shift in zip(drawn, priors, strict=True)
    ])  # fmt: skip
    return LearningCurve(int(largest), best, draws)


def _fit(
    sizes: Floats, errors: Floats, spread: Floats, slope: Slope,
    shift: Floats | Sequence[float] = (0.0, 0.0),
) -> Floats:  # fmt: skip
    """Fit (log odds of the error at the largest size, slope there, bend) by weighted least squares;
    ``shift`` moves the means of the priors of slope and bend, in standard deviations."""
    x = np.log(sizes / sizes.max())
    weight = errors * np.maximum(1 - errors, LEAST_ERROR) / spread  # of log odds
    design = np.stack([np.ones_like(x), x, np.square(x)], axis=1) * weight[:, None]
    target = _log_odds(errors) * weight
    mean, deviation = slope
    priors = np.array([[0.0, 1.0 / deviation, 0.0], [0.0, 0.0, 1.0 / BEND_PRIOR]])
    means = np.array([mean / deviation + shift[0], shift[1]])
    limits: Any = ([-np.inf, STEEPEST, -np.inf], [np.inf, 0.0, np.inf])
    found = lsq_linear(np.vstack([design, priors]), np.concatenate([target, means]), limits)
    return np.asarray(found.x, float)


def _errors(coefficients: Floats, images: float, largest: float) -> Floats:
    """Return the error of each of D curves (D, 3) with so many training images."""
    x = np.log(images / largest)
    bent = x if x < 0 else 0.0
    odds = coefficients[:, 0] + coefficients[:, 1] * x + coefficients[:, 2] * bent**2
    errors: Floats = expit(odds)
    return errors


def _forecast(value: float, draws: Floats) -> Forecast:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Forecast(value, float(min(low, value)), float(max(high, value)))
