"""Learning curves: what more images bring, against curves with a known truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.special import expit, logit

from bench.advise.learning_curve import (
    FAR,
    LearningCurve,
    Point,
    crossing,
    fit_curve,
    slope_between,
)

IMAGES = 400
"""Images on which an error is measured."""


def _measured(
    truth: Callable[[float], float], sizes: Sequence[int], random: np.random.Generator | None = None
) -> list[Point]:
    points = []
    for size in sizes:
        error = truth(size)
        spread = math.sqrt(error * (1 - error) / IMAGES)
        seen = error if random is None else random.binomial(IMAGES, error) / IMAGES
        points.append(Point(size, seen, spread))
    return points


def _slow_start(images: float) -> float:
    """Return an error that falls slowly at first, and by a power law later."""
    return 0.9 / (1 + (images / 60) ** 0.45)


def test_an_exact_power_law_is_continued() -> None:
    points = [Point(n, 2.0 * n**-0.35, 0.002) for n in (50, 100, 200, 400, 800)]
    curve = fit_curve(points, np.random.default_rng(0))
    assert curve.error(1600).value == pytest.approx(2.0 * 1600**-0.35, rel=0.03)
    assert curve.gain(800, 800).value == pytest.approx(2.0 * (800**-0.35 - 1600**-0.35), rel=0.1)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random, held = np.random.default_rng(1), 0
    for _ in range(60):
        curve = fit_curve(_measured(_slow_start, (50, 100, 200, 400), random), random)
        gain = curve.gain(400, 400)
        held += gain.low <= _slow_start(400) - _slow_start(800) <= gain.high
    assert held >= 0.87 * 60


def test_the_images_for_an_error_are_asked_for_without_twelve_times_too_many() -> None:
    random, asked, by_power_law = np.random.default_rng(2), [], []
    sizes = (25, 50, 100, 200)
    for _ in range(40):
        points = _measured(_slow_start, sizes, random)
        needed = fit_curve(points, random).images_for(_slow_start(800))
        asked.append((needed or math.inf) / 800)
        slope, offset = np.polyfit(np.log(sizes), np.log([p.error for p in points]), 1)
        by_power_law.append(math.exp((math.log(_slow_start(800)) - offset) / slope) / 800)
    assert 1 / 1.3 <= np.median(asked) <= 1.3
    assert np.median(by_power_law) > np.median(asked), "a power law asks for more"


def test_an_error_out_of_reach_has_no_number_of_images() -> None:
    points = [Point(n, 0.4 - 0.0001 * n, 0.02) for n in (50, 100, 200)]
    assert fit_curve(points, np.random.default_rng(0)).images_for(0.01) is None
    assert FAR < 100


def test_more_images_never_hurt_in_the_forecast() -> None:
    points = [Point(50, 0.2, 0.02), Point(100, 0.22, 0.02), Point(200, 0.25, 0.02)]
    gain = fit_curve(points, np.random.default_rng(0)).gain(200, 200)
    assert gain.value >= 0
    assert gain.low >= 0


def test_one_size_is_no_curve() -> None:
    with pytest.raises(ValueError, match="two sizes"):
        fit_curve([Point(10, 0.5, 0.1)] * 2, np.random.default_rng(0))


def test_the_size_at_which_two_curves_cross_is_found() -> None:
    """A head has 0.6 / n^0.2, the whole network 3 / n^0.5: they cross where n^0.3 = 5."""
    random, sizes = np.random.default_rng(0), (50, 100, 200, 400)
    head = fit_curve([Point(n, 0.6 * n**-0.2, 0.002) for n in sizes], random)
    whole = fit_curve([Point(n, 3.0 * n**-0.5, 0.002) for n in sizes], random)
    assert crossing(head, whole) == pytest.approx(5 ** (1 / 0.3), rel=0.1)
    assert crossing(whole, head) is None, "it is overtaken, and does not overtake"


def test_a_bend_below_the_measured_sizes_asks_for_no_few_images() -> None:
    """A slow start is a parabola in log odds, which falls again towards 2 images."""
    curve = LearningCurve(400, np.array([logit(0.4), -0.3, -0.1]), np.zeros((1, 3)))
    assert curve.value(2) < 0.3
    wanted = curve.images_for(0.3)
    assert wanted is not None
    assert wanted == pytest.approx(400 * math.exp((logit(0.4) - logit(0.3)) / 0.3), rel=0.02)


def test_a_curve_near_chance_is_continued_by_its_odds() -> None:
    """The log odds of an error fall by 0.8 for each unit of log images, from near chance (0.88) on:
    the slope of the logarithm grows tenfold on the way, and would ask for too many images."""

    def error(images: int) -> float:
        return float(expit(2.0 - 0.8 * math.log(images / 40)))

    points = [Point(n, error(n), 0.01) for n in (40, 100, 240)]
    curve = fit_curve(points, np.random.default_rng(0), (-0.8, 0.3))
    assert curve.images_for(error(1000)) == pytest.approx(1000, rel=0.05)
    assert slope_between(points[0], points[1]) == pytest.approx(-0.8)
